//! Requests whose headers are held until their body is complete, so that nothing of a request that is denied
//! reaches the upstream. Envoy allows it with `allow_on_headers_stop_iteration`, and does not say whether that is
//! on: the first requests with a body show it. It does not know what is found in a body.

use super::exchange::{HeldRequest, RequestState, Stage, Waiting};
use super::host::{Dialect, Half, Host};
use super::plugin::Plugin;
use super::request::ExpectedBody;
use super::waiting::Flow;
use crate::events::Line;
use crate::failure::Reason;
use crate::fetch::Lookup;
use crate::message::{Denial, Edit, Place};
use crate::time::{Span, Timestamp};

/// Envoy's property for the size of a request: what has come of its body, and its headers.
const TOTAL_SIZE: &[u8] = b"request\0total_size";
/// For so long it is looked for a body in each millisecond, and then once in this time.
const AT_FIRST: Span = Span(100);

/// Whether a pause in the header phase lets the body come.
#[derive(Debug)]
pub(super) enum HeldHeaders {
    /// These requests are held, to find out; the last one since then.
    Unknown(Vec<u32>, Timestamp),
    /// Headers can be held until the body is judged.
    Yes,
    /// A pause in the header phase keeps the body back.
    No,
}

impl HeldHeaders {
    pub(super) const fn of(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Envoy => Self::Unknown(Vec::new(), Timestamp(0)),
            Dialect::WasmX => Self::No,
        }
    }

    /// How soon the next look is due, if one is. A body comes with its headers or soon after, or may take minutes.
    pub(super) fn next_look(&self, now: impl FnOnce() -> Timestamp) -> Option<Span> {
        match self {
            Self::Unknown(probes, last) if !probes.is_empty() => {
                let age = last.age(now());
                Some(if age < AT_FIRST { Span(1) } else { AT_FIRST })
            }
            _ => None,
        }
    }

    pub(super) fn forget(&mut self, id: u32) {
        if let Self::Unknown(probes, _) = self {
            probes.retain(|probe| *probe != id);
        }
    }
}

impl<H: Host + Copy> Plugin<H> {
    /// Holds the headers until the body is complete, and fetches meanwhile what they need. They count against the
    /// worker's budget: their body may be long in coming.
    pub(super) fn hold_headers(&mut self, id: u32, waiting: Waiting, body: &ExpectedBody) -> Flow {
        const REQUEST: usize = 1024;
        let places: usize = waiting.places.iter().map(Place::bytes).sum();
        let bytes = places.saturating_add(REQUEST);
        if !self.hold(id, Half::Request, bytes) {
            return self.refuse(id, &Denial::new(Reason::Overloaded, b""));
        }
        let head_size = match &mut self.held_headers {
            HeldHeaders::Unknown(probes, last) => {
                probes.push(id);
                *last = waiting.since;
                total_size(&self.host)
            }
            _ => 0,
        };
        let wants: Vec<_> = waiting
            .places
            .iter()
            .flat_map(Place::wants)
            .cloned()
            .collect();
        let held = HeldRequest {
            kind: body.kind,
            places: waiting.places,
            fixed: waiting.fixed,
            has_length: body.has_length,
            since: waiting.since,
            bytes,
            head_size,
        };
        let exchange = self.exchanges.entry(id).or_default();
        exchange.request = RequestState::Held(Box::new(held));
        let now = self.host.now();
        let missing: Vec<_> = wants
            .into_iter()
            .filter(|want| self.fetcher.lookup(want, None, now) == Lookup::Miss)
            .collect();
        self.fetch(id, &missing);
        self.schedule_tick();
        Flow::Pause
    }

    /// Finds out whether the host shows a body while the headers are held: bytes that have come without a
    /// callback show that it does not. As long as nothing comes the headers stay: a client that sends its body late
    /// must not have them sent before it is judged.
    pub(super) fn probe_held_headers(&mut self) {
        let HeldHeaders::Unknown(probes, last) = &mut self.held_headers else {
            return;
        };
        let (probes, last) = (std::mem::take(probes), *last);
        let mut kept = Vec::new();
        let mut came = false;
        for id in probes {
            if self.host.focus(id).is_err() {
                self.forget(id);
                continue;
            }
            let Some(RequestState::Held(held)) = self.exchanges.get(&id).map(|e| &e.request) else {
                continue;
            };
            came |= total_size(&self.host) > held.head_size;
            kept.push(id);
        }
        if !came {
            self.held_headers = HeldHeaders::Unknown(kept, last);
            return;
        }
        self.held_headers = HeldHeaders::No;
        let line = Line::new("headers_not_held").quoted(
            "detail",
            "this host keeps a body back while its headers wait, so \
            headers go on before their body is judged; Envoy: allow_on_headers_stop_iteration",
        );
        log::warn!("{}", line.end());
        for id in kept {
            if self.host.focus(id).is_ok() {
                self.release_headers(id);
            }
        }
    }

    /// Lets held headers go on before their body.
    fn release_headers(&mut self, id: u32) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let state = std::mem::take(&mut exchange.request);
        let RequestState::Held(held) = state else {
            exchange.request = state;
            return;
        };
        exchange.request = RequestState::Body(held.kind);
        let mut waiting = Waiting {
            fixed: held.fixed,
            ..Waiting::new(Stage::RequestHeaders, held.since, held.places)
        };
        if held.has_length {
            let length = Edit::RemoveHeader(b"content-length".to_vec());
            waiting.fixed.push(length);
        }
        *exchange.waiting(Half::Request) = Some(Box::new(waiting));
        self.woken.push_back(id);
    }

    /// Envoy shows a piece of a body whose headers were not held for it, and wait for secrets: the host holds them
    /// after all, and would send what it has of the body with them, unseen. They are held from now on.
    pub(super) fn hold_waiting_headers(&mut self, id: u32) {
        if !self.is_envoy() {
            return;
        }
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let RequestState::Body(kind) = exchange.request else {
            return;
        };
        let [bytes, _] = exchange.held;
        if let Some(waiting) = exchange
            .waiting(Half::Request)
            .take_if(|w| w.stage == Stage::RequestHeaders)
        {
            exchange.request = RequestState::Held(Box::new(HeldRequest {
                kind,
                places: waiting.places,
                fixed: waiting.fixed,
                has_length: false,
                since: waiting.since,
                bytes,
                head_size: 0,
            }));
        }
    }
}

/// What the host has counted of a request so far, in bytes.
fn total_size(host: &impl Host) -> u64 {
    let value = host.property(TOTAL_SIZE).unwrap_or_default();
    let bytes: Option<[u8; 8]> = value.as_slice().try_into().ok();
    bytes.map_or(0, u64::from_le_bytes)
}
