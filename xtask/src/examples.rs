//! Every file in `filter-config/` is loaded: Envoy's by Envoy, and run against the emulated Azure; the others'
//! forms are checked, and the filter's configuration in each of them is run in Envoy.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use envoy_test::client;
use envoy_test::emulator::{AppRegistration, Azure, Options, Server};
use envoy_test::envoy::{Envoy, Setup, Tools, bootstrap, workspace};
use envoy_test::upstream::Upstream;
use envoy_test::world::{CLIENT, CLIENT_SECRET, TENANT};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::check::{self, Found, Host, OnCrash};
use crate::document::{Node, read};

mod compose;
mod kong;
mod kubernetes;
mod observability;
mod readme;
mod workflow;

/// Every secret's value begins with this.
const MARK: &str = "pl4nted";
const WASM: &str = "/etc/envoy/azure_key_vault_filter.wasm";
const CA: &str = "/etc/ssl/certs/ca-certificates.crt";
const TOKENS: &str = "/var/run/secrets/azure/tokens";

fn folder(name: &str) -> PathBuf {
    workspace().join("filter-config").join(name)
}

fn files(name: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(name)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(ending));
    files.sort();
    assert!(!files.is_empty(), "{name}");
    files
}

/// All gateways' files that hold a configuration.
fn examples() -> Vec<PathBuf> {
    let folders = ["envoy", "istio", "envoy-gateway", "kong"];
    let all = folders.iter().flat_map(|name| files(name, ".yaml"));
    // The latter is what a workload identity needs beside the filter.
    let others = ["compose.yaml", "workload-identity.yaml"];
    all.filter(|path| !others.iter().any(|other| path.ends_with(other)))
        .collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn no_environment(_: &str) -> Option<String> {
    None
}

const OPTIONS: check::Options<'_> = check::Options {
    variables: &[],
    own: &no_environment,
    strict: false,
};

#[test]
fn every_example_passes_its_check_without_a_warning() {
    for path in examples() {
        let report = check::check(&path.display().to_string(), &text(&path), &OPTIONS);
        assert_eq!(report.errors, 0, "{report}");
        assert!(!report.to_string().contains("warning"), "{report}");
    }
}

/// An example that turned a crash into an open door, or a gateway that does not pass the secret on, would
/// pass for good otherwise.
#[test]
fn every_example_has_what_its_comments_promise() {
    for path in examples() {
        let documents = read(&text(&path)).unwrap();
        let found = check::find(&documents);
        assert!(!found.is_empty(), "{}", path.display());
        for one in found {
            assert_eq!(one.on_crash, OnCrash::Fine, "{}", path.display());
            let node = one.configuration.unwrap();
            assert!(node.at(&["vaults"]).is_some(), "{}", path.display());
            let text = node.value().to_string();
            assert!(!text.contains("client_secret"), "{}", path.display());
        }
    }
}

// --- Envoy

/// An Azure that has what the examples ask for, and an upstream.
struct Surroundings {
    folder: TempDir,
    azure: Azure,
    server: Server,
    upstream: Upstream,
}

impl Surroundings {
    fn start() -> Self {
        let azure = Azure::new();
        azure.add_app(AppRegistration {
            tenant: TENANT.to_owned(),
            client_id: CLIENT.to_owned(),
            client_secret: CLIENT_SECRET.to_owned(),
        });
        let set = |name: &str, value: String| {
            azure.set_secret_in("payments", name, &json!({ "value": value }));
        };
        set("api", format!(r#"{{"token":"{MARK}-token"}}"#));
        set("partner-acme", format!("{MARK}-acme"));
        set("internal", format!("{MARK}-internal"));
        let server = Server::start(&azure, Options::default()).unwrap();
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("ca.pem"), server.ca_pem()).unwrap();
        Self {
            folder,
            azure,
            server,
            upstream: Upstream::start().unwrap(),
        }
    }

    fn ca(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }

    /// Envoy with the client secret in its environment, as the examples want it.
    fn envoy(&self, tools: &Tools) -> PathBuf {
        let script = self.folder.path().join("envoy");
        let envoy = tools.envoy.display();
        let text =
            format!("#!/bin/sh\nAZURE_CLIENT_SECRET='{CLIENT_SECRET}' exec '{envoy}' \"$@\"\n");
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        script
    }

    /// What the upstream got in this header for a request with these.
    fn ask(&self, envoy: &Envoy, headers: &[(&str, &[u8])], name: &str) -> Vec<String> {
        let _ = self.upstream.take();
        let answer = client::get(envoy.address, "/", headers).unwrap();
        let received = self.upstream.take().pop();
        let received = received
            .unwrap_or_else(|| panic!("{} {}\n{}", answer.status, answer.text(), envoy.log()));
        received.header(name)
    }

    /// The rules of `payments` in all examples.
    fn assert_sets(&self, envoy: &Envoy) {
        let theirs: &[(&str, &[u8])] = &[("authorization", b"theirs")];
        let set = self.ask(envoy, theirs, "authorization");
        assert_eq!(set, [format!("Bearer {MARK}-token")], "{}", envoy.log());
    }

    fn assert_resolves(&self, envoy: &Envoy, prefix: &str) {
        let partner = |name: &str| {
            let reference = format!("{{vault://{prefix}/{name}}}");
            let header: &[(&str, &[u8])] = &[("x-partner-key", reference.as_bytes())];
            (self.ask(envoy, header, "x-partner-key"), [reference])
        };
        assert_eq!(partner("partner-acme").0, [format!("{MARK}-acme")]);
        let (got, reference) = partner("internal");
        assert_eq!(got, reference, "not on the list, so left as it is");
        assert_eq!(self.azure.secret_calls("internal"), 0);
    }

    fn assert_clean(envoy: &Envoy) {
        let log = envoy.log();
        assert_eq!(
            envoy.stat("wasm.azure_key_vault.vm_reload").unwrap(),
            0,
            "{log}"
        );
        assert!(!log.contains(MARK) && !log.contains(CLIENT_SECRET), "{log}");
    }
}

/// Puts another address into a cluster, and nothing else.
fn redirect(bootstrap: &mut Value, cluster: &str, to: SocketAddr) {
    let clusters = bootstrap["static_resources"]["clusters"]
        .as_array_mut()
        .unwrap();
    let found = clusters.iter_mut().find(|one| one["name"] == cluster);
    let found = found.unwrap_or_else(|| panic!("no cluster {cluster}"));
    let endpoint = &mut found["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    let address = &mut endpoint["address"]["socket_address"];
    assert!(address["port_value"].is_u64());
    *address = json!({ "address": to.ip().to_string(), "port_value": to.port() });
}

/// The example with ports that are free, our Azure and our upstream.
fn at_home(name: &str, around: &Surroundings, tools: &Tools) -> Value {
    let text = text(&folder("envoy").join(name));
    assert_eq!(
        text.matches(&format!("trusted_ca: {{ filename: {CA} }}"))
            .count(),
        text.matches("trusted_ca").count()
    );
    let text = text
        .replace(CA, &around.ca())
        .replace(WASM, &tools.filter.display().to_string());
    let mut documents = read(&text).unwrap();
    let mut bootstrap = documents.remove(0).value();
    let any = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 0 } });
    bootstrap["admin"]["address"] = any.clone();
    bootstrap["static_resources"]["listeners"][0]["address"] = any;
    redirect(&mut bootstrap, "upstream", around.upstream.address);
    redirect(&mut bootstrap, "key_vault", around.server.tls);
    redirect(&mut bootstrap, "azure_identity", around.server.tls);
    bootstrap
}

#[test]
fn envoy_finds_its_examples_valid() {
    let tools = Tools::find().unwrap();
    let around = Surroundings::start();
    let tokens = around.folder.path().join("tokens");
    fs::create_dir(&tokens).unwrap();
    fs::write(tokens.join("azure-identity-token"), "token").unwrap();
    for path in files("envoy", ".yaml") {
        // As it stands, with the comments and in Envoy's own reading of YAML.
        let text = text(&path)
            .replace(TOKENS, &tokens.display().to_string())
            .replace(CA, &around.ca())
            .replace(WASM, &tools.filter.display().to_string());
        let copy = around.folder.path().join("example.yaml");
        fs::write(&copy, text).unwrap();
        let validate = |file: &Path| {
            // Envoy loads the filter too, which refuses to be without its secret.
            let mut envoy = Command::new(&tools.envoy);
            envoy.env("AZURE_CLIENT_SECRET", CLIENT_SECRET);
            envoy
                .args(["--mode", "validate", "--config-path"])
                .arg(file);
            envoy.output().unwrap()
        };
        let output = validate(&copy);
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {log}", path.display());
        // Envoy warns of fields that it is about to drop.
        assert!(!log.contains("deprecated"), "{}: {log}", path.display());
        // And it would have said so.
        let broken = fs::read_to_string(&copy)
            .unwrap()
            .replace("http_filters:", "http_filterz:");
        fs::write(&copy, broken).unwrap();
        assert!(!validate(&copy).status.success(), "{}", path.display());
    }
}

#[test]
fn envoys_example_runs() {
    let tools = Tools::find().unwrap();
    let around = Surroundings::start();
    let bootstrap = at_home("envoy.yaml", &around, &tools);
    let envoy = Envoy::run(&around.envoy(&tools), 2, &bootstrap).unwrap();
    around.assert_sets(&envoy);
    around.assert_resolves(&envoy, "payments");
    Surroundings::assert_clean(&envoy);
}

/// The checks of certificates in the example do check: an Azure with another authority gets nothing.
#[test]
fn envoys_example_trusts_no_other_authority() {
    let tools = Tools::find().unwrap();
    let around = Surroundings::start();
    let stranger = Server::start(&around.azure, Options::default()).unwrap();
    fs::write(around.folder.path().join("ca.pem"), stranger.ca_pem()).unwrap();
    let bootstrap = at_home("envoy.yaml", &around, &tools);
    let envoy = Envoy::run(&around.envoy(&tools), 1, &bootstrap).unwrap();
    let answer = client::get(envoy.address, "/", &[]).unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(around.azure.calls().len(), 0);
}

#[test]
fn envoys_example_that_fetches_the_filter_runs() {
    let tools = Tools::find().unwrap();
    let around = Surroundings::start();
    let mut bootstrap = at_home("envoy-remote.yaml", &around, &tools);
    let wasm = fs::read(&tools.filter).unwrap();
    let releases = file_server(wasm.clone());
    redirect(&mut bootstrap, "releases", releases);
    let clusters = bootstrap["static_resources"]["clusters"]
        .as_array_mut()
        .unwrap();
    let cluster = clusters
        .iter_mut()
        .find(|one| one["name"] == "releases")
        .unwrap();
    // The file server has no certificate.
    cluster
        .as_object_mut()
        .unwrap()
        .remove("transport_socket")
        .unwrap();
    let zeros = "0".repeat(64);
    let text = bootstrap.to_string();
    assert_eq!(text.matches(&zeros).count(), 1);
    let right: Value = serde_json::from_str(&text.replace(&zeros, &sha256(&wasm))).unwrap();
    let envoy = Envoy::run(&around.envoy(&tools), 2, &right).unwrap();
    around.assert_sets(&envoy);
    Surroundings::assert_clean(&envoy);
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Answers every request with this file.
fn file_server(file: Vec<u8>) -> SocketAddr {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = Vec::new();
            let mut buffer = [0; 1024];
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(n) => request.extend_from_slice(&buffer[..n]),
                }
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                file.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&file);
        }
    });
    address
}

// --- The others

/// The filter's configuration from another gateway's file, in an Envoy that has clusters of these names.
fn run_in_envoy(found: &Found, around: &Surroundings, tools: &Tools) -> Envoy {
    let node = found.configuration.as_ref().unwrap();
    let config = check::parse(found, node, &OPTIONS).config.unwrap();
    let mut bootstrap = bootstrap(&Setup {
        tools: tools.clone(),
        configuration: node.value(),
        azure: around.server.tls,
        azure_plain: around.server.plain,
        azure_ca: around.server.ca_pem().to_owned(),
        upstream: around.upstream.address,
        environment: vec![("AZURE_CLIENT_SECRET".into(), CLIENT_SECRET.into())],
        workers: 2,
    });
    let clusters = bootstrap["static_resources"]["clusters"]
        .as_array_mut()
        .unwrap();
    for (like, name) in [
        ("key_vault", &config.vaults[0].cluster),
        ("azure_identity", &config.vaults[0].identity.cluster),
    ] {
        let mut cluster = clusters
            .iter()
            .find(|one| one["name"] == like)
            .unwrap()
            .clone();
        cluster["name"] = json!(name);
        cluster["load_assignment"]["cluster_name"] = json!(name);
        clusters.push(cluster);
    }
    Envoy::run(&tools.envoy, 2, &bootstrap).unwrap()
}

#[test]
fn the_configurations_for_other_gateways_run() {
    let tools = Tools::find().unwrap();
    let mut runs = BTreeMap::new();
    for path in examples() {
        let documents = read(&text(&path)).unwrap();
        for found in check::find(&documents) {
            if found.host == Host::Envoy {
                continue;
            }
            let around = Surroundings::start();
            let envoy = run_in_envoy(&found, &around, &tools);
            let node = found.configuration.as_ref().unwrap();
            let prefix = node.at(&["vaults"]).unwrap().items()[0].text_at(&["prefix"]);
            let has = |part: &str| node.at(&["request", part]).is_some();
            assert!(has("set") || has("resolve"), "{}", path.display());
            if has("set") {
                around.assert_sets(&envoy);
            }
            if has("resolve") {
                around.assert_resolves(&envoy, prefix.unwrap());
            }
            Surroundings::assert_clean(&envoy);
            *runs.entry(format!("{:?}", found.host)).or_insert(0) += 1;
        }
    }
    let expected = [("EnvoyGateway", 1), ("Istio", 1), ("Kong", 4)];
    assert_eq!(
        runs,
        expected
            .map(|(name, count)| (name.to_owned(), count))
            .into()
    );
}

/// The documents of a file, each with its place for messages.
fn documents(path: &Path) -> Vec<(String, Node)> {
    let documents = read(&text(path)).unwrap().into_iter();
    documents
        .map(|document| (format!("{}:{}", path.display(), document.line), document))
        .collect()
}
