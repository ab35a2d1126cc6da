//! What a gateway is started with: which host, which module and configuration, and the host's own
//! settings that change how a filter has to behave.

use std::rc::Rc;

use crate::host::Dialect;

/// How requests come to the filter in WasmX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// Kong: the Lua bridge, and `ngx.kong_request_id`.
    Kong,
    /// nginx with the Lua bridge, without Kong.
    Bridge,
    /// nginx without the bridge: on a kept connection, a local reply from a call's answer does not stop
    /// the request.
    Plain,
    /// The same with `proxy_wasm_request_headers_in_access on`, which cures it.
    PlainInAccess,
}

/// What a gateway is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which host.
    pub dialect: Dialect,
    /// Worker threads or processes; Envoy has one more VM on its main thread.
    pub workers: usize,
    /// The module.
    pub wasm: Rc<[u8]>,
    /// The configuration of the filter, or of the first filter of a chain.
    pub configuration: Vec<u8>,
    /// The configurations of further filters in the chain: the same module in the same VM, with a root
    /// context each.
    pub further: Vec<Vec<u8>>,
    /// What the filter sees of the environment.
    pub environment: Vec<(String, String)>,
    /// Envoy's clusters.
    pub clusters: Vec<String>,
    /// Those of them that have no hosts.
    pub empty_clusters: Vec<String>,
    /// WasmX: the size of the shared-data zone, if there is one.
    pub zone: Option<usize>,
    /// WasmX: whether there are metrics (Kong 3.9 on); all calls about them trap without.
    pub metrics: bool,
    /// How many metrics there is room for (WasmX: its slab).
    pub metric_room: usize,
    /// WasmX: whether answers have `:dispatch_status` (Kong 3.9 on).
    pub dispatch_status: bool,
    /// WasmX: larger request bodies go into a file. Envoy: the connection's buffer limit; a larger request
    /// body that is held is answered with 413.
    pub body_limit: usize,
    /// Envoy: the same limit for responses; a larger one that is held ends in 500 or a reset.
    pub response_limit: usize,
    /// In how large pieces response bodies come.
    pub response_chunk: usize,
    /// Envoy: `allow_on_headers_stop_iteration`: a pause in the header phase holds the headers only, and
    /// body callbacks go on.
    pub hold_headers: bool,
    /// WasmX: nginx's `proxy_buffering`.
    pub proxy_buffering: bool,
    /// WasmX: how requests come to the filter.
    pub front: Front,
    /// A bug that a filter might have, brought in between the filter and the host: a test of tests.
    pub planted: Option<Planted>,
    /// The clock at the start, in milliseconds since the Unix epoch.
    pub start: u64,
    /// Of all chance.
    pub seed: u64,
}

impl Settings {
    /// Two workers, the clusters of the emulated Azure, and a zone of 1 MiB.
    #[must_use]
    pub fn new(dialect: Dialect, wasm: Rc<[u8]>, configuration: &str) -> Self {
        let clusters = ["key_vault", "azure_identity", "managed_identity"];
        Self {
            dialect,
            workers: 2,
            wasm,
            configuration: configuration.as_bytes().to_vec(),
            further: Vec::new(),
            environment: Vec::new(),
            clusters: clusters.map(str::to_owned).to_vec(),
            empty_clusters: Vec::new(),
            zone: Some(1 << 20),
            dispatch_status: true,
            metrics: true,
            metric_room: usize::MAX,
            body_limit: match dialect {
                Dialect::Envoy => 1 << 20,
                Dialect::Wasmx => 16 << 10,
            },
            response_limit: 1 << 20,
            response_chunk: usize::MAX,
            hold_headers: false,
            proxy_buffering: true,
            front: Front::Kong,
            planted: None,
            start: 1_750_000_000_000,
            seed: 1,
        }
    }
}

/// A filter's bug. Each takes effect now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A request that could go on is not resumed, or its own call is forgotten.
    Hang,
    /// A header's new value is written to the log.
    Leak,
    /// A callback panics.
    Panic,
    /// A header gets an older value of its secret: values are `mark-name#version`.
    Stale,
    /// A header gets another secret's value.
    Mixed,
}
