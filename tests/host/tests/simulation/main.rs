//! Random traffic over random configurations with every fault, in both dialects, and what must hold
//! whatever happens. A failure names its dialect and seed: `AKV_SEED=n cargo test --test simulation` runs
//! that one, `AKV_SEEDS=n` that many.

mod world;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use proxy_wasm_host::{
    Dialect, Ending, Headers, Outcome, Planted, Request, Response, Sent, StreamId, azure,
};
use serde_json::{Value, json};
use world::{BOTH, MARK, World, say};

/// Seeds in one run for each dialect; more by `AKV_SEEDS`.
const SEEDS: u64 = 150;
const STEPS: usize = 120;
const SECRETS: [&str; 5] = ["open-1", "open-2", "open-3", "db", "closed"];
/// Headers, and the names under which a query's parameter and a JSON body's string are remembered.
const PLACES: [&str; 5] = ["x-key", "x-other", "x-third", QUERY, BODY];
const QUERY: &str = "query";
const BODY: &str = "body";

/// What happened in all simulations together.
#[derive(Default, Debug)]
struct Stats {
    simulations: u64,
    requests: usize,
    resolved: usize,
    denied: usize,
    left: usize,
    calls: usize,
    faults: BTreeMap<&'static str, usize>,
}

/// The configuration's part that the rules depend on; times in milliseconds.
#[derive(Clone, Debug)]
struct Rules {
    ttl: Option<u64>,
    resurrect: u64,
    on_error: &'static str,
    set: bool,
    redact: bool,
}

impl Rules {
    fn longest(&self) -> Option<u64> {
        Some(self.ttl? + self.resurrect)
    }
}

/// A value that a secret had, and until when.
struct Version {
    secret: &'static str,
    value: String,
    until: Option<u64>,
}

struct Asked {
    id: StreamId,
    headers: Vec<(&'static str, String)>,
}

struct Simulation {
    random: fastrand::Rng,
    world: World,
    rules: Rules,
    versions: Vec<Version>,
    asked: Vec<Asked>,
    seen: Rc<RefCell<Vec<Sent>>>,
    /// The clock was set: ages mean nothing any more.
    jumped: bool,
    started: u64,
    lost: usize,
    workers: usize,
    faults: BTreeMap<&'static str, usize>,
}

fn percent(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

/// What the upstream got in this place; nothing for a place that was dropped.
fn got(sent: &Sent, place: &str) -> Option<String> {
    match place {
        QUERY => {
            let target = sent.headers.text(":path");
            let query = target.split_once('?').map_or("", |(_, query)| query);
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let value = pairs.find(|(name, _)| *name == "key")?.1;
            assert!(
                target.starts_with("/?a=1&key=") && target.ends_with("&b=2"),
                "{target}"
            );
            Some(unpercent(value))
        }
        BODY => {
            let body: Value = serde_json::from_slice(&sent.body).expect("the body is JSON still");
            body["k"][0].as_str().map(str::to_owned)
        }
        _ => sent
            .headers
            .get(place)
            .map(|v| String::from_utf8_lossy(v).into_owned()),
    }
}

fn unpercent(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next(), bytes.next()].map(|d| char::from(d.expect("a digit")));
            let digits: String = digits.iter().collect();
            out.push(u8::from_str_radix(&digits, 16).expect("hexadecimal"));
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).expect("a text")
}

fn one<T: Copy>(random: &mut fastrand::Rng, from: &[T]) -> T {
    from[random.usize(..from.len())]
}

impl Simulation {
    fn new(dialect: Dialect, seed: u64, planted: Option<Planted>) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (ttl, resurrect) = (
            one(&mut random, &[0, 2, 10, 60]),
            one(&mut random, &[0, 5, 1000]),
        );
        let rules = Rules {
            ttl: (ttl > 0).then_some(ttl * 1000),
            resurrect: resurrect * 1000,
            on_error: one(&mut random, &["deny", "deny", "remove", "keep"]),
            set: random.bool(),
            // A planted bug is to be found by its own rule.
            redact: random.bool() && planted.is_none(),
        };
        let vault = json!({ "ttl": ttl, "resurrect_ttl": resurrect, "neg_ttl": one(&mut random, &[0, 1, 30]),
            "timeout_ms": one(&mut random, &[300, 5000]) });
        let mut request = world::resolve();
        if rules.set {
            request["set"] = json!({ "headers": { "authorization": "Bearer {vault://azure/db}" } });
        }
        let mut configuration = world::configuration(&vault, &request);
        configuration["on_error"] = json!(rules.on_error);
        configuration["response"] = json!({ "redact": rules.redact });
        configuration["request"]["resolve"]["query"] = json!(["key"]);
        configuration["request"]["resolve"]["body"] = json!(["application/json"]);
        let workers = random.usize(1..=3);
        let mut world = World::whole(dialect, configuration, |settings| {
            settings.workers = workers;
            settings.seed = seed;
            settings.response_chunk = random.usize(1..40);
            settings.dispatch_status = random.bool();
            settings.planted = planted;
            settings.zone = Some(one(&mut random, &[4_000, 1 << 20]));
            if dialect == Dialect::Wasmx && random.u8(..4) == 0 {
                settings.zone = None;
                settings.configuration = world::without_shared_data(&settings.configuration);
            }
        });
        let seen = Rc::new(RefCell::new(Vec::new()));
        let record = Rc::clone(&seen);
        world.gateway.answer_upstream(move |sent| {
            record.borrow_mut().push(sent.clone());
            let headers: String = sent
                .headers
                .iter()
                .map(|(n, v)| format!("{n}: {}\n", String::from_utf8_lossy(v)))
                .collect();
            let echo = [headers.as_bytes(), &sent.body].concat();
            Response::new(200, &[("content-length", &echo.len().to_string())], &echo)
        });
        let started = world.gateway.now();
        let mut simulation = Self {
            random,
            world,
            rules,
            versions: Vec::new(),
            asked: Vec::new(),
            seen,
            jumped: false,
            started,
            lost: 0,
            workers,
            faults: BTreeMap::new(),
        };
        for secret in SECRETS {
            simulation.rotate(secret);
        }
        simulation
    }

    fn rotate(&mut self, secret: &'static str) {
        let value = format!("{MARK}-{secret}#{}", self.versions.len());
        self.end(secret);
        self.world.azure.set_time(self.world.gateway.now() / 1000);
        self.world.azure.set_secret(secret, &value);
        self.versions.push(Version {
            secret,
            value,
            until: None,
        });
    }

    fn end(&mut self, secret: &str) {
        let now = self.world.gateway.now();
        let current = self
            .versions
            .iter_mut()
            .filter(|v| v.secret == secret && v.until.is_none());
        for version in current {
            version.until = Some(now);
        }
    }

    fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    fn step(&mut self, workers: usize) {
        match self.random.u8(..100) {
            0..=39 => self.ask(workers),
            40..=69 => self.answer(),
            70..=84 => {
                let most = one(&mut self.random, &[50, 1000, 4000]);
                let span = self.random.u64(1..most);
                self.world.gateway.advance(span);
            }
            85..=88 => {
                let secret = one(&mut self.random, &SECRETS);
                self.rotate(secret);
            }
            89 => {
                let secret = one(&mut self.random, &SECRETS);
                self.end(secret);
                self.world.azure.delete_secret(secret);
                self.fault("secret deleted");
            }
            90..=92 => {
                if let Some(asked) = self.asked.last() {
                    let id = asked.id;
                    self.world.gateway.client_leaves(id);
                    self.fault("client left");
                }
            }
            93 => {
                let worker = self.random.usize(..workers);
                self.world.gateway.restart(worker);
                self.lost += 1;
                self.fault("worker restarted");
            }
            94..=95 => {
                let pick = self.random.usize(..100);
                self.world.gateway.evict(pick);
                self.lost += 1;
                self.fault("entry evicted");
            }
            96 => {
                self.world.azure.revoke_tokens();
                self.fault("tokens revoked");
            }
            97 => {
                self.world.gateway.clear_shared_data();
                self.lost += 1;
                self.fault("shared data lost");
            }
            98 if self.random.u8(..4) == 0 => {
                let now = self.world.gateway.now();
                let to = if self.random.bool() {
                    now + 3_600_000
                } else {
                    now - 600_000
                };
                self.world.gateway.set_clock(to);
                self.jumped = true;
                self.fault("clock jumped");
            }
            _ => self.world.gateway.advance(20),
        }
    }

    fn ask(&mut self, workers: usize) {
        let mut headers = Vec::new();
        for place in PLACES {
            if self
                .random
                .u8(..if place.starts_with("x-") { 2 } else { 4 })
                > 0
            {
                continue;
            }
            let secret = one(&mut self.random, &SECRETS);
            let text = match self.random.u8(..10) {
                0 => "no reference".to_owned(),
                1 => format!("{{vault://other/{secret}}}"),
                2 => format!("{{vault://azure/{secret}"),
                3 => format!("a {{vault://azure/{secret}}} z"),
                4 => format!("\\{{vault://azure/{secret}}}"),
                _ => format!("{{vault://azure/{secret}}}"),
            };
            headers.push((place, text));
        }
        let number = self.asked.len().to_string();
        let find = |wanted: &str| headers.iter().find(|(place, _)| *place == wanted);
        let target = match find(QUERY) {
            Some((_, text)) => format!("/?a=1&key={}&b=2", percent(text)),
            None => "/?a=1".to_owned(),
        };
        let mut request = match find(BODY) {
            Some((_, text)) => Request::post(
                &target,
                "application/json",
                json!({ "k": [text] }).to_string().as_bytes(),
            ),
            None => Request::get(&target, &[]),
        };
        request.headers.push("x-number", number.as_bytes());
        for (name, value) in headers.iter().filter(|(place, _)| place.starts_with("x-")) {
            request.headers.push(name, value.as_bytes());
        }
        // In two pieces, as bodies come.
        if let [body] = request.body.as_slice() {
            let (one, other) = body.split_at(body.len() / 2);
            request.body = vec![one.to_vec(), other.to_vec()];
        }
        let worker = self.random.usize(..workers);
        let id = self.world.gateway.request(worker, request);
        self.asked.push(Asked { id, headers });
    }

    /// One of the calls that wait is answered: well most of the time.
    fn answer(&mut self) {
        let calls = self.world.gateway.calls();
        if calls.is_empty() {
            return;
        }
        let place = self.random.usize(..calls.len());
        let call = &calls[place];
        let now = self.world.gateway.now();
        let json = [("content-type", "application/json")];
        let (kind, ending) = match self.random.u8(..24) {
            0 => ("timeout", Ending::Timeout),
            1 => ("refused", Ending::Refused),
            2 => ("tls", Ending::Tls),
            3 => ("closed", Ending::Closed),
            4 => {
                let (ending, _) = azure::ending(&self.world.azure, call, now);
                match ending {
                    Ending::Answer(response) => ("cut", Ending::Cut(response)),
                    other => ("cut", other),
                }
            }
            5 => ("503", Ending::Answer(Response::new(503, &json, b"{}"))),
            6 => (
                "429",
                Ending::Answer(Response::new(429, &[("retry-after", "2")], b"")),
            ),
            7 => (
                "garbage",
                Ending::Answer(Response::new(200, &json, b"{\"value\":")),
            ),
            8 => (
                "wrong status",
                Ending::Answer(Response::new(302, &json, b"")),
            ),
            9 => ("dns", Ending::Dns),
            _ => {
                azure::answer(&mut self.world.gateway, &self.world.azure, place);
                return;
            }
        };
        self.fault(kind);
        self.world.gateway.end_call(call.token, ending);
    }

    /// No more faults: everything that waits has to come to an end.
    fn calm_down(&mut self) {
        for _ in 0..200 {
            azure::answer_all(&mut self.world.gateway, &self.world.azure);
            if self.waiting().is_empty() {
                return;
            }
            self.world.gateway.advance(100);
        }
    }

    fn waiting(&self) -> Vec<StreamId> {
        let ids = self.asked.iter().map(|asked| asked.id);
        ids.filter(|id| self.world.gateway.outcome(*id) == Outcome::Waiting)
            .collect()
    }

    // What must hold.

    fn nobody_hangs(&self) {
        assert_eq!(self.waiting(), [], "these requests hang");
    }

    fn everybody_gets_what_the_rules_say(&self, stats: &mut Stats) {
        let mut answered = BTreeSet::new();
        for sent in self.seen.borrow().iter() {
            let number: usize = sent.headers.text("x-number").parse().expect("a number");
            assert!(answered.insert(number), "request {number} was sent twice");
            for (place, text) in &self.asked[number].headers {
                let got = got(sent, place);
                self.check_header(text, got.as_deref(), sent.time, stats);
            }
            if self.rules.set {
                self.check_set(&sent.headers, sent.time);
            }
        }
    }

    /// Values that an upstream sent back, which it did with all of them.
    fn nothing_comes_back_where_it_is_masked(&self) {
        if !self.rules.redact {
            return;
        }
        for asked in &self.asked {
            if let Some(answer) = self.world.gateway.answered(asked.id) {
                let text = String::from_utf8_lossy(&answer.body);
                assert!(!text.contains(MARK), "not masked: {text}");
            }
        }
    }

    fn check_set(&self, headers: &Headers, time: u64) {
        let got = headers.text("authorization");
        match got.strip_prefix("Bearer ") {
            Some(value) if value.starts_with(MARK) => self.check_value("db", value, time),
            Some(kept) => assert_eq!((kept, self.rules.on_error), ("{vault://azure/db}", "keep")),
            None => assert_ne!(
                self.rules.on_error, "deny",
                "sent without the operator's header"
            ),
        }
    }

    fn check_header(&self, text: &str, got: Option<&str>, time: u64, stats: &mut Stats) {
        let rest = text.strip_prefix("a ").unwrap_or(text);
        let name = rest
            .strip_prefix("{vault://azure/")
            .and_then(|rest| rest.split_once('}'));
        let listed = name.is_some_and(|(name, _)| name != "closed");
        if !listed {
            // Not to be resolved: as it came; an escape loses its backslash.
            let plain = text.strip_prefix('\\').unwrap_or(text);
            assert!(
                got == Some(text) || got == Some(plain),
                "{text} became {got:?}"
            );
            return;
        }
        let name = name.map(|(name, _)| name).unwrap_or_default();
        // A host that cannot remove a header blanks it.
        let Some(got) = got.filter(|got| !got.is_empty()) else {
            assert_eq!(self.rules.on_error, "remove", "{text} was dropped");
            return;
        };
        if got == text {
            assert_eq!(self.rules.on_error, "keep", "{text} was let through");
            return;
        }
        let value = if text.starts_with("a ") {
            got.strip_prefix("a ")
                .and_then(|v| v.strip_suffix(" z"))
                .expect("the text around it")
        } else {
            got
        };
        self.check_value(name, value, time);
        stats.resolved += 1;
    }

    /// A value of this secret, and no older than the rules allow.
    fn check_value(&self, name: &str, value: &str, time: u64) {
        let version = self.versions.iter().find(|v| v.value == value);
        let version = version.unwrap_or_else(|| panic!("{value} is no value that any secret had"));
        assert_eq!(version.secret, name, "another's value: {value}");
        if let (Some(until), Some(longest), false) =
            (version.until, self.rules.longest(), self.jumped)
        {
            let age = time.saturating_sub(until);
            assert!(
                age < longest.max(1),
                "{value} was replaced {age} ms ago; {:?}",
                self.rules
            );
        }
    }

    fn nothing_unlisted_is_fetched(&self) {
        assert_eq!(self.world.azure.secret_calls("closed"), 0);
    }

    /// Failures are tried again after half a second at the earliest, values are renewed at 7/10 of their
    /// ttl at the earliest; on WasmX each waiting request calls for itself.
    fn azure_is_not_stormed(&self, workers: usize) {
        let seconds = (self.world.gateway.now().saturating_sub(self.started) / 1000) as usize;
        for secret in SECRETS {
            let asks = self
                .asked
                .iter()
                .flat_map(|a| &a.headers)
                .filter(|(_, text)| text.contains(secret));
            let own = match self.world.gateway.dialect() {
                Dialect::Envoy => 0,
                Dialect::Wasmx => asks.count() * 2,
            };
            let most = own + (workers + 1) * (4 + 2 * seconds + 2 * self.lost);
            let calls = self.world.azure.secret_calls(secret);
            assert!(
                self.jumped || calls <= most,
                "{secret}: {calls} calls, {most} at the most"
            );
        }
    }

    fn finish(&mut self, workers: usize, stats: &mut Stats) {
        self.calm_down();
        self.nobody_hangs();
        self.everybody_gets_what_the_rules_say(stats);
        self.nothing_comes_back_where_it_is_masked();
        self.nothing_unlisted_is_fetched();
        self.azure_is_not_stormed(workers);
        // Nothing was punished, no callback panicked, nothing secret is in the log.
        self.world.check();
        stats.simulations += 1;
        stats.requests += self.asked.len();
        stats.calls += self.world.azure.calls().len();
        for asked in &self.asked {
            match self.world.gateway.outcome(asked.id) {
                Outcome::Answered(answer) if answer.local => stats.denied += 1,
                Outcome::Gone => stats.left += 1,
                _ => {}
            }
        }
        for (kind, times) in &self.faults {
            *stats.faults.entry(kind).or_default() += times;
        }
    }
}

fn simulate(dialect: Dialect, seed: u64, planted: Option<Planted>, stats: &mut Stats) {
    let mut simulation = Simulation::new(dialect, seed, planted);
    let workers = simulation.workers;
    for step in 0..STEPS {
        simulation.step(workers);
        if std::env::var_os("AKV_TRACE").is_some() {
            println!(
                "step {step} at {}: {:?}",
                simulation.world.gateway.now(),
                simulation.waiting()
            );
        }
    }
    simulation.finish(workers, stats);
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn run(dialect: Dialect) {
    let seeds = match number("AKV_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("AKV_SEEDS").unwrap_or(SEEDS),
    };
    let mut stats = Stats::default();
    for seed in seeds {
        let result = catch_unwind(AssertUnwindSafe(|| {
            simulate(dialect, seed, None, &mut stats)
        }));
        assert!(result.is_ok(), "{dialect:?} fails with AKV_SEED={seed}");
    }
    say(&format!("{dialect:?}: {stats:?}"));
    assert!(
        stats.resolved as u64 > stats.simulations * 5,
        "the simulations resolve something"
    );
}

#[test]
fn the_rules_hold_in_envoy() {
    run(Dialect::Envoy);
}

#[test]
fn the_rules_hold_in_wasmx() {
    run(Dialect::Wasmx);
}

/// What a simulation says that has a bug in it.
fn complaint(dialect: Dialect, planted: Planted) -> String {
    for seed in 0..SEEDS {
        let result = catch_unwind(AssertUnwindSafe(|| {
            simulate(dialect, seed, Some(planted), &mut Stats::default())
        }));
        if let Err(payload) = result {
            let text = payload.downcast_ref::<String>().cloned();
            return text
                .or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_default();
        }
    }
    panic!("{dialect:?}: {planted:?} was not found in {SEEDS} simulations");
}

#[test]
fn planted_bugs_are_found() {
    let kinds: [(Planted, &[&str]); 5] = [
        (Planted::Hang, &["hang"]),
        (Planted::Leak, &["in the log"]),
        (Planted::Panic, &["panicked", "was let through"]),
        (Planted::Stale, &["ms ago"]),
        (Planted::Mixed, &["another's value", "is no value"]),
    ];
    for dialect in BOTH {
        for (planted, words) in kinds {
            let text = complaint(dialect, planted);
            assert!(
                words.iter().any(|word| text.contains(word)),
                "{dialect:?} {planted:?}: {text}"
            );
            say(&format!("{dialect:?} {planted:?}: found"));
        }
    }
}
