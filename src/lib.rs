//! A Proxy-Wasm filter that puts Azure Key Vault secrets into HTTP traffic at the gateway. Configuration
//! and clients carry references, `{vault://prefix/secret/key}`; only the gateway ever sees the values.
//!
//! A request's way, which is also the order in which to read the code:
//!
//! ```text
//!   request headers
//!     -> find references            template, reference      (pure)
//!     -> may this one be resolved?  policy, placement        (pure)
//!     -> cache                      cache                    (pure)
//!     -> token, secret              azure                    (pure: builds requests, reads answers)
//!     -> what to do next            fetch                    (state machine, no host calls)
//!     -> substitute, go on, refuse  filter                   (the only code that calls the host)
//! ```

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[macro_use]
extern crate alloc;

pub mod azure;
pub mod base64;
pub mod body;
pub mod cache;
pub mod config;
pub mod events;
pub mod failure;
pub mod fetch;
pub mod filter;
pub mod grpc;
pub mod json;
pub mod limits;
pub mod message;
pub mod metrics;
pub mod placement;
pub mod policy;
pub mod query;
pub mod quoted;
pub mod redact;
pub mod reference;
pub mod secret;
pub mod subkey;
pub mod template;
pub mod time;

/// The entry points that the host calls.
#[cfg(target_os = "wasi")]
#[allow(missing_docs, reason = "the SDK's macro makes the functions")]
mod entry {
    proxy_wasm::main! {{
        crate::filter::root::start();
    }}
}

/// Every block is wiped when it is freed: secrets pass through JSON parsers, growing buffers and header
/// lists, and this is the one place that all of them come back to.
#[cfg(target_os = "wasi")]
#[global_allocator]
static WIPING: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);
