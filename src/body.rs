//! Bodies in which references are resolved: which kinds there are. It changes nothing and knows no secrets.

use mediatype::{MediaType, ReadParams as _, names::CHARSET};

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

/// Why references in a body of a listed type are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftAlone {
    /// The `content-type` is no media type (RFC 9110, section 8.3.1).
    Malformed,
    /// The text is in another character set than UTF-8 or US-ASCII.
    Charset,
    /// gRPC's messages have their length before them.
    Grpc,
}

impl LeftAlone {
    /// For the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "a content-type that is no media type",
            Self::Charset => "a body in another character set than UTF-8",
            Self::Grpc => "a body of gRPC",
        }
    }
}

/// The media type of a `content-type`, in lower case, if the text is UTF-8.
///
/// # Errors
/// Why a body of this type cannot be read.
pub fn media_type(content_type: &[u8]) -> Result<String, LeftAlone> {
    let text = core::str::from_utf8(content_type).map_err(|_| LeftAlone::Malformed)?;
    let media = MediaType::parse(text.trim()).map_err(|_| LeftAlone::Malformed)?;
    let essence = media.essence().to_string().to_ascii_lowercase();
    if has_lengths(&essence) {
        return Err(LeftAlone::Grpc);
    }
    let mut charsets = media.params().filter(|(name, _)| *name == CHARSET);
    let known = charsets.all(|(_, value)| {
        let charset = value.unquoted_str();
        ["utf-8", "utf8", "us-ascii"]
            .iter()
            .any(|known| charset.eq_ignore_ascii_case(known))
    });
    known.then_some(essence).ok_or(LeftAlone::Charset)
}

/// gRPC and gRPC-Web: their messages have their length before them.
fn has_lengths(essence: &str) -> bool {
    essence.starts_with("application/grpc")
}

/// Whether a request of this `content-type` is gRPC's: `application/grpc`, `application/grpc+proto`, as Envoy
/// has it. gRPC-Web is not: its clients read an HTTP status.
#[must_use]
pub fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
}

/// Whether a body of this `content-type` is a sequence of messages with gRPC's prefix of five bytes: gRPC, gRPC-Web
/// but for its text form in base64, and the streams of Connect.
#[must_use]
pub fn has_grpc_frames(content_type: &[u8]) -> bool {
    let name = essence(content_type);
    let Some(("application", name)) = name.split_once('/') else {
        return false;
    };
    let protocol = name.split_once('+').map_or(name, |(protocol, _)| protocol);
    matches!(protocol, "grpc" | "grpc-web") || (protocol == "connect" && name != protocol)
}

/// The media type of a `content-type` without its parameters, in lower case.
#[must_use]
pub fn essence(content_type: &[u8]) -> String {
    let essence = content_type.split(|byte| *byte == b';').next();
    let essence = String::from_utf8_lossy(essence.unwrap_or_default());
    essence.trim().to_ascii_lowercase()
}

/// Whether a body of this type may never end, or is a sequence of messages: it is never collected.
#[must_use]
pub fn is_open_ended(content_type: &[u8]) -> bool {
    const TYPES: [&str; 6] = [
        "text/event-stream",
        "multipart/x-mixed-replace",
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/json-seq",
    ];
    let essence = essence(content_type);
    has_lengths(&essence) || essence.ends_with("+json-seq") || TYPES.contains(&essence.as_str())
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
            ("application/json; charset = utf-16", None),
            (
                "application/json; profile=\"a;charset=utf-16\"",
                Some(Kind::Json),
            ),
            ("application/json; charset=utf-8; charset=utf-16", None),
            ("application/json ; CHARSET=\"US-ASCII\"", Some(Kind::Json)),
            ("application/grpc+json", None),
        ] {
            let found = media_type(text.as_bytes()).ok().and_then(|t| Kind::of(&t));
            assert_eq!(found, kind, "{text}");
        }
    }

    #[test]
    fn bodies_with_grpc_frames() {
        for (text, framed) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", true),
            ("Application/gRPC-Web+proto; a=b", true),
            ("application/GRPC;a=b", true),
            ("application/connect+json", true),
            ("application/connect", false),
            ("application/grpc-web-text", false),
            ("application/grpc-web-text+proto", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(has_grpc_frames(text.as_bytes()), framed, "{text}");
        }
    }

    #[test]
    fn streams_are_open_ended() {
        for (text, open) in [
            ("text/event-stream", true),
            ("Text/Event-Stream;charset=utf-8", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", true),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_open_ended(text.as_bytes()), open, "{text}");
        }
    }
}
