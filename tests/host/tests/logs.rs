//! The log of one good and one bad hour by the test's clock, kept in docs/samples to show what it looks like;
//! that repeated errors are summed up; and who used what (`audit`).

mod world;

use std::path::PathBuf;

use envoy_test::emulator::{Endpoint, Fault};
use proxy_wasm_host::{Dialect, Level, LogLine, Request};
use serde_json::{Value, json};
use world::{BOTH, World};

const HOUR: u64 = 3_600_000;
/// 2025-06-16T09:00:00Z
const NINE: u64 = 1_750_064_400_000;

fn lines(world: &World, event: &str) -> Vec<String> {
    let event = format!("event={event} ");
    let log = world.gateway.log().into_iter();
    log.map(|line| line.text)
        .filter(|text| text.starts_with(&event))
        .collect()
}

/// A configuration with more at its top.
fn with_more(dialect: Dialect, vault: Value, request: Value, more: Value) -> World {
    let mut whole = world::configuration(&vault, &request);
    for (name, value) in more.as_object().expect("an object") {
        whole[name] = value.clone();
    }
    World::whole(dialect, whole, |_| {})
}

/// One worker, what the operator sets, and references of clients.
fn an_hour(azure: impl Fn(&mut World, u64)) -> World {
    let rules = json!({
        "set": { "headers": { "authorization": "Bearer {vault://azure/db}" } },
        "resolve": { "headers": ["x-key"], "allow": ["azure/open-*"] },
    });
    let whole = world::configuration(&json!({ "ttl": 300, "neg_ttl": 10 }), &rules);
    let mut world = World::whole(Dialect::Envoy, whole, |settings| {
        settings.workers = 1;
        settings.start = NINE;
    });
    let start = world.gateway.now();
    while world.gateway.now() < start + HOUR {
        let passed = (world.gateway.now() - start) / 1000;
        azure(&mut world, passed);
        if passed > 0 {
            for _ in 0..10 {
                let id = format!("req-{passed}");
                let sent = [("x-key", "{vault://azure/open-1}"), ("x-request-id", &*id)];
                world.get(0, &sent);
            }
        }
        world.answer_all();
        world.gateway.forget_finished();
        world.gateway.advance(1000);
        world.answer_all();
    }
    world
}

fn written(log: &[LogLine]) -> String {
    let lines = log.iter().map(|line| {
        let at = (line.time - NINE) / 1000;
        let clock = format!("{:02}:{:02}:{:02}", 9 + at / 3600, at / 60 % 60, at % 60);
        let level = match line.level {
            Level::Error => "error",
            Level::Warn => "warn",
            _ => "info",
        };
        format!("{clock} [{level}] {}\n", line.text)
    });
    lines.collect()
}

/// The file in docs/samples is what the test wrote; with `UPDATE_SAMPLES=1` it is made so.
fn same_as_the_sample(name: &str, log: &str) {
    let folder = envoy_test::envoy::workspace().join("docs/samples");
    let path: PathBuf = folder.join(name);
    if std::env::var_os("UPDATE_SAMPLES").is_some() {
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(&path, log).expect("written");
    }
    let sample = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        log,
        sample,
        "{}; UPDATE_SAMPLES=1 writes it anew",
        path.display()
    );
}

#[test]
fn a_good_hour_is_a_few_lines() {
    let world = an_hour(|world, passed| {
        if passed == 1200 {
            world.azure.set_secret("open-1", "pl4nted-rotated");
        }
    });
    let log = world.gateway.log();
    assert!(log.iter().all(|line| line.level == Level::Info), "{log:#?}");
    same_as_the_sample("good-hour.log", &written(&log));
}

#[test]
fn every_failure_of_a_bad_hour_is_logged_with_its_beginning_and_end() {
    let world = an_hour(|world, passed| match passed {
        // The vault asks for quiet.
        300 => world
            .azure
            .fail_times(Endpoint::Secrets, Fault::Throttle("20".into()), 2),
        // The client secret is changed, and the gateway has the old one.
        900 => {
            world
                .azure
                .set_client_secret(envoy_test::world::CLIENT, "another");
            world.azure.revoke_tokens();
        }
        1500 => world
            .azure
            .set_client_secret(envoy_test::world::CLIENT, envoy_test::world::CLIENT_SECRET),
        // Somebody deletes a secret that clients use, and puts it back.
        2000 => world.azure.delete_secret("open-1"),
        2700 => world.azure.set_secret("open-1", "pl4nted-again"),
        // A client has the name wrong, and does not give up.
        2750..2950 => {
            for n in 0..20 {
                let id = format!("req-{passed}-{n}");
                let sent = [("x-key", "{vault://azure/open-2x}"), ("x-request-id", &*id)];
                world.get(0, &sent);
            }
        }
        // A right is taken away from the identity.
        3000 => world.azure.deny_secret("db"),
        _ => {}
    });
    let log = world.gateway.log();
    // More than 4000 requests were refused, and Azure was asked for some hundred times in vain.
    assert!(log.len() < 60, "{}", log.len());
    same_as_the_sample("bad-hour.log", &written(&log));
}

#[test]
fn thousands_of_refusals_are_two_lines() {
    for dialect in BOTH {
        let mut world = World::resolving(dialect, json!({ "neg_ttl": 600 }));
        world.get(0, &[("x-key", "{vault://azure/open-no}")]);
        world.answer_all();
        for _ in 0..90 {
            for _ in 0..100 {
                let request = Request::get("/", &[("x-key", "{vault://azure/open-no}")]);
                world.gateway.request(0, request);
            }
            world.answer_all();
            world.gateway.forget_finished();
            world.gateway.advance(1000);
        }
        let denied = lines(&world, "request_denied");
        assert_eq!(denied.len(), 2, "{dialect:?}: {denied:#?}");
        assert!(
            denied[0].contains(r#"reference="{vault://azure/open-no}""#),
            "{denied:?}"
        );
        assert!(
            denied[1].contains("reason=not_found repeated="),
            "{denied:?}"
        );
        assert!(
            denied[1].ends_with("since=2025-06-15T15:06:40Z"),
            "{denied:?}"
        );
        assert_eq!(lines(&world, "secret_failed").len(), 1, "{dialect:?}");
    }
}

#[test]
fn names_by_the_thousand_do_not_fill_the_log() {
    let more = json!({ "max_fetches_per_second": 100_000, "max_fetches_in_flight": 100_000 });
    let mut world = with_more(Dialect::Envoy, json!({}), world::resolve(), more);
    for n in 0..1000 {
        world.get(0, &[("x-key", &format!("{{vault://azure/open-no{n}}}"))]);
        world.answer_all();
    }
    world.gateway.advance(61_000);
    assert!(lines(&world, "secret_failed").len() <= 64);
    let others = lines(&world, "other_troubles");
    assert!(others[0].contains("repeated="), "{others:?}");
}

#[test]
fn failures_have_azures_request_id_and_an_end() {
    for dialect in BOTH {
        let mut world = World::resolving(dialect, json!({}));
        world
            .azure
            .fail_times(Endpoint::Secrets, Fault::Status(500), 1);
        world.get(0, &[("x-key", "{vault://azure/open-1}")]);
        world.answer_all();
        let failed = lines(&world, "secret_failed");
        let id = failed[0].split("azure_request_id=").nth(1).expect("an id");
        assert_ne!(id.split(' ').next(), Some("-"), "{failed:?}");
        let start =
            "event=secret_failed vault=azure secret=open-1 reason=unavailable azure_request_id=";
        assert!(failed[0].starts_with(start), "{failed:?}");
        world.gateway.advance(5000);
        world.get(0, &[("x-key", "{vault://azure/open-1}")]);
        world.answer_all();
        let end = lines(&world, "secret_recovered");
        let expected = "event=secret_recovered vault=azure secret=open-1 failures=1 since=2025-06-15T15:06:40Z";
        assert_eq!(end, [expected], "{dialect:?}");
    }
}

#[test]
fn each_use_by_a_client_is_logged_with_the_client_and_the_outcome() {
    for dialect in BOTH {
        let audit = json!({ "audit": { "client_header": "X-Consumer" } });
        let rules = json!({
            "set": { "headers": { "authorization": "{vault://azure/db}" }, "query": { "k": "{vault://azure/db}" } },
            "resolve": { "headers": ["x-key"], "query": ["q"], "allow": ["azure/open-*"] },
        });
        let mut world = with_more(dialect, json!({}), rules, audit);
        world.warm();
        let evil = "bob\" outcome=resolved \u{e4}\u{1b}[31m";
        for (client, path, value) in [
            (
                "alice",
                "/?q={vault://azure/open-2}",
                "a {vault://azure/open-1}",
            ),
            (evil, "/", "{vault://azure/open-no}"),
            ("carol", "/", "nothing"),
        ] {
            let headers = [("x-key", value), ("x-consumer", client)];
            let request = Request::get(path, &headers);
            world.gateway.request(0, request);
            world.answer_all();
        }
        let used = lines(&world, "secret_used");
        let line = |request, secret, outcome, client| {
            let id = match dialect {
                Dialect::Envoy => "-".to_owned(),
                Dialect::Wasmx => format!("4f1d7e0a9c5b4c0f8d3e2a1b{request:08x}"),
            };
            format!(
                "event=secret_used vault=azure secret={secret} outcome={outcome} request_id={id} client=\"{client}\""
            )
        };
        let expected = [
            line(1, "open-1", "resolved", "alice"),
            line(1, "open-2", "resolved", "alice"),
            line(
                2,
                "open-no",
                "not_found",
                r#"bob\" outcome=resolved \u{e4}\u{1b}[31m"#,
            ),
        ];
        assert_eq!(used, expected, "{dialect:?}");
    }
}

#[test]
fn without_a_header_the_address_says_who() {
    for dialect in BOTH {
        let mut world = with_more(dialect, json!({}), world::resolve(), json!({ "audit": {} }));
        world.get(0, &[("x-key", "{vault://azure/open-1}")]);
        world.answer_all();
        let used = lines(&world, "secret_used");
        assert_eq!(used.len(), 1, "{dialect:?}");
        assert!(used[0].ends_with(r#"client="192.0.2.7:1234""#), "{used:?}");
    }
}

#[test]
fn without_audit_no_use_is_logged() {
    for dialect in BOTH {
        let mut world = World::resolving(dialect, json!({}));
        let id = world.get(0, &[("x-key", "{vault://azure/open-1}")]);
        world.answer_all();
        assert_eq!(world.upstream(id, "x-key"), ["pl4nted-open-1"]);
        assert_eq!(lines(&world, "secret_used"), Vec::<String>::new());
    }
}

/// What names the client must not be what a secret was put into.
#[test]
fn a_header_that_may_hold_a_secret_names_nobody() {
    for header in ["authorization", "Cookie", "x-key", "x-set"] {
        let rules = json!({
            "set": { "headers": { "x-set": "{vault://azure/db}" } },
            "resolve": { "headers": ["x-k*"], "allow": ["azure/*"] },
        });
        let audit = json!({ "audit": { "client_header": header } });
        let world = with_more(Dialect::Envoy, json!({}), rules, audit);
        assert!(world.gateway.is_refused(), "{header}");
        let refused = lines(&world, "configuration_refused");
        assert!(
            refused[0].contains(r#"path="audit.client_header""#),
            "{refused:?}"
        );
    }
}
