//! Nothing but a place for `tests/pure.rs`, which `cargo xtask test` runs in Node.
