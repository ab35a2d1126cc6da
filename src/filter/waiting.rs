//! The one machine that takes a message from its references to its end: evaluate its places, fetch what is
//! missing, wait, and then forward or refuse it. The same steps run in the callback that brought the
//! message and in the one that resumes it.

use zeroize::Zeroizing;

use super::audit::{self, Outcome};
use super::exchange::{Exchange, ResponseState, Stage, Waiting};
use super::host::{Buffer, Dialect, Half, Host};
use super::message;
use super::plugin::Plugin;
use super::reply;
use crate::config::OnError;
use crate::events::Line;
use crate::failure::Reason;
use crate::fetch::{Lane, Want};
use crate::message::render::{self, Context};
use crate::message::{Denial, Edit, Place, Verdict};
use crate::metrics::Series;

/// What the host is to do with a message after a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Send it on.
    Continue,
    /// Hold it until it is resumed or answered.
    Pause,
}

/// How far a message got.
enum Next {
    /// All is known: these changes, and on it goes.
    Forward(Vec<Edit>),
    /// It is answered from here.
    Refuse(Denial),
    /// Something is under way that will wake it.
    Wait,
}

impl<H: Host + Copy> Plugin<H> {
    /// Takes a message on in the callback that brought it. `waited`: what it needs was asked for earlier.
    pub(super) fn start(&mut self, id: u32, mut waiting: Waiting, waited: bool) -> Flow {
        let next = self.advance(id, &mut waiting, waited);
        let flow = match next {
            Next::Forward(edits) => {
                self.forward(id, &waiting, edits);
                Flow::Continue
            }
            Next::Refuse(denial) => self.refuse_message(id, &waiting, &denial),
            Next::Wait => self.park(id, waiting),
        };
        self.schedule_tick();
        flow
    }

    /// Evaluates the messages for which something has come, oldest first. On Envoy this is for the root
    /// context's callbacks only: making another request the effective one would misdirect what the current
    /// request's callback does next. On WasmX there is only the request whose callback this is: a reply to
    /// another one would go to this one's client. The others are woken by the answers to their own calls.
    pub(super) fn advance_woken(&mut self, current: Option<u32>) {
        if !self.is_envoy() {
            let woken = std::mem::take(&mut self.woken);
            if let Some(id) = current.filter(|id| woken.contains(id)) {
                self.advance_exchange(id);
            }
            return;
        }
        for _ in 0..self.config.limits.woken_at_once {
            let Some(id) = self.woken.pop_front() else {
                return;
            };
            self.advance_exchange(id);
        }
    }

    fn advance_exchange(&mut self, id: u32) {
        for half in [Half::Request, Half::Response] {
            let exchange = self.exchanges.get_mut(&id);
            let Some(waiting) = exchange.and_then(|e| e.waiting(half).take()) else {
                continue;
            };
            if self.is_envoy() && self.host.focus(id).is_err() {
                // The client left, and the host has not deleted the context yet.
                self.forget(id);
                continue;
            }
            self.resume(id, *waiting);
        }
    }

    /// Nothing that is under way wakes this half any more; the other one may still wait.
    fn stop_waiting(&mut self, id: u32) {
        let waits = |half| self.exchanges.get(&id).is_some_and(|e| e.is_waiting(half));
        if !waits(Half::Request) && !waits(Half::Response) {
            self.fetcher.forget(id);
        }
    }

    /// Takes a waiting message on, and resumes it when it is done.
    fn resume(&mut self, id: u32, mut waiting: Waiting) {
        let next = self.advance(id, &mut waiting, true);
        if !matches!(next, Next::Wait) {
            let waited = waiting.since.age(self.host.now());
            self.fetcher.metrics.delayed(waited);
        }
        match next {
            // WasmX takes a new body in the body's own callback only; the next request finds the value.
            Next::Forward(_) if !self.is_envoy() && waiting.stage == Stage::RequestBody => {
                let denial = Denial::new(Reason::NotReady, b"");
                self.refuse_message(id, &waiting, &denial);
            }
            Next::Forward(edits) => {
                self.forward(id, &waiting, edits);
                // WasmX resumes by itself when the last call is answered.
                if self.is_envoy() && self.finish_held_response(id, waiting.stage) {
                    self.resume_half(id, waiting.stage.half());
                }
            }
            Next::Refuse(denial) => {
                self.refuse_message(id, &waiting, &denial);
            }
            Next::Wait => {
                self.park(id, waiting);
            }
        }
    }

    fn resume_half(&mut self, id: u32, half: Half) {
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            let [request, response] = &mut exchange.resumed;
            match half {
                Half::Request => *request = true,
                Half::Response => *response = true,
            }
        }
        let _ = self.host.resume(half);
    }

    /// Has a message go on from the next tick (Envoy).
    pub(super) fn start_later(&mut self, id: u32, waiting: Waiting) -> Flow {
        let flow = self.park(id, waiting);
        if self
            .exchanges
            .get(&id)
            .is_some_and(|exchange| !exchange.refused)
        {
            self.woken.push_back(id);
        }
        self.schedule_tick();
        flow
    }

    /// Evaluates a message as often as needed until it is done or something is under way for it.
    fn advance(&mut self, id: u32, waiting: &mut Waiting, mut waited: bool) -> Next {
        loop {
            let wants = match self.evaluate(id, waiting, waited) {
                Verdict::Deny(denial) => return Next::Refuse(denial),
                // WasmX: a request that goes on while a call of its own is under way kills the worker.
                Verdict::Edit(_) if !self.is_envoy() && self.fetcher.is_waiting(id) => {
                    return Next::Wait;
                }
                Verdict::Edit(edits) => return Next::Forward(edits),
                Verdict::Wait(wants) => wants,
            };
            if waited && self.fetcher.is_waiting(id) {
                return Next::Wait;
            }
            if waiting.rounds >= self.config.limits.rounds {
                return Next::Refuse(Denial::new(Reason::Unavailable, b""));
            }
            waiting.rounds += 1;
            waited = true;
            self.fetch(id, &wants);
        }
    }

    /// Fetches what a message needs.
    pub(super) fn fetch(&mut self, id: u32, wants: &[Want]) {
        let lane = match self.host.dialect() {
            Dialect::Envoy => Lane::Worker,
            Dialect::WasmX => Lane::Request(id),
        };
        self.with_now(|fetcher, now| {
            for want in wants {
                fetcher.fetch(want, lane, id, now);
            }
        });
        self.carry_out();
    }

    /// What there is for a message now. WasmX cannot wait in a response, and the beginning of a response whose
    /// body is looked at is with the client already.
    fn evaluate(&mut self, id: u32, waiting: &Waiting, waited: bool) -> Verdict {
        let response = waiting.stage.half() == Half::Response;
        let on_error = match (waiting.stage, self.config.on_error) {
            (Stage::ResponseBody, OnError::Deny) => OnError::Remove,
            (_, on_error) => on_error,
        };
        let masks = self.config.redact && !response;
        let mut used = Vec::new();
        self.looked_up.clear();
        let body = self.body_of(id, waiting.stage);
        let mut context = Context {
            on_error,
            cache: &mut self.fetcher,
            limits: &self.config.limits,
            body: &body,
            since: waited.then_some(waiting.since),
            now: self.host.now(),
            patient: !(response && self.host.dialect() == Dialect::WasmX),
            refusable: waiting.stage != Stage::ResponseBody,
            looked_up: &mut self.looked_up,
            used: masks.then_some(&mut used),
        };
        let verdict = render::judge(waiting.places.iter(), &mut context);
        if !used.is_empty() && matches!(verdict, Verdict::Edit(_)) {
            self.exchanges.entry(id).or_default().used.append(&mut used);
        }
        if matches!(verdict, Verdict::Wait(_)) {
            self.looked_up.clear();
        }
        verdict
    }

    /// The body that the places of this stage refer to, as it came; of a response, masked.
    fn body_of(&self, id: u32, stage: Stage) -> Zeroizing<Vec<u8>> {
        let buffer = match stage {
            Stage::RequestHeaders | Stage::ResponseHeaders => return Zeroizing::default(),
            Stage::RequestBody | Stage::WholeRequest(_) => Buffer::RequestBody,
            Stage::ResponseBody => Buffer::ResponseBody,
        };
        let mut body = self.host.buffer(buffer).unwrap_or_default();
        if buffer == Buffer::ResponseBody
            && let Some(redactor) = self.redactor(id)
        {
            redactor.mask(&mut body);
        }
        body
    }

    /// Has a message wait. What it holds counts against the worker's budget.
    fn park(&mut self, id: u32, waiting: Waiting) -> Flow {
        let body = match waiting.stage {
            Stage::RequestHeaders | Stage::ResponseHeaders => 0,
            Stage::RequestBody | Stage::WholeRequest(_) => self.buffered(Buffer::RequestBody),
            Stage::ResponseBody => self.buffered(Buffer::ResponseBody),
        };
        let places: usize = waiting.places.iter().map(Place::bytes).sum();
        let half = waiting.stage.half();
        if !self.hold(id, half, body.saturating_add(places)) {
            return self.refuse_message(id, &waiting, &Denial::new(Reason::Overloaded, b""));
        }
        self.looked_up.clear();
        let exchange = self.exchanges.entry(id).or_default();
        *exchange.waiting(half) = Some(Box::new(waiting));
        Flow::Pause
    }

    /// Bytes that the host holds of a body.
    fn buffered(&self, buffer: Buffer) -> usize {
        self.host.buffer(buffer).map_or(0, |body| body.len())
    }

    /// Changes the message; the caller sends it on.
    fn forward(&mut self, id: u32, waiting: &Waiting, edits: Vec<Edit>) {
        self.stop_waiting(id);
        self.audit(waiting, Outcome::GoesOn);
        self.count_message();
        let host = self.host;
        let half = waiting.stage.half();
        for edit in edits {
            if let (Edit::Body(body), Stage::WholeRequest(true)) = (&edit, waiting.stage) {
                let length = body.len().to_string();
                let _ = host.set_header(half.headers(), b"content-length", length.as_bytes());
            }
            message::apply(&host, half, edit);
        }
        for edit in &waiting.fixed {
            message::apply(&host, half, edit.clone());
        }
        if half == Half::Request
            && waiting
                .places
                .iter()
                .any(|place| place.changes_clients_text(&self.config))
        {
            self.mark_resolved(id);
        }
        self.release(id, half);
    }

    /// Logs who used what, if `audit` is configured; before anything is changed.
    fn audit(&mut self, waiting: &Waiting, outcome: Outcome) {
        if waiting.stage.half() != Half::Request {
            return;
        }
        if let Some(rules) = self.config.audit.as_ref() {
            let times = (waiting.since, self.host.now());
            let (config, fetcher) = (&self.config, &mut self.fetcher);
            audit::write(
                rules,
                config,
                &waiting.places,
                outcome,
                fetcher,
                times,
                &self.host,
            );
        }
    }

    /// Refuses a message whose evaluation failed.
    fn refuse_message(&mut self, id: u32, waiting: &Waiting, denial: &Denial) -> Flow {
        self.stop_waiting(id);
        self.audit(waiting, Outcome::Refused(denial.reason));
        // WasmX would keep the length of the response that had come, and the client would wait for the rest.
        if !self.is_envoy() && waiting.stage == Stage::ResponseHeaders {
            let _ = self
                .host
                .remove_header(Half::Response.headers(), b"content-length");
        }
        self.refuse(id, denial)
    }

    /// Answers the request from here.
    pub(super) fn refuse(&mut self, id: u32, denial: &Denial) -> Flow {
        self.complain("request_denied", denial);
        self.count_message();
        self.fetcher.metrics.count(Series::Refusals(denial.reason));
        self.refused = true;
        self.forget(id);
        if self.needs.response || self.needs.request_body {
            self.exchanges.insert(id, Exchange::refused());
        }
        reply::deny(&self.host, denial, self.bare_replies);
        Flow::Pause
    }

    /// Logs the first failure for a reason; repeats are only counted.
    pub(super) fn complain(&mut self, event: &str, denial: &Denial) {
        let head = Line::new(event)
            .word("reason", denial.reason.as_str())
            .end();
        if !self.fetcher.events.first(&head, true, self.host.now()) {
            return;
        }
        let id = reply::request_id(&self.host).unwrap_or_default();
        let line = Line::of(&head).word("request_id", &id);
        let reference = String::from_utf8_lossy(&denial.reference);
        log::warn!("{}", line.quoted("reference", &reference).end());
    }

    /// Envoy with held response headers: what the host buffered of the body while the headers waited goes on
    /// without another callback, so it is worked on here. Whether the response can be resumed.
    fn finish_held_response(&mut self, id: u32, stage: Stage) -> bool {
        if stage != Stage::ResponseHeaders {
            return true;
        }
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return true;
        };
        let Some(ended) = exchange.body_while_waiting.take() else {
            return true;
        };
        if matches!(exchange.response, ResponseState::Passing) {
            return true;
        }
        let size = self.buffered(Buffer::ResponseBody);
        self.response_body_buffered(id, size, ended) == Flow::Continue
    }
}
