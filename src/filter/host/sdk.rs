//! [`Host`] on the Proxy-Wasm SDK. It decides nothing: each method is one host call.
//!
//! The SDK's functions that are used, and why the statuses on which they panic cannot come (both hosts'
//! sources and measurements):
//!
//! | function | panics on | why it cannot come |
//! | --- | --- | --- |
//! | `log`, `get_current_time` | all but OK | both hosts answer OK always |
//! | `set_tick_period` | all but OK | OK in a root context's callback and, on Envoy, in every callback; WasmX is called once, in `on_configure` |
//! | `dispatch_http_call` | all but OK, `BAD_ARGUMENT`, `INTERNAL_FAILURE` | Envoy answers these only; WasmX traps instead |
//! | `resume_http_request`, `resume_http_response`, `reset_http_response` | all but OK | Envoy answers OK for a context that it accepted as effective |
//! | `set_effective_context` | all but OK, `BAD_ARGUMENT` | Envoy answers these only; WasmX always OK |
//! | `get_shared_data` | all but OK, `NOT_FOUND` | the hosts answer these only |
//! | `set_shared_data` | all but OK, `CAS_MISMATCH` | the hosts answer these only; WasmX traps without a zone |
//! | `call_foreign_function` | all but OK, `NOT_FOUND`, `BAD_ARGUMENT`, `SERIALIZATION_FAILURE`, `INTERNAL_FAILURE` | Envoy only, which answers these |

use std::time::{Duration, UNIX_EPOCH};

use proxy_wasm::hostcalls;
use proxy_wasm::types::Status;
use zeroize::Zeroizing;

use super::{
    Buffer, Dialect, Half, Host, HostStatus, Map, MetricKind, OutgoingCall, SharedValue, Write, raw,
};
use crate::filter::header_map;
use crate::time::{Span, Timestamp};

/// No request has this id. Envoy refuses to make it effective; WasmX ignores the argument and answers OK,
/// which tells the two apart in every callback, `on_configure` included. (A property would do for a
/// request, but reading one in a root context kills WasmX's worker.)
const NO_CONTEXT: u32 = u32::MAX;

/// The host that this VM runs in.
#[derive(Clone, Copy)]
pub(crate) struct SdkHost {
    dialect: Dialect,
}

impl SdkHost {
    /// Finds out which host this is.
    pub(crate) fn detect() -> Self {
        let dialect = match hostcalls::set_effective_context(NO_CONTEXT) {
            Ok(()) => Dialect::WasmX,
            Err(_) => Dialect::Envoy,
        };
        Self { dialect }
    }
}

fn status_of(status: Status) -> HostStatus {
    HostStatus(status as u32)
}

impl Host for SdkHost {
    fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn now(&self) -> Timestamp {
        let now = hostcalls::get_current_time().unwrap_or(UNIX_EPOCH);
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn random(&self) -> u64 {
        getrandom::u64().unwrap_or(0)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn set_tick_period(&self, period: Span) {
        let _ = hostcalls::set_tick_period(Duration::from_millis(period.0));
    }

    fn buffer(&self, buffer: Buffer) -> Result<Zeroizing<Vec<u8>>, HostStatus> {
        raw::buffer(buffer as u32).map(Zeroizing::new)
    }

    fn header_map(&self, map: Map) -> Result<Vec<u8>, HostStatus> {
        raw::header_map(map as u32)
    }

    fn header(&self, map: Map, name: &str) -> Option<Zeroizing<Vec<u8>>> {
        let value = raw::header(map as u32, name.as_bytes()).ok()?;
        Some(Zeroizing::new(value))
    }

    fn set_header(&self, map: Map, name: &[u8], value: &[u8]) -> Result<(), HostStatus> {
        raw::set_header(map as u32, name, value)
    }

    fn add_header(&self, map: Map, name: &[u8], value: &[u8]) -> Result<(), HostStatus> {
        raw::add_header(map as u32, name, value)
    }

    fn remove_header(&self, map: Map, name: &[u8]) -> Result<(), HostStatus> {
        raw::remove_header(map as u32, name)
    }

    fn set_buffer(&self, buffer: Buffer, old: usize, new: &[u8]) -> Result<(), HostStatus> {
        // WasmX writes no more than `size` bytes; Envoy takes more than there is for all of it.
        raw::set_buffer(buffer as u32, old.max(new.len()), new)
    }

    fn property(&self, path: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        raw::property(path).ok().map(Zeroizing::new)
    }

    fn set_property(&self, path: &[u8], value: &[u8]) -> Result<(), HostStatus> {
        raw::set_property(path, value)
    }

    fn declare_property(&self, name: &str) {
        /// `DeclarePropertyArguments` (Envoy, `source/extensions/common/wasm/declare_property.proto`): field 1 is
        /// the name, field 5 the life span, of which 1 is that of the downstream request.
        const NAME: u8 = 0x0a;
        const SPAN: [u8; 2] = [0x28, 1];
        let Ok(length) = u8::try_from(name.len()) else {
            return;
        };
        let mut arguments = vec![NAME, length];
        arguments.extend_from_slice(name.as_bytes());
        arguments.extend_from_slice(&SPAN);
        // One that was declared before is refused, which is as good.
        let _ = hostcalls::call_foreign_function("declare_property", Some(&arguments));
    }

    fn call(&self, call: OutgoingCall<'_>) -> Result<u32, HostStatus> {
        let body = Some(call.body).filter(|body| !body.is_empty());
        let timeout = Duration::from_millis(call.timeout.0.clamp(1, u64::from(u32::MAX)));
        hostcalls::dispatch_http_call(call.upstream, call.headers, body, Vec::new(), timeout)
            .map_err(status_of)
    }

    fn resume(&self, half: Half) -> Result<(), HostStatus> {
        match half {
            Half::Request => hostcalls::resume_http_request(),
            Half::Response => hostcalls::resume_http_response(),
        }
        .map_err(status_of)
    }

    fn close_response(&self) {
        let _ = hostcalls::reset_http_response();
    }

    fn respond(
        &self,
        status: u32,
        headers: &[(&str, &str)],
        body: &[u8],
        grpc_status: Option<u32>,
    ) -> Result<(), HostStatus> {
        let headers = header_map::serialize(headers);
        let grpc_status = grpc_status.and_then(|status| i32::try_from(status).ok());
        raw::respond(status, &headers, body, grpc_status)
    }

    fn focus(&self, context: u32) -> Result<(), HostStatus> {
        hostcalls::set_effective_context(context).map_err(status_of)
    }

    fn shared_get(&self, key: &str) -> Option<SharedValue> {
        let (bytes, cas) = hostcalls::get_shared_data(key).ok()?;
        // An entry that was emptied has a number and no bytes.
        Some(SharedValue {
            bytes: Zeroizing::new(bytes.unwrap_or_default()),
            cas: cas?,
        })
    }

    fn shared_set(&self, key: &str, value: &[u8], write: Write) -> bool {
        let cas = match (write, self.dialect) {
            (Write::Replace(cas), _) => cas,
            // WasmX: 0 creates and never replaces. Envoy: 0 replaces whatever is there, while a number
            // that no entry has yet is refused for an entry and accepted for an absent key.
            (Write::Create, Dialect::WasmX) => 0,
            (Write::Create, Dialect::Envoy) => u32::MAX,
        };
        hostcalls::set_shared_data(key, Some(value), Some(cas)).is_ok()
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, HostStatus> {
        raw::define_metric(kind as u32, name)
    }

    fn add_to_metric(&self, id: u32, by: i64) {
        let _ = raw::increment_metric(id, by);
    }

    fn record_metric(&self, id: u32, value: u64) {
        let _ = raw::record_metric(id, value);
    }

    fn metric(&self, id: u32) -> Option<u64> {
        raw::metric(id).ok()
    }
}
