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
//!     -> what to do next            resolver                 (state machine, no host calls)
//!     -> substitute, go on, refuse  filter                   (the only code that calls the host)
//! ```

// Without the standard library's way to panic the filter is 26 KB smaller. PKCS#12's reader needs it.
#![cfg_attr(all(target_os = "wasi", not(feature = "pkcs12")), no_std)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[macro_use]
extern crate alloc;

pub mod filter;

pub use filter_core::{
    azure, base64, body, budget, cache, config, events, failure, json, metrics, placement, policy,
    query, redact, reference, resolver, seal, secret, subkey, template, time,
};

/// Every block is wiped when it is freed: secrets pass through JSON parsers, growing buffers and header
/// lists, and this is the one place that all of them come back to.
#[cfg(target_os = "wasi")]
#[global_allocator]
static WIPING: zeroizing_alloc::ZeroAlloc<dlmalloc::GlobalDlmalloc> =
    zeroizing_alloc::ZeroAlloc(dlmalloc::GlobalDlmalloc);
