//! What the filter needs of the gateway that runs it: one trait, so that everything above it runs under
//! Envoy, under WasmX (Kong) and in tests. It knows neither Azure nor references.

#[cfg(target_os = "wasi")]
mod logger;
#[cfg(target_os = "wasi")]
mod raw;
#[cfg(target_os = "wasi")]
mod sdk;

use std::fmt;

use zeroize::Zeroizing;

#[cfg(target_os = "wasi")]
pub(super) use self::logger::install as install_logger;
#[cfg(target_os = "wasi")]
pub(super) use self::sdk::SdkHost;
use crate::time::{Span, Timestamp};

/// The two families of hosts. Code that has to differ compares the [`Dialect`], never a version.
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
    /// The trailers of the response (Envoy only).
    ResponseTrailers = 3,
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
/// the SDK panics on the ones that it does not expect, and a panic is an outage on Envoy and lets requests
/// pass unfiltered on WasmX.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HostStatus(pub u32);

impl HostStatus {
    /// `BAD_ARGUMENT`: from Envoy's callouts, an unknown cluster.
    pub const BAD_ARGUMENT: Self = Self(2);
}

impl fmt::Debug for HostStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host status {}", self.0)
    }
}

/// One HTTP call out, ready for the host.
pub struct OutgoingCall<'a> {
    /// Envoy: a cluster's name. WasmX: `host:port`.
    pub upstream: &'a str,
    /// Pseudo-headers and headers.
    pub headers: Vec<(&'a str, &'a str)>,
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
    /// Asks for a tick every `period`. WasmX traps on a second call in one VM.
    fn set_tick_period(&self, period: Span);
    /// A buffer's bytes; empty when there is none.
    fn buffer(&self, buffer: Buffer) -> Result<Zeroizing<Vec<u8>>, HostStatus>;
    /// A whole header map in serialized form (see [`super::header_map`]).
    /// Not [`Zeroizing`]: the allocator already wipes freed blocks, and a second pass would dominate the cost
    /// of a request without references.
    fn header_map(&self, map: Map) -> Result<Vec<u8>, HostStatus>;
    /// One header's first value.
    fn header(&self, map: Map, name: &str) -> Option<Zeroizing<Vec<u8>>>;
    /// Sets a header, replacing all of that name.
    fn set_header(&self, map: Map, name: &[u8], value: &[u8]) -> Result<(), HostStatus>;
    /// Adds a header beside others of its name.
    fn add_header(&self, map: Map, name: &[u8], value: &[u8]) -> Result<(), HostStatus>;
    /// Removes all headers of this name. WasmX shows a request's header as removed and sends it.
    fn remove_header(&self, map: Map, name: &[u8]) -> Result<(), HostStatus>;
    /// Writes `new` over the first `old` bytes of a body. Both hosts correct no length but WasmX's of a
    /// request.
    fn set_buffer(&self, buffer: Buffer, old: usize, new: &[u8]) -> Result<(), HostStatus>;
    /// A property of the request; `path` has its parts separated by NUL. Reading one in a root
    /// context kills WasmX's worker.
    fn property(&self, path: &[u8]) -> Option<Zeroizing<Vec<u8>>>;
    /// Sets a property of the request.
    fn set_property(&self, path: &[u8], value: &[u8]) -> Result<(), HostStatus>;
    /// Makes an HTTP callout; the answer comes later with the token returned here, to the context whose
    /// callback made it.
    fn call(&self, call: OutgoingCall<'_>) -> Result<u32, HostStatus>;
    /// Resumes a paused request or response (Envoy only: WasmX resumes by itself after the last answer).
    fn resume(&self, half: Half) -> Result<(), HostStatus>;
    /// Ends a response with an error (Envoy resets the stream).
    fn close_response(&self);
    /// Sends a local reply to the current request. With a gRPC status Envoy makes a gRPC reply to a gRPC
    /// request, whose message is the body; WasmX ignores that status.
    fn respond(
        &self,
        status: u32,
        headers: &[(&str, &str)],
        body: &[u8],
        grpc_status: Option<u32>,
    ) -> Result<(), HostStatus>;
    /// Declares a property of requests that [`Host::set_property`] can set and that survives an internal
    /// redirect (Envoy's foreign function `declare_property`; other hosts have none and trap).
    fn declare_property(&self, name: &str);
    /// Makes the host calls that follow apply to this request (Envoy only). An error when it is gone.
    fn focus(&self, context: u32) -> Result<(), HostStatus>;
    /// Reads shared data. On WasmX this traps when the operator configured no zone.
    fn shared_get(&self, key: &str) -> Option<SharedValue>;
    /// Writes shared data; `false` when `write` does not hold any more, or the host did not take it.
    fn shared_set(&self, key: &str, value: &[u8], write: Write) -> bool;
    /// The number of the metric with this name, which is made if there is none. WasmX traps on a name of
    /// more than 256 bytes, its own prefix included.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, HostStatus>;
    /// Adds to a counter; on Envoy also to a gauge, and there less than nothing too. Never by 0, which
    /// Envoy refuses; WasmX traps on a gauge.
    fn add_to_metric(&self, id: u32, by: i64);
    /// Sets a gauge, or takes a value into a histogram.
    fn record_metric(&self, id: u32, value: u64);
    /// A counter's or gauge's value, of all workers together. WasmX traps on a histogram.
    fn metric(&self, id: u32) -> Option<u64>;
}
