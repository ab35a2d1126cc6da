//! The headers of clients whose references were worked out before, so that a client that sends the same
//! text again is not read again. It knows what a place is and neither values nor time: what is kept
//! depends on the header and the configuration alone.

use std::collections::HashMap;

use super::place::Place;

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
    place: Option<Place>,
}

impl Seen {
    /// What `work_out` finds in this header, or found in it earlier. The name counts as it was sent, with
    /// its case: the place writes it again.
    pub(super) fn header(
        &mut self,
        name: &[u8],
        value: &[u8],
        work_out: impl FnOnce() -> Option<Place>,
    ) -> Option<Place> {
        if let Some(found) = self.0.get(value).filter(|found| found.name == name) {
            return found.place.clone();
        }
        let place = work_out();
        if name.len() + value.len() <= LONGEST {
            if self.0.len() >= MOST {
                self.0.clear();
            }
            let found = Found {
                name: name.to_vec(),
                place: place.clone(),
            };
            self.0.insert(value.to_vec(), found);
        }
        place
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
