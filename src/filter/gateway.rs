//! One configured filter in one VM (a root context): its requests, those that are parked, and the calls
//! it makes. It carries out what [`place`] and the resolver decide.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::OnceCell;

use zeroize::Zeroizing;

use super::audit::{self, Outcome};
use super::by_id::ById;
use super::header_map::{HeaderMap, Hit, Repeats};
use super::host::{Buffer, Dialect, Half, Host, Level, Map, OutgoingCall, Refused, Write};
use super::meters::Meters;
use super::place::{self, Bench, Denial, Edit, Place, Verdict};
use super::prepared::PreparedHeader;
use super::reply;
use super::seen::{Known, Seen};
use super::vm::Flow;
use crate::azure::http::{Answer, CallFailure, HttpRequest};
use crate::body::Kind;
use crate::config::{Config, OnError};
use crate::events::Line;
use crate::failure::Reason;
use crate::fetch::{Action, Call, CallId, Fetcher, Lane, Now, Shared, Want};
use crate::metrics::{Outcome as Counted, Series, Source};
use crate::query;
use crate::redact::Redactor;
use crate::secret::SecretValue;
use crate::template::Template;
use crate::time::{Span, Timestamp};

/// The first tick fetches what the configuration needs, so it comes at once.
const FIRST_TICK: Span = Span(1);
/// WasmX takes one period for good.
const WASMX_TICK: Span = Span(500);
/// The next tick looks at those for whom there was no room.
const SOON: Span = Span(1);
/// Most requests that are resumed or answered in one callback. Envoy carries that out when the callback
/// returns, and where a request is answered at once (by the route, or because its cluster is full), the
/// response's callback runs inside of it and carries out the next: some two thousand deep, the stack ends
/// and takes the VM with it.
const MOST_WOKEN: usize = 64;
/// A request that was woken this often and still lacks a value is given up.
const MOST_ROUNDS: u32 = 5;

/// The calls that are under way in this VM, by the host's numbers.
pub(super) type PendingCalls = ById<PendingCall>;

/// Whose a call is, and what for.
pub(super) struct PendingCall {
    pub(super) root: u32,
    id: CallId,
}

/// A filter in its life: configured, not configured, or configured wrongly.
#[derive(Default)]
pub(super) enum Gateway {
    /// Nothing is let through before there is a configuration, nor with one that is wrong.
    #[default]
    Refusing,
    Ready(Box<Ready>),
}

pub(super) struct Ready {
    config: Rc<Config>,
    resolver: Fetcher,
    /// Where the values of the message that is being judged came from.
    looked_up: Vec<(Source, usize)>,
    set: Vec<PreparedHeader>,
    /// What responses get: known before the request goes on, so that no answer is lost for it.
    response_set: Vec<PreparedHeader>,
    needs: Needs,
    seen: Seen,
    /// Which of them the request at hand gets; kept, so that it is not allocated anew.
    prepared: Vec<usize>,
    seen_in_responses: Seen,
    shared_data: bool,
    parked: ById<Parked>,
    /// Those of them for which something has come, in their order.
    woken: VecDeque<u32>,
    streams: ById<Stream>,
    tick_period: Span,
    meters: Meters,
    /// WasmX without metrics (Kong before 3.9) traps on every call that is about one.
    counts: bool,
}

/// What of a message has to be looked at; worked out once.
#[derive(Clone, Copy)]
struct Needs {
    request_headers: bool,
    query: bool,
    request_body: bool,
    /// References are looked for, or values are masked, in responses.
    response: bool,
}

/// Where in its life a message is when it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    RequestHeaders,
    RequestBody,
    ResponseHeaders,
    ResponseBody,
}

/// A message that waits. It ends in exactly one resume or reply, and then it is taken out of here.
struct Parked {
    since: Timestamp,
    rounds: u32,
    stage: Stage,
    places: Vec<Place>,
    /// What is done to the message whatever becomes of the places.
    fixed: Vec<Edit>,
}

/// What later callbacks have to know of a request.
#[derive(Default)]
struct Stream {
    request_body: Option<Kind>,
    response_body: Option<Kind>,
    /// The response's body as far as it came.
    collected: Zeroizing<Vec<u8>>,
    /// Values that this request got, where they are to be masked on their way back.
    used: Vec<SecretValue>,
    redactor: Option<Redactor>,
    /// The response is ours.
    answered: bool,
}

/// Shared data as the resolver sees it.
struct HostShared<'h, H> {
    host: &'h H,
    on: bool,
}

impl<H: Host> Shared for HostShared<'_, H> {
    fn read(&self, key: &str) -> Option<(Zeroizing<Vec<u8>>, u32)> {
        let value = if self.on {
            self.host.shared_get(key.as_bytes())?
        } else {
            return None;
        };
        Some((value.bytes, value.cas))
    }

    fn write(&self, key: &str, entry: &[u8], over: Option<u32>) -> bool {
        let write = over.map_or(Write::Create, Write::Replace);
        self.on && self.host.shared_set(key.as_bytes(), entry, write).is_ok()
    }

    fn is_there(&self) -> bool {
        self.on
    }
}

impl Gateway {
    /// Reads the configuration. Whether the host may go on with it.
    pub(super) fn configure(&mut self, host: &impl Host) -> bool {
        let bytes = host.buffer(Buffer::Configuration).unwrap_or_default();
        match Config::parse(&bytes, &|name| host.variable(name)) {
            Ok(config) => {
                *self = Self::Ready(Box::new(Ready::new(config, host)));
                true
            }
            Err(problems) => {
                *self = Self::Refusing;
                for problem in &problems {
                    let line = Line::new("configuration_refused").quoted("path", &problem.path);
                    host.log(Level::Error, &line.quoted("detail", &problem.message).end());
                }
                // Envoy keeps what it had. WasmX would lose the worker, or run all chains without
                // filters: there this filter starts and refuses every request instead.
                host.dialect() == Dialect::WasmX
            }
        }
    }

    pub(super) fn tick(&mut self, root: u32, host: &impl Host, calls: &mut PendingCalls) {
        if let Self::Ready(ready) = self {
            ready.tick(root, host, calls);
        }
    }

    #[inline]
    pub(super) fn request_headers(
        &mut self,
        root: u32,
        context: u32,
        end: bool,
        host: &impl Host,
        calls: &mut PendingCalls,
    ) -> Flow {
        match self {
            Self::Ready(ready) => ready.request_headers(root, context, end, host, calls),
            Self::Refusing => {
                reply::not_configured(host);
                Flow::Pause
            }
        }
    }

    pub(super) fn request_body(
        &mut self,
        root: u32,
        context: u32,
        size: usize,
        end: bool,
        host: &impl Host,
        calls: &mut PendingCalls,
    ) -> Flow {
        match self {
            Self::Ready(ready) if ready.needs.request_body => {
                ready.request_body(root, context, size, end, host, calls)
            }
            _ => Flow::Continue,
        }
    }

    #[inline]
    pub(super) fn response_headers(
        &mut self,
        root: u32,
        context: u32,
        host: &impl Host,
        calls: &mut PendingCalls,
    ) -> Flow {
        match self {
            Self::Ready(ready) => ready.response_headers(root, context, host, calls),
            Self::Refusing => Flow::Continue,
        }
    }

    pub(super) fn response_body(
        &mut self,
        root: u32,
        context: u32,
        size: usize,
        end: bool,
        host: &impl Host,
        calls: &mut PendingCalls,
    ) -> Flow {
        match self {
            Self::Ready(ready) if ready.needs.response => {
                ready.response_body(root, context, size, end, host, calls)
            }
            _ => Flow::Continue,
        }
    }

    pub(super) fn call_answered(
        &mut self,
        call: &PendingCall,
        answer: &Answer,
        host: &impl Host,
        calls: &mut PendingCalls,
    ) {
        if let Self::Ready(ready) = self {
            ready.with_now(host, |resolver, now| {
                resolver.handle_answer(call.id, answer, now);
            });
            ready.carry_out(call.root, host, calls);
            // It may have begun to follow another worker, which shows at a tick only.
            ready.set_tick(ready.resolver.tick_period(), host);
        }
    }

    #[cfg(test)]
    pub(super) fn is_quiet(&self) -> bool {
        match self {
            Self::Refusing => true,
            Self::Ready(ready) => ready.parked.is_empty(),
        }
    }

    /// The request's context is gone.
    #[inline]
    pub(super) fn forget(&mut self, context: u32) {
        if let Self::Ready(ready) = self {
            // Most requests leave nothing behind, and a hash costs more than the question.
            if !ready.streams.is_empty() {
                ready.streams.remove(context);
            }
            if !ready.parked.is_empty() && ready.parked.remove(context).is_some() {
                ready.resolver.forget(context);
            }
        }
    }

    /// The root context goes: what it added to the host's gauges goes with it.
    pub(super) fn retire(&mut self, host: &impl Host) {
        if let Self::Ready(ready) = self {
            ready.with_now(host, Fetcher::release_leases);
            ready.meters.retire(host);
        }
    }
}

impl Ready {
    fn new(config: Config, host: &impl Host) -> Self {
        let config = Rc::new(config);
        let mut resolver = Fetcher::new(Rc::clone(&config));
        let set = PreparedHeader::set(&config, &config.request.set_headers);
        let response_set = PreparedHeader::set(&config, &config.response.set_headers);
        let query = place::in_query(&config, None);
        let places = set.iter().chain(&response_set).map(|set| &set.place);
        for want in places.clone().chain(&query).flat_map(Place::wants) {
            resolver.pin(want);
        }
        let operators = places.flat_map(Place::wants).map(|want| want.key.vault);
        resolver.metrics.operator_sets(operators);
        let (request, response) = (&config.request, &config.response);
        let needs = Needs {
            request_headers: !request.resolve_headers.is_empty(),
            query: !request.resolve_query.is_empty() || !request.set_query.is_empty(),
            request_body: !request.resolve_body.is_empty(),
            response: config.redact || !response.is_empty(),
        };
        let tick_period = match host.dialect() {
            Dialect::Envoy => FIRST_TICK,
            Dialect::WasmX => WASMX_TICK,
        };
        host.set_tick_period(tick_period);
        // WasmX traps on shared data without a zone, which it has only if the operator made one; and on
        // metrics before Kong 3.9.
        let by_default = host.dialect() == Dialect::Envoy;
        Self {
            shared_data: config.shared_data.unwrap_or(by_default),
            counts: config.metrics.enabled.unwrap_or(by_default),
            config,
            resolver,
            looked_up: Vec::new(),
            set,
            response_set,
            needs,
            seen: Seen::default(),
            prepared: Vec::new(),
            seen_in_responses: Seen::default(),
            parked: ById::default(),
            woken: VecDeque::new(),
            streams: ById::default(),
            tick_period,
            meters: Meters::default(),
        }
    }

    fn with_now<R>(
        &mut self,
        host: &impl Host,
        act: impl FnOnce(&mut Fetcher, &Now<'_>) -> R,
    ) -> R {
        let shared = HostShared {
            host,
            on: self.shared_data,
        };
        let now = Now {
            time: host.now(),
            random: &|| host.random(),
            shared: &shared,
        };
        act(&mut self.resolver, &now)
    }

    fn tick(&mut self, root: u32, host: &impl Host, calls: &mut PendingCalls) {
        self.with_now(host, Fetcher::handle_tick);
        self.carry_out(root, host, calls);
        self.set_tick(self.resolver.tick_period(), host);
        self.tell(host);
    }

    /// Tells the host what was counted, and what came again, once a second.
    fn tell(&mut self, host: &impl Host) {
        let now = host.now();
        if self.meters.due(now) {
            self.seen.let_go(now);
            for line in self.resolver.events.summed_up(now) {
                host.log(Level::Warn, &line.text);
            }
            if !self.counts {
                drop(self.resolver.metrics.take_delays());
                return;
            }
            let standing = self.resolver.gauges(now);
            self.meters
                .tell(&mut self.resolver.metrics, &standing, host);
        }
    }

    /// WasmX traps when the period is set a second time.
    fn set_tick(&mut self, period: Span, host: &impl Host) {
        let period = if self.woken.is_empty() { period } else { SOON };
        if host.dialect() == Dialect::Envoy && period != self.tick_period {
            self.tick_period = period;
            host.set_tick_period(period);
        }
    }

    fn request_headers(
        &mut self,
        root: u32,
        context: u32,
        end: bool,
        host: &impl Host,
        calls: &mut PendingCalls,
    ) -> Flow {
        let check_repeats = host.dialect() == Dialect::WasmX && !self.set.is_empty();
        let Needs {
            request_headers,
            query,
            request_body,
            ..
        } = self.needs;
        let bytes = if request_headers || query || request_body || check_repeats {
            host.header_map(Map::Request).unwrap_or_default()
        } else {
            Vec::new()
        };
        let map = HeaderMap::new(&bytes);
        let references = if request_headers {
            map.find(Template::first_start)
        } else {
            None
        };
        if check_repeats && let Some(denial) = self.repeated(&[], map) {
            return self.deny(context, &denial, host);
        }
        let in_query = if query {
            let target = target(host, map);
            let (_, text) = query::split(&target);
            place::in_query(&self.config, text)
        } else {
            None
        };
        let mut fixed = Vec::new();
        if request_body && let Err(denial) = self.expect_body(context, end, map, host, &mut fixed) {
            return self.deny(context, &denial, host);
        }
        if self.masks() {
            // What is compressed cannot be searched for values.
            let identity = vec![Zeroizing::new(b"identity".to_vec())];
            fixed.push(Edit::Header(b"accept-encoding".to_vec(), identity));
        }
        if in_query.is_none() && fixed.is_empty() && self.all_prepared(references, host) {
            return Flow::Continue;
        }
        let found = references.map_or_else(Vec::new, |hit| {
            place::in_headers(&self.config, &self.config.request, hit, &mut self.seen)
        });
        if host.dialect() == Dialect::WasmX
            && let Some(denial) = self.repeated(&found, map)
        {
            return self.deny(context, &denial, host);
        }
        let set = self.set.iter().map(|set| set.place.clone());
        let for_later = self.response_set.iter().map(|set| set.place.for_later());
        let places = set.chain(for_later).chain(found).chain(in_query).collect();
        let parked = Parked {
            since: host.now(),
            rounds: 0,
            stage: Stage::RequestHeaders,
            places,
            fixed,
        };
        self.decide(root, context, parked, host, calls)
    }

    /// Whether values that requests get are looked for in what comes back.
    fn masks(&self) -> bool {
        self.config.redact
    }

    /// Whether this request's body will be looked into. Its length may change, so its old length goes
    /// while the headers can still be changed: too long a body behind it would be read as the next
    /// request.
    fn expect_body(
        &mut self,
        context: u32,
        end: bool,
        map: HeaderMap<'_>,
        host: &impl Host,
        fixed: &mut Vec<Edit>,
    ) -> Result<(), Denial> {
        let rules = &self.config.request.resolve_body;
        let kind = map.all("content-type").next().and_then(|t| rules.kind(t));
        let Some(kind) = kind.filter(|_| !end) else {
            return Ok(());
        };
        if is_compressed(map) {
            self.complain(
                "left_alone",
                &denial(Reason::NotRepresentable, b"a compressed body"),
                host,
            );
            return Ok(());
        }
        let length = map
            .text("content-length")
            .and_then(|n| n.parse::<usize>().ok());
        if length.is_some_and(|length| length > self.config.limits.body_bytes) {
            return Err(denial(Reason::BodyTooLarge, b""));
        }
        // WasmX corrects the length itself.
        if host.dialect() == Dialect::Envoy && length.is_some() {
            fixed.push(Edit::RemoveHeader(b"content-length".to_vec()));
        }
        self.streams
            .change(context, |stream| stream.request_body = Some(kind));
        Ok(())
    }

    /// A header that the client sent more than once and that is to be written: nginx would send the
    /// client's further values beside ours.
    fn repeated(&self, found: &[Place], map: HeaderMap<'_>) -> Option<Denial> {
        let set = self.set.iter().map(|set| &set.place);
        let mut names = set.chain(found).filter_map(|place| match &place.target {
            place::Target::Header(name) => Some(name.as_slice()),
            _ => None,
        });
        let repeated = names.find(|name| map.all(&String::from_utf8_lossy(name)).nth(1).is_some());
        repeated.map(|name| denial(Reason::RepeatedHeader, name))
    }

    /// Sets all of the operator's headers, and those of the client that hold references, from
    /// values that were put together earlier, if all of them still hold. This is the way that nearly every
    /// request goes: one call for the time, one for each header. Else nothing is changed.
    fn all_prepared(&mut self, references: Option<Hit<'_>>, host: &impl Host) -> bool {
        let sets = !self.set.is_empty() || !self.response_set.is_empty();
        if !sets && references.is_none() {
            return true;
        }
        let time = OnceCell::new();
        let now = || *time.get_or_init(|| host.now());
        self.looked_up.clear();
        // An earlier request may have been given up half way.
        self.prepared.clear();
        for set in self.set.iter_mut().chain(&mut self.response_set) {
            if !set.prepare(&mut self.resolver, &mut self.looked_up, now()) {
                return false;
            }
        }
        let operators = self.looked_up.len();
        if references.is_some_and(|hit| !self.clients_prepared(hit, now)) {
            return false;
        }
        for set in &self.set {
            set.apply(Map::Request, host);
        }
        for header in self.prepared.drain(..).filter_map(|at| self.seen.get(at)) {
            header.apply(Map::Request, host);
        }
        let counted = if sets {
            Counted::Served
        } else {
            Counted::Other
        };
        self.resolver
            .metrics
            .record(&self.looked_up, operators, counted);
        true
    }

    /// Whether every header with a reference was seen before, with a value that holds now if something in
    /// it may be resolved.
    fn clients_prepared(&mut self, references: Hit<'_>, now: impl Fn() -> Timestamp) -> bool {
        // Who used what is written down one by one.
        if self.config.audit.is_some() {
            return false;
        }
        let mut repeats = Repeats::of(references.map());
        for (name, value) in references.pairs(Template::first_start) {
            match self.seen.known(name, value) {
                Known::Nothing => continue,
                Known::No if !place::is_for_clients(&self.config.request, name) => continue,
                Known::No => return false,
                Known::Header(header, at) => {
                    // All values of a header are written together.
                    if !header.prepare_for_client(&mut self.resolver, &mut self.looked_up, now())
                        || repeats.has(name)
                    {
                        return false;
                    }
                    self.prepared.push(at);
                }
            }
        }
        true
    }

    fn request_body(
        &mut self,
        root: u32,
        context: u32,
        size: usize,
        end: bool,
        host: &impl Host,
        calls: &mut PendingCalls,
    ) -> Flow {
        let kind = self.streams.get(context).and_then(|s| s.request_body);
        let Some(kind) = kind else {
            return Flow::Continue;
        };
        if size > self.config.limits.body_bytes {
            return self.deny(context, &denial(Reason::BodyTooLarge, b""), host);
        }
        if !end {
            return Flow::Pause;
        }
        if size == 0 {
            return Flow::Continue;
        }
        let body = host.buffer(Buffer::RequestBody).unwrap_or_default();
        if body.len() < size {
            // WasmX put it into a file: it can be neither read nor replaced.
            return self.deny(context, &denial(Reason::BodyTooLarge, b""), host);
        }
        let allow = &self.config.request.allow;
        let Some(place) = place::in_body(&self.config, allow, kind, &body) else {
            return Flow::Continue;
        };
        let parked = Parked {
            since: host.now(),
            rounds: 0,
            stage: Stage::RequestBody,
            places: vec![place],
            fixed: Vec::new(),
        };
        self.decide(root, context, parked, host, calls)
    }

    fn response_headers(
        &mut self,
        root: u32,
        context: u32,
        host: &impl Host,
        calls: &mut PendingCalls,
    ) -> Flow {
        if !self.needs.response {
            return Flow::Continue;
        }
        if self.streams.get(context).is_some_and(|s| s.answered) {
            return Flow::Continue;
        }
        let flow = self.look_at_response(root, context, host, calls);
        // After the masking: what the operator sets is meant to be seen.
        self.set_response_headers(host);
        flow
    }

    fn look_at_response(
        &mut self,
        root: u32,
        context: u32,
        host: &impl Host,
        calls: &mut PendingCalls,
    ) -> Flow {
        let rules = &self.config.response;
        let looks = !rules.resolve_headers.is_empty() || !rules.resolve_body.is_empty();
        let used = self
            .streams
            .get(context)
            .is_some_and(|s| !s.used.is_empty());
        if !looks && !used {
            return Flow::Continue;
        }
        let bytes = host.header_map(Map::Response).unwrap_or_default();
        let map = HeaderMap::new(&bytes);
        if used {
            self.mask_response(context, map, host);
        }
        let kind = map
            .all("content-type")
            .next()
            .and_then(|t| rules_kind(&self.config, t));
        if let Some(kind) = kind.filter(|_| !is_compressed(map)) {
            self.streams
                .change(context, |stream| stream.response_body = Some(kind));
            let _ = host.remove_header(Map::Response, b"content-length");
        }
        let places = map
            .find(Template::first_start)
            .map_or_else(Vec::new, |hit| {
                let seen = &mut self.seen_in_responses;
                place::in_headers(&self.config, &self.config.response, hit, seen)
            });
        if places.is_empty() {
            return Flow::Continue;
        }
        let parked = Parked {
            since: host.now(),
            rounds: 0,
            stage: Stage::ResponseHeaders,
            places,
            fixed: Vec::new(),
        };
        self.decide(root, context, parked, host, calls)
    }

    /// What the operator sets in responses: known since before the request went on, and if it ended
    /// meanwhile, left out.
    fn set_response_headers(&mut self, host: &impl Host) {
        if self.response_set.is_empty() {
            return;
        }
        let now = host.now();
        for set in &mut self.response_set {
            if set.prepare(&mut self.resolver, &mut self.looked_up, now) {
                set.apply(Map::Response, host);
            } else {
                for want in set.place.wants() {
                    self.resolver.fetch_in_background(want, now);
                }
                set.remove(Map::Response, host);
            }
        }
    }

    /// Masks values in the headers, and gets ready for the body.
    fn mask_response(&mut self, context: u32, map: HeaderMap<'_>, host: &impl Host) {
        let Some(stream) = self.streams.get_mut(context) else {
            return;
        };
        stream.redactor = Redactor::new(&stream.used);
        let Some(redactor) = &stream.redactor else {
            return;
        };
        let mut masked: Vec<&[u8]> = Vec::new();
        for (name, value) in map.iter() {
            let mut value = Zeroizing::new(value.to_vec());
            if name.starts_with(b":") || !redactor.mask(&mut value) {
                continue;
            }
            // Of several headers of one name, all are written anew.
            let known = masked.iter().any(|m| m.eq_ignore_ascii_case(name));
            if known {
                continue;
            }
            masked.push(name);
            let name_text = String::from_utf8_lossy(name);
            let values = map.all(&name_text).map(<[u8]>::to_vec);
            for (n, mut value) in values.map(Zeroizing::new).enumerate() {
                redactor.mask(&mut value);
                let _ = if n == 0 {
                    host.set_header(Map::Response, name, &value)
                } else {
                    host.add_header(Map::Response, name, &value)
                };
            }
        }
        if host.dialect() == Dialect::WasmX {
            // Pieces are held back: WasmX compares each one with the length.
            let _ = host.remove_header(Map::Response, b"content-length");
        }
        if is_compressed(map) {
            stream.redactor = None;
            self.complain(
                "left_alone",
                &denial(
                    Reason::NotRepresentable,
                    b"a compressed response is not searched for values",
                ),
                host,
            );
        }
    }

    fn response_body(
        &mut self,
        root: u32,
        context: u32,
        size: usize,
        end: bool,
        host: &impl Host,
        calls: &mut PendingCalls,
    ) -> Flow {
        let Some(stream) = self.streams.get_mut(context).filter(|s| !s.answered) else {
            return Flow::Continue;
        };
        if stream.response_body.is_none() && stream.redactor.is_none() {
            return Flow::Continue;
        }
        let piece = host.buffer(Buffer::ResponseBody).unwrap_or_default();
        let piece = match &mut stream.redactor {
            Some(redactor) => redactor.piece(&piece, end),
            None => piece,
        };
        let Some(kind) = stream.response_body else {
            let _ = host.set_buffer(Buffer::ResponseBody, size, &piece);
            return Flow::Continue;
        };
        stream.collected.extend_from_slice(&piece);
        if stream.collected.len() > self.config.limits.body_bytes {
            // Too long to be held: it goes on as it is.
            let all = core::mem::take(&mut stream.collected);
            stream.response_body = None;
            let _ = host.set_buffer(Buffer::ResponseBody, size, &all);
            let left = denial(Reason::BodyTooLarge, b"a response");
            self.complain("left_alone", &left, host);
            return Flow::Continue;
        }
        if !end {
            let _ = host.set_buffer(Buffer::ResponseBody, size, b"");
            return Flow::Continue;
        }
        let all = core::mem::take(&mut stream.collected);
        let _ = host.set_buffer(Buffer::ResponseBody, size, &all);
        let allow = &self.config.response.allow;
        let Some(place) = place::in_body(&self.config, allow, kind, &all) else {
            return Flow::Continue;
        };
        let parked = Parked {
            since: host.now(),
            rounds: 0,
            stage: Stage::ResponseBody,
            places: vec![place],
            fixed: Vec::new(),
        };
        self.decide(root, context, parked, host, calls)
    }

    /// Judges a message for as long as it waits. WasmX cannot wait in a response, and the beginning of a
    /// response whose body is looked at is with the client already.
    fn judge(&mut self, context: u32, parked: &Parked, waited: bool, host: &impl Host) -> Verdict {
        let response = matches!(parked.stage, Stage::ResponseHeaders | Stage::ResponseBody);
        let on_error = match (parked.stage, self.config.on_error) {
            (Stage::ResponseBody, OnError::Deny) => OnError::Remove,
            (_, on_error) => on_error,
        };
        let masks = self.masks() && !response;
        let mut used = Vec::new();
        self.looked_up.clear();
        let mut bench = Bench {
            on_error,
            resolver: &mut self.resolver,
            looked_up: &mut self.looked_up,
            since: waited.then_some(parked.since),
            now: host.now(),
            patient: !(response && host.dialect() == Dialect::WasmX),
            used: masks.then_some(&mut used),
        };
        let verdict = place::judge(parked.places.iter(), &mut bench);
        if !used.is_empty() && matches!(verdict, Verdict::Edit(_)) {
            self.streams
                .change(context, |stream| stream.used.append(&mut used));
        }
        if matches!(verdict, Verdict::Wait(_)) {
            self.looked_up.clear();
        }
        verdict
    }

    /// What becomes of a message in the callback that brought it: it may all be known, or be refused on
    /// the spot; else everything that it needs is fetched.
    fn decide(
        &mut self,
        root: u32,
        context: u32,
        parked: Parked,
        host: &impl Host,
        calls: &mut PendingCalls,
    ) -> Flow {
        let wants = match self.judge(context, &parked, false, host) {
            Verdict::Edit(edits) => {
                self.apply(&parked, edits, host);
                return Flow::Continue;
            }
            Verdict::Deny(denial) => {
                self.audit(&parked, Outcome::Refused(denial.reason), host);
                return self.deny_at(parked.stage, context, &denial, host);
            }
            Verdict::Wait(wants) => wants,
        };
        self.fetch(context, &wants, host);
        let mut woken = self.make_calls(root, host, calls);
        // This request is not parked yet: it is looked at here, and never resumed before it was held.
        woken.retain(|&other| other != context);
        let verdict = self.judge(context, &parked, true, host);
        let awaits = self.resolver.is_waiting(context);
        // WasmX: a request with a call of its own under way must not go on, or the worker dies.
        let bound = awaits && host.dialect() == Dialect::WasmX;
        let flow = match verdict {
            Verdict::Wait(_) if awaits => self.hold(context, parked, host),
            Verdict::Edit(_) if bound => self.hold(context, parked, host),
            Verdict::Edit(edits) => {
                self.resolver.forget(context);
                self.apply(&parked, edits, host);
                Flow::Continue
            }
            Verdict::Deny(denial) => {
                self.resolver.forget(context);
                self.audit(&parked, Outcome::Refused(denial.reason), host);
                self.deny_at(parked.stage, context, &denial, host)
            }
            Verdict::Wait(_) => {
                let denial = gave_up();
                self.audit(&parked, Outcome::Refused(denial.reason), host);
                self.deny_at(parked.stage, context, &denial, host)
            }
        };
        self.wake(root, woken, host, calls);
        flow
    }

    fn hold(&mut self, context: u32, parked: Parked, host: &impl Host) -> Flow {
        self.parked.insert(context, parked);
        self.looked_up.clear();
        // Another worker's fetch shows at a tick only.
        self.set_tick(self.resolver.tick_period(), host);
        Flow::Pause
    }

    fn apply(&mut self, parked: &Parked, edits: Vec<Edit>, host: &impl Host) {
        self.audit(parked, Outcome::GoesOn, host);
        self.count_message();
        for edit in edits {
            apply(host, parked.stage, edit);
        }
        for edit in &parked.fixed {
            apply(host, parked.stage, edit.clone());
        }
    }

    /// Tells who used what, if that is asked for; before anything is changed.
    fn audit(&mut self, parked: &Parked, outcome: Outcome, host: &impl Host) {
        let request = matches!(parked.stage, Stage::RequestHeaders | Stage::RequestBody);
        if let Some(audit) = self.config.audit.as_ref().filter(|_| request) {
            let (config, resolver) = (&self.config, &mut self.resolver);
            let times = (parked.since, host.now());
            audit::write(
                audit,
                config,
                &parked.places,
                outcome,
                resolver,
                times,
                host,
            );
        }
    }

    /// Answers the request from here; in place of a response that has come, its length goes first: WasmX
    /// would keep it, and the client would wait for the rest.
    fn deny_at(&mut self, stage: Stage, context: u32, denial: &Denial, host: &impl Host) -> Flow {
        if host.dialect() == Dialect::WasmX && stage == Stage::ResponseHeaders {
            let _ = host.remove_header(Map::Response, b"content-length");
        }
        self.deny(context, denial, host)
    }

    /// Answers the request from here.
    fn deny(&mut self, context: u32, denial: &Denial, host: &impl Host) -> Flow {
        self.complain("request_denied", denial, host);
        self.count_message();
        self.resolver.metrics.count(Series::Refusals(denial.reason));
        if self.needs.response {
            self.streams
                .change(context, |stream| stream.answered = true);
        }
        reply::deny(host, denial);
        Flow::Pause
    }

    /// The message that was judged counts.
    fn count_message(&mut self) {
        let metrics = &mut self.resolver.metrics;
        metrics.record(&self.looked_up, 0, Counted::Other);
        self.looked_up.clear();
    }

    fn fetch(&mut self, context: u32, wants: &[Want], host: &impl Host) {
        let lane = match host.dialect() {
            Dialect::Envoy => Lane::Worker,
            Dialect::WasmX => Lane::Request(context),
        };
        self.with_now(host, |resolver, now| {
            for want in wants {
                resolver.fetch(want, lane, context, now);
            }
        });
    }

    fn carry_out(&mut self, root: u32, host: &impl Host, calls: &mut PendingCalls) {
        let woken = self.make_calls(root, host, calls);
        self.wake(root, woken, host, calls);
    }

    /// Makes the calls; one that cannot be made is answered on the spot, which may lead to more. Returns
    /// the requests to wake.
    fn make_calls(&mut self, root: u32, host: &impl Host, calls: &mut PendingCalls) -> Vec<u32> {
        let mut woken = Vec::new();
        while let Some(action) = self.resolver.poll() {
            match action {
                Action::Wake(context) => woken.push(context),
                Action::Log(line) => {
                    let level = if line.warning {
                        Level::Warn
                    } else {
                        Level::Info
                    };
                    host.log(level, &line.text);
                }
                Action::Call(call) => self.make_call(root, &call, host, calls),
            }
        }
        woken
    }

    fn make_call(&mut self, root: u32, call: &Call, host: &impl Host, calls: &mut PendingCalls) {
        let Call { id, request, .. } = call;
        match send(host, request) {
            Ok(token) => {
                calls.insert(token, PendingCall { root, id: *id });
            }
            Err(refused) => {
                let failure = match refused {
                    Refused::BAD_ARGUMENT => CallFailure::UnknownCluster,
                    _ => CallFailure::NotSent,
                };
                self.with_now(host, |resolver, now| {
                    resolver.handle_answer(*id, &Answer::Failed(failure), now);
                });
            }
        }
    }

    /// Looks again at the requests for which something has come.
    fn wake(&mut self, root: u32, woken: Vec<u32>, host: &impl Host, calls: &mut PendingCalls) {
        self.woken.extend(woken);
        let mut left = match host.dialect() {
            Dialect::Envoy => MOST_WOKEN,
            Dialect::WasmX => usize::MAX,
        };
        while left > 0
            && let Some(context) = self.woken.pop_front()
        {
            left -= 1;
            let Some(mut parked) = self.parked.remove(context) else {
                continue;
            };
            if host.dialect() == Dialect::Envoy && host.focus(context).is_err() {
                // The client left, and the host had no chance to say so yet.
                self.resolver.forget(context);
                continue;
            }
            let verdict = self.judge(context, &parked, true, host);
            if !matches!(verdict, Verdict::Wait(_)) {
                let waited = parked.since.age(host.now());
                self.resolver.metrics.delayed(waited);
            }
            match verdict {
                // WasmX takes a new body in the body's own callback only; the value is there now for
                // whoever asks again.
                Verdict::Edit(_)
                    if host.dialect() == Dialect::WasmX && parked.stage == Stage::RequestBody =>
                {
                    self.audit(&parked, Outcome::Refused(Reason::NotReady), host);
                    self.deny(context, &denial(Reason::NotReady, b""), host);
                }
                Verdict::Edit(edits) => {
                    self.apply(&parked, edits, host);
                    // WasmX resumes by itself when the last call is answered.
                    if host.dialect() == Dialect::Envoy {
                        let _ = host.resume(parked.stage.half());
                    }
                }
                Verdict::Deny(denial) => {
                    self.resolver.forget(context);
                    self.audit(&parked, Outcome::Refused(denial.reason), host);
                    self.deny(context, &denial, host);
                }
                Verdict::Wait(_) if self.resolver.is_waiting(context) => {
                    self.parked.insert(context, parked);
                }
                Verdict::Wait(wants) if parked.rounds < MOST_ROUNDS => {
                    parked.rounds += 1;
                    self.parked.insert(context, parked);
                    self.fetch(context, &wants, host);
                    let others = self.make_calls(root, host, calls);
                    self.woken.extend(others);
                    if !self.resolver.is_waiting(context) && !self.woken.contains(&context) {
                        self.woken.push_back(context);
                    }
                }
                Verdict::Wait(_) => {
                    let denial = gave_up();
                    self.audit(&parked, Outcome::Refused(denial.reason), host);
                    self.deny(context, &denial, host);
                }
            }
        }
        self.set_tick(self.tick_period, host);
    }

    /// The first request that fails for a reason is told; those after it are counted.
    fn complain(&mut self, event: &str, denial: &Denial, host: &impl Host) {
        let head = Line::new(event)
            .word("reason", denial.reason.as_str())
            .end();
        if !self.resolver.events.first(&head, true, host.now()) {
            return;
        }
        let id = reply::request_id(host).unwrap_or_default();
        let line = Line::of(&head).word("request_id", &id);
        let reference = String::from_utf8_lossy(&denial.reference);
        host.log(Level::Warn, &line.quoted("reference", &reference).end());
    }
}

impl Stage {
    const fn half(self) -> Half {
        match self {
            Self::RequestHeaders | Self::RequestBody => Half::Request,
            Self::ResponseHeaders | Self::ResponseBody => Half::Response,
        }
    }

    const fn map(self) -> Map {
        match self.half() {
            Half::Request => Map::Request,
            Half::Response => Map::Response,
        }
    }

    const fn buffer(self) -> Buffer {
        match self.half() {
            Half::Request => Buffer::RequestBody,
            Half::Response => Buffer::ResponseBody,
        }
    }
}

/// WasmX: the request's target as it goes to the upstream; `:path` is not what the client sent.
const UPSTREAM_URI: &[u8] = b"ngx\0upstream_uri";
const QUERY: &[u8] = b"request\0query";

/// The request's target: path and query.
fn target(host: &impl Host, map: HeaderMap<'_>) -> Zeroizing<Vec<u8>> {
    let uri = match host.dialect() {
        Dialect::Envoy => None,
        Dialect::WasmX => host
            .property(UPSTREAM_URI)
            .filter(|uri| uri.starts_with(b"/")),
    };
    let path = || map.all(":path").next().unwrap_or_default().to_vec();
    uri.unwrap_or_else(|| Zeroizing::new(path()))
}

fn set_query(host: &impl Host, query: &[u8]) {
    let bytes = host.header_map(Map::Request).unwrap_or_default();
    let old = target(host, HeaderMap::new(&bytes));
    let (path, _) = query::split(&old);
    let mut new = Zeroizing::new(Vec::with_capacity(path.len() + query.len() + 1));
    new.extend_from_slice(path);
    if !query.is_empty() {
        new.push(b'?');
        new.extend_from_slice(query);
    }
    let _ = match host.dialect() {
        Dialect::Envoy => host.set_header(Map::Request, b":path", &new),
        // Kong sends `$upstream_uri`; nginx without that variable sends its own path with these arguments.
        Dialect::WasmX => host
            .set_property(UPSTREAM_URI, &new)
            .or_else(|_| host.set_property(QUERY, query)),
    };
}

/// A body that is encoded in any way but "not at all".
fn is_compressed(map: HeaderMap<'_>) -> bool {
    let mut encodings = map.all("content-encoding");
    encodings.any(|value| !value.trim_ascii().eq_ignore_ascii_case(b"identity"))
}

fn rules_kind(config: &Config, content_type: &[u8]) -> Option<Kind> {
    config.response.resolve_body.kind(content_type)
}

fn apply(host: &impl Host, stage: Stage, edit: Edit) {
    let map = stage.map();
    match edit {
        Edit::Header(name, values) => {
            let mut values = values.iter();
            if let Some(first) = values.next() {
                // A host that refuses leaves the reference where it was, never half a value.
                let _ = host.set_header(map, &name, first);
            }
            for further in values {
                let _ = host.add_header(map, &name, further);
            }
        }
        Edit::RemoveHeader(name) => {
            // WasmX shows a request's header as removed and sends it all the same.
            let _ = match (host.dialect(), map) {
                (Dialect::WasmX, Map::Request) => host.set_header(map, &name, b""),
                _ => host.remove_header(map, &name),
            };
        }
        Edit::Query(query) => set_query(host, &query),
        Edit::Body(body) => {
            let buffer = stage.buffer();
            let old = host.buffer(buffer).map_or(0, |old| old.len());
            let _ = host.set_buffer(buffer, old, &body);
        }
    }
}

fn denial(reason: Reason, reference: &[u8]) -> Denial {
    Denial {
        reason,
        reference: reference.to_vec(),
        retry_after: None,
    }
}

fn gave_up() -> Denial {
    Denial {
        reason: Reason::Unavailable,
        reference: Vec::new(),
        retry_after: None,
    }
}

fn send(host: &impl Host, request: &HttpRequest) -> Result<u32, Refused> {
    let mut headers: Vec<(&[u8], &[u8])> = vec![
        (b":method", request.method.as_bytes()),
        (b":scheme", request.scheme.as_str().as_bytes()),
        (b":authority", request.authority.as_bytes()),
        (b":path", request.path.as_bytes()),
        (b"user-agent", USER_AGENT.as_bytes()),
    ];
    headers.extend(
        request
            .headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
    );
    host.call(&OutgoingCall {
        upstream: &request.cluster,
        headers: &headers,
        body: &request.body,
        timeout: request.timeout,
    })
}

const USER_AGENT: &str = concat!("azure-key-vault-filter/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests;
