//! Headers whose value was put together earlier and holds for a while: nearly every request gets what an
//! earlier one got. It knows how long a value holds, and not which requests get it.

use alloc::string::String;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::host::{Host, Map};
use crate::config::Config;
use crate::fetch::Fetcher;
use crate::limits::Limits;
use crate::message::{Place, Target, render};
use crate::metrics::Source;
use crate::template::Template;
use crate::time::{Span, Timestamp};

/// A header of clients is looked up anew after this time, so that what is used stays in the cache.
const CLIENTS: Span = Span(1_000);

/// A header with its value as long as that holds.
pub(super) struct PreparedHeader {
    pub(super) place: Place,
    value: Option<Prepared>,
}

struct Prepared {
    value: Zeroizing<Vec<u8>>,
    /// Every change of a secret ends it.
    epoch: u64,
    until: Timestamp,
}

impl PreparedHeader {
    pub(super) const fn new(place: Place) -> Self {
        Self { place, value: None }
    }

    /// The headers that the operator sets.
    pub(super) fn set(config: &Config, headers: &[(String, Template)]) -> Vec<Self> {
        let places = headers
            .iter()
            .map(|(name, template)| Place::set_header(config, name, template));
        places.map(Self::new).collect()
    }

    /// Whether there is a value that holds now.
    pub(super) fn prepare(
        &mut self,
        resolver: &mut Fetcher,
        limits: &Limits,
        looked_up: &mut Vec<(Source, usize)>,
        now: Timestamp,
    ) -> bool {
        let epoch = resolver.epoch();
        let holds = |p: &Prepared| p.epoch == epoch && p.until > now;
        if self.value.as_ref().is_some_and(holds) {
            return true;
        }
        let rendered = render::render_one(&self.place, resolver, limits, looked_up, now);
        self.value = rendered.map(|(value, until)| Prepared {
            value,
            epoch,
            until,
        });
        self.value.is_some()
    }

    /// The same for what a client asks for, each of whose references counts as looked up.
    pub(super) fn prepare_for_client(
        &mut self,
        resolver: &mut Fetcher,
        limits: &Limits,
        looked_up: &mut Vec<(Source, usize)>,
        now: Timestamp,
    ) -> bool {
        let seen = looked_up.len();
        if !self.prepare(resolver, limits, looked_up, now) {
            return false;
        }
        if looked_up.len() == seen {
            for want in self.place.wants() {
                looked_up.push((Source::Local, want.key.vault));
            }
        } else if let Some(prepared) = &mut self.value {
            prepared.until = prepared.until.min(now + CLIENTS);
        }
        true
    }

    /// Forgets a value that does not hold any more.
    pub(super) fn let_go(&mut self, now: Timestamp) {
        self.value = self.value.take().filter(|prepared| prepared.until > now);
    }

    pub(super) fn apply(&self, map: Map, host: &impl Host) {
        if let (Target::Header(name), Some(prepared)) = (&self.place.target, &self.value) {
            let _ = host.set_header(map, name, &prepared.value);
        }
    }

    pub(super) fn remove(&self, map: Map, host: &impl Host) {
        if let Target::Header(name) = &self.place.target {
            let _ = host.remove_header(map, name);
        }
    }
}
