//! References in a text that is written in some encoding (JSON escapes, percent-encoding), found without
//! decoding the text: each with the range of bytes that spells it. One pass, no memory but the reference.

use std::ops::Range;

use memchr::{memchr2, memchr3};

use crate::placement::Encoding;

/// Longer references mean nothing, so no more of one is kept.
pub(super) const LONGEST: usize = crate::reference::LONGEST;
const START: &[u8] = b"{vault://";

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
    end: usize,
    backslash: Option<Range<usize>>,
}

impl<'a> Scan<'a> {
    /// Looks at a range of a text.
    pub(super) fn new(text: &'a [u8], range: Range<usize>, encoding: Encoding) -> Self {
        let end = range.end.min(text.len());
        Self {
            text: text.get(..end).unwrap_or_default(),
            encoding,
            at: range.start,
            end,
            backslash: None,
        }
    }

    /// The next byte that may begin a reference or stand before one.
    fn candidate(&self) -> Option<usize> {
        let rest = self.text.get(self.at..)?;
        let found = match self.encoding {
            Encoding::Form => memchr3(b'{', b'\\', b'%', rest),
            _ => memchr2(b'{', b'\\', rest),
        };
        found.map(|at| self.at + at)
    }

    /// What the bytes from `at` on spell: up to four bytes, and how many spell them.
    fn unit(&self, at: usize) -> Option<([u8; 4], usize, usize)> {
        let rest = self.text.get(at..)?;
        let (&first, tail) = rest.split_first()?;
        let one = |byte, length| Some(([byte, 0, 0, 0], 1, length));
        match (self.encoding, first) {
            (Encoding::Json, b'\\') => json_escape(tail),
            (Encoding::Form, b'+') => one(b' ', 1),
            (Encoding::Form, b'%') => match percent(tail) {
                Some(byte) => one(byte, 3),
                None => one(b'%', 1),
            },
            _ => one(first, 1),
        }
    }

    /// The reference that begins here: where it ends, or `Err` if the text ends first.
    fn reference(&self, from: usize) -> Option<Result<(usize, Vec<u8>), ()>> {
        let mut at = from;
        let mut text = Vec::new();
        while at < self.end {
            let Some((bytes, count, length)) = self.unit(at) else {
                return Some(Err(()));
            };
            at += length;
            let bytes = bytes.get(..count).unwrap_or_default();
            if text.len() < START.len() {
                text.extend_from_slice(bytes);
                if !START.starts_with(&text) {
                    return None;
                }
                continue;
            }
            if text.len() <= LONGEST {
                text.extend_from_slice(bytes);
            }
            if bytes == b"}" {
                return Some(Ok((at, text)));
            }
        }
        (text.len() >= START.len()).then_some(Err(()))
    }
}

impl Iterator for Scan<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        while let Some(at) = self.candidate() {
            let Some((bytes, count, length)) = self.unit(at) else {
                // No escape of this encoding: what follows is not what it looks like.
                self.at = self.end;
                return None;
            };
            let before = self.backslash.take().filter(|b| b.end == at);
            self.at = at + length;
            match bytes.get(..count).unwrap_or_default() {
                b"\\" => self.backslash = Some(at..at + length),
                b"{" => match self.reference(at) {
                    None => {}
                    Some(Err(())) => self.at = self.end,
                    Some(Ok((end, text))) => {
                        self.at = end;
                        return Some(Found {
                            at: at..end,
                            backslash: before,
                            text,
                        });
                    }
                },
                _ => {}
            }
        }
        None
    }
}

/// What stands behind a backslash in JSON (RFC 8259, section 7).
fn json_escape(tail: &[u8]) -> Option<([u8; 4], usize, usize)> {
    let one = |byte| Some(([byte, 0, 0, 0], 1, 2));
    match tail.first()? {
        byte @ (b'"' | b'\\' | b'/') => one(*byte),
        b'b' => one(8),
        b'f' => one(12),
        b'n' => one(b'\n'),
        b'r' => one(b'\r'),
        b't' => one(b'\t'),
        b'u' => {
            let high = hex4(tail.get(1..5)?)?;
            let (code, length) = match high {
                0xd800..0xdc00 => {
                    let low = tail.get(5..11)?.strip_prefix(b"\\u").and_then(hex4)?;
                    let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                    (0x10000 + ((high - 0xd800) << 10) + low, 12)
                }
                other => (other, 6),
            };
            let mut bytes = [0; 4];
            let count = char::from_u32(code)?.encode_utf8(&mut bytes).len();
            Some((bytes, count, length))
        }
        _ => None,
    }
}

fn hex4(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, digit| {
        Some(sum << 4 | char::from(*digit).to_digit(16)?)
    })
}

fn percent(tail: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*tail.get(at)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}
