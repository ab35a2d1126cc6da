//! Metrics, with what each host makes of a call that does not fit its kind.

use super::{BAD_ARGUMENT, Host, INTERNAL_FAILURE, Ill, Reply, trap};

impl Host {
    /// WasmX before Kong 3.9.
    fn no_metrics<T>(&self) -> Option<Reply<T>> {
        let none = !self.is_envoy() && !self.settings.metrics;
        none.then(|| trap("host function not yet implemented"))
    }

    pub(crate) fn define_metric(&mut self, kind: u32, name: &str) -> Reply<u32> {
        if let Some(ill) = self.no_metrics() {
            return ill;
        }
        if !self.is_envoy() && name.len() > 240 {
            return trap("a metric's name of more than 256 bytes with its prefix");
        }
        if let Some(at) = self.metrics.iter().position(|(_, n, _)| n == name) {
            return Ok(at as u32);
        }
        if self.metrics.len() >= self.settings.metric_room {
            return Err(Ill::Status(INTERNAL_FAILURE));
        }
        self.metrics.push((kind, name.to_owned(), 0));
        Ok(self.metrics.len() as u32 - 1)
    }

    pub(crate) fn increment_metric(&mut self, id: u32, by: i64) -> Reply {
        let envoy = self.is_envoy();
        let Some((kind, _, value)) = self.metrics.get_mut(id as usize) else {
            return Err(Ill::Status(BAD_ARGUMENT));
        };
        if *kind != 0 && !envoy {
            return trap("increment of what is no counter");
        }
        if envoy && (by == 0 || (*kind == 0 && by < 0)) {
            let what = format!("adding {by}");
            self.violation("proxy_increment_metric", what);
            return Err(Ill::Status(BAD_ARGUMENT));
        }
        match value.checked_add_signed(by) {
            Some(sum) => *value = sum,
            None => self.violation("proxy_increment_metric", "below nothing"),
        }
        Ok(())
    }

    pub(crate) fn record_metric(&mut self, id: u32, to: u64) -> Reply {
        match self.metrics.get_mut(id as usize) {
            Some((0, ..)) if !self.settings.dialect.is_envoy() => trap("cannot record on counters"),
            Some((2, _, value)) => {
                *value += 1;
                self.recorded.push((id, to));
                Ok(())
            }
            Some((_, _, value)) => {
                *value = to;
                Ok(())
            }
            None => Err(Ill::Status(BAD_ARGUMENT)),
        }
    }

    pub(crate) fn metric(&mut self, id: u32) -> Reply<u64> {
        match self.metrics.get(id as usize) {
            Some((2, ..)) if !self.settings.dialect.is_envoy() => trap("get of a histogram"),
            Some((2, ..)) => Err(Ill::Status(BAD_ARGUMENT)),
            Some((_, _, value)) => Ok(*value),
            None => Err(Ill::Status(BAD_ARGUMENT)),
        }
    }
}
