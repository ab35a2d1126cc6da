//! Random traffic over random configurations with every fault, in both dialects, and what must hold
//! whatever happens. A failure names its dialect and seed: `AKV_SEED=n cargo test --test simulation` runs
//! that one; `AKV_REQUESTS=n` makes so many requests in place of 100,000, `AKV_FIRST_SEED=n` begins with
//! that seed.

mod rules;
mod traffic;
#[path = "../world/mod.rs"]
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use envoy_test::emulator::AppRegistration;
use envoy_test::world::{CLIENT_SECRET, TENANT};
use proxy_wasm_host::{Dialect, Ending, Outcome, Planted, Response, StreamId, azure};
use serde_json::{Value, json};
use traffic::{Asked, FRAME, Kind, SECOND, Upstream, one, vault_and_name};
use world::{BOTH, MARK, World, say};

/// Requests in one run, over both dialects; more by `AKV_REQUESTS`.
const REQUESTS: usize = 100_000;
const STEPS: usize = 500;
/// Far more than the small limits.
const OPEN_SECRETS: usize = 12;
/// Of the second vault, under the same names.
const SECONDS_SECRETS: usize = 4;
/// The identity of the second vault.
const SECOND_CLIENT: &str = "5ec0ad00-0000-4000-8000-000000000002";

/// What happened in all simulations together.
#[derive(Default, Debug)]
pub(crate) struct Stats {
    simulations: u64,
    requests: usize,
    resolved: usize,
    denied: usize,
    too_large: usize,
    resets: usize,
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
    hold_headers: bool,
    body_limit: usize,
    /// The caches' limits are far below the number of secrets.
    small_limits: bool,
    /// There is a second filter in the chain.
    second: bool,
}

impl Rules {
    fn longest(&self) -> Option<u64> {
        Some(self.ttl? + self.resurrect)
    }

    /// A response's pieces are held by a filter that masks: no real buffer is smaller.
    fn response_limit(&self) -> usize {
        self.body_limit.max(16 << 10)
    }
}

/// A value that a secret had, and until when.
struct Version {
    secret: String,
    value: String,
    until: Option<u64>,
}

struct Simulation {
    random: fastrand::Rng,
    world: World,
    rules: Rules,
    configuration: String,
    secrets: Vec<String>,
    versions: Vec<Version>,
    asked: Vec<Asked>,
    upstream: Rc<RefCell<Upstream>>,
    /// The clock was set: ages mean nothing any more.
    jumped: bool,
    /// A reload took open requests with it.
    drained: bool,
    started: u64,
    lost: usize,
    workers: usize,
    faults: BTreeMap<&'static str, usize>,
}

/// Limits that random traffic crosses all the time.
fn small_limits() -> Value {
    const SMALL: [&str; 6] = [
        "cached_secrets",
        "cached_misses",
        "shared_entries",
        "views",
        "memo_entries",
        "woken_at_once",
    ];
    SMALL.into_iter().map(|name| (name, 3)).collect()
}

/// What all filters of a chain have in common.
fn rules(random: &mut fastrand::Rng, dialect: Dialect, planted: Option<Planted>) -> (Rules, Value) {
    let (ttl, resurrect) = (one(random, &[0, 2, 10, 60]), one(random, &[0, 5, 1000]));
    let second = random.u8(..4) == 0;
    // WasmX: the second filter of a chain sees neither the end nor, once the first one masks, the length.
    let masks = planted.is_none() && !(second && dialect == Dialect::Wasmx);
    let rules = Rules {
        ttl: (ttl > 0).then_some(ttl * 1000),
        resurrect: resurrect * 1000,
        on_error: one(random, &["deny", "deny", "remove", "keep"]),
        set: random.bool(),
        // A planted bug is to be found by its own rule.
        redact: random.bool() && masks,
        hold_headers: dialect == Dialect::Envoy && random.bool(),
        body_limit: one(random, &[1000, 16 << 10, 1 << 20]),
        small_limits: random.bool(),
        second,
    };
    let vault = json!({ "ttl": ttl, "resurrect_ttl": resurrect, "neg_ttl": one(random, &[0, 1, 30]),
        "timeout_ms": one(random, &[300, 5000]) });
    let mut request = world::resolve();
    if rules.set {
        request["set"] = json!({ "headers": { "authorization": "Bearer {vault://azure/db}" } });
    }
    request["resolve"]["allow"] = json!(["azure/db", "azure/open-*", "second/open-*"]);
    let mut configuration = world::configuration(&vault, &request);
    add_second_vault(&mut configuration);
    configuration["on_error"] = json!(rules.on_error);
    configuration["response"] = json!({ "redact": rules.redact });
    configuration["request"]["resolve"]["query"] = json!(["key"]);
    configuration["request"]["resolve"]["body"] = json!(["application/json"]);
    if rules.small_limits {
        configuration["limits"] = small_limits();
    }
    (rules, configuration)
}

/// A vault with an identity of its own, and for the rest like the first one.
fn add_second_vault(configuration: &mut Value) {
    let mut second = configuration["vaults"][0].clone();
    second["prefix"] = json!("second");
    second["config"]["vault_uri"] = json!("https://second.vault.azure.net");
    second["config"]["client_id"] = json!(SECOND_CLIENT);
    if let Some(vaults) = configuration["vaults"].as_array_mut() {
        vaults.push(second);
    }
}

/// The second filter's part: a header of its own.
fn second(configuration: &Value) -> Value {
    let mut second = configuration.clone();
    second["request"] = json!({
        "resolve": { "headers": [SECOND], "allow": configuration["request"]["resolve"]["allow"] }
    });
    second
}

impl Simulation {
    fn new(dialect: Dialect, seed: u64, planted: Option<Planted>) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (rules, configuration) = rules(&mut random, dialect, planted);
        let workers = random.usize(1..=3);
        let mut text = String::new();
        let mut world = World::whole(dialect, configuration.clone(), |settings| {
            settings.workers = workers;
            settings.seed = seed;
            settings.dispatch_status = random.bool();
            settings.planted = planted;
            settings.zone = Some(one(&mut random, &[4_000, 1 << 20]));
            settings.hold_headers = rules.hold_headers;
            settings.body_limit = rules.body_limit;
            settings.response_limit = rules.response_limit();
            settings.proxy_buffering = random.bool();
            if rules.second {
                let second = world::for_dialect(dialect, second(&configuration));
                settings.further = vec![second.to_string().into_bytes()];
            }
            if dialect == Dialect::Wasmx && random.u8(..4) == 0 {
                settings.zone = None;
                settings.configuration = world::without_shared_data(&settings.configuration);
                for further in &mut settings.further {
                    *further = world::without_shared_data(further);
                }
            }
            text = String::from_utf8_lossy(&settings.configuration).into_owned();
        });
        // A host reads no more at once than its buffer takes, and a filter may hold a piece for the next one.
        let most = match dialect {
            Dialect::Envoy => rules.response_limit() / 4,
            Dialect::Wasmx => usize::MAX,
        };
        let upstream = traffic::echo(&mut world.gateway, seed, most);
        let started = world.gateway.now();
        world.azure.add_app(AppRegistration {
            tenant: TENANT.to_owned(),
            client_id: SECOND_CLIENT.to_owned(),
            client_secret: CLIENT_SECRET.to_owned(),
        });
        let first = (0..OPEN_SECRETS).map(|n| format!("azure/open-{n}"));
        let seconds = (0..SECONDS_SECRETS).map(|n| format!("second/open-{n}"));
        let mut secrets: Vec<String> = first.chain(seconds).collect();
        secrets.extend(["azure/db".to_owned(), "azure/closed".to_owned()]);
        let mut simulation = Self {
            random,
            world,
            rules,
            configuration: text,
            secrets: secrets.clone(),
            versions: Vec::new(),
            asked: Vec::new(),
            upstream,
            jumped: false,
            drained: false,
            started,
            lost: 0,
            workers,
            faults: BTreeMap::new(),
        };
        for secret in &secrets {
            simulation.rotate(secret);
        }
        simulation
    }

    fn rotate(&mut self, secret: &str) {
        let (vault, name) = vault_and_name(secret);
        let value = format!("{MARK}-{vault}-{name}#{}", self.versions.len());
        self.end(secret);
        self.world.azure.set_time(self.world.gateway.now() / 1000);
        let vault = if vault == "azure" { "default" } else { vault };
        let body = json!({ "value": value });
        self.world.azure.set_secret_in(vault, name, &body);
        self.versions.push(Version {
            secret: secret.to_owned(),
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

    fn secret(&mut self) -> String {
        let pick = self.random.usize(..self.secrets.len());
        self.secrets[pick].clone()
    }

    fn step(&mut self) {
        match self.random.u16(..1000) {
            0..=449 => self.ask(),
            450..=699 => self.answer(),
            700..=809 => {
                let most = one(&mut self.random, &[50, 1000, 4000]);
                let span = self.random.u64(1..most);
                self.world.gateway.advance(span);
            }
            810..=859 => self.go_on_sending(),
            860..=889 => {
                let secret = self.secret();
                self.rotate(&secret);
            }
            890..=899 => {
                let secret = self.secret();
                if let ("azure", name) = vault_and_name(&secret) {
                    self.end(&secret);
                    self.world.azure.delete_secret(name);
                    self.fault("secret deleted");
                }
            }
            900..=929 => {
                let back = self.random.usize(1..4);
                if let Some(at) = self.asked.len().checked_sub(back) {
                    self.world.gateway.client_leaves(self.asked[at].id);
                    self.fault("client left");
                }
            }
            930..=964 => self.disturb(),
            _ => self.world.gateway.advance(20),
        }
    }

    /// What operators, hosts and clocks do.
    fn disturb(&mut self) {
        match self.random.u8(..14) {
            0 | 1 => {
                let worker = self.random.usize(..self.workers);
                self.world.gateway.restart(worker);
                self.lost += 1;
                self.fault("worker restarted");
            }
            2..=4 => {
                let pick = self.random.usize(..100);
                self.world.gateway.evict(pick);
                self.lost += 1;
                self.fault("entry evicted");
            }
            5 | 6 => {
                self.world.azure.revoke_tokens();
                self.fault("tokens revoked");
            }
            7 | 8 => {
                self.world.gateway.clear_shared_data();
                self.lost += 1;
                self.fault("shared data lost");
            }
            9 => self.reload(),
            10 => {
                self.world.gateway.drain();
                self.drained = true;
            }
            // Rarely: what follows is not bound by ages.
            _ if self.random.u8(..8) == 0 => self.jump(),
            _ => {}
        }
    }

    fn reload(&mut self) {
        let configuration = self.configuration.clone();
        self.world.gateway.reload(&configuration);
        self.lost += 1;
        self.fault("reload");
    }

    fn jump(&mut self) {
        const HOUR: i64 = 3_600_000;
        let by = one(&mut self.random, &[1000, 2 * HOUR, 72 * HOUR]);
        let by = if self.random.bool() { by } else { -by };
        if self.random.bool() {
            let now = self.world.gateway.now();
            self.world.gateway.set_clock(now.saturating_add_signed(by));
            self.fault("clock jumped");
        } else {
            let worker = self.random.usize(..self.workers);
            self.world.gateway.set_skew(worker, by);
            self.fault("one worker's clock jumped");
        }
        self.jumped = true;
    }

    fn ask(&mut self) {
        let dialect = self.world.gateway.dialect();
        let names = self.secrets.clone();
        let secret = |random: &mut fastrand::Rng| names[random.usize(..names.len())].clone();
        let number = self.asked.len();
        let (request, mut asked) = traffic::request(&mut self.random, dialect, number, secret);
        let worker = self.random.usize(..self.workers);
        asked.id = self.world.gateway.request(worker, request);
        asked.streams = asked.kind == Kind::Upgrade;
        self.asked.push(asked);
    }

    /// A client sends more of a request that it has not ended; a tunnel's ends talk.
    fn go_on_sending(&mut self) {
        let open: Vec<usize> = (0..self.asked.len())
            .filter(|n| self.asked[*n].open)
            .collect();
        if open.is_empty() {
            return;
        }
        let at = one(&mut self.random, &open);
        self.send_more(at);
    }

    fn send_more(&mut self, at: usize) {
        let gateway = &mut self.world.gateway;
        let asked = &mut self.asked[at];
        if asked.kind == Kind::Upgrade {
            if gateway.outcome(asked.id) == Outcome::Waiting
                && gateway.answer_so_far(asked.id).is_some()
            {
                gateway.client_sends(asked.id, FRAME);
                gateway.upstream_sends(asked.id, FRAME);
                asked.frames += 1;
            }
            return;
        }
        if asked.later.is_empty() {
            gateway.client_ends(asked.id, &[]);
            asked.open = false;
        } else {
            let piece = asked.later.remove(0);
            gateway.client_sends(asked.id, &piece);
        }
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
        let response = |status, headers: &[_], body: &[u8]| {
            Ending::Answer(Response::new(status, headers, body))
        };
        let (kind, ending) = match self.random.u8(..30) {
            0 => ("timeout", Ending::Timeout),
            1 => ("refused", Ending::Refused),
            2 => ("tls", Ending::Tls),
            3 => ("closed", Ending::Closed),
            4 => match azure::ending(&self.world.azure, call, now).0 {
                Ending::Answer(response) => ("cut", Ending::Cut(response)),
                other => ("cut", other),
            },
            5 => ("503", response(503, &json, b"{}")),
            6 => ("429", response(429, &[("retry-after", "2")], b"")),
            7 => ("garbage", response(200, &json, b"{\"value\":")),
            8 => ("wrong status", response(302, &json, b"")),
            9 => ("dns", Ending::Dns),
            10 => ("401", response(401, &json, b"{}")),
            11 => ("empty", response(200, &json, b"")),
            _ => {
                azure::answer(&mut self.world.gateway, &self.world.azure, place);
                return;
            }
        };
        self.fault(kind);
        self.world.gateway.end_call(call.token, ending);
    }

    /// No more faults: clients and upstreams send the rest, and everything has to come to an end.
    fn calm_down(&mut self) {
        for at in 0..self.asked.len() {
            while self.asked[at].open && self.asked[at].kind != Kind::Upgrade {
                self.send_more(at);
            }
        }
        for _ in 0..600 {
            azure::answer_all(&mut self.world.gateway, &self.world.azure);
            for asked in self.asked.iter().filter(|a| a.kind == Kind::Upgrade) {
                self.world.gateway.upstream_ends(asked.id, &[]);
            }
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

    fn finish(&mut self, stats: &mut Stats) {
        self.calm_down();
        self.nothing_waits();
        // Nothing was punished, no callback panicked, nothing secret is in the log.
        self.world.check();
        self.every_request_arrives_by_the_rules(stats);
        self.every_answer_arrives_by_the_rules(stats);
        self.nothing_unlisted_is_fetched();
        self.each_token_goes_to_its_own_vault();
        self.azure_is_not_stormed();
        stats.simulations += 1;
        stats.requests += self.asked.len();
        stats.calls += self.world.azure.calls().len();
        for (kind, times) in &self.faults {
            *stats.faults.entry(kind).or_default() += times;
        }
    }
}

fn simulate(dialect: Dialect, seed: u64, planted: Option<Planted>, stats: &mut Stats) {
    let mut simulation = Simulation::new(dialect, seed, planted);
    let trace = std::env::var_os("AKV_TRACE").is_some();
    for step in 0..STEPS {
        simulation.step();
        if trace {
            let now = simulation.world.gateway.now();
            say(&format!("step {step} at {now}: {:?}", simulation.waiting()));
        }
    }
    simulation.finish(stats);
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn run(dialect: Dialect) {
    let wanted = number("AKV_REQUESTS").map_or(REQUESTS, |n| n as usize) / BOTH.len();
    let only = number("AKV_SEED");
    let mut seed = only.or_else(|| number("AKV_FIRST_SEED")).unwrap_or(0);
    let mut stats = Stats::default();
    say(&format!("{dialect:?}: the first seed is {seed}"));
    while stats.requests < wanted {
        let result = catch_unwind(AssertUnwindSafe(|| {
            simulate(dialect, seed, None, &mut stats);
        }));
        assert!(result.is_ok(), "{dialect:?} fails with AKV_SEED={seed}");
        if only.is_some() {
            break;
        }
        seed += 1;
    }
    say(&format!("{dialect:?}: {stats:?}"));
    assert!(
        only.is_some() || stats.resolved > stats.requests / 10,
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
    const MOST: u64 = 50;
    for seed in 0..MOST {
        let result = catch_unwind(AssertUnwindSafe(|| {
            simulate(dialect, seed, Some(planted), &mut Stats::default());
        }));
        if let Err(payload) = result {
            let text = payload.downcast_ref::<String>().cloned();
            return text
                .or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_default();
        }
    }
    panic!("{dialect:?}: {planted:?} was not found in {MOST} simulations");
}

#[test]
fn planted_bugs_are_found() {
    let kinds = [
        (Planted::Hang, "these requests hang"),
        (Planted::Leak, "in the log"),
        (Planted::Panic, "panicked: a planted bug"),
        (Planted::Stale, "ms ago"),
        (Planted::Mixed, "another's value"),
    ];
    for dialect in BOTH {
        for (planted, word) in kinds {
            let text = complaint(dialect, planted);
            assert!(text.contains(word), "{dialect:?} {planted:?}: {text}");
            say(&format!("{dialect:?} {planted:?}: found"));
        }
    }
}
