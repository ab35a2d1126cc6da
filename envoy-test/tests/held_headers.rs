//! Headers that wait for their body (`allow_on_headers_stop_iteration` in the plugin's configuration), in a real
//! Envoy: a denied request never shows at the upstream, and a body goes on with its length. Without that flag a
//! body that may be changed goes on in chunks.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};
use envoy_test::client::{self, Answer, Connection};
use envoy_test::exchange::{VERSIONS, full, pieces, request};
use envoy_test::lab::{Lab, path};
use envoy_test::upstream::Received;
use envoy_test::world::{BODY_TYPES, CLIENT_SECRET, listener};
use serde_json::json;

const MARK: &str = "pl4nted";
const SECRETS: &[&str] = &[MARK, CLIENT_SECRET];

/// The upstreams' records are of one test at a time.
static LAB: LazyLock<Mutex<Lab>> = LazyLock::new(|| {
    let resolve = json!({ "headers": ["x-*"], "query": ["key"], "body": BODY_TYPES, "allow": ["azure/open-*"] });
    let set = json!({ "headers": { "authorization": "Bearer {vault://azure/operator}" } });
    let rules = json!({ "request": { "set": set, "resolve": resolve } });
    let small = json!({ "request": { "set": set, "resolve": resolve }, "max_body_bytes": 1000 });
    let masked =
        json!({ "request": { "set": set, "resolve": resolve }, "response": { "redact": true } });
    let listeners = [
        listener("held", &rules, true),
        listener("held-small", &small, true),
        listener("held-masked", &masked, true),
        listener("not-held", &rules, false),
    ];
    let lab = Lab::start(
        1,
        &listeners,
        |_| {},
        |azure| {
            azure.set_secret("operator", &format!("{MARK}-operator"));
            azure.set_secret("open-1", &format!("{MARK}-open-1"));
            for turn in ["1", "2", "3"] {
                azure.set_secret(&format!("open-cold-{turn}"), &format!("{MARK}-cold-{turn}"));
            }
            azure.set_secret("open-long", &MARK.repeat(3000));
            // A body may wait when it arrives.
            azure.set_latency(
                envoy_test::emulator::Endpoint::Secrets,
                std::time::Duration::from_millis(100),
            );
        },
    );
    Mutex::new(lab.expect("the lab starts"))
});

fn lab() -> MutexGuard<'static, Lab> {
    LAB.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check(steps: impl FnOnce(&Lab) -> Result<()>) {
    let lab = lab();
    let upstream = &lab.world.upstream;
    let _ = upstream.take();
    let before = upstream.stray().len();
    lab.run(SECRETS, async { steps(&lab) });
    let stray = upstream.stray().split_off(before);
    assert!(
        stray.is_empty(),
        "bytes that are no whole request: {stray:?}"
    );
}

/// Sends a body with its length, or in chunks, over HTTP/1.1.
fn post(
    lab: &Lab,
    listener: &str,
    content_type: &str,
    body: &[u8],
    chunked: bool,
) -> Result<Answer> {
    Connection::open(lab.at(listener))?.send(&post_bytes(content_type, body, chunked))
}

fn post_bytes(content_type: &str, body: &[u8], chunked: bool) -> Vec<u8> {
    let headers: [(&str, &[u8]); 2] = [
        ("host", b"gateway.test"),
        ("content-type", content_type.as_bytes()),
    ];
    if chunked {
        client::chunked_request("POST", "/p", &headers, body)
    } else {
        client::request("POST", "/p", &headers, body)
    }
}

/// How many requests Envoy began to send to the upstream.
fn sent_on(lab: &Lab) -> Result<u64> {
    lab.world.envoy.stat("cluster.upstream.upstream_rq_total")
}

fn only(received: &[Received]) -> Result<&Received> {
    ensure!(received.len() == 1, "one request makes one: {received:?}");
    Ok(&received[0])
}

#[test]
fn a_denied_body_never_reaches_the_upstream() {
    check(|lab| {
        let missing: [(&str, &[u8]); 3] = [
            (
                "application/json",
                br#"{"a":"{vault://azure/open-missing}"}"#,
            ),
            ("text/plain", b"{vault://azure/open-missing-text}"),
            (
                "application/x-www-form-urlencoded",
                b"a=%7Bvault%3A%2F%2Fazure%2Fopen-missing-form%7D",
            ),
        ];
        let before = sent_on(lab)?;
        for (content_type, body) in missing {
            for chunked in [false, true] {
                for turn in ["cold", "cached"] {
                    let answer = post(lab, "held", content_type, body, chunked)?;
                    ensure!(
                        answer.status == 503,
                        "{turn} {content_type}: {}",
                        answer.status
                    );
                    ensure!(answer.text().contains("not_found"), "{}", answer.text());
                    let sent = sent_on(lab)? - before;
                    ensure!(
                        sent == 0,
                        "{turn} {content_type} chunked {chunked}: the upstream was asked"
                    );
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_denied_body_with_trailers_never_reaches_the_upstream() {
    let lab = lab();
    lab.run(SECRETS, async {
        for version in VERSIONS {
            let headers = [
                ("content-type", "application/json"),
                ("te", "trailers"),
                ("trailer", "x-end"),
            ];
            let body = pieces(
                &[b"[\"{vault://azure/", b"open-missing}\"]"],
                &[("x-end", "1")],
            );
            let request = request(version, "POST", &path(version, "denied"), &headers, body);
            let answer = lab.client("held", version).await?.whole(request).await?;
            ensure!(answer.status == 503, "{version:?}: {}", answer.status);
            ensure!(
                lab.upstream.seen("denied").is_empty(),
                "{version:?}: the upstream was asked"
            );
        }
        Ok(())
    });
}

#[test]
fn a_body_that_is_too_long_never_reaches_the_upstream() {
    check(|lab| {
        let before = sent_on(lab)?;
        for chunked in [false, true] {
            let answer = post(lab, "held-small", "text/plain", &[b'x'; 5000], chunked)?;
            ensure!(answer.status == 413, "chunked {chunked}: {}", answer.status);
            ensure!(
                sent_on(lab)? == before,
                "chunked {chunked}: the upstream was asked"
            );
        }
        Ok(())
    });
}

#[test]
fn a_resolved_body_has_its_new_length() {
    check(|lab| {
        let long = MARK.repeat(3000);
        let cases = [
            (
                r#"{"a":"{vault://azure/open-cold-1}"}"#,
                r#"{"a":"pl4nted-cold-1"}"#.to_owned(),
            ),
            (
                r#"{"a":"{vault://azure/open-1}"}"#,
                r#"{"a":"pl4nted-open-1"}"#.to_owned(),
            ),
            (
                r#"{"a":"{vault://azure/open-long}"}"#,
                format!(r#"{{"a":"{long}"}}"#),
            ),
        ];
        for listener in ["held", "held-masked"] {
            for (body, expected) in &cases {
                for turn in ["cold", "cached"] {
                    let _ = lab.world.upstream.take();
                    let answer = post(lab, listener, "application/json", body.as_bytes(), false)?;
                    ensure!(
                        answer.status == 200,
                        "{turn}: {} {}",
                        answer.status,
                        answer.text()
                    );
                    let received = lab.world.upstream.take();
                    let received = only(&received)?;
                    ensure!(
                        received.body == expected.as_bytes(),
                        "{}",
                        String::from_utf8_lossy(&received.body)
                    );
                    let length = received.header("content-length");
                    ensure!(
                        length == [expected.len().to_string()],
                        "{turn} {listener}: {}",
                        received.head()
                    );
                    ensure!(
                        received.header("transfer-encoding").is_empty(),
                        "{}",
                        received.head()
                    );
                    ensure!(received.header("authorization") == ["Bearer pl4nted-operator"]);
                }
            }
        }
        Ok(())
    });
}

#[test]
fn an_unchanged_body_goes_on_byte_for_byte_with_its_length() {
    check(|lab| {
        let large = "{\"k\": \"va\\u006cue\"}\n".repeat(20_000);
        let bodies: [&[u8]; 6] = [
            b"{}",
            b"{ \"a\" : \"\\u0061 {vault://azure/closed}\" ,\n}broken",
            b"{\"a\":\"{vault://\"}",
            b"a=1&&b=%7b+%2B&=",
            b"\xff\xfe\x00",
            large.as_bytes(),
        ];
        for body in bodies {
            for content_type in [
                "application/json",
                "application/x-www-form-urlencoded",
                "text/plain",
                "image/png",
            ] {
                let _ = lab.world.upstream.take();
                let answer = post(lab, "held", content_type, body, false)?;
                ensure!(
                    answer.status == 200,
                    "{content_type}: {} {}",
                    answer.status,
                    answer.text()
                );
                let received = lab.world.upstream.take();
                let received = only(&received)?;
                ensure!(
                    received.body == body,
                    "{content_type}: {}",
                    String::from_utf8_lossy(&received.body)
                );
                let length = received.header("content-length");
                ensure!(
                    length == [body.len().to_string()],
                    "{content_type}: {}",
                    received.head()
                );
                ensure!(
                    received.header("transfer-encoding").is_empty(),
                    "{}",
                    received.head()
                );
            }
        }
        Ok(())
    });
}

#[test]
fn an_empty_body_stays_empty() {
    check(|lab| {
        for (lengths, chunked) in [
            ("content-length: 0\r\n", false),
            ("transfer-encoding: chunked\r\n", true),
        ] {
            let end = if chunked { "0\r\n\r\n" } else { "" };
            let bytes = format!(
                "POST /p HTTP/1.1\r\nhost: x\r\nx-key: {{vault://azure/open-cold-2}}\r\n\
                 content-type: application/json\r\n{lengths}\r\n{end}"
            );
            let answer = client::send(lab.at("held"), bytes.as_bytes())?;
            ensure!(answer.status == 200, "{}", answer.text());
            let received = lab.world.upstream.take();
            let received = only(&received)?;
            ensure!(received.body.is_empty());
            ensure!(
                received.header("x-key") == ["pl4nted-cold-2"],
                "{}",
                received.head()
            );
        }
        Ok(())
    });
}

/// Whatever the length was announced as, one request stays one, and the next one follows it.
#[test]
fn requests_follow_each_other_over_one_connection() {
    check(|lab| {
        let mut connection = Connection::open(lab.at("held"))?;
        for turn in 0..2 {
            for chunked in [false, true] {
                for (body, expected) in [
                    ("[\"{vault://azure/open-cold-3}\"]", "[\"pl4nted-cold-3\"]"),
                    ("[]", "[]"),
                    ("[\"{vault://azure/open-1}\"]", "[\"pl4nted-open-1\"]"),
                ] {
                    let _ = lab.world.upstream.take();
                    let answer = connection.send(&post_bytes(
                        "application/json",
                        body.as_bytes(),
                        chunked,
                    ))?;
                    ensure!(answer.status == 200, "{}", answer.text());
                    let received = lab.world.upstream.take();
                    let received = only(&received)?;
                    let got = String::from_utf8_lossy(&received.body);
                    ensure!(got == expected, "{turn} chunked {chunked}: {got}");
                    let framed = received.header("content-length").len()
                        + received.header("transfer-encoding").len();
                    ensure!(framed == 1, "one of the two: {}", received.head());
                }
            }
        }
        Ok(())
    });
}

#[test]
fn over_http2_a_resolved_body_has_its_new_length_too() {
    let lab = lab();
    lab.run(SECRETS, async {
        for version in VERSIONS {
            for (body, expected) in [
                ("[\"{vault://azure/open-1}\"]", "[\"pl4nted-open-1\"]"),
                ("[ ]", "[ ]"),
            ] {
                let headers = [("content-type", "application/json")];
                let request = request(
                    version,
                    "POST",
                    &path(version, "length"),
                    &headers,
                    full(body),
                );
                let answer = lab.client("held", version).await?.whole(request).await?;
                ensure!(answer.status == 200, "{}", answer.text());
                let seen = lab.upstream.last("length");
                ensure!(seen.text() == expected, "{version:?}: {}", seen.text());
                let length = seen.header("content-length");
                ensure!(
                    length == Some(expected.len().to_string()),
                    "{version:?}: {:?}",
                    seen.headers
                );
            }
        }
        Ok(())
    });
}

/// Envoy's default, and all that Istio and Envoy Gateway have: headers cannot wait without their body, so that
/// the length is not known when they go.
#[test]
fn without_the_flag_a_body_that_may_be_changed_goes_on_in_chunks() {
    check(|lab| {
        for (body, expected) in [
            ("[\"{vault://azure/open-1}\"]", "[\"pl4nted-open-1\"]"),
            ("[]", "[]"),
        ] {
            let _ = lab.world.upstream.take();
            let answer = post(lab, "not-held", "application/json", body.as_bytes(), false)?;
            ensure!(answer.status == 200, "{}", answer.text());
            let received = lab.world.upstream.take();
            let received = only(&received)?;
            ensure!(received.body == expected.as_bytes());
            ensure!(
                received.header("transfer-encoding") == ["chunked"],
                "{}",
                received.head()
            );
            ensure!(
                received.header("content-length").is_empty(),
                "{}",
                received.head()
            );
        }
        // A type that is not listed keeps its length.
        let answer = post(lab, "not-held", "image/png", b"12345", false)?;
        ensure!(answer.status == 200);
        let received = lab.world.upstream.take();
        ensure!(
            only(&received)?.header("content-length") == ["5"],
            "{received:?}"
        );
        Ok(())
    });
}
