//! Everything together: an emulated Azure, an upstream, and an Envoy with the filter between them.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use crate::client::{self, Answer};
use crate::emulator::{AppRegistration, Azure, Options, Server};
use crate::envoy::{Envoy, Listener, Setup, Tools, bootstrap};
use crate::leaks;
use crate::upstream::{Received, Upstream};

/// The one tenant.
pub const TENANT: &str = "11111111-1111-1111-1111-111111111111";
/// The one application.
pub const CLIENT: &str = "22222222-2222-2222-2222-222222222222";
/// Its secret, with characters that need encoding.
pub const CLIENT_SECRET: &str = "cl13nt~s3cret+&=%";

/// Types of bodies in which tests have references resolved: one of each kind that the filter reads.
pub const BODY_TYPES: [&str; 3] = [
    "application/json",
    "application/x-www-form-urlencoded",
    "text/plain",
];

/// A running gateway with its surroundings. Fields are dropped in this order: Envoy goes first.
pub struct World {
    /// The gateway.
    pub envoy: Envoy,
    /// What it sends requests to.
    pub upstream: Upstream,
    /// What it gets secrets from.
    pub azure: Azure,
    /// Azure's sockets.
    pub server: Server,
}

/// The filter's configuration with one vault, whose prefix is `azure`. `vault` is merged into the vault's
/// `config`, `rest` into the whole.
#[must_use]
pub fn configuration(vault: &Value, rest: &Value) -> Value {
    let mut config = json!({
        "vault_uri": "https://emulated.vault.azure.net",
        "tenant_id": TENANT,
        "client_id": CLIENT,
        "vault_cluster": "key_vault",
        "identity_cluster": "azure_identity",
    });
    merge(&mut config, vault);
    let mut whole = json!({ "vaults": [{ "name": "azure", "prefix": "azure", "config": config }] });
    merge(&mut whole, rest);
    whole
}

/// A listener whose filter has the vault of [`configuration`] with a `ttl` of 300 s, and `rest`.
#[must_use]
pub fn listener<'a>(name: &'a str, rest: &Value, holds_headers: bool) -> Listener<'a> {
    Listener {
        name,
        configuration: configuration(&json!({ "ttl": 300 }), rest),
        holds_headers,
    }
}

fn merge(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(
            from.iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }
}

/// The first certificate in a PEM file, as DER.
///
/// # Panics
/// When there is none: then a test's own data is wrong.
#[must_use]
pub fn certificate_of(pem: &Path) -> Vec<u8> {
    let pem = std::fs::read(pem).expect("the PEM file is there");
    let certificate = CertificateDer::pem_slice_iter(&pem).next();
    certificate.expect("a certificate").expect("PEM").to_vec()
}

impl World {
    /// Starts everything: two workers, the client secret in the filter's environment, and in Azure what
    /// `seed` puts there.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start(tools: Tools, configuration: &Value, seed: impl FnOnce(&Azure)) -> Result<Self> {
        let secret = [("AZURE_CLIENT_SECRET", CLIENT_SECRET.to_owned())];
        Self::start_as(tools, configuration, |_| secret.into(), seed)
    }

    /// The same with this environment for the filter, which may name the emulator's plain port.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start_as(
        tools: Tools,
        configuration: &Value,
        environment: impl FnOnce(SocketAddr) -> Vec<(&'static str, String)>,
        seed: impl FnOnce(&Azure),
    ) -> Result<Self> {
        Self::start_changed(tools, configuration, environment, |_| {}, seed)
    }

    /// The same after `change` was made to Envoy's configuration.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start_changed(
        tools: Tools,
        configuration: &Value,
        environment: impl FnOnce(SocketAddr) -> Vec<(&'static str, String)>,
        change: impl FnOnce(&mut Value),
        seed: impl FnOnce(&Azure),
    ) -> Result<Self> {
        Self::launch(tools, configuration, 2, environment, change, seed)
    }

    /// The same with this many workers.
    ///
    /// # Errors
    /// When something does not start.
    pub fn launch(
        tools: Tools,
        configuration: &Value,
        workers: usize,
        environment: impl FnOnce(SocketAddr) -> Vec<(&'static str, String)>,
        change: impl FnOnce(&mut Value),
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
        let upstream = Upstream::start()?;
        let setup = Setup {
            tools,
            configuration: configuration.clone(),
            azure: server.tls,
            azure_ca: server.ca_pem().to_owned(),
            upstream: upstream.address,
            azure_plain: server.plain,
            environment: environment(server.plain)
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            workers,
        };
        let mut all = bootstrap(&setup);
        change(&mut all);
        let envoy = Envoy::run(&setup.tools.envoy, workers, &all)?;
        Ok(Self {
            envoy,
            upstream,
            azure,
            server,
        })
    }

    /// What must hold at the end of every test: no filter crashed, and none of these is in Envoy's log.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn assert_clean(&self, secrets: &[&str]) {
        let log = self.envoy.log();
        let reloads = self.envoy.vm_reloads();
        assert_eq!(
            reloads.expect("the statistic"),
            0,
            "the filter crashed:\n{log}"
        );
        if let Some(form) = leaks::find(&log, secrets) {
            panic!("{form} is in the log:\n{log}");
        }
    }

    /// Sends a request through the gateway. Returns the answer, and what the upstream got if it got it.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn request(&self, headers: &[(&str, &[u8])]) -> Result<(Answer, Option<Received>)> {
        let _ = self.upstream.take();
        let answer = client::get(self.envoy.address, "/", headers)?;
        Ok((answer, self.upstream.take().pop()))
    }
}
