//! A Proxy-Wasm host inside a test: it runs a real `.wasm` under wasmtime with the calls of ABI 0.2.1, in
//! the dialect of Envoy 1.40 or of WasmX (Kong Gateway 3.4 to 3.10), with a clock, chance, network and
//! clients that the test moves. What the real hosts do was measured; each difference is in the code under
//! the name of its dialect. It knows nothing of the filter that it runs.
//!
//! ```text
//!   settings  which host, which module, and the host's own settings
//!   gateway   the process: workers with their VMs, requests, the clock       (what a test holds)
//!             envoy and wasmx below it carry messages through the chain's filters
//!   vm        one VM in wasmtime: memory, imports, fuel
//!   host      what the host functions do, without any Wasm
//!   stream    one request and its response, as the filters see them and as the wire has them
//!   shared    shared data, with each dialect's idea of keys and writes
//!   calls     HTTP calls out and the ways in which they end
//!   azure     an emulated Azure behind those calls
//! ```
//!
//! A host call that a real host would punish (a trap, a crash, a hang, a split request) is a
//! [`Violation`]: it takes its course as it would there, and is on record for the test.

pub mod azure;
mod calls;
mod gateway;
mod headers;
mod host;
mod settings;
mod shared;
mod stream;
mod vm;

pub use calls::{Call, Ending};
pub use gateway::{Gateway, StreamId};
pub use headers::Headers;
pub use host::{Dialect, Level, LogLine, Violation};
pub use settings::{Front, Planted, Settings};
pub use stream::{Answer, Outcome, Request, Response, Sent};
pub use vm::{Cost, exports};
