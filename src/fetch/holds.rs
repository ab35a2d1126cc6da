//! Vaults that are not called for a while: too busy, or refusing their identity. One failure stands for all of
//! a vault's secrets. It does not know which secrets wait.

use super::shared::{self, Name};
use super::{Fetcher, Now, backoff};
use crate::cache::{Failed, Record};
use crate::failure::Failure;
use crate::time::Timestamp;

impl Fetcher {
    /// The failure for which a vault is not called now, as far as this worker knows.
    pub(super) fn vault_waits(&self, vault: usize, now: Timestamp) -> Option<Failed> {
        let of = |list: &[Option<Failed>]| list.get(vault).copied().flatten();
        let holds = |failed: &Failed| failed.holds(now);
        of(&self.refusals)
            .filter(holds)
            .or_else(|| of(&self.holds).filter(holds))
    }

    /// Takes over from shared data until when this vault asked another worker to wait.
    pub(super) fn adopt_shared_hold(&mut self, vault: usize, now: &Now<'_>) {
        let (Some(place), Some(hold)) = (self.config.vaults.get(vault), self.holds.get_mut(vault))
        else {
            return;
        };
        let name = Name::of_hold(place.uri.host());
        let entry = now.shared.read(&name.key);
        let shared = entry.and_then(|(entry, _)| Record::unpack(&name.whole, &entry)?.failed);
        let of_clock = |failed: &Failed| failed.is_of_clock(now.time);
        let until = |failed: Option<Failed>| failed.filter(of_clock).map(|failed| failed.until);
        if until(shared) > until(*hold) {
            *hold = shared;
        }
    }

    /// Holds back every call to a vault that is too busy.
    pub(super) fn hold_vault(&mut self, vault: usize, failure: &Failure, now: &Now<'_>) {
        self.adopt_shared_hold(vault, now);
        let (Some(hold), Some(place)) = (self.holds.get_mut(vault), self.config.vaults.get(vault))
        else {
            return;
        };
        let known = hold.filter(|failed| failed.holds(now.time));
        // Of calls that were under way together, only the first one lengthens the backoff.
        let one_less = |failed: Failed| Failed {
            attempts: failed.attempts.saturating_sub(1),
            ..failed
        };
        let before = known.map(one_less).or(*hold);
        let mut failed = backoff::after(before.as_ref(), failure, now);
        failed.until = known.map_or(failed.until, |known| known.until.max(failed.until));
        *hold = Some(failed);
        let record = Record {
            found: None,
            failed: Some(failed),
        };
        let name = Name::of_hold(place.uri.host());
        shared::put(now.shared, &name.key, &record.pack(&name.whole));
        if known.is_none() {
            self.log_hold(vault, failure, &failed, now.time);
        }
    }

    /// Holds back every call to a vault that refuses its identity's fresh token. Of calls that were under way
    /// together, the first one counts.
    pub(super) fn refuse_vault(
        &mut self,
        vault: usize,
        failure: &Failure,
        now: &Now<'_>,
    ) -> Option<Failed> {
        let refusal = self.refusals.get_mut(vault)?;
        if let Some(known) = refusal.filter(|failed| failed.holds(now.time)) {
            return Some(known);
        }
        let failed = backoff::after(refusal.as_ref(), failure, now);
        *refusal = Some(failed);
        self.log_vault_refusal(vault, failure, &failed);
        Some(failed)
    }

    /// The vault answered with a secret: the next backoff starts with its first wait.
    pub(super) fn vault_answers(&mut self, vault: usize, now: Timestamp) {
        if let Some(hold) = self.holds.get_mut(vault) {
            *hold = hold.filter(|failed| failed.holds(now));
        }
        if let Some(refusal) = self.refusals.get_mut(vault) {
            *refusal = None;
        }
    }
}
