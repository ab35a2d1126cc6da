//! Flights of secrets: from shared data, through another worker's fetch, or by a call of our own.

use super::backoff::{self, SHORTEST_NEGATIVE};
use super::shared::{self, Lease, Leased, Name};
use super::{Action, Fetcher, Flight, FlightKey, Lane, Now, Stage, Subject, remember, report};
use crate::azure::http::Answer;
use crate::azure::identity::Step;
use crate::azure::key_vault::{self, Refusal};
use crate::cache::{Failed, Found, Life, Record, SecretKey, SlotId, renewal};
use crate::config::CacheRules;
use crate::failure::{Failure, Reason};
use crate::metrics::Source;
use crate::secret::SecretValue;
use crate::time::{Span, Timestamp};

/// What a look into shared data gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Adopted {
    /// All that is wanted: a value that lives on, or a failure.
    Answer,
    /// A value that may be served while it is renewed.
    Usable,
    /// Nothing that helps.
    Nothing,
}

/// How long this many calls, each within its timeout, can take; and a second for the host.
pub(super) const fn calls_take(timeout: Span, calls: u64) -> Span {
    Span(timeout.0.saturating_mul(calls).saturating_add(1000))
}

impl Fetcher {
    pub(super) fn start_secret(
        &mut self,
        lane: Lane,
        key: &SecretKey,
        rules: &CacheRules,
        waiter: Option<u32>,
        now: &Now<'_>,
    ) {
        let flight_key: FlightKey = (lane, Subject::Secret(key.clone()));
        if !self.flights.contains_key(&flight_key) {
            let Some(id) = self.entries.hold(key, rules) else {
                return self.too_many(key, waiter, now.time);
            };
            let flight = Flight::new(Some(id), now.time);
            self.flights.insert(flight_key.clone(), flight);
        } else if let Some(id) = self.entries.find(key)
            && let Some(entry) = self.entries.get_mut(id)
        {
            entry.shorten(rules);
        }
        let Some(flight) = self.flights.get_mut(&flight_key) else {
            return;
        };
        // A request may hold the same reference twice.
        if let Some(waiter) = waiter.filter(|waiter| !flight.waiters.contains(waiter)) {
            flight.waiters.push(waiter);
            self.waiting.entry(waiter).or_default().push(flight_key);
        }
        if flight.follows() {
            self.advance_secret(lane, key, now);
        }
    }

    /// A flight that has not called yet: shared data, another worker's lease, or our call.
    pub(super) fn advance_secret(&mut self, lane: Lane, key: &SecretKey, now: &Now<'_>) {
        let flight_key: FlightKey = (lane, Subject::Secret(key.clone()));
        let Some((id, started)) = self
            .flights
            .get(&flight_key)
            .and_then(|f| Some((f.entry?, f.started)))
        else {
            return;
        };
        match self.adopt_shared(id, started, now) {
            Adopted::Answer => return self.finish_secret(lane, key, now),
            // A request on WasmX goes on now, which it must not with a call of its own under way: that takes
            // the worker down. A tick renews the value.
            Adopted::Usable if lane != Lane::Worker => return self.finish_secret(lane, key, now),
            // No request has to wait for a renewal.
            Adopted::Usable => self.wake_waiters(&flight_key),
            Adopted::Nothing => {}
        }
        if let Some(hold) = self.hold(key.vault, now) {
            return self.secret_held(lane, key, &hold, now);
        }
        if !self.affords(id, &flight_key, now.time) {
            self.note_refusal(key, now.time);
            return self.finish_secret(lane, key, now);
        }
        let (Some(vault), Some(name)) = (self.config.vaults.get(key.vault), self.name_of(key))
        else {
            return;
        };
        let length = calls_take(vault.timeout, 1 + vault.identity.most_calls());
        let leased = match lane {
            Lane::Worker => Lease::take(&name, length, now),
            Lane::Request(_) => Leased::Ours(None),
        };
        let Some(flight) = self.flights.get_mut(&flight_key) else {
            return;
        };
        match leased {
            Leased::Ours(lease) => {
                flight.lease = lease;
                self.call_secret(lane, key, None, now);
            }
            Leased::Until(until) => flight.stage = Stage::Following { until },
        }
    }

    fn name_of(&self, key: &SecretKey) -> Option<Name> {
        let vault = self.config.vaults.get(key.vault)?;
        let host = vault.uri.host();
        Some(self.names.of_secret(host, &vault.identity, key))
    }

    /// Whether this fetch is the operator's, or traffic may still cause one. Several requests' calls for
    /// one secret count as one; a share is kept for names that clients did not make up.
    fn affords(&mut self, id: SlotId, flight: &FlightKey, now: Timestamp) -> bool {
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
        let most = self.config.limits.fetches_in_flight;
        let reserved = usize::try_from(self.config.limits.reserved_percent).unwrap_or(100);
        let unknown = most - most * reserved.min(100) / 100;
        let room = self.paid.0 < most && (known || self.paid.1 < unknown);
        if !(room && self.budget.take(now, known)) {
            return false;
        }
        self.paid.0 += 1;
        self.paid.1 += usize::from(!known);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.budgeted = Some(known);
        }
        true
    }

    fn note_refusal(&mut self, key: &SecretKey, now: Timestamp) {
        let most = self.config.limits.cached_misses;
        remember(&mut self.refused, key, now, most);
    }

    /// A failure for the request that asks now, and for no other one.
    fn too_many(&mut self, key: &SecretKey, waiter: Option<u32>, now: Timestamp) {
        self.note_refusal(key, now);
        self.actions.extend(waiter.map(Action::Wake));
    }

    /// Whether the vault asked everybody to wait, here or at another worker, or refuses the identity.
    fn hold(&mut self, vault: usize, now: &Now<'_>) -> Option<Failed> {
        let name = Name::of_hold(self.config.vaults.get(vault)?.uri.host());
        let shared = now.shared.read(&name.key);
        let shared = shared.and_then(|(entry, _)| Record::unpack(&name.whole, &entry)?.failed);
        let shared = shared.filter(|failed| failed.is_of_clock(now.time));
        let hold = self.holds.get_mut(vault)?;
        let latest = |failed: Option<Failed>| failed.map(|f| f.until);
        let ours = hold.filter(|failed| failed.is_of_clock(now.time));
        if latest(shared) > latest(ours) {
            *hold = shared;
        }
        self.vault_waits(vault, now.time)
    }

    /// Holds back every call to a vault that is too busy.
    fn hold_vault(&mut self, vault: usize, failure: &Failure, now: &Now<'_>) {
        self.hold(vault, now);
        let (Some(hold), Some(place)) = (self.holds.get_mut(vault), self.config.vaults.get(vault))
        else {
            return;
        };
        let known = hold.filter(|failed| failed.holds(now.time));
        // Of calls that were under way together, the first one counts.
        let before = Failed {
            attempts: known.map_or(0, |f| f.attempts.saturating_sub(1)),
            ..known.unwrap_or(Failed {
                reason: failure.reason,
                at: now.time,
                until: now.time,
                attempts: 0,
            })
        };
        let before = known.map_or(*hold, |_| Some(before));
        let mut failed = backoff::after(before.as_ref(), failure.reason, now.time, |attempts| {
            backoff::wait(failure, attempts, (now.random)())
        });
        failed.until = failed.until.max(known.map_or(failed.until, |f| f.until));
        *hold = Some(failed);
        let record = Record {
            found: None,
            failed: Some(failed),
        };
        let name = Name::of_hold(place.uri.host());
        shared::put(now.shared, &name.key, &record.pack(&name.whole));
        if known.is_none() {
            self.log_hold(vault, failure, &failed, now.time);
        }
    }

    /// The secret has to wait as its whole vault does.
    fn secret_held(&mut self, lane: Lane, key: &SecretKey, hold: &Failed, now: &Now<'_>) {
        if let Some(id) = self.entries.find(key)
            && let Some(entry) = self.entries.get_mut(id)
        {
            entry.record.failed = Some(*hold);
        }
        self.finish_secret(lane, key, now);
    }

    /// Takes over what shared data knows of this secret.
    fn adopt_shared(&mut self, id: SlotId, started: Timestamp, now: &Now<'_>) -> Adopted {
        self.merge_shared(id, now);
        let Some(entry) = self.entries.get(id) else {
            return Adopted::Nothing;
        };
        let life = |found: &Found| found.life(&entry.rules, now.time);
        let life = entry.record.found.as_ref().map_or(Life::Over, life);
        let answers = |f: &Failed| f.holds(now.time) || (f.at > started && f.at <= now.time);
        if entry.record.failed.as_ref().is_some_and(answers)
            || (life == Life::Fresh && entry.renew_at > now.time)
        {
            Adopted::Answer
        } else if matches!(life, Life::Fresh | Life::Stale) {
            Adopted::Usable
        } else {
            Adopted::Nothing
        }
    }

    /// Takes over from shared data what it knows better.
    fn merge_shared(&mut self, id: SlotId, now: &Now<'_>) {
        let Some(key) = self.entries.get(id).map(|entry| entry.key.clone()) else {
            return;
        };
        let Some(name) = self.name_of(&key) else {
            return;
        };
        let identity = self.identity_of.get(key.vault).copied();
        let sealer = identity.and_then(|at| self.sealers.get(at)?.as_ref());
        let Some(shared) = shared::get_record(now, sealer, &name) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let ours = std::mem::take(&mut entry.record);
        entry.record = ours.on_clock(&entry.rules, now.time);
        if entry.record.merge(shared.on_clock(&entry.rules, now.time))
            && let Some(found) = &entry.record.found
        {
            entry.renewed(renewal(found.fetched_at, &entry.rules, (now.random)()));
            entry.came = Some((Source::Shared, now.time));
            self.epoch += 1;
            self.note_found(&key);
        }
    }

    fn note_found(&mut self, key: &SecretKey) {
        self.found_before.insert(key.clone());
        while self.found_before.len() > self.config.limits.cached_secrets {
            self.found_before.pop_front();
        }
        self.metrics.name_of(key);
    }

    /// The call for a secret, or for the token that it needs first; within `left`, if it is made again.
    pub(super) fn call_secret(
        &mut self,
        lane: Lane,
        key: &SecretKey,
        left: Option<Span>,
        now: &Now<'_>,
    ) {
        let Some(identity) = self.identity_of.get(key.vault).copied() else {
            return;
        };
        if let Some(id) = self.entries.find(key)
            && let Some(entry) = self.entries.get_mut(id)
        {
            entry.fetching_since.get_or_insert(now.time);
        }
        match self.usable_token(identity, now) {
            Some(token) => self.send_secret(lane, key, (identity, &token), left, now),
            None => {
                let flight = self.flights.get_mut(&(lane, Subject::Secret(key.clone())));
                if let Some(flight) = flight {
                    flight.stage = Stage::WaitingForToken;
                }
                self.start_token(lane, identity, Some(key), now);
            }
        }
    }

    /// Sends the call with this identity's token, to a vault of this identity only.
    pub(super) fn send_secret(
        &mut self,
        lane: Lane,
        key: &SecretKey,
        (identity, token): (usize, &SecretValue),
        left: Option<Span>,
        now: &Now<'_>,
    ) {
        let Some(vault) = self.config.vaults.get(key.vault) else {
            return;
        };
        let id = report::request_id(now);
        let mut request = key_vault::secret_request(
            vault,
            key.collection,
            &key.name,
            key.version.as_deref(),
            token,
            &id,
        );
        let own = self.identities.get(identity) == Some(&vault.identity);
        if !own || request.authority != vault.uri.authority() {
            let detail = "the token is not one for this vault";
            let failure = Failure::new(Reason::Credentials, detail);
            return self.secret_failed(lane, key, &failure, now);
        }
        request.timeout = left.unwrap_or(request.timeout);
        let flight: FlightKey = (lane, Subject::Secret(key.clone()));
        let token = Some(token.clone());
        self.call(&flight, Step::Token, token, request, now.time);
    }

    pub(super) fn secret_answered(
        &mut self,
        lane: Lane,
        key: &SecretKey,
        token: Option<&SecretValue>,
        answer: &Answer,
        now: &Now<'_>,
    ) {
        let flight = self.flights.get(&(lane, Subject::Secret(key.clone())));
        let (Some(id), Some(vault)) = (
            flight.and_then(|flight| flight.entry),
            self.config.vaults.get(key.vault),
        ) else {
            return;
        };
        match key_vault::read_secret(vault, key.collection, answer, now.time) {
            Ok(secret) => {
                let warning = key_vault::date_warning(vault, key.collection, answer, now.time);
                if let Some(reason) = warning {
                    self.log_dates(key, reason, now.time);
                }
                let found = Found {
                    secret,
                    fetched_at: now.time,
                };
                if let (Some(&identity), Some(token)) = (self.identity_of.get(key.vault), token) {
                    self.token_accepted((identity, key.vault), token, now);
                }
                self.secret_found(lane, key, id, found, now);
            }
            Err(Refusal::Token { failure, claims }) => {
                self.token_refused(lane, key, token, &failure, claims, now);
            }
            Err(Refusal::Other(failure)) => {
                if failure.holds_vault {
                    self.hold_vault(key.vault, &failure, now);
                }
                self.secret_failed(lane, key, &failure, now);
            }
        }
    }

    fn secret_found(
        &mut self,
        lane: Lane,
        key: &SecretKey,
        id: SlotId,
        found: Found,
        now: &Now<'_>,
    ) {
        // An id of before an eviction finds nothing; the key is compared all the same.
        let Some(entry) = self.entries.get_mut(id).filter(|entry| entry.key == *key) else {
            return self.finish_secret(lane, key, now);
        };
        let before = entry.record.found.take();
        let changed = before.is_some_and(|before| before.secret.value != found.secret.value);
        entry.record = Record {
            found: Some(found),
            failed: None,
        };
        entry.renewed(renewal(now.time, &entry.rules, (now.random)()));
        entry.came = Some((Source::Fetched, now.time));
        if changed {
            self.log_change(key);
        }
        self.log_recovery(key);
        if let Some(hold) = self.holds.get_mut(key.vault) {
            // It answers again: the next wait starts small.
            *hold = hold.filter(|failed| failed.holds(now.time));
        }
        if let Some(refusal) = self.refusals.get_mut(key.vault) {
            *refusal = None;
        }
        self.epoch += 1;
        self.note_found(key);
        self.publish(id, now);
        self.finish_secret(lane, key, now);
    }

    /// 401: the token may have been revoked, and a new one is tried once; or the vault refuses the identity,
    /// and then every secret of it waits.
    fn token_refused(
        &mut self,
        lane: Lane,
        key: &SecretKey,
        token: Option<&SecretValue>,
        failure: &Failure,
        claims: Option<String>,
        now: &Now<'_>,
    ) {
        let Some(identity) = self.identity_of.get(key.vault).copied() else {
            return;
        };
        let flight = self.flights.get_mut(&(lane, Subject::Secret(key.clone())));
        let first = flight.is_some_and(|f| !std::mem::replace(&mut f.renewed_token, true));
        if first && self.drop_refused_token((identity, key.vault), token, claims, now) {
            return self.call_secret(lane, key, None, now);
        }
        let Some(refusal) = self.refusals.get_mut(key.vault) else {
            return;
        };
        // Of calls that were under way together, the first one counts.
        let failed = match refusal.filter(|failed| failed.holds(now.time)) {
            Some(known) => known,
            None => {
                let failed =
                    backoff::after(refusal.as_ref(), failure.reason, now.time, |attempts| {
                        backoff::wait(failure, attempts, (now.random)())
                    });
                *refusal = Some(failed);
                self.log_vault_refusal(key.vault, failure, &failed);
                failed
            }
        };
        self.metrics.secret_failed(key, failure.reason);
        self.secret_held(lane, key, &failed, now);
    }

    pub(super) fn secret_failed(
        &mut self,
        lane: Lane,
        key: &SecretKey,
        failure: &Failure,
        now: &Now<'_>,
    ) {
        let flight = self.flights.get(&(lane, Subject::Secret(key.clone())));
        let id = flight.and_then(|flight| flight.entry);
        let Some((id, entry)) = id.and_then(|id| Some((id, self.entries.get_mut(id)?))) else {
            return;
        };
        let usable = |found: &Found| found.life(&entry.rules, now.time) != Life::Over;
        let usable = entry.record.found.as_ref().is_some_and(usable);
        let neg_ttl = entry.rules.neg_ttl.max(SHORTEST_NEGATIVE);
        let before = entry.record.failed;
        let failed =
            backoff::after(
                before.as_ref(),
                failure.reason,
                now.time,
                |attempts| match failure.reason {
                    Reason::NotFound | Reason::Disabled | Reason::Expired | Reason::NotYetValid
                        if !usable =>
                    {
                        neg_ttl
                    }
                    _ => backoff::wait(failure, attempts, (now.random)()),
                },
            );
        entry.record.failed = Some(failed);
        self.metrics.secret_failed(key, failure.reason);
        let wait = failed.until.until(now.time);
        self.log_secret_failure(key, failure, usable, wait, now.time);
        self.publish(id, now);
        self.finish_secret(lane, key, now);
    }

    /// Writes what is known to shared data.
    fn publish(&mut self, id: SlotId, now: &Now<'_>) {
        // Another worker may have written while our call was under way: the newest value stays.
        self.merge_shared(id, now);
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        let Some(name) = self.name_of(&entry.key) else {
            return;
        };
        let identity = self.identity_of.get(entry.key.vault).copied();
        let sealer = identity.and_then(|at| self.sealers.get(at)?.as_ref());
        shared::put_record(now, sealer, &name, &entry.record);
    }

    /// Wakes all who wait, and ends the lease.
    fn finish_secret(&mut self, lane: Lane, key: &SecretKey, now: &Now<'_>) {
        let Some(mut flight) = self.end_flight(&(lane, Subject::Secret(key.clone()))) else {
            return;
        };
        if let Some(lease) = flight.lease.take() {
            lease.release(now);
        }
        let woken = flight.waiters.into_iter().map(Action::Wake);
        self.actions.extend(woken);
    }
}
