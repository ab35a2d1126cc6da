//! Faults that a test asks for, by endpoint, for some calls or until they are cleared. It does not know
//! how they are carried out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::azure::{Azure, Endpoint};

/// Where a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Before the first byte of the answer.
    BeforeAnswer,
    /// After the headers and half of the body.
    InBody,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The answer comes later.
    Delay(Duration),
    /// Another status, with Azure's error body for it.
    Status(u16),
    /// 429 with this `Retry-After`.
    Throttle(String),
    /// 200 with this body instead of the right one.
    Body(String),
    /// This answer instead of the right one.
    Answer {
        /// The status.
        status: u16,
        /// Headers besides those that the emulator always sends; `content-type` replaces its.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
    /// The connection is cut.
    Cut(Cut),
}

/// The faults that are in force.
#[derive(Default)]
pub(super) struct Faults {
    faults: BTreeMap<Endpoint, (Fault, Option<u32>)>,
    latency: BTreeMap<Endpoint, Duration>,
}

/// A fault that was just set, to say how often it happens.
pub struct Failing<'a> {
    azure: &'a Azure,
    endpoint: Endpoint,
    fault: Fault,
}

impl<'a> Failing<'a> {
    pub(super) fn new(azure: &'a Azure, endpoint: Endpoint, fault: Fault) -> Self {
        Self {
            azure,
            endpoint,
            fault,
        }
    }

    /// Ends after this many calls.
    pub fn times(self, times: u32) {
        self.azure.fail_times(self.endpoint, self.fault, times);
    }
}

impl Faults {
    /// For the next `times` calls, or for all.
    pub(super) fn set(&mut self, endpoint: Endpoint, fault: Fault, times: Option<u32>) {
        self.faults.insert(endpoint, (fault, times));
    }

    pub(super) fn set_latency(&mut self, endpoint: Endpoint, latency: Duration) {
        self.latency.insert(endpoint, latency);
    }

    pub(super) fn latency(&self, endpoint: Endpoint) -> Duration {
        self.latency.get(&endpoint).copied().unwrap_or_default()
    }

    pub(super) fn clear(&mut self) {
        self.faults.clear();
        self.latency.clear();
    }

    /// The fault for a call to this endpoint, which this counts.
    pub(super) fn next(&mut self, endpoint: Endpoint) -> Option<Fault> {
        let (fault, times) = self.faults.get_mut(&endpoint)?;
        if let Some(left) = times {
            *left = left.checked_sub(1)?;
        }
        Some(fault.clone())
    }
}
