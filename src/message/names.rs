//! Which names of a header map are there more than once, and which were looked at, for a search that meets
//! them one by one. Thousands of names cost a pass over the map, not one for each. It knows no values.

use std::collections::HashMap;

use crate::filter::header_map::HeaderMap;

/// So many names are compared one by one: the table costs as much.
const FEW: usize = 4;

/// What is to be done with a header of some name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// There is no other of this name.
    Alone,
    /// There are others of this name, and this is the first one that was met.
    Repeated,
    /// One of this name was met before.
    Done,
}

/// The names of one map.
pub(super) struct Names<'a> {
    map: HeaderMap<'a>,
    met: Vec<&'a [u8]>,
    /// By name in lower case: how many there are; 0 once it was met.
    table: Option<HashMap<Vec<u8>, usize>>,
}

impl<'a> Names<'a> {
    /// None was met yet.
    pub(super) const fn of(map: HeaderMap<'a>) -> Self {
        Self {
            map,
            met: Vec::new(),
            table: None,
        }
    }

    /// A header of this name is met.
    pub(super) fn next(&mut self, name: &'a [u8]) -> Name {
        if let Some(table) = &mut self.table {
            return match table.insert(name.to_ascii_lowercase(), 0) {
                Some(0) => Name::Done,
                Some(2..) => Name::Repeated,
                None | Some(1) => Name::Alone,
            };
        }
        if self.met.iter().any(|met| met.eq_ignore_ascii_case(name)) {
            return Name::Done;
        }
        self.met.push(name);
        if self.met.len() == FEW {
            self.table = Some(self.count());
        }
        if self.map.repeats(name) {
            Name::Repeated
        } else {
            Name::Alone
        }
    }

    fn count(&self) -> HashMap<Vec<u8>, usize> {
        let mut table = HashMap::new();
        for (name, _) in self.map.iter() {
            *table.entry(name.to_ascii_lowercase()).or_insert(0) += 1;
        }
        for name in &self.met {
            table.insert(name.to_ascii_lowercase(), 0);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::header_map::serialize;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_are_counted_without_case(names in proptest::collection::vec("[a-cA-C]{1,2}", 0..30)) {
            let pairs: Vec<(&[u8], &[u8])> = names.iter().map(|n| (n.as_bytes(), &b""[..])).collect();
            let bytes = serialize(&pairs);
            let map = HeaderMap::new(&bytes);
            let mut found = Names::of(map);
            for (at, name) in names.iter().enumerate() {
                let same = |other: &&String| other.eq_ignore_ascii_case(name);
                let expected = match (names.iter().take(at).filter(same).count(), names.iter().filter(same).count()) {
                    (0, 1) => Name::Alone,
                    (0, _) => Name::Repeated,
                    _ => Name::Done,
                };
                prop_assert_eq!(found.next(name.as_bytes()), expected);
            }
        }
    }
}
