//! Messages that end with trailers, over HTTP/1.1 and HTTP/2, in a real Envoy: a body is resolved, judged and
//! masked as a whole although no piece of it is the last one; values in response trailers are masked, and
//! references in trailers stay as they are.

use std::sync::LazyLock;

use anyhow::{Result, ensure};
use envoy_test::exchange::{VERSIONS, Version, Whole, empty, pieces, request};
use envoy_test::lab::{Lab, path};
use envoy_test::scripted::respond;
use envoy_test::world::{BODY_TYPES, CLIENT_SECRET, listener};
use serde_json::json;

const MARK: &str = "pl4nted";
const REFERENCE: &str = "{vault://azure/open-trailer}";
const SECRETS: &[&str] = &[MARK, CLIENT_SECRET];

static LAB: LazyLock<Lab> = LazyLock::new(|| {
    let request =
        json!({ "resolve": { "headers": ["x-*"], "body": BODY_TYPES, "allow": ["azure/open-*"] } });
    let collect =
        json!({ "resolve": { "body": BODY_TYPES, "allow": ["azure/open-*"] }, "redact": true });
    let rules = json!({ "request": request, "response": { "redact": true } });
    let collect = json!({ "response": collect });
    let small = json!({ "request": request, "max_body_bytes": 1000 });
    let listeners = [
        listener("rules", &rules, false),
        listener("collect", &collect, false),
        listener("small", &small, false),
    ];
    let lab = Lab::start(
        1,
        &listeners,
        |_| {},
        |azure| {
            azure.set_secret("open-trailer", &format!("{MARK}-trailer"));
            for version in ["h1", "h2"] {
                for kind in ["cold", "answer"] {
                    azure.set_secret(
                        &format!("open-{kind}-{version}"),
                        &format!("{MARK}-{version}"),
                    );
                }
            }
        },
    );
    lab.expect("the lab starts")
});

const fn short(version: Version) -> &'static str {
    match version {
        Version::Http1 => "h1",
        Version::Http2 => "h2",
    }
}

/// Sends a body in these pieces, and trailers behind it.
async fn post(
    listener: &str,
    version: Version,
    name: &str,
    headers: &[(&str, &str)],
    body: &[&[u8]],
) -> Result<Whole> {
    let own = [("te", "trailers"), ("trailer", "x-check, x-reference")];
    let headers = [&own[..], headers].concat();
    let trailers = [("x-check", "sum"), ("x-reference", REFERENCE)];
    let body = pieces(body, &trailers);
    let request = request(version, "POST", &path(version, name), &headers, body);
    LAB.client(listener, version).await?.whole(request).await
}

#[test]
fn a_request_body_before_trailers_is_resolved_cold_and_cached() {
    LAB.run(SECRETS, async {
        for version in VERSIONS {
            let short = short(version);
            let body = format!(r#"{{"key":"{{vault://azure/open-cold-{short}}}"}}"#);
            for turn in ["cold", "cached"] {
                let (one, two) = body.as_bytes().split_at(20);
                let json = [("content-type", "application/json")];
                let answer = post("rules", version, "resolved", &json, &[one, two]).await?;
                ensure!(
                    answer.status == 200,
                    "{turn} {version:?}: {}",
                    answer.text()
                );
                let seen = LAB.upstream.last("resolved");
                ensure!(seen.complete, "{turn} {version:?}: the request has no end");
                let expected = format!(r#"{{"key":"{MARK}-{short}"}}"#);
                ensure!(
                    seen.text() == expected,
                    "{turn} {version:?}: {}",
                    seen.text()
                );
                ensure!(
                    seen.trailer("x-check").as_deref() == Some("sum"),
                    "{turn} {version:?}: {seen:?}"
                );
                ensure!(
                    seen.trailer("x-reference").as_deref() == Some(REFERENCE),
                    "{turn}: {seen:?}"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn a_body_without_references_keeps_its_bytes_before_trailers() {
    LAB.run(SECRETS, async {
        for version in VERSIONS {
            for kind in [
                "application/json",
                "application/x-www-form-urlencoded",
                "text/plain",
                "image/png",
            ] {
                let body: [&[u8]; 3] = [b"a=%7b&b=+%20", b"{\"", b"tail{vault:/"];
                let answer = post(
                    "rules",
                    version,
                    "untouched",
                    &[("content-type", kind)],
                    &body,
                )
                .await?;
                ensure!(answer.status == 200, "{kind}: {}", answer.text());
                let seen = LAB.upstream.last("untouched");
                ensure!(
                    seen.body == body.concat(),
                    "{version:?} {kind}: {}",
                    seen.text()
                );
                ensure!(
                    seen.complete && seen.trailer("x-check").is_some(),
                    "{version:?} {kind}: {seen:?}"
                );
            }
        }
        Ok(())
    });
}

/// Trailers may follow the headers at once.
#[test]
fn trailers_without_a_body_end_a_request() {
    LAB.run(SECRETS, async {
        let headers = [("content-type", "application/json"), ("x-key", REFERENCE)];
        let answer = post("rules", Version::Http2, "bodyless", &headers, &[]).await?;
        ensure!(answer.status == 200, "{}", answer.text());
        let seen = LAB.upstream.last("bodyless");
        ensure!(seen.complete && seen.body.is_empty(), "{seen:?}");
        ensure!(
            seen.header("x-key") == Some(format!("{MARK}-trailer")),
            "{seen:?}"
        );
        ensure!(
            seen.trailer("x-check").as_deref() == Some("sum"),
            "{seen:?}"
        );
        Ok(())
    });
}

#[test]
fn a_denied_body_before_trailers_does_not_get_through() {
    LAB.run(SECRETS, async {
        for version in VERSIONS {
            for turn in ["cold", "cached"] {
                let json = [("content-type", "application/json")];
                let body: [&[u8]; 1] = [br#"["{vault://azure/open-missing}"]"#];
                let answer = post("rules", version, "denied", &json, &body).await?;
                ensure!(
                    answer.status == 503,
                    "{turn} {version:?}: {} {}",
                    answer.status,
                    answer.text()
                );
                ensure!(answer.text().contains("not_found"), "{}", answer.text());
                let got = LAB.upstream.seen("denied");
                let through = got
                    .iter()
                    .any(|seen| seen.complete || !seen.body.is_empty());
                ensure!(!through, "{turn} {version:?}: the upstream got {got:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_body_before_trailers_that_is_too_long_is_refused() {
    LAB.run(SECRETS, async {
        for version in VERSIONS {
            let long = [b'x'; 900];
            let plain = [("content-type", "text/plain")];
            let answer = post("small", version, "too-long", &plain, &[&long, &long]).await?;
            ensure!(answer.status == 413, "{version:?}: {}", answer.status);
            let got = LAB.upstream.seen("too-long");
            ensure!(
                !got.iter().any(|seen| seen.complete),
                "the upstream got {got:?}"
            );
        }
        Ok(())
    });
}

/// An answer in these pieces, with trailers behind it, to a request whose header `x-key` is resolved.
async fn answered(
    listener: &str,
    version: Version,
    name: &'static str,
    content_type: &'static str,
    body: &'static [&'static [u8]],
    trailers: &'static [(&'static str, &'static str)],
) -> Result<Whole> {
    LAB.upstream.on(name, move |_| async move {
        let headers = [
            ("content-type", content_type),
            ("trailer", "x-end, x-value"),
        ];
        respond(200, &headers, pieces(body, trailers))
    });
    let headers = [("te", "trailers"), ("x-key", REFERENCE)];
    let request = request(version, "GET", &path(version, name), &headers, empty());
    LAB.client(listener, version).await?.whole(request).await
}

#[test]
fn a_response_before_trailers_comes_whole_and_masked() {
    LAB.run(SECRETS, async {
        // The last piece ends in what could be the beginning of the value.
        let body: &[&[u8]] = &[b"<pl4nted-tra", b"iler> and <pl4nted-tr"];
        let trailers = &[("x-end", "yes"), ("x-value", "<pl4nted-trailer>")];
        for version in VERSIONS {
            for turn in 0..2 {
                let answer =
                    answered("rules", version, "masked", "text/plain", body, trailers).await?;
                let expected = "<***************> and <pl4nted-tr";
                ensure!(
                    answer.text() == expected,
                    "{version:?} {turn}: {}",
                    answer.text()
                );
                ensure!(
                    answer.trailer("x-end").as_deref() == Some("yes"),
                    "{version:?}: {answer:?}"
                );
                let value = answer.trailer("x-value");
                ensure!(
                    value.as_deref() == Some("<***************>"),
                    "{version:?}: {value:?}"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn a_response_before_trailers_is_resolved_and_its_trailers_are_not() {
    LAB.run(SECRETS, async {
        let trailers = &[("x-end", "yes"), ("x-value", REFERENCE)];
        let bodies: [&'static [&'static [u8]]; 2] = [
            &[br#"{"a":"{vault://azure/"#, br#"open-answer-h1}"}"#],
            &[br#"{"a":"{vault://azure/"#, br#"open-answer-h2}"}"#],
        ];
        for (version, body) in VERSIONS.into_iter().zip(bodies) {
            for turn in ["cold", "cached"] {
                let answer = answered(
                    "collect",
                    version,
                    "resolved-answer",
                    "application/json",
                    body,
                    trailers,
                )
                .await?;
                let expected = format!(r#"{{"a":"{MARK}-{}"}}"#, short(version));
                ensure!(
                    answer.text() == expected,
                    "{turn} {version:?}: {}",
                    answer.text()
                );
                ensure!(
                    answer.trailer("x-end").as_deref() == Some("yes"),
                    "{turn} {version:?}: {answer:?}"
                );
                ensure!(
                    answer.trailer("x-value").as_deref() == Some(REFERENCE),
                    "{turn}: {answer:?}"
                );
            }
        }
        Ok(())
    });
}
