//! Fetches: one worker's secrets and tokens, the calls to Azure that are under way, and who waits for them
//! (single flight). A state machine in the manner of quinn-proto: events and the time go in, [`Action`]s
//! come out of [`Fetcher::poll`]. It never calls the host.
//!
//! ```text
//!   fetch(secret) -> in shared data?  -yes-> wake
//!                 -> another worker fetches it (lease)? -> Following: look again at each tick
//!                 -> token at hand?   -no-> a flight for the token, which this one waits for
//!                 -> Calling: GET secret -> answer -> cache, shared data -> wake
//! ```

mod backoff;
mod budget;
mod gauges;
mod report;
pub mod seal;
mod secrets;
mod shared;
mod tokens;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::rc::Rc;

use hashlink::{LinkedHashMap, LinkedHashSet};

use crate::azure::forms;
use crate::azure::http::{Answer, HttpRequest};
use crate::azure::identity::{Identity, Step};
use crate::cache::{Entries, Failed, Found, Life, Record, SecretKey, SlotId, View};
use crate::config::{CacheRules, Config};
pub use crate::events::LogLine;
use crate::events::{Events, Line};
use crate::failure::Reason;
use crate::metrics::{Endpoint, Metrics, Series, Source, Status};
use crate::policy::Policy;
use crate::secret::SecretValue;
use crate::subkey;
use crate::time::{Span, Timestamp};
use budget::Budget;
use seal::Sealer;
use shared::{Lease, Names};
pub use shared::{Now, Shared};
use tokens::TokenState;

/// How often to look whether another worker's fetch has ended, or a request has waited long enough.
const FOLLOWING_TICK: Span = Span(20);
/// How often to look what has to be renewed.
const IDLE_TICK: Span = Span(1000);

/// Who owns a fetch. On Envoy all calls are the worker's, and any request can wait for them. On WasmX a
/// request can be woken by the answers to its own calls only, so each has a lane of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Calls of the root context.
    Worker,
    /// Calls of this request.
    Request(u32),
}

/// What a fetch is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A token, by the number of the identity.
    Token(usize),
    /// A secret. Its whole key, which stands for vault and identity too: an answer can never be taken
    /// for another secret's.
    Secret(SecretKey),
}

/// The number of a call; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

/// A call to make.
pub struct Call {
    /// What [`Fetcher::handle_answer`] wants back with the answer.
    pub id: CallId,
    /// Whose call this is.
    pub lane: Lane,
    /// What it fetches.
    pub subject: Subject,
    /// The request.
    pub request: HttpRequest,
}

/// What the caller has to do.
pub enum Action {
    /// Make this call.
    Call(Call),
    /// This request has something new to look at.
    Wake(u32),
    /// Write this line.
    Log(LogLine),
}

/// What a reference asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Which secret.
    pub key: SecretKey,
    /// Which part or form of it.
    pub view: View,
    /// How long it may live for this reference.
    pub rules: CacheRules,
}

/// What there is for a [`Want`].
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A value.
    Value {
        /// It.
        value: SecretValue,
        /// Until when it may be used without another lookup.
        fresh_until: Timestamp,
        /// Where it came from.
        source: Source,
    },
    /// There is none.
    Failed {
        /// Why.
        reason: Reason,
        /// When to ask again; at most an hour.
        retry_after: Option<Span>,
        /// A failure that was remembered, or one of now.
        source: Source,
    },
    /// Not known: fetch it.
    Miss,
}

type FlightKey = (Lane, Subject);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Another worker fetches it; its lease ends then.
    Following {
        until: Timestamp,
    },
    WaitingForToken,
    Calling,
}

/// A fetch under way.
struct Flight {
    stage: Stage,
    started: Timestamp,
    waiters: Vec<u32>,
    /// For a secret: its entry, which is held as long as this flight is there.
    entry: Option<SlotId>,
    /// For a token: the secrets, in the same lane, that wait for it.
    secrets: Vec<SecretKey>,
    lease: Option<Lease>,
    call: Option<CallId>,
    /// For a token: calls made on the way to it.
    calls: u64,
    /// For a secret: a new token was asked for after a 401.
    renewed_token: bool,
    /// A broken connection was tried again.
    retried: bool,
}

impl Flight {
    const fn new(entry: Option<SlotId>, now: Timestamp) -> Self {
        Self {
            stage: Stage::Following { until: now },
            started: now,
            waiters: Vec::new(),
            entry,
            secrets: Vec::new(),
            lease: None,
            call: None,
            calls: 0,
            renewed_token: false,
            retried: false,
        }
    }

    const fn follows(&self) -> bool {
        matches!(self.stage, Stage::Following { .. })
    }
}

/// A call whose answer has not come.
struct Pending {
    flight: FlightKey,
    step: Step,
    sent_at: Timestamp,
    timeout: Span,
    /// The token that it was made with.
    token: Option<SecretValue>,
}

/// One worker's secrets, tokens and fetches under way.
pub struct Fetcher {
    config: Rc<Config>,
    identities: Vec<Identity>,
    /// For each vault of the configuration, its identity's number.
    identity_of: Vec<usize>,
    /// One for each identity that has a secret to make a key of.
    sealers: Vec<Option<Sealer>>,
    tokens: Vec<TokenState>,
    entries: Entries,
    names: Names,
    /// Vaults that asked for quiet, by their places in the configuration.
    holds: Vec<Option<Failed>>,
    /// Vaults that refuse their identity's fresh tokens.
    refusals: Vec<Option<Failed>>,
    budget: Budget,
    /// Entries whose fetch counts against the budget: all of them, and those never found before.
    paid: (usize, usize),
    flights: BTreeMap<FlightKey, Flight>,
    calls: HashMap<CallId, Pending>,
    next_call: u64,
    /// What each request waits for.
    waiting: HashMap<u32, Vec<FlightKey>>,
    /// To be fetched by the next tick, for requests that cannot wait.
    background: LinkedHashMap<SecretKey, CacheRules>,
    /// Fetches that were refused for the budget, and when; for the requests that asked.
    refused: LinkedHashMap<SecretKey, Timestamp>,
    /// Hashes of names that were found before.
    found_before: LinkedHashSet<SecretKey>,
    actions: VecDeque<Action>,
    epoch: u64,
    /// What is counted.
    pub metrics: Metrics,
    /// Which lines were written, and how often they came again.
    pub events: Events,
}

impl Fetcher {
    /// Nothing is fetched before the first event.
    #[must_use]
    pub fn new(config: Rc<Config>) -> Self {
        let mut identities: Vec<Identity> = Vec::new();
        let mut identity_of = Vec::new();
        for vault in &config.vaults {
            let known = identities.iter().position(|other| *other == vault.identity);
            identity_of.push(known.unwrap_or(identities.len()));
            if known.is_none() {
                identities.push(vault.identity.clone());
            }
        }
        let limits = &config.limits;
        Self {
            holds: vec![None; config.vaults.len()],
            refusals: vec![None; config.vaults.len()],
            budget: Budget::new(limits.fetches_per_second, limits.reserved_percent),
            metrics: Metrics::new(&config),
            events: Events::default(),
            entries: Entries::new(limits),
            names: listed_names(&config),
            sealers: identities.iter().map(Sealer::of).collect(),
            tokens: identities.iter().map(|_| TokenState::new(limits)).collect(),
            identities,
            identity_of,
            paid: (0, 0),
            flights: BTreeMap::new(),
            calls: HashMap::new(),
            next_call: 0,
            waiting: HashMap::new(),
            background: LinkedHashMap::new(),
            refused: LinkedHashMap::new(),
            found_before: LinkedHashSet::new(),
            actions: VecDeque::new(),
            epoch: 0,
            config,
        }
    }

    /// Changes with every change of any value.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Marks what the operator's configuration needs, to be fetched ahead and kept.
    pub fn pin(&mut self, want: &Want) {
        self.entries.pin(&want.key, &want.rules);
        self.names.list(&want.key);
    }

    /// What there is for `want` now. `since` is when the request that asks began to wait: a failure after
    /// that is its answer, an older one only while it holds. It inserts nothing and counts nothing.
    #[must_use]
    pub fn lookup(&self, want: &Want, since: Option<Timestamp>, now: Timestamp) -> Lookup {
        let refused = self.refused_since(&want.key, since, now);
        let Some(entry) = self.entries.by_key(&want.key) else {
            return refused;
        };
        let this_wait = |f: &Failed| f.at <= now && since.is_some_and(|since| f.at >= since);
        let failed = entry.record.failed.filter(|f| f.holds(now) || this_wait(f));
        let found = entry.record.found.as_ref();
        let life = found.map_or(Life::Over, |found| found.life(&want.rules, now));
        let serves = match life {
            Life::Fresh | Life::Stale => true,
            Life::Old => failed.is_some() || self.waits_no_longer(&want.key, since, now),
            Life::Over => false,
        };
        if let Some(found) = found.filter(|_| serves) {
            let rounds = self.config.limits.derivation_rounds;
            return match entry.view(&want.view, |secret, view| make_view(secret, view, rounds)) {
                Ok(value) => Lookup::Value {
                    value,
                    fresh_until: found.fresh_until(&want.rules),
                    source: entry.source(life, since),
                },
                Err(reason) => Lookup::Failed {
                    reason,
                    retry_after: None,
                    source: Source::Failed,
                },
            };
        }
        failed.map_or(refused, |failed| {
            let wait = failed.until.until(now);
            Lookup::Failed {
                reason: failed.reason,
                retry_after: (wait.0 > 0).then_some(wait),
                source: if this_wait(&failed) {
                    Source::Failed
                } else {
                    Source::Negative
                },
            }
        })
    }

    fn refused_since(&self, key: &SecretKey, since: Option<Timestamp>, now: Timestamp) -> Lookup {
        let at = self.refused.get(key).copied();
        if at.is_some_and(|at| at <= now && since.is_some_and(|since| at >= since)) {
            return Lookup::Failed {
                reason: Reason::TooManyFetches,
                retry_after: None,
                source: Source::Failed,
            };
        }
        Lookup::Miss
    }

    /// Whether a request gets an old value that the rules allow, rather than wait for its refresh
    /// (stale-while-revalidate): it waited long enough, the refresh takes long already, a tick makes it, or
    /// the vault is not called now.
    fn waits_no_longer(&self, key: &SecretKey, since: Option<Timestamp>, now: Timestamp) -> bool {
        let limit = self.config.limits.stale_wait;
        // A time later than now is of another clock.
        let long = |at: Timestamp| at > now || at.age(now) >= limit;
        let fetching = self.entries.by_key(key).and_then(|e| e.fetching_since);
        since.is_some_and(long)
            || fetching.is_some_and(long)
            || self.background.contains_key(key)
            || self.vault_waits(key.vault, now).is_some()
    }

    /// The failure for which a vault is not called now, as far as this worker knows.
    fn vault_waits(&self, vault: usize, now: Timestamp) -> Option<Failed> {
        let of = |list: &[Option<Failed>]| list.get(vault).copied().flatten();
        let holds = |failed: &Failed| failed.holds(now);
        of(&self.refusals)
            .filter(holds)
            .or_else(|| of(&self.holds).filter(holds))
    }

    /// A request used this: it is renewed ahead, and evicted later. Inserts nothing.
    pub fn mark_used(&mut self, want: &Want, _now: Timestamp) {
        let Some(id) = self.entries.find(&want.key) else {
            return;
        };
        self.entries.touch(id);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.used = true;
        }
    }

    /// The beginning of a line about a secret.
    #[must_use]
    pub fn about(&self, event: &str, key: &SecretKey) -> Line {
        report::about(event, &self.config, key)
    }

    /// Fetches what `want` asks for, or joins the fetch that is under way. `waiter` is woken when it ends.
    pub fn fetch(&mut self, want: &Want, lane: Lane, waiter: u32, now: &Now<'_>) {
        if lane != Lane::Worker && self.has_old_value(want, now.time) {
            // A request on WasmX cannot be woken before its own call is answered.
            self.fetch_in_background(want, now.time);
            return self.actions.push_back(Action::Wake(waiter));
        }
        self.start_secret(lane, &want.key, &want.rules, Some(waiter), now);
    }

    fn has_old_value(&self, want: &Want, now: Timestamp) -> bool {
        let entry = self.entries.by_key(&want.key);
        let found = entry.and_then(|entry| entry.record.found.as_ref());
        found.is_some_and(|found| found.life(&want.rules, now) == Life::Old)
    }

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

    /// Whether a fetch is under way that will wake this request.
    #[must_use]
    pub fn is_waiting(&self, waiter: u32) -> bool {
        self.waiting.contains_key(&waiter)
    }

    /// Forgets a request that is gone. What it waited for goes on, unless its calls went with it: others may
    /// wait too, and the next one finds it in the cache.
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
    fn end_flight(&mut self, key: &FlightKey) -> Option<Flight> {
        let mut flight = self.flights.remove(key)?;
        if let Some(call) = flight.call.take() {
            self.calls.remove(&call);
        }
        for waiter in &flight.waiters {
            if let Some(keys) = self.waiting.get_mut(waiter) {
                keys.retain(|other| other != key);
                if keys.is_empty() {
                    self.waiting.remove(waiter);
                }
            }
        }
        if let Some(id) = flight.entry {
            self.entries.release_budget(id, &mut self.paid);
            self.entries.release(id);
        }
        Some(flight)
    }

    /// Wakes those who wait for this flight, which goes on.
    fn wake_waiters(&mut self, key: &FlightKey) {
        let Some(flight) = self.flights.get_mut(key) else {
            return;
        };
        for waiter in std::mem::take(&mut flight.waiters) {
            if let Some(keys) = self.waiting.get_mut(&waiter) {
                keys.retain(|other| other != key);
                if keys.is_empty() {
                    self.waiting.remove(&waiter);
                }
            }
            self.actions.push_back(Action::Wake(waiter));
        }
    }

    /// Takes the answer to a call. One that nothing waits for any more is dropped.
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

    /// Renews what will soon be too old, and looks after fetches that other workers make.
    pub fn handle_tick(&mut self, now: &Now<'_>) {
        self.expire(now);
        for (key, rules) in self.due(now.time) {
            self.start_secret(Lane::Worker, &key, &rules, None, now);
        }
        self.renew_tokens(now);
        self.follow(now);
        self.wake_with_old_values(now.time);
    }

    /// What to do next; `None` until the next event.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Fetcher::handle_tick`] again.
    #[must_use]
    pub fn tick_period(&self) -> Span {
        let soon = !self.waiting.is_empty() && self.flights.values().any(|f| self.may_wake(f));
        if soon || self.flights.values().any(Flight::follows) {
            FOLLOWING_TICK
        } else {
            IDLE_TICK
        }
    }

    /// Whether a tick wakes those who wait for this flight, with an old value.
    fn may_wake(&self, flight: &Flight) -> bool {
        let entry = flight.entry.and_then(|id| self.entries.get(id));
        !flight.waiters.is_empty() && entry.is_some_and(|entry| entry.record.found.is_some())
    }

    fn wake_with_old_values(&mut self, now: Timestamp) {
        let limit = self.config.limits.stale_wait;
        let late = |at: Timestamp| at > now || at.age(now) >= limit;
        let keys: Vec<FlightKey> = self
            .flights
            .iter()
            .filter(|((lane, _), flight)| {
                *lane == Lane::Worker && late(flight.started) && self.may_wake(flight)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.wake_waiters(&key);
        }
    }

    /// Secrets in use that are to be fetched anew, pinned ones that are not there, and those that requests
    /// asked a tick to fetch.
    fn due(&mut self, now: Timestamp) -> Vec<(SecretKey, CacheRules)> {
        let mut due: Vec<_> = std::mem::take(&mut self.background).into_iter().collect();
        let scanned = self.entries.iter().filter(|(_, entry)| {
            let found = entry.record.found.as_ref();
            let missing = found.is_none_or(|f| f.life(&entry.rules, now) == Life::Over);
            let latest = now + entry.rules.ttl;
            // A time of renewal that is later than any can be is of another clock.
            let renew = entry.renew_at <= now
                || (entry.renew_at > latest && entry.rules.ttl != Span::FOREVER);
            let wanted = (entry.is_pinned() && missing)
                || ((entry.is_pinned() || entry.used) && !missing && renew);
            wanted && !entry.has_flight() && entry.record.held_until(now).is_none()
        });
        due.extend(scanned.map(|(_, entry)| (entry.key.clone(), entry.rules)));
        due
    }

    /// Wipes values that may not be served any more, and those that no request used for a whole ttl, as far
    /// as shared data still has them for the case that Azure fails. Takes times of another clock back.
    fn expire(&mut self, now: &Now<'_>) {
        let shared = now.shared.is_there();
        let ids: Vec<SlotId> = self.entries.iter().map(|(id, _)| id).collect();
        for id in ids {
            let Some(entry) = self.entries.get_mut(id) else {
                continue;
            };
            let of_another_clock = |found: &Found| found.fetched_at > now.time;
            if entry.record.found.as_ref().is_some_and(of_another_clock) {
                entry.record = std::mem::take(&mut entry.record).on_clock(&entry.rules, now.time);
                entry.renew_at = now.time;
                self.epoch += 1;
            }
            let life = |found: &Found| found.life(&entry.rules, now.time);
            match entry.record.found.as_ref().map(life) {
                Some(Life::Over) => entry.record.found = None,
                // With the failure that may hold it: half of what shared data says would be wrong.
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
            .filter(|(_, flight)| flight.follows())
            .map(|(key, _)| key.clone())
            .collect();
        for (lane, subject) in followed {
            match subject {
                Subject::Secret(key) => self.advance_secret(lane, &key, now),
                Subject::Token(identity) => self.advance_token(lane, identity, now),
            }
        }
    }

    /// One reset of a kept-alive connection is no failure: the same call is made once more at once, within
    /// the timeout in total.
    fn try_once_more(&mut self, pending: &Pending, answer: &Answer, now: &Now<'_>) -> bool {
        use crate::azure::http::CallFailure;
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

    /// Hands out a call for a flight.
    fn call(
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
        known.stage = Stage::Calling;
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
    /// a new configuration, takes over. Else its fetches would wait for those leases to end.
    pub fn release_leases(&mut self, now: &Now<'_>) {
        for flight in self.flights.values_mut() {
            if let Some(lease) = flight.lease.take() {
                lease.release(now);
            }
        }
    }
}

/// The names that the operator lists exactly in `allow`; clients did not make these up.
fn listed_names(config: &Config) -> Names {
    let mut names = Names::new(config.limits.shared_entries);
    let allowed = [&config.request.allow, &config.response.allow];
    for (prefix, name) in allowed.into_iter().flat_map(Policy::exact) {
        if let Some(vault) = config.vaults.iter().position(|v| v.prefix == prefix) {
            names.list(&SecretKey {
                vault,
                collection: forms::Collection::Secrets,
                name: name.to_ascii_lowercase(),
                version: None,
            });
        }
    }
    names
}

fn make_view(secret: &[u8], view: &View, most_rounds: u32) -> Result<SecretValue, Reason> {
    let formed = forms::make(view.form, secret, most_rounds)?;
    let selected = subkey::select(&formed, &view.keys).map_err(|_| Reason::NoSuchKey)?;
    if view.base64 {
        return crate::base64::decode(&selected)
            .map(SecretValue::new)
            .ok_or(Reason::NotBase64);
    }
    Ok(SecretValue::new(selected.to_vec()))
}

/// Remembers the newest of some keys.
fn remember<V>(map: &mut LinkedHashMap<SecretKey, V>, key: &SecretKey, value: V, most: usize) {
    map.insert(key.clone(), value);
    while map.len() > most {
        map.pop_front();
    }
}

/// The names that the operator lists.
type Listed = HashSet<SecretKey>;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
