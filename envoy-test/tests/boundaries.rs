//! What must not cross the gateway's border, in a real Envoy: a value is never searched for references, headers that
//! the operator sets cannot be dropped or doubled, and values are masked in every spelling on their way back.

use std::sync::LazyLock;

use anyhow::{Result, ensure};
use envoy_test::client::{self, Answer};
use envoy_test::envoy::{add_route, manager_of};
use envoy_test::exchange::{Version, empty, full, pieces, request};
use envoy_test::lab::Lab;
use envoy_test::scripted::respond;
use envoy_test::world::{BODY_TYPES, CLIENT_SECRET, listener};
use serde_json::{Value, json};

const MARK: &str = "pl4nted";
const SECRETS: &[&str] = &[MARK, CLIENT_SECRET];
/// Has something of everything that spellings differ in.
const SPELLED: &str = "pl4nted/\u{e4}\"&+ <x>'(!)\\~%42";
/// Cannot stand in a header.
const LINES: &str = "pl4nted\nline\t2\r/end";

static LAB: LazyLock<Lab> = LazyLock::new(|| {
    let resolve = json!({ "headers": ["x-*"], "query": ["key"], "body": BODY_TYPES, "allow": ["azure/open-*"] });
    let set = json!({ "headers": { "x-out": "{vault://azure/operator}", "authorization": "{vault://azure/spelled}" } });
    let redact =
        json!({ "redact": true, "resolve": { "headers": ["x-next"], "allow": ["azure/open-*"] } });
    let rules = json!({ "request": { "set": set, "resolve": resolve }, "response": redact });
    let listener = listener("gateway", &rules, false);
    let change = |all: &mut Value| {
        let redirects = json!({ "max_internal_redirects": 2, "redirect_response_codes": [302] });
        let route = json!({ "cluster": "http1", "internal_redirect_policy": redirects });
        add_route(
            all,
            json!({ "match": { "prefix": "/h1/redirected" }, "route": route }),
        );
        manager_of(&mut all["static_resources"]["listeners"][0])["upgrade_configs"] =
            json!([{ "upgrade_type": "websocket" }]);
    };
    let lab = Lab::start(1, &[listener], change, |azure| {
        azure.set_secret("operator", &format!("{MARK}-operator"));
        azure.set_secret("spelled", SPELLED);
        azure.set_secret("open-lines", LINES);
        azure.set_secret("open-1", &format!("{MARK}-open-1"));
        azure.set_secret("open-12", &format!("{MARK}-open-12"));
        azure.set_secret("open-nested", "{vault://azure/open-1}");
        azure.set_secret("open-digits", "1024");
        azure.set_secret("open-chunked", "chunked");
        azure.set_secret("open-a", "abcd-efgh");
        azure.set_secret("open-b", "efgh-ijkl");
    });
    lab.expect("the lab starts")
});

/// Sends a request over HTTP/1.1 and reads the whole answer.
fn ask(target: &str, headers: &[(&str, &[u8])]) -> Result<Answer> {
    client::get(LAB.at("gateway"), target, headers)
}

/// Answers `name` with these pieces.
fn answer_in_pieces(name: &str, body: Vec<Vec<u8>>) {
    LAB.upstream.on(name, move |mut exchange| {
        let body = body.clone();
        async move {
            let _ = exchange.whole().await;
            let body: Vec<&[u8]> = body.iter().map(Vec::as_slice).collect();
            respond(
                200,
                &[("content-type", "text/html; charset=utf-8")],
                pieces(&body, &[]),
            )
        }
    });
}

// ---- references in values ----

/// `redirected` sends Envoy to `second`, which answers with what it got.
fn redirect() {
    LAB.upstream.on("redirected", |_| async {
        respond(
            302,
            &[("location", "http://gateway.test/h1/second?key=1")],
            empty(),
        )
    });
    LAB.upstream.on("second", |exchange| async move {
        let text = format!("{} {}", exchange.header("x-key"), exchange.header("x-more"));
        respond(200, &[("content-type", "text/html")], full(text))
    });
}

#[test]
fn what_the_first_pass_wrote_is_not_resolved_after_an_internal_redirect() {
    LAB.run(SECRETS, async {
        redirect();
        for turn in ["cold", "cached"] {
            let headers: [(&str, &[u8]); 2] = [
                ("x-key", b"{vault://azure/open-nested}"),
                ("x-more", b"{vault://azure/open-12}"),
            ];
            let answer = ask("/h1/redirected", &headers)?;
            ensure!(
                answer.status == 200,
                "{turn}: {} {}",
                answer.status,
                answer.text()
            );
            let second = LAB.upstream.last("second");
            let key = second.header("x-key").unwrap_or_default();
            ensure!(
                key == "{vault://azure/open-1}",
                "{turn}: a value was searched for references: {key}"
            );
            let out: Vec<_> = second.headers.get_all("x-out").iter().collect();
            ensure!(out == ["pl4nted-operator"], "{turn}: {out:?}");
            // The first pass knew these values; the second one sees the answer.
            let expected = format!("{} {}", "*".repeat(22), "*".repeat(15));
            ensure!(answer.text() == expected, "{turn}: {}", answer.text());
        }
        Ok(())
    });
}

/// What a client sends cannot pass for a mark of the first pass.
#[test]
fn an_ordinary_request_after_a_redirect_is_resolved() {
    LAB.run(SECRETS, async {
        redirect();
        let _ = ask(
            "/h1/redirected",
            &[("x-key", b"{vault://azure/open-nested}")],
        )?;
        let second = LAB.upstream.last("second");
        // All that the first pass added, sent by a client.
        let copied: Vec<(String, Vec<u8>)> = second
            .headers
            .iter()
            .filter(|(name, _)| !["host", "x-key"].contains(&name.as_str()))
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect();
        let mut headers: Vec<(&str, &[u8])> = copied
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_slice()))
            .collect();
        headers.push(("x-key", b"{vault://azure/open-1}"));
        let answer = ask("/h1/forged", &headers)?;
        ensure!(answer.status == 200);
        let forged = LAB.upstream.last("forged");
        ensure!(
            forged.header("x-key").as_deref() == Some("pl4nted-open-1"),
            "{forged:?}"
        );
        ensure!(
            forged.header("x-out").as_deref() == Some("pl4nted-operator"),
            "{forged:?}"
        );
        Ok(())
    });
}

// ---- the operator's headers ----

#[test]
fn a_client_cannot_have_the_operators_header_dropped() {
    LAB.run(SECRETS, async {
        let mut reached = 0;
        for connection in ["upgrade, x-out", "X-Out,Upgrade", "upgrade , authorization, x-out", "x-out"] {
            let bytes = format!(
                "GET /upgrade HTTP/1.1\r\nhost: x\r\nconnection: {connection}\r\nupgrade: websocket\r\n\r\n"
            );
            let _ = LAB.world.upstream.take();
            let answer = client::send(LAB.at("gateway"), bytes.as_bytes())?;
            let received = LAB.world.upstream.take();
            let Some(received) = received.iter().find(|received| received.target == "/upgrade") else {
                ensure!(answer.status == 400, "{connection}: {}", answer.status);
                continue;
            };
            ensure!(received.header("x-out") == ["pl4nted-operator"], "{}", received.head());
            ensure!(received.header("authorization") == [SPELLED], "{}", received.head());
            let named = received.header("connection").join(",").to_ascii_lowercase();
            let dropped = named.contains("x-out") || named.contains("authorization");
            ensure!(!dropped, "an upstream would drop a header: {}", received.head());
            reached += 1;
        }
        ensure!(reached > 0, "no request reached the upstream");
        Ok(())
    });
}

#[test]
fn underscores_do_not_double_the_operators_header() {
    LAB.run(SECRETS, async {
        let headers: [(&str, &[u8]); 3] = [
            ("x_out", b"client's"),
            ("X_Out", b"again"),
            ("x_other", b"stays"),
        ];
        let _ = ask("/h1/underscores", &headers)?;
        let seen = LAB.upstream.last("underscores");
        ensure!(seen.header("x_out").is_none(), "{seen:?}");
        ensure!(
            seen.header("x-out").as_deref() == Some("pl4nted-operator"),
            "{seen:?}"
        );
        ensure!(
            seen.header("x_other").as_deref() == Some("stays"),
            "{seen:?}"
        );
        Ok(())
    });
}

// ---- masks ----

/// How one character can be written.
fn spellings(character: char) -> Vec<String> {
    let code = u32::from(character);
    let mut utf8 = [0; 4];
    let bytes = character.encode_utf8(&mut utf8).as_bytes();
    let hex = |upper: bool| -> String {
        let byte = |byte: &u8| {
            if upper {
                format!("%{byte:02X}")
            } else {
                format!("%{byte:02x}")
            }
        };
        bytes.iter().map(byte).collect()
    };
    let mut all = vec![
        hex(true),
        hex(false),
        format!("\\u{code:04x}"),
        format!("\\u{code:04X}"),
        format!("&#{code};"),
        format!("&#{code:05};"),
        format!("&#x{code:x};"),
        format!("&#X{code:X};"),
    ];
    let named = match character {
        '"' => &["\\\"", "&quot;"][..],
        '\\' => &["\\\\"],
        '/' => &["\\/", "&sol;"],
        '&' => &["&amp;"],
        '<' => &["&lt;"],
        '>' => &["&gt;"],
        '\'' => &["&apos;", "&#39;"],
        ' ' => &["+"],
        '\n' => &["\\n"],
        '\t' => &["\\t", "&Tab;"],
        '\r' => &["\\r"],
        _ => &[],
    };
    all.extend(named.iter().map(|&named| named.to_owned()));
    all.push(character.to_string());
    all
}

/// A linear congruential generator: the same mixtures in every run.
struct Mixture(u64);

impl Mixture {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % end.max(1)
    }
}

/// A value in the spelling of each encoder, and in mixtures.
fn all_spellings(value: &str) -> Vec<String> {
    let most = value
        .chars()
        .map(|character| spellings(character).len())
        .max()
        .unwrap_or(0);
    let uniform = (0..most).map(|at| {
        let pick = |character| {
            let mut all = spellings(character);
            let at = at.min(all.len() - 1);
            all.swap_remove(at)
        };
        value.chars().map(pick).collect()
    });
    let unreserved = |kept: &'static str, upper: bool| -> String {
        let one = |character: char| {
            let keep = character.is_ascii_alphanumeric() || kept.contains(character);
            if keep {
                character.to_string()
            } else {
                spellings(character).swap_remove(usize::from(!upper))
            }
        };
        value.chars().map(one).collect()
    };
    let escaped = serde_json::to_string(value)
        .expect("JSON")
        .trim_matches('"')
        .to_owned();
    let mut mixture = Mixture(17);
    let mut mixed: Vec<String> = (0..150)
        .map(|_| {
            let mut pick = |character| {
                let mut all = spellings(character);
                let at = mixture.below(all.len());
                all.swap_remove(at)
            };
            value.chars().map(&mut pick).collect()
        })
        .collect();
    mixed.extend(uniform);
    // encodeURIComponent, RFC 3986, and forms.
    mixed.push(unreserved("-_.!~*'()", true));
    mixed.push(unreserved("-_.~", true));
    mixed.push(unreserved("-_.~", false));
    mixed.push(unreserved("-_.*", true).replace("%20", "+"));
    mixed.push(escaped.replace('/', "\\/"));
    mixed.push(escaped);
    mixed.push(
        value
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;"),
    );
    mixed
}

/// Cuts at places that a generator chooses.
fn in_pieces(text: &str, mixture: &mut Mixture) -> Vec<Vec<u8>> {
    let mut rest = text.as_bytes();
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((1 + mixture.below(60)).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = behind;
    }
    pieces
}

#[test]
fn values_are_masked_in_every_spelling_over_the_borders_of_pieces() {
    LAB.run(SECRETS, async {
        let values = [(SPELLED, "[]"), (LINES, "[\"{vault://azure/open-lines}\"]")];
        for (number, (value, request_body)) in values.into_iter().enumerate() {
            let spelled = all_spellings(value);
            let mut mixture = Mixture(4);
            let text = format!("|{}|", spelled.join("|"));
            answer_in_pieces("spelled", in_pieces(&text, &mut mixture));
            let headers = [("content-type", "application/json")];
            let request = request(
                Version::Http1,
                "POST",
                "/h1/spelled",
                &headers,
                full(request_body),
            );
            let answer = LAB
                .client("gateway", Version::Http1)
                .await?
                .whole(request)
                .await?;
            ensure!(answer.status == 200, "{number}: {}", answer.status);
            let text = answer.text();
            let masked: Vec<&str> = text.split('|').collect();
            ensure!(
                masked.len() == spelled.len() + 2,
                "{number}: {} parts",
                masked.len()
            );
            let seen: Vec<&String> = spelled
                .iter()
                .zip(&masked[1..])
                .filter(|(_, got)| got.is_empty() || got.chars().any(|character| character != '*'))
                .map(|(spelled, _)| spelled)
                .collect();
            ensure!(
                seen.is_empty(),
                "{number}: {} of {} not masked: {:?}",
                seen.len(),
                spelled.len(),
                &seen[..seen.len().min(4)]
            );
        }
        Ok(())
    });
}

/// PHP's htmlentities, for one, writes letters of Latin-1 by their names.
#[test]
fn values_with_named_letters_are_masked() {
    LAB.run(SECRETS, async {
        let named = "pl4nted/&auml;&quot;&amp;+ &lt;x&gt;'(!)\\~%42";
        answer_in_pieces("named", vec![format!("|{named}|").into_bytes()]);
        let text = ask("/h1/named", &[])?.text();
        ensure!(text == format!("|{}|", "*".repeat(named.len())), "{text}");
        Ok(())
    });
}

#[test]
fn a_value_that_begins_like_another_is_masked_whole() {
    LAB.run(SECRETS, async {
        let headers: [(&str, &[u8]); 2] = [
            ("x-a", b"{vault://azure/open-1}"),
            ("x-b", b"{vault://azure/open-12}"),
        ];
        for (body, expected) in [
            (&["<pl4nted-open-1", "2>"][..], "<***************>"),
            (&["<pl4nted-open-1", ">"], "<**************>"),
            (&["<pl4nted-open-", "1", "2", ">"], "<***************>"),
            (&["<pl4nted-open-1"], "<**************"),
        ] {
            answer_in_pieces(
                "longest",
                body.iter().map(|piece| piece.as_bytes().to_vec()).collect(),
            );
            let answer = ask("/h1/longest", &headers)?;
            ensure!(answer.text() == expected, "{body:?}: {}", answer.text());
        }
        Ok(())
    });
}

#[test]
fn values_that_overlap_are_not_seen() {
    LAB.run(SECRETS, async {
        let headers: [(&str, &[u8]); 2] = [
            ("x-a", b"{vault://azure/open-a}"),
            ("x-b", b"{vault://azure/open-b}"),
        ];
        for cut in 1..14 {
            let (one, two) = b"abcd-efgh-ijkl".split_at(cut);
            answer_in_pieces("overlap", vec![one.to_vec(), two.to_vec()]);
            let text = ask("/h1/overlap", &headers)?.text();
            let seen = text.contains("abcd-efgh")
                || text.contains("efgh-ijkl")
                || !text.contains("*********");
            ensure!(!seen, "{cut}: {text}");
        }
        Ok(())
    });
}

#[test]
fn a_response_header_that_is_resolved_is_masked_too() {
    LAB.run(SECRETS, async {
        LAB.upstream.on("next", |_| async {
            let next = "pl4nted-open-1 {vault://azure/open-12} pl4nted-operator";
            respond(
                200,
                &[
                    ("x-next", next),
                    ("x-plain", "pl4nted-open-1"),
                    ("set-cookie", "a=pl4nted-open-1"),
                ],
                empty(),
            )
        });
        for turn in ["cold", "cached"] {
            let answer = ask("/h1/next", &[("x-key", b"{vault://azure/open-1}")])?;
            let next = answer.header("x-next").unwrap_or_default();
            ensure!(
                next == "************** pl4nted-open-12 ****************",
                "{turn}: {next}"
            );
            ensure!(
                answer.header("x-plain") == Some("**************"),
                "{turn}: {answer:?}"
            );
            ensure!(
                answer.header("set-cookie") == Some("a=**************"),
                "{turn}: {answer:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn headers_that_frame_a_message_are_never_masked() {
    LAB.run(SECRETS, async {
        LAB.upstream.on("framed", |exchange| async move {
            let body = "x".repeat(1024);
            if exchange.header("x-stream").is_empty() {
                return respond(200, &[("content-type", "text/html")], full(body));
            }
            respond(200, &[("content-type", "text/html")], pieces(&[body.as_bytes()], &[]))
        });
        let headers: [(&str, &[u8]); 2] =
            [("x-a", b"{vault://azure/open-digits}"), ("x-b", b"{vault://azure/open-chunked}")];
        let answer = ask("/h1/framed", &headers)?;
        let length = answer.header("content-length");
        ensure!(length.is_none_or(|length| length == "1024"), "{answer:?}");
        ensure!(answer.body.len() == 1024, "{} bytes", answer.body.len());
        let answer = ask("/h1/framed", &[&headers[..], &[("x-stream", b"1")]].concat())?;
        ensure!(answer.header("transfer-encoding") == Some("chunked"), "{answer:?}");
        ensure!(answer.body.len() == 1024, "{} bytes", answer.body.len());
        // A HEAD's length is the only thing that its answer says.
        let bytes = "HEAD /h1/framed HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-a: {vault://azure/open-digits}\r\n\r\n";
        let answer = client::send(LAB.at("gateway"), bytes.as_bytes())?;
        ensure!(answer.header("content-length") == Some("1024"), "{answer:?}");
        Ok(())
    });
}

/// A mask that looks like a value is no value.
#[test]
fn masks_are_not_searched_again() {
    LAB.run(SECRETS, async {
        answer_in_pieces(
            "twice",
            vec![
                b"pl4nted-open-1pl4nted-open-1".to_vec(),
                b"{vault://azure/open-1}".to_vec(),
            ],
        );
        let answer = ask("/h1/twice", &[("x-key", b"{vault://azure/open-1}")])?;
        let expected = format!("{}{{vault://azure/open-1}}", "*".repeat(28));
        ensure!(answer.text() == expected, "{}", answer.text());
        Ok(())
    });
}
