//! Envoy's internal redirects: the host ends a request after the filter has changed it, and begins it again with
//! new contexts. What was written in its place of a reference must not be resolved again, and must still be masked
//! in the response. WasmX has no such thing. A filter with another configuration, also after a change of it, takes
//! the request for a new one.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::header_map::HeaderMap;
use super::host::Host;
use super::plugin::Plugin;
use crate::failure::Reason;
use crate::message::Denial;
use crate::secret::SecretValue;

/// Set by Envoy on an internal redirect. A client may send it, too: it only causes a look at the mark.
const REDIRECTED: &str = "x-envoy-original-url";

thread_local! {
    /// The newest requests that ended without a response. They are not the plugin's: after a reload of the same
    /// configuration a request begins again in another root context. Every filter of a chain has its own, and an
    /// earlier one may hold the request before a later one sees it again.
    static ENDED: RefCell<VecDeque<Ended>> = const { RefCell::new(VecDeque::new()) };
}

/// A request that ended without a response.
struct Ended {
    mark: String,
    id: u32,
    used: Vec<SecretValue>,
}

/// The name of the property that marks a request as resolved by a filter with this configuration: another
/// filter in the same chain has its own. Its value is the number of the context that resolved it.
pub(super) fn mark(configuration: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};

    let digest = Sha256::digest(configuration);
    let hex: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("akv_resolved_{hex}")
}

impl<H: Host + Copy> Plugin<H> {
    /// Marks a request in which a reference of the client's was replaced. Clients cannot set a property.
    pub(super) fn mark_resolved(&mut self, id: u32) {
        if !self.is_envoy() {
            return;
        }
        if self.config.redact {
            self.exchanges.entry(id).or_default().marked = true;
        }
        let id = id.to_string();
        let _ = self.host.set_property(self.mark.as_bytes(), id.as_bytes());
    }

    /// Keeps the values of a marked request that ended without a response, as it may begin again. There may be none:
    /// what was replaced may be a backslash.
    pub(super) fn keep_values(&self, id: u32, used: Vec<SecretValue>) {
        ENDED.with_borrow_mut(|ended| {
            while ended.len() >= self.config.limits.ended_requests {
                ended.pop_front();
            }
            ended.push_back(Ended {
                mark: self.mark.clone(),
                id,
                used,
            });
        });
    }

    /// Takes up a request that comes again, with its values; `false` for a new one.
    ///
    /// # Errors
    /// When the values are not kept any more: they could not be masked in the response.
    pub(super) fn take_up(&mut self, id: u32, map: HeaderMap<'_>) -> Result<bool, Denial> {
        if !self.is_envoy() || map.all(REDIRECTED).next().is_none() {
            return Ok(false);
        }
        let Some(first) = self.host.property(self.mark.as_bytes()) else {
            return Ok(false);
        };
        if self.config.redact {
            let first = std::str::from_utf8(&first)
                .ok()
                .and_then(|id| id.parse().ok());
            let kept = first.and_then(|first| self.take_values(first));
            let lost = || Denial::new(Reason::Overloaded, b"an internal redirect");
            self.exchanges.entry(id).or_default().used = kept.ok_or_else(lost)?;
        }
        self.mark_resolved(id);
        Ok(true)
    }

    fn take_values(&self, id: u32) -> Option<Vec<SecretValue>> {
        ENDED.with_borrow_mut(|ended| {
            let ours = |ended: &Ended| ended.id == id && ended.mark == self.mark;
            let at = ended.iter().position(ours)?;
            Some(ended.remove(at)?.used)
        })
    }
}
