//! One request and its response: what the filters of the chain see, what goes over the wire, and where it
//! stands.

use std::collections::{BTreeMap, VecDeque};

use crate::headers::Headers;

/// A request as a client sends it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Pseudo-headers (`:method`, `:path`, …) and headers.
    pub headers: Headers,
    /// The body in the pieces in which it comes; none for no body.
    pub body: Vec<Vec<u8>>,
    /// Trailers; with them, no piece of the body is the last one.
    pub trailers: Headers,
    /// More comes later, by `client_sends` and `client_ends`.
    pub more: bool,
    /// The client's connection; `None` for one of its own.
    pub connection: Option<u64>,
}

impl Request {
    /// `GET` of this path.
    #[must_use]
    pub fn get(path: &str, headers: &[(&str, &str)]) -> Self {
        let mut all = Headers::of(&[
            (":method", "GET"),
            (":path", path),
            (":scheme", "http"),
            (":authority", "gateway.test"),
        ]);
        for (name, value) in headers {
            all.push(name, value.as_bytes());
        }
        Self {
            headers: all,
            ..Self::default()
        }
    }

    /// `POST` of this body, in one piece, with its type and length.
    #[must_use]
    pub fn post(path: &str, content_type: &str, body: &[u8]) -> Self {
        let mut request = Self::get(path, &[("content-type", content_type)]);
        request.headers.set(":method", b"POST");
        request
            .headers
            .push("content-length", body.len().to_string().as_bytes());
        request.body = vec![body.to_vec()];
        request
    }

    /// The same body in pieces of this size.
    #[must_use]
    pub fn in_pieces(mut self, size: usize) -> Self {
        let whole = self.body.concat();
        self.body = whole.chunks(size.max(1)).map(<[u8]>::to_vec).collect();
        self
    }

    /// Without a length, as HTTP/2 and chunked requests may be.
    #[must_use]
    pub fn without_length(mut self) -> Self {
        self.headers.remove("content-length");
        self
    }

    /// With these trailers, which no `content-length` goes with in HTTP/1.1.
    #[must_use]
    pub fn with_trailers(mut self, trailers: &[(&str, &str)]) -> Self {
        self.trailers = Headers::of(trailers);
        self.without_length()
    }
}

/// What an upstream answers, or a call gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// Trailers; with them, no piece of the body is the last one.
    pub trailers: Headers,
    /// In how large pieces the body comes; `None` as the gateway's settings have it.
    pub pieces: Option<usize>,
    /// More comes later, by `upstream_sends` and `upstream_ends`.
    pub more: bool,
    /// Envoy follows this redirect itself: the changed request passes the filters again, with this path.
    pub redirect: Option<String>,
}

impl Response {
    /// An answer of these.
    #[must_use]
    pub fn new(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        Self {
            status,
            headers: Headers::of(headers),
            body: body.to_vec(),
            ..Self::default()
        }
    }

    /// With these trailers.
    #[must_use]
    pub fn with_trailers(mut self, trailers: &[(&str, &str)]) -> Self {
        self.trailers = Headers::of(trailers);
        self
    }

    /// Its body in pieces of this size.
    #[must_use]
    pub const fn in_pieces(mut self, size: usize) -> Self {
        self.pieces = Some(size);
        self
    }
}

/// What the upstream got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Pseudo-headers and headers.
    pub headers: Headers,
    /// The body, or the part received so far.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Headers,
    /// Whether that is all.
    pub complete: bool,
    /// When the headers came, in milliseconds.
    pub time: u64,
}

/// What the client got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Headers,
    /// The body, or the part received so far.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Headers,
    /// Whether a filter made it.
    pub local: bool,
}

/// Where a request stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is under way.
    Waiting,
    /// The client has its whole answer.
    Answered(Answer),
    /// The answer broke off here: the stream was reset, or the connection closed.
    Reset(Answer),
    /// The client left.
    Gone,
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Request,
    Response,
}

/// A part of a message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Headers { end: bool },
    Data { bytes: Vec<u8>, end: bool },
    Trailers,
}

/// Envoy: what a filter holds of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Nothing,
    /// Paused in the header phase: the host calls nothing until it is resumed.
    All,
    /// The same with `allow_on_headers_stop_iteration`: the body's callbacks go on.
    Headers,
    /// Paused in the body phase: the host buffers, and shows all of it with the next piece.
    Body,
    /// Paused in the trailers.
    Trailers,
}

/// One filter's view of one message.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) input: VecDeque<Part>,
    pub(crate) hold: Hold,
    /// The filter asked for it to go on.
    pub(crate) resume: bool,
    /// The headers came to this filter.
    pub(crate) begun: bool,
    /// The headers left this filter: it cannot change them any more.
    pub(crate) headers_gone: bool,
    /// What the filter sees of the body: the piece, or all that is held; `None` outside of its time.
    pub(crate) buffer: Option<Vec<u8>>,
    /// The end of the message is in what is held.
    pub(crate) ended: bool,
    /// The trailers came to this filter.
    pub(crate) trailers: bool,
}

impl Default for Side {
    fn default() -> Self {
        Self {
            input: VecDeque::new(),
            hold: Hold::Nothing,
            resume: false,
            begun: false,
            headers_gone: false,
            buffer: None,
            ended: false,
            trailers: false,
        }
    }
}

/// One filter of the chain, in one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hop {
    pub(crate) context: u32,
    pub(crate) root: u32,
    /// The module has this context.
    pub(crate) created: bool,
    pub(crate) request: Side,
    pub(crate) response: Side,
    /// WasmX: calls of this request that were not answered yet.
    pub(crate) calls: usize,
}

impl Hop {
    pub(crate) fn side(&mut self, way: Way) -> &mut Side {
        match way {
            Way::Request => &mut self.request,
            Way::Response => &mut self.response,
        }
    }
}

/// WasmX: where in its life a request is; the number is that of the next filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    RequestHeaders(usize),
    RequestBody(usize),
    Upstream,
    ResponseHeaders,
    ResponseBody,
}

/// One request in the host.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) hops: Vec<Hop>,
    pub(crate) request: Request,
    /// What the filters see of the headers.
    pub(crate) headers: Headers,
    /// What the upstream gets, where that is not what the filters see.
    pub(crate) wire: Headers,
    pub(crate) trailers: Headers,
    pub(crate) upstream_uri: Option<Vec<u8>>,
    pub(crate) query: Option<Vec<u8>>,
    /// Which connection, which request on it, and which of all.
    pub(crate) connection: u64,
    pub(crate) nth: u64,
    pub(crate) number: u64,

    // WasmX.
    pub(crate) phase: Phase,
    /// It waits for its own calls.
    pub(crate) waits: bool,
    /// The whole body, as it came or was replaced.
    pub(crate) body: Vec<u8>,
    pub(crate) body_in_file: bool,
    pub(crate) body_replaced: bool,
    /// The filter that replaced the body: the next one reads it as cut.
    pub(crate) replaced_by: Option<usize>,
    /// A local reply from a call's answer: it goes out when the phase's other filters have run.
    pub(crate) stashed: Option<Answer>,

    pub(crate) sent: Option<Sent>,
    pub(crate) response: Option<Response>,
    pub(crate) response_headers: Headers,
    pub(crate) response_trailers: Headers,
    pub(crate) response_begun: bool,
    /// An answer that a filter made in place of the upstream's, and the host has not taken yet.
    pub(crate) local: Option<Answer>,
    /// What the client has; with its headers once they came.
    pub(crate) client: Option<Answer>,
    pub(crate) made_here: bool,
    pub(crate) over: bool,
    pub(crate) complete: bool,
    pub(crate) reset: bool,
    pub(crate) gone: bool,
    pub(crate) redirects: usize,
    /// Envoy: bytes of the request's body that have come.
    pub(crate) received: usize,
    /// Envoy: properties that filters set; declared ones outlive an internal redirect.
    pub(crate) properties: BTreeMap<String, Vec<u8>>,
}

impl Stream {
    pub(crate) fn new(mut request: Request, lower_case: bool) -> Self {
        let mut headers = std::mem::take(&mut request.headers);
        if lower_case {
            headers = headers.lower_case();
        }
        let wire = headers.clone();
        if !lower_case {
            view_of_nginx(&mut headers);
        }
        let body = if lower_case {
            Vec::new()
        } else {
            request.body.concat()
        };
        Self {
            hops: Vec::new(),
            trailers: request.trailers.clone(),
            wire,
            headers,
            request,
            upstream_uri: None,
            query: None,
            connection: 0,
            nth: 0,
            number: 0,
            phase: Phase::RequestHeaders(0),
            waits: false,
            body,
            body_in_file: false,
            body_replaced: false,
            replaced_by: None,
            stashed: None,
            sent: None,
            response: None,
            response_headers: Headers::default(),
            response_trailers: Headers::default(),
            response_begun: false,
            local: None,
            client: None,
            made_here: false,
            over: false,
            complete: false,
            reset: false,
            gone: false,
            redirects: 0,
            received: 0,
            properties: BTreeMap::new(),
        }
    }

    pub(crate) fn calls(&self) -> usize {
        self.hops.iter().map(|hop| hop.calls).sum()
    }

    /// Where it stands, for a test.
    pub(crate) fn outcome(&self) -> Outcome {
        let so_far = || self.client.clone().unwrap_or_default();
        if self.complete {
            Outcome::Answered(so_far())
        } else if self.reset {
            Outcome::Reset(so_far())
        } else if self.gone {
            Outcome::Gone
        } else {
            Outcome::Waiting
        }
    }

    pub(crate) fn is_head(&self) -> bool {
        self.wire.text(":method") == "HEAD"
    }

    /// Bytes flow both ways after the header phase, and no length tells their end.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.wire.text(":method") == "CONNECT" || self.wire.get("upgrade").is_some()
    }
}

/// wasmx.md, section 8: `:authority` is the server's own name, `host` the client's; `:path` is what nginx
/// made of it.
fn view_of_nginx(headers: &mut Headers) {
    let authority = headers.get(":authority").map(<[u8]>::to_vec);
    if let Some(authority) = authority {
        headers.set(":authority", b"gateway:8000");
        if headers.get("host").is_none() {
            headers.push("Host", &authority);
        }
    }
    if let Some(path) = headers.get(":path").map(<[u8]>::to_vec) {
        headers.set(":path", &normalized(&path));
    }
}

/// nginx's `$uri` with its arguments: escapes decoded, slashes merged, dots resolved.
fn normalized(target: &[u8]) -> Vec<u8> {
    let end = target.iter().position(|b| *b == b'?');
    let (path, rest) = target.split_at(end.unwrap_or(target.len()));
    let mut plain = Vec::new();
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        let digits = path
            .get(at + 1..at + 3)
            .and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                plain.push(decoded);
                at += 3;
            }
            _ => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in plain.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut out = vec![b'/'];
    out.extend(parts.join(&b'/'));
    if plain.ends_with(b"/") && !parts.is_empty() {
        out.push(b'/');
    }
    out.extend(rest);
    out
}
