//! `cargo xtask test`: everything that CI runs, with the time that each step took and one line of counts
//! at the end.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::steps::{cargo, run};
use crate::{provision, wasm};

/// Passed, failed, left out.
#[derive(Default)]
struct Counts([u64; 3]);

/// Format, lints for both targets, and the documentation.
fn lint() -> Result<()> {
    run(
        "checking the format",
        cargo().args(["fmt", "--all", "--check"]),
    )?;
    let clippy = [
        "clippy",
        "--workspace",
        "--all-features",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    run("checking with clippy", cargo().args(clippy))?;
    // Debian's toolchain builds the standard library along, which clippy does not.
    if wasm::has_target()? {
        let package = [
            "clippy",
            "--package",
            "azure-key-vault-filter",
            "--target",
            "wasm32-wasip1",
        ];
        let mut wasm = cargo();
        wasm.args(package)
            .args(["--locked", "--", "-D", "warnings"]);
        run("checking the Wasm code with clippy", &mut wasm)?;
    }
    let doc = [
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
        "--locked",
    ];
    run(
        "checking the documentation",
        cargo().args(doc).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    Ok(())
}

/// Everything; with `filter`, only `cargo test` with these arguments.
pub(crate) fn all(filter: &[String]) -> Result<()> {
    let start = Instant::now();
    let built = wasm::build()?;
    if filter.is_empty() {
        lint()?;
    }
    let envoy = provision::envoy()?;
    let python = provision::python_with_sdk()?;
    println!("{built}");
    let mut tests = cargo();
    tests
        .args([
            "test",
            "--workspace",
            "--all-features",
            "--locked",
            "--no-fail-fast",
        ])
        .args(filter)
        .env("ENVOY_BIN", envoy)
        .env("AKV_PYTHON", python)
        .env("AKV_FILTER_WASM", &built.path);
    let (counts, passed) = stream(&mut tests)?;
    println!("all of it took {}", in_words(start.elapsed()));
    let [ok, failed, skipped] = counts.0;
    println!("{ok} passed, {failed} failed, {skipped} skipped");
    if !passed {
        bail!("the tests failed");
    }
    if ok == 0 {
        bail!("no test ran");
    }
    Ok(())
}

fn in_words(span: Duration) -> String {
    format!("{} min {:02} s", span.as_secs() / 60, span.as_secs() % 60)
}

/// Shows the output as it comes, and adds up what the test programs count.
fn stream(command: &mut Command) -> Result<(Counts, bool)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo cannot be run")?;
    let mut counts = Counts::default();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            let line = line?;
            println!("{line}");
            counts.add(&line);
        }
    }
    Ok((counts, child.wait()?.success()))
}

impl Counts {
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; …`
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else {
            return;
        };
        for (count, word) in self.0.iter_mut().zip(["passed", "failed", "ignored"]) {
            let found = rest
                .split(['.', ';'])
                .find_map(|part| part.trim().strip_suffix(word));
            *count += found
                .and_then(|n| n.trim().parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let mut counts = Counts::default();
        counts.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s");
        counts
            .add("test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        counts.add("test something ... ok");
        assert_eq!(counts.0, [7, 2, 1]);
    }
}
