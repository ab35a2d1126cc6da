//! Faults that a test asks for, by endpoint, for some calls or until they are cleared. It does not know
//! how they are carried out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::azure::Endpoint;

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
    /// The connection is cut.
    Cut(Cut),
}

/// The faults that are in force.
#[derive(Default)]
pub(super) struct Faults(BTreeMap<Endpoint, (Fault, Option<u32>)>);

impl Faults {
    /// For the next `times` calls, or for all.
    pub(super) fn set(&mut self, endpoint: Endpoint, fault: Fault, times: Option<u32>) {
        self.0.insert(endpoint, (fault, times));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault for a call to this endpoint, which this counts.
    pub(super) fn next(&mut self, endpoint: Endpoint) -> Option<Fault> {
        let (fault, times) = self.0.get_mut(&endpoint)?;
        if let Some(left) = times {
            *left = left.checked_sub(1)?;
        }
        Some(fault.clone())
    }
}
