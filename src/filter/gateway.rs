//! One configured filter in one VM (a root context): its requests, those that are parked, and the calls
//! it makes. It carries out what [`request`] and the resolver decide.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use serde_json::json;
use zeroize::Zeroizing;

use super::header_map::HeaderMap;
use super::host::{Buffer, Dialect, Host, Level, Map, OutgoingCall, Refused, Write};
use super::request::{self, Denial, Edit, Header, Verdict};
use super::vm::Flow;
use crate::azure::http::{Answer, CallFailure, HttpRequest};
use crate::azure::identity::Step;
use crate::config::Config;
use crate::failure::Reason;
use crate::reference::Reference;
use crate::resolver::{Call, Lane, Now, Resolver, Shared, Subject, Todo, Want};
use crate::template::Template;
use crate::time::{Span, Timestamp};

/// The first tick fetches what the configuration needs, so it comes at once.
const FIRST_TICK: Span = Span(1);
/// WasmX takes one period for good.
const WASMX_TICK: Span = Span(500);
/// A request that was woken this often and still lacks a value is given up.
const MOST_ROUNDS: u32 = 5;
/// How often the same complaint about requests is logged.
const COMPLAIN_AGAIN: Span = Span::seconds(60);

/// The calls that are under way in this VM, by the host's numbers.
pub(super) type PendingCalls = HashMap<u32, PendingCall>;

/// Whose a call is, and what for.
pub(super) struct PendingCall {
    pub(super) root: u32,
    lane: Lane,
    subject: Subject,
    step: Step,
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
    resolver: Resolver,
    set: Vec<SetHeader>,
    shared_data: bool,
    parked: BTreeMap<u32, Parked>,
    tick_period: Span,
    complained: Option<(Reason, Timestamp)>,
}

/// A header that the operator sets, with its value as long as that holds.
struct SetHeader {
    header: Header,
    rendered: Option<Prepared>,
}

struct Prepared {
    value: Zeroizing<Vec<u8>>,
    epoch: u64,
    until: Timestamp,
}

/// A request that waits. It ends in exactly one resume or reply, and then it is taken out of here.
struct Parked {
    since: Timestamp,
    rounds: u32,
    headers: Vec<Header>,
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
        match Config::parse(&bytes, &|name| std::env::var(name).ok()) {
            Ok(config) => {
                *self = Self::Ready(Box::new(Ready::new(config, host)));
                true
            }
            Err(problems) => {
                *self = Self::Refusing;
                for problem in &problems {
                    host.log(
                        Level::Error,
                        &format!("event=configuration_refused {problem}"),
                    );
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

    pub(super) fn request_headers(
        &mut self,
        root: u32,
        context: u32,
        host: &impl Host,
        calls: &mut PendingCalls,
    ) -> Flow {
        match self {
            Self::Ready(ready) => ready.request_headers(root, context, host, calls),
            Self::Refusing => {
                reply(
                    host,
                    503,
                    &json!({"message": "the secrets filter is not configured; see the gateway's log"}),
                    None,
                );
                Flow::Pause
            }
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
            let mut todo = Todo::default();
            ready.with_now(host, |resolver, now| {
                resolver.answered(call.lane, call.subject, call.step, answer, now, &mut todo);
            });
            ready.carry_out(call.root, todo, host, calls);
            // It may have begun to follow another worker, which shows at a tick only.
            ready.set_tick(ready.resolver.next_tick(), host);
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
    pub(super) fn forget(&mut self, context: u32) {
        if let Self::Ready(ready) = self
            && ready.parked.remove(&context).is_some()
        {
            ready.resolver.forget(context);
        }
    }
}

impl Ready {
    fn new(config: Config, host: &impl Host) -> Self {
        let config = Rc::new(config);
        let mut resolver = Resolver::new(Rc::clone(&config));
        let set: Vec<SetHeader> = config
            .request
            .set_headers
            .iter()
            .map(|(name, template)| set_header(&config, name, template))
            .collect();
        for want in set.iter().flat_map(|set| wants(&set.header)) {
            resolver.pin(want);
        }
        let tick_period = match host.dialect() {
            Dialect::Envoy => FIRST_TICK,
            Dialect::WasmX => WASMX_TICK,
        };
        host.set_tick_period(tick_period);
        // WasmX traps on shared data without a zone, which it has only if the operator made one.
        let by_default = host.dialect() == Dialect::Envoy;
        Self {
            shared_data: config.shared_data.unwrap_or(by_default),
            config,
            resolver,
            set,
            parked: BTreeMap::new(),
            tick_period,
            complained: None,
        }
    }

    fn with_now<R>(
        &mut self,
        host: &impl Host,
        act: impl FnOnce(&mut Resolver, &Now<'_>) -> R,
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
        let mut todo = Todo::default();
        let next = self.with_now(host, |resolver, now| resolver.tick(now, &mut todo));
        self.carry_out(root, todo, host, calls);
        self.set_tick(next, host);
    }

    /// WasmX traps when the period is set a second time.
    fn set_tick(&mut self, period: Span, host: &impl Host) {
        if host.dialect() == Dialect::Envoy && period != self.tick_period {
            self.tick_period = period;
            host.set_tick_period(period);
        }
    }

    fn request_headers(
        &mut self,
        root: u32,
        context: u32,
        host: &impl Host,
        calls: &mut PendingCalls,
    ) -> Flow {
        let resolve = !self.config.request.resolve_headers.is_empty();
        let check_repeats = host.dialect() == Dialect::WasmX && !self.set.is_empty();
        let bytes = if resolve || check_repeats {
            host.header_map(Map::Request).unwrap_or_default()
        } else {
            Zeroizing::default()
        };
        let map = HeaderMap::new(&bytes);
        let found = if resolve && Template::may_hold_reference(&bytes) {
            request::find_references(&self.config, map)
        } else {
            Vec::new()
        };
        if host.dialect() == Dialect::WasmX
            && let Some(name) = self.repeated(&found, map)
        {
            // nginx would send the client's further values beside ours.
            deny(host, &repeated(name));
            return Flow::Pause;
        }
        if found.is_empty() && self.set_prepared(host) {
            return Flow::Continue;
        }
        let since = host.now();
        match request::judge(
            self.headers(&found).iter(),
            self.config.on_error,
            &mut self.resolver,
            None,
            since,
        ) {
            Verdict::Edit(edits) => {
                apply(host, edits);
                Flow::Continue
            }
            Verdict::Deny(denial) => {
                self.complain(&denial, host);
                deny(host, &denial);
                Flow::Pause
            }
            Verdict::Wait(wants) => {
                let parked = Parked {
                    since,
                    rounds: 0,
                    headers: self.headers(&found),
                };
                self.park(root, context, parked, &wants, host, calls)
            }
        }
    }

    /// What the operator sets and what was found in the request, as one list.
    fn headers(&self, found: &[Header]) -> Vec<Header> {
        let set = self.set.iter().map(|set| set.header.clone());
        set.chain(found.iter().cloned()).collect()
    }

    fn repeated<'a>(&'a self, found: &'a [Header], map: HeaderMap<'_>) -> Option<&'a [u8]> {
        let set = self.set.iter().map(|set| &set.header);
        let targets = set.chain(found).map(|header| header.name.as_slice());
        let mut targets = targets;
        targets.find(|name| map.all(&String::from_utf8_lossy(name)).nth(1).is_some())
    }

    /// Sets all of the operator's headers from values that were prepared earlier, if they all still hold.
    /// This is the way that nearly every request goes: one call for the time, one for each header.
    fn set_prepared(&mut self, host: &impl Host) -> bool {
        if self.set.is_empty() {
            return true;
        }
        let now = host.now();
        let epoch = self.resolver.epoch();
        for set in &mut self.set {
            let good = set
                .rendered
                .as_ref()
                .is_some_and(|r| r.epoch == epoch && r.until > now);
            if !good {
                let Some((value, until)) =
                    request::render_one(&set.header, &mut self.resolver, now)
                else {
                    return false;
                };
                set.rendered = Some(Prepared {
                    value,
                    epoch,
                    until,
                });
            }
        }
        for set in &self.set {
            if let Some(prepared) = &set.rendered {
                let _ = host.set_header(&set.header.name, &prepared.value);
            }
        }
        true
    }

    /// Has everything fetched that the request needs. It may all be there at once (from shared data, or
    /// refused on the spot); then the request goes on.
    fn park(
        &mut self,
        root: u32,
        context: u32,
        parked: Parked,
        wants: &[Want],
        host: &impl Host,
        calls: &mut PendingCalls,
    ) -> Flow {
        let todo = self.fetch(context, wants, host);
        let mut woken = self.make_calls(root, todo, host, calls);
        // This request is not parked yet: it is looked at here, and never resumed before it was held.
        woken.retain(|&other| other != context);
        let verdict = request::judge(
            parked.headers.iter(),
            self.config.on_error,
            &mut self.resolver,
            Some(parked.since),
            host.now(),
        );
        let awaits = self.resolver.awaits(context);
        // WasmX: a request with a call of its own under way must not go on, or the worker dies.
        let bound = awaits && host.dialect() == Dialect::WasmX;
        let flow = match verdict {
            Verdict::Wait(_) if awaits => self.hold(context, parked, host),
            Verdict::Edit(_) if bound => self.hold(context, parked, host),
            Verdict::Edit(edits) => {
                self.resolver.forget(context);
                apply(host, edits);
                Flow::Continue
            }
            Verdict::Deny(denial) => {
                self.resolver.forget(context);
                self.complain(&denial, host);
                deny(host, &denial);
                Flow::Pause
            }
            Verdict::Wait(_) => {
                deny(host, &gave_up());
                Flow::Pause
            }
        };
        self.wake(root, woken, host, calls);
        flow
    }

    fn hold(&mut self, context: u32, parked: Parked, host: &impl Host) -> Flow {
        self.parked.insert(context, parked);
        // Another worker's fetch shows at a tick only.
        self.set_tick(self.resolver.next_tick(), host);
        Flow::Pause
    }

    fn fetch(&mut self, context: u32, wants: &[Want], host: &impl Host) -> Todo {
        let lane = match host.dialect() {
            Dialect::Envoy => Lane::Worker,
            Dialect::WasmX => Lane::Request(context),
        };
        let mut todo = Todo::default();
        self.with_now(host, |resolver, now| {
            for want in wants {
                resolver.fetch(want, lane, context, now, &mut todo);
            }
        });
        todo
    }

    fn carry_out(&mut self, root: u32, todo: Todo, host: &impl Host, calls: &mut PendingCalls) {
        let woken = self.make_calls(root, todo, host, calls);
        self.wake(root, woken, host, calls);
    }

    /// Makes the calls; one that cannot be made is answered on the spot, which may lead to more. Returns
    /// whom to wake.
    fn make_calls(
        &mut self,
        root: u32,
        mut todo: Todo,
        host: &impl Host,
        calls: &mut PendingCalls,
    ) -> Vec<u32> {
        loop {
            for line in todo.log.drain(..) {
                host.log(
                    if line.warning {
                        Level::Warn
                    } else {
                        Level::Info
                    },
                    &line.text,
                );
            }
            let Some(Call {
                lane,
                subject,
                step,
                request,
            }) = todo.calls.pop()
            else {
                return todo.woken;
            };
            match send(host, &request) {
                Ok(token) => {
                    calls.insert(
                        token,
                        PendingCall {
                            root,
                            lane,
                            subject,
                            step,
                        },
                    );
                }
                Err(refused) => {
                    let failure = match refused {
                        Refused::BAD_ARGUMENT => CallFailure::UnknownCluster,
                        _ => CallFailure::NotSent,
                    };
                    self.with_now(host, |resolver, now| {
                        let answer = Answer::Failed(failure);
                        resolver.answered(lane, subject, step, &answer, now, &mut todo);
                    });
                }
            }
        }
    }

    /// Looks again at the requests for which something has come.
    fn wake(&mut self, root: u32, mut woken: Vec<u32>, host: &impl Host, calls: &mut PendingCalls) {
        while let Some(context) = woken.pop() {
            let Some(mut parked) = self.parked.remove(&context) else {
                continue;
            };
            if host.dialect() == Dialect::Envoy && host.focus(context).is_err() {
                // The client left, and the host had no chance to say so yet.
                self.resolver.forget(context);
                continue;
            }
            let verdict = request::judge(
                parked.headers.iter(),
                self.config.on_error,
                &mut self.resolver,
                Some(parked.since),
                host.now(),
            );
            match verdict {
                Verdict::Edit(edits) => {
                    apply(host, edits);
                    // WasmX resumes by itself when the last call is answered.
                    if host.dialect() == Dialect::Envoy {
                        let _ = host.resume();
                    }
                }
                Verdict::Deny(denial) => {
                    self.resolver.forget(context);
                    self.complain(&denial, host);
                    deny(host, &denial);
                }
                Verdict::Wait(_) if self.resolver.awaits(context) => {
                    self.parked.insert(context, parked);
                }
                Verdict::Wait(wants) if parked.rounds < MOST_ROUNDS => {
                    parked.rounds += 1;
                    self.parked.insert(context, parked);
                    let todo = self.fetch(context, &wants, host);
                    woken.extend(self.make_calls(root, todo, host, calls));
                    if !self.resolver.awaits(context) && !woken.contains(&context) {
                        woken.push(context);
                    }
                }
                Verdict::Wait(_) => deny(host, &gave_up()),
            }
        }
    }

    /// One line a minute for requests that fail for the same reason.
    fn complain(&mut self, denial: &Denial, host: &impl Host) {
        let now = host.now();
        let said = |(reason, at): (Reason, Timestamp)| {
            reason == denial.reason && at.age(now) < COMPLAIN_AGAIN
        };
        if self.complained.is_some_and(said) {
            return;
        }
        self.complained = Some((denial.reason, now));
        let reference = String::from_utf8_lossy(&denial.reference);
        let text = format!(
            "event=request_denied reason={} reference={reference:?}",
            denial.reason.as_str()
        );
        host.log(Level::Warn, &text);
    }
}

fn set_header(config: &Config, name: &str, template: &Template) -> SetHeader {
    let want = |reference: &Reference| request::operators_want(config, reference);
    let value = request::pieces(template, want);
    // Without a reference it is a fixed text, which is fine.
    let value = value.unwrap_or_else(|| {
        let mut text = Vec::new();
        template.render_literally(&mut text);
        vec![request::Piece::Literal(text)]
    });
    SetHeader {
        header: Header {
            name: name.as_bytes().to_vec(),
            values: vec![value],
        },
        rendered: None,
    }
}

fn wants(header: &Header) -> impl Iterator<Item = &Want> {
    header
        .values
        .iter()
        .flatten()
        .filter_map(|piece| match piece {
            request::Piece::Secret { want, .. } => Some(want),
            request::Piece::Literal(_) => None,
        })
}

fn apply(host: &impl Host, edits: Vec<Edit>) {
    for edit in edits {
        match edit {
            Edit::Set(name, values) => {
                let mut values = values.iter();
                if let Some(first) = values.next() {
                    // A host that refuses leaves the reference where it was, never half a value.
                    let _ = host.set_header(&name, first);
                }
                for further in values {
                    let _ = host.add_header(&name, further);
                }
            }
            Edit::Remove(name) => {
                // WasmX shows the header as removed and sends it all the same.
                let _ = match host.dialect() {
                    Dialect::Envoy => host.remove_header(&name),
                    Dialect::WasmX => host.set_header(&name, b""),
                };
            }
        }
    }
}

fn repeated(name: &[u8]) -> Denial {
    Denial {
        reason: Reason::RepeatedHeader,
        reference: name.to_vec(),
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

fn deny(host: &impl Host, denial: &Denial) {
    let what = String::from_utf8_lossy(&denial.reference);
    if denial.reason == Reason::RepeatedHeader {
        let body = json!({
            "message": "this header may be sent once only",
            "header": what,
            "reason": denial.reason.as_str(),
        });
        return reply(host, 400, &body, None);
    }
    let body = json!({
        "message": "a secret that this request needs cannot be had",
        "reference": what,
        "reason": denial.reason.as_str(),
    });
    reply(host, 503, &body, denial.retry_after);
}

fn reply(host: &impl Host, status: u32, body: &serde_json::Value, retry_after: Option<Span>) {
    let seconds = retry_after.map(|wait| wait.ceil_seconds().to_string());
    let mut headers: Vec<(&[u8], &[u8])> =
        vec![(b"content-type", b"application/json; charset=utf-8")];
    if let Some(seconds) = &seconds {
        headers.push((b"retry-after", seconds.as_bytes()));
    }
    let _ = host.respond(status, &headers, body.to_string().as_bytes());
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
