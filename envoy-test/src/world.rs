//! Everything together: an emulated Azure, an upstream, and an Envoy with the filter between them.

use anyhow::Result;
use serde_json::{Value, json};

use crate::client::{self, Answer};
use crate::emulator::{AppRegistration, Azure, Options, Server};
use crate::envoy::{Envoy, Setup, Tools};
use crate::upstream::{Received, Upstream};

/// The one tenant.
pub const TENANT: &str = "11111111-1111-1111-1111-111111111111";
/// The one application.
pub const CLIENT: &str = "22222222-2222-2222-2222-222222222222";
/// Its secret, with characters that need encoding.
pub const CLIENT_SECRET: &str = "cl13nt~s3cret+&=%";

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

fn merge(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(
            from.iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }
}

impl World {
    /// Starts everything: two workers, the client secret in the filter's environment, and in Azure what
    /// `seed` puts there.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start(tools: Tools, configuration: &Value, seed: impl FnOnce(&Azure)) -> Result<Self> {
        let azure = Azure::new();
        azure.add_app(AppRegistration {
            tenant: TENANT.to_owned(),
            client_id: CLIENT.to_owned(),
            client_secret: CLIENT_SECRET.to_owned(),
        });
        seed(&azure);
        let server = Server::start(&azure, Options::default())?;
        let upstream = Upstream::start()?;
        let envoy = Envoy::start(&Setup {
            tools,
            configuration: configuration.clone(),
            azure: server.tls,
            azure_ca: server.ca_pem().to_owned(),
            upstream: upstream.address,
            environment: vec![("AZURE_CLIENT_SECRET".to_owned(), CLIENT_SECRET.to_owned())],
            workers: 2,
        })?;
        Ok(Self {
            envoy,
            upstream,
            azure,
            server,
        })
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
