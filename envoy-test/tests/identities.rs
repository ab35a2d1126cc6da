//! Every identity in a real Envoy: a request is resolved with it against the emulated Azure, which checks
//! signatures, assertions, headers and resources.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use envoy_test::client;
use envoy_test::emulator::{AppRegistration, Azure, Endpoint, ExpiryForm, Fault};
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
fn an_unregistered_certificate_is_logged_with_what_to_do() {
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
fn a_vault_of_another_tenant_is_logged_with_both_tenants() {
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

#[test]
fn a_managed_identity_says_the_end_in_every_form() {
    for form in [
        ExpiryForm::Iso8601,
        ExpiryForm::Fraction,
        ExpiryForm::Absent,
    ] {
        let seed = |azure: &Azure| {
            seed(azure);
            azure.set_expiry_form(form);
        };
        let world = world_of(&managed(json!({})), none, seed);
        resolves(&world, &[]);
        let calls = world.azure.count(Endpoint::ManagedIdentity);
        assert_eq!(calls, 1, "{form:?}");
    }
}

#[test]
fn the_metadata_service_says_why_it_refuses() {
    let text = "AADSTS500011: The resource principal named https://vault.azure.net was not found in the tenant named Contoso.";
    let body = json!({ "error": "invalid_resource", "error_description": text }).to_string();
    let seed = |azure: &Azure| {
        seed(azure);
        let fault = Fault::Answer {
            status: 400,
            headers: Vec::new(),
            body,
        };
        azure.fail(Endpoint::ManagedIdentity, fault).times(1000);
    };
    let world = world_of(&managed(json!({})), none, seed);
    let line = logged(&world, "event=token_failed");
    assert!(line.contains("AADSTS500011"), "{line}");
    assert!(!line.contains("has no such identity"), "{line}");
}

#[test]
fn the_next_client_secret_takes_over() {
    let seed = |azure: &Azure| {
        seed(azure);
        azure.set_client_secret(CLIENT, "the-new-one");
    };
    let environment = |_| {
        vec![
            ("AZURE_CLIENT_SECRET", CLIENT_SECRET.to_owned()),
            ("AZURE_CLIENT_SECRET_NEXT", "the-new-one".to_owned()),
        ]
    };
    let world = world_of(&json!({}), environment, seed);
    resolves(&world, &[CLIENT_SECRET, "the-new-one"]);
    let line = logged(&world, "event=client_secret_refused");
    assert!(line.contains("CLIENT_SECRET_NEXT"), "{line}");
    let calls = world.azure.calls();
    let tokens = calls.iter().filter(|c| c.endpoint == Endpoint::Token);
    let statuses: Vec<u16> = tokens.map(|call| call.status).collect();
    assert_eq!(statuses, [401, 200], "refused, then the other one");
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("its address").port()
}

/// Puts a token into the volume as kubelet does: a folder of its own, and `..data` renamed onto it.
fn project(volume: &Path, generation: &str, token: &str) {
    let folder = volume.join(generation);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("azure-identity-token"), token).expect("the token");
    let new = volume.join("..data_tmp");
    symlink(generation, &new).expect("a link");
    std::fs::rename(&new, volume.join("..data")).expect("the swap");
}

/// The listener of filter-config/envoy/workload-identity.yaml on 127.0.0.1, and its cluster.
fn serve_projected_token(bootstrap: &mut Value, volume: &Path, port: u16) {
    let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let file = volume.join("azure-identity-token");
    let body = json!({ "filename": file, "watched_directory": { "path": volume } });
    let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let listener = json!({
        "name": "federated_token",
        "address": address,
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": manager,
                "stat_prefix": "federated_token",
                "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [
                    { "match": { "path": "/token" }, "direct_response": { "status": 200, "body": body } },
                ] }] },
                "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": { "@type": router } }],
            },
        }] }],
    });
    let cluster = json!({
        "name": "federated_token",
        "load_assignment": { "cluster_name": "federated_token", "endpoints": [
            { "lb_endpoints": [{ "endpoint": { "address": address } }] },
        ] },
    });
    for (field, item) in [("listeners", listener), ("clusters", cluster)] {
        let list = bootstrap["static_resources"][field].as_array_mut();
        list.expect("a list").push(item);
    }
}

#[test]
fn a_workload_identity_without_a_sidecar() {
    let volume = std::env::temp_dir().join(format!("projected-token-{}", free_port()));
    std::fs::create_dir_all(&volume).expect("the volume");
    let azure = Azure::new();
    let first = azure.federated_token(SUBJECT);
    project(&volume, "..2026_11_26_01", &first);
    let link = volume.join("azure-identity-token");
    symlink("..data/azure-identity-token", link).expect("the link");
    let port = free_port();
    let vault = json!({ "federated_token_cluster": "federated_token" });
    let rest = json!({ "request": { "set": { "headers": { "x-key": "{vault://azure/db}" } } } });
    let world = World::start_changed(
        Tools::find_full().expect("the tools are there"),
        &configuration(&vault, &rest),
        |_| {
            vec![(
                "AZURE_FEDERATED_TOKEN_URL",
                format!("http://127.0.0.1:{port}/token"),
            )]
        },
        |bootstrap| serve_projected_token(bootstrap, &volume, port),
        seed,
    )
    .expect("the world starts");
    resolves(&world, &[&first]);

    project(&volume, "..2026_11_26_02", "e30.e30.second");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let start = Instant::now();
    while client::get(address, "/token", &[])
        .expect("an answer")
        .text()
        != "e30.e30.second"
    {
        let waited = start.elapsed();
        assert!(
            waited < Duration::from_secs(10),
            "the new token is not served"
        );
        thread::sleep(Duration::from_millis(20));
    }
    let _ = std::fs::remove_dir_all(&volume);
}
