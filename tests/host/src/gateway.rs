//! The process: workers with their VMs, requests on their way, timers and the clock. A test moves all of
//! it by hand; whatever happens is what the real host of that dialect does.
//!
//! `vms` starts, reloads and loses VMs; `envoy` and `wasmx` carry messages through the filters, each by
//! its host's rules; `wire` is what upstream and client see of them.

use std::cell::RefCell;
use std::rc::Rc;

use crate::calls::{Call, Ending};
use crate::host::{Dialect, Host, Level, LogLine, Violation};
use crate::settings::Settings;
use crate::stream::{Answer, Hop, Outcome, Part, Request, Response, Sent, Stream};
use crate::vm::{Cost, Vm};

mod calls;
mod envoy;
mod vms;
mod wasmx;
mod wire;

/// A request in a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    /// The worker that has it.
    pub worker: usize,
    /// The context that its first filter had first.
    pub context: u32,
}

struct Worker {
    vm: Option<Vm>,
    /// Of the chain's filters, in their order.
    roots: Vec<u32>,
    /// Envoy: roots of an older configuration, which still have requests.
    draining: Vec<u32>,
    /// WasmX: the process that a reload replaced; it ends with its last request.
    retiring: bool,
    next_context: u32,
    fuel_before: u64,
}

type Upstream = Box<dyn FnMut(&Sent) -> Response>;
type Early = Box<dyn FnMut(&Sent) -> Option<Response>>;

/// A running gateway.
pub struct Gateway {
    host: Rc<RefCell<Host>>,
    workers: Vec<Worker>,
    /// The workers that take requests.
    live: Vec<usize>,
    upstream: Upstream,
    early: Option<Early>,
    refused: bool,
    fuel: u64,
}

/// Something that is due.
enum Due {
    Tick(usize),
    Timeout(u32),
}

impl Gateway {
    /// Starts all VMs and configures them.
    #[must_use]
    pub fn start(settings: Settings) -> Self {
        let vms = settings.workers + usize::from(settings.dialect == Dialect::Envoy);
        let host = Rc::new(RefCell::new(Host::new(settings)));
        let mut gateway = Self {
            host,
            workers: Vec::new(),
            live: (0..vms).collect(),
            upstream: Box::new(|_| Response::new(200, &[("content-type", "text/plain")], b"ok")),
            early: None,
            refused: false,
            fuel: 0,
        };
        for worker in 0..vms {
            gateway.workers.push(Worker::default());
            gateway.make_vm(worker, true);
        }
        gateway
    }

    /// What the upstream answers from now on to whole requests.
    pub fn answer_upstream(&mut self, upstream: impl FnMut(&Sent) -> Response + 'static) {
        self.upstream = Box::new(upstream);
    }

    /// Envoy: what the upstream answers to a request's headers already, before it has the body; `None`
    /// where it waits for the end.
    pub fn answer_early(&mut self, early: impl FnMut(&Sent) -> Option<Response> + 'static) {
        self.early = Some(Box::new(early));
    }

    /// Whether a VM refused its configuration: Envoy rejects the listener; WasmX loses the worker.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        self.refused
    }

    /// The dialect.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.host.borrow().settings.dialect
    }

    /// The time in milliseconds since the Unix epoch.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.host.borrow().now
    }

    /// Everything that was logged.
    #[must_use]
    pub fn log(&self) -> Vec<LogLine> {
        self.host.borrow().log.clone()
    }

    /// Everything for which a real host would have punished the filter.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.host.borrow().violations.clone()
    }

    /// Calls that wait for their end, the oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.host.borrow().calls.clone()
    }

    /// The metrics by name.
    #[must_use]
    pub fn metrics(&self) -> Vec<(String, u64)> {
        let host = self.host.borrow();
        host.metrics
            .iter()
            .map(|(_, name, value)| (name.clone(), *value))
            .collect()
    }

    /// What a histogram was given.
    #[must_use]
    pub fn recorded(&self, name: &str) -> Vec<u64> {
        let host = self.host.borrow();
        let at = host.metrics.iter().position(|(_, n, _)| n == name);
        let ours = host
            .recorded
            .iter()
            .filter(|(id, _)| Some(*id as usize) == at);
        ours.map(|(_, value)| *value).collect()
    }

    /// All keys and values of shared data.
    #[must_use]
    pub fn shared_data(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.host.borrow().shared.entries()
    }

    /// Linear memory of all VMs, in bytes.
    pub fn memory(&mut self) -> usize {
        let vms = self
            .workers
            .iter_mut()
            .filter_map(|worker| worker.vm.as_mut());
        vms.map(Vm::memory).sum()
    }

    /// What was spent since the last call of this.
    pub fn take_cost(&mut self) -> Cost {
        Cost {
            fuel: std::mem::take(&mut self.fuel),
            host_calls: std::mem::take(&mut self.host.borrow_mut().counts),
        }
    }

    /// Where a request stands.
    #[must_use]
    pub fn outcome(&self, id: StreamId) -> Outcome {
        self.with_stream(id, |stream| stream.outcome())
            .unwrap_or(Outcome::Gone)
    }

    /// What the upstream got of this request so far, if it got any of it.
    #[must_use]
    pub fn sent_so_far(&self, id: StreamId) -> Option<Sent> {
        self.with_stream(id, |stream| stream.sent.clone()).flatten()
    }

    /// What the upstream got of this request, if it got all of it.
    #[must_use]
    pub fn sent(&self, id: StreamId) -> Option<Sent> {
        self.sent_so_far(id).filter(|sent| sent.complete)
    }

    /// The client's whole answer, if there is one.
    #[must_use]
    pub fn answered(&self, id: StreamId) -> Option<Answer> {
        match self.outcome(id) {
            Outcome::Answered(answer) => Some(answer),
            _ => None,
        }
    }

    /// What the client has so far, once it has the headers.
    #[must_use]
    pub fn answer_so_far(&self, id: StreamId) -> Option<Answer> {
        self.with_stream(id, |stream| stream.client.clone())
            .flatten()
    }

    /// Forgets requests that are over, so that long simulations stay small.
    pub fn forget_finished(&mut self) {
        let mut host = self.host.borrow_mut();
        host.streams.retain(|_, s| !s.over || s.calls() > 0);
    }

    fn with_stream<R>(&self, id: StreamId, act: impl FnOnce(&mut Stream) -> R) -> Option<R> {
        let mut host = self.host.borrow_mut();
        host.streams.get_mut(&(id.worker, id.context)).map(act)
    }

    fn is_envoy(&self) -> bool {
        self.dialect() == Dialect::Envoy
    }

    // Requests.

    /// A client sends a request to this worker.
    pub fn request(&mut self, worker: usize, request: Request) -> StreamId {
        let worker = self.live[worker];
        if self.workers[worker].vm.is_none() {
            self.make_vm(worker, true);
        }
        let mut stream = Stream::new(request, self.is_envoy());
        stream.hops = self.new_hops(worker);
        let context = stream.hops.first().map_or(0, |hop| hop.context);
        let id = StreamId { worker, context };
        {
            let mut host = self.host.borrow_mut();
            host.requests += 1;
            stream.number = host.requests;
            // A connection of its own has a number that no test uses.
            let own = u64::MAX - host.requests;
            stream.connection = stream.request.connection.unwrap_or(own);
            let nth = host.connections.entry(stream.connection).or_default();
            *nth += 1;
            stream.nth = *nth;
            host.streams.insert((worker, context), stream);
        }
        self.own(id);
        if self.is_envoy() {
            self.begin_in_envoy(id);
        }
        self.settle();
        id
    }

    fn new_hops(&mut self, worker: usize) -> Vec<Hop> {
        let place = &mut self.workers[worker];
        let mut hops = Vec::new();
        for &root in &place.roots {
            hops.push(Hop {
                context: place.next_context,
                root,
                ..Hop::default()
            });
            place.next_context += 1;
        }
        hops
    }

    /// Makes it known whose contexts these are.
    fn own(&mut self, id: StreamId) {
        let mut host = self.host.borrow_mut();
        let key = (id.worker, id.context);
        let Some(stream) = host.streams.get(&key) else {
            return;
        };
        let contexts: Vec<u32> = stream.hops.iter().map(|hop| hop.context).collect();
        for (n, context) in contexts.into_iter().enumerate() {
            host.owners.insert((id.worker, context), (id.context, n));
        }
    }

    /// The client sends more of a request that has `more`.
    pub fn client_sends(&mut self, id: StreamId, bytes: &[u8]) {
        let envoy = self.is_envoy();
        self.with_stream(id, |stream| {
            if stream.over || !stream.request.more {
                return;
            }
            let bytes = bytes.to_vec();
            if envoy {
                stream.received += bytes.len();
                let input = &mut stream.hops[0].request.input;
                input.push_back(Part::Data { bytes, end: false });
            } else if let (true, Some(sent)) = (stream.response_begun, &mut stream.sent) {
                sent.body.extend(bytes);
            } else {
                stream.body.extend(bytes);
            }
        });
        self.settle();
    }

    /// The client ends a request that has `more`, with these trailers.
    pub fn client_ends(&mut self, id: StreamId, trailers: &[(&str, &str)]) {
        let envoy = self.is_envoy();
        self.with_stream(id, |stream| {
            if stream.over || !std::mem::take(&mut stream.request.more) || !envoy {
                return;
            }
            stream.trailers = crate::headers::Headers::of(trailers);
            let part = if trailers.is_empty() {
                Part::Data {
                    bytes: Vec::new(),
                    end: true,
                }
            } else {
                Part::Trailers
            };
            stream.hops[0].request.input.push_back(part);
        });
        self.settle();
    }

    /// The client closes its connection. Envoy deletes the contexts at once; WasmX when the last call of
    /// the request has ended.
    pub fn client_leaves(&mut self, id: StreamId) {
        let state = self.with_stream(id, |stream| {
            let open = !stream.over;
            stream.gone |= open;
            (open, stream.calls())
        });
        let Some((true, calls)) = state else {
            return;
        };
        if self.is_envoy() || calls == 0 {
            self.end_stream(id);
        }
        self.settle();
    }

    /// What follows from what callbacks did: resumes and local responses of all streams of all workers.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for id in self.open_streams(|_, _| true) {
                moved |= match self.dialect() {
                    Dialect::Envoy => self.pump(id),
                    Dialect::Wasmx => self.run(id),
                };
            }
            if !moved {
                break;
            }
        }
        self.end_retired();
    }

    // Time.

    /// Lets this much time pass: ticks and timeouts come when they are due.
    pub fn advance(&mut self, milliseconds: u64) {
        let end = self.now() + milliseconds;
        while let Some((at, due)) = self.next_due().filter(|(at, _)| *at <= end) {
            let now = self.now().max(at);
            self.host.borrow_mut().now = now;
            match due {
                Due::Tick(timer) => self.tick(timer),
                Due::Timeout(token) => {
                    self.end_call(token, Ending::Timeout);
                }
            }
        }
        let now = self.now().max(end);
        self.host.borrow_mut().now = now;
    }

    fn next_due(&self) -> Option<(u64, Due)> {
        let host = self.host.borrow();
        let ticks = host.ticks.iter().enumerate();
        let ticks = ticks.map(|(n, tick)| (tick.next, Due::Tick(n)));
        let timeouts = host
            .calls
            .iter()
            .filter_map(|call| Some((call.deadline?, Due::Timeout(call.token))));
        ticks.chain(timeouts).min_by_key(|(at, _)| *at)
    }

    fn tick(&mut self, timer: usize) {
        let (worker, root) = {
            let mut host = self.host.borrow_mut();
            let now = host.now;
            let tick = &mut host.ticks[timer];
            tick.next = now + tick.period.max(1);
            (tick.worker, tick.root)
        };
        if self.workers[worker].vm.is_some() {
            let ticked = self.callback(worker, root, "proxy_on_tick", &[root]);
            if ticked.is_err() {
                self.trapped(worker, None);
            }
        }
        self.settle();
    }

    /// Sets the clock, forwards or backwards, without anything happening in between.
    pub fn set_clock(&mut self, now: u64) {
        let mut host = self.host.borrow_mut();
        let before = host.now;
        host.now = now;
        // Timers run by a clock that nobody sets.
        let moved = |at: u64| (at + now).saturating_sub(before);
        for tick in &mut host.ticks {
            tick.next = moved(tick.next);
        }
        for call in &mut host.calls {
            call.deadline = call.deadline.map(moved);
        }
    }

    /// This worker's clock is wrong by so many milliseconds from now on.
    pub fn set_skew(&mut self, worker: usize, milliseconds: i64) {
        let worker = self.live[worker];
        self.host.borrow_mut().skew.insert(worker, milliseconds);
    }

    /// Shared data loses everything.
    pub fn clear_shared_data(&mut self) {
        self.host.borrow_mut().shared.clear();
    }

    /// Shared data loses one entry.
    pub fn evict(&mut self, pick: usize) {
        self.host.borrow_mut().shared.evict(pick);
    }

    /// Writes into the log as a host or another filter does.
    pub fn note(&mut self, text: &str) {
        let mut host = self.host.borrow_mut();
        let line = LogLine {
            time: host.now,
            worker: host.here.worker,
            level: Level::Info,
            text: text.to_owned(),
        };
        host.log.push(line);
    }
}
