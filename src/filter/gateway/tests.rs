//! The filter's rim over a host made of memory, in both dialects: what reaches the upstream, what the
//! client gets, and which host calls are made. Real hosts are in `envoy-test/` and `tests/`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::super::header_map::serialize;
use super::super::host::{MetricKind, SharedValue};
use super::super::vm::Vm;
use super::*;

type Headers = Vec<(String, Vec<u8>)>;

/// What one request's headers are, and what became of the request.
#[derive(Default)]
struct Stream {
    headers: Headers,
    reply: Option<(u32, String)>,
    resumed: bool,
}

/// A host that forgets nothing.
struct FakeHost {
    dialect: Dialect,
    configuration: String,
    time: Cell<u64>,
    focus: Cell<u32>,
    streams: RefCell<std::collections::BTreeMap<u32, Stream>>,
    calls: RefCell<Vec<(u32, String)>>,
    answer: RefCell<(u16, String)>,
    log: RefCell<Vec<String>>,
    tick_periods: RefCell<Vec<Span>>,
    unknown_cluster: Cell<bool>,
    host_calls: Cell<usize>,
    metrics: RefCell<Vec<(String, u64)>>,
}

struct Shared(Rc<FakeHost>);

impl FakeHost {
    /// What the host allocates is not the filter's.
    fn on_stream<R>(&self, act: impl FnOnce(&mut Stream) -> R) -> Result<R, Refused> {
        self.host_calls.set(self.host_calls.get() + 1);
        let mut done = None;
        allocation_counter::opt_out(|| {
            let mut streams = self.streams.borrow_mut();
            done = streams.get_mut(&self.focus.get()).map(act);
        });
        done.ok_or(Refused::BAD_ARGUMENT)
    }
}

impl Host for Shared {
    fn dialect(&self) -> Dialect {
        self.0.dialect
    }
    fn now(&self) -> Timestamp {
        Timestamp(self.0.time.get())
    }
    fn random(&self) -> u64 {
        0
    }
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
    fn log(&self, _: Level, message: &str) {
        self.0.log.borrow_mut().push(message.to_owned());
    }
    fn set_tick_period(&self, period: Span) {
        self.0.tick_periods.borrow_mut().push(period);
    }
    fn buffer(&self, buffer: Buffer) -> Result<Zeroizing<Vec<u8>>, Refused> {
        Ok(Zeroizing::new(match buffer {
            Buffer::Configuration => self.0.configuration.clone().into_bytes(),
            Buffer::CallAnswerBody => self.0.answer.borrow().1.clone().into_bytes(),
            Buffer::RequestBody | Buffer::ResponseBody => Vec::new(),
        }))
    }
    fn header_map(&self, map: Map) -> Result<Vec<u8>, Refused> {
        if map == Map::CallAnswer {
            return Ok(serialize(&[]));
        }
        self.0.on_stream(|stream| {
            let pairs: Vec<(&[u8], &[u8])> = stream
                .headers
                .iter()
                .map(|(n, v)| (n.as_bytes(), v.as_slice()))
                .collect();
            serialize(&pairs)
        })
    }
    fn header(&self, _: Map, name: &str) -> Option<Zeroizing<Vec<u8>>> {
        let status = self.0.answer.borrow().0.to_string();
        (name == ":status").then(|| Zeroizing::new(status.into_bytes()))
    }
    fn set_header(&self, _: Map, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        self.0.on_stream(|stream| {
            let name = String::from_utf8_lossy(name).into_owned();
            assert!(
                !stream.resumed && stream.reply.is_none(),
                "touched after its end"
            );
            stream
                .headers
                .retain(|(n, _)| !n.eq_ignore_ascii_case(&name));
            stream.headers.push((name, value.to_vec()));
        })
    }
    fn add_header(&self, _: Map, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        let name = String::from_utf8_lossy(name).into_owned();
        self.0
            .on_stream(|stream| stream.headers.push((name, value.to_vec())))
    }
    fn remove_header(&self, _: Map, name: &[u8]) -> Result<(), Refused> {
        let name = String::from_utf8_lossy(name).into_owned();
        self.0
            .on_stream(|stream| stream.headers.retain(|(n, _)| *n != name))
    }
    fn define_metric(&self, _: MetricKind, name: &str) -> Result<u32, Refused> {
        let mut metrics = self.0.metrics.borrow_mut();
        metrics.push((name.to_owned(), 0));
        Ok(u32::try_from(metrics.len()).unwrap() - 1)
    }
    fn add_to_metric(&self, id: u32, by: i64) {
        assert_ne!(by, 0);
        let place = &mut self.0.metrics.borrow_mut()[id as usize].1;
        *place = place.checked_add_signed(by).unwrap();
    }
    fn record_metric(&self, id: u32, value: u64) {
        self.0.metrics.borrow_mut()[id as usize].1 = value;
    }
    fn metric(&self, id: u32) -> Option<u64> {
        Some(self.0.metrics.borrow()[id as usize].1)
    }
    fn call(&self, call: &OutgoingCall<'_>) -> Result<u32, Refused> {
        if self.0.unknown_cluster.get() {
            return Err(Refused::BAD_ARGUMENT);
        }
        let path = call.headers.iter().find(|(n, _)| *n == b":path").unwrap().1;
        let mut calls = self.0.calls.borrow_mut();
        let token = u32::try_from(calls.len()).unwrap() + 100;
        calls.push((token, String::from_utf8_lossy(path).into_owned()));
        Ok(token)
    }
    fn set_buffer(&self, _: Buffer, _: usize, _: &[u8]) -> Result<(), Refused> {
        Ok(())
    }
    fn property(&self, _: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        None
    }
    fn set_property(&self, _: &[u8], _: &[u8]) -> Result<(), Refused> {
        Ok(())
    }
    fn resume(&self, _: Half) -> Result<(), Refused> {
        assert_eq!(self.0.dialect, Dialect::Envoy, "WasmX resumes by itself");
        self.0.on_stream(|stream| stream.resumed = true)
    }
    fn respond(
        &self,
        status: u32,
        _: &[(&[u8], &[u8])],
        body: &[u8],
        _: Option<u32>,
    ) -> Result<(), Refused> {
        let body = String::from_utf8_lossy(body).into_owned();
        self.0.on_stream(|stream| {
            assert!(!stream.resumed && stream.reply.is_none(), "two ends");
            stream.reply = Some((status, body));
        })
    }
    fn focus(&self, context: u32) -> Result<(), Refused> {
        assert_eq!(self.0.dialect, Dialect::Envoy, "does nothing on WasmX");
        let there = self.0.streams.borrow().contains_key(&context);
        if there {
            self.0.focus.set(context);
        }
        there.then_some(()).ok_or(Refused::BAD_ARGUMENT)
    }
    fn shared_get(&self, _: &[u8]) -> Option<SharedValue> {
        assert_eq!(self.0.dialect, Dialect::Envoy, "traps without a zone");
        None
    }
    fn shared_set(&self, _: &[u8], _: &[u8], _: Write) -> Result<(), Refused> {
        assert_eq!(self.0.dialect, Dialect::Envoy, "traps without a zone");
        Ok(())
    }
}

struct World {
    host: Rc<FakeHost>,
    vm: Vm<Shared>,
}

const ROOT: u32 = 1;

impl World {
    fn new(dialect: Dialect, request: &str, on_error: &str) -> Self {
        let configuration = format!(
            r#"{{"vaults":[{{"name":"azure","prefix":"azure","config":{{"vault_uri":"https://v.vault.azure.net",
            "tenant_id":"t","client_id":"c","client_secret":"hush-hush","ttl":60}}}}],"request":{request},"on_error":"{on_error}"}}"#
        );
        Self::configured(dialect, configuration)
    }

    fn configured(dialect: Dialect, configuration: String) -> Self {
        let host = Rc::new(FakeHost {
            dialect,
            configuration,
            time: Cell::new(1_000_000),
            focus: Cell::new(0),
            streams: RefCell::default(),
            calls: RefCell::default(),
            answer: RefCell::default(),
            log: RefCell::default(),
            tick_periods: RefCell::default(),
            unknown_cluster: Cell::new(false),
            host_calls: Cell::new(0),
            metrics: RefCell::default(),
        });
        let mut vm = Vm::new(Shared(Rc::clone(&host)));
        vm.create_context(ROOT, 0);
        Self { host, vm }
    }

    fn start(mut self) -> Self {
        assert!(self.vm.configure(ROOT));
        self
    }

    fn request(&mut self, context: u32, headers: &[(&str, &[u8])]) -> Flow {
        self.arrive(context, headers);
        self.vm.create_context(context, ROOT);
        self.vm.request_headers(context, true)
    }

    /// The host has it, and has not told the filter yet.
    fn arrive(&mut self, context: u32, headers: &[(&str, &[u8])]) {
        let headers = headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), v.to_vec()))
            .collect();
        let stream = Stream {
            headers,
            ..Stream::default()
        };
        self.host.streams.borrow_mut().insert(context, stream);
        self.host.focus.set(context);
        self.host.host_calls.set(0);
    }

    /// Answers the oldest call; on WasmX in the request's own context.
    fn answer(&mut self, context: u32, status: u16, body: &str) {
        let (token, _) = self.host.calls.borrow_mut().remove(0);
        *self.host.answer.borrow_mut() = (status, body.to_owned());
        let focus = if self.host.dialect == Dialect::Envoy {
            ROOT
        } else {
            context
        };
        self.host.focus.set(focus);
        self.vm.call_answered(token, 1, body.len());
    }

    fn token(&mut self, context: u32) {
        assert_eq!(self.host.calls.borrow()[0].1, "/t/oauth2/v2.0/token");
        self.answer(context, 200, r#"{"access_token":"tok","expires_in":3600}"#);
    }

    fn value(&mut self, context: u32, name: &str, value: &str) {
        assert_eq!(
            self.host.calls.borrow()[0].1,
            format!("/secrets/{name}?api-version=7.6")
        );
        self.answer(
            context,
            200,
            &serde_json::json!({ "value": value }).to_string(),
        );
    }

    fn header(&self, context: u32, name: &str) -> Vec<Vec<u8>> {
        let streams = self.host.streams.borrow();
        let headers = streams[&context].headers.iter();
        headers
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.clone())
            .collect()
    }

    fn reply(&self, context: u32) -> (u32, serde_json::Value) {
        let streams = self.host.streams.borrow();
        let (status, body) = streams[&context].reply.clone().expect("a reply");
        (status, serde_json::from_str(&body).unwrap())
    }
}

const SET: &str = r#"{"set":{"headers":{"authorization":"Bearer {vault://azure/api}"}}}"#;
const RESOLVE: &str = r#"{"resolve":{"headers":["x-*"],"allow":["azure/*"]}}"#;
const BOTH: [Dialect; 2] = [Dialect::Envoy, Dialect::WasmX];

#[test]
fn a_cold_request_waits_and_a_cached_one_does_not() {
    for dialect in BOTH {
        let mut world = World::new(dialect, SET, "deny").start();
        assert_eq!(
            world.request(7, &[("Authorization", b"client's own")]),
            Flow::Pause
        );
        world.token(7);
        world.value(7, "api", "v1");
        assert_eq!(world.header(7, "authorization"), [b"Bearer v1"]);
        assert_eq!(
            world.host.streams.borrow()[&7].resumed,
            dialect == Dialect::Envoy
        );
        assert_eq!(world.request(8, &[]), Flow::Continue);
        assert_eq!(world.header(8, "authorization"), [b"Bearer v1"]);
        assert!(world.host.calls.borrow().is_empty());
    }
}

#[test]
fn a_request_without_references_costs_one_host_call() {
    for dialect in BOTH {
        let mut world = World::new(dialect, RESOLVE, "deny").start();
        assert_eq!(
            world.request(7, &[("x-a", b"{vault:/"), ("y", b"caf\xe9")]),
            Flow::Continue
        );
        assert_eq!(world.host.host_calls.get(), 1);
    }
}

#[test]
fn what_is_needed_is_fetched_at_the_first_tick() {
    for dialect in BOTH {
        let mut world = World::new(dialect, SET, "deny").start();
        world.vm.tick(ROOT);
        world.token(ROOT);
        world.value(ROOT, "api", "v1");
        assert_eq!(world.request(8, &[]), Flow::Continue);
        let periods = world.host.tick_periods.borrow().len();
        assert_eq!(
            periods,
            if dialect == Dialect::Envoy { 2 } else { 1 },
            "WasmX traps on a second one"
        );
    }
}

#[test]
fn on_envoy_all_wait_for_one_fetch_and_survive_the_first_ones_client() {
    let mut world = World::new(Dialect::Envoy, RESOLVE, "deny").start();
    for context in 10..20 {
        let flow = world.request(
            context,
            &[("x-a", b"<{vault://azure/api}>"), ("x-a", b"two")],
        );
        assert_eq!(flow, Flow::Pause);
    }
    assert_eq!(world.host.calls.borrow().len(), 1);
    world.vm.delete_context(10);
    world.host.streams.borrow_mut().remove(&10);
    world.token(0);
    world.host.streams.borrow_mut().remove(&11);
    world.value(0, "api", "v1");
    for context in 12..20 {
        assert_eq!(
            world.header(context, "x-a"),
            [&b"<v1>"[..], b"two"],
            "{context}"
        );
        assert!(world.host.streams.borrow()[&context].resumed);
    }
}

#[test]
fn on_wasmx_each_request_calls_for_itself() {
    let mut world = World::new(Dialect::WasmX, RESOLVE, "deny").start();
    assert_eq!(
        world.request(10, &[("x-a", b"{vault://azure/api}")]),
        Flow::Pause
    );
    assert_eq!(
        world.request(11, &[("x-a", b"{vault://azure/api}")]),
        Flow::Pause
    );
    assert_eq!(world.host.calls.borrow().len(), 2);
}

#[test]
fn on_wasmx_a_header_sent_twice_is_refused() {
    let mut world = World::new(Dialect::WasmX, SET, "keep").start();
    assert_eq!(
        world.request(7, &[("AUTHORIZATION", b"a"), ("authorization", b"b")]),
        Flow::Pause
    );
    let (status, body) = world.reply(7);
    assert_eq!(
        (status, body["reason"].as_str()),
        (400, Some("repeated_header"))
    );
}

#[test]
fn unlisted_references_stay_and_are_never_fetched() {
    for dialect in BOTH {
        let mut world = World::new(dialect, r#"{"set":{"headers":{"x-set":"fixed"}},"resolve":{"headers":["x-*"],"allow":["azure/ok-*"]}}"#, "deny").start();
        let headers: [(&str, &[u8]); 5] = [
            ("x-a", b"{vault://azure/secret}"),
            ("y", b"{vault://azure/ok-1}"),
            ("x-b", b"{vault://other/ok-1}"),
            ("x-set", b"{vault://azure/ok-1}"),
            ("x-c", b"{vault://azure/ok-1"),
        ];
        assert_eq!(world.request(7, &headers), Flow::Continue);
        assert!(world.host.calls.borrow().is_empty());
        assert_eq!(world.header(7, "x-a"), [b"{vault://azure/secret}"]);
        assert_eq!(world.header(7, "x-set"), [b"fixed"]);
    }
}

#[test]
fn on_error_decides_what_becomes_of_a_missing_secret() {
    for dialect in BOTH {
        for (on_error, expected) in [
            ("deny", None),
            ("remove", Some("")),
            ("keep", Some("a {vault://azure/no} v1")),
        ] {
            let mut world = World::new(dialect, RESOLVE, on_error).start();
            world.request(6, &[("x-a", b"{vault://azure/ok}")]);
            world.token(6);
            world.value(6, "ok", "v1");
            assert_eq!(
                world.request(7, &[("x-a", b"a {vault://azure/no} {vault://azure/ok}")]),
                Flow::Pause
            );
            world.answer(7, 404, r#"{"error":{"code":"SecretNotFound"}}"#);
            let Some(expected) = expected else {
                let (status, body) = world.reply(7);
                assert_eq!(status, 503);
                assert_eq!(body["reference"], "{vault://azure/no}");
                assert_eq!(body["reason"], "not_found");
                continue;
            };
            let values = world.header(7, "x-a");
            let blanked = on_error == "remove" && dialect == Dialect::Envoy;
            assert_eq!(
                values,
                if blanked {
                    vec![]
                } else {
                    vec![expected.as_bytes().to_vec()]
                },
                "{dialect:?} {on_error}"
            );
        }
    }
}

#[test]
fn a_value_that_would_split_the_request_is_an_error() {
    for dialect in BOTH {
        let mut world = World::new(dialect, RESOLVE, "deny").start();
        world.request(7, &[("x-a", b"{vault://azure/api}")]);
        world.token(7);
        world.value(7, "api", "a\r\nhost: evil");
        assert_eq!(world.reply(7).1["reason"], "not_representable");
        assert!(!world.host.log.borrow().concat().contains("evil"));
    }
}

#[test]
fn a_cluster_that_is_not_there_is_an_answer_not_a_hang() {
    let mut world = World::new(Dialect::Envoy, SET, "deny").start();
    world.host.unknown_cluster.set(true);
    assert_eq!(world.request(7, &[]), Flow::Pause);
    assert_eq!(world.reply(7).1["reason"], "gateway");
    assert!(world.vm.root_is_quiet(ROOT));
}

#[test]
fn a_wrong_configuration_is_refused_or_refuses_everything() {
    for dialect in BOTH {
        let mut world = World::configured(
            dialect,
            r#"{"vaults":[{"client_secret":"hush-hush"}]}"#.into(),
        );
        assert_eq!(world.vm.configure(ROOT), dialect == Dialect::WasmX);
        assert_eq!(world.request(7, &[]), Flow::Pause);
        assert_eq!(world.reply(7).0, 503);
        let log = world.host.log.borrow().concat();
        assert!(log.contains("event=configuration_refused"), "{log}");
        assert!(!log.contains("hush-hush"));
    }
}

/// Allocations of a request in the filter, besides the block in which the host hands over the headers.
/// Of four like it: the first is new, the second finds its text known, and then the lists have their room.
fn allocations(world: &mut World, headers: &[(&str, &[u8])]) -> [u64; 4] {
    [100, 101, 102, 103].map(|context| {
        world.arrive(context, headers);
        let vm = &mut world.vm;
        let counts = allocation_counter::measure(|| {
            vm.create_context(context, ROOT);
            assert_eq!(vm.request_headers(context, true), Flow::Continue);
            vm.response_headers(context);
            vm.delete_context(context);
        });
        counts.count_total
    })
}

#[test]
fn a_request_allocates_nothing_whatever_its_headers() {
    let reference: (&str, &[u8]) = ("x-key", b"{vault://azure/api}");
    let unlisted: (&str, &[u8]) = ("y", b"{vault://azure/api}");
    for dialect in BOTH {
        for (request, more, what) in [
            ("{}", vec![], "nothing configured"),
            (RESOLVE, vec![], "no reference"),
            (RESOLVE, vec![unlisted], "a reference elsewhere"),
            (SET, vec![], "cached set"),
            (RESOLVE, vec![reference], "cached resolve"),
        ] {
            let counts = [0, 12, 120].map(|plain| {
                let mut world = World::new(dialect, request, "deny").start();
                if what.starts_with("cached") {
                    assert_eq!(world.request(7, &[reference]), Flow::Pause);
                    world.token(7);
                    world.value(7, "api", "v1");
                }
                let names: Vec<String> = (0..plain).map(|n| format!("x-plain-{n}")).collect();
                let mut headers = more.clone();
                headers.extend(
                    names
                        .iter()
                        .map(|name| (name.as_str(), b"{text}".as_slice())),
                );
                let counts = allocations(&mut world, &headers);
                assert_eq!(
                    counts[0] > 0,
                    what.starts_with("cached"),
                    "{what}: {counts:?}"
                );
                counts[3]
            });
            assert_eq!(
                counts, [0; 3],
                "{what}, {dialect:?}: with 0, 12 and 120 headers"
            );
        }
    }
}
