//! `cargo xtask reference`: what a reference means, for people and for scripts.

use std::io::{BufRead as _, Write as _};

use anyhow::{Result, bail};
use azure_key_vault_filter::reference::explain;

/// Explains `text`, or every line of standard input for `-`. A refused reference on the command line is
/// an error; in a list it is one line among others.
pub(crate) fn run(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if text == "-" {
        for line in std::io::stdin().lock().lines() {
            writeln!(out, "{}", explain(&line?))?;
        }
        return Ok(());
    }
    let explained = explain(text);
    writeln!(out, "{explained}")?;
    if explained.get("error").is_some() {
        bail!("this reference is refused");
    }
    Ok(())
}
