//! Fetches under way: who waits for each, the call it has made, and what becomes of both when it ends. What
//! is fetched, and what an answer says, it leaves to `secrets` and `tokens`.

use super::shared::Lease;
use super::versions::Search;
use super::{Action, Call, CallId, Fetcher, Lane, Now, Subject};
use crate::azure::http::{Answer, CallFailure, HttpRequest};
use crate::azure::identity::Step;
use crate::cache::{SecretKey, SlotId};
use crate::metrics::{Endpoint, Series, Status};
use crate::secret::SecretValue;
use crate::time::{Span, Timestamp};

pub(super) type FlightKey = (Lane, Subject);

/// A fetch under way.
pub(super) struct Flight {
    /// Not started: to be looked at again at each tick, since another worker may hold the lease.
    pub(super) following: bool,
    pub(super) started: Timestamp,
    pub(super) waiters: Vec<u32>,
    /// For a secret: its entry, which is held as long as this flight is there.
    pub(super) entry: Option<SlotId>,
    /// For a token: the secrets, in the same lane, that wait for it.
    pub(super) secrets: Vec<SecretKey>,
    pub(super) lease: Option<Lease>,
    pub(super) call: Option<CallId>,
    /// For a token: calls made on the way to it.
    pub(super) calls: u64,
    /// For a secret: a new token was asked for after a 401.
    pub(super) renewed_token: bool,
    /// For a secret: which version the next call is for.
    pub(super) search: Search,
    /// A broken connection was tried again.
    pub(super) retried: bool,
}

impl Flight {
    pub(super) const fn new(entry: Option<SlotId>, now: Timestamp) -> Self {
        Self {
            following: true,
            started: now,
            waiters: Vec::new(),
            entry,
            secrets: Vec::new(),
            lease: None,
            call: None,
            calls: 0,
            renewed_token: false,
            search: Search::Named,
            retried: false,
        }
    }
}

/// A call without an answer yet.
pub(super) struct Pending {
    flight: FlightKey,
    step: Step,
    sent_at: Timestamp,
    timeout: Span,
    /// The token that it was made with.
    token: Option<SecretValue>,
}

/// How long this many calls, each within its timeout, can take; and a second for the host.
pub(super) const fn calls_take(timeout: Span, calls: u64) -> Span {
    Span(timeout.0.saturating_mul(calls).saturating_add(1000))
}

impl Fetcher {
    /// Whether a fetch is under way that will wake this request.
    #[must_use]
    pub fn is_waiting(&self, waiter: u32) -> bool {
        self.waiting.contains_key(&waiter)
    }

    /// Forgets a request that has ended. The fetches it waited for go on, since others may wait too, and the
    /// next request finds the value in the cache; those of its own lane end, since the host drops their callouts.
    pub fn forget(&mut self, waiter: u32) {
        for key in self.waiting.remove(&waiter).unwrap_or_default() {
            if let Some(flight) = self.flights.get_mut(&key) {
                flight.waiters.retain(|&other| other != waiter);
            }
        }
        let lane = Lane::Request(waiter);
        let own: Vec<FlightKey> = self
            .flights
            .range((lane, Subject::Token(0))..)
            .take_while(|((of, _), _)| *of == lane)
            .map(|(key, _)| key.clone())
            .collect();
        for key in own {
            self.end_flight(&key);
        }
    }

    /// Removes a flight with its call and its hold on the entry. Its lease, if any, is still in it.
    pub(super) fn end_flight(&mut self, key: &FlightKey) -> Option<Flight> {
        let mut flight = self.flights.remove(key)?;
        if let Some(call) = flight.call.take() {
            self.calls.remove(&call);
        }
        for waiter in &flight.waiters {
            self.stop_waiting(*waiter, key);
        }
        let budgeted = flight.entry.and_then(|id| self.entries.release(id));
        if let Some(known) = budgeted {
            self.paid.give_back(known);
        }
        Some(flight)
    }

    /// This request waits for this flight no longer.
    fn stop_waiting(&mut self, waiter: u32, key: &FlightKey) {
        let Some(keys) = self.waiting.get_mut(&waiter) else {
            return;
        };
        keys.retain(|other| other != key);
        if keys.is_empty() {
            self.waiting.remove(&waiter);
        }
    }

    /// Wakes those who wait for this flight, which goes on.
    pub(super) fn wake_waiters(&mut self, key: &FlightKey) {
        let Some(flight) = self.flights.get_mut(key) else {
            return;
        };
        for waiter in std::mem::take(&mut flight.waiters) {
            self.stop_waiting(waiter, key);
            self.actions.push_back(Action::Wake(waiter));
        }
    }

    /// Hands out a call for a flight.
    pub(super) fn call(
        &mut self,
        flight: &FlightKey,
        step: Step,
        token: Option<SecretValue>,
        request: HttpRequest,
        now: Timestamp,
    ) {
        let Some(known) = self.flights.get_mut(flight) else {
            return;
        };
        let id = CallId(self.next_call);
        self.next_call += 1;
        known.following = false;
        known.call = Some(id);
        known.calls += 1;
        self.calls.insert(
            id,
            Pending {
                flight: flight.clone(),
                step,
                sent_at: now,
                timeout: request.timeout,
                token,
            },
        );
        self.actions.push_back(Action::Call(Call {
            id,
            lane: flight.0,
            subject: flight.1.clone(),
            request,
        }));
    }

    /// Takes the answer to a call. The answer to a call whose flight has ended is dropped.
    pub fn handle_answer(&mut self, call: CallId, answer: &Answer, now: &Now<'_>) {
        let Some(pending) = self.calls.remove(&call) else {
            return;
        };
        self.count_call(&pending, answer);
        if let Some(flight) = self.flights.get_mut(&pending.flight) {
            flight.call = None;
        }
        if self.try_once_more(&pending, answer, now) {
            return;
        }
        let lane = pending.flight.0;
        match &pending.flight.1 {
            Subject::Token(identity) => {
                self.token_answered(lane, *identity, pending.step, answer, now);
            }
            Subject::Secret(key) => {
                self.secret_answered(lane, key, pending.token.as_ref(), answer, now);
            }
        }
    }

    /// One reset of a kept-alive connection is no failure: the same call is made once more at once, within
    /// the timeout in total.
    fn try_once_more(&mut self, pending: &Pending, answer: &Answer, now: &Now<'_>) -> bool {
        if !matches!(answer, Answer::Failed(CallFailure::Broken)) {
            return false;
        }
        let left = pending.timeout - pending.sent_at.age(now.time);
        let Some(flight) = self.flights.get_mut(&pending.flight) else {
            return false;
        };
        if flight.retried || left.0 == 0 || pending.sent_at > now.time {
            return false;
        }
        flight.retried = true;
        let (lane, subject) = &pending.flight;
        match subject {
            Subject::Token(identity) => self.call_token(*lane, *identity, Some(left), now),
            Subject::Secret(key) => self.call_secret(*lane, key, Some(left), now),
        }
        true
    }

    fn count_call(&mut self, pending: &Pending, answer: &Answer) {
        let (endpoint, vault) = match &pending.flight.1 {
            Subject::Token(identity) => match self.identities.get(*identity) {
                Some(identity) => (Endpoint::of_token(identity, pending.step), None),
                None => return,
            },
            Subject::Secret(key) => (Endpoint::of_vault(key.collection), Some(key.vault)),
        };
        let status = Status::of(answer);
        self.metrics.count(Series::Calls(endpoint, status, vault));
    }

    /// Ends the leases of this worker's fetches: to be called before this value goes while another one, of
    /// a new configuration, takes over. Else that one would wait for those leases to end.
    pub fn release_leases(&mut self, now: &Now<'_>) {
        for flight in self.flights.values_mut() {
            if let Some(lease) = flight.lease.take() {
                lease.release(now);
            }
        }
    }
}
