//! What end-to-end tests and the demo need around the filter: an Azure emulator, a real Envoy, an
//! upstream that reports what it got, and a client that can send anything.

pub mod client;
pub mod emulator;
pub mod envoy;
pub mod exchange;
pub mod lab;
pub mod leaks;
pub mod scripted;
pub mod upstream;
pub mod world;
