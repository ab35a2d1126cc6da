//! A request or response in the host's hands: reading and changing it, and every difference between the
//! hosts in doing so. It knows neither references nor secrets.

use zeroize::Zeroizing;

use super::header_map::HeaderMap;
use super::host::{Buffer, Dialect, Half, Host, Map};
use crate::message::Edit;
use crate::query;

/// WasmX: the request's target as it goes to the upstream; `:path` is not what the client sent.
const UPSTREAM_URI: &[u8] = b"ngx\0upstream_uri";
const QUERY: &[u8] = b"request\0query";
/// The header whose value access logs prefer to the path: Envoy, Istio and Envoy Gateway log
/// `%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%` by default.
const ORIGINAL_PATH: &[u8] = b"x-envoy-original-path";

impl Half {
    /// Its headers.
    pub(super) const fn headers(self) -> Map {
        match self {
            Self::Request => Map::Request,
            Self::Response => Map::Response,
        }
    }

    /// Its body, as far as the host holds it.
    pub(super) const fn body(self) -> Buffer {
        match self {
            Self::Request => Buffer::RequestBody,
            Self::Response => Buffer::ResponseBody,
        }
    }
}

/// The request's target: path and query.
pub(super) fn target(host: &impl Host, map: HeaderMap<'_>) -> Zeroizing<Vec<u8>> {
    let uri = match host.dialect() {
        Dialect::Envoy => None,
        Dialect::WasmX => host
            .property(UPSTREAM_URI)
            .filter(|uri| uri.starts_with(b"/")),
    };
    let path = || map.all(":path").next().unwrap_or_default().to_vec();
    uri.unwrap_or_else(|| Zeroizing::new(path()))
}

/// Replaces the request's query.
fn set_query(host: &impl Host, query: &[u8]) {
    let bytes = host.header_map(Map::Request).unwrap_or_default();
    let old = target(host, HeaderMap::new(&bytes));
    let (path, _) = query::split(&old);
    let mut new = Zeroizing::new(Vec::with_capacity(path.len() + query.len() + 1));
    new.extend_from_slice(path);
    if !query.is_empty() {
        new.push(b'?');
        new.extend_from_slice(query);
    }
    let _ = match host.dialect() {
        Dialect::Envoy => {
            // Access logs show the request as it came, without a value.
            let _ = host.set_header(Map::Request, ORIGINAL_PATH, &old);
            host.set_header(Map::Request, b":path", &new)
        }
        // Kong sends `$upstream_uri`; nginx without that variable sends its own path with these arguments.
        Dialect::WasmX => host
            .set_property(UPSTREAM_URI, &new)
            .or_else(|_| host.set_property(QUERY, query)),
    };
}

/// Carries out a change of this half.
pub(super) fn apply(host: &impl Host, half: Half, edit: Edit) {
    let map = half.headers();
    match edit {
        Edit::Header(name, values) => {
            let mut values = values.iter();
            if let Some(first) = values.next() {
                // A host that refuses leaves the reference where it was, never half a value.
                let _ = host.set_header(map, &name, first);
            }
            for further in values {
                let _ = host.add_header(map, &name, further);
            }
        }
        Edit::RemoveHeader(name) => remove_header(host, map, &name),
        Edit::Query(query) => set_query(host, &query),
        Edit::Body(body) => {
            let old = host.buffer(half.body()).map_or(0, |old| old.len());
            let _ = host.set_buffer(half.body(), old, &body);
        }
    }
}

/// Removes a header. WasmX shows a request's header as removed and sends it all the same: there its value
/// is emptied.
pub(super) fn remove_header(host: &impl Host, map: Map, name: &[u8]) {
    let _ = match (host.dialect(), map) {
        (Dialect::WasmX, Map::Request) => host.set_header(map, name, b""),
        _ => host.remove_header(map, name),
    };
}

/// A body that is encoded in any way but "not at all".
pub(super) fn is_compressed(map: HeaderMap<'_>) -> bool {
    let mut encodings = map.all("content-encoding");
    encodings.any(|value| !value.trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// The `content-length`, if it is a number.
pub(super) fn content_length(map: HeaderMap<'_>) -> Option<usize> {
    map.text("content-length")?.trim().parse().ok()
}

/// Whether a request asks for the connection to become a tunnel (RFC 9110 7.8 and 9.3.6, RFC 8441): what
/// follows its headers is no body.
pub(super) fn asks_for_tunnel(map: HeaderMap<'_>) -> bool {
    let connect = map.all(":method").next() == Some(b"CONNECT");
    connect || map.all("upgrade").next().is_some()
}

/// Whether a response to `method` has no body whatever its headers say (RFC 9110 6.4.1).
pub(super) fn has_no_body(method: &[u8], status: u16) -> bool {
    method == b"HEAD" || status < 200 || matches!(status, 204 | 205 | 304)
}

/// `connection` without these names, which a client would otherwise have removed on the way to the
/// upstream (RFC 9110 7.6.1); `None` when it names none of them.
pub(super) fn connection_without<'n>(
    value: &[u8],
    names: impl Iterator<Item = &'n [u8]> + Clone,
) -> Option<Vec<u8>> {
    let tokens = || value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    let ours = |token: &[u8]| names.clone().any(|name| name.eq_ignore_ascii_case(token));
    if !tokens().any(ours) {
        return None;
    }
    let kept: Vec<&[u8]> = tokens().filter(|token| !ours(token)).collect();
    Some(kept.join(&b", "[..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_have_our_headers_removed() {
        let names = [&b"x-out"[..], b"authorization"];
        let without = |text: &str| connection_without(text.as_bytes(), names.iter().copied());
        assert_eq!(without("upgrade"), None);
        assert_eq!(without("upgrade, X-Out"), Some(b"upgrade".to_vec()));
        assert_eq!(
            without("x-out,keep-alive , authorization,te"),
            Some(b"keep-alive, te".to_vec())
        );
    }

    #[test]
    fn responses_without_a_body() {
        assert!(has_no_body(b"HEAD", 200));
        assert!(has_no_body(b"GET", 304));
        assert!(has_no_body(b"GET", 101));
        assert!(!has_no_body(b"GET", 200));
    }
}
