//! References in a text that is written in some encoding (JSON escapes, percent-encoding), found without
//! decoding the text: each with the range of bytes that spells it. One pass, no memory but the reference.
//!
//! Every byte of a hostile body passes here, so nothing is allocated, and no vector search is set up, before
//! the whole start `{vault://` has matched. It does not know what a reference means.

use std::ops::Range;

use memchr::{memchr, memchr2};

use crate::placement::Encoding;

/// Longer references mean nothing, so no more of one is kept.
pub(super) const LONGEST: usize = crate::reference::LONGEST;
const START: &[u8] = b"{vault://";
/// So many bytes are looked at one by one before a vector search is set up, which costs as much.
const NEAR: usize = 16;

/// What looks like a reference.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The bytes that spell it.
    pub(super) at: Range<usize>,
    /// The bytes that spell the backslash before it, if there is one.
    pub(super) backslash: Option<Range<usize>>,
    /// What is spelled; cut off behind [`LONGEST`] bytes.
    pub(super) text: Vec<u8>,
}

/// The scanner of one text.
pub(super) struct Scan<'a> {
    text: &'a [u8],
    encoding: Encoding,
    at: usize,
    /// JSON's backslash before this place; elsewhere the bytes before a start say it.
    backslash: Option<Range<usize>>,
    unfinished: bool,
}

impl<'a> Scan<'a> {
    /// Looks at a range of a text.
    pub(super) fn new(text: &'a [u8], range: Range<usize>, encoding: Encoding) -> Self {
        let end = range.end.min(text.len());
        Self {
            text: text.get(..end).unwrap_or_default(),
            encoding,
            at: range.start,
            backslash: None,
            unfinished: false,
        }
    }

    /// Whether the text ended within something that began like a reference.
    pub(super) const fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// The next brace that begins a reference, and where the rest of the reference follows.
    fn next_start(&mut self) -> Option<(usize, usize)> {
        if self.encoding == Encoding::Json {
            return self.next_start_in_json();
        }
        let (at, behind) = first_start(self.text, self.at, self.encoding)?;
        let before = self.text.get(self.at..at).unwrap_or_default();
        let length = backslash_at_end(before, self.encoding);
        self.backslash = (length > 0).then(|| at - length..at);
        Some((at, behind))
    }

    /// JSON is read from the left: whether a backslash escapes what follows depends on those before it.
    fn next_start_in_json(&mut self) -> Option<(usize, usize)> {
        loop {
            let at = seek(
                self.text,
                self.at,
                |byte| matches!(byte, b'{' | b'\\'),
                |rest| memchr2(b'{', b'\\', rest),
            )?;
            let rest = self.text.get(at..)?;
            // An escape that JSON does not have: what follows is not what it looks like.
            let (unit, length) = json_unit(rest)?;
            self.at = at + length;
            match unit {
                Unit::Byte(b'\\') => self.backslash = Some(at..self.at),
                Unit::Byte(b'{') => {
                    if let Some(behind) = rest_of_start(self.text, self.at, Encoding::Json) {
                        let backslash = self.backslash.take();
                        self.backslash = backslash.filter(|before| before.end == at);
                        return Some((at, behind));
                    }
                }
                _ => {}
            }
        }
    }

    /// What is spelled from `at` on up to the closing brace, behind [`START`], and where it ends; `None` if
    /// the text ends first.
    fn finish(&self, from: usize, at: usize) -> Option<(usize, Vec<u8>)> {
        if matches!(self.encoding, Encoding::Header | Encoding::Text) {
            let end = at + memchr(b'}', self.text.get(at..)?)? + 1;
            let kept = end.min(from + LONGEST + 1);
            return Some((end, self.text.get(from..kept)?.to_vec()));
        }
        let mut at = at;
        let mut text = START.to_vec();
        loop {
            let rest = self.text.get(at..)?;
            let (unit, length) = unit(rest, self.encoding)?;
            at += length;
            if text.len() <= LONGEST {
                match unit {
                    Unit::Byte(byte) => text.push(byte),
                    Unit::Char(char) => {
                        text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
            }
            if matches!(unit, Unit::Byte(b'}')) {
                return Some((at, text));
            }
        }
    }
}

impl Iterator for Scan<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        let Some((from, behind)) = self.next_start() else {
            self.at = self.text.len();
            return None;
        };
        let Some((end, text)) = self.finish(from, behind) else {
            self.at = self.text.len();
            self.unfinished = true;
            return None;
        };
        self.at = end;
        Some(Found {
            at: from..end,
            backslash: self.backslash.take(),
            text,
        })
    }
}

/// The first start of a reference at or behind `from`: where it begins and where it ends. In JSON it may be
/// one that a backslash makes something else.
pub(super) fn first_start(text: &[u8], from: usize, encoding: Encoding) -> Option<(usize, usize)> {
    let mut at = from;
    loop {
        at = match encoding {
            Encoding::Form => seek(
                text,
                at,
                |byte| matches!(byte, b'{' | b'%'),
                |rest| memchr2(b'{', b'%', rest),
            ),
            Encoding::Json => seek(
                text,
                at,
                |byte| matches!(byte, b'{' | b'\\'),
                |rest| memchr2(b'{', b'\\', rest),
            ),
            _ => seek(text, at, |byte| byte == b'{', |rest| memchr(b'{', rest)),
        }?;
        let behind = spelled(text, at, b'{', encoding);
        if let Some(behind) = behind.and_then(|behind| rest_of_start(text, behind, encoding)) {
            return Some((at, behind));
        }
        at += 1;
    }
}

/// Where [`START`] ends whose brace ends at `at`.
fn rest_of_start(text: &[u8], at: usize, encoding: Encoding) -> Option<usize> {
    let rest = START.get(1..).unwrap_or_default();
    rest.iter()
        .try_fold(at, |at, byte| spelled(text, at, *byte, encoding))
}

/// Where the spelling of this byte (ASCII, printable) ends, if it begins at `at`.
#[inline]
fn spelled(text: &[u8], at: usize, byte: u8, encoding: Encoding) -> Option<usize> {
    let rest = text.get(at..)?;
    let (&first, tail) = rest.split_first()?;
    if first == byte {
        return Some(at + 1);
    }
    match (encoding, first) {
        (Encoding::Form, b'%') => (percent(tail)? == byte).then_some(at + 3),
        (Encoding::Json, b'\\') => match tail {
            [b'/', ..] => (byte == b'/').then_some(at + 2),
            [b'u', b'0', b'0', high, low, ..] => {
                (hex(*high)? << 4 | hex(*low)? == u32::from(byte)).then_some(at + 6)
            }
            _ => None,
        },
        _ => None,
    }
}

/// How many bytes at the end of a text that is not JSON spell a backslash.
fn backslash_at_end(text: &[u8], encoding: Encoding) -> usize {
    match (encoding, text) {
        (_, [.., b'\\']) => 1,
        (Encoding::Form, [.., b'%', b'5', b'c' | b'C']) => 3,
        _ => 0,
    }
}

/// The next byte of a kind: near ones by a plain loop, far ones by `search`.
#[inline]
pub(super) fn seek(
    text: &[u8],
    from: usize,
    is_wanted: impl Fn(u8) -> bool,
    search: impl Fn(&[u8]) -> Option<usize>,
) -> Option<usize> {
    let rest = text.get(from..)?;
    let (near, far) = rest.split_at_checked(NEAR).unwrap_or((rest, b""));
    if let Some(at) = near.iter().position(|byte| is_wanted(*byte)) {
        return Some(from + at);
    }
    search(far).map(|at| from + NEAR + at)
}

/// What a few bytes spell.
enum Unit {
    Byte(u8),
    Char(char),
}

/// What a text begins with, and how many bytes spell it. `None`: it is empty, or no JSON.
#[inline]
fn unit(rest: &[u8], encoding: Encoding) -> Option<(Unit, usize)> {
    let (&first, tail) = rest.split_first()?;
    Some(match (encoding, first) {
        (Encoding::Json, b'\\') => return json_unit(rest),
        (Encoding::Form, b'+') => (Unit::Byte(b' '), 1),
        (Encoding::Form, b'%') => match percent(tail) {
            Some(byte) => (Unit::Byte(byte), 3),
            None => (Unit::Byte(b'%'), 1),
        },
        _ => (Unit::Byte(first), 1),
    })
}

/// The same in JSON (RFC 8259, section 7).
fn json_unit(rest: &[u8]) -> Option<(Unit, usize)> {
    let (&first, tail) = rest.split_first()?;
    if first != b'\\' {
        return Some((Unit::Byte(first), 1));
    }
    let byte = match tail.first()? {
        byte @ (b'"' | b'\\' | b'/') => *byte,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return json_number(tail),
        _ => return None,
    };
    Some((Unit::Byte(byte), 2))
}

/// An escape by number, from its `u` on.
fn json_number(tail: &[u8]) -> Option<(Unit, usize)> {
    let high = hex4(tail.get(1..5)?)?;
    if let Some(ascii) = u8::try_from(high).ok().filter(u8::is_ascii) {
        return Some((Unit::Byte(ascii), 6));
    }
    let (code, length) = match high {
        0xd800..0xdc00 => {
            let low = tail.get(5..11)?.strip_prefix(b"\\u").and_then(hex4)?;
            let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
            (0x10000 + ((high - 0xd800) << 10) + low, 12)
        }
        other => (other, 6),
    };
    Some((Unit::Char(char::from_u32(code)?), length))
}

fn hex4(digits: &[u8]) -> Option<u32> {
    let [a, b, c, d] = *digits else { return None };
    Some(hex(a)? << 12 | hex(b)? << 8 | hex(c)? << 4 | hex(d)?)
}

#[inline]
fn hex(digit: u8) -> Option<u32> {
    char::from(digit).to_digit(16)
}

#[inline]
fn percent(tail: &[u8]) -> Option<u8> {
    match tail {
        [high, low, ..] => u8::try_from(hex(*high)? << 4 | hex(*low)?).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every unit of a text with its range, up to one that JSON does not have.
    fn units(text: &[u8], encoding: Encoding) -> Vec<(Vec<u8>, Range<usize>)> {
        let mut units = Vec::new();
        let mut at = 0;
        while let Some((unit, length)) = unit(&text[at..], encoding) {
            let bytes = match unit {
                Unit::Byte(byte) => vec![byte],
                Unit::Char(char) => char.to_string().into_bytes(),
            };
            units.push((bytes, at..at + length));
            at += length;
        }
        units
    }

    /// The same search as one would write it without care for time: all is decoded first.
    fn simply(text: &[u8], encoding: Encoding) -> (Vec<Found>, bool) {
        let units = units(text, encoding);
        let (mut found, mut at, mut behind) = (Vec::new(), 0, 0);
        while at < units.len() {
            let from_here: Vec<u8> = units[at..].iter().flat_map(|(b, _)| b.clone()).collect();
            if !from_here.starts_with(START) {
                at += 1;
                continue;
            }
            let end = units[at..].iter().position(|(bytes, _)| bytes == b"}");
            let Some(end) = end.map(|end| at + end) else {
                return (found, true);
            };
            let before = at.checked_sub(1).filter(|before| *before >= behind);
            let before = before.map(|before| &units[before]);
            found.push(Found {
                at: units[at].1.start..units[end].1.end,
                backslash: before.filter(|(b, _)| b == b"\\").map(|(_, at)| at.clone()),
                text: units[at..=end]
                    .iter()
                    .flat_map(|(b, _)| b.clone())
                    .collect(),
            });
            at = end + 1;
            behind = at;
        }
        (found, false)
    }

    proptest! {
        #[test]
        fn references_are_found_as_by_decoding_everything_first(
            text in r#"(\{|\{vault://|\\|\\u005[cC]|%5[cC]|%7[bB]vault%3a//|%7[dD]|%|\\u007[bB]vault:\\/\\/|\\u007d|\\n|\\ud83d\\ude00|\\ud83d|\\x|\+|é|va|[a-z5"]|\}){0,14}"#,
        ) {
            for encoding in [Encoding::Header, Encoding::Text, Encoding::Form, Encoding::Json] {
                let mut scan = Scan::new(text.as_bytes(), 0..text.len(), encoding);
                let found: Vec<Found> = scan.by_ref().collect();
                let (expected, unfinished) = simply(text.as_bytes(), encoding);
                prop_assert_eq!(&found, &expected, "{:?}", encoding);
                prop_assert_eq!(scan.is_unfinished(), unfinished, "{:?}", encoding);
            }
        }

        #[test]
        fn a_start_is_where_a_start_is_spelled(text in r"(\{v|ault://|\{|x){0,60}") {
            let expected = text.find("{vault://").map(|at| (at, at + START.len()));
            prop_assert_eq!(first_start(text.as_bytes(), 0, Encoding::Text), expected);
        }
    }

    #[test]
    fn a_long_reference_is_cut_off_and_its_end_is_found() {
        let text = format!("{{vault://{}}}x", "a".repeat(2 * LONGEST));
        for encoding in [Encoding::Header, Encoding::Form, Encoding::Json] {
            let found = Scan::new(text.as_bytes(), 0..text.len(), encoding)
                .next()
                .unwrap();
            assert_eq!(found.at, 0..text.len() - 1);
            assert!(found.text.len() == LONGEST + 1, "{}", found.text.len());
        }
    }
}
