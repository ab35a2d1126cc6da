//! Azure on the wire: requests built and answers read, both as plain values. It makes no calls and keeps
//! no state.

pub mod challenge;
pub mod cloud;
pub mod dates;
pub mod forms;
pub mod http;
pub mod identity;
mod json;
pub mod key_vault;
#[cfg(feature = "pkcs12")]
mod pkcs12;
mod stranger;
