//! The resolver with a scripted Azure: who calls, how often, and who is woken.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::backoff::SHORTEST_NEGATIVE;
use super::report::request_id;
use super::tick::{FOLLOWING_TICK, IDLE_TICK, SCAN_INTERVAL};
use super::*;
use crate::azure::http::{Answer, CallFailure, Response};
use crate::cache::View;
use crate::failure::Reason;
use crate::limits::Limits;
use crate::metrics::Source;
use crate::time::Span;
use zeroize::Zeroizing;

type Entries = RefCell<HashMap<String, (Vec<u8>, u32)>>;

/// Shared data as both hosts have it, reduced to create and compare-and-swap.
#[derive(Default)]
pub(super) struct Store(Entries);

impl Shared for Store {
    fn read(&self, key: &str) -> Option<(Zeroizing<Vec<u8>>, u32)> {
        let entries = self.0.borrow();
        entries
            .get(key)
            .map(|(bytes, cas)| (Zeroizing::new(bytes.clone()), *cas))
    }
    fn write(&self, key: &str, entry: &[u8], over: Option<u32>) -> bool {
        let mut entries = self.0.borrow_mut();
        let current = entries.get(key).map(|(_, cas)| *cas);
        if current != over {
            return false;
        }
        entries.insert(key.to_owned(), (entry.to_vec(), current.unwrap_or(0) + 1));
        true
    }
    fn is_there(&self) -> bool {
        true
    }
}

struct NoStore;

impl Shared for NoStore {
    fn read(&self, _: &str) -> Option<(Zeroizing<Vec<u8>>, u32)> {
        None
    }
    fn write(&self, _: &str, _: &[u8], _: Option<u32>) -> bool {
        false
    }
    fn is_there(&self) -> bool {
        false
    }
}

/// The actions of one event.
#[derive(Default)]
pub(super) struct Todo {
    pub(super) calls: Vec<Call>,
    pub(super) woken: Vec<u32>,
    pub(super) log: Vec<LogLine>,
}

impl Todo {
    pub(super) fn of(fetcher: &mut Fetcher) -> Self {
        let mut todo = Self::default();
        while let Some(action) = fetcher.poll() {
            match action {
                Action::Call(call) => todo.calls.push(call),
                Action::Wake(waiter) => todo.woken.push(waiter),
                Action::Log(line) => todo.log.push(line),
            }
        }
        todo
    }
}

struct World<'s> {
    shared: &'s dyn Shared,
    time: Cell<u64>,
}

impl<'s> World<'s> {
    fn new(shared: &'s dyn Shared) -> Self {
        Self {
            shared,
            time: Cell::new(1_000_000),
        }
    }

    fn at(&self, fetcher: &mut Fetcher, act: impl FnOnce(&mut Fetcher, &Now<'_>)) -> Todo {
        let now = Now {
            time: Timestamp(self.time.get()),
            random: &|| 0,
            shared: self.shared,
        };
        act(fetcher, &now);
        Todo::of(fetcher)
    }

    fn pass(&self, span: Span) {
        self.time.set(self.time.get() + span.0);
    }

    fn fetch(&self, resolver: &mut Fetcher, want: &Want, waiter: u32) -> Todo {
        self.at(resolver, |f, now| f.fetch(want, Lane::Worker, waiter, now))
    }

    fn answer(&self, resolver: &mut Fetcher, call: &Call, status: u16, body: &str) -> Todo {
        // What has no error of Key Vault's form is not its answer.
        let body = match (status, body) {
            (404, "") => r#"{"error":{"code":"SecretNotFound"}}"#,
            (_, body) => body,
        };
        let answer = Answer::Response(Response {
            status,
            body: Zeroizing::new(body.as_bytes().to_vec()),
            ..Response::default()
        });
        self.at(resolver, |f, now| f.handle_answer(call.id, &answer, now))
    }

    fn token(&self, resolver: &mut Fetcher, call: &Call) -> Todo {
        assert_eq!(call.subject, Subject::Token(0));
        self.answer(
            resolver,
            call,
            200,
            r#"{"access_token":"tok","expires_in":3600}"#,
        )
    }

    fn value(&self, resolver: &mut Fetcher, call: &Call, value: &str) -> Todo {
        assert!(matches!(call.subject, Subject::Secret(_)));
        self.answer(resolver, call, 200, &format!(r#"{{"value":"{value}"}}"#))
    }

    fn tick(&self, resolver: &mut Fetcher) -> (Todo, Span) {
        let todo = self.at(resolver, Fetcher::handle_tick);
        (todo, resolver.tick_period())
    }

    fn look(&self, resolver: &mut Fetcher, want: &Want) -> Lookup {
        let now = Timestamp(self.time.get());
        resolver.mark_used(want, now);
        resolver.lookup(want, None, now)
    }
}

fn resolver(ttl: u64, neg_ttl: u64) -> (Fetcher, Want) {
    resolver_with(ttl, neg_ttl, 100)
}

pub(super) fn resolver_with(ttl: u64, neg_ttl: u64, resurrect_ttl: u64) -> (Fetcher, Want) {
    let json = format!(
        r#"{{"vaults":[{{"name":"azure","prefix":"azure","config":{{"vault_uri":"https://v.vault.azure.net",
        "tenant_id":"t","client_id":"c","client_secret":"s","ttl":{ttl},"neg_ttl":{neg_ttl},"resurrect_ttl":{resurrect_ttl}}}}}]}}"#
    );
    let config = Config::parse(json.as_bytes(), &|_| None).unwrap();
    let want = Want {
        key: SecretKey {
            vault: 0,
            collection: Collection::Secrets,
            name: "db".into(),
            version: None,
        },
        view: View::default(),
        rules: config.vaults[0].cache,
    };
    (Fetcher::new(Rc::new(config)), want)
}

fn value(answered: &Lookup) -> &str {
    match answered {
        Lookup::Value { value: secret, .. } => std::str::from_utf8(secret.expose()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn many_waiters_make_one_call_for_the_token_and_one_for_the_secret() {
    let world = World::new(&NoStore);
    let (mut resolver, want) = resolver(60, 0);
    let first = world.fetch(&mut resolver, &want, 1);
    assert_eq!(first.calls.len(), 1);
    for waiter in 2..100 {
        assert!(world.fetch(&mut resolver, &want, waiter).calls.is_empty());
    }
    let second = world.token(&mut resolver, &first.calls[0]);
    assert_eq!(second.calls.len(), 1);
    assert!(resolver.is_waiting(50));
    resolver.forget(50);
    let done = world.value(&mut resolver, &second.calls[0], "v1");
    assert_eq!(done.woken.len(), 98, "all but the one that left");
    assert_eq!(value(&world.look(&mut resolver, &want)), "v1");
}

#[test]
fn requests_with_lanes_of_their_own_call_for_themselves() {
    let world = World::new(&NoStore);
    let (mut resolver, want) = resolver(60, 0);
    let mut fetch = |waiter| {
        let lane = Lane::Request(waiter);
        world.at(&mut resolver, |f, now| f.fetch(&want, lane, waiter, now))
    };
    let calls: Vec<Call> = (1..=2).flat_map(|waiter| fetch(waiter).calls).collect();
    let lanes: Vec<Lane> = calls.iter().map(|call| call.lane).collect();
    assert_eq!(lanes, [Lane::Request(1), Lane::Request(2)]);
    for (call, waiter) in calls.iter().zip(1..) {
        let todo = world.token(&mut resolver, call);
        assert_eq!(todo.calls[0].lane, Lane::Request(waiter));
        let todo = world.value(&mut resolver, &todo.calls[0], "v1");
        assert_eq!(todo.woken, [waiter]);
    }
}

#[test]
fn a_lane_that_no_tick_wakes_does_not_make_ticks_frequent() {
    let world = World::new(&NoStore);
    let (mut resolver, want) = resolver(10, 0);
    let fetch = |fetcher: &mut Fetcher, waiter| {
        let lane = Lane::Request(waiter);
        world.at(fetcher, |f, now| f.fetch(&want, lane, waiter, now))
    };
    let call = fetch(&mut resolver, 1);
    let call = world.token(&mut resolver, &call.calls[0]);
    world.value(&mut resolver, &call.calls[0], "v1");
    world.pass(Span::seconds(200));
    assert_eq!(fetch(&mut resolver, 2).calls.len(), 1, "the value is over");
    assert_eq!(resolver.tick_period(), IDLE_TICK);
}

#[test]
fn another_worker_follows_and_never_calls() {
    let store = Store::default();
    let world = World::new(&store);
    let (mut leader, want) = resolver(60, 0);
    let (mut follower, _) = resolver(60, 0);
    let call = world.fetch(&mut leader, &want, 1);
    assert!(world.fetch(&mut follower, &want, 7).calls.is_empty());
    assert_eq!(follower.tick_period(), FOLLOWING_TICK);
    let call = world.token(&mut leader, &call.calls[0]);
    assert!(world.tick(&mut follower).0.woken.is_empty());
    world.value(&mut leader, &call.calls[0], "v1");
    let (todo, next) = world.tick(&mut follower);
    assert_eq!((todo.woken, next), (vec![7], IDLE_TICK));
    assert_eq!(value(&world.look(&mut follower, &want)), "v1");
}

#[test]
fn a_follower_learns_of_a_failure_too() {
    let store = Store::default();
    let world = World::new(&store);
    let (mut leader, want) = resolver(60, 0);
    let (mut follower, _) = resolver(60, 0);
    let call = world.fetch(&mut leader, &want, 1);
    let since = Timestamp(world.time.get());
    world.fetch(&mut follower, &want, 7);
    world.pass(Span(5));
    let call = world.token(&mut leader, &call.calls[0]);
    world.answer(&mut leader, &call.calls[0], 404, "");
    assert_eq!(world.tick(&mut follower).0.woken, [7]);
    let answer = follower.lookup(&want, Some(since), Timestamp(world.time.get()));
    assert_eq!(
        answer,
        Lookup::Failed {
            reason: Reason::NotFound,
            retry_after: Some(SHORTEST_NEGATIVE),
            source: Source::Failed,
        }
    );
}

#[test]
fn the_follower_takes_over_when_the_leader_is_gone() {
    let store = Store::default();
    let world = World::new(&store);
    let (mut leader, want) = resolver(60, 0);
    let (mut follower, _) = resolver(60, 0);
    world.fetch(&mut leader, &want, 1);
    world.fetch(&mut follower, &want, 7);
    drop(leader);
    world.pass(Span::seconds(5));
    assert!(
        world.tick(&mut follower).0.calls.is_empty(),
        "the lease holds"
    );
    world.pass(Span::seconds(7));
    assert_eq!(world.tick(&mut follower).0.calls.len(), 1);
}

#[test]
fn a_secret_in_use_is_renewed_before_its_end_and_others_are_let_go() {
    let world = World::new(&NoStore);
    let (mut resolver, want) = resolver(60, 0);
    let call = world.fetch(&mut resolver, &want, 1);
    let call = world.token(&mut resolver, &call.calls[0]);
    world.value(&mut resolver, &call.calls[0], "v1");
    world.look(&mut resolver, &want);
    world.pass(Span::seconds(47));
    assert!(world.tick(&mut resolver).0.calls.is_empty());
    world.pass(Span::seconds(2));
    let call = world.tick(&mut resolver).0;
    assert_eq!(call.calls.len(), 1, "renewed at four fifths of the ttl");
    assert_eq!(
        value(&world.look(&mut resolver, &want)),
        "v1",
        "the old one serves meanwhile"
    );
    world.value(&mut resolver, &call.calls[0], "v2");
    world.pass(Span::seconds(59));
    assert!(
        world.tick(&mut resolver).0.calls.is_empty(),
        "nobody used it since"
    );
    world.pass(Span::seconds(61));
    assert_eq!(world.look(&mut resolver, &want), Lookup::Miss);
}

#[test]
fn an_old_value_serves_when_azure_fails_until_its_resurrection_ends() {
    let world = World::new(&NoStore);
    let (mut resolver, want) = resolver(10, 0);
    let call = world.fetch(&mut resolver, &want, 1);
    let call = world.token(&mut resolver, &call.calls[0]);
    world.value(&mut resolver, &call.calls[0], "v1");
    world.pass(Span::seconds(30));
    let since = Timestamp(world.time.get());
    assert_eq!(world.look(&mut resolver, &want), Lookup::Miss);
    let call = world.fetch(&mut resolver, &want, 1);
    let answer = Answer::Failed(CallFailure::Broken);
    let broken = |f: &mut Fetcher, id| world.at(f, |f, now| f.handle_answer(id, &answer, now));
    let again = broken(&mut resolver, call.calls[0].id);
    assert_eq!(again.calls.len(), 1, "one broken connection is no failure");
    let todo = broken(&mut resolver, again.calls[0].id);
    assert_eq!(todo.woken, [1]);
    let answer = resolver.lookup(&want, Some(since), Timestamp(world.time.get()));
    assert_eq!(value(&answer), "v1");
    world.pass(Span::seconds(80));
    assert_eq!(world.look(&mut resolver, &want), Lookup::Miss);
}

#[test]
fn a_missing_secret_is_remembered_for_neg_ttl() {
    for (neg_ttl, after) in [
        (
            10,
            Lookup::Failed {
                reason: Reason::NotFound,
                retry_after: Some(Span::seconds(9)),
                source: Source::Negative,
            },
        ),
        (0, Lookup::Miss),
    ] {
        let world = World::new(&NoStore);
        let (mut resolver, want) = resolver(60, neg_ttl);
        let call = world.fetch(&mut resolver, &want, 1);
        let call = world.token(&mut resolver, &call.calls[0]);
        let todo = world.answer(&mut resolver, &call.calls[0], 404, "");
        assert_eq!(todo.log.len(), 1);
        world.pass(Span::seconds(1));
        assert_eq!(world.look(&mut resolver, &want), after);
    }
}

#[test]
fn a_refused_token_is_renewed_once() {
    let store = Store::default();
    let world = World::new(&store);
    let (mut resolver, want) = resolver(60, 0);
    let call = world.fetch(&mut resolver, &want, 1);
    let call = world.token(&mut resolver, &call.calls[0]);
    world.pass(Span::seconds(61));
    let call = world.answer(&mut resolver, &call.calls[0], 401, "");
    assert_eq!(
        call.calls[0].subject,
        Subject::Token(0),
        "not the refused one from shared data"
    );
    let call = world.answer(
        &mut resolver,
        &call.calls[0],
        200,
        r#"{"access_token":"tok2","expires_in":3600}"#,
    );
    let done = world.answer(&mut resolver, &call.calls[0], 401, "");
    assert!(done.calls.is_empty());
    assert_eq!(done.woken, [1]);
}

#[test]
fn while_credentials_are_wrong_entra_is_not_asked_for_every_secret() {
    let world = World::new(&NoStore);
    let (mut resolver, want) = resolver(60, 0);
    let call = world.fetch(&mut resolver, &want, 1);
    let todo = world.answer(
        &mut resolver,
        &call.calls[0],
        401,
        r#"{"error":"invalid_client","error_codes":[7000215]}"#,
    );
    assert_eq!(todo.woken, [1]);
    let other = Want {
        key: SecretKey {
            name: "other".into(),
            ..want.key.clone()
        },
        ..want
    };
    let todo = world.fetch(&mut resolver, &other, 2);
    assert!(todo.calls.is_empty());
    assert_eq!(todo.woken, [2]);
    assert!(matches!(
        world.look(&mut resolver, &other),
        Lookup::Failed {
            reason: Reason::Credentials,
            retry_after: Some(_),
            ..
        }
    ));
}

#[test]
fn request_ids_are_uuids() {
    let now = Now {
        time: Timestamp(0),
        random: &|| u64::MAX,
        shared: &NoStore,
    };
    assert_eq!(request_id(&now), "ffffffff-ffff-4fff-bfff-ffffffffffff");
}

#[test]
fn what_nobody_uses_leaves_memory_and_comes_back_when_azure_fails() {
    let store = Store::default();
    let world = World::new(&store);
    let (mut resolver, want) = resolver(10, 0);
    let call = world.fetch(&mut resolver, &want, 1);
    let call = world.token(&mut resolver, &call.calls[0]);
    world.value(&mut resolver, &call.calls[0], "v1");
    world.pass(Span::seconds(30));
    world.tick(&mut resolver);
    assert!(
        resolver
            .entries
            .iter()
            .all(|(_, entry)| entry.record.found.is_none())
    );
    let since = Timestamp(world.time.get());
    let call = world.fetch(&mut resolver, &want, 2);
    let todo = world.answer(&mut resolver, &call.calls[0], 500, "");
    assert_eq!(todo.woken, [2]);
    let answer = resolver.lookup(&want, Some(since), Timestamp(world.time.get()));
    assert_eq!(value(&answer), "v1");
}

/// The same want for another secret of the vault.
fn another(want: &Want, name: &str) -> Want {
    Want {
        key: SecretKey {
            name: name.into(),
            ..want.key.clone()
        },
        ..want.clone()
    }
}

fn busy(retry_after: &str) -> Answer {
    Answer::Response(Response {
        status: 429,
        retry_after: Some(retry_after.into()),
        ..Response::default()
    })
}

#[test]
fn a_busy_vault_is_left_alone_by_everybody_until_it_said() {
    let store = Store::default();
    let world = World::new(&store);
    // `Retry-After` as a date, 20 s from now.
    world.time.set(784_111_757_000);
    let (mut resolver, want) = resolver(60, 0);
    let call = world.fetch(&mut resolver, &want, 1);
    let call = world.token(&mut resolver, &call.calls[0]);
    let call = &call.calls[0];
    let answer = busy("Sun, 06 Nov 1994 08:49:37 GMT");
    let todo = world.at(&mut resolver, |f, now| {
        f.handle_answer(call.id, &answer, now)
    });
    let held = |line: &LogLine| {
        line.text == "event=vault_held vault=azure reason=throttled azure_request_id=- for_s=20"
    };
    assert!(todo.log.iter().any(held));
    // Another secret, here and at another worker: refused on the spot, with the time to wait.
    let (mut neighbour, _) = self::resolver(60, 0);
    let other = another(&want, "other");
    for resolver in [&mut resolver, &mut neighbour] {
        world.pass(Span::seconds(5));
        let todo = world.fetch(resolver, &other, 2);
        assert!(todo.calls.is_empty());
        assert_eq!(todo.woken, [2]);
        let Lookup::Failed {
            reason: Reason::Throttled,
            retry_after: Some(wait),
            ..
        } = world.look(resolver, &other)
        else {
            panic!("not held");
        };
        assert!(wait <= Span::seconds(15), "{wait:?}");
    }
    world.pass(Span::seconds(10));
    assert_eq!(world.fetch(&mut resolver, &other, 3).calls.len(), 1);
    assert_eq!(world.fetch(&mut neighbour, &want, 3).calls.len(), 1);
}

#[test]
fn a_vault_that_stays_busy_is_asked_less_and_less() {
    let world = World::new(&NoStore);
    let (mut resolver, want) = resolver(60, 0);
    let call = world.fetch(&mut resolver, &want, 1);
    world.token(&mut resolver, &call.calls[0]);
    let mut waits = Vec::new();
    for n in 0..4 {
        let want = another(&want, &format!("s{n}"));
        let call = world.fetch(&mut resolver, &want, n);
        world.answer(&mut resolver, &call.calls[0], 503, "");
        let Lookup::Failed {
            reason: Reason::Unavailable,
            retry_after: Some(wait),
            ..
        } = world.look(&mut resolver, &want)
        else {
            panic!("not held");
        };
        waits.push(resolver.holds[0].unwrap().until.0 - world.time.get());
        world.pass(wait.max(Span(waits[waits.len() - 1])));
    }
    assert_eq!(waits, [500, 1000, 2000, 4000]);
    let call = world.fetch(&mut resolver, &another(&want, "last"), 9);
    world.value(&mut resolver, &call.calls[0], "v");
    assert_eq!(
        resolver.holds[0].map(|hold| hold.attempts),
        None,
        "it answers again"
    );
}

#[test]
fn what_is_forbidden_or_missing_is_not_asked_for_again_at_once() {
    for status in [403, 404] {
        let world = World::new(&NoStore);
        let (mut resolver, want) = resolver(60, 0);
        let call = world.fetch(&mut resolver, &want, 1);
        let call = world.token(&mut resolver, &call.calls[0]);
        world.answer(&mut resolver, &call.calls[0], status, "");
        world.pass(Span(400));
        let todo = world.fetch(&mut resolver, &want, 2);
        assert!(todo.calls.is_empty(), "{status}");
        let todo = world.fetch(&mut resolver, &another(&want, "other"), 3);
        assert_eq!(todo.calls.len(), 1, "{status} is about this secret only");
    }
}

#[test]
fn a_token_serves_until_its_end_while_its_renewal_fails() {
    let store = Store::default();
    let world = World::new(&store);
    let (mut resolver, want) = resolver(60, 0);
    let call = world.fetch(&mut resolver, &want, 1);
    let call = world.token(&mut resolver, &call.calls[0]);
    world.value(&mut resolver, &call.calls[0], "v");
    // 3600 s less the five minutes ahead of its end.
    world.pass(Span::seconds(3301));
    let (todo, _) = world.tick(&mut resolver);
    let renewals: Vec<_> = todo
        .calls
        .iter()
        .filter(|c| c.subject == Subject::Token(0))
        .collect();
    assert_eq!(renewals.len(), 1);
    let (again, _) = world.tick(&mut resolver);
    assert!(
        again.calls.iter().all(|c| c.subject != Subject::Token(0)),
        "one renewal at a time"
    );
    world.answer(&mut resolver, renewals[0], 503, "");
    let call = world.fetch(&mut resolver, &another(&want, "b"), 2);
    assert!(
        matches!(call.calls[0].subject, Subject::Secret(_)),
        "with the old token"
    );
    world.pass(Span::seconds(300));
    let call = world.fetch(&mut resolver, &another(&want, "c"), 3);
    assert_eq!(call.calls[0].subject, Subject::Token(0), "it has ended");
}

fn limited(limits: Limits) -> (Fetcher, Want) {
    let (fetcher, want) = resolver(60, 10);
    let config = Config {
        limits,
        ..Config::clone(&fetcher.config)
    };
    (Fetcher::new(Rc::new(config)), want)
}

/// Every bound at 3.
fn threes() -> Limits {
    Limits {
        fetches_in_flight: 3,
        fetches_per_second: 1000,
        cached_secrets: 3,
        cached_misses: 3,
        shared_entries: 3,
        views: 3,
        ..Limits::default()
    }
}

#[test]
fn an_answer_never_reaches_another_secret_whatever_clients_ask_for_meanwhile() {
    let store = Store::default();
    let world = World::new(&store);
    let (mut fetcher, want) = limited(threes());
    let victim = another(&want, "payments");
    let call = world.fetch(&mut fetcher, &victim, 1);
    let call = world.token(&mut fetcher, &call.calls[0]);
    let others: Vec<Want> = (0..20).map(|n| another(&want, &format!("p{n}"))).collect();
    for (other, waiter) in others.iter().zip(2..) {
        world.look(&mut fetcher, other);
        world.fetch(&mut fetcher, other, waiter);
    }
    let done = world.value(&mut fetcher, &call.calls[0], "victims-value");
    assert!(done.woken.contains(&1));
    assert_eq!(value(&world.look(&mut fetcher, &victim)), "victims-value");
    let (mut neighbour, _) = limited(threes());
    for other in &others {
        assert_eq!(world.look(&mut fetcher, other), Lookup::Miss);
        world.fetch(&mut neighbour, other, 9);
        assert_eq!(world.look(&mut neighbour, other), Lookup::Miss);
    }
}

#[test]
fn a_vault_that_refuses_every_token_costs_one_token_for_all_its_secrets() {
    let world = World::new(&NoStore);
    let (mut fetcher, want) = resolver(60, 0);
    let mut tokens = 0;
    for round in 0..80u32 {
        for n in 0..20 {
            let want = another(&want, &format!("s{n}"));
            let mut calls = world.fetch(&mut fetcher, &want, round * 20 + n).calls;
            while let Some(call) = calls.pop() {
                let todo = if matches!(call.subject, Subject::Token(_)) {
                    tokens += 1;
                    world.token(&mut fetcher, &call)
                } else {
                    world.answer(&mut fetcher, &call, 401, "")
                };
                calls.extend(todo.calls);
            }
        }
        world.pass(Span(100));
    }
    assert_eq!(tokens, 1, "in 8 s");
}

#[test]
fn an_old_value_is_served_after_a_short_wait_and_in_a_backoff_at_once() {
    let world = World::new(&NoStore);
    let (mut fetcher, want) = resolver(10, 0);
    let call = world.fetch(&mut fetcher, &want, 1);
    let call = world.token(&mut fetcher, &call.calls[0]);
    world.value(&mut fetcher, &call.calls[0], "v1");
    world.pass(Span::seconds(30));
    let since = Timestamp(world.time.get());
    world.fetch(&mut fetcher, &want, 2);
    assert_eq!(fetcher.tick_period(), FOLLOWING_TICK);
    world.pass(Span(299));
    assert!(world.tick(&mut fetcher).0.woken.is_empty());
    world.pass(Span(1));
    assert_eq!(world.tick(&mut fetcher).0.woken, [2]);
    let now = Timestamp(world.time.get());
    assert_eq!(value(&fetcher.lookup(&want, Some(since), now)), "v1");
    assert_eq!(
        value(&world.look(&mut fetcher, &want)),
        "v1",
        "the next one waits no more"
    );
}

#[test]
fn a_failure_of_a_clock_that_was_ahead_is_over_when_the_clock_is_set_back() {
    for jump in [
        Span::seconds(2),
        Span::seconds(7200),
        Span::seconds(3 * 86_400),
    ] {
        let store = Store::default();
        let world = World::new(&store);
        let start = 1_000_000_000;
        world.time.set(start + jump.0);
        let (mut fetcher, want) = resolver(60, 0);
        let call = world.fetch(&mut fetcher, &want, 1);
        let call = world.token(&mut fetcher, &call.calls[0]);
        let call = call.calls[0].id;
        let answer = busy("3600");
        world.at(&mut fetcher, |f, now| f.handle_answer(call, &answer, now));
        world.time.set(start);
        assert_eq!(world.look(&mut fetcher, &want), Lookup::Miss);
        assert_eq!(
            world.fetch(&mut fetcher, &want, 2).calls.len(),
            1,
            "{jump:?}"
        );
        let (mut neighbour, _) = resolver(60, 0);
        let todo = world.fetch(&mut neighbour, &another(&want, "b"), 3);
        assert_eq!(todo.calls.len(), 1, "{jump:?}: not held");
    }
}

#[test]
fn a_refresh_that_fails_after_the_clock_was_set_back_ends_prepared_values() {
    let store = Store::default();
    let world = World::new(&store);
    let start = 1_000_000_000;
    world.time.set(start + Span::seconds(7200).0);
    let (mut fetcher, want) = resolver(60, 0);
    let call = world.fetch(&mut fetcher, &want, 1);
    let call = world.token(&mut fetcher, &call.calls[0]);
    world.value(&mut fetcher, &call.calls[0], "v1");
    world.look(&mut fetcher, &want);
    world.pass(Span::seconds(49));
    let refresh = world.tick(&mut fetcher).0;
    let epoch = fetcher.epoch();
    world.time.set(start);
    world.answer(&mut fetcher, &refresh.calls[0], 500, "");
    assert_ne!(fetcher.epoch(), epoch, "fresh until another time");
}

#[test]
fn made_up_names_leave_a_bounded_number_of_entries_and_keep_no_value_out() {
    let store = Store::default();
    let world = World::new(&store);
    let (mut fetcher, want) = limited(threes());
    let call = world.fetch(&mut fetcher, &want, 1);
    let call = world.token(&mut fetcher, &call.calls[0]);
    world.value(&mut fetcher, &call.calls[0], "v1");
    for n in 0..200 {
        let call = world.fetch(&mut fetcher, &another(&want, &format!("x{n}")), 2);
        for call in call.calls {
            world.answer(&mut fetcher, &call, 404, "");
        }
        world.pass(Span(20));
    }
    assert_eq!(value(&world.look(&mut fetcher, &want)), "v1");
    let entries = store.0.borrow().len();
    assert!(
        entries <= 3 + 3 + 2 + 1,
        "{entries}: values, leases, token, hold"
    );
}

#[test]
fn a_failure_keeps_another_names_value_in_shared_data_even_unsealed() {
    // A managed identity has no secret to seal with; all names that are not listed share one key.
    let json = r#"{"vaults":[{"name":"azure","prefix":"azure","config":{
        "vault_uri":"https://v.vault.azure.net"}}]}"#;
    let config = Config {
        limits: Limits {
            shared_entries: 1,
            ..Limits::default()
        },
        ..Config::parse(json.as_bytes(), &|_| None).unwrap()
    };
    let worker = || Fetcher::new(Rc::new(config.clone()));
    let (_, want) = resolver(60, 0);
    let store = Store::default();
    let world = World::new(&store);
    let mut fetcher = worker();
    assert!(fetcher.sealers.iter().all(Option::is_none));
    let call = world.fetch(&mut fetcher, &want, 1);
    let call = world.token(&mut fetcher, &call.calls[0]);
    world.value(&mut fetcher, &call.calls[0], "v1");
    let call = world.fetch(&mut fetcher, &another(&want, "made-up"), 2);
    world.answer(&mut fetcher, &call.calls[0], 404, "");
    let mut neighbour = worker();
    let todo = world.fetch(&mut neighbour, &want, 3);
    assert_eq!((todo.calls.len(), todo.woken), (0, vec![3]));
    assert_eq!(value(&world.look(&mut neighbour, &want)), "v1");
}

#[test]
fn a_new_root_does_not_wait_for_the_leases_of_the_old_one() {
    let store = Store::default();
    let world = World::new(&store);
    let (mut old, want) = resolver(60, 0);
    world.fetch(&mut old, &want, 1);
    world.at(&mut old, Fetcher::release_leases);
    let (mut new, _) = resolver(60, 0);
    assert_eq!(world.fetch(&mut new, &want, 2).calls.len(), 1);
}

#[test]
fn ticks_that_follow_each_other_closely_do_not_scan_the_cache() {
    let world = World::new(&NoStore);
    let (mut resolver, want) = resolver(60, 0);
    assert!(world.tick(&mut resolver).0.calls.is_empty());
    resolver.pin(&want);
    world.pass(Span(1));
    assert!(world.tick(&mut resolver).0.calls.is_empty(), "no scan yet");
    world.pass(Span(SCAN_INTERVAL.0 - 1));
    assert_eq!(world.tick(&mut resolver).0.calls.len(), 1);
}

#[test]
fn a_clock_set_back_does_not_stop_the_scans() {
    let world = World::new(&NoStore);
    let (mut resolver, want) = resolver(60, 0);
    world.tick(&mut resolver);
    resolver.pin(&want);
    world.time.set(world.time.get() - 500_000);
    assert_eq!(world.tick(&mut resolver).0.calls.len(), 1);
}

/// A worker with `revoked_ttl`, whose value has just been refused with this answer at its renewal.
fn refused_at_its_renewal<'s>(
    world: &World<'s>,
    revoked_ttl: &str,
    (status, body): (u16, &str),
) -> (Fetcher, Want) {
    let json = format!(
        r#"{{"vaults":[{{"name":"azure","prefix":"azure","config":{{"vault_uri":"https://v.vault.azure.net",
        "tenant_id":"t","client_id":"c","client_secret":"s","ttl":10,"neg_ttl":60{revoked_ttl}}}}}]}}"#
    );
    let config = Config::parse(json.as_bytes(), &|_| None).unwrap();
    let (_, want) = resolver(10, 60);
    let want = Want {
        rules: config.vaults[0].cache,
        ..want
    };
    let mut fetcher = Fetcher::new(Rc::new(config));
    let call = world.fetch(&mut fetcher, &want, 1);
    let call = world.token(&mut fetcher, &call.calls[0]);
    world.value(&mut fetcher, &call.calls[0], "v1");
    world.look(&mut fetcher, &want);
    world.pass(Span::seconds(9));
    let call = world.tick(&mut fetcher).0;
    let epoch = fetcher.epoch();
    world.answer(&mut fetcher, &call.calls[0], status, body);
    let ends = !revoked_ttl.is_empty() && status < 500;
    assert_eq!(fetcher.epoch() > epoch, ends, "prepared values end too");
    (fetcher, want)
}

const FORBIDDEN: (u16, &str) = (403, r#"{"error":{"code":"Forbidden","message":"m"}}"#);
const DELETED: (u16, &str) = (404, r#"{"error":{"code":"SecretNotFound"}}"#);
const BUSY: (u16, &str) = (503, "");

#[test]
fn a_refused_value_ends_with_revoked_ttl() {
    for refusal in [FORBIDDEN, DELETED] {
        let world = World::new(&NoStore);
        let (mut fetcher, want) = refused_at_its_renewal(&world, r#","revoked_ttl":0"#, refusal);
        assert!(
            matches!(world.look(&mut fetcher, &want), Lookup::Failed { .. }),
            "0 ends it at once"
        );
        let world = World::new(&NoStore);
        let (mut fetcher, want) = refused_at_its_renewal(&world, r#","revoked_ttl":20"#, refusal);
        assert_eq!(value(&world.look(&mut fetcher, &want)), "v1");
        world.pass(Span::seconds(10));
        let call = world.tick(&mut fetcher).0;
        world.answer(&mut fetcher, &call.calls[0], refusal.0, refusal.1);
        world.pass(Span::seconds(11));
        let late = world.look(&mut fetcher, &want);
        assert!(
            !matches!(late, Lookup::Value { .. }),
            "a second refusal makes it no longer"
        );
    }
}

#[test]
fn what_is_no_refusal_leaves_a_value_its_resurrect_ttl() {
    for (revoked_ttl, answer) in [
        ("", FORBIDDEN),
        ("", DELETED),
        (r#","revoked_ttl":0"#, BUSY),
    ] {
        let world = World::new(&NoStore);
        let (mut fetcher, want) = refused_at_its_renewal(&world, revoked_ttl, answer);
        world.pass(Span::seconds(6));
        assert_eq!(value(&world.look(&mut fetcher, &want)), "v1");
    }
}

#[test]
fn another_worker_takes_over_that_a_value_was_refused() {
    let store = Store::default();
    let world = World::new(&store);
    let (leader, want) = refused_at_its_renewal(&world, r#","revoked_ttl":0"#, FORBIDDEN);
    let mut follower = Fetcher::new(leader.config.clone());
    let todo = world.fetch(&mut follower, &want, 7);
    assert!(todo.calls.is_empty(), "the refusal holds for all workers");
    assert!(!matches!(
        world.look(&mut follower, &want),
        Lookup::Value { .. }
    ));
}

/// A secret whose newest version is valid from the year 2100 on; the worker's vault has these `dates`.
fn not_yet_valid<'s>(world: &World<'s>, dates: &str) -> (Fetcher, Want, Call) {
    let json = format!(
        r#"{{"vaults":[{{"name":"azure","prefix":"azure","config":{{"vault_uri":"https://v.vault.azure.net",
        "tenant_id":"t","client_id":"c","client_secret":"s","ttl":10,"dates":"{dates}"}}}}]}}"#
    );
    let config = Config::parse(json.as_bytes(), &|_| None).unwrap();
    let (_, want) = resolver(10, 0);
    let mut fetcher = Fetcher::new(Rc::new(config));
    let call = world.fetch(&mut fetcher, &want, 1);
    let call = world.token(&mut fetcher, &call.calls[0]);
    let newest = r#"{"value":"later","attributes":{"enabled":true,"nbf":4102444800}}"#;
    let mut todo = world.answer(&mut fetcher, &call.calls[0], 200, newest);
    assert!(todo.woken.is_empty());
    let list = todo.calls.pop().unwrap();
    assert!(list.request.path.starts_with("/secrets/db/versions?"));
    (fetcher, want, list)
}

const VERSIONS: &str = r#"{"value":[
    {"id":"https://v.vault.azure.net/secrets/db/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","attributes":{"enabled":true,"created":1}},
    {"id":"https://v.vault.azure.net/secrets/db/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","attributes":{"enabled":true,"created":2}},
    {"id":"https://v.vault.azure.net/secrets/db/cccccccccccccccccccccccccccccccc","attributes":{"enabled":true,"created":3,"nbf":4102444800}}]}"#;

#[test]
fn before_its_activation_date_the_newest_valid_version_is_served() {
    for dates in ["enforce", "warn"] {
        let world = World::new(&NoStore);
        let (mut fetcher, want, list) = not_yet_valid(&world, dates);
        let todo = world.answer(&mut fetcher, &list, 200, VERSIONS);
        let path = &todo.calls[0].request.path;
        assert!(
            path.starts_with("/secrets/db/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb?"),
            "{path}"
        );
        assert_eq!(todo.calls[0].request.authority, "v.vault.azure.net");
        let done = world.value(&mut fetcher, &todo.calls[0], "now");
        assert_eq!((done.woken, done.log.len()), (vec![1], 1));
        assert_eq!(value(&world.look(&mut fetcher, &want)), "now");
    }
}

#[test]
fn without_a_valid_version_the_newest_one_decides() {
    for (status, list) in [
        (200, r#"{"value":[]}"#),
        (403, ""),
        (200, "<html>"),
        (500, ""),
    ] {
        let world = World::new(&NoStore);
        let (mut fetcher, want, call) = not_yet_valid(&world, "warn");
        assert_eq!(world.answer(&mut fetcher, &call, status, list).woken, [1]);
        assert_eq!(value(&world.look(&mut fetcher, &want)), "later");
        let (mut fetcher, want, call) = not_yet_valid(&world, "enforce");
        let since = Timestamp(world.time.get());
        assert_eq!(world.answer(&mut fetcher, &call, status, list).woken, [1]);
        let found = fetcher.lookup(&want, Some(since), since);
        assert!(
            matches!(
                found,
                Lookup::Failed {
                    reason: Reason::NotYetValid,
                    ..
                }
            ),
            "{found:?}"
        );
    }
}

#[test]
fn a_version_that_was_asked_for_by_its_name_has_no_other_in_its_place() {
    let world = World::new(&NoStore);
    let (mut fetcher, mut want) = resolver(10, 0);
    want.key.version = Some("c".repeat(32));
    let call = world.fetch(&mut fetcher, &want, 1);
    let call = world.token(&mut fetcher, &call.calls[0]);
    let answer = r#"{"value":"later","attributes":{"enabled":true,"nbf":4102444800}}"#;
    let todo = world.answer(&mut fetcher, &call.calls[0], 200, answer);
    assert_eq!((todo.calls.len(), todo.woken), (0, vec![1]));
}
