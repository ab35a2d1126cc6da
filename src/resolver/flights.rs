//! The fetches that are under way, in order: each look at all of them finds them in the same one. There
//! are few at a time, and a sorted list has a tenth of the code of a map.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Flight, Lane, Subject};

/// Whose fetch, and of what.
pub(super) type Key = (Lane, Subject);

/// Boxed: what is moved when one comes or goes is small.
#[derive(Default)]
pub(super) struct Flights(Vec<(Key, Box<Flight>)>);

impl Flights {
    fn place(&self, key: &Key) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(key))
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Flight> {
        let at = self.place(key).ok()?;
        self.0.get(at).map(|(_, flight)| &**flight)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Flight> {
        let at = self.place(key).ok()?;
        self.0.get_mut(at).map(|(_, flight)| &mut **flight)
    }

    pub(super) fn contains_key(&self, key: &Key) -> bool {
        self.place(key).is_ok()
    }

    /// In place of one that was there.
    pub(super) fn insert(&mut self, key: Key, flight: Flight) {
        let flight = Box::new(flight);
        match self.place(&key) {
            Ok(at) => {
                if let Some((_, known)) = self.0.get_mut(at) {
                    *known = flight;
                }
            }
            Err(at) => self.0.insert(at, (key, flight)),
        }
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Box<Flight>> {
        let at = self.place(key).ok()?;
        Some(self.0.remove(at).1)
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Key) -> bool) {
        self.0.retain(|(key, _)| keep(key));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Flight)> {
        self.0.iter().map(|(key, flight)| (key, &**flight))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Flight> {
        self.0.iter().map(|(_, flight)| &**flight)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Flight> {
        self.0.iter_mut().map(|(_, flight)| &mut **flight)
    }
}
