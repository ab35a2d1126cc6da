//! The JSON of a token, from Entra ID and from every managed identity's endpoint, and the end of a token's
//! life in each form that was seen: MSAL and Azure's SDKs for Java and Python read the same ones. It makes
//! no request and knows no error answer.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

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
    expires_in: Option<&'a RawValue>,
    #[serde(borrow)]
    expires_on: Option<&'a RawValue>,
    #[serde(borrow)]
    refresh_in: Option<&'a RawValue>,
}

/// A number as it is written, or what a string says; anything else is empty, and so of no form below.
fn written(field: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let raw = field?.get();
    if raw.starts_with('"') {
        serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(raw))
    }
}

/// Seconds, also with a fraction; below zero is zero.
fn seconds(text: &str) -> Option<Span> {
    let seconds: f64 = text.trim().parse().ok()?;
    seconds.is_finite().then(|| Span::from_seconds(seconds))
}

/// Seconds since 1970, or a date.
fn time(text: &str) -> Option<Timestamp> {
    let since = seconds(text).map(|seconds| Timestamp(seconds.0));
    since.or_else(|| dates::token_date(text))
}

/// A JWT's `exp` (RFC 7519, section 4.1.4), seconds since 1970.
#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    exp: &'a RawValue,
}

/// The `exp` of a token that happens to be a JWT. Its signature is the vault's business: the time only
/// says when a new token is fetched.
fn end_in(token: &str) -> Option<Timestamp> {
    let payload = token.split('.').nth(1)?;
    let payload = base64::decode(payload.as_bytes())?;
    let claims: Claims<'_> = json::read(&payload).ok()?;
    seconds(claims.exp.get()).map(|seconds| Timestamp(seconds.0))
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
    let span = |field| written(field).and_then(|text| seconds(&text));
    let until = |end: Timestamp| end.until(now);
    let ends_on = || written(answer.expires_on).and_then(|text| time(&text));
    let life = span(answer.expires_in)
        .or_else(|| ends_on().map(until))
        .or_else(|| end_in(&answer.access_token).map(until))
        .unwrap_or(UNKNOWN_LIFE);
    if life.0 == 0 {
        return Err(bad(
            "gave a token whose life is over already; check the gateway's clock",
        ));
    }
    Token::new(&answer.access_token, life, span(answer.refresh_in), now)
        .ok_or_else(|| bad("gave a token that cannot be sent in a header"))
}
