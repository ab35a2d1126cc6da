//! Key Vault's data plane, as far as it is read: `GET {vault}/secrets/{name}[/{version}]`, and the same
//! for `certificates` and `keys` (<https://learn.microsoft.com/rest/api/keyvault/>). It knows no cache.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};

use zeroize::Zeroizing;

use super::challenge::Challenge;
use super::forms::Collection;
use super::http::{Answer, HttpRequest, Response, Scheme};
use super::identity::{App, Credential, Tenant};
use crate::config::Vault;
use crate::failure::{Failure, Reason};
use crate::json::{Malformed, Object};
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
            ("authorization", Zeroizing::new(bearer)),
            ("accept", Zeroizing::new("application/json".into())),
            (
                "x-ms-client-request-id",
                Zeroizing::new(request_id.to_owned()),
            ),
        ],
        body: Zeroizing::default(),
        timeout: vault.timeout,
    }
}

#[derive(Default)]
struct Attributes {
    enabled: Option<bool>,
    exp: Option<u64>,
    nbf: Option<u64>,
}

/// What Key Vault says of what went wrong
/// (<https://learn.microsoft.com/azure/key-vault/general/rest-error-codes>).
#[derive(Default)]
struct ErrorDetail {
    code: String,
    message: String,
    inner: String,
}

/// Why a secret could not be had.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The vault does not accept this token: another one may do.
    Token(Failure),
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
    let (value, attributes) = read_bundle(collection, &response.body).map_err(|_| {
        let detail = format!(
            "Key Vault's answer is not the JSON that /{} has",
            collection.as_str()
        );
        Refusal::Other(Failure::new(Reason::BadAnswer, detail))
    })?;
    usable(value, &attributes, now).map_err(Refusal::Other)
}

/// An object's text: a secret's value, a certificate as DER in base64
/// (<https://learn.microsoft.com/rest/api/keyvault/certificates/get-certificate>), a public key as JWK
/// (<https://learn.microsoft.com/rest/api/keyvault/keys/get-key>).
fn read_bundle(
    collection: Collection,
    body: &[u8],
) -> Result<(SecretValue, Attributes), Malformed> {
    let bundle = Object::read(body)?;
    let text = |name| bundle.text(name)?.ok_or(Malformed);
    let value = match collection {
        Collection::Secrets => SecretValue::new(text("value")?.as_bytes()),
        Collection::Certificates => SecretValue::new(text("cer")?.as_bytes()),
        Collection::Keys => SecretValue::new(bundle.get("key").ok_or(Malformed)?.written()),
    };
    let attributes = bundle.object("attributes")?;
    let attributes = Attributes {
        enabled: attributes.boolean("enabled")?,
        exp: attributes.number("exp")?,
        nbf: attributes.number("nbf")?,
    };
    Ok((value, attributes))
}

fn read_error(body: &[u8]) -> Result<ErrorDetail, Malformed> {
    let error = Object::read(body)?.object("error")?;
    let text = |object: &Object<'_>, name| {
        let text = object.text(name).ok().flatten();
        text.map(|text| text.to_string()).unwrap_or_default()
    };
    Ok(ErrorDetail {
        code: text(&error, "code"),
        message: text(&error, "message"),
        inner: text(&error.object("innererror")?, "code"),
    })
}

fn usable(value: SecretValue, attributes: &Attributes, now: Timestamp) -> Result<Secret, Failure> {
    let at = |seconds: u64| Timestamp(seconds.saturating_mul(1000));
    let secret = Secret {
        value,
        expires_at: attributes.exp.map(at),
        not_before: attributes.nbf.map(at),
    };
    if attributes.enabled == Some(false) {
        return Err(Failure::new(
            Reason::Disabled,
            "the secret is disabled; enable it or take another version",
        ));
    }
    if secret.expires_at.is_some_and(|end| end <= now) {
        return Err(Failure::new(
            Reason::Expired,
            "the secret's expiry date has passed; set a new version",
        ));
    }
    if secret.not_before.is_some_and(|start| start > now) {
        return Err(Failure::new(
            Reason::NotYetValid,
            "the secret's activation date has not come",
        ));
    }
    Ok(secret)
}

fn refused(vault: &Vault, response: &Response, now: Timestamp) -> Refusal {
    let error = read_error(&response.body).unwrap_or_default();
    let (reason, advice) = advice(vault, response.status, &error);
    let mut detail = format!("{advice} (status {}", response.status);
    for text in [
        error.code.as_str(),
        error.inner.as_str(),
        akv_code(&error.message),
    ] {
        if is_plain(text) {
            detail.push_str(", ");
            detail.push_str(text);
        }
    }
    detail.push(')');
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
        Refusal::Token(failure)
    } else {
        Refusal::Other(failure)
    }
}

/// What to do about it. The codes are those of Key Vault's REST API
/// (<https://learn.microsoft.com/azure/key-vault/general/rest-error-codes>).
fn advice(vault: &Vault, status: u16, error: &ErrorDetail) -> (Reason, String) {
    let who = || vault.identity.describe();
    let (reason, text) = match (status, error.inner.as_str(), error.code.as_str()) {
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

/// `AKV10000` out of a message's beginning.
fn akv_code(message: &str) -> &str {
    let code = message.split(':').next().unwrap_or_default();
    if code.starts_with("AKV") { code } else { "" }
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
        assert!(matches!(answer, Err(Refusal::Token(_))));
    }
}
