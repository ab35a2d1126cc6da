//! A tiny filter in WebAssembly text, made for one test: its callbacks are what the test writes. It has
//! every callback of the ABI for HTTP, so that a fault is what a test plants, and nothing else.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::collections::BTreeMap;
use std::rc::Rc;

use proxy_wasm_host::{Dialect, Gateway, Headers, Settings};

/// The callbacks with their parameters and whether they have a result.
const CALLBACKS: [(&str, &str, Option<i32>); 14] = [
    ("proxy_on_context_create", "$c $root", None),
    ("proxy_on_vm_start", "$c $size", Some(1)),
    ("proxy_on_configure", "$c $size", Some(1)),
    ("proxy_on_tick", "$c", None),
    ("proxy_on_request_headers", "$c $count $end", Some(0)),
    ("proxy_on_request_body", "$c $size $end", Some(0)),
    ("proxy_on_request_trailers", "$c $count", Some(0)),
    ("proxy_on_response_headers", "$c $count $end", Some(0)),
    ("proxy_on_response_body", "$c $size $end", Some(0)),
    ("proxy_on_response_trailers", "$c $count", Some(0)),
    (
        "proxy_on_http_call_response",
        "$c $token $headers $size $trailers",
        None,
    ),
    ("proxy_on_done", "$c", Some(1)),
    ("proxy_on_log", "$c", None),
    ("proxy_on_delete", "$c", None),
];

const IMPORTS: &str = r#"
(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
(import "env" "proxy_http_call" (func $http (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_send_local_response" (func $local (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
(import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_get_header_map_value" (func $get_header (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_get_header_map_pairs" (func $get_map (param i32 i32 i32) (result i32)))
(import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
(import "env" "proxy_set_effective_context" (func $focus (param i32) (result i32)))
(import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
"#;

/// What the callbacks' texts may use.
const FUNCTIONS: &str = r#"
(memory (export "memory") 64)
(global $heap (mut i32) (i32.const 1048576))
(global $request (mut i32) (i32.const 0))
(global $turn (mut i32) (i32.const 0))
(func (export "proxy_on_memory_allocate") (param $n i32) (result i32)
  (local $at i32)
  (local.set $at (global.get $heap))
  (global.set $heap (i32.add (global.get $heap) (local.get $n)))
  (local.get $at))
(func (export "proxy_abi_version_0_2_1"))
;; Logs this letter and this number in six digits.
(func $note (param $letter i32) (param $n i32)
  (local $at i32)
  (i32.store8 (i32.const 64) (local.get $letter))
  (local.set $at (i32.const 70))
  (loop $digit
    (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
    (local.set $n (i32.div_u (local.get $n) (i32.const 10)))
    (local.set $at (i32.sub (local.get $at) (i32.const 1)))
    (br_if $digit (i32.gt_u (local.get $at) (i32.const 64))))
  (drop (call $log (i32.const 2) (i32.const 64) (i32.const 7))))
;; A call out with a body of this length; its status.
(func $call (param $body i32) (result i32)
  (call $http (i32.const 1024) (i32.load (i32.const 1020)) (i32.const 2048) (i32.load (i32.const 2044))
    (i32.const 4096) (local.get $body) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const 80)))
;; A local reply with a body of this length.
(func $deny (param $body i32)
  (drop (call $local (i32.const 503) (i32.const 0) (i32.const 0) (i32.const 4096) (local.get $body)
    (i32.const 0) (i32.const 0) (i32.const -1))))
;; Another body, of `$n` times the letter R, for the `$size` bytes of this buffer.
(func $replace_body (param $buffer i32) (param $size i32) (param $n i32)
  (memory.fill (i32.const 8192) (i32.const 82) (local.get $n))
  (drop (call $set_buffer (local.get $buffer) (i32.const 0) (local.get $size) (i32.const 8192) (local.get $n))))
;; How many bytes of this buffer can be read; -1 for an error.
(func $readable (param $buffer i32) (result i32)
  (if (call $get_buffer (local.get $buffer) (i32.const 0) (i32.const -1) (i32.const 84) (i32.const 88))
    (then (return (i32.const -1))))
  (i32.load (i32.const 88)))
;; Sets x-probe in this map; the status.
(func $mark (param $map i32) (result i32)
  (call $replace (local.get $map) (i32.const 4032) (i32.const 7) (i32.const 4048) (i32.const 1)))
"#;

/// A filter in the making.
pub struct Probe {
    callbacks: BTreeMap<&'static str, String>,
    missing: Vec<&'static str>,
    data: String,
}

impl Probe {
    /// A filter that does nothing.
    pub fn new() -> Self {
        Self {
            callbacks: BTreeMap::new(),
            missing: Vec::new(),
            data: String::new(),
        }
    }

    /// What this callback does; where it has a result, that is left on the stack.
    pub fn on(mut self, callback: &'static str, body: &str) -> Self {
        let known = CALLBACKS.iter().any(|(name, ..)| *name == callback);
        assert!(known, "{callback}");
        self.callbacks.insert(callback, body.to_owned());
        self
    }

    /// The module does not export this callback.
    pub fn without(mut self, callback: &'static str) -> Self {
        self.missing.push(callback);
        self
    }

    /// Bytes in memory, as WebAssembly text escapes them.
    pub fn data(mut self, at: u32, escaped: String) -> Self {
        self.data = format!("(data (i32.const {at}) \"{escaped}\")\n");
        self
    }

    fn wasm(&self, dialect: Dialect) -> Rc<[u8]> {
        let upstream = match dialect {
            Dialect::Envoy => "key_vault",
            Dialect::Wasmx => "127.0.0.1:443",
        };
        let headers = Headers::of(&[
            (":method", "POST"),
            (":path", "/"),
            (":authority", "h"),
            (":scheme", "https"),
        ])
        .serialize();
        let data = |at: u32, bytes: &[u8]| {
            let text: String = bytes.iter().map(|b| format!("\\{b:02x}")).collect();
            format!("(data (i32.const {at}) \"{text}\")\n")
        };
        let length = |bytes: usize| (bytes as u32).to_le_bytes();
        let mut text = format!("(module {IMPORTS} {FUNCTIONS}");
        text += &data(1020, &length(upstream.len()));
        text += &data(1024, upstream.as_bytes());
        text += &data(2044, &length(headers.len()));
        text += &data(2048, &headers);
        text += &data(4032, b"x-probe");
        text += &data(4048, b"1");
        text += &data(4096, &[b'd'; 64]);
        text += &self.data;
        for (name, parameters, result) in CALLBACKS {
            if self.missing.contains(&name) {
                continue;
            }
            let parameters: String = parameters
                .split(' ')
                .map(|p| format!("(param {p} i32)"))
                .collect();
            let given = self.callbacks.get(name).cloned();
            let body = given.unwrap_or_else(|| {
                result.map_or_else(String::new, |value| format!("(i32.const {value})"))
            });
            let result = result.map_or("", |_| "(result i32)");
            text += &format!("(func (export \"{name}\") {parameters} {result} {body})\n");
        }
        text += ")";
        wat::parse_str(&text)
            .unwrap_or_else(|error| panic!("{error}"))
            .into()
    }

    /// A gateway with one worker that runs it.
    pub fn start(&self, dialect: Dialect) -> Gateway {
        self.start_with(dialect, |_| {})
    }

    /// The same with other settings.
    pub fn start_with(&self, dialect: Dialect, change: impl FnOnce(&mut Settings)) -> Gateway {
        let mut settings = Settings::new(dialect, self.wasm(dialect), "{}");
        settings.workers = 1;
        change(&mut settings);
        Gateway::start(settings)
    }
}

/// The notes that callbacks made, in their order, such as `h000003`.
pub fn notes(gateway: &Gateway) -> Vec<String> {
    gateway.log().into_iter().map(|line| line.text).collect()
}

/// What was punished.
pub fn punished(gateway: &Gateway) -> String {
    let all = gateway.violations().into_iter();
    all.map(|v| format!("{}: {}\n", v.call, v.what)).collect()
}
