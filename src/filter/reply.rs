//! Answers that clients get from here: in Kong's shape, `{"message", "request_id"}`, with the reason's
//! class and the reference; to a gRPC client, a gRPC status. Nothing of what Azure said is in them.

use zeroize::Zeroizing;

use super::host::{Dialect, Host, Map};
use crate::body;
use crate::failure::Reason;
use crate::message::{Denial, Within};
use crate::placement::Encoding;
use crate::time::Span;

/// Kong's own id of the request, which is in its log and its errors (since Kong 3.5).
pub(super) const KONGS_ID: &[u8] = b"ngx\0kong_request_id";
/// Headers of a reply without a body.
const REASON: &str = "x-akv-reason";
const REQUEST_ID: &str = "x-request-id";
/// Ids longer than this are not echoed.
const LONGEST_ID: usize = 128;

/// A reply to a client.
struct Reply<'a> {
    status: u32,
    grpc_status: u32,
    message: &'static str,
    fields: &'a [(&'static str, &'a str)],
    retry_after: Option<Span>,
    bare: bool,
}

/// Answers the request in place of the upstream.
/// `bare`: without a body, which would share a buffer with that of a call (WasmX); the reason goes into
/// headers.
pub(super) fn deny(host: &impl Host, denial: &Denial, bare: bool) {
    let what = String::from_utf8_lossy(&denial.reference);
    let reason = ("reason", denial.reason.as_str());
    let soon = match denial.reason {
        Reason::TooManyFetches | Reason::NotReady | Reason::Overloaded => Some(Span::seconds(1)),
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
        Reason::Overloaded => (
            503,
            "the gateway holds too many messages that wait for secrets",
            &[reason],
        ),
        _ => (
            503,
            "a secret that this request needs could not be resolved",
            &[("reference", &*what), reason],
        ),
    };
    send(
        host,
        &Reply {
            status,
            grpc_status: grpc_status(denial.reason),
            message,
            fields,
            retry_after: denial.retry_after.or(soon),
            bare,
        },
    );
}

/// Answers a request to a filter that has no configuration.
pub(super) fn not_configured(host: &impl Host) {
    send(
        host,
        &Reply {
            status: 503,
            grpc_status: UNAVAILABLE,
            message: "the secrets filter is not configured; see the gateway's log",
            fields: &[],
            retry_after: None,
            bare: false,
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
        Reason::BodyTooLarge
        | Reason::TooManyFetches
        | Reason::TooManyReferences
        | Reason::Overloaded => RESOURCE_EXHAUSTED,
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

fn send(host: &impl Host, reply: &Reply<'_>) {
    let id = request_id(host);
    let content_type = host.header(Map::Request, "content-type");
    if content_type.is_some_and(|kind| body::is_grpc(&kind)) {
        return send_grpc(host, reply, id.as_deref());
    }
    let seconds = reply
        .retry_after
        .map(|wait| wait.ceil_seconds().to_string());
    let mut headers: Vec<(&str, &str)> = Vec::new();
    if let Some(seconds) = &seconds {
        headers.push(("retry-after", seconds));
    }
    let mut body = Vec::new();
    if reply.bare {
        let reason = reply.fields.iter().filter(|(name, _)| *name == "reason");
        headers.extend(reason.map(|(_, reason)| (REASON, *reason)));
        headers.extend(id.as_deref().map(|id| (REQUEST_ID, id)));
    } else {
        headers.push(("content-type", "application/json; charset=utf-8"));
        body = json_body(reply, id.as_deref());
    }
    let _ = host.respond(reply.status, &headers, &body, None);
}

/// The message first, the request's id last.
fn json_body(reply: &Reply<'_>, id: Option<&str>) -> Vec<u8> {
    let mut body = b"{\"message\":\"".to_vec();
    // A text can always be written.
    let _ = Encoding::Json.write(&mut body, reply.message.as_bytes());
    let id = id.map(|id| ("request_id", id));
    for (name, value) in reply.fields.iter().copied().chain(id) {
        for part in ["\",\"", name, "\":\""] {
            body.extend_from_slice(part.as_bytes());
        }
        let _ = Encoding::Json.write(&mut body, value.as_bytes());
    }
    body.extend_from_slice(b"\"}");
    body
}

/// Envoy makes a gRPC answer of status and text by itself. WasmX passes the status over, so there the
/// answer is made here, as Kong makes its own: 200 with status and message in the headers, and no body.
fn send_grpc(host: &impl Host, reply: &Reply<'_>, id: Option<&str>) {
    let mut message = reply.message.to_owned();
    let id = id.map(|id| ("request_id", id));
    for (name, value) in reply.fields.iter().copied().chain(id) {
        for part in ["; ", name, "=", value] {
            message.push_str(part);
        }
    }
    match host.dialect() {
        Dialect::Envoy => {
            let _ = host.respond(
                reply.status,
                &[],
                message.as_bytes(),
                Some(reply.grpc_status),
            );
        }
        Dialect::WasmX => {
            let status = reply.grpc_status.to_string();
            let message = grpc_message(&message);
            let headers = [
                ("content-type", "application/grpc"),
                ("grpc-status", status.as_str()),
                ("grpc-message", message.as_str()),
            ];
            let _ = host.respond(200, &headers, b"", None);
        }
    }
}

/// As gRPC wants it: everything but visible ASCII and the blank percent-encoded, and `%` itself.
fn grpc_message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
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
    fn messages_of_grpc_are_encoded() {
        let text = "50 % of \u{e4}\r\nx";
        assert_eq!(grpc_message(text), "50 %25 of %C3%A4%0D%0Ax");
    }
}
