//! Connections that become something else, in a real Envoy: WebSockets and CONNECT. The request's headers and
//! query are resolved; body rules and masks do not apply to what follows.

use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use anyhow::{Context as _, Result, bail, ensure};
use envoy_test::emulator::{Endpoint, Fault};
use envoy_test::envoy::{add_cluster, add_route, manager_of};
use envoy_test::exchange::within;
use envoy_test::lab::Lab;
use envoy_test::world::{BODY_TYPES, CLIENT_SECRET, listener};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

const MARK: &str = "pl4nted";
const SECRETS: &[&str] = &[MARK, CLIENT_SECRET];

/// The heads of handshakes: target and headers.
static HANDSHAKES: OnceLock<Arc<Mutex<Vec<Request>>>> = OnceLock::new();

static LAB: LazyLock<Lab> = LazyLock::new(|| {
    let resolve = json!({ "headers": ["x-*"], "query": ["key"], "body": BODY_TYPES, "allow": ["azure/open-*"] });
    let set = json!({ "headers": { "authorization": "Bearer {vault://azure/operator}" } });
    let answers = json!({ "redact": true, "resolve": { "headers": ["x-*"], "body": BODY_TYPES, "allow": ["azure/open-*"] } });
    let rules = json!({ "request": { "set": set, "resolve": resolve } });
    let masked = json!({ "request": { "set": set, "resolve": resolve }, "response": answers });
    let listeners = [
        listener("rules", &rules, false),
        listener("rules-held", &rules, true),
        listener("masked", &masked, false),
        listener("masked-held", &masked, true),
    ];
    let servers = tokio::runtime::Runtime::new().expect("a runtime");
    let (websockets, echo) =
        servers.block_on(async { (serve_websockets().await, serve_echo().await) });
    // The servers run as long as the tests do.
    std::mem::forget(servers);
    let change = |all: &mut serde_json::Value| {
        add_cluster(all, "websockets", websockets.expect("a port"), false);
        add_cluster(all, "echo", echo.expect("a port"), false);
        add_route(
            all,
            json!({ "match": { "prefix": "/ws" }, "route": { "cluster": "websockets", "timeout": "0s" } }),
        );
        let connect = json!([{ "upgrade_type": "CONNECT", "connect_config": {} }]);
        add_route(
            all,
            json!({ "match": { "connect_matcher": {} }, "route": { "cluster": "echo", "upgrade_configs": connect } }),
        );
        manager_of(&mut all["static_resources"]["listeners"][0])["upgrade_configs"] =
            json!([{ "upgrade_type": "websocket" }, { "upgrade_type": "CONNECT" }]);
    };
    let lab = Lab::start(1, &listeners, change, |azure| {
        azure.set_secret("operator", &format!("{MARK}-operator"));
        azure.set_secret("open-1", &format!("{MARK}-open-1"));
        for listener in ["rules", "rules-held", "masked", "masked-held"] {
            azure.set_secret(&format!("open-{listener}"), &format!("{MARK}-cold"));
        }
    });
    lab.expect("the lab starts")
});

/// Sends every message back, after a greeting.
async fn serve_websockets() -> Result<std::net::SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let heads = Arc::clone(HANDSHAKES.get_or_init(Arc::default));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let heads = Arc::clone(&heads);
            tokio::spawn(async move {
                #[expect(clippy::result_large_err, reason = "the crate's own type")]
                let seen =
                    |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
                        heads.lock().expect("a lock").push(request.clone());
                        Ok(response)
                    };
                let mut socket = accept_hdr_async(stream, seen).await?;
                socket.send(Message::text("hello")).await?;
                while let Some(message) = socket.next().await {
                    let message = message?;
                    if message.is_text() || message.is_binary() {
                        socket.send(message).await?;
                    }
                }
                anyhow::Ok(())
            });
        }
    });
    Ok(address)
}

/// Sends every byte back.
async fn serve_echo() -> Result<std::net::SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    Ok(address)
}

async fn open(
    listener: &str,
    target: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocketStream<TcpStream>> {
    let mut request = format!("ws://gateway.test{target}").into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse()?);
    }
    let stream = TcpStream::connect(LAB.at(listener)).await?;
    stream.set_nodelay(true)?;
    let (socket, _) = within("the handshake", client_async(request, stream)).await??;
    Ok(socket)
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Result<Message> {
    let message = within("the next message", socket.next()).await?;
    message
        .context("the connection ended")?
        .context("reading a message")
}

/// Each message is back before the next one is sent.
async fn converse(socket: &mut WebSocketStream<TcpStream>) -> Result<()> {
    ensure!(next(socket).await? == Message::text("hello"));
    let long = "{vault://azure/open-1} pl4nted-open-1 ".repeat(3000);
    let messages = [
        Message::text("{\"a\":\"ping\"}"),
        Message::text("{\"a\":\"{vault://azure/open-1}\"}"),
        // What the request's own values look like passes untouched: a changed frame would break its length.
        Message::text("pl4nted-open-1 pl4nted-operator"),
        Message::binary(b"\x00\xff{vault://azure/missing}\xfe".to_vec()),
        Message::text(""),
        Message::text(long),
        Message::text("pl4nted-op"),
    ];
    for message in messages {
        socket.send(message.clone()).await?;
        let back = next(socket).await?;
        ensure!(
            back == message,
            "{} bytes came back as {} others",
            message.len(),
            back.len()
        );
    }
    socket.close(None).await?;
    // Envoy takes a second to close the connection itself.
    let last = next(socket).await?;
    ensure!(last.is_close(), "a message after the close: {last:?}");
    Ok(())
}

fn last_handshake(key: &str) -> Result<Request> {
    let heads = HANDSHAKES
        .get()
        .context("no handshake")?
        .lock()
        .expect("a lock");
    let found = heads
        .iter()
        .rfind(|head| head.uri().query().is_some_and(|query| query.contains(key)));
    found
        .cloned()
        .with_context(|| format!("no handshake with {key}"))
}

fn websocket(listener: &str) {
    LAB.run(SECRETS, async {
        LAB.world.azure.fail(
            Endpoint::Secrets,
            Fault::Delay(std::time::Duration::from_millis(100)),
        );
        let reference = format!("{{vault://azure/open-{listener}}}");
        for (turn, content_type) in [
            ("cold", None),
            ("cached", None),
            ("json", Some("application/json")),
            ("text", Some("text/plain; charset=utf-8")),
            ("form", Some("application/x-www-form-urlencoded")),
            ("grpc", Some("application/grpc")),
        ] {
            let target =
                format!("/ws?turn={listener}-{turn}&key=%7Bvault%3A%2F%2Fazure%2Fopen-1%7D");
            let mut headers = vec![("x-key", reference.as_str())];
            headers.extend(content_type.map(|content_type| ("content-type", content_type)));
            let socket = open(listener, &target, &headers).await;
            let mut socket = socket.with_context(|| format!("{listener} {turn}"))?;
            converse(&mut socket)
                .await
                .with_context(|| format!("{listener} {turn}"))?;
            let head = last_handshake(&format!("{listener}-{turn}"))?;
            ensure!(head.headers()["x-key"] == "pl4nted-cold", "{head:?}");
            ensure!(
                head.headers()["authorization"] == "Bearer pl4nted-operator",
                "{head:?}"
            );
            let query = head.uri().query().unwrap_or_default();
            ensure!(query.ends_with("key=pl4nted-open-1"), "{query}");
        }
        Ok(())
    });
}

#[test]
fn a_websocket_passes_beside_body_rules() {
    websocket("rules");
}

#[test]
fn a_websocket_passes_beside_body_rules_and_held_headers() {
    websocket("rules-held");
}

#[test]
fn a_websocket_passes_beside_masks() {
    websocket("masked");
}

#[test]
fn a_websocket_passes_beside_masks_and_held_headers() {
    websocket("masked-held");
}

#[test]
fn a_handshake_whose_secret_is_missing_is_denied() {
    LAB.run(SECRETS, async {
        for listener in ["rules", "masked-held"] {
            let headers = [
                ("x-key", "{vault://azure/open-missing}"),
                ("content-type", "application/json"),
            ];
            let opened = open(listener, "/ws?turn=denied", &headers).await;
            let error = format!("{:#}", opened.err().context("it is denied")?);
            ensure!(error.contains("503"), "{listener}: {error}");
            ensure!(
                last_handshake("turn=denied").is_err(),
                "{listener}: the upstream was asked"
            );
        }
        Ok(())
    });
}

/// A server may refuse an upgrade with an ordinary answer, which is masked as any other.
#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    LAB.run(SECRETS, async {
        LAB.upstream.on("no-websocket", |_| async {
            let headers = [("content-type", "text/plain")];
            envoy_test::scripted::respond(426, &headers, envoy_test::exchange::full("got pl4nted-open-1"))
        });
        let request = "GET /h1/no-websocket HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
            sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\
            x-key: {vault://azure/open-1}\r\n\r\n";
        let answer = envoy_test::client::send(LAB.at("masked"), request.as_bytes())?;
        ensure!(answer.status == 426, "{}", answer.status);
        ensure!(answer.text() == "got **************", "{}", answer.text());
        Ok(())
    });
}

#[test]
fn a_tunnel_passes_untouched() {
    LAB.run(SECRETS, async {
        for listener in ["rules", "rules-held", "masked", "masked-held"] {
            for content_type in ["", "content-type: application/json\r\n"] {
                let mut stream = TcpStream::connect(LAB.at(listener)).await?;
                let head = format!(
                    "CONNECT echo.test:443 HTTP/1.1\r\nhost: echo.test:443\r\n{content_type}\
                     x-key: {{vault://azure/open-1}}\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await?;
                let answer = read_until(&mut stream, b"\r\n\r\n").await;
                let answer = answer.with_context(|| format!("{listener}: no answer to CONNECT"))?;
                ensure!(
                    answer.starts_with(b"HTTP/1.1 200"),
                    "{}",
                    String::from_utf8_lossy(&answer)
                );
                let bytes: [&[u8]; 4] = [
                    b"{\"a\":",
                    b"{vault://azure/open-1}",
                    b"pl4nted-open-1!",
                    b"pl4nted-op",
                ];
                for piece in bytes {
                    stream.write_all(piece).await?;
                    let back = read_until(&mut stream, piece).await;
                    let back = back.with_context(|| format!("{listener} {content_type:?}"))?;
                    ensure!(
                        back == piece,
                        "{listener}: {}",
                        String::from_utf8_lossy(&back)
                    );
                }
            }
        }
        Ok(())
    });
}

async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Result<Vec<u8>> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        let mut piece = [0; 4096];
        let length = within("the next bytes", stream.read(&mut piece)).await??;
        if length == 0 {
            bail!("it ends after {:?}", String::from_utf8_lossy(&read));
        }
        read.extend_from_slice(&piece[..length]);
    }
    Ok(read)
}
