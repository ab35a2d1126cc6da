//! The services without sockets: what they answer, to whom, and with which faults.

use super::*;

fn ask(azure: &Azure, method: &str, uri: &str, token: &str, body: &str) -> Reply {
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "localhost")
        .header("authorization", format!("Bearer {token}"))
        .body(Bytes::from(body.to_owned()))
        .unwrap();
    azure.answer(&request)
}

fn json(reply: &Reply) -> Value {
    serde_json::from_slice(reply.response.body()).unwrap()
}

fn azure() -> (Azure, String) {
    let azure = Azure::new();
    azure.add_app(AppRegistration {
        tenant: "t".into(),
        client_id: "c".into(),
        client_secret: "a+b&c".into(),
    });
    let form = "grant_type=client_credentials&client_id=c&client_secret=a%2Bb%26c&scope=https%3A%2F%2Fvault.azure.net%2F.default";
    let reply = ask(&azure, "POST", "/t/oauth2/v2.0/token", "", form);
    let token = json(&reply)["access_token"].as_str().unwrap().to_owned();
    (azure, token)
}

#[test]
fn tokens_are_for_those_who_know_the_secret() {
    let (azure, _) = azure();
    for (form, code) in [
        (
            "grant_type=client_credentials&client_id=c&client_secret=a+b&scope=x",
            7_000_215,
        ),
        (
            "grant_type=client_credentials&client_id=d&client_secret=a&scope=x",
            700_016,
        ),
        ("grant_type=password", 70_003),
        ("grant_type=client_credentials&client_id=c", 7_000_218),
    ] {
        let body = json(&ask(&azure, "POST", "/t/oauth2/v2.0/token", "", form));
        assert_eq!(body["error_codes"][0], code, "{form}");
    }
    let body = json(&ask(&azure, "POST", "/nobody/oauth2/v2.0/token", "", ""));
    assert_eq!(body["error_codes"][0], 90_002);
}

#[test]
fn secrets_need_a_good_token() {
    let (azure, token) = azure();
    azure.set_secret("db", "v1");
    let reply = ask(&azure, "GET", "/secrets/db?api-version=7.6", "nonsense", "");
    assert_eq!(reply.response.status(), 401);
    assert!(reply.response.headers().contains_key("www-authenticate"));
    assert_eq!(
        json(&ask(
            &azure,
            "GET",
            "/secrets/DB/?api-version=7.6",
            &token,
            ""
        ))["value"],
        "v1"
    );
    azure.revoke_tokens();
    assert_eq!(
        ask(&azure, "GET", "/secrets/db?api-version=7.6", &token, "")
            .response
            .status(),
        401
    );
    assert_eq!(azure.secret_calls("db"), 3);
}

#[test]
fn errors_are_key_vaults() {
    let (azure, token) = azure();
    azure.set_secret("off", "v");
    azure.update_secret("off", &json!({"attributes": {"enabled": false}}));
    azure.deny_secret("forbidden");
    for (uri, status, code) in [
        ("/secrets/none?api-version=7.6", 404, "SecretNotFound"),
        ("/secrets/off?api-version=7.6", 403, "Forbidden"),
        ("/secrets/forbidden?api-version=7.6", 403, "Forbidden"),
        ("/secrets/off", 400, "BadParameter"),
    ] {
        let reply = ask(&azure, "GET", uri, &token, "");
        assert_eq!(reply.response.status(), status, "{uri}");
        assert_eq!(json(&reply)["error"]["code"], code, "{uri}");
    }
}

#[test]
fn versions_come_in_pages() {
    let (azure, token) = azure();
    for n in 0..3 {
        azure.set_secret("db", &format!("v{n}"));
    }
    let page = json(&ask(
        &azure,
        "GET",
        "/secrets/db/versions?api-version=7.6&maxresults=2",
        &token,
        "",
    ));
    assert_eq!(page["value"].as_array().unwrap().len(), 2);
    let next = page["nextLink"]
        .as_str()
        .unwrap()
        .trim_start_matches("https://localhost")
        .to_owned();
    let page = json(&ask(&azure, "GET", &next, &token, ""));
    assert_eq!(page["value"].as_array().unwrap().len(), 1);
    assert_eq!(page["nextLink"], Value::Null);
}

#[test]
fn faults_last_as_long_as_asked() {
    let (azure, token) = azure();
    azure.set_secret("db", "v1");
    azure.fail_times(Endpoint::Secrets, Fault::Throttle("7".into()), 1);
    let reply = ask(&azure, "GET", "/secrets/db?api-version=7.6", &token, "");
    assert_eq!(reply.response.status(), 429);
    assert_eq!(reply.response.headers()["retry-after"], "7");
    assert_eq!(
        ask(&azure, "GET", "/secrets/db?api-version=7.6", &token, "")
            .response
            .status(),
        200
    );
}

fn status(azure: &Azure, uri: &str, token: &str) -> u16 {
    ask(azure, "GET", uri, token, "").response.status().as_u16()
}

#[test]
fn a_fault_with_latency_and_times() {
    let (azure, token) = azure();
    azure.set_secret("db", "v1");
    azure.set_latency(Endpoint::Secrets, Duration::from_millis(5));
    let fault = Fault::Answer {
        status: 418,
        headers: vec![
            ("content-type".into(), "text/html".into()),
            ("not a name".into(), "x".into()),
        ],
        body: "<html>".into(),
    };
    azure.fail(Endpoint::Secrets, fault).times(2);
    let uri = "/secrets/db?api-version=7.6";
    for _ in 0..2 {
        let reply = ask(&azure, "GET", uri, &token, "");
        assert_eq!(reply.response.status(), 418);
        assert_eq!(reply.response.headers()["content-type"], "text/html");
        assert_eq!(reply.delay, Duration::from_millis(5));
    }
    assert_eq!(status(&azure, uri, &token), 200);
    azure.clear_faults();
    assert_eq!(ask(&azure, "GET", uri, &token, "").delay, Duration::ZERO);
}

#[test]
fn access_is_by_application() {
    let (azure, token) = azure();
    azure.set_secret("db", "v1");
    azure.set_secret("other", "v1");
    azure.allow_only("c", &["DB"]);
    assert_eq!(status(&azure, "/secrets/db?api-version=7.6", &token), 200);
    let reply = ask(&azure, "GET", "/secrets/Other?api-version=7.6", &token, "");
    assert_eq!(reply.response.status(), 403);
    let code = &json(&reply)["error"]["innererror"]["code"];
    assert_eq!(*code, "ForbiddenByPolicy");
}

#[test]
fn what_is_malformed_is_a_bad_parameter() {
    let (azure, token) = azure();
    let long = format!("/secrets/{}?api-version=7.6", "a".repeat(128));
    for uri in [
        "/secrets/a_b?api-version=7.6",
        "/secrets/db?api-version=nonsense",
        "/secrets/db?api-version=",
        "/secrets/db",
        &long,
    ] {
        let reply = ask(&azure, "GET", uri, &token, "");
        assert_eq!(json(&reply)["error"]["code"], "BadParameter", "{uri}");
    }
    for version in ["7.6", "2025-07-01", "2026-03-01-preview"] {
        let uri = format!("/secrets/db?api-version={version}");
        assert_eq!(status(&azure, &uri, &token), 404, "{version}");
    }
}

#[test]
fn calls_are_counted_by_kind_and_name() {
    let (azure, token) = azure();
    azure.reset_calls();
    for uri in [
        "/secrets/db?api-version=7.6",
        "/secrets/DB/abc?api-version=7.6",
    ] {
        assert_eq!(status(&azure, uri, &token), 404);
    }
    let counts = azure.counts();
    assert_eq!((counts.token, counts.secrets), (0, 2));
    assert_eq!(counts.by_secret.get("db"), Some(&2));
    assert!(azure.calls().iter().all(|call| call.has_bearer));
}

#[test]
fn the_longest_life_does_not_overflow() {
    let (azure, _) = azure();
    azure.set_token_life(u64::MAX);
    azure.set_refresh_in(Some(7));
    azure.add_client_secret("c", "second");
    let form = "grant_type=client_credentials&client_id=c&client_secret=second&scope=https%3A%2F%2Fvault.azure.net%2F.default";
    let body = json(&ask(&azure, "POST", "/t/oauth2/v2.0/token", "", form));
    assert_eq!(body["expires_in"], u64::MAX);
    assert_eq!(body["refresh_in"], 7);
    let token = body["access_token"].as_str().unwrap();
    assert_eq!(status(&azure, "/secrets/db?api-version=7.6", token), 404);
}

#[test]
fn lists_come_in_pages_that_end() {
    let (azure, token) = azure();
    for n in 0..3 {
        azure.set_secret(&format!("s{n}"), "v");
    }
    let mut uri = "/secrets?api-version=7.6&maxresults=0".to_owned();
    let mut names = 0;
    for _ in 0..9 {
        let page = json(&ask(&azure, "GET", &uri, &token, ""));
        names += page["value"].as_array().unwrap().len();
        let Some(next) = page["nextLink"].as_str() else {
            break;
        };
        uri = next.trim_start_matches("https://localhost").to_owned();
    }
    assert_eq!(names, 3);
}
