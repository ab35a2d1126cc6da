//! HTTP calls out, and what each host shows of the ways in which they end.

use crate::headers::Headers;
use crate::host::Dialect;
use crate::stream::Response;

/// A call that waits for its end.
#[derive(Clone, Debug)]
pub struct Call {
    /// The number that the filter got.
    pub token: u32,
    /// The worker that made it.
    pub worker: usize,
    /// The context that made it; the root's for all calls on Envoy.
    pub context: u32,
    /// The request that this call belongs to, on WasmX.
    pub(crate) stream: Option<u32>,
    /// Envoy: a cluster. WasmX: `host:port`.
    pub upstream: String,
    /// Pseudo-headers and headers.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// Until when the host waits, in milliseconds; `None` for ever.
    pub deadline: Option<u64>,
}

/// How a call ends.
#[derive(Clone, Debug)]
pub enum Ending {
    /// An answer.
    Answer(Response),
    /// Nobody answers in time.
    Timeout,
    /// Nobody listens, or the connection breaks.
    Refused,
    /// The certificate does not fit.
    Tls,
    /// The name is unknown.
    Dns,
    /// The connection ends before the first byte.
    Closed,
    /// The connection ends inside the body of this answer.
    Cut(Response),
}

/// What the filter can read in `proxy_on_http_call_response`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
    /// The size that is announced: more than there is for an answer that was cut.
    pub(crate) announced: usize,
}

impl Ending {
    /// `says_status`: whether this WasmX has `:dispatch_status` (Kong 3.9 on).
    pub(crate) fn shown(self, dialect: Dialect, says_status: bool) -> Shown {
        match dialect {
            Dialect::Envoy => self.in_envoy(),
            Dialect::Wasmx => self.in_wasmx(says_status),
        }
    }

    /// A failure is an answer that Envoy makes itself; one that was cut has nothing at all.
    fn in_envoy(self) -> Shown {
        let made = |status: &str, text: &str| {
            let headers = [(":status", status), ("content-type", "text/plain")];
            Shown {
                headers: Headers::of(&headers),
                body: text.as_bytes().to_vec(),
                announced: text.len(),
            }
        };
        match self {
            Self::Answer(response) => whole(response, true, None),
            Self::Timeout => made("504", "upstream request timeout"),
            Self::Refused | Self::Dns => made(
                "503",
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
            ),
            Self::Tls => made(
                "503",
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, transport failure reason: TLS_error",
            ),
            Self::Closed => made(
                "503",
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
            ),
            Self::Cut(_) => Shown::default(),
        }
    }

    /// wasmx.md, section 9: "ok" even for an answer that was cut.
    fn in_wasmx(self, says_status: bool) -> Shown {
        let failed = |word: &str| Shown {
            headers: if says_status {
                Headers::of(&[(":dispatch_status", word)])
            } else {
                Headers::default()
            },
            ..Shown::default()
        };
        match self {
            Self::Answer(response) => whole(response, false, says_status.then_some("ok")),
            Self::Timeout => failed("timeout"),
            Self::Refused => failed("broken connection"),
            Self::Tls => failed("tls handshake failure"),
            Self::Dns => failed("resolver failure"),
            Self::Closed => failed("ok"),
            Self::Cut(response) => {
                let mut shown = whole(response, false, says_status.then_some("ok"));
                shown.announced = shown.announced.max(1);
                shown.body.truncate(shown.announced / 2);
                shown
            }
        }
    }
}

fn whole(response: Response, lower_case: bool, dispatch: Option<&str>) -> Shown {
    let mut headers = Headers::default();
    headers.push(":status", response.status.to_string().as_bytes());
    if let Some(word) = dispatch {
        headers.push(":dispatch_status", word.as_bytes());
    }
    for (name, value) in response.headers.iter() {
        headers.push(name, value);
    }
    Shown {
        headers: if lower_case {
            headers.lower_case()
        } else {
            headers
        },
        announced: response.body.len(),
        body: response.body,
    }
}
