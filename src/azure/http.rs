//! An HTTP request and its answer as values, between Azure's protocols and the host that makes the call.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::dates;
use crate::failure::{Failure, Reason};
use crate::time::{Span, Timestamp};

/// A request to Azure. Method, path and host hold nothing from a client that was not checked: WasmX sends
/// them as they are.
pub struct HttpRequest {
    /// Envoy's cluster, or WasmX's `host:port`.
    pub cluster: String,
    /// Whether TLS is used: WasmX decides by it, Envoy's cluster decides for itself.
    pub scheme: Scheme,
    /// `GET` or `POST`.
    pub method: &'static str,
    /// The host, for `:authority`, the TLS server name and its check.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// Further headers.
    pub headers: Vec<(Cow<'static, str>, Zeroizing<String>)>,
    /// The body; empty for none.
    pub body: Zeroizing<Vec<u8>>,
    /// How long the call may take.
    pub timeout: Span,
}

/// `:scheme`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS: managed identities' endpoints and sidecars have none.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// As WasmX wants it: any other spelling would be sent without TLS.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Longest `Retry-After` that is believed.
const LONGEST_WAIT: Span = Span::seconds(3600);

/// What became of a call, the same for every host.
pub enum Answer {
    /// Azure (or a proxy on the way, Envoy itself included) answered.
    Response(Response),
    /// No answer.
    Failed(CallFailure),
}

/// An answer's status, the headers that matter here, and the body.
#[derive(Default)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// `retry-after`, if any.
    pub retry_after: Option<String>,
    /// `x-ms-request-id`, if any: what Azure's support asks for.
    pub request_id: Option<String>,
    /// All values of `www-authenticate`, joined by commas (RFC 9110, section 5.3), if any.
    pub challenge: Option<String>,
    /// The body; it may hold a secret or a token.
    pub body: Zeroizing<Vec<u8>>,
}

impl Response {
    /// `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3), an hour at the most. A date is
    /// taken by our clock.
    #[must_use]
    pub fn retry_after(&self, now: Timestamp) -> Option<Span> {
        let text = self.retry_after.as_deref()?.trim();
        let seconds = text.parse().ok().map(Span::seconds);
        let wait = seconds.or_else(|| dates::http_date(text).map(|at| at.until(now)))?;
        Some(wait.min(LONGEST_WAIT))
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The gateway has no such cluster.
    UnknownCluster,
    /// The gateway could not make the call.
    NotSent,
    /// Nobody answered in time.
    Timeout,
    /// The connection could not be made or was cut.
    Broken,
    /// The TLS handshake failed: a certificate that does not fit, or is not trusted.
    Tls,
    /// The name could not be resolved.
    Dns,
}

impl CallFailure {
    /// As a failure of the call to `cluster`.
    #[must_use]
    pub fn explain(self, cluster: &str) -> Failure {
        let (reason, text) = match self {
            Self::UnknownCluster => (
                Reason::Gateway,
                "the gateway has no such cluster; define it, or name the right one in vault_cluster or identity_cluster. If it is defined, it is not ready yet: its host's name did not resolve so far",
            ),
            Self::NotSent => (
                Reason::Gateway,
                "the gateway has the cluster, and no host in it to send the call to; its name may not resolve yet",
            ),
            Self::Timeout => (Reason::Timeout, "no answer within timeout_ms"),
            Self::Broken => (
                Reason::Unavailable,
                "the connection could not be made, or was cut",
            ),
            Self::Tls => (
                Reason::Unavailable,
                "the TLS handshake failed; check the gateway's trusted certificates",
            ),
            Self::Dns => (
                Reason::Unavailable,
                "the name could not be resolved; check the gateway's resolver",
            ),
        };
        Failure::new(reason, format!("cluster {cluster}: {text}"))
    }
}

/// Appends `text` in `application/x-www-form-urlencoded`'s percent-encoding (unreserved characters of RFC
/// 3986 as they are, all else as `%XX`).
pub fn push_encoded(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.push(b'%');
            for nibble in [byte >> 4, byte & 15] {
                out.extend(HEX.get(usize::from(nibble)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_values_are_encoded() {
        let mut out = Vec::new();
        push_encoded(&mut out, b"a~b+c&d=e f/%\xff");
        assert_eq!(out, b"a~b%2Bc%26d%3De%20f%2F%25%FF");
    }
    #[test]
    fn retry_after_in_both_forms() {
        let now = Timestamp(784_111_777_000);
        for (text, wait) in [
            ("7", Some(Span::seconds(7))),
            (" 120 ", Some(Span::seconds(120))),
            ("99999999", Some(LONGEST_WAIT)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(Span::seconds(30))),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(Span(0))),
            ("-1", None),
            ("soon", None),
        ] {
            let response = Response {
                retry_after: Some(text.into()),
                ..Response::default()
            };
            assert_eq!(response.retry_after(now), wait, "{text}");
        }
    }
}
