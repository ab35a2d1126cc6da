//! Points in time and spans, both in whole milliseconds. It has no clock: the time is always handed in,
//! so that tests can run years in a moment.

use std::ops::{Add, Sub};

/// Milliseconds since the Unix epoch, as the host's clock gives them (WasmX steps in milliseconds).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u64);

impl Span {
    /// Longer than any gateway runs: "for ever" without a special case.
    pub const FOREVER: Self = Self(u64::MAX);

    /// Whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Seconds with a fraction, as Kong's `ttl` may have; what is negative or not a number is zero.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "float to integer casts saturate, and NaN becomes 0: both are meant"
    )]
    pub fn from_seconds(seconds: f64) -> Self {
        Self((seconds * 1000.0).round() as u64)
    }

    /// Whole seconds, rounded up: what `Retry-After` wants.
    #[must_use]
    pub const fn ceil_seconds(self) -> u64 {
        self.0.div_ceil(1000)
    }

    /// This span times `numerator / denominator`.
    #[must_use]
    pub const fn fraction(self, numerator: u64, denominator: u64) -> Self {
        match self.0.checked_mul(numerator) {
            Some(product) if denominator > 0 => Self(product / denominator),
            _ => Self(self.0),
        }
    }
}

impl Timestamp {
    /// How long ago this was, as seen at `now`; zero for a time that has not come yet, so that a clock
    /// that was set back never makes an age of centuries.
    #[must_use]
    pub const fn age(self, now: Self) -> Span {
        Span(now.0.saturating_sub(self.0))
    }

    /// How long until this time, as seen at `now`; zero once it has come.
    #[must_use]
    pub const fn until(self, now: Self) -> Span {
        Span(self.0.saturating_sub(now.0))
    }
}

impl Add<Span> for Timestamp {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Add for Span {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Span {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp(5) + Span::FOREVER, Timestamp(u64::MAX));
        assert_eq!(Timestamp(10).age(Timestamp(4)), Span(0));
        assert_eq!(Timestamp(10).until(Timestamp(4)), Span(6));
        assert_eq!(Span(3) - Span(5), Span(0));
        assert_eq!(Span::FOREVER.fraction(4, 5), Span::FOREVER);
        assert_eq!(Span::seconds(10).fraction(4, 5), Span::seconds(8));
    }

    #[test]
    fn seconds_with_a_fraction() {
        assert_eq!(Span::from_seconds(0.5), Span(500));
        assert_eq!(Span::from_seconds(-1.0), Span(0));
        assert_eq!(Span::from_seconds(f64::NAN), Span(0));
        assert_eq!(Span(1).ceil_seconds(), 1);
    }
}
