//! What the host functions do, in either dialect, without any Wasm: callable from a test as they are from
//! a module. Nothing here calls back into a module.

use std::collections::{BTreeMap, BTreeSet};

use crate::calls::{Call, Shown};
use crate::settings::Settings;
use crate::shared::{Refused, SharedData};
use crate::stream::Stream;

mod flow;
mod messages;
mod metrics;
mod planted;
mod properties;

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

/// A timer of a root context.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tick {
    pub(crate) worker: usize,
    pub(crate) root: u32,
    pub(crate) period: u64,
    pub(crate) next: u64,
}

/// Everything of a process but its VMs.
pub(crate) struct Host {
    pub(crate) settings: Settings,
    pub(crate) now: u64,
    /// How far a worker's clock is from [`Self::now`], in milliseconds.
    pub(crate) skew: BTreeMap<usize, i64>,
    pub(crate) random: fastrand::Rng,
    pub(crate) shared: SharedData,
    pub(crate) calls: Vec<Call>,
    pub(crate) next_token: u32,
    pub(crate) log: Vec<LogLine>,
    pub(crate) violations: Vec<Violation>,
    /// By worker, and the context that the first filter had first.
    pub(crate) streams: BTreeMap<(usize, u32), Stream>,
    /// Which stream a context belongs to, and which filter of the chain it is.
    pub(crate) owners: BTreeMap<(usize, u32), (u32, usize)>,
    /// The configurations of all root contexts.
    pub(crate) roots: BTreeMap<(usize, u32), Vec<u8>>,
    pub(crate) ticks: Vec<Tick>,
    /// WasmX: the roots that set their period since the instance was made.
    pub(crate) tick_set: BTreeSet<(usize, u32)>,
    /// WasmX: a worker that died in the callback that is running.
    pub(crate) crashed: bool,
    /// Requests so far, and those of each connection.
    pub(crate) requests: u64,
    pub(crate) connections: BTreeMap<u64, u64>,
    /// Kind, name, value; a histogram's value is how many were recorded.
    pub(crate) metrics: Vec<(u32, String, u64)>,
    /// What histograms were given, by their numbers.
    pub(crate) recorded: Vec<(u32, u64)>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) here: Here,
    /// Envoy: properties that a filter declared.
    pub(crate) declared: BTreeSet<String>,
    /// For [`Planted`]: values that headers were set to, and a count of chances.
    values: Vec<planted::Written>,
    chances: u32,
}

fn trap<T>(what: impl Into<String>) -> Reply<T> {
    Err(Ill::Trap(what.into()))
}

impl Host {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            shared: SharedData::new(settings.dialect, settings.zone),
            now: settings.start,
            skew: BTreeMap::new(),
            random: fastrand::Rng::with_seed(settings.seed),
            settings,
            calls: Vec::new(),
            next_token: 0,
            log: Vec::new(),
            violations: Vec::new(),
            streams: BTreeMap::new(),
            owners: BTreeMap::new(),
            roots: BTreeMap::new(),
            ticks: Vec::new(),
            tick_set: BTreeSet::new(),
            crashed: false,
            requests: 0,
            connections: BTreeMap::new(),
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
            declared: BTreeSet::new(),
            values: Vec::new(),
            chances: 0,
        }
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

    /// The stream of this context, and which filter of its chain the context is.
    pub(crate) fn find(&mut self, worker: usize, context: u32) -> Option<(&mut Stream, usize)> {
        let (first, hop) = *self.owners.get(&(worker, context))?;
        let stream = self.streams.get_mut(&(worker, first))?;
        (!stream.over).then_some((stream, hop))
    }

    /// What a call is about: what the filter focused on (Envoy), or the callback's context (WasmX).
    fn stream(&mut self) -> Reply<(&mut Stream, usize)> {
        let context = if self.is_envoy() {
            self.here.effective
        } else {
            self.here.context
        };
        let worker = self.here.worker;
        self.find(worker, context).ok_or(Ill::Status(BAD_ARGUMENT))
    }

    /// The root context of this context, which may be one itself.
    pub(crate) fn root_of(&mut self, worker: usize, context: u32) -> u32 {
        if self.roots.contains_key(&(worker, context)) {
            return context;
        }
        self.find(worker, context)
            .map_or(0, |(stream, hop)| stream.hops[hop].root)
    }

    /// The configuration of this root context.
    fn configuration(&self, root: u32) -> Vec<u8> {
        let key = (self.here.worker, root);
        self.roots.get(&key).cloned().unwrap_or_default()
    }

    // Logs, time, ticks.

    /// What a filter in this worker sees as the time.
    pub(crate) fn time(&self) -> u64 {
        let skew = self.skew.get(&self.here.worker).copied().unwrap_or(0);
        self.now.saturating_add_signed(skew)
    }

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

    /// WasmX: once for each root context, and in it only; a second one would double the timers.
    pub(crate) fn set_tick_period(&mut self, period: u32) -> Reply {
        let (worker, root) = (self.here.worker, self.here.root);
        if self.is_envoy() {
            self.ticks.retain(|t| (t.worker, t.root) != (worker, root));
        } else if !self.in_root() {
            return trap("set_tick_period in an HTTP context");
        } else if !self.tick_set.insert((worker, root)) {
            return trap("tick_period already set");
        }
        if period > 0 {
            self.ticks.push(Tick {
                worker,
                root,
                period: u64::from(period),
                next: self.now + u64::from(period),
            });
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
}

#[cfg(test)]
mod tests;
