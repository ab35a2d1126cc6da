//! Shared data: one store for all VMs of a process, as each host keeps it.

use std::collections::BTreeMap;

use crate::host::Dialect;

/// Why a write was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Somebody else wrote in between.
    CasMismatch,
    /// The host traps.
    Trap(&'static str),
}

struct Entry {
    /// WasmX does not keep it: this is for Envoy, and for the order of eviction.
    key: Vec<u8>,
    value: Vec<u8>,
    cas: u32,
    used: u64,
}

/// The store.
pub(crate) struct SharedData {
    dialect: Dialect,
    /// WasmX: the zone's size in bytes, if the operator made one.
    zone: Option<usize>,
    /// By the key (Envoy), or by its CRC32 (WasmX: `ngx_wa_shm_kv` compares nothing else).
    entries: BTreeMap<Vec<u8>, Entry>,
    clock: u64,
    envoys_cas: u32,
}

/// What the store needs for an entry beside its bytes; measured: 256 KiB hold 124 values of 1000 bytes.
const OVERHEAD: usize = 1000;

impl SharedData {
    pub(crate) fn new(dialect: Dialect, zone: Option<usize>) -> Self {
        Self {
            dialect,
            zone,
            entries: BTreeMap::new(),
            clock: 0,
            envoys_cas: 0,
        }
    }

    fn index(&self, key: &[u8]) -> Vec<u8> {
        match self.dialect {
            Dialect::Envoy => key.to_vec(),
            Dialect::Wasmx => crc32fast::hash(key).to_be_bytes().to_vec(),
        }
    }

    fn check_zone(&self) -> Result<(), Refused> {
        if self.dialect == Dialect::Wasmx && self.zone.is_none() {
            return Err(Refused::Trap("shared data without a zone (shm_kv *)"));
        }
        Ok(())
    }

    /// The value and its number; Envoy keeps emptied entries.
    pub(crate) fn get(&mut self, key: &[u8]) -> Result<Option<(Vec<u8>, u32)>, Refused> {
        self.check_zone()?;
        self.clock += 1;
        let (clock, index) = (self.clock, self.index(key));
        Ok(self.entries.get_mut(&index).map(|entry| {
            entry.used = clock;
            (entry.value.clone(), entry.cas)
        }))
    }

    /// Envoy: 0 overwrites, another number has to be the entry's, and an absent key takes any. WasmX: 0
    /// creates only, and another number has to be the entry's, which an absent key has not.
    pub(crate) fn set(&mut self, key: &[u8], value: &[u8], cas: u32) -> Result<(), Refused> {
        self.check_zone()?;
        let index = self.index(key);
        let current = self.entries.get(&index).map(|entry| entry.cas);
        let allowed = match (self.dialect, current) {
            (Dialect::Envoy, Some(current)) => cas == 0 || cas == current,
            (Dialect::Envoy, None) => true,
            (Dialect::Wasmx, Some(current)) => cas != 0 && cas == current,
            (Dialect::Wasmx, None) => cas == 0,
        };
        if !allowed {
            return Err(Refused::CasMismatch);
        }
        if let Some(zone) = self.zone
            && self.dialect == Dialect::Wasmx
        {
            if value.len() + OVERHEAD > zone {
                return Err(Refused::Trap("a value larger than the zone can hold"));
            }
            self.make_room(zone, value.len() + OVERHEAD, &index);
        }
        self.clock += 1;
        self.envoys_cas += 1;
        let cas = match self.dialect {
            Dialect::Envoy => self.envoys_cas,
            Dialect::Wasmx => current.unwrap_or(0) + 1,
        };
        let entry = Entry {
            key: key.to_vec(),
            value: value.to_vec(),
            cas,
            used: self.clock,
        };
        self.entries.insert(index, entry);
        Ok(())
    }

    /// Removes the least recently used entries, without any notice to the filter.
    fn make_room(&mut self, zone: usize, needed: usize, but: &[u8]) {
        let size = |entry: &Entry| entry.value.len() + OVERHEAD;
        loop {
            let others = self.entries.iter().filter(|(index, _)| *index != but);
            let taken: usize = others.clone().map(|(_, entry)| size(entry)).sum();
            if taken + needed <= zone {
                return;
            }
            let oldest = others.min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(index, _)| index.clone()) else {
                return;
            };
            self.entries.remove(&oldest);
        }
    }

    /// Loses everything, as WasmX does at a reload.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Loses one entry, chosen by `pick`.
    pub(crate) fn evict(&mut self, pick: usize) {
        if self.entries.is_empty() {
            return;
        }
        let index = self.entries.keys().nth(pick % self.entries.len()).cloned();
        if let Some(index) = index {
            self.entries.remove(&index);
        }
    }

    /// Every key and value, for tests that look for what must not be there.
    pub(crate) fn entries(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let entries = self.entries.values();
        entries.map(|e| (e.key.clone(), e.value.clone())).collect()
    }
}
