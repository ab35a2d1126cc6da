//! An upstream that a test scripts path by path: it speaks HTTP/1.1 and HTTP/2, sees a request piece by piece,
//! and may answer before it has read all. It does not know the gateway, and nothing of secrets.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;

use crate::exchange::{Body, Reader, full, text_of};

/// The outcome of one request: what was received of it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
    /// What was read of the body.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: HeaderMap,
    /// Whether it was read to its regular end.
    pub complete: bool,
}

impl Seen {
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

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Handler = Arc<dyn Fn(Exchange) -> Answering + Send + Sync>;

#[derive(Default)]
struct State {
    handlers: BTreeMap<String, Handler>,
    seen: Vec<Seen>,
}

/// A running upstream; it ends with the runtime that it was started on.
#[derive(Clone)]
pub struct Scripted {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// A request that is being answered.
pub struct Exchange {
    /// The request's head.
    pub head: http::request::Parts,
    body: Reader,
    state: Arc<Mutex<State>>,
    at: usize,
}

impl Scripted {
    /// Starts on a free port of 127.0.0.1. A path without a handler is answered with the request's body.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.context("starting the scripted upstream")?;
        let address = listener.local_addr()?;
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| serve(Arc::clone(&state), request));
                    let builder = Builder::new(TokioExecutor::new());
                    // A gateway may close whenever it likes.
                    drop(
                        builder
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Ok(Self { address, state })
    }

    /// Answers requests whose last part of the path is `name` by this.
    pub fn on<F, A>(&self, name: &str, handler: F)
    where
        F: Fn(Exchange) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |exchange| Box::pin(handler(exchange)));
        lock(&self.state).handlers.insert(name.to_owned(), handler);
    }

    /// What came for `name`, in the order in which it began to arrive.
    #[must_use]
    pub fn seen(&self, name: &str) -> Vec<Seen> {
        let state = lock(&self.state);
        let seen = state.seen.iter().filter(|seen| last(&seen.target) == name);
        seen.cloned().collect()
    }

    /// The last one that came for `name`.
    ///
    /// # Panics
    /// When none came.
    #[must_use]
    pub fn last(&self, name: &str) -> Seen {
        let last = self.seen(name).pop();
        last.unwrap_or_else(|| panic!("the upstream got no request for {name}"))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `name` in `/h2/name?query`.
fn last(target: &str) -> &str {
    let path = target.split('?').next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

async fn serve(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let target = head
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    let (at, handler) = {
        let mut state = lock(&state);
        state.seen.push(Seen {
            method: head.method.to_string(),
            target: target.to_owned(),
            headers: head.headers.clone(),
            ..Seen::default()
        });
        (
            state.seen.len() - 1,
            state.handlers.get(last(target)).cloned(),
        )
    };
    let mut exchange = Exchange {
        body: Reader::new(body),
        head,
        state,
        at,
    };
    Ok(match handler {
        Some(handler) => handler(exchange).await,
        None => match exchange.whole().await {
            Ok(body) => respond(200, &[("content-type", "text/plain")], full(body)),
            Err(_) => respond(400, &[], full("the request breaks off")),
        },
    })
}

impl Exchange {
    /// The next piece of the request's body; `None` at its end.
    ///
    /// # Errors
    /// When it breaks off, or nothing comes.
    pub async fn piece(&mut self) -> Result<Option<Bytes>> {
        let piece = self.body.piece().await?;
        if let Some(seen) = lock(&self.state).seen.get_mut(self.at) {
            seen.body.clone_from(&self.body.read);
            seen.trailers = self.body.trailers.clone().unwrap_or_default();
            seen.complete = piece.is_none();
        }
        Ok(piece)
    }

    /// The whole body.
    ///
    /// # Errors
    /// When it breaks off, or nothing comes.
    pub async fn whole(&mut self) -> Result<Vec<u8>> {
        while self.piece().await?.is_some() {}
        Ok(self.body.read.clone())
    }

    /// The request's trailers, once it was read to its end.
    #[must_use]
    pub fn trailers(&self) -> HeaderMap {
        self.body.trailers.clone().unwrap_or_default()
    }

    /// A header's first value as text.
    #[must_use]
    pub fn header(&self, name: &str) -> String {
        text_of(&self.head.headers, name).unwrap_or_default()
    }
}

/// An answer.
///
/// # Panics
/// When the status or a header is not one: then the test is wrong.
#[must_use]
pub fn respond(status: u16, headers: &[(&str, &str)], body: Body) -> Response<Body> {
    let status = StatusCode::from_u16(status).expect("a status");
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body).expect("an answer")
}
