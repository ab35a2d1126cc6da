//! The emulator is judged by a client that nobody here wrote: Azure's own SDK for Python.

use std::path::PathBuf;
use std::process::Command;

use envoy_test::emulator::{AppRegistration, Azure, Options, Server};
use envoy_test::envoy::workspace;
use envoy_test::world::{CLIENT, CLIENT_SECRET, TENANT, certificate_of};

/// What the script counts at its end.
const CHECKS: &str = "33 checks";

#[test]
fn the_official_sdk_accepts_the_emulator() {
    let given = std::env::var_os("AKV_PYTHON").map(PathBuf::from);
    let python = given.unwrap_or_else(|| workspace().join("target/venv/bin/python"));
    assert!(
        python.exists(),
        "there is no {}; `cargo xtask test` makes it",
        python.display()
    );
    let azure = Azure::new();
    azure.add_app(AppRegistration {
        tenant: TENANT.to_owned(),
        client_id: CLIENT.to_owned(),
        client_secret: CLIENT_SECRET.to_owned(),
    });
    azure.set_certificate("web", "ZW11bGF0ZWQgZGVy", "-----BEGIN PRIVATE KEY-----");
    azure.set_key(
        "sign",
        &serde_json::json!({ "kty": "RSA", "n": "AQID", "e": "AQAB" }),
    );
    let bundle = workspace().join("tests/data/keys/bundle.pem");
    azure.add_certificate(CLIENT, &certificate_of(&bundle));
    azure.federate(CLIENT, "system:serviceaccount:gateways:kong");
    azure.add_user_assigned("user-client", "user-object", "/subscriptions/user");
    let server = Server::start(&azure, Options::default()).expect("the emulator starts");
    let ca = tempfile::NamedTempFile::new().expect("a file for the CA");
    std::fs::write(ca.path(), server.ca_pem()).expect("the CA is written");
    let token = tempfile::NamedTempFile::new().expect("a file for the token");
    let text = azure.federated_token("system:serviceaccount:gateways:kong");
    std::fs::write(token.path(), text).expect("the token is written");
    let script = workspace().join("envoy-test/tests/official_sdk.py");
    let output = Command::new(python)
        .arg(script)
        .arg(server.tls.port().to_string())
        .arg(ca.path())
        .args([TENANT, CLIENT, CLIENT_SECRET])
        .arg(server.plain.port().to_string())
        .args([bundle.as_path(), token.path()])
        .output()
        .expect("python runs");
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}\n{err}");
    assert_eq!(out.lines().last(), Some(CHECKS), "{out}");
}
