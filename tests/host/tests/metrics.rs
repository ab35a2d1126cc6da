//! Metrics in both dialects of the in-process host: what is counted, what several workers' gauges show, and
//! that a host which has none is never asked.

mod world;

use proxy_wasm_host::{Dialect, Level, Request};
use serde_json::json;
use world::{BOTH, World};

const NEVER: u64 = 100_000_000;

fn references(world: &World, source: &str) -> u64 {
    world.metric(&format!("akv_references_total.source.{source}.vault.azure"))
}

fn refusals(world: &World, reason: &str) -> u64 {
    world.metric(&format!("akv_refusals_total.reason.{reason}"))
}

/// As long as it may take until the host knows.
const SOON: u64 = 1500;

#[test]
fn every_reference_is_counted_once_by_its_source() {
    for dialect in BOTH {
        let mut world = World::resolving(dialect, json!({ "ttl": 10, "neg_ttl": 60 }));
        world.get(0, &[("x-key", "{vault://azure/open-1}")]);
        world.gateway.advance(700);
        world.answer_all();
        for _ in 0..5 {
            world.get(
                0,
                &[("x-key", "{vault://azure/open-1} {vault://azure/open-1}")],
            );
        }
        world.get(1, &[("x-key", "{vault://azure/open-1}")]);
        for _ in 0..3 {
            world.get(0, &[("x-key", "{vault://azure/open-nobody}")]);
            world.answer_all();
        }
        world.gateway.advance(SOON);
        let counted = ["fetched", "local", "shared", "failed", "negative", "stale"]
            .map(|source| references(&world, source));
        assert_eq!(counted, [1, 10, 1, 1, 2, 0], "{dialect:?}");
        assert_eq!(refusals(&world, "not_found"), 3, "{dialect:?}");
        let delays = world.gateway.recorded("akv_request_delay_ms");
        assert!(
            matches!(delays[..], [700..710, 0..10]),
            "{dialect:?}: no request waited for the shared value; the missing one was answered at once: {delays:?}"
        );
        // Past its ttl, and Azure does not answer any more.
        world.gateway.advance(12_000);
        world.get(1, &[("x-key", "{vault://azure/open-1}")]);
        world.gateway.advance(SOON);
        assert_eq!(references(&world, "stale"), 1, "{dialect:?}");
    }
}

#[test]
fn what_the_operator_sets_counts_for_every_request() {
    for dialect in BOTH {
        let rules = json!({ "set": { "headers": {
            "x-a": "{vault://azure/db} {vault://azure/open-1}", "x-b": "{vault://azure/db}" } } });
        let mut world = World::new(dialect, json!({}), rules);
        world.warm();
        for n in 0..100 {
            world.get(n % 2, &[]);
        }
        world.gateway.advance(SOON);
        assert_eq!(references(&world, "local"), 300, "{dialect:?}");
    }
}

#[test]
fn calls_to_azure_are_counted_by_endpoint_and_status() {
    for dialect in BOTH {
        let mut world = World::resolving(dialect, json!({}));
        world.azure.deny_secret("open-2");
        for name in ["open-1", "open-2"] {
            world.get(0, &[("x-key", &format!("{{vault://azure/{name}}}"))]);
            world.answer_all();
        }
        world.get(0, &[("x-key", "{vault://azure/open-3}")]);
        world.gateway.advance(6_000);
        for (name, count) in [
            ("akv_azure_calls_total.endpoint.token.status.2xx", 1),
            (
                "akv_azure_calls_total.endpoint.secrets.status.2xx.vault.azure",
                1,
            ),
            (
                "akv_azure_calls_total.endpoint.secrets.status.4xx.vault.azure",
                1,
            ),
            (
                "akv_azure_calls_total.endpoint.secrets.status.timeout.vault.azure",
                1,
            ),
            ("akv_tokens_renewed_total.identity.client_secret", 1),
            ("akv_secret_failures_total.reason.forbidden.vault.azure", 1),
            ("akv_refusals_total.reason.timeout", 1),
        ] {
            assert_eq!(world.metric(name), count, "{dialect:?} {name}");
        }
    }
}

#[test]
fn gauges_add_up_over_envoys_workers_and_go_with_them() {
    let mut world = World::resolving(Dialect::Envoy, json!({}));
    for worker in 0..2 {
        world.get(worker, &[("x-key", "{vault://azure/open-1}")]);
        world.answer_all();
    }
    world.get(1, &[("x-key", "{vault://azure/open-2}")]);
    world.answer_all();
    world.gateway.advance(SOON);
    assert_eq!(world.metric("akv_cache_entries"), 3);
    let bytes = 3 * "pl4nted-open-1".len() as u64;
    assert_eq!(world.metric("akv_cache_bytes"), bytes);
    world.gateway.remove(1);
    assert_eq!(world.metric("akv_cache_entries"), 1, "the first worker's");
}

#[test]
fn the_nearest_end_of_any_worker_is_shown() {
    for dialect in BOTH {
        let mut world = World::with(dialect, json!({}), world::resolve(), |settings| {
            let text = String::from_utf8_lossy(&settings.configuration).into_owned();
            let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            json["metrics"]["secret_names"] = json!(true);
            settings.configuration = json.to_string().into_bytes();
        });
        let gauge = "akv_secret_expiry_seconds.vault.azure";
        world.gateway.advance(SOON);
        assert_eq!(world.metric(gauge), NEVER, "{dialect:?}");
        let now = world.gateway.now() / 1000;
        for (worker, name, life) in [(0, "open-1", 1000), (1, "open-2", 5000)] {
            let expires = json!({ "attributes": { "exp": now + life } });
            world.azure.update_secret(name, &expires);
            world.get(worker, &[("x-key", &format!("{{vault://azure/{name}}}"))]);
            world.answer_all();
        }
        for _ in 0..10 {
            world.gateway.advance(1000);
            let left = world.gateway.now() / 1000 - now;
            let shown = world.metric(gauge);
            assert!(shown.abs_diff(1000 - left) <= 2, "{dialect:?}: {shown}");
        }
        let named = "akv_named_secret_expiry_seconds.vault.azure.secret.open_2";
        assert!(world.metric(named).abs_diff(4990) <= 5, "{dialect:?}");
        // The one that wrote it is gone; the other one's is the nearest then.
        world.gateway.restart(0);
        world.gateway.advance(10_000);
        let shown = world.metric(gauge);
        assert!(shown.abs_diff(4980) <= 5, "{dialect:?}: {shown}");
    }
}

#[test]
fn back_offs_are_shown_while_they_last() {
    for dialect in BOTH {
        let mut world = World::resolving(dialect, json!({}));
        world.azure.fail_times(
            envoy_test::emulator::Endpoint::Secrets,
            envoy_test::emulator::Fault::Throttle("20".into()),
            1,
        );
        world.get(0, &[("x-key", "{vault://azure/open-1}")]);
        world.answer_all();
        world.gateway.advance(SOON);
        let held = "akv_backoffs.kind.vaults.vault.azure";
        assert_eq!(world.metric(held), 1, "{dialect:?}");
        world.gateway.advance(20_000);
        assert_eq!(world.metric(held), 0, "{dialect:?}");
    }
}

/// Kong before 3.9 traps on every call that is about a metric, and its ticks then multiply.
#[test]
fn a_host_without_metrics_is_never_asked() {
    let mut world = World::with(Dialect::Wasmx, json!({}), world::resolve(), |settings| {
        settings.metrics = false;
        settings.configuration = world::without_metrics(&settings.configuration);
    });
    let id = world.get(0, &[("x-key", "{vault://azure/open-1}")]);
    world.answer_all();
    world.gateway.advance(10_000);
    assert_eq!(world.upstream(id, "x-key"), ["pl4nted-open-1"]);
    assert_eq!(world.gateway.metrics(), []);
    let errors = world
        .gateway
        .log()
        .into_iter()
        .filter(|l| l.level > Level::Info);
    assert_eq!(errors.count(), 0);
}

#[test]
fn a_host_without_room_is_asked_once_for_each_metric() {
    for dialect in BOTH {
        let mut world = World::with(dialect, json!({}), world::resolve(), |settings| {
            settings.metric_room = 8;
        });
        let id = world.get(0, &[("x-key", "{vault://azure/open-1}")]);
        world.answer_all();
        world.gateway.advance(5_000);
        assert_eq!(world.upstream(id, "x-key"), ["pl4nted-open-1"]);
        assert_eq!(world.gateway.metrics().len(), 8);
        world.gateway.take_cost();
        world.gateway.advance(5_000);
        let calls = world.gateway.take_cost().host_calls;
        assert_eq!(calls.get("proxy_define_metric"), None, "{dialect:?}");
    }
}

/// An idle gateway reads each gauge and writes only the seconds that are left.
#[test]
fn metrics_that_do_not_change_are_not_written() {
    for dialect in BOTH {
        let mut world = World::resolving(dialect, json!({}));
        world.get(0, &[("x-key", "{vault://azure/open-1}")]);
        world.answer_all();
        world.gateway.advance(5_000);
        world.gateway.take_cost();
        world.gateway.advance(10_000);
        let calls = world.gateway.take_cost().host_calls;
        assert_eq!(calls.get("proxy_increment_metric"), None, "{dialect:?}");
        assert_eq!(calls.get("proxy_define_metric"), None, "{dialect:?}");
        let seconds = calls.get("proxy_record_metric").copied().unwrap_or(0);
        assert!(
            (8..=12).contains(&seconds),
            "{dialect:?}: the token's {seconds}"
        );
    }
}

/// Counting adds nothing to a request's own cost: it makes no host call.
#[test]
fn requests_make_no_calls_for_metrics() {
    let mut world = World::resolving(Dialect::Envoy, json!({}));
    world.get(0, &[("x-key", "{vault://azure/open-1}")]);
    world.answer_all();
    world.gateway.take_cost();
    world
        .gateway
        .request(0, Request::get("/", &[("x-key", "{vault://azure/open-1}")]));
    let calls = world.gateway.take_cost().host_calls;
    assert!(
        calls.keys().all(|call| !call.contains("metric")),
        "{calls:?}"
    );
}
