//! Callouts: which callback may make one, making it, and handing its answer over.
//!
//! Envoy: all calls are made by the root context, in its timer or in the answer to one of its calls, so that
//! an answer is never lost with the client that caused the call. A request postpones its calls to the next
//! tick, a millisecond later. WasmX: a request makes its own calls, since nothing else can resume it; the
//! root makes calls in its timer only (a call in the answer to one of its own kills the worker).

use super::answer;
use super::host::{Dialect, Host, HostStatus, OutgoingCall};
use super::plugin::{Plugin, write_line};
use crate::azure::http::{Answer, CallFailure, HttpRequest};
use crate::fetch::{Action, Call, CallId, Lane};

const USER_AGENT: &str = concat!("azure-key-vault-filter/", env!("CARGO_PKG_VERSION"));

/// The kind of callback that is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callback {
    /// The root context's timer.
    Tick,
    /// The answer to a call of the root context.
    RootAnswer,
    /// A request's callback, or the answer to a call of its own.
    Request,
}

/// A call that is under way, by the host's token.
pub(super) struct PendingCall {
    id: CallId,
    /// The call has a body.
    has_body: bool,
}

impl<H: Host + Copy> Plugin<H> {
    /// Whether the running callback may make a call of this lane.
    fn may_call(&self, lane: Lane) -> bool {
        match (self.host.dialect(), self.callback, lane) {
            (Dialect::Envoy, callback, _) => callback != Callback::Request,
            (Dialect::WasmX, callback, Lane::Worker) => callback == Callback::Tick,
            (Dialect::WasmX, callback, Lane::Request(_)) => callback == Callback::Request,
        }
    }

    /// Carries out what the fetcher wants done: log lines, calls, and messages to be evaluated again.
    pub(super) fn carry_out(&mut self) {
        while let Some(action) = self.fetcher.poll() {
            match action {
                Action::Log(line) => write_line(&line),
                Action::Wake(id) => self.woken.push_back(id),
                Action::Call(call) if self.may_call(call.lane) => self.make_call(&call),
                Action::Call(call) => self.postponed.push(call),
            }
        }
    }

    /// Makes the calls that earlier callbacks must not make.
    pub(super) fn make_postponed_calls(&mut self) {
        for call in std::mem::take(&mut self.postponed) {
            self.make_call(&call);
        }
        self.carry_out();
    }

    /// Makes a call; one that the host refuses is answered at once.
    fn make_call(&mut self, call: &Call) {
        match send(&self.host, &call.request) {
            Ok(token) => {
                let pending = PendingCall {
                    id: call.id,
                    has_body: !call.request.body.is_empty(),
                };
                self.calls.insert(token, pending);
            }
            Err(status) => {
                let failure = match status {
                    HostStatus::BAD_ARGUMENT => CallFailure::UnknownCluster,
                    _ => CallFailure::NotSent,
                };
                let answer = Answer::Failed(failure);
                self.with_now(|fetcher, now| fetcher.handle_answer(call.id, &answer, now));
            }
        }
    }

    /// The answer to a call of this request, or of the root context, has come, with this many headers and
    /// bytes. Whether the request was refused for it.
    pub(super) fn call_answered(
        &mut self,
        caller: Option<u32>,
        token: u32,
        headers: usize,
        body_size: usize,
    ) -> bool {
        let Some(call) = self.calls.remove(&token) else {
            return false;
        };
        self.callback = match caller {
            Some(_) => Callback::Request,
            None => Callback::RootAnswer,
        };
        self.refused = false;
        // WasmX: the reply's body would share a buffer with the call's, and the client's connection ends.
        self.bare_replies = !self.is_envoy() && call.has_body && body_size == 0;
        let answer = answer::read(&self.host, headers, body_size);
        self.with_now(|fetcher, now| fetcher.handle_answer(call.id, &answer, now));
        self.carry_out();
        self.advance_woken(caller);
        self.schedule_tick();
        self.bare_replies = false;
        self.refused
    }
}

fn send(host: &impl Host, request: &HttpRequest) -> Result<u32, HostStatus> {
    let mut headers: Vec<(&str, &str)> = vec![
        (":method", request.method),
        (":scheme", request.scheme.as_str()),
        (":authority", &request.authority),
        (":path", &request.path),
        ("user-agent", USER_AGENT),
    ];
    let own = request.headers.iter();
    headers.extend(own.map(|(name, value)| (&**name, value.as_str())));
    host.call(OutgoingCall {
        upstream: &request.cluster,
        headers,
        body: &request.body,
        timeout: request.timeout,
    })
}
