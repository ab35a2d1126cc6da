//! How Envoy 1.40 carries messages through the filters: part by part, each filter with a hold of its own.
//!
//! - A pause in the header phase holds everything; with `allow_on_headers_stop_iteration` the headers
//!   only, until a body callback lets them go.
//! - A pause in the body phase makes the host buffer, and show all of it with the next piece. Beyond the
//!   connection's limit a request is answered with 413; a response with 500, or reset when its headers have
//!   gone to the client.
//! - With trailers no piece of the body is the last one. A filter without the callback for trailers lets
//!   everything go that it held.
//! - Responses to HEAD, 204, 304 and those without a body end with their headers. Filters do not see 1xx
//!   answers but 101.

use super::{Gateway, StreamId};
use crate::stream::{Answer, Hold, Part, Response, Side, Way};

/// What a filter has to do next.
enum Step {
    Release(Hold),
    Deliver(Part),
}

impl Gateway {
    /// The parts of a request that are there wait before the first filter.
    pub(super) fn begin_in_envoy(&mut self, id: StreamId) {
        self.with_stream(id, |stream| {
            let mut pieces = std::mem::take(&mut stream.request.body);
            stream.received = pieces.iter().map(Vec::len).sum();
            let trailers = !stream.trailers.is_empty();
            let open = stream.request.more || trailers;
            let input = &mut stream.hops[0].request.input;
            let end = pieces.is_empty() && !open;
            input.push_back(Part::Headers { end });
            let last = pieces.len().saturating_sub(1);
            for (n, bytes) in pieces.drain(..).enumerate() {
                let end = n == last && !open;
                input.push_back(Part::Data { bytes, end });
            }
            if trailers {
                input.push_back(Part::Trailers);
            }
        });
    }

    /// The parts of a response that are there wait before the last filter.
    pub(super) fn respond_in_envoy(&mut self, id: StreamId) {
        let size = self.host.borrow().settings.response_chunk;
        let bodyless = self.is_bodyless(id);
        self.with_stream(id, |stream| {
            let Some(response) = &mut stream.response else {
                return;
            };
            let body = std::mem::take(&mut response.body);
            let size = response.pieces.unwrap_or(size).max(1);
            let trailers = !response.trailers.is_empty();
            let open = response.more || trailers;
            let Some(hop) = stream.hops.last_mut() else {
                return;
            };
            let input = &mut hop.response.input;
            let end = bodyless || (body.is_empty() && !open);
            input.push_back(Part::Headers { end });
            if end {
                return;
            }
            let last = body.len().div_ceil(size).saturating_sub(1);
            for (n, bytes) in body.chunks(size).enumerate() {
                let (bytes, end) = (bytes.to_vec(), n == last && !open);
                input.push_back(Part::Data { bytes, end });
            }
            if trailers {
                input.push_back(Part::Trailers);
            }
        });
    }

    /// Moves a stream on as far as it goes; whether it moved.
    pub(super) fn pump(&mut self, id: StreamId) -> bool {
        let mut moved = false;
        while self.step(id) {
            moved = true;
        }
        moved
    }

    fn step(&mut self, id: StreamId) -> bool {
        let Some((over, local, hops)) = self.with_stream(id, |stream| {
            (stream.over, stream.local.take(), stream.hops.len())
        }) else {
            return false;
        };
        if over {
            return false;
        }
        if let Some(local) = local {
            self.answer_in_envoy(id, local);
            return true;
        }
        // What is nearest to its end first: a part passes all filters before the next one comes.
        let requests = (0..hops).rev().map(|hop| (Way::Request, hop));
        let responses = (0..hops).map(|hop| (Way::Response, hop));
        for (way, hop) in requests.chain(responses) {
            let step = self.with_stream(id, |stream| next_step(stream.hops[hop].side(way)));
            match step.flatten() {
                Some(Step::Release(held)) => {
                    self.release(id, way, hop, held);
                    return true;
                }
                Some(Step::Deliver(part)) => {
                    self.deliver(id, way, hop, part);
                    return true;
                }
                None => {}
            }
        }
        false
    }

    /// A local reply: through the filters as a response, unless one is on its way already.
    fn answer_in_envoy(&mut self, id: StreamId, answer: Answer) {
        let (begun, sent) = self
            .with_stream(id, |stream| {
                stream.request.more = false;
                for hop in &mut stream.hops {
                    // What is left of the request is dropped.
                    let begun = hop.request.begun;
                    hop.request = Side {
                        begun,
                        headers_gone: true,
                        ..Side::default()
                    };
                }
                (stream.response_begun, stream.client.is_some())
            })
            .unwrap_or_default();
        if sent {
            self.with_stream(id, |stream| stream.reset = true);
            return self.end_stream(id);
        }
        if begun {
            // Directly to the client: the filters have seen the headers of another response.
            self.with_stream(id, |stream| {
                stream.client = Some(answer);
                stream.complete = true;
            });
            return self.end_stream(id);
        }
        let local = answer.local;
        let response = Response {
            status: answer.status,
            headers: answer.headers,
            body: answer.body,
            ..Response::default()
        };
        self.respond(id, response, true);
        self.with_stream(id, |stream| stream.made_here = local);
    }

    /// What a filter was holding goes on.
    fn release(&mut self, id: StreamId, way: Way, hop: usize, held: Hold) {
        let parts = self.with_stream(id, |stream| {
            let side = stream.hops[hop].side(way);
            side.hold = Hold::Nothing;
            let mut parts = Vec::new();
            if !std::mem::replace(&mut side.headers_gone, true) {
                parts.push(Part::Headers {
                    end: side.ended && side.buffer.is_none(),
                });
            }
            match held {
                // What came meanwhile is one piece, and this filter sees it.
                Hold::All => merge(side),
                Hold::Headers | Hold::Nothing => {}
                Hold::Body | Hold::Trailers => {
                    if let Some(bytes) = side.buffer.take() {
                        let end = side.ended;
                        parts.push(Part::Data { bytes, end });
                    }
                }
            }
            if held == Hold::Trailers {
                parts.push(Part::Trailers);
            }
            parts
        });
        for part in parts.unwrap_or_default() {
            self.forward(id, way, hop, part);
        }
    }

    /// To the next filter in this direction, or out.
    fn forward(&mut self, id: StreamId, way: Way, hop: usize, part: Part) {
        let part = self.with_stream(id, |stream| {
            let next = match way {
                Way::Request => stream.hops.get_mut(hop + 1),
                Way::Response => hop
                    .checked_sub(1)
                    .and_then(|before| stream.hops.get_mut(before)),
            };
            match next {
                Some(next) => {
                    next.side(way).input.push_back(part);
                    None
                }
                None => Some(part),
            }
        });
        match (part.flatten(), way) {
            (Some(part), Way::Request) => self.pass_upstream(id, part),
            (Some(part), Way::Response) => self.pass_to_client(id, part),
            (None, _) => {}
        }
    }

    fn deliver(&mut self, id: StreamId, way: Way, hop: usize, part: Part) {
        match part {
            Part::Headers { end } => self.deliver_headers(id, way, hop, end),
            Part::Data { bytes, end } => self.deliver_data(id, way, hop, bytes, end),
            Part::Trailers => self.deliver_trailers(id, way, hop),
        }
    }

    fn deliver_headers(&mut self, id: StreamId, way: Way, hop: usize, end: bool) {
        let Some((context, root, created, count)) = self.with_stream(id, |stream| {
            let count = match way {
                Way::Request => stream.headers.len(),
                Way::Response => stream.response_headers.len(),
            };
            let hop = &mut stream.hops[hop];
            let side = hop.side(way);
            side.begun = true;
            side.ended = end;
            (hop.context, hop.root, hop.created, count as u32)
        }) else {
            return;
        };
        if !created && way == Way::Request {
            self.with_stream(id, |stream| stream.hops[hop].created = true);
            if self
                .callback(
                    id.worker,
                    context,
                    "proxy_on_context_create",
                    &[context, root],
                )
                .is_err()
            {
                return self.trapped(id.worker, Some(id));
            }
        }
        let name = match way {
            Way::Request => "proxy_on_request_headers",
            Way::Response => "proxy_on_response_headers",
        };
        // A filter that the request did not reach has no context.
        let seen = created || way == Way::Request;
        let flow = if seen {
            self.ask(id, context, name, &[context, count, u32::from(end)])
        } else {
            Some(0)
        };
        let Some(flow) = flow else { return };
        if flow == 0 {
            return self.release(id, way, hop, Hold::Nothing);
        }
        let held = if self.host.borrow().settings.hold_headers && !end {
            Hold::Headers
        } else {
            Hold::All
        };
        self.with_stream(id, |stream| stream.hops[hop].side(way).hold = held);
    }

    fn deliver_data(&mut self, id: StreamId, way: Way, hop: usize, bytes: Vec<u8>, end: bool) {
        let limit = {
            let settings = &self.host.borrow().settings;
            match way {
                Way::Request => settings.body_limit,
                Way::Response => settings.response_limit,
            }
        };
        let Some((context, size, held, seen)) = self.with_stream(id, |stream| {
            let hop = &mut stream.hops[hop];
            let (context, seen) = (hop.context, hop.created);
            let side = hop.side(way);
            let held = side.hold == Hold::Body;
            let buffer = side.buffer.get_or_insert_default();
            buffer.extend(bytes);
            side.ended = end;
            (context, buffer.len(), held, seen)
        }) else {
            return;
        };
        if held && size > limit {
            return self.too_large(id, way);
        }
        let name = match way {
            Way::Request => "proxy_on_request_body",
            Way::Response => "proxy_on_response_body",
        };
        let flow = if seen {
            self.ask(id, context, name, &[context, size as u32, u32::from(end)])
        } else {
            Some(0)
        };
        let Some(flow) = flow else { return };
        if flow == 0 {
            return self.release(id, way, hop, Hold::Body);
        }
        let size = self.with_stream(id, |stream| {
            let side = stream.hops[hop].side(way);
            side.hold = Hold::Body;
            side.buffer.as_ref().map_or(0, Vec::len)
        });
        if size > Some(limit) {
            self.too_large(id, way);
        }
    }

    fn deliver_trailers(&mut self, id: StreamId, way: Way, hop: usize) {
        let Some((context, count, seen)) = self.with_stream(id, |stream| {
            let count = match way {
                Way::Request => stream.trailers.len(),
                Way::Response => stream.response_trailers.len(),
            };
            let hop = &mut stream.hops[hop];
            hop.side(way).trailers = true;
            (hop.context, count as u32, hop.created)
        }) else {
            return;
        };
        let name = match way {
            Way::Request => "proxy_on_request_trailers",
            Way::Response => "proxy_on_response_trailers",
        };
        let listens = seen && self.has(id.worker, name);
        let flow = if listens {
            self.ask(id, context, name, &[context, count])
        } else {
            Some(0)
        };
        match flow {
            Some(0) => self.release(id, way, hop, Hold::Trailers),
            Some(_) => {
                self.with_stream(id, |stream| {
                    stream.hops[hop].side(way).hold = Hold::Trailers;
                });
            }
            None => {}
        }
    }

    /// What a callback says; `None` after a trap, or once the stream is over.
    fn ask(
        &mut self,
        id: StreamId,
        context: u32,
        name: &'static str,
        arguments: &[u32],
    ) -> Option<u32> {
        match self.callback(id.worker, context, name, arguments) {
            Ok(flow) => {
                let over = self.with_stream(id, |stream| stream.over);
                (over == Some(false)).then_some(flow.unwrap_or(0))
            }
            Err(_) => {
                self.trapped(id.worker, Some(id));
                None
            }
        }
    }

    /// hosts.md: 413 for a request that a filter holds; for a response 500, or a reset.
    fn too_large(&mut self, id: StreamId, way: Way) {
        let status = match way {
            Way::Request => 413,
            Way::Response => 500,
        };
        let answer = Answer {
            status,
            ..Answer::default()
        };
        self.answer_in_envoy(id, answer);
    }
}

fn next_step(side: &mut Side) -> Option<Step> {
    if std::mem::take(&mut side.resume) {
        return Some(Step::Release(side.hold));
    }
    let waits = match side.hold {
        Hold::All | Hold::Trailers => true,
        Hold::Nothing | Hold::Headers | Hold::Body => false,
    };
    if waits {
        return None;
    }
    side.input.pop_front().map(Step::Deliver)
}

/// Pieces that came while everything was held are one.
fn merge(side: &mut Side) {
    let mut whole: Option<(Vec<u8>, bool)> = None;
    let mut rest = std::collections::VecDeque::new();
    for part in side.input.drain(..) {
        match part {
            Part::Data { bytes, end } => {
                let (all, last) = whole.get_or_insert_default();
                all.extend(bytes);
                *last |= end;
            }
            other => rest.push_back(other),
        }
    }
    if let Some((bytes, end)) = whole {
        rest.push_front(Part::Data { bytes, end });
    }
    side.input = rest;
}
