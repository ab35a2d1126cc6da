//! One request and its response: what the filter sees, what goes over the wire, and where it stands.

use crate::headers::Headers;

/// A request as a client sends it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Pseudo-headers (`:method`, `:path`, …) and headers.
    pub headers: Headers,
    /// The body in the chunks in which it comes; none for no body.
    pub body: Vec<Vec<u8>>,
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
            body: Vec::new(),
        }
    }

    /// `POST` of this body, in one chunk, with its type and length.
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
}

impl Response {
    /// An answer of these.
    #[must_use]
    pub fn new(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        Self {
            status,
            headers: Headers::of(headers),
            body: body.to_vec(),
        }
    }
}

/// What the upstream got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Pseudo-headers and headers.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// When, in milliseconds.
    pub time: u64,
}

/// What the client got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the filter made it.
    pub local: bool,
}

/// Where a request stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It waits in the filter.
    Waiting,
    /// The client has its answer.
    Answered(Answer),
    /// The client left.
    Gone,
}

/// Where in its life a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    RequestHeaders,
    RequestBody,
    ResponseHeaders,
    ResponseBody,
    Done,
}

/// One request in the host.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) phase: Phase,
    /// The filter said `Pause`, and has not let it go since.
    pub(crate) paused: bool,
    /// The filter asked for it to go on.
    pub(crate) resume: bool,
    /// The headers have left the filter: no change reaches them.
    pub(crate) headers_sent: bool,
    pub(crate) headers: Headers,
    /// What the upstream gets, where that is not what the filter sees.
    pub(crate) wire: Headers,
    /// Chunks that have not come yet.
    pub(crate) coming: Vec<Vec<u8>>,
    /// What the filter sees of the body: all that is held.
    pub(crate) buffer: Vec<u8>,
    pub(crate) buffer_replaced: bool,
    /// WasmX put the body into a file.
    pub(crate) body_in_file: bool,
    /// The body went to the upstream already.
    pub(crate) body_sent: Vec<u8>,
    pub(crate) response: Response,
    pub(crate) response_headers: Headers,
    pub(crate) local: Option<Answer>,
    /// The response is the filter's.
    pub(crate) made_here: bool,
    pub(crate) calls: usize,
    pub(crate) sent: Option<Sent>,
    pub(crate) answer: Option<Answer>,
    pub(crate) gone: bool,
    pub(crate) upstream_uri: Option<Vec<u8>>,
    pub(crate) query: Option<Vec<u8>>,
}

impl Stream {
    pub(crate) fn new(request: Request, lower_case: bool) -> Self {
        let headers = if lower_case {
            request.headers.lower_case()
        } else {
            request.headers
        };
        Self {
            phase: Phase::RequestHeaders,
            paused: false,
            resume: false,
            headers_sent: false,
            wire: headers.clone(),
            headers,
            coming: request.body,
            buffer: Vec::new(),
            buffer_replaced: false,
            body_in_file: false,
            body_sent: Vec::new(),
            response: Response::default(),
            response_headers: Headers::default(),
            local: None,
            made_here: false,
            calls: 0,
            sent: None,
            answer: None,
            gone: false,
            upstream_uri: None,
            query: None,
        }
    }

    /// Where it stands, for a test.
    pub(crate) fn outcome(&self) -> Outcome {
        match (&self.answer, self.gone) {
            (Some(answer), _) => Outcome::Answered(answer.clone()),
            (None, true) => Outcome::Gone,
            (None, false) => Outcome::Waiting,
        }
    }
}
