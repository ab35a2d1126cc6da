//! Tells the host what was counted: at most once a second, and only what moved. It decides nothing about
//! what is counted.
//!
//! Several workers tell one host. Counters add up by themselves. A gauge is whatever was written last,
//! so a share of a sum is added and taken back (Envoy; WasmX cannot, and shows the worker that wrote
//! last), and of the least of all workers' values everybody leaves standing what is less than his own.

use alloc::vec::Vec;

use super::host::{Dialect, Host, MetricKind};
use crate::metrics::{Metrics, Series, Told};
use crate::time::{Span, Timestamp};

const AGAIN: Span = Span(1000);
/// Seconds to an end move with every look of the one who wrote them; who stands still so often is gone.
const STILL: u32 = 5;

/// A gauge as this worker knows it.
#[derive(Default)]
struct Gauge {
    /// What we wrote, or our share.
    ours: u64,
    /// What stood there at the last look, and for how many looks.
    there: u64,
    still: u32,
}

/// The host's numbers of our series, and what it was told.
#[derive(Default)]
pub(super) struct Meters {
    /// Lists: they are short, and looked through once a second.
    /// `None` for one that the host has no room for: it is not asked again.
    ids: Vec<(Series, Option<u32>)>,
    gauges: Vec<(Series, Gauge)>,
    told_at: Option<Timestamp>,
}

impl Meters {
    /// Whether it is time to tell the host.
    pub(super) fn due(&mut self, now: Timestamp) -> bool {
        // Also when the clock was set back: else nothing would be told until it caught up.
        let due = self
            .told_at
            .is_none_or(|at| at > now || at.age(now) >= AGAIN);
        if due {
            self.told_at = Some(now);
        }
        due
    }

    /// Tells the host everything that moved, and how things stand.
    pub(super) fn tell(
        &mut self,
        metrics: &mut Metrics,
        standing: &[(Series, u64)],
        host: &impl Host,
    ) {
        if self.ids.is_empty() {
            for series in metrics.from_the_start() {
                self.id(series, metrics, host);
            }
        }
        for (series, by) in metrics.take() {
            if let Some(id) = self.id(series, metrics, host) {
                host.add_to_metric(id, i64::try_from(by).unwrap_or(i64::MAX));
            }
        }
        for delay in metrics.take_delays() {
            if let Some(id) = self.id(Series::Delay, metrics, host) {
                host.record_metric(id, delay.0);
            }
        }
        // What stood and stands no more is nothing now.
        let gone: Vec<(Series, u64)> = self
            .gauges
            .iter()
            .map(|(known, _)| (*known, known.nothing()))
            .filter(|(known, _)| !standing.iter().any(|(series, _)| series == known))
            .collect();
        for (series, value) in standing.iter().copied().chain(gone) {
            if let Some(id) = self.id(series, metrics, host) {
                self.set(series, id, value, host);
            }
        }
    }

    fn set(&mut self, series: Series, id: u32, value: u64, host: &impl Host) {
        if !self.gauges.iter().any(|(known, _)| *known == series) {
            self.gauges.push((series, Gauge::default()));
        }
        let found = self.gauges.iter_mut().find(|(known, _)| *known == series);
        match (found, series.told()) {
            (Some((_, gauge)), Told::Sum) => gauge.share(id, value, host),
            (Some((_, gauge)), _) => gauge.least(id, value, host),
            (None, _) => {}
        }
    }

    /// Takes back this worker's shares.
    pub(super) fn retire(&mut self, host: &impl Host) {
        for (series, gauge) in &mut self.gauges {
            let id = self.ids.iter().find(|(known, _)| known == series);
            if let (Told::Sum, Some((_, Some(id)))) = (series.told(), id) {
                gauge.share(*id, 0, host);
            }
        }
    }

    fn id(&mut self, series: Series, metrics: &Metrics, host: &impl Host) -> Option<u32> {
        if let Some((_, id)) = self.ids.iter().find(|(known, _)| *known == series) {
            return *id;
        }
        let kind = match series.told() {
            Told::Counter => MetricKind::Counter,
            Told::Sum | Told::Least => MetricKind::Gauge,
            Told::Histogram => MetricKind::Histogram,
        };
        let id = host.define_metric(kind, &metrics.name(series)).ok();
        self.ids.push((series, id));
        id
    }
}

impl Gauge {
    fn share(&mut self, id: u32, value: u64, host: &impl Host) {
        if value == self.ours {
            return;
        }
        match host.dialect() {
            Dialect::Envoy => {
                let by = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
                host.add_to_metric(id, by(value) - by(self.ours));
            }
            // It traps on adding to a gauge.
            Dialect::WasmX => host.record_metric(id, value),
        }
        self.ours = value;
    }

    fn least(&mut self, id: u32, value: u64, host: &impl Host) {
        // Zero is a gauge that nobody has written yet.
        let value = value.max(1);
        let there = host.metric(id).unwrap_or(0);
        self.still = if there == self.there {
            self.still.saturating_add(1)
        } else {
            0
        };
        self.there = there;
        if there == value {
            return;
        }
        if there == 0 || there == self.ours || value < there || self.still >= STILL {
            host.record_metric(id, value);
            (self.ours, self.there, self.still) = (value, value, 0);
        }
    }
}
