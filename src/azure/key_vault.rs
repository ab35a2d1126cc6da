//! Key Vault's data plane, as far as it is read: `GET {vault}/secrets/{name}[/{version}]`, and the same
//! for `certificates` and `keys` (<https://learn.microsoft.com/rest/api/keyvault/>). It knows no cache.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::challenge::{self, Challenge};
use super::forms::Collection;
use super::http::{Answer, HttpRequest, Response, Scheme};
use super::identity::{App, Credential, Tenant};
use super::{json, stranger};
use crate::config::{Dates, Vault};
use crate::failure::{Failure, Reason};
use crate::secret::SecretValue;
use crate::time::Timestamp;

/// A secret as the vault gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// The value.
    pub value: SecretValue,
    /// `attributes.exp`
    pub expires_at: Option<Timestamp>,
    /// `attributes.nbf`
    pub not_before: Option<Timestamp>,
}

/// The request for a secret. `name` and `version` were checked by the reference's parser, which lets
/// nothing through that would need encoding.
#[must_use]
pub fn secret_request(
    vault: &Vault,
    collection: Collection,
    name: &str,
    version: Option<&str>,
    token: &SecretValue,
    request_id: &str,
) -> HttpRequest {
    let mut path = format!("/{}/{name}", collection.as_str());
    if let Some(version) = version {
        path.push('/');
        path.push_str(version);
    }
    path.push_str("?api-version=");
    path.push_str(&vault.api_version);
    let bearer = [b"Bearer ", token.expose()].concat();
    let bearer = String::from_utf8(bearer).unwrap_or_default();
    HttpRequest {
        cluster: vault.cluster.clone(),
        scheme: Scheme::Https,
        method: "GET",
        authority: vault.uri.authority(),
        path,
        headers: vec![
            ("authorization".into(), Zeroizing::new(bearer)),
            ("accept".into(), Zeroizing::new("application/json".into())),
            (
                "x-ms-client-request-id".into(),
                Zeroizing::new(request_id.to_owned()),
            ),
        ],
        body: Zeroizing::default(),
        timeout: vault.timeout,
    }
}

/// A secret, certificate or key with its attributes.
#[derive(Deserialize)]
struct Bundle<'a> {
    #[serde(borrow)]
    value: Option<Cow<'a, str>>,
    #[serde(borrow)]
    cer: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    attributes: Option<Attributes>,
}

/// The attributes that decide whether a version is of use; times in seconds since 1970.
#[derive(Clone, Copy, Default, Deserialize)]
struct Attributes {
    enabled: Option<bool>,
    exp: Option<u64>,
    nbf: Option<u64>,
    created: Option<u64>,
}

impl Attributes {
    /// Why the dates speak against its use at `now`.
    fn out_of_dates(&self, now: Timestamp) -> Option<Reason> {
        if self.exp.is_some_and(|end| at_second(end) <= now) {
            Some(Reason::Expired)
        } else if self.nbf.is_some_and(|start| at_second(start) > now) {
            Some(Reason::NotYetValid)
        } else {
            None
        }
    }
}

const fn at_second(seconds: u64) -> Timestamp {
    Timestamp(seconds.saturating_mul(1000))
}

/// What Key Vault says of what went wrong
/// (<https://learn.microsoft.com/azure/key-vault/general/rest-error-codes>).
#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorDetail {
    code: Option<String>,
    message: Option<String>,
    innererror: Option<InnerError>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InnerError {
    code: Option<String>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorDetail,
}

impl ErrorDetail {
    fn code(&self) -> &str {
        self.code.as_deref().unwrap_or_default()
    }

    fn inner(&self) -> &str {
        let inner = self.innererror.as_ref();
        inner
            .and_then(|inner| inner.code.as_deref())
            .unwrap_or_default()
    }

    /// `AKV10000` out of the message's beginning.
    fn akv_code(&self) -> &str {
        let message = self.message.as_deref().unwrap_or_default();
        let code = message.split(':').next().unwrap_or_default();
        if code.starts_with("AKV") { code } else { "" }
    }
}

/// Why there is no secret.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The vault does not accept this token.
    Token {
        /// Why.
        failure: Failure,
        /// The claims (JSON) that a new token has to have. Without them, a token that is new already is
        /// not worth renewing.
        claims: Option<String>,
    },
    /// Anything else: the same request would fail again now.
    Other(Failure),
}

/// Reads the answer to [`secret_request`].
///
/// # Errors
/// What Key Vault, or the way there, said instead of a secret.
pub fn read_secret(
    vault: &Vault,
    collection: Collection,
    answer: &Answer,
    now: Timestamp,
) -> Result<Secret, Refusal> {
    let response = match answer {
        Answer::Response(response) => response,
        Answer::Failed(failure) => return Err(Refusal::Other(failure.explain(&vault.cluster))),
    };
    if response.status != 200 {
        return Err(refused(vault, response, now));
    }
    let (value, attributes) = read_bundle(collection, &response.body).ok_or_else(|| {
        let detail = if json::is_html(&response.body) {
            "what answered 200 is not Key Vault: it sent HTML; a proxy or portal is on the way"
                .to_owned()
        } else {
            format!(
                "Key Vault's answer is not the JSON that /{} has",
                collection.as_str()
            )
        };
        Refusal::Other(Failure::new(Reason::BadAnswer, detail))
    })?;
    usable(value, attributes, vault.dates, now).map_err(Refusal::Other)
}

/// Why the dates of the secret in a 200 answer speak against it, though `dates: warn` serves it.
#[must_use]
pub fn date_warning(
    vault: &Vault,
    collection: Collection,
    answer: &Answer,
    now: Timestamp,
) -> Option<Reason> {
    match answer {
        Answer::Response(response) if response.status == 200 && vault.dates == Dates::Warn => {
            read_bundle(collection, &response.body)?.1.out_of_dates(now)
        }
        _ => None,
    }
}

/// An object's text: a secret's value, a certificate as DER in base64
/// (<https://learn.microsoft.com/rest/api/keyvault/certificates/get-certificate>), a public key as JWK
/// (<https://learn.microsoft.com/rest/api/keyvault/keys/get-key>). A byte order mark before a secret's
/// value is left out.
fn read_bundle(collection: Collection, body: &[u8]) -> Option<(SecretValue, Attributes)> {
    let bundle: Bundle<'_> = json::read(body).ok()?;
    let value = match collection {
        Collection::Secrets => SecretValue::new(json::without_bom(bundle.value?.as_bytes())),
        Collection::Certificates => SecretValue::new(bundle.cer?.as_bytes()),
        Collection::Keys => SecretValue::new(bundle.key?.get()),
    };
    Some((value, bundle.attributes.unwrap_or_default()))
}

fn usable(
    value: SecretValue,
    attributes: Attributes,
    dates: Dates,
    now: Timestamp,
) -> Result<Secret, Failure> {
    if attributes.enabled == Some(false) {
        return Err(Failure::new(
            Reason::Disabled,
            "the secret is disabled; enable it or take another version",
        ));
    }
    let enforced = |seconds: Option<u64>| {
        let seconds = seconds.filter(|_| dates == Dates::Enforce);
        seconds.map(at_second)
    };
    let text = match attributes.out_of_dates(now) {
        Some(Reason::Expired) => {
            "the secret's expiry date has passed; set a new version, or dates: warn for this vault"
        }
        Some(_) => "the secret's activation date has not come",
        None => "",
    };
    match attributes.out_of_dates(now) {
        Some(reason) if dates == Dates::Enforce => Err(Failure::new(reason, text)),
        _ => Ok(Secret {
            value,
            expires_at: enforced(attributes.exp),
            not_before: enforced(attributes.nbf),
        }),
    }
}

fn refused(vault: &Vault, response: &Response, now: Timestamp) -> Refusal {
    let error = json::read(&response.body)
        .ok()
        .map(|e: ErrorAnswer| e.error);
    let challenge = response.challenge.as_deref();
    let is_key_vault = error.as_ref().is_some_and(|error| !error.code().is_empty())
        || response.request_id.is_some()
        || challenge.is_some_and(|text| Challenge::parse(text).is_some());
    if !is_key_vault {
        let mut failure = stranger::failure("Key Vault", response, now);
        // The whole vault is too busy, or away: more calls would make it worse.
        failure.holds_vault = matches!(response.status, 429 | 503);
        return if response.status == 401 {
            Refusal::Token {
                failure,
                claims: None,
            }
        } else {
            Refusal::Other(failure)
        };
    }
    let error = error.unwrap_or_default();
    let (reason, advice) = advice(vault, response.status, &error);
    let mut detail = format!("{advice} (status {}", response.status);
    for text in [error.code(), error.inner(), error.akv_code()] {
        if is_plain(text) {
            detail.push_str(", ");
            detail.push_str(text);
        }
    }
    detail.push_str("; answered by Key Vault)");
    if response.status == 401 {
        detail.push_str(&other_tenant(vault, response));
    }
    let failure = Failure {
        retry_after: response.retry_after(now),
        request_id: response.request_id.clone().filter(|id| is_plain(id)),
        // The whole vault is too busy, or away: more calls would make it worse.
        holds_vault: matches!(response.status, 429 | 503),
        ..Failure::new(reason, detail)
    };
    if response.status == 401 {
        let claims = challenge.and_then(challenge::claims);
        Refusal::Token { failure, claims }
    } else {
        Refusal::Other(failure)
    }
}

/// What to do about it. The codes are those of Key Vault's REST API
/// (<https://learn.microsoft.com/azure/key-vault/general/rest-error-codes>).
fn advice(vault: &Vault, status: u16, error: &ErrorDetail) -> (Reason, String) {
    let who = || vault.identity.describe();
    let (reason, text) = match (status, error.inner(), error.code()) {
        (401, ..) if error.akv_code() == "AKV10032" => (
            Reason::Credentials,
            "the token is of another tenant than the vault's; set tenant_id to the vault's tenant, or take a managed identity of that tenant",
        ),
        (401, ..) if error.akv_code() == "AKV10022" => (
            Reason::Credentials,
            "the token is for another resource than the vault's; check that cloud, scope and authority_host are those of vault_uri",
        ),
        (401, ..) if error.akv_code() == "AKV10000" => (
            Reason::Credentials,
            "the token did not arrive; a proxy between the gateway and Key Vault removes the authorization header",
        ),
        (401, ..) => (
            Reason::Credentials,
            "Key Vault does not accept the token; check that tenant_id is the vault's tenant",
        ),
        (403, "SecretDisabled", _) => (
            Reason::Disabled,
            "the secret is disabled; enable it or take another version",
        ),
        (403, "ForbiddenByFirewall", _) => (
            Reason::Forbidden,
            "the vault's firewall does not let this gateway in; add its address or network to the vault's networking rules",
        ),
        (403, "ForbiddenByConnection", _) => (
            Reason::Forbidden,
            "the vault is reached by private endpoints only; let the gateway's DNS resolve the vault to its private address",
        ),
        (403, "ForbiddenByPolicy" | "AccessDenied", _) => {
            let text = format!(
                "the vault's access policy does not let this identity read secrets; add a get policy ({})",
                who()
            );
            return (Reason::Forbidden, text);
        }
        (403, ..) => {
            let text = format!(
                "this identity may not read this secret; give it the role Key Vault Secrets User ({})",
                who()
            );
            return (Reason::Forbidden, text);
        }
        (404, _, "SecretNotFound" | "CertificateNotFound" | "KeyNotFound" | "") => (
            Reason::NotFound,
            "the vault has no secret of this name or version; if it was deleted lately, it can be recovered",
        ),
        (404, ..) => (Reason::NotFound, "the vault has no such object"),
        (409, ..) => (Reason::NotFound, "the secret is being deleted or recovered"),
        (429, ..) => (
            Reason::Throttled,
            "Key Vault asked us to slow down; a longer ttl makes fewer calls",
        ),
        (504, ..) => (Reason::Timeout, "no answer in time"),
        (status, ..) if status >= 500 => (
            Reason::Unavailable,
            "Key Vault could not be reached or is at fault",
        ),
        _ => (
            Reason::BadAnswer,
            "Key Vault did not understand the request; check vault_uri and api_version",
        ),
    };
    (reason, text.to_owned())
}

/// The vault's challenge says which tenant it is in: a wrong `tenant_id` is the usual mistake.
fn other_tenant(vault: &Vault, response: &Response) -> String {
    let challenge = response.challenge.as_deref().and_then(Challenge::parse);
    let Credential::App(App {
        tenant: Tenant::Known(ours),
        ..
    }) = &vault.identity.credential
    else {
        return String::new();
    };
    match challenge {
        Some(theirs) if theirs.tenant != *ours => {
            format!(
                "; the vault is in the tenant {}, tenant_id is {ours}",
                theirs.tenant
            )
        }
        _ => String::new(),
    }
}

/// The request for the versions of a secret, newest or not: asked when the newest one is not yet valid.
/// `name` was checked by the reference's parser.
#[must_use]
pub fn versions_request(
    vault: &Vault,
    name: &str,
    token: &SecretValue,
    request_id: &str,
) -> HttpRequest {
    let mut request = secret_request(
        vault,
        Collection::Secrets,
        name,
        Some("versions"),
        token,
        request_id,
    );
    // The most that Key Vault gives at once.
    request.path.push_str("&maxresults=25");
    request
}

#[derive(Deserialize)]
struct Versions {
    value: Vec<Version>,
}

#[derive(Deserialize)]
struct Version {
    id: String,
    attributes: Option<Attributes>,
}

/// The newest version in the answer to [`versions_request`] that is enabled and within its dates, for
/// [`secret_request`]; `None` when there is none, or the answer is no list. Only the first page counts:
/// Key Vault gives versions in no stated order, so a secret with more than 25 versions may have a newer one.
#[must_use]
pub fn newest_valid_version(answer: &Answer, now: Timestamp) -> Option<String> {
    let response = match answer {
        Answer::Response(response) if response.status == 200 => response,
        _ => return None,
    };
    let versions: Versions = json::read(&response.body).ok()?;
    let valid = versions.value.into_iter().filter_map(|version| {
        let attributes = version.attributes.unwrap_or_default();
        let usable = attributes.enabled != Some(false) && attributes.out_of_dates(now).is_none();
        let id = version.id.rsplit('/').next()?.to_owned();
        // It becomes part of a path, which WasmX sends as it is.
        let plain = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        (usable && plain).then_some((attributes.created, id))
    });
    valid.max().map(|(_, id)| id)
}

/// A code or an id: nothing else of a stranger's text gets into our log.
fn is_plain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !text.is_empty() && text.len() <= 64 && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::time::Span;

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
}
