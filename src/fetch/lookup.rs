//! What the cache has for a reference now: a value, a failure, or nothing yet. It starts no fetch, counts
//! nothing, and does not know of other workers.

use super::Fetcher;
use crate::azure::forms;
use crate::cache::{Entry, Failed, Found, Life, SecretKey, View};
use crate::config::CacheRules;
use crate::failure::Reason;
use crate::metrics::Source;
use crate::secret::SecretValue;
use crate::subkey;
use crate::time::{Span, Timestamp};

/// What a reference asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Which secret.
    pub key: SecretKey,
    /// Which part or form of it.
    pub view: View,
    /// How long it may live for this reference.
    pub rules: CacheRules,
}

/// What there is for a [`Want`].
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A value.
    Value {
        /// The value.
        value: SecretValue,
        /// Until when it may be used without another lookup.
        fresh_until: Timestamp,
        /// Where it came from.
        source: Source,
    },
    /// There is no value.
    Failed {
        /// Why.
        reason: Reason,
        /// When to ask again; at most an hour.
        retry_after: Option<Span>,
        /// A remembered failure (negative caching), or one that ended this wait.
        source: Source,
    },
    /// Not known: fetch it.
    Miss,
}

impl Fetcher {
    /// What there is for `want` now. `since` is when the request that asks began to wait: a failure after
    /// that is its answer, an older one only while it holds. It inserts nothing and counts nothing.
    #[must_use]
    pub fn lookup(&self, want: &Want, since: Option<Timestamp>, now: Timestamp) -> Lookup {
        let Some(entry) = self.entries.by_key(&want.key) else {
            return self.refused_since(&want.key, since, now);
        };
        let this_wait = |f: &Failed| f.at <= now && since.is_some_and(|since| f.at >= since);
        let failed = entry.record.failed.filter(|f| f.holds(now) || this_wait(f));
        let found = entry.record.found.as_ref();
        let life = found.map_or(Life::Over, |found| found.life(&want.rules, now));
        let serves = match life {
            Life::Fresh | Life::Stale => true,
            Life::Old => failed.is_some() || self.waits_no_longer(entry, since, now),
            Life::Over => false,
        };
        if let Some(found) = found.filter(|_| serves) {
            return self.serve(want, entry, found, entry.source(life, since));
        }
        let Some(failed) = failed else {
            return self.refused_since(&want.key, since, now);
        };
        let wait = failed.until.until(now);
        Lookup::Failed {
            reason: failed.reason,
            retry_after: (wait.0 > 0).then_some(wait),
            source: if this_wait(&failed) {
                Source::Failed
            } else {
                Source::Negative
            },
        }
    }

    /// The part or form of this value that is wanted.
    fn serve(&self, want: &Want, entry: &Entry, found: &Found, source: Source) -> Lookup {
        let rounds = self.config.limits.derivation_rounds;
        match entry.view(&want.view, |secret, view| make_view(secret, view, rounds)) {
            Ok(value) => Lookup::Value {
                value,
                fresh_until: found.fresh_until(&want.rules),
                source,
            },
            Err(reason) => Lookup::Failed {
                reason,
                retry_after: None,
                source: Source::Failed,
            },
        }
    }

    /// A fetch that was refused for the budget while the request waited is its answer; else there is none.
    fn refused_since(&self, key: &SecretKey, since: Option<Timestamp>, now: Timestamp) -> Lookup {
        let refused = |since| {
            let at = self.refused.get(key);
            at.is_some_and(|at| *at <= now && *at >= since)
        };
        if since.is_some_and(refused) {
            return Lookup::Failed {
                reason: Reason::TooManyFetches,
                retry_after: None,
                source: Source::Failed,
            };
        }
        Lookup::Miss
    }

    /// Whether a request gets an old value that the rules allow, rather than wait for its refresh
    /// (stale-while-revalidate): it waited long enough, the refresh has taken that long already, a tick will
    /// make it, or the vault is not called now.
    fn waits_no_longer(&self, entry: &Entry, since: Option<Timestamp>, now: Timestamp) -> bool {
        let long = |at| self.waited_enough(at, now);
        since.is_some_and(long)
            || entry.fetching_since.is_some_and(long)
            || self.background.contains_key(&entry.key)
            || self.vault_waits(entry.key.vault, now).is_some()
    }

    /// Whether a wait that began then is as long as a request waits before it gets an old value. A time later
    /// than now is of another clock.
    pub(super) fn waited_enough(&self, since: Timestamp, now: Timestamp) -> bool {
        since > now || since.age(now) >= self.config.limits.stale_wait
    }

    /// A request used this: it is renewed ahead, and evicted later. Inserts nothing.
    pub fn mark_used(&mut self, want: &Want, _now: Timestamp) {
        let Some(id) = self.entries.find(&want.key) else {
            return;
        };
        self.entries.touch(id);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.used = true;
        }
    }

    pub(super) fn has_old_value(&self, want: &Want, now: Timestamp) -> bool {
        let entry = self.entries.by_key(&want.key);
        let found = entry.and_then(|entry| entry.record.found.as_ref());
        found.is_some_and(|found| found.life(&want.rules, now) == Life::Old)
    }
}

fn make_view(secret: &[u8], view: &View, most_rounds: u32) -> Result<SecretValue, Reason> {
    let formed = forms::make(view.form, secret, most_rounds)?;
    let selected = subkey::select(&formed, &view.keys).map_err(|_| Reason::NoSuchKey)?;
    if view.base64 {
        return crate::base64::decode(&selected)
            .map(SecretValue::new)
            .ok_or(Reason::NotBase64);
    }
    Ok(SecretValue::new(selected.to_vec()))
}
