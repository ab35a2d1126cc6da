//! The counts of one worker, kept until they are exported. It does not know how a metric is named, nor when
//! it is exported.

use alloc::string::String;
use alloc::vec::Vec;

use super::labels::Source;
use super::series::{Series, label};
use crate::cache::SecretKey;
use crate::config::Config;
use crate::failure::Reason;
use crate::time::Span;

/// So many secrets of one worker have metrics under their own names, where the operator asks for names.
pub const MOST_NAMES: usize = 100;

/// How a message counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A request that got all of what the operator sets.
    Served,
    /// Any other message: its own references count.
    Other,
}

/// What one worker counted since somebody took it.
#[derive(Debug, Default)]
pub struct Metrics {
    pub(super) vaults: Vec<String>,
    /// Secrets that are counted under their own names; none unless the operator asks for them.
    pub(super) names: Vec<(usize, String)>,
    pub(super) most_names: usize,
    /// The vault of every reference that the operator sets.
    operators: Vec<usize>,
    /// Requests that got all of what the operator sets.
    served: i64,
    /// Those that moved; a list, which is small, as is its code.
    counters: Vec<(Series, i64)>,
    delays: Vec<Span>,
}

impl Metrics {
    /// Nothing counted.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let vaults = config.vaults.iter().map(|vault| label(&vault.prefix));
        Self {
            vaults: vaults.collect(),
            most_names: if config.metrics.secret_names {
                MOST_NAMES
            } else {
                0
            },
            ..Self::default()
        }
    }

    /// The vaults of the references that the operator sets, each as often as there are references.
    pub fn operator_sets(&mut self, vaults: impl Iterator<Item = usize>) {
        self.operators = vaults.collect();
    }

    /// A message went on or was refused: where the values of its references came from, those of the operator's
    /// headers first (`operators` of them; none where their values were at hand). Counts the message once.
    #[inline]
    pub fn record(&mut self, looked_up: &[(Source, usize)], operators: usize, outcome: Outcome) {
        self.served += i64::from(outcome == Outcome::Served);
        for (n, (source, vault)) in looked_up.iter().enumerate() {
            self.add(Series::References(*source, *vault), 1);
            if n < operators && outcome == Outcome::Served {
                self.add(Series::References(Source::Local, *vault), -1);
            }
        }
    }

    /// One more.
    pub fn count(&mut self, series: Series) {
        self.add(series, 1);
    }

    /// A secret could not be fetched.
    pub fn secret_failed(&mut self, key: &SecretKey, reason: Reason) {
        self.count(Series::SecretFailures(reason, key.vault));
        if let Some(name) = self.name_of(key) {
            self.count(Series::NamedFailures(name));
        }
    }

    #[inline]
    fn add(&mut self, series: Series, by: i64) {
        match self.counters.iter_mut().find(|(known, _)| *known == series) {
            Some((_, n)) => *n += by,
            None => self.counters.push((series, by)),
        }
    }

    /// A request waited this long.
    pub fn delayed(&mut self, by: Span) {
        // More than a worker ends between two looks; a host that never looks must not fill the memory.
        if self.delays.len() < 10_000 {
            self.delays.push(by);
        }
    }

    /// The number of a secret that is counted under its own name already.
    #[must_use]
    pub fn named(&self, key: &SecretKey) -> Option<usize> {
        let same = |(vault, name): &(usize, String)| *vault == key.vault && *name == key.name;
        self.names.iter().position(same)
    }

    /// The number of a secret that is counted under its own name: the first so many that are asked about.
    pub fn name_of(&mut self, key: &SecretKey) -> Option<usize> {
        if self.most_names == 0 {
            return None;
        }
        let same = |(vault, name): &(usize, String)| *vault == key.vault && *name == key.name;
        let known = self.names.iter().position(same);
        if known.is_none() && self.names.len() < self.most_names {
            self.names.push((key.vault, key.name.clone()));
            return Some(self.names.len() - 1);
        }
        known
    }

    /// What was counted, which is then forgotten here. Nothing that is zero.
    pub fn take(&mut self) -> Vec<(Series, u64)> {
        let served = core::mem::take(&mut self.served);
        if served > 0 {
            for vault in self.operators.clone() {
                self.add(Series::References(Source::Local, vault), served);
            }
        }
        let counters = core::mem::take(&mut self.counters);
        let moved = counters.into_iter();
        moved
            .filter_map(|(series, n)| Some((series, u64::try_from(n).ok().filter(|n| *n > 0)?)))
            .collect()
    }

    /// How long requests waited, which is then forgotten here.
    pub fn take_delays(&mut self) -> Vec<Span> {
        core::mem::take(&mut self.delays)
    }

    /// Counters that are shown from the start, so that their first step is seen as one.
    #[must_use]
    pub fn from_the_start(&self) -> Vec<Series> {
        let mut series = vec![Series::Delay];
        for vault in 0..self.vaults.len() {
            for source in Source::ALL {
                series.push(Series::References(source, vault));
            }
        }
        let mut code = 0;
        while let Some(reason) = Reason::from_code(code) {
            series.push(Series::Refusals(reason));
            code += 1;
        }
        series
    }
}
