//! A [`World`] for a whole file of tests: one Envoy with several listeners, each with a filter and a VM of its
//! own, in front of scripted upstreams over HTTP/1.1 (paths below `/h1/`) and HTTP/2 (below `/h2/`). It does
//! not know what the filters are asked to do.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::emulator::Azure;
use crate::envoy::{
    Listener, Tools, add_cluster, add_listener, add_route, manager_of, set_listener,
};
use crate::exchange::{Client, Version};
use crate::scripted::Scripted;
use crate::world::{CLIENT_SECRET, World};

/// What is running. Fields are dropped in this order: Envoy goes first.
pub struct Lab {
    /// Envoy, Azure, and the upstream of all paths that are neither below `/h1/` nor `/h2/`.
    pub world: World,
    /// The upstream of paths below `/h1/` and `/h2/`.
    pub upstream: Scripted,
    listeners: BTreeMap<String, SocketAddr>,
    runtime: Runtime,
}

impl Lab {
    /// Starts everything, with as many workers, after `change` was made to Envoy's configuration (which then
    /// has one listener, like which all are made) and with what `seed` puts into Azure.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start(
        workers: usize,
        listeners: &[Listener<'_>],
        change: impl FnOnce(&mut Value),
        seed: impl FnOnce(&Azure),
    ) -> Result<Self> {
        let (first, rest) = listeners.split_first().context("a lab has a listener")?;
        let runtime = Runtime::new().context("starting a runtime")?;
        let upstream = runtime.block_on(Scripted::start())?;
        let complete = |all: &mut Value| {
            add_upstreams(all, upstream.address);
            change(all);
            set_listener(all, first);
            for listener in rest {
                add_listener(all, listener);
            }
        };
        let secret = vec![("AZURE_CLIENT_SECRET", CLIENT_SECRET.to_owned())];
        let tools = Tools::find()?;
        let configuration = &first.configuration;
        let world = World::launch(tools, configuration, workers, |_| secret, complete, seed)?;
        let listeners = world.envoy.listeners()?;
        Ok(Self {
            world,
            upstream,
            listeners,
            runtime,
        })
    }

    /// Where the listener of this name listens.
    ///
    /// # Panics
    /// When there is none: then the test is wrong.
    #[must_use]
    pub fn at(&self, listener: &str) -> SocketAddr {
        let address = self.listeners.get(listener);
        *address.unwrap_or_else(|| panic!("no listener is named {listener}"))
    }

    /// Runs a test's steps, and shows the end of Envoy's log when they fail.
    ///
    /// # Panics
    /// When they fail, or when a filter crashed or wrote one of these secrets into the log.
    pub fn run(&self, secrets: &[&str], steps: impl Future<Output = Result<()>>) {
        if let Err(error) = self.runtime.block_on(steps) {
            let log = self.world.envoy.log();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(25);
            let end = lines.get(from..).unwrap_or_default().join("\n");
            panic!("{error:#}\nthe end of Envoy's log:\n{end}");
        }
        self.world.assert_clean(secrets);
    }

    /// Connects to a listener.
    ///
    /// # Errors
    /// When it does not listen.
    pub async fn client(&self, listener: &str, version: Version) -> Result<Client> {
        Client::connect(self.at(listener), version).await
    }
}

/// The path of `name` at the upstream that speaks this version.
#[must_use]
pub fn path(upstream: Version, name: &str) -> String {
    match upstream {
        Version::Http1 => format!("/h1/{name}"),
        Version::Http2 => format!("/h2/{name}"),
    }
}

fn add_upstreams(all: &mut Value, upstream: SocketAddr) {
    let manager = manager_of(&mut all["static_resources"]["listeners"][0]);
    manager["http_protocol_options"] = json!({ "enable_trailers": true });
    for (prefix, cluster, http2) in [("/h1/", "http1", false), ("/h2/", "http2", true)] {
        add_cluster(all, cluster, upstream, http2);
        // Streams may take their time.
        let route = json!({ "cluster": cluster, "timeout": "0s" });
        add_route(
            all,
            json!({ "match": { "prefix": prefix }, "route": route }),
        );
    }
}
