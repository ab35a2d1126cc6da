//! What WasmX does with messages, fact by fact, seen by tiny filters; the five faults that killed workers
//! are in `planted.rs`.

mod probe;

use probe::{Probe, notes, punished};
use proxy_wasm_host::{Dialect, Ending, Front, Outcome, Request, Response};

const DENY_IN_ANSWER: &str = "(call $deny (i32.const 5))";

fn calling() -> Probe {
    Probe::new().on(
        "proxy_on_request_headers",
        "(drop (call $call (i32.const 0))) (i32.const 1)",
    )
}

fn end_oldest(gateway: &mut proxy_wasm_host::Gateway) {
    let token = gateway.calls().first().expect("a call").token;
    gateway.end_call(token, Ending::Answer(Response::new(200, &[], b"{}")));
}

#[test]
fn trailers_are_never_shown_and_reading_them_traps() {
    let note = "(call $note (i32.const 116) (local.get $count)) (i32.const 0)";
    let mut gateway = Probe::new()
        .on("proxy_on_request_trailers", note)
        .on("proxy_on_response_trailers", note)
        .on(
            "proxy_on_request_body",
            "(call $note (i32.const 98) (local.get $end)) (i32.const 0)",
        )
        .start(Dialect::Wasmx);
    gateway.answer_upstream(|_| Response::new(200, &[], b"x").with_trailers(&[("x", "1")]));
    let request = Request::post("/", "text/plain", b"ab").with_trailers(&[("x", "1")]);
    let id = gateway.request(0, request);
    assert_eq!(
        notes(&gateway),
        ["b000001"],
        "the body comes once, with its end"
    );
    assert!(gateway.answered(id).is_some());
    let mut gateway = Probe::new()
        .on(
            "proxy_on_request_headers",
            "(drop (call $get_map (i32.const 1) (i32.const 84) (i32.const 88))) (i32.const 0)",
        )
        .start(Dialect::Wasmx);
    let id = gateway.request(0, Request::get("/", &[]));
    assert!(punished(&gateway).contains("not yet implemented"));
    assert_eq!(gateway.answered(id).expect("an answer").status, 500);
}

#[test]
fn the_body_comes_once_and_the_next_filter_reads_a_replaced_one_as_cut() {
    let mut gateway = Probe::new()
        .on("proxy_on_request_body", "(call $note (i32.const 115) (local.get $size)) (call $note (i32.const 114) (call $readable (i32.const 0))) (call $replace_body (i32.const 0) (i32.const 64) (i32.const 8)) (i32.const 0)")
        .start_with(Dialect::Wasmx, |settings| settings.further = vec![b"{}".to_vec()]);
    let mut request = Request::post("/", "text/plain", b"0123").in_pieces(2);
    request.more = true;
    let id = gateway.request(0, request);
    assert_eq!(notes(&gateway), [""; 0], "not before all of it is there");
    gateway.client_sends(id, b"45");
    gateway.client_ends(id, &[]);
    assert_eq!(
        notes(&gateway),
        ["s000006", "r000006", "s000008", "r000004"]
    );
    let sent = gateway.sent(id).expect("sent");
    assert_eq!(
        sent.headers.text("content-length"),
        "8",
        "the host corrects it"
    );
}

#[test]
fn a_request_that_goes_on_with_a_call_under_way_kills_the_worker() {
    let mut gateway = Probe::new()
        .on(
            "proxy_on_request_headers",
            "(drop (call $call (i32.const 0))) (i32.const 0)",
        )
        .start(Dialect::Wasmx);
    gateway.request(0, Request::get("/", &[]));
    assert!(punished(&gateway).contains("signal 11"));
}

#[test]
fn a_trap_in_an_answer_lets_the_request_go_on_unfiltered() {
    let mut gateway = calling()
        .on("proxy_on_http_call_response", "unreachable")
        .on("proxy_on_vm_start", "(call $note (i32.const 118) (i32.const 0)) (i32.const 1)")
        .on("proxy_on_configure", "(drop (call $tick (i32.const 10))) (call $note (i32.const 99) (i32.const 0)) (i32.const 1)")
        .on("proxy_on_tick", "(call $note (i32.const 116) (i32.const 0))")
        .start(Dialect::Wasmx);
    let id = gateway.request(0, Request::get("/", &[]));
    end_oldest(&mut gateway);
    assert!(gateway.sent(id).is_some(), "it fails open");
    assert!(punished(&gateway).contains("unfiltered"));
    // The new instance is configured, not started, and its timer comes beside the old one.
    assert_eq!(notes(&gateway), ["v000000", "c000000", "c000000"]);
    gateway.advance(10);
    assert_eq!(notes(&gateway)[3..], ["t000000", "t000000"]);
}

#[test]
fn without_the_bridge_a_kept_connection_loses_a_reply_from_an_answer() {
    for (front, fails_open) in [
        (Front::Kong, false),
        (Front::Bridge, false),
        (Front::PlainInAccess, false),
        (Front::Plain, true),
    ] {
        let mut gateway = calling()
            .on("proxy_on_http_call_response", DENY_IN_ANSWER)
            .start_with(Dialect::Wasmx, |settings| settings.front = front);
        let ids = [0, 1].map(|_| {
            let mut request = Request::get("/", &[]);
            request.connection = Some(7);
            let id = gateway.request(0, request);
            end_oldest(&mut gateway);
            id
        });
        let reached = ids.map(|id| gateway.sent(id).is_some());
        assert_eq!(reached, [false, fails_open], "{front:?}");
    }
}

#[test]
fn three_properties_tell_requests_apart() {
    // What each property's first bytes are, as a number.
    let property = |name: &str| {
        let bytes: String = name.bytes().map(|b| format!("\\{b:02x}")).collect();
        let length = name.len();
        Probe::new()
            .on(
                "proxy_on_request_headers",
                &format!(
                    "(if (call $property (i32.const 9000) (i32.const {length}) (i32.const 84) (i32.const 88))
                       (then (call $note (i32.const 63) (i32.const 0)))
                       (else (drop (call $log (i32.const 2) (i32.load (i32.const 84)) (i32.load (i32.const 88))))))
                     (i32.const 0)"
                ),
            )
            .data(9000, bytes)
    };
    let read = |name: &str, front: Front| {
        let mut gateway = property(name).start_with(Dialect::Wasmx, |settings| {
            settings.front = front;
            settings.further = vec![b"{}".to_vec()];
        });
        for connection in [3, 3] {
            let mut request = Request::get("/", &[]);
            request.connection = Some(connection);
            gateway.request(0, request);
        }
        notes(&gateway)
    };
    assert_eq!(read("ngx\0connection", Front::Kong), ["3", "3", "3", "3"]);
    assert_eq!(
        read("ngx\0connection_requests", Front::Kong),
        ["1", "1", "2", "2"]
    );
    let ids = read("ngx\0kong_request_id", Front::Kong);
    assert!(ids[0] == ids[1] && ids[1] != ids[2], "{ids:?}");
    assert_eq!(read("ngx\0kong_request_id", Front::Bridge)[0], "?000000");
    let ids = read("ngx\0request_id", Front::Kong);
    assert_ne!(ids[0], ids[1], "another one each time");
}

#[test]
fn a_piece_can_be_held_once() {
    let mut gateway = Probe::new()
        .on(
            "proxy_on_response_body",
            "(call $note (i32.const 112) (local.get $size)) (i32.const 1)",
        )
        .start_with(Dialect::Wasmx, |settings| settings.proxy_buffering = false);
    gateway
        .answer_upstream(|_| Response::new(200, &[("content-length", "40000")], &[b'x'; 40_000]));
    let id = gateway.request(0, Request::get("/", &[]));
    assert_eq!(
        notes(&gateway)[..2],
        ["p008192", "p016384"],
        "then with what came meanwhile"
    );
    assert!(punished(&gateway).contains("a piece can be held once"));
    assert_eq!(gateway.answered(id).expect("an answer").body.len(), 40_000);
}

#[test]
fn a_client_that_leaves_is_deleted_after_its_last_call() {
    let mut gateway = calling()
        .on(
            "proxy_on_delete",
            "(call $note (i32.const 120) (i32.const 0))",
        )
        .on(
            "proxy_on_http_call_response",
            "(call $note (i32.const 97) (i32.const 0))",
        )
        .start(Dialect::Wasmx);
    let id = gateway.request(0, Request::get("/", &[]));
    gateway.client_leaves(id);
    assert_eq!(notes(&gateway), [""; 0]);
    end_oldest(&mut gateway);
    assert_eq!(notes(&gateway), ["a000000", "x000000"]);
    assert_eq!(gateway.outcome(id), Outcome::Gone);
}

#[test]
fn a_reload_makes_new_workers_and_lets_the_old_ones_finish() {
    let mut gateway = calling()
        .on(
            "proxy_on_vm_start",
            "(call $note (i32.const 118) (i32.const 0)) (i32.const 1)",
        )
        .start(Dialect::Wasmx);
    let old = gateway.request(0, Request::get("/", &[]));
    gateway.reload("{}");
    assert_eq!(notes(&gateway), ["v000000", "v000000"]);
    let new = gateway.request(0, Request::get("/", &[]));
    assert_ne!(old.worker, new.worker);
    end_oldest(&mut gateway);
    end_oldest(&mut gateway);
    assert!(gateway.answered(old).is_some() && gateway.answered(new).is_some());
    assert_eq!(punished(&gateway), "");
}
