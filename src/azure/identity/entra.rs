//! Tokens from Microsoft Entra ID: the client credentials grant of OAuth 2.0 (RFC 6749, section 4.4;
//! Microsoft identity platform v2.0). It knows no cache and no clock but the time it is given.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::assertion::Claims;
use super::{App, Circumstances, Identity, Proof, Token};
use crate::azure::http::{Answer, HttpRequest, Response, Scheme, push_encoded};
use crate::failure::{Failure, Reason};
use crate::json::{Malformed, Object};
use crate::secret::SecretValue;
use crate::time::{Span, Timestamp};

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
    at: &Circumstances<'_>,
) -> Result<HttpRequest, Failure> {
    let path = format!("/{tenant}/oauth2/v2.0/token");
    let mut body = Zeroizing::new(Vec::with_capacity(256));
    push_field(&mut body, "grant_type", b"client_credentials");
    push_field(&mut body, "client_id", app.client_id.as_bytes());
    let assertion = match (&app.proof, federated) {
        (Proof::Secret(secret), _) => {
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
    Ok(HttpRequest {
        cluster: identity.cluster.clone(),
        scheme: Scheme::Https,
        method: "POST",
        authority: app.authority.authority(),
        path,
        headers: vec![
            (
                "content-type",
                Zeroizing::new("application/x-www-form-urlencoded".into()),
            ),
            ("accept", Zeroizing::new("application/json".into())),
            ("client-request-id", Zeroizing::new(at.id.to_owned())),
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

struct TokenAnswer {
    access_token: Zeroizing<String>,
    expires_in: u64,
    refresh_in: Option<u64>,
}

impl TokenAnswer {
    fn read(body: &[u8]) -> Result<Self, Malformed> {
        let answer = Object::read(body)?;
        Ok(Self {
            access_token: answer.text("access_token")?.ok_or(Malformed)?,
            expires_in: answer.number("expires_in")?.ok_or(Malformed)?,
            refresh_in: answer.number("refresh_in")?,
        })
    }
}

/// Reads the answer to [`token_request`].
///
/// # Errors
/// What Entra ID, or the way there, said instead of a token.
pub(super) fn read_token(
    identity: &Identity,
    app: &App,
    answer: &Answer,
    now: Timestamp,
) -> Result<Token, Failure> {
    let response = match answer {
        Answer::Response(response) => response,
        Answer::Failed(failure) => return Err(failure.explain(&identity.cluster)),
    };
    if response.status != 200 {
        return Err(refused(app, response, now));
    }
    let bad = |text| Failure::new(Reason::BadAnswer, text);
    let answer = TokenAnswer::read(&response.body)
        .map_err(|_| bad("the token endpoint's answer is not the JSON of a token"))?;
    let life = Span::seconds(answer.expires_in);
    let refresh_in = answer.refresh_in.map(Span::seconds);
    Token::new(&answer.access_token, life, refresh_in, now)
        .ok_or_else(|| bad("the token endpoint's answer holds no usable token"))
}

fn refused(app: &App, response: &Response, now: Timestamp) -> Failure {
    let error = Object::read(&response.body).unwrap_or_default();
    let text = |name| {
        let text = error.text(name).ok().flatten();
        text.map(|text| plain(&text)).unwrap_or_default()
    };
    let codes = error.numbers("error_codes");
    let advice = codes.iter().find_map(|code| advice(*code, app));
    let (reason, advice) = match (response.status, advice) {
        (_, Some((reason, advice))) => (reason, advice),
        (429, _) => (Reason::Throttled, "Entra ID asked us to slow down".into()),
        (status, _) if status >= 500 => (
            Reason::Unavailable,
            "Entra ID could not be reached or is at fault".into(),
        ),
        _ => (
            Reason::Credentials,
            "Entra ID refused the identity; look the code up at https://login.microsoftonline.com/error"
                .into(),
        ),
    };
    let codes: Vec<String> = codes.iter().map(|c| format!("AADSTS{c}")).collect();
    let mut detail = format!("{advice} (status {}", response.status);
    for text in [text("error"), codes.join(" ")] {
        if !text.is_empty() {
            detail.push_str(", ");
            detail.push_str(&text);
        }
    }
    let correlation = text("correlation_id");
    if !correlation.is_empty() {
        detail.push_str(", correlation_id ");
        detail.push_str(&correlation);
    }
    detail.push(')');
    Failure {
        // What Entra ID's support asks for.
        request_id: Some(text("trace_id")),
        retry_after: response.retry_after(now),
        ..Failure::new(reason, detail)
    }
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

fn advice(code: u64, app: &App) -> Option<(Reason, String)> {
    let known = AADSTS.iter().find(|(codes, ..)| codes.contains(&code));
    let (_, reason, text) = known?;
    let id = plain(&app.client_id);
    let pieces = text.split(['{', '}']).map(|piece| match piece {
        "prefix" => &app.credentials_prefix,
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
