//! What may be written where: which headers the filter may touch, and which values a header can hold. It
//! knows HTTP's rules (RFC 9110) and nothing of references.

use alloc::vec::Vec;

use crate::azure::http::push_encoded;

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

/// How a value is written where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is, without control bytes.
    Header,
    /// Percent-encoded, as queries and forms have it.
    Form,
    /// Inside a JSON string (RFC 8259, section 7).
    Json,
    /// As it is.
    Text,
}

impl Encoding {
    /// How long a value is when it is written; `None` when it cannot be written here. Nothing is allocated.
    #[must_use]
    pub fn length(self, value: &[u8]) -> Option<usize> {
        let escaped = |longer: fn(u8) -> usize| {
            let more = value.iter().map(|&byte| longer(byte));
            more.fold(value.len(), usize::saturating_add)
        };
        match self {
            Self::Header => fits_header(value).then_some(value.len()),
            Self::Text => Some(value.len()),
            Self::Form => Some(escaped(|byte| match byte {
                b'-' | b'.' | b'_' | b'~' => 0,
                byte if byte.is_ascii_alphanumeric() => 0,
                _ => 2,
            })),
            Self::Json => core::str::from_utf8(value).is_ok().then(|| {
                escaped(|byte| match byte {
                    b'"' | b'\\' => 1,
                    0..0x20 | 0x7f => 5,
                    _ => 0,
                })
            }),
        }
    }

    /// Writes a value. Whether it can be written there at all; if not, nothing was written.
    #[must_use]
    pub fn write(self, out: &mut Vec<u8>, value: &[u8]) -> bool {
        match self {
            Self::Header if !fits_header(value) => return false,
            Self::Header | Self::Text => out.extend_from_slice(value),
            Self::Form => push_encoded(out, value),
            Self::Json => return push_json(out, value),
        }
        true
    }
}

/// JSON is Unicode: other bytes have no way of being written.
fn push_json(out: &mut Vec<u8>, value: &[u8]) -> bool {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    if core::str::from_utf8(value).is_err() {
        return false;
    }
    for &byte in value {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 | 0x7f => {
                out.extend_from_slice(b"\\u00");
                for nibble in [byte >> 4, byte & 15] {
                    out.extend(HEX.get(usize::from(nibble)));
                }
            }
            _ => out.push(byte),
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_encoding() {
        let written = |encoding: Encoding, value: &[u8]| {
            let mut out = Vec::new();
            encoding.write(&mut out, value).then_some(out)
        };
        let value = b"a\"b\\c&d\n\xc3\xa9";
        assert_eq!(written(Encoding::Header, value), None);
        assert_eq!(written(Encoding::Text, value).unwrap(), value);
        assert_eq!(
            written(Encoding::Form, value).unwrap(),
            b"a%22b%5Cc%26d%0A%C3%A9"
        );
        assert_eq!(
            written(Encoding::Json, value).unwrap(),
            b"a\\\"b\\\\c&d\\u000a\xc3\xa9"
        );
        assert_eq!(written(Encoding::Json, b"\xff"), None);
        let json = written(Encoding::Json, "\u{0}\u{1f}\u{7f}\u{2028}".as_bytes()).unwrap();
        let quoted = [b"\"", json.as_slice(), b"\""].concat();
        let read: String = serde_json::from_slice(&quoted).unwrap();
        assert_eq!(read, "\u{0}\u{1f}\u{7f}\u{2028}");
    }

    proptest::proptest! {
        #[test]
        fn the_length_is_that_of_what_is_written(value: Vec<u8>, text: String) {
            for value in [value.as_slice(), text.as_bytes()] {
                for encoding in [Encoding::Header, Encoding::Form, Encoding::Json, Encoding::Text] {
                    let mut out = Vec::new();
                    let written = encoding.write(&mut out, value).then_some(out.len());
                    proptest::prop_assert_eq!(encoding.length(value), written);
                }
            }
        }
    }

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
