//! HTTP/1.1 and HTTP/2 for tests that have to see a message piece by piece: bodies that are written while the
//! other side reads, trailers, and a client that gets an answer before it has sent all. Over hyper; it does not
//! know the gateway.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Longer than any single step of a test may take; what takes longer hangs.
pub const STEP: Duration = Duration::from_secs(8);

/// Any body.
pub type Body = BoxBody<Bytes, anyhow::Error>;

/// The version of HTTP on one side of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, known in advance.
    Http2,
}

/// Both.
pub const VERSIONS: [Version; 2] = [Version::Http1, Version::Http2];

/// Waits for one step.
///
/// # Errors
/// When it takes longer than [`STEP`]: then something hangs.
pub async fn within<T>(what: &str, step: impl Future<Output = T>) -> Result<T> {
    let step = tokio::time::timeout(STEP, step).await;
    step.with_context(|| format!("{what}: not within {} s", STEP.as_secs()))
}

/// No body.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A body whose length is known.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

/// A body of unknown length that is written piece by piece.
#[must_use]
pub fn streamed() -> (Writer, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = Frames(receiver);
    (Writer(sender), StreamBody::new(frames).boxed())
}

/// These pieces, then these trailers if there are any.
#[must_use]
pub fn pieces(pieces: &[&[u8]], trailers: &[(&'static str, &str)]) -> Body {
    let (sender, receiver) = mpsc::channel(pieces.len() + 1);
    for piece in pieces {
        let frame = Frame::data(Bytes::copy_from_slice(piece));
        let _ = sender.try_send(Ok(frame));
    }
    if !trailers.is_empty() {
        let _ = sender.try_send(Ok(Frame::trailers(header_map(trailers))));
    }
    StreamBody::new(Frames(receiver)).boxed()
}

/// Headers from text.
///
/// # Panics
/// When a value is not one of a header: then the test is wrong.
#[must_use]
pub fn header_map(headers: &[(&'static str, &str)]) -> HeaderMap {
    let headers = headers.iter().map(|(name, value)| {
        let value = HeaderValue::from_str(value).expect("a header's value");
        (HeaderName::from_static(name), value)
    });
    headers.collect()
}

struct Frames(mpsc::Receiver<Result<Frame<Bytes>>>);

impl futures_core::Stream for Frames {
    type Item = Result<Frame<Bytes>>;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Writes a [`streamed`] body, which ends when this is dropped.
pub struct Writer(mpsc::Sender<Result<Frame<Bytes>>>);

impl Writer {
    /// The next piece.
    ///
    /// # Errors
    /// When the other side takes no more.
    pub async fn send(&self, piece: impl Into<Bytes>) -> Result<()> {
        self.frame(Ok(Frame::data(piece.into()))).await
    }

    /// Breaks the stream off, so that it is not taken for a whole message.
    pub async fn abort(self) {
        let _ = self
            .frame(Err(anyhow::anyhow!("the test breaks off")))
            .await;
    }

    async fn frame(&self, frame: Result<Frame<Bytes>>) -> Result<()> {
        let sent = within("writing a piece", self.0.send(frame)).await?;
        sent.ok().context("the other side takes no more")
    }
}

/// A message's body as it arrives.
pub struct Reader {
    body: Incoming,
    /// All data that was read.
    pub read: Vec<u8>,
    /// The trailers, once they were read.
    pub trailers: Option<HeaderMap>,
}

impl Reader {
    /// Of this body.
    #[must_use]
    pub fn new(body: Incoming) -> Self {
        Self {
            body,
            read: Vec::new(),
            trailers: None,
        }
    }

    /// The next piece of data; `None` at the end.
    ///
    /// # Errors
    /// When the stream breaks off, or nothing comes.
    pub async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = within("waiting for the next piece", self.body.frame()).await?;
            let Some(frame) = frame else {
                return Ok(None);
            };
            match frame.context("reading the next piece")?.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    self.read.extend_from_slice(&data);
                    return Ok(Some(data));
                }
                Err(other) => self.trailers = other.into_trailers().ok(),
            }
        }
    }

    /// Reads until this much is there.
    ///
    /// # Errors
    /// When the stream ends before, or nothing comes.
    pub async fn until(&mut self, length: usize) -> Result<&[u8]> {
        while self.read.len() < length {
            if self.piece().await?.is_none() {
                bail!(
                    "{length} bytes are expected, and the body ends after {:?}",
                    String::from_utf8_lossy(&self.read)
                );
            }
        }
        Ok(&self.read)
    }

    /// Reads to the end.
    ///
    /// # Errors
    /// When the stream breaks off, or nothing comes.
    pub async fn to_end(&mut self) -> Result<&[u8]> {
        while self.piece().await?.is_some() {}
        Ok(&self.read)
    }
}

/// An answer that was read to its end.
#[derive(Clone, Debug)]
pub struct Whole {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: HeaderMap,
}

impl Whole {
    /// Reads an answer to its end.
    ///
    /// # Errors
    /// When it breaks off, or nothing comes.
    pub async fn read(response: Response<Incoming>) -> Result<Self> {
        let (head, body) = response.into_parts();
        let mut reader = Reader::new(body);
        reader.to_end().await?;
        Ok(Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body: reader.read,
            trailers: reader.trailers.unwrap_or_default(),
        })
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's first value as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        text_of(&self.headers, name)
    }

    /// A trailer's first value as text.
    #[must_use]
    pub fn trailer(&self, name: &str) -> Option<String> {
        text_of(&self.trailers, name)
    }
}

/// The first value of a header, as text.
#[must_use]
pub fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// A connection of a client.
pub enum Client {
    /// Over HTTP/1.1.
    Http1(conn::http1::SendRequest<Body>),
    /// Over HTTP/2.
    Http2(conn::http2::SendRequest<Body>),
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn connect(address: SocketAddr, version: Version) -> Result<Self> {
        let stream = TcpStream::connect(address).await;
        let stream = stream.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        // A connection's own errors show at its requests.
        Ok(match version {
            Version::Http1 => {
                let (sender, connection) = conn::http1::handshake(stream).await?;
                tokio::spawn(async move { drop(connection.with_upgrades().await) });
                Self::Http1(sender)
            }
            Version::Http2 => {
                let executor = TokioExecutor::new();
                let (sender, connection) = conn::http2::handshake(executor, stream).await?;
                tokio::spawn(async move { drop(connection.await) });
                Self::Http2(sender)
            }
        })
    }

    /// Sends a request, whose body may still be written while the answer comes. Returns at the answer's
    /// headers.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>> {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = match self {
            Self::Http1(sender) => within(&what, sender.send_request(request)).await?,
            Self::Http2(sender) => within(&what, sender.send_request(request)).await?,
        };
        answer.with_context(|| format!("waiting for the answer to {what}"))
    }

    /// The same, and reads the whole answer.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn whole(&mut self, request: Request<Body>) -> Result<Whole> {
        Whole::read(self.send(request).await?).await
    }
}

/// A request for this path of the gateway.
///
/// # Panics
/// When the path or a header is not one: then the test is wrong.
#[must_use]
pub fn request(
    version: Version,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> Request<Body> {
    let mut request = Request::builder().method(method);
    request = match version {
        Version::Http1 => request.uri(path).header("host", "gateway.test"),
        Version::Http2 => request
            .uri(format!("http://gateway.test{path}"))
            .version(http::Version::HTTP_2),
    };
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).expect("a request")
}
