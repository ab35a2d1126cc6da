//! Bodies, queries and responses in a real Envoy over connections that are kept alive, in front of an
//! upstream that reports every request that it parsed: nothing may be split, cut or left hanging.

use envoy_test::client::{self, Answer, Connection};
use envoy_test::envoy::Tools;
use envoy_test::world::{BODY_TYPES, CLIENT_SECRET, World, configuration};
use serde_json::{Value, json};

const HOST: &[(&str, &[u8])] = &[("host", b"gateway.test")];
const MARK: &str = "pl4nted";

fn world(request: &Value, more: &Value) -> World {
    let mut rest = json!({ "request": request });
    for (name, value) in more.as_object().expect("an object") {
        rest[name] = value.clone();
    }
    let tools = Tools::find().expect("the tools are there");
    World::start(tools, &configuration(&json!({}), &rest), |azure| {
        azure.set_secret("open-short", MARK);
        azure.set_secret("open-long", &MARK.repeat(3000));
        azure.set_secret(
            "open-split",
            &format!("{MARK}\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"),
        );
        azure.set_secret("closed", &format!("{MARK}-closed"));
    })
    .expect("the world starts")
}

fn rules() -> Value {
    json!({ "resolve": { "headers": ["x-*"], "query": ["key"], "allow": ["azure/open-*"],
        "body": BODY_TYPES } })
}

fn post(
    connection: &mut Connection,
    headers: &[(&str, &[u8])],
    body: &[u8],
    chunked: bool,
) -> Answer {
    let headers = [HOST, headers].concat();
    let request = if chunked {
        client::chunked_request("POST", "/p", &headers, body)
    } else {
        client::request("POST", "/p", &headers, body)
    };
    connection.send(&request).expect("an answer")
}

fn get(connection: &mut Connection, target: &str, headers: &[(&str, &[u8])]) -> Answer {
    connection
        .send(&client::request(
            "GET",
            target,
            &[HOST, headers].concat(),
            b"",
        ))
        .expect("an answer")
}

/// A body that is shorter, longer, very much longer, in pieces and empty, cold and cached, one after the
/// other over one connection.
#[test]
fn bodies_of_every_length_over_one_connection() {
    let world = world(&rules(), &json!({}));
    let mut connection = Connection::open(world.envoy.address).expect("a connection");
    let long = MARK.repeat(3000);
    let cases = [
        (
            "text/plain",
            "{vault://azure/open-short}".to_owned(),
            MARK.to_owned(),
        ),
        (
            "text/plain",
            "{vault://azure/open-long}".to_owned(),
            long.clone(),
        ),
        ("text/plain", "plain".to_owned(), "plain".to_owned()),
        ("text/plain", String::new(), String::new()),
        (
            "application/json",
            r#"{"a":"{vault://azure/open-long}"}"#.to_owned(),
            format!(r#"{{"a":"{long}"}}"#),
        ),
        (
            "application/json",
            r#"["{vault://azure/open-split}"]"#.to_owned(),
            format!(
                "[\"{MARK}\\u000d\\u000a\\u000d\\u000aGET /smuggled HTTP/1.1\\u000d\\u000ahost: x\\u000d\\u000a\\u000d\\u000a\"]"
            ),
        ),
        (
            "text/plain",
            "{vault://azure/open-split}".to_owned(),
            format!("{MARK}\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"),
        ),
        (
            "text/html",
            "{vault://azure/open-short}".to_owned(),
            "{vault://azure/open-short}".to_owned(),
        ),
        (
            "text/plain",
            "{vault://azure/closed}".to_owned(),
            "{vault://azure/closed}".to_owned(),
        ),
    ];
    for round in 0..2 {
        for chunked in [false, true] {
            for (content_type, body, expected) in &cases {
                let _ = world.upstream.take();
                let answer = post(
                    &mut connection,
                    &[("content-type", content_type.as_bytes())],
                    body.as_bytes(),
                    chunked,
                );
                assert_eq!(answer.status, 200, "{content_type} {round}");
                let received = world.upstream.take();
                assert_eq!(
                    received.len(),
                    1,
                    "one request came out of one: {received:?}"
                );
                assert_eq!(
                    String::from_utf8_lossy(&received[0].body),
                    *expected,
                    "chunked {chunked}"
                );
            }
        }
    }
    assert!(world.upstream.stray().is_empty(), "bytes behind a request");
    world.assert_clean(&[MARK, CLIENT_SECRET]);
}

#[test]
fn queries_and_headers_that_would_split_a_request() {
    let world = world(&rules(), &json!({}));
    let mut connection = Connection::open(world.envoy.address).expect("a connection");
    for _ in 0..2 {
        let answer = get(
            &mut connection,
            "/p?key={vault://azure/open-split}&b=1",
            &[],
        );
        assert_eq!(answer.status, 200);
        let received = world.upstream.take();
        assert_eq!(received.len(), 1);
        assert_eq!(
            received[0].target,
            format!(
                "/p?key={MARK}%0D%0A%0D%0AGET%20%2Fsmuggled%20HTTP%2F1.1%0D%0Ahost%3A%20x%0D%0A%0D%0A&b=1"
            )
        );
        let answer = get(
            &mut connection,
            "/p",
            &[("x-key", b"{vault://azure/open-split}")],
        );
        assert_eq!(answer.status, 503);
        assert!(
            answer.text().contains("not_representable"),
            "{}",
            answer.text()
        );
        assert!(world.upstream.take().is_empty());
    }
    assert!(world.upstream.stray().is_empty());
    world.assert_clean(&[MARK, CLIENT_SECRET]);
}

#[test]
fn a_body_that_is_too_long_is_refused() {
    let world = world(&rules(), &json!({ "max_body_bytes": 1000 }));
    for chunked in [false, true] {
        let mut connection = Connection::open(world.envoy.address).expect("a connection");
        let answer = post(
            &mut connection,
            &[("content-type", b"text/plain")],
            &[b'x'; 5000],
            chunked,
        );
        assert_eq!(answer.status, 413, "chunked {chunked}");
        assert!(
            answer.text().contains("body_too_large"),
            "{}",
            answer.text()
        );
    }
    assert!(world.upstream.take().is_empty());
}

#[test]
fn responses_are_set_resolved_and_masked() {
    let response = json!({ "redact": true, "set": { "headers": { "x-signed": "{vault://azure/open-short}" } },
        "resolve": { "headers": ["x-next"], "body": ["text/plain", "application/json"], "allow": ["azure/open-*"] } });
    let world = world(&rules(), &json!({ "response": response }));
    let mut connection = Connection::open(world.envoy.address).expect("a connection");
    for _ in 0..3 {
        // The upstream's /echo sends the request's headers back.
        let answer = get(
            &mut connection,
            "/echo",
            &[("x-key", b"{vault://azure/open-long}")],
        );
        assert_eq!(answer.status, 200, "{}", answer.text());
        let signed: Vec<_> = answer
            .headers
            .iter()
            .filter(|(name, _)| name == "x-signed")
            .collect();
        assert_eq!(signed.len(), 1);
        assert_eq!(signed[0].1, MARK);
        let text = answer.text();
        assert!(!text.contains(MARK), "not masked");
        assert!(
            text.contains(&"*".repeat(MARK.len() * 3000)),
            "{}",
            &text[..200]
        );
    }
    world.assert_clean(&[MARK, CLIENT_SECRET]);
}
