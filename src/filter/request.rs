//! Requests: what is looked for in their headers, query and body, and when their headers are held until
//! the body is judged. It fetches nothing itself.

use std::rc::Rc;

use zeroize::Zeroizing;

use super::exchange::{RequestState, Stage, Waiting};
use super::header_map::{HeaderMap, Hit, Repeats};
use super::held::HeldHeaders;
use super::host::{Buffer, Half, Host, Map};
use super::message;
use super::plugin::{Clock, Plugin};
use super::reply;
use super::seen::Known;
use super::waiting::Flow;
use crate::body::Kind;
use crate::config::TooLarge;
use crate::events::Line;
use crate::failure::Reason;
use crate::message::find::{self, Count, Search};
use crate::message::{Denial, Edit, Place, Target};
use crate::metrics::Outcome;
use crate::query;
use crate::template::Template;

/// What was found in the headers of a request.
struct Found {
    places: Vec<Place>,
    fixed: Vec<Edit>,
    body: Option<ExpectedBody>,
    count: Count,
}

/// A body in which references are looked for.
pub(super) struct ExpectedBody {
    pub(super) kind: Kind,
    /// The client sent a `content-length`.
    pub(super) has_length: bool,
}

impl<H: Host + Copy> Plugin<H> {
    /// The headers of a request; `end` when no body follows, as far as the host knows.
    pub(super) fn request_headers(&mut self, id: u32, end: bool) -> Flow {
        let host = self.host;
        if !self.is_envoy() && !self.looked_for_kong {
            self.look_for_kong();
        }
        let check_repeats = !self.is_envoy() && !self.set.is_empty();
        let needs = self.needs;
        let reads = needs.request_headers
            || needs.query
            || needs.request_body
            || needs.set_headers
            || needs.response
            || check_repeats;
        let bytes = if reads {
            host.header_map(Map::Request).unwrap_or_default()
        } else {
            Vec::new()
        };
        let map = HeaderMap::new(&bytes);
        let references = if needs.request_headers {
            map.find(Template::first_start)
        } else {
            None
        };
        if needs.response && map.all(":method").next() == Some(b"CONNECT") {
            // The host may show another method when the response comes.
            self.exchanges.entry(id).or_default().connects = true;
        }
        if check_repeats && let Some(denial) = self.repeated(&[], &[], map) {
            return self.refuse(id, &denial);
        }
        let config = Rc::clone(&self.config);
        let mut search = Search::of_requests(&config);
        let in_query = match self.look_at_query(&mut search, map) {
            Ok(in_query) => in_query,
            Err(denial) => return self.refuse(id, &denial),
        };
        let mut fixed = self.fixed_edits(reads, map);
        let body = match self.expect_body(end, map) {
            Ok(body) => body,
            Err(denial) => return self.refuse(id, &denial),
        };
        let matters = references.is_some()
            || in_query.is_some()
            || body.is_some()
            || (self.config.redact && reads);
        let resolved = match matters.then(|| self.take_up(id, map)) {
            Some(Ok(resolved)) => resolved,
            Some(Err(denial)) => return self.refuse(id, &denial),
            None => false,
        };
        let references = references.filter(|_| !resolved);
        let body = body.filter(|_| !resolved);
        let simple = in_query.is_none() && fixed.is_empty() && body.is_none();
        if simple && self.all_prepared(id, references) {
            return Flow::Continue;
        }
        self.looked_up.clear();
        let in_headers = match references {
            None => Ok(Vec::new()),
            Some(hit) => search.headers(&config.request, hit, &mut self.seen),
        };
        let in_headers = match in_headers {
            Ok(places) => places,
            Err(denial) => return self.refuse(id, &denial),
        };
        if !self.is_envoy()
            && let Some(denial) = self.repeated(&in_headers, &fixed, map)
        {
            return self.refuse(id, &denial);
        }
        let in_query = in_query.filter(|_| !resolved).or_else(|| {
            // What the operator sets is set again.
            let again = || Search::of_requests(&config).query(None).ok().flatten();
            resolved.then(again).flatten()
        });
        let places = self.places(in_headers, in_query);
        if let Some(body) = &body
            && body.has_length
            && self.is_envoy()
            && matches!(self.held_headers, HeldHeaders::No)
        {
            // Its length may change, and too long a body behind the old length would be read as the next request.
            fixed.push(Edit::RemoveHeader(b"content-length".to_vec()));
        }
        let count = search.count;
        self.begin(
            id,
            Found {
                places,
                fixed,
                body,
                count,
            },
        )
    }

    /// WasmX without Kong: a refusal out of a call's answer does not stop a request on a kept connection unless
    /// the request's headers are filtered in nginx's access phase (measured). The filter cannot see whether they
    /// are, so it says once what is needed.
    fn look_for_kong(&mut self) {
        self.looked_for_kong = true;
        if self.host.property(reply::KONGS_ID).is_none() {
            let line = Line::new("no_kong").quoted("detail", "this nginx is not Kong 3.5 or later; plain nginx needs \
                proxy_wasm_request_headers_in_access on, else refused requests can reach the upstream");
            log::warn!("{}", line.end());
        }
    }

    /// All places of a request's headers: the operator's, those of later, the client's.
    fn places(&self, in_headers: Vec<Place>, in_query: Option<Place>) -> Vec<Place> {
        let set = self.set.iter().map(|set| set.place.clone());
        let later = self.response_set.iter().map(|set| set.place.for_later());
        set.chain(later).chain(in_headers).chain(in_query).collect()
    }

    fn begin(&mut self, id: u32, found: Found) -> Flow {
        let Found {
            places,
            fixed,
            body,
            count,
        } = found;
        let waiting = Waiting {
            fixed,
            ..Waiting::new(Stage::RequestHeaders, self.host.now(), places)
        };
        if let Some(body) = body {
            let exchange = self.exchanges.entry(id).or_default();
            exchange.count = count;
            if !matches!(self.held_headers, HeldHeaders::No) {
                return self.hold_headers(id, waiting, &body);
            }
            exchange.request = RequestState::Body(body.kind);
        }
        self.start(id, waiting, false)
    }

    /// A piece of a request's body; the host shows all that it holds.
    pub(super) fn request_body(&mut self, id: u32, size: usize, end: bool) -> Flow {
        let Some(exchange) = self.exchanges.get(&id) else {
            return Flow::Continue;
        };
        if exchange.refused {
            return Flow::Continue;
        }
        if exchange.is_waiting(Half::Request) {
            self.hold_waiting_headers(id);
        }
        let Some(exchange) = self.exchanges.get(&id) else {
            return Flow::Continue;
        };
        if matches!(exchange.request, RequestState::Held(_))
            && !matches!(self.held_headers, HeldHeaders::Yes)
        {
            // The body came while the headers are held: this host shows it.
            self.held_headers = HeldHeaders::Yes;
        }
        let waits = exchange.is_waiting(Half::Request);
        let of_headers = match &exchange.request {
            // Its headers wait: nothing of it goes on before them.
            _ if waits => return Flow::Pause,
            RequestState::Passing => return Flow::Continue,
            RequestState::Body(_) => 0,
            RequestState::Held(held) => held.bytes,
        };
        if size > self.config.limits.body_bytes {
            return self.too_large(id);
        }
        if end {
            return self.end_of_request_body(id, size);
        }
        if !self.hold(id, Half::Request, size.saturating_add(of_headers)) {
            return self.refuse(id, &Denial::new(Reason::Overloaded, b""));
        }
        Flow::Pause
    }

    /// A body is longer than what is held: it is refused, or goes on as it is with what is still to come, if no
    /// reference was found in it so far and the configuration says so.
    fn too_large(&mut self, id: u32) -> Flow {
        let refusal = Denial::new(Reason::BodyTooLarge, b"");
        if self.config.request.on_too_large == TooLarge::Deny {
            return self.refuse(id, &refusal);
        }
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return Flow::Continue;
        };
        let (kind, held) = match std::mem::take(&mut exchange.request) {
            RequestState::Passing => return Flow::Continue,
            RequestState::Body(kind) => (kind, None),
            RequestState::Held(held) => (held.kind, Some(held)),
        };
        let body = self.host.buffer(Buffer::RequestBody).unwrap_or_default();
        let found = Search::of_requests(&self.config).body(kind, &body);
        drop(body);
        if !matches!(found, Ok(None)) {
            return self.refuse(id, &refusal);
        }
        self.complain("left_alone", &refusal);
        self.release(id, Half::Request);
        let Some(held) = held else {
            return Flow::Continue;
        };
        let waiting = Waiting {
            fixed: held.fixed,
            ..Waiting::new(Stage::RequestHeaders, held.since, held.places)
        };
        self.start(id, waiting, true)
    }

    /// The trailers of a request: its body ends here. References in trailers stay as they are.
    pub(super) fn request_trailers(&mut self, id: u32) -> Flow {
        let Some(exchange) = self.exchanges.get(&id) else {
            return Flow::Continue;
        };
        if exchange.is_waiting(Half::Request) {
            return Flow::Pause;
        }
        if exchange.refused || matches!(exchange.request, RequestState::Passing) {
            return Flow::Continue;
        }
        if matches!(exchange.request, RequestState::Held(_)) {
            self.held_headers = HeldHeaders::Yes;
        }
        let later = exchange.was_resumed(Half::Request);
        let size = self
            .host
            .buffer(Buffer::RequestBody)
            .map_or(0, |body| body.len());
        match self.complete_request(id, size) {
            Ok(Some(waiting)) if !later => self.start_complete(id, waiting),
            Ok(None) if !later => Flow::Continue,
            Ok(waiting) => {
                let nothing = || Waiting::new(Stage::RequestBody, self.host.now(), Vec::new());
                let waiting = waiting.unwrap_or_else(nothing);
                self.start_later(id, waiting)
            }
            Err(denial) => self.refuse(id, &denial),
        }
    }

    /// The body is complete: it is judged, with the headers if they were held.
    fn end_of_request_body(&mut self, id: u32, size: usize) -> Flow {
        match self.complete_request(id, size) {
            Ok(Some(waiting)) => self.start_complete(id, waiting),
            Ok(None) => Flow::Continue,
            Err(denial) => self.refuse(id, &denial),
        }
    }

    /// What held headers need was asked for when they came.
    fn start_complete(&mut self, id: u32, waiting: Waiting) -> Flow {
        let waited = matches!(waiting.stage, Stage::WholeRequest(_));
        self.start(id, waiting, waited)
    }

    /// What is to be done to a request whose body is complete; `None` for nothing.
    fn complete_request(&mut self, id: u32, size: usize) -> Result<Option<Waiting>, Denial> {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return Ok(None);
        };
        let count = exchange.count;
        let state = std::mem::take(&mut exchange.request);
        let (kind, held) = match state {
            RequestState::Passing => return Ok(None),
            RequestState::Body(kind) => (kind, None),
            RequestState::Held(held) => (held.kind, Some(held)),
        };
        if size > self.config.limits.body_bytes {
            return Err(Denial::new(Reason::BodyTooLarge, b""));
        }
        let body = match size {
            0 => Zeroizing::default(),
            _ => self.host.buffer(Buffer::RequestBody).unwrap_or_default(),
        };
        if body.len() < size {
            // WasmX put it into a file: it can be neither read nor replaced.
            return Err(Denial::new(Reason::BodyTooLarge, b""));
        }
        let mut search = Search {
            count,
            ..Search::of_requests(&self.config)
        };
        let in_body = search.body(kind, &body)?;
        drop(body);
        Ok(match (held, in_body) {
            (None, None) => None,
            (None, Some(place)) => {
                let since = self.host.now();
                Some(Waiting::new(Stage::RequestBody, since, vec![place]))
            }
            (Some(held), in_body) => {
                let mut places = held.places;
                places.extend(in_body);
                Some(Waiting {
                    fixed: held.fixed,
                    ..Waiting::new(Stage::WholeRequest(held.has_length), held.since, places)
                })
            }
        })
    }

    /// Whether this request's body will be looked into.
    fn expect_body(
        &mut self,
        end: bool,
        map: HeaderMap<'_>,
    ) -> Result<Option<ExpectedBody>, Denial> {
        if !self.needs.request_body || end || message::asks_for_tunnel(map) {
            return Ok(None);
        }
        let rules = &self.config.request.resolve_body;
        let kind = match map.all("content-type").next().map(|t| rules.look(t)) {
            None | Some(Ok(None)) => return Ok(None),
            Some(Ok(Some(kind))) => kind,
            Some(Err(why)) => {
                let left = Denial::new(Reason::NotRepresentable, why.as_str().as_bytes());
                self.complain("left_alone", &left);
                return Ok(None);
            }
        };
        if message::is_compressed(map) {
            let left = Denial::new(Reason::NotRepresentable, b"a compressed body");
            self.complain("left_alone", &left);
            return Ok(None);
        }
        let length = message::content_length(map);
        if length.is_some_and(|length| length > self.config.limits.body_bytes) {
            let refusal = Denial::new(Reason::BodyTooLarge, b"");
            if self.config.request.on_too_large == TooLarge::Deny {
                return Err(refusal);
            }
            self.complain("left_alone", &refusal);
            return Ok(None);
        }
        let has_length = length.is_some();
        Ok(Some(ExpectedBody { kind, has_length }))
    }

    fn look_at_query(
        &self,
        search: &mut Search<'_>,
        map: HeaderMap<'_>,
    ) -> Result<Option<Place>, Denial> {
        if !self.needs.query {
            return Ok(None);
        }
        let target = message::target(&self.host, map);
        let (_, text) = query::split(&target);
        search.query(text)
    }

    /// Changes that do not depend on any secret.
    fn fixed_edits(&self, reads: bool, map: HeaderMap<'_>) -> Vec<Edit> {
        let mut fixed = Vec::new();
        if self.config.redact {
            // What is compressed cannot be searched for values.
            let identity = vec![Zeroizing::new(b"identity".to_vec())];
            fixed.push(Edit::Header(b"accept-encoding".to_vec(), identity));
        }
        if !self.config.request.set_headers.is_empty() {
            fixed.extend(self.connection_edit(reads, map));
        }
        if self.needs.set_headers {
            let set = self.config.request.set_headers.iter();
            let names = set.map(|(name, _)| name.as_bytes());
            let shadows = find::shadows(map, names);
            fixed.extend(
                shadows
                    .into_iter()
                    .map(|name| Edit::RemoveHeader(name.to_vec())),
            );
        }
        fixed
    }

    /// A client must not have the operator's headers removed on the way to the upstream.
    fn connection_edit(&self, reads: bool, map: HeaderMap<'_>) -> Option<Edit> {
        let value = if reads {
            Zeroizing::new(map.all("connection").next()?.to_vec())
        } else {
            self.host.header(Map::Request, "connection")?
        };
        let set = self.config.request.set_headers.iter();
        let names = set.map(|(name, _)| name.as_bytes());
        let kept = message::connection_without(&value, names)?;
        let name = b"connection".to_vec();
        Some(if kept.is_empty() {
            Edit::RemoveHeader(name)
        } else {
            Edit::Header(name, vec![Zeroizing::new(kept)])
        })
    }

    /// A header that the client sent more than once and that is to be written: nginx would send the
    /// client's further values beside ours.
    fn repeated(&self, found: &[Place], fixed: &[Edit], map: HeaderMap<'_>) -> Option<Denial> {
        let set = self.set.iter().map(|set| &set.place);
        let written = set.chain(found).filter_map(|place| match &place.target {
            Target::Header(name) => Some(name.as_slice()),
            _ => None,
        });
        let fixed = fixed.iter().filter_map(|edit| match edit {
            Edit::Header(name, _) | Edit::RemoveHeader(name) => Some(name.as_slice()),
            Edit::Query(_) | Edit::Body(_) => None,
        });
        let mut names = written.chain(fixed);
        let repeated = names.find(|name| map.all_of(name).nth(1).is_some());
        repeated.map(|name| Denial::new(Reason::RepeatedHeader, name))
    }

    /// Sets all of the operator's headers, and those of the client that hold references, from values that
    /// were rendered earlier, if all of them still hold. This is the way that nearly every request goes: one
    /// call for the time, one for each header. Else nothing is changed, and `false` is returned.
    fn all_prepared(&mut self, id: u32, references: Option<Hit<'_>>) -> bool {
        let sets = !self.set.is_empty() || !self.response_set.is_empty();
        if !sets && references.is_none() {
            return true;
        }
        let host = self.host;
        let clock = Clock::new(&host);
        self.looked_up.clear();
        // An earlier request may have been given up half way.
        self.prepared.clear();
        for set in self.set.iter_mut().chain(&mut self.response_set) {
            if !set.prepare(
                &mut self.fetcher,
                &self.config.limits,
                &mut self.looked_up,
                clock.now(),
            ) {
                return false;
            }
        }
        let operators = self.looked_up.len();
        if references.is_some_and(|hit| !self.clients_prepared(hit, &clock)) {
            return false;
        }
        for set in &self.set {
            set.apply(Map::Request, &host);
        }
        if !self.prepared.is_empty() {
            self.mark_resolved(id);
        }
        for header in self.prepared.drain(..).filter_map(|at| self.seen.get(at)) {
            header.apply(Map::Request, &host);
        }
        let outcome = if sets {
            Outcome::Served
        } else {
            Outcome::Other
        };
        let metrics = &mut self.fetcher.metrics;
        metrics.record(&self.looked_up, operators, outcome);
        true
    }

    /// Whether every header with a reference was seen before, with a value that holds now if something in
    /// it may be resolved.
    fn clients_prepared(&mut self, references: Hit<'_>, clock: &Clock<'_, H>) -> bool {
        // Who used what is written down one by one.
        if self.config.audit.is_some() {
            return false;
        }
        let mut repeats = Repeats::of(references.map());
        let mut count = Count::default();
        for (name, value) in references.pairs(Template::first_start) {
            match self.seen.known(name, value) {
                Known::Nothing(candidates) => count.parsed += candidates,
                Known::No if !find::is_for_clients(&self.config.request, name) => continue,
                Known::No => return false,
                Known::Header {
                    header,
                    at,
                    candidates,
                } => {
                    count.parsed += candidates;
                    count.changed += header.place.references();
                    // All values of a header are written together.
                    let ready = header.prepare_for_client(
                        &mut self.fetcher,
                        &self.config.limits,
                        &mut self.looked_up,
                        clock.now(),
                    );
                    if !ready || repeats.has(name) {
                        return false;
                    }
                    self.prepared.push(at);
                }
            }
            if count.exceeds(&self.config.limits) {
                return false;
            }
        }
        true
    }
}
