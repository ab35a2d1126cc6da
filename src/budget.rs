//! How many fetches traffic may cause: so many a second, so many at a time. What the operator's
//! configuration needs is not counted. It reads no clock.

use crate::time::{Span, Timestamp};

/// A token bucket that holds one second's worth.
#[derive(Clone, Debug)]
pub struct Budget {
    per_second: u64,
    /// Thousandths of a fetch.
    left: u64,
    filled_at: Timestamp,
}

impl Budget {
    /// A full one.
    #[must_use]
    pub const fn new(per_second: u64) -> Self {
        Self {
            per_second,
            left: per_second.saturating_mul(1000),
            filled_at: Timestamp(0),
        }
    }

    /// Takes one fetch, if there is one left.
    pub fn take(&mut self, now: Timestamp) -> bool {
        let passed = self.filled_at.age(now).min(Span::seconds(1));
        let more = passed.0.saturating_mul(self.per_second);
        let most = self.per_second.saturating_mul(1000);
        self.left = self.left.saturating_add(more).min(most);
        // Also when the clock was set back: else nothing would come until it caught up.
        self.filled_at = now;
        match self.left.checked_sub(1000) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_and_no_more() {
        let mut budget = Budget::new(10);
        let start = Timestamp(1_000_000);
        let taken =
            |budget: &mut Budget, at| (0..100).filter(|_| budget.take(Timestamp(at))).count();
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
}
