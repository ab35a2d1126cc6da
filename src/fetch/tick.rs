//! What happens at a tick: values that are over are wiped, those in use are renewed ahead, and fetches of
//! other workers are followed. It does not know how anything is fetched.

use super::flight::{Flight, FlightKey};
use super::{Fetcher, Lane, Now, Subject};
use crate::cache::{Found, Life, Record, SecretKey, SlotId};
use crate::config::CacheRules;
use crate::time::{Span, Timestamp};

/// How often to check whether another worker's fetch has ended, or a request has waited long enough.
pub(super) const FOLLOWING_TICK: Span = Span(20);
/// How often to check which values have to be renewed.
pub(super) const IDLE_TICK: Span = Span(1000);
/// The time between two scans of the whole cache: ticks come each millisecond while requests are cold.
pub(super) const SCAN_INTERVAL: Span = Span(100);

impl Fetcher {
    /// Renews values and tokens ahead of their end, and follows the fetches of other workers.
    pub fn handle_tick(&mut self, now: &Now<'_>) {
        let mut due: Vec<_> = std::mem::take(&mut self.background).into_iter().collect();
        if self.is_scan_due(now.time) {
            self.scanned_at = Some(now.time);
            self.expire(now);
            due.extend(self.to_renew(now.time));
        }
        for (key, rules) in due {
            self.start_secret(Lane::Worker, &key, &rules, None, now);
        }
        self.renew_tokens(now);
        self.follow(now);
        self.wake_with_old_values(now.time);
    }

    /// When to call [`Fetcher::handle_tick`] again.
    #[must_use]
    pub fn tick_period(&self) -> Span {
        let soon =
            |(key, flight): (&FlightKey, &Flight)| flight.following || self.may_wake(key, flight);
        if self.flights.iter().any(soon) {
            FOLLOWING_TICK
        } else {
            IDLE_TICK
        }
    }

    /// Whether a tick wakes those who wait for this flight, with an old value.
    fn may_wake(&self, (lane, _): &FlightKey, flight: &Flight) -> bool {
        if *lane != Lane::Worker || flight.waiters.is_empty() {
            return false;
        }
        let entry = flight.entry.and_then(|id| self.entries.get(id));
        entry.is_some_and(|entry| entry.record.found.is_some())
    }

    fn wake_with_old_values(&mut self, now: Timestamp) {
        let keys: Vec<FlightKey> = self
            .flights
            .iter()
            .filter(|(key, flight)| {
                self.waited_enough(flight.started, now) && self.may_wake(key, flight)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.wake_waiters(&key);
        }
    }

    /// Whether the cache has not been scanned for a while, or the clock was set back since.
    fn is_scan_due(&self, now: Timestamp) -> bool {
        self.scanned_at
            .is_none_or(|at| at > now || at + SCAN_INTERVAL <= now)
    }

    /// Secrets in use that are to be fetched anew, and pinned ones that are not there.
    fn to_renew(&self, now: Timestamp) -> Vec<(SecretKey, CacheRules)> {
        let scanned = self.entries.iter().filter(|(_, entry)| {
            let found = entry.record.found.as_ref();
            let missing = found.is_none_or(|f| f.life(&entry.rules, now) == Life::Over);
            let latest = now + entry.rules.ttl;
            // A time of renewal that is later than any can be is of another clock.
            let renew = entry.renew_at <= now
                || (entry.renew_at > latest && entry.rules.ttl != Span::FOREVER);
            let wanted = (entry.is_pinned() && missing)
                || ((entry.is_pinned() || entry.used) && !missing && renew);
            wanted && !entry.has_flight() && entry.record.backoff(now).is_none()
        });
        scanned
            .map(|(_, entry)| (entry.key.clone(), entry.rules))
            .collect()
    }

    /// Wipes values that may not be served any more, and those that no request used for a whole ttl, if shared
    /// data still has them (stale-if-error). Corrects times from before the clock was set back.
    fn expire(&mut self, now: &Now<'_>) {
        let shared = now.shared.is_there();
        let ids: Vec<SlotId> = self.entries.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.correct_clock(id, now.time);
            let Some(entry) = self.entries.get_mut(id) else {
                continue;
            };
            let life = |found: &Found| found.life(&entry.rules, now.time);
            match entry.record.found.as_ref().map(life) {
                Some(Life::Over) => entry.record.found = None,
                // Together with its failure: a failure without its value would differ from shared data.
                Some(Life::Old) if shared && !entry.used && !entry.is_pinned() => {
                    entry.record = Record::default();
                }
                _ => continue,
            }
            entry.renewed(Timestamp(u64::MAX));
            self.entries.settle(id);
        }
    }

    fn follow(&mut self, now: &Now<'_>) {
        let followed: Vec<FlightKey> = self
            .flights
            .iter()
            .filter(|(_, flight)| flight.following)
            .map(|(key, _)| key.clone())
            .collect();
        for (lane, subject) in followed {
            match subject {
                Subject::Secret(key) => self.advance_secret(lane, &key, now),
                Subject::Token(identity) => self.advance_token(lane, identity, now),
            }
        }
    }
}
