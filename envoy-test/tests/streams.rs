//! Messages that are streams, over HTTP/1.1 and HTTP/2, in a real Envoy: each piece comes as soon as it was
//! sent, nothing waits for an end that may never come, and answers without a body stay as they are.

use std::sync::{Arc, LazyLock, Mutex};

use anyhow::{Context as _, Result, ensure};
use envoy_test::client::{self, Connection};
use envoy_test::exchange::{
    Client, Reader, VERSIONS, Version, Whole, Writer, empty, full, pieces, request, streamed,
    text_of, within,
};
use envoy_test::lab::{Lab, path};
use envoy_test::scripted::respond;
use envoy_test::world::{BODY_TYPES, CLIENT_SECRET, listener};
use http::Response;
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::oneshot;

const MARK: &str = "pl4nted";
const SECRETS: &[&str] = &[MARK, CLIENT_SECRET];
/// Longer than any event of a test: a filter that holds back one byte less than the longest value holds it.
const LONG: usize = 400;

static LAB: LazyLock<Lab> = LazyLock::new(|| {
    let resolve = json!({ "headers": ["x-*"], "body": BODY_TYPES, "allow": ["azure/open-*"] });
    let set = json!({ "headers": { "authorization": "Bearer {vault://azure/long}" } });
    let redact =
        json!({ "request": { "set": set, "resolve": resolve }, "response": { "redact": true } });
    let collect = json!({ "request": { "set": set }, "response": {
        "redact": true, "resolve": { "headers": ["x-next"], "body": BODY_TYPES, "allow": ["azure/open-*"] } } });
    let resolve_only = json!({ "request": { "resolve": resolve } });
    let listeners = [
        // What Envoy itself does, as the filter has nothing to do with its responses.
        listener("plain", &resolve_only, false),
        listener("redact", &redact, false),
        listener("held", &redact, true),
        listener("collect", &collect, false),
    ];
    let lab = Lab::start(
        1,
        &listeners,
        |_| {},
        |azure| {
            azure.set_secret("long", &format!("{MARK}-{}", "z".repeat(LONG)));
            azure.set_secret("open-1", &format!("{MARK}-open-1"));
            azure.set_secret("open-early", &format!("{MARK}-early"));
            azure.set_secret("open-slow", &format!("{MARK}-slow"));
        },
    );
    lab.expect("the lab starts")
});

/// Answers `name` with this `content-type` and a body that the test writes. One request can be answered.
fn answer_by_hand(name: &str, content_type: &'static str) -> Writer {
    let (writer, body) = streamed();
    let body = Arc::new(Mutex::new(Some(body)));
    LAB.upstream.on(name, move |_| {
        let body = body.lock().expect("a lock").take();
        let headers = [("content-type", content_type)];
        async move { respond(200, &headers, body.unwrap_or_else(empty)) }
    });
    writer
}

async fn get(listener: &str, version: Version, name: &str) -> Result<Response<Incoming>> {
    let mut client = LAB.client(listener, version).await?;
    let request = request(
        version,
        "GET",
        &path(version, name),
        &[("x-key", "{vault://azure/open-1}")],
        empty(),
    );
    client.send(request).await
}

#[test]
fn each_event_comes_before_the_next_one_is_sent() {
    LAB.run(SECRETS, async {
        for version in VERSIONS {
            for listener in ["plain", "redact", "held", "collect"] {
                let writer = answer_by_hand("events", "text/event-stream");
                let response = get(listener, version, "events").await?;
                ensure!(response.status() == 200);
                let mut events = Reader::new(response.into_body());
                let mut length = 0;
                for number in 0..5 {
                    let event = format!("data: event {number}\n\n");
                    length += event.len();
                    writer.send(event.clone()).await?;
                    let read = events.until(length).await;
                    let read =
                        read.with_context(|| format!("event {number} {listener} {version:?}"))?;
                    ensure!(
                        read.ends_with(event.as_bytes()),
                        "{listener} {version:?}: another event"
                    );
                }
                drop(writer);
                events.to_end().await?;
            }
        }
        Ok(())
    });
}

/// Only what may be the beginning of a value waits for the next piece.
#[test]
fn a_value_in_two_events_is_masked_and_nothing_else_waits() {
    LAB.run(SECRETS, async {
        for version in VERSIONS {
            let writer = answer_by_hand("split", "text/event-stream");
            let mut events = Reader::new(get("redact", version, "split").await?.into_body());
            writer.send("data: first pl4nted-op").await?;
            events
                .until("data: first ".len())
                .await
                .context("before a beginning")?;
            writer.send("en-1 and more\n\n").await?;
            let expected = "data: first ************** and more\n\n";
            let read = events.until(expected.len()).await;
            let read = read.context("behind a value")?;
            ensure!(
                read == expected.as_bytes(),
                "{version:?}: {}",
                String::from_utf8_lossy(read)
            );
            // A beginning that does not go on comes as it is, also at the end.
            writer.send("data: pl4nted-op").await?;
            writer.send("tion\n\npl4nt").await?;
            drop(writer);
            let expected = format!("{expected}data: pl4nted-option\n\npl4nt");
            let read = events.to_end().await?;
            ensure!(
                read == expected.as_bytes(),
                "{version:?}: {}",
                String::from_utf8_lossy(read)
            );
        }
        Ok(())
    });
}

#[test]
fn references_in_an_event_stream_stay() {
    LAB.run(SECRETS, async {
        let event = "data: {vault://azure/open-1}\n\n";
        LAB.upstream.on("event-references", move |_| async move {
            respond(
                200,
                &[("content-type", "text/event-stream; charset=utf-8")],
                full(event),
            )
        });
        let answer = Whole::read(get("collect", Version::Http1, "event-references").await?).await?;
        ensure!(answer.text() == event, "{}", answer.text());
        Ok(())
    });
}

/// The headers of an answer do not wait for its body, which may take minutes.
#[test]
fn a_long_poll_has_its_headers_at_once() {
    LAB.run(SECRETS, async {
        for version in VERSIONS {
            let writer = answer_by_hand("poll", "application/json");
            let response = get("redact", version, "poll").await?;
            let mut body = Reader::new(response.into_body());
            writer.send("[\"news\"]").await?;
            drop(writer);
            ensure!(body.to_end().await? == b"[\"news\"]");
        }
        Ok(())
    });
}

/// Sends pieces of a request one by one; each has to be at the upstream, and back, before the next.
async fn echo_by_pieces(listener: &str, version: Version, content_type: &str) -> Result<()> {
    LAB.upstream.on("duplex", |mut exchange| async move {
        let (writer, body) = streamed();
        tokio::spawn(async move {
            while let Ok(Some(piece)) = exchange.piece().await {
                if writer.send(piece).await.is_err() {
                    return;
                }
            }
        });
        respond(200, &[("content-type", "application/octet-stream")], body)
    });
    let (writer, body) = streamed();
    let headers = [
        ("content-type", content_type),
        ("x-key", "{vault://azure/open-1}"),
    ];
    let request = request(version, "POST", &path(version, "duplex"), &headers, body);
    let mut client = LAB.client(listener, version).await?;
    let (response, first) = tokio::join!(client.send(request), writer.send("piece 0;"));
    first?;
    let mut answer = Reader::new(response?.into_body());
    let mut length = "piece 0;".len();
    answer.until(length).await.context("the first piece")?;
    for number in 1..5 {
        let piece = format!("piece {number};");
        length += piece.len();
        writer.send(piece).await?;
        answer
            .until(length)
            .await
            .with_context(|| format!("piece {number}"))?;
    }
    drop(writer);
    answer.to_end().await?;
    ensure!(answer.read == b"piece 0;piece 1;piece 2;piece 3;piece 4;");
    Ok(())
}

#[test]
fn an_upload_reaches_the_upstream_piece_by_piece() {
    LAB.run(SECRETS, async {
        for version in VERSIONS {
            for listener in ["plain", "redact", "held", "collect"] {
                let content_type = "application/octet-stream";
                let echo = echo_by_pieces(listener, version, content_type).await;
                echo.with_context(|| format!("{listener} {version:?}"))?;
            }
        }
        Ok(())
    });
}

/// Reads what the gateway sends for this request, over a connection of its own.
fn ask_raw(
    listener: &str,
    method: &str,
    name: &str,
    headers: &[(&str, &[u8])],
) -> Result<client::Answer> {
    let own: [(&str, &[u8]); 2] = [("host", b"gateway.test"), ("connection", b"close")];
    let headers = [&own, headers].concat();
    client::send(
        LAB.at(listener),
        &client::request(method, &format!("/h1/{name}"), &headers, b""),
    )
}

#[test]
fn answers_without_a_body_stay_as_they_are() {
    LAB.run(SECRETS, async {
        for content_type in ["application/json", "text/plain", "image/png"] {
            let length = [
                ("content-length", "123"),
                ("content-type", content_type),
                ("etag", "\"1\""),
            ];
            LAB.upstream.on("bodyless", move |exchange| async move {
                match exchange.header("x-want").as_str() {
                    "204" => respond(204, &[], empty()),
                    "304" => respond(304, &length, empty()),
                    _ => respond(200, &length, empty()),
                }
            });
            for (method, want) in [
                ("HEAD", "200"),
                ("GET", "304"),
                ("GET", "204"),
                ("HEAD", "304"),
            ] {
                let ask = |listener| {
                    ask_raw(listener, method, "bodyless", &[("x-want", want.as_bytes())])
                };
                let plain = ask("plain")?;
                ensure!(plain.status.to_string() == want, "{plain:?}");
                if method == "HEAD" && want == "200" {
                    ensure!(plain.header("content-length") == Some("123"), "{plain:?}");
                }
                for listener in ["redact", "held", "collect"] {
                    let answer = ask(listener)?;
                    let right = answer.status == plain.status && stable(&answer) == stable(&plain);
                    ensure!(
                        right,
                        "{method} {want} {content_type} {listener}: {answer:?}, not {plain:?}"
                    );
                }
            }
        }
        Ok(())
    });
}

/// The headers that do not depend on the time.
fn stable(answer: &client::Answer) -> Vec<&(String, String)> {
    let headers = answer.headers.iter();
    let timed = |name: &str| name == "date" || name == "x-envoy-upstream-service-time";
    headers.filter(|(name, _)| !timed(name)).collect()
}

/// `expect: 100-continue`: the client sends nothing before it has the interim answer.
#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    use std::io::{Read as _, Write as _};
    LAB.run(SECRETS, async {
        for listener in ["redact", "held"] {
            let mut stream = std::net::TcpStream::connect(LAB.at(listener))?;
            stream.set_read_timeout(Some(envoy_test::exchange::STEP))?;
            let body = br#"{"a":"{vault://azure/open-1}"}"#;
            let head = format!(
                "POST /h1/expecting HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
                 expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes())?;
            let mut interim = vec![0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
            stream.read_exact(&mut interim).with_context(|| format!("{listener}: no interim answer"))?;
            ensure!(interim.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&interim));
            stream.write_all(body)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let seen = LAB.upstream.last("expecting");
            ensure!(seen.text() == format!(r#"{{"a":"{MARK}-open-1"}}"#), "{}", seen.text());
        }
        Ok(())
    });
}

/// An upstream that refuses from the headers alone: the client hears it although it never ends its request.
/// With held headers the upstream is not asked before the body is there.
#[test]
fn an_answer_that_ends_before_the_request_comes_through() {
    LAB.run(SECRETS, async {
        LAB.upstream.on("refusing", |_| async {
            respond(401, &[], full("go away pl4nt"))
        });
        for version in VERSIONS {
            for content_type in ["application/json", "application/octet-stream"] {
                let (writer, body) = streamed();
                let headers = [("content-type", content_type)];
                let request = request(version, "POST", &path(version, "refusing"), &headers, body);
                let mut client = LAB.client("redact", version).await?;
                let (response, sent) =
                    tokio::join!(client.send(request), writer.send("{\"never\":\""));
                sent?;
                let answer = Whole::read(response?).await;
                let answer = answer.with_context(|| format!("{content_type} {version:?}"))?;
                ensure!(answer.status == 401, "{}", answer.status);
                ensure!(answer.text() == "go away pl4nt", "{}", answer.text());
                drop(writer);
            }
        }
        // The filters still serve.
        let answer = Whole::read(get("redact", Version::Http1, "after-refusal").await?).await?;
        ensure!(answer.status == 200);
        Ok(())
    });
}

/// The upstream sends its headers first, then what it got: masks know what was put into the body later.
#[test]
fn values_of_a_body_that_came_after_the_answer_began_are_masked() {
    LAB.run(SECRETS, async {
        LAB.upstream.on("early", |mut exchange| async move {
            let (writer, body) = streamed();
            tokio::spawn(async move {
                if writer.send("begun;").await.is_err() {
                    return;
                }
                let echo = exchange.whole().await.unwrap_or_default();
                drop(writer.send(echo).await);
            });
            respond(200, &[("content-type", "text/html")], body)
        });
        for version in VERSIONS {
            let (writer, body) = streamed();
            let headers = [("content-type", "application/json")];
            let request = request(version, "POST", &path(version, "early"), &headers, body);
            let mut client = LAB.client("redact", version).await?;
            let (response, sent) =
                tokio::join!(client.send(request), writer.send("{\"a\":\"{vault://az"));
            sent?;
            let mut answer = Reader::new(response?.into_body());
            answer.until("begun;".len()).await?;
            writer.send("ure/open-early}\"}").await?;
            drop(writer);
            let text = String::from_utf8_lossy(answer.to_end().await?).into_owned();
            let expected = format!(
                "begun;{{\"a\":\"{}\"}}",
                "*".repeat(MARK.len() + "-early".len())
            );
            ensure!(text == expected, "{version:?}: {text}");
            ensure!(LAB.upstream.last("early").text().contains("pl4nted-early"));
        }
        Ok(())
    });
}

/// The answer begins while the request's body still waits for its secret.
#[test]
fn values_that_are_fetched_while_the_answer_comes_are_masked() {
    use envoy_test::emulator::{Endpoint, Fault};
    use std::time::Duration;
    LAB.run(SECRETS, async {
        let delay = Fault::Delay(Duration::from_millis(500));
        LAB.world.azure.fail(Endpoint::Secrets, delay);
        let (begun, mut answers) = tokio::sync::mpsc::channel(1);
        LAB.upstream.on("early-slow", move |mut exchange| {
            let begun = begun.clone();
            async move {
                let (writer, body) = streamed();
                tokio::spawn(async move {
                    drop(writer.send("begun;").await);
                    let _ = begun.send(()).await;
                    let echo = exchange.whole().await.unwrap_or_default();
                    drop(writer.send(echo).await);
                });
                respond(200, &[("content-type", "text/html")], body)
            }
        });
        let body = "{\"a\":\"{vault://azure/open-slow}\"}";
        let headers = [("content-type", "application/json")];
        let request = request(
            Version::Http2,
            "POST",
            "/h2/early-slow",
            &headers,
            full(body),
        );
        let answer = LAB
            .client("redact", Version::Http2)
            .await?
            .whole(request)
            .await;
        LAB.world.azure.clear_faults();
        within("the answer's beginning", answers.recv()).await?;
        let text = answer?.text();
        let expected = format!(
            "begun;{{\"a\":\"{}\"}}",
            "*".repeat(MARK.len() + "-slow".len())
        );
        ensure!(text == expected, "{text}");
        Ok(())
    });
}

/// A client that leaves in the middle of everything takes nothing with it.
#[test]
fn clients_that_leave_in_the_middle_leave_nothing_behind() {
    LAB.run(SECRETS, async {
        for version in VERSIONS {
            for listener in ["redact", "held", "collect"] {
                let (writer, body) = streamed();
                let headers = [("content-type", "application/json")];
                let request = request(version, "POST", &path(version, "left"), &headers, body);
                let mut client = LAB.client(listener, version).await?;
                let (left, stays) = oneshot::channel::<()>();
                let asking = tokio::spawn(async move {
                    tokio::select! {
                        _ = client.send(request) => {}
                        _ = stays => {}
                    }
                });
                writer.send("{\"a\":\"{vault://azure/open-1}").await?;
                writer.abort().await;
                drop(left);
                within("the client leaves", asking).await??;
                let answer = Whole::read(get(listener, version, "after").await?).await?;
                ensure!(
                    answer.status == 200,
                    "{listener} {version:?}: {}",
                    answer.status
                );
            }
        }
        Ok(())
    });
}

/// A response that breaks off is not taken for a whole one, and does not hang.
#[test]
fn a_response_that_breaks_off_breaks_off_for_the_client() {
    LAB.run(SECRETS, async {
        for version in VERSIONS {
            for listener in ["redact", "collect"] {
                let writer = answer_by_hand("broken", "application/json");
                let asking = get(listener, version, "broken");
                let writing = async {
                    writer.send("{\"a\":\"{vault://azure/op").await?;
                    writer.abort().await;
                    anyhow::Ok(())
                };
                let (response, written) = tokio::join!(asking, writing);
                written?;
                let whole = match response {
                    Ok(response) => Whole::read(response).await.ok(),
                    Err(_) => None,
                };
                let status = whole.map(|whole| (whole.status, whole.text()));
                let right = status.as_ref().is_none_or(|(status, _)| *status >= 500);
                ensure!(right, "{listener} {version:?}: {status:?}");
            }
        }
        Ok(())
    });
}

/// Requests and answers of every kind over one connection, so that a wrong length would show.
#[test]
fn a_connection_goes_on_after_streams() {
    LAB.run(SECRETS, async {
        LAB.upstream.on("chunks", |_| async {
            respond(
                200,
                &[("content-type", "text/plain")],
                pieces(&[b"one", b"two"], &[]),
            )
        });
        let mut connection = Connection::open(LAB.at("redact"))?;
        for _ in 0..3 {
            let host: [(&str, &[u8]); 1] = [("host", b"x")];
            let answer = connection.send(&client::request("GET", "/h1/chunks", &host, b""))?;
            ensure!(answer.text() == "onetwo", "{}", answer.text());
            let headers: [(&str, &[u8]); 2] =
                [("host", b"x"), ("content-type", b"application/json")];
            let post = client::request(
                "POST",
                "/h1/echoed",
                &headers,
                b"[\"{vault://azure/open-1}\"]",
            );
            let answer = connection.send(&post)?;
            ensure!(
                answer.text() == format!("[\"{}\"]", "*".repeat(14)),
                "{}",
                answer.text()
            );
        }
        Ok(())
    });
}

/// Both sides may speak different versions.
#[test]
fn versions_may_differ_on_both_sides() {
    LAB.run(SECRETS, async {
        for (client, upstream) in [
            (Version::Http1, Version::Http2),
            (Version::Http2, Version::Http1),
        ] {
            let headers = [
                ("content-type", "application/json"),
                ("x-key", "{vault://azure/open-1}"),
            ];
            let body = pieces(&[b"[\"{vault://azure", b"/open-1}\"]"], &[]);
            let request = request(client, "POST", &path(upstream, "mixed"), &headers, body);
            let answer = Client::connect(LAB.at("redact"), client)
                .await?
                .whole(request)
                .await?;
            ensure!(answer.status == 200);
            let seen = LAB.upstream.last("mixed");
            ensure!(seen.text() == "[\"pl4nted-open-1\"]", "{}", seen.text());
            ensure!(text_of(&seen.headers, "x-key").as_deref() == Some("pl4nted-open-1"));
        }
        Ok(())
    });
}
