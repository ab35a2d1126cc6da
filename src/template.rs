//! References inside a longer text. It finds them and keeps everything else byte for byte; what they
//! stand for, and whether they may be resolved, is decided elsewhere.
//!
//! A reference begins at `{vault://` and ends at the next `}`. One that does not end is text. To write
//! `{vault://` literally where references are resolved, put a backslash before it, `\{vault://…}`: the
//! backslash is taken away and what follows up to the next `}` stays as it is.

use alloc::vec::Vec;

use memchr::{memchr, memchr_iter};

use crate::reference::{Part as ReferencePart, Reference, ReferenceError};

const START: &[u8] = b"{vault://";

/// A text with its references.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// The pieces in their order.
    pub parts: Vec<Part>,
    /// Whether a backslash was taken away, so that the text is not what it was.
    pub unescaped: bool,
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Bytes that stay.
    Literal(Vec<u8>),
    /// What looks like a reference.
    Reference {
        /// As it stands in the text, with its braces.
        text: Vec<u8>,
        /// What it means, or why it means nothing.
        parsed: Result<Reference, ReferenceError>,
    },
}

impl Template {
    /// Whether a text can hold a reference: a search without any allocation, for texts of any length.
    #[inline]
    #[must_use]
    pub fn may_hold_reference(text: &[u8]) -> bool {
        Self::first_start(text).is_some()
    }

    /// Where the first reference may begin. Braces are rare, and looking at each costs less than a search
    /// for the whole start, which has to be prepared each time: a tenth of the instructions in usual headers.
    #[inline]
    #[must_use]
    pub fn first_start(text: &[u8]) -> Option<usize> {
        let holds = |at: usize| text.get(at..).is_some_and(|rest| rest.starts_with(START));
        memchr_iter(b'{', text).find(|&at| holds(at))
    }

    /// Finds the references in a text.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut unescaped = false;
        let mut rest = text;
        while let Some((before, reference, after)) = next_reference(rest) {
            match before.split_last() {
                Some((b'\\', before)) => {
                    unescaped = true;
                    literal.extend_from_slice(before);
                    literal.extend_from_slice(reference);
                }
                _ => {
                    literal.extend_from_slice(before);
                    if !literal.is_empty() {
                        parts.push(Part::Literal(core::mem::take(&mut literal)));
                    }
                    parts.push(Part::Reference {
                        text: reference.to_vec(),
                        parsed: read(reference),
                    });
                }
            }
            rest = after;
        }
        literal.extend_from_slice(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Self { parts, unescaped }
    }

    /// The text with every reference as it was written.
    pub fn render_literally(&self, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(bytes) | Part::Reference { text: bytes, .. } => {
                    out.extend_from_slice(bytes)
                }
            }
        }
    }
}

/// What stands before the next reference, the reference, and the rest.
fn next_reference(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (before, from) = text.split_at_checked(Template::first_start(text)?)?;
    let end = memchr(b'}', from)?.checked_add(1)?;
    let (reference, after) = from.split_at_checked(end)?;
    Some((before, reference, after))
}

fn read(reference: &[u8]) -> Result<Reference, ReferenceError> {
    match core::str::from_utf8(reference) {
        Ok(text) => Reference::parse(text),
        Err(_) => Err(ReferenceError::not_text(ReferencePart::Whole)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(text: &str) -> Vec<String> {
        let parts = Template::parse(text.as_bytes()).parts;
        let shapes = parts.into_iter().map(|part| match part {
            Part::Literal(bytes) => String::from_utf8(bytes).unwrap(),
            Part::Reference { text, parsed } => {
                format!(
                    "{}{}",
                    if parsed.is_ok() { "=" } else { "!" },
                    String::from_utf8(text).unwrap()
                )
            }
        });
        shapes.collect()
    }

    #[test]
    fn references_are_found_wherever_they_stand() {
        assert_eq!(shape("Bearer {vault://a/b}"), ["Bearer ", "={vault://a/b}"]);
        assert_eq!(
            shape("{vault://a/b}{vault://a/c/d}x"),
            ["={vault://a/b}", "={vault://a/c/d}", "x"]
        );
        assert_eq!(shape("{vault://a/b}}"), ["={vault://a/b}", "}"]);
        assert_eq!(shape("{vault://}"), ["!{vault://}"]);
        assert_eq!(shape("{{vault://a/b}}"), ["{", "={vault://a/b}", "}"]);
        assert_eq!(
            shape("{VAULT://a/b} {vault://a/b"),
            ["{VAULT://a/b} {vault://a/b"]
        );
        assert_eq!(
            shape("{vault://a/{vault://a/b}"),
            ["!{vault://a/{vault://a/b}"]
        );
    }

    #[test]
    fn a_backslash_makes_it_text() {
        assert_eq!(
            shape(r"say \{vault://a/b}, {vault://a/b}"),
            ["say {vault://a/b}, ", "={vault://a/b}"]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_as_they_were(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            Template::parse(&text).render_literally(&mut out);
            prop_assert_eq!(out, text);
        }

        #[test]
        fn texts_with_braces_come_back_as_they_were(text in r"([a-z{}/:#?]|\{vault://|\{vault://a/b\}){0,30}") {
            let mut out = Vec::new();
            Template::parse(text.as_bytes()).render_literally(&mut out);
            prop_assert_eq!(out, text.as_bytes());
        }
    }
}
