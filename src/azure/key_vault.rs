//! Key Vault's data plane, as far as it is read: `GET {vault}/secrets/{name}[/{version}]`, and the same
//! for `certificates` and `keys` (<https://learn.microsoft.com/rest/api/keyvault/>). It knows no cache.

use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::forms::Collection;
use super::http::{Answer, HttpRequest, Response};
use crate::config::Vault;
use crate::failure::{Failure, Reason};
use crate::secret::SecretValue;
use crate::time::{Span, Timestamp};

/// Longest `Retry-After` that is believed.
const LONGEST_WAIT: Span = Span::seconds(3600);

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

#[derive(Deserialize)]
struct SecretBundle {
    value: Zeroizing<String>,
    #[serde(default)]
    attributes: Attributes,
}

/// <https://learn.microsoft.com/rest/api/keyvault/certificates/get-certificate>
#[derive(Deserialize)]
struct CertificateBundle {
    cer: String,
    #[serde(default)]
    attributes: Attributes,
}

/// <https://learn.microsoft.com/rest/api/keyvault/keys/get-key>
#[derive(Deserialize)]
struct KeyBundle<'a> {
    #[serde(borrow)]
    key: &'a RawValue,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Attributes {
    enabled: Option<bool>,
    exp: Option<u64>,
    nbf: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorDetail {
    code: String,
    innererror: InnerError,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct InnerError {
    code: String,
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
        return Err(refused(response));
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

/// An object's text: a secret's value, a certificate as DER in base64, a public key as JWK.
fn read_bundle(
    collection: Collection,
    body: &[u8],
) -> serde_json::Result<(SecretValue, Attributes)> {
    Ok(match collection {
        Collection::Secrets => {
            let bundle: SecretBundle = serde_json::from_slice(body)?;
            (SecretValue::new(bundle.value.as_bytes()), bundle.attributes)
        }
        Collection::Certificates => {
            let bundle: CertificateBundle = serde_json::from_slice(body)?;
            (SecretValue::new(bundle.cer), bundle.attributes)
        }
        Collection::Keys => {
            let bundle: KeyBundle<'_> = serde_json::from_slice(body)?;
            (SecretValue::new(bundle.key.get()), bundle.attributes)
        }
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

fn refused(response: &Response) -> Refusal {
    let body: ErrorBody = serde_json::from_slice(&response.body).unwrap_or_default();
    let inner = body.error.innererror.code.as_str();
    let (reason, advice) = match (response.status, inner) {
        (401, _) => (
            Reason::Credentials,
            "Key Vault does not accept the token; check that tenant_id is the vault's tenant",
        ),
        (403, "SecretDisabled") => (
            Reason::Disabled,
            "the secret is disabled; enable it or take another version",
        ),
        (403, "ForbiddenByFirewall" | "ForbiddenByConnection") => (
            Reason::Forbidden,
            "the vault's network rules do not let this gateway in",
        ),
        (403, _) => (
            Reason::Forbidden,
            "the identity may not read this secret; give it the role Key Vault Secrets User or a get policy",
        ),
        (404, _) => (
            Reason::NotFound,
            "the vault has no secret of this name or version",
        ),
        (429, _) => (Reason::Throttled, "Key Vault asked us to slow down"),
        (504, _) => (Reason::Timeout, "no answer in time"),
        (status, _) if status >= 500 => (
            Reason::Unavailable,
            "Key Vault could not be reached or is at fault",
        ),
        _ => (
            Reason::BadAnswer,
            "Key Vault did not understand the request; check vault_uri and api_version",
        ),
    };
    let mut detail = format!("{advice} (status {}", response.status);
    for text in [
        body.error.code.as_str(),
        inner,
        response.request_id.as_deref().unwrap_or(""),
    ] {
        if is_plain(text) {
            detail.push_str(", ");
            detail.push_str(text);
        }
    }
    detail.push(')');
    let failure = Failure {
        retry_after: retry_after(response),
        ..Failure::new(reason, detail)
    };
    if response.status == 401 {
        Refusal::Token(failure)
    } else {
        Refusal::Other(failure)
    }
}

/// A code or an id: nothing else of a stranger's text gets into our log.
fn is_plain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !text.is_empty() && text.len() <= 64 && text.bytes().all(plain)
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3), an hour at the most. The form with a date is not
/// read here.
pub(super) fn retry_after(response: &Response) -> Option<Span> {
    let seconds = response.retry_after.as_deref()?.trim().parse().ok()?;
    Some(Span::seconds(seconds).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

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
            "/secrets/db/0123456789abcdef0123456789abcdef?api-version=7.4"
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
