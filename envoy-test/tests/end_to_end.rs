//! The filter in a real Envoy with two workers, over TLS to the emulated Azure: what reaches the
//! upstream, what the client gets, and what Azure is asked. Every test ends with a look at Envoy's own
//! count of filters that crashed, and at its log for anything secret.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use envoy_test::client::{self, Answer};
use envoy_test::emulator::{Azure, Cut, Endpoint, Fault};
use envoy_test::envoy::Tools;
use envoy_test::upstream::Received;
use envoy_test::world::{CLIENT_SECRET, World, configuration};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

/// Every secret's value begins with this, so that one search finds any of them in a log.
const MARK: &str = "pl4nted";

/// A world whose checks at the end cannot be forgotten.
struct Checked(World);

impl std::ops::Deref for Checked {
    type Target = World;
    fn deref(&self) -> &World {
        &self.0
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("Envoy's log:\n{}", self.0.envoy.log());
            return;
        }
        self.0.assert_clean(&[MARK, CLIENT_SECRET, "emulated-"]);
    }
}

fn set_rule() -> Value {
    json!({ "set": { "headers": { "authorization": "Bearer {vault://azure/db/token}" } } })
}

fn resolve_rule() -> Value {
    json!({ "resolve": { "headers": ["x-*"], "allow": ["azure/db", "azure/open-*"] } })
}

fn seed(azure: &Azure) {
    azure.set_secret(
        "db",
        &format!(r#"{{"user":"{MARK}-user","token":"{MARK}-token"}}"#),
    );
    azure.set_secret("open-1", &format!("{MARK}-open-1"));
    azure.set_secret("open-2", &format!("{MARK}-open-2"));
    azure.set_secret("closed", &format!("{MARK}-closed"));
}

fn world(vault: &Value, rest: &Value) -> Checked {
    let tools = Tools::find().expect("the tools are there");
    Checked(World::start(tools, &configuration(vault, rest), seed).expect("the world starts"))
}

fn resolving(vault: &Value) -> Checked {
    world(vault, &json!({ "request": resolve_rule() }))
}

impl Checked {
    fn ask(&self, headers: &[(&str, &str)]) -> (Answer, Option<Received>) {
        let headers: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
        self.request(&headers).expect("an answer")
    }

    /// What the upstream got in `x-key`.
    fn key(&self, value: &str) -> String {
        let (answer, received) = self.ask(&[("x-key", value)]);
        let received = received.unwrap_or_else(|| panic!("{}: {}", answer.status, answer.text()));
        received.header("x-key").join("|")
    }

    /// Why the client was denied.
    fn denied(&self, value: &str) -> (String, Answer) {
        let (answer, received) = self.ask(&[("x-key", value)]);
        assert_eq!(received, None);
        assert_eq!(answer.status, 503, "{}", answer.text());
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(body["reference"], value);
        (
            body["reason"].as_str().expect("a reason").to_owned(),
            answer,
        )
    }

    fn wait_for(&self, what: &str, holds: impl Fn() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{what}: not within 20 s"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn the_operators_header_is_set_whatever_the_client_sends() {
    let world = world(&json!({}), &json!({ "request": set_rule() }));
    for _ in 0..4 {
        let (answer, received) = world.ask(&[
            ("authorization", "client's own"),
            ("Authorization", "again"),
        ]);
        assert_eq!(answer.status, 200);
        let received = received.expect("the upstream got it");
        assert_eq!(
            received.header("authorization"),
            [format!("Bearer {MARK}-token")]
        );
    }
    assert_eq!(
        world.azure.count(Endpoint::Token),
        1,
        "for two workers and the main thread"
    );
    assert_eq!(world.azure.secret_calls("db"), 1);
    let call = &world.azure.calls()[1];
    assert_eq!(
        (call.method.as_str(), call.host.as_str()),
        ("GET", "emulated.vault.azure.net")
    );
    assert!(
        call.has_request_id && call.user_agent.starts_with("azure-key-vault-filter/"),
        "{call:?}"
    );
}

#[test]
fn references_in_the_traffic_are_resolved_where_they_are_listed() {
    let world = resolving(&json!({}));
    let two = "a={vault://azure/open-1}; b={vault://azure/open-2}; c={vault://azure/db/user}";
    let expected = format!("a={MARK}-open-1; b={MARK}-open-2; c={MARK}-user");
    assert_eq!(world.key(two), expected);
    let (_, received) = world.ask(&[
        ("x-a", "1"),
        ("x-a", "{vault://azure/OPEN-1}"),
        ("X-A", "3"),
    ]);
    assert_eq!(
        received.expect("sent on").header("x-a"),
        ["1", &format!("{MARK}-open-1"), "3"]
    );
}

#[test]
fn what_is_not_listed_is_left_alone_and_never_fetched() {
    let world = resolving(&json!({}));
    for (name, value) in [
        ("x-key", "{vault://azure/closed}"),
        ("x-key", "{vault://azure/Closed}"),
        ("x-key", "{vault://azure/%63losed}"),
        ("x-key", "{vault://azure/open-1/../closed}"),
        ("x-key", "{vault://azure/xopen-1}"),
        ("x-key", "{vault://other/open-1}"),
        (
            "x-key",
            "{vault://azure/open-1?vault_uri=https://evil.example}",
        ),
        ("y-key", "{vault://azure/open-1}"),
        ("cookie", "{vault://azure/open-1}"),
    ] {
        let (answer, received) = world.ask(&[(name, value)]);
        assert_eq!(answer.status, 200);
        assert_eq!(received.expect("sent on").header(name), [value]);
    }
    assert_eq!(world.azure.calls().len(), 0);
}

#[test]
fn a_cached_secret_makes_no_call_and_an_expired_one_makes_one() {
    let world = resolving(&json!({ "ttl": 3 }));
    for _ in 0..10 {
        assert_eq!(
            world.key("{vault://azure/open-1}"),
            format!("{MARK}-open-1")
        );
    }
    assert_eq!(world.azure.secret_calls("open-1"), 1);
    // Nobody asks for two ttls: it is let go, and fetched once when somebody asks again.
    world.wait_for("the renewal of what was in use", || {
        world.azure.secret_calls("open-1") == 2
    });
    thread::sleep(Duration::from_secs(7));
    assert_eq!(
        world.azure.secret_calls("open-1"),
        2,
        "nobody used it since"
    );
    for _ in 0..10 {
        world.key("{vault://azure/open-1}");
    }
    assert_eq!(world.azure.secret_calls("open-1"), 3);
    assert_eq!(world.azure.count(Endpoint::Token), 1);
}

#[test]
fn a_rotated_secret_appears_after_its_ttl_and_nobody_waits_for_it() {
    let world = world(&json!({ "ttl": 2 }), &json!({ "request": set_rule() }));
    let token = || {
        world
            .ask(&[])
            .1
            .expect("sent on")
            .header("authorization")
            .join("")
    };
    assert_eq!(token(), format!("Bearer {MARK}-token"));
    world
        .azure
        .fail(Endpoint::Secrets, Fault::Delay(Duration::from_millis(300)));
    world
        .azure
        .set_secret("db", &format!(r#"{{"token":"{MARK}-rotated"}}"#));
    let rotated = Instant::now();
    let mut slowest = Duration::ZERO;
    while token() != format!("Bearer {MARK}-rotated") {
        assert!(rotated.elapsed() < Duration::from_secs(6));
        slowest = slowest.max(world.ask(&[]).0.took);
        thread::sleep(Duration::from_millis(50));
    }
    assert!(
        slowest < Duration::from_millis(250),
        "a request waited {slowest:?} for a renewal"
    );
}

#[test]
fn a_pinned_version_stays() {
    let world = resolving(&json!({}));
    let (_, received) = world.ask(&[(
        "x-key",
        "{vault://azure/open-1#0123456789abcdef0123456789abcdef}",
    )]);
    assert_eq!(received, None);
    let path = world
        .azure
        .calls()
        .last()
        .map(|call| call.path.clone())
        .expect("a call");
    assert!(
        path.starts_with("/secrets/open-1/0123456789abcdef0123456789abcdef?"),
        "{path}"
    );
}

#[test]
fn a_missing_secret_is_denied_and_remembered() {
    let world = resolving(&json!({ "neg_ttl": 60 }));
    for _ in 0..5 {
        assert_eq!(world.denied("{vault://azure/open-nobody}").0, "not_found");
    }
    assert_eq!(world.azure.secret_calls("open-nobody"), 1);
    assert_eq!(world.denied("{vault://azure/open-1/key}").0, "no_such_key");
}

#[test]
fn a_wrong_client_secret_is_said_in_the_log_and_heals() {
    let world = world(&json!({}), &json!({ "request": resolve_rule() }));
    world
        .azure
        .set_client_secret(envoy_test::world::CLIENT, "another");
    let (reason, answer) = world.denied("{vault://azure/open-1}");
    assert_eq!(reason, "credentials");
    assert!(
        answer.header("retry-after").is_some(),
        "{:?}",
        answer.headers
    );
    assert!(
        world.envoy.log().contains("AADSTS7000215"),
        "{}",
        world.envoy.log()
    );
    world
        .azure
        .set_client_secret(envoy_test::world::CLIENT, CLIENT_SECRET);
    world.wait_for("the right secret to work", || {
        world.ask(&[("x-key", "{vault://azure/open-1}")]).0.status == 200
    });
}

#[test]
fn refusals_have_the_id_that_envoys_log_has() {
    let world = resolving(&json!({}));
    let (_, answer) = world.denied("{vault://azure/open-nobody}");
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let id = body["request_id"].as_str().expect("an id").to_owned();
    assert_eq!(id.len(), 36, "Envoy's own: {id}");
    assert!(world.envoy.log().contains(&format!("request_id={id}")));
    let fields: Vec<&String> = body.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["message", "reason", "reference", "request_id"]);
}

#[test]
fn who_used_what_is_in_the_log_where_it_is_asked_for() {
    for (audit, client) in [
        (json!({}), "client=\"127.0.0.1:"),
        (json!({ "client_header": "x-who" }), "client=\"alice\""),
    ] {
        let rules = json!({ "request": { "resolve": { "headers": ["x-key"], "allow": ["azure/open-*"] } },
            "audit": audit });
        let world = world(&json!({}), &rules);
        let (answer, _) = world.ask(&[("x-key", "{vault://azure/open-1}"), ("x-who", "alice")]);
        assert_eq!(answer.status, 200);
        let log = world.envoy.log();
        let line = log.lines().find(|line| line.contains("event=secret_used"));
        let line = line.unwrap_or_else(|| panic!("{log}"));
        assert!(
            line.contains("vault=azure secret=open-1 outcome=resolved request_id="),
            "{line}"
        );
        assert!(line.contains(client), "{line}");
    }
}

#[test]
fn a_grpc_client_gets_a_grpc_status() {
    let world = resolving(&json!({}));
    let grpc = ("content-type", "application/grpc");
    let (answer, received) = world.ask(&[("x-key", "{vault://azure/open-nobody}"), grpc]);
    assert_eq!(received, None);
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    assert_eq!(answer.header("content-type"), Some("application/grpc"));
    assert_eq!(
        answer.header("grpc-status"),
        Some("9"),
        "{:?}",
        answer.headers
    );
    let message = answer.header("grpc-message").expect("a message");
    assert!(message.contains("reason=not_found"), "{message}");
    world
        .azure
        .fail(Endpoint::Secrets, Fault::Throttle("3".into()));
    let (answer, _) = world.ask(&[("x-key", "{vault://azure/open-1}"), grpc]);
    assert_eq!(answer.header("grpc-status"), Some("14"));
}

#[test]
fn a_secret_that_may_not_be_read_is_denied() {
    let world = resolving(&json!({}));
    world.azure.deny_secret("open-1");
    assert_eq!(world.denied("{vault://azure/open-1}").0, "forbidden");
    world
        .azure
        .update_secret("open-2", &json!({ "attributes": { "enabled": false } }));
    assert_eq!(world.denied("{vault://azure/open-2}").0, "disabled");
}

#[test]
fn on_error_remove_drops_the_header_and_keep_leaves_the_reference() {
    for (on_error, expected) in [
        ("remove", vec![]),
        ("keep", vec!["<{vault://azure/open-nobody}>".to_owned()]),
    ] {
        let world = world(
            &json!({}),
            &json!({ "request": resolve_rule(), "on_error": on_error }),
        );
        let (answer, received) = world.ask(&[
            ("x-key", "<{vault://azure/open-nobody}>"),
            ("x-other", "stays"),
        ]);
        assert_eq!(answer.status, 200);
        let received = received.expect("sent on");
        assert_eq!(received.header("x-key"), expected);
        assert_eq!(received.header("x-other"), ["stays"]);
    }
}

#[test]
fn when_azure_is_down_the_client_hears_it_at_once() {
    for fault in [
        Fault::Status(503),
        Fault::Cut(Cut::BeforeAnswer),
        Fault::Cut(Cut::InBody),
        Fault::Body("{\"value\":".into()),
    ] {
        for endpoint in [Endpoint::Token, Endpoint::Secrets] {
            let world = resolving(&json!({}));
            world.azure.fail(endpoint, fault.clone());
            let (reason, answer) = world.denied("{vault://azure/open-1}");
            let broken = matches!(fault, Fault::Body(_));
            assert_eq!(
                reason,
                if broken { "bad_answer" } else { "unavailable" },
                "{endpoint:?} {fault:?}"
            );
            assert!(answer.took < Duration::from_secs(2), "{:?}", answer.took);
            world.azure.clear_faults();
            world.wait_for("Azure to be asked again", || {
                world.ask(&[("x-key", "{vault://azure/open-1}")]).0.status == 200
            });
        }
    }
}

#[test]
fn when_nothing_listens_the_client_hears_it_at_once() {
    let world = resolving(&json!({ "vault_cluster": "nobody" }));
    let (reason, answer) = world.denied("{vault://azure/open-1}");
    assert_eq!(reason, "unavailable");
    assert!(answer.took < Duration::from_secs(2), "{:?}", answer.took);
}

#[test]
fn a_cluster_that_envoy_does_not_have_is_said_in_the_log() {
    let world = resolving(&json!({ "identity_cluster": "no_such_cluster" }));
    assert_eq!(world.denied("{vault://azure/open-1}").0, "gateway");
    assert!(
        world
            .envoy
            .log()
            .contains("cluster no_such_cluster: the gateway has no such cluster")
    );
}

#[test]
fn when_azure_is_slow_the_client_hears_it_within_the_timeout() {
    let world = resolving(&json!({ "timeout_ms": 500 }));
    world
        .azure
        .fail(Endpoint::Secrets, Fault::Delay(Duration::from_secs(20)));
    let (reason, answer) = world.denied("{vault://azure/open-1}");
    assert_eq!(reason, "timeout");
    assert!(
        answer.took >= Duration::from_millis(450),
        "{:?}",
        answer.took
    );
    assert!(
        answer.took < Duration::from_millis(1500),
        "{:?}",
        answer.took
    );
}

#[test]
fn throttling_is_passed_on_and_obeyed() {
    let world = resolving(&json!({}));
    world
        .azure
        .fail_times(Endpoint::Secrets, Fault::Throttle("3".into()), 1);
    let (reason, answer) = world.denied("{vault://azure/open-1}");
    assert_eq!(
        (reason.as_str(), answer.header("retry-after")),
        ("throttled", Some("3"))
    );
    assert_eq!(world.denied("{vault://azure/open-1}").0, "throttled");
    assert_eq!(world.azure.secret_calls("open-1"), 1);
}

#[test]
fn a_value_serves_on_while_azure_is_down() {
    let world = world(&json!({ "ttl": 1 }), &json!({ "request": set_rule() }));
    assert_eq!(world.ask(&[]).0.status, 200);
    world.azure.fail(Endpoint::Secrets, Fault::Status(500));
    thread::sleep(Duration::from_secs(4));
    let (answer, received) = world.ask(&[]);
    assert_eq!(answer.status, 200);
    assert_eq!(
        received.expect("sent on").header("authorization"),
        [format!("Bearer {MARK}-token")]
    );
    assert!(world.azure.secret_calls("db") > 1, "it was tried");
}

#[test]
fn a_deleted_secret_serves_until_its_resurrection_ends() {
    let rules = json!({ "request": set_rule() });
    let world = world(&json!({ "ttl": 1, "resurrect_ttl": 4 }), &rules);
    assert_eq!(world.ask(&[]).0.status, 200);
    world.azure.delete_secret("db");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(
        world.ask(&[]).0.status,
        200,
        "gone from the vault, and still in its time"
    );
    thread::sleep(Duration::from_secs(3));
    let (answer, _) = world.ask(&[]);
    assert_eq!(answer.status, 503, "ttl and resurrect_ttl are over");
    assert!(answer.text().contains("not_found"), "{}", answer.text());
    world
        .azure
        .set_secret("db", &format!(r#"{{"token":"{MARK}-again"}}"#));
    world.wait_for("the new one", || world.ask(&[]).0.status == 200);
}

#[test]
fn a_deleted_secret_ends_with_revoked_ttl() {
    let vault = json!({ "ttl": 2, "neg_ttl": 60, "revoked_ttl": 0 });
    let world = world(&vault, &json!({ "request": set_rule() }));
    assert_eq!(world.ask(&[]).0.status, 200);
    world.azure.delete_secret("db");
    let deleted = Instant::now();
    while world.ask(&[]).0.status == 200 {
        assert!(
            deleted.elapsed() < Duration::from_secs(5),
            "the value still serves"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn before_its_activation_date_a_version_leaves_the_one_before_in_use() {
    let world = world(&json!({ "ttl": 1 }), &json!({ "request": set_rule() }));
    let later = json!({
        "value": format!(r#"{{"token":"{MARK}-later"}}"#),
        "attributes": { "nbf": 4_102_444_800_u64 },
    });
    world.azure.set_secret_in("default", "db", &later);
    for _ in 0..20 {
        let sent = world.ask(&[]).1.expect("sent on");
        assert_eq!(
            sent.header("authorization"),
            [format!("Bearer {MARK}-token")]
        );
        thread::sleep(Duration::from_millis(100));
    }
    assert!(
        world.azure.secret_calls("db") >= 4,
        "newest, list and version"
    );
}

#[test]
fn a_revoked_token_is_renewed_without_the_client_noticing() {
    let world = resolving(&json!({}));
    world.key("{vault://azure/open-1}");
    world.azure.revoke_tokens();
    assert_eq!(
        world.key("{vault://azure/open-2}"),
        format!("{MARK}-open-2")
    );
    assert_eq!(world.azure.count(Endpoint::Token), 2);
}

#[test]
fn a_token_is_renewed_before_its_end() {
    let world = resolving(&json!({ "ttl": 1 }));
    world.azure.set_token_life(10);
    world.key("{vault://azure/open-1}");
    world.wait_for("the renewal", || {
        world.key("{vault://azure/open-1}");
        world.azure.count(Endpoint::Token) >= 2
    });
    let refused = world
        .azure
        .calls()
        .iter()
        .filter(|call| call.status == 401)
        .count();
    assert_eq!(refused, 0, "no vault ever saw an expired token");
}

/// Envoy answers what its full cluster has no room for inside of the callback that resumes it: thousands of
/// those, one inside of the other, were more than the VM's stack holds.
#[test]
fn thousands_of_cold_requests_for_a_full_cluster_are_all_answered() {
    const REQUESTS: usize = 3_000;
    let limit = getrlimit(Resource::Nofile);
    let enough = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, enough).expect("as many files as are allowed");
    let rest = json!({ "request": resolve_rule() });
    let environment = vec![("AZURE_CLIENT_SECRET", CLIENT_SECRET.to_owned())];
    let full = |all: &mut Value| {
        let upstream = &mut all["static_resources"]["clusters"][0];
        upstream["circuit_breakers"]["thresholds"][0] = json!({ "max_requests": 0 });
    };
    let world = World::start_changed(
        Tools::find().expect("the tools are there"),
        &configuration(&json!({}), &rest),
        |_| environment,
        full,
        |azure| {
            seed(azure);
            azure.set_latency(Endpoint::Secrets, Duration::from_secs(2));
        },
    );
    let world = Checked(world.expect("the world starts"));
    let headers: [(&str, &[u8]); 2] = [
        ("host", b"gateway.test"),
        ("x-key", b"{vault://azure/open-1}"),
    ];
    let request = client::request("GET", "/", &headers, b"");
    let mut streams: Vec<TcpStream> = (0..REQUESTS)
        .map(|_| TcpStream::connect(world.envoy.address).expect("a connection"))
        .collect();
    for stream in &mut streams {
        stream.write_all(&request).expect("a request is taken");
    }
    for stream in &mut streams {
        let mut answer = vec![0; 512];
        let read = stream.read(&mut answer).expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.contains("x-envoy-overloaded: true"), "{answer}");
    }
    assert_eq!(world.azure.count(Endpoint::Secrets), 1);
}

#[test]
fn two_hundred_cold_requests_at_once_get_the_right_value_from_one_call() {
    let world = resolving(&json!({}));
    world
        .azure
        .fail(Endpoint::Secrets, Fault::Delay(Duration::from_millis(200)));
    let address = world.envoy.address;
    let clients: Vec<_> = (0..200)
        .map(|n| {
            thread::spawn(move || {
                let value = format!("{n}-{{vault://azure/open-1}}");
                client::get(address, "/echo", &[("x-key", value.as_bytes())])
            })
        })
        .collect();
    for (n, client) in clients.into_iter().enumerate() {
        let answer = client.join().expect("the client ran").expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let expected = format!("x-key: {n}-{MARK}-open-1\n");
        assert!(answer.text().contains(&expected), "{n}: {}", answer.text());
    }
    assert_eq!(world.azure.count(Endpoint::Token), 1);
    assert_eq!(world.azure.secret_calls("open-1"), 1);
}

#[test]
fn a_client_that_leaves_takes_nobody_with_it() {
    use std::io::Write as _;
    let world = resolving(&json!({}));
    world
        .azure
        .fail(Endpoint::Secrets, Fault::Delay(Duration::from_millis(500)));
    for _ in 0..4 {
        let mut stream = TcpStream::connect(world.envoy.address).expect("connected");
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-key: {vault://azure/open-1}\r\n\r\n")
            .expect("sent");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(
        world.key("{vault://azure/open-1}"),
        format!("{MARK}-open-1")
    );
    assert_eq!(world.azure.secret_calls("open-1"), 1);
}

/// The filter's test data for certificates and keys.
fn key_data(name: &str) -> String {
    let path = envoy_test::envoy::workspace()
        .join("tests/data/keys")
        .join(name);
    std::fs::read_to_string(path).expect("the test data is there")
}

#[test]
fn certificates_come_without_their_private_keys() {
    let rules = json!({ "request": { "resolve": { "headers": ["x-*"], "allow": ["azure/web", "azure/web3"] } } });
    let world = world(&json!({ "type": "certificates" }), &rules);
    let cer = key_data("cert.cer.b64");
    world
        .azure
        .set_certificate("web", &cer, &key_data("bundle.pem"));
    assert_eq!(world.key(":{vault://azure/web/der}:"), format!(":{cer}:"));
    assert_eq!(world.azure.count(Endpoint::Certificates), 1);
    assert_eq!(
        world.azure.secret_calls("web"),
        0,
        "nobody asked for the private key"
    );
    // PEM has line breaks, which no header can hold.
    for reference in ["{vault://azure/web}", "{vault://azure/web/private_key}"] {
        assert_eq!(
            world.denied(reference).0,
            "not_representable",
            "{reference}"
        );
    }
    assert_eq!(
        world.denied("{vault://azure/web/pkcs12}").0,
        "no_such_key",
        "it is stored as PEM"
    );
    assert_eq!(
        world.key("{vault://azure/web/other}"),
        "{vault://azure/web/other}"
    );
    let archive = key_data("legacy.p12.b64");
    world.azure.set_certificate("web3", &cer, &archive);
    assert_eq!(world.key("{vault://azure/web3/pkcs12}"), archive);
    assert_eq!(
        world.denied("{vault://azure/web3/private_key}").0,
        "needs_pkcs12"
    );
    world.azure.set_certificate("web2", &cer, &archive);
    assert_eq!(
        world.key("{vault://azure/web2/pkcs12}"),
        "{vault://azure/web2/pkcs12}",
        "not listed"
    );
}

#[test]
fn keys_come_as_jwk_and_by_field() {
    let rules =
        json!({ "request": { "resolve": { "headers": ["x-*"], "allow": ["azure/sign"] } } });
    let world = world(&json!({ "type": "keys" }), &rules);
    let jwks: Value = serde_json::from_str(&key_data("jwks.json")).expect("JSON");
    world.azure.set_key("sign", &jwks["rsa"]);
    let jwk: Value = serde_json::from_str(&world.key("{vault://azure/sign/jwk}")).expect("JSON");
    assert_eq!(jwk["n"], jwks["rsa"]["n"]);
    assert_eq!(world.key("{vault://azure/sign/e}"), "AQAB");
    assert_eq!(
        world.key("{vault://azure/sign/kid}"),
        jwk["kid"].as_str().expect("a text")
    );
    assert_eq!(world.azure.count(Endpoint::Keys), 1);
}

#[test]
fn two_vaults_do_not_mix() {
    let vault = |prefix: &str, name: &str| {
        let mut vault = configuration(
            &json!({ "vault_uri": format!("https://{name}.vault.azure.net") }),
            &json!({}),
        )["vaults"][0]
            .clone();
        vault["prefix"] = json!(prefix);
        vault
    };
    let rules = json!({
        "vaults": [vault("one", "first"), vault("two", "second")],
        "request": { "resolve": { "headers": ["x-*"], "allow": ["*"] } },
    });
    let world = world(&json!({}), &rules);
    for (vault, value) in [("first", "pl4nted-first"), ("second", "pl4nted-second")] {
        world
            .azure
            .set_secret_in(vault, "same", &json!({ "value": value }));
    }
    let both = world.key("{vault://one/same} {vault://two/same} {vault://three/same}");
    assert_eq!(both, "pl4nted-first pl4nted-second {vault://three/same}");
    assert_eq!(
        world.azure.count(Endpoint::Token),
        1,
        "one identity reads both"
    );
}

#[test]
fn a_value_that_would_split_the_request_is_never_sent() {
    let world = resolving(&json!({}));
    for value in ["pl4nted\r\nx-evil: 1", "pl4nted\n", "pl4nted\0"] {
        world.azure.set_secret("open-bad", value);
        assert_eq!(
            world.denied("{vault://azure/open-bad}").0,
            "not_representable"
        );
        world.azure.delete_secret("open-bad");
    }
}

#[test]
fn strange_headers_go_through_unharmed() {
    let world = world(
        &json!({}),
        &json!({ "request": { "resolve": { "headers": ["*"], "allow": ["*"] } } }),
    );
    let long = [b'{'; 60 * 1024];
    let half = b"{vault://azure/open-1".repeat(1000);
    let strange: [(&str, &[u8]); 8] = [
        ("x-latin", b"caf\xe9"),
        ("x-binary", b"\xff\xfe{vault://\xff}\x80"),
        ("x-empty", b""),
        ("x-long", &long),
        ("x-open", &half),
        ("x-braces", b"}}}}{{{{{}{}{vault://{vault://}}"),
        (
            "x-odd",
            b"{vault:///} {vault://azure} {vault://azure/} {vault://azure/%00} {vault://azure/..}",
        ),
        ("x-tab", b"a\tb"),
    ];
    for round in 0..8 {
        for (name, value) in strange {
            let (answer, received) = world.request(&[(name, value)]).expect("an answer");
            assert_eq!(
                answer.status,
                200,
                "{name} in round {round}: {}",
                answer.text()
            );
            let received = received.expect("sent on");
            let got = received
                .headers
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_slice());
            assert_eq!(got, Some(value), "{name}");
        }
    }
    let (_, received) = world
        .request(&[("x-escaped", b"\\{vault://azure/open-1}")])
        .expect("an answer");
    let received = received.expect("sent on");
    assert_eq!(received.header("x-escaped"), ["{vault://azure/open-1}"]);
    let (_, received) = world
        .request(&[("x-mixed", b"\xff{vault://azure/open-1}\xfe")])
        .expect("an answer");
    let expected = [b"\xff", MARK.as_bytes(), b"-open-1\xfe"].concat();
    let headers = received.expect("sent on").headers;
    assert!(
        headers
            .iter()
            .any(|(n, v)| n == "x-mixed" && *v == expected),
        "both workers still serve"
    );
}

#[test]
fn a_wrong_configuration_stops_envoy_with_every_reason() {
    let tools = Tools::find().expect("the tools are there");
    let wrong = json!({ "vaults": [{ "name": "azure", "prefix": "azure", "config": { "vault_url": "https://x" } }] });
    let error = World::start(tools, &wrong, |_| {})
        .err()
        .expect("Envoy refuses")
        .to_string();
    assert!(
        error.contains(
            "path=\"vaults[0].config.vault_url\" detail=\"is not a known field; did you mean `vault_uri`?"
        ),
        "{error}"
    );
    assert!(
        error.contains("path=\"vaults[0].config.client_id\" detail=\"is missing"),
        "{error}"
    );
}
