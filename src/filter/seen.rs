//! The headers of clients whose references were worked out before, so that a client that sends the same
//! text again is not read again, and gets the value that was put together for the last one. It knows
//! neither values nor time: what is kept depends on the header and the configuration alone.

use alloc::vec::Vec;

use super::prepared::PreparedHeader;
use crate::limits::Limits;
use crate::message::find::Count;
use crate::message::{Denial, Place};
use crate::time::Timestamp;

/// What was found in headers that stand alone in their request, in the order of their checksums and then
/// of their texts: a search compares numbers, and whoever makes texts of one checksum gains little.
pub(crate) struct Seen {
    found: Vec<Found>,
    /// Gateways have few clients' texts at a time; new ones for ever only empty this (`limits.memo_entries`).
    most: usize,
    /// Longer ones are worked out each time (`limits.memo_bytes`).
    longest: usize,
}

struct Found {
    checksum: u64,
    value: Vec<u8>,
    name: Vec<u8>,
    /// Texts in it that begin like a reference, as [`Count::parsed`] counts them.
    candidates: usize,
    /// `None`: nothing that may be resolved.
    header: Option<PreparedHeader>,
}

/// What is known of a header.
pub(super) enum Known<'a> {
    /// It was not seen, or not lately.
    No,
    /// Nothing in it may be resolved, of so many texts that begin like a reference.
    Nothing(usize),
    /// There is something in it.
    Header {
        header: &'a mut PreparedHeader,
        /// Its number, until something new is seen.
        at: usize,
        candidates: usize,
    },
}

impl Seen {
    pub(super) const fn new(limits: &Limits) -> Self {
        Self {
            found: Vec::new(),
            most: limits.memo_entries,
            longest: limits.memo_bytes,
        }
    }

    /// What was found earlier in this header. The name counts as it was sent, with its case: the place
    /// writes it again.
    #[inline]
    pub(super) fn known(&mut self, name: &[u8], value: &[u8]) -> Known<'_> {
        let Ok(at) = self.place_of(name, value) else {
            return Known::No;
        };
        let Some(found) = self.found.get_mut(at) else {
            return Known::No;
        };
        let candidates = found.candidates;
        match &mut found.header {
            None => Known::Nothing(candidates),
            Some(header) => Known::Header {
                header,
                at,
                candidates,
            },
        }
    }

    /// The header of this number.
    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&PreparedHeader> {
        self.found.get(at).and_then(|found| found.header.as_ref())
    }

    #[inline]
    fn place_of(&self, name: &[u8], value: &[u8]) -> Result<usize, usize> {
        let sum = checksum(value);
        self.found.binary_search_by(|found| {
            let order = found.checksum.cmp(&sum);
            if order.is_eq() && same(&found.value, value) && same(&found.name, name) {
                return order;
            }
            let order = order.then_with(|| found.value.as_slice().cmp(value));
            order.then_with(|| found.name.as_slice().cmp(name))
        })
    }

    /// What `work_out` finds in this header, or found in it earlier.
    pub(crate) fn header(
        &mut self,
        name: &[u8],
        value: &[u8],
        count: &mut Count,
        work_out: impl FnOnce(&mut Count) -> Result<Option<Place>, Denial>,
    ) -> Result<Option<Place>, Denial> {
        match self.known(name, value) {
            Known::Nothing(candidates) => {
                count.parsed += candidates;
                return Ok(None);
            }
            Known::Header {
                header, candidates, ..
            } => {
                count.parsed += candidates;
                count.changed += header.place.references();
                return Ok(Some(header.place.clone()));
            }
            Known::No => {}
        }
        let before = count.parsed;
        let place = work_out(count)?;
        if name.len() + value.len() <= self.longest {
            if self.found.len() >= self.most {
                self.found.clear();
            }
            let found = Found {
                checksum: checksum(value),
                value: value.to_vec(),
                name: name.to_vec(),
                candidates: count.parsed - before,
                header: place.clone().map(PreparedHeader::new),
            };
            if let Err(at) = self.place_of(name, value) {
                self.found.insert(at, found);
            }
        }
        Ok(place)
    }

    /// Forgets the values that do not hold any more.
    pub(super) fn let_go(&mut self, now: Timestamp) {
        let headers = self
            .found
            .iter_mut()
            .filter_map(|found| found.header.as_mut());
        headers.for_each(|header| header.let_go(now));
    }
}

/// A number for a text, made of eight bytes at a time.
#[inline]
fn checksum(text: &[u8]) -> u64 {
    let (words, rest) = text.as_chunks::<8>();
    let mix = |sum: u64, word: u64| {
        (sum ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    };
    let sum = words
        .iter()
        .fold(0, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    let last = rest.iter().fold(1, |last, &b| last << 8 | u64::from(b));
    mix(sum, last)
}

/// Equality, which the Wasm toolchain's library finds out byte by byte.
#[inline]
fn same(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (others, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    words.len() == others.len()
        && rest.len() == other_rest.len()
        && words.iter().zip(others).all(|(a, b)| a == b)
        && rest.iter().zip(other_rest).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(memo_entries: usize) -> Seen {
        Seen::new(&Limits {
            memo_entries,
            memo_bytes: 30,
            ..Limits::default()
        })
    }

    /// Whether this header has to be worked out.
    fn is_new(seen: &mut Seen, name: &[u8], value: &[u8]) -> bool {
        let mut asked = false;
        let found = seen.header(name, value, &mut Count::default(), |_| {
            asked = true;
            Ok(None)
        });
        assert!(matches!(found, Ok(None)));
        asked
    }

    #[test]
    fn a_text_is_worked_out_once_for_each_name() {
        let mut seen = seen(9);
        assert!(is_new(&mut seen, b"x-key", b"{vault://azure/db}"));
        assert!(!is_new(&mut seen, b"x-key", b"{vault://azure/db}"));
        assert!(is_new(&mut seen, b"x-other", b"{vault://azure/db}"));
        assert!(!is_new(&mut seen, b"x-key", b"{vault://azure/db}"));
        assert!(is_new(&mut seen, b"x-other", b"{vault://azure/db2}"));
        assert!(is_new(&mut seen, b"x-other", b"{vault://azure/aa}"));
        assert!(!is_new(&mut seen, b"x-other", b"{vault://azure/db}"));
    }

    #[test]
    fn it_stays_small_whatever_is_sent() {
        let mut seen = seen(3);
        for n in 0..30 {
            is_new(
                &mut seen,
                b"x-key",
                format!("{{vault://azure/{n}}}").as_bytes(),
            );
            assert!(seen.found.len() <= 3);
        }
        let long = vec![b'a'; 26];
        assert!(is_new(&mut seen, b"x-key", &long));
        assert!(is_new(&mut seen, b"x-key", &long));
    }

    proptest! {
        #[test]
        fn texts_are_the_same_if_they_are_equal(one in "[ab]{0,20}", other in "[ab]{0,20}") {
            prop_assert!(same(one.as_bytes(), one.clone().as_bytes()));
            prop_assert_eq!(same(one.as_bytes(), other.as_bytes()), one == other);
            prop_assert_eq!(
                checksum(one.as_bytes()) == checksum(other.as_bytes()),
                one == other
            );
        }
    }
}
