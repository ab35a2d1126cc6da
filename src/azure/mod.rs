//! Azure on the wire: requests built and answers read, both as plain values. It makes no calls and keeps
//! no state.

pub mod forms;
pub mod http;
pub mod key_vault;
pub mod oauth;
