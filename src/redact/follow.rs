//! Whether an escape of which only the beginning came may go on with a value: what a stream has to wait for.

use super::automaton::{Automaton, ROOT, State};
use super::escapes;

/// Whether an escape of which only the beginning is there may be the next character after this state.
pub(super) fn may_follow(
    values: &Automaton,
    state: State,
    escape: &[u8],
    refused: &mut Vec<Vec<u8>>,
) -> bool {
    for (byte, child) in values.children(state) {
        let continues = byte & 0xc0 == 0x80;
        let length = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        let mut spelled = vec![vec![byte]];
        if length > 1 {
            let before = spelled.len();
            characters(values, child, vec![byte], length, &mut spelled);
            // A value that is not UTF-8: an escape that stands for more than its end is found too.
            if spelled.len() == before && escape.first() != Some(&b'%') {
                return true;
            }
        }
        if continues && state == ROOT && escape.first() != Some(&b'%') {
            return true;
        }
        for bytes in spelled {
            if refused.contains(&bytes) {
                continue;
            }
            if escapes::may_become(escape, &bytes) {
                return true;
            }
            refused.push(bytes);
        }
    }
    false
}

/// Every character of `length` bytes that values have from here on.
fn characters(
    values: &Automaton,
    state: State,
    bytes: Vec<u8>,
    length: usize,
    all: &mut Vec<Vec<u8>>,
) {
    if bytes.len() == length {
        if std::str::from_utf8(&bytes).is_ok() {
            all.push(bytes);
        }
        return;
    }
    for (byte, child) in values.children(state) {
        let mut longer = bytes.clone();
        longer.push(byte);
        characters(values, child, longer, length, all);
    }
}
