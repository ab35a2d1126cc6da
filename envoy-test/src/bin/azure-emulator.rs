//! The Azure emulator as a program of its own, for trying a gateway by hand.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser;
use envoy_test::emulator::{AppRegistration, Azure, Options, Server, TestCa};
use serde_json::{Value, json};

/// Emulates Microsoft Entra ID and Azure Key Vault.
#[derive(Parser)]
struct Arguments {
    /// The port for HTTPS: Entra ID and Key Vault.
    #[arg(long, default_value_t = 8443)]
    tls_port: u16,
    /// The port for HTTP: managed identity and the admin API.
    #[arg(long, default_value_t = 8444)]
    plain_port: u16,
    /// Where to listen. The admin API has no password: anything else than this machine is for containers.
    #[arg(long, default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Where to write the certificate of the emulator's authority.
    #[arg(long, default_value = "emulator-ca.pem")]
    ca: PathBuf,
    /// Where to keep the authority's key: with it, the authority that is there is used again after a restart.
    #[arg(long)]
    ca_key: Option<PathBuf>,
    /// A JSON object of secrets' names and values to begin with; `VAULT/NAME` is in `https://VAULT.vault.azure.net`.
    #[arg(long)]
    seed: Option<PathBuf>,
    /// The tenant of the one app registration there is.
    #[arg(long, default_value = "11111111-1111-1111-1111-111111111111")]
    tenant: String,
    /// Its client id.
    #[arg(long, default_value = "22222222-2222-2222-2222-222222222222")]
    client_id: String,
    /// Its client secret.
    #[arg(
        long,
        env = "AZURE_CLIENT_SECRET",
        default_value = "emulator-client-secret"
    )]
    client_secret: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let azure = Azure::new();
    azure.add_app(AppRegistration {
        tenant: arguments.tenant,
        client_id: arguments.client_id,
        client_secret: arguments.client_secret,
    });
    if let Some(path) = &arguments.seed {
        seed(&azure, path)?;
    }
    let options = Options {
        tls_port: arguments.tls_port,
        plain_port: arguments.plain_port,
        address: Some(arguments.listen),
    };
    let ca = &arguments.ca;
    let kept = arguments.ca_key.as_deref().filter(|key| key.exists());
    let authority = match kept {
        Some(key) if ca.exists() => TestCa::load(&read(ca)?, &read(key)?)?,
        _ => TestCa::new()?,
    };
    let server = Server::start_with(&azure, options, &authority)?;
    if let Some(key) = &arguments.ca_key {
        keep(key, &authority.key_pem())?;
    }
    fs::write(ca, server.ca_pem()).with_context(|| format!("writing {}", ca.display()))?;
    println!(
        "Entra ID and Key Vault: https://localhost:{}",
        server.tls.port()
    );
    println!(
        "admin and managed identity: http://localhost:{}/admin/",
        server.plain.port()
    );
    println!("certificate authority: {}", ca.display());
    loop {
        std::thread::park();
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// Nobody else may read it.
fn keep(path: &Path, key: &str) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(key.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}

fn seed(azure: &Azure, path: &PathBuf) -> Result<()> {
    let what = || format!("reading the secrets in {}", path.display());
    let text = fs::read_to_string(path).with_context(what)?;
    let secrets: serde_json::Map<String, Value> = serde_json::from_str(&text).with_context(what)?;
    for (name, value) in &secrets {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), ToOwned::to_owned);
        match name.split_once('/') {
            Some((vault, name)) => azure.set_secret_in(vault, name, &json!({ "value": value })),
            None => azure.set_secret(name, &value),
        }
    }
    Ok(())
}
