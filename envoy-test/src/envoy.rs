//! A real Envoy with the real filter in front of an upstream, as a value that stops when dropped. It
//! knows Envoy's configuration and nothing of what the filter is asked to do.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{self, Answer};

/// How long Envoy may take until it serves; V8 compiles the filter for each VM in that time.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to stop when it is asked to, before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(10);
/// Runs Envoy in place of the shell (so that its process ID is the child's) beside a watcher that waits until
/// the other end of its standard input is closed. That happens also when the test process is killed, or ends
/// without dropping what a `static` holds: Envoy would run on. The watcher stops its parent only, never a
/// process that was given the same ID later.
const WATCHED: &str = r#"exec 3<&0
(
    cat <&3 >/dev/null
    read -r _ _ _ parent _ </proc/self/stat
    if [ "$parent" = "$$" ]; then
        kill -TERM "$$"
        sleep 2
        read -r _ _ _ parent _ </proc/self/stat
        if [ "$parent" = "$$" ]; then kill -KILL "$$"; fi
    fi
    rm -rf "$AKV_ENVOY_FOLDER"
) 3<&3 >/dev/null 2>&1 &
exec 3<&- </dev/null
exec "$@"
"#;

/// What an Envoy is started with.
#[derive(Clone)]
pub struct Setup {
    /// What to run.
    pub tools: Tools,
    /// The filter's configuration.
    pub configuration: Value,
    /// Where Entra ID and Key Vault are.
    pub azure: SocketAddr,
    /// Where managed identities and federated tokens come from, without TLS.
    pub azure_plain: SocketAddr,
    /// The certificate that signs Azure's, as PEM.
    pub azure_ca: String,
    /// Where requests go.
    pub upstream: SocketAddr,
    /// The environment that the filter sees.
    pub environment: Vec<(String, String)>,
    /// Worker threads.
    pub workers: usize,
}

/// A listener with a filter of its own, which runs in a VM of its own.
#[derive(Clone, Debug)]
pub struct Listener<'a> {
    /// The name of the listener and of its filter.
    pub name: &'a str,
    /// The filter's configuration.
    pub configuration: Value,
    /// Whether a pause in the header phase holds the headers only (`allow_on_headers_stop_iteration` in the
    /// plugin's configuration, Envoy 1.35 and later). Without it such a pause keeps the body back, too.
    pub holds_headers: bool,
}

/// How much of what filters log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterLog {
    /// All of it, for tests.
    All,
    /// Warnings and errors, as in production.
    Warnings,
}

/// A running Envoy.
pub struct Envoy {
    /// Where it listens for requests (its first listener).
    pub address: SocketAddr,
    /// Its admin interface.
    pub admin: SocketAddr,
    process: Process,
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
    /// Envoy as [`envoy_binary`] finds it, and `$AKV_FILTER_WASM`, else the filter that `cargo xtask` put
    /// into `target/dist`.
    ///
    /// # Errors
    /// When one is missing, with what to do.
    pub fn find() -> Result<Self> {
        Self::with_filter("AKV_FILTER_WASM", "target/dist")
    }

    /// The same with the filter that has every feature: `$AKV_FULL_FILTER_WASM`, else
    /// `target/dist/full`.
    ///
    /// # Errors
    /// When one is missing, with what to do.
    pub fn find_full() -> Result<Self> {
        Self::with_filter("AKV_FULL_FILTER_WASM", "target/dist/full")
    }

    fn with_filter(variable: &str, folder: &str) -> Result<Self> {
        let file = workspace().join(folder).join("azure_key_vault_filter.wasm");
        let filter = locate(variable, std::env::var_os(variable), [file])?;
        let envoy = envoy_binary()?;
        Ok(Self { envoy, filter })
    }
}

/// `$ENVOY_BIN`, else what `cargo xtask` put into `target/venv`, else the one on the path.
///
/// # Errors
/// When there is none, with what to do.
pub fn envoy_binary() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("envoy"));
    let ours = workspace().join("target/venv/bin/envoy");
    let places = std::iter::once(ours).chain(on_path);
    locate("ENVOY_BIN", std::env::var_os("ENVOY_BIN"), places)
}

/// What the variable gives, whether that is right or not, else the first of these places that has it.
fn locate(
    variable: &str,
    given: Option<OsString>,
    places: impl IntoIterator<Item = PathBuf>,
) -> Result<PathBuf> {
    let mut places = given.map_or_else(
        || places.into_iter().collect(),
        |given| vec![PathBuf::from(given)],
    );
    if let Some(found) = places.iter().position(|place| place.is_file()) {
        return Ok(places.swap_remove(found));
    }
    let first = places.first().map(|place| place.display().to_string());
    bail!(
        "{} is not there; `cargo xtask test` makes what is missing and runs the tests, or set {variable}",
        first.unwrap_or_default()
    )
}

impl Envoy {
    /// Starts Envoy with the filter and waits until it serves.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub fn start(setup: &Setup) -> Result<Self> {
        Self::run(&setup.tools.envoy, setup.workers, &bootstrap(setup))
    }

    /// Starts Envoy with any configuration that has an admin interface and a listener, and waits until
    /// it serves. Ports may be 0: both addresses are asked of the running Envoy, so that no two of them
    /// can be given the same.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn run(envoy: &Path, workers: usize, bootstrap: &Value) -> Result<Self> {
        Self::run_logging(envoy, workers, bootstrap, FilterLog::All)
    }

    /// The same with as much of the filter's log as is asked for: writing all of it takes time.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn run_logging(
        envoy: &Path,
        workers: usize,
        bootstrap: &Value,
        log: FilterLog,
    ) -> Result<Self> {
        let mut process = Process::start(envoy, workers, bootstrap, log)?;
        let start = Instant::now();
        loop {
            if let Some((admin, address)) = process.serving() {
                return Ok(Self {
                    address,
                    admin,
                    process,
                });
            }
            let ended = process.child.try_wait()?;
            if ended.is_some() || start.elapsed() > START_LIMIT {
                bail!(
                    "Envoy does not serve ({}); the end of its log:\n{}",
                    why(ended),
                    tail(&process.log(), 30)
                );
            }
            thread::sleep(PAUSE);
        }
    }

    /// What Envoy and the filter have logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Asks the admin interface.
    ///
    /// # Errors
    /// When it does not answer, or with something else than 200.
    pub fn admin_get(&self, path: &str) -> Result<Answer> {
        let answer = client::get(self.admin, path, &[])?;
        anyhow::ensure!(
            answer.status == 200,
            "Envoy's admin interface answers {} to {path}: {}",
            answer.status,
            answer.text()
        );
        Ok(answer)
    }

    /// A counter or gauge.
    ///
    /// # Errors
    /// When there is no such statistic.
    pub fn stat(&self, name: &str) -> Result<u64> {
        let stats = self.admin_get("/stats")?.text();
        let found = stats
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let value = found.with_context(|| format!("Envoy has no statistic {name}"))?;
        let value = value.trim();
        let number = value.parse();
        number.with_context(|| format!("Envoy's statistic {name} is no number: {value}"))
    }

    /// How many VMs crashed and were made again, over all filters.
    ///
    /// # Errors
    /// When the admin interface does not tell.
    pub fn vm_reloads(&self) -> Result<u64> {
        let stats = self.admin_get("/stats")?.text();
        let counts = stats.lines().filter_map(|line| {
            let (name, count) = line.split_once(": ")?;
            (name.starts_with("wasm.") && name.ends_with(".vm_reload")).then_some(count.trim())
        });
        let counts: Vec<u64> = counts.map(str::parse).collect::<Result<_, _>>()?;
        anyhow::ensure!(!counts.is_empty(), "Envoy has no statistic vm_reload");
        Ok(counts.iter().sum())
    }

    /// The memory that its process has resident, in KiB.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn resident_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process_id());
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let line = line.context("a process has VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// Its process, for measurements.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.child.id()
    }

    /// Where each of its listeners listens, by name.
    ///
    /// # Errors
    /// When the admin interface does not tell.
    pub fn listeners(&self) -> Result<BTreeMap<String, SocketAddr>> {
        let text = self.admin_get("/listeners")?.text();
        let lines = text.lines().map(|line| {
            let (name, address) = line.split_once("::").context("`name::address`")?;
            Ok((name.to_owned(), address.parse()?))
        });
        lines.collect()
    }

    /// The folder with its configuration.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.process.folder.path()
    }
}

/// Envoy as a process: it is stopped when dropped, also while it is still starting.
struct Process {
    child: Child,
    folder: TempDir,
}

impl Process {
    fn start(envoy: &Path, workers: usize, bootstrap: &Value, log: FilterLog) -> Result<Self> {
        let filters = match log {
            FilterLog::All => "wasm:trace",
            FilterLog::Warnings => "wasm:warning",
        };
        let folder = TempDir::with_prefix("akv-envoy-").context("making a folder for Envoy")?;
        let configuration = folder.path().join("envoy.json");
        fs::write(&configuration, serde_json::to_vec_pretty(bootstrap)?)
            .context("writing Envoy's configuration")?;
        let log = fs::File::create(folder.path().join("envoy.log"))?;
        let child = Command::new("sh")
            .args(["-c", WATCHED, "sh"])
            .arg(envoy)
            .arg("--config-path")
            .arg(&configuration)
            .arg("--admin-address-path")
            .arg(folder.path().join("admin"))
            .args(["--concurrency", &workers.to_string()])
            // Else two Envoys on one machine take each other for a restart.
            .arg("--disable-hot-restart")
            .args(["--log-level", "warning"])
            .args(["--component-log-level", filters])
            .env("AKV_ENVOY_FOLDER", folder.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} cannot be started", envoy.display()))?;
        Ok(Self { child, folder })
    }

    /// The admin interface and the first listener, once both answer.
    fn serving(&self) -> Option<(SocketAddr, SocketAddr)> {
        let admin = fs::read_to_string(self.folder.path().join("admin")).ok()?;
        let admin = admin.trim().parse().ok()?;
        let ask = |path| client::get(admin, path, &[]).ok().map(|a| a.text());
        if ask("/ready")?.trim() != "LIVE" {
            return None;
        }
        // `name::127.0.0.1:40487`, one a line
        let listeners = ask("/listeners")?;
        let (_, address) = listeners.lines().next()?.rsplit_once("::")?;
        let address = address.parse().ok()?;
        TcpStream::connect(address).ok()?;
        Some((admin, address))
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.folder.path().join("envoy.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Asked first: Envoy then takes the filter down in order, and says so in its log if it cannot.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < STOP_LIMIT {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(PAUSE);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn why(ended: Option<ExitStatus>) -> String {
    ended.map_or_else(
        || format!("it runs, but not within {} s", START_LIMIT.as_secs()),
        |status| status.to_string(),
    )
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// Envoy's configuration for this setup; what a test needs beyond it (another filter, another policy) can
/// be put in before [`Envoy::run`].
#[must_use]
pub fn bootstrap(setup: &Setup) -> Value {
    // Port 0: Envoy takes a free one and tells which.
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    json!({
        "admin": { "address": socket(any) },
        "stats_config": { "stats_tags": stats_tags() },
        "static_resources": {
            "listeners": [{
                "name": "requests",
                "address": socket(any),
                "filter_chains": [{ "filters": [connection_manager(setup)] }],
            }],
            "clusters": [
                cluster("upstream", setup.upstream, None),
                cluster("azure_identity", setup.azure, Some(("login.microsoftonline.com", &setup.azure_ca))),
                cluster("key_vault", setup.azure, Some(("emulated.vault.azure.net", &setup.azure_ca))),
                cluster("managed_identity", setup.azure_plain, None),
                // Nothing listens there.
                cluster("nobody", SocketAddr::from(([127, 0, 0, 1], 1)), None),
            ],
        },
    })
}

/// The labels of the filter's metrics.
pub const LABELS: [&str; 8] = [
    "source", "reason", "endpoint", "status", "identity", "kind", "vault", "secret",
];

/// How Envoy takes labels out of metrics' names.
#[must_use]
pub fn stats_tags() -> Value {
    // The first match counts: what users name comes last in a name.
    let tag = |label: &&str| {
        let regex = format!(r"^wasmcustom\.akv_.*?(\.{label}\.([a-z0-9_]+))");
        let end = if *label == "secret" { "$" } else { "" };
        json!({ "tag_name": label, "regex": regex + end })
    };
    LABELS.iter().map(tag).collect()
}

/// Makes the first listener this one.
pub fn set_listener(all: &mut Value, listener: &Listener<'_>) {
    change_listener(&mut all["static_resources"]["listeners"][0], listener);
}

/// Adds a listener that is like the first one but for what `listener` says.
pub fn add_listener(all: &mut Value, listener: &Listener<'_>) {
    let listeners = &mut all["static_resources"]["listeners"];
    let mut added = listeners[0].clone();
    change_listener(&mut added, listener);
    if let Some(listeners) = listeners.as_array_mut() {
        listeners.push(added);
    }
}

fn change_listener(json: &mut Value, listener: &Listener<'_>) {
    json["name"] = json!(listener.name);
    let filter = &mut manager_of(json)["http_filters"][0];
    let plugin = &mut filter["typed_config"]["config"];
    plugin["name"] = json!(listener.name);
    plugin["vm_config"]["vm_id"] = json!(listener.name);
    plugin["configuration"]["value"] = json!(listener.configuration.to_string());
    plugin["allow_on_headers_stop_iteration"] = json!(listener.holds_headers);
}

/// The connection manager's configuration in a listener's.
#[must_use]
pub fn manager_of(listener: &mut Value) -> &mut Value {
    &mut listener["filter_chains"][0]["filters"][0]["typed_config"]
}

/// Adds a cluster that speaks HTTP/1.1, or HTTP/2 without TLS.
pub fn add_cluster(all: &mut Value, name: &str, address: SocketAddr, http2: bool) {
    let mut added = cluster(name, address, None);
    let protocol = if http2 {
        json!({ "http2_protocol_options": {} })
    } else {
        json!({ "http_protocol_options": { "enable_trailers": true } })
    };
    added["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": protocol,
        },
    });
    if let Some(clusters) = all["static_resources"]["clusters"].as_array_mut() {
        clusters.push(added);
    }
}

/// Puts a route before all others of the first listener.
pub fn add_route(all: &mut Value, route: Value) {
    let manager = manager_of(&mut all["static_resources"]["listeners"][0]);
    let routes = &mut manager["route_config"]["virtual_hosts"][0]["routes"];
    if let Some(routes) = routes.as_array_mut() {
        routes.insert(0, route);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Upstream;

    /// An Envoy without the filter: requests go straight to the upstream.
    fn plain(upstream: SocketAddr) -> Result<Envoy> {
        let setup = Setup {
            tools: Tools {
                envoy: envoy_binary()?,
                filter: PathBuf::from("/none"),
            },
            configuration: json!({}),
            azure: upstream,
            azure_ca: String::new(),
            azure_plain: upstream,
            upstream,
            environment: Vec::new(),
            workers: 2,
        };
        let mut bootstrap = bootstrap(&setup);
        let resources = &mut bootstrap["static_resources"];
        resources["clusters"].as_array_mut().unwrap().truncate(1);
        let chain = &mut resources["listeners"][0]["filter_chains"][0];
        let filters = &mut chain["filters"][0]["typed_config"]["http_filters"];
        filters.as_array_mut().unwrap().remove(0);
        Envoy::run(&setup.tools.envoy, 2, &bootstrap)
    }

    #[test]
    fn envoys_find_their_own_ports_tell_their_counts_and_stop_when_dropped() {
        let upstream = Upstream::start().unwrap();
        let envoys: Vec<Envoy> = (0..2).map(|_| plain(upstream.address).unwrap()).collect();
        assert_ne!(envoys[0].address, envoys[1].address);
        let answer = client::get(envoys[0].address, "/p", &[("x-a", b"caf\xe9")]).unwrap();
        assert_eq!(answer.text(), "upstream's answer\n");
        let received = upstream.take();
        assert_eq!(received[0].target, "/p");
        assert!(
            received[0]
                .headers
                .contains(&("x-a".into(), b"caf\xe9".to_vec()))
        );
        let total = "cluster.upstream.upstream_rq_total";
        let counts = envoys.iter().map(|envoy| envoy.stat(total).unwrap());
        assert_eq!(counts.collect::<Vec<_>>(), [1, 0]);
        assert!(envoys[0].stat("no.such").is_err());
        assert!(envoys[0].admin_get("/no-such").is_err());
        let gone: Vec<SocketAddr> = envoys.iter().map(|envoy| envoy.address).collect();
        drop(envoys);
        assert!(gone.into_iter().all(|a| TcpStream::connect(a).is_err()));
    }

    /// The pipe is closed by the system when a test process ends, however it ends.
    #[test]
    fn an_envoy_stops_when_its_pipe_is_closed() {
        let upstream = Upstream::start().unwrap();
        let mut envoy = plain(upstream.address).unwrap();
        let child = &mut envoy.process.child;
        assert!(child.try_wait().unwrap().is_none());
        drop(child.stdin.take());
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(5), "it runs on");
            thread::sleep(PAUSE);
        }
    }

    #[test]
    fn an_envoy_that_does_not_come_up_shows_its_log() {
        let error = Envoy::run(&envoy_binary().unwrap(), 1, &json!({ "no_such_field": 1 }));
        let error = error.err().expect("it cannot start").to_string();
        assert!(
            error.contains("exit status") && error.contains("no_such_field"),
            "{error}"
        );
    }

    #[test]
    fn what_is_missing_is_said_with_the_command_that_makes_it() {
        let error = locate("ENVOY_BIN", None, ["/no/envoy".into(), "/x/envoy".into()]).unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with("/no/envoy is not there; `cargo xtask test`"),
            "{error}"
        );
        // A variable that is set is not silently passed over.
        let given = locate(
            "ENVOY_BIN",
            Some("/wrong".into()),
            ["/proc/self/exe".into()],
        );
        assert!(
            given
                .unwrap_err()
                .to_string()
                .starts_with("/wrong is not there")
        );
        let found = locate(
            "ENVOY_BIN",
            None,
            ["/no/envoy".into(), "/proc/self/exe".into()],
        );
        assert_eq!(found.unwrap(), PathBuf::from("/proc/self/exe"));
    }
}
