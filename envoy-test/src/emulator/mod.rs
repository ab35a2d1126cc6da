//! An Azure that fits into a test: Entra ID's token endpoint, Key Vault's secrets and the managed
//! identity endpoints, with faults on demand and every call counted. What it speaks is what the official
//! SDK accepts (`tests/official_sdk.rs`) and what was recorded from the real services.

mod admin;
mod azure;
mod ca;
mod entra;
mod faults;
mod policy;
mod server;
mod vault;

pub use azure::{AppRegistration, Azure, CallRecord, Counts, Endpoint, Reply};
pub use ca::TestCa;
pub use entra::ExpiryForm;
pub use faults::{Cut, Failing, Fault};
pub use policy::Denial;
pub use server::{Options, Server};
