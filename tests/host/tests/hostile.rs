//! What people send who want what is not theirs, through the release filter in both dialects: for each
//! input, nothing unlisted is fetched, no value that is not theirs comes out anywhere, and what does come
//! out is what the rules say.

mod world;

use proxy_wasm_host::{Dialect, Outcome, Request};
use serde_json::{Value, json};
use world::{BOTH, MARK, World, say};

/// The least number of inputs for each dialect.
const INPUTS: usize = 250;

/// Spellings that try to reach `closed`, or more of `db` than its key `user`, past the list.
const SPELLINGS: [&str; 56] = [
    "{vault://azure/closed}",
    "{vault://azure/CLOSED}",
    "{vault://azure/Closed/}",
    "{vault://azure/closed/key}",
    "{vault://azure//closed}",
    "{vault://azure/./closed}",
    "{vault://azure/../closed}",
    "{vault://azure/open-1/../closed}",
    "{vault://azure/open-1/../../closed}",
    "{vault://azure/open-1%2f..%2fclosed}",
    "{vault://azure/open-1/..%2fclosed}",
    "{vault://azure/%63losed}",
    "{vault://azure/clo%73ed}",
    "{vault://azure/%2563losed}",
    "{vault://azure%2fclosed}",
    "{vault://azure%00/closed}",
    "{vault://azure/closed%00}",
    "{vault://azure/closed%00open-1}",
    "{vault://azure/open-1%00/closed}",
    "{vault://azure/ closed}",
    "{vault://azure/closed }",
    "{vault://azure/+closed}",
    "{vault://azure/closed?}",
    "{vault://azure/closed?ttl=0}",
    "{vault://azure/closed?prefix=open-}",
    "{vault://azure/closed#1}",
    "{vault://azure/closed#latest}",
    "{vault://azure/closed#0123456789abcdef0123456789abcdef}",
    "{vault://azure/closed?ttl=1#latest}",
    "{vault://azure/open-1?vault_uri=https://evil.test}",
    "{vault://azure/open-1?client_id=x}",
    "{vault://azure/open-*}",
    "{vault://azure/*}",
    "{vault://*/closed}",
    "{vault://AZURE/closed}",
    "{vault://Azure/open-1}",
    "{vault://azure2/open-1}",
    "{vault://user@azure/closed}",
    "{vault://azure:443/closed}",
    "{vault://azure/closed/../open-1}",
    "{VAULT://azure/closed}",
    "{vault:/azure/closed}",
    "{vault:///azure/closed}",
    "{ vault://azure/closed}",
    "{{vault://azure/closed}}",
    "{vault://azure/{vault://azure/closed}}",
    "{vault://azure/open-1{vault://azure/closed}",
    "\\{vault://azure/closed}",
    "\\\\{vault://azure/closed}",
    "{vault://azure/xopen-1}",
    "{vault://azure/open_1}",
    "{vault://azure/db}",
    "{vault://azure/db/password}",
    "{vault://azure/db/user/password}",
    "{vault://azure/db/User}",
    "{vault://azure/db/use%72/../password}",
];

/// Ways in which a value could leave its place.
const BREAKING: [(&str, &str); 9] = [
    (
        "open-crlf",
        "pl4nted\r\nx-admin: 1\r\n\r\nGET /smuggled HTTP/1.1",
    ),
    ("open-lf", "pl4nted\n"),
    ("open-nul", "pl4nted\0"),
    ("open-quote", "pl4nted\",\"admin\":true,\"x\":\""),
    ("open-backslash", "pl4nted\\"),
    ("open-amp", "pl4nted&admin=1"),
    ("open-hash", "pl4nted#/../admin?x"),
    ("open-ref", "pl4nted {vault://azure/closed}"),
    ("open-esc", "pl4nted\u{1b}[2J\u{7f}\u{85}"),
];

#[derive(Clone, Copy, Debug)]
enum Place {
    Header,
    Query,
    RawQuery,
    Json,
    EscapedJson,
    Form,
    Text,
}

const PLACES: [Place; 7] = [
    Place::Header,
    Place::Query,
    Place::RawQuery,
    Place::Json,
    Place::EscapedJson,
    Place::Form,
    Place::Text,
];

fn percent(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

fn request(place: Place, text: &str) -> Request {
    match place {
        Place::Header => Request::get("/", &[("x-key", text)]),
        Place::Query => Request::get(&format!("/?key={}", percent(text)), &[]),
        Place::RawQuery => Request::get(
            &format!("/?key={}", text.replace(['#', ' ', '&'], "%")),
            &[],
        ),
        Place::Json => Request::post(
            "/",
            "application/json",
            json!({ "a": [text] }).to_string().as_bytes(),
        ),
        Place::EscapedJson => {
            let escaped: String = text
                .chars()
                .map(|c| format!("\\u{:04x}", c as u32))
                .collect();
            Request::post(
                "/",
                "application/json",
                format!("[\"{escaped}\"]").as_bytes(),
            )
        }
        Place::Form => Request::post(
            "/",
            "application/x-www-form-urlencoded",
            format!("a={}", percent(text)).as_bytes(),
        ),
        Place::Text => Request::post("/", "text/plain", text.as_bytes()),
    }
}

fn rules(headers: &[&str]) -> Value {
    json!({ "resolve": { "headers": headers, "query": ["*"], "allow": ["azure/open-*", "azure/db/user"],
        "body": ["application/json", "application/x-www-form-urlencoded", "text/plain"] } })
}

fn hostile_world(dialect: Dialect) -> World {
    let mut configuration = world::configuration(&json!({ "neg_ttl": 60 }), &rules(&["*"]));
    configuration["max_fetches_per_second"] = json!(10_000);
    let world = World::whole(dialect, configuration, |_| {});
    world
        .azure
        .set_secret("db", r#"{"user":"u","password":"pl4nted-password"}"#);
    for (name, value) in BREAKING {
        world.azure.set_secret(name, value);
    }
    world
}

/// Everything that came out of a request: what the upstream got, and what the client got.
fn outcome(world: &mut World, request: &Request) -> (String, String) {
    let mut out = (String::new(), String::new());
    // Twice: WasmX has a body's value ready the second time.
    for _ in 0..2 {
        let id = world.gateway.request(0, request.clone());
        world.answer_all();
        assert_ne!(world.gateway.outcome(id), Outcome::Waiting, "{request:?}");
        out = (String::new(), String::new());
        if let Some(sent) = world.gateway.sent(id) {
            for (name, value) in sent.headers.iter() {
                out.0
                    .push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value)));
            }
            out.0.push_str(&String::from_utf8_lossy(&sent.body));
        }
        if let Some(answer) = world.gateway.answered(id) {
            out.1 = format!(
                "{} {:?} {}",
                answer.status,
                answer.headers,
                String::from_utf8_lossy(&answer.body)
            );
        }
    }
    out
}

#[test]
fn no_spelling_gets_round_the_list() {
    for dialect in BOTH {
        let mut world = hostile_world(dialect);
        let mut inputs = 0;
        for spelling in SPELLINGS {
            for place in PLACES {
                let (upstream, client) = outcome(&mut world, &request(place, spelling));
                for value in ["pl4nted-closed", "pl4nted-password"] {
                    assert!(
                        !upstream.contains(value),
                        "{dialect:?} {place:?} {spelling}: {upstream}"
                    );
                    assert!(
                        !client.contains(MARK),
                        "{dialect:?} {place:?} {spelling}: {client}"
                    );
                }
                assert!(
                    client.starts_with("200") || client.starts_with("503"),
                    "{spelling}: {client}"
                );
                inputs += 1;
            }
        }
        assert_eq!(world.azure.secret_calls("closed"), 0, "{dialect:?}");
        assert!(inputs >= INPUTS, "{inputs}");
        say(&format!("{dialect:?}: {inputs} hostile spellings"));
        world.check();
    }
}

#[test]
fn no_value_breaks_out_of_its_place() {
    for dialect in BOTH {
        let mut world = hostile_world(dialect);
        let mut inputs = 0;
        for (name, value) in BREAKING {
            let reference = format!("{{vault://azure/{name}}}");
            for place in PLACES {
                let (upstream, client) = outcome(&mut world, &request(place, &reference));
                assert!(!client.contains(MARK), "{client}");
                let last = upstream.split('\n').next_back().unwrap_or_default();
                match place {
                    Place::Header => {
                        let fits = !value.bytes().any(|b| b < 0x20 || b == 0x7f);
                        let expected = format!("x-key: {value}\n");
                        assert_eq!(
                            upstream.contains(&expected),
                            fits,
                            "{dialect:?} {name}: {upstream}"
                        );
                        assert_eq!(client.starts_with("503"), !fits, "{client}");
                    }
                    Place::Query | Place::RawQuery | Place::Form => {
                        let encoded: String = value
                            .bytes()
                            .map(|b| {
                                if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                                    char::from(b).to_string()
                                } else {
                                    format!("%{b:02X}")
                                }
                            })
                            .collect();
                        let key = if matches!(place, Place::Form) {
                            format!("a={encoded}")
                        } else {
                            format!("/?key={encoded}\n")
                        };
                        assert!(
                            upstream.contains(&key),
                            "{dialect:?} {name} {place:?}: {upstream}"
                        );
                    }
                    Place::Json => assert_eq!(
                        serde_json::from_str::<Value>(last).expect("JSON"),
                        json!({ "a": [value] })
                    ),
                    Place::EscapedJson => assert_eq!(
                        serde_json::from_str::<Value>(last).expect("JSON"),
                        json!([value])
                    ),
                    Place::Text => assert!(upstream.ends_with(value), "{upstream}"),
                }
                inputs += 1;
            }
        }
        assert_eq!(
            world.azure.secret_calls("closed"),
            0,
            "a value is not read for references"
        );
        say(&format!(
            "{dialect:?}: {inputs} values that would break out"
        ));
    }
}

#[test]
fn headers_that_route_or_frame_are_never_written() {
    for dialect in BOTH {
        let mut world = hostile_world(dialect);
        for name in [
            "host",
            "connection",
            "te",
            "trailer",
            "upgrade",
            "proxy-authorization",
            "expect",
            "keep-alive",
            "content-length",
            "transfer-encoding",
        ] {
            let request = Request::get("/", &[(name, "{vault://azure/open-1}")]);
            let id = world.gateway.request(0, request);
            world.answer_all();
            // With `upgrade` the request is a tunnel, and never complete.
            let sent = world.gateway.sent_so_far(id).expect("sent");
            assert_eq!(
                sent.headers.text(name),
                "{vault://azure/open-1}",
                "{dialect:?}"
            );
        }
        for name in [":path", ":authority", ":method", ":scheme"] {
            let mut request = Request::get("/", &[]);
            request.headers.set(name, b"/{vault://azure/open-1}");
            let id = world.gateway.request(0, request);
            world.answer_all();
            let sent = world.gateway.sent(id);
            let sent = sent.unwrap_or_else(|| panic!("{dialect:?} {name}: not sent"));
            assert_eq!(
                sent.headers.text(name),
                "/{vault://azure/open-1}",
                "{dialect:?}"
            );
        }
        assert_eq!(world.azure.calls().len(), 0);
        world.expected = |v| v.what.contains("content-length");
    }
}

#[test]
fn options_in_a_clients_reference_do_not_touch_the_operators_caching() {
    for dialect in BOTH {
        let mut world = World::new(dialect, json!({ "ttl": 60 }), rules(&["x-*"]));
        for n in 0..30 {
            let options = [
                "?ttl=1",
                "?ttl=0",
                "?neg_ttl=0",
                "?resurrect_ttl=0",
                "?ttl=1e8",
                "#latest",
            ];
            let reference = format!("{{vault://azure/open-1{}}}", options[n % options.len()]);
            let id = world.get(0, &[("x-key", &reference)]);
            world.answer_all();
            assert_eq!(
                world.upstream(id, "x-key"),
                ["pl4nted-open-1"],
                "{dialect:?} {reference}"
            );
            world.gateway.advance(100);
        }
        assert_eq!(world.azure.secret_calls("open-1"), 1, "{dialect:?}");
    }
}

#[test]
fn over_long_and_very_many_references() {
    for dialect in BOTH {
        let mut world = hostile_world(dialect);
        let long = format!("{{vault://azure/open-{}}}", "x".repeat(60_000));
        let many = "{vault://azure/open-1}".repeat(100);
        let too_many = "{vault://azure/open-1}".repeat(101);
        let unterminated = "{vault://azure/".repeat(4000);
        for text in [&long, &unterminated] {
            let (upstream, _) = outcome(&mut world, &request(Place::Header, text));
            assert!(upstream.contains(text.as_str()), "{dialect:?}");
        }
        let (upstream, _) = outcome(&mut world, &request(Place::Header, &many));
        assert!(
            upstream.contains(&"pl4nted-open-1".repeat(100)),
            "{dialect:?}"
        );
        let (upstream, client) = outcome(&mut world, &request(Place::Header, &too_many));
        assert_eq!(upstream, "", "{dialect:?}");
        assert!(client.starts_with("431"), "{dialect:?} {client}");
        for depth in [2_500, 5_000, 7_500] {
            let deep = format!(
                "{}\"{{vault://azure/open-1}}\"{}",
                "[".repeat(depth),
                "]".repeat(depth)
            );
            let request = Request::post("/", "application/json", deep.as_bytes());
            let (upstream, client) = outcome(&mut world, &request);
            assert!(
                upstream.contains("[\"pl4nted-open-1\"]"),
                "{dialect:?} {depth}: {client}"
            );
        }
    }
}
