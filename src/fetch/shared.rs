//! What workers share: names of entries, their bytes, sealing, and leases. It decides nothing about fetches.
//!
//! Envoy's shared data cannot delete: names that the operator does not list are hashed into a fixed number of
//! keys, with the whole name inside of the entry, so that made-up names do not fill the memory.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use zeroize::Zeroizing;

use super::Listed;
use super::seal::Sealer;
use crate::azure::identity::{Identity, Token};
use crate::cache::{Packer, Record, SecretKey, Unpacker};
use crate::secret::SecretValue;
use crate::time::{Span, Timestamp};

/// Data that all workers share. Without any, every method does nothing and says so.
pub trait Shared {
    /// The entry under this key, with the number that replaces it.
    fn read(&self, key: &str) -> Option<(Zeroizing<Vec<u8>>, u32)>;
    /// Writes only if nothing is there (`None`) or what was read is there still. Whether it was written.
    fn write(&self, key: &str, entry: &[u8], over: Option<u32>) -> bool;
    /// Whether there is any shared data.
    fn is_there(&self) -> bool;
}

/// Time, chance and shared data, as they are during one event.
pub struct Now<'a> {
    /// The time.
    pub time: Timestamp,
    /// For jitter and request ids.
    pub random: &'a dyn Fn() -> u64,
    /// The workers' common store.
    pub shared: &'a dyn Shared,
}

/// An entry's name: the key under which it lies, and the whole name, which stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) key: String,
    pub(super) whole: String,
    /// Other names may lie under the same key.
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
    listed: Listed,
    hashed: u64,
}

impl Names {
    pub(super) fn new(shared_entries: usize) -> Self {
        Self {
            listed: Listed::new(),
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
        // Without a key of its own: all workers have to come to the same number.
        let mut hasher = DefaultHasher::new();
        whole.hash(&mut hasher);
        Name {
            key: format!("akv/hashed/{}", hasher.finish() % self.hashed),
            whole,
            hashed: true,
        }
    }
}

/// Writes whatever is there now; another writer at the same moment has fetched just as lately.
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

/// A record of a secret. A failure alone never replaces what lies under a key that other names use too.
pub(super) fn put_record(now: &Now<'_>, sealer: Option<&Sealer>, name: &Name, record: &Record) {
    let failure_only = record.found.is_none();
    if name.hashed && failure_only && get(now, sealer, name).is_none() {
        let taken = now
            .shared
            .read(&name.key)
            .is_some_and(|(e, _)| !e.is_empty());
        if taken {
            return;
        }
    }
    put_sealed(now, sealer, name, &record.pack(&name.whole));
}

pub(super) fn get_record(now: &Now<'_>, sealer: Option<&Sealer>, name: &Name) -> Option<Record> {
    let entry = get(now, sealer, name)?;
    Record::unpack(&name.whole, &entry)
}

/// A token and when it came.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) token: Token,
    pub(super) at: Timestamp,
    /// Vaults, by their places in the configuration, that accepted it: one that refuses it later may have seen
    /// it revoked.
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

/// The right to fetch, until it ends or is released. Only its owner has it, so only its owner can release it.
#[must_use]
#[derive(Debug)]
pub(super) struct Lease {
    key: String,
    whole: String,
    until: Timestamp,
    owner: u64,
}

/// What an attempt to take a lease gave.
pub(super) enum Leased {
    /// The fetch is ours. `None` where there is no lease: without shared data, or where another name's lease
    /// lies under the same key.
    Ours(Option<Lease>),
    /// Another worker fetches it, until then at the latest.
    Until(Timestamp),
}

impl Lease {
    /// A request's own lane needs none: it cannot wait for others anyway.
    pub(super) fn take(name: &Name, length: Span, now: &Now<'_>) -> Leased {
        if !now.shared.is_there() {
            return Leased::Ours(None);
        }
        let key = name.lease();
        let current = now.shared.read(&key);
        // One that ends later than any could is of another clock.
        let holds = |until: Timestamp| until > now.time && until <= now.time + length;
        let until = current
            .as_ref()
            .and_then(|(entry, _)| until_of(name, entry));
        if let Some(until) = until.filter(|until| holds(*until)) {
            return Leased::Until(until);
        }
        let foreign = current.as_ref().is_some_and(|(entry, _)| !entry.is_empty());
        if name.hashed && until.is_none() && foreign && foreign_holds(&current, holds) {
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
            // Another worker was faster; which one shows at the next look.
            Leased::Until(lease.until)
        }
    }

    fn pack(&self) -> Zeroizing<Vec<u8>> {
        let mut packer = Packer::new(&self.whole);
        packer.number(self.until.0);
        packer.number(self.owner);
        packer.finish()
    }

    /// Ends the lease, unless it has ended and another one lies there.
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

/// Whether the lease that lies there, of whatever name, holds.
fn foreign_holds(
    current: &Option<(Zeroizing<Vec<u8>>, u32)>,
    holds: impl Fn(Timestamp) -> bool,
) -> bool {
    let until = current
        .as_ref()
        .and_then(|(entry, _)| Unpacker::of_any_name(entry)?.number());
    until.map(Timestamp).is_some_and(holds)
}
