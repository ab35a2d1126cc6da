//! `cargo xtask reference`: what a reference means, for people and for scripts.

use std::io::{BufRead as _, Write as _};

use anyhow::Result;
use azure_key_vault_filter::reference::explain;

/// Explains `text`, or every line of standard input for `-`. A refused reference is explained too: its
/// JSON has an `error`.
pub(crate) fn run(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if text != "-" {
        writeln!(out, "{}", explain(text))?;
        return Ok(());
    }
    for line in std::io::stdin().lock().lines() {
        writeln!(out, "{}", explain(&line?))?;
    }
    Ok(())
}
