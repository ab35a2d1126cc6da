//! Every identity in a real Envoy: a request is resolved with it against the emulated Azure, which checks
//! signatures, assertions, headers and resources.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use envoy_test::emulator::{AppRegistration, Azure, Endpoint};
use envoy_test::envoy::{Tools, workspace};
use envoy_test::world::{CLIENT, CLIENT_SECRET, TENANT, World, certificate_of, configuration};
use serde_json::{Value, json};

const VALUE: &str = "pl4nted-value";
const SUBJECT: &str = "system:serviceaccount:gateways:envoy";
const IDENTITY_HEADER: &str = "emulator-identity-header";
const USER: [&str; 3] = ["user-client", "user-object", "/subscriptions/s/user"];

type Environment = Vec<(&'static str, String)>;

fn bundle() -> PathBuf {
    workspace().join("tests/data/keys/bundle.pem")
}

fn seed(azure: &Azure) {
    azure.set_secret("db", VALUE);
    azure.federate(CLIENT, SUBJECT);
    azure.add_certificate(CLIENT, &certificate_of(&bundle()));
    azure.add_user_assigned(USER[0], USER[1], USER[2]);
}

fn world(vault: &Value, environment: impl FnOnce(SocketAddr) -> Environment) -> World {
    world_of(vault, environment, seed)
}

fn world_of(
    vault: &Value,
    environment: impl FnOnce(SocketAddr) -> Environment,
    seed: impl FnOnce(&Azure),
) -> World {
    let rest = json!({ "request": { "set": { "headers": { "x-key": "{vault://azure/db}" } } } });
    // Certificates need the filter with every feature.
    let tools = Tools::find_full().expect("the tools are there");
    World::start_as(tools, &configuration(vault, &rest), environment, seed)
        .expect("the world starts")
}

/// One request is resolved, and nothing of the credential is in Envoy's log.
fn resolves(world: &World, secrets: &[&str]) {
    let (answer, received) = world.request(&[]).expect("an answer");
    let received = received.unwrap_or_else(|| panic!("{}\n{}", answer.text(), world.envoy.log()));
    assert_eq!(received.header("x-key"), [VALUE]);
    let all = [secrets, &[VALUE, "emulated-"]].concat();
    world.assert_clean(&all);
}

/// The first line of the log for this event.
fn logged(world: &World, event: &str) -> String {
    let start = Instant::now();
    loop {
        let log = world.envoy.log();
        if let Some(line) = log.lines().find(|line| line.contains(event)) {
            return line.to_owned();
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "no {event} in\n{log}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

fn none(_: SocketAddr) -> Environment {
    Vec::new()
}

fn with_secret(_: SocketAddr) -> Environment {
    vec![("AZURE_CLIENT_SECRET", CLIENT_SECRET.to_owned())]
}

/// The vault's `config` for an app, without what `configuration` puts there for others.
fn managed(more: Value) -> Value {
    let mut config = json!({ "tenant_id": null, "client_id": null, "identity": "managed_identity",
        "identity_cluster": "managed_identity" });
    let object = config.as_object_mut().expect("an object");
    object.extend(more.as_object().expect("an object").clone());
    config
}

#[test]
fn a_client_certificate() {
    let pem = std::fs::read_to_string(bundle()).expect("the PEM file");
    let line = pem.lines().nth(5).expect("a line of the key").to_owned();
    let world = world(&json!({}), |_| vec![("AZURE_CLIENT_CERTIFICATE", pem)]);
    resolves(&world, &[&line, "PRIVATE KEY"]);
    assert_eq!(world.azure.count(Endpoint::Token), 1);
}

#[test]
fn a_certificate_that_is_not_registered_is_told_with_what_to_do() {
    let pem = std::fs::read_to_string(bundle()).expect("the PEM file");
    let without_certificate = |azure: &Azure| {
        seed(azure);
        azure.add_app(AppRegistration {
            tenant: TENANT.to_owned(),
            client_id: "other".to_owned(),
            client_secret: "s".to_owned(),
        });
    };
    let world = world_of(
        &json!({ "client_id": "other" }),
        |_| vec![("AZURE_CLIENT_CERTIFICATE", pem)],
        without_certificate,
    );
    let line = logged(&world, "AADSTS700027");
    assert!(line.contains("upload the certificate"), "{line}");
    assert!(
        line.contains("identity=client_certificate client_id=other"),
        "{line}"
    );
}

#[test]
fn a_workload_identity_over_http() {
    let vault = json!({ "federated_token_cluster": "managed_identity" });
    let world = world(&vault, |plain| {
        vec![(
            "AZURE_FEDERATED_TOKEN_URL",
            format!("http://{plain}/federated-token"),
        )]
    });
    resolves(&world, &[&world.azure.federated_token(SUBJECT)]);
    assert_eq!(world.azure.count(Endpoint::FederatedToken), 1);
}

#[test]
fn a_workload_identity_from_the_environment_for_another_subject() {
    let azure = Azure::new();
    let token = azure.federated_token("system:serviceaccount:other:pod");
    let copy = token.clone();
    let world = world(&json!({}), |_| vec![("AZURE_FEDERATED_TOKEN", copy)]);
    let line = logged(&world, "AADSTS700213");
    assert!(
        line.contains("compare its issuer, subject and audience"),
        "{line}"
    );
    world.assert_clean(&[&token]);
}

#[test]
fn the_metadata_service() {
    for more in [
        json!({}),
        json!({ "client_id": USER[0] }),
        json!({ "object_id": USER[1] }),
        json!({ "resource_id": USER[2] }),
    ] {
        let world = world(&managed(more), none);
        resolves(&world, &[]);
        let calls = world.azure.calls();
        let call = calls
            .iter()
            .find(|c| c.endpoint == Endpoint::ManagedIdentity);
        assert_eq!(call.expect("a call").host, "169.254.169.254");
    }
}

#[test]
fn an_identity_that_the_machine_has_not() {
    let world = world(&managed(json!({ "client_id": "nobody" })), none);
    let line = logged(&world, "event=token_failed");
    assert!(line.contains("this machine has no such identity"), "{line}");
    assert!(
        line.contains("identity=managed_identity source=imds id=nobody"),
        "{line}"
    );
}

#[test]
fn app_service_functions_and_container_apps() {
    for more in [
        json!({}),
        json!({ "client_id": USER[0] }),
        json!({ "resource_id": USER[2] }),
    ] {
        let world = world(&managed(more), |plain| {
            vec![
                ("IDENTITY_ENDPOINT", format!("http://{plain}/msi/token")),
                ("IDENTITY_HEADER", IDENTITY_HEADER.to_owned()),
            ]
        });
        resolves(&world, &[IDENTITY_HEADER]);
    }
}

#[test]
fn the_old_app_service_whose_times_are_dates() {
    let world = world(&managed(json!({ "client_id": USER[0] })), |plain| {
        vec![
            ("MSI_ENDPOINT", format!("http://{plain}/MSI/token")),
            ("MSI_SECRET", IDENTITY_HEADER.to_owned()),
        ]
    });
    resolves(&world, &[IDENTITY_HEADER]);
}

#[test]
fn the_vault_tells_its_tenant() {
    let world = world(&json!({ "tenant_id": null }), with_secret);
    resolves(&world, &[CLIENT_SECRET]);
    let calls = world.azure.calls();
    let statuses: Vec<u16> = calls.iter().map(|call| call.status).collect();
    assert_eq!(statuses, [401, 200, 200], "challenge, token, secret");
    assert!(!calls[0].has_bearer, "{calls:?}");
}

#[test]
fn another_cloud() {
    let vault = json!({ "vault_uri": "https://emulated.vault.usgovcloudapi.net" });
    let world = world(&vault, with_secret);
    resolves(&world, &[CLIENT_SECRET]);
    assert_eq!(world.azure.calls()[0].host, "login.microsoftonline.us");
}

#[test]
fn a_vault_of_another_tenant_is_told_by_name() {
    // Known to Entra ID before Envoy starts: an app that is not found is not asked for again at once.
    let other_tenant = |azure: &Azure| {
        seed(azure);
        azure.add_app(AppRegistration {
            tenant: "other-tenant".to_owned(),
            client_id: CLIENT.to_owned(),
            client_secret: CLIENT_SECRET.to_owned(),
        });
    };
    let vault = json!({ "tenant_id": "other-tenant" });
    let world = world_of(&vault, with_secret, other_tenant);
    let line = logged(&world, "AKV10032");
    let words = format!("the vault is in the tenant {TENANT}, tenant_id is other-tenant");
    assert!(line.contains(&words), "{line}");
}
