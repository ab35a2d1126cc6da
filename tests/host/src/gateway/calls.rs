//! The ends of HTTP calls out, and what follows from them for the request that waits.

use super::{Gateway, StreamId};
use crate::calls::{Call, Ending};
use crate::settings::Front;
use crate::stream::Phase;

impl Gateway {
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
        let empty = shown.body.is_empty();
        let worker = call.worker;
        let own = call
            .stream
            .and_then(|context| self.stream_of(worker, context));
        if let (Some(id), Some(context)) = (own, call.stream) {
            self.with_stream(id, |stream| {
                let hop = stream.hops.iter_mut().find(|hop| hop.context == context);
                if let Some(hop) = hop {
                    hop.calls = hop.calls.saturating_sub(1);
                }
            });
        }
        self.host.borrow_mut().here.shown = Some(shown);
        let arguments = [call.context, token, headers, announced, 0];
        let result = self.callback(
            worker,
            call.context,
            "proxy_on_http_call_response",
            &arguments,
        );
        self.host.borrow_mut().here.shown = None;
        if result.is_err() {
            self.trapped(worker, own);
        }
        if let Some(id) = own {
            if result.is_err() {
                self.fails_open(id);
            } else {
                self.call_of_request_ended(id, &call, empty);
            }
        }
        self.settle();
        true
    }

    fn stream_of(&self, worker: usize, context: u32) -> Option<StreamId> {
        let host = self.host.borrow();
        let (first, _) = *host.owners.get(&(worker, context))?;
        Some(StreamId {
            worker,
            context: first,
        })
    }

    /// wasmx.md 0.3: after a trap in a call's answer the request goes on unfiltered; one with a body that
    /// waited in its header phase is answered with 500.
    fn fails_open(&mut self, id: StreamId) {
        let state = self.with_stream(id, |stream| {
            let header_phase = matches!(stream.phase, Phase::RequestHeaders(_));
            (stream.over, header_phase && !stream.body.is_empty())
        });
        match state {
            Some((false, true)) => self.fail(id, 500),
            Some((false, false)) => {
                self.host
                    .borrow_mut()
                    .violation("trap", "the request goes on unfiltered");
                self.with_stream(id, |stream| {
                    stream.waits = false;
                    stream.phase = Phase::Upstream;
                });
            }
            _ => {}
        }
    }

    /// WasmX: the request goes on by itself after its last call, or ends if its client is gone.
    fn call_of_request_ended(&mut self, id: StreamId, call: &Call, empty: bool) {
        let state = self.with_stream(id, |stream| {
            let local = stream.local.take();
            (stream.over, stream.gone, stream.calls(), stream.nth, local)
        });
        let Some((false, gone, calls, nth, local)) = state else {
            return;
        };
        if gone {
            if calls == 0 {
                self.end_stream(id);
            }
            return;
        }
        if let Some(local) = local {
            if self.host.borrow().settings.front == Front::Plain && nth > 1 {
                // The reply is lost: wasmx.md, last section.
                if calls == 0 {
                    self.with_stream(id, |stream| stream.waits = false);
                }
                return;
            }
            if !call.body.is_empty() && empty && !local.body.is_empty() {
                self.host.borrow_mut().violation(
                    "proxy_send_local_response",
                    "zero size buf in writer: the client's connection is closed without an answer",
                );
                self.cancel_calls(id);
                self.with_stream(id, |stream| stream.reset = true);
                return self.end_stream(id);
            }
            self.cancel_calls(id);
            self.with_stream(id, |stream| {
                stream.stashed = Some(local);
                stream.waits = false;
            });
            return;
        }
        if calls == 0 {
            self.with_stream(id, |stream| stream.waits = false);
        }
    }
}
