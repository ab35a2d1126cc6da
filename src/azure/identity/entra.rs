//! Tokens from Microsoft Entra ID: the client credentials grant of OAuth 2.0 (RFC 6749, section 4.4;
//! Microsoft identity platform v2.0). It knows no cache and no clock but the time it is given.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::assertion::Claims;
use super::{App, Circumstances, Identity, Progress, Proof, Token, Which, token_answer};
use crate::azure::http::{Answer, HttpRequest, Response, Scheme, push_encoded};
use crate::azure::{json, stranger};
use crate::failure::{Failure, Reason};
use crate::secret::SecretValue;
use crate::time::Timestamp;

/// As the log calls it.
const SERVICE: &str = "Entra ID";
/// Invalid, and expired: another client secret may do.
const SECRET_REFUSED: [u64; 2] = [7_000_215, 7_000_222];

/// RFC 7523, section 2.2.
const JWT_BEARER: &[u8] = b"urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The request for a token. `federated` is what the source of federated tokens gave.
///
/// # Errors
/// When the certificate's key does not sign.
pub(super) fn token_request(
    identity: &Identity,
    app: &App,
    tenant: &str,
    federated: Option<&SecretValue>,
    progress: &Progress,
    at: &Circumstances<'_>,
) -> Result<HttpRequest, Failure> {
    let path = format!("/{tenant}/oauth2/v2.0/token");
    let mut body = Zeroizing::new(Vec::with_capacity(256));
    push_field(&mut body, "grant_type", b"client_credentials");
    push_field(&mut body, "client_id", app.client_id.as_bytes());
    let assertion = match (&app.proof, federated) {
        (Proof::Secret { current, next }, _) => {
            let secret = match (progress.secret, next) {
                (Which::Next, Some(next)) => next,
                _ => current,
            };
            push_field(&mut body, "client_secret", secret.expose());
            None
        }
        (Proof::Certificate(certificate), _) => {
            let claims = Claims {
                audience: &format!("{}{path}", app.authority),
                client_id: &app.client_id,
                id: at.id,
                now: at.now,
            };
            let signed = certificate.sign(claims, at.random);
            let why = "the client certificate's key does not sign; make a new certificate";
            Some(signed.ok_or_else(|| Failure::new(Reason::Credentials, why))?)
        }
        (Proof::Federated(token), _) => Some(token.clone()),
        (Proof::FederatedSource { .. }, token) => token.cloned(),
    };
    if let Some(assertion) = assertion {
        push_field(&mut body, "client_assertion_type", JWT_BEARER);
        push_field(&mut body, "client_assertion", assertion.expose());
    }
    push_field(&mut body, "scope", identity.scope.as_bytes());
    if let Some(claims) = &progress.claims {
        push_field(&mut body, "claims", claims.as_bytes());
    }
    Ok(HttpRequest {
        cluster: identity.cluster.clone(),
        scheme: Scheme::Https,
        method: "POST",
        authority: app.authority.authority(),
        path,
        headers: vec![
            (
                "content-type".into(),
                Zeroizing::new("application/x-www-form-urlencoded".into()),
            ),
            ("accept".into(), Zeroizing::new("application/json".into())),
            ("client-request-id".into(), Zeroizing::new(at.id.to_owned())),
        ],
        body,
        timeout: at.timeout,
    })
}

fn push_field(body: &mut Vec<u8>, name: &str, value: &[u8]) {
    if !body.is_empty() {
        body.push(b'&');
    }
    body.extend_from_slice(name.as_bytes());
    body.push(b'=');
    push_encoded(body, value);
}

/// Reads the answer to [`token_request`]; no token yet when the other client secret is to be tried.
///
/// # Errors
/// What Entra ID, or the way there, said instead of a token.
pub(super) fn read_token(
    identity: &Identity,
    app: &App,
    answer: &Answer,
    progress: &mut Progress,
    now: Timestamp,
) -> Result<Option<Token>, Failure> {
    let response = match answer {
        Answer::Response(response) => response,
        Answer::Failed(failure) => return Err(failure.explain(&identity.cluster)),
    };
    if response.status == 200 {
        let token = token_answer::read(&response.body, SERVICE, now)?;
        progress.claims = None;
        progress.tried_both = false;
        return Ok(Some(token));
    }
    let Some(error) = EntraError::read(response) else {
        return Err(stranger::failure(SERVICE, response, now));
    };
    let codes = error.codes();
    let has_next = matches!(app.proof, Proof::Secret { next: Some(_), .. });
    let refused = codes.iter().any(|code| SECRET_REFUSED.contains(code));
    if has_next && refused && progress.try_other_secret() {
        return Ok(None);
    }
    let failure = error.failure(&codes, app, response, now);
    progress.tried_both = false;
    if failure.reason == Reason::Credentials {
        // It may be the tenant that the vault named once: the vault names it anew.
        progress.forget_tenant();
    }
    Err(failure)
}

/// Entra ID's error answer (RFC 6749, section 5.2, with Microsoft's own fields).
#[derive(Default, Deserialize)]
#[serde(default)]
struct EntraError {
    error: Option<String>,
    error_description: Option<String>,
    error_codes: Option<Vec<u64>>,
    correlation_id: Option<String>,
    trace_id: Option<String>,
}

impl EntraError {
    /// `None` when this is not an answer of Entra ID.
    fn read(response: &Response) -> Option<Self> {
        let error: Self = json::read(&response.body).unwrap_or_default();
        let is_entra =
            error.error.is_some() || error.error_codes.is_some() || response.request_id.is_some();
        is_entra.then_some(error)
    }

    fn codes(&self) -> Vec<u64> {
        let named = self.error_description.as_deref().and_then(aadsts_code);
        let codes = self.error_codes.clone().unwrap_or_default();
        if codes.is_empty() {
            named.into_iter().collect()
        } else {
            codes
        }
    }

    fn failure(&self, codes: &[u64], app: &App, response: &Response, now: Timestamp) -> Failure {
        let text = |field: &Option<String>| field.as_deref().map(plain).unwrap_or_default();
        let advice = codes
            .iter()
            .find_map(|code| advice(*code, &app.client_id, &app.credentials_prefix));
        let (reason, advice) = advice.unwrap_or_else(|| by_status(response.status));
        let mut detail = format!("{advice} (status {}", response.status);
        let codes: Vec<String> = codes.iter().map(|c| format!("AADSTS{c}")).collect();
        for text in [text(&self.error), codes.join(" ")] {
            if !text.is_empty() {
                detail.push_str(", ");
                detail.push_str(&text);
            }
        }
        let correlation = text(&self.correlation_id);
        if !correlation.is_empty() {
            detail.push_str(", correlation_id ");
            detail.push_str(&correlation);
        }
        detail.push_str("; answered by Entra ID)");
        Failure {
            // What Entra ID's support asks for.
            request_id: Some(text(&self.trace_id)),
            retry_after: response.retry_after(now),
            ..Failure::new(reason, detail)
        }
    }
}

/// For an answer of Entra ID without a code that we know.
fn by_status(status: u16) -> (Reason, String) {
    match status {
        429 => (Reason::Throttled, "Entra ID asked us to slow down".into()),
        500.. => (
            Reason::Unavailable,
            "Entra ID could not be reached or is at fault".into(),
        ),
        _ => (
            Reason::Credentials,
            "Entra ID refused the identity; look the code up at https://login.microsoftonline.com/error"
                .into(),
        ),
    }
}

/// The number behind `AADSTS` in an error's description.
pub(super) fn aadsts_code(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("AADSTS")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest.get(..digits)?.parse().ok()
}

/// What to do about the codes that are seen most, `AADSTS` and the number
/// (<https://learn.microsoft.com/entra/identity-platform/reference-error-codes>). `{id}` stands for the client
/// id, `{prefix}` for `credentials_prefix`.
#[rustfmt::skip]
pub const AADSTS: [(&[u64], Reason, &str); 14] = [
    (&[7_000_215], Reason::Credentials, "the client secret is wrong; often the secret's id was pasted instead of its value: set {prefix}_CLIENT_SECRET to the value"),
    (&[7_000_222], Reason::Credentials, "the app registration's client secret has expired; make a new one and set {prefix}_CLIENT_SECRET"),
    (&[7_000_218, 7_000_216], Reason::Credentials, "Entra ID got no credential that it knows; set a client secret, a client certificate or a federated token"),
    (&[700_016], Reason::Credentials, "there is no app registration {id} in this tenant; check client_id and tenant_id"),
    (&[90_002, 900_023], Reason::Credentials, "there is no such tenant; check tenant_id and authority_host"),
    (&[50_020, 50_059], Reason::Credentials, "the identity is not of this tenant; check tenant_id"),
    (&[700_027], Reason::Credentials, "the app registration {id} does not know this certificate, or its signature is wrong; upload the certificate to the app registration"),
    (&[700_024], Reason::Credentials, "the assertion is outside its time; set the gateway's clock, or hand over a newer federated token"),
    (&[70_021, 700_211, 700_212, 700_213, 700_223], Reason::Credentials, "no federated credential of {id} fits this token; compare its issuer, subject and audience with the token's (audience api://AzureADTokenExchange)"),
    (&[500_011], Reason::Credentials, "the tenant knows no such resource; check that authority_host is of the vault's cloud, and scope"),
    (&[53_003], Reason::Credentials, "conditional access blocks this identity; exempt workload identities, or this one, in the policy"),
    (&[7_000_112], Reason::Credentials, "the application {id} is disabled; enable it in Enterprise applications"),
    (&[7_000_229], Reason::Credentials, "the application {id} has no service principal in this tenant; grant it there"),
    (&[90_033, 90_024, 50_196], Reason::Unavailable, "Entra ID has a fault that passes"),
];

/// The reason and the advice for a code, if it is a known one.
pub(super) fn advice(code: u64, client_id: &str, prefix: &str) -> Option<(Reason, String)> {
    let known = AADSTS.iter().find(|(codes, ..)| codes.contains(&code));
    let (_, reason, text) = known?;
    let id = plain(client_id);
    let pieces = text.split(['{', '}']).map(|piece| match piece {
        "prefix" => prefix,
        "id" => id.as_str(),
        text => text,
    });
    Some((*reason, pieces.collect()))
}

/// Short, printable, and without spaces: the rest of a stranger's text is not for our log.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .take(64)
        .collect()
}
