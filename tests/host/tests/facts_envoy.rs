//! What Envoy 1.40 does with messages, fact by fact, seen by tiny filters.

mod probe;

use probe::{Probe, notes, punished};
use proxy_wasm_host::{Answer, Dialect, Ending, Gateway, Outcome, Request, Response};

const NOTE_REQUEST: &str =
    "(call $note (i32.add (i32.const 97) (local.get $end)) (local.get $size))";
const NOTE_RESPONSE: &str =
    "(call $note (i32.add (i32.const 112) (local.get $end)) (local.get $size))";
const CONTINUE: &str = "(i32.const 0)";
const PAUSE: &str = "(i32.const 1)";
/// Remembers the request, for a tick that resumes it.
const REMEMBER: &str = "(global.set $request (local.get $c))";
/// Resumes the remembered request, or response, once.
fn resume(kind: u32) -> String {
    format!(
        "(if (global.get $request) (then
           (drop (call $focus (global.get $request)))
           (drop (call $continue (i32.const {kind})))
           (global.set $request (i32.const 0))))"
    )
}

fn post(pieces: &[&[u8]]) -> Request {
    let mut request = Request::post("/", "text/plain", &pieces.concat());
    request.body = pieces.iter().map(|p| p.to_vec()).collect();
    request
}

/// A filter that pauses its bodies, and has a tick.
fn pausing(end: &str) -> Probe {
    Probe::new()
        .on(
            "proxy_on_configure",
            "(drop (call $tick (i32.const 10))) (i32.const 1)",
        )
        .on("proxy_on_request_body", &format!("{NOTE_REQUEST} {end}"))
        .on("proxy_on_response_body", &format!("{NOTE_RESPONSE} {end}"))
}

fn client(gateway: &Gateway, id: proxy_wasm_host::StreamId) -> Answer {
    gateway.answered(id).expect("an answer")
}

#[test]
fn a_paused_body_is_shown_whole_with_each_piece() {
    let end_only = "(i32.eqz (local.get $end))";
    let mut gateway = pausing(end_only).start(Dialect::Envoy);
    gateway.answer_upstream(|_| Response::new(200, &[], b"0123456789").in_pieces(4));
    let id = gateway.request(0, post(&[b"ab", b"cde", b"f"]));
    assert_eq!(
        notes(&gateway),
        [
            "a000002", "a000005", "b000006", "p000004", "p000008", "q000010"
        ]
    );
    assert_eq!(gateway.sent(id).expect("sent").body, b"abcdef");
    assert_eq!(client(&gateway, id).body, b"0123456789");
    assert_eq!(punished(&gateway), "");
}

#[test]
fn with_trailers_no_piece_is_the_last_one() {
    let mut gateway = pausing(CONTINUE)
        .on(
            "proxy_on_request_trailers",
            "(call $note (i32.const 116) (local.get $count)) (i32.const 0)",
        )
        .on(
            "proxy_on_response_trailers",
            "(call $note (i32.const 117) (local.get $count)) (i32.const 0)",
        )
        .start(Dialect::Envoy);
    gateway.answer_upstream(|_| {
        Response::new(200, &[], b"xyz").with_trailers(&[("grpc-status", "0"), ("x", "1")])
    });
    let id = gateway.request(0, post(&[b"ab"]).with_trailers(&[("x-trailer", "1")]));
    assert_eq!(
        notes(&gateway),
        ["a000002", "t000001", "p000003", "u000002"]
    );
    let sent = gateway.sent(id).expect("sent");
    assert_eq!(
        (
            sent.body.as_slice(),
            sent.trailers.text("x-trailer").as_str()
        ),
        (&b"ab"[..], "1")
    );
    assert_eq!(client(&gateway, id).trailers.text("grpc-status"), "0");
}

#[test]
fn a_held_body_is_let_go_at_trailers_that_no_callback_takes() {
    let mut gateway = pausing(PAUSE)
        .without("proxy_on_request_trailers")
        .without("proxy_on_response_trailers")
        .start(Dialect::Envoy);
    gateway.answer_upstream(|_| Response::new(200, &[], b"xyz").with_trailers(&[("x", "1")]));
    let id = gateway.request(0, post(&[b"ab"]).with_trailers(&[("x", "1")]));
    assert_eq!(gateway.sent(id).expect("sent").body, b"ab");
    assert_eq!(client(&gateway, id).body, b"xyz");
}

#[test]
fn a_pause_in_trailers_holds_the_message_whose_body_can_still_be_replaced() {
    let mut gateway = pausing(PAUSE)
        .on("proxy_on_request_trailers", &format!("{REMEMBER} (call $replace_body (i32.const 0) (i32.const 2) (i32.const 5)) {PAUSE}"))
        .on("proxy_on_response_trailers", &format!("{REMEMBER} (global.set $turn (i32.const 1)) (call $replace_body (i32.const 1) (i32.const 3) (i32.const 4)) {PAUSE}"))
        .on("proxy_on_tick", "(if (global.get $request) (then
           (drop (call $focus (global.get $request)))
           (global.set $request (i32.const 0))
           (drop (call $continue (global.get $turn)))))")
        .start(Dialect::Envoy);
    gateway.answer_upstream(|_| Response::new(200, &[], b"xyz").with_trailers(&[("x", "1")]));
    let id = gateway.request(0, post(&[b"ab"]).with_trailers(&[("x", "1")]));
    assert_eq!(gateway.sent(id), None, "held");
    gateway.advance(10);
    assert_eq!(gateway.sent(id).expect("resumed").body, b"RRRRR");
    assert_eq!(
        gateway.outcome(id),
        Outcome::Waiting,
        "the response is held"
    );
    gateway.advance(10);
    assert_eq!(client(&gateway, id).body, b"RRRR");
    assert_eq!(punished(&gateway), "");
}

#[test]
fn a_pause_in_the_header_phase_holds_the_body_too() {
    let mut gateway = pausing(CONTINUE)
        .on("proxy_on_request_headers", &format!("{REMEMBER} {PAUSE}"))
        .on("proxy_on_tick", &resume(0))
        .start_with(Dialect::Envoy, |settings| settings.body_limit = 4);
    let id = gateway.request(0, post(&[b"abc", b"def"]));
    assert_eq!(notes(&gateway), [""; 0], "no body callback, and no 413");
    assert_eq!(gateway.sent_so_far(id), None);
    gateway.advance(10);
    assert_eq!(
        notes(&gateway)[0],
        "b000006",
        "what came meanwhile is one piece"
    );
    assert_eq!(gateway.sent(id).expect("sent").body, b"abcdef");
}

#[test]
fn with_allow_on_headers_stop_iteration_the_headers_wait_for_the_body() {
    let marking = || {
        pausing("(i32.eqz (local.get $end))").on(
            "proxy_on_request_body",
            "(if (local.get $end) (then (call $note (i32.const 109) (call $mark (i32.const 0)))))
             (i32.eqz (local.get $end))",
        )
    };
    let hold = |settings: &mut proxy_wasm_host::Settings| settings.hold_headers = true;
    let mut gateway = marking()
        .on("proxy_on_request_headers", PAUSE)
        .start_with(Dialect::Envoy, hold);
    let mut request = post(&[b"ab", b"cd"]);
    request.more = true;
    let id = gateway.request(0, request);
    assert_eq!(gateway.sent_so_far(id), None, "the headers are held");
    gateway.client_ends(id, &[]);
    let sent = gateway.sent(id).expect("sent");
    assert_eq!(
        (sent.headers.text("x-probe").as_str(), sent.body.as_slice()),
        ("1", &b"abcd"[..])
    );
    // Without it, headers that the filter let go cannot be changed any more: status 2.
    let mut gateway = marking().start(Dialect::Envoy);
    let id = gateway.request(0, post(&[b"ab"]));
    assert_eq!(notes(&gateway), ["m000002", "q000002"]);
    assert_eq!(gateway.sent(id).expect("sent").headers.get("x-probe"), None);
}

#[test]
fn a_held_request_beyond_the_limit_is_413() {
    let mut gateway = pausing(PAUSE)
        .on("proxy_on_request_headers", PAUSE)
        .start_with(Dialect::Envoy, |settings| {
            settings.body_limit = 4;
            settings.hold_headers = true;
        });
    let id = gateway.request(0, post(&[b"abc", b"def"]));
    assert_eq!(client(&gateway, id).status, 413);
    assert_eq!(gateway.sent_so_far(id), None);
}

#[test]
fn a_held_response_beyond_the_limit_is_reset_or_500() {
    let upstream = |_: &_| Response::new(200, &[], b"0123456789").in_pieces(4);
    let limit = |settings: &mut proxy_wasm_host::Settings| settings.response_limit = 6;
    let mut gateway = pausing(PAUSE).start_with(Dialect::Envoy, limit);
    gateway.answer_upstream(upstream);
    let id = gateway.request(0, Request::get("/", &[]));
    assert!(matches!(gateway.outcome(id), Outcome::Reset(_)));
    let mut gateway = pausing(PAUSE)
        .on("proxy_on_response_headers", PAUSE)
        .start_with(Dialect::Envoy, |settings| {
            limit(settings);
            settings.hold_headers = true;
        });
    gateway.answer_upstream(upstream);
    let id = gateway.request(0, Request::get("/", &[]));
    assert_eq!(client(&gateway, id).status, 500);
}

#[test]
fn an_answer_may_come_and_end_before_the_request() {
    let mut gateway = pausing(PAUSE)
        .on(
            "proxy_on_delete",
            "(call $note (i32.const 120) (i32.const 0))",
        )
        .on("proxy_on_response_body", CONTINUE)
        .start(Dialect::Envoy);
    gateway.answer_early(|_| Some(Response::new(200, &[], b"early")));
    let id = gateway.request(0, post(&[b"ab"]));
    assert_eq!(client(&gateway, id).body, b"early");
    assert_eq!(gateway.sent(id), None, "the request never ended");
    assert_eq!(
        notes(&gateway),
        ["b000002", "x000000"],
        "and its context is gone"
    );
}

#[test]
fn answers_without_a_body_end_with_their_headers() {
    for (method, status, body, end) in [
        ("HEAD", 200, &b""[..], true),
        ("GET", 204, b"", true),
        ("GET", 304, b"", true),
        ("GET", 200, b"", true),
        ("GET", 200, b"x", false),
    ] {
        let mut gateway = pausing(CONTINUE)
            .on(
                "proxy_on_response_headers",
                "(call $note (i32.const 104) (local.get $end)) (i32.const 0)",
            )
            .start(Dialect::Envoy);
        gateway.answer_upstream(move |_| {
            let length = if method == "HEAD" || status == 304 {
                "9"
            } else {
                "0"
            };
            let headers = [("content-length", length)];
            Response::new(status, if body.is_empty() { &headers } else { &[] }, body)
        });
        let mut request = Request::get("/", &[]);
        request.headers.set(":method", method.as_bytes());
        let id = gateway.request(0, request);
        let expected = format!("h00000{}", u8::from(end));
        assert_eq!(notes(&gateway)[0], expected, "{method} {status}");
        assert_eq!(notes(&gateway).len(), if end { 1 } else { 2 });
        assert!(client(&gateway, id).status == status);
        assert_eq!(punished(&gateway), "", "{method} {status}");
    }
}

#[test]
fn bytes_flow_both_ways_after_an_upgrade() {
    let mut gateway = pausing(CONTINUE).start(Dialect::Envoy);
    gateway.answer_upstream(|_| {
        let mut response = Response::new(101, &[("upgrade", "websocket")], b"");
        response.more = true;
        response
    });
    let mut request = Request::get("/", &[("upgrade", "websocket"), ("connection", "Upgrade")]);
    request.more = true;
    let id = gateway.request(0, request);
    assert_eq!(gateway.answer_so_far(id).expect("the headers").status, 101);
    gateway.client_sends(id, b"ping");
    gateway.upstream_sends(id, b"pong!");
    assert_eq!(notes(&gateway), ["a000004", "p000005"]);
    assert_eq!(gateway.sent_so_far(id).expect("sent").body, b"ping");
    assert_eq!(gateway.answer_so_far(id).expect("an answer").body, b"pong!");
    gateway.upstream_ends(id, &[]);
    assert_eq!(client(&gateway, id).body, b"pong!");
    assert_eq!(punished(&gateway), "");
}

#[test]
fn an_internal_redirect_brings_the_changed_request_again() {
    let mut gateway = pausing(CONTINUE)
        .on("proxy_on_request_headers", "(drop (call $mark (i32.const 0))) (call $note (i32.const 104) (local.get $count)) (i32.const 0)")
        .start(Dialect::Envoy);
    gateway.answer_upstream(|sent| {
        let mut response = Response::new(302, &[], b"");
        if sent.headers.text(":path") == "/" {
            response.redirect = Some("/again".to_owned());
        } else {
            response.status = 200;
        }
        response
    });
    let id = gateway.request(0, Request::get("/", &[]));
    // Four pseudo-headers, what the first pass added, and `x-envoy-original-url`.
    assert_eq!(notes(&gateway), ["h000004", "h000006"]);
    let sent = gateway.sent(id).expect("sent");
    assert_eq!(sent.headers.text(":path"), "/again");
    assert_eq!(client(&gateway, id).status, 200);
}

#[test]
fn a_local_reply_after_the_clients_headers_resets_the_stream() {
    let mut gateway = pausing("(call $deny (i32.const 5)) (i32.const 1)").start(Dialect::Envoy);
    gateway.answer_early(|_| {
        let mut response = Response::new(200, &[], b"");
        response.more = true;
        Some(response)
    });
    let mut request = post(&[]);
    request.more = true;
    let id = gateway.request(0, request);
    assert!(gateway.answer_so_far(id).is_some(), "the headers are there");
    gateway.client_sends(id, b"ab");
    assert!(matches!(gateway.outcome(id), Outcome::Reset(_)));
}

#[test]
fn filters_of_a_chain_see_each_others_changes_and_responses_in_reverse() {
    let mut gateway = Probe::new()
        .on("proxy_on_request_body", "(call $note (i32.const 98) (local.get $size)) (call $replace_body (i32.const 0) (local.get $size) (i32.add (local.get $size) (i32.const 1))) (i32.const 0)")
        .on("proxy_on_response_headers", "(call $note (i32.const 104) (local.get $c)) (i32.const 0)")
        .start_with(Dialect::Envoy, |settings| settings.further = vec![b"{}".to_vec()]);
    let id = gateway.request(0, post(&[b"ab"]).without_length());
    let notes = notes(&gateway);
    assert_eq!(notes[..2], ["b000002", "b000003"]);
    assert!(
        notes[2] > notes[3],
        "the last filter is the first one: {notes:?}"
    );
    assert_eq!(gateway.sent(id).expect("sent").body, b"RRRR");
}

#[test]
fn a_reload_leaves_requests_to_the_old_root_until_it_has_drained() {
    let mut gateway = Probe::new()
        .on(
            "proxy_on_request_headers",
            &format!("{REMEMBER} (drop (call $call (i32.const 0))) {PAUSE}"),
        )
        .on("proxy_on_http_call_response", &resume(0))
        .on(
            "proxy_on_delete",
            "(call $note (i32.const 120) (local.get $c))",
        )
        .start(Dialect::Envoy);
    let first = gateway.request(0, Request::get("/", &[]));
    gateway.reload("{\"a\":1}");
    assert_eq!(gateway.outcome(first), Outcome::Waiting);
    let token = gateway.calls()[0].token;
    gateway.end_call(token, Ending::Answer(Response::new(200, &[], b"")));
    assert!(
        gateway.answered(first).is_some(),
        "the old root still answers"
    );
    let second = gateway.request(0, Request::get("/", &[]));
    assert_eq!(gateway.calls().len(), 1);
    gateway.drain();
    assert!(
        notes(&gateway).contains(&"x000001".to_owned()),
        "{:?}",
        notes(&gateway)
    );
    assert_eq!(gateway.calls().len(), 1, "the new root's call stays");
    assert_eq!(gateway.outcome(second), Outcome::Waiting);
    assert_eq!(punished(&gateway), "");
}

#[test]
fn what_a_deleted_root_called_for_is_never_answered() {
    let mut gateway = Probe::new()
        .on(
            "proxy_on_request_headers",
            &format!("(drop (call $call (i32.const 0))) {PAUSE}"),
        )
        .start(Dialect::Envoy);
    let id = gateway.request(0, Request::get("/", &[]));
    gateway.reload("{}");
    gateway.drain();
    assert_eq!(gateway.calls().len(), 0);
    assert!(matches!(gateway.outcome(id), Outcome::Reset(_)));
}
