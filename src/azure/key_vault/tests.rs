//! Recorded and invented answers of Key Vault, read without a gateway.

use zeroize::Zeroizing;

use super::*;
use crate::azure::http::{Answer, Response};
use crate::config::{Config, Dates};
use crate::failure::Reason;
use crate::time::{Span, Timestamp};

fn vault() -> Vault {
    let json = br#"{"vaults":[{"name":"azure","prefix":"azure","config":{"vault_uri":"https://v.vault.azure.net",
        "tenant_id":"t","client_id":"c","client_secret":"s","vault_cluster":"key_vault"}}]}"#;
    Config::parse(json, &|_| None).unwrap().vaults.remove(0)
}

fn answer(status: u16, body: &str) -> Answer {
    Answer::Response(Response {
        status,
        retry_after: Some("7".into()),
        body: Zeroizing::new(body.as_bytes().to_vec()),
        ..Response::default()
    })
}

#[test]
fn the_request_names_secret_and_version() {
    let token = SecretValue::new(b"tok".to_vec());
    let request = secret_request(
        &vault(),
        Collection::Secrets,
        "db",
        Some("0123456789abcdef0123456789abcdef"),
        &token,
        "id",
    );
    assert_eq!(
        request.path,
        "/secrets/db/0123456789abcdef0123456789abcdef?api-version=7.6"
    );
    assert_eq!(request.authority, "v.vault.azure.net");
    assert_eq!(request.cluster, "key_vault");
    assert_eq!(request.headers[0].1.as_str(), "Bearer tok");
}

#[test]
fn a_secret_with_its_dates() {
    let body = r#"{"value":"v\u00e9\n","id":"https://x","attributes":{"enabled":true,"exp":200,"nbf":50,"created":1},"tags":{}}"#;
    let secret = read_secret(
        &vault(),
        Collection::Secrets,
        &answer(200, body),
        Timestamp(100_000),
    )
    .unwrap();
    assert_eq!(secret.value.expose(), "vé\n".as_bytes());
    assert_eq!(secret.expires_at, Some(Timestamp(200_000)));
    let reason = |now| match read_secret(
        &vault(),
        Collection::Secrets,
        &answer(200, body),
        Timestamp(now),
    ) {
        Err(Refusal::Other(failure)) => failure.reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(200_000), Reason::Expired);
    assert_eq!(reason(49_000), Reason::NotYetValid);
}

#[test]
fn refusals_are_told_apart() {
    let forbidden = |code: &str| {
        format!(
            r#"{{"error":{{"code":"Forbidden","message":"m","innererror":{{"code":"{code}"}}}}}}"#
        )
    };
    for (status, body, reason) in [
        (403, forbidden("SecretDisabled"), Reason::Disabled),
        (403, forbidden("ForbiddenByRbac"), Reason::Forbidden),
        (403, forbidden("ForbiddenByFirewall"), Reason::Forbidden),
        (
            404,
            r#"{"error":{"code":"SecretNotFound"}}"#.into(),
            Reason::NotFound,
        ),
        (403, String::new(), Reason::BadAnswer),
        (404, "<html>".into(), Reason::BadAnswer),
        (407, String::new(), Reason::Gateway),
        (429, String::new(), Reason::Throttled),
        (503, "upstream connect error".into(), Reason::Unavailable),
        (504, "upstream request timeout".into(), Reason::Timeout),
        (200, "{".into(), Reason::BadAnswer),
        (200, r#"{"value":1}"#.into(), Reason::BadAnswer),
        (302, String::new(), Reason::BadAnswer),
    ] {
        match read_secret(
            &vault(),
            Collection::Secrets,
            &answer(status, &body),
            Timestamp(0),
        ) {
            Err(Refusal::Other(failure)) => {
                assert_eq!(failure.reason, reason, "{status} {body}");
                if status == 429 {
                    assert_eq!(failure.retry_after, Some(Span::seconds(7)));
                }
            }
            other => panic!("{status} {body}: {other:?}"),
        }
    }
    let answer = read_secret(
        &vault(),
        Collection::Secrets,
        &answer(401, ""),
        Timestamp(0),
    );
    assert!(matches!(answer, Err(Refusal::Token { .. })));
}

fn detail(answer: &Answer) -> (Reason, String) {
    match read_secret(&vault(), Collection::Secrets, answer, Timestamp(0)) {
        Err(Refusal::Token { failure, .. } | Refusal::Other(failure)) => {
            (failure.reason, failure.detail)
        }
        Ok(_) => panic!("a secret"),
    }
}

/// What answered, what the log says is the reason, and which words of advice are there and which not.
#[test]
fn advice_names_what_answered() {
    let error = |code: &str, message: &str, inner: &str| {
        format!(
            r#"{{"error":{{"code":"{code}","message":"{message}","innererror":{{"code":"{inner}"}}}}}}"#
        )
    };
    for (status, body, reason, words, absent) in [
        (
            401,
            error(
                "Unauthorized",
                "AKV10032: Invalid issuer. Expected one of https://sts.windows.net/x/",
                "",
            ),
            Reason::Credentials,
            &["another tenant", "AKV10032", "answered by Key Vault"][..],
            "authority_host",
        ),
        (
            401,
            error("Unauthorized", "AKV10022: Invalid audience.", ""),
            Reason::Credentials,
            &["another resource", "AKV10022"],
            "tenant_id",
        ),
        (
            401,
            error(
                "Unauthorized",
                "AKV10000: Request is missing a Bearer or PoP token.",
                "",
            ),
            Reason::Credentials,
            &["removes the authorization header", "AKV10000"],
            "tenant_id",
        ),
        (
            403,
            error("Forbidden", "m", "ForbiddenByRbac"),
            Reason::Forbidden,
            &["Key Vault Secrets User", "ForbiddenByRbac"],
            "proxy",
        ),
        (
            403,
            "<html><body>Blocked</body></html>".to_owned(),
            Reason::BadAnswer,
            &["proxy or firewall", "status 403", "HTML"],
            "role",
        ),
        (
            403,
            "RBAC: access denied".to_owned(),
            Reason::BadAnswer,
            &["proxy or firewall", "another body"],
            "role",
        ),
        (
            404,
            "no healthy upstream".to_owned(),
            Reason::BadAnswer,
            &["what answered is not Key Vault", "status 404"],
            "no secret of this name",
        ),
        (
            404,
            error("SecretNotFound", "m", ""),
            Reason::NotFound,
            &["no secret of this name", "SecretNotFound"],
            "proxy",
        ),
        (
            407,
            String::new(),
            Reason::Gateway,
            &["credentials of its own", "status 407", "no body"],
            "tenant_id",
        ),
        (
            302,
            String::new(),
            Reason::BadAnswer,
            &["redirect", "status 302"],
            "api_version",
        ),
        (
            200,
            "<!doctype html>".to_owned(),
            Reason::BadAnswer,
            &["HTML"],
            "role",
        ),
    ] {
        let (found, text) = detail(&answer(status, &body));
        assert_eq!(found, reason, "{text}");
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains(absent), "{absent}: {text}");
    }
}

#[test]
fn azures_request_id_shows_that_the_vault_answered() {
    let answer = Answer::Response(Response {
        status: 403,
        request_id: Some("5ac62f52-6371".into()),
        ..Response::default()
    });
    assert_eq!(detail(&answer).0, Reason::Forbidden);
}

#[test]
fn claims_of_a_challenge_are_handed_over() {
    let header = r#"PoP x="y", Bearer authorization="https://login.windows.net/t", resource="https://vault.azure.net", error="insufficient_claims", claims="eyJhIjp7fX0=""#;
    let answer = Answer::Response(Response {
        status: 401,
        challenge: Some(header.to_owned()),
        ..Response::default()
    });
    match read_secret(&vault(), Collection::Secrets, &answer, Timestamp(0)) {
        Err(Refusal::Token { claims, .. }) => {
            assert_eq!(claims.as_deref(), Some(r#"{"a":{}}"#))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn dates_that_only_warn() {
    let mut vault = vault();
    vault.dates = Dates::Warn;
    let body = "\u{feff}{\"value\":\"\\ufeffv\",\"attributes\":{\"exp\":200,\"nbf\":50}}";
    for (now, reason) in [
        (49_000, Some(Reason::NotYetValid)),
        (100_000, None),
        (200_000, Some(Reason::Expired)),
    ] {
        let answer = answer(200, body);
        let now = Timestamp(now);
        let secret = read_secret(&vault, Collection::Secrets, &answer, now).unwrap();
        assert_eq!(secret.value.expose(), b"v", "without the byte order mark");
        assert_eq!((secret.expires_at, secret.not_before), (None, None));
        assert_eq!(
            date_warning(&vault, Collection::Secrets, &answer, now),
            reason
        );
    }
    let disabled = answer(200, r#"{"value":"v","attributes":{"enabled":false}}"#);
    let read = read_secret(&vault, Collection::Secrets, &disabled, Timestamp(0));
    assert!(matches!(read, Err(Refusal::Other(f)) if f.reason == Reason::Disabled));
}

#[test]
fn the_newest_valid_version() {
    let version = |letter: &str, attributes: &str| {
        let id = letter.repeat(32);
        format!(
            r#"{{"id":"https://v.vault.azure.net/secrets/db/{id}","attributes":{{{attributes}}}}}"#
        )
    };
    let list = |versions: &[String]| {
        answer(
            200,
            &format!(r#"{{"value":[{}],"nextLink":null}}"#, versions.join(",")),
        )
    };
    let versions = [
        version("a", r#""enabled":true,"created":1"#),
        version("b", r#""enabled":true,"created":3,"nbf":10"#),
        version("c", r#""enabled":true,"created":4,"nbf":500"#),
        version("d", r#""enabled":false,"created":5"#),
        version("e", r#""enabled":true,"created":6,"exp":99"#),
    ];
    let newest = |answer: &Answer| newest_valid_version(answer, Timestamp(100_000));
    assert_eq!(newest(&list(&versions)), Some("b".repeat(32)));
    assert_eq!(newest(&list(&versions[2..])), None);
    assert_eq!(newest(&list(&[version("/", "")])), None);
    assert_eq!(newest(&answer(404, "{}")), None);
    let token = SecretValue::new(b"tok".to_vec());
    let request = versions_request(&vault(), "db", &token, "id");
    assert_eq!(
        request.path,
        "/secrets/db/versions?api-version=7.6&maxresults=25"
    );
}
