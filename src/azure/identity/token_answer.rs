//! The JSON of a token, from Entra ID and from every managed identity's endpoint, and the end of a token's
//! life in each form that was seen: MSAL and Azure's SDKs for Java and Python read the same ones. It makes
//! no request and knows no error answer.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Token;
use crate::azure::{dates, json};
use crate::base64;
use crate::failure::{Failure, Reason};
use crate::time::{Span, Timestamp};

/// The life of a token whose answer and content say nothing about it.
const UNKNOWN_LIFE: Span = Span::seconds(300);

#[derive(Deserialize)]
struct TokenAnswer<'a> {
    #[serde(borrow)]
    access_token: Cow<'a, str>,
    #[serde(borrow)]
    expires_in: Option<Written<'a>>,
    #[serde(borrow)]
    expires_on: Option<Written<'a>>,
    #[serde(borrow)]
    refresh_in: Option<Written<'a>>,
}

/// Seconds as a number or as text, or a date as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written<'a> {
    Number(f64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
    /// Anything else counts as absent.
    Other(IgnoredAny),
}

impl Written<'_> {
    /// Seconds, also with a fraction; below zero is zero.
    fn seconds(&self) -> Option<Span> {
        let seconds = match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.trim().parse().ok()?,
            Self::Other(_) => return None,
        };
        seconds.is_finite().then(|| Span::from_seconds(seconds))
    }

    /// Seconds since 1970, or a date.
    fn time(&self) -> Option<Timestamp> {
        let date = || match self {
            Self::Text(text) => dates::token_date(text),
            _ => None,
        };
        self.seconds().map(|s| Timestamp(s.0)).or_else(date)
    }
}

/// A JWT's `exp` (RFC 7519, section 4.1.4), seconds since 1970.
#[derive(Deserialize)]
struct Claims {
    exp: f64,
}

/// The `exp` of a token that happens to be a JWT. Its signature is the vault's business: the time only
/// says when a new token is fetched.
fn end_in(token: &str) -> Option<Timestamp> {
    let payload = token.split('.').nth(1)?;
    let payload = base64::decode(payload.as_bytes())?;
    let claims: Claims = json::read(&payload).ok()?;
    Some(Timestamp(Span::from_seconds(claims.exp).0))
}

/// Reads the 200 answer of `source`: `expires_in` first (it does not depend on our clock), then
/// `expires_on`, then the `exp` in the token, else five minutes.
///
/// # Errors
/// When there is no usable token in it.
pub(super) fn read(body: &[u8], source: &str, now: Timestamp) -> Result<Token, Failure> {
    let bad = |text: &str| Failure::new(Reason::BadAnswer, format!("{source} {text}"));
    let answer: TokenAnswer<'_> = json::read(body).map_err(|_| {
        bad(if json::is_html(body) {
            "answered 200 with HTML, not with a token: a proxy or portal on the way answered, or the address is wrong"
        } else {
            "answered 200 without the JSON of a token"
        })
    })?;
    let written = |field: &Option<Written<'_>>| field.as_ref().and_then(Written::seconds);
    let until = |end: Timestamp| end.until(now);
    let life = written(&answer.expires_in)
        .or_else(|| {
            answer
                .expires_on
                .as_ref()
                .and_then(Written::time)
                .map(until)
        })
        .or_else(|| end_in(&answer.access_token).map(until))
        .unwrap_or(UNKNOWN_LIFE);
    if life.0 == 0 {
        return Err(bad(
            "gave a token whose life is over already; check the gateway's clock",
        ));
    }
    Token::new(&answer.access_token, life, written(&answer.refresh_in), now)
        .ok_or_else(|| bad("gave a token that cannot be sent in a header"))
}
