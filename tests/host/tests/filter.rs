//! The release filter in both dialects of the in-process host: what end-to-end tests cannot bring about.

mod world;

use proxy_wasm_host::{Dialect, Ending, Outcome, Request, Response};
use serde_json::json;
use world::{BOTH, World};

#[test]
fn what_the_operator_sets_is_fetched_ahead() {
    for dialect in BOTH {
        let mut world = World::new(
            dialect,
            json!({}),
            json!({ "set": { "headers": { "x-key": "a {vault://azure/db}" } } }),
        );
        world.warm();
        let id = world.get(0, &[("x-other", "1")]);
        assert_eq!(world.upstream(id, "x-key"), ["a pl4nted-db"], "{dialect:?}");
        assert_eq!(
            world.azure.secret_calls("db"),
            1,
            "{dialect:?}: for all workers"
        );
    }
}

#[test]
fn a_cold_request_waits_and_goes_on() {
    for dialect in BOTH {
        let mut world = World::resolving(dialect, json!({}));
        let id = world.get(0, &[("x-key", "{vault://azure/open-1}")]);
        assert_eq!(world.gateway.outcome(id), Outcome::Waiting);
        world.answer_all();
        assert_eq!(
            world.upstream(id, "x-key"),
            ["pl4nted-open-1"],
            "{dialect:?}"
        );
        let calls = world.azure.calls().len();
        let again = world.get(0, &[("x-key", "{vault://azure/open-1}")]);
        assert_eq!(world.upstream(again, "x-key"), ["pl4nted-open-1"]);
        assert_eq!(
            world.azure.calls().len(),
            calls,
            "{dialect:?}: from the cache"
        );
    }
}

#[test]
fn the_client_of_the_leader_leaves_and_the_others_get_the_value() {
    for dialect in BOTH {
        let mut world = World::resolving(dialect, json!({}));
        let ids: Vec<_> = (0..5)
            .map(|_| world.get(0, &[("x-key", "{vault://azure/open-1}")]))
            .collect();
        world.gateway.client_leaves(ids[0]);
        world.answer_all();
        assert_eq!(world.gateway.outcome(ids[0]), Outcome::Gone);
        for id in &ids[1..] {
            assert_eq!(
                world.upstream(*id, "x-key"),
                ["pl4nted-open-1"],
                "{dialect:?}"
            );
        }
    }
}

#[test]
fn two_workers_make_one_call_in_envoy() {
    let mut world = World::resolving(Dialect::Envoy, json!({}));
    let ids: Vec<_> = (0..200)
        .map(|n| world.get(n % 2, &[("x-key", "{vault://azure/open-1}")]))
        .collect();
    world.answer_all();
    // The other worker sees it at its next tick.
    world.gateway.advance(50);
    for id in ids {
        assert_eq!(world.upstream(id, "x-key"), ["pl4nted-open-1"]);
    }
    assert_eq!(world.azure.calls().len(), 2, "a token and a secret");
}

#[test]
fn the_leader_dies_and_the_other_worker_takes_over() {
    let mut world = World::resolving(Dialect::Envoy, json!({ "timeout_ms": 1000 }));
    let lost = world.get(0, &[("x-key", "{vault://azure/open-1}")]);
    let waits = world.get(1, &[("x-key", "{vault://azure/open-1}")]);
    world.gateway.restart(0);
    assert_eq!(world.gateway.outcome(lost), Outcome::Gone);
    for _ in 0..100 {
        world.gateway.advance(100);
        world.answer_all();
    }
    assert_eq!(world.upstream(waits, "x-key"), ["pl4nted-open-1"]);
}

#[test]
fn answers_that_break_are_failures_and_never_a_panic() {
    for dialect in BOTH {
        let cut = Response::new(
            200,
            &[("content-type", "application/json")],
            b"{\"access_token\":\"t\"}",
        );
        for ending in [
            Ending::Timeout,
            Ending::Refused,
            Ending::Tls,
            Ending::Dns,
            Ending::Closed,
            Ending::Cut(cut),
            Ending::Answer(Response::new(200, &[], b"")),
            Ending::Answer(Response::new(0, &[], b"x")),
            Ending::Answer(Response::new(500, &[(":status", "200")], b"{}")),
            Ending::Answer(Response::new(
                200,
                &[("x", "1"), ("x", "2")],
                &[0xff; 70_000],
            )),
        ] {
            let mut world = World::resolving(dialect, json!({}));
            let id = world.get(0, &[("x-key", "{vault://azure/open-1}")]);
            // A broken connection is tried once more.
            for _ in 0..2 {
                if let Some(call) = world.gateway.calls().first() {
                    let token = call.token;
                    world.gateway.end_call(token, ending.clone());
                    world.make_calls();
                }
            }
            let answer = world
                .gateway
                .answered(id)
                .unwrap_or_else(|| panic!("{dialect:?} {ending:?}"));
            assert_eq!(answer.status, 503, "{ending:?}");
            assert_eq!(world.gateway.sent(id), None);
        }
    }
}

#[test]
fn an_older_wasmx_without_dispatch_status_is_understood_too() {
    let mut world = World::with(Dialect::Wasmx, json!({}), world::resolve(), |settings| {
        settings.dispatch_status = false
    });
    for ending in [Ending::Timeout, Ending::Refused, Ending::Closed] {
        let id = world.get(0, &[("x-key", "{vault://azure/open-1}")]);
        for _ in 0..2 {
            if let Some(call) = world.gateway.calls().first() {
                let token = call.token;
                world.gateway.end_call(token, ending.clone());
            }
        }
        assert_eq!(world.gateway.answered(id).expect("an answer").status, 503);
    }
}

#[test]
fn a_wrong_configuration_lets_nothing_through() {
    let wrong = "{\"vaults\":[]";
    let world = World::raw(Dialect::Envoy, wrong);
    assert!(world.gateway.is_refused());
    let mut world = World::raw(Dialect::Wasmx, wrong);
    assert!(
        !world.gateway.is_refused(),
        "that would take the worker down"
    );
    let id = world.get(0, &[]);
    assert_eq!(world.gateway.answered(id).expect("an answer").status, 503);
    assert_eq!(world.gateway.sent(id), None);
}

#[test]
fn without_a_zone_wasmx_is_never_asked_for_shared_data() {
    let mut world = World::with(Dialect::Wasmx, json!({}), world::resolve(), |settings| {
        settings.zone = None;
        settings.configuration = world::without_shared_data(&settings.configuration);
    });
    let id = world.get(0, &[("x-key", "{vault://azure/open-1}")]);
    world.answer_all();
    assert_eq!(world.upstream(id, "x-key"), ["pl4nted-open-1"]);
}

#[test]
fn a_header_sent_twice_is_refused_where_the_host_would_send_both() {
    let request = Request::get(
        "/",
        &[("x-key", "{vault://azure/open-1}"), ("X-Key", "other")],
    );
    let mut world = World::resolving(Dialect::Wasmx, json!({}));
    let id = world.gateway.request(0, request.clone());
    assert_eq!(world.gateway.answered(id).expect("an answer").status, 400);
    let mut world = World::resolving(Dialect::Envoy, json!({}));
    let id = world.gateway.request(0, request);
    world.answer_all();
    assert_eq!(world.upstream(id, "x-key"), ["pl4nted-open-1", "other"]);
}

/// Found by simulation: the value that may serve while it is renewed was there, the request went on, and
/// its own call for the renewal would have taken Kong's worker down.
#[test]
fn a_stale_value_serves_without_a_call_of_the_request() {
    for dialect in BOTH {
        let mut world = World::resolving(dialect, json!({ "ttl": 10 }));
        world.get(0, &[("x-key", "{vault://azure/open-1}")]);
        world.answer_all();
        world.gateway.advance(12_000);
        world.answer_all();
        let id = world.get(1, &[("x-key", "{vault://azure/open-1}")]);
        assert_eq!(
            world.upstream(id, "x-key"),
            ["pl4nted-open-1"],
            "{dialect:?}"
        );
    }
}

/// Found by simulation: the request was resumed before it was held.
#[test]
fn one_reference_twice_in_a_request() {
    for dialect in BOTH {
        let mut world = World::resolving(dialect, json!({ "ttl": 10 }));
        let twice = [
            ("x-key", "{vault://azure/open-1}"),
            ("x-other", "{vault://azure/open-1}"),
        ];
        let first = world.get(0, &twice);
        world.answer_all();
        world.gateway.advance(12_000);
        let second = world.get(1, &twice);
        world.answer_all();
        for id in [first, second] {
            assert_eq!(
                world.upstream(id, "x-other"),
                ["pl4nted-open-1"],
                "{dialect:?}"
            );
        }
    }
}

/// The same traffic again and again leaves nothing behind.
#[test]
fn memory_comes_back_to_its_level() {
    for dialect in BOTH {
        let mut world = World::resolving(dialect, json!({ "ttl": 5 }));
        let mut levels = Vec::new();
        for _ in 0..4 {
            for n in 0..1500 {
                let reference = format!("a {{vault://azure/open-{}}} z", n % 3 + 1);
                let id = world.get(
                    n % 2,
                    &[
                        ("x-key", &reference),
                        ("x-other", "{vault://azure/open-no}"),
                    ],
                );
                if n % 5 == 0 {
                    world.gateway.client_leaves(id);
                }
                world.gateway.advance(10);
                world.answer_all();
            }
            world.gateway.forget_finished();
            levels.push(world.gateway.memory());
        }
        assert_eq!(levels[1], levels[3], "{dialect:?}: {levels:?}");
    }
}

#[test]
fn what_is_lost_from_shared_data_is_fetched_anew() {
    for dialect in BOTH {
        let mut world = World::resolving(dialect, json!({}));
        let first = world.get(0, &[("x-key", "{vault://azure/open-1}")]);
        world.answer_all();
        world.gateway.clear_shared_data();
        let second = world.get(1, &[("x-key", "{vault://azure/open-1}")]);
        world.answer_all();
        for id in [first, second] {
            assert_eq!(
                world.upstream(id, "x-key"),
                ["pl4nted-open-1"],
                "{dialect:?}"
            );
        }
        assert_eq!(world.azure.secret_calls("open-1"), 2, "{dialect:?}");
    }
}
