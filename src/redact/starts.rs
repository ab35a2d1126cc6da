//! Where in a text an occurrence may begin, at the speed of `memchr`: nearly all text is skipped by it.

use super::automaton::{Automaton, ROOT};

/// Where an occurrence may begin: the first bytes of values, and those of escapes.
pub(super) struct Starts<'t> {
    text: &'t [u8],
    bytes: Vec<u8>,
    table: [bool; 256],
    /// The next places of a value's first byte and of an escape, from the last place that was asked for.
    next: [usize; 2],
}

impl<'t> Starts<'t> {
    pub(super) fn new(values: &Automaton, text: &'t [u8]) -> Self {
        let mut bytes: Vec<u8> = values.children(ROOT).map(|(byte, _)| byte).collect();
        if bytes.contains(&b' ') && !bytes.contains(&b'+') {
            bytes.push(b'+');
        }
        let mut table = [false; 256];
        for &byte in &bytes {
            if let Some(entry) = table.get_mut(usize::from(byte)) {
                *entry = true;
            }
        }
        Self {
            text,
            bytes,
            table,
            next: [0; 2],
        }
    }

    /// The first place from `from` on; the text's end if there is none.
    pub(super) fn next(&mut self, from: usize) -> usize {
        let rest = self.text.get(from..).unwrap_or_default();
        let end = self.text.len();
        let [byte, escape] = &mut self.next;
        if *byte <= from {
            let found = match *self.bytes.as_slice() {
                [a] => memchr::memchr(a, rest),
                [a, b] => memchr::memchr2(a, b, rest),
                [a, b, c] => memchr::memchr3(a, b, c, rest),
                _ => rest
                    .iter()
                    .position(|b| self.table.get(usize::from(*b)) == Some(&true)),
            };
            *byte = found.map_or(end, |n| from + n);
        }
        if *escape <= from {
            let found = memchr::memchr3(b'\\', b'%', b'&', rest);
            *escape = found.map_or(end, |n| from + n);
        }
        (*byte).min(*escape)
    }
}
