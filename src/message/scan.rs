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
pub(super) const NEAR: usize = 16;

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
        let text = self.text;
        let mut at = self.at;
        let mut quiet = 0;
        // Where the last backslash that is spelled begins and ends.
        let (mut slash, mut slash_end) = (0, usize::MAX);
        loop {
            let byte = *text.get(at)?;
            if byte != b'{' && byte != b'\\' {
                at += 1;
                quiet += 1;
                if quiet == NEAR {
                    quiet = 0;
                    at += memchr2(b'{', b'\\', text.get(at..)?)?;
                }
                continue;
            }
            quiet = 0;
            let start = at;
            let next = text.get(at + 1).copied();
            let is_brace = match (byte, next?) {
                (b'{', _) => {
                    at += 1;
                    true
                }
                (_, b'\\') => {
                    at += 2;
                    (slash, slash_end) = (start, at);
                    false
                }
                // Of another byte, as a start's own bytes are: these are the ones that come in thousands.
                (_, b'u') if is_other_byte(text, at) => {
                    at += 6;
                    false
                }
                // An escape that JSON does not have: what follows is not what it looks like.
                _ => {
                    let (unit, length) = json_unit(text.get(at..)?)?;
                    at += length;
                    if matches!(unit, Unit::Byte(b'\\')) {
                        (slash, slash_end) = (start, at);
                    }
                    matches!(unit, Unit::Byte(b'{'))
                }
            };
            if is_brace {
                match rest_of_start(text, at, b'\\') {
                    Ok(behind) => {
                        self.backslash = (slash_end == start).then_some(slash..start);
                        return Some((start, behind));
                    }
                    Err(other) => at = other,
                }
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
            let byte = *self.text.get(at)?;
            if byte == b'}' {
                text.push(byte);
                return Some((at + 1, text));
            }
            let keep = text.len() <= LONGEST;
            if byte != escape_of(self.encoding) && (byte != b'+' || !keep) {
                if keep {
                    text.push(byte);
                }
                at += 1;
                continue;
            }
            let (unit, length) = unit(self.text.get(at..)?, self.encoding)?;
            at += length;
            match unit {
                Unit::Byte(b'}') => {
                    text.push(b'}');
                    return Some((at, text));
                }
                Unit::Byte(byte) if keep => text.push(byte),
                Unit::Char(char) if keep => {
                    text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Unit::Byte(_) | Unit::Char(_) => {}
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

/// The byte that begins a spelling of another byte; the brace itself where there is none.
const fn escape_of(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::Form => b'%',
        Encoding::Json => b'\\',
        Encoding::Header | Encoding::Text => b'{',
    }
}

/// The first start of a reference at or behind `from`: where it begins and where it ends. In JSON it may be
/// one that a backslash makes something else.
pub(super) fn first_start(text: &[u8], from: usize, encoding: Encoding) -> Option<(usize, usize)> {
    let escape = escape_of(encoding);
    // What follows an escaped brace's first byte: `%7b`, `\u007b`.
    let (number, length) = if escape == b'%' { (b'7', 3) } else { (b'u', 6) };
    let mut at = from;
    let mut quiet = 0;
    loop {
        let byte = *text.get(at)?;
        if byte != b'{' && byte != escape {
            at += 1;
            quiet += 1;
            if quiet == NEAR {
                quiet = 0;
                at += memchr2(b'{', escape, text.get(at..)?)?;
            }
            continue;
        }
        quiet = 0;
        let next = *text.get(at + 1)?;
        if byte == b'{' {
            // In a text without escapes, `{{` is no start.
            let may_begin = next == b'v' || (next == escape && escape != b'{');
            if may_begin {
                match rest_of_start(text, at + 1, escape) {
                    Ok(behind) => return Some((at, behind)),
                    Err(other) => at = other,
                }
                continue;
            }
        } else if next == number {
            if is_escaped(text, at, b'{', escape) {
                match rest_of_start(text, at + length, escape) {
                    Ok(behind) => return Some((at, behind)),
                    Err(other) => at = other,
                }
                continue;
            }
            // A start cannot begin with the `u` or the `7`.
            at += 1;
        }
        at += 1;
    }
}

/// Where [`START`] ends whose brace ends at `at`; else where what is spelled is another text. No start begins before
/// that.
fn rest_of_start(text: &[u8], at: usize, escape: u8) -> Result<usize, usize> {
    let mut at = at;
    for wanted in START.get(1..).unwrap_or_default() {
        let byte = *text.get(at).ok_or(at)?;
        at += if byte == *wanted {
            1
        } else if byte != escape || byte == b'{' {
            return Err(at);
        } else if is_escaped(text, at, *wanted, escape) {
            if escape == b'%' { 3 } else { 6 }
        } else if escape == b'\\' && *wanted == b'/' && text.get(at + 1) == Some(&b'/') {
            2
        } else {
            return Err(at);
        };
    }
    Ok(at)
}

/// Whether the escape by number that begins at `at` spells this byte, which is one of [`START`]: the first of
/// its two digits is no letter.
fn is_escaped(text: &[u8], at: usize, byte: u8, escape: u8) -> bool {
    let is = |at: usize, byte: u8| text.get(at) == Some(&byte);
    let digits = if escape == b'%' { at + 1 } else { at + 4 };
    let digit = byte & 15;
    // Most are of another byte, which the second digit shows.
    let is_low = if digit < 10 {
        is(digits + 1, digit + b'0')
    } else {
        is(digits + 1, digit + (b'a' - 10)) || is(digits + 1, digit + (b'A' - 10))
    };
    is_low
        && is(digits, (byte >> 4) + b'0')
        && (escape == b'%' || (is(at + 1, b'u') && is(at + 2, b'0') && is(at + 3, b'0')))
}

/// Whether the escape by number that begins at `at` spells a byte that is neither `{` nor `\\`.
fn is_other_byte(text: &[u8], at: usize) -> bool {
    let byte = |at: usize| text.get(at).copied().unwrap_or_default();
    let (high, low) = (byte(at + 4), byte(at + 5));
    // `{` is 7b and `\\` is 5c.
    let may_be = matches!((high, low | 0x20), (b'7', b'b') | (b'5', b'c'));
    let is_ascii = byte(at + 2) == b'0' && byte(at + 3) == b'0' && matches!(high, b'0'..=b'7');
    is_ascii && !may_be && low.is_ascii_hexdigit()
}

/// How many bytes at the end of a text that is not JSON spell a backslash.
fn backslash_at_end(text: &[u8], encoding: Encoding) -> usize {
    match (encoding, text) {
        (_, [.., b'\\']) => 1,
        (Encoding::Form, [.., b'%', b'5', b'c' | b'C']) => 3,
        _ => 0,
    }
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
const fn hex(digit: u8) -> Option<u32> {
    match digit {
        b'0'..=b'9' => Some((digit - b'0') as u32),
        b'a'..=b'f' => Some((digit - b'a') as u32 + 10),
        b'A'..=b'F' => Some((digit - b'A') as u32 + 10),
        _ => None,
    }
}

/// Two hexadecimal digits.
#[inline]
fn percent(digits: &[u8]) -> Option<u8> {
    match digits {
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
            assert!((LONGEST + 1..=LONGEST + 2).contains(&found.text.len()));
        }
    }
}
