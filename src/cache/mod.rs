//! What is known of secrets: values with their age, failures with their end, and the form in which both
//! are stored in shared data. It makes no calls and reads no clock.
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
//! An earlier end cuts it short: `ttl + resurrect_ttl` before `2 * ttl`; and before everything the secret's
//! own `exp`, and `revoked_ttl` after the vault refused the secret for good. A ttl of 0, or none, is "for ever fresh", as Kong documents it.

mod codec;
mod entries;

use crate::azure::forms::{Collection, Form};
use crate::azure::key_vault::Secret;
use crate::config::CacheRules;
use crate::failure::Reason;
use crate::time::{Span, Timestamp};

pub(crate) use codec::{Packer, Unpacker};
pub use entries::{Entries, Entry, SlotId};

/// A value and when it was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The secret, as the vault answered.
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
    /// Until when no worker asks again.
    pub until: Timestamp,
    /// How many there were in a row.
    pub attempts: u32,
}

/// Longest wait after a failure that has none of its own (`Retry-After` is cut to this).
pub const LONGEST_WAIT: Span = Span::seconds(3600);

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
    /// Past its ttl, and served while a new one is fetched (stale-while-revalidate).
    Stale,
    /// Served only when no new one can be fetched (stale-if-error).
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
        let age = if self.fetched_at > now {
            // Of another clock: how old it is, is not known.
            rules.ttl
        } else {
            self.fetched_at.age(now)
        };
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

    /// Lets this value's life end at `end`, unless it ends earlier anyway. Returns whether that changed it.
    pub fn end_by(&mut self, end: Timestamp) -> bool {
        if self.secret.expires_at.is_some_and(|known| known <= end) {
            return false;
        }
        self.secret.expires_at = Some(end);
        true
    }
}

impl Record {
    /// Takes over what `other` knows better. Returns whether the value was replaced.
    pub fn merge(&mut self, other: Self) -> bool {
        let fetched = |record: &Self| record.found.as_ref().map(|f| f.fetched_at);
        let ended = self.end_with(&other);
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
        changed || ended
    }

    /// Of one value with two ends, the earlier end holds: another worker had a refusal. Returns whether this
    /// record's end changed.
    fn end_with(&mut self, other: &Self) -> bool {
        let (Some(ours), Some(theirs)) = (&mut self.found, &other.found) else {
            return false;
        };
        theirs.fetched_at == ours.fetched_at
            && theirs.secret.expires_at.is_some_and(|end| ours.end_by(end))
    }

    /// The last failure, if it still delays the next fetch.
    #[must_use]
    pub fn backoff(&self, now: Timestamp) -> Option<Failed> {
        self.failed.filter(|failed| failed.holds(now))
    }

    /// What remains of this record after the clock was set back: a value "fetched later than now" has an
    /// unknown age and counts as one whose ttl has just ended; a failure of another clock is over.
    #[must_use]
    pub fn on_clock(mut self, rules: &CacheRules, now: Timestamp) -> Self {
        if let Some(found) = self.found.as_mut().filter(|found| found.fetched_at > now) {
            found.fetched_at = Timestamp(now.0.saturating_sub(rules.ttl.0));
        }
        self.failed = self.failed.filter(|failed| failed.is_of_clock(now));
        self
    }
}

impl Failed {
    /// Whether the next fetch has to wait at `now`.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until > now && self.is_of_clock(now)
    }

    /// Whether this can have been written by the clock that says `now`: not later than now, with an end no
    /// later than the longest wait allows.
    #[must_use]
    pub fn is_of_clock(&self, now: Timestamp) -> bool {
        self.at <= now && self.until <= self.at + LONGEST_WAIT
    }
}

/// Which secret: the key of every cache. A vault stands for its identity too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
