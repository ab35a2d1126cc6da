//! One configured filter in one VM (a root context): what it knows, its exchanges, its timer and its
//! metrics. What is done to requests and responses is in `request`, `response` and `waiting`; callouts are in
//! `calls`.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use zeroize::Zeroizing;

use super::calls::{Callback, PendingCall};
use super::exchange::Exchange;
use super::held::HeldHeaders;
use super::host::{Buffer, Dialect, Half, Host, Write};
use super::meters::Meters;
use super::prepared::PreparedHeader;
use super::redirect;
use super::seen::Seen;
use crate::config::Config;
use crate::events::{Line, LogLine};
use crate::fetch::{Call, Fetcher, Now, Shared};
use crate::message::Place;
use crate::message::find::Search;
use crate::metrics::{Outcome, Source};
use crate::time::{Span, Timestamp};

/// The first tick fetches what the configuration needs, so it comes at once.
const FIRST_TICK: Span = Span(1);
/// WasmX takes one period for good, and the operator's secrets take two ticks there (the token's call, and
/// the secrets' calls). A tick without work costs some microseconds.
const WASMX_TICK: Span = Span(100);
/// The next tick makes postponed calls, or resumes more requests.
const SOON: Span = Span(1);

/// A filter with its configuration.
pub(super) struct Plugin<H> {
    pub(super) host: H,
    pub(super) config: Rc<Config>,
    pub(super) fetcher: Fetcher,
    pub(super) needs: Needs,
    /// Headers that the operator sets in requests.
    pub(super) set: Vec<PreparedHeader>,
    /// Headers that the operator sets in responses. Their secrets are known before the request goes on, so
    /// that no response is lost because of them.
    pub(super) response_set: Vec<PreparedHeader>,
    pub(super) seen: Seen,
    pub(super) seen_in_responses: Seen,
    /// Which of the memo's headers the current request gets; kept, so that it is not allocated anew.
    pub(super) prepared: Vec<usize>,
    /// Only those that later callbacks have to know something of.
    pub(super) exchanges: HashMap<u32, Exchange>,
    /// Where the values of the message that is being evaluated came from.
    pub(super) looked_up: Vec<(Source, usize)>,
    /// Bytes that are held for all of them.
    pub(super) held: usize,
    /// Exchanges whose message can go on, or has to be evaluated again, oldest first.
    pub(super) woken: VecDeque<u32>,
    pub(super) calls: HashMap<u32, PendingCall>,
    /// Calls that the callback which wanted them must not make: the next tick does.
    pub(super) postponed: Vec<Call>,
    pub(super) callback: Callback,
    pub(super) held_headers: HeldHeaders,
    /// The call answer that is being handled came without a body, for a call that had one (WasmX).
    pub(super) bare_replies: bool,
    /// WasmX: whether it was looked for Kong around this filter.
    pub(super) looked_for_kong: bool,
    /// A request was refused in the current callback.
    pub(super) refused: bool,
    /// Marks requests whose references were resolved, so that an internal redirect does not resolve what was
    /// written (Envoy).
    pub(super) mark: String,
    tick_period: Span,
    meters: Meters,
    /// Whether shared data may be used: WasmX traps without a zone.
    shared_data: bool,
    /// Whether metrics may be used: WasmX without metrics (Kong before 3.9) traps.
    counts: bool,
}

/// Which parts of messages have to be read; worked out once.
#[derive(Clone, Copy)]
pub(super) struct Needs {
    pub(super) request_headers: bool,
    pub(super) query: bool,
    pub(super) request_body: bool,
    /// The operator sets request headers which a client could shadow by another spelling of their names.
    pub(super) set_headers: bool,
    /// References are looked for, or values are masked, in responses.
    pub(super) response: bool,
}

/// Shared data as the fetcher uses it.
struct HostShared<'h, H> {
    host: &'h H,
    on: bool,
}

impl<H: Host> Shared for HostShared<'_, H> {
    fn read(&self, key: &str) -> Option<(Zeroizing<Vec<u8>>, u32)> {
        if !self.on {
            return None;
        }
        let value = self.host.shared_get(key)?;
        Some((value.bytes, value.cas))
    }

    fn write(&self, key: &str, entry: &[u8], over: Option<u32>) -> bool {
        let write = over.map_or(Write::Create, Write::Replace);
        self.on && self.host.shared_set(key, entry, write)
    }

    fn is_there(&self) -> bool {
        self.on
    }
}

impl<H: Host + Copy> Plugin<H> {
    /// Reads the configuration of the root context whose callback this is; `None` when it has errors, which
    /// are logged.
    pub(super) fn configure(host: H) -> Option<Self> {
        let bytes = host.buffer(Buffer::Configuration).unwrap_or_default();
        match Config::parse(&bytes, &|name| host.variable(name)) {
            Ok(config) => {
                for warning in &config.warnings {
                    let line = Line::new("configuration_warning").quoted("path", &warning.path);
                    log::warn!("{}", line.quoted("detail", &warning.message).end());
                }
                Some(Self::new(config, &bytes, host))
            }
            Err(problems) => {
                for problem in &problems {
                    let line = Line::new("configuration_refused").quoted("path", &problem.path);
                    log::error!("{}", line.quoted("detail", &problem.message).end());
                }
                None
            }
        }
    }

    fn new(config: Config, bytes: &[u8], host: H) -> Self {
        let config = Rc::new(config);
        let mut fetcher = Fetcher::new(Rc::clone(&config));
        let set = PreparedHeader::set(&config, &config.request.set_headers);
        let response_set = PreparedHeader::set(&config, &config.response.set_headers);
        pin(&mut fetcher, &config, &set, &response_set);
        let envoy = host.dialect() == Dialect::Envoy;
        let tick_period = if envoy { FIRST_TICK } else { WASMX_TICK };
        host.set_tick_period(tick_period);
        let mark = redirect::mark(bytes);
        if envoy {
            host.declare_property(&mark);
        }
        Self {
            host,
            needs: Needs::of(&config),
            // WasmX traps on shared data without a zone, which it has only if the operator made one; and
            // on metrics before Kong 3.9.
            shared_data: config.shared_data.unwrap_or(envoy),
            counts: config.metrics.enabled.unwrap_or(envoy),
            seen: Seen::new(&config.limits),
            seen_in_responses: Seen::new(&config.limits),
            config,
            fetcher,
            set,
            response_set,
            prepared: Vec::new(),
            exchanges: HashMap::new(),
            looked_up: Vec::new(),
            held: 0,
            woken: VecDeque::new(),
            calls: HashMap::new(),
            postponed: Vec::new(),
            callback: Callback::Request,
            held_headers: HeldHeaders::of(host.dialect()),
            bare_replies: false,
            looked_for_kong: false,
            refused: false,
            mark,
            tick_period,
            meters: Meters::default(),
        }
    }

    /// Runs `act` with the time, randomness and shared data of this callback.
    pub(super) fn with_now<R>(&mut self, act: impl FnOnce(&mut Fetcher, &Now<'_>) -> R) -> R {
        let host = self.host;
        let shared = HostShared {
            host: &host,
            on: self.shared_data,
        };
        let now = Now {
            time: host.now(),
            random: &|| host.random(),
            shared: &shared,
        };
        act(&mut self.fetcher, &now)
    }

    pub(super) fn is_envoy(&self) -> bool {
        self.host.dialect() == Dialect::Envoy
    }

    /// The timer: renewals, postponed calls, requests that can go on, and once a second the metrics.
    pub(super) fn tick(&mut self) {
        self.callback = Callback::Tick;
        self.make_postponed_calls();
        self.with_now(Fetcher::handle_tick);
        self.carry_out();
        self.probe_held_headers();
        self.advance_woken(None);
        self.schedule_tick();
        self.export();
    }

    /// Sets the timer for what has to be done next. WasmX traps when the period is set a second time.
    pub(super) fn schedule_tick(&mut self) {
        let look = self.held_headers.next_look(|| self.host.now());
        let period = if !self.woken.is_empty() || !self.postponed.is_empty() {
            SOON
        } else {
            let usual = self.fetcher.tick_period();
            look.map_or(usual, |look| look.min(usual))
        };
        if self.is_envoy() && period != self.tick_period {
            self.tick_period = period;
            self.host.set_tick_period(period);
        }
    }

    /// Exports what was counted, and logs what was repeated, once a second.
    fn export(&mut self) {
        let now = self.host.now();
        if !self.meters.due(now) {
            return;
        }
        self.seen.let_go(now);
        let repeated = self.fetcher.events.summed_up(now);
        repeated.iter().for_each(write_line);
        if !self.counts {
            drop(self.fetcher.metrics.take_delays());
            return;
        }
        let gauges = self.fetcher.gauges(now);
        let metrics = &mut self.fetcher.metrics;
        self.meters.tell(metrics, &gauges, &self.host);
    }

    /// The exchange is over; the client may have left before.
    #[inline]
    pub(super) fn forget(&mut self, id: u32) {
        // Most requests leave nothing behind.
        if self.exchanges.is_empty() {
            return;
        }
        if let Some(exchange) = self.exchanges.remove(&id) {
            self.held = self.held.saturating_sub(exchange.held());
            self.held_headers.forget(id);
            self.fetcher.forget(id);
            if exchange.marked && !exchange.responded {
                self.keep_values(id, exchange.used);
            }
        }
    }

    /// The root context goes: what it added to the host's gauges goes with it.
    pub(super) fn retire(&mut self) {
        self.with_now(Fetcher::release_leases);
        self.meters.retire(&self.host);
    }

    /// The message that was evaluated is forwarded or refused: its references count.
    pub(super) fn count_message(&mut self) {
        let metrics = &mut self.fetcher.metrics;
        metrics.record(&self.looked_up, 0, Outcome::Other);
        self.looked_up.clear();
    }

    /// Accounts for the bytes that are held for half of an exchange. Whether they are within the budget.
    pub(super) fn hold(&mut self, id: u32, half: Half, bytes: usize) -> bool {
        let exchange = self.exchanges.entry(id).or_default();
        let [request, response] = &mut exchange.held;
        let held = match half {
            Half::Request => request,
            Half::Response => response,
        };
        let others = self.held.saturating_sub(*held);
        let fits = others.saturating_add(bytes) <= self.config.limits.held_bytes;
        *held = if fits { bytes } else { 0 };
        self.held = others.saturating_add(*held);
        fits
    }

    /// This half of an exchange holds nothing any more.
    pub(super) fn release(&mut self, id: u32, half: Half) {
        if self.exchanges.get(&id).is_some_and(|e| e.held() > 0) {
            self.hold(id, half, 0);
        }
    }
}

/// Has the secrets that the operator's configuration needs fetched ahead, and kept.
fn pin(
    fetcher: &mut Fetcher,
    config: &Config,
    set: &[PreparedHeader],
    response_set: &[PreparedHeader],
) {
    let query = Search::of_requests(config).query(None).ok().flatten();
    let headers = || set.iter().chain(response_set).map(|set| &set.place);
    for want in headers().chain(&query).flat_map(Place::wants) {
        fetcher.pin(want);
    }
    let operators = headers().flat_map(Place::wants).map(|want| want.key.vault);
    fetcher.metrics.operator_sets(operators);
}

/// Writes a line of the pure part to the log.
pub(super) fn write_line(line: &LogLine) {
    if line.warning {
        log::warn!("{}", line.text);
    } else {
        log::info!("{}", line.text);
    }
}

impl Needs {
    fn of(config: &Config) -> Self {
        let (request, response) = (&config.request, &config.response);
        let shadowed = |(name, _): &(String, _)| name.contains(['-', '_']);
        Self {
            request_headers: !request.resolve_headers.is_empty(),
            query: !request.resolve_query.is_empty() || !request.set_query.is_empty(),
            request_body: !request.resolve_body.is_empty(),
            set_headers: !request.keep_underscores && request.set_headers.iter().any(shadowed),
            response: config.redact || !response.is_empty(),
        }
    }
}

/// The time of a callback, read from the host at most once.
pub(super) struct Clock<'h, H> {
    host: &'h H,
    time: std::cell::OnceCell<Timestamp>,
}

impl<'h, H: Host> Clock<'h, H> {
    pub(super) const fn new(host: &'h H) -> Self {
        Self {
            host,
            time: std::cell::OnceCell::new(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        *self.time.get_or_init(|| self.host.now())
    }
}
