//! A real Envoy with the real filter in front of an upstream, as a value that stops when dropped. It
//! knows Envoy's configuration and nothing of what the filter is asked to do.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client;

/// How long Envoy may take until it serves; V8 compiles the filter for each VM in that time.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What an Envoy is started with.
#[derive(Clone)]
pub struct Setup {
    /// What to run.
    pub tools: Tools,
    /// The filter's configuration.
    pub configuration: Value,
    /// Where Entra ID and Key Vault are.
    pub azure: SocketAddr,
    /// The certificate that signs Azure's, as PEM.
    pub azure_ca: String,
    /// Where requests go.
    pub upstream: SocketAddr,
    /// The environment that the filter sees.
    pub environment: Vec<(String, String)>,
    /// Worker threads.
    pub workers: usize,
}

/// A running Envoy.
pub struct Envoy {
    /// Where it listens for requests.
    pub address: SocketAddr,
    /// Its admin interface.
    pub admin: SocketAddr,
    process: Child,
    folder: TempDir,
}

/// The root of the workspace: where `target/` is.
#[must_use]
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The programs that are run.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Envoy's binary.
    pub envoy: PathBuf,
    /// The filter.
    pub filter: PathBuf,
}

impl Tools {
    /// `$ENVOY_BIN` and `$AKV_FILTER_WASM`, else what `cargo xtask` put below `target/`.
    ///
    /// # Errors
    /// When one is missing, with what to do.
    pub fn find() -> Result<Self> {
        let find = |variable: &str, default: &str| {
            let given = std::env::var_os(variable).map(PathBuf::from);
            let path = given.unwrap_or_else(|| workspace().join(default));
            if !path.exists() {
                bail!(
                    "{} is not there; `cargo xtask test` makes it, or set {variable}",
                    path.display()
                );
            }
            Ok(path)
        };
        Ok(Self {
            envoy: find("ENVOY_BIN", "target/venv/bin/envoy")?,
            filter: find("AKV_FILTER_WASM", "target/dist/azure_key_vault_filter.wasm")?,
        })
    }
}

impl Envoy {
    /// Starts Envoy and waits until it serves.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub fn start(setup: &Setup) -> Result<Self> {
        let folder = TempDir::with_prefix("akv-envoy-").context("making a folder for Envoy")?;
        let (address, admin) = free_addresses()?;
        let bootstrap = bootstrap(setup, address, admin);
        let path = folder.path().join("envoy.json");
        fs::write(&path, serde_json::to_vec_pretty(&bootstrap)?)
            .context("writing Envoy's configuration")?;
        let log = fs::File::create(folder.path().join("envoy.log"))?;
        let process = Command::new(&setup.tools.envoy)
            .arg("--config-path")
            .arg(&path)
            .args(["--concurrency", &setup.workers.to_string()])
            .args([
                "--disable-hot-restart",
                "--log-level",
                "warning",
                "--component-log-level",
                "wasm:trace",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting Envoy")?;
        let mut envoy = Self {
            address,
            admin,
            process,
            folder,
        };
        envoy.wait_until_it_serves()?;
        Ok(envoy)
    }

    fn wait_until_it_serves(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            let ready =
                client::get(self.admin, "/ready", &[]).is_ok_and(|a| a.text().trim() == "LIVE");
            if ready && std::net::TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            let ended = self.process.try_wait()?;
            if ended.is_some() || start.elapsed() > START_LIMIT {
                bail!(
                    "Envoy does not serve ({ended:?}); the end of its log:\n{}",
                    tail(&self.log(), 30)
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What Envoy and the filter have logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(self.folder.path().join("envoy.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A counter or gauge.
    ///
    /// # Errors
    /// When there is no such statistic.
    pub fn stat(&self, name: &str) -> Result<u64> {
        let stats = client::get(self.admin, "/stats", &[])?.text();
        let found = stats
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let value = found.with_context(|| format!("Envoy has no statistic {name}"))?;
        Ok(value.trim().parse()?)
    }

    /// The folder with its configuration, for whoever wants to look.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}

/// Two addresses that nobody listens on now. Envoy itself could take any free port for its listener, but
/// would tell it in its admin interface only, whose port has to be known.
fn free_addresses() -> Result<(SocketAddr, SocketAddr)> {
    let one = TcpListener::bind("127.0.0.1:0")?;
    let two = TcpListener::bind("127.0.0.1:0")?;
    Ok((one.local_addr()?, two.local_addr()?))
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn bootstrap(setup: &Setup, address: SocketAddr, admin: SocketAddr) -> Value {
    json!({
        "admin": { "address": socket(admin) },
        "static_resources": {
            "listeners": [{
                "name": "requests",
                "address": socket(address),
                "filter_chains": [{ "filters": [connection_manager(setup)] }],
            }],
            "clusters": [
                cluster("upstream", setup.upstream, None),
                cluster("azure_identity", setup.azure, Some(("login.microsoftonline.com", &setup.azure_ca))),
                cluster("key_vault", setup.azure, Some(("emulated.vault.azure.net", &setup.azure_ca))),
                // Nobody listens there.
                cluster("nobody", SocketAddr::from(([127, 0, 0, 1], 1)), None),
            ],
        },
    })
}

fn connection_manager(setup: &Setup) -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "requests",
            // Room for the 60 KB headers of the tests.
            "max_request_headers_kb": 256,
            "route_config": { "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }],
            }] },
            "http_filters": [
                wasm_filter(setup),
                { "name": "envoy.filters.http.router",
                  "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } },
            ],
        },
    })
}

fn wasm_filter(setup: &Setup) -> Value {
    let environment: serde_json::Map<String, Value> = setup
        .environment
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    json!({
        "name": "azure_key_vault",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "azure_key_vault",
                "root_id": "azure_key_vault",
                // The default leaves a worker answering 503 for good after a crash; FAIL_OPEN would let
                // references through to the upstream.
                "failure_policy": "FAIL_RELOAD",
                "vm_config": {
                    // Its own: all filters of one vm_id can read each other's shared data.
                    "vm_id": "azure_key_vault",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": setup.tools.filter } },
                    "environment_variables": { "key_values": environment },
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": setup.configuration.to_string(),
                },
            },
        },
    })
}

fn cluster(name: &str, address: SocketAddr, tls: Option<(&str, &str)>) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(address) } }] }],
        },
        // The default of 1024 calls at a time would turn a flood of cold requests away.
        "circuit_breakers": { "thresholds": [{ "max_pending_requests": 4096, "max_requests": 4096 }] },
    });
    if let Some((host, ca)) = tls {
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": host,
                "common_tls_context": { "validation_context": {
                    "trusted_ca": { "inline_string": ca },
                    "match_typed_subject_alt_names": [{ "san_type": "DNS", "matcher": { "exact": san(host) } }],
                } },
            },
        });
    }
    cluster
}

/// Vaults have a wildcard certificate, as Azure's have.
fn san(host: &str) -> String {
    host.split_once(".vault.").map_or_else(
        || host.to_owned(),
        |(_, suffix)| format!("*.vault.{suffix}"),
    )
}
