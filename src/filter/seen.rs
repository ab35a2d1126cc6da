//! The headers of clients whose references were worked out before, so that a client that sends the same
//! text again is not read again, and gets the value that was put together for the last one. It knows
//! neither values nor time: what is kept depends on the header and the configuration alone.

use std::collections::HashMap;

use super::place::Place;
use super::prepared::PreparedHeader;
use crate::time::Timestamp;

/// Gateways have few clients' texts at a time; whoever sends new ones for ever only empties this.
const MOST: usize = 256;
/// Longer texts are worked out each time: with them, [`MOST`] would not bound the memory.
const LONGEST: usize = 512;

/// What was found in headers that stand alone in their request, by their text.
#[derive(Default)]
pub(super) struct Seen(HashMap<Vec<u8>, Found>);

struct Found {
    name: Vec<u8>,
    /// `None`: nothing that may be resolved.
    header: Option<PreparedHeader>,
}

/// What is known of a header.
pub(super) enum Known<'a> {
    /// It was not seen, or not lately.
    No,
    /// Nothing in it may be resolved.
    Nothing,
    /// There is something in it.
    Header(&'a mut PreparedHeader),
}

impl Seen {
    /// What was found earlier in this header. The name counts as it was sent, with its case: the place
    /// writes it again.
    pub(super) fn known(&mut self, name: &[u8], value: &[u8]) -> Known<'_> {
        let found = self.0.get_mut(value).filter(|found| found.name == name);
        match found.map(|found| found.header.as_mut()) {
            None => Known::No,
            Some(None) => Known::Nothing,
            Some(Some(header)) => Known::Header(header),
        }
    }

    /// What `work_out` finds in this header, or found in it earlier.
    pub(super) fn header(
        &mut self,
        name: &[u8],
        value: &[u8],
        work_out: impl FnOnce() -> Option<Place>,
    ) -> Option<Place> {
        match self.known(name, value) {
            Known::Nothing => return None,
            Known::Header(header) => return Some(header.place.clone()),
            Known::No => {}
        }
        let place = work_out();
        if name.len() + value.len() <= LONGEST {
            if self.0.len() >= MOST {
                self.0.clear();
            }
            let found = Found {
                name: name.to_vec(),
                header: place.clone().map(PreparedHeader::new),
            };
            self.0.insert(value.to_vec(), found);
        }
        place
    }

    /// Forgets the values that do not hold any more.
    pub(super) fn let_go(&mut self, now: Timestamp) {
        let headers = self
            .0
            .values_mut()
            .filter_map(|found| found.header.as_mut());
        headers.for_each(|header| header.let_go(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether this header has to be worked out.
    fn is_new(seen: &mut Seen, name: &[u8], value: &[u8]) -> bool {
        let mut asked = false;
        seen.header(name, value, || {
            asked = true;
            None
        });
        asked
    }

    #[test]
    fn a_text_is_worked_out_once_for_each_name() {
        let mut seen = Seen::default();
        assert!(is_new(&mut seen, b"x-key", b"{vault://azure/db}"));
        assert!(!is_new(&mut seen, b"x-key", b"{vault://azure/db}"));
        assert!(is_new(&mut seen, b"x-other", b"{vault://azure/db}"));
        assert!(is_new(&mut seen, b"x-other", b"{vault://azure/db2}"));
    }

    #[test]
    fn it_stays_small_whatever_is_sent() {
        let mut seen = Seen::default();
        for n in 0..10 * MOST {
            is_new(
                &mut seen,
                b"x-key",
                format!("{{vault://azure/{n}}}").as_bytes(),
            );
            assert!(seen.0.len() <= MOST);
        }
        let long = vec![b'a'; LONGEST];
        assert!(is_new(&mut seen, b"x-key", &long));
        assert!(is_new(&mut seen, b"x-key", &long));
    }
}
