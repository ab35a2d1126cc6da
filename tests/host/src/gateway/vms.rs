//! VMs: how they start, are configured anew, trap and die.

use std::rc::Rc;

use wasmtime::Error;

use super::{Gateway, StreamId, Worker};
use crate::host::{Dialect, Here};
use crate::vm::Vm;

/// WasmX: a hash of the filter's name; Envoy counts from 1.
const NGINX_ROOT: u32 = 1_300_421_668;

impl Default for Worker {
    fn default() -> Self {
        Self {
            vm: None,
            roots: Vec::new(),
            draining: Vec::new(),
            retiring: false,
            next_context: 1,
            fuel_before: 0,
        }
    }
}

impl Gateway {
    /// A VM with all its root contexts; `started`: as a worker starts. After a trap, WasmX configures only.
    pub(super) fn make_vm(&mut self, worker: usize, started: bool) {
        let wasm = Rc::clone(&self.host.borrow().settings.wasm);
        self.workers[worker].fuel_before = 0;
        match Vm::new(&wasm, Rc::clone(&self.host)) {
            Ok(vm) => self.workers[worker].vm = Some(vm),
            Err(error) => {
                let what = format!("{error:#}");
                self.host.borrow_mut().violation("instantiate", what);
                return;
            }
        }
        self.host
            .borrow_mut()
            .tick_set
            .retain(|(w, _)| *w != worker);
        self.workers[worker].draining.clear();
        self.make_roots(worker, started);
    }

    /// A root context for each filter of the chain.
    fn make_roots(&mut self, worker: usize, started: bool) {
        let configurations = {
            let settings = &self.host.borrow().settings;
            let mut all = vec![settings.configuration.clone()];
            all.extend(settings.further.iter().cloned());
            all
        };
        self.workers[worker].roots.clear();
        for (n, configuration) in configurations.into_iter().enumerate() {
            let place = &mut self.workers[worker];
            let root = match self.host.borrow().settings.dialect {
                Dialect::Wasmx => NGINX_ROOT + n as u32,
                Dialect::Envoy => {
                    place.next_context += 1;
                    place.next_context - 1
                }
            };
            place.next_context = place.next_context.max(2);
            place.roots.push(root);
            let size = configuration.len() as u32;
            self.host
                .borrow_mut()
                .roots
                .insert((worker, root), configuration);
            let _ = self.callback(worker, root, "proxy_on_context_create", &[root, 0]);
            if started {
                let _ = self.callback(worker, root, "proxy_on_vm_start", &[root, 0]);
            }
            let configured = self.callback(worker, root, "proxy_on_configure", &[root, size]);
            if !matches!(configured, Ok(Some(1))) {
                self.refused = true;
            }
        }
    }

    /// A worker with an empty VM, as after a crash or a restart. Its requests are lost; so are the answers
    /// to its calls.
    pub fn restart(&mut self, worker: usize) {
        self.start_anew(self.live[worker]);
        self.settle();
    }

    fn start_anew(&mut self, worker: usize) {
        self.lose(worker);
        self.make_vm(worker, true);
    }

    /// Everything of this worker ends at once, without a callback.
    fn lose(&mut self, worker: usize) {
        let mut host = self.host.borrow_mut();
        for ((_, _), stream) in host.streams.iter_mut().filter(|((w, _), _)| *w == worker) {
            stream.gone |= !stream.over;
            stream.over = true;
            for hop in &mut stream.hops {
                hop.calls = 0;
                hop.created = false;
            }
        }
        host.owners.retain(|(w, _), _| *w != worker);
        host.roots.retain(|(w, _), _| *w != worker);
        host.calls.retain(|call| call.worker != worker);
        host.ticks.retain(|tick| tick.worker != worker);
        drop(host);
        self.workers[worker].vm = None;
    }

    /// The filter is taken out of this worker in order, as after a change of Envoy's configuration.
    pub fn remove(&mut self, worker: usize) {
        let worker = self.live[worker];
        for root in self.workers[worker].roots.clone() {
            self.delete_root(worker, root);
        }
        self.workers[worker].vm = None;
    }

    /// Envoy: root contexts with this configuration, in the same VMs; what is under way stays with the old
    /// ones until [`Self::drain`]. WasmX (HUP): new workers; the old ones end with their last request, and
    /// shared data is empty.
    pub fn reload(&mut self, configuration: &str) {
        self.host.borrow_mut().settings.configuration = configuration.as_bytes().to_vec();
        match self.dialect() {
            Dialect::Envoy => {
                for worker in self.live.clone() {
                    if self.workers[worker].vm.is_none() {
                        continue;
                    }
                    let old = std::mem::take(&mut self.workers[worker].roots);
                    self.workers[worker].draining.extend(old);
                    self.make_roots(worker, true);
                }
            }
            Dialect::Wasmx => {
                let count = self.live.len();
                for worker in std::mem::take(&mut self.live) {
                    self.workers[worker].retiring = true;
                    let mut host = self.host.borrow_mut();
                    host.ticks.retain(|tick| tick.worker != worker);
                }
                self.host.borrow_mut().shared.clear();
                for _ in 0..count {
                    let worker = self.workers.len();
                    self.workers.push(Worker::default());
                    self.live.push(worker);
                    self.make_vm(worker, true);
                }
            }
        }
        self.settle();
    }

    /// Envoy: the old listener has drained: what is left of its requests is reset, and its root contexts
    /// are deleted.
    pub fn drain(&mut self) {
        for worker in 0..self.workers.len() {
            for root in std::mem::take(&mut self.workers[worker].draining) {
                for id in self.open_streams(|w, stream| {
                    w == worker && stream.hops.iter().any(|hop| hop.root == root)
                }) {
                    self.with_stream(id, |stream| stream.reset = true);
                    self.end_stream(id);
                }
                self.delete_root(worker, root);
            }
        }
        self.settle();
    }

    fn delete_root(&mut self, worker: usize, root: u32) {
        for name in ["proxy_on_done", "proxy_on_delete"] {
            if self.callback(worker, root, name, &[root]).is_err() {
                self.trapped(worker, None);
            }
        }
        let mut host = self.host.borrow_mut();
        host.roots.remove(&(worker, root));
        // Calls end with the context that they belong to.
        host.calls
            .retain(|call| (call.worker, call.context) != (worker, root));
        host.ticks
            .retain(|tick| (tick.worker, tick.root) != (worker, root));
    }

    /// WasmX: workers that were replaced and have no request any more.
    pub(super) fn end_retired(&mut self) {
        for worker in 0..self.workers.len() {
            if self.workers[worker].retiring
                && self.workers[worker].vm.is_some()
                && self.open_streams(|w, _| w == worker).is_empty()
            {
                self.lose(worker);
            }
        }
    }

    pub(super) fn open_streams(
        &self,
        wanted: impl Fn(usize, &crate::stream::Stream) -> bool,
    ) -> Vec<StreamId> {
        let host = self.host.borrow();
        let open = host
            .streams
            .iter()
            .filter(|((worker, _), stream)| !stream.over && wanted(*worker, stream));
        open.map(|((worker, context), _)| StreamId {
            worker: *worker,
            context: *context,
        })
        .collect()
    }

    /// Calls into a VM. An error is a trap, which is on record already.
    pub(super) fn callback(
        &mut self,
        worker: usize,
        context: u32,
        name: &'static str,
        arguments: &[u32],
    ) -> Result<Option<u32>, Error> {
        {
            let mut host = self.host.borrow_mut();
            let shown = host.here.shown.take();
            let root = host.root_of(worker, context);
            host.here = Here {
                worker,
                root,
                callback: name,
                context,
                effective: context,
                shown,
            };
        }
        let place = &mut self.workers[worker];
        let Some(vm) = place.vm.as_mut() else {
            return Err(Error::msg("the VM is dead"));
        };
        let result = vm.call(name, arguments);
        let fuel = vm.fuel();
        self.fuel += fuel - place.fuel_before;
        place.fuel_before = fuel;
        if let Err(error) = &result {
            let text = format!("{error:#}");
            let mut host = self.host.borrow_mut();
            let known = host
                .violations
                .last()
                .is_some_and(|v| text.contains(&v.what) || v.what.contains(&text));
            if !known {
                host.violation(name, format!("trap: {text}"));
            }
        }
        result
    }

    pub(super) fn has(&mut self, worker: usize, export: &str) -> bool {
        self.workers[worker]
            .vm
            .as_mut()
            .is_some_and(|vm| vm.has(export))
    }

    /// The VM is of no use any more, after a callback of this stream if it was one's. Envoy makes a new one
    /// for the next request (FAIL_RELOAD), and all requests in the old one get 503.
    pub(super) fn trapped(&mut self, worker: usize, id: Option<StreamId>) {
        if self.is_envoy() {
            self.workers[worker].vm = None;
            {
                let mut host = self.host.borrow_mut();
                host.ticks.retain(|tick| tick.worker != worker);
                host.calls.retain(|call| call.worker != worker);
                host.roots.retain(|(w, _), _| *w != worker);
            }
            for id in self.open_streams(|w, _| w == worker) {
                self.fail(id, 503);
            }
            return;
        }
        let crashed = std::mem::take(&mut self.host.borrow_mut().crashed);
        let others = self.open_streams(|w, stream| w == worker && stream.calls() > 0);
        if crashed || others.iter().any(|other| Some(*other) != id) {
            self.crash(worker, "a trap with other requests under way");
            return;
        }
        // The old timers stay: the avalanche of wasmx.md 0.9.
        self.workers[worker].vm = None;
        for open in self.open_streams(|w, _| w == worker) {
            self.with_stream(open, |stream| {
                for hop in &mut stream.hops {
                    hop.created = false;
                }
            });
        }
        self.make_vm(worker, false);
    }

    /// WasmX: the worker process dies, and is started again.
    pub(super) fn crash(&mut self, worker: usize, why: &'static str) {
        self.host
            .borrow_mut()
            .violation("worker", format!("the worker exits on signal 11: {why}"));
        self.start_anew(worker);
    }
}
