//! One worker's cache of secrets: entries found by key, named by ids that go stale with their entry, and
//! evicted in the order of their last use. It makes no calls and reads no clock.
//!
//! An entry is in one of three states, of which only the first two can be evicted:
//!
//! * it holds a value: at most `limits.cached_secrets` of these;
//! * it holds only a failure (negative caching): at most `limits.cached_misses` of these, in an order of
//!   their own, so that made-up names cannot evict values;
//! * it is held: pinned by the operator's configuration, or with a fetch under way.

use std::cell::RefCell;
use std::collections::HashMap;

use hashlink::LinkedHashSet;

use super::{Life, Record, SecretKey, View};
use crate::config::CacheRules;
use crate::failure::Reason;
use crate::limits::Limits;
use crate::metrics::Source;
use crate::secret::SecretValue;
use crate::time::Timestamp;

/// The id of an entry. After an eviction its place is used again with the next generation, so that an
/// id kept across a callout never finds another secret's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotId {
    index: u32,
    generation: u32,
}

/// What one worker holds of a secret.
#[derive(Debug)]
pub struct Entry {
    /// Which secret.
    pub key: SecretKey,
    /// What is known of it.
    pub record: Record,
    /// The shortest times that a reference of the operator, or else the vault, has for it.
    pub rules: CacheRules,
    /// A request used it since it was fetched.
    pub used: bool,
    /// When a value in use is fetched anew; before its ttl ends, and not all at once.
    pub renew_at: Timestamp,
    /// Where the value came from, and when.
    pub came: Option<(Source, Timestamp)>,
    /// Since when a call of this worker for it is under way.
    pub fetching_since: Option<Timestamp>,
    /// Its fetch counts against the budget for traffic: as one of a name that was found before (`true`).
    pub budgeted: Option<bool>,
    pinned: bool,
    flights: u32,
    /// Forms that references asked for, made once for each value. Behind a cell: a lookup changes nothing
    /// that can be seen.
    views: RefCell<Vec<(View, Result<SecretValue, Reason>)>>,
    most_views: usize,
}

impl Entry {
    /// A form of the value; made once and kept until the value changes.
    ///
    /// # Errors
    /// Why the value has no such form.
    pub fn view(
        &self,
        view: &View,
        make: impl FnOnce(&[u8], &View) -> Result<SecretValue, Reason>,
    ) -> Result<SecretValue, Reason> {
        let found = self.record.found.as_ref().ok_or(Reason::Unavailable)?;
        if *view == View::default() {
            return Ok(found.secret.value.clone());
        }
        let mut views = self.views.borrow_mut();
        if let Some((_, made)) = views.iter().find(|(key, _)| key == view) {
            return made.clone();
        }
        let made = make(found.secret.value.expose(), view);
        // The first ones stay: if each new one replaced the oldest, none would be left at its next use.
        if views.len() < self.most_views {
            views.push((view.clone(), made.clone()));
        }
        made
    }

    /// Where the value came from, for a message that waited since then (`None`: did not wait).
    #[must_use]
    pub fn source(&self, life: Life, since: Option<Timestamp>) -> Source {
        let came = self
            .came
            .filter(|(_, at)| since.is_some_and(|since| *at >= since));
        match (came, life) {
            (Some((source, _)), _) => source,
            (None, Life::Fresh) => Source::Local,
            (None, _) => Source::Stale,
        }
    }

    /// Keeps to the shorter of its times and these: one fetch serves every reference to the secret.
    pub fn shorten(&mut self, rules: &CacheRules) {
        self.rules.ttl = self.rules.ttl.min(rules.ttl);
        self.rules.neg_ttl = self.rules.neg_ttl.min(rules.neg_ttl);
    }

    /// To be called when the value changed.
    pub fn renewed(&mut self, renew_at: Timestamp) {
        self.views.get_mut().clear();
        self.used = false;
        self.renew_at = renew_at;
    }

    /// The operator's configuration needs it: fetched ahead, always renewed, never evicted.
    #[must_use]
    pub const fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// Whether a fetch for it is under way, in any lane.
    #[must_use]
    pub const fn has_flight(&self) -> bool {
        self.flights > 0
    }
}

struct Place {
    generation: u32,
    entry: Option<Box<Entry>>,
}

/// One worker's secrets.
pub struct Entries {
    places: Vec<Place>,
    free: Vec<u32>,
    index: HashMap<SecretKey, u32>,
    /// Entries with a value that may be evicted, the least recently used one first.
    values: LinkedHashSet<u32>,
    /// The same for entries that hold only a failure.
    misses: LinkedHashSet<u32>,
    /// Entries with a fetch under way that are not pinned.
    held: usize,
    limits: Limits,
}

impl Entries {
    /// None yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            index: HashMap::new(),
            values: LinkedHashSet::new(),
            misses: LinkedHashSet::new(),
            held: 0,
            limits: *limits,
        }
    }

    /// The id of this secret's entry.
    #[must_use]
    pub fn find(&self, key: &SecretKey) -> Option<SlotId> {
        let index = *self.index.get(key)?;
        let generation = self.place(index)?.generation;
        Some(SlotId { index, generation })
    }

    fn place(&self, index: u32) -> Option<&Place> {
        self.places.get(usize::try_from(index).ok()?)
    }

    fn place_mut(&mut self, index: u32) -> Option<&mut Place> {
        self.places.get_mut(usize::try_from(index).ok()?)
    }

    /// The entry with this id; `None` once it was evicted.
    #[must_use]
    pub fn get(&self, id: SlotId) -> Option<&Entry> {
        let place = self.place(id.index)?;
        (place.generation == id.generation).then_some(place.entry.as_deref())?
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: SlotId) -> Option<&mut Entry> {
        let place = self.place_mut(id.index)?;
        (place.generation == id.generation).then_some(place.entry.as_deref_mut())?
    }

    /// The entry of this secret.
    #[must_use]
    pub fn by_key(&self, key: &SecretKey) -> Option<&Entry> {
        self.place(*self.index.get(key)?)?.entry.as_deref()
    }

    /// An entry that the operator's configuration needs.
    pub fn pin(&mut self, key: &SecretKey, rules: &CacheRules) {
        let Some(id) = self.find(key).or_else(|| self.insert(key, rules)) else {
            return;
        };
        self.values.remove(&id.index);
        self.misses.remove(&id.index);
        if let Some(entry) = self.get_mut(id) {
            entry.shorten(rules);
            entry.pinned = true;
        }
    }

    /// Holds the entry of this secret for a fetch, made if there is none: it is not evicted before as many
    /// calls of [`Entries::release`]. `None` if every entry that there may be is held.
    #[must_use]
    pub fn hold(&mut self, key: &SecretKey, rules: &CacheRules) -> Option<SlotId> {
        let known = self.find(key);
        let free = |entry: &Entry| !entry.pinned && entry.flights == 0;
        let counts = known.is_none_or(|id| self.get(id).is_some_and(free));
        if counts && self.held >= self.limits.cached_secrets {
            return None;
        }
        let id = known.or_else(|| self.insert(key, rules))?;
        self.held += usize::from(counts);
        self.values.remove(&id.index);
        self.misses.remove(&id.index);
        let entry = self.get_mut(id)?;
        entry.shorten(rules);
        entry.flights += 1;
        Some(id)
    }

    /// A fetch for this entry has ended. After the last one, an entry with a value or a failure takes
    /// its place among those that can be evicted, and an entry with neither is removed. Returns what that last
    /// fetch gives back to the budget: [`Entry::budgeted`].
    pub fn release(&mut self, id: SlotId) -> Option<bool> {
        let entry = self.get_mut(id).filter(|entry| entry.flights > 0)?;
        entry.flights -= 1;
        if entry.flights > 0 {
            return None;
        }
        entry.fetching_since = None;
        let budgeted = entry.budgeted.take();
        if !entry.pinned {
            self.held = self.held.saturating_sub(1);
            self.settle(id);
        }
        budgeted
    }

    /// Puts an entry that nothing holds into the order of eviction that fits what it holds now.
    pub fn settle(&mut self, id: SlotId) {
        let Some(entry) = self.get(id).filter(|e| !e.pinned && e.flights == 0) else {
            return;
        };
        let (value, failure) = (entry.record.found.is_some(), entry.record.failed.is_some());
        self.values.remove(&id.index);
        self.misses.remove(&id.index);
        if value {
            self.values.insert(id.index);
        } else if failure {
            self.misses.insert(id.index);
        } else {
            self.remove(id.index);
        }
        self.evict();
    }

    fn evict(&mut self) {
        // What is held takes room too: it will hold a value soon.
        while self.values.len() + self.held > self.limits.cached_secrets
            && let Some(oldest) = self.values.pop_front()
        {
            self.remove(oldest);
        }
        while self.misses.len() > self.limits.cached_misses
            && let Some(oldest) = self.misses.pop_front()
        {
            self.remove(oldest);
        }
    }

    /// Marks it as the most recently used: the last one to be evicted.
    pub fn touch(&mut self, id: SlotId) {
        if self.get(id).is_some() && !self.values.to_back(&id.index) {
            self.misses.to_back(&id.index);
        }
    }

    fn insert(&mut self, key: &SecretKey, rules: &CacheRules) -> Option<SlotId> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.places.len()).ok()?;
                self.places.push(Place {
                    generation: 0,
                    entry: None,
                });
                index
            }
        };
        let most_views = self.limits.views;
        let place = self.place_mut(index)?;
        place.entry = Some(Box::new(Entry {
            key: key.clone(),
            record: Record::default(),
            rules: *rules,
            used: false,
            renew_at: Timestamp(u64::MAX),
            came: None,
            fetching_since: None,
            budgeted: None,
            pinned: false,
            flights: 0,
            views: RefCell::default(),
            most_views,
        }));
        let generation = place.generation;
        self.index.insert(key.clone(), index);
        Some(SlotId { index, generation })
    }

    fn remove(&mut self, index: u32) {
        let Some(place) = self.place_mut(index) else {
            return;
        };
        if let Some(entry) = place.entry.take() {
            place.generation = place.generation.wrapping_add(1);
            self.index.remove(&entry.key);
            self.free.push(index);
        }
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (SlotId, &Entry)> {
        (0u32..).zip(&self.places).filter_map(|(index, place)| {
            let generation = place.generation;
            Some((SlotId { index, generation }, place.entry.as_deref()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::forms::Collection;
    use crate::azure::key_vault::Secret;
    use crate::cache::{Failed, Found};
    use crate::time::Span;

    const RULES: CacheRules = CacheRules {
        ttl: Span(1),
        neg_ttl: Span(1),
        resurrect_ttl: Span(1),
    };
    const NOW: Timestamp = Timestamp(0);

    fn key(n: usize) -> SecretKey {
        SecretKey {
            vault: 0,
            collection: Collection::Secrets,
            name: format!("s{n}"),
            version: None,
        }
    }

    fn entries() -> Entries {
        Entries::new(&Limits {
            cached_secrets: 3,
            cached_misses: 3,
            views: 3,
            ..Limits::default()
        })
    }

    fn fetched(entries: &mut Entries, n: usize, found: bool) -> SlotId {
        let id = entries.hold(&key(n), &RULES).unwrap();
        let value = SecretValue::new(n.to_string().into_bytes());
        entries.get_mut(id).unwrap().record = if found {
            Record {
                found: Some(Found {
                    secret: Secret {
                        value,
                        expires_at: None,
                        not_before: None,
                    },
                    fetched_at: NOW,
                }),
                failed: None,
            }
        } else {
            Record {
                found: None,
                failed: Some(Failed {
                    reason: Reason::NotFound,
                    at: NOW,
                    until: NOW,
                    attempts: 1,
                }),
            }
        };
        entries.release(id);
        id
    }

    #[test]
    fn the_least_recently_used_value_is_evicted_and_its_id_finds_nothing() {
        let mut entries = entries();
        let ids: Vec<SlotId> = (0..3).map(|n| fetched(&mut entries, n, true)).collect();
        entries.touch(ids[0]);
        let new = fetched(&mut entries, 3, true);
        assert!(entries.get(ids[1]).is_none(), "evicted");
        assert_eq!(entries.find(&key(1)), None);
        assert_eq!(entries.get(ids[0]).unwrap().key, key(0));
        let next = fetched(&mut entries, 4, true);
        assert_eq!(entries.get(new).unwrap().key, key(3));
        assert!(
            next.index == ids[1].index || next.index == ids[2].index,
            "a place is used again"
        );
        assert!(entries.get(ids[1]).is_none() && entries.get(ids[2]).is_none());
    }

    #[test]
    fn missing_names_never_evict_values() {
        let mut entries = entries();
        let kept = fetched(&mut entries, 0, true);
        for n in 1..100 {
            fetched(&mut entries, n, false);
        }
        assert!(entries.get(kept).is_some());
        assert_eq!(entries.iter().count(), 4);
    }

    #[test]
    fn what_is_pinned_or_being_fetched_is_never_evicted_but_the_next_is_refused() {
        let mut entries = entries();
        entries.pin(&key(0), &RULES);
        let held: Vec<SlotId> = (1..4)
            .map(|n| entries.hold(&key(n), &RULES).unwrap())
            .collect();
        assert_eq!(entries.hold(&key(4), &RULES), None);
        assert!(entries.hold(&key(0), &RULES).is_some(), "the operator's");
        assert!(entries.hold(&key(1), &RULES).is_some(), "another lane");
        for (id, n) in held.iter().zip(1..) {
            assert_eq!(entries.get(*id).unwrap().key, key(n));
            entries.release(*id);
        }
        assert!(
            entries.get(held[1]).is_none(),
            "no value, no failure: no entry"
        );
        assert!(entries.get(held[0]).is_some(), "a lane holds it still");
    }
}
