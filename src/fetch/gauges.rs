//! Gauges: what is cached, what is in a backoff, and what expires soon. It changes nothing, and does not know
//! how metrics are named.

use super::Fetcher;
use crate::cache::Failed;
use crate::metrics::{NEVER, Series};
use crate::time::Timestamp;

impl Fetcher {
    /// Every gauge with its value.
    #[must_use]
    pub fn gauges(&self, now: Timestamp) -> Vec<(Series, u64)> {
        let (mut entries, mut bytes) = (0, 0);
        let mut vaults = vec![(NEVER, 0); self.config.vaults.len()];
        let mut gauges = Vec::new();
        for (_, entry) in self.entries.iter() {
            let Some((nearest, held)) = vaults.get_mut(entry.key.vault) else {
                continue;
            };
            *held += u64::from(entry.record.backoff(now).is_some());
            let Some(found) = &entry.record.found else {
                continue;
            };
            entries += 1;
            bytes += found.secret.value.expose().len() as u64;
            if let Some(end) = found.secret.expires_at {
                let left = end.until(now).0 / 1000;
                *nearest = left.min(*nearest);
                if let Some(name) = self.metrics.named(&entry.key) {
                    gauges.push((Series::NamedExpiry(name), left));
                }
            }
        }
        gauges.push((Series::CacheEntries, entries));
        gauges.push((Series::CacheBytes, bytes));
        for (vault, (nearest, held)) in vaults.into_iter().enumerate() {
            let hold = self.vault_waits(vault, now).is_some();
            gauges.push((Series::SecretExpiry(vault), nearest));
            gauges.push((Series::SecretBackoffs(vault), held));
            gauges.push((Series::VaultBackoffs(vault), u64::from(hold)));
        }
        let (left, held) = self.token_gauges(now);
        gauges.push((Series::TokenExpiry, left));
        gauges.push((Series::TokenBackoffs, held));
        gauges
    }

    /// Seconds to the end of the token that ends first, and how many are not asked for now. A token that is
    /// not in use is not renewed, and may end unnoticed.
    fn token_gauges(&self, now: Timestamp) -> (u64, u64) {
        let (mut left, mut held) = (NEVER, 0);
        for state in &self.tokens {
            if let Some(token) = state.held.as_ref().filter(|_| state.used) {
                left = left.min(token.token.expires_at.until(now).0 / 1000);
            }
            let failed = state.failure.as_ref().map(|(_, failed)| failed);
            held += u64::from(failed.is_some_and(|failed: &Failed| failed.holds(now)));
        }
        (left, held)
    }
}
