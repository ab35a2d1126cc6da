//! Kong's grammar of vault references, to the letter (`parse_reference` in Kong 3.8's
//! `kong/pdk/vault.lua`, on LuaSocket 3.0-rc1's `url.lua`). It knows nothing of Azure: what Azure can
//! have is the parent module's business.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Part, ReferenceError};
use crate::quoted::Quoted;

/// A reference as Kong takes it apart. Names are bytes: percent-encoding can spell any.
#[derive(Clone, Debug, PartialEq)]
pub struct KongReference {
    /// The vault's prefix, not decoded.
    pub name: String,
    /// The secret's id, decoded twice as Kong does.
    pub resource: Vec<u8>,
    /// The segments of the path behind each other, decoded like the whole.
    pub segments: Vec<Vec<u8>>,
    /// Whether the path ends in a slash: then all of it is the secret's id, and there is no key.
    pub whole: bool,
    /// The sub-key.
    pub key: Option<Vec<u8>>,
    /// The query's fields in their order; `None` without a query.
    pub config: Option<Vec<(String, Field)>>,
    /// What stands behind `#`.
    pub version: Option<Version>,
}

/// A query field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// `name=text`
    Text(String),
    /// `name` without `=`
    True,
    /// The name came more than once.
    Many(Vec<Self>),
}

/// A version.
#[derive(Clone, Debug, PartialEq)]
pub enum Version {
    /// What Lua takes for a number: Kong accepts only this.
    Number(f64),
    /// 32 hexadecimal digits, in lower case: Azure's versions. Kong cannot express them.
    Id(String),
    /// `latest`: the same as none. Ours too.
    Latest,
}

/// Whether Kong takes this text for a reference at all (`is_reference`).
#[must_use]
pub fn is_reference(text: &str) -> bool {
    text.starts_with("{vault://") && text.ends_with('}')
}

/// Takes a reference apart.
///
/// # Errors
/// Which part is wrong, as Kong says it.
pub fn parse(text: &str) -> Result<KongReference, ReferenceError> {
    let refuse = |part, message: &str| Err(ReferenceError::new(part, message));
    let inner = text
        .strip_prefix("{vault://")
        .and_then(|t| t.strip_suffix('}'));
    let Some(inner) = inner else {
        return refuse(
            Part::Whole,
            "is not a reference: it must begin with {vault:// and end with }",
        );
    };
    let (inner, fragment) = cut(inner, '#');
    let (authority, path) = before(inner, '/');
    let (path, query) = cut(path, '?');
    let (path, _parameters) = cut(path, ';');
    let name = host(authority);
    if name.is_empty() {
        return refuse(Part::Vault, "names no vault: write {vault://PREFIX/SECRET}");
    }
    match path {
        "" => return refuse(Part::Path, "names no secret: write {vault://PREFIX/SECRET}"),
        "/" => {
            return refuse(
                Part::Path,
                "has an empty path: write {vault://PREFIX/SECRET}",
            );
        }
        _ => {}
    }
    let version = fragment.map(version).transpose()?;
    let segments: Vec<Vec<u8>> = path
        .split('/')
        .filter(|s| !s.is_empty())
        .map(decode_twice)
        .collect();
    let whole = path.ends_with('/') || segments.len() == 1;
    let (resource, key) = match segments.split_last() {
        None => {
            return refuse(
                Part::Path,
                "has a path of slashes only: write {vault://PREFIX/SECRET}",
            );
        }
        Some((last, rest)) if !whole => (rest.join(&b'/'), Some(last.clone())),
        Some(_) => (segments.join(&b'/'), None),
    };
    Ok(KongReference {
        name: name.to_owned(),
        resource,
        segments,
        whole,
        key,
        config: query.filter(|q| !q.is_empty()).map(fields),
        version,
    })
}

/// The text before the first `mark`, and the rest with it.
pub(crate) fn before(text: &str, mark: char) -> (&str, &str) {
    let at = text.find(mark).unwrap_or(text.len());
    text.split_at_checked(at).unwrap_or((text, ""))
}

/// The text before the first `mark`, and what follows it.
fn cut(text: &str, mark: char) -> (&str, Option<&str>) {
    match text.split_once(mark) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// The authority without user, port and the brackets of an address.
fn host(authority: &str) -> &str {
    let host = authority
        .split_once('@')
        .map_or(authority, |(_, host)| host);
    let host = match host.rsplit_once(':') {
        Some((host, port)) if !port.bytes().any(|b| b == b']') => host,
        _ => host,
    };
    let inside = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    inside.filter(|h| !h.is_empty()).unwrap_or(host)
}

fn version(text: &str) -> Result<Version, ReferenceError> {
    if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Version::Id(text.to_ascii_lowercase()));
    }
    if text == "latest" {
        return Ok(Version::Latest);
    }
    lua_number(text).map(Version::Number).ok_or_else(|| {
        let message = format!(
            "{text} is no version: Azure's have 32 hexadecimal digits; leave it out for the latest",
            text = Quoted(text)
        );
        ReferenceError::new(Part::Version, message)
    })
}

/// LuaJIT's `tonumber`: decimal and hexadecimal numbers, `inf` and `nan`, with spaces around.
pub(crate) fn lua_number(text: &str) -> Option<f64> {
    let text = text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let number = match lower.strip_prefix("0x") {
        Some(hex) => HEXADECIMAL.read(hex)?,
        None if matches!(lower.as_str(), "inf" | "infinity") => f64::INFINITY,
        None if lower == "nan" => f64::NAN,
        None => DECIMAL.read(&lower)?,
    };
    Some(if negative { -number } else { number })
}

/// How a number is written: with a fraction and an exponent, as C99 has it.
struct Notation {
    digits: u32,
    exponent: char,
    /// What the exponent is of, and how often it is in a digit's place.
    base: f64,
    places: i32,
}

const DECIMAL: Notation = Notation {
    digits: 10,
    exponent: 'e',
    base: 10.0,
    places: 1,
};

const HEXADECIMAL: Notation = Notation {
    digits: 16,
    exponent: 'p',
    base: 2.0,
    places: 4,
};

impl Notation {
    /// Exact up to 15 digits and exponents up to 22; beyond, as near as times in seconds need. The standard
    /// library's reader is always exact, with tables as large as a tenth of this filter's messages.
    fn read(&self, text: &str) -> Option<f64> {
        let (mantissa, exponent) = match text.split_once(self.exponent) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mut value = 0.0;
        for digit in whole.chars().chain(fraction.chars()) {
            value = value * f64::from(self.digits) + f64::from(digit.to_digit(self.digits)?);
        }
        let shift = i32::try_from(fraction.len())
            .ok()?
            .checked_mul(self.places)?;
        let exponent = exponent.checked_sub(shift)?;
        // Powers of ten are exact, and their inverses are not.
        let power = power(self.base, exponent.unsigned_abs());
        Some(if value == 0.0 {
            0.0
        } else if exponent < 0 {
            value / power
        } else {
            value * power
        })
    }
}

/// `base` to the power of `exponent`; the standard library's needs an operating system's mathematics.
fn power(base: f64, exponent: u32) -> f64 {
    let (mut power, mut square, mut left) = (1.0, base, exponent);
    while left > 0 {
        if left % 2 == 1 {
            power *= square;
        }
        square *= square;
        left /= 2;
    }
    power
}

/// LuaSocket decodes `%XX`; then `ngx.unescape_uri` does again, and makes `+` a space.
fn decode_twice(segment: &str) -> Vec<u8> {
    decode(&decode(segment.as_bytes(), false), true)
}

fn decode(text: &[u8], plus_is_space: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, escaped(after)) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', _) if plus_is_space => out.push(b' '),
            _ => out.push(byte),
        }
    }
    out
}

fn escaped(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// `ngx.decode_args`: at most 100 fields, a nameless one is dropped.
fn fields(query: &str) -> Vec<(String, Field)> {
    let text = |raw: &str| String::from_utf8_lossy(&decode(raw.as_bytes(), true)).into_owned();
    let mut fields: Vec<(String, Field)> = Vec::new();
    for argument in query.split('&').take(100) {
        let (name, value) = cut(argument, '=');
        let value = value.map_or(Field::True, |v| Field::Text(text(v)));
        let name = text(name);
        if name.is_empty() {
            continue;
        }
        match fields.iter_mut().find(|(other, _)| *other == name) {
            None => fields.push((name, value)),
            Some((_, Field::Many(values))) => values.push(value),
            Some((_, first)) => *first = Field::Many(vec![first.clone(), value]),
        }
    }
    fields
}
