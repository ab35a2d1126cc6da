//! Flights of secrets: from shared data, through another worker's fetch, or by a call of our own. It does not
//! know how a token is fetched, nor what shared data looks like.

use super::backoff;
use super::flight::{Flight, FlightKey, calls_take};
use super::record::Adopted;
use super::shared::{Lease, Leased};
use super::versions::Search;
use super::{Action, Fetcher, Lane, Now, Subject, report};
use crate::azure::http::Answer;
use crate::azure::identity::Step;
use crate::azure::key_vault::{self, Refusal};
use crate::cache::{Failed, Found, Life, Record, SecretKey, SlotId, renewal};
use crate::config::CacheRules;
use crate::failure::{Failure, Reason};
use crate::metrics::Source;
use crate::secret::SecretValue;
use crate::time::Span;

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
        if flight.following {
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
        self.adopt_shared_hold(key.vault, now);
        if let Some(hold) = self.vault_waits(key.vault, now.time) {
            return self.secret_held(lane, key, &hold, now);
        }
        if !self.affords(id, &flight_key, now.time) {
            self.note_refusal(key, now.time);
            return self.finish_secret(lane, key, now);
        }
        let leased = self.lease_secret(lane, key, now);
        let (Some(leased), Some(flight)) = (leased, self.flights.get_mut(&flight_key)) else {
            return;
        };
        match leased {
            Leased::Ours(lease) => {
                flight.lease = lease;
                self.call_secret(lane, key, None, now);
            }
            // The flight follows that one.
            Leased::Theirs => {}
        }
    }

    /// The right to call for this secret. A request's own lane needs no lease: it cannot wait for other workers.
    fn lease_secret(&self, lane: Lane, key: &SecretKey, now: &Now<'_>) -> Option<Leased> {
        let vault = self.config.vaults.get(key.vault)?;
        if lane != Lane::Worker {
            return Some(Leased::Ours(None));
        }
        let length = calls_take(vault.timeout, 1 + vault.identity.most_calls());
        Some(Lease::take(&self.name_of(key)?, length, now))
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
        match self.use_token(identity, now) {
            Some(token) => self.send_secret(lane, key, (identity, &token), left, now),
            None => {
                let flight = self.flights.get_mut(&(lane, Subject::Secret(key.clone())));
                if let Some(flight) = flight {
                    flight.following = false;
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
        let flight: FlightKey = (lane, Subject::Secret(key.clone()));
        let ask = |version: Option<&str>| {
            key_vault::secret_request(vault, key.collection, &key.name, version, token, &id)
        };
        let mut request = match self.flights.get(&flight).map(|flight| &flight.search) {
            Some(Search::List(_)) => key_vault::versions_request(vault, &key.name, token, &id),
            Some(Search::Older(version, _)) => ask(Some(version)),
            Some(Search::Named) | None => ask(key.version.as_deref()),
        };
        let own = self.identities.get(identity) == Some(&vault.identity);
        if !own || request.authority != vault.uri.authority() {
            let detail = "the token is not one for this vault";
            let failure = Failure::new(Reason::Credentials, detail);
            return self.secret_failed(lane, key, &failure, now);
        }
        request.timeout = left.unwrap_or(request.timeout);
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
        let flight = self.flights.get_mut(&(lane, Subject::Secret(key.clone())));
        let (Some(flight), Some(vault)) = (flight, self.config.vaults.get(key.vault)) else {
            return;
        };
        match std::mem::take(&mut flight.search) {
            Search::Named => {}
            Search::List(newest) => {
                return self.versions_answered(lane, key, newest, answer, now);
            }
            Search::Older(_, newest) => return self.older_answered(lane, key, newest, answer, now),
        }
        let read = key_vault::read_secret(vault, key.collection, answer, now.time);
        if let (Ok(_), Some(&identity), Some(token)) =
            (&read, self.identity_of.get(key.vault), token)
        {
            self.token_accepted((identity, key.vault), token, now);
        }
        match self.search_older(lane, key, answer, read, now) {
            None => {}
            Some(Ok(secret)) => {
                if let Some(reason) = self.date_warning(key, answer, now) {
                    self.log_out_of_dates(key, reason, now.time);
                }
                self.secret_read(lane, key, secret, now);
            }
            Some(Err(Refusal::Token { failure, claims })) => {
                self.token_refused(lane, key, token, &failure, claims, now);
            }
            Some(Err(Refusal::Other(failure))) => {
                if failure.holds_vault {
                    self.hold_vault(key.vault, &failure, now);
                }
                self.secret_failed(lane, key, &failure, now);
            }
        }
    }

    /// Why the dates of what was answered speak against it, though `dates: warn` serves it.
    pub(super) fn date_warning(
        &self,
        key: &SecretKey,
        answer: &Answer,
        now: &Now<'_>,
    ) -> Option<Reason> {
        let vault = self.config.vaults.get(key.vault)?;
        key_vault::date_warning(vault, key.collection, answer, now.time)
    }

    pub(super) fn secret_found(
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
        self.vault_answers(key.vault, now.time);
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
        let Some(failed) = self.refuse_vault(key.vault, failure, now) else {
            return;
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
        let revoked = self
            .config
            .vaults
            .get(key.vault)
            .and_then(|v| v.revoked_ttl);
        if let (Some(revoked_ttl), true) = (revoked, failure.reason.is_definite())
            && let Some(found) = &mut entry.record.found
            && found.end_by(now.time + revoked_ttl)
        {
            self.epoch += 1;
        }
        let usable = |found: &Found| found.life(&entry.rules, now.time) != Life::Over;
        let usable = entry.record.found.as_ref().is_some_and(usable);
        let before = entry.record.failed.as_ref();
        let failed = match failure.reason {
            Reason::NotFound | Reason::Disabled | Reason::Expired | Reason::NotYetValid
                if !usable =>
            {
                backoff::negative(before, failure.reason, entry.rules.neg_ttl, now.time)
            }
            _ => backoff::after(before, failure, now),
        };
        entry.record.failed = Some(failed);
        self.metrics.secret_failed(key, failure.reason);
        let wait = failed.until.until(now.time);
        self.log_secret_failure(key, failure, usable, wait, now.time);
        self.publish(id, now);
        self.finish_secret(lane, key, now);
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
