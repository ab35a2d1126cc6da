//! Why an answer holds no secret, and what the operator can do about it. It reads no secret, and does not
//! know whether the request is sent again.

use serde::Deserialize;

use crate::azure::challenge::{self, Challenge};
use crate::azure::http::Response;
use crate::azure::identity::{App, Credential, Tenant};
use crate::azure::{json, stranger};
use crate::config::Vault;
use crate::failure::{Failure, Reason};
use crate::time::Timestamp;

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

pub(super) fn refused(vault: &Vault, response: &Response, now: Timestamp) -> Refusal {
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

/// A code or an id: nothing else of a stranger's text gets into our log.
fn is_plain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !text.is_empty() && text.len() <= 64 && text.bytes().all(plain)
}
