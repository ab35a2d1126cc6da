//! Medians and spreads of measurements.

use std::fmt;

/// Measurements of one thing, one a round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The middle one; NaN of none.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Between the two that are nearest to this share of all; NaN of none.
    fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = share * sorted.len().saturating_sub(1) as f64;
        let value = |n: f64| sorted.get(n as usize).copied().unwrap_or(f64::NAN);
        let (below, above) = (value(at.floor()), value(at.ceil()));
        below + (above - below) * at.fract()
    }

    /// Round by round: what is compared was measured within seconds.
    pub(crate) fn with(&self, other: &Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        let pairs = self.0.iter().zip(&other.0);
        Self(pairs.map(|(a, b)| combine(*a, *b)).collect())
    }
}

/// The median, and where the middle half lies.
impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(0);
        write!(
            f,
            "{:.digits$} ({:.digits$} to {:.digits$})",
            self.median(),
            self.quantile(0.25),
            self.quantile(0.75)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        Series(values.to_vec())
    }

    #[test]
    fn the_median_is_in_the_middle_and_ratios_are_taken_round_by_round() {
        assert_eq!(series(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(series(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert!(series(&[]).median().is_nan());
        let ratio = series(&[2.0, 20.0, 9.0]).with(&series(&[1.0, 10.0, 3.0]), |a, b| a / b);
        assert_eq!(format!("{ratio:.1}"), "2.0 (2.0 to 2.5)");
    }
}
