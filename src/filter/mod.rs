//! The rim: everything that talks to the gateway. Callbacks come in through [`vm`], host calls go out
//! through the trait in [`host`]; what to do in between is decided elsewhere.

#[cfg(target_os = "wasi")]
mod abi;
mod answer;
mod audit;
mod by_id;
mod gateway;
pub mod header_map;
pub mod host;
mod meters;
mod prepared;
mod reply;
pub(crate) mod seen;
pub mod vm;
