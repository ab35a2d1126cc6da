//! Tokens from Microsoft Entra ID: the client credentials grant of OAuth 2.0 (RFC 6749, section 4.4;
//! Microsoft identity platform v2.0). It knows no cache and no clock but the time it is given.

use serde::Deserialize;
use zeroize::Zeroizing;

use super::http::{Answer, HttpRequest, Response, push_encoded};
use crate::config::Identity;
use crate::failure::{Failure, Reason};
use crate::secret::SecretValue;
use crate::time::{Span, Timestamp};

/// How long before its end a token is renewed, as in Azure's SDKs; never more than a fifth of its life,
/// so that a short token is not renewed all the time.
const MARGIN: Span = Span::seconds(300);
/// Longest life that an answer is believed.
const LONGEST: u64 = 7 * 24 * 3600;

/// An access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What goes behind `Bearer `.
    pub value: SecretValue,
    /// From when on a new one should be had.
    pub renew_at: Timestamp,
    /// From when on it is of no use.
    pub expires_at: Timestamp,
}

/// The request for a token with a client secret.
#[must_use]
pub fn token_request(identity: &Identity, timeout: Span, request_id: &str) -> HttpRequest {
    let mut body = Zeroizing::new(Vec::with_capacity(256));
    let fields: [(&str, &[u8]); 4] = [
        ("grant_type", b"client_credentials"),
        ("client_id", identity.client_id.as_bytes()),
        ("client_secret", identity.client_secret.expose()),
        ("scope", identity.scope.as_bytes()),
    ];
    for (name, value) in fields {
        if !body.is_empty() {
            body.push(b'&');
        }
        body.extend_from_slice(name.as_bytes());
        body.push(b'=');
        push_encoded(&mut body, value);
    }
    HttpRequest {
        cluster: identity.cluster.clone(),
        method: "POST",
        authority: identity.authority.authority(),
        path: format!("/{}/oauth2/v2.0/token", identity.tenant_id),
        headers: vec![
            (
                "content-type",
                Zeroizing::new("application/x-www-form-urlencoded".into()),
            ),
            ("accept", Zeroizing::new("application/json".into())),
            ("client-request-id", Zeroizing::new(request_id.to_owned())),
        ],
        body,
        timeout,
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Zeroizing<String>,
    expires_in: u64,
    refresh_in: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TokenError {
    error: String,
    error_codes: Vec<u64>,
    trace_id: String,
}

/// Reads the answer to [`token_request`].
///
/// # Errors
/// What Entra ID, or the way there, said instead of a token.
pub fn read_token(identity: &Identity, answer: &Answer, now: Timestamp) -> Result<Token, Failure> {
    let response = match answer {
        Answer::Response(response) => response,
        Answer::Failed(failure) => return Err(failure.explain(&identity.cluster)),
    };
    if response.status != 200 {
        return Err(refused(response));
    }
    let answer: TokenAnswer = serde_json::from_slice(&response.body).map_err(|_| {
        Failure::new(
            Reason::BadAnswer,
            "the token endpoint's answer is not the JSON of a token",
        )
    })?;
    let usable = |b: u8| b.is_ascii_graphic();
    if answer.access_token.is_empty() || !answer.access_token.bytes().all(usable) {
        return Err(Failure::new(
            Reason::BadAnswer,
            "the token endpoint's answer holds no usable token",
        ));
    }
    let life = Span::seconds(answer.expires_in.min(LONGEST));
    let margin = MARGIN.min(life.fraction(1, 5));
    let renew_in = answer
        .refresh_in
        .map_or(life - margin, |s| Span::seconds(s).min(life - margin));
    Ok(Token {
        value: SecretValue::new(answer.access_token.as_bytes().to_vec()),
        renew_at: now + renew_in,
        expires_at: now + life,
    })
}

fn refused(response: &Response) -> Failure {
    let error: TokenError = serde_json::from_slice(&response.body).unwrap_or_default();
    let advice = error.error_codes.iter().find_map(|code| advice(*code));
    let (reason, advice) = match (response.status, advice) {
        (_, Some(advice)) => (Reason::Credentials, advice),
        (429, _) => (Reason::Throttled, "Entra ID asked us to slow down"),
        (status, _) if status >= 500 => (
            Reason::Unavailable,
            "Entra ID could not be reached or is at fault",
        ),
        _ => (
            Reason::Credentials,
            "Entra ID refused the identity; look the code up at https://login.microsoftonline.com/error",
        ),
    };
    let codes: Vec<String> = error
        .error_codes
        .iter()
        .map(|c| format!("AADSTS{c}"))
        .collect();
    let mut detail = format!("{advice} (status {}", response.status);
    for text in [plain(&error.error), codes.join(" "), plain(&error.trace_id)] {
        if !text.is_empty() {
            detail.push_str(", ");
            detail.push_str(&text);
        }
    }
    detail.push(')');
    Failure {
        retry_after: super::key_vault::retry_after(response),
        ..Failure::new(reason, detail)
    }
}

/// What to do about the codes that are seen most
/// (<https://learn.microsoft.com/entra/identity-platform/reference-error-codes>).
const fn advice(code: u64) -> Option<&'static str> {
    Some(match code {
        7_000_215 => {
            "the client secret is wrong; often the secret's id was pasted instead of its value"
        }
        7_000_222 => {
            "the app registration's client secret has expired; make a new one and set CLIENT_SECRET"
        }
        700_016 => "there is no app registration with this client_id in this tenant",
        90_002 => "there is no such tenant; check tenant_id and authority_host",
        500_011 => {
            "the tenant knows no such resource; check that authority_host is of the vault's cloud"
        }
        53_003 => "conditional access blocks this identity",
        _ => return None,
    })
}

/// Short, printable, and without spaces: the rest of a stranger's text is not for our log.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
        .take(64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HttpsUri;

    fn identity() -> Identity {
        Identity {
            authority: HttpsUri::parse("https://login.microsoftonline.com").unwrap(),
            cluster: "azure_identity".into(),
            tenant_id: "tenant".into(),
            client_id: "client".into(),
            client_secret: SecretValue::new(b"s~e+c&r=t".to_vec()),
            scope: "https://vault.azure.net/.default".into(),
        }
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer::Response(Response {
            status,
            body: Zeroizing::new(body.as_bytes().to_vec()),
            ..Response::default()
        })
    }

    #[test]
    fn the_request_is_form_encoded() {
        let request = token_request(&identity(), Span::seconds(5), "id");
        assert_eq!(request.path, "/tenant/oauth2/v2.0/token");
        assert_eq!(
            std::str::from_utf8(&request.body).unwrap(),
            "grant_type=client_credentials&client_id=client&client_secret=s~e%2Bc%26r%3Dt\
             &scope=https%3A%2F%2Fvault.azure.net%2F.default"
        );
    }

    #[test]
    fn a_token_is_renewed_before_its_end() {
        let now = Timestamp(1_000_000);
        let read = |body: &str| read_token(&identity(), &answer(200, body), now).unwrap();
        let token = read(r#"{"token_type":"Bearer","expires_in":3599,"access_token":"abc"}"#);
        assert_eq!(token.expires_at, now + Span::seconds(3599));
        assert_eq!(token.renew_at, now + Span::seconds(3299));
        let token = read(r#"{"expires_in":86399,"refresh_in":43199,"access_token":"abc"}"#);
        assert_eq!(token.renew_at, now + Span::seconds(43199));
        let token = read(r#"{"expires_in":10,"access_token":"abc"}"#);
        assert_eq!(token.renew_at, now + Span::seconds(8));
    }

    #[test]
    fn entras_errors_say_what_to_do_and_show_no_secret() {
        let body = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. s~e+c&r=t",
            "error_codes":[7000215],"trace_id":"11-22","correlation_id":"x"}"#;
        let failure = read_token(&identity(), &answer(401, body), Timestamp(0)).unwrap_err();
        assert_eq!(failure.reason, Reason::Credentials);
        assert!(
            failure.detail.contains("AADSTS7000215"),
            "{}",
            failure.detail
        );
        assert!(
            failure.detail.contains("secret is wrong"),
            "{}",
            failure.detail
        );
        assert!(!failure.detail.contains("s~e+c"), "{}", failure.detail);
    }

    #[test]
    fn answers_that_make_no_sense_are_failures() {
        for (status, body, reason) in [
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
            (429, "", Reason::Throttled),
            (400, "<html>", Reason::Credentials),
        ] {
            let failure = read_token(&identity(), &answer(status, body), Timestamp(0)).unwrap_err();
            assert_eq!(failure.reason, reason, "{status} {body}");
        }
    }
}
