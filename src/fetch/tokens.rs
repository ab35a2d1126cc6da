//! Flights of tokens: the calls on the way to one, its renewal, and how often an identity may ask for one. It
//! does not know what Entra ID or a managed identity wants to be asked.

use super::flight::{Flight, calls_take};
use super::shared::{self, Held, Lease, Leased, Name};
use super::{Action, Fetcher, Lane, Now, Subject, backoff, report};
use crate::azure::http::Answer;
use crate::azure::identity::{Circumstances, Progress, Step};
use crate::cache::{Failed, SecretKey};
use crate::events::{Line, LogLine};
use crate::failure::{Failure, Reason};
use crate::limits::Limits;
use crate::metrics::{Kind, Series};
use crate::secret::SecretValue;
use crate::time::{Span, Timestamp};

/// What one worker knows of an identity's token.
pub(super) struct TokenState {
    pub(super) held: Option<Held>,
    /// A token that a vault refused: not to be taken from shared data again.
    pub(super) refused: Option<SecretValue>,
    pub(super) failure: Option<(Failure, Failed)>,
    pub(super) used: bool,
    progress: Progress,
    rate: Rate,
}

impl TokenState {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            held: None,
            refused: None,
            failure: None,
            used: false,
            progress: Progress::default(),
            rate: Rate {
                burst: limits.token_burst,
                interval: limits.token_interval,
                left: limits.token_burst,
                filled_at: Timestamp(0),
            },
        }
    }

    /// Whether a flight may make its next call; else how long it waits. Its first call takes from the
    /// identity's rate, the others follow from it. On WasmX each request that arrives before there is a token
    /// has to ask for one itself; once there is a token or a failure, the rate holds for them too.
    fn may_call(&mut self, lane: Lane, calls: u64, now: Timestamp) -> Result<(), Span> {
        let first_ever = self.held.is_none() && self.refused.is_none() && self.failure.is_none();
        if calls > 0 || (lane != Lane::Worker && first_ever) {
            return Ok(());
        }
        self.rate.take(now)
    }
}

/// Bounds the token calls of one identity, independent of clients, vaults and tokens.
struct Rate {
    burst: u32,
    interval: Span,
    left: u32,
    filled_at: Timestamp,
}

impl Rate {
    /// Takes one call; else returns how long to wait for the next one.
    fn take(&mut self, now: Timestamp) -> Result<(), Span> {
        let interval = self.interval.0.max(1);
        if now < self.filled_at {
            // The clock was set back.
            self.filled_at = now;
        }
        let more = self.filled_at.age(now).0 / interval;
        if more > 0 {
            let room = u64::from(self.burst - self.left.min(self.burst));
            self.left += u32::try_from(more.min(room)).unwrap_or(0);
            self.filled_at = self.filled_at + Span(more.saturating_mul(interval));
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Span(interval) - self.filled_at.age(now)),
        }
    }
}

/// The token's failure was logged with all that there is to it.
fn without_token(failure: &Failure) -> Failure {
    Failure {
        detail: "there is no token; see event=token_failed".to_owned(),
        ..failure.clone()
    }
}

impl Fetcher {
    pub(super) fn renew_tokens(&mut self, now: &Now<'_>) {
        for identity in 0..self.tokens.len() {
            let due = self.tokens.get(identity).is_some_and(|state| {
                // One that was "received later than now" is of another clock.
                let renew = |held: &Held| held.token.renew_at <= now.time || held.at > now.time;
                let waits = |(_, failed): &(Failure, Failed)| failed.holds(now.time);
                state.used
                    && state.held.as_ref().is_some_and(renew)
                    && !state.failure.as_ref().is_some_and(waits)
            });
            if due {
                self.start_token(Lane::Worker, identity, None, now);
            }
        }
    }

    /// A token to use now, adopted from shared data if this worker has none; it counts as used, and so is renewed.
    pub(super) fn use_token(&mut self, identity: usize, now: &Now<'_>) -> Option<SecretValue> {
        let name = Name::of_token(self.identities.get(identity)?);
        let sealer = self.sealers.get(identity).and_then(Option::as_ref);
        let state = self.tokens.get_mut(identity)?;
        let usable = |held: &Held| held.token.expires_at > now.time;
        if !state.held.as_ref().is_some_and(usable) {
            let entry = shared::get(now, sealer, &name)?;
            let held = shared::unpack_token(&name, &entry)?;
            if !usable(&held) || state.refused.as_ref() == Some(&held.token.value) {
                return None;
            }
            state.held = Some(held);
        }
        state.used = true;
        state.held.as_ref().map(|held| held.token.value.clone())
    }

    pub(super) fn start_token(
        &mut self,
        lane: Lane,
        identity: usize,
        secret: Option<&SecretKey>,
        now: &Now<'_>,
    ) {
        let key = (lane, Subject::Token(identity));
        if let Some(flight) = self.flights.get_mut(&key) {
            return flight.secrets.extend(secret.cloned());
        }
        let state = self.tokens.get(identity);
        let failure = state.and_then(|state| state.failure.as_ref());
        if let Some((failure, _)) = failure.filter(|(_, failed)| failed.holds(now.time)) {
            let failure = without_token(failure);
            if let Some(key) = secret {
                self.secret_failed(lane, key, &failure, now);
            }
            return;
        }
        let mut flight = Flight::new(None, now.time);
        flight.secrets.extend(secret.cloned());
        self.flights.insert(key, flight);
        self.advance_token(lane, identity, now);
    }

    pub(super) fn advance_token(&mut self, lane: Lane, identity: usize, now: &Now<'_>) {
        let Some(who) = self.identities.get(identity) else {
            return;
        };
        let (name, most_calls) = (Name::of_token(who), who.most_calls());
        if self.adopt_shared_token(identity, &name, now) {
            return self.finish_token(lane, identity, None, now);
        }
        let length = calls_take(self.token_timeout(identity), most_calls);
        let leased = match lane {
            Lane::Worker => Lease::take(&name, length, now),
            Lane::Request(_) => Leased::Ours(None),
        };
        let Some(flight) = self.flights.get_mut(&(lane, Subject::Token(identity))) else {
            return;
        };
        match leased {
            Leased::Ours(lease) => {
                flight.lease = lease;
                self.call_token(lane, identity, None, now);
            }
            // The flight follows that one.
            Leased::Theirs => {}
        }
    }

    /// The next call on the way to a token; within `left`, if it is made again.
    pub(super) fn call_token(
        &mut self,
        lane: Lane,
        identity: usize,
        left: Option<Span>,
        now: &Now<'_>,
    ) {
        let key = (lane, Subject::Token(identity));
        let timeout = left.unwrap_or_else(|| self.token_timeout(identity));
        let (Some(who), Some(state), Some(flight)) = (
            self.identities.get(identity),
            self.tokens.get_mut(identity),
            self.flights.get(&key),
        ) else {
            return;
        };
        let circumstances = Circumstances {
            now: now.time,
            timeout,
            id: &report::request_id(now),
            random: now.random,
        };
        let next = if flight.calls > who.most_calls() {
            let detail = "the way to the token does not end";
            Err(Failure::new(Reason::BadAnswer, detail))
        } else if let Err(wait) = state.may_call(lane, flight.calls, now.time) {
            let detail = "this identity asked for tokens too often; it waits";
            Err(Failure {
                retry_after: Some(wait),
                ..Failure::new(Reason::Unavailable, detail)
            })
        } else {
            who.next(&state.progress, &circumstances)
        };
        match next {
            Ok((request, step)) => self.call(&key, step, None, request, now.time),
            Err(failure) => self.token_failed(lane, identity, &failure, now),
        }
    }

    /// The shortest timeout of the vaults that this identity reads.
    fn token_timeout(&self, identity: usize) -> Span {
        let of = |(_, other): &(_, &usize)| **other == identity;
        let vaults = self.config.vaults.iter().zip(&self.identity_of).filter(of);
        vaults
            .map(|(v, _)| v.timeout)
            .min()
            .unwrap_or(Span::seconds(5))
    }

    fn adopt_shared_token(&mut self, identity: usize, name: &Name, now: &Now<'_>) -> bool {
        let sealer = self.sealers.get(identity).and_then(Option::as_ref);
        let Some(state) = self.tokens.get_mut(identity) else {
            return false;
        };
        let shared = shared::get(now, sealer, name).and_then(|e| shared::unpack_token(name, &e));
        let good = |held: &Held| {
            held.token.renew_at > now.time
                && held.at <= now.time
                && state.refused.as_ref() != Some(&held.token.value)
        };
        let Some(held) = shared.filter(good) else {
            return false;
        };
        state.held = Some(held);
        true
    }

    pub(super) fn token_answered(
        &mut self,
        lane: Lane,
        identity: usize,
        step: Step,
        answer: &Answer,
        now: &Now<'_>,
    ) {
        let (Some(who), Some(state)) =
            (self.identities.get(identity), self.tokens.get_mut(identity))
        else {
            return;
        };
        match who.read(step, answer, &mut state.progress, now.time) {
            Ok(Some(token)) if token.expires_at <= now.time => {
                let failure = Failure::new(Reason::Credentials, "the token had expired as it came");
                self.token_failed(lane, identity, &failure, now);
            }
            Ok(Some(token)) => {
                self.metrics.count(Series::Tokens(Kind::of(who)));
                let lines = report::token_received(&mut self.events, who, &token, now.time);
                self.actions.extend(lines.into_iter().map(Action::Log));
                let name = Name::of_token(who);
                let sealer = self.sealers.get(identity).and_then(Option::as_ref);
                let held = Held {
                    token,
                    at: now.time,
                    accepted: Vec::new(),
                };
                shared::put_sealed(now, sealer, &name, &shared::pack_token(&name, &held));
                state.held = Some(held);
                state.refused = None;
                state.failure = None;
                state.used = false;
                self.finish_token(lane, identity, None, now);
            }
            Ok(None) => {
                if let Some(warning) = state.progress.take_warning() {
                    let line = Line::new("client_secret_refused").words(&who.describe());
                    self.actions.push_back(Action::Log(LogLine {
                        warning: true,
                        text: line.quoted("detail", warning).end(),
                    }));
                }
                self.call_token(lane, identity, None, now);
            }
            Err(failure) => self.token_failed(lane, identity, &failure, now),
        }
    }

    fn token_failed(&mut self, lane: Lane, identity: usize, failure: &Failure, now: &Now<'_>) {
        let Some(state) = self.tokens.get_mut(identity) else {
            return;
        };
        let before = state.failure.as_ref().map(|(_, failed)| failed);
        let failed = backoff::after(before, failure, now);
        state.failure = Some((failure.clone(), failed));
        self.metrics.count(Series::TokenFailures(failure.reason));
        self.log_token_failure(identity, failure, failed.until, now.time);
        self.finish_token(lane, identity, Some(failure), now);
    }

    /// Continues the flights of the secrets that waited for this token.
    fn finish_token(
        &mut self,
        lane: Lane,
        identity: usize,
        failure: Option<&Failure>,
        now: &Now<'_>,
    ) {
        let Some(mut flight) = self.end_flight(&(lane, Subject::Token(identity))) else {
            return;
        };
        if let Some(lease) = flight.lease.take() {
            lease.release(now);
        }
        for key in flight.secrets {
            match (failure, self.use_token(identity, now)) {
                (_, Some(token)) => self.send_secret(lane, &key, (identity, &token), None, now),
                (Some(failure), None) => {
                    self.secret_failed(lane, &key, &without_token(failure), now);
                }
                (None, None) => {
                    let detail = "the token expired as it came";
                    let failure = Failure::new(Reason::Credentials, detail);
                    self.secret_failed(lane, &key, &failure, now);
                }
            }
        }
    }

    /// A vault answered with a secret to this token. The first time, all workers learn it from shared data.
    pub(super) fn token_accepted(
        &mut self,
        (identity, vault): (usize, usize),
        token: &SecretValue,
        now: &Now<'_>,
    ) {
        let (Some(who), Some(state)) =
            (self.identities.get(identity), self.tokens.get_mut(identity))
        else {
            return;
        };
        let same = |held: &&mut Held| held.token.value == *token;
        let Some(held) = state.held.as_mut().filter(same) else {
            return;
        };
        if !held.accepted.contains(&vault) {
            held.accepted.push(vault);
            let name = Name::of_token(who);
            let sealer = self.sealers.get(identity).and_then(Option::as_ref);
            shared::put_sealed(now, sealer, &name, &shared::pack_token(&name, held));
        }
    }

    /// Whether this vault accepted the token that is held, here or in another worker.
    fn was_accepted(&self, (identity, vault): (usize, usize), now: &Now<'_>) -> bool {
        let held = self
            .tokens
            .get(identity)
            .and_then(|state| state.held.as_ref());
        let (Some(who), Some(held)) = (self.identities.get(identity), held) else {
            return false;
        };
        let shared = || {
            let name = Name::of_token(who);
            let sealer = self.sealers.get(identity).and_then(Option::as_ref);
            let entry = shared::get(now, sealer, &name)?;
            shared::unpack_token(&name, &entry)
        };
        held.accepted.contains(&vault)
            || shared().is_some_and(|other| {
                other.token.value == held.token.value && other.accepted.contains(&vault)
            })
    }

    /// Takes a refused token out of use. Whether another one may be asked for: not within a minute of the
    /// token's arrival, unless this vault accepted it before, so that it was revoked, or asks for a new one
    /// (`claims`).
    pub(super) fn drop_refused_token(
        &mut self,
        (identity, vault): (usize, usize),
        refused: Option<&SecretValue>,
        claims: Option<String>,
        now: &Now<'_>,
    ) -> bool {
        const YOUNG: Span = Span::seconds(60);
        let accepted = self.was_accepted((identity, vault), now);
        let Some(state) = self.tokens.get_mut(identity) else {
            return false;
        };
        let Some(held) = &state.held else {
            return true;
        };
        if refused != Some(&held.token.value) {
            // It was replaced already.
            return true;
        }
        let young = held.at <= now.time && held.at.age(now.time) < YOUNG;
        if claims.is_none() && young && !accepted {
            return false;
        }
        // It may have been one of another tenant: the vault is asked again.
        state.progress.forget_tenant();
        if let Some(claims) = claims {
            state.progress.ask_for_claims(claims);
        }
        state.refused = state.held.take().map(|held| held.token.value);
        true
    }
}
