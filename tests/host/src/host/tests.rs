//! Each fact of the two hosts by itself: what a host function does there, called as a module would.

use super::*;
use crate::headers::Headers;
use crate::stream::{Hold, Hop, Phase, Request};

fn host(dialect: Dialect) -> Host {
    let mut settings = Settings::new(dialect, [].as_slice().into(), "{}");
    settings.clusters.push("empty".into());
    settings.empty_clusters.push("empty".into());
    let mut host = Host::new(settings);
    enter(&mut host, "proxy_on_request_headers", 2);
    host
}

/// A callback begins; context 1 is the root's.
fn enter(host: &mut Host, callback: &'static str, context: u32) {
    let envoy = host.is_envoy();
    host.roots.insert((0, 1), b"{}".to_vec());
    if context != 1 && !host.streams.contains_key(&(0, context)) {
        let mut request = Request::get(
            "/a?b=c",
            &[("X-Once", "1"), ("X-Twice", "1"), ("X-Twice", "2")],
        );
        request.body = vec![b"0123456789".to_vec()];
        let mut stream = Stream::new(request, envoy);
        let mut hop = Hop {
            context,
            root: 1,
            created: true,
            ..Hop::default()
        };
        hop.request.begun = true;
        hop.request.hold = Hold::All;
        stream.hops.push(hop);
        host.streams.insert((0, context), stream);
        host.owners.insert((0, context), (context, 0));
    }
    host.here = Here {
        worker: 0,
        root: 1,
        callback,
        context,
        effective: context,
        shown: None,
    };
}

/// The request's body callback, with these bytes.
fn enter_body(host: &mut Host, bytes: &[u8]) {
    enter(host, "proxy_on_request_body", 2);
    let stream = host.streams.get_mut(&(0, 2)).unwrap();
    stream.phase = Phase::RequestBody(0);
    stream.hops[0].request.buffer = Some(bytes.to_vec());
}

fn call_headers() -> Headers {
    Headers::of(&[
        (":method", "GET"),
        (":path", "/"),
        (":authority", "h"),
        (":scheme", "https"),
    ])
}

fn is_trap<T>(reply: Reply<T>) -> bool {
    matches!(reply, Err(Ill::Trap(_)))
}

fn is_crash<T>(reply: Reply<T>) -> bool {
    matches!(reply, Err(Ill::Crash(_)))
}

const BOTH: [Dialect; 2] = [Dialect::Envoy, Dialect::Wasmx];

#[test]
fn header_names_are_in_lower_case_in_envoy_and_as_sent_in_wasmx() {
    for (dialect, name) in [(Dialect::Envoy, "x-once"), (Dialect::Wasmx, "X-Once")] {
        let headers = host(dialect).headers(0).unwrap();
        assert!(headers.iter().any(|(n, _)| n == name), "{dialect:?}");
    }
}

#[test]
fn setting_a_header_that_was_sent_twice_leaves_the_second_one_in_wasmx() {
    for (dialect, wire) in [
        (Dialect::Envoy, vec![&b"new"[..]]),
        (Dialect::Wasmx, vec![b"new", b"2"]),
    ] {
        let mut host = host(dialect);
        host.replace_header(0, "x-twice", b"new").unwrap();
        let stream = &host.streams[&(0, 2)];
        // wasmx.md, 0.5: the filter's view shows none.
        let view: &[&[u8]] = match dialect {
            Dialect::Envoy => &[b"new"],
            Dialect::Wasmx => &[],
        };
        assert_eq!(stream.headers.all("x-twice"), view);
        assert_eq!(stream.wire.all("x-twice"), wire);
        assert_eq!(host.violations.is_empty(), dialect == Dialect::Envoy);
    }
}

#[test]
fn a_removed_header_reaches_the_upstream_in_wasmx() {
    for dialect in BOTH {
        let mut host = host(dialect);
        host.remove_header(0, "x-once").unwrap();
        let stream = &host.streams[&(0, 2)];
        assert_eq!(stream.headers.get("x-once"), None);
        assert_eq!(
            stream.wire.get("x-once").is_some(),
            dialect == Dialect::Wasmx
        );
        assert_eq!(host.violations.is_empty(), dialect == Dialect::Envoy);
    }
}

#[test]
fn the_path_changes_in_envoy_and_by_a_property_in_wasmx() {
    for dialect in BOTH {
        let mut host = host(dialect);
        host.replace_header(0, ":path", b"/new").unwrap();
        let wire = host.streams[&(0, 2)].wire.text(":path");
        assert_eq!(
            wire,
            if dialect == Dialect::Envoy {
                "/new"
            } else {
                "/a?b=c"
            }
        );
        host.set_property(b"ngx\0upstream_uri", b"/kong").unwrap();
        let uri = host.streams[&(0, 2)].upstream_uri.clone();
        assert_eq!(uri.is_some(), dialect == Dialect::Wasmx);
    }
}

#[test]
fn control_bytes_in_a_header_are_a_violation_in_both() {
    for dialect in BOTH {
        let mut host = host(dialect);
        host.replace_header(0, "x-once", b"a\r\nb").unwrap();
        assert_eq!(host.violations.len(), 1, "{dialect:?}");
    }
}

#[test]
fn envoy_refuses_header_changes_once_the_request_was_let_go() {
    let mut host = host(Dialect::Envoy);
    host.continue_stream(0).unwrap();
    assert_eq!(
        host.replace_header(0, "x-once", b"2"),
        Err(Ill::Status(BAD_ARGUMENT))
    );
    host.continue_stream(0).unwrap();
    assert_eq!(host.violations.len(), 1, "resumed twice");
}

#[test]
fn resuming_from_a_root_context_kills_wasmxs_worker() {
    let mut host = host(Dialect::Wasmx);
    enter(&mut host, "proxy_on_tick", 1);
    assert_eq!(
        host.set_effective_context(2),
        Ok(()),
        "ignored, and said to be done"
    );
    assert!(is_crash(host.continue_stream(0)));
    assert!(
        is_crash(host.property(b"plugin_name")),
        "and so does reading a property"
    );
}

#[test]
fn envoy_focuses_on_living_requests_only() {
    let mut host = host(Dialect::Envoy);
    enter(&mut host, "proxy_on_tick", 1);
    assert_eq!(
        host.set_effective_context(u32::MAX),
        Err(Ill::Status(BAD_ARGUMENT))
    );
    assert_eq!(host.set_effective_context(2), Ok(()));
    assert_eq!(host.replace_header(0, "x-once", b"2"), Ok(()));
    host.streams.get_mut(&(0, 2)).unwrap().over = true;
    assert_eq!(
        host.set_effective_context(2),
        Err(Ill::Status(BAD_ARGUMENT))
    );
}

#[test]
fn calls_name_a_cluster_in_envoy_and_an_address_in_wasmx() {
    let mut envoy = host(Dialect::Envoy);
    let made = |host: &mut Host, to: &str| host.http_call(to, call_headers(), b"", 5).map(drop);
    assert_eq!(made(&mut envoy, "key_vault"), Ok(()));
    assert_eq!(made(&mut envoy, "nobody"), Err(Ill::Status(BAD_ARGUMENT)));
    assert_eq!(
        made(&mut envoy, "empty"),
        Err(Ill::Status(INTERNAL_FAILURE))
    );
    let mut wasmx = host(Dialect::Wasmx);
    assert_eq!(made(&mut wasmx, "v.vault.azure.net:443"), Ok(()));
    assert!(is_trap(made(&mut wasmx, "key_vault")));
    enter(&mut wasmx, "proxy_on_tick", 1);
    assert_eq!(
        made(&mut wasmx, "key_vault"),
        Err(Ill::Status(INTERNAL_FAILURE))
    );
}

#[test]
fn wasmx_allows_calls_in_some_callbacks_only() {
    for (callback, context, allowed) in [
        ("proxy_on_configure", 1, false),
        ("proxy_on_vm_start", 1, false),
        ("proxy_on_response_headers", 2, false),
        ("proxy_on_tick", 1, true),
        ("proxy_on_request_body", 2, true),
        ("proxy_on_http_call_response", 2, true),
    ] {
        let mut wasmx = host(Dialect::Wasmx);
        enter(&mut wasmx, callback, context);
        let made = wasmx.http_call("h:443", call_headers(), b"", 5);
        assert_eq!(!is_trap(made), allowed, "{callback}");
        let mut envoy = host(Dialect::Envoy);
        enter(&mut envoy, callback, context);
        assert!(envoy.http_call("key_vault", call_headers(), b"", 5).is_ok());
    }
}

#[test]
fn what_wasmx_sends_raw_or_without_tls_is_a_violation() {
    for (name, value) in [
        (":path", "/a\r\nx: 1"),
        (":authority", "h\r\n"),
        (":scheme", "HTTPS"),
    ] {
        let mut host = host(Dialect::Wasmx);
        let mut headers = call_headers();
        headers.set(name, value.as_bytes());
        host.http_call("h:443", headers, b"", 5).unwrap();
        assert_eq!(host.violations.len(), 1, "{name}");
    }
}

#[test]
fn a_timeout_of_zero_is_none_in_envoy_and_a_minute_in_wasmx() {
    let mut envoy = host(Dialect::Envoy);
    envoy
        .http_call("key_vault", call_headers(), b"", 0)
        .unwrap();
    assert_eq!(envoy.calls[0].deadline, None);
    let mut wasmx = host(Dialect::Wasmx);
    wasmx.http_call("h:443", call_headers(), b"", 0).unwrap();
    assert_eq!(wasmx.calls[0].deadline, Some(wasmx.now + 60_000));
}

#[test]
fn a_second_tick_period_traps_in_wasmx() {
    for dialect in BOTH {
        let mut host = host(dialect);
        assert_eq!(
            is_trap(host.set_tick_period(5)),
            dialect == Dialect::Wasmx,
            "in a request"
        );
        enter(&mut host, "proxy_on_configure", 1);
        host.set_tick_period(5).unwrap();
        assert_eq!(is_trap(host.set_tick_period(7)), dialect == Dialect::Wasmx);
        assert_eq!(host.ticks.len(), 1);
    }
}

#[test]
fn writes_to_shared_data() {
    let mut envoy = host(Dialect::Envoy);
    let mut wasmx = host(Dialect::Wasmx);
    let mismatch = Err(Ill::Status(CAS_MISMATCH));
    // An absent key: Envoy takes any number, WasmX 0 only.
    assert_eq!(envoy.shared_set(b"k", b"1", u32::MAX), Ok(()));
    assert_eq!(wasmx.shared_set(b"k", b"1", 7), mismatch);
    assert_eq!(wasmx.shared_set(b"k", b"1", 0), Ok(()));
    // A present one: 0 overwrites in Envoy, and means "create" in WasmX.
    assert_eq!(envoy.shared_set(b"k", b"2", 0), Ok(()));
    assert_eq!(wasmx.shared_set(b"k", b"2", 0), mismatch);
    for host in [&mut envoy, &mut wasmx] {
        let (_, cas) = host.shared_get(b"k").unwrap();
        assert_eq!(host.shared_set(b"k", b"3", cas + 1), mismatch);
        assert_eq!(host.shared_set(b"k", b"3", cas), Ok(()));
        assert_eq!(
            host.shared_set(b"k", b"4", cas),
            mismatch,
            "the number is used up"
        );
        assert_eq!(host.shared_get(b"k").unwrap().0, b"3");
        assert_eq!(host.shared_get(b"none"), Err(Ill::Status(NOT_FOUND)));
    }
}

#[test]
fn wasmx_knows_keys_by_their_crc32() {
    let (a, b) = (b"kv-vgg6g5ns8ud7", b"kv-dyycdo2ycxqr");
    let mut wasmx = host(Dialect::Wasmx);
    wasmx.shared_set(a, b"a's", 0).unwrap();
    assert_eq!(wasmx.shared_get(b).unwrap().0, b"a's");
    let mut envoy = host(Dialect::Envoy);
    envoy.shared_set(a, b"a's", 0).unwrap();
    assert_eq!(envoy.shared_get(b), Err(Ill::Status(NOT_FOUND)));
}

#[test]
fn wasmxs_zone_traps_where_there_is_none_and_forgets_where_it_is_full() {
    let mut none = host(Dialect::Wasmx);
    none.shared = SharedData::new(Dialect::Wasmx, None);
    assert!(is_trap(none.shared_get(b"k")));
    assert!(is_trap(none.shared_set(b"k", b"v", 0)));
    let mut small = host(Dialect::Wasmx);
    small.shared = SharedData::new(Dialect::Wasmx, Some(256 << 10));
    assert!(is_trap(small.shared_set(b"big", &vec![0; 300_000], 0)));
    for n in 0..200u32 {
        small.shared_set(&n.to_le_bytes(), &[0; 1000], 0).unwrap();
    }
    assert_eq!(
        small.shared.entries().len(),
        131,
        "about as many as were measured (124)"
    );
    assert_eq!(
        small.shared_get(&0u32.to_le_bytes()),
        Err(Ill::Status(NOT_FOUND)),
        "the oldest is gone"
    );
    assert!(small.shared_get(&199u32.to_le_bytes()).is_ok());
}

#[test]
fn bodies_are_replaced_in_their_own_callback() {
    for dialect in BOTH {
        let mut host = host(dialect);
        let result = host.set_buffer(0, 0, 10, b"new");
        assert_eq!(
            is_trap(result),
            dialect == Dialect::Wasmx,
            "in the header phase"
        );
        enter_body(&mut host, b"0123456789");
        host.set_buffer(0, 0, 10, b"longer than it was").unwrap();
        let buffer = host.buffer(0).unwrap();
        match dialect {
            Dialect::Envoy => assert_eq!(buffer, b"longer than it was"),
            // wasmx.md, section 7: `size` bytes at the most.
            Dialect::Wasmx => assert_eq!((buffer.len(), host.violations.len()), (10, 1)),
        }
    }
}

#[test]
fn wasmx_hides_a_body_that_is_in_a_file_and_prepends_to_it() {
    let mut host = host(Dialect::Wasmx);
    enter_body(&mut host, b"file");
    host.streams.get_mut(&(0, 2)).unwrap().body_in_file = true;
    assert_eq!(host.buffer(0), Err(Ill::Status(NOT_FOUND)));
    host.set_buffer(0, 0, 4, b"new").unwrap();
    let hop = &host.streams[&(0, 2)].hops[0];
    assert_eq!(hop.request.buffer.as_deref(), Some(&b"newfile"[..]));
    assert_eq!(host.violations.len(), 1);
}

#[test]
fn two_local_responses() {
    let mut wasmx = host(Dialect::Wasmx);
    wasmx
        .local_response(503, Headers::default(), b"x", -1)
        .unwrap();
    assert_eq!(wasmx.streams[&(0, 2)].local.as_ref().unwrap().body, b"x\n");
    assert!(is_trap(wasmx.local_response(
        503,
        Headers::default(),
        b"x",
        -1
    )));
    let mut envoy = host(Dialect::Envoy);
    envoy
        .local_response(503, Headers::default(), b"x", -1)
        .unwrap();
    envoy
        .local_response(503, Headers::default(), b"x", -1)
        .unwrap();
    assert_eq!(envoy.violations.len(), 1);
}

#[test]
fn how_calls_that_fail_look() {
    use crate::calls::Ending;
    use crate::stream::Response;
    let cut = || {
        Ending::Cut(Response::new(
            200,
            &[("Content-Type", "text/plain")],
            b"0123456789",
        ))
    };
    for (ending, envoy, wasmx) in [
        (Ending::Timeout, "504", "timeout"),
        (Ending::Refused, "503", "broken connection"),
        (Ending::Tls, "503", "tls handshake failure"),
        (Ending::Dns, "503", "resolver failure"),
        (Ending::Closed, "503", "ok"),
    ] {
        let shown = ending.clone().shown(Dialect::Envoy, true);
        assert_eq!(shown.headers.text(":status"), envoy);
        assert!(shown.body.starts_with(b"upstream "));
        let shown = ending.clone().shown(Dialect::Wasmx, true);
        assert_eq!(shown.headers.text(":dispatch_status"), wasmx);
        assert_eq!(shown.headers.get(":status"), None);
        assert!(ending.shown(Dialect::Wasmx, false).headers.is_empty());
    }
    assert!(cut().shown(Dialect::Envoy, true).headers.is_empty());
    let shown = cut().shown(Dialect::Wasmx, true);
    assert_eq!(shown.headers.text(":dispatch_status"), "ok");
    assert_eq!((shown.announced, shown.body.len()), (10, 5));
    let mut host = host(Dialect::Wasmx);
    host.here.shown = Some(shown);
    assert_eq!(host.buffer(4), Err(Ill::Status(BAD_ARGUMENT)));
}

#[test]
fn metrics() {
    for dialect in BOTH {
        let mut host = host(dialect);
        let (counter, gauge, histogram) = (
            host.define_metric(0, "c").unwrap(),
            host.define_metric(1, "g").unwrap(),
            host.define_metric(2, "h").unwrap(),
        );
        assert_eq!(host.define_metric(0, "c"), Ok(counter));
        host.increment_metric(counter, 2).unwrap();
        assert_eq!(host.metric(counter), Ok(2));
        assert_eq!(
            host.increment_metric(counter, 0).is_err(),
            dialect == Dialect::Envoy
        );
        assert_eq!(
            is_trap(host.increment_metric(gauge, 1)),
            dialect == Dialect::Wasmx
        );
        assert_eq!(is_trap(host.metric(histogram)), dialect == Dialect::Wasmx);
    }
}
