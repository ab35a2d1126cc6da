//! What may be written where: which headers the filter may touch, and which values a header can hold. It
//! knows HTTP's rules (RFC 9110) and nothing of references.

/// Headers that are never a target: they say who is asked, or where a message ends. A wrong one of these
/// is request smuggling, not a wrong value. Hop-by-hop headers are RFC 9110, section 7.6.1.
const UNTOUCHABLE: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether this header may be set or resolved at all: a valid field name (RFC 9110, section 5.6.2) that
/// is neither a pseudo-header nor one of HTTP's own.
#[must_use]
pub fn is_header_target(name: &[u8]) -> bool {
    is_field_name(name)
        && !UNTOUCHABLE
            .iter()
            .any(|untouchable| name.eq_ignore_ascii_case(untouchable.as_bytes()))
}

fn is_field_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// Whether a header can hold these bytes as they are (RFC 9110, section 5.5): no control bytes but the
/// tab. Envoy answers 503 to such a value and WasmX would percent-encode it silently.
#[must_use]
pub fn fits_header(value: &[u8]) -> bool {
    value
        .iter()
        .all(|&b| b == b'\t' || (b >= 0x20 && b != 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_frame_or_route_are_never_targets() {
        for name in [
            "Host",
            ":path",
            ":authority",
            "Transfer-Encoding",
            "content-length",
            "",
            "x y",
            "a:b",
            "x\r\n",
        ] {
            assert!(!is_header_target(name.as_bytes()), "{name}");
        }
        for name in ["authorization", "X-Key", "x_y", "cookie"] {
            assert!(is_header_target(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn control_bytes_do_not_fit_a_header() {
        assert!(fits_header(b"Bearer abc\tdef caf\xc3\xa9 \xff"));
        for bad in [&b"a\r\nb"[..], b"a\n", b"\0", b"\x7f", b"\x1b[0m"] {
            assert!(!fits_header(bad), "{bad:?}");
        }
    }
}
