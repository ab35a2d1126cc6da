//! What the upstream gets and answers, what the client gets, and the end of a request.

use super::{Gateway, StreamId};
use crate::headers::Headers;
use crate::stream::{Answer, Part, Response, Sent};

impl Gateway {
    /// A part of the request has passed all filters.
    pub(super) fn pass_upstream(&mut self, id: StreamId, part: Part) {
        let now = self.now();
        let end = match part {
            Part::Headers { end } => {
                self.with_stream(id, |stream| {
                    stream.sent = Some(Sent {
                        headers: stream.wire.clone(),
                        time: now,
                        ..Sent::default()
                    });
                });
                self.headers_arrived(id, end);
                end
            }
            Part::Data { bytes, end } => {
                self.with_stream(id, |stream| {
                    if let Some(sent) = &mut stream.sent {
                        sent.body.extend(bytes);
                    }
                });
                end
            }
            Part::Trailers => {
                self.with_stream(id, |stream| {
                    if let Some(sent) = &mut stream.sent {
                        sent.trailers = stream.trailers.clone();
                    }
                });
                true
            }
        };
        if end {
            self.request_arrived(id);
        }
    }

    /// The upstream may answer before it has the body; to a tunnel it has to.
    fn headers_arrived(&mut self, id: StreamId, end: bool) {
        let Some(Some(sent)) = self.with_stream(id, |stream| stream.sent.clone()) else {
            return;
        };
        let tunnel = self.with_stream(id, |stream| stream.is_tunnel()) == Some(true);
        let response = if tunnel {
            Some((self.upstream)(&sent))
        } else if end {
            None
        } else {
            self.early.as_mut().and_then(|early| early(&sent))
        };
        if let Some(response) = response {
            self.respond(id, response, false);
        }
    }

    fn request_arrived(&mut self, id: StreamId) {
        let Some(Some(sent)) = self.with_stream(id, |stream| {
            if let Some(sent) = &mut stream.sent {
                sent.complete = true;
            }
            stream.sent.clone()
        }) else {
            return;
        };
        if let Some(announced) = sent.headers.get("content-length") {
            let announced = String::from_utf8_lossy(announced);
            if announced != sent.body.len().to_string() {
                let what = format!(
                    "{} bytes behind content-length {announced}: the rest is read as the next request, or the upstream waits for ever",
                    sent.body.len(),
                );
                self.host.borrow_mut().violation("request", what);
            }
        }
        let answered = self.with_stream(id, |stream| stream.response_begun);
        if answered == Some(false) {
            let response = (self.upstream)(&sent);
            self.respond(id, response, false);
        }
    }

    /// A response, from the upstream or made here, goes through the filters.
    pub(super) fn respond(&mut self, id: StreamId, response: Response, made_here: bool) {
        if let Some(path) = &response.redirect
            && self.is_envoy()
        {
            return self.redirect(id, path);
        }
        let envoy = self.is_envoy();
        self.with_stream(id, |stream| {
            let mut headers = Headers::default();
            headers.push(":status", response.status.to_string().as_bytes());
            for (name, value) in response.headers.iter() {
                headers.push(name, value);
            }
            stream.response_headers = if envoy { headers.lower_case() } else { headers };
            stream.response_trailers = response.trailers.clone();
            stream.response_begun = true;
            stream.made_here = made_here;
            stream.response = Some(response);
        });
        if envoy {
            self.respond_in_envoy(id);
        } else {
            self.respond_in_nginx(id);
        }
    }

    /// Whether a response has no body by its status or the request's method.
    pub(super) fn is_bodyless(&self, id: StreamId) -> bool {
        self.with_stream(id, |stream| {
            let status = stream.response.as_ref().map_or(0, |r| r.status);
            stream.is_head() || status == 204 || status == 304
        }) == Some(true)
    }

    /// A part of the response has passed all filters.
    pub(super) fn pass_to_client(&mut self, id: StreamId, part: Part) {
        let end = self.with_stream(id, |stream| match part {
            Part::Headers { end } => {
                let status = stream.response_headers.text(":status").parse();
                let mut headers = stream.response_headers.clone();
                headers.remove(":status");
                stream.client = Some(Answer {
                    status: status.unwrap_or(0),
                    headers,
                    local: stream.made_here,
                    ..Answer::default()
                });
                end
            }
            Part::Data { bytes, end } => {
                if let Some(client) = &mut stream.client {
                    client.body.extend(bytes);
                }
                end
            }
            Part::Trailers => {
                if let Some(client) = &mut stream.client {
                    client.trailers = stream.response_trailers.clone();
                }
                true
            }
        });
        if end == Some(true) {
            self.response_arrived(id);
        }
    }

    fn response_arrived(&mut self, id: StreamId) {
        let bodyless = self.is_bodyless(id);
        let wrong = self.with_stream(id, |stream| {
            stream.complete = true;
            let client = stream.client.as_ref()?;
            let announced = client.headers.get("content-length")?;
            let announced = String::from_utf8_lossy(announced).into_owned();
            let length = client.body.len();
            (!bodyless && announced != length.to_string()).then_some((announced, length))
        });
        if let Some(Some((announced, length))) = wrong {
            let what = format!("{length} bytes behind content-length {announced}");
            self.host.borrow_mut().violation("response", what);
        }
        self.end_stream(id);
    }

    /// The upstream sends more of a response that has `more`.
    pub fn upstream_sends(&mut self, id: StreamId, bytes: &[u8]) {
        self.more_of_response(id, Some(bytes), &[]);
    }

    /// The upstream ends a response that has `more`, with these trailers.
    pub fn upstream_ends(&mut self, id: StreamId, trailers: &[(&str, &str)]) {
        self.more_of_response(id, None, trailers);
    }

    fn more_of_response(&mut self, id: StreamId, bytes: Option<&[u8]>, trailers: &[(&str, &str)]) {
        let end = bytes.is_none();
        let open = self.with_stream(id, |stream| {
            let open = !stream.over && stream.response.as_ref().is_some_and(|r| r.more);
            if end && let Some(response) = &mut stream.response {
                response.more = false;
                stream.response_trailers = Headers::of(trailers);
            }
            open
        });
        if open != Some(true) {
            return;
        }
        let bytes = bytes.unwrap_or_default().to_vec();
        if self.is_envoy() {
            let part = if trailers.is_empty() {
                Part::Data { bytes, end }
            } else {
                Part::Trailers
            };
            self.with_stream(id, |stream| {
                if let Some(hop) = stream.hops.last_mut() {
                    hop.response.input.push_back(part);
                }
            });
        } else {
            self.piece_in_nginx(id, bytes, end);
            if end {
                self.response_ended_in_nginx(id);
            }
        }
        self.settle();
    }

    /// An answer of the host's own; a client that has the headers sees a reset.
    pub(super) fn fail(&mut self, id: StreamId, status: u16) {
        self.with_stream(id, |stream| {
            if stream.client.is_some() {
                stream.reset = true;
            } else {
                stream.complete = true;
                stream.client = Some(Answer {
                    status,
                    ..Answer::default()
                });
            }
        });
        self.end_stream(id);
    }

    /// The request is over: its contexts go.
    pub(super) fn end_stream(&mut self, id: StreamId) {
        let worker = id.worker;
        let Some(contexts) = self.with_stream(id, |stream| {
            let hops = stream.hops.iter_mut();
            let made = hops.filter(|hop| hop.created);
            let contexts: Vec<u32> = made.map(|hop| hop.context).collect();
            // Nothing of it can be read or changed any more.
            stream.over = true;
            contexts
        }) else {
            return;
        };
        let nginx = !self.is_envoy();
        for context in &contexts {
            for name in ["proxy_on_done", "proxy_on_log", "proxy_on_delete"] {
                if nginx && name != "proxy_on_delete" && !self.has(worker, name) {
                    self.crash(
                        worker,
                        "it calls proxy_on_done and proxy_on_log without asking",
                    );
                    return;
                }
                if self.callback(worker, *context, name, &[*context]).is_err() {
                    self.trapped(worker, Some(id));
                    return;
                }
            }
        }
        let mut host = self.host.borrow_mut();
        for context in contexts {
            host.owners.remove(&(worker, context));
        }
    }

    /// Envoy: the request, as the filters made it, comes in again with another path and new contexts. The
    /// body goes with it as it was sent.
    fn redirect(&mut self, id: StreamId, path: &str) {
        self.end_stream(id);
        let hops = self.new_hops(id.worker);
        self.with_stream(id, |stream| {
            stream.over = false;
            stream.hops = hops;
            let original = format!(
                "http://{}{}",
                stream.wire.text(":authority"),
                stream.wire.text(":path")
            );
            stream.wire.set("x-envoy-original-url", original.as_bytes());
            stream.wire.set(":path", path.as_bytes());
            stream.headers = stream.wire.clone();
            let body = stream.sent.take().map(|sent| sent.body).unwrap_or_default();
            stream.request.body = if body.is_empty() {
                Vec::new()
            } else {
                vec![body]
            };
            stream.request.more = false;
            stream.redirects += 1;
        });
        self.own(id);
        self.begin_in_envoy(id);
    }
}
