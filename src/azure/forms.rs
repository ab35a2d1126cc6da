//! The forms in which references ask for certificates and keys: PEM, DER, JWK, PKCS#12, made from what
//! Key Vault gives. It knows no requests and no caches.

use alloc::string::String;
use alloc::vec::Vec;

use memchr::memmem;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::json;
use crate::base64;
use crate::failure::Reason;

/// Which of Key Vault's three collections holds an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Collection {
    /// `/secrets`: values, and the private side of certificates.
    Secrets,
    /// `/certificates`: the public side.
    Certificates,
    /// `/keys`: public keys.
    Keys,
}

impl Collection {
    /// Its segment in paths.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secrets => "secrets",
            Self::Certificates => "certificates",
            Self::Keys => "keys",
        }
    }
}

/// `type`: what the references of a vault are to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Secrets, as in Kong.
    #[default]
    Secrets,
    /// Certificates with their private keys.
    Certificates,
    /// The public parts of keys.
    Keys,
}

/// What is made of an object's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// The text, or a part of it when it is JSON.
    #[default]
    Text,
    /// A certificate as PEM.
    CertificatePem,
    /// A certificate's private key as PEM.
    PrivateKeyPem,
    /// A certificate and its private key as PKCS#12 in base64.
    Pkcs12,
    /// A public key as PEM.
    PublicKeyPem,
}

impl Kind {
    /// Where the object of a reference with these keys lies, and what is made of it. `None` when this
    /// kind has nothing of that name.
    ///
    /// A certificate's public side comes from `/certificates`, so that whoever wants only that needs no
    /// right to the private key and never holds it.
    #[must_use]
    pub fn locate(self, keys: &[String]) -> Option<(Collection, Form)> {
        let first = keys.first().map(String::as_str);
        Some(match (self, first) {
            (Self::Secrets, _) => (Collection::Secrets, Form::Text),
            (Self::Keys, Some("pem")) if keys.len() == 1 => (Collection::Keys, Form::PublicKeyPem),
            (Self::Keys, _) => (Collection::Keys, Form::Text),
            (Self::Certificates, _) if keys.len() > 1 => return None,
            (Self::Certificates, None | Some("certificate")) => {
                (Collection::Certificates, Form::CertificatePem)
            }
            // What the vault gives is base64 already, in one line: fit for a header (RFC 9440).
            (Self::Certificates, Some("der")) => (Collection::Certificates, Form::Text),
            (Self::Certificates, Some("private_key")) => (Collection::Secrets, Form::PrivateKeyPem),
            (Self::Certificates, Some("pkcs12")) => (Collection::Secrets, Form::Pkcs12),
            (Self::Certificates, Some(_)) => return None,
        })
    }

    /// The keys that are left to look for in the object's text, for [`Form::Text`].
    #[must_use]
    pub fn keys_in_text(self, keys: &[String]) -> &[String] {
        match (self, keys) {
            (Self::Certificates, _) => &[],
            (Self::Keys, [jwk]) if jwk == "jwk" => &[],
            _ => keys,
        }
    }
}

/// Makes the form of an object's text. A PKCS#12 whose key takes more than `most_rounds` of key derivation is not
/// opened.
///
/// # Errors
/// When the object does not have it.
pub fn make(form: Form, text: &[u8], most_rounds: u32) -> Result<Zeroizing<Vec<u8>>, Reason> {
    match form {
        Form::Text => Ok(Zeroizing::new(text.to_vec())),
        Form::CertificatePem => {
            let der = base64::decode(text).ok_or(Reason::BadAnswer)?;
            Ok(pem("CERTIFICATE", &der))
        }
        Form::PrivateKeyPem if is_pem(text) => private_key_in(text).ok_or(Reason::NoSuchKey),
        Form::PrivateKeyPem => {
            let der = base64::decode(text)
                .map(Zeroizing::new)
                .ok_or(Reason::NotBase64)?;
            private_key_of_pkcs12(&der, most_rounds)
        }
        Form::Pkcs12 if is_pem(text) => Err(Reason::NoSuchKey),
        Form::Pkcs12 => Ok(Zeroizing::new(text.to_vec())),
        Form::PublicKeyPem => public_key(text).ok_or(Reason::NoSuchKey),
    }
}

fn is_pem(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"-----BEGIN ")
}

/// The block with the private key in a PEM file (RFC 7468), as it stands there.
fn private_key_in(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
        let begin = format!("-----BEGIN {label}-----");
        let end = format!("-----END {label}-----");
        let from = memmem::find(text, begin.as_bytes()).and_then(|at| text.get(at..));
        let block = from.and_then(|from| {
            let length = memmem::find(from, end.as_bytes())? + end.len();
            from.get(..length)
        });
        if let Some(block) = block {
            return Some(Zeroizing::new([block, b"\n"].concat()));
        }
    }
    None
}

/// Key Vault's PKCS#12 files have no password.
#[cfg(feature = "pkcs12")]
fn private_key_of_pkcs12(file: &[u8], most_rounds: u32) -> Result<Zeroizing<Vec<u8>>, Reason> {
    super::pkcs12::private_key(file, most_rounds).map(|key| pem("PRIVATE KEY", &key))
}

/// Decryption for PKCS#12 more than doubles the filter, so it is left out unless asked for.
#[cfg(not(feature = "pkcs12"))]
const fn private_key_of_pkcs12(_: &[u8], _: u32) -> Result<Zeroizing<Vec<u8>>, Reason> {
    Err(Reason::NeedsPkcs12)
}

/// PEM with lines of 64 characters (RFC 7468).
fn pem(label: &str, der: &[u8]) -> Zeroizing<Vec<u8>> {
    let text = Zeroizing::new(base64::encode(der));
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() + text.len() / 64 + 64));
    out.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    for line in text.as_bytes().chunks(64) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    out
}

/// The fields of a public key's JWK (RFC 7518, section 6) that are read.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// A JWK (RFC 7518, section 6) as SubjectPublicKeyInfo (RFC 5280; RFC 8017 for RSA, RFC 5480 for curves) in PEM.
fn public_key(jwk: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    /// rsaEncryption with NULL parameters
    const RSA: &[u8] = &[
        0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    ];
    /// id-ecPublicKey
    const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    let jwk: Jwk = json::read(jwk).ok()?;
    let bytes = |field: &Option<String>| base64::decode(field.as_deref()?.as_bytes());
    let kind = &jwk.kty;
    let (algorithm, key) = match kind.strip_suffix("-HSM").unwrap_or(kind) {
        "RSA" => {
            let numbers = [integer(&bytes(&jwk.n)?), integer(&bytes(&jwk.e)?)].concat();
            (RSA.to_vec(), der(0x30, &numbers))
        }
        "EC" => {
            let (curve, size) = curve(jwk.crv.as_deref()?)?;
            let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
            if x.len() != size || y.len() != size {
                return None;
            }
            ([EC, curve].concat(), [&[4], x.as_slice(), &y].concat())
        }
        _ => return None,
    };
    let info = [
        der(0x30, &algorithm),
        der(0x03, &[&[0], key.as_slice()].concat()),
    ]
    .concat();
    Some(pem("PUBLIC KEY", &der(0x30, &info)))
}

/// A curve's object identifier, and the length of its coordinates.
fn curve(name: &str) -> Option<(&'static [u8], usize)> {
    Some(match name {
        "P-256" => (
            &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            32,
        ),
        "P-256K" | "SECP256K1" => (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a], 32),
        "P-384" => (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22], 48),
        "P-521" => (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23], 66),
        _ => return None,
    })
}

/// A DER value (X.690): tag, length, content.
pub(super) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    let bytes = length.to_be_bytes();
    let significant: Vec<u8> = bytes.into_iter().skip_while(|&b| b == 0).collect();
    match (significant.as_slice(), u8::try_from(significant.len())) {
        ([], _) => out.push(0),
        ([short], _) if *short < 0x80 => out.push(*short),
        (long, Ok(count)) => {
            out.push(0x80 | count);
            out.extend_from_slice(long);
        }
        (_, Err(_)) => {}
    }
    out.extend_from_slice(content);
    out
}

/// A DER integer of unsigned bytes.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = bytes.iter().copied().skip_while(|&b| b == 0).collect();
    match digits.first() {
        Some(high) if *high < 0x80 => der(0x02, &digits),
        _ => der(0x02, &[&[0], digits.as_slice()].concat()),
    }
}

#[cfg(test)]
mod tests;
