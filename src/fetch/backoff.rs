//! How long to wait after a failure: exponential backoff with jitter, or negative caching. It reads no clock,
//! and does not know what failed.

use super::Now;
use crate::cache::{Failed, LONGEST_WAIT};
use crate::failure::{Failure, Reason};
use crate::time::{Span, Timestamp};

/// First wait after a failure that may pass; doubles with each one in a row.
const FIRST: Span = Span::seconds(1);
/// Longest such wait.
const LONGEST: Span = Span::seconds(30);
/// Shortest time for which a missing secret is remembered: made-up names cost Azure one call a second each.
pub(super) const SHORTEST_NEGATIVE: Span = Span::seconds(1);

/// The failure that follows this one, with exponential backoff and jitter.
pub(super) fn after(previous: Option<&Failed>, failure: &Failure, now: &Now<'_>) -> Failed {
    next(previous, failure.reason, now.time, |attempts| {
        wait(failure, attempts, (now.random)())
    })
}

/// The failure that follows this one, remembered for a fixed time (negative caching).
pub(super) fn negative(
    previous: Option<&Failed>,
    reason: Reason,
    neg_ttl: Span,
    now: Timestamp,
) -> Failed {
    next(previous, reason, now, |_| neg_ttl.max(SHORTEST_NEGATIVE))
}

/// Doubles with every attempt, half of it jitter; never shorter than Azure asked for, and an hour at most.
fn wait(failure: &Failure, attempts: u32, random: u64) -> Span {
    let doubled = FIRST
        .0
        .saturating_mul(1 << attempts.saturating_sub(1).min(10));
    let longest = doubled.min(LONGEST.0);
    let scattered = Span(longest / 2 + random % (longest / 2 + 1));
    let asked = failure.retry_after.unwrap_or_default();
    scattered.max(asked)
}

fn next(
    previous: Option<&Failed>,
    reason: Reason,
    now: Timestamp,
    wait: impl FnOnce(u32) -> Span,
) -> Failed {
    let attempts = previous.map_or(1, |f| f.attempts.saturating_add(1));
    Failed {
        reason,
        at: now,
        until: now + wait(attempts).min(LONGEST_WAIT),
        attempts,
    }
}
