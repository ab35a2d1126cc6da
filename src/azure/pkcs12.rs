//! The private key of a PKCS#12 file (RFC 7292) without a password, at a bounded cost. A file says itself how
//! many rounds of key derivation each of its parts takes, up to a million, so the one part with the key is
//! looked for first, and only a file made of that part is opened. It knows no requests.
//!
//! Left out are the check of the MAC, which without a password shows nothing, the certificates, and keys inside
//! of encrypted content, whose rounds are not seen before it is decrypted: files with keys there
//! are refused. OpenSSL writes keys beside encrypted content.

use p12_keystore::Pkcs12Archive;
use zeroize::Zeroizing;

use super::forms::der;
use crate::failure::Reason;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
/// `[0]`, constructed.
const FIRST: u8 = 0xa0;

/// `id-data`, 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// `pkcs-12-keyBag`, 1.2.840.113549.1.12.10.1.1
const KEY_BAG: &[u8] = &[
    0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x01,
];
/// `pkcs-12-pkcs-8ShroudedKeyBag`, 1.2.840.113549.1.12.10.1.2
const SHROUDED_KEY_BAG: &[u8] = &[
    0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x02,
];
/// `id-PBES2`, 1.2.840.113549.1.5.13
const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
/// `id-PBKDF2`, 1.2.840.113549.1.5.12. The other one, scrypt, takes as much memory as the file says.
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];

/// The first private key (PKCS#8, DER).
///
/// # Errors
/// `NoSuchKey`: there is none. `BadAnswer`: the file cannot be read, or its key takes more than `most_rounds`.
pub(super) fn private_key(file: &[u8], most_rounds: u32) -> Result<Zeroizing<Vec<u8>>, Reason> {
    let bag = find_key(file)
        .ok_or(Reason::BadAnswer)?
        .ok_or(Reason::NoSuchKey)?;
    if bag.rounds > u64::from(most_rounds) {
        return Err(Reason::BadAnswer);
    }
    let file = Zeroizing::new(file_of(bag.whole));
    let archive = Pkcs12Archive::from_pkcs12(&file, "").map_err(|_| Reason::BadAnswer)?;
    let key = archive.keys.first().ok_or(Reason::BadAnswer)?;
    Ok(Zeroizing::new(key.key.as_der().to_vec()))
}

/// A `SafeBag` with a private key.
#[derive(Debug, PartialEq, Eq)]
struct Bag<'a> {
    whole: &'a [u8],
    rounds: u64,
}

/// The first key outside of encrypted content; `None` if this is no PKCS#12.
fn find_key(file: &[u8]) -> Option<Option<Bag<'_>>> {
    let mut pfx = Values(Values(file).next(SEQUENCE)?);
    pfx.next(INTEGER)?;
    let safe = data_of(pfx.next(SEQUENCE)?)?;
    let mut infos = Values(Values(safe).next(SEQUENCE)?);
    while !infos.0.is_empty() {
        let Some(contents) = data_of(infos.next(SEQUENCE)?) else {
            continue;
        };
        let mut bags = Values(Values(contents).next(SEQUENCE)?);
        while !bags.0.is_empty() {
            let whole = bags.0;
            let mut bag = Values(bags.next(SEQUENCE)?);
            let whole = whole.get(..whole.len() - bags.0.len())?;
            let kind = bag.next(OBJECT)?;
            let rounds = match kind {
                KEY_BAG => 0,
                SHROUDED_KEY_BAG => rounds_of(bag.next(FIRST)?)?,
                _ => continue,
            };
            return Some(Some(Bag { whole, rounds }));
        }
    }
    Some(None)
}

/// What a `ContentInfo` holds; `None` if it is encrypted.
fn data_of(info: &[u8]) -> Option<&[u8]> {
    let mut info = Values(info);
    let kind = info.next(OBJECT)?;
    let content = info.next(FIRST)?;
    (kind == DATA).then(|| Values(content).next(OCTETS))?
}

/// The rounds that decrypting an `EncryptedPrivateKeyInfo` takes (RFC 8018 A.3 and A.4; RFC 7292 C).
fn rounds_of(encrypted: &[u8]) -> Option<u64> {
    let mut algorithm = Values(Values(Values(encrypted).next(SEQUENCE)?).next(SEQUENCE)?);
    let kind = algorithm.next(OBJECT)?;
    let mut parameters = Values(algorithm.next(SEQUENCE)?);
    if kind == PBES2 {
        let mut derivation = Values(parameters.next(SEQUENCE)?);
        if derivation.next(OBJECT)? != PBKDF2 {
            return None;
        }
        parameters = Values(derivation.next(SEQUENCE)?);
    }
    parameters.next(OCTETS)?;
    let rounds = parameters.next(INTEGER)?;
    // A negative number is none that a file may have.
    if rounds.len() > 8 || rounds.first()? & 0x80 != 0 {
        return None;
    }
    Some(
        rounds
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    )
}

/// A file with this bag and no more.
fn file_of(bag: &[u8]) -> Vec<u8> {
    let data = |content: &[u8]| {
        let content = der(FIRST, &der(OCTETS, content));
        der(SEQUENCE, &[der(OBJECT, DATA), content].concat())
    };
    let safe = der(SEQUENCE, &data(&der(SEQUENCE, bag)));
    der(SEQUENCE, &[der(INTEGER, &[3]), data(&safe)].concat())
}

/// DER values (X.690) that follow each other.
struct Values<'a>(&'a [u8]);

impl<'a> Values<'a> {
    /// The content of the next value, which has this tag.
    fn next(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&found, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Files of more than 16 MB are none, and DER has no length that ends later.
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let sum = |sum, byte: &u8| sum << 8 | usize::from(*byte);
                (bytes.iter().fold(0, sum), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        (found == tag).then_some(content)
    }
}

#[cfg(test)]
mod tests;
