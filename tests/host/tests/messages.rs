//! Messages as they are in Envoy: trailers, early answers, tunnels, answers without a body, headers that
//! wait for their body. All with the release filter.

mod world;

use proxy_wasm_host::{Dialect, Outcome, Request, Response};
use serde_json::{Value, json};
use world::World;

const REFERENCE: &str = "{vault://azure/open-1}";
const BODY: &[u8] = b"{\"k\":\"{vault://azure/open-1}\"}";
const RESOLVED: &[u8] = b"{\"k\":\"pl4nted-open-1\"}";

fn world(hold_headers: bool, response: Value) -> World {
    let mut request = world::resolve();
    request["resolve"]["body"] = json!(["application/json"]);
    let mut whole = world::configuration(&json!({}), &request);
    whole["response"] = response;
    World::whole(Dialect::Envoy, whole, |settings| {
        settings.hold_headers = hold_headers;
    })
}

fn post(body: &[u8]) -> Request {
    Request::post("/", "application/json", body)
}

#[test]
fn a_body_with_trailers_is_resolved_cold_and_cached() {
    for hold in [false, true] {
        let mut world = world(hold, json!({}));
        for turn in ["cold", "cached"] {
            let request = post(BODY).in_pieces(7).with_trailers(&[("x-end", "1")]);
            let id = world.gateway.request(0, request);
            world.answer_all();
            let sent = world.gateway.sent(id);
            let sent = sent.unwrap_or_else(|| panic!("{turn}, held headers {hold}"));
            assert_eq!(sent.body, RESOLVED, "{turn}, held headers {hold}");
            assert_eq!(sent.trailers.text("x-end"), "1");
        }
    }
}

#[test]
fn a_body_with_trailers_is_refused_like_any_other() {
    for hold in [false, true] {
        let mut world = world(hold, json!({}));
        let body = b"{\"k\":\"{vault://azure/open-none}\"}";
        let id = world
            .gateway
            .request(0, post(body).with_trailers(&[("x-end", "1")]));
        world.answer_all();
        let answer = world.gateway.answered(id).expect("an answer");
        assert_eq!((answer.status, answer.local), (503, true));
        assert_eq!(world.gateway.sent(id), None);
    }
}

#[test]
fn an_answer_with_trailers_is_whole_masked_and_resolved() {
    let resolve = json!({ "redact": true,
        "resolve": { "body": ["application/json"], "allow": ["azure/open-*"] } });
    for (kind, response) in [
        ("application/grpc", json!({ "redact": true })),
        ("application/json", resolve),
    ] {
        let mut world = world(false, response);
        world.gateway.answer_upstream(move |sent| {
            let value = String::from_utf8_lossy(sent.headers.get("x-key").unwrap_or_default());
            let body = format!("[\"hello\",\"{value}\",\"{REFERENCE}\"]");
            Response::new(200, &[("content-type", kind)], body.as_bytes())
                .in_pieces(5)
                .with_trailers(&[("grpc-status", "0")])
        });
        let id = world.get(0, &[("x-key", REFERENCE)]);
        world.answer_all();
        let answer = world.gateway.answered(id).expect("an answer");
        let got: Vec<String> = serde_json::from_slice(&answer.body).expect("the whole body");
        assert_eq!(got[0], "hello", "{kind}");
        assert!(got[1].starts_with('*'), "{kind}: {got:?}");
        if kind == "application/json" {
            assert_ne!(got[2], REFERENCE, "{kind}");
        }
        assert_eq!(answer.trailers.text("grpc-status"), "0");
    }
}

#[test]
fn an_event_of_a_stream_comes_at_once() {
    let mut world = world(false, json!({ "redact": true }));
    world.gateway.answer_upstream(|_| {
        let mut response = Response::new(200, &[("content-type", "text/event-stream")], b"");
        response.more = true;
        response
    });
    let id = world.get(0, &[("x-key", REFERENCE)]);
    world.answer_all();
    for event in 1..=3 {
        world.gateway.upstream_sends(id, b"data: event\n\n");
        let so_far = world.gateway.answer_so_far(id).expect("headers").body;
        assert_eq!(so_far.len(), event * 13, "event {event}");
    }
    // A value in two pieces is masked nevertheless.
    world.gateway.upstream_sends(id, b"data: pl4nted-");
    world.gateway.upstream_sends(id, b"open-1\n\n");
    world.gateway.upstream_ends(id, &[]);
    let answer = world.gateway.answered(id).expect("an answer");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(
        text.ends_with("*\n\n") && !text.contains("pl4nted"),
        "{text}"
    );
}

/// A message of gRPC with its prefix of five bytes.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message");
    [&[0], &length.to_be_bytes()[..], message].concat()
}

#[test]
fn a_grpc_message_that_ends_like_a_value_begins_does_not_wait_for_the_next_one() {
    for dialect in [Dialect::Envoy, Dialect::Wasmx] {
        let mut whole = world::configuration(&json!({}), &world::resolve());
        whole["response"] = json!({ "redact": true });
        let mut world = World::whole(dialect, whole, |_| ());
        world.gateway.answer_upstream(|_| {
            let mut response = Response::new(200, &[("content-type", "application/grpc")], b"");
            response.more = true;
            response
        });
        let id = world.get(0, &[("x-key", REFERENCE)]);
        world.answer_all();
        let mut sent = Vec::new();
        for message in [&b"ends in p"[..], b"pl4nted", b"", b"p"] {
            let piece = framed(message);
            world.gateway.upstream_sends(id, &piece);
            sent.extend_from_slice(&piece);
            let so_far = world.gateway.answer_so_far(id).expect("headers").body;
            assert_eq!(so_far, sent, "{dialect:?}");
        }
        // A value in three pieces of one message, its prefix in two, is masked nevertheless.
        let whole = framed(b"pl4nted-open-1p");
        for piece in [&whole[..3], &whole[3..9], &whole[9..]] {
            world.gateway.upstream_sends(id, piece);
        }
        let so_far = world.gateway.answer_so_far(id).expect("headers").body;
        assert_eq!(so_far.len(), sent.len() + whole.len(), "{dialect:?}");
        assert!(so_far.ends_with(b"**p"), "{dialect:?}: {so_far:?}");
    }
}

#[test]
fn pieces_that_end_like_a_value_begins_are_held_up_to_a_limit() {
    let expects_trailers: [&[(&str, &str)]; 2] = [
        &[("content-type", "application/grpc")],
        &[("content-type", "text/plain"), ("trailer", "x-end")],
    ];
    for headers in expects_trailers {
        let mut whole = world::configuration(&json!({}), &world::resolve());
        whole["response"] = json!({ "redact": true });
        whole["limits"] = json!({ "masked_bytes_held": 100 });
        let mut world = World::whole(Dialect::Envoy, whole, |settings| {
            settings.response_limit = 1_000;
        });
        let body = framed(&b"123456789p".repeat(400));
        world.gateway.answer_upstream(move |_| {
            let mut response = Response::new(200, headers, b"");
            response.more = true;
            response
        });
        let id = world.get(0, &[("x-key", REFERENCE)]);
        world.answer_all();
        let (prefix, message) = body.split_at(5);
        world.gateway.upstream_sends(id, prefix);
        for piece in message.chunks(10) {
            world.gateway.upstream_sends(id, piece);
        }
        world.gateway.upstream_sends(id, b".");
        world.gateway.upstream_ends(id, &[("x-end", "1")]);
        let answer = world.gateway.answered(id).expect("an answer");
        assert_eq!(answer.body, [&body[..], b"."].concat(), "{headers:?}");
        assert_eq!(answer.trailers.text("x-end"), "1", "{headers:?}");
    }
}

/// Two filters in a chain, of which this one resolves this header; the upstream redirects once, and then answers
/// with what it got.
fn redirected_chain(resolves: [&str; 2], limits: &Value) -> World {
    let configuration = |header: &str| {
        let rules = json!({ "resolve": { "headers": [header], "allow": ["azure/open-*"] } });
        let mut whole = world::configuration(&json!({}), &rules);
        whole["response"] = json!({ "redact": true });
        whole["limits"] = limits.clone();
        whole
    };
    let [first, second] = resolves.map(configuration);
    let mut world = World::whole(Dialect::Envoy, first, |settings| {
        settings.further = vec![second.to_string().into_bytes()];
    });
    world.gateway.answer_upstream(|sent| {
        let path = sent.headers.text(":path");
        if path != "/again" {
            let mut response = Response::new(302, &[], b"");
            response.redirect = Some("/again".to_owned());
            return response;
        }
        let got = ["x-key", "y-key"]
            .map(|name| sent.headers.text(name))
            .join(" ");
        Response::new(200, &[("content-type", "text/plain")], got.as_bytes())
    });
    world
}

#[test]
fn each_filter_of_a_chain_masks_its_values_after_an_internal_redirect() {
    let both = [("x-key", REFERENCE), ("y-key", "{vault://azure/open-2}")];
    for resolves in [["x-key", "y-key"], ["y-key", "x-key"], ["x-*", "y-*"]] {
        for sent in [&both[..], &both[..1], &both[1..]] {
            let mut world = redirected_chain(resolves, &json!({}));
            let id = world.get(0, sent);
            world.answer_all();
            let answer = world.gateway.answered(id).expect("an answer");
            assert_eq!(answer.status, 200);
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let masked = text.trim_matches(' ').chars().all(|c| " *".contains(c));
            assert!(
                masked && text.contains('*'),
                "{resolves:?} {sent:?}: {text}"
            );
        }
    }
}

#[test]
fn a_redirect_whose_values_are_not_kept_any_more_is_refused() {
    let mut resolves = ["x-key", "y-key"];
    let status = |resolves, kept: usize, x_key: &str, y_key: &str| {
        let mut world = redirected_chain(resolves, &json!({ "ended_requests": kept }));
        let id = world.get(0, &[("x-key", x_key), ("y-key", y_key)]);
        world.answer_all();
        world.gateway.answered(id).expect("an answer").status
    };
    // Each of the two filters has values to keep.
    assert_eq!(status(resolves, 1, REFERENCE, REFERENCE), 503);
    assert_eq!(status(resolves, 2, REFERENCE, REFERENCE), 200);
    assert_eq!(status(resolves, 1, "plain", REFERENCE), 200);
    // A backslash that was taken away is no value to mask.
    let escaped = "\\{vault://azure/open-1}";
    assert_eq!(status(resolves, 1, "plain", escaped), 200);
    // Two filters of the very same configuration take each other's mark for their own.
    resolves = ["x-key", "x-key"];
    assert_eq!(status(resolves, 9, REFERENCE, "plain"), 503);
}

#[test]
fn headers_are_held_however_late_their_body_comes() {
    let mut world = world(true, json!({}));
    for _ in 0..2 {
        let headers = [("content-type", "application/json"), ("x-key", REFERENCE)];
        let mut request = Request::get("/", &headers);
        request.more = true;
        let id = world.gateway.request(0, request);
        world.answer_all();
        world.gateway.advance(30_000);
        world.answer_all();
        assert_eq!(world.gateway.sent_so_far(id), None, "before its body");
        world
            .gateway
            .client_sends(id, b"{\"k\":\"{vault://azure/open-missing}\"}");
        world.gateway.client_ends(id, &[]);
        world.answer_all();
        assert_eq!(world.gateway.answered(id).expect("a refusal").status, 503);
        assert_eq!(world.gateway.sent_so_far(id), None, "it is denied");
    }
}

#[test]
fn held_headers_count_against_the_budget() {
    let mut request = world::resolve();
    request["resolve"]["body"] = json!(["application/json"]);
    let mut whole = world::configuration(&json!({}), &request);
    whole["limits"] = json!({ "held_bytes": 10_000 });
    let mut world = World::whole(Dialect::Envoy, whole, |settings| {
        settings.hold_headers = true;
    });
    let long = format!("{REFERENCE}{}", "x".repeat(2_000));
    let mut held = Vec::new();
    let mut answers = 0;
    for _ in 0..10 {
        let headers = [("content-type", "application/json"), ("x-key", &long)];
        let mut request = Request::get("/", &headers);
        request.more = true;
        let id = world.gateway.request(0, request);
        match world.gateway.answered(id) {
            Some(answer) => {
                assert_eq!(answer.status, 503);
                answers += 1;
            }
            None => held.push(id),
        }
    }
    assert!(held.len() <= 5 && answers + held.len() == 10, "{answers}");
    // What is over makes room.
    for id in held {
        world.gateway.client_leaves(id);
    }
    let id = world.gateway.request(0, post(BODY));
    world.answer_all();
    assert_eq!(world.gateway.answered(id).expect("an answer").status, 200);
}

#[test]
fn references_that_were_seen_before_count_too() {
    let mut whole = world::configuration(&json!({}), &world::resolve());
    whole["limits"] = json!({ "references": 3 });
    let mut world = World::whole(Dialect::Envoy, whole, |_| ());
    let two = REFERENCE.repeat(2);
    let mut status = |headers: &[(&str, &str)]| {
        let id = world.get(0, headers);
        world.answer_all();
        world.gateway.answered(id).expect("an answer").status
    };
    for _ in 0..3 {
        assert_eq!(status(&[("x-a", &two)]), 200);
        assert_eq!(status(&[("x-b", &two)]), 200);
        assert_eq!(status(&[("x-a", &two), ("x-b", &two)]), 431);
    }
}

#[test]
fn kong_sends_no_further_header_beside_one_that_is_written() {
    let set = json!({ "set": { "headers": { "x-out": "{vault://azure/db}" } } });
    let mut whole = world::configuration(&json!({}), &set);
    whole["response"] = json!({ "redact": true });
    let mut world = World::whole(Dialect::Wasmx, whole, |_| ());
    let cases: [(u16, &[(&str, &str)]); 4] = [
        (200, &[("x_out", "1"), ("accept-encoding", "gzip")]),
        (400, &[("x_out", "1"), ("x_out", "2")]),
        (
            400,
            &[("accept-encoding", "gzip"), ("accept-encoding", "br")],
        ),
        (200, &[("x-other", "1"), ("x-other", "2")]),
    ];
    for (status, headers) in cases {
        let id = world.get(0, headers);
        world.answer_all();
        let answer = world.gateway.answered(id).expect("an answer");
        assert_eq!(answer.status, status, "{headers:?}");
    }
}

#[test]
fn a_tunnels_bytes_pass_untouched() {
    for response in [json!({}), json!({ "redact": true })] {
        let mut world = world(true, response);
        world.gateway.answer_upstream(|_| {
            let mut response = Response::new(101, &[("upgrade", "websocket")], b"");
            response.more = true;
            response
        });
        let headers = [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("content-type", "application/json"),
            ("x-key", REFERENCE),
        ];
        let mut request = Request::get("/", &headers);
        request.more = true;
        let id = world.gateway.request(0, request);
        world.answer_all();
        world.gateway.client_sends(id, BODY);
        world.gateway.upstream_sends(id, b"pl4nted-open-1 pong");
        let sent = world.gateway.sent_so_far(id).expect("the request");
        assert_eq!(sent.headers.text("x-key"), "pl4nted-open-1");
        assert_eq!(sent.body, BODY);
        let answer = world.gateway.answer_so_far(id).expect("the answer");
        assert_eq!(answer.body, b"pl4nted-open-1 pong");
    }
}

#[test]
fn answers_without_a_body_keep_their_length() {
    let all = json!({ "redact": true,
        "resolve": { "body": ["application/json"], "allow": ["azure/open-*"] } });
    for (method, status) in [("HEAD", 200), ("GET", 304)] {
        let mut world = world(false, all.clone());
        world.gateway.answer_upstream(move |_| {
            let headers = [
                ("content-type", "application/json"),
                ("content-length", "42"),
            ];
            Response::new(status, &headers, b"")
        });
        let mut request = Request::get("/", &[("x-key", REFERENCE)]);
        request.headers.set(":method", method.as_bytes());
        let id = world.gateway.request(0, request);
        world.answer_all();
        let answer = world.gateway.answered(id).expect("an answer");
        assert_eq!(
            answer.headers.text("content-length"),
            "42",
            "{method} {status}"
        );
    }
}

#[test]
fn what_is_refused_does_not_show_at_the_upstream_where_headers_can_wait() {
    let mut world = world(true, json!({}));
    let id = world.gateway.request(
        0,
        post(b"{\"k\":\"{vault://azure/open-none}\"}").in_pieces(9),
    );
    world.answer_all();
    assert_eq!(world.gateway.answered(id).expect("an answer").status, 503);
    assert_eq!(world.gateway.sent_so_far(id), None);
    // And what is sent has the right length.
    let id = world.gateway.request(0, post(BODY).in_pieces(9));
    world.answer_all();
    let sent = world.gateway.sent(id).expect("sent");
    let length = RESOLVED.len().to_string();
    assert_eq!(
        (sent.body.as_slice(), sent.headers.text("content-length")),
        (RESOLVED, length)
    );
}

#[test]
fn an_early_answer_is_masked_for_what_the_body_will_bring() {
    let mut world = world(false, json!({ "redact": true }));
    // The value is cached.
    world.get(0, &[("x-key", REFERENCE)]);
    world.answer_all();
    world.gateway.answer_early(|_| {
        let mut response = Response::new(200, &[("content-type", "text/plain")], b"");
        response.more = true;
        Some(response)
    });
    let mut request = post(b"");
    request.body = Vec::new();
    request.more = true;
    request.headers.remove("content-length");
    let id = world.gateway.request(0, request);
    world.gateway.client_sends(id, BODY);
    world.make_calls();
    world
        .gateway
        .upstream_sends(id, b"it will be pl4nted-open-1.");
    world.gateway.client_ends(id, &[]);
    world.make_calls();
    world.gateway.upstream_ends(id, &[]);
    let text = match world.gateway.outcome(id) {
        Outcome::Answered(answer) | Outcome::Reset(answer) => answer.body,
        other => panic!("{other:?}"),
    };
    assert!(!String::from_utf8_lossy(&text).contains("pl4nted"));
}

#[test]
fn a_reload_during_a_fetch_hangs_no_request() {
    let mut world = world(false, json!({}));
    let old = world.get(0, &[("x-key", REFERENCE)]);
    let configuration = world::configuration(&json!({ "ttl": 7 }), &world::resolve());
    world.gateway.reload(&configuration.to_string());
    let new = world.get(0, &[("x-key", REFERENCE)]);
    world.gateway.drain();
    for _ in 0..20 {
        world.answer_all();
        world.gateway.advance(50);
    }
    assert_ne!(world.gateway.outcome(old), Outcome::Waiting);
    assert_eq!(
        world.upstream(new, "x-key"),
        ["pl4nted-open-1"],
        "within a second"
    );
}

#[test]
fn a_body_beyond_the_limit_passes_if_the_operator_says_so_and_nothing_was_found_in_it() {
    let mut resolve = world::resolve();
    resolve["resolve"]["body"] = json!(["text/plain"]);
    resolve["resolve"]["on_too_large"] = json!("pass");
    let mut configuration = world::configuration(&json!({}), &resolve);
    configuration["max_body_bytes"] = json!(100);
    for hold in [false, true] {
        let mut world = World::whole(Dialect::Envoy, configuration.clone(), |settings| {
            settings.hold_headers = hold;
        });
        let plain = vec![b'x'; 300];
        let text = |body: &[u8]| Request::post("/", "text/plain", body).in_pieces(40);
        for request in [text(&plain), text(&plain).without_length()] {
            let id = world.gateway.request(0, request);
            world.answer_all();
            assert_eq!(world.gateway.sent(id).expect("sent").body, plain, "{hold}");
        }
        // With a reference in what had come before the limit, it is refused.
        let mut body = b"{vault://azure/open-1}".to_vec();
        body.extend(&plain);
        let id = world.gateway.request(0, text(&body).without_length());
        world.answer_all();
        let answer = world.gateway.answered(id).expect("an answer");
        assert_eq!(answer.status, 413, "{hold}");
    }
}
