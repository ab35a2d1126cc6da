//! Reads a secret, certificate or key out of Key Vault's answer, and judges its dates. It does not know what
//! an error answer means: `refusal` does.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::refusal::{Refusal, refused};
use crate::azure::forms::Collection;
use crate::azure::http::Answer;
use crate::azure::json;
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
pub(super) struct Attributes {
    pub(super) enabled: Option<bool>,
    exp: Option<u64>,
    nbf: Option<u64>,
    pub(super) created: Option<u64>,
}

impl Attributes {
    /// Why the dates speak against its use at `now`.
    pub(super) fn out_of_dates(&self, now: Timestamp) -> Option<Reason> {
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

/// Reads the answer to [`secret_request`](super::secret_request).
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
