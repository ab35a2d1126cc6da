//! What to do next so that references get their values: look in the worker's cache, then in shared data,
//! then ask Azure, once for everybody who waits. A state machine: it takes events and the time, and says
//! which calls to make and whom to wake. It never calls the host.
//!
//! ```text
//!   want(secret) -> in shared data?  -yes-> wake
//!                -> someone else fetches it (lease)? -> Following: look again at each tick
//!                -> token at hand?   -no-> a flight for the token, which this one waits for
//!                -> Calling: GET secret -> answer -> cache, shared data -> wake
//! ```

mod flights;

use alloc::borrow::ToOwned;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use crate::azure::forms;
use crate::azure::http::{Answer, HttpRequest};
use crate::azure::identity::{Circumstances, Identity, Progress, Step, Token};
use crate::azure::key_vault::{self, Refusal};
use crate::budget::Budget;
use crate::cache::{
    Failed, Found, Life, Packer, Record, SecretKey, Slots, Unpacker, View, renewal,
};
use crate::config::{CacheRules, Config};
pub use crate::events::LogLine;
use crate::events::{Events, Line};
use crate::failure::{Failure, Reason};
use crate::metrics::{Endpoint, Kind, Metrics, NEVER, Series, Source, Status};
use crate::seal::Sealer;
use crate::secret::SecretValue;
use crate::subkey;
use crate::time::{Span, Timestamp};
use flights::Flights;

/// First wait after a failure that may pass; doubles with each one in a row.
const FIRST_BACK_OFF: Span = Span::seconds(1);
/// Longest such wait.
const LONGEST_BACK_OFF: Span = Span::seconds(30);
/// A secret that is not there is remembered this long at least: whoever asks for names by the million
/// asks Azure once a second for each.
const SHORTEST_NEGATIVE: Span = Span::seconds(1);
/// How often to look whether another worker's fetch has ended.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A token, by the number of the identity.
    Token(usize),
    /// A secret, by its place.
    Secret(usize),
}

/// A call to make. Its answer comes back with `lane`, `subject` and `step`.
pub struct Call {
    /// Whose call this is.
    pub lane: Lane,
    /// What it fetches.
    pub subject: Subject,
    /// Which of the calls on the way to a token this is.
    pub step: Step,
    /// The request.
    pub request: HttpRequest,
}

/// What is to be done after an event.
#[derive(Default)]
pub struct Todo {
    /// Calls to make.
    pub calls: Vec<Call>,
    /// Requests that have something new to look at.
    pub woken: Vec<u32>,
    /// Lines for the log.
    pub log: Vec<LogLine>,
}

/// Data that all workers share. Without any, every method does nothing and says so.
pub trait Shared {
    /// The entry under this key, with the number that replaces it.
    fn read(&self, key: &str) -> Option<(zeroize::Zeroizing<Vec<u8>>, u32)>;
    /// Writes only if nothing is there (`None`) or what was read is there still. Whether it was written.
    fn write(&self, key: &str, entry: &[u8], over: Option<u32>) -> bool;
    /// Whether there is any shared data.
    fn is_there(&self) -> bool;
}

/// Time, chance and shared data, as they are during one event.
pub struct Now<'a> {
    /// The time.
    pub time: Timestamp,
    /// For jitter and request ids.
    pub random: &'a dyn Fn() -> u64,
    /// The workers' common store.
    pub shared: &'a dyn Shared,
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
pub enum Answered {
    /// The value, and until when nobody needs to ask again.
    Value(SecretValue, Timestamp),
    /// There is none.
    Failed(Reason, Option<Span>),
    /// Not known: fetch it.
    Unknown,
}

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Following { until: Timestamp },
    WaitingForToken,
    Calling,
}

struct Flight {
    stage: Stage,
    started: Timestamp,
    waiters: Vec<u32>,
    /// For a token: the secrets that wait for it.
    secrets: Vec<usize>,
    /// For a secret: a new token was asked for after a 401.
    renewed_token: bool,
    /// It was taken out of the budget for what traffic causes.
    budgeted: bool,
}

impl Flight {
    const fn new(stage: Stage, started: Timestamp) -> Self {
        Self {
            stage,
            started,
            waiters: Vec::new(),
            secrets: Vec::new(),
            renewed_token: false,
            budgeted: false,
        }
    }
}

#[derive(Default)]
struct TokenSlot {
    token: Option<Token>,
    /// A token that a vault refused: not to be taken from shared data again.
    refused: Option<SecretValue>,
    failure: Option<(Failure, Failed)>,
    used: bool,
    progress: Progress,
}

/// One worker's state of all secrets and tokens.
pub struct Resolver {
    config: Rc<Config>,
    identities: Vec<Identity>,
    /// One for each identity that has a secret to make a key of.
    sealers: Vec<Option<Sealer>>,
    tokens: Vec<TokenSlot>,
    slots: Slots,
    /// Vaults that asked for quiet, by their places in the configuration.
    holds: Vec<Option<Failed>>,
    budget: Budget,
    flights: Flights,
    epoch: u64,
    /// What is counted.
    pub metrics: Metrics,
    /// What is told.
    pub events: Events,
}

impl Resolver {
    /// Nothing is fetched before the first event.
    #[must_use]
    pub fn new(config: Rc<Config>) -> Self {
        let mut identities: Vec<Identity> = Vec::new();
        for vault in &config.vaults {
            if !identities.contains(&vault.identity) {
                identities.push(vault.identity.clone());
            }
        }
        let tokens = identities.iter().map(|_| TokenSlot::default()).collect();
        Self {
            holds: vec![None; config.vaults.len()],
            budget: Budget::new(config.limits.fetches_per_second),
            metrics: Metrics::new(&config),
            events: Events::default(),
            config,
            sealers: identities.iter().map(Sealer::of).collect(),
            identities,
            tokens,
            slots: Slots::default(),
            flights: Flights::default(),
            epoch: 0,
        }
    }

    /// Changes with every change of any value.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Marks what the operator's configuration needs, to be fetched ahead and kept.
    pub fn pin(&mut self, want: &Want) {
        let at = self.slots.place(&want.key, &want.rules, Timestamp(0));
        if let Some(slot) = self.slots.get_mut(at) {
            slot.shorten(&want.rules);
            slot.pinned = true;
        }
    }

    /// What there is for `want` now. `since` is when the request that asks began to wait: a failure after
    /// that is its answer, an older one only while it holds everybody back.
    pub fn answer(&mut self, want: &Want, since: Option<Timestamp>, now: Timestamp) -> Answered {
        let at = self.slots.place(&want.key, &want.rules, now);
        let Some(slot) = self.slots.get_mut(at) else {
            return Answered::Unknown;
        };
        slot.last_used = now;
        slot.used |= since.is_none();
        let failed = slot
            .record
            .failed
            .filter(|failed| failed.until > now || since.is_some_and(|since| failed.at >= since));
        let found = slot.record.found.as_ref();
        let life = found.map_or(Life::Over, |found| found.life(&want.rules, now));
        let fresh_until = found.map_or(now, |found| found.fresh_until(&want.rules));
        match (life, failed) {
            (Life::Fresh | Life::Stale, _) | (Life::Old, Some(_)) => {
                match slot.view(&want.view, make_view) {
                    Ok(value) => {
                        let source = slot.source(life, since);
                        self.metrics.saw(source, want.key.vault);
                        Answered::Value(value, fresh_until)
                    }
                    Err(reason) => {
                        self.metrics.saw(Source::Failed, want.key.vault);
                        Answered::Failed(reason, None)
                    }
                }
            }
            (_, Some(failed)) => {
                let now_failed = since.is_some_and(|since| failed.at >= since);
                let source = if now_failed {
                    Source::Failed
                } else {
                    Source::Negative
                };
                self.metrics.saw(source, want.key.vault);
                let wait = failed.until.until(now);
                Answered::Failed(failed.reason, (wait.0 > 0).then_some(wait))
            }
            (_, None) => Answered::Unknown,
        }
    }

    /// What a message got for `want` that came at `since`, for whoever only looks: it counts as no use.
    pub fn look(&mut self, want: &Want, since: Timestamp, now: Timestamp) -> Answered {
        let seen = self.metrics.seen();
        let answered = self.answer(want, Some(since), now);
        self.metrics.forget_after(seen);
        answered
    }

    /// Whether there is neither a value nor a failure for `want`.
    #[must_use]
    pub fn is_missing(&mut self, want: &Want, now: Timestamp) -> bool {
        self.look(want, now, now) == Answered::Unknown
    }

    /// The beginning of a line about a secret.
    #[must_use]
    pub fn about(&self, event: &str, key: &SecretKey) -> Line {
        about(event, &self.config, key)
    }

    /// Fetches what `want` asks for, or joins those who wait for it already.
    pub fn fetch(&mut self, want: &Want, lane: Lane, waiter: u32, now: &Now<'_>, todo: &mut Todo) {
        let at = self.slots.place(&want.key, &want.rules, now.time);
        if let Some(slot) = self.slots.get_mut(at) {
            slot.shorten(&want.rules);
        }
        self.start_secret(lane, at, Some(waiter), now, todo);
    }

    /// Has a tick fetch this, for somebody who cannot wait.
    pub fn wish(&mut self, want: &Want, now: Timestamp) {
        let at = self.slots.place(&want.key, &want.rules, now);
        let affordable = self.budget.take(now);
        if let Some(slot) = self.slots.get_mut(at) {
            slot.shorten(&want.rules);
            slot.wished |= affordable;
        }
    }

    /// Whether something is under way that will wake this request.
    #[must_use]
    pub fn awaits(&self, waiter: u32) -> bool {
        self.flights
            .values()
            .any(|flight| flight.waiters.contains(&waiter))
    }

    /// Forgets a request that is gone. What it waited for goes on: others may wait too, and the next one
    /// finds it in the cache.
    pub fn forget(&mut self, waiter: u32) {
        for flight in self.flights.values_mut() {
            flight.waiters.retain(|&other| other != waiter);
        }
        let secrets_of_its_own = |(lane, _): &(Lane, Subject)| *lane == Lane::Request(waiter);
        self.flights.retain(|key| !secrets_of_its_own(key));
    }

    /// Takes the answer to a call.
    pub fn answered(
        &mut self,
        lane: Lane,
        subject: Subject,
        step: Step,
        answer: &Answer,
        now: &Now<'_>,
        todo: &mut Todo,
    ) {
        self.count_call(subject, step, answer);
        match subject {
            Subject::Token(identity) => {
                self.token_answered(lane, identity, step, answer, now, todo);
            }
            Subject::Secret(at) => self.secret_answered(lane, at, answer, now, todo),
        }
    }

    /// Renews what will soon be too old, and looks after fetches that other workers make. Returns when
    /// to be called again.
    pub fn tick(&mut self, now: &Now<'_>, todo: &mut Todo) -> Span {
        for at in self.due(now.time) {
            if let Some(slot) = self.slots.get_mut(at) {
                slot.wished = false;
            }
            self.start_secret(Lane::Worker, at, None, now, todo);
        }
        for identity in 0..self.tokens.len() {
            let due = self.tokens.get(identity).is_some_and(|slot| {
                let renew = slot.token.as_ref().is_some_and(|t| t.renew_at <= now.time);
                let held = slot
                    .failure
                    .as_ref()
                    .is_some_and(|(_, f)| f.until > now.time);
                slot.used && renew && !held
            });
            if due {
                self.start_token(Lane::Worker, identity, None, now, todo);
            }
        }
        self.let_go(now);
        self.follow(now, todo);
        self.next_tick()
    }

    /// When to look again.
    #[must_use]
    pub fn next_tick(&self) -> Span {
        let following = |flight: &Flight| matches!(flight.stage, Stage::Following { .. });
        if self.flights.values().any(following) {
            FOLLOWING_TICK
        } else {
            IDLE_TICK
        }
    }

    /// Secrets in use that are to be fetched anew, and pinned ones that are not there.
    fn due(&self, now: Timestamp) -> Vec<usize> {
        let due = self.slots.iter().filter(|(at, slot)| {
            let missing = slot
                .record
                .found
                .as_ref()
                .is_none_or(|f| f.life(&slot.rules, now) == Life::Over);
            let wanted = ((slot.pinned || slot.wished) && missing)
                || ((slot.pinned || slot.used) && !missing && slot.renew_at <= now);
            wanted
                && slot.record.held_until(now).is_none()
                && !self
                    .flights
                    .contains_key(&(Lane::Worker, Subject::Secret(*at)))
        });
        due.map(|(at, _)| at).collect()
    }

    /// Wipes values that may not be served any more, and those that nobody used for a whole ttl, as far
    /// as shared data still has them for the case that Azure fails.
    fn let_go(&mut self, now: &Now<'_>) {
        let shared = now.shared.is_there();
        for slot in self.slots.iter_mut() {
            let life = |found: &Found| found.life(&slot.rules, now.time);
            match slot.record.found.as_ref().map(life) {
                Some(Life::Over) => slot.record.found = None,
                // With the failure that may hold it: half of what shared data says would be wrong.
                Some(Life::Old) if shared && !slot.used && !slot.pinned => {
                    slot.record = Record::default();
                }
                _ => continue,
            }
            slot.renewed(Timestamp(u64::MAX));
        }
    }

    fn follow(&mut self, now: &Now<'_>, todo: &mut Todo) {
        let followed: Vec<(Lane, Subject)> = self
            .flights
            .iter()
            .filter(|(_, flight)| matches!(flight.stage, Stage::Following { .. }))
            .map(|(key, _)| *key)
            .collect();
        for (lane, subject) in followed {
            match subject {
                Subject::Secret(at) => self.advance_secret(lane, at, now, todo),
                Subject::Token(identity) => self.advance_token(lane, identity, now, todo),
            }
        }
    }

    fn start_secret(
        &mut self,
        lane: Lane,
        at: usize,
        waiter: Option<u32>,
        now: &Now<'_>,
        todo: &mut Todo,
    ) {
        let key = (lane, Subject::Secret(at));
        if let Some(flight) = self.flights.get_mut(&key) {
            // A request may hold the same reference twice.
            if waiter.is_some_and(|waiter| !flight.waiters.contains(&waiter)) {
                flight.waiters.extend(waiter);
            }
            if matches!(flight.stage, Stage::Following { .. }) {
                self.advance_secret(lane, at, now, todo);
            }
            return;
        }
        let mut flight = Flight::new(Stage::Following { until: now.time }, now.time);
        flight.waiters.extend(waiter);
        self.flights.insert(key, flight);
        self.advance_secret(lane, at, now, todo);
    }

    /// A flight that has not called yet: somebody else's result, somebody else's lease, or our call.
    fn advance_secret(&mut self, lane: Lane, at: usize, now: &Now<'_>, todo: &mut Todo) {
        let Some(started) = self
            .flights
            .get(&(lane, Subject::Secret(at)))
            .map(|f| f.started)
        else {
            return;
        };
        match self.adopt_shared(at, started, now) {
            Adopted::Answer => return self.finish_secret(lane, at, todo),
            // A request on WasmX goes on now, which it must not with a call of its own under way: that takes
            // the worker down. A tick renews the value.
            Adopted::Usable if lane != Lane::Worker => return self.finish_secret(lane, at, todo),
            // Nobody has to wait for a renewal.
            Adopted::Usable => self.wake_waiters(lane, at, todo),
            Adopted::Nothing => {}
        }
        let Some(slot) = self.slots.get_mut(at) else {
            return;
        };
        let Some(vault) = self.config.vaults.get(slot.key.vault) else {
            return;
        };
        let lease = calls_take(vault.timeout, 1 + vault.identity.most_calls());
        let name = lease_name(&shared_name(vault.uri.host(), &vault.identity, &slot.key));
        let vault = slot.key.vault;
        if let Some(hold) = self.hold(vault, now) {
            return self.secret_held(lane, at, &hold, todo);
        }
        if !self.affords(lane, at, now.time) {
            return self.too_many(lane, at, now.time, todo);
        }
        match take_lease(lane, &name, lease, now) {
            Lease::Ours => self.call_secret(lane, at, now, todo),
            Lease::Until(until) => {
                self.set_stage(lane, Subject::Secret(at), Stage::Following { until })
            }
        }
    }

    /// Whether this fetch is the operator's, or traffic may still cause one. Several requests' calls for
    /// one secret count as one.
    fn affords(&mut self, lane: Lane, at: usize, now: Timestamp) -> bool {
        let pinned = self.slots.get_mut(at).is_some_and(|slot| slot.pinned);
        let paid = || self.flights.iter().filter(|(_, flight)| flight.budgeted);
        let in_flight = paid().count();
        let known = paid().any(|((_, subject), _)| *subject == Subject::Secret(at));
        let Some(flight) = self.flights.get_mut(&(lane, Subject::Secret(at))) else {
            return true;
        };
        if pinned || known || flight.waiters.is_empty() {
            return true;
        }
        let affordable = in_flight < self.config.limits.fetches_in_flight && self.budget.take(now);
        flight.budgeted = affordable;
        affordable
    }

    /// A failure for those who wait now, and for nobody else.
    fn too_many(&mut self, lane: Lane, at: usize, now: Timestamp, todo: &mut Todo) {
        if let Some(slot) = self.slots.get_mut(at) {
            let attempts = slot.record.failed.map_or(0, |failed| failed.attempts);
            slot.record.failed = Some(Failed {
                reason: Reason::TooManyFetches,
                at: now,
                until: now,
                attempts,
            });
        }
        self.finish_secret(lane, at, todo);
    }

    /// Whether the vault asked everybody to wait, here or at another worker.
    fn hold(&mut self, vault: usize, now: &Now<'_>) -> Option<Failed> {
        let name = hold_name(self.config.vaults.get(vault)?.uri.host());
        let hold = self.holds.get_mut(vault)?;
        let shared = now.shared.read(&name);
        let shared = shared.and_then(|(entry, _)| Record::unpack(&name, &entry)?.failed);
        let latest = |failed: Option<Failed>| failed.map(|f| f.until);
        if latest(shared) > latest(*hold) {
            *hold = shared;
        }
        hold.filter(|failed| failed.until > now.time)
    }

    /// Holds back every call to a vault that is too busy.
    fn hold_vault(&mut self, at: usize, failure: &Failure, now: &Now<'_>, todo: &mut Todo) {
        let Some(vault) = self.slots.get_mut(at).map(|slot| slot.key.vault) else {
            return;
        };
        let known = self.hold(vault, now);
        let (Some(hold), Some(place)) = (self.holds.get_mut(vault), self.config.vaults.get(vault))
        else {
            return;
        };
        // Of calls that were under way together, the first one counts.
        let attempts = match (known, *hold) {
            (Some(known), _) => known.attempts,
            (None, before) => before.map_or(1, |f| f.attempts.saturating_add(1)),
        };
        let until = now.time + back_off(failure, attempts, (now.random)());
        let failed = Failed {
            reason: failure.reason,
            at: now.time,
            until: until.max(known.map_or(until, |f| f.until)),
            attempts,
        };
        *hold = Some(failed);
        let record = Record {
            found: None,
            failed: Some(failed),
        };
        let name = hold_name(place.uri.host());
        put(now.shared, &name, &record.pack(&name));
        if known.is_none() {
            let head = Line::new("vault_held").word("vault", &place.prefix);
            let head = head.word("reason", failure.reason.as_str()).end();
            if self.events.first(&head, true, now.time) {
                let line = Line::of(&head).word("azure_request_id", failure.request_id());
                let wait = failed.until.until(now.time).ceil_seconds();
                todo.log.push(LogLine {
                    warning: true,
                    text: line.number("for_s", wait).end(),
                });
            }
        }
    }

    /// The secret has to wait as its whole vault does.
    fn secret_held(&mut self, lane: Lane, at: usize, hold: &Failed, todo: &mut Todo) {
        if let Some(slot) = self.slots.get_mut(at) {
            slot.record.failed = Some(*hold);
        }
        self.finish_secret(lane, at, todo);
    }

    fn set_stage(&mut self, lane: Lane, subject: Subject, stage: Stage) {
        if let Some(flight) = self.flights.get_mut(&(lane, subject)) {
            flight.stage = stage;
        }
    }

    /// Takes over what shared data knows of this secret.
    fn adopt_shared(&mut self, at: usize, started: Timestamp, now: &Now<'_>) -> Adopted {
        self.merge_shared(at, now);
        let Some(slot) = self.slots.get_mut(at) else {
            return Adopted::Nothing;
        };
        let life = |found: &Found| found.life(&slot.rules, now.time);
        let life = slot.record.found.as_ref().map_or(Life::Over, life);
        let failed = slot.record.failed;
        if failed.is_some_and(|f| f.until > now.time || f.at > started)
            || (life == Life::Fresh && slot.renew_at > now.time)
        {
            Adopted::Answer
        } else if matches!(life, Life::Fresh | Life::Stale) {
            Adopted::Usable
        } else {
            Adopted::Nothing
        }
    }

    /// Takes over from shared data what it knows better.
    fn merge_shared(&mut self, at: usize, now: &Now<'_>) {
        let Some(slot) = self.slots.get_mut(at) else {
            return;
        };
        let Some(vault) = self.config.vaults.get(slot.key.vault) else {
            return;
        };
        let name = shared_name(vault.uri.host(), &vault.identity, &slot.key);
        let sealer = sealer_of(&self.identities, &self.sealers, &vault.identity);
        let Some(shared) = get(now, sealer, &name).and_then(|e| Record::unpack(&name, &e)) else {
            return;
        };
        if slot.record.merge(shared)
            && let Some(found) = &slot.record.found
        {
            slot.renewed(renewal(found.fetched_at, &slot.rules, (now.random)()));
            slot.came = Some((Source::Shared, now.time));
            self.epoch += 1;
        }
    }

    fn wake_waiters(&mut self, lane: Lane, at: usize, todo: &mut Todo) {
        if let Some(flight) = self.flights.get_mut(&(lane, Subject::Secret(at))) {
            todo.woken.append(&mut flight.waiters);
        }
    }

    fn call_secret(&mut self, lane: Lane, at: usize, now: &Now<'_>, todo: &mut Todo) {
        let Some(identity) = self.identity_of(at) else {
            return;
        };
        match self.usable_token(identity, now) {
            Some(token) => self.send_secret(lane, at, &token, now, todo),
            None => {
                self.set_stage(lane, Subject::Secret(at), Stage::WaitingForToken);
                self.start_token(lane, identity, Some(at), now, todo);
            }
        }
    }

    fn identity_of(&mut self, at: usize) -> Option<usize> {
        let vault = self.slots.get_mut(at)?.key.vault;
        let identity = &self.config.vaults.get(vault)?.identity;
        self.identities.iter().position(|other| other == identity)
    }

    fn send_secret(
        &mut self,
        lane: Lane,
        at: usize,
        token: &SecretValue,
        now: &Now<'_>,
        todo: &mut Todo,
    ) {
        let Some(slot) = self.slots.get_mut(at) else {
            return;
        };
        let Some(vault) = self.config.vaults.get(slot.key.vault) else {
            return;
        };
        let id = request_id(now);
        let request = key_vault::secret_request(
            vault,
            slot.key.collection,
            &slot.key.name,
            slot.key.version.as_deref(),
            token,
            &id,
        );
        let subject = Subject::Secret(at);
        self.set_stage(lane, subject, Stage::Calling);
        todo.calls.push(Call {
            lane,
            subject,
            step: Step::Token,
            request,
        });
    }

    fn usable_token(&mut self, identity: usize, now: &Now<'_>) -> Option<SecretValue> {
        let slot = self.tokens.get_mut(identity)?;
        let usable = |token: &Token| token.expires_at > now.time;
        if !slot.token.as_ref().is_some_and(usable) {
            let name = token_name(self.identities.get(identity)?);
            let sealer = self.sealers.get(identity).and_then(Option::as_ref);
            let shared = get(now, sealer, &name).and_then(|e| unpack_token(&name, &e))?;
            if !usable(&shared) || slot.refused.as_ref() == Some(&shared.value) {
                return None;
            }
            slot.token = Some(shared);
        }
        slot.used = true;
        slot.token.as_ref().map(|token| token.value.clone())
    }

    fn start_token(
        &mut self,
        lane: Lane,
        identity: usize,
        secret: Option<usize>,
        now: &Now<'_>,
        todo: &mut Todo,
    ) {
        let key = (lane, Subject::Token(identity));
        if let Some(flight) = self.flights.get_mut(&key) {
            flight.secrets.extend(secret);
            return;
        }
        let held = self
            .tokens
            .get(identity)
            .and_then(|slot| slot.failure.as_ref());
        if let Some((failure, _)) = held.filter(|(_, failed)| failed.until > now.time) {
            let failure = for_want_of_a_token(failure);
            if let Some(at) = secret {
                self.secret_failed(lane, at, &failure, now, todo);
            }
            return;
        }
        let mut flight = Flight::new(Stage::Following { until: now.time }, now.time);
        flight.secrets.extend(secret);
        self.flights.insert(key, flight);
        self.advance_token(lane, identity, now, todo);
    }

    fn advance_token(&mut self, lane: Lane, identity: usize, now: &Now<'_>, todo: &mut Todo) {
        let Some((name, most_calls)) = self
            .identities
            .get(identity)
            .map(|who| (token_name(who), who.most_calls()))
        else {
            return;
        };
        if self.adopt_shared_token(identity, &name, now) {
            return self.finish_token(lane, identity, None, now, todo);
        }
        let length = calls_take(self.token_timeout(identity), most_calls);
        match take_lease(lane, &lease_name(&name), length, now) {
            Lease::Ours => self.call_token(lane, identity, now, todo),
            Lease::Until(until) => {
                self.set_stage(lane, Subject::Token(identity), Stage::Following { until });
            }
        }
    }

    /// The next call on the way to a token.
    fn call_token(&mut self, lane: Lane, identity: usize, now: &Now<'_>, todo: &mut Todo) {
        let timeout = self.token_timeout(identity);
        let (Some(who), Some(slot)) = (self.identities.get(identity), self.tokens.get(identity))
        else {
            return;
        };
        let circumstances = Circumstances {
            now: now.time,
            timeout,
            id: &request_id(now),
            random: now.random,
        };
        match who.next(&slot.progress, &circumstances) {
            Ok((request, step)) => {
                let subject = Subject::Token(identity);
                self.set_stage(lane, subject, Stage::Calling);
                todo.calls.push(Call {
                    lane,
                    subject,
                    step,
                    request,
                });
            }
            Err(failure) => self.token_failed(lane, identity, &failure, now, todo),
        }
    }

    /// The shortest timeout of the vaults that this identity reads.
    fn token_timeout(&self, identity: usize) -> Span {
        let identity = self.identities.get(identity);
        let vaults = self
            .config
            .vaults
            .iter()
            .filter(|v| Some(&v.identity) == identity);
        vaults.map(|v| v.timeout).min().unwrap_or(Span::seconds(5))
    }

    fn adopt_shared_token(&mut self, identity: usize, name: &str, now: &Now<'_>) -> bool {
        let Some(slot) = self.tokens.get_mut(identity) else {
            return false;
        };
        let sealer = self.sealers.get(identity).and_then(Option::as_ref);
        let Some(shared) = get(now, sealer, name).and_then(|e| unpack_token(name, &e)) else {
            return false;
        };
        if shared.renew_at <= now.time || slot.refused.as_ref() == Some(&shared.value) {
            return false;
        }
        slot.token = Some(shared);
        true
    }

    fn token_answered(
        &mut self,
        lane: Lane,
        identity: usize,
        step: Step,
        answer: &Answer,
        now: &Now<'_>,
        todo: &mut Todo,
    ) {
        let (Some(who), Some(slot)) =
            (self.identities.get(identity), self.tokens.get_mut(identity))
        else {
            return;
        };
        match who.read(step, answer, &mut slot.progress, now.time) {
            Ok(Some(token)) => {
                self.metrics.count(Series::Tokens(Kind::of(who)));
                todo.log
                    .extend(token_told(&mut self.events, who, &token, now.time));
                let name = token_name(who);
                let sealer = self.sealers.get(identity).and_then(Option::as_ref);
                put_sealed(now, sealer, &name, &pack_token(&name, &token));
                *slot = TokenSlot {
                    token: Some(token),
                    progress: core::mem::take(&mut slot.progress),
                    ..TokenSlot::default()
                };
                release_lease(lane, &lease_name(&name), now);
                self.finish_token(lane, identity, None, now, todo);
            }
            // A request that is gone has no flight any more, and nothing to go on for.
            Ok(None) if self.flights.contains_key(&(lane, Subject::Token(identity))) => {
                if let Some(warning) = slot.progress.take_warning() {
                    let line = Line::new("client_secret_refused").words(&who.describe());
                    todo.log.push(LogLine {
                        warning: true,
                        text: line.quoted("detail", warning).end(),
                    });
                }
                self.call_token(lane, identity, now, todo);
            }
            Ok(None) => {}
            Err(failure) => self.token_failed(lane, identity, &failure, now, todo),
        }
    }

    fn token_failed(
        &mut self,
        lane: Lane,
        identity: usize,
        failure: &Failure,
        now: &Now<'_>,
        todo: &mut Todo,
    ) {
        let Some(name) = self.identities.get(identity).map(token_name) else {
            return;
        };
        self.log_token_failure(identity, failure, now, todo);
        release_lease(lane, &lease_name(&name), now);
        self.finish_token(lane, identity, Some(failure), now, todo);
    }

    fn log_token_failure(
        &mut self,
        identity: usize,
        failure: &Failure,
        now: &Now<'_>,
        todo: &mut Todo,
    ) {
        let (Some(who), Some(slot)) =
            (self.identities.get(identity), self.tokens.get_mut(identity))
        else {
            return;
        };
        let attempts = slot
            .failure
            .as_ref()
            .map_or(1, |(_, f)| f.attempts.saturating_add(1));
        let until = now.time + back_off(failure, attempts, (now.random)());
        let failed = Failed {
            reason: failure.reason,
            at: now.time,
            until,
            attempts,
        };
        slot.failure = Some((failure.clone(), failed));
        self.metrics.count(Series::TokenFailures(failure.reason));
        let head = Line::new("token_failed").words(&who.describe());
        let head = head.word("reason", failure.reason.as_str()).end();
        if self.events.first(&head, true, now.time) {
            let line = Line::of(&head)
                .word("azure_request_id", failure.request_id())
                .number("next_try_in_s", until.until(now.time).ceil_seconds());
            todo.log.push(LogLine {
                warning: true,
                text: line.quoted("detail", &failure.detail).end(),
            });
        }
    }

    /// Lets the secrets go on that waited for this token.
    fn finish_token(
        &mut self,
        lane: Lane,
        identity: usize,
        failure: Option<&Failure>,
        now: &Now<'_>,
        todo: &mut Todo,
    ) {
        let Some(flight) = self.flights.remove(&(lane, Subject::Token(identity))) else {
            return;
        };
        for at in flight.secrets {
            match (failure, self.usable_token(identity, now)) {
                (_, Some(token)) => self.send_secret(lane, at, &token, now, todo),
                (Some(failure), None) => {
                    self.secret_failed(lane, at, &for_want_of_a_token(failure), now, todo);
                }
                (None, None) => {
                    let failure = Failure::new(Reason::Credentials, "the token expired as it came");
                    self.secret_failed(lane, at, &failure, now, todo);
                }
            }
        }
    }

    fn secret_answered(
        &mut self,
        lane: Lane,
        at: usize,
        answer: &Answer,
        now: &Now<'_>,
        todo: &mut Todo,
    ) {
        let Some(slot) = self.slots.get_mut(at) else {
            return;
        };
        let Some(vault) = self.config.vaults.get(slot.key.vault) else {
            return;
        };
        match key_vault::read_secret(vault, slot.key.collection, answer, now.time) {
            Ok(secret) => {
                let warning = key_vault::date_warning(vault, slot.key.collection, answer, now.time);
                if let Some(reason) = warning {
                    let line = about("secret_out_of_dates", &self.config, &slot.key);
                    let head = line.word("reason", reason.as_str()).end();
                    if self.events.first(&head, slot.pinned, now.time) {
                        let line = Line::of(&head)
                            .quoted("detail", "served because of dates: warn; set a new version");
                        todo.log.push(LogLine {
                            warning: true,
                            text: line.end(),
                        });
                    }
                }
                let before = slot.record.found.as_ref().map(|f| &f.secret.value);
                if before.is_some_and(|before| *before != secret.value) {
                    todo.log.push(LogLine {
                        warning: false,
                        text: about("secret_changed", &self.config, &slot.key).end(),
                    });
                }
                let failing = about("secret_failed", &self.config, &slot.key);
                let failing = failing.words("reason=").end();
                if let Some(over) = self.events.over(&failing) {
                    let line = about("secret_recovered", &self.config, &slot.key);
                    todo.log.push(recovered(line, over));
                }
                let found = Found {
                    secret,
                    fetched_at: now.time,
                };
                slot.record = Record {
                    found: Some(found),
                    failed: None,
                };
                slot.renewed(renewal(now.time, &slot.rules, (now.random)()));
                slot.came = Some((Source::Fetched, now.time));
                if let Some(hold) = self.holds.get_mut(slot.key.vault) {
                    // It answers again: the next wait starts small.
                    *hold = hold.filter(|failed| failed.until > now.time);
                }
                self.epoch += 1;
                self.publish(lane, at, now);
                self.finish_secret(lane, at, todo);
            }
            Err(Refusal::Token { failure, claims }) => {
                self.token_refused(lane, at, &failure, claims, now, todo);
            }
            Err(Refusal::Other(failure)) => {
                if failure.holds_vault {
                    self.hold_vault(at, &failure, now, todo);
                }
                self.secret_failed(lane, at, &failure, now, todo);
            }
        }
    }

    /// 401: the token may have been revoked. A new one is tried once.
    fn token_refused(
        &mut self,
        lane: Lane,
        at: usize,
        failure: &Failure,
        claims: Option<String>,
        now: &Now<'_>,
        todo: &mut Todo,
    ) {
        let identity = self.identity_of(at);
        let flight = self.flights.get_mut(&(lane, Subject::Secret(at)));
        let (Some(identity), Some(flight)) = (identity, flight) else {
            return;
        };
        if core::mem::replace(&mut flight.renewed_token, true) {
            return self.secret_failed(lane, at, failure, now, todo);
        }
        if let Some(slot) = self.tokens.get_mut(identity) {
            slot.progress.forget_tenant();
            if let Some(claims) = claims {
                slot.progress.ask_for_claims(claims);
            }
            slot.refused = slot
                .token
                .take()
                .map(|token| token.value)
                .or_else(|| slot.refused.take());
        }
        self.call_secret(lane, at, now, todo);
    }

    fn secret_failed(
        &mut self,
        lane: Lane,
        at: usize,
        failure: &Failure,
        now: &Now<'_>,
        todo: &mut Todo,
    ) {
        let Some(slot) = self.slots.get_mut(at) else {
            return;
        };
        let attempts = slot
            .record
            .failed
            .map_or(1, |f| f.attempts.saturating_add(1));
        let usable = |found: &Found| found.life(&slot.rules, now.time) != Life::Over;
        let usable = slot.record.found.as_ref().is_some_and(usable);
        let hold = match failure.reason {
            Reason::NotFound | Reason::Disabled | Reason::Expired | Reason::NotYetValid
                if !usable =>
            {
                slot.rules.neg_ttl.max(SHORTEST_NEGATIVE)
            }
            _ => back_off(failure, attempts, (now.random)()),
        };
        let failed = Failed {
            reason: failure.reason,
            at: now.time,
            until: now.time + hold,
            attempts,
        };
        slot.record.failed = Some(failed);
        self.metrics.secret_failed(&slot.key, failure.reason);
        let head = about("secret_failed", &self.config, &slot.key);
        let head = head.word("reason", failure.reason.as_str()).end();
        if self.events.first(&head, slot.pinned, now.time) {
            let line = Line::of(&head)
                .word("azure_request_id", failure.request_id())
                .word("stale", if usable { "true" } else { "false" })
                .number("next_try_in_s", hold.ceil_seconds());
            todo.log.push(LogLine {
                warning: true,
                text: line.quoted("detail", &failure.detail).end(),
            });
        }
        self.publish(lane, at, now);
        self.finish_secret(lane, at, todo);
    }

    /// Writes what is known to shared data and ends the lease.
    fn publish(&mut self, lane: Lane, at: usize, now: &Now<'_>) {
        // Another worker may have written while our call was under way: the newest value stays.
        self.merge_shared(at, now);
        let Some(slot) = self.slots.get_mut(at) else {
            return;
        };
        let Some(vault) = self.config.vaults.get(slot.key.vault) else {
            return;
        };
        let name = shared_name(vault.uri.host(), &vault.identity, &slot.key);
        let sealer = sealer_of(&self.identities, &self.sealers, &vault.identity);
        put_sealed(now, sealer, &name, &slot.record.pack(&name));
        release_lease(lane, &lease_name(&name), now);
    }

    fn count_call(&mut self, subject: Subject, step: Step, answer: &Answer) {
        let (endpoint, vault) = match subject {
            Subject::Token(identity) => match self.identities.get(identity) {
                Some(identity) => (Endpoint::of_token(identity, step), None),
                None => return,
            },
            Subject::Secret(at) => match self.slots.get_mut(at) {
                Some(slot) => {
                    let endpoint = Endpoint::of_vault(slot.key.collection);
                    (endpoint, Some(slot.key.vault))
                }
                None => return,
            },
        };
        let status = Status::of(answer);
        self.metrics.count(Series::Calls(endpoint, status, vault));
    }

    /// How things stand: what is held, what is held back, and what ends soon.
    pub fn standing(&mut self, now: Timestamp) -> Vec<(Series, u64)> {
        let (mut entries, mut bytes) = (0, 0);
        let mut vaults = vec![(NEVER, 0); self.config.vaults.len()];
        let mut standing = Vec::new();
        for (_, slot) in self.slots.iter() {
            let Some((nearest, held)) = vaults.get_mut(slot.key.vault) else {
                continue;
            };
            *held += u64::from(slot.record.held_until(now).is_some());
            let Some(found) = &slot.record.found else {
                continue;
            };
            entries += 1;
            bytes += found.secret.value.expose().len() as u64;
            if let Some(end) = found.secret.expires_at {
                let left = end.until(now).0 / 1000;
                *nearest = left.min(*nearest);
                if let Some(name) = self.metrics.name_of(&slot.key) {
                    standing.push((Series::NamedExpiry(name), left));
                }
            }
        }
        standing.push((Series::CacheEntries, entries));
        standing.push((Series::CacheBytes, bytes));
        for (vault, (nearest, held)) in vaults.into_iter().enumerate() {
            let hold = self.holds.get(vault).copied().flatten();
            let hold = hold.is_some_and(|failed| failed.until > now);
            standing.push((Series::SecretExpiry(vault), nearest));
            standing.push((Series::SecretBackoffs(vault), held));
            standing.push((Series::VaultBackoffs(vault), u64::from(hold)));
        }
        let (left, held) = self.tokens_standing(now);
        standing.push((Series::TokenExpiry, left));
        standing.push((Series::TokenBackoffs, held));
        standing
    }

    /// Seconds to the end of the token that ends first, and how many are not asked for now. A token that
    /// nobody uses is not renewed before somebody does, and may end unnoticed.
    fn tokens_standing(&self, now: Timestamp) -> (u64, u64) {
        let (mut left, mut held) = (NEVER, 0);
        for slot in &self.tokens {
            if let Some(token) = slot.token.as_ref().filter(|_| slot.used) {
                left = left.min(token.expires_at.until(now).0 / 1000);
            }
            let failed = slot.failure.as_ref().map(|(_, failed)| failed);
            held += u64::from(failed.is_some_and(|failed| failed.until > now));
        }
        (left, held)
    }

    fn finish_secret(&mut self, lane: Lane, at: usize, todo: &mut Todo) {
        if let Some(flight) = self.flights.remove(&(lane, Subject::Secret(at))) {
            todo.woken.extend(flight.waiters);
        }
    }
}

/// The beginning of a line about a secret, certificate or key.
fn about(event: &str, config: &Config, key: &SecretKey) -> Line {
    let vault = config.vaults.get(key.vault);
    let line = Line::new(event).word("vault", vault.map_or("", |v| v.prefix.as_str()));
    line.word(key.collection.as_str().trim_end_matches('s'), &key.name)
}

/// The token's failure was told with all that there is to it.
fn for_want_of_a_token(failure: &Failure) -> Failure {
    Failure {
        detail: "there is no token; see event=token_failed".to_owned(),
        ..failure.clone()
    }
}

fn recovered(line: Line, (since, failures): (Timestamp, u64)) -> LogLine {
    let line = line.number("failures", failures);
    LogLine {
        // As loud as what it ends.
        warning: true,
        text: line.word("since", &since.utc()).end(),
    }
}

fn token_told(events: &mut Events, who: &Identity, token: &Token, now: Timestamp) -> Vec<LogLine> {
    let who = who.describe();
    let left = token.expires_at.until(now).ceil_seconds();
    let renewed = Line::new("token_renewed").words(&who);
    let mut lines = vec![LogLine {
        warning: false,
        text: renewed.number("expires_in_s", left).end(),
    }];
    let failing = Line::new("token_failed").words(&who).words("reason=").end();
    if let Some(over) = events.over(&failing) {
        lines.push(recovered(Line::new("token_recovered").words(&who), over));
    }
    lines
}

fn make_view(secret: &[u8], view: &View) -> Result<SecretValue, Reason> {
    let formed = forms::make(view.form, secret)?;
    let selected = subkey::select(&formed, &view.keys).map_err(|_| Reason::NoSuchKey)?;
    if view.base64 {
        return crate::base64::decode(&selected)
            .map(SecretValue::new)
            .ok_or(Reason::NotBase64);
    }
    Ok(SecretValue::new(selected.to_vec()))
}

/// Doubles with every attempt, up to half of it left to chance; never shorter than Azure asked for.
fn back_off(failure: &Failure, attempts: u32, random: u64) -> Span {
    let doubled = FIRST_BACK_OFF
        .0
        .saturating_mul(1 << attempts.saturating_sub(1).min(10));
    let longest = doubled.min(LONGEST_BACK_OFF.0);
    let scattered = Span(longest / 2 + random % (longest / 2 + 1));
    scattered.max(failure.retry_after.unwrap_or_default())
}

/// A UUID (version 4, RFC 9562), as Azure's `x-ms-client-request-id` wants it.
fn request_id(now: &Now<'_>) -> String {
    let (high, low) = ((now.random)(), (now.random)());
    let (high, low) = (high & !0xf000 | 0x4000, low & !(3 << 62) | 2 << 62);
    let mut id = String::with_capacity(36);
    // Writing to a String does not fail.
    let _ = write!(
        id,
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    );
    id
}

/// The key in shared data: vault, identity, kind, name and version, so that no identity reads what
/// another one fetched.
fn shared_name(vault: &str, identity: &Identity, key: &SecretKey) -> String {
    let version = key.version.as_deref().unwrap_or("");
    format!(
        "akv/{}/{vault}/{}/{}/{version}",
        key.collection.as_str(),
        identity.name(),
        key.name
    )
}

fn token_name(identity: &Identity) -> String {
    format!("akv/token/{}/{}", identity.name(), identity.scope)
}

fn hold_name(vault: &str) -> String {
    format!("akv/hold/{vault}")
}

/// How long this many calls, each within its timeout, can take; and a second for the host.
const fn calls_take(timeout: Span, calls: u64) -> Span {
    Span(timeout.0.saturating_mul(calls).saturating_add(1000))
}

fn lease_name(name: &str) -> String {
    format!("{name}#lease")
}

fn pack_token(name: &str, token: &Token) -> zeroize::Zeroizing<Vec<u8>> {
    let mut packer = Packer::new(name);
    packer.number(token.renew_at.0);
    packer.number(token.expires_at.0);
    packer.bytes(token.value.expose());
    packer.finish()
}

fn unpack_token(name: &str, entry: &[u8]) -> Option<Token> {
    let mut unpacker = Unpacker::new(name, entry)?;
    Some(Token {
        renew_at: Timestamp(unpacker.number()?),
        expires_at: Timestamp(unpacker.number()?),
        value: SecretValue::new(unpacker.bytes()?.to_vec()),
    })
}

/// Writes whatever is there now; another writer at the same moment has fetched just as lately.
fn put(shared: &dyn Shared, name: &str, entry: &[u8]) {
    for _ in 0..3 {
        let over = shared.read(name).map(|(_, cas)| cas);
        if shared.write(name, entry, over) {
            return;
        }
    }
}

fn sealer_of<'s>(
    identities: &[Identity],
    sealers: &'s [Option<Sealer>],
    identity: &Identity,
) -> Option<&'s Sealer> {
    let at = identities.iter().position(|other| other == identity)?;
    sealers.get(at)?.as_ref()
}

/// An entry that holds a secret, opened if its identity seals.
fn get(now: &Now<'_>, sealer: Option<&Sealer>, name: &str) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let (entry, _) = now.shared.read(name)?;
    match sealer {
        Some(sealer) => sealer.open(name, &entry),
        None => Some(entry),
    }
}

fn put_sealed(now: &Now<'_>, sealer: Option<&Sealer>, name: &str, entry: &[u8]) {
    if !now.shared.is_there() {
        return;
    }
    match sealer {
        Some(sealer) => {
            if let Some(sealed) = sealer.seal(name, entry, now.random) {
                put(now.shared, name, &sealed);
            }
        }
        None => put(now.shared, name, entry),
    }
}

enum Lease {
    Ours,
    Until(Timestamp),
}

/// The right to fetch, for a while. A request's own lane needs none: it cannot wait for others anyway.
fn take_lease(lane: Lane, name: &str, length: Span, now: &Now<'_>) -> Lease {
    if lane != Lane::Worker || !now.shared.is_there() {
        return Lease::Ours;
    }
    let current = now.shared.read(name);
    if let Some(until) = current
        .as_ref()
        .and_then(|(entry, _)| unpack_lease(name, entry))
    {
        // One that ends later than any could is from another clock.
        if until > now.time && until <= now.time + length {
            return Lease::Until(until);
        }
    }
    let over = current.map(|(_, cas)| cas);
    if now
        .shared
        .write(name, &pack_lease(name, now.time + length), over)
    {
        Lease::Ours
    } else {
        // Somebody was faster; who it is shows at the next look.
        Lease::Until(now.time + length)
    }
}

fn release_lease(lane: Lane, name: &str, now: &Now<'_>) {
    if lane == Lane::Worker && now.shared.is_there() {
        put(now.shared, name, &pack_lease(name, Timestamp(0)));
    }
}

fn pack_lease(name: &str, until: Timestamp) -> zeroize::Zeroizing<Vec<u8>> {
    let mut packer = Packer::new(name);
    packer.number(until.0);
    packer.finish()
}

fn unpack_lease(name: &str, entry: &[u8]) -> Option<Timestamp> {
    Unpacker::new(name, entry)?.number().map(Timestamp)
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
