//! The strings of a JSON text in which a reference may begin. It does not care whether the rest is valid, and
//! how deep it is: what is written back is in the same quotes, whatever they mean to the reader.

use std::ops::Range;

use memchr::{memchr, memchr2};

use super::scan::{NEAR, first_start};
use crate::placement::Encoding;

/// The string values in which a reference may begin, with their quotes. Names of members are left out.
pub(super) fn with_starts(text: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let start_from = |at| first_start(text, at, Encoding::Json).map(|(start, _)| start);
    let mut at = 0;
    // Most texts have none, so it is looked for first, and strings only if there is one.
    let mut reference = start_from(0);
    std::iter::from_fn(move || {
        loop {
            let mut next = reference?;
            let open = next_quote(text, at)?;
            if next < open {
                reference = start_from(open);
                next = reference?;
            }
            let end = string_end(text, open)?;
            at = end;
            if next < end {
                reference = start_from(end);
                if !is_name(text, end) {
                    return Some(open..end);
                }
            }
        }
    })
}

/// Near quotes are found by a plain loop, far ones by a vector search, which costs much to set up.
fn next_quote(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while at < from + NEAR {
        if *text.get(at)? == b'"' {
            return Some(at);
        }
        at += 1;
    }
    memchr(b'"', text.get(at..)?).map(|far| at + far)
}

/// Behind the closing quote of the string that begins at `open`.
fn string_end(text: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    let mut quiet = 0;
    loop {
        match *text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => {
                at += 2;
                quiet = 0;
            }
            _ => {
                at += 1;
                quiet += 1;
                if quiet == NEAR {
                    quiet = 0;
                    at += memchr2(b'"', b'\\', text.get(at..)?)?;
                }
            }
        }
    }
}

fn is_name(text: &[u8], end: usize) -> bool {
    let rest = text.get(end..).unwrap_or_default();
    rest.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_values_in_which_a_reference_may_begin_are_found_at_any_depth() {
        let text = br#"{"{vault://k}":"{vault://a}","b":[["\u007bvault:\/\/","{plain}",{"c" : "{vault://d\"e}"}]],{vault://:1}"#;
        let values: Vec<&[u8]> = with_starts(text).map(|at| &text[at]).collect();
        let expected: [&[u8]; 3] = [
            br#""{vault://a}""#,
            br#""\u007bvault:\/\/""#,
            br#""{vault://d\"e}""#,
        ];
        assert_eq!(values, expected);
    }
}
