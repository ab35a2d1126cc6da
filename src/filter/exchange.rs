//! One request and its response as one value: where in its life it is, and what later callbacks have to
//! know of it. An exchange exists only while there is something to know. It makes no host call.

use zeroize::Zeroizing;

use super::host::Half;
use crate::body::Kind;
use crate::grpc::Frames;
use crate::limits::Limits;
use crate::message::find::Count;
use crate::message::{Edit, Place};
use crate::redact::{MaskStream, Redactor};
use crate::secret::SecretValue;
use crate::time::Timestamp;

/// One request and its response.
#[derive(Default)]
pub(super) struct Exchange {
    /// The request's part.
    pub(super) request: RequestState,
    /// The response's part.
    pub(super) response: ResponseState,
    /// Messages that wait for secrets; an upstream may answer while a request still waits. Each ends in
    /// exactly one resume or reply.
    waiting: [Option<Box<Waiting>>; 2],
    /// References that were found in the request's headers and query.
    pub(super) count: Count,
    /// Values that the request got, where they are to be masked in what comes back.
    pub(super) used: Vec<SecretValue>,
    /// Bytes that are held for its request and its response; they count against the worker's budget.
    pub(super) held: [usize; 2],
    /// Its method is CONNECT: what follows a successful response is a tunnel.
    pub(super) connects: bool,
    /// It was refused: the response is our local reply.
    pub(super) refused: bool,
    /// How much of the request's body was searched for values that will be put into it, since the upstream
    /// answers before it has all of it.
    pub(super) searched: usize,
    /// Envoy, with `redact`: a reference of the client's was replaced, and its values are kept for a redirect.
    pub(super) marked: bool,
    /// The headers of its response have come.
    pub(super) responded: bool,
    /// Envoy: halves that were resumed after their headers had waited. Inside of that, the host loses a body
    /// that goes on in its trailers' callback (measured in 1.40), so it is resumed from the next tick.
    pub(super) resumed: [bool; 2],
    /// Which side holds the beginning of a value at the end of a piece (Envoy).
    pub(super) beginnings: Beginnings,
    /// Envoy with `allow_on_headers_stop_iteration`: pieces of the response's body came while its headers
    /// waited, and whether they were the last.
    pub(super) body_while_waiting: Option<bool>,
    /// WasmX: how far the response's body is.
    pub(super) pieces: Pieces,
}

impl Exchange {
    /// One whose request was answered from here.
    pub(super) fn refused() -> Self {
        Self {
            refused: true,
            ..Self::default()
        }
    }

    /// The half that waits, if it does.
    pub(super) const fn waiting(&mut self, half: Half) -> &mut Option<Box<Waiting>> {
        let [request, response] = &mut self.waiting;
        match half {
            Half::Request => request,
            Half::Response => response,
        }
    }

    /// Whether this half waits for secrets.
    pub(super) const fn is_waiting(&self, half: Half) -> bool {
        let [request, response] = &self.waiting;
        match half {
            Half::Request => request.is_some(),
            Half::Response => response.is_some(),
        }
    }

    /// Whether this half was resumed after its headers had waited.
    pub(super) const fn was_resumed(&self, half: Half) -> bool {
        let [request, response] = self.resumed;
        match half {
            Half::Request => request,
            Half::Response => response,
        }
    }

    /// All bytes that are held for it.
    pub(super) const fn held(&self) -> usize {
        let [request, response] = self.held;
        request.saturating_add(response)
    }
}

/// WasmX: a response that comes in several pieces has no end of stream where the upstream sent its length.
#[derive(Clone, Copy, Default)]
pub(super) struct Pieces {
    /// The `content-length` of the response as it came.
    length: Option<usize>,
    received: usize,
    ended: bool,
}

impl Pieces {
    pub(super) fn of(length: Option<usize>) -> Self {
        Self {
            length,
            ..Self::default()
        }
    }

    /// Takes a piece in. Whether it is the last one; `None` behind the last one.
    pub(super) fn take(&mut self, size: usize, end: bool) -> Option<bool> {
        if self.ended {
            return None;
        }
        self.received = self.received.saturating_add(size);
        self.ended = end || self.length.is_some_and(|length| self.received >= length);
        Some(self.ended)
    }
}

/// Where a request is.
#[derive(Default)]
pub(super) enum RequestState {
    /// Nothing is looked for in what is still to come of it.
    #[default]
    Passing,
    /// Its headers went on; references are looked for in its body.
    Body(Kind),
    /// Its headers are held until its body is complete (Envoy with `allow_on_headers_stop_iteration`).
    Held(Box<HeldRequest>),
}

/// A request whose headers wait for its body.
pub(super) struct HeldRequest {
    pub(super) kind: Kind,
    /// What is to be done to the headers and the query.
    pub(super) places: Vec<Place>,
    pub(super) fixed: Vec<Edit>,
    /// The client sent a `content-length`, which has to follow the body.
    pub(super) has_length: bool,
    pub(super) since: Timestamp,
    /// About how many bytes this is.
    pub(super) bytes: usize,
    /// Size of the request as the host counts it, when only its headers had come.
    pub(super) head_size: u64,
}

/// Where a response is.
#[derive(Default)]
pub(super) enum ResponseState {
    /// It has not come, or nothing is looked for in its body.
    #[default]
    Passing,
    /// Its body is masked piece by piece.
    Masking(Box<BodyMask>),
    /// Its body is collected, masked and resolved as a whole.
    Collecting(Kind),
    /// WasmX: the body of a response that is being collected, since the host cannot hold more than a few
    /// pieces.
    Copying(Kind, Zeroizing<Vec<u8>>),
}

/// What part of a message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A request's headers and query.
    RequestHeaders,
    /// A request's body, whose headers went on.
    RequestBody,
    /// A request's headers and body together. `bool`: the content-length has to follow the body.
    WholeRequest(bool),
    /// A response's headers.
    ResponseHeaders,
    /// A response's body.
    ResponseBody,
}

impl Stage {
    pub(super) const fn half(self) -> Half {
        match self {
            Self::RequestHeaders | Self::RequestBody | Self::WholeRequest(_) => Half::Request,
            Self::ResponseHeaders | Self::ResponseBody => Half::Response,
        }
    }
}

/// A message, or the part of it, that is evaluated and may have to wait.
pub(super) struct Waiting {
    pub(super) since: Timestamp,
    pub(super) rounds: u32,
    pub(super) stage: Stage,
    pub(super) places: Vec<Place>,
    /// What is done to the message whatever the places resolve to.
    pub(super) fixed: Vec<Edit>,
}

impl Waiting {
    pub(super) const fn new(stage: Stage, since: Timestamp, places: Vec<Place>) -> Self {
        Self {
            since,
            rounds: 0,
            stage,
            places,
            fixed: Vec::new(),
        }
    }
}

/// Which side holds what may be the beginning of a value, until the next piece of a response has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Beginnings {
    /// The host holds a small piece; of a large one, which may not fit into the connection's buffer with the
    /// next one, the filter holds the beginning.
    #[default]
    Small,
    /// The host holds the piece: trailers are expected, and only what the host holds can be written then.
    HeldByHost,
    /// The filter holds the beginning alone, and the rest of the piece goes on: an event must not wait.
    HeldHere,
}

/// The masking of a response's body. Values may still be added while it is under way: an upstream may
/// answer before it has the whole request.
#[derive(Default)]
pub(super) struct BodyMask {
    stream: Option<MaskStream>,
    /// Where there are gRPC's frames no value goes on beyond the end of its message, so that nothing of a whole message is held: the
    /// next one may be an answer to it.
    frames: Option<Frames>,
    /// How many values it looks for.
    known: usize,
}

impl BodyMask {
    /// For a body with gRPC's frames or without.
    pub(super) fn new(has_grpc_frames: bool) -> Self {
        Self {
            frames: has_grpc_frames.then(Frames::default),
            ..Self::default()
        }
    }

    /// Looks for these values from now on, which only ever become more.
    pub(super) fn know(&mut self, values: &[SecretValue], limits: &Limits) {
        if values.len() == self.known {
            return;
        }
        self.known = values.len();
        let Some(redactor) = Redactor::within(values, limits) else {
            return;
        };
        self.stream = Some(match self.stream.take() {
            Some(stream) => stream.looking_for(redactor),
            None => redactor.stream(),
        });
    }

    /// Bytes that are held back here.
    pub(super) fn held(&self) -> usize {
        self.stream.as_ref().map_or(0, MaskStream::held)
    }

    /// Whether a piece ends in what may be the beginning of a value.
    pub(super) fn ends_in_a_beginning(&self, piece: &[u8]) -> bool {
        let stream = self.stream.as_ref();
        !self.ends_a_message(piece)
            && stream.is_some_and(|stream| stream.ends_in_a_beginning(piece).is_some())
    }

    fn ends_a_message(&self, piece: &[u8]) -> bool {
        self.frames
            .is_some_and(|frames| frames.after(piece).is_between_messages())
    }

    /// The next piece; what may go on now comes back.
    pub(super) fn piece(&mut self, piece: &[u8], end: bool) -> Zeroizing<Vec<u8>> {
        let end = end || self.ends_a_message(piece);
        self.frames = self.frames.map(|frames| frames.after(piece));
        match &mut self.stream {
            Some(stream) => stream.piece(piece, end),
            None => Zeroizing::new(piece.to_vec()),
        }
    }
}
