//! Names and values joined by `&`, as queries and form bodies have them (WHATWG URL,
//! `application/x-www-form-urlencoded`). It knows nothing of references.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::azure::http::push_encoded;

/// One `name=value` as it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// The whole of it.
    pub raw: &'a [u8],
    name: &'a [u8],
    value: Option<&'a [u8]>,
}

impl<'a> Parameter<'a> {
    /// The parameter of this text, which holds no `&`.
    #[must_use]
    pub fn of(raw: &'a [u8]) -> Self {
        let mut halves = raw.splitn(2, |b| *b == b'=');
        Self {
            raw,
            name: halves.next().unwrap_or_default(),
            value: halves.next(),
        }
    }

    /// The name, decoded.
    #[must_use]
    pub fn name(&self) -> Cow<'a, [u8]> {
        decode(self.name)
    }

    /// The value, decoded; empty without `=`.
    #[must_use]
    pub fn value(&self) -> Cow<'a, [u8]> {
        decode(self.value.unwrap_or_default())
    }

    /// The name as it stands there, with its `=`.
    #[must_use]
    pub fn raw_start(&self) -> &'a [u8] {
        let length = self.name.len() + usize::from(self.value.is_some());
        self.raw.get(..length).unwrap_or(self.raw)
    }
}

/// The parameters in their order. An empty text has none; `a&&b` has an empty one in the middle.
pub fn parameters(text: &[u8]) -> impl Iterator<Item = Parameter<'_>> {
    let parts = text.split(|b| *b == b'&');
    parts.filter(|_| !text.is_empty()).map(Parameter::of)
}

/// The parameters with the range of bytes where each stands.
pub fn ranges(text: &[u8]) -> impl Iterator<Item = (core::ops::Range<usize>, Parameter<'_>)> {
    parameters(text).scan(0_usize, |at, parameter| {
        let start = *at;
        let end = start + parameter.raw.len();
        *at = end + 1;
        Some((start..end, parameter))
    })
}

/// Whether a parameter's name, decoded, is `ours` or a way to write it as a list, `ours[]`, `ours[0]`: PHP,
/// Rails and others read one for the other. Other spellings are the upstream's business.
#[must_use]
pub fn is_spelling_of(name: &[u8], ours: &[u8]) -> bool {
    let rest = name.strip_prefix(ours);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"["))
}

/// The path and the query of a request's target; a query may be absent or empty.
#[must_use]
pub fn split(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match target.iter().position(|b| *b == b'?') {
        Some(at) => {
            let (path, rest) = target.split_at(at);
            (path, rest.get(1..))
        }
        None => (target, None),
    }
}

/// `name=` with the name encoded.
#[must_use]
pub fn start(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 1);
    push_encoded(&mut out, name);
    out.push(b'=');
    out
}

/// Percent-decoding with `+` for a space. What is no valid escape stays as it is.
fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|b| *b == b'%' || *b == b'+') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'%', [high, low, after @ ..]) => match (nibble(*high), nibble(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                _ => out.push(b'%'),
            },
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    Cow::Owned(out)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|n| u8::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_their_text_stays() {
        let text = b"a=1&%62=%7Bv%7d+x&&c&d=e=f&g=%zz%4";
        let all: Vec<_> = parameters(text).collect();
        let decoded: Vec<_> = all
            .iter()
            .map(|p| (p.name().into_owned(), p.value().into_owned()))
            .collect();
        let expected: [(&[u8], &[u8]); 6] = [
            (b"a", b"1"),
            (b"b", b"{v} x"),
            (b"", b""),
            (b"c", b""),
            (b"d", b"e=f"),
            (b"g", b"%zz%4"),
        ];
        assert_eq!(decoded, expected.map(|(n, v)| (n.to_vec(), v.to_vec())));
        let joined: Vec<&[u8]> = all.iter().map(|p| p.raw).collect();
        assert_eq!(joined.join(&b'&'), text);
        assert_eq!(all[1].raw_start(), b"%62=");
        assert_eq!(all[3].raw_start(), b"c");
        assert_eq!(parameters(b"").count(), 0);
    }

    #[test]
    fn targets_are_split_at_the_first_question_mark() {
        assert_eq!(split(b"/a?b?c"), (&b"/a"[..], Some(&b"b?c"[..])));
        assert_eq!(split(b"/a?"), (&b"/a"[..], Some(&b""[..])));
        assert_eq!(split(b"/a"), (&b"/a"[..], None));
    }

    proptest::proptest! {
        #[test]
        fn what_was_encoded_is_decoded_again(value: Vec<u8>) {
            let mut text = start(b"k");
            push_encoded(&mut text, &value);
            let read: Vec<_> = parameters(&text).map(|p| p.value().into_owned()).collect();
            assert_eq!(read, [value]);
        }
    }
}
