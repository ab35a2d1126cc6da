//! The process: workers with their VMs, requests on their way, timers and the clock. A test moves all of
//! it by hand; whatever happens is what the real host of that dialect does.

use std::cell::RefCell;
use std::rc::Rc;

use wasmtime::Error;

use crate::calls::{Call, Ending};
use crate::host::{Dialect, Here, Host, Level, LogLine, Violation};
use crate::stream::{Answer, Outcome, Phase, Request, Response, Sent, Stream};
use crate::vm::{Cost, Vm};

/// What a gateway is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which host.
    pub dialect: Dialect,
    /// Worker threads or processes; Envoy has one more VM on its main thread.
    pub workers: usize,
    /// The module.
    pub wasm: Rc<[u8]>,
    /// The plugin's configuration.
    pub configuration: Vec<u8>,
    /// What the filter sees of the environment.
    pub environment: Vec<(String, String)>,
    /// Envoy's clusters.
    pub clusters: Vec<String>,
    /// Those of them that have no hosts.
    pub empty_clusters: Vec<String>,
    /// WasmX: the size of the shared-data zone, if there is one.
    pub zone: Option<usize>,
    /// WasmX: whether there are metrics (Kong 3.9 on); all calls about them trap without.
    pub metrics: bool,
    /// How many metrics there is room for (WasmX: its slab).
    pub metric_room: usize,
    /// WasmX: whether answers have `:dispatch_status` (Kong 3.9 on).
    pub dispatch_status: bool,
    /// WasmX: larger bodies go into a file. Envoy: larger ones that are held are answered with 413.
    pub body_limit: usize,
    /// In how large pieces response bodies come.
    pub response_chunk: usize,
    /// A bug that a filter might have, brought in between the filter and the host: a test of tests.
    pub planted: Option<Planted>,
    /// The clock at the start, in milliseconds since the Unix epoch.
    pub start: u64,
    /// Of all chance.
    pub seed: u64,
}

impl Settings {
    /// Two workers, the clusters of the emulated Azure, and a zone of 1 MiB.
    #[must_use]
    pub fn new(dialect: Dialect, wasm: Rc<[u8]>, configuration: &str) -> Self {
        let clusters = ["key_vault", "azure_identity", "managed_identity"];
        Self {
            dialect,
            workers: 2,
            wasm,
            configuration: configuration.as_bytes().to_vec(),
            environment: Vec::new(),
            clusters: clusters.map(str::to_owned).to_vec(),
            empty_clusters: Vec::new(),
            zone: Some(1 << 20),
            dispatch_status: true,
            metrics: true,
            metric_room: usize::MAX,
            body_limit: match dialect {
                Dialect::Envoy => 1 << 20,
                Dialect::Wasmx => 16 << 10,
            },
            response_chunk: usize::MAX,
            planted: None,
            start: 1_750_000_000_000,
            seed: 1,
        }
    }
}

/// A filter's bug. Each takes effect now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A request that could go on is not resumed, or its own call is forgotten.
    Hang,
    /// A header's new value is written to the log.
    Leak,
    /// A callback panics.
    Panic,
    /// A header gets the value that it had two values ago.
    Stale,
    /// A reference is resolved with another secret's value.
    Mixed,
}

/// A request in a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    /// The worker that has it.
    pub worker: usize,
    /// Its context.
    pub context: u32,
}

struct Worker {
    vm: Option<Vm>,
    root: u32,
    next_context: u32,
    /// Envoy: the VM is dead until the next request.
    fuel_before: u64,
}

type Upstream = Box<dyn FnMut(&Sent) -> Response>;

/// A running gateway.
pub struct Gateway {
    host: Rc<RefCell<Host>>,
    workers: Vec<Worker>,
    upstream: Upstream,
    refused: bool,
    fuel: u64,
}

/// Something that is due.
enum Due {
    Tick(usize, usize),
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
            upstream: Box::new(|_| Response::new(200, &[("content-type", "text/plain")], b"ok")),
            refused: false,
            fuel: 0,
        };
        for worker in 0..vms {
            let root = match gateway.dialect() {
                Dialect::Envoy => 1,
                // A hash of the filter's name.
                Dialect::Wasmx => 1_300_421_668,
            };
            gateway.workers.push(Worker {
                vm: None,
                root,
                next_context: 2,
                fuel_before: 0,
            });
            gateway.make_vm(worker);
        }
        gateway
    }

    /// What the upstream answers from now on.
    pub fn answer_upstream(&mut self, upstream: impl FnMut(&Sent) -> Response + 'static) {
        self.upstream = Box::new(upstream);
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

    /// How many entries of shared data went for lack of room.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.host.borrow().shared.evictions()
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
        let host = self.host.borrow();
        let stream = host.streams.get(&(id.worker, id.context));
        stream.map_or(Outcome::Gone, Stream::outcome)
    }

    /// What the upstream got of this request, if it got it.
    #[must_use]
    pub fn sent(&self, id: StreamId) -> Option<Sent> {
        let host = self.host.borrow();
        host.streams.get(&(id.worker, id.context))?.sent.clone()
    }

    /// The client's answer, if there is one.
    #[must_use]
    pub fn answered(&self, id: StreamId) -> Option<Answer> {
        match self.outcome(id) {
            Outcome::Answered(answer) => Some(answer),
            _ => None,
        }
    }

    /// Forgets requests that are over, so that long simulations stay small.
    pub fn forget_finished(&mut self) {
        let mut host = self.host.borrow_mut();
        host.streams
            .retain(|_, s| s.phase != Phase::Done || s.calls > 0);
    }

    // VMs.

    fn make_vm(&mut self, worker: usize) {
        let wasm = Rc::clone(&self.host.borrow().settings.wasm);
        self.workers[worker].fuel_before = 0;
        match Vm::new(&wasm, Rc::clone(&self.host)) {
            Ok(vm) => self.workers[worker].vm = Some(vm),
            Err(error) => {
                self.host
                    .borrow_mut()
                    .violation("instantiate", format!("{error:#}"));
                return;
            }
        }
        let root = self.workers[worker].root;
        let size = self.host.borrow().settings.configuration.len() as u32;
        self.host.borrow_mut().tick_set.remove(&worker);
        let _ = self.callback(worker, root, "proxy_on_context_create", &[root, 0]);
        let _ = self.callback(worker, root, "proxy_on_vm_start", &[root, 0]);
        let configured = self.callback(worker, root, "proxy_on_configure", &[root, size]);
        if !matches!(configured, Ok(Some(1))) {
            self.refused = true;
        }
    }

    /// A worker with an empty VM, as after a crash or a restart. Its requests are lost; so are the answers
    /// to its calls.
    pub fn restart(&mut self, worker: usize) {
        {
            let mut host = self.host.borrow_mut();
            for ((_, _), stream) in host.streams.iter_mut().filter(|((w, _), _)| *w == worker) {
                stream.gone |= stream.answer.is_none();
                stream.phase = Phase::Done;
                stream.calls = 0;
            }
            host.calls.retain(|call| call.worker != worker);
            host.ticks[worker].clear();
        }
        self.make_vm(worker);
    }

    /// The filter is taken out of this worker in order, as after a change of Envoy's configuration.
    pub fn remove(&mut self, worker: usize) {
        let root = self.workers[worker].root;
        self.delete(worker, root);
        self.workers[worker].vm = None;
        self.host.borrow_mut().ticks[worker].clear();
    }

    /// Calls into a VM. An error is a trap, which is on record already.
    fn callback(
        &mut self,
        worker: usize,
        context: u32,
        name: &'static str,
        arguments: &[u32],
    ) -> Result<Option<u32>, Error> {
        let root = self.workers[worker].root;
        {
            let mut host = self.host.borrow_mut();
            let shown = host.here.shown.take();
            host.here = Here {
                worker,
                root,
                callback: name,
                context,
                effective: context,
                shown,
            };
        }
        let place = &mut self.workers[worker];
        let Some(vm) = place.vm.as_mut() else {
            return Err(Error::msg("the VM is dead"));
        };
        let result = vm.call(name, arguments);
        let fuel = vm.fuel();
        self.fuel += fuel - place.fuel_before;
        place.fuel_before = fuel;
        if let Err(error) = &result {
            let text = format!("{error:#}");
            let mut host = self.host.borrow_mut();
            let known = host
                .violations
                .last()
                .is_some_and(|v| text.contains(&v.what) || v.what.contains(&text));
            if !known {
                host.violation(name, format!("trap: {text}"));
            }
        }
        result
    }

    fn has(&mut self, worker: usize, export: &str) -> bool {
        self.workers[worker]
            .vm
            .as_mut()
            .is_some_and(|vm| vm.has(export))
    }

    /// The VM is of no use any more. Envoy makes a new one for the next request (FAIL_RELOAD), and all
    /// requests in the old one get 503. WasmX makes one at once, in which `on_configure` runs again.
    fn trapped(&mut self, worker: usize) {
        self.workers[worker].vm = None;
        let envoy = self.dialect() == Dialect::Envoy;
        let waiting: Vec<u32> = {
            let host = self.host.borrow();
            let open = host
                .streams
                .iter()
                .filter(|((w, _), s)| *w == worker && s.phase != Phase::Done);
            open.map(|((_, context), _)| *context).collect()
        };
        if envoy {
            self.host.borrow_mut().ticks[worker].clear();
            self.host
                .borrow_mut()
                .calls
                .retain(|call| call.worker != worker);
            for context in waiting {
                self.finish(
                    worker,
                    context,
                    Answer {
                        status: 503,
                        ..Answer::default()
                    },
                );
            }
        } else {
            // The old timers stay: the avalanche of wasmx.md 0.9.
            self.make_vm(worker);
            for context in waiting {
                let fails_open = self.with_stream(worker, context, |s| s.paused && s.calls == 0);
                if fails_open == Some(true) {
                    self.host
                        .borrow_mut()
                        .violation("trap", "the request goes on unfiltered");
                    self.with_stream(worker, context, |s| s.paused = false);
                    self.go_on(worker, context);
                }
            }
        }
    }

    fn with_stream<R>(
        &self,
        worker: usize,
        context: u32,
        act: impl FnOnce(&mut Stream) -> R,
    ) -> Option<R> {
        self.host
            .borrow_mut()
            .streams
            .get_mut(&(worker, context))
            .map(act)
    }

    // Requests.

    /// A client sends a request to this worker.
    pub fn request(&mut self, worker: usize, request: Request) -> StreamId {
        if self.workers[worker].vm.is_none() {
            self.make_vm(worker);
        }
        let context = self.workers[worker].next_context;
        self.workers[worker].next_context += 1;
        let envoy = self.dialect() == Dialect::Envoy;
        let stream = Stream::new(request, envoy);
        let (count, has_body) = (stream.headers.len() as u32, !stream.coming.is_empty());
        self.host
            .borrow_mut()
            .streams
            .insert((worker, context), stream);
        let root = self.workers[worker].root;
        let id = StreamId { worker, context };
        if self
            .callback(worker, context, "proxy_on_context_create", &[context, root])
            .is_err()
        {
            self.trapped(worker);
            return id;
        }
        // WasmX does not know yet whether there is a body.
        let end = u32::from(envoy && !has_body);
        match self.callback(
            worker,
            context,
            "proxy_on_request_headers",
            &[context, count, end],
        ) {
            Ok(flow) => self.returned(worker, context, flow.unwrap_or(0)),
            Err(_) => {
                let status = if envoy { 503 } else { 500 };
                self.finish(
                    worker,
                    context,
                    Answer {
                        status,
                        ..Answer::default()
                    },
                );
                self.trapped(worker);
            }
        }
        self.settle();
        id
    }

    /// After a callback about this stream: 0 lets it go on, 1 holds it.
    fn returned(&mut self, worker: usize, context: u32, flow: u32) {
        let envoy = self.dialect() == Dialect::Envoy;
        let held = flow != 0;
        let state = self.with_stream(worker, context, |stream| {
            stream.paused = held;
            (stream.local.is_some(), stream.calls)
        });
        let Some((local, calls)) = state else {
            return;
        };
        if !envoy && !local && held && calls == 0 {
            self.host.borrow_mut().violation(
                "Pause",
                "a request that waits without a call of its own hangs",
            );
        }
        if !envoy && !local && !held && calls > 0 {
            self.host.borrow_mut().violation(
                "Continue",
                "the worker crashes: a call of this request is under way",
            );
        }
        self.go_on(worker, context);
    }

    /// What follows from what callbacks did: resumes and local responses of all streams of all workers.
    fn settle(&mut self) {
        loop {
            let ready = {
                let host = self.host.borrow();
                let ready = host.streams.iter().find(|(_, s)| {
                    s.phase != Phase::Done && s.paused && (s.resume || s.local.is_some())
                });
                ready.map(|(key, _)| *key)
            };
            let Some((worker, context)) = ready else {
                return;
            };
            self.go_on(worker, context);
        }
    }

    /// Moves a stream on as far as it goes.
    fn go_on(&mut self, worker: usize, context: u32) {
        loop {
            let Some((phase, waits, local)) = self.with_stream(worker, context, |stream| {
                if std::mem::take(&mut stream.resume) {
                    stream.paused = false;
                }
                (stream.phase, stream.paused, stream.local.take())
            }) else {
                return;
            };
            if phase == Phase::Done {
                return;
            }
            if let Some(mut local) = local {
                self.keep_length(worker, context, phase, &mut local);
                return self.respond(worker, context, local);
            }
            if waits {
                return;
            }
            match phase {
                Phase::RequestHeaders => {
                    let envoy = self.dialect() == Dialect::Envoy;
                    self.with_stream(worker, context, |stream| {
                        stream.headers_sent = envoy;
                        stream.phase = Phase::RequestBody;
                    });
                }
                Phase::RequestBody => {
                    if !self.request_body(worker, context) {
                        return;
                    }
                }
                Phase::ResponseHeaders => {
                    self.with_stream(worker, context, |stream| {
                        stream.phase = Phase::ResponseBody;
                        let whole = std::mem::take(&mut stream.response.body);
                        stream.coming = vec![whole];
                        stream.buffer.clear();
                        stream.body_sent.clear();
                    });
                    self.split_response(worker, context);
                }
                Phase::ResponseBody => {
                    if !self.response_body(worker, context) {
                        return;
                    }
                }
                Phase::Done => return,
            }
        }
    }

    /// WasmX keeps the upstream's content-length when a response is replaced (wasmx.md, section 11): the
    /// client waits for what does not come.
    fn keep_length(&self, worker: usize, context: u32, phase: Phase, local: &mut Answer) {
        if self.dialect() != Dialect::Wasmx || phase != Phase::ResponseHeaders {
            return;
        }
        let kept = self.with_stream(worker, context, |stream| {
            stream
                .response_headers
                .get("content-length")
                .map(<[u8]>::to_vec)
        });
        if let Some(length) = kept.flatten() {
            local.headers.set("content-length", &length);
        }
    }

    /// One step of the body's way: whether the stream can be moved on.
    fn request_body(&mut self, worker: usize, context: u32) -> bool {
        let envoy = self.dialect() == Dialect::Envoy;
        let listens = self.has(worker, "proxy_on_request_body");
        let limit = self.host.borrow().settings.body_limit;
        // What was held and let go.
        let next = self.with_stream(worker, context, |stream| {
            stream.body_sent.append(&mut stream.buffer);
            if stream.coming.is_empty() {
                return None;
            }
            let chunk = if envoy && listens {
                stream.coming.remove(0)
            } else {
                stream.coming.drain(..).flatten().collect()
            };
            Some((chunk, stream.coming.is_empty()))
        });
        let Some((chunk, end)) = next.flatten() else {
            self.send_upstream(worker, context);
            return true;
        };
        if !listens {
            self.with_stream(worker, context, |stream| stream.body_sent.extend(chunk));
            return true;
        }
        self.with_stream(worker, context, |stream| {
            stream.body_in_file = !envoy && chunk.len() > limit;
            stream.buffer = chunk;
        });
        self.body_callback(worker, context, "proxy_on_request_body", end, limit)
    }

    /// Shows what is held, chunk after chunk, until the filter lets it go. Whether the stream can be moved
    /// on.
    fn body_callback(
        &mut self,
        worker: usize,
        context: u32,
        name: &'static str,
        mut end: bool,
        limit: usize,
    ) -> bool {
        let envoy = self.dialect() == Dialect::Envoy;
        loop {
            let size = self.with_stream(worker, context, |stream| stream.buffer.len());
            let size = size.unwrap_or(0) as u32;
            let flow = match self.callback(worker, context, name, &[context, size, u32::from(end)])
            {
                Ok(flow) => flow.unwrap_or(0),
                Err(_) => {
                    let status = if envoy { 503 } else { 500 };
                    self.finish(
                        worker,
                        context,
                        Answer {
                            status,
                            ..Answer::default()
                        },
                    );
                    self.trapped(worker);
                    return false;
                }
            };
            let local = self.with_stream(worker, context, |stream| stream.local.is_some());
            if flow == 0 || local == Some(true) {
                return true;
            }
            if !end {
                // Held: the next chunk is put behind it.
                let (held, last) = self
                    .with_stream(worker, context, |stream| {
                        let chunk = stream.coming.remove(0);
                        stream.buffer.extend(chunk);
                        (stream.buffer.len(), stream.coming.is_empty())
                    })
                    .unwrap_or((0, true));
                if held > limit {
                    self.finish(
                        worker,
                        context,
                        Answer {
                            status: 413,
                            ..Answer::default()
                        },
                    );
                    return false;
                }
                end = last;
                continue;
            }
            self.returned_from_body(worker, context, name);
            let waits = self.with_stream(worker, context, |stream| stream.paused);
            return waits != Some(true);
        }
    }

    fn returned_from_body(&mut self, worker: usize, context: u32, name: &'static str) {
        let envoy = self.dialect() == Dialect::Envoy;
        let calls = self.with_stream(worker, context, |stream| {
            // A resume that was asked for inside the callback itself counts.
            stream.paused = !std::mem::take(&mut stream.resume);
            stream.calls
        });
        if envoy {
            return;
        }
        if name == "proxy_on_response_body" {
            // Host buffering: it comes again, or goes on.
            self.with_stream(worker, context, |stream| stream.paused = false);
        } else if calls == Some(0) {
            self.host.borrow_mut().violation(
                "Pause",
                "a request that waits without a call of its own hangs",
            );
        }
    }

    /// What goes over the wire, with a look at its length.
    fn send_upstream(&mut self, worker: usize, context: u32) {
        let envoy = self.dialect() == Dialect::Envoy;
        let time = self.now();
        let sent = self.with_stream(worker, context, |stream| {
            let mut headers = stream.wire.clone();
            if !envoy {
                if stream.buffer_replaced {
                    headers.set(
                        "content-length",
                        stream.body_sent.len().to_string().as_bytes(),
                    );
                }
                if let Some(uri) = &stream.upstream_uri {
                    headers.set(":path", uri);
                }
            }
            Sent {
                headers,
                body: stream.body_sent.clone(),
                time,
            }
        });
        let Some(sent) = sent else {
            return;
        };
        let announced = sent
            .headers
            .get("content-length")
            .map(|v| String::from_utf8_lossy(v).into_owned());
        if announced
            .as_ref()
            .is_some_and(|n| *n != sent.body.len().to_string())
        {
            let what = format!(
                "{} bytes behind content-length {}: the rest is read as the next request, or the upstream waits for ever",
                sent.body.len(),
                announced.unwrap_or_default()
            );
            self.host.borrow_mut().violation("request", what);
        }
        let response = (self.upstream)(&sent);
        self.with_stream(worker, context, |stream| stream.sent = Some(sent));
        let answer = Answer {
            status: response.status,
            headers: response.headers,
            body: response.body,
            local: false,
        };
        self.respond(worker, context, answer);
    }

    /// A response, from the upstream or made here, goes through the filter's response callbacks.
    fn respond(&mut self, worker: usize, context: u32, answer: Answer) {
        let envoy = self.dialect() == Dialect::Envoy;
        let count = self.with_stream(worker, context, |stream| {
            let mut headers = crate::headers::Headers::default();
            headers.push(":status", answer.status.to_string().as_bytes());
            for (name, value) in answer.headers.iter() {
                headers.push(name, value);
            }
            stream.response_headers = if envoy { headers.lower_case() } else { headers };
            stream.response = Response {
                status: answer.status,
                headers: answer.headers,
                body: answer.body,
            };
            stream.answer = None;
            stream.phase = Phase::ResponseHeaders;
            stream.paused = false;
            stream.buffer_replaced = false;
            stream.made_here = answer.local;
            stream.response_headers.len() as u32
        });
        if self.has(worker, "proxy_on_response_headers") {
            match self.callback(
                worker,
                context,
                "proxy_on_response_headers",
                &[context, count.unwrap_or(0), 0],
            ) {
                // WasmX ignores a pause here.
                Ok(flow) => {
                    let held = envoy && flow == Some(1);
                    self.with_stream(worker, context, |stream| {
                        stream.paused = held && !std::mem::take(&mut stream.resume);
                    });
                }
                Err(_) => {
                    self.trapped(worker);
                }
            }
        }
        self.go_on(worker, context);
    }

    fn split_response(&mut self, worker: usize, context: u32) {
        let chunk = self.host.borrow().settings.response_chunk.max(1);
        self.with_stream(worker, context, |stream| {
            let whole: Vec<u8> = stream.coming.drain(..).flatten().collect();
            stream.coming = whole.chunks(chunk).map(<[u8]>::to_vec).collect();
        });
    }

    fn response_body(&mut self, worker: usize, context: u32) -> bool {
        let listens = self.has(worker, "proxy_on_response_body");
        let next = self.with_stream(worker, context, |stream| {
            stream.body_sent.append(&mut stream.buffer);
            if stream.coming.is_empty() {
                return None;
            }
            let chunk = stream.coming.remove(0);
            Some((chunk, stream.coming.is_empty()))
        });
        let Some((chunk, end)) = next.flatten() else {
            let answer = self.with_stream(worker, context, |stream| {
                let status = stream.response_headers.text(":status").parse();
                let mut headers = stream.response_headers.clone();
                headers.remove(":status");
                Answer {
                    status: status.unwrap_or(stream.response.status),
                    headers,
                    body: std::mem::take(&mut stream.body_sent),
                    local: stream.made_here,
                }
            });
            if let Some(answer) = answer {
                self.check_response_length(&answer);
                self.finish(worker, context, answer);
            }
            return false;
        };
        if !listens {
            self.with_stream(worker, context, |stream| stream.body_sent.extend(chunk));
            return true;
        }
        self.with_stream(worker, context, |stream| stream.buffer = chunk);
        let limit = self.host.borrow().settings.body_limit;
        self.body_callback(worker, context, "proxy_on_response_body", end, limit)
    }

    fn check_response_length(&mut self, answer: &Answer) {
        let announced = answer.headers.get("content-length");
        let announced = announced.map(|v| String::from_utf8_lossy(v).into_owned());
        if announced.is_some_and(|n| n != answer.body.len().to_string()) {
            self.host
                .borrow_mut()
                .violation("response", "a body of another length than content-length");
        }
    }

    /// The client has its answer; the context goes.
    fn finish(&mut self, worker: usize, context: u32, answer: Answer) {
        self.with_stream(worker, context, |stream| {
            stream.answer = Some(answer);
            stream.phase = Phase::Done;
            stream.paused = false;
        });
        self.delete(worker, context);
    }

    fn delete(&mut self, worker: usize, context: u32) {
        for name in ["proxy_on_done", "proxy_on_log", "proxy_on_delete"] {
            if self.has(worker, name) && self.callback(worker, context, name, &[context]).is_err() {
                self.trapped(worker);
            }
        }
    }

    /// The client closes its connection. Envoy deletes the context at once; WasmX when the last call of
    /// the request has ended.
    pub fn client_leaves(&mut self, id: StreamId) {
        let StreamId { worker, context } = id;
        let state = self.with_stream(worker, context, |stream| {
            let open = stream.phase != Phase::Done;
            stream.gone |= open;
            (open, stream.calls)
        });
        let Some((true, calls)) = state else {
            return;
        };
        if self.dialect() == Dialect::Envoy || calls == 0 {
            self.with_stream(worker, context, |stream| stream.phase = Phase::Done);
            self.delete(worker, context);
        }
        self.settle();
    }

    // Calls out.

    /// Ends a call in this way. Whether there was one with this number.
    pub fn end_call(&mut self, token: u32, ending: Ending) -> bool {
        let (call, shown) = {
            let mut host = self.host.borrow_mut();
            let Some(at) = host.calls.iter().position(|call| call.token == token) else {
                return false;
            };
            let (dialect, says) = (host.settings.dialect, host.settings.dispatch_status);
            (host.calls.remove(at), ending.shown(dialect, says))
        };
        let (headers, announced) = (shown.headers.len() as u32, shown.announced as u32);
        let worker = call.worker;
        self.host.borrow_mut().here.shown = Some(shown);
        if let Some(own) = call.stream {
            self.with_stream(worker, own, |stream| {
                stream.calls = stream.calls.saturating_sub(1)
            });
        }
        let arguments = [call.context, token, headers, announced, 0];
        let result = self.callback(
            worker,
            call.context,
            "proxy_on_http_call_response",
            &arguments,
        );
        self.host.borrow_mut().here.shown = None;
        if result.is_err() {
            self.trapped(worker);
        }
        if let Some(own) = call.stream {
            self.call_of_request_ended(worker, own);
        }
        self.settle();
        true
    }

    /// WasmX: the request goes on by itself after its last call, or ends if its client is gone.
    fn call_of_request_ended(&mut self, worker: usize, context: u32) {
        let state = self.with_stream(worker, context, |stream| {
            (stream.calls, stream.gone, stream.phase)
        });
        match state {
            Some((0, true, phase)) if phase != Phase::Done => {
                self.with_stream(worker, context, |stream| stream.phase = Phase::Done);
                self.delete(worker, context);
            }
            Some((0, false, phase)) if phase != Phase::Done => {
                self.with_stream(worker, context, |stream| stream.paused = false);
                self.go_on(worker, context);
            }
            _ => {}
        }
    }

    // Time.

    /// Lets this much time pass: ticks and timeouts come when they are due.
    pub fn advance(&mut self, milliseconds: u64) {
        let end = self.now() + milliseconds;
        while let Some((at, due)) = self.next_due().filter(|(at, _)| *at <= end) {
            let now = self.now().max(at);
            self.host.borrow_mut().now = now;
            match due {
                Due::Tick(worker, timer) => self.tick(worker, timer),
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
        let ticks = host.ticks.iter().enumerate().flat_map(|(worker, timers)| {
            let timers = timers.iter().enumerate();
            timers.map(move |(n, timer)| (timer.next, Due::Tick(worker, n)))
        });
        let timeouts = host
            .calls
            .iter()
            .filter_map(|call| Some((call.deadline?, Due::Timeout(call.token))));
        ticks.chain(timeouts).min_by_key(|(at, _)| *at)
    }

    fn tick(&mut self, worker: usize, timer: usize) {
        {
            let mut host = self.host.borrow_mut();
            let now = host.now;
            if let Some(tick) = host.ticks[worker].get_mut(timer) {
                tick.next = now + tick.period.max(1);
            }
        }
        let root = self.workers[worker].root;
        if self.workers[worker].vm.is_some()
            && self
                .callback(worker, root, "proxy_on_tick", &[root])
                .is_err()
        {
            self.trapped(worker);
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
        for tick in host.ticks.iter_mut().flatten() {
            tick.next = moved(tick.next);
        }
        for call in &mut host.calls {
            call.deadline = call.deadline.map(moved);
        }
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
