//! How WasmX (nginx, Kong Gateway 3.4 to 3.10) carries messages through the filters: phase by phase, and in
//! each phase filter by filter, in the chain's order.
//!
//! - A request waits for its own calls only, and goes on by itself after the last one.
//! - The request's body comes once and whole; a response's in pieces, whose last one has no
//!   `end_of_stream` where the upstream told the length.
//! - After a local reply from a call's answer, the phase's other filters run all the same.
//! - Trailers are never shown.

use super::{Gateway, StreamId};
use crate::stream::{Answer, Hold, Part, Phase, Response};

/// From this size on a response comes in several pieces, even when nginx buffers it.
const SEVERAL_PIECES: usize = 32 << 10;
/// The size of such a piece.
const PIECE: usize = 8 << 10;
/// `wasm_response_body_buffers`, 4 x 4096: what a pause in the response's body phase holds.
const HELD_PIECES: usize = 16 << 10;

impl Gateway {
    /// Moves a request on as far as it goes; whether it moved.
    pub(super) fn run(&mut self, id: StreamId) -> bool {
        let mut moved = false;
        while self.step_in_nginx(id) {
            moved = true;
        }
        moved
    }

    fn step_in_nginx(&mut self, id: StreamId) -> bool {
        let state = self.with_stream(id, |stream| {
            let idle = stream.over || stream.waits || stream.response_begun;
            (!idle).then_some((stream.phase, stream.hops.len(), stream.request.more))
        });
        let Some(Some((phase, hops, more))) = state else {
            return false;
        };
        let next = |gateway: &Self, phase| {
            gateway.with_stream(id, |stream| stream.phase = phase);
        };
        match phase {
            Phase::RequestHeaders(hop) if hop < hops => self.request_headers(id, hop),
            Phase::RequestHeaders(_) => {
                if self.send_stashed(id) {
                    return true;
                }
                // An upgrade has no body; else its callback comes when all of it is there.
                let tunnel = self.with_stream(id, |stream| stream.is_tunnel()) == Some(true);
                if more && !tunnel {
                    return false;
                }
                let empty = self.with_stream(id, |stream| tunnel || stream.body.is_empty());
                let phase = if empty == Some(true) {
                    Phase::Upstream
                } else {
                    Phase::RequestBody(0)
                };
                next(self, phase);
            }
            Phase::RequestBody(hop) if hop < hops => self.request_body(id, hop),
            Phase::RequestBody(_) => {
                if !self.send_stashed(id) {
                    next(self, Phase::Upstream);
                }
            }
            Phase::Upstream => self.send_from_nginx(id),
            Phase::ResponseHeaders | Phase::ResponseBody => return false,
        }
        true
    }

    fn request_headers(&mut self, id: StreamId, hop: usize) {
        let Some((context, root, count)) = self.with_stream(id, |stream| {
            let count = stream.headers.len() as u32;
            let hop = &mut stream.hops[hop];
            hop.created = true;
            (hop.context, hop.root, count)
        }) else {
            return;
        };
        let made = self.callback(
            id.worker,
            context,
            "proxy_on_context_create",
            &[context, root],
        );
        // Whether a body follows is not known yet.
        let flow = made.and_then(|_| {
            let arguments = [context, count, 0];
            self.callback(id.worker, context, "proxy_on_request_headers", &arguments)
        });
        self.with_stream(id, |stream| {
            stream.phase = Phase::RequestHeaders(hop + 1);
        });
        self.returned(id, hop, flow.ok().flatten());
    }

    fn request_body(&mut self, id: StreamId, hop: usize) {
        let limit = self.host.borrow().settings.body_limit;
        let listens = self.has(id.worker, "proxy_on_request_body");
        let Some((context, size, seen)) = self.with_stream(id, |stream| {
            stream.body_in_file = stream.body.len() > limit;
            stream.phase = Phase::RequestBody(hop + 1);
            let hop = &mut stream.hops[hop];
            let (context, size, seen) = (hop.context, stream.body.len(), hop.created);
            hop.request.buffer = Some(stream.body.clone());
            (context, size as u32, seen && listens)
        }) else {
            return;
        };
        if !seen {
            return;
        }
        // The phase is the callback's while it runs.
        self.with_stream(id, |stream| stream.phase = Phase::RequestBody(hop));
        let flow = self.callback(
            id.worker,
            context,
            "proxy_on_request_body",
            &[context, size, 1],
        );
        self.with_stream(id, |stream| {
            stream.phase = Phase::RequestBody(hop + 1);
            if let Some(bytes) = stream.hops[hop].request.buffer.take() {
                stream.body = bytes;
            }
        });
        self.returned(id, hop, flow.ok().flatten());
    }

    /// After a callback of the request: `None` for a trap, 0 lets it go on, another number holds it.
    fn returned(&mut self, id: StreamId, hop: usize, flow: Option<u32>) {
        let Some(flow) = flow else {
            // The request is answered with 500: this phase fails closed.
            self.trapped(id.worker, Some(id));
            self.with_stream(id, |stream| {
                for hop in &mut stream.hops {
                    hop.created = false;
                }
            });
            let over = self.with_stream(id, |stream| stream.over);
            if over == Some(false) {
                self.fail(id, 500);
            }
            return;
        };
        let Some((over, local, calls, stashed)) = self.with_stream(id, |stream| {
            let calls = stream.hops[hop].calls;
            (
                stream.over,
                stream.local.take(),
                calls,
                stream.stashed.is_some(),
            )
        }) else {
            return;
        };
        if over {
            return;
        }
        if let Some(local) = local {
            self.cancel_calls(id);
            return self.answer_in_nginx(id, local);
        }
        if stashed {
            // The reply goes out; whatever this filter asked for is cancelled.
            return self.cancel_calls(id);
        }
        if flow == 0 && calls > 0 {
            let why = "a request goes on while a call of it is under way";
            return self.crash(id.worker, why);
        }
        if flow != 0 && calls == 0 {
            self.host.borrow_mut().violation(
                "Pause",
                "a request that waits without a call of its own hangs",
            );
        }
        self.with_stream(id, |stream| stream.waits = flow != 0);
    }

    /// Calls of a request that is answered are never answered themselves.
    pub(super) fn cancel_calls(&mut self, id: StreamId) {
        let contexts = self.with_stream(id, |stream| {
            let hops = stream.hops.iter_mut();
            hops.map(|hop| {
                hop.calls = 0;
                hop.context
            })
            .collect::<Vec<_>>()
        });
        let contexts = contexts.unwrap_or_default();
        let mut host = self.host.borrow_mut();
        host.calls.retain(|call| {
            call.worker != id.worker || !call.stream.is_some_and(|own| contexts.contains(&own))
        });
    }

    /// A local reply from a call's answer goes out when its phase is over.
    fn send_stashed(&mut self, id: StreamId) -> bool {
        let stashed = self.with_stream(id, |stream| stream.stashed.take());
        let Some(answer) = stashed.flatten() else {
            return false;
        };
        self.answer_in_nginx(id, answer);
        true
    }

    pub(super) fn answer_in_nginx(&mut self, id: StreamId, answer: Answer) {
        let response = Response {
            status: answer.status,
            headers: answer.headers,
            body: answer.body,
            ..Response::default()
        };
        self.respond(id, response, true);
    }

    /// nginx sends a request when all of it is there, with the length that it has.
    fn send_from_nginx(&mut self, id: StreamId) {
        let body = self.with_stream(id, |stream| {
            stream.phase = Phase::ResponseHeaders;
            if stream.body_replaced {
                let length = stream.body.len().to_string();
                stream.wire.set("content-length", length.as_bytes());
            }
            if let Some(uri) = &stream.upstream_uri {
                stream.wire.set(":path", uri);
            }
            stream.body.clone()
        });
        let bytes = body.unwrap_or_default();
        self.pass_upstream(id, Part::Headers { end: false });
        // A tunnel is answered already, and its request ends with the client.
        let tunnel = self.with_stream(id, |stream| {
            let open = stream.request.more && stream.response_begun;
            if let (false, Some(sent)) = (open, &mut stream.sent) {
                sent.complete = true;
            }
            stream.response_begun
        });
        if tunnel == Some(false) {
            self.pass_upstream(id, Part::Data { bytes, end: true });
        }
    }

    /// The response's headers and what there is of its body pass all filters.
    pub(super) fn respond_in_nginx(&mut self, id: StreamId) {
        self.with_stream(id, |stream| stream.phase = Phase::ResponseHeaders);
        let hops = self.with_stream(id, |stream| stream.hops.len());
        for hop in 0..hops.unwrap_or(0) {
            if !self.response_headers(id, hop) {
                return;
            }
        }
        self.with_stream(id, |stream| stream.phase = Phase::ResponseBody);
        self.pass_to_client(id, Part::Headers { end: false });
        self.response_pieces(id);
    }

    /// Whether the stream is still there.
    fn response_headers(&mut self, id: StreamId, hop: usize) -> bool {
        let Some((context, count, seen)) = self.with_stream(id, |stream| {
            let count = stream.response_headers.len() as u32;
            let hop = &stream.hops[hop];
            (hop.context, count, hop.created)
        }) else {
            return false;
        };
        if !seen {
            return true;
        }
        let name = "proxy_on_response_headers";
        // A pause is ignored here.
        if self
            .callback(id.worker, context, name, &[context, count, 0])
            .is_err()
        {
            // The original response goes out.
            self.trapped(id.worker, Some(id));
        }
        self.with_stream(id, |stream| {
            if let Some(local) = stream.local.take() {
                // The upstream's content-length stays: wasmx.md, section 11.
                let kept = stream.response_headers.get("content-length");
                let kept = kept.map(<[u8]>::to_vec);
                let mut headers = local.headers;
                if let Some(length) = kept {
                    headers.set("content-length", &length);
                }
                headers.push(":status", local.status.to_string().as_bytes());
                stream.response_headers = headers;
                stream.made_here = true;
                if let Some(response) = &mut stream.response {
                    response.body = local.body;
                }
            }
            !stream.over
        }) == Some(true)
    }

    fn response_pieces(&mut self, id: StreamId) {
        let (chunk, buffering) = {
            let settings = &self.host.borrow().settings;
            (settings.response_chunk, settings.proxy_buffering)
        };
        let bodyless = self.is_bodyless(id);
        let Some(Some((body, length, chunk, more, made_here))) = self.with_stream(id, |stream| {
            let response = stream.response.as_mut()?;
            let body = std::mem::take(&mut response.body);
            let length = response.headers.get("content-length").is_some();
            let chunk = response.pieces.unwrap_or(chunk);
            Some((body, length, chunk, response.more, stream.made_here))
        }) else {
            return;
        };
        if bodyless {
            return self.response_ended_in_nginx(id);
        }
        let whole = made_here || (length && buffering && body.len() < SEVERAL_PIECES);
        let chunk = match (whole, body.len() >= SEVERAL_PIECES) {
            (true, _) => body.len(),
            (false, true) => chunk.min(PIECE),
            (false, false) => chunk,
        };
        let pieces: Vec<&[u8]> = body.chunks(chunk.max(1)).collect();
        let count = pieces.len();
        // An end of its own comes in an empty piece.
        let empty = !whole && (count == 0 || self.host.borrow_mut().random.bool());
        let says_end = !more && (whole || !length);
        for (n, piece) in pieces.iter().enumerate() {
            let end = says_end && !empty && n + 1 == count;
            self.piece_in_nginx(id, piece.to_vec(), end);
        }
        if more {
            return;
        }
        if empty && !whole {
            self.piece_in_nginx(id, Vec::new(), says_end);
        }
        self.response_ended_in_nginx(id);
    }

    /// A piece of a response passes all filters, and what comes out goes to the client.
    pub(super) fn piece_in_nginx(&mut self, id: StreamId, piece: Vec<u8>, end: bool) {
        // nginx passes the bytes of an upgraded connection by its filters.
        let tunnel = self.with_stream(id, |stream| {
            stream.response.as_ref().is_some_and(|r| r.status == 101)
        });
        let hops = self.with_stream(id, |stream| stream.hops.len());
        let mut bytes = piece;
        for hop in 0..hops.unwrap_or(0) {
            if tunnel == Some(true) {
                break;
            }
            match self.response_piece(id, hop, bytes, end) {
                Some(out) => bytes = out,
                None => return,
            }
        }
        self.with_stream(id, |stream| {
            if let (Some(client), false) = (&mut stream.client, stream.over) {
                client.body.extend(bytes);
            }
        });
    }

    /// What this filter makes of it; `None` while the host holds it for the filter.
    fn response_piece(
        &mut self,
        id: StreamId,
        hop: usize,
        piece: Vec<u8>,
        end: bool,
    ) -> Option<Vec<u8>> {
        let listens = self.has(id.worker, "proxy_on_response_body");
        let (context, size, seen, waits) = self.with_stream(id, |stream| {
            let hop = &mut stream.hops[hop];
            let held = hop.response.hold == Hold::Body;
            let buffer = hop.response.buffer.get_or_insert_default();
            buffer.extend(piece);
            let waits = held && !end && buffer.len() < HELD_PIECES;
            (hop.context, buffer.len(), hop.created, waits)
        })?;
        if waits {
            return None;
        }
        let mut pauses = false;
        if seen && listens {
            let arguments = [context, size as u32, u32::from(end)];
            let name = "proxy_on_response_body";
            match self.callback(id.worker, context, name, &arguments) {
                Ok(flow) => pauses = flow.unwrap_or(0) != 0,
                Err(_) => self.trapped(id.worker, Some(id)),
            }
        }
        let held = self.with_stream(id, |stream| stream.hops[hop].response.hold);
        if pauses && (end || held == Some(Hold::Trailers)) {
            self.host.borrow_mut().violation(
                "proxy_on_response_body",
                "invalid return action: a piece can be held once, and not the last one",
            );
        }
        self.with_stream(id, |stream| {
            let side = &mut stream.hops[hop].response;
            // Held once: from then on it is marked as what comes after.
            match (pauses, side.hold, end) {
                (true, Hold::Nothing, false) => {
                    side.hold = Hold::Body;
                    None
                }
                _ => {
                    if side.hold == Hold::Body {
                        side.hold = Hold::Trailers;
                    }
                    Some(side.buffer.take().unwrap_or_default())
                }
            }
        })
        .flatten()
    }

    /// The end of a response without a word about it: what the host held goes out, and the request is over.
    pub(super) fn response_ended_in_nginx(&mut self, id: StreamId) {
        let hops = self.with_stream(id, |stream| stream.hops.len());
        for hop in 0..hops.unwrap_or(0) {
            let held = self.with_stream(id, |stream| {
                let side = &mut stream.hops[hop].response;
                (side.hold == Hold::Body).then(|| side.hold = Hold::Trailers)
            });
            if held.flatten().is_some() {
                let bytes = self.response_piece(id, hop, Vec::new(), false);
                self.with_stream(id, |stream| {
                    if let Some(client) = &mut stream.client {
                        client.body.extend(bytes.unwrap_or_default());
                    }
                });
            }
        }
        let bytes = Vec::new();
        self.pass_to_client(id, Part::Data { bytes, end: true });
    }
}
