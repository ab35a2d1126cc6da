//! Five faults that killed Kong's worker, or lost an answer, on the real host: each planted in a tiny
//! filter, which the simulated host has to punish as the real one did, beside one without the fault.

mod probe;

use probe::{Probe, notes, punished};
use proxy_wasm_host::{Dialect, Ending, Gateway, Outcome, Request, Response};

/// A request that pauses for a call of its own, made with a body of this length.
fn calling(body: u32) -> Probe {
    Probe::new().on(
        "proxy_on_request_headers",
        &format!("(drop (call $call (i32.const {body}))) (i32.const 1)"),
    )
}

fn end_oldest(gateway: &mut Gateway, ending: Ending) {
    let token = gateway.calls().first().expect("a call").token;
    gateway.end_call(token, ending);
}

fn answer(body: &[u8]) -> Ending {
    Ending::Answer(Response::new(200, &[], body))
}

#[test]
fn a_missing_proxy_on_done_or_proxy_on_log_kills_the_worker() {
    for name in ["proxy_on_done", "proxy_on_log"] {
        let mut gateway = Probe::new().without(name).start(Dialect::Wasmx);
        gateway.request(0, Request::get("/", &[]));
        assert!(punished(&gateway).contains("signal 11"), "{name}");
        let mut envoy = Probe::new().without(name).start(Dialect::Envoy);
        let id = envoy.request(0, Request::get("/", &[]));
        assert_eq!(punished(&envoy), "", "Envoy asks");
        assert!(envoy.answered(id).is_some());
    }
    let mut gateway = Probe::new().start(Dialect::Wasmx);
    let id = gateway.request(0, Request::get("/", &[]));
    assert_eq!(punished(&gateway), "");
    assert!(gateway.answered(id).is_some());
}

#[test]
fn a_call_from_the_roots_own_answer_kills_the_worker() {
    let ticking = |answered: &str| {
        Probe::new()
            .on(
                "proxy_on_configure",
                "(call $tick (i32.const 10)) drop (i32.const 1)",
            )
            .on(
                "proxy_on_tick",
                "(if (i32.eqz (global.get $turn)) (then
                   (global.set $turn (i32.const 1)) (drop (call $call (i32.const 0)))))",
            )
            .on("proxy_on_http_call_response", answered)
    };
    let chained = "(drop (call $call (i32.const 0)))";
    let mut gateway = ticking(chained).start(Dialect::Wasmx);
    let waiting = gateway.request(0, Request::get("/", &[]));
    assert!(gateway.answered(waiting).is_some());
    gateway.advance(10);
    end_oldest(&mut gateway, answer(b"{}"));
    assert!(punished(&gateway).contains("the worker crashes"));
    // Envoy allows it, and WasmX does in the next tick.
    let mut gateway = ticking(chained).start(Dialect::Envoy);
    gateway.advance(10);
    end_oldest(&mut gateway, answer(b"{}"));
    assert_eq!(punished(&gateway), "");
    let mut gateway = ticking("(global.set $turn (i32.const 0))").start(Dialect::Wasmx);
    gateway.advance(10);
    end_oldest(&mut gateway, answer(b"{}"));
    assert_eq!(gateway.calls().len(), 0);
    gateway.advance(10);
    assert_eq!(
        (gateway.calls().len(), punished(&gateway).as_str()),
        (1, "")
    );
}

#[test]
fn a_request_may_call_from_its_own_answer() {
    let mut gateway = calling(0)
        .on(
            "proxy_on_http_call_response",
            "(if (i32.eqz (global.get $turn)) (then
               (global.set $turn (i32.const 1)) (drop (call $call (i32.const 0)))))",
        )
        .start(Dialect::Wasmx);
    let id = gateway.request(0, Request::get("/", &[]));
    end_oldest(&mut gateway, answer(b""));
    assert_eq!(
        gateway.outcome(id),
        Outcome::Waiting,
        "its second call is under way"
    );
    end_oldest(&mut gateway, answer(b""));
    assert!(gateway.answered(id).is_some());
    assert_eq!(punished(&gateway), "");
}

#[test]
fn a_reply_with_a_body_out_of_an_empty_answer_to_a_post_closes_the_connection() {
    // The call's body, the reply's, the answer, and whether the client gets the reply.
    let timeout = || Ending::Timeout;
    let table = [
        (4, 5, timeout(), false),
        (4, 5, answer(b""), false),
        (4, 5, Ending::Closed, false),
        (4, 0, timeout(), true),
        (0, 5, timeout(), true),
        (4, 5, answer(b"{}"), true),
    ];
    for (call, reply, ending, arrives) in table {
        let text = format!("call {call}, reply {reply}, {ending:?}");
        let mut gateway = calling(call)
            .on(
                "proxy_on_http_call_response",
                &format!("(call $deny (i32.const {reply}))"),
            )
            .start(Dialect::Wasmx);
        let id = gateway.request(0, Request::get("/", &[]));
        end_oldest(&mut gateway, ending);
        assert_eq!(gateway.answered(id).is_some(), arrives, "{text}");
        let closed = punished(&gateway).contains("zero size buf");
        assert_eq!(closed, !arrives, "{text}: {}", punished(&gateway));
        assert_eq!(gateway.sent(id), None, "{text}");
    }
}

/// A filter that collects a response until its end and answers with it, as if pieces always had one.
#[test]
fn a_response_of_several_pieces_with_a_length_has_no_end() {
    let collecting = || {
        Probe::new().on(
            "proxy_on_response_body",
            "(call $note (i32.add (i32.const 97) (local.get $end)) (local.get $size)) (i32.const 0)",
        )
    };
    let ends = |gateway: &Gateway| {
        let notes = notes(gateway);
        notes.iter().filter(|note| note.starts_with('b')).count()
    };
    // Size, whether nginx buffers, whether the upstream sends the length, and how many ends there are.
    for (size, buffering, length, expected) in [
        (100, true, true, 1),
        (31_000, true, true, 1),
        (40_000, true, true, 0),
        (40_000, true, false, 1),
        (100, false, true, 0),
        (100, false, false, 1),
    ] {
        let mut gateway = collecting().start_with(Dialect::Wasmx, |settings| {
            settings.proxy_buffering = buffering;
        });
        gateway.answer_upstream(move |_| {
            let text = size.to_string();
            let with = [("content-length", text.as_str())];
            let headers = if length { &with[..] } else { &[] };
            Response::new(200, headers, &vec![b'x'; size])
        });
        let id = gateway.request(0, Request::get("/", &[]));
        let text = format!("{size} bytes, buffering {buffering}, length {length}");
        assert_eq!(ends(&gateway), expected, "{text}: {:?}", notes(&gateway));
        assert_eq!(gateway.answered(id).expect("an answer").body.len(), size);
        assert_eq!(punished(&gateway), "", "{text}");
    }
}

#[test]
fn pieces_that_grow_are_cut_and_empty_ones_break() {
    let upstream = |_: &_| Response::new(200, &[], b"0123456789");
    let mut gateway = Probe::new()
        .on(
            "proxy_on_response_body",
            "(call $replace_body (i32.const 1) (local.get $size) (i32.const 20)) (i32.const 0)",
        )
        .start(Dialect::Wasmx);
    gateway.answer_upstream(upstream);
    gateway.request(0, Request::get("/", &[]));
    assert!(punished(&gateway).contains("bytes are lost"));
    let mut gateway = Probe::new()
        .on(
            "proxy_on_response_body",
            "(call $replace_body (i32.const 1) (local.get $size) (i32.const 0)) (i32.const 0)",
        )
        .start_with(Dialect::Wasmx, |settings| settings.response_chunk = 3);
    // An end of its own comes in an empty piece, now and then.
    gateway.answer_upstream(upstream);
    for _ in 0..20 {
        gateway.request(0, Request::get("/", &[]));
    }
    assert!(punished(&gateway).contains("breaks the response"));
}

/// The same filter twice in a chain; each denies from its call's answer, or in its headers at once when
/// the first one did so before.
fn denying_twice(second: &str) -> Probe {
    Probe::new()
        .on(
            "proxy_on_request_headers",
            &format!(
                "(call $note (i32.const 104) (local.get $c))
                 (if (result i32) (i32.eqz (global.get $turn))
                   (then (drop (call $call (i32.const 0))) (i32.const 1))
                   (else {second} (i32.const 0)))"
            ),
        )
        .on(
            "proxy_on_http_call_response",
            "(global.set $turn (i32.const 1)) (call $deny (i32.const 5))",
        )
}

#[test]
fn the_next_filter_runs_after_a_local_reply_and_a_second_reply_traps() {
    let two = |probe: Probe| {
        probe.start_with(Dialect::Wasmx, |settings| {
            settings.further = vec![b"{}".to_vec()];
        })
    };
    let mut gateway = two(denying_twice(""));
    let id = gateway.request(0, Request::get("/", &[]));
    assert_eq!(notes(&gateway).len(), 1);
    end_oldest(&mut gateway, answer(b"{}"));
    assert_eq!(
        notes(&gateway).len(),
        2,
        "the second filter runs all the same"
    );
    assert_eq!(gateway.answered(id).expect("an answer").status, 503);
    assert_eq!((gateway.sent(id), punished(&gateway).as_str()), (None, ""));
    // The second one denies too: a trap, and the worker's death when another request waits.
    let mut gateway = two(denying_twice("(call $deny (i32.const 5))"));
    gateway.request(0, Request::get("/", &[]));
    end_oldest(&mut gateway, answer(b"{}"));
    assert!(punished(&gateway).contains("local response already stashed"));
    assert!(!punished(&gateway).contains("signal 11"));
    let mut gateway = two(denying_twice("(call $deny (i32.const 5))"));
    gateway.request(0, Request::get("/", &[]));
    let other = gateway.request(0, Request::get("/", &[]));
    end_oldest(&mut gateway, answer(b"{}"));
    assert!(punished(&gateway).contains("signal 11"));
    assert_eq!(gateway.outcome(other), Outcome::Gone);
}
