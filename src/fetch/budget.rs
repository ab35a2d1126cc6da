//! How many fetches a second traffic may cause. It reads no clock, and does not know what is fetched or how
//! many fetches are under way.

use crate::time::{Span, Timestamp};

/// A token bucket that holds one second's worth, of which a share is kept for known names.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    per_second: u64,
    /// Thousandths of a fetch that only known names may take.
    reserved: u64,
    /// Thousandths of a fetch.
    left: u64,
    filled_at: Timestamp,
}

impl Budget {
    /// A full one.
    #[must_use]
    pub(super) const fn new(per_second: u64, reserved_percent: u64) -> Self {
        Self {
            per_second,
            reserved: per_second.saturating_mul(1000) / 100 * reserved_percent,
            left: per_second.saturating_mul(1000),
            filled_at: Timestamp(0),
        }
    }

    /// Takes one fetch, if there is one left. `known`: for a name that clients did not make up.
    pub(super) fn take(&mut self, now: Timestamp, known: bool) -> bool {
        let passed = self.filled_at.age(now).min(Span::seconds(1));
        let more = passed.0.saturating_mul(self.per_second);
        let most = self.per_second.saturating_mul(1000);
        self.left = self.left.saturating_add(more).min(most);
        // Also when the clock was set back: else the bucket would stay empty until the clock caught up.
        self.filled_at = now;
        let kept = if known { 0 } else { self.reserved };
        match self.left.checked_sub(1000) {
            Some(left) if left >= kept => {
                self.left = left;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_and_no_more() {
        let mut budget = Budget::new(10, 50);
        let start = Timestamp(1_000_000);
        let taken = |budget: &mut Budget, at| {
            (0..100)
                .filter(|_| budget.take(Timestamp(at), true))
                .count()
        };
        assert_eq!(taken(&mut budget, start.0), 10);
        assert_eq!(taken(&mut budget, start.0 + 250), 2);
        assert_eq!(
            taken(&mut budget, start.0 + 300),
            1,
            "half a fetch was left over"
        );
        assert_eq!(
            taken(&mut budget, start.0 + 60_000),
            10,
            "a long pause saves up one second"
        );
        assert_eq!(taken(&mut budget, start.0), 0);
        assert_eq!(
            taken(&mut budget, start.0 + 100),
            1,
            "the clock was set back"
        );
    }

    #[test]
    fn a_share_is_kept_for_known_names() {
        let mut budget = Budget::new(10, 50);
        let now = Timestamp(1_000_000);
        let taken =
            |budget: &mut Budget, known| (0..100).filter(|_| budget.take(now, known)).count();
        assert_eq!(taken(&mut budget, false), 5);
        assert_eq!(taken(&mut budget, true), 5);
    }
}
