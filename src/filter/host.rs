//! What the filter asks of the gateway that runs it: one trait, so that everything above it runs under
//! Envoy, under WasmX (Kong) and in tests. It knows neither Azure nor references.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use crate::time::{Span, Timestamp};

/// The two families of hosts. Code that has to differ asks
/// [`Dialect`] by name, nowhere a version or a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Envoy, Istio, Envoy Gateway and whatever else builds on proxy-wasm-cpp-host.
    Envoy,
    /// ngx_wasm_module, the host inside Kong Gateway 3.4 to 3.10.
    WasmX,
}

/// Which map of headers a call is about (proxy-wasm ABI 0.2.1, `proxy_map_type_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// The headers of the request being filtered.
    Request = 0,
    /// The headers of its response.
    Response = 2,
    /// The headers of the answer to a call of ours.
    CallAnswer = 6,
}

/// Which buffer a call is about (proxy-wasm ABI 0.2.1, `proxy_buffer_type_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffer {
    /// What is held of the request's body.
    RequestBody = 0,
    /// What is held of the response's body.
    ResponseBody = 1,
    /// The body of the answer to a call of ours.
    CallAnswerBody = 4,
    /// The plugin's configuration.
    Configuration = 7,
}

/// A severity of the host's log (proxy-wasm ABI 0.2.1, `proxy_log_level_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever looks for a fault in the filter.
    Debug = 1,
    /// Normal events, a few in an hour.
    Info = 2,
    /// Somebody should look at this today.
    Warn = 3,
    /// Requests are failing.
    Error = 4,
}

/// What a metric is (proxy-wasm ABI 0.2.1, `proxy_metric_type_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only ever grows.
    Counter = 0,
    /// Whatever it is set to.
    Gauge = 1,
    /// Values by their sizes.
    Histogram = 2,
}

/// Which half of a stream goes on (proxy-wasm ABI 0.2.1, `proxy_stream_type_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The request.
    Request = 0,
    /// The response.
    Response = 1,
}

/// A status other than OK from a host call (proxy-wasm ABI 0.2.1, `proxy_status_t`). Never fatal here:
/// the SDK panics on the ones it does not expect, and a panic is an outage on one host and an open door
/// on the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub u32);

impl Refused {
    /// `NOT_FOUND`
    pub const NOT_FOUND: Self = Self(1);
    /// `BAD_ARGUMENT`: from Envoy's calls out, an unknown cluster.
    pub const BAD_ARGUMENT: Self = Self(2);
    /// `CAS_MISMATCH`: somebody else wrote this shared data in between.
    pub const CAS_MISMATCH: Self = Self(8);
    /// `INTERNAL_FAILURE`: from Envoy's calls out, a cluster without hosts.
    pub const INTERNAL_FAILURE: Self = Self(10);
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host status {}", self.0)
    }
}

/// One HTTP call out, ready for the host.
pub struct OutgoingCall<'a> {
    /// Envoy: a cluster's name. WasmX: `host:port`.
    pub upstream: &'a str,
    /// Pseudo-headers and headers.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// Empty for none.
    pub body: &'a [u8],
    /// Never zero: both hosts take zero for "no limit" or "your default".
    pub timeout: Span,
}

/// A value in shared data, with the number that a later write has to show to replace just this value.
pub struct SharedValue {
    /// The bytes; an entry that was emptied has none.
    pub bytes: Zeroizing<Vec<u8>>,
    /// The host's compare-and-swap number.
    pub cas: u32,
}

/// How a write to shared data is to treat what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Only if there is nothing under this key.
    Create,
    /// Only if what is there is still what was read with this number.
    Replace(u32),
}

/// The host calls that the filter makes. None of them may panic or trap, whatever the host answers; each
/// implementation says in which callbacks a call is allowed where a host cares.
pub trait Host {
    /// The family of this host.
    fn dialect(&self) -> Dialect;
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// 64 random bits: good for jitter and request ids only (WasmX's can be predicted).
    fn random(&self) -> u64;
    /// A variable of the environment, as far as the host passes it on; `None` for what is not UTF-8.
    fn variable(&self, name: &str) -> Option<String>;
    /// Writes one line to the host's log.
    fn log(&self, level: Level, message: &str);
    /// Asks for a tick every `period`. WasmX traps on a second call in one VM.
    fn set_tick_period(&self, period: Span);
    /// A buffer's bytes; empty when there is none.
    fn buffer(&self, buffer: Buffer) -> Result<Zeroizing<Vec<u8>>, Refused>;
    /// A whole header map in serialized form (see [`super::header_map`]).
    /// Wiped by the allocator alone: wiping it here as well, byte by byte, would be the dearest part of a
    /// request without references.
    fn header_map(&self, map: Map) -> Result<Vec<u8>, Refused>;
    /// One header's first value.
    fn header(&self, map: Map, name: &str) -> Option<Zeroizing<Vec<u8>>>;
    /// Sets a header, replacing all of that name.
    fn set_header(&self, map: Map, name: &[u8], value: &[u8]) -> Result<(), Refused>;
    /// Adds a header beside others of its name.
    fn add_header(&self, map: Map, name: &[u8], value: &[u8]) -> Result<(), Refused>;
    /// Removes all headers of this name. WasmX shows a request's header as removed and sends it.
    fn remove_header(&self, map: Map, name: &[u8]) -> Result<(), Refused>;
    /// Writes `new` over the first `old` bytes of a body. Both hosts correct no length but WasmX's of a
    /// request.
    fn set_buffer(&self, buffer: Buffer, old: usize, new: &[u8]) -> Result<(), Refused>;
    /// A property of the request; `path` has its parts separated by NUL. WasmX dies of this in a root
    /// context.
    fn property(&self, path: &[u8]) -> Option<Zeroizing<Vec<u8>>>;
    /// Sets a property of the request.
    fn set_property(&self, path: &[u8], value: &[u8]) -> Result<(), Refused>;
    /// Makes an HTTP call; the answer comes later with the number returned here.
    fn call(&self, call: &OutgoingCall<'_>) -> Result<u32, Refused>;
    /// Lets a parked request go on (Envoy only: WasmX resumes by itself after the last answer).
    fn resume(&self, half: Half) -> Result<(), Refused>;
    /// Answers the current request from here. With a gRPC status Envoy makes a gRPC answer to a gRPC
    /// request, whose message is the body; WasmX passes that status over.
    fn respond(
        &self,
        status: u32,
        headers: &[(&[u8], &[u8])],
        body: &[u8],
        grpc_status: Option<u32>,
    ) -> Result<(), Refused>;
    /// Makes the calls that follow be about this request (Envoy only). Refused when it is gone.
    fn focus(&self, context: u32) -> Result<(), Refused>;
    /// Reads shared data. On WasmX this traps when the operator configured no zone.
    fn shared_get(&self, key: &[u8]) -> Option<SharedValue>;
    /// Writes shared data; refused with [`Refused::CAS_MISMATCH`] when `write` does not hold.
    fn shared_set(&self, key: &[u8], value: &[u8], write: Write) -> Result<(), Refused>;
    /// The number of the metric with this name, which is made if there is none. WasmX traps on a name of
    /// more than 256 bytes, its own prefix included.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, Refused>;
    /// Adds to a counter; on Envoy also to a gauge, and there less than nothing too. Never by 0, which
    /// Envoy refuses; WasmX traps on a gauge.
    fn add_to_metric(&self, id: u32, by: i64);
    /// Sets a gauge, or takes a value into a histogram.
    fn record_metric(&self, id: u32, value: u64);
    /// A counter's or gauge's value, of all workers together. WasmX traps on a histogram.
    fn metric(&self, id: u32) -> Option<u64>;
}
