//! The answer to a call, read the way each host shows it, and made one and the same for what is above.
//! What the hosts do here was measured.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use super::header_map::HeaderMap;
use super::host::{Buffer, Dialect, Host, Map};
use crate::azure::http::{Answer, CallFailure, Response};

/// Reads the answer that the host has just announced with this many headers and body bytes.
pub(super) fn read(host: &impl Host, headers: usize, body_size: usize) -> Answer {
    match host.dialect() {
        Dialect::Envoy => read_envoy(host, headers, body_size),
        Dialect::WasmX => read_wasmx(host, body_size),
    }
}

/// Envoy answers in Azure's place: 503 for no connection, 504 for a time-out, both with a text that
/// begins with `upstream`; and an answer that was cut off or is too long has no headers at all.
fn read_envoy(host: &impl Host, headers: usize, body_size: usize) -> Answer {
    if headers == 0 {
        return Answer::Failed(CallFailure::Broken);
    }
    let Some(response) = read_response(host, body_size) else {
        return Answer::Failed(CallFailure::Broken);
    };
    match (response.status, response.body.starts_with(b"upstream ")) {
        (503, true) => Answer::Failed(CallFailure::Broken),
        (504, true) => Answer::Failed(CallFailure::Timeout),
        _ => Answer::Response(response),
    }
}

/// WasmX says in `:dispatch_status` (from Kong 3.9 on) how the call ended, and says `ok` even for an
/// answer that was cut off: then the status, or the body, cannot be read.
fn read_wasmx(host: &impl Host, body_size: usize) -> Answer {
    let failure = match host
        .header(Map::CallAnswer, ":dispatch_status")
        .as_deref()
        .map(Vec::as_slice)
    {
        None | Some(b"ok") => None,
        Some(b"timeout") => Some(CallFailure::Timeout),
        Some(b"tls handshake failure") => Some(CallFailure::Tls),
        Some(b"resolver failure") => Some(CallFailure::Dns),
        Some(_) => Some(CallFailure::Broken),
    };
    let response = || read_response(host, body_size);
    match failure {
        Some(failure) => Answer::Failed(failure),
        None => response().map_or(Answer::Failed(CallFailure::Broken), Answer::Response),
    }
}

fn read_response(host: &impl Host, body_size: usize) -> Option<Response> {
    let status = host.header(Map::CallAnswer, ":status")?;
    let status = core::str::from_utf8(&status).ok()?.parse().ok()?;
    let bytes = host.header_map(Map::CallAnswer).unwrap_or_default();
    let headers = HeaderMap::new(&bytes);
    let body = if body_size == 0 {
        Default::default()
    } else {
        host.buffer(Buffer::CallAnswerBody).ok()?
    };
    (body.len() >= body_size).then(|| Response {
        status,
        retry_after: headers.text("retry-after").map(ToOwned::to_owned),
        challenge: all_values(headers, "www-authenticate"),
        request_id: headers.text("x-ms-request-id").map(ToOwned::to_owned),
        body,
    })
}

/// The values of every header of this name, which mean the same in one line with commas between them (RFC
/// 9110, section 5.3).
fn all_values(headers: HeaderMap<'_>, name: &str) -> Option<String> {
    let values = headers
        .all(name)
        .filter_map(|value| core::str::from_utf8(value).ok());
    let values: Vec<&str> = values.collect();
    (!values.is_empty()).then(|| values.join(", "))
}
