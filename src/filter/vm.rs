//! One VM: the contexts that the host made, and which of them an event is for. It decides nothing about
//! requests.

use alloc::vec::Vec;

use super::answer;
use super::by_id::ById;
use super::gateway::{Gateway, PendingCalls};
use super::host::Host;

/// What the host is to do with a request after a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Send it on.
    Continue,
    /// Hold it until it is resumed or answered.
    Pause,
}

/// The state of one VM. Envoy has one for each worker and one for the main thread, WasmX one for each
/// worker; several configurations of the filter may share it.
pub struct Vm<H> {
    host: H,
    /// One, nearly always.
    roots: Vec<(u32, Gateway)>,
    /// The root of a request's context; kept only when there are several to choose from.
    parents: ById<u32>,
    calls: PendingCalls,
}

impl<H: Host> Vm<H> {
    /// A VM without contexts.
    pub fn new(host: H) -> Self {
        Self {
            host,
            roots: Vec::new(),
            parents: ById::default(),
            calls: PendingCalls::default(),
        }
    }

    /// `proxy_on_context_create`: a parent of 0 makes it a root context.
    #[inline]
    pub fn create_context(&mut self, context: u32, parent: u32) {
        if parent == 0 {
            self.add(context);
        } else if self.roots.len() > 1 {
            self.parents.insert(context, parent);
        }
    }

    fn add(&mut self, root: u32) {
        if gateway(&mut self.roots, root).is_none() {
            self.roots.push((root, Gateway::default()));
        }
    }

    /// `proxy_on_configure`: whether the host may start with this configuration.
    pub fn configure(&mut self, root: u32) -> bool {
        self.add(root);
        match gateway(&mut self.roots, root) {
            Some(gateway) => gateway.configure(&self.host),
            None => false,
        }
    }

    /// `proxy_on_tick`
    pub fn tick(&mut self, root: u32) {
        if let Some(gateway) = gateway(&mut self.roots, root) {
            gateway.tick(root, &self.host, &mut self.calls);
        }
    }

    /// `proxy_on_request_headers`; `end` when no body follows, as far as the host knows.
    #[inline]
    pub fn request_headers(&mut self, context: u32, end: bool) -> Flow {
        let root = self.root_of(context);
        match gateway(&mut self.roots, root) {
            Some(gateway) => {
                gateway.request_headers(root, context, end, &self.host, &mut self.calls)
            }
            // Not a context that we know: nothing was configured for it, so nothing may pass.
            None => {
                let _ = self.host.respond(503, &[], b"", None);
                Flow::Pause
            }
        }
    }

    /// `proxy_on_request_body` with what the host holds of it.
    pub fn request_body(&mut self, context: u32, size: usize, end: bool) -> Flow {
        let root = self.root_of(context);
        gateway(&mut self.roots, root).map_or(Flow::Continue, |gateway| {
            gateway.request_body(root, context, size, end, &self.host, &mut self.calls)
        })
    }

    /// `proxy_on_response_headers`
    #[inline]
    pub fn response_headers(&mut self, context: u32) -> Flow {
        let root = self.root_of(context);
        gateway(&mut self.roots, root).map_or(Flow::Continue, |gateway| {
            gateway.response_headers(root, context, &self.host, &mut self.calls)
        })
    }

    /// `proxy_on_response_body` with what the host holds of it.
    pub fn response_body(&mut self, context: u32, size: usize, end: bool) -> Flow {
        let root = self.root_of(context);
        gateway(&mut self.roots, root).map_or(Flow::Continue, |gateway| {
            gateway.response_body(root, context, size, end, &self.host, &mut self.calls)
        })
    }

    #[inline]
    fn root_of(&self, context: u32) -> u32 {
        let only = || self.roots.first().map_or(0, |(root, _)| *root);
        self.parents.get(context).copied().unwrap_or_else(only)
    }

    /// `proxy_on_http_call_response`
    pub fn call_answered(&mut self, token: u32, headers: u32, body_size: usize) {
        let Some(call) = self.calls.remove(token) else {
            return;
        };
        let answer = answer::read(&self.host, headers, body_size);
        if let Some(gateway) = gateway(&mut self.roots, call.root) {
            gateway.call_answered(&call, &answer, &self.host, &mut self.calls);
        }
    }

    /// `proxy_on_delete`
    #[inline]
    pub fn delete_context(&mut self, context: u32) {
        if let Some(at) = self.roots.iter().position(|(root, _)| *root == context) {
            self.roots.remove(at).1.retire(&self.host);
            return;
        }
        let root = self.root_of(context);
        if !self.parents.is_empty() {
            self.parents.remove(context);
        }
        if let Some(gateway) = gateway(&mut self.roots, root) {
            gateway.forget(context);
        }
    }

    /// Whether no request of this root waits for anything.
    #[cfg(test)]
    pub(super) fn root_is_quiet(&self, root: u32) -> bool {
        self.roots
            .iter()
            .all(|(other, gateway)| *other != root || gateway.is_quiet())
    }
}

/// The gateway of a root context.
#[inline]
fn gateway(roots: &mut [(u32, Gateway)], root: u32) -> Option<&mut Gateway> {
    let found = roots.iter_mut().find(|(known, _)| *known == root);
    found.map(|(_, gateway)| gateway)
}
