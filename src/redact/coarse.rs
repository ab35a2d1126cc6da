//! The coarse search: where readings are too many to follow exactly, it goes on with all of them at once. It
//! knows of each only its last byte, and goes on while the next one follows it anywhere in a value. So it
//! finds the rest of every occurrence, and more; what a byte of the text costs has a bound.

use super::escapes::Escapes;

/// Which bytes follow which in values.
pub(super) struct Pairs(Box<[u64; 1024]>);

impl Pairs {
    pub(super) fn new() -> Self {
        Self(Box::new([0; 1024]))
    }

    /// Those of these values.
    pub(super) fn of<'v>(values: impl Iterator<Item = &'v [u8]>) -> Self {
        let mut pairs = Self::new();
        for value in values {
            for (first, second) in value.iter().zip(value.iter().skip(1)) {
                pairs.add(*first, *second);
            }
        }
        pairs
    }

    const fn index(first: u8, second: u8) -> (usize, u32) {
        (
            (first as usize) << 2 | (second as usize) >> 6,
            (second & 63) as u32,
        )
    }

    pub(super) fn add(&mut self, first: u8, second: u8) {
        let (word, bit) = Self::index(first, second);
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << bit;
        }
    }

    fn contain(&self, first: u8, second: u8) -> bool {
        let (word, bit) = Self::index(first, second);
        self.0.get(word).is_some_and(|word| word >> bit & 1 == 1)
    }
}

/// The readings that are followed so.
#[derive(Clone, Default)]
pub(super) struct Coarse {
    /// Where the first of them began.
    from: u64,
    /// Where they stand, and their last bytes there.
    last: Vec<(u64, u8)>,
}

impl Coarse {
    pub(super) fn is_idle(&self) -> bool {
        self.last.is_empty()
    }

    /// Takes a reading that began at `from` and that has read this byte last when it is at `place`.
    pub(super) fn add(&mut self, from: u64, place: u64, last: u8) {
        self.from = if self.is_idle() {
            from
        } else {
            self.from.min(from)
        };
        self.stand(place, last);
    }

    fn stand(&mut self, place: u64, last: u8) {
        if !self.last.contains(&(place, last)) {
            self.last.push((place, last));
        }
    }

    /// Takes the byte at a place, and the escapes that begin there.
    pub(super) fn advance(&mut self, pairs: &Pairs, place: u64, byte: u8, found: &Escapes) {
        while let Some(at) = self.last.iter().position(|(at, _)| *at == place) {
            let (_, last) = self.last.swap_remove(at);
            self.follow(pairs, last, &[byte], place + 1);
            for escape in found.iter() {
                let after = place + u64::from(escape.len);
                self.follow(pairs, last, escape.bytes(), after);
            }
        }
    }

    fn follow(&mut self, pairs: &Pairs, mut last: u8, bytes: &[u8], after: u64) {
        for &byte in bytes {
            if !pairs.contain(last, byte) {
                return;
            }
            last = byte;
        }
        self.stand(after, last);
    }

    /// What is to be masked so far.
    pub(super) fn covered(&self) -> Option<std::ops::Range<u64>> {
        let after = self.last.iter().map(|(at, _)| *at).max()?;
        Some(self.from..after)
    }
}
