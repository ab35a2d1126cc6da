//! What killed Kong's worker, or lost an answer there, in the release filter: issue by issue, as it was
//! seen on the real host. The same faults planted in tiny filters are in `planted.rs`.

mod world;

use proxy_wasm_host::{Dialect, Ending, Outcome, Request, Response};
use serde_json::{Value, json};
use world::World;

const REFERENCE: &str = "{vault://azure/open-1}";

fn with_response(response: Value) -> Value {
    let mut whole = world::configuration(&json!({}), &world::resolve());
    whole["response"] = response;
    whole
}

#[test]
fn a_request_ends_without_the_workers_death() {
    let mut world = World::resolving(Dialect::Wasmx, json!({}));
    let id = world.get(0, &[]);
    assert!(world.gateway.answered(id).is_some());
}

#[test]
fn what_the_operator_sets_is_fetched_in_ticks_only() {
    let set = json!({ "set": { "headers": { "x-key": "{vault://azure/db}" } } });
    let mut world = World::new(Dialect::Wasmx, json!({}), set);
    world.warm();
    let id = world.get(0, &[]);
    assert_eq!(world.upstream(id, "x-key"), ["pl4nted-db"]);
}

#[test]
fn a_denial_out_of_an_empty_token_answer_reaches_the_client() {
    let empty = Ending::Answer(Response::new(200, &[], b""));
    for ending in [Ending::Timeout, Ending::Closed, empty] {
        let mut world = World::resolving(Dialect::Wasmx, json!({}));
        let id = world.get(0, &[("x-key", REFERENCE)]);
        // A connection that breaks is tried once more.
        for _ in 0..2 {
            if let Some(call) = world.gateway.calls().first() {
                let token = call.token;
                world.gateway.end_call(token, ending.clone());
            }
        }
        let answer = world.gateway.answered(id);
        assert_eq!(answer.map(|a| a.status), Some(503), "{ending:?}");
    }
}

#[test]
fn a_large_response_with_a_length_arrives_whole_and_masked() {
    let mut lost = Vec::new();
    for (size, buffering) in [(100, true), (40_000, true), (100, false), (100_000, false)] {
        let configuration = with_response(json!({ "redact": true }));
        let mut world = World::whole(Dialect::Wasmx, configuration, |settings| {
            settings.proxy_buffering = buffering;
            settings.response_chunk = 60;
        });
        world.gateway.answer_upstream(move |sent| {
            let mut body = vec![b'.'; size];
            body.extend(sent.headers.get("x-key").unwrap_or_default());
            let length = body.len().to_string();
            Response::new(200, &[("content-length", &length)], &body)
        });
        let id = world.get(0, &[("x-key", REFERENCE)]);
        world.answer_all();
        let answer = world.gateway.answered(id).expect("an answer");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let rest = text.trim_start_matches('.');
        let whole = text.len() - rest.len() == size;
        if !whole || rest.is_empty() || !rest.trim_start_matches('*').is_empty() {
            lost.push((size, buffering, rest.to_owned()));
        }
    }
    assert_eq!(lost, []);
}

#[test]
fn a_large_response_whose_references_are_resolved_arrives_whole() {
    let resolve = json!({ "resolve": { "body": ["application/json"], "allow": ["azure/open-*"] } });
    let mut world = World::whole(Dialect::Wasmx, with_response(resolve), |_| {});
    let padding = "p".repeat(40_000);
    let body = json!({ "p": padding, "k": REFERENCE }).to_string();
    world.gateway.answer_upstream(move |_| {
        let length = body.len().to_string();
        let headers = [
            ("content-type", "application/json"),
            ("content-length", &length),
        ];
        Response::new(200, &headers, body.as_bytes())
    });
    // The secret is in the cache.
    world.get(0, &[("x-key", REFERENCE)]);
    world.answer_all();
    let id = world.get(0, &[]);
    let answer = world.gateway.answered(id).expect("an answer");
    let got: Value = serde_json::from_slice(&answer.body).expect("the whole body");
    assert_eq!(
        (&got["k"], &got["p"]),
        (&json!("pl4nted-open-1"), &json!(padding))
    );
}

#[test]
fn two_filters_that_both_deny_one_request_answer_it_once() {
    let first = world::configuration(&json!({}), &world::resolve());
    let mut second = first.clone();
    second["request"]["resolve"]["headers"] = json!(["y-*"]);
    let mut world = World::whole(Dialect::Wasmx, first, |settings| {
        let second = world::for_dialect(Dialect::Wasmx, second);
        settings.further = vec![second.to_string().into_bytes()];
    });
    let headers = [
        ("x-key", "{vault://azure/open-none}"),
        ("y-key", "{vault://azure/open-none}"),
    ];
    let waiting = world.get(0, &[("x-key", REFERENCE)]);
    let id = world.get(0, &headers);
    // Others wait meanwhile: then a trap is the worker's death.
    while let Some(call) = world.gateway.calls().into_iter().next_back() {
        let now = world.gateway.now();
        let (ending, _) = proxy_wasm_host::azure::ending(&world.azure, &call, now);
        world.gateway.end_call(call.token, ending);
    }
    assert_eq!(world.gateway.answered(id).expect("an answer").status, 503);
    assert_ne!(world.gateway.outcome(waiting), Outcome::Gone);
    // And again, now that both know that there is no such secret.
    let id = world.gateway.request(0, Request::get("/", &headers));
    world.answer_all();
    assert_eq!(world.gateway.answered(id).expect("an answer").status, 503);
}

/// A request with an old value and a missing one was woken for the first, and evaluated again in the next
/// answer to any request: its refusal went to that other request's client.
#[test]
fn an_answer_refuses_only_the_request_whose_call_it_was() {
    let vault = json!({ "ttl": 1, "resurrect_ttl": 1000 });
    let mut world = World::resolving(Dialect::Wasmx, vault);
    world.get(0, &[("x-key", REFERENCE)]);
    world.answer_all();
    world.gateway.advance(2000);
    let missing = ("x-other", "{vault://azure/open-none}");
    let both = [("x-key", REFERENCE), missing];
    let first = world.gateway.request(0, Request::get("/", &both));
    let second = world.gateway.request(0, Request::get("/", &[missing]));
    let calls = world.gateway.calls();
    let of_missing =
        |call: &&proxy_wasm_host::Call| call.headers.text(":path").contains("open-none");
    let own: Vec<_> = calls.iter().filter(of_missing).collect();
    assert_eq!(own.len(), 2, "each request calls for itself: {calls:?}");
    // The second one's call is answered first.
    let now = world.gateway.now();
    let (ending, _) = proxy_wasm_host::azure::ending(&world.azure, own[1], now);
    world.gateway.end_call(own[1].token, ending.clone());
    let status = |world: &World, id| world.gateway.answered(id).map(|answer| answer.status);
    assert_eq!(status(&world, second), Some(503));
    assert_eq!(world.gateway.outcome(first), Outcome::Waiting);
    world.gateway.end_call(own[0].token, ending);
    assert_eq!(status(&world, first), Some(503));
    assert_eq!(world.gateway.sent_so_far(first), None);
}
