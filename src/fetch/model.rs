//! The life of a secret against its rules: random times, requests, answers, failures and rotations, for
//! every setting, with two workers over one shared store. After every step the rules that `cache/mod.rs`
//! states must hold; they are written down here as a user would say them.

use proptest::prelude::*;

use super::tests::{Store, Todo, resolver_with};
use super::*;
use crate::azure::http::{Answer, CallFailure, Response};

/// Cases in one run; printed by the test.
const CASES: u32 = 4000;
/// What `timeout_ms` is: the host answers a call that takes longer.
const TIMEOUT: u64 = 5000;

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Ask(usize),
    Answer,
    Tick(usize),
    Rotate,
    Delete,
    Outage(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u64..4000).prop_map(Step::Pass),
        1 => (4000u64..60_000).prop_map(Step::Pass),
        6 => (0usize..2).prop_map(Step::Ask),
        8 => Just(Step::Answer),
        4 => (0usize..2).prop_map(Step::Tick),
        1 => Just(Step::Rotate),
        1 => Just(Step::Delete),
        1 => any::<bool>().prop_map(Step::Outage),
    ];
    proptest::collection::vec(step, 1..80)
}

#[derive(Clone, Debug)]
struct Settings {
    ttl: u64,
    neg_ttl: u64,
    resurrect_ttl: u64,
    /// Seconds after its fetch at which a secret expires.
    exp: Option<u64>,
}

fn settings() -> impl Strategy<Value = Settings> {
    let exp = prop_oneof![3 => Just(None), 1 => (1u64..30).prop_map(Some)];
    let zero_or = |range| prop_oneof![1 => Just(0u64), 2 => range];
    (zero_or(1u64..20), zero_or(1u64..20), zero_or(1u64..40), exp).prop_map(
        |(ttl, neg_ttl, resurrect_ttl, exp)| Settings {
            ttl,
            neg_ttl,
            resurrect_ttl,
            exp,
        },
    )
}

/// A value that Azure gave.
struct Fetch {
    at: u64,
    value: String,
    expires_at: Option<u64>,
}

struct Outstanding {
    worker: usize,
    call: Call,
    sent_at: u64,
}

struct Waiting {
    worker: usize,
    id: u32,
    since: u64,
}

struct Model<'s> {
    settings: Settings,
    store: &'s Store,
    workers: Vec<Fetcher>,
    want: Want,
    time: u64,
    current: Option<u32>,
    down: bool,
    next_id: u32,
    outstanding: Vec<Outstanding>,
    waiting: Vec<Waiting>,
    fetches: Vec<Fetch>,
    failures: Vec<u64>,
    /// Until when a missing secret is remembered.
    missing_until: u64,
    served: usize,
}

impl<'s> Model<'s> {
    fn new(settings: Settings, store: &'s Store) -> Self {
        let worker = || resolver_with(settings.ttl, settings.neg_ttl, settings.resurrect_ttl);
        let ((one, want), (two, _)) = (worker(), worker());
        Self {
            settings,
            store,
            workers: vec![one, two],
            want,
            time: 1_000_000_000,
            current: Some(0),
            down: false,
            next_id: 1,
            outstanding: Vec::new(),
            waiting: Vec::new(),
            fetches: Vec::new(),
            failures: Vec::new(),
            missing_until: 0,
            served: 0,
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Pass(span) => self.pass(*span),
            Step::Ask(worker) => self.ask(*worker),
            Step::Answer => self.answer_oldest(),
            Step::Tick(worker) => self.on(*worker, Fetcher::handle_tick),
            Step::Rotate => self.current = Some(self.current.map_or(100, |v| v + 1)),
            Step::Delete => self.current = None,
            Step::Outage(down) => self.down = *down,
        }
    }

    fn ttl(&self) -> u64 {
        if self.settings.ttl == 0 {
            u64::MAX
        } else {
            self.settings.ttl * 1000
        }
    }

    fn on(&mut self, worker: usize, act: impl FnOnce(&mut Fetcher, &Now<'_>)) {
        let now = Now {
            time: Timestamp(self.time),
            random: &|| 7,
            shared: self.store,
        };
        act(&mut self.workers[worker], &now);
        let todo = Todo::of(&mut self.workers[worker]);
        for call in todo.calls {
            self.check_call(&call);
            self.outstanding.push(Outstanding {
                worker,
                call,
                sent_at: self.time,
            });
        }
        for id in todo.woken {
            self.woken(worker, id);
        }
    }

    /// Azure sees one request for a secret and one for a token, however many wait; none while a missing
    /// secret is remembered; and none at all for a value without a ttl.
    fn check_call(&self, call: &Call) {
        let same = |other: &&Outstanding| other.call.subject == call.subject;
        assert_eq!(
            self.outstanding.iter().filter(same).count(),
            0,
            "two calls at once"
        );
        if matches!(call.subject, Subject::Secret(_)) {
            assert!(
                self.time >= self.missing_until,
                "asked again within neg_ttl"
            );
            let forever = self.settings.ttl == 0 && self.usable().is_some();
            assert!(!forever, "a value without ttl was fetched again");
        }
    }

    /// The host answers every call within its timeout, even if Azure does not.
    fn pass(&mut self, span: u64) {
        let end = self.time + span;
        while let Some(first) = self.outstanding.first() {
            let deadline = first.sent_at + TIMEOUT;
            if deadline > end {
                break;
            }
            self.time = self.time.max(deadline);
            self.finish(&Answer::Failed(CallFailure::Timeout));
        }
        self.time = end;
    }

    fn ask(&mut self, worker: usize) {
        let id = self.next_id;
        self.next_id += 1;
        let at = Timestamp(self.time);
        self.workers[worker].mark_used(&self.want, at);
        let answered = self.workers[worker].lookup(&self.want, None, at);
        if answered != Lookup::Miss {
            return self.check(&answered);
        }
        // A value that is fresh at any worker is served by every worker at once.
        let known = self.fresh().is_some();
        self.waiting.push(Waiting {
            worker,
            id,
            since: self.time,
        });
        let want = self.want.clone();
        self.on(worker, |resolver, now| {
            resolver.fetch(&want, Lane::Worker, id, now)
        });
        let waits = self.waiting.iter().any(|w| w.id == id);
        assert!(
            !(known && waits),
            "a request waits for a value that is fresh"
        );
        assert_eq!(
            waits,
            self.workers[worker].is_waiting(id),
            "nobody waits for nothing"
        );
    }

    fn answer_oldest(&mut self) {
        let Some(first) = self.outstanding.first() else {
            return;
        };
        let (status, body) = match first.call.subject {
            _ if self.down => (503, String::new()),
            Subject::Token(_) => (200, r#"{"access_token":"t","expires_in":86400}"#.to_owned()),
            Subject::Secret(_) => match self.current {
                None => (404, r#"{"error":{"code":"SecretNotFound"}}"#.to_owned()),
                Some(version) => (200, self.bundle(version)),
            },
        };
        self.finish(&Answer::Response(Response {
            status,
            body: body.into_bytes().into(),
            ..Response::default()
        }));
    }

    fn bundle(&mut self, version: u32) -> String {
        let value = format!("v{version}");
        let exp = self.settings.exp.map(|exp| self.time / 1000 + exp);
        let exp_text = exp.map_or_else(String::new, |exp| {
            format!(r#","attributes":{{"exp":{exp}}}"#)
        });
        self.fetches.push(Fetch {
            at: self.time,
            value: value.clone(),
            expires_at: exp.map(|e| e * 1000),
        });
        format!(r#"{{"value":"{value}"{exp_text}}}"#)
    }

    fn finish(&mut self, answer: &Answer) {
        let first = self.outstanding.remove(0);
        let secret = matches!(first.call.subject, Subject::Secret(_));
        let status = match answer {
            Answer::Response(response) => response.status,
            Answer::Failed(_) => 0,
        };
        if status != 200 {
            self.failures.push(self.time);
        }
        if secret && status == 404 && self.usable().is_none() {
            self.missing_until = self.time + (self.settings.neg_ttl * 1000).max(1000);
        }
        self.on(first.worker, |resolver, now| {
            resolver.handle_answer(first.call.id, answer, now);
        });
    }

    fn woken(&mut self, worker: usize, id: u32) {
        let at = self
            .waiting
            .iter()
            .position(|w| w.id == id)
            .expect("only who waits is woken");
        let waiting = self.waiting.swap_remove(at);
        assert_eq!(waiting.worker, worker);
        let since = Some(Timestamp(waiting.since));
        let answered = self.workers[worker].lookup(&self.want, since, Timestamp(self.time));
        if answered == Lookup::Miss {
            // What came was over as it came: ask again, as the filter does.
            self.waiting.push(waiting);
            let want = self.want.clone();
            return self.on(worker, |resolver, now| {
                resolver.fetch(&want, Lane::Worker, id, now)
            });
        }
        self.check(&answered);
    }

    fn usable_fetch(&self, longest: u64) -> Option<&Fetch> {
        let last = self.fetches.last()?;
        let age = self.time - last.at;
        let expired = last.expires_at.is_some_and(|end| end <= self.time);
        (age < longest && !expired).then_some(last)
    }

    /// The last value, if the rules still allow it.
    fn usable(&self) -> Option<&Fetch> {
        self.usable_fetch(
            self.ttl()
                .saturating_add(self.settings.resurrect_ttl * 1000),
        )
    }

    fn fresh(&self) -> Option<&Fetch> {
        self.usable_fetch(self.ttl())
    }

    fn check(&mut self, answered: &Lookup) {
        self.served += 1;
        match answered {
            Lookup::Value { value, .. } => {
                let value = std::str::from_utf8(value.expose()).expect("a text");
                let fetch = self
                    .fetches
                    .iter()
                    .rev()
                    .find(|f| f.value == value)
                    .expect("Azure gave it");
                let age = self.time - fetch.at;
                let longest = self
                    .ttl()
                    .saturating_add(self.settings.resurrect_ttl * 1000);
                assert!(age < longest, "{value} is {age} ms old");
                assert!(
                    fetch.expires_at.is_none_or(|end| self.time < end),
                    "{value} has expired"
                );
                if age >= self.ttl().saturating_mul(2) {
                    let failed = self.failures.iter().any(|&at| at > fetch.at);
                    // A refresh that takes longer than `stale_wait` is not waited for.
                    let refreshing = !self.outstanding.is_empty();
                    assert!(
                        failed || refreshing,
                        "{value} is old, and no refresh was tried"
                    );
                }
            }
            Lookup::Failed { reason, .. } => {
                assert!(
                    self.usable().is_none(),
                    "{reason:?} although {} may serve",
                    self.fetches.last().map_or("", |f| &f.value)
                );
                assert!(
                    !self.failures.is_empty() || self.settings.exp.is_some(),
                    "{reason:?} out of nothing"
                );
            }
            Lookup::Miss => unreachable!("checked only when known"),
        }
    }

    /// When Azure answers everything, and the workers tick, everybody gets an answer.
    fn drain(&mut self) {
        for round in 0..20 {
            if self.waiting.is_empty() && self.outstanding.is_empty() {
                return;
            }
            assert!(round < 19, "{} requests hang", self.waiting.len());
            while !self.outstanding.is_empty() {
                self.answer_oldest();
            }
            self.time += 1000;
            for worker in 0..self.workers.len() {
                self.run(&Step::Tick(worker));
            }
        }
    }
}

#[test]
fn every_secret_lives_by_its_rules() {
    let served = std::cell::Cell::new(0);
    let config = ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(settings in settings(), steps in steps())| {
        let store = Store::default();
        let mut model = Model::new(settings, &store);
        for step in &steps {
            model.run(step);
        }
        model.drain();
        served.set(served.get() + model.served);
    });
    println!("{CASES} cases, {} requests answered", served.get());
    assert!(served.get() > CASES as usize, "the cases ask for something");
}
