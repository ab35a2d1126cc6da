//! What is known of a secret, here and in shared data: each takes over what the other knows better. It makes
//! no calls, and wakes nobody.

use super::seal::Sealer;
use super::shared::{self, Name};
use super::{Fetcher, Now};
use crate::cache::{Failed, Found, Life, SecretKey, SlotId, renewal};
use crate::metrics::Source;
use crate::time::Timestamp;

/// What a look into shared data gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Adopted {
    /// All that is wanted: a value that lives on, or a failure.
    Answer,
    /// A value that may be served while it is renewed.
    Usable,
    /// Nothing that helps.
    Nothing,
}

impl Fetcher {
    /// Under which name shared data has this secret.
    pub(super) fn name_of(&self, key: &SecretKey) -> Option<Name> {
        let vault = self.config.vaults.get(key.vault)?;
        let host = vault.uri.host();
        Some(self.names.of_secret(host, &vault.identity, key))
    }

    fn sealer_of(&self, vault: usize) -> Option<&Sealer> {
        let identity = *self.identity_of.get(vault)?;
        self.sealers.get(identity)?.as_ref()
    }

    /// Takes over what shared data knows of this secret.
    pub(super) fn adopt_shared(
        &mut self,
        id: SlotId,
        started: Timestamp,
        now: &Now<'_>,
    ) -> Adopted {
        self.merge_shared(id, now);
        let Some(entry) = self.entries.get(id) else {
            return Adopted::Nothing;
        };
        let life = |found: &Found| found.life(&entry.rules, now.time);
        let life = entry.record.found.as_ref().map_or(Life::Over, life);
        let answers = |f: &Failed| f.holds(now.time) || (f.at > started && f.at <= now.time);
        if entry.record.failed.as_ref().is_some_and(answers)
            || (life == Life::Fresh && entry.renew_at > now.time)
        {
            Adopted::Answer
        } else if matches!(life, Life::Fresh | Life::Stale) {
            Adopted::Usable
        } else {
            Adopted::Nothing
        }
    }

    /// Corrects a value that was fetched before the clock was set back, which changes until when it is fresh.
    pub(super) fn correct_clock(&mut self, id: SlotId, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let of_another_clock = |found: &Found| found.fetched_at > now;
        if entry.record.found.as_ref().is_some_and(of_another_clock) {
            entry.record = std::mem::take(&mut entry.record).on_clock(&entry.rules, now);
            entry.renew_at = now;
            self.epoch += 1;
        }
    }

    /// Takes over from shared data what it knows better.
    fn merge_shared(&mut self, id: SlotId, now: &Now<'_>) {
        let Some(key) = self.entries.get(id).map(|entry| entry.key.clone()) else {
            return;
        };
        let Some(name) = self.name_of(&key) else {
            return;
        };
        let Some(shared) = shared::get_record(now, self.sealer_of(key.vault), &name) else {
            return;
        };
        self.correct_clock(id, now.time);
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        entry.record = std::mem::take(&mut entry.record).on_clock(&entry.rules, now.time);
        if entry.record.merge(shared.on_clock(&entry.rules, now.time))
            && let Some(found) = &entry.record.found
        {
            entry.renewed(renewal(found.fetched_at, &entry.rules, (now.random)()));
            entry.came = Some((Source::Shared, now.time));
            self.epoch += 1;
            self.note_found(&key);
        }
    }

    pub(super) fn note_found(&mut self, key: &SecretKey) {
        self.found_before.insert(key.clone());
        while self.found_before.len() > self.config.limits.cached_secrets {
            self.found_before.pop_front();
        }
        self.metrics.name_of(key);
    }

    /// Writes what is known to shared data.
    pub(super) fn publish(&mut self, id: SlotId, now: &Now<'_>) {
        // Another worker may have written while our call was under way: the newest value stays.
        self.merge_shared(id, now);
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        let Some(name) = self.name_of(&entry.key) else {
            return;
        };
        shared::put_record(now, self.sealer_of(entry.key.vault), &name, &entry.record);
    }
}
