//! Entries of shared data as bytes: what all workers know of a secret. It does not know where they are stored.

use zeroize::Zeroizing;

use super::{Failed, Found, Record};
use crate::azure::key_vault::Secret;
use crate::failure::Reason;
use crate::secret::SecretValue;
use crate::time::Timestamp;

/// First bytes of every entry in shared data; changes with its layout.
const MAGIC: &[u8; 4] = b"akv1";

/// Writes fields one after the other; [`Unpacker`] reads them back.
pub(crate) struct Packer(Zeroizing<Vec<u8>>);

impl Packer {
    /// Starts an entry with its own key, since WasmX compares keys by CRC32 only.
    pub(crate) fn new(key: &str) -> Self {
        let mut packer = Self(Zeroizing::new(Vec::with_capacity(key.len() + 128)));
        packer.0.extend_from_slice(MAGIC);
        packer.bytes(key.as_bytes());
        packer
    }

    pub(crate) fn number(&mut self, n: u64) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// 0 for nothing, else the time plus one.
    fn time(&mut self, time: Option<Timestamp>) {
        self.number(time.map_or(0, |t| t.0.saturating_add(1)));
    }

    /// Ends with a checksum: WasmX may hand over an entry that another worker is writing.
    pub(crate) fn finish(mut self) -> Zeroizing<Vec<u8>> {
        let sum = checksum(&self.0);
        self.number(sum);
        self.0
    }
}

/// Reads what [`Packer`] wrote; anything else gives `None` somewhere.
pub(crate) struct Unpacker<'a>(&'a [u8]);

impl<'a> Unpacker<'a> {
    pub(crate) fn new(key: &str, entry: &'a [u8]) -> Option<Self> {
        let (name, unpacker) = Self::open(entry)?;
        (name == key.as_bytes()).then_some(unpacker)
    }

    /// The fields of an entry under any key.
    pub(crate) fn of_any_name(entry: &'a [u8]) -> Option<Self> {
        Self::open(entry).map(|(_, unpacker)| unpacker)
    }

    /// An intact entry's own key, and the fields after it.
    fn open(entry: &'a [u8]) -> Option<(&'a [u8], Self)> {
        let (body, sum) = entry.split_last_chunk::<8>()?;
        if checksum(body) != u64::from_le_bytes(*sum) {
            return None;
        }
        let mut unpacker = Self(body.strip_prefix(MAGIC)?);
        Some((unpacker.bytes()?, unpacker))
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn time(&mut self) -> Option<Option<Timestamp>> {
        self.number().map(|n| n.checked_sub(1).map(Timestamp))
    }
}

/// FNV-1a, 64 bits: against accidents, not against people.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Record {
    /// This record as an entry of shared data under `key`.
    #[must_use]
    pub fn pack(&self, key: &str) -> Zeroizing<Vec<u8>> {
        let mut packer = Packer::new(key);
        packer.time(self.found.as_ref().map(|f| f.fetched_at));
        if let Some(found) = &self.found {
            packer.time(found.secret.expires_at);
            packer.time(found.secret.not_before);
            packer.bytes(found.secret.value.expose());
        }
        packer.time(self.failed.map(|f| f.at));
        if let Some(failed) = self.failed {
            packer.number(u64::from(failed.reason.code()));
            packer.number(failed.until.0);
            packer.number(u64::from(failed.attempts));
        }
        packer.finish()
    }

    /// Reads what [`Record::pack`] wrote under the same key; `None` for anything else.
    #[must_use]
    pub fn unpack(key: &str, entry: &[u8]) -> Option<Self> {
        let mut unpacker = Unpacker::new(key, entry)?;
        let found = match unpacker.time()? {
            None => None,
            Some(fetched_at) => Some(Found {
                fetched_at,
                secret: Secret {
                    expires_at: unpacker.time()?,
                    not_before: unpacker.time()?,
                    value: SecretValue::new(unpacker.bytes()?.to_vec()),
                },
            }),
        };
        let failed = match unpacker.time()? {
            None => None,
            Some(at) => Some(Failed {
                at,
                reason: Reason::from_code(u8::try_from(unpacker.number()?).ok()?)?,
                until: Timestamp(unpacker.number()?),
                attempts: u32::try_from(unpacker.number()?).ok()?,
            }),
        };
        Some(Self { found, failed })
    }
}
