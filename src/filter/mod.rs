//! The rim: all that calls the gateway. Callbacks come in through `root`, host calls go out through
//! [`host`]; a message's way in between is `request` or `response`, then `waiting`.

#![cfg_attr(
    not(target_os = "wasi"),
    allow(
        dead_code,
        reason = "natively the rim is compiled and linted, but only the SDK's entry points call it"
    )
)]

mod answer;
mod audit;
mod calls;
mod exchange;
pub mod header_map;
mod held;
pub mod host;
mod message;
mod meters;
mod plugin;
mod prepared;
mod redirect;
mod reply;
mod request;
mod response;
#[cfg(target_os = "wasi")]
pub(crate) mod root;
pub(crate) mod seen;
mod waiting;
