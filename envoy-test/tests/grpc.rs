//! gRPC of all four kinds through a real Envoy, with tonic on both sides and messages of plain bytes: every
//! message arrives as soon as it was sent, with the length that its prefix says; body rules never apply; what is
//! denied has a gRPC status.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf as _, BufMut as _, Bytes};
use envoy_test::emulator::{Endpoint, Fault};
use envoy_test::envoy::{add_cluster, add_route};
use envoy_test::exchange::{Version, full, pieces, request, within};
use envoy_test::lab::Lab;
use envoy_test::world::{CLIENT_SECRET, listener};
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::BoxFuture;
use tonic::server::{
    ClientStreamingService, ServerStreamingService, StreamingService, UnaryService,
};
use tonic::transport::{Channel, Endpoint as Address};
use tonic::{Code, Request, Response, Status, Streaming};

const MARK: &str = "pl4nted";
const SECRETS: &[&str] = &[MARK, CLIENT_SECRET];
const LISTENERS: [&str; 4] = ["plain", "masked", "rules", "rules-held"];

type Head = (String, http::HeaderMap);
/// Path and headers of the calls that reached the server.
static CALLS: LazyLock<Arc<Mutex<Vec<Head>>>> = LazyLock::new(Arc::default);

static LAB: LazyLock<Lab> = LazyLock::new(|| {
    let types = [
        "application/*+json",
        "application/json",
        "application/x-www-form-urlencoded",
        "text/plain",
    ];
    let resolve = json!({ "headers": ["x-*"], "allow": ["azure/open-*"] });
    let all = json!({ "headers": ["x-*"], "body": types, "allow": ["azure/open-*"] });
    let set = json!({ "headers": { "authorization": "Bearer {vault://azure/long}" } });
    let plain = json!({ "request": { "resolve": resolve } });
    let masked =
        json!({ "request": { "set": set, "resolve": resolve }, "response": { "redact": true } });
    let rules = json!({ "request": { "set": set, "resolve": all },
        "response": { "redact": true, "resolve": { "body": types, "allow": ["azure/open-*"] } } });
    let listeners = [
        listener("plain", &plain, false),
        listener("masked", &masked, false),
        listener("rules", &rules, false),
        listener("rules-held", &rules, true),
    ];
    let servers = tokio::runtime::Runtime::new().expect("a runtime");
    let server = servers.block_on(serve()).expect("a port");
    // The server runs as long as the tests do.
    std::mem::forget(servers);
    let change = |all: &mut serde_json::Value| {
        add_cluster(all, "grpc", server, true);
        let route = json!({ "cluster": "grpc", "timeout": "0s" });
        add_route(
            all,
            json!({ "match": { "prefix": "/test.Echo/" }, "route": route }),
        );
    };
    let lab = Lab::start(1, &listeners, change, |azure| {
        azure.set_secret("long", &format!("{MARK}-{}", "z".repeat(400)));
        azure.set_secret("open-1", &format!("{MARK}-open-1"));
        for listener in LISTENERS {
            azure.set_secret(&format!("open-{listener}"), &format!("{MARK}-cold"));
        }
    });
    lab.expect("the lab starts")
});

/// Messages are bytes.
#[derive(Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}

/// The server: it sends back what it got.
#[derive(Clone)]
struct Echo;

type Messages = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;
    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

/// The message three times.
impl ServerStreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = BoxFuture<Response<Messages>, Status>;
    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let message = request.into_inner();
        let three = tokio_stream::iter((0..3).map(move |_| Ok(message.clone())));
        Box::pin(async move { Ok(Response::new(Box::pin(three) as Messages)) })
    }
}

/// All messages as one.
impl ClientStreamingService<Bytes> for Echo {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;
    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let mut messages = request.into_inner();
        Box::pin(async move {
            let mut all = Vec::new();
            while let Some(message) = messages.message().await? {
                all.extend_from_slice(&message);
            }
            Ok(Response::new(all.into()))
        })
    }
}

/// Each message at once; `fail` ends the call with a status.
impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = BoxFuture<Response<Messages>, Status>;
    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let messages = request.into_inner().map(|message| match message {
            Ok(message) if message == "fail" => Err(Status::data_loss("as pl4nted-open-1 asked")),
            other => other,
        });
        Box::pin(async move { Ok(Response::new(Box::pin(messages) as Messages)) })
    }
}

async fn serve() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let calls = Arc::clone(&CALLS);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let calls = Arc::clone(&calls);
            tokio::spawn(async move {
                let service = service_fn(move |request| call(Arc::clone(&calls), request));
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                // A gateway may close whenever it likes.
                drop(
                    builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await,
                );
            });
        }
    });
    Ok(address)
}

async fn call(
    calls: Arc<Mutex<Vec<Head>>>,
    request: http::Request<Incoming>,
) -> Result<http::Response<tonic::body::Body>> {
    let path = request.uri().path().to_owned();
    calls
        .lock()
        .expect("a lock")
        .push((path.clone(), request.headers().clone()));
    let mut grpc = tonic::server::Grpc::new(Plain);
    Ok(match path.rsplit('/').next() {
        Some("Unary") => grpc.unary(Echo, request).await,
        Some("Server") => grpc.server_streaming(Echo, request).await,
        Some("Client") => grpc.client_streaming(Echo, request).await,
        _ => grpc.streaming(Echo, request).await,
    })
}

async fn connect(listener: &str) -> Result<tonic::client::Grpc<Channel>> {
    let address = Address::from_shared(format!("http://{}", LAB.at(listener)))?;
    let channel = address.connect().await?;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await?;
    Ok(grpc)
}

/// A call with a reference in its metadata.
fn with_key<T>(message: T, reference: &str) -> Result<Request<T>> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-key", reference.parse()?);
    Ok(request)
}

const fn method(path: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(path)
}

async fn unary(
    listener: &str,
    message: impl Into<Bytes>,
    reference: &str,
) -> Result<Result<Bytes, Status>> {
    let request = with_key(message.into(), reference)?;
    let mut grpc = connect(listener).await?;
    let answer = within(
        "a unary call",
        grpc.unary(request, method("/test.Echo/Unary"), Plain),
    )
    .await?;
    Ok(answer.map(Response::into_inner))
}

#[test]
fn unary_calls_arrive_cold_and_cached() {
    LAB.run(SECRETS, async {
        for listener in LISTENERS {
            let reference = format!("{{vault://azure/open-{listener}}}");
            for turn in ["cold", "cached"] {
                let long = "message ".repeat(20_000);
                let messages = [
                    "",
                    "hello grpc world",
                    "ends like a value: pl4nted-",
                    long.as_str(),
                ];
                let before = CALLS.lock().expect("a lock").len();
                for message in messages {
                    let back = unary(listener, message.to_owned(), &reference).await?;
                    let back =
                        back.with_context(|| format!("{listener} {turn} {}", message.len()))?;
                    ensure!(
                        back == message,
                        "{listener} {turn}: {} bytes came back",
                        back.len()
                    );
                }
                let calls = CALLS.lock().expect("a lock").clone();
                // Other tests' calls have other values.
                let keyed = calls[before..].iter().filter(|(_, headers)| {
                    let value = headers.get("x-key");
                    value.is_some_and(|value| value == "pl4nted-cold")
                });
                let keyed = keyed.count();
                ensure!(
                    keyed == messages.len(),
                    "{listener} {turn}: the server got the value {keyed} times"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn references_in_messages_stay() {
    LAB.run(SECRETS, async {
        for listener in LISTENERS {
            let message =
                "{\"a\":\"{vault://azure/open-1}\",\"b\":\"{vault://azure/open-missing}\"}";
            let back = unary(listener, message, "none").await?;
            let back = back.with_context(|| listener.to_owned())?;
            ensure!(back == message, "{listener}: {back:?}");
        }
        Ok(())
    });
}

/// A message's prefix says its length: rules for JSON and text do not apply, whatever the type is called.
#[test]
fn no_media_type_of_grpc_is_a_body_for_rules() {
    let message = b"{\"a\":\"{vault://azure/open-1}\"}";
    let framed = [
        &[0, 0, 0, 0, u8::try_from(message.len()).expect("short")],
        &message[..],
    ]
    .concat();
    LAB.run(SECRETS, async {
        for content_type in [
            "application/grpc+json",
            "application/grpc",
            "Application/GRPC+JSON; charset=utf-8",
        ] {
            for listener in LISTENERS {
                let sent = framed.clone();
                LAB.upstream.on("typed", move |mut exchange| {
                    let sent = sent.clone();
                    async move {
                        let _ = exchange.whole().await;
                        let headers = [("content-type", content_type)];
                        envoy_test::scripted::respond(
                            200,
                            &headers,
                            pieces(&[&sent], &[("grpc-status", "0")]),
                        )
                    }
                });
                let headers = [("content-type", content_type), ("te", "trailers")];
                let request = request(
                    Version::Http2,
                    "POST",
                    "/h2/typed",
                    &headers,
                    full(framed.clone()),
                );
                let answer = LAB
                    .client(listener, Version::Http2)
                    .await?
                    .whole(request)
                    .await;
                let answer = answer.with_context(|| format!("{listener} {content_type}"))?;
                let got = LAB.upstream.last("typed").body;
                ensure!(
                    got == framed,
                    "{listener} {content_type}: {}",
                    String::from_utf8_lossy(&got)
                );
                ensure!(
                    answer.body == framed,
                    "{listener} {content_type}: {}",
                    answer.text()
                );
                ensure!(
                    answer.trailer("grpc-status").as_deref() == Some("0"),
                    "{listener}: {answer:?}"
                );
            }
        }
        Ok(())
    });
}

/// A mask is as long as what it hides, so that the prefix stays right.
#[test]
fn values_in_messages_are_masked_in_their_length() {
    LAB.run(SECRETS, async {
        for listener in ["masked", "rules", "rules-held"] {
            let back = unary(listener, "got pl4nted-open-1!", "{vault://azure/open-1}").await?;
            let back = back.with_context(|| listener.to_owned())?;
            ensure!(back == "got **************!", "{listener}: {back:?}");
        }
        Ok(())
    });
}

#[test]
fn a_server_stream_comes_whole() {
    LAB.run(SECRETS, async {
        for listener in LISTENERS {
            let request = with_key(
                Bytes::from_static(b"one of three"),
                "{vault://azure/open-1}",
            )?;
            let mut grpc = connect(listener).await?;
            let call = grpc.server_streaming(request, method("/test.Echo/Server"), Plain);
            let mut answer = within("a server stream", call).await??.into_inner();
            for number in 0..3 {
                let message = within("a message", answer.message()).await?;
                let message = message.with_context(|| format!("{listener}: message {number}"))?;
                ensure!(
                    message.as_deref() == Some(&b"one of three"[..]),
                    "{listener} {number}: {message:?}"
                );
            }
            ensure!(within("the end", answer.message()).await??.is_none());
        }
        Ok(())
    });
}

#[test]
fn a_client_stream_arrives_whole() {
    LAB.run(SECRETS, async {
        for listener in LISTENERS {
            let messages = ["one;", "{vault://azure/open-1};", "three"];
            let stream =
                tokio_stream::iter(messages).map(|message| Bytes::from_static(message.as_bytes()));
            let request = with_key(stream, "{vault://azure/open-1}")?;
            let mut grpc = connect(listener).await?;
            let call = grpc.client_streaming(request, method("/test.Echo/Client"), Plain);
            let answer: Result<Response<Bytes>, Status> = within("a client stream", call).await?;
            let answer = answer.with_context(|| listener.to_owned())?.into_inner();
            ensure!(answer == messages.concat(), "{listener}: {answer:?}");
        }
        Ok(())
    });
}

/// Each message is answered before the next one is sent: a filter that waits for more makes both sides wait.
#[test]
fn both_sides_of_a_bidirectional_stream_may_wait_for_each_other() {
    LAB.run(SECRETS, async {
        for listener in LISTENERS {
            let (sender, messages) = mpsc::channel::<Bytes>(1);
            let request = with_key(ReceiverStream::new(messages), "{vault://azure/open-1}")?;
            let mut grpc = connect(listener).await?;
            sender.send(Bytes::from_static(b"ping 0")).await?;
            let call = grpc.streaming(request, method("/test.Echo/Both"), Plain);
            let mut answers = within("a bidirectional stream", call).await??.into_inner();
            for number in 0..5 {
                if number > 0 {
                    sender.send(format!("ping {number}").into()).await?;
                }
                let back: Result<Option<Bytes>, Status> = within("an answer", answers.message())
                    .await
                    .with_context(|| format!("{listener}: message {number}"))?;
                let back = back.with_context(|| format!("{listener}: message {number}"))?;
                ensure!(
                    back == Some(format!("ping {number}").into()),
                    "{listener}: {back:?}"
                );
            }
            drop(sender);
            ensure!(within("the end", answers.message()).await??.is_none());
        }
        Ok(())
    });
}

/// A status in trailers arrives, and values in its message are masked.
#[test]
fn a_status_after_messages_arrives() {
    LAB.run(SECRETS, async {
        for listener in LISTENERS {
            let stream = tokio_stream::iter(["fine", "fail"])
                .map(|text| Bytes::from_static(text.as_bytes()));
            let request = with_key(stream, "{vault://azure/open-1}")?;
            let mut grpc = connect(listener).await?;
            let call = grpc.streaming(request, method("/test.Echo/Both"), Plain);
            let mut answers: Streaming<Bytes> = within("a stream", call).await??.into_inner();
            let first = within("the first message", answers.message()).await?;
            ensure!(first.with_context(|| listener.to_owned())?.as_deref() == Some(&b"fine"[..]));
            let second = within("the status", answers.message()).await?;
            let status = second
                .err()
                .with_context(|| format!("{listener}: it fails"))?;
            ensure!(status.code() == Code::DataLoss, "{listener}: {status:?}");
            let expected = if listener == "plain" {
                "as pl4nted-open-1 asked"
            } else {
                "as ************** asked"
            };
            ensure!(status.message() == expected, "{listener}: {status:?}");
        }
        Ok(())
    });
}

#[test]
fn what_is_denied_has_a_grpc_status() {
    LAB.run(SECRETS, async {
        for listener in LISTENERS {
            for turn in ["cold", "cached"] {
                let answer = unary(listener, "hello", "{vault://azure/open-missing}").await?;
                let status = answer
                    .err()
                    .with_context(|| format!("{listener}: it is denied"))?;
                ensure!(
                    status.code() == Code::FailedPrecondition,
                    "{listener} {turn}: {status:?}"
                );
                ensure!(
                    status.message().contains("not_found"),
                    "{listener} {turn}: {status:?}"
                );
            }
        }
        Ok(())
    });
}

/// The messages of a call are already there when its metadata turns out to be denied.
#[test]
fn what_is_denied_while_messages_arrive_has_a_grpc_status() {
    LAB.run(SECRETS, async {
        LAB.world
            .azure
            .fail(Endpoint::Secrets, Fault::Delay(Duration::from_millis(300)));
        for listener in LISTENERS {
            let (sender, messages) = mpsc::channel::<Bytes>(8);
            let reference = format!("{{vault://azure/open-slow-{listener}}}");
            let request = with_key(ReceiverStream::new(messages), &reference)?;
            let mut grpc = connect(listener).await?;
            for _ in 0..3 {
                sender.send("message ".repeat(1000).into()).await?;
            }
            let call = grpc.streaming(request, method("/test.Echo/Denied"), Plain);
            let answer: Result<Response<Streaming<Bytes>>, Status> =
                within("the denial", call).await?;
            let status = answer
                .err()
                .with_context(|| format!("{listener}: it is denied"))?;
            ensure!(
                status.code() == Code::FailedPrecondition,
                "{listener}: {status:?}"
            );
        }
        LAB.world.azure.clear_faults();
        let calls = CALLS.lock().expect("a lock").clone();
        ensure!(
            !calls.iter().any(|(path, _)| path == "/test.Echo/Denied"),
            "the server was called"
        );
        Ok(())
    });
}
