//! References in every place of a message, in both dialects: each value in its encoding, lengths that
//! follow, and what a host cannot do safely refused.

mod world;

use proxy_wasm_host::{Dialect, Request, Response, Sent};
use serde_json::{Value, json};
use world::{BOTH, World};

/// A secret with everything that could break out of a place.
const NASTY: &str = "pl4nted\"\\&=#%+ é\r\n\u{0}{vault://azure/closed}";

fn world(dialect: Dialect, request: Value) -> World {
    let world = World::new(dialect, json!({}), request);
    world.azure.set_secret("open-nasty", NASTY);
    world
}

fn resolving() -> Value {
    json!({ "resolve": { "headers": ["x-*"], "query": ["key", "k*"], "allow": ["azure/open-*"],
        "body": ["application/json", "application/*+json", "application/x-www-form-urlencoded", "text/plain"] } })
}

fn sent(world: &mut World, request: &Request) -> Sent {
    let mut id = world.gateway.request(0, request.clone());
    world.answer_all();
    // WasmX fetches for a body and lets the next request have it.
    if world.gateway.dialect() == Dialect::Wasmx
        && world.gateway.answered(id).is_some_and(|a| {
            a.status == 503 && String::from_utf8_lossy(&a.body).contains("not_ready")
        })
    {
        id = world.gateway.request(0, request.clone());
    }
    world
        .gateway
        .sent(id)
        .unwrap_or_else(|| panic!("{:?}", world.gateway.outcome(id)))
}

#[test]
fn a_query_parameter_is_resolved_and_encoded() {
    for dialect in BOTH {
        let mut world = world(dialect, resolving());
        for (path, expected) in [
            ("/a?key={vault://azure/open-1}", "/a?key=pl4nted-open-1"),
            (
                "/a?key=%7Bvault%3A%2F%2Fazure%2Fopen-1%7D&x=1",
                "/a?key=pl4nted-open-1&x=1",
            ),
            (
                "/a?x=%20+&k%65y=a{vault://azure/open-2}z&&y",
                "/a?x=%20+&k%65y=apl4nted-open-2z&&y",
            ),
            (
                "/a?other={vault://azure/open-1}",
                "/a?other={vault://azure/open-1}",
            ),
            (
                "/a?key={vault://azure/closed}",
                "/a?key={vault://azure/closed}",
            ),
            ("/a?key=1", "/a?key=1"),
            ("/a?", "/a?"),
            (
                "/a?key={vault://azure/open-nasty}",
                "/a?key=pl4nted%22%5C%26%3D%23%25%2B%20%C3%A9%0D%0A%00%7Bvault%3A%2F%2Fazure%2Fclosed%7D",
            ),
        ] {
            let got = sent(&mut world, &Request::get(path, &[]));
            assert_eq!(got.headers.text(":path"), expected, "{dialect:?}");
        }
        assert_eq!(world.azure.secret_calls("closed"), 0);
    }
}

#[test]
fn the_operators_parameter_wins_over_the_clients() {
    for dialect in BOTH {
        let rules = json!({ "set": { "query": { "key": "{vault://azure/db}", "fixed": "a&b" } },
            "resolve": { "query": ["*"], "allow": ["*"] } });
        let mut world = world(dialect, rules);
        world.warm();
        for (path, expected) in [
            ("/a", "/a?fixed=a%26b&key=pl4nted-db"),
            (
                "/a?key={vault://azure/open-1}&x=1&k%65y=2",
                "/a?x=1&fixed=a%26b&key=pl4nted-db",
            ),
        ] {
            let got = sent(&mut world, &Request::get(path, &[]));
            assert_eq!(got.headers.text(":path"), expected, "{dialect:?}");
        }
    }
}

#[test]
fn bodies_are_resolved_in_their_own_writing() {
    for dialect in BOTH {
        let mut world = world(dialect, resolving());
        for (content_type, body, expected) in [
            (
                "application/json",
                r#"{"a":["{vault://azure/open-1}"],"{vault://azure/open-1}":1}"#,
                r#"{"a":["pl4nted-open-1"],"{vault://azure/open-1}":1}"#,
            ),
            (
                "application/json; charset=utf-8",
                r#"{"a":"x \u007bvault:\/\/azure\/open-1} y"}"#,
                r#"{"a":"x pl4nted-open-1 y"}"#,
            ),
            (
                "application/vnd.api+json",
                r#"["{vault://azure/open-nasty}"]"#,
                "[\"pl4nted\\\"\\\\&=#%+ é\\u000d\\u000a\\u0000{vault://azure/closed}\"]",
            ),
            (
                "application/x-www-form-urlencoded",
                "a=%7Bvault://azure/open-1}&b=1",
                "a=pl4nted-open-1&b=1",
            ),
            (
                "application/x-www-form-urlencoded",
                "a={vault://azure/open-nasty}",
                "a=pl4nted%22%5C%26%3D%23%25%2B%20%C3%A9%0D%0A%00%7Bvault%3A%2F%2Fazure%2Fclosed%7D",
            ),
            (
                "text/plain",
                "k: {vault://azure/open-1}\nz",
                "k: pl4nted-open-1\nz",
            ),
            ("text/plain", "{vault://azure/open-nasty}", NASTY),
            (
                "text/plain",
                "{vault://azure/closed}",
                "{vault://azure/closed}",
            ),
            (
                "text/html",
                "{vault://azure/open-1}",
                "{vault://azure/open-1}",
            ),
            (
                "text/plain; charset=utf-16",
                "{vault://azure/open-1}",
                "{vault://azure/open-1}",
            ),
            (
                "application/json",
                "{\"a\":\"\\ud800{vault://azure/open-1}\"}",
                "{\"a\":\"\\ud800{vault://azure/open-1}\"}",
            ),
            (
                "application/json",
                "\"unterminated {vault://azure/open-1}",
                "\"unterminated {vault://azure/open-1}",
            ),
        ] {
            let got = sent(
                &mut world,
                &Request::post("/", content_type, body.as_bytes()),
            );
            assert_eq!(
                String::from_utf8_lossy(&got.body),
                expected,
                "{dialect:?} {content_type}"
            );
        }
        assert_eq!(world.azure.secret_calls("closed"), 0);
    }
}

#[test]
fn a_body_in_pieces_with_references_in_its_headers_too() {
    let mut world = world(Dialect::Envoy, resolving());
    let mut request = Request::post("/?key={vault://azure/open-3}", "text/plain", b"");
    request.headers.remove("content-length");
    request.headers.push("x-key", b"{vault://azure/open-2}");
    request.body = ["a {vau", "lt://azure/op", "en-1} z"]
        .map(|piece| piece.as_bytes().to_vec())
        .to_vec();
    let got = sent(&mut world, &request);
    assert_eq!(got.body, b"a pl4nted-open-1 z");
    assert_eq!(got.headers.text("x-key"), "pl4nted-open-2");
    assert_eq!(got.headers.text(":path"), "/?key=pl4nted-open-3");
}

#[test]
fn bodies_that_are_too_long_are_refused_and_compressed_ones_left_alone() {
    for dialect in BOTH {
        let mut configuration = world::configuration(&json!({}), &resolving());
        configuration["max_body_bytes"] = json!(1000);
        let mut world = World::whole(dialect, configuration, |settings| settings.body_limit = 500);
        let long = "x".repeat(1001);
        let id = world
            .gateway
            .request(0, Request::post("/", "text/plain", long.as_bytes()));
        assert_eq!(
            world.gateway.answered(id).expect("an answer").status,
            413,
            "{dialect:?}"
        );
        let mut chunked = Request::post("/", "text/plain", b"");
        chunked.headers.remove("content-length");
        chunked.body = vec![vec![b'x'; 400]; 3];
        let id = world.gateway.request(0, chunked);
        world.make_calls();
        assert_eq!(
            world.gateway.answered(id).expect("an answer").status,
            413,
            "{dialect:?}"
        );
        let mut zipped = Request::post("/", "text/plain", b"{vault://azure/open-1}");
        zipped.headers.push("content-encoding", b"gzip");
        let got = sent(&mut world, &zipped);
        assert_eq!(got.body, b"{vault://azure/open-1}");
        assert_eq!(got.headers.text("content-length"), "22");
    }
}

#[test]
fn a_body_that_wasmx_put_into_a_file_is_refused() {
    let mut world = World::with(Dialect::Wasmx, json!({}), resolving(), |settings| {
        settings.body_limit = 100
    });
    let id = world
        .gateway
        .request(0, Request::post("/", "text/plain", &[b'x'; 101]));
    assert_eq!(world.gateway.answered(id).expect("an answer").status, 413);
}

#[test]
fn references_without_a_value_are_removed_in_each_places_own_way() {
    for dialect in BOTH {
        let mut configuration = world::configuration(&json!({}), &resolving());
        configuration["on_error"] = json!("remove");
        let mut world = World::whole(dialect, configuration, |_| {});
        world.azure.set_secret("open-binary", "caf\u{e9}");
        let none = "{vault://azure/open-none}";
        // Known to be missing by then.
        sent(&mut world, &Request::get("/", &[("x-key", none)]));
        let got = sent(
            &mut world,
            &Request::get(&format!("/?a=1&key={none}&b=2"), &[]),
        );
        assert_eq!(got.headers.text(":path"), "/?a=1&b=2", "{dialect:?}");
        for (content_type, body, expected) in [
            (
                "application/json",
                format!(r#"{{"a":"x{none}","b":"y"}}"#),
                r#"{"a":null,"b":"y"}"#,
            ),
            (
                "application/x-www-form-urlencoded",
                format!("a=1&b={none}&c"),
                "a=1&c",
            ),
            ("text/plain", format!("a{none}b"), "ab"),
        ] {
            let got = sent(
                &mut world,
                &Request::post("/", content_type, body.as_bytes()),
            );
            assert_eq!(String::from_utf8_lossy(&got.body), expected, "{dialect:?}");
        }
    }
}

#[test]
fn keep_leaves_every_place_as_it_came() {
    for dialect in BOTH {
        let mut configuration = world::configuration(&json!({}), &resolving());
        configuration["on_error"] = json!("keep");
        let mut world = World::whole(dialect, configuration, |_| {});
        let none = "{vault://azure/open-none}";
        sent(&mut world, &Request::get("/", &[("x-key", none)]));
        let got = sent(&mut world, &Request::get(&format!("/?key={none}"), &[]));
        assert_eq!(got.headers.text(":path"), "/?key={vault://azure/open-none}");
        let body = format!("[\"{none}\"]");
        let got = sent(
            &mut world,
            &Request::post("/", "application/json", body.as_bytes()),
        );
        assert_eq!(String::from_utf8_lossy(&got.body), body, "{dialect:?}");
    }
}

fn with_response(dialect: Dialect, response: Value, chunk: usize) -> World {
    let mut configuration = world::configuration(&json!({ "ttl": 10 }), &resolving());
    configuration["response"] = response;
    World::whole(dialect, configuration, |settings| {
        settings.response_chunk = chunk
    })
}

#[test]
fn responses_get_what_the_operator_sets() {
    for dialect in BOTH {
        let rules = json!({ "set": { "headers": { "x-signed": "kid {vault://azure/db}" } } });
        let mut world = with_response(dialect, rules, 5);
        // Cold: the request waits for what its response will need.
        let id = world.get(0, &[]);
        world.answer_all();
        let answer = world.gateway.answered(id).expect("an answer");
        assert_eq!(
            answer.headers.text("x-signed"),
            "kid pl4nted-db",
            "{dialect:?}"
        );
        assert_eq!(answer.body, b"ok");
    }
}

#[test]
fn references_in_responses_are_resolved() {
    for dialect in BOTH {
        let rules = json!({ "resolve": { "headers": ["x-next"], "body": ["application/json"], "allow": ["azure/open-*"] } });
        let mut world = with_response(dialect, rules, 7);
        world.gateway.answer_upstream(|_| {
            let body = r#"{"k":"{vault://azure/open-2}","c":"{vault://azure/closed}"}"#;
            let length = body.len().to_string();
            let headers = [
                ("content-type", "application/json"),
                ("x-next", "{vault://azure/open-1}"),
                ("x-other", "{vault://azure/open-1}"),
                ("content-length", &length),
            ];
            Response::new(200, &headers, body.as_bytes())
        });
        // WasmX cannot wait in a response: the values are there for the next one.
        let first = world.get(0, &[]);
        world.answer_all();
        if dialect == Dialect::Wasmx {
            assert_eq!(
                world.gateway.answered(first).expect("an answer").status,
                503
            );
            for _ in 0..3 {
                world.gateway.advance(600);
                world.answer_all();
                world.get(0, &[]);
            }
        }
        let id = world.get(0, &[]);
        world.answer_all();
        let answer = world.gateway.answered(id).expect("an answer");
        assert_eq!(
            answer.headers.text("x-next"),
            "pl4nted-open-1",
            "{dialect:?}"
        );
        assert_eq!(answer.headers.text("x-other"), "{vault://azure/open-1}");
        assert_eq!(
            String::from_utf8_lossy(&answer.body),
            r#"{"k":"pl4nted-open-2","c":"{vault://azure/closed}"}"#,
            "{dialect:?}"
        );
        assert_eq!(world.azure.secret_calls("closed"), 0);
    }
}

#[test]
fn values_that_an_upstream_sends_back_are_masked() {
    for dialect in BOTH {
        for chunk in [1, 3, 16, 1000] {
            let mut world = with_response(dialect, json!({ "redact": true }), chunk);
            world.gateway.answer_upstream(|sent| {
                assert_eq!(sent.headers.text("accept-encoding"), "identity");
                let key = sent.headers.text("x-key");
                let body = format!("echo {key} and {key}");
                let length = body.len().to_string();
                Response::new(
                    200,
                    &[
                        ("x-echo", &key),
                        ("x-echo", "2"),
                        ("content-length", &length),
                    ],
                    body.as_bytes(),
                )
            });
            let id = world.get(
                0,
                &[
                    ("x-key", "{vault://azure/open-1}"),
                    ("accept-encoding", "gzip"),
                ],
            );
            world.answer_all();
            let answer = world.gateway.answered(id).expect("an answer");
            assert_eq!(
                String::from_utf8_lossy(&answer.body),
                "echo ************** and **************",
                "{dialect:?} {chunk}"
            );
            assert_eq!(answer.headers.all("x-echo"), [&b"**************"[..], b"2"]);
        }
    }
}

#[test]
fn a_client_that_asks_for_a_million_names_is_slowed_down() {
    for dialect in BOTH {
        let mut configuration = world::configuration(&json!({}), &resolving());
        configuration["max_fetches_per_second"] = json!(5);
        configuration["max_fetches_in_flight"] = json!(3);
        configuration["request"]["set"] =
            json!({ "headers": { "authorization": "{vault://azure/db}" } });
        let mut world = World::whole(dialect, configuration, |settings| settings.workers = 1);
        world.warm();
        let mut ids = Vec::new();
        for n in 0..50 {
            ids.push(world.get(0, &[("x-key", &format!("{{vault://azure/open-{n}x}}"))]));
        }
        // Three at a time, and the operator's own.
        let secrets = world.gateway.calls().len();
        assert!(secrets <= 8, "{dialect:?}: {secrets}");
        world.answer_all();
        let total = world
            .azure
            .calls()
            .iter()
            .filter(|c| c.path.contains("open-"))
            .count();
        assert!(total <= 3, "{dialect:?}: {total}");
        let refused = ids.iter().filter_map(|id| world.gateway.answered(*id));
        let refused: Vec<_> = refused
            .filter(|a| String::from_utf8_lossy(&a.body).contains("too_many_fetches"))
            .collect();
        assert!(refused.len() >= 47, "{dialect:?}: {}", refused.len());
        assert!(refused.iter().all(|a| a.headers.text("retry-after") == "1"));
        // The operator's secret is there all the same, and so is a client's a second later.
        world.gateway.advance(1100);
        world.answer_all();
        let id = world.get(0, &[("x-key", "{vault://azure/open-1}")]);
        world.answer_all();
        assert_eq!(
            world.upstream(id, "authorization"),
            ["pl4nted-db"],
            "{dialect:?}"
        );
        assert_eq!(
            world.upstream(id, "x-key"),
            ["pl4nted-open-1"],
            "{dialect:?}"
        );
    }
}

/// WasmX would leave the upstream's length on the answer that is made in place of its response.
#[test]
fn a_response_that_is_refused_has_the_length_of_what_is_sent() {
    for dialect in BOTH {
        let rules = json!({ "resolve": { "headers": ["x-next"], "allow": ["azure/open-*"] } });
        let mut world = with_response(dialect, rules, 1000);
        world.gateway.answer_upstream(|_| {
            let headers = [
                ("x-next", "{vault://azure/open-none}"),
                ("content-length", "5000"),
            ];
            Response::new(200, &headers, &[b'x'; 5000])
        });
        let id = world.get(0, &[]);
        world.answer_all();
        let answer = world.gateway.answered(id).expect("an answer");
        assert_eq!(answer.status, 503, "{dialect:?}");
        let length = answer.headers.get("content-length");
        assert!(
            length.is_none() || length == Some(answer.body.len().to_string().as_bytes()),
            "{dialect:?}"
        );
    }
}

/// What was put together for one request is used again; never for a request that did not ask, for another
/// header, or after the secret changed.
#[test]
fn a_prepared_header_goes_to_those_who_ask_for_it_and_nobody_else() {
    for dialect in BOTH {
        let mut world = World::new(
            dialect,
            json!({ "ttl": 60 }),
            json!({
                "set": { "headers": { "authorization": "Bearer {vault://azure/db}" } },
                "resolve": { "headers": ["*"], "allow": ["azure/open-*"] },
            }),
        );
        world.warm();
        let get = |world: &mut World, headers: &[(&str, &str)]| {
            let id = world.get(0, headers);
            world.answer_all();
            id
        };
        let one = "{vault://azure/open-1}";
        for _ in 0..4 {
            let id = get(
                &mut world,
                &[("x-a", one), ("x-c", "{vault://azure/closed}")],
            );
            assert_eq!(world.upstream(id, "x-a"), ["pl4nted-open-1"], "{dialect:?}");
            assert_eq!(world.upstream(id, "x-c"), ["{vault://azure/closed}"]);
            assert_eq!(world.upstream(id, "authorization"), ["Bearer pl4nted-db"]);
        }
        // It is given up half way, for a secret that is not known yet: nothing of it is left over.
        let waits = world.get(0, &[("x-a", one), ("x-b", "{vault://azure/open-2}")]);
        let other = world.get(0, &[("x-b", "plain")]);
        assert_eq!(world.upstream(other, "x-a"), [""; 0], "{dialect:?}");
        assert_eq!(world.upstream(other, "x-b"), ["plain"]);
        assert_eq!(
            world.upstream(other, "authorization"),
            ["Bearer pl4nted-db"]
        );
        world.answer_all();
        assert_eq!(world.upstream(waits, "x-a"), ["pl4nted-open-1"]);
        assert_eq!(world.upstream(waits, "x-b"), ["pl4nted-open-2"]);
        // The same text under another name, and twice under one.
        let id = get(&mut world, &[("x-z", one)]);
        assert_eq!(world.upstream(id, "x-z"), ["pl4nted-open-1"]);
        assert_eq!(world.upstream(id, "x-a"), [""; 0]);
        let id = get(&mut world, &[("x-a", one), ("X-A", "2")]);
        match dialect {
            Dialect::Envoy => assert_eq!(world.upstream(id, "x-a"), ["pl4nted-open-1", "2"]),
            Dialect::Wasmx => {
                let answer = world.gateway.answered(id);
                assert_eq!(answer.map(|answer| answer.status), Some(400));
            }
        }
        // A new version is in use when its time has come.
        world.azure.set_secret("open-1", "pl4nted-new");
        for _ in 0..130 {
            world.gateway.advance(1_000);
            get(&mut world, &[("x-a", one)]);
        }
        let id = get(&mut world, &[("x-a", one)]);
        assert_eq!(world.upstream(id, "x-a"), ["pl4nted-new"], "{dialect:?}");
    }
}
