//! What clients get when a request is refused, in both dialects: Kong's shape with a request id, or a
//! gRPC status; and nothing of what Azure said.

mod world;

use proxy_wasm_host::{Answer, Dialect, Request};
use serde_json::{Value, json};
use world::{BOTH, World};

/// Kong's id of the first request.
const KONGS: &str = "4f1d7e0a9c5b4c0f8d3e2a1b00000001";

fn refused(world: &mut World, headers: &[(&str, &str)]) -> Answer {
    let id = world.gateway.request(0, Request::get("/", headers));
    world.answer_all();
    assert_eq!(world.gateway.sent(id), None);
    world.gateway.answered(id).expect("an answer")
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).expect("JSON")
}

#[test]
fn a_refusal_has_kongs_shape() {
    for dialect in BOTH {
        let mut world = World::resolving(dialect, json!({}));
        world.azure.deny_secret("open-1");
        let sent = [
            ("x-key", "{vault://azure/open-1}"),
            ("x-request-id", "b6c7f1f0-6f0e"),
        ];
        let answer = refused(&mut world, &sent);
        assert_eq!(answer.status, 503);
        let id = match dialect {
            Dialect::Envoy => "b6c7f1f0-6f0e",
            Dialect::Wasmx => KONGS,
        };
        let expected = json!({
            "message": "a secret that this request needs could not be resolved",
            "reference": "{vault://azure/open-1}",
            "reason": "forbidden",
            "request_id": id,
        });
        assert_eq!(body(&answer), expected, "{dialect:?}");
    }
}

/// A client may set the header: what is no id is not repeated to anybody, least of all to a log.
#[test]
fn a_strange_id_is_left_out() {
    let long = "1".repeat(129);
    for id in ["a b", "x\ty", "\"}", "1;event=forged", &long, ""] {
        let mut world = World::resolving(Dialect::Envoy, json!({}));
        let sent = [("x-key", "{vault://azure/open-no}"), ("x-request-id", id)];
        let answer = refused(&mut world, &sent);
        assert_eq!(body(&answer).get("request_id"), None, "{id:?}");
        let forged = world
            .gateway
            .log()
            .iter()
            .any(|l| !id.is_empty() && l.text.contains(id));
        assert!(!forged, "{id:?}");
    }
}

#[test]
fn a_grpc_client_gets_a_grpc_status() {
    for dialect in BOTH {
        for (reference, status) in [
            ("{vault://azure/open-no}", "9"),
            ("{vault://azure/open-2}", "14"),
        ] {
            let mut world = World::resolving(dialect, json!({}));
            if status == "14" {
                use envoy_test::emulator::{Endpoint, Fault};
                world.azure.fail(Endpoint::Token, Fault::Status(500));
            }
            let sent = [
                ("x-key", reference),
                ("content-type", "application/grpc+proto"),
            ];
            let answer = refused(&mut world, &sent);
            assert_eq!(answer.status, 200, "{dialect:?}");
            assert_eq!(answer.headers.text("grpc-status"), status, "{dialect:?}");
            let message = answer.headers.text("grpc-message");
            assert!(message.contains(reference), "{dialect:?}: {message}");
        }
    }
}

#[test]
fn grpc_web_is_answered_as_http() {
    for dialect in BOTH {
        let mut world = World::resolving(dialect, json!({}));
        let sent = [
            ("x-key", "{vault://azure/open-no}"),
            ("content-type", "application/grpc-web+proto"),
        ];
        let answer = refused(&mut world, &sent);
        assert_eq!(answer.status, 503, "{dialect:?}");
        assert_eq!(body(&answer)["reason"], "not_found", "{dialect:?}");
    }
}

#[test]
fn a_filter_without_a_configuration_says_no_more_than_that() {
    let mut world = World::raw(Dialect::Wasmx, "{");
    let id = world.get(0, &[]);
    let answer = world.gateway.answered(id).expect("an answer");
    let expected = json!({
        "message": "the secrets filter is not configured; see the gateway's log",
        "request_id": KONGS,
    });
    assert_eq!((answer.status, body(&answer)), (503, expected));
}
