//! Which fetches traffic may cause: how many at once and a second, with a share kept for names that clients
//! did not make up. It makes no fetch itself.

use super::flight::FlightKey;
use super::{Action, Fetcher, Want};
use crate::cache::{SecretKey, SlotId};
use crate::limits::Limits;
use crate::time::Timestamp;

/// How many entries have a fetch under way that counts against the budget.
#[derive(Default)]
pub(super) struct Paid {
    all: usize,
    /// Of these, entries whose names were never found before.
    unknown: usize,
}

impl Paid {
    fn has_room(&self, limits: &Limits, known: bool) -> bool {
        let most = limits.fetches_in_flight;
        let reserved = usize::try_from(limits.reserved_percent).unwrap_or(100);
        let unknown = most - most * reserved.min(100) / 100;
        self.all < most && (known || self.unknown < unknown)
    }

    const fn take(&mut self, known: bool) {
        self.all += 1;
        self.unknown += if known { 0 } else { 1 };
    }

    pub(super) const fn give_back(&mut self, known: bool) {
        self.all = self.all.saturating_sub(1);
        self.unknown = self.unknown.saturating_sub(if known { 0 } else { 1 });
    }
}

impl Fetcher {
    /// Has a tick fetch this, for a request that cannot wait.
    pub fn fetch_in_background(&mut self, want: &Want, now: Timestamp) {
        if self.background.contains_key(&want.key)
            || self.background.len() >= self.config.limits.fetches_in_flight
        {
            return;
        }
        let known = self.is_known(&want.key);
        if self.budget.take(now, known) {
            self.background.insert(want.key.clone(), want.rules);
        }
    }

    /// Whether a name is one that clients did not make up: it was found before, or the operator lists it.
    fn is_known(&self, key: &SecretKey) -> bool {
        self.names.is_listed(key) || self.found_before.contains(key)
    }

    /// Whether this fetch is the operator's, or traffic may still cause one. Several requests' calls for
    /// one secret count as one; a share is kept for names that clients did not make up.
    pub(super) fn affords(&mut self, id: SlotId, flight: &FlightKey, now: Timestamp) -> bool {
        let idle = self
            .flights
            .get(flight)
            .is_none_or(|f| f.waiters.is_empty());
        let Some(entry) = self.entries.get(id) else {
            return false;
        };
        if entry.is_pinned() || entry.budgeted.is_some() || idle {
            return true;
        }
        let known = self.is_known(&entry.key);
        let room = self.paid.has_room(&self.config.limits, known);
        if !(room && self.budget.take(now, known)) {
            return false;
        }
        self.paid.take(known);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.budgeted = Some(known);
        }
        true
    }

    pub(super) fn note_refusal(&mut self, key: &SecretKey, now: Timestamp) {
        self.refused.insert(key.clone(), now);
        while self.refused.len() > self.config.limits.cached_misses {
            self.refused.pop_front();
        }
    }

    /// A failure for the request that asks now, and for no other one.
    pub(super) fn too_many(&mut self, key: &SecretKey, waiter: Option<u32>, now: Timestamp) {
        self.note_refusal(key, now);
        self.actions.extend(waiter.map(Action::Wake));
    }
}
