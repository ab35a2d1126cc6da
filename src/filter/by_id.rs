//! What belongs to the host's numbers of contexts and calls. It knows nothing of either.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

/// Values by number, in the order of the numbers. The host counts up, so that a new one goes to the end
/// nearly always, and the oldest ones leave first. A hash table for each of the few kinds of values would be
/// 15 KB more.
pub(super) struct ById<T>(VecDeque<(u32, Box<T>)>);

impl<T> Default for ById<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> ById<T> {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    fn place_of(&self, id: u32) -> Result<usize, usize> {
        // Nearly always, and on every request.
        if self.0.is_empty() {
            return Err(0);
        }
        self.search(id)
    }

    #[inline(never)]
    fn search(&self, id: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id, |(id, _)| *id)
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&T> {
        let at = self.place_of(id).ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let at = self.place_of(id).ok()?;
        self.0.get_mut(at).map(|(_, value)| &mut **value)
    }

    /// A value that was there before is replaced.
    pub(super) fn insert(&mut self, id: u32, value: T) {
        let value = Box::new(value);
        match self.place_of(id) {
            Ok(at) => {
                if let Some(place) = self.0.get_mut(at) {
                    place.1 = value;
                }
            }
            Err(at) => self.0.insert(at, (id, value)),
        }
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<T> {
        let at = self.place_of(id).ok()?;
        self.0.remove(at).map(|(_, value)| *value)
    }

    /// Changes the value of this number; first a new one is made where there is none.
    pub(super) fn change(&mut self, id: u32, change: impl FnOnce(&mut T))
    where
        T: Default,
    {
        if self.place_of(id).is_err() {
            self.insert(id, T::default());
        }
        if let Some(value) = self.get_mut(id) {
            change(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_a_map(steps in proptest::collection::vec((0u32..8, 0u8..4, any::<u16>()), 0..60)) {
            let (mut ours, mut theirs) = (ById::default(), BTreeMap::new());
            for (id, step, value) in steps {
                match step {
                    0 => prop_assert_eq!(ours.remove(id), theirs.remove(&id)),
                    1 => {
                        ours.change(id, |number: &mut u16| *number /= 2);
                        *theirs.entry(id).or_default() /= 2;
                    }
                    _ => {
                        ours.insert(id, value);
                        theirs.insert(id, value);
                    }
                }
                prop_assert_eq!(ours.get(id), theirs.get(&id));
                prop_assert_eq!(ours.get_mut(id), theirs.get_mut(&id));
                prop_assert_eq!(ours.is_empty(), theirs.is_empty());
            }
        }
    }
}
