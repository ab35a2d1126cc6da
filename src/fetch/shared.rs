//! What workers share: names of entries, their bytes, sealing, and leases. It decides nothing about fetches.
//!
//! Envoy's shared data cannot delete: names that the operator does not list are hashed into a fixed number of
//! keys, with the whole name inside of the entry, so that made-up names do not fill the memory.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use zeroize::Zeroizing;

use super::seal::Sealer;
use crate::azure::identity::{Identity, Token};
use crate::cache::{Packer, Record, SecretKey, Unpacker};
use crate::secret::SecretValue;
use crate::time::{Span, Timestamp};

/// Data that all workers share. Where the host has none, every method does nothing and returns that.
pub trait Shared {
    /// The entry under this key, with the number that replaces it.
    fn read(&self, key: &str) -> Option<(Zeroizing<Vec<u8>>, u32)>;
    /// Writes only if there is no entry (`None`), or still the one that was read. Returns whether it was written.
    fn write(&self, key: &str, entry: &[u8], over: Option<u32>) -> bool;
    /// Whether there is any shared data.
    fn is_there(&self) -> bool;
}

/// Time, random numbers and shared data, as they are during one event.
pub struct Now<'a> {
    /// The time.
    pub time: Timestamp,
    /// For jitter and request ids.
    pub random: &'a dyn Fn() -> u64,
    /// The workers' common store.
    pub shared: &'a dyn Shared,
}

/// An entry's name: the key that it is stored under, and the whole name, which is part of the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) key: String,
    pub(super) whole: String,
    /// Other names may be stored under the same key.
    pub(super) hashed: bool,
}

impl Name {
    fn whole(name: String) -> Self {
        Self {
            key: name.clone(),
            whole: name,
            hashed: false,
        }
    }

    fn lease(&self) -> String {
        format!("{}#lease", self.key)
    }

    pub(super) fn of_token(identity: &Identity) -> Self {
        Self::whole(format!("akv/token/{}/{}", identity.name(), identity.scope))
    }

    pub(super) fn of_hold(vault: &str) -> Self {
        Self::whole(format!("akv/hold/{vault}"))
    }
}

/// Which names have keys of their own.
pub(super) struct Names {
    /// The names that the operator lists.
    listed: HashSet<SecretKey>,
    hashed: u64,
}

impl Names {
    pub(super) fn new(shared_entries: usize) -> Self {
        Self {
            listed: HashSet::new(),
            hashed: u64::try_from(shared_entries).unwrap_or(u64::MAX).max(1),
        }
    }

    pub(super) fn list(&mut self, key: &SecretKey) {
        self.listed.insert(key.clone());
    }

    pub(super) fn is_listed(&self, key: &SecretKey) -> bool {
        self.listed.contains(key)
    }

    /// The name holds vault, identity, kind, name and version, so that no identity reads what another one
    /// fetched.
    pub(super) fn of_secret(&self, vault: &str, identity: &Identity, key: &SecretKey) -> Name {
        let version = key.version.as_deref().unwrap_or("");
        let whole = format!(
            "akv/{}/{}/{vault}/{}/{version}",
            key.collection.as_str(),
            identity.name(),
            key.name
        );
        if self.is_listed(key) {
            return Name::whole(whole);
        }
        // Without a key for the hash: all workers have to compute the same number.
        let mut hasher = DefaultHasher::new();
        whole.hash(&mut hasher);
        Name {
            key: format!("akv/hashed/{}", hasher.finish() % self.hashed),
            whole,
            hashed: true,
        }
    }
}

/// Replaces the current entry; another writer at the same moment has fetched just as recently.
pub(super) fn put(shared: &dyn Shared, key: &str, entry: &[u8]) {
    for _ in 0..3 {
        let over = shared.read(key).map(|(_, cas)| cas);
        if shared.write(key, entry, over) {
            return;
        }
    }
}

/// An entry that holds a secret, opened if its identity seals.
pub(super) fn get(
    now: &Now<'_>,
    sealer: Option<&Sealer>,
    name: &Name,
) -> Option<Zeroizing<Vec<u8>>> {
    let (entry, _) = now.shared.read(&name.key)?;
    match sealer {
        Some(sealer) => sealer.open(&name.whole, &entry),
        None => Some(entry),
    }
}

pub(super) fn put_sealed(now: &Now<'_>, sealer: Option<&Sealer>, name: &Name, entry: &[u8]) {
    if !now.shared.is_there() {
        return;
    }
    match sealer {
        Some(sealer) => {
            if let Some(sealed) = sealer.seal(&name.whole, entry, now.random) {
                put(now.shared, &name.key, &sealed);
            }
        }
        None => put(now.shared, &name.key, entry),
    }
}

/// Writes a record of a secret. A failure alone never replaces the entry of another name under the same key.
pub(super) fn put_record(now: &Now<'_>, sealer: Option<&Sealer>, name: &Name, record: &Record) {
    if record.found.is_none() && name.hashed && is_of_another_name(now, sealer, name) {
        return;
    }
    put_sealed(now, sealer, name, &record.pack(&name.whole));
}

/// Whether the key of this name has an entry that is no record of this name.
fn is_of_another_name(now: &Now<'_>, sealer: Option<&Sealer>, name: &Name) -> bool {
    let entry = now.shared.read(&name.key);
    entry.is_some_and(|(entry, _)| !entry.is_empty()) && get_record(now, sealer, name).is_none()
}

pub(super) fn get_record(now: &Now<'_>, sealer: Option<&Sealer>, name: &Name) -> Option<Record> {
    let entry = get(now, sealer, name)?;
    Record::unpack(&name.whole, &entry)
}

/// A token and when it was received.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) token: Token,
    pub(super) at: Timestamp,
    /// Vaults, by their places in the configuration, that accepted it: if one refuses it later, it may have
    /// been revoked.
    pub(super) accepted: Vec<usize>,
}

pub(super) fn pack_token(name: &Name, held: &Held) -> Zeroizing<Vec<u8>> {
    let mut packer = Packer::new(&name.whole);
    packer.number(held.at.0);
    packer.number(held.token.renew_at.0);
    packer.number(held.token.expires_at.0);
    packer.bytes(held.token.value.expose());
    for vault in &held.accepted {
        packer.number(*vault as u64);
    }
    packer.finish()
}

pub(super) fn unpack_token(name: &Name, entry: &[u8]) -> Option<Held> {
    let mut unpacker = Unpacker::new(&name.whole, entry)?;
    let mut held = Held {
        at: Timestamp(unpacker.number()?),
        token: Token {
            renew_at: Timestamp(unpacker.number()?),
            expires_at: Timestamp(unpacker.number()?),
            value: SecretValue::new(unpacker.bytes()?.to_vec()),
        },
        accepted: Vec::new(),
    };
    while let Some(vault) = unpacker.number() {
        held.accepted.extend(usize::try_from(vault));
    }
    Some(held)
}

/// The right to fetch, until it ends or is released. Only its owner holds this value, and so can release it.
#[must_use]
#[derive(Debug)]
pub(super) struct Lease {
    key: String,
    whole: String,
    until: Timestamp,
    owner: u64,
}

/// The result of an attempt to take a lease.
pub(super) enum Leased {
    /// The fetch is ours. `None` where there is no lease: without shared data, or where another name's lease
    /// is stored under the same key.
    Ours(Option<Lease>),
    /// Another worker fetches it.
    Theirs,
}

impl Lease {
    /// Takes the lease, unless another worker holds it.
    pub(super) fn take(name: &Name, length: Span, now: &Now<'_>) -> Leased {
        if !now.shared.is_there() {
            return Leased::Ours(None);
        }
        let key = name.lease();
        let current = now.shared.read(&key);
        // One that ends later than any could is of another clock.
        let holds = |until: Timestamp| until > now.time && until <= now.time + length;
        let entry = current.as_ref().map(|(entry, _)| entry.as_slice());
        if entry
            .and_then(|entry| until_of(name, entry))
            .is_some_and(holds)
        {
            return Leased::Theirs;
        }
        if name.hashed && entry.and_then(until_of_any_name).is_some_and(holds) {
            return Leased::Ours(None);
        }
        let lease = Self {
            key,
            whole: name.whole.clone(),
            until: now.time + length,
            owner: (now.random)(),
        };
        let over = current.map(|(_, cas)| cas);
        if now.shared.write(&lease.key, &lease.pack(), over) {
            Leased::Ours(Some(lease))
        } else {
            // Another worker was faster: its lease is read at the next tick.
            Leased::Theirs
        }
    }

    fn pack(&self) -> Zeroizing<Vec<u8>> {
        let mut packer = Packer::new(&self.whole);
        packer.number(self.until.0);
        packer.number(self.owner);
        packer.finish()
    }

    /// Ends the lease, unless it has expired and another one has replaced it.
    pub(super) fn release(mut self, now: &Now<'_>) {
        let Some((entry, cas)) = now.shared.read(&self.key) else {
            return;
        };
        if *entry == *self.pack() {
            self.until = Timestamp(0);
            now.shared.write(&self.key, &self.pack(), Some(cas));
        }
    }
}

fn until_of(name: &Name, entry: &[u8]) -> Option<Timestamp> {
    let mut unpacker = Unpacker::new(&name.whole, entry)?;
    unpacker.number().map(Timestamp)
}

fn until_of_any_name(entry: &[u8]) -> Option<Timestamp> {
    Unpacker::of_any_name(entry)?.number().map(Timestamp)
}
