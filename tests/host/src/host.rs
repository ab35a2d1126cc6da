//! What the host functions do, in either dialect, without any Wasm: callable from a test as they are from
//! a module. Nothing here calls back into a module.

use std::collections::{BTreeMap, BTreeSet};

use crate::calls::{Call, Shown};
use crate::gateway::{Planted, Settings};
use crate::headers::Headers;
use crate::shared::{Refused, SharedData};
use crate::stream::{Answer, Phase, Stream};

/// The two families of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Envoy 1.40 with V8.
    Envoy,
    /// ngx_wasm_module under Kong Gateway 3.4 to 3.10.
    Wasmx,
}

impl Dialect {
    pub(crate) fn is_envoy(self) -> bool {
        self == Self::Envoy
    }
}

/// A severity (`proxy_log_level_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// 0
    Trace,
    /// 1
    Debug,
    /// 2
    Info,
    /// 3
    Warn,
    /// 4 and 5
    Error,
}

/// A line of the host's log.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// The time in milliseconds.
    pub time: u64,
    /// The worker; the last one is Envoy's main thread.
    pub worker: usize,
    /// Its severity.
    pub level: Level,
    /// The text.
    pub text: String,
}

/// Something for which a real host punishes the filter, or the filter punishes its users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The callback in which it happened.
    pub callback: &'static str,
    /// The host function, or the callback again.
    pub call: &'static str,
    /// What a real host does.
    pub what: String,
}

/// `proxy_status_t`
pub(crate) const OK: u32 = 0;
pub(crate) const NOT_FOUND: u32 = 1;
pub(crate) const BAD_ARGUMENT: u32 = 2;
pub(crate) const CAS_MISMATCH: u32 = 8;
pub(crate) const INTERNAL_FAILURE: u32 = 10;

/// How a host function ends when not with OK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ill {
    /// The filter gets this status.
    Status(u32),
    /// The callback ends at once.
    Trap(String),
    /// The worker dies.
    Crash(String),
}

pub(crate) type Reply<T = ()> = Result<T, Ill>;

/// The callback that is running.
#[derive(Clone, Debug)]
pub(crate) struct Here {
    pub(crate) worker: usize,
    pub(crate) root: u32,
    pub(crate) callback: &'static str,
    pub(crate) context: u32,
    /// Envoy: what the filter focused on.
    pub(crate) effective: u32,
    pub(crate) shown: Option<Shown>,
}

/// A timer of a VM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tick {
    pub(crate) period: u64,
    pub(crate) next: u64,
}

/// Everything of a process but its VMs.
pub(crate) struct Host {
    pub(crate) settings: Settings,
    pub(crate) now: u64,
    pub(crate) random: fastrand::Rng,
    pub(crate) shared: SharedData,
    pub(crate) calls: Vec<Call>,
    pub(crate) next_token: u32,
    pub(crate) log: Vec<LogLine>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) streams: BTreeMap<(usize, u32), Stream>,
    /// By worker.
    pub(crate) ticks: Vec<Vec<Tick>>,
    /// WasmX: whether the period was set since the instance was made.
    pub(crate) tick_set: BTreeSet<usize>,
    /// Kind, name, value; a histogram's value is how many were recorded.
    pub(crate) metrics: Vec<(u32, String, u64)>,
    /// What histograms were given, by their numbers.
    pub(crate) recorded: Vec<(u32, u64)>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) here: Here,
    /// For [`Planted`]: values that headers were set to, and a count of chances.
    values: Vec<Vec<u8>>,
    chances: u32,
}

const HTTP_CALL_CALLBACKS: [&str; 4] = [
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_tick",
    "proxy_on_http_call_response",
];

fn trap<T>(what: impl Into<String>) -> Reply<T> {
    Err(Ill::Trap(what.into()))
}

impl Host {
    pub(crate) fn new(settings: Settings) -> Self {
        let vms = settings.workers + 1;
        Self {
            shared: SharedData::new(settings.dialect, settings.zone),
            now: settings.start,
            random: fastrand::Rng::with_seed(settings.seed),
            settings,
            calls: Vec::new(),
            next_token: 0,
            log: Vec::new(),
            violations: Vec::new(),
            streams: BTreeMap::new(),
            ticks: vec![Vec::new(); vms],
            tick_set: BTreeSet::new(),
            metrics: Vec::new(),
            recorded: Vec::new(),
            counts: BTreeMap::new(),
            here: Here {
                worker: 0,
                root: 0,
                callback: "",
                context: 0,
                effective: 0,
                shown: None,
            },
            values: Vec::new(),
            chances: 0,
        }
    }

    /// Whether a planted bug of this kind takes effect now: every seventh time.
    pub(crate) fn bug(&mut self, kind: Planted) -> bool {
        if self.settings.planted != Some(kind) {
            return false;
        }
        self.chances += 1;
        self.chances.is_multiple_of(7)
    }

    /// A value on its way into a header, as a filter with a planted bug would have written it.
    fn tampered(&mut self, value: &[u8]) -> Vec<u8> {
        if self.settings.planted.is_none() {
            return value.to_vec();
        }
        if self.bug(Planted::Leak) {
            self.log(2, value);
        }
        let mut value = value.to_vec();
        let secret = |v: &[u8]| v.split(|b| *b == b'#').next().unwrap_or_default().to_vec();
        let own = secret(&value);
        let other = |wanted: bool| {
            let mut values = self.values.iter().rev();
            values
                .find(|v| **v != value && (secret(v) == own) == wanted)
                .cloned()
        };
        let replaced = match self.settings.planted {
            Some(Planted::Stale) => self.values.iter().find(|v| secret(v) == own).cloned(),
            Some(Planted::Mixed) => other(false),
            _ => None,
        };
        self.values.push(value.clone());
        if let Some(replaced) = replaced {
            value = replaced;
        }
        value
    }

    pub(crate) fn is_envoy(&self) -> bool {
        self.settings.dialect.is_envoy()
    }

    pub(crate) fn violation(&mut self, call: &'static str, what: impl Into<String>) {
        self.violations.push(Violation {
            callback: self.here.callback,
            call,
            what: what.into(),
        });
    }

    fn in_root(&self) -> bool {
        self.here.context == self.here.root
    }

    /// The stream that a call is about: what the filter focused on (Envoy), or the callback's (WasmX).
    fn stream(&mut self) -> Reply<&mut Stream> {
        let context = if self.is_envoy() {
            self.here.effective
        } else {
            self.here.context
        };
        let key = (self.here.worker, context);
        let alive = |stream: &&mut Stream| !stream.gone && stream.phase != Phase::Done;
        let stream = self.streams.get_mut(&key).filter(alive);
        stream.ok_or(Ill::Status(BAD_ARGUMENT))
    }

    // Logs, time, ticks.

    pub(crate) fn log(&mut self, level: u32, text: &[u8]) {
        let level = match level {
            0 => Level::Trace,
            1 => Level::Debug,
            2 => Level::Info,
            3 => Level::Warn,
            _ => Level::Error,
        };
        self.log.push(LogLine {
            time: self.now,
            worker: self.here.worker,
            level,
            text: String::from_utf8_lossy(text).into_owned(),
        });
    }

    /// WasmX: once for each instance, and in a root context only; a second one would double the timers.
    pub(crate) fn set_tick_period(&mut self, period: u32) -> Reply {
        let worker = self.here.worker;
        let tick = Tick {
            period: u64::from(period),
            next: self.now + u64::from(period),
        };
        if self.is_envoy() {
            self.ticks[worker].clear();
        } else if !self.in_root() {
            return trap("set_tick_period in an HTTP context");
        } else if !self.tick_set.insert(worker) {
            return trap("tick_period already set");
        }
        if period > 0 {
            self.ticks[worker].push(tick);
        }
        Ok(())
    }

    // Header maps.

    pub(crate) fn headers(&mut self, map: u32) -> Reply<Headers> {
        match map {
            0 => Ok(self.stream()?.headers.clone()),
            2 => {
                let stream = self.stream()?;
                if stream.phase < Phase::ResponseHeaders {
                    return Err(Ill::Status(BAD_ARGUMENT));
                }
                Ok(stream.response_headers.clone())
            }
            6 => {
                let shown = self.here.shown.as_ref();
                shown
                    .map(|s| s.headers.clone())
                    .ok_or(Ill::Status(BAD_ARGUMENT))
            }
            _ => Err(Ill::Status(BAD_ARGUMENT)),
        }
    }

    /// `change` gets what the filter sees and what goes over the wire.
    fn change(
        &mut self,
        map: u32,
        change: impl FnOnce(Dialect, &mut Headers, &mut Headers),
    ) -> Reply {
        let dialect = self.settings.dialect;
        let stream = self.stream()?;
        match (map, stream.phase) {
            // Envoy: changes reach nobody once the headers are on their way.
            (0, _) if dialect == Dialect::Envoy && stream.headers_sent => {
                Err(Ill::Status(BAD_ARGUMENT))
            }
            (0, Phase::RequestHeaders | Phase::RequestBody) => {
                change(dialect, &mut stream.headers, &mut stream.wire);
                Ok(())
            }
            (2, Phase::ResponseHeaders) => {
                let mut wire = stream.response_headers.clone();
                // A response's headers can be removed on both hosts.
                change(Dialect::Envoy, &mut stream.response_headers, &mut wire);
                Ok(())
            }
            _ => Err(Ill::Status(BAD_ARGUMENT)),
        }
    }

    /// Envoy answers 503 to a value with control bytes; WasmX percent-encodes them.
    fn value(&mut self, call: &'static str, name: &str, value: &[u8]) -> Vec<u8> {
        let bad = |b: &u8| *b < 0x20 && *b != b'\t' || *b == 0x7f;
        if !value.iter().any(bad) {
            return value.to_vec();
        }
        self.violation(call, format!("a control byte in the header {name}"));
        let mut out = Vec::new();
        for byte in value {
            if bad(byte) {
                out.extend(format!("%{byte:02X}").bytes());
            } else {
                out.push(*byte);
            }
        }
        out
    }

    pub(crate) fn replace_header(&mut self, map: u32, name: &str, value: &[u8]) -> Reply {
        let value = self.tampered(value);
        let value = self.value("proxy_replace_header_map_value", name, &value);
        let twice = self.stream()?.headers.all(name).len() > 1;
        if map == 0 && !self.is_envoy() && twice {
            let what = format!("the client's further {name} go to the upstream beside ours");
            self.violation("proxy_replace_header_map_value", what);
        }
        if map == 0 && !self.is_envoy() && name == ":authority" {
            self.violation("proxy_replace_header_map_value", ":authority is read-only");
            return Ok(());
        }
        self.change(map, |dialect, view, wire| {
            view.set(name, &value);
            match dialect {
                Dialect::Envoy => wire.set(name, &value),
                // `:path` changes nginx's $uri only, which Kong's proxy_pass does not use.
                Dialect::Wasmx if name == ":path" => {}
                Dialect::Wasmx => {
                    if wire.set_first(name, &value).is_none() {
                        wire.push(name, &value);
                    }
                }
            }
        })
    }

    pub(crate) fn add_header(&mut self, map: u32, name: &str, value: &[u8]) -> Reply {
        let value = self.value("proxy_add_header_map_value", name, value);
        self.change(map, |_, view, wire| {
            view.push(name, &value);
            wire.push(name, &value);
        })
    }

    /// WasmX: a removed request header is gone for the filter only.
    pub(crate) fn remove_header(&mut self, map: u32, name: &str) -> Reply {
        if map == 0 && !self.is_envoy() && self.stream()?.wire.get(name).is_some() {
            let what = format!("{name} reaches the upstream all the same");
            self.violation("proxy_remove_header_map_value", what);
        }
        self.change(map, |dialect, view, wire| {
            view.remove(name);
            if dialect == Dialect::Envoy {
                wire.remove(name);
            }
        })
    }

    // Bodies and configuration.

    pub(crate) fn buffer(&mut self, buffer: u32) -> Reply<Vec<u8>> {
        let none = || Err(Ill::Status(NOT_FOUND));
        match buffer {
            0 | 1 => {
                let stream = self.stream()?;
                let phase = if buffer == 0 {
                    Phase::RequestBody
                } else {
                    Phase::ResponseBody
                };
                if stream.phase != phase || (buffer == 0 && stream.body_in_file) {
                    return none();
                }
                Ok(stream.buffer.clone())
            }
            4 => {
                let Some(shown) = &self.here.shown else {
                    return none();
                };
                if shown.body.len() < shown.announced {
                    return Err(Ill::Status(BAD_ARGUMENT));
                }
                Ok(shown.body.clone())
            }
            6 => Ok(Vec::new()),
            7 => Ok(self.settings.configuration.clone()),
            _ => none(),
        }
    }

    pub(crate) fn set_buffer(
        &mut self,
        buffer: u32,
        start: usize,
        size: usize,
        new: &[u8],
    ) -> Reply {
        let envoy = self.is_envoy();
        let here = self.here.callback;
        let wrong_place = match buffer {
            0 => here != "proxy_on_request_body",
            _ => here != "proxy_on_response_body",
        };
        if wrong_place && !envoy {
            return trap("can only set request body during on_request_body");
        }
        let stream = self.stream()?;
        let phase = if buffer == 0 {
            Phase::RequestBody
        } else {
            Phase::ResponseBody
        };
        if stream.phase != phase {
            return Err(Ill::Status(BAD_ARGUMENT));
        }
        stream.buffer_replaced = true;
        if envoy {
            let end = start.saturating_add(size).min(stream.buffer.len());
            let start = start.min(end);
            stream.buffer.splice(start..end, new.iter().copied());
            return Ok(());
        }
        let in_file = stream.body_in_file;
        if in_file || size == 0 {
            stream.buffer.splice(0..0, new.iter().copied());
            if in_file {
                self.violation(
                    "proxy_set_buffer_bytes",
                    "the body is in a file: this is put before it",
                );
            }
            return Ok(());
        }
        let cut = &new[..new.len().min(size)];
        if start == 0 {
            stream.buffer = cut.to_vec();
        } else {
            stream.buffer.extend_from_slice(cut);
        }
        if cut.len() < new.len() {
            let what = format!(
                "{} bytes are lost: set writes `size` bytes at most",
                new.len() - cut.len()
            );
            self.violation("proxy_set_buffer_bytes", what);
        }
        Ok(())
    }

    // Shared data.

    fn from_shared<T>(result: Result<T, Refused>) -> Reply<T> {
        result.map_err(|refused| match refused {
            Refused::CasMismatch => Ill::Status(CAS_MISMATCH),
            Refused::Trap(what) => Ill::Trap(what.to_owned()),
        })
    }

    pub(crate) fn shared_get(&mut self, key: &[u8]) -> Reply<(Vec<u8>, u32)> {
        Self::from_shared(self.shared.get(key))?.ok_or(Ill::Status(NOT_FOUND))
    }

    pub(crate) fn shared_set(&mut self, key: &[u8], value: &[u8], cas: u32) -> Reply {
        Self::from_shared(self.shared.set(key, value, cas))
    }

    // The request's way.

    pub(crate) fn continue_stream(&mut self) -> Reply {
        if !self.is_envoy() {
            if self.in_root() {
                return Err(Ill::Crash("resume from a root context".to_owned()));
            }
            return Ok(());
        }
        let stream = self.stream()?;
        if !stream.paused && !stream.resume {
            self.violation("proxy_continue_stream", "the request does not wait");
            return Ok(());
        }
        if stream.resume || stream.local.is_some() {
            self.violation(
                "proxy_continue_stream",
                "the request was resumed or answered already",
            );
            return Ok(());
        }
        stream.resume = true;
        if self.bug(Planted::Hang) {
            self.stream()?.resume = false;
            return Ok(());
        }
        let stream = self.stream()?;
        // From now on every setter is refused.
        stream.headers_sent = true;
        Ok(())
    }

    /// Envoy makes a gRPC answer to a gRPC request of it; WasmX has no use for `grpc_status`.
    pub(crate) fn local_response(
        &mut self,
        status: u32,
        headers: Headers,
        body: &[u8],
        grpc_status: i32,
    ) -> Reply {
        if !self.is_envoy() && self.in_root() {
            return Err(Ill::Crash(
                "a local response from a root context".to_owned(),
            ));
        }
        let envoy = self.is_envoy();
        let stream = self.stream()?;
        if stream.local.is_some() || stream.resume {
            if envoy {
                self.violation(
                    "proxy_send_local_response",
                    "the request was resumed or answered already",
                );
                return Ok(());
            }
            return trap("local response already stashed");
        }
        let (mut status, mut headers, mut body) = (status, headers, body.to_vec());
        let grpc = stream
            .headers
            .text("content-type")
            .strip_prefix("application/grpc")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('+'));
        if envoy && grpc {
            headers.set("content-type", b"application/grpc");
            headers.set("grpc-status", grpc_status.to_string().as_bytes());
            headers.set("grpc-message", &body);
            (status, body) = (200, Vec::new());
        }
        if !envoy {
            body.push(b'\n');
        }
        stream.local = Some(Answer {
            status: u16::try_from(status).unwrap_or(500),
            headers,
            body,
            local: true,
        });
        Ok(())
    }

    pub(crate) fn set_effective_context(&mut self, context: u32) -> Reply {
        if !self.is_envoy() {
            return Ok(());
        }
        let key = (self.here.worker, context);
        let alive = self
            .streams
            .get(&key)
            .is_some_and(|s| !s.gone && s.phase != Phase::Done);
        if context != self.here.root && !alive {
            return Err(Ill::Status(BAD_ARGUMENT));
        }
        self.here.effective = context;
        Ok(())
    }

    /// The number by which the answer comes back.
    pub(crate) fn http_call(
        &mut self,
        upstream: &str,
        headers: Headers,
        body: &[u8],
        timeout: u32,
    ) -> Reply<u32> {
        if self.bug(Planted::Panic) {
            return trap("panicked: a planted bug");
        }
        if !self.is_envoy() && self.bug(Planted::Hang) {
            self.next_token += 1;
            return Ok(self.next_token);
        }
        let call = "proxy_http_call";
        let complete = [":method", ":path", ":authority"].map(|n| headers.get(n).is_some());
        for name in [":path", ":authority"] {
            if headers
                .get(name)
                .unwrap_or_default()
                .iter()
                .any(|b| *b <= b' ')
            {
                self.violation(
                    call,
                    format!("{name} is sent as it is, with a byte that ends it"),
                );
            }
        }
        let (context, stream) = if self.is_envoy() {
            if complete.contains(&false) || !self.settings.clusters.iter().any(|c| c == upstream) {
                return Err(Ill::Status(BAD_ARGUMENT));
            }
            if self.settings.empty_clusters.iter().any(|c| c == upstream) {
                return Err(Ill::Status(INTERNAL_FAILURE));
            }
            (self.here.root, None)
        } else {
            if !HTTP_CALL_CALLBACKS.contains(&self.here.callback) {
                return trap(
                    "can only send HTTP dispatch during on_request_headers, on_request_body, on_tick, on_dispatch_response, on_foreign_function",
                );
            }
            if !complete[0] || !complete[1] || !is_host_and_port(upstream) {
                let what = format!("dispatch failed: {upstream}");
                return if self.in_root() {
                    Err(Ill::Status(INTERNAL_FAILURE))
                } else {
                    trap(what)
                };
            }
            let scheme = headers.text(":scheme");
            if !["http", "https"].contains(&scheme.as_str()) {
                self.violation(call, format!("unknown scheme {scheme:?}: sent without TLS"));
            }
            let own = (!self.in_root()).then_some(self.here.context);
            if let Some(own) = own {
                let key = (self.here.worker, own);
                if let Some(stream) = self.streams.get_mut(&key) {
                    stream.calls += 1;
                }
            }
            (self.here.context, own)
        };
        self.next_token += 1;
        let limit = match (self.is_envoy(), timeout) {
            (true, 0) => None,
            (false, 0) => Some(60_000),
            (_, timeout) => Some(u64::from(timeout)),
        };
        self.calls.push(Call {
            token: self.next_token,
            worker: self.here.worker,
            context,
            stream,
            upstream: upstream.to_owned(),
            headers,
            body: body.to_vec(),
            deadline: limit.map(|limit| self.now + limit),
        });
        Ok(self.next_token)
    }

    // Properties and metrics.

    /// WasmX: any property of a root context takes the worker down.
    pub(crate) fn property(&mut self, path: &[u8]) -> Reply<Vec<u8>> {
        if !self.is_envoy() && self.in_root() {
            return Err(Ill::Crash("get_property in a root context".to_owned()));
        }
        let path = String::from_utf8_lossy(path).replace('\0', ".");
        let envoy = self.is_envoy();
        let found = match (path.as_str(), envoy) {
            ("plugin_name", _) => Some(b"filter".to_vec()),
            ("plugin_root_id", true) => Some(b"filter".to_vec()),
            ("plugin_root_id", false) => Some(b"0".to_vec()),
            ("plugin_vm_id", true) => Some(b"vm".to_vec()),
            ("ngx.pid", false) => Some(b"4711".to_vec()),
            ("ngx.kong_request_id", false) => {
                self.stream()?;
                Some(b"4f1d7e0a9c5b4c0f8d3e2a1b0c9d8e7f".to_vec())
            }
            ("source.address", _) => Some(b"192.0.2.7:1234".to_vec()),
            ("request.path", _) => Some(
                self.stream()?
                    .headers
                    .get(":path")
                    .unwrap_or_default()
                    .to_vec(),
            ),
            ("request.query", _) => {
                let stream = self.stream()?;
                let path = stream.headers.get(":path").unwrap_or_default().to_vec();
                let mut parts = path.splitn(2, |b| *b == b'?');
                let own = parts.nth(1).unwrap_or_default().to_vec();
                Some(stream.query.clone().unwrap_or(own))
            }
            ("ngx.upstream_uri", false) => {
                let stream = self.stream()?;
                let path = stream.headers.get(":path").unwrap_or_default().to_vec();
                Some(stream.upstream_uri.clone().unwrap_or(path))
            }
            _ => None,
        };
        found.ok_or(Ill::Status(NOT_FOUND))
    }

    /// What reaches the upstream under Kong is `ngx.upstream_uri` only.
    pub(crate) fn set_property(&mut self, path: &[u8], value: &[u8]) -> Reply {
        let path = String::from_utf8_lossy(path).replace('\0', ".");
        if self.is_envoy() {
            // No effect on the request.
            return Ok(());
        }
        let stream = self.stream()?;
        match path.as_str() {
            "request.query" => stream.query = Some(value.to_vec()),
            "ngx.upstream_uri" => stream.upstream_uri = Some(value.to_vec()),
            _ => return Err(Ill::Status(BAD_ARGUMENT)),
        }
        Ok(())
    }

    /// WasmX before Kong 3.9.
    fn no_metrics<T>(&self) -> Option<Reply<T>> {
        let none = !self.is_envoy() && !self.settings.metrics;
        none.then(|| trap("host function not yet implemented"))
    }

    pub(crate) fn define_metric(&mut self, kind: u32, name: &str) -> Reply<u32> {
        if let Some(ill) = self.no_metrics() {
            return ill;
        }
        if !self.is_envoy() && name.len() > 240 {
            return trap("a metric's name of more than 256 bytes with its prefix");
        }
        if let Some(at) = self.metrics.iter().position(|(_, n, _)| n == name) {
            return Ok(at as u32);
        }
        if self.metrics.len() >= self.settings.metric_room {
            return Err(Ill::Status(INTERNAL_FAILURE));
        }
        self.metrics.push((kind, name.to_owned(), 0));
        Ok(self.metrics.len() as u32 - 1)
    }

    pub(crate) fn increment_metric(&mut self, id: u32, by: i64) -> Reply {
        let envoy = self.is_envoy();
        let Some((kind, _, value)) = self.metrics.get_mut(id as usize) else {
            return Err(Ill::Status(BAD_ARGUMENT));
        };
        if *kind != 0 && !envoy {
            return trap("increment of what is no counter");
        }
        if envoy && (by == 0 || (*kind == 0 && by < 0)) {
            let what = format!("adding {by}");
            self.violation("proxy_increment_metric", what);
            return Err(Ill::Status(BAD_ARGUMENT));
        }
        match value.checked_add_signed(by) {
            Some(sum) => *value = sum,
            None => self.violation("proxy_increment_metric", "below nothing"),
        }
        Ok(())
    }

    pub(crate) fn record_metric(&mut self, id: u32, to: u64) -> Reply {
        match self.metrics.get_mut(id as usize) {
            Some((0, ..)) if !self.settings.dialect.is_envoy() => trap("cannot record on counters"),
            Some((2, _, value)) => {
                *value += 1;
                self.recorded.push((id, to));
                Ok(())
            }
            Some((_, _, value)) => {
                *value = to;
                Ok(())
            }
            None => Err(Ill::Status(BAD_ARGUMENT)),
        }
    }

    pub(crate) fn metric(&mut self, id: u32) -> Reply<u64> {
        match self.metrics.get(id as usize) {
            Some((2, ..)) if !self.settings.dialect.is_envoy() => trap("get of a histogram"),
            Some((2, ..)) => Err(Ill::Status(BAD_ARGUMENT)),
            Some((_, _, value)) => Ok(*value),
            None => Err(Ill::Status(BAD_ARGUMENT)),
        }
    }
}

fn is_host_and_port(upstream: &str) -> bool {
    upstream.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(' ') && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[cfg(test)]
mod tests;
