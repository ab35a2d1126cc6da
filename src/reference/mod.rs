//! References, `{vault://prefix/secret/key?options#version}`: Kong's grammar, narrowed to what Azure Key
//! Vault can have and to what a reference may decide. It fetches nothing and does not know which vaults
//! there are.
//!
//! Beyond Kong: 32 hexadecimal digits behind `#` pin a version (so do they as the last segment before a
//! trailing slash, which reaches that version in Kong by accident); more than two segments lead into
//! nested JSON objects. Narrower than Kong: options other than the four below are refused, since Kong
//! would let a reference send the vault's token to another host; so is an option out of range, where
//! Kong silently drops the vault's own value.

#[cfg(feature = "explain")]
mod explain;
mod kong;

pub(crate) use kong::lua_number;

use alloc::borrow::ToOwned;

use crate::quoted::Quoted;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

#[cfg(feature = "explain")]
pub use explain::{config_json, explain, version_json};
pub use kong::{Field, KongReference, Version, is_reference, parse as parse_kong};

/// Longest reference; Azure's names have 127 characters at the most.
pub(crate) const LONGEST: usize = 2048;
/// Kong's largest ttl (`kong/db/schema/typedefs.lua`).
const MAX_TTL: f64 = 1e8;

/// The part of a reference that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The vault's prefix.
    Vault,
    /// What follows the vault.
    Path,
    /// The secret's name.
    Secret,
    /// The way into the secret.
    Key,
    /// What stands behind `?`.
    Option,
    /// What stands behind `#`.
    Version,
}

impl Part {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "reference",
            Self::Vault => "vault",
            Self::Path => "path",
            Self::Secret => "secret name",
            Self::Key => "key",
            Self::Option => "option",
            Self::Version => "version",
        }
    }
}

/// Why a reference is refused. References are not secret, so it may quote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceError {
    /// Which part is wrong.
    pub part: Part,
    message: String,
}

impl ReferenceError {
    fn new(part: Part, message: impl Into<String>) -> Self {
        Self {
            part,
            message: message.into(),
        }
    }

    /// For bytes that are not UTF-8.
    #[must_use]
    pub fn not_text(part: Part) -> Self {
        Self::new(part, "is not UTF-8")
    }
}

impl fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} {}", self.part.as_str(), self.message)
    }
}

/// A secret's name as Azure has them: 1 to 127 letters, digits and dashes, whatever their case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName {
    written: String,
    folded: String,
}

impl SecretName {
    fn parse(name: &[u8]) -> Result<Self, ReferenceError> {
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-';
        let valid = (1..=127).contains(&name.len()) && name.iter().all(allowed);
        match core::str::from_utf8(name) {
            Ok(written) if valid => Ok(Self {
                written: written.to_owned(),
                folded: written.to_ascii_lowercase(),
            }),
            _ => {
                let shown = String::from_utf8_lossy(name);
                let message = format!(
                    "{shown} is none that Azure can have: 1 to 127 letters, digits and dashes",
                    shown = Quoted(&shown)
                );
                Err(ReferenceError::new(Part::Secret, message))
            }
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// In lower case: the same for every way to write it, as at the service.
    #[must_use]
    pub fn folded(&self) -> &str {
        &self.folded
    }
}

/// A version of a secret: 32 hexadecimal digits in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretVersion(String);

impl SecretVersion {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a reference may decide instead of its vault. Seconds, as Kong has them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Options {
    /// How long a value is fresh.
    pub ttl: Option<f64>,
    /// How long a missing secret is remembered.
    pub neg_ttl: Option<f64>,
    /// How long a value is used beyond its ttl.
    pub resurrect_ttl: Option<f64>,
    /// Whether the value is decoded from base64.
    pub base64_decode: Option<bool>,
}

/// A reference that can be resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// The prefix of the vault.
    pub vault: String,
    /// The secret's name.
    pub secret: SecretName,
    /// `None` for the current version.
    pub version: Option<SecretVersion>,
    /// The way to a text in a JSON secret; empty for the whole secret.
    pub keys: Vec<String>,
    /// What it decides for itself.
    pub options: Options,
}

impl Reference {
    /// Reads a reference with its braces.
    ///
    /// # Errors
    /// Which part is wrong, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > LONGEST {
            return Err(ReferenceError::new(
                Part::Whole,
                format!("is longer than {LONGEST} bytes"),
            ));
        }
        Self::from_kong(&parse_kong(text)?)
    }

    fn from_kong(kong: &KongReference) -> Result<Self, ReferenceError> {
        let (first, rest) = kong
            .segments
            .split_first()
            .ok_or_else(|| ReferenceError::new(Part::Path, "names no secret"))?;
        let secret = SecretName::parse(first)?;
        let pinned = pinned_version(kong, rest)?;
        let keys = match (&pinned, kong.whole, rest) {
            (Some(_), _, _) | (None, _, []) => Vec::new(),
            (None, true, _) => {
                let message = "ends in a slash, which means that all of it is the secret's name, and Azure's names have no slash; leave the last slash out";
                return Err(ReferenceError::new(Part::Path, message));
            }
            (None, false, keys) => keys
                .iter()
                .map(|key| key_text(key))
                .collect::<Result<_, _>>()?,
        };
        let version = match &kong.version {
            None | Some(Version::Latest) => None,
            Some(Version::Id(id)) => Some(SecretVersion(id.clone())),
            Some(Version::Number(_)) => {
                let message = "is a number: Azure's versions have 32 hexadecimal digits; leave it out for the latest";
                return Err(ReferenceError::new(Part::Version, message));
            }
        };
        Ok(Self {
            vault: kong.name.clone(),
            secret,
            version: version.or(pinned),
            keys,
            options: options(kong.config.as_deref().unwrap_or_default())?,
        })
    }
}

/// `name/VERSION/`: Kong asks Azure for `secrets/name/VERSION`.
fn pinned_version(
    kong: &KongReference,
    rest: &[Vec<u8>],
) -> Result<Option<SecretVersion>, ReferenceError> {
    let [id] = rest else {
        return Ok(None);
    };
    if !kong.whole || id.len() != 32 || !id.iter().all(u8::is_ascii_hexdigit) {
        return Ok(None);
    }
    if kong.version.is_some() {
        return Err(ReferenceError::new(
            Part::Version,
            "is given twice, in the path and behind #",
        ));
    }
    Ok(Some(SecretVersion(
        String::from_utf8_lossy(id).to_ascii_lowercase(),
    )))
}

fn key_text(key: &[u8]) -> Result<String, ReferenceError> {
    let refuse = |message| Err(ReferenceError::new(Part::Key, message));
    match core::str::from_utf8(key) {
        // They mean something else in paths: a user who writes them expects what does not happen.
        Ok("." | "..") => refuse("may not be `.` or `..`"),
        Ok(text) if text.contains(char::is_control) => refuse("holds a control character"),
        Ok(text) => Ok(text.to_owned()),
        Err(_) => refuse("is not UTF-8, and so no key of a JSON object"),
    }
}

fn options(fields: &[(String, Field)]) -> Result<Options, ReferenceError> {
    let mut options = Options::default();
    for (name, value) in fields {
        match name.as_str() {
            "ttl" => options.ttl = Some(seconds(name, value)?),
            "neg_ttl" => options.neg_ttl = Some(seconds(name, value)?),
            "resurrect_ttl" => options.resurrect_ttl = Some(seconds(name, value)?),
            "base64_decode" => options.base64_decode = Some(boolean(name, value)?),
            _ => {
                let message = format!(
                    "{name} may not stand in a reference: it is the vault's to decide; ttl, neg_ttl, resurrect_ttl and base64_decode may"
                );
                return Err(ReferenceError::new(Part::Option, message));
            }
        }
    }
    Ok(options)
}

fn seconds(name: &str, value: &Field) -> Result<f64, ReferenceError> {
    let number = match value {
        Field::Text(text) => lua_number(text),
        _ => None,
    };
    let message = match number {
        Some(seconds) if is_below_a_second(seconds) => format!("{name} {TOO_SHORT}"),
        Some(seconds) if (0.0..=MAX_TTL).contains(&seconds) => return Ok(seconds),
        _ => format!("{name} must be given once, as 0 or a number of seconds from 1 to 100000000"),
    };
    Err(ReferenceError::new(Part::Option, message))
}

/// Why a time between 0 and 1 s is refused, here and in the configuration.
pub(crate) const TOO_SHORT: &str = "is below one second, and so close to 0, which means something else \
     (a ttl of 0 is no rotation); it must be 0, or from 1 to 100000000 seconds";

/// Whether a time in seconds is neither 0 nor at least one second.
pub(crate) fn is_below_a_second(seconds: f64) -> bool {
    seconds > 0.0 && seconds < 1.0
}

fn boolean(name: &str, value: &Field) -> Result<bool, ReferenceError> {
    match value {
        Field::True => Ok(true),
        Field::Text(text) if text == "true" => Ok(true),
        Field::Text(text) if text == "false" => Ok(false),
        _ => Err(ReferenceError::new(
            Part::Option,
            format!("{name} must be given once, as true or false"),
        )),
    }
}

#[cfg(test)]
mod tests;
