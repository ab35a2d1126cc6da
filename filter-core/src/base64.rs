//! Base64 as people store it in vaults: standard or URL-safe, with or without padding.

use ::base64::Engine as _;
use ::base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use ::base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const fn engine(alphabet: &Alphabet) -> GeneralPurpose {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, config)
}

/// The bytes, or `None` when this is base64 in neither alphabet (RFC 4648, sections 4 and 5). White space
/// at the end is left out: `base64` and `echo` put it there.
#[must_use]
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii_end();
    let standard = engine(&STANDARD).decode(text);
    standard.or_else(|_| engine(&URL_SAFE).decode(text)).ok()
}

/// Standard base64 with padding, in one line (RFC 4648, section 4).
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    engine(&STANDARD).encode(bytes)
}

/// URL-safe base64 without padding (RFC 4648, section 5), as JWTs have it.
#[must_use]
pub fn encode_url(bytes: &[u8]) -> String {
    ::base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn both_alphabets_with_and_without_padding() {
        for text in ["-_8=", "-_8", "+/8=", "+/8", "+/8=\n"] {
            assert_eq!(decode(text.as_bytes()), Some(vec![0xfb, 0xff]), "{text}");
        }
        assert_eq!(decode(b""), Some(vec![]));
        assert_eq!(decode(b"a b="), None);
        assert_eq!(decode(b"+_8="), None);
    }
}
