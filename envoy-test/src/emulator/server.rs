//! The sockets: HTTPS for Entra ID and Key Vault, plain HTTP for managed identity and the admin API. It
//! carries out delays and cuts, and knows nothing of what is answered.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::admin;
use super::azure::{Azure, Reply};
use super::ca::TestCa;
use super::faults::Cut;

/// The names that the emulator's certificate is good for.
const NAMES: [&str; 8] = [
    "localhost",
    "127.0.0.1",
    "*.vault.azure.net",
    "*.vault.localhost",
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "*.vault.usgovcloudapi.net",
    "emulator",
];

/// Ports; 0 takes any that is free.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// HTTPS: Entra ID and Key Vault.
    pub tls_port: u16,
    /// HTTP: managed identity and the admin API.
    pub plain_port: u16,
    /// Where to listen: 127.0.0.1 unless it is given. The admin API has no password.
    pub address: Option<IpAddr>,
}

/// A running emulator; stops when dropped.
pub struct Server {
    /// Where HTTPS is served.
    pub tls: SocketAddr,
    /// Where HTTP is served.
    pub plain: SocketAddr,
    ca_pem: String,
    runtime: Option<Runtime>,
}

impl Server {
    /// Starts serving.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn start(azure: &Azure, options: Options) -> Result<Self> {
        Self::start_with(azure, options, &TestCa::new()?)
    }

    /// As [`Server::start`], with an authority that was made before.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn start_with(azure: &Azure, options: Options, ca: &TestCa) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("starting the emulator's runtime")?;
        let acceptor = acceptor(ca)?;
        let (tls, plain) = runtime.block_on(async {
            let address = options.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let tls = listen((address, options.tls_port).into()).await?;
            let plain = listen((address, options.plain_port).into()).await?;
            let addresses = (tls.local_addr()?, plain.local_addr()?);
            tokio::spawn(serve(tls, azure.clone(), Some(acceptor)));
            tokio::spawn(serve(plain, azure.clone(), None));
            anyhow::Ok(addresses)
        })?;
        Ok(Self {
            tls,
            plain,
            ca_pem: ca.pem().to_owned(),
            runtime: Some(runtime),
        })
    }

    /// The certificate of the authority that signed the emulator's.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Connections that a fault keeps waiting must not keep the test waiting.
            runtime.shutdown_background();
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))
}

fn acceptor(ca: &TestCa) -> Result<TlsAcceptor> {
    let (certificate, key) = ca.issue(&NAMES)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, azure: Azure, tls: Option<TlsAcceptor>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (azure, tls) = (azure.clone(), tls.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match tls {
                None => connection(stream, azure, true).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        connection(stream, azure, false).await;
                    }
                }
            }
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, azure: Azure, admin: bool) {
    let service = service_fn(|request| respond(request, azure.clone(), admin));
    let http = hyper::server::conn::http1::Builder::new();
    // A client that goes away, or a cut that was asked for, ends a connection with an error.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

/// An error closes the connection without an answer, which is what a cut is.
async fn respond(
    request: Request<Incoming>,
    azure: Azure,
    admin: bool,
) -> io::Result<Response<CutBody>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let request = Request::from_parts(parts, body);
    if admin && request.uri().path().starts_with("/admin/") {
        return Ok(admin::answer(&azure, &request).map(|body| CutBody::whole(body.into())));
    }
    let Reply {
        response,
        delay,
        cut,
    } = azure.answer(&request);
    tokio::time::sleep(delay).await;
    match cut {
        Some(Cut::BeforeAnswer) => Err(io::Error::other("cut")),
        Some(Cut::InBody) => Ok(response.map(CutBody::half)),
        None => Ok(response.map(CutBody::whole)),
    }
}

/// A body that announces its length and may break off in the middle.
struct CutBody {
    data: Option<Bytes>,
    length: u64,
    broken: bool,
    /// What was sent is on its way before the connection breaks.
    flushed: bool,
}

impl CutBody {
    fn whole(data: Bytes) -> Self {
        Self {
            length: data.len() as u64,
            data: Some(data),
            broken: false,
            flushed: false,
        }
    }

    fn half(data: Bytes) -> Self {
        let half = data.slice(..data.len() / 2);
        Self {
            length: data.len() as u64,
            data: Some(half),
            broken: true,
            flushed: false,
        }
    }
}

impl Body for CutBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.data.take() {
            Some(data) if !data.is_empty() => Poll::Ready(Some(Ok(Frame::data(data)))),
            _ if self.broken && !self.flushed => {
                // hyper throws away what it has not written yet when a body fails, and writes when a body
                // has nothing to give: without this turn the client would not see one byte.
                self.flushed = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            _ if self.broken => Poll::Ready(Some(Err(io::Error::other("cut")))),
            _ => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }

    fn is_end_stream(&self) -> bool {
        !self.broken && self.data.as_ref().is_none_or(Bytes::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Endpoint, Fault};
    use super::*;
    use crate::client;

    fn ask(server: &Server) -> Vec<u8> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(server.plain).unwrap();
        let request = b"GET /secrets/db?api-version=7.6 HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut bytes = Vec::new();
        // A reset is a cut too.
        let _ = stream.read_to_end(&mut bytes);
        bytes
    }

    #[test]
    fn a_cut_is_where_it_was_asked_for() {
        let azure = Azure::new();
        let server = Server::start(&azure, Options::default()).unwrap();
        azure.fail(Endpoint::Secrets, Fault::Cut(Cut::BeforeAnswer));
        assert_eq!(ask(&server), b"");
        azure.fail(Endpoint::Secrets, Fault::Cut(Cut::InBody));
        let text = String::from_utf8(ask(&server)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length = head
            .lines()
            .find_map(|l| l.strip_prefix("content-length: "));
        let length: usize = length.unwrap().parse().unwrap();
        assert_eq!(body.len(), length / 2);
    }

    #[test]
    fn the_admin_api_counts_and_refuses() {
        let azure = Azure::new();
        let server = Server::start(&azure, Options::default()).unwrap();
        let put = |path: &str| {
            let request = format!(
                "PUT {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1\r\n\r\nv"
            );
            client::send(server.plain, request.as_bytes())
                .unwrap()
                .status
        };
        assert_eq!(put("/admin/secrets/db"), 200);
        assert_eq!(put("/admin/vaults/payments/secrets/db"), 200);
        assert_eq!(put("/admin/secrets/a_b"), 400);
        assert_eq!(put("/admin/latency/secrets"), 400);
        assert_eq!(put("/admin/nonsense"), 404);
    }
}
