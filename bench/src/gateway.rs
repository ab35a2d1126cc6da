//! An Envoy that answers by itself behind one filter a listener: ours and its peers, in one process, so
//! that what is compared differs in the filter only. It knows how each is configured.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use envoy_test::client;
use envoy_test::emulator::{AppRegistration, Azure, Options, Server};
use envoy_test::envoy::{Envoy, FilterLog, Setup, Tools, bootstrap};
use envoy_test::world::{CLIENT, CLIENT_SECRET, TENANT, configuration};
use serde_json::{Value, json};

use crate::floor::Floor;
use crate::process::Workers;

/// How long the filter may take until it has its secrets.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// What is run.
#[derive(Clone)]
pub(crate) struct Programs {
    pub(crate) tools: Tools,
    /// The Wasm peers.
    pub(crate) peer: PathBuf,
    /// The folder with the least that a filter can be.
    pub(crate) floor: PathBuf,
}

/// What stands between a request and its answer.
#[derive(Clone, Debug)]
pub(crate) enum Filter {
    Nothing,
    /// This filter, with this `request` section.
    Ours(Value),
    /// The peer in Wasm, with its configuration.
    Wasm(&'static str),
    /// The least that a filter can be.
    Floor(Floor),
    /// A script.
    Lua(&'static str),
    /// Envoy's own filter that sets a fixed header.
    CredentialInjector,
}

/// Everything that is needed around one Envoy.
pub(crate) struct Gateway {
    pub(crate) envoy: Envoy,
    pub(crate) workers: Workers,
    pub(crate) azure: Azure,
    addresses: BTreeMap<String, SocketAddr>,
    _server: Server,
}

impl Gateway {
    /// Starts an Envoy with a listener for each of these filters, after `seed` has put secrets into Azure.
    pub(crate) fn start(
        programs: &Programs,
        workers: usize,
        filters: &[(&str, Filter)],
        seed: impl FnOnce(&Azure),
    ) -> Result<Self> {
        let azure = Azure::new();
        azure.add_app(AppRegistration {
            tenant: TENANT.to_owned(),
            client_id: CLIENT.to_owned(),
            client_secret: CLIENT_SECRET.to_owned(),
        });
        seed(&azure);
        let server = Server::start(&azure, Options::default())?;
        let setup = Setup {
            tools: programs.tools.clone(),
            configuration: json!({}),
            azure: server.tls,
            azure_plain: server.plain,
            azure_ca: server.ca_pem().to_owned(),
            upstream: server.plain,
            environment: vec![("AZURE_CLIENT_SECRET".to_owned(), CLIENT_SECRET.to_owned())],
            workers,
        };
        let all = with_listeners(bootstrap(&setup), filters, programs)?;
        let binary = &programs.tools.envoy;
        let envoy = Envoy::run_logging(binary, workers, &all, FilterLog::Warnings)?;
        Ok(Self {
            workers: Workers::of(envoy.process_id())?,
            addresses: envoy.listeners()?,
            envoy,
            azure,
            _server: server,
        })
    }

    /// Where the listener of this name listens.
    pub(crate) fn address(&self, name: &str) -> Result<SocketAddr> {
        let found = self.addresses.get(name).copied();
        found.with_context(|| format!("Envoy has no listener {name}"))
    }

    /// Waits until a request through this listener is answered, and this header went on with this value if
    /// one is given: only a filter that does its work is measured.
    pub(crate) fn until_it_works(
        &self,
        name: &str,
        headers: &[(&str, &str)],
        header: &str,
        value: Option<&str>,
    ) -> Result<()> {
        let start = Instant::now();
        let asked: Vec<(&str, &[u8])> = std::iter::once((CHECK, b"1".as_slice()))
            .chain(
                headers
                    .iter()
                    .map(|(name, value)| (*name, value.as_bytes())),
            )
            .collect();
        let answer_has = format!("{SAW}{header}");
        loop {
            let answer = client::get(self.address(name)?, "/", &asked)?;
            let seen = answer.header(&answer_has);
            if answer.status == 200 && value.is_none_or(|value| seen == Some(value)) {
                return Ok(());
            }
            ensure!(
                start.elapsed() < READY_LIMIT,
                "{name}: {} {:?} {}\n{}",
                answer.status,
                seen,
                answer.text(),
                self.envoy.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A request with this header is answered with what its headers became.
const CHECK: &str = "x-bench-check";
const SAW: &str = "x-bench-saw-";
/// The headers that are told.
const TOLD: [&str; 2] = ["x-key", "x-key-0"];

fn with_listeners(
    mut bootstrap: Value,
    filters: &[(&str, Filter)],
    programs: &Programs,
) -> Result<Value> {
    let resources = &mut bootstrap["static_resources"];
    let template = resources["listeners"][0].take();
    let listeners = filters.iter().map(|(name, filter)| {
        let mut listener = template.clone();
        listener["name"] = json!(name);
        let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
        manager["common_http_protocol_options"] = json!({ "max_headers_count": 400 });
        manager["route_config"] = answers_itself();
        let ours = manager["http_filters"][0].take();
        let filter = match filter {
            Filter::Nothing => None,
            Filter::Ours(request) => Some(configured(
                ours,
                name,
                &configuration_of(request).to_string(),
            )),
            Filter::Wasm(work) => Some(from_file(configured(ours, name, work), &programs.peer)),
            Filter::Floor(floor) => Some(from_file(
                configured(ours, name, ""),
                &floor.file(&programs.floor),
            )),
            Filter::Lua(script) => Some(json!({
                "name": "lua",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                    "default_source_code": { "inline_string": script },
                },
            })),
            Filter::CredentialInjector => Some(credential_injector()),
        };
        let filters = manager["http_filters"].as_array_mut().context("filters")?;
        filters.remove(0);
        if let Some(filter) = filter {
            filters.insert(0, filter);
        }
        Ok(listener)
    });
    resources["listeners"] = Value::Array(listeners.collect::<Result<_>>()?);
    resources["secrets"] = json!([{
        "name": "fixed",
        "generic_secret": { "secret": { "inline_string": "Bearer fixed-value-01" } },
    }]);
    Ok(bootstrap)
}

/// The whole configuration with this `request` section; fetching is not to be what is measured.
fn configuration_of(request: &Value) -> Value {
    let rest = json!({
        "request": request,
        "max_fetches_per_second": 100_000,
        "max_fetches_in_flight": 200,
    });
    configuration(&json!({}), &rest)
}

/// The Wasm filter in a VM of its own.
fn configured(mut filter: Value, name: &str, configuration: &str) -> Value {
    let config = &mut filter["typed_config"]["config"];
    config["name"] = json!(name);
    config["vm_config"]["vm_id"] = json!(name);
    config["configuration"]["value"] = json!(configuration);
    filter
}

fn from_file(mut filter: Value, file: &Path) -> Value {
    let vm = &mut filter["typed_config"]["config"]["vm_config"];
    vm["code"]["local"]["filename"] = json!(file);
    filter
}

fn answers_itself() -> Value {
    let told = TOLD.map(|name| {
        json!({
            "header": { "key": format!("{SAW}{name}"), "value": format!("%REQ({name})%") },
            "keep_empty_value": false,
        })
    });
    let answer = json!({ "status": 200 });
    json!({ "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [
        {
            "match": { "prefix": "/", "headers": [{ "name": CHECK, "present_match": true }] },
            "direct_response": answer,
            "response_headers_to_add": told,
        },
        { "match": { "prefix": "/" }, "direct_response": answer },
    ] }] })
}

fn credential_injector() -> Value {
    json!({
        "name": "credential_injector",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
            "overwrite": true,
            "credential": {
                "name": "generic",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic",
                    "credential": { "name": "fixed" },
                    "header": "x-key",
                },
            },
        },
    })
}
