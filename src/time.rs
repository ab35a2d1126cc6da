//! Points in time and spans, both in whole milliseconds. It has no clock: the time is always handed in,
//! so that tests can run years in a moment.

use alloc::string::{String, ToString};
use core::ops::{Add, Sub};

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
        Self((seconds * 1000.0 + 0.5) as u64)
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

    /// `2025-06-15T15:06:40Z` (RFC 3339, whole seconds). The days since 1970 as a date of the Gregorian
    /// calendar, counted in years that begin in March, so that a leap day comes last
    /// (<https://howardhinnant.github.io/date_algorithms.html>).
    #[must_use]
    pub fn utc(self) -> String {
        let seconds = self.0 / 1000;
        let (days, clock) = (seconds / 86_400 + 719_468, seconds % 86_400);
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 {
            (month + 3, 0)
        } else {
            (month - 9, 1)
        };
        let year = year_of_era + era * 400 + next;
        let mut text = String::with_capacity(20);
        for (number, before, width) in [
            (year, "", 4),
            (month, "-", 2),
            (day, "-", 2),
            (clock / 3600, "T", 2),
            (clock / 60 % 60, ":", 2),
            (clock % 60, ":", 2),
        ] {
            let digits = number.to_string();
            text.push_str(before);
            text.extend((digits.len()..width).map(|_| '0'));
            text.push_str(&digits);
        }
        text.push('Z');
        text
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
    fn times_of_day() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_750_000_000, "2025-06-15T15:06:40Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Timestamp(seconds * 1000).utc(), text);
        }
    }

    #[test]
    fn seconds_with_a_fraction() {
        assert_eq!(Span::from_seconds(0.5), Span(500));
        assert_eq!(Span::from_seconds(-1.0), Span(0));
        assert_eq!(Span::from_seconds(f64::NAN), Span(0));
        assert_eq!(Span(1).ceil_seconds(), 1);
    }
}
