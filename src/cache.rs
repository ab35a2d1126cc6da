//! What is known of secrets: values with their age, failures with their end, and the form in which both
//! lie in shared data. It makes no calls and reads no clock.
//!
//! A value's life, for a reference whose vault has the times `ttl` and `resurrect_ttl`:
//!
//! ```text
//!   fetched            ttl                2 * ttl         ttl + resurrect_ttl
//!      |---- fresh -----|----- stale -------|------ old ---------|---- over
//!        served           served, renewed     fetched anew first,   an error
//!                         in the background   served if that fails
//! ```
//!
//! Whatever comes first cuts it short: `ttl + resurrect_ttl` before `2 * ttl`, and the secret's own `exp`
//! before everything. A ttl of 0, or none, is "for ever fresh", as Kong documents it.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

use zeroize::Zeroizing;

use crate::azure::forms::{Collection, Form};
use crate::azure::key_vault::Secret;
use crate::config::CacheRules;
use crate::failure::Reason;
use crate::metrics::Source;
use crate::secret::SecretValue;
use crate::time::{Span, Timestamp};

/// A value and when it was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What the vault gave.
    pub secret: Secret,
    /// When.
    pub fetched_at: Timestamp,
}

/// The last failure to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its class.
    pub reason: Reason,
    /// When it happened.
    pub at: Timestamp,
    /// Until when nobody asks again.
    pub until: Timestamp,
    /// How many there were in a row.
    pub attempts: u32,
}

/// What all workers know of a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The last value.
    pub found: Option<Found>,
    /// The last failure, if there was one since that value.
    pub failed: Option<Failed>,
}

/// Where a value is in its life; see the diagram above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Within its ttl.
    Fresh,
    /// Past its ttl, and served while a new one is fetched.
    Stale,
    /// Served only when no new one can be had.
    Old,
    /// Not served any more.
    Over,
}

impl Found {
    /// Where this value is in its life at `now`.
    #[must_use]
    pub fn life(&self, rules: &CacheRules, now: Timestamp) -> Life {
        if self.secret.expires_at.is_some_and(|end| end <= now) {
            return Life::Over;
        }
        let age = self.fetched_at.age(now);
        if age < rules.ttl {
            Life::Fresh
        } else if age >= rules.ttl + rules.resurrect_ttl {
            Life::Over
        } else if age < rules.ttl + rules.ttl {
            Life::Stale
        } else {
            Life::Old
        }
    }

    /// Until when this value is fresh, and so may be used without a look at anything else.
    #[must_use]
    pub fn fresh_until(&self, rules: &CacheRules) -> Timestamp {
        let end = self.fetched_at + rules.ttl;
        self.secret.expires_at.map_or(end, |expiry| expiry.min(end))
    }
}

impl Record {
    /// Takes over what `other` knows better. Returns whether the value changed hands.
    pub fn merge(&mut self, other: Self) -> bool {
        let fetched = |record: &Self| record.found.as_ref().map(|f| f.fetched_at);
        // Of two failures in one millisecond, the one that holds longer.
        let failed = |record: &Self| record.failed.map(|f| (f.at, f.until));
        let changed = fetched(&other) > fetched(self);
        if failed(&other) > failed(self) {
            self.failed = other.failed;
        }
        if changed {
            self.found = other.found;
        }
        // A failure before the value is history.
        if fetched(self) >= self.failed.map(|f| f.at) {
            self.failed = None;
        }
        changed
    }

    /// Whether the last failure still holds everybody back.
    #[must_use]
    pub fn held_until(&self, now: Timestamp) -> Option<Failed> {
        self.failed.filter(|failed| failed.until > now)
    }
}

/// Which secret: the key of every cache. A vault stands for its identity too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    /// Index in the configuration's vaults.
    pub vault: usize,
    /// Where in the vault.
    pub collection: Collection,
    /// In lower case: Key Vault's names have none.
    pub name: String,
    /// `None` for the current version.
    pub version: Option<String>,
}

/// What one worker holds of a secret.
#[derive(Debug)]
pub struct Slot {
    /// Which secret.
    pub key: SecretKey,
    /// What is known of it.
    pub record: Record,
    /// The shortest times that a reference of the operator, or else the vault, has for it.
    pub rules: CacheRules,
    /// The operator's configuration needs it: fetched ahead, always renewed, never evicted.
    pub pinned: bool,
    /// A request used it since it was fetched.
    pub used: bool,
    /// Somebody asked for it who could not wait.
    pub wished: bool,
    /// For the choice of what to evict.
    pub last_used: Timestamp,
    /// When a value in use is fetched anew; before its ttl ends, and not all at once.
    pub renew_at: Timestamp,
    /// Where the value came from, and when.
    pub came: Option<(Source, Timestamp)>,
    views: Vec<(View, Result<SecretValue, Reason>)>,
}

/// A part or form of a secret that references ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// What is made of the object.
    pub form: Form,
    /// The way to a text in the JSON secret; empty for the whole secret.
    pub keys: Vec<String>,
    /// Whether what is found there is decoded from base64.
    pub base64: bool,
}

/// More forms of one secret than any configuration has; a client could ask for any number.
const MOST_VIEWS: usize = 64;

impl Slot {
    /// A form of the value; made once and kept until the value changes.
    pub fn view(
        &mut self,
        view: &View,
        make: impl FnOnce(&[u8], &View) -> Result<SecretValue, Reason>,
    ) -> Result<SecretValue, Reason> {
        let found = self.record.found.as_ref().ok_or(Reason::Unavailable)?;
        if *view == View::default() {
            return Ok(found.secret.value.clone());
        }
        if let Some((_, made)) = self.views.iter().find(|(key, _)| key == view) {
            return made.clone();
        }
        let made = make(found.secret.value.expose(), view);
        if self.views.len() >= MOST_VIEWS {
            drop(self.views.remove(0));
        }
        self.views.push((view.clone(), made.clone()));
        made
    }

    /// Where a message that waited since then got the value from, or one that did not wait.
    #[must_use]
    pub fn source(&self, life: Life, since: Option<Timestamp>) -> Source {
        let came = self
            .came
            .filter(|(_, at)| since.is_some_and(|since| *at >= since));
        match (came, life) {
            (Some((source, _)), _) => source,
            (None, Life::Fresh) => Source::Local,
            (None, _) => Source::Stale,
        }
    }

    /// Keeps to the shorter of its times and these: one fetch serves every reference to the secret.
    pub fn shorten(&mut self, rules: &CacheRules) {
        self.rules.ttl = self.rules.ttl.min(rules.ttl);
        self.rules.neg_ttl = self.rules.neg_ttl.min(rules.neg_ttl);
    }

    /// To be called when the value changed.
    pub fn renewed(&mut self, renew_at: Timestamp) {
        self.views.clear();
        self.used = false;
        self.renew_at = renew_at;
    }
}

/// Most secrets that clients' references may hold in one worker; what the operator's need comes on top.
const MOST_UNPINNED: usize = 10_000;

/// One worker's secrets.
#[derive(Debug, Default)]
pub struct Slots {
    slots: Vec<Slot>,
    /// Places in `slots`, in the order of their keys.
    index: Vec<usize>,
}

impl Slots {
    /// The place of this secret, made if there is none. An index stays good for pinned secrets only.
    pub fn place(&mut self, key: &SecretKey, rules: &CacheRules, now: Timestamp) -> usize {
        if let Some(&at) = self.ranked(key).ok().and_then(|rank| self.index.get(rank)) {
            return at;
        }
        let slot = Slot {
            key: key.clone(),
            record: Record::default(),
            rules: *rules,
            pinned: false,
            used: false,
            wished: false,
            last_used: now,
            renew_at: Timestamp(u64::MAX),
            came: None,
            views: Vec::new(),
        };
        let unpinned = self.slots.iter().filter(|s| !s.pinned).count();
        let at = if unpinned < MOST_UNPINNED {
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            self.replace_oldest(slot)
        };
        let (Ok(rank) | Err(rank)) = self.ranked(key);
        self.index.insert(rank, at);
        at
    }

    fn replace_oldest(&mut self, slot: Slot) -> usize {
        let candidates = self.slots.iter().enumerate().filter(|(_, s)| !s.pinned);
        let oldest = candidates
            .min_by_key(|(_, s)| s.last_used)
            .map(|(at, _)| at);
        let at = oldest.unwrap_or(0);
        let rank = self.slots.get(at).map(|place| self.ranked(&place.key));
        if let Some(Ok(rank)) = rank {
            self.index.remove(rank);
        }
        if let Some(place) = self.slots.get_mut(at) {
            *place = slot;
        }
        at
    }

    /// Where this key is in the index, or where it would go.
    fn ranked(&self, key: &SecretKey) -> Result<usize, usize> {
        let compare = |at: &usize| self.slots.get(*at).map(|slot| slot.key.cmp(key));
        self.index
            .binary_search_by(|at| compare(at).unwrap_or(Ordering::Less))
    }

    /// The slot at this place.
    #[must_use]
    pub fn get_mut(&mut self, at: usize) -> Option<&mut Slot> {
        self.slots.get_mut(at)
    }

    /// All slots, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }

    /// All slots with their places.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().enumerate()
    }
}

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
        let (body, sum) = entry.split_last_chunk::<8>()?;
        if checksum(body) != u64::from_le_bytes(*sum) {
            return None;
        }
        let mut unpacker = Self(body.strip_prefix(MAGIC)?);
        (unpacker.bytes()? == key.as_bytes()).then_some(unpacker)
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

/// When to fetch a value anew: at four fifths of its ttl, less up to a tenth by chance, so that values
/// that were fetched together are not renewed together.
#[must_use]
pub fn renewal(fetched_at: Timestamp, rules: &CacheRules, random: u64) -> Timestamp {
    if rules.ttl == Span::FOREVER {
        return Timestamp(u64::MAX);
    }
    let early = rules.ttl.fraction(random % 100, 1000);
    fetched_at + (rules.ttl.fraction(4, 5) - early)
}

#[cfg(test)]
mod tests;
