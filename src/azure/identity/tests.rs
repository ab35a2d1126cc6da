//! Every identity's requests and answers, and what was recorded from the real services.

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::*;
use crate::azure::http::{CallFailure, Response};
use crate::config::Config;

const NOW: Timestamp = Timestamp(1_000_000_000);

fn identity_in(config: Value, env: &[(&str, &str)]) -> Identity {
    let mut merged =
        json!({ "vault_uri": "https://v.vault.azure.net", "identity_cluster": "azure_identity" });
    let object = merged.as_object_mut().unwrap();
    object.extend(config.as_object().unwrap().clone());
    let whole = json!({ "vaults": [{ "name": "azure", "prefix": "az", "config": merged }] });
    let env = |name: &str| {
        let found = env.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let config = Config::parse(whole.to_string().as_bytes(), &env).unwrap();
    config.vaults[0].identity.clone()
}

type Variables<'a> = &'a [(&'a str, &'a str)];

fn secret_identity() -> Identity {
    identity_in(
        json!({ "tenant_id": "tenant", "client_id": "client", "client_secret": "s~e+c&r=t" }),
        &[],
    )
}

fn next(identity: &Identity, progress: &Progress) -> (HttpRequest, Step) {
    let circumstances = Circumstances {
        now: NOW,
        timeout: Span::seconds(5),
        id: "the-id",
        random: &|| 5,
    };
    identity.next(progress, &circumstances).unwrap()
}

fn answer(status: u16, body: &str) -> Answer {
    Answer::Response(Response {
        status,
        body: Zeroizing::new(body.as_bytes().to_vec()),
        ..Response::default()
    })
}

fn challenge(status: u16, header: &str) -> Answer {
    Answer::Response(Response {
        status,
        challenge: Some(header.to_owned()),
        ..Response::default()
    })
}

fn body(request: &HttpRequest) -> &str {
    std::str::from_utf8(&request.body).unwrap()
}

fn read(identity: &Identity, status: u16, text: &str) -> Result<Token, Failure> {
    let answer = answer(status, text);
    let token = identity.read(Step::Token, &answer, &mut Progress::default(), NOW)?;
    Ok(token.unwrap())
}

#[test]
fn a_client_secret_is_form_encoded() {
    let (request, step) = next(&secret_identity(), &Progress::default());
    assert_eq!(step, Step::Token);
    assert_eq!(request.path, "/tenant/oauth2/v2.0/token");
    assert_eq!(
        body(&request),
        "grant_type=client_credentials&client_id=client&client_secret=s~e%2Bc%26r%3Dt\
         &scope=https%3A%2F%2Fvault.azure.net%2F.default"
    );
}

#[cfg(feature = "client_certificate")]
#[test]
fn a_certificate_signs_for_this_token_endpoint() {
    let pem = include_str!("../../../tests/data/keys/bundle.pem");
    let identity = identity_in(
        json!({ "tenant_id": "tenant", "client_id": "client", "client_certificate": pem }),
        &[],
    );
    let (request, _) = next(&identity, &Progress::default());
    let start = "grant_type=client_credentials&client_id=client\
                 &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
                 &client_assertion=";
    let rest = body(&request).strip_prefix(start).unwrap();
    let payload = rest.split('.').nth(1).unwrap();
    let payload = crate::base64::decode(payload.as_bytes()).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(
        payload["aud"],
        "https://login.microsoftonline.com/tenant/oauth2/v2.0/token"
    );
    assert_eq!(payload["jti"], "the-id");
}

#[test]
fn a_federated_token_is_fetched_for_each_token() {
    let identity = identity_in(
        json!({ "tenant_id": "tenant", "client_id": "client",
            "federated_token_url": "http://127.0.0.1:8181/token", "federated_token_cluster": "tokens" }),
        &[],
    );
    let mut progress = Progress::default();
    let (request, step) = next(&identity, &progress);
    assert_eq!(step, Step::Assertion);
    let where_to = (
        request.scheme,
        request.cluster.as_str(),
        request.path.as_str(),
    );
    assert_eq!(where_to, (Scheme::Http, "tokens", "/token"));
    for text in [
        "aa.bb.cc\n",
        r#"{"token":"aa.bb.cc"}"#,
        r#"{"kind":"TokenRequest","status":{"token":"aa.bb.cc"}}"#,
    ] {
        let token = identity.read(Step::Assertion, &answer(200, text), &mut progress, NOW);
        assert_eq!(token, Ok(None), "{text}");
        let (request, step) = next(&identity, &progress);
        assert_eq!(step, Step::Token);
        assert!(
            body(&request).contains("&client_assertion=aa.bb.cc&scope="),
            "{}",
            body(&request)
        );
    }
    identity
        .read(
            Step::Token,
            &answer(200, r#"{"access_token":"t","expires_in":3600}"#),
            &mut progress,
            NOW,
        )
        .unwrap();
    assert_eq!(
        next(&identity, &progress).1,
        Step::Assertion,
        "the next one may be another"
    );
    for (status, text) in [
        (404, ""),
        (200, ""),
        (200, "not a token"),
        (200, "{}"),
        (200, "a.b\r\n.c"),
    ] {
        let failure = identity
            .read(
                Step::Assertion,
                &answer(status, text),
                &mut Progress::default(),
                NOW,
            )
            .unwrap_err();
        assert!(
            failure.detail.contains("http://127.0.0.1:8181/token"),
            "{}",
            failure.detail
        );
    }
}

#[test]
fn the_tenant_comes_from_the_vaults_challenge() {
    let identity = identity_in(json!({ "client_id": "client", "client_secret": "s" }), &[]);
    let mut progress = Progress::default();
    let (request, step) = next(&identity, &progress);
    assert_eq!(step, Step::Challenge);
    assert_eq!(request.authority, "v.vault.azure.net");
    assert!(
        request
            .headers
            .iter()
            .all(|(name, _)| name != "authorization")
    );
    let header = r#"Bearer authorization="https://login.windows.net/found", resource="https://vault.azure.net""#;
    let read = |progress: &mut Progress, answer: &Answer| {
        identity.read(Step::Challenge, answer, progress, NOW)
    };
    assert_eq!(read(&mut progress, &challenge(401, header)), Ok(None));
    assert_eq!(
        next(&identity, &progress).0.path,
        "/found/oauth2/v2.0/token"
    );
    assert_eq!(
        next(&identity, &progress).0.authority,
        "login.microsoftonline.com",
        "the client secret never goes where a challenge says"
    );
    let stranger = header.replace("vault.azure.net", "management.azure.com");
    for (answer, reason) in [
        (challenge(401, &stranger), Reason::Credentials),
        (challenge(401, "Basic realm=x"), Reason::BadAnswer),
        (challenge(200, header), Reason::BadAnswer),
        (challenge(503, header), Reason::Unavailable),
        (Answer::Failed(CallFailure::Timeout), Reason::Timeout),
    ] {
        let failure = read(&mut Progress::default(), &answer).unwrap_err();
        assert_eq!(failure.reason, reason, "{}", failure.detail);
    }
}

#[test]
fn managed_identities_ask_as_their_endpoints_want() {
    let app_service = [
        ("IDENTITY_ENDPOINT", "http://127.0.0.1:4242/msi/token"),
        ("IDENTITY_HEADER", "hd"),
    ];
    let old = [
        ("MSI_ENDPOINT", "http://127.0.0.1:4242/MSI/token"),
        ("MSI_SECRET", "hd"),
    ];
    let resource = "resource=https%3A%2F%2Fvault.azure.net";
    let cases: [(Value, Variables<'_>, String, (&str, &str)); 6] = [
        (
            json!({}),
            &[],
            format!("/metadata/identity/oauth2/token?api-version=2018-02-01&{resource}"),
            ("metadata", "true"),
        ),
        (
            json!({ "client_id": "c" }),
            &[],
            format!(
                "/metadata/identity/oauth2/token?api-version=2018-02-01&{resource}&client_id=c"
            ),
            ("metadata", "true"),
        ),
        (
            json!({ "resource_id": "/subscriptions/s" }),
            &[],
            format!(
                "/metadata/identity/oauth2/token?api-version=2018-02-01&{resource}&msi_res_id=%2Fsubscriptions%2Fs"
            ),
            ("metadata", "true"),
        ),
        (
            json!({ "object_id": "o" }),
            &app_service,
            format!("/msi/token?api-version=2019-08-01&{resource}&object_id=o"),
            ("x-identity-header", "hd"),
        ),
        (
            json!({ "resource_id": "r" }),
            &app_service,
            format!("/msi/token?api-version=2019-08-01&{resource}&mi_res_id=r"),
            ("x-identity-header", "hd"),
        ),
        (
            json!({ "client_id": "c" }),
            &old,
            format!("/MSI/token?api-version=2017-09-01&{resource}&clientid=c"),
            ("secret", "hd"),
        ),
    ];
    for (config, env, path, (name, value)) in cases {
        let (request, _) = next(&identity_in(config, env), &Progress::default());
        assert_eq!(
            (request.method, request.scheme, request.path),
            ("GET", Scheme::Http, path)
        );
        assert_eq!(request.headers[0].0, name);
        assert_eq!(request.headers[0].1.as_str(), value);
    }
}

#[test]
fn managed_identities_write_times_in_every_way() {
    let identity = identity_in(json!({}), &[]);
    let end =
        |text: &str| read(&identity, 200, text).map(|token| (token.renew_at, token.expires_at));
    let in_an_hour = NOW + Span::seconds(3600);
    let renewed = NOW + Span::seconds(3300);
    for text in [
        r#"{"access_token":"t","expires_in":"3600","expires_on":"1","token_type":"Bearer"}"#,
        r#"{"access_token":"t","expires_in":3600}"#,
        r#"{"access_token":"t","expires_on":"1003600"}"#,
        r#"{"access_token":"t","expires_on":1003600}"#,
        r#"{"access_token":"t","expires_on":"1/12/1970 2:46:40 PM +00:00"}"#,
        r#"{"access_token":"t","expires_on":"01/12/1970 14:46:40 +00:00"}"#,
        r#"{"access_token":"t","expires_on":"1003600.0"}"#,
        r#"{"access_token":"t","expires_on":1003600.0004}"#,
        r#"{"access_token":"t","expires_in":3600.0001,"expires_on":"nonsense"}"#,
        r#"{"access_token":"t","expires_on":"1970-01-12T14:46:40.0000000+00:00"}"#,
        r#"{"access_token":"t","expires_on":"1970-01-12T14:46:40"}"#,
        r#"{"access_token":"t","expires_in":null,"expires_on":"1970-01-12T16:46:40+02:00"}"#,
        // {"exp":1003600}
        r#"{"access_token":"e30.eyJleHAiOjEwMDM2MDB9.c2ln"}"#,
        r#"{"access_token":"e30.eyJleHAiOjEwMDM2MDB9.c2ln","expires_in":"soon","expires_on":[]}"#,
        "\u{feff}{\"access_token\":\"t\",\"expires_in\":3600}",
    ] {
        assert_eq!(end(text), Ok((renewed, in_an_hour)), "{text}");
    }
    assert_eq!(
        end(r#"{"access_token":"t","expires_in":"86400","refresh_in":"43200"}"#),
        Ok((NOW + Span::seconds(43_200), NOW + Span::seconds(86_400)))
    );
    let five_minutes = NOW + Span::seconds(300);
    for text in [
        r#"{"access_token":"t"}"#,
        r#"{"access_token":"e30.AAAA.c2ln","expires_in":{}}"#,
    ] {
        assert_eq!(end(text).map(|(_, end)| end), Ok(five_minutes), "{text}");
    }
    for text in [
        "",
        "{}",
        "<html>",
        r#"{"access_token":"a b","expires_in":1}"#,
        r#"{"access_token":"t","expires_in":0}"#,
        r#"{"access_token":"t","expires_on":"1970-01-01T00:00:01Z"}"#,
    ] {
        assert_eq!(end(text).unwrap_err().reason, Reason::BadAnswer, "{text}");
    }
}

#[test]
fn managed_identities_refusals() {
    let identity = identity_in(json!({}), &[]);
    for (status, reason) in [
        (400, Reason::Credentials),
        (403, Reason::Credentials),
        (404, Reason::Unavailable),
        (410, Reason::Unavailable),
        (429, Reason::Throttled),
        (500, Reason::Unavailable),
        (418, Reason::BadAnswer),
    ] {
        let failure = read(
            &identity,
            status,
            r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
        )
        .unwrap_err();
        assert_eq!(failure.reason, reason, "{status}");
        assert!(
            failure.detail.contains("invalid_request"),
            "{}",
            failure.detail
        );
    }
    let failed = Answer::Failed(CallFailure::Broken);
    let failure = identity
        .read(Step::Token, &failed, &mut Progress::default(), NOW)
        .unwrap_err();
    assert!(
        failure.detail.contains("169.254.169.254"),
        "{}",
        failure.detail
    );
}

#[test]
fn a_token_is_renewed_before_its_end() {
    let identity = secret_identity();
    for (text, renewed, end) in [
        (
            r#"{"token_type":"Bearer","expires_in":3599,"access_token":"abc"}"#,
            3299,
            3599,
        ),
        (
            r#"{"expires_in":86399,"refresh_in":43199,"access_token":"abc"}"#,
            43_199,
            86_399,
        ),
        (r#"{"expires_in":10,"access_token":"abc"}"#, 8, 10),
    ] {
        let token = read(&identity, 200, text).unwrap();
        assert_eq!(token.renew_at, NOW + Span::seconds(renewed), "{text}");
        assert_eq!(token.expires_at, NOW + Span::seconds(end), "{text}");
    }
}

#[test]
fn entras_errors_say_what_to_do_and_show_no_secret() {
    let identity = secret_identity();
    for (code, words) in [
        (7_000_215, "set AZURE_CLIENT_SECRET to the value"),
        (
            7_000_222,
            "secret has expired; make a new one and set AZURE_CLIENT_SECRET",
        ),
        (700_016, "no app registration client in this tenant"),
        (90_002, "check tenant_id"),
        (700_027, "upload the certificate"),
        (700_024, "set the gateway's clock"),
        (70_021, "api://AzureADTokenExchange"),
        (700_213, "api://AzureADTokenExchange"),
        (500_011, "authority_host"),
        (53_003, "conditional access"),
        (1, "look the code up"),
    ] {
        let text = json!({ "error": "invalid_client", "error_codes": [code], "trace_id": "11-22", "correlation_id": "33-44",
            "error_description": format!("AADSTS{code}: Invalid. s~e+c&r=t") });
        let failure = read(&identity, 401, &text.to_string()).unwrap_err();
        assert_eq!(failure.reason, Reason::Credentials);
        for part in [words, &format!("AADSTS{code}"), "correlation_id 33-44"] {
            assert!(failure.detail.contains(part), "{part}: {}", failure.detail);
        }
        assert_eq!(failure.request_id(), "11-22");
        assert!(!failure.detail.contains("s~e+c"), "{}", failure.detail);
    }
}

#[test]
fn answers_that_make_no_sense_are_failures() {
    for (status, text, reason) in [
        (200, "", Reason::BadAnswer),
        (
            200,
            "{\"access_token\":\"\",\"expires_in\":1}",
            Reason::BadAnswer,
        ),
        (
            200,
            "{\"access_token\":\"a\\r\\nb\",\"expires_in\":1}",
            Reason::BadAnswer,
        ),
        (
            200,
            "{\"access_token\":\"a\",\"expires_in\":-1}",
            Reason::BadAnswer,
        ),
        (503, "upstream connect error", Reason::Unavailable),
        (400, r#"{"error_codes":[90033]}"#, Reason::Unavailable),
        (429, "", Reason::Throttled),
        (400, "<html>", Reason::BadAnswer),
        (302, "", Reason::BadAnswer),
        (407, "", Reason::Gateway),
    ] {
        let failure = read(&secret_identity(), status, text).unwrap_err();
        assert_eq!(failure.reason, reason, "{status} {text}");
    }
}

/// What answered, and what the log says.
#[test]
fn advice_of_token_endpoints_names_what_answered() {
    let app = secret_identity();
    let imds = identity_in(json!({}), &[]);
    let entra = |code: u64| {
        json!({ "error": "invalid_client", "error_description": format!("AADSTS{code}: text"), "error_codes": [code] })
            .to_string()
    };
    let oauth =
        |error: &str, text: &str| json!({ "error": error, "error_description": text }).to_string();
    let html = "<!DOCTYPE html><html>".to_owned();
    let pasted = "secret's id was pasted";
    let none = "no such identity";
    for (identity, status, body, reason, words, absent) in [
        (&app, 401, entra(7_000_222), Reason::Credentials, &["has expired", "AADSTS7000222", "answered by Entra ID"][..], pasted),
        (&app, 401, entra(7_000_215), Reason::Credentials, &[pasted, "AADSTS7000215"], "expired"),
        (&app, 302, String::new(), Reason::BadAnswer, &["redirect", "status 302"], "refused the identity"),
        (&app, 200, html.clone(), Reason::BadAnswer, &["HTML"], "refused the identity"),
        (&app, 403, html.clone(), Reason::BadAnswer, &["proxy or firewall", "HTML"], "refused the identity"),
        (&app, 407, html.clone(), Reason::Gateway, &["credentials of its own"], "refused the identity"),
        (&app, 400, oauth("invalid_request", "AADSTS90002: Tenant 'x' not found."), Reason::Credentials, &["no such tenant", "AADSTS90002"], "look the code up"),
        (&imds, 400, oauth("invalid_resource", "AADSTS500011: The resource principal named x was not found"), Reason::Credentials, &["knows no such resource", "AADSTS500011", "invalid_resource"], none),
        (&imds, 400, oauth("invalid_request", "Multiple user assigned identities exist, please specify the clientId / resourceId"), Reason::Credentials, &["say which one"], none),
        (&imds, 400, oauth("invalid_request", "Identity not found"), Reason::Credentials, &[none, "answered by the endpoint"], "say which one"),
        (&imds, 400, oauth("invalid_request", "Required metadata header not specified"), Reason::BadAnswer, &["x-forwarded-for"], none),
        (&imds, 400, json!({ "statusCode": 400, "message": "No User Assigned or Delegated Managed Identity found for specified ClientId" }).to_string(), Reason::Credentials, &[none], "say which one"),
        (&imds, 400, "bad".to_owned(), Reason::Credentials, &["refused the request", "without an error of the endpoint's form"], none),
        (&imds, 407, String::new(), Reason::Gateway, &["credentials of its own"], none),
        (&imds, 403, html, Reason::BadAnswer, &["proxy or firewall"], "IDENTITY_HEADER"),
    ] {
        let failure = read(identity, status, &body).unwrap_err();
        let text = &failure.detail;
        assert_eq!(failure.reason, reason, "{text}");
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains(absent), "{absent}: {text}");
    }
}

#[test]
fn the_other_client_secret_is_tried_once_for_each_token() {
    let identity = identity_in(
        json!({ "tenant_id": "tenant", "client_id": "client" }),
        &[
            ("AZURE_CLIENT_SECRET", "old"),
            ("AZURE_CLIENT_SECRET_NEXT", "new"),
        ],
    );
    let mut progress = Progress::default();
    let expired = answer(401, r#"{"error":"invalid_client","error_codes":[7000222]}"#);
    let wrong = answer(401, r#"{"error":"invalid_client","error_codes":[7000215]}"#);
    let good = answer(200, r#"{"access_token":"t","expires_in":3600}"#);
    let secret_in = |progress: &Progress| {
        let (request, _) = next(&identity, progress);
        let secret = body(&request).split("client_secret=").nth(1).unwrap();
        secret.split('&').next().unwrap().to_owned()
    };
    let read = |progress: &mut Progress, answer: &Answer| {
        let token = identity.read(Step::Token, answer, progress, NOW);
        token.map(|token| token.is_some()).map_err(|f| f.reason)
    };
    assert_eq!(secret_in(&progress), "old");
    assert_eq!(read(&mut progress, &expired), Ok(false), "not the end yet");
    assert!(
        progress
            .take_warning()
            .unwrap()
            .contains("CLIENT_SECRET_NEXT")
    );
    assert_eq!(progress.take_warning(), None);
    assert_eq!(secret_in(&progress), "new");
    assert_eq!(read(&mut progress, &good), Ok(true));
    assert_eq!(secret_in(&progress), "new", "the one that was taken stays");
    assert_eq!(read(&mut progress, &wrong), Ok(false));
    assert_eq!(secret_in(&progress), "old");
    assert_eq!(
        read(&mut progress, &expired),
        Err(Reason::Credentials),
        "both were tried"
    );
    assert_eq!(identity.most_calls(), 2);
    let one = secret_identity();
    let failed = one.read(Step::Token, &expired, &mut Progress::default(), NOW);
    assert!(failed.is_err(), "there is no other");
}

#[test]
fn claims_go_with_the_next_request_only() {
    let identity = secret_identity();
    let mut progress = Progress::default();
    progress.ask_for_claims(r#"{"a":{}}"#.to_owned());
    let claims = "&claims=%7B%22a%22%3A%7B%7D%7D";
    assert!(body(&next(&identity, &progress).0).ends_with(claims));
    let failed = identity.read(Step::Token, &answer(503, ""), &mut progress, NOW);
    assert!(failed.is_err());
    assert!(
        body(&next(&identity, &progress).0).ends_with(claims),
        "until there is a token"
    );
    let good = answer(200, r#"{"access_token":"t","expires_in":3600}"#);
    identity
        .read(Step::Token, &good, &mut progress, NOW)
        .unwrap();
    assert!(!body(&next(&identity, &progress).0).contains("claims"));
}

#[test]
fn a_tenant_that_was_refused_is_asked_for_again() {
    let identity = identity_in(json!({ "client_id": "client", "client_secret": "s" }), &[]);
    let mut progress = Progress::default();
    let header = r#"Bearer authorization="https://login.windows.net/found", resource="https://vault.azure.net""#;
    identity
        .read(Step::Challenge, &challenge(401, header), &mut progress, NOW)
        .unwrap();
    let busy = identity.read(Step::Token, &answer(503, ""), &mut progress, NOW);
    assert!(busy.is_err());
    assert_eq!(
        next(&identity, &progress).1,
        Step::Token,
        "a fault that passes changes nothing"
    );
    let unknown = answer(400, r#"{"error":"invalid_request","error_codes":[90002]}"#);
    assert!(
        identity
            .read(Step::Token, &unknown, &mut progress, NOW)
            .is_err()
    );
    assert_eq!(next(&identity, &progress).1, Step::Challenge);
}

#[test]
fn a_federated_token_with_query_and_header() {
    let identity = identity_in(
        json!({ "tenant_id": "tenant", "client_id": "client", "federated_token_header": "Metadata-Flavor: Google",
            "federated_token_url": "http://[::1]:8181/identity?audience=api://AzureADTokenExchange", "federated_token_cluster": "tokens" }),
        &[],
    );
    let (request, _) = next(&identity, &Progress::default());
    assert_eq!(request.authority, "[::1]:8181");
    assert_eq!(
        request.path,
        "/identity?audience=api://AzureADTokenExchange"
    );
    let headers = request.headers.iter().map(|(n, v)| (&**n, v.as_str()));
    assert!(
        headers
            .collect::<Vec<_>>()
            .contains(&("metadata-flavor", "Google"))
    );
}

proptest::proptest! {
    #[test]
    fn any_answer_is_read_without_a_panic(
        status in 100u16..600,
        text in "\\PC{0,60}|\\{\"(access_token|expires_in|expires_on|error_codes|token|status)\":.{0,20}\\}",
        header in "(Bearer )?.{0,60}",
    ) {
        let any = Answer::Response(Response {
            status,
            challenge: Some(header),
            body: Zeroizing::new(text.into_bytes()),
            ..Response::default()
        });
        let identities = [
            secret_identity(),
            identity_in(json!({}), &[]),
            identity_in(json!({ "client_id": "c", "federated_token_url": "http://h/t" }), &[]),
        ];
        for identity in identities {
            for step in [Step::Challenge, Step::Assertion, Step::Token] {
                let _ = identity.read(step, &any, &mut Progress::default(), NOW);
            }
        }
    }
}
