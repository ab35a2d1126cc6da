//! Azure's answers as JSON: serde with what every answer may have in front. It knows no answer's fields.

use serde::Deserialize;

/// Reads JSON; a byte order mark (U+FEFF) before it is skipped.
///
/// # Errors
/// When it is not the JSON of a `T`.
pub(crate) fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(without_bom(text))
}

/// The text without a byte order mark at its beginning: editors on Windows put one there.
pub(crate) fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Whether this is a page for a browser: Azure's APIs never answer with one, proxies and portals do.
pub(crate) fn is_html(text: &[u8]) -> bool {
    without_bom(text).trim_ascii_start().starts_with(b"<")
}
