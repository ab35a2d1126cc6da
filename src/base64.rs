//! Base64 as people store it in vaults: standard or URL-safe, with or without padding.

use alloc::string::String;
use alloc::vec::Vec;

use base64ct::{Base64UrlUnpadded as Url, Encoding as _};
use zeroize::Zeroizing;

/// The bytes, or `None` when this is base64 in neither alphabet (RFC 4648, sections 4 and 5). Line breaks,
/// tabs and blanks are skipped wherever they are (RFC 2045, section 6.8): `base64` breaks lines, `echo` ends one.
#[must_use]
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |b: &u8| !matches!(b, b'\r' | b'\n' | b'\t' | b' ');
    let text: Zeroizing<Vec<u8>> = Zeroizing::new(text.iter().copied().filter(digit).collect());
    let padding = text.iter().rev().take_while(|b| **b == b'=').count();
    // All of the padding or none.
    if padding != 0 && (padding > 2 || !text.len().is_multiple_of(4)) {
        return None;
    }
    let mut digits = Zeroizing::new(text.get(..text.len() - padding)?.to_vec());
    let (mut standard, mut url) = (false, false);
    // One reader for both alphabets: it is the larger half of this file.
    for digit in digits.iter_mut() {
        match *digit {
            b'+' | b'/' => standard = true,
            b'-' | b'_' => url = true,
            _ => {}
        }
        *digit = match *digit {
            b'+' => b'-',
            b'/' => b'_',
            other => other,
        };
    }
    if standard && url {
        return None;
    }
    let mut bytes = vec![0; digits.len()];
    // Not in place: that reader takes digits which say more than the bytes.
    let length = Url::decode(digits.as_slice(), &mut bytes).ok()?.len();
    bytes.truncate(length);
    Some(bytes)
}

/// Standard base64 with padding, in one line (RFC 4648, section 4).
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let url = Zeroizing::new(Url::encode_string(bytes));
    let mut text = String::with_capacity(url.len() + 2);
    for digit in url.chars() {
        text.push(match digit {
            '-' => '+',
            '_' => '/',
            other => other,
        });
    }
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

/// URL-safe base64 without padding (RFC 4648, section 5), as JWTs have it.
#[must_use]
pub fn encode_url(bytes: &[u8]) -> String {
    Url::encode_string(bytes)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn both_alphabets_with_and_without_padding() {
        for text in [
            "-_8=", "-_8", "+/8=", "+/8", "+/8=\n", " +/8=", "+/\r\n8=", "+\t/8 =",
        ] {
            assert_eq!(decode(text.as_bytes()), Some(vec![0xfb, 0xff]), "{text}");
        }
        assert_eq!(decode(b""), Some(vec![]));
        assert_eq!(decode(b"a\x0cb="), None);
        assert_eq!(decode(b" \r\n"), Some(vec![]));
        assert_eq!(decode(b"+_8="), None);
        for text in ["-_8==", "-_8===", "====", "=", "A===", "AA=", "AB==", "A"] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_was_written_is_read(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..20)) {
            proptest::prop_assert_eq!(decode(super::encode(&bytes).as_bytes()), Some(bytes.clone()));
            proptest::prop_assert_eq!(decode(super::encode_url(&bytes).as_bytes()), Some(bytes));
        }
    }
}
