//! Responses: masking values that the request got, resolving references, and the headers that the operator
//! sets. Streams are never collected.

use std::rc::Rc;

use zeroize::Zeroizing;

use super::exchange::{Beginnings, BodyMask, Pieces, RequestState, ResponseState, Stage, Waiting};
use super::header_map::HeaderMap;
use super::host::{Buffer, Dialect, Half, Host, Map};
use super::message;
use super::plugin::Plugin;
use super::waiting::Flow;
use crate::body::{self, Kind};
use crate::config::OnError;
use crate::failure::Reason;
use crate::fetch::Lookup;
use crate::message::find::Search;
use crate::message::{Denial, Place};
use crate::redact::{self, Redactor};
use crate::template::Template;

/// A piece of up to this size is held by the host when it ends in what may be the beginning of a value.
/// Every sensible connection buffer takes this and the next piece.
const SMALL_PIECE: usize = 8 << 10;

impl<H: Host + Copy> Plugin<H> {
    /// The headers of a response; `end` when no body follows, as far as the host knows.
    pub(super) fn response_headers(&mut self, id: u32, end: bool) -> Flow {
        if !self.needs.response {
            return Flow::Continue;
        }
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.responded = true;
            if exchange.refused {
                return Flow::Continue;
            }
        }
        let flow = self.look_at_response(id, end);
        // Behind the masking: what the operator sets is meant to be seen.
        self.set_response_headers();
        flow
    }

    fn look_at_response(&mut self, id: u32, end: bool) -> Flow {
        let rules = &self.config.response;
        let resolves = !rules.resolve_headers.is_empty() || !rules.resolve_body.is_empty();
        let masks = self.config.redact && self.may_hold_values(id);
        if !resolves && !masks {
            return Flow::Continue;
        }
        let mut bytes = self.host.header_map(Map::Response).unwrap_or_default();
        let redactor = self.redactor(id);
        if redactor
            .as_ref()
            .is_some_and(|r| self.mask_headers(Map::Response, &bytes, r))
        {
            // What is resolved below must not bring an unmasked value back.
            bytes = self.host.header_map(Map::Response).unwrap_or_default();
        }
        let map = HeaderMap::new(&bytes);
        if !self.is_envoy() {
            let length = message::content_length(map);
            let exchange = self.exchanges.entry(id).or_default();
            exchange.pieces = Pieces::of(length);
        }
        if !end && !self.has_no_body(id, map) {
            self.begin_response_body(id, map, masks, resolves);
        }
        let Some(hit) = map.find(Template::first_start) else {
            return Flow::Continue;
        };
        let config = Rc::clone(&self.config);
        let mut search = Search::of_responses(&config);
        let seen = &mut self.seen_in_responses;
        let places = match search.headers(&config.response, hit, seen) {
            Ok(places) if places.is_empty() => return Flow::Continue,
            Ok(places) => places,
            Err(denial) => return self.leave_response(id, &denial),
        };
        let waiting = Waiting::new(Stage::ResponseHeaders, self.host.now(), places);
        self.start(id, waiting, false)
    }

    /// Masks values that a request's body will get, too: the upstream answers before it has all of it.
    fn expect_values(&mut self, id: u32) {
        let Some(exchange) = self.exchanges.get(&id) else {
            return;
        };
        // No upstream answers a request whose headers are held.
        let RequestState::Body(kind) = exchange.request else {
            return;
        };
        let [received, _] = exchange.held;
        if received <= exchange.searched {
            return;
        }
        let body = self.host.buffer(Buffer::RequestBody).unwrap_or_default();
        // Too many references are refused when the body is complete.
        let place = Search::of_requests(&self.config).body(kind, &body);
        let now = self.host.now();
        let mut expected = Vec::new();
        for want in place.iter().flatten().flat_map(Place::wants) {
            if let Lookup::Value { value, .. } = self.fetcher.lookup(want, None, now) {
                expected.push(value);
            }
        }
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.searched = body.len();
            expected.retain(|value| !exchange.used.contains(value));
            exchange.used.append(&mut expected);
        }
    }

    /// Whether values of this exchange's request may come back: those that it got, and those that a body
    /// which is still on its way will get.
    fn may_hold_values(&self, id: u32) -> bool {
        self.exchanges.get(&id).is_some_and(|exchange| {
            !exchange.used.is_empty()
                || !matches!(exchange.request, RequestState::Passing)
                || exchange.is_waiting(Half::Request)
        })
    }

    pub(super) fn redactor(&self, id: u32) -> Option<Redactor> {
        Redactor::within(&self.exchanges.get(&id)?.used, &self.config.limits)
    }

    /// Whether there is no body to look at: the status or the method forbids one, or what follows is a tunnel.
    fn has_no_body(&self, id: u32, map: HeaderMap<'_>) -> bool {
        let status = map
            .text(":status")
            .and_then(|s| s.parse().ok())
            .unwrap_or(200);
        let connects = self.exchanges.get(&id).is_some_and(|e| e.connects);
        let method = self
            .host
            .header(Map::Request, ":method")
            .unwrap_or_default();
        message::has_no_body(&method, status) || (connects && status < 300)
    }

    /// Decides what is done to the body.
    fn begin_response_body(&mut self, id: u32, map: HeaderMap<'_>, masks: bool, resolves: bool) {
        if message::is_compressed(map) {
            if masks {
                let left = b"a compressed response is not searched for values";
                self.complain("left_alone", &Denial::new(Reason::NotRepresentable, left));
            }
            return;
        }
        let kind = if resolves {
            self.kind_to_collect(map)
        } else {
            None
        };
        let state = match kind {
            Some(kind) if self.is_envoy() => ResponseState::Collecting(kind),
            Some(kind) => ResponseState::Copying(kind, Zeroizing::default()),
            None if masks => ResponseState::Masking(Box::new(BodyMask::new(has_grpc_frames(map)))),
            None => return,
        };
        // Its length may change; and WasmX, where the end of a value is held back, compares each piece
        // with the length.
        if kind.is_some() || !self.is_envoy() {
            let _ = self.host.remove_header(Map::Response, b"content-length");
        }
        let exchange = self.exchanges.entry(id).or_default();
        exchange.response = state;
        exchange.beginnings = beginnings(map);
    }

    /// The kind of a body that is collected and resolved. A stream has no end to wait for, and a body beyond
    /// the limit goes on as it is.
    fn kind_to_collect(&mut self, map: HeaderMap<'_>) -> Option<Kind> {
        let content_type = map.all("content-type").next()?;
        let kind = self.config.response.resolve_body.kind(content_type)?;
        let left: &[u8] = if body::is_open_ended(content_type) {
            b"a stream"
        } else if message::content_length(map).is_some_and(|n| n > self.config.limits.body_bytes) {
            b"a response beyond max_body_bytes"
        } else {
            return Some(kind);
        };
        self.complain("left_alone", &Denial::new(Reason::BodyTooLarge, left));
        None
    }

    /// A response in which nothing can be resolved: refused, or forwarded as it is.
    fn leave_response(&mut self, id: u32, denial: &Denial) -> Flow {
        if self.config.on_error == OnError::Deny {
            return self.refuse(id, denial);
        }
        self.complain("left_alone", denial);
        Flow::Continue
    }

    /// What the operator sets in responses: known since before the request went on; what ended meanwhile
    /// is left out.
    fn set_response_headers(&mut self) {
        if self.response_set.is_empty() {
            return;
        }
        let now = self.host.now();
        // They were counted when the request went on.
        let mut counted = Vec::new();
        for set in &mut self.response_set {
            if set.prepare(&mut self.fetcher, &self.config.limits, &mut counted, now) {
                set.apply(Map::Response, &self.host);
            } else {
                for want in set.place.wants() {
                    self.fetcher.fetch_in_background(want, now);
                }
                set.remove(Map::Response, &self.host);
            }
        }
    }

    /// Masks values in a header map of the response. Whether there was anything to mask.
    fn mask_headers(&self, map: Map, bytes: &[u8], redactor: &Redactor) -> bool {
        let headers = HeaderMap::new(bytes);
        let mut masked: Vec<&[u8]> = Vec::new();
        for (name, value) in headers.iter() {
            let mut value = Zeroizing::new(value.to_vec());
            let known = |name: &[u8]| masked.iter().any(|m| m.eq_ignore_ascii_case(name));
            if redact::is_framing_header(name) || known(name) || !redactor.mask(&mut value) {
                continue;
            }
            masked.push(name);
            // Of several headers of one name, all are written anew.
            for (n, value) in headers.all_of(name).enumerate() {
                let mut value = Zeroizing::new(value.to_vec());
                redactor.mask(&mut value);
                let _ = if n == 0 {
                    self.host.set_header(map, name, &value)
                } else {
                    self.host.add_header(map, name, &value)
                };
            }
        }
        !masked.is_empty()
    }

    /// A piece of a response's body; where the host buffers, all that it holds.
    pub(super) fn response_body(&mut self, id: u32, size: usize, end: bool) -> Flow {
        let envoy = self.is_envoy();
        let Some(exchange) = self.exchanges.get_mut(&id).filter(|e| !e.refused) else {
            return Flow::Continue;
        };
        if exchange.is_waiting(Half::Response) {
            // Its headers wait: nothing of it goes on before them.
            exchange.body_while_waiting = Some(end);
            return Flow::Pause;
        }
        if matches!(exchange.response, ResponseState::Passing) {
            return Flow::Continue;
        }
        if envoy {
            return self.response_body_buffered(id, size, end);
        }
        let Some(end) = exchange.pieces.take(size, end) else {
            return Flow::Continue;
        };
        self.response_body_copied(id, size, end)
    }

    /// The trailers of a response: its body ends here.
    pub(super) fn response_trailers(&mut self, id: u32) -> Flow {
        let Some(exchange) = self.exchanges.get_mut(&id).filter(|e| !e.refused) else {
            return Flow::Continue;
        };
        if exchange.is_waiting(Half::Response) {
            exchange.body_while_waiting = Some(true);
            return Flow::Pause;
        }
        if let Some(redactor) = self.redactor(id) {
            let bytes = self.host.header_map(Map::ResponseTrailers);
            self.mask_headers(Map::ResponseTrailers, &bytes.unwrap_or_default(), &redactor);
        }
        let Some(exchange) = self.exchanges.get(&id) else {
            return Flow::Continue;
        };
        match &exchange.response {
            ResponseState::Passing => Flow::Continue,
            ResponseState::Masking(stream) if stream.held() > 0 => {
                // Nothing can be added to a body whose last piece is gone: an error is better than a body that was
                // cut without one.
                let cut = Denial::new(Reason::NotRepresentable, b"trailers");
                self.complain("response_cut", &cut);
                self.host.close_response();
                Flow::Pause
            }
            _ => {
                let later = exchange.was_resumed(Half::Response);
                let body = self.host.buffer(Buffer::ResponseBody);
                let size = body.map_or(0, |body| body.len());
                let flow = self.response_body_buffered(id, size, true);
                if later && flow == Flow::Continue {
                    let now = self.host.now();
                    let nothing = Waiting::new(Stage::ResponseBody, now, Vec::new());
                    return self.start_later(id, nothing);
                }
                flow
            }
        }
    }

    /// Envoy: the host buffers what is paused, and shows all of it (`size` bytes) again with the next piece.
    pub(super) fn response_body_buffered(&mut self, id: u32, size: usize, end: bool) -> Flow {
        let kind = match self.exchanges.get(&id).map(|e| &e.response) {
            Some(ResponseState::Collecting(kind)) => Some(*kind),
            Some(ResponseState::Masking(_)) => None,
            _ => return Flow::Continue,
        };
        let too_large = size > self.config.limits.body_bytes;
        if kind.is_some() && !end && !too_large {
            // It is read when it is complete: reading it with each piece would take quadratic time.
            if self.hold(id, Half::Response, size) {
                return Flow::Pause;
            }
            if self.config.on_error == OnError::Deny {
                return self.refuse(id, &Denial::new(Reason::Overloaded, b""));
            }
        }
        let body = self.host.buffer(Buffer::ResponseBody).unwrap_or_default();
        match kind {
            Some(kind) if end && !too_large => self.collected(id, kind, body),
            Some(_) => {
                self.give_up_collecting(id);
                self.mask_piece(id, &body, end)
            }
            None => self.mask_piece(id, &body, end),
        }
    }

    /// A body that cannot be collected goes on as it is, masked.
    fn give_up_collecting(&mut self, id: u32) {
        self.release(id, Half::Response);
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.response = ResponseState::Masking(Default::default());
        }
        self.complain(
            "left_alone",
            &Denial::new(Reason::BodyTooLarge, b"a response"),
        );
    }

    /// A body is complete: it is masked, and its references are resolved.
    fn collected(&mut self, id: u32, kind: Kind, mut body: Zeroizing<Vec<u8>>) -> Flow {
        let size = body.len();
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.response = ResponseState::Passing;
        }
        if self
            .redactor(id)
            .is_some_and(|redactor| redactor.mask(&mut body))
        {
            let _ = self.host.set_buffer(Buffer::ResponseBody, size, &body);
        }
        let place = match Search::of_responses(&self.config).body(kind, &body) {
            Ok(Some(place)) => place,
            Ok(None) => {
                self.release(id, Half::Response);
                return Flow::Continue;
            }
            Err(denial) => {
                // Its headers are with the client already.
                self.release(id, Half::Response);
                self.complain("left_alone", &denial);
                return Flow::Continue;
            }
        };
        drop(body);
        let waiting = Waiting::new(Stage::ResponseBody, self.host.now(), vec![place]);
        self.start(id, waiting, false)
    }

    /// Masks a piece of a stream. What may be the beginning of a value is held back: by the host where that is
    /// safe, since only what the host holds can still be written when trailers end the body; else here.
    fn mask_piece(&mut self, id: u32, piece: &[u8], end: bool) -> Flow {
        self.expect_values(id);
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return Flow::Continue;
        };
        let ResponseState::Masking(stream) = &mut exchange.response else {
            return Flow::Continue;
        };
        stream.know(&exchange.used, &self.config.limits);
        let may_pause = self.host.dialect() == Dialect::Envoy && !end && stream.held() == 0;
        let holds = may_pause && stream.ends_in_a_beginning(piece);
        let by_host = match exchange.beginnings {
            Beginnings::HeldByHost => piece.len() <= self.config.limits.masked_bytes_held,
            Beginnings::Small => piece.len() <= SMALL_PIECE,
            Beginnings::HeldHere => false,
        };
        if holds && by_host {
            return Flow::Pause;
        }
        let Some(masked) = self.mask_stream(id, piece, end) else {
            return Flow::Continue;
        };
        // WasmX breaks on an empty piece that is written in place of an empty one.
        if masked.as_slice() != piece {
            let _ = self
                .host
                .set_buffer(Buffer::ResponseBody, piece.len(), &masked);
        }
        Flow::Continue
    }

    fn mask_stream(&mut self, id: u32, piece: &[u8], end: bool) -> Option<Zeroizing<Vec<u8>>> {
        match &mut self.exchanges.get_mut(&id)?.response {
            ResponseState::Masking(stream) => Some(stream.piece(piece, end)),
            _ => None,
        }
    }

    /// WasmX: it buffers a few pieces only, so the body is collected here, and written with its last piece.
    fn response_body_copied(&mut self, id: u32, size: usize, end: bool) -> Flow {
        let piece = self.host.buffer(Buffer::ResponseBody).unwrap_or_default();
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return Flow::Continue;
        };
        let ResponseState::Copying(kind, copied) = &mut exchange.response else {
            return self.mask_piece(id, &piece, end);
        };
        let kind = *kind;
        copied.extend_from_slice(&piece);
        let bytes = copied.len();
        let fits = bytes <= self.config.limits.body_bytes && self.hold(id, Half::Response, bytes);
        if fits && !end {
            if size > 0 {
                let _ = self.host.set_buffer(Buffer::ResponseBody, size, b"");
            }
            return Flow::Continue;
        }
        let all = self.take_copied(id);
        if !fits {
            self.give_up_collecting(id);
            let _ = self.host.set_buffer(Buffer::ResponseBody, size, &all);
            return self.mask_piece(id, &all, end);
        }
        let _ = self.host.set_buffer(Buffer::ResponseBody, size, &all);
        self.collected(id, kind, all)
    }

    fn take_copied(&mut self, id: u32) -> Zeroizing<Vec<u8>> {
        match self.exchanges.get_mut(&id).map(|e| &mut e.response) {
            Some(ResponseState::Copying(_, copied)) => std::mem::take(copied),
            _ => Zeroizing::default(),
        }
    }
}

fn has_grpc_frames(map: HeaderMap<'_>) -> bool {
    map.all("content-type")
        .next()
        .is_some_and(body::has_grpc_frames)
}

/// Which side holds the beginning of a value at the end of a piece, by the headers of the response. What the
/// filter holds is lost if trailers follow; what the host holds is the whole piece.
fn beginnings(map: HeaderMap<'_>) -> Beginnings {
    let content_type = map.all("content-type").next().unwrap_or_default();
    if body::has_grpc_frames(content_type) || map.all("trailer").next().is_some() {
        Beginnings::HeldByHost
    } else if body::essence(content_type) == "text/event-stream" {
        Beginnings::HeldHere
    } else {
        Beginnings::Small
    }
}
