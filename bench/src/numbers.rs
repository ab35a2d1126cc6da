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

/// What grows with something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line(Vec<(f64, f64)>);

impl FromIterator<(f64, f64)> for Line {
    fn from_iter<T: IntoIterator<Item = (f64, f64)>>(points: T) -> Self {
        Self(points.into_iter().collect())
    }
}

impl Line {
    pub(crate) fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.0.iter().copied()
    }

    /// The straight line that is nearest (least squares), and how much of the growth it explains.
    pub(crate) fn fit(&self) -> Fit {
        let n = self.0.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| self.0.iter().map(of).sum::<f64>() / n;
        let (x, y) = (mean(|p| p.0), mean(|p| p.1));
        let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
            self.points().map(|(px, py)| of(px - x, py - y)).sum()
        };
        let (xx, xy, yy) = (sum(&|a, _| a * a), sum(&|a, b| a * b), sum(&|_, b| b * b));
        Fit {
            start: y - xy / xx * x,
            slope: xy / xx,
            explained: xy * xy / (xx * yy),
        }
    }
}

/// A straight line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit {
    start: f64,
    slope: f64,
    /// R², between 0 and 1.
    explained: f64,
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slope = if self.slope.abs() < 0.01 {
            format!("{:.1e}", self.slope)
        } else {
            format!("{:.3}", self.slope)
        };
        write!(
            f,
            "{:.1} + {slope} each (R² {:.3})",
            self.start, self.explained
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
    fn a_straight_line_is_found() {
        let line: Line = [(1.0, 3.0), (2.0, 5.0), (4.0, 9.0)].into_iter().collect();
        assert_eq!(line.fit().to_string(), "1.0 + 2.000 each (R² 1.000)");
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
