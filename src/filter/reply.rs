//! Answers that clients get from here: in Kong's shape, `{"message", "request_id"}`, with the reason's
//! class and the reference; to a gRPC client, a gRPC status. Nothing of what Azure said is in them.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::host::{Dialect, Host, Map};

use crate::failure::Reason;
use crate::message::{Denial, Within};
use crate::placement::Encoding;
use crate::time::Span;

/// Kong's own id of the request, which is in its log and its errors (since Kong 3.5).
const KONGS_ID: &[u8] = b"ngx\0kong_request_id";
/// A longer id is somebody's joke.
const LONGEST_ID: usize = 128;

/// What a client is told.
struct Told<'a> {
    status: u32,
    grpc_status: u32,
    message: &'static str,
    fields: &'a [(&'static str, &'a str)],
    retry_after: Option<Span>,
}

/// Answers the request in place of the upstream.
pub(super) fn deny(host: &impl Host, denial: &Denial) {
    let what = String::from_utf8_lossy(&denial.reference);
    let reason = ("reason", denial.reason.as_str());
    let soon = match denial.reason {
        Reason::TooManyFetches | Reason::NotReady => Some(Span::seconds(1)),
        _ => None,
    };
    let (status, message, fields): (_, _, &[_]) = match denial.reason {
        Reason::RepeatedHeader => (
            400,
            "this header may be sent once only",
            &[("header", &*what), reason],
        ),
        Reason::BodyTooLarge => (
            413,
            "the body is too long to be looked into for references",
            &[reason],
        ),
        Reason::TooManyReferences => (
            match denial.within {
                Within::Headers => 431,
                Within::Query => 414,
                Within::Body => 413,
            },
            "the request holds too many references",
            &[reason],
        ),
        _ => (
            503,
            "a secret that this request needs cannot be had",
            &[("reference", &*what), reason],
        ),
    };
    tell(
        host,
        &Told {
            status,
            grpc_status: grpc_status(denial.reason),
            message,
            fields,
            retry_after: denial.retry_after.or(soon),
        },
    );
}

/// Answers a request to a filter that has no configuration.
pub(super) fn not_configured(host: &impl Host) {
    tell(
        host,
        &Told {
            status: 503,
            grpc_status: UNAVAILABLE,
            message: "the secrets filter is not configured; see the gateway's log",
            fields: &[],
            retry_after: None,
        },
    );
}

const INVALID_ARGUMENT: u32 = 3;
const RESOURCE_EXHAUSTED: u32 = 8;
const FAILED_PRECONDITION: u32 = 9;
const UNAVAILABLE: u32 = 14;

/// gRPC's status codes (<https://grpc.io/docs/guides/status-codes/>): clients try again after UNAVAILABLE
/// by themselves, and not after FAILED_PRECONDITION, which is for what somebody has to change first.
const fn grpc_status(reason: Reason) -> u32 {
    match reason {
        Reason::RepeatedHeader => INVALID_ARGUMENT,
        Reason::BodyTooLarge | Reason::TooManyFetches | Reason::TooManyReferences => {
            RESOURCE_EXHAUSTED
        }
        Reason::NotFound
        | Reason::Forbidden
        | Reason::Disabled
        | Reason::Expired
        | Reason::NotYetValid
        | Reason::NoSuchKey
        | Reason::NotBase64
        | Reason::NotRepresentable
        | Reason::BadReference
        | Reason::NeedsPkcs12 => FAILED_PRECONDITION,
        Reason::Credentials
        | Reason::Throttled
        | Reason::Unavailable
        | Reason::Timeout
        | Reason::BadAnswer
        | Reason::Gateway
        | Reason::NotReady => UNAVAILABLE,
    }
}

fn tell(host: &impl Host, told: &Told<'_>) {
    let id = request_id(host);
    let content_type = host.header(Map::Request, "content-type");
    if content_type.is_some_and(|kind| is_grpc(&kind)) {
        return tell_grpc(host, told, id.as_deref());
    }
    let body = json_body(told, id.as_deref());
    let seconds = told.retry_after.map(|wait| wait.ceil_seconds().to_string());
    let mut headers: Vec<(&[u8], &[u8])> =
        vec![(b"content-type", b"application/json; charset=utf-8")];
    if let Some(seconds) = &seconds {
        headers.push((b"retry-after", seconds.as_bytes()));
    }
    let _ = host.respond(told.status, &headers, &body, None);
}

/// The message first, the request's id last.
fn json_body(told: &Told<'_>, id: Option<&str>) -> Vec<u8> {
    let mut body = b"{\"message\":\"".to_vec();
    // A text can always be written.
    let _ = Encoding::Json.write(&mut body, told.message.as_bytes());
    let id = id.map(|id| ("request_id", id));
    for (name, value) in told.fields.iter().copied().chain(id) {
        for part in ["\",\"", name, "\":\""] {
            body.extend_from_slice(part.as_bytes());
        }
        let _ = Encoding::Json.write(&mut body, value.as_bytes());
    }
    body.extend_from_slice(b"\"}");
    body
}

/// `application/grpc`, `application/grpc+proto`, just as Envoy has it. gRPC-Web is not gRPC: its clients
/// read an HTTP status.
fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
}

/// Envoy makes a gRPC answer of status and text by itself. WasmX passes the status over, so there the
/// answer is made here, as Kong makes its own: 200 with status and message in the headers, and no body.
fn tell_grpc(host: &impl Host, told: &Told<'_>, id: Option<&str>) {
    let mut message = told.message.to_owned();
    let id = id.map(|id| ("request_id", id));
    for (name, value) in told.fields.iter().copied().chain(id) {
        for part in ["; ", name, "=", value] {
            message.push_str(part);
        }
    }
    match host.dialect() {
        Dialect::Envoy => {
            let _ = host.respond(told.status, &[], message.as_bytes(), Some(told.grpc_status));
        }
        Dialect::WasmX => {
            let status = told.grpc_status.to_string();
            let message = grpc_message(&message);
            let headers: [(&[u8], &[u8]); 3] = [
                (b"content-type", b"application/grpc"),
                (b"grpc-status", status.as_bytes()),
                (b"grpc-message", &message),
            ];
            let _ = host.respond(200, &headers, b"", None);
        }
    }
}

/// As gRPC wants it: everything but visible ASCII and the blank percent-encoded, and `%` itself.
fn grpc_message(text: &str) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(byte);
        } else {
            out.push(b'%');
            for nibble in [byte >> 4, byte & 15] {
                out.extend(HEX.get(usize::from(nibble)));
            }
        }
    }
    out
}

/// By which the gateway's own log knows the request: Kong's id, else the header that Envoy sets. A client
/// may have set it, so only what looks like an id is repeated.
pub(super) fn request_id(host: &impl Host) -> Option<String> {
    let kongs = match host.dialect() {
        Dialect::WasmX => host.property(KONGS_ID).filter(|id| !id.is_empty()),
        Dialect::Envoy => None,
    };
    let id: Zeroizing<Vec<u8>> = kongs.or_else(|| host.header(Map::Request, "x-request-id"))?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/=+".contains(byte);
    let fits = (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(plain);
    fits.then(|| String::from_utf8_lossy(&id).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_grpc() {
        for (kind, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", false),
            ("application/grpc-web", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(kind.as_bytes()), grpc, "{kind}");
        }
    }

    #[test]
    fn messages_of_grpc_are_encoded() {
        let text = "50 % of \u{e4}\r\nx";
        assert_eq!(grpc_message(text), b"50 %25 of %C3%A4%0D%0Ax");
    }
}
