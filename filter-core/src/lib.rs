//! What the filter knows and decides, without a call to the host: the pure part of azure-key-vault-filter,
//! which shows the way through it.
//!
//! It is a package of its own for its size: all but what runs on every request is compiled to be small.
//! What does run on every request is `#[inline]` here, which has it compiled with the filter, for speed.

// Without the standard library's way to panic the filter is 26 KB smaller.
#![cfg_attr(all(target_os = "wasi", not(feature = "pkcs12")), no_std)]
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
pub mod budget;
pub mod cache;
pub mod config;
pub mod events;
pub mod failure;
pub mod json;
pub mod metrics;
pub mod placement;
pub mod policy;
pub mod query;
pub mod quoted;
pub mod redact;
pub mod reference;
pub mod resolver;
pub mod seal;
pub mod secret;
pub mod subkey;
pub mod template;
pub mod time;
