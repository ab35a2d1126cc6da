//! Bodies in which references are resolved: which kinds there are, and the texts in them that may hold a
//! reference. It changes nothing and knows no secrets.

use alloc::borrow::Cow;
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use crate::json;

/// A kind of body whose rules of writing are known. Of any other kind nobody could say which values break
/// out of their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `application/json`, `application/*+json`: in string values.
    Json,
    /// `application/x-www-form-urlencoded`: in values.
    Form,
    /// `text/plain`: anywhere.
    Text,
}

/// The media type of a `content-type`, in lower case, if its text is UTF-8.
#[must_use]
pub fn media_type(content_type: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(content_type)
        .ok()?
        .to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next()?.to_owned();
    let charset = parts.find_map(|part| part.strip_prefix("charset="));
    let known =
        charset.is_none_or(|c| ["utf-8", "utf8", "us-ascii"].contains(&c.trim_matches('"')));
    known.then_some(essence)
}

/// Whether a `content-type` is gRPC's: `application/grpc`, `application/grpc+proto`, … gRPC-Web is not gRPC:
/// its clients read an HTTP status.
#[must_use]
pub fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Whether a body of this `content-type` has no end to wait for.
#[must_use]
pub fn is_open_ended(content_type: &[u8]) -> bool {
    is_grpc(content_type) || content_type.starts_with(b"text/event-stream")
}

impl Kind {
    /// The kind of a media type.
    #[must_use]
    pub fn of(media_type: &str) -> Option<Self> {
        Some(match media_type {
            "application/json" => Self::Json,
            "application/x-www-form-urlencoded" => Self::Form,
            "text/plain" => Self::Text,
            other if other.starts_with("application/") && other.ends_with("+json") => Self::Json,
            _ => return None,
        })
    }
}

/// A piece of a JSON text.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonPart<'a> {
    /// Goes on as it is.
    Raw(&'a [u8]),
    /// A string value, with its quotes, and what it says.
    Value(&'a [u8], Cow<'a, str>),
}

/// Splits a JSON text at the string values that may hold a reference: those that have a backslash or a
/// brace in them. It does not care whether the rest is valid, and how deep it is: what it writes back is in
/// the same quotes, whatever they mean to the reader.
#[must_use]
pub fn json_parts(text: &[u8]) -> Vec<JsonPart<'_>> {
    let mut parts = Vec::new();
    let (mut raw_from, mut at) = (0, 0);
    while let Some(start) = find(text, at, b'"') {
        let Some(end) = string_end(text, start) else {
            break;
        };
        at = end;
        let quoted = text.get(start..end).unwrap_or_default();
        let candidate = quoted.iter().any(|b| *b == b'\\' || *b == b'{');
        if candidate
            && !is_key(text, end)
            && let Ok(value) = json::text(quoted)
        {
            parts.push(JsonPart::Raw(text.get(raw_from..start).unwrap_or_default()));
            parts.push(JsonPart::Value(quoted, value));
            raw_from = end;
        }
    }
    parts.push(JsonPart::Raw(text.get(raw_from..).unwrap_or_default()));
    parts
}

fn find(text: &[u8], from: usize, byte: u8) -> Option<usize> {
    memchr::memchr(byte, text.get(from..)?).map(|at| from + at)
}

/// Behind the closing quote of the string that begins at `start`.
fn string_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        let rest = text.get(at..)?;
        let found = memchr::memchr2(b'"', b'\\', rest)?;
        at += found + 1;
        if rest.get(found) == Some(&b'"') {
            return Some(at);
        }
        at += 1;
    }
}

fn is_key(text: &[u8], end: usize) -> bool {
    let rest = text.get(end..).unwrap_or_default();
    rest.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types() {
        for (text, kind) in [
            ("application/json", Some(Kind::Json)),
            ("Application/JSON; charset=UTF-8", Some(Kind::Json)),
            ("application/problem+json", Some(Kind::Json)),
            (
                "application/x-www-form-urlencoded;charset=\"utf-8\"",
                Some(Kind::Form),
            ),
            ("text/plain", Some(Kind::Text)),
            ("text/plain; charset=utf-16", None),
            ("text/html", None),
            ("multipart/form-data; boundary=x", None),
            ("", None),
        ] {
            let found = media_type(text.as_bytes()).and_then(|t| Kind::of(&t));
            assert_eq!(found, kind, "{text}");
        }
    }

    #[test]
    fn string_values_with_braces_or_escapes_are_found_at_any_depth() {
        let text = br#"{"{key}":"{a}","b":[["\u007b","plain",{"c" : "{d\"e}"}]],"n":1}"#;
        let parts = json_parts(text);
        let values: Vec<&str> = parts
            .iter()
            .filter_map(|part| match part {
                JsonPart::Value(_, value) => Some(value.as_ref()),
                JsonPart::Raw(_) => None,
            })
            .collect();
        assert_eq!(values, ["{a}", "{", "{d\"e}"]);
    }

    proptest::proptest! {
        #[test]
        fn the_parts_are_the_text(text in r#"[\[\]{}":,\\a-z0-9 \u{80}-\u{90}]{0,80}"#) {
            let mut joined = Vec::new();
            for part in json_parts(text.as_bytes()) {
                match part {
                    JsonPart::Raw(raw) | JsonPart::Value(raw, _) => joined.extend_from_slice(raw),
                }
            }
            assert_eq!(joined, text.as_bytes());
        }
    }
}
