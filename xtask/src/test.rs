//! `cargo xtask test`: everything that CI runs, with the time that each step took and one line of counts
//! at the end.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::steps::{cargo, run};
use crate::{docker, engines, provision, wasm};

/// Passed, failed, left out.
#[derive(Default)]
struct Counts([u64; 3]);

/// Requests that `--long` simulates.
const MANY_REQUESTS: &str = "1000000";

/// Everything; with `filter`, only `cargo test` with these arguments; with `fast`, no lints; with `long`, more
/// simulated requests; with `docker`, the compose files too. The counts are the last line of the output,
/// whatever happens.
pub(crate) fn all(filter: &[String], fast: bool, long: bool, docker: bool) -> ExitCode {
    let start = Instant::now();
    let mut summary = Summary::default();
    let counts = summary.everything(filter, fast || !filter.is_empty(), long);
    let mut counts = counts.unwrap_or_default();
    if docker {
        summary.docker(&mut counts);
    }
    let failed = summary.failed();
    println!("\n{summary}");
    println!("all of it took {}", in_words(start.elapsed()));
    if !failed.is_empty() {
        println!("error: failed: {}", failed.join(", "));
    }
    let [ok, failures, skipped] = counts.0;
    println!("{ok} passed, {failures} failed, {skipped} skipped");
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What was done, how long it took and whether it went well.
#[derive(Default)]
struct Summary(Vec<(&'static str, Duration, bool)>);

impl Summary {
    /// `None` when something that the tests need could not be built or installed. A lint that fails does not
    /// keep the tests from running: one run of CI shows everything.
    fn everything(&mut self, filter: &[String], fast: bool, long: bool) -> Option<Counts> {
        let full = self.step("full filter", || wasm::build(wasm::Variant::Full))?;
        let built = self.step("filter", || wasm::build(wasm::Variant::Standard))?;
        println!("{built}\n{full}");
        let peer = self.step("bench's peers", wasm::build_peer)?;
        if !fast {
            self.lint();
        }
        let envoy = self.step("Envoy", provision::envoy)?;
        let python = self.step("Azure's Python SDK", provision::python_with_sdk)?;
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
            .env("AKV_FILTER_WASM", &built.path)
            .env("AKV_FULL_FILTER_WASM", &full.path)
            .env("AKV_PEER_WASM", peer);
        if long {
            tests.env("AKV_REQUESTS", MANY_REQUESTS);
        }
        let mut counts = Counts::default();
        self.step("tests", || stream(&mut tests, &mut counts));
        if !fast {
            self.engine("tests in Node", engines::wasm_engine, &mut counts);
            self.engine("fuzz targets", engines::fuzz, &mut counts);
        }
        Some(counts)
    }

    fn engine(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<engines::Outcome>,
        counts: &mut Counts,
    ) {
        match self.step(name, work) {
            Some(engines::Outcome::Passed(count)) => counts.0[0] += count,
            Some(engines::Outcome::Skipped(why)) => {
                println!("{name}: skipped: {why}");
                counts.0[2] += 1;
            }
            None => counts.0[1] += 1,
        }
    }

    /// Format, lints for both targets, and the documentation.
    fn lint(&mut self) {
        let lint = |what, words: &str| run(what, cargo().args(words.split(' '))).map(drop);
        self.step("format", || {
            lint("checking the format", "fmt --all --check")
        });
        self.step("clippy", || {
            let words = "clippy --workspace --all-features --all-targets --locked -- -D warnings";
            lint("checking with clippy", words)
        });
        // Debian's toolchain builds the standard library along, which clippy does not.
        if wasm::has_target().unwrap_or(false) {
            self.step("clippy for Wasm", || {
                let words = "clippy --package azure-key-vault-filter --target wasm32-wasip1 --locked -- -D warnings";
                lint("checking the Wasm code with clippy", words)
            });
        }
        self.step("documentation", || {
            let words = "doc --workspace --no-deps --document-private-items --locked";
            let mut doc = cargo();
            doc.args(words.split(' '))
                .env("RUSTDOCFLAGS", "-D warnings");
            run("checking the documentation", &mut doc).map(drop)
        });
    }

    /// The compose files; one that cannot be run for want of an engine or an image counts as skipped.
    fn docker(&mut self, counts: &mut Counts) {
        let start = Instant::now();
        let each = docker::test();
        self.0.push(("Docker", start.elapsed(), each[1] == 0));
        for (count, more) in counts.0.iter_mut().zip(each) {
            *count += more;
        }
    }

    fn step<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        let start = Instant::now();
        let result = work();
        self.0.push((name, start.elapsed(), result.is_ok()));
        result
            .inspect_err(|error| eprintln!("error: {name}: {error:#}"))
            .ok()
    }

    fn failed(&self) -> Vec<&'static str> {
        let failed = self.0.iter().filter(|(_, _, ok)| !ok);
        failed.map(|(name, _, _)| *name).collect()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, took, ok) in &self.0 {
            let ok = if *ok { "ok" } else { "FAILED" };
            writeln!(f, "{name:<20} {:>7.1} s  {ok}", took.as_secs_f64())?;
        }
        Ok(())
    }
}

fn in_words(span: Duration) -> String {
    format!("{} min {:02} s", span.as_secs() / 60, span.as_secs() % 60)
}

/// Shows the output as it comes, and adds up what the test programs count.
fn stream(command: &mut Command, counts: &mut Counts) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo cannot be run")?;
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            let line = line?;
            println!("{line}");
            counts.add(&line);
        }
    }
    let ended = child.wait()?;
    if !ended.success() {
        bail!("cargo test ended with {ended}");
    }
    if counts.0[0] == 0 {
        bail!("no test ran");
    }
    Ok(())
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
    fn a_step_that_fails_is_named_and_the_next_one_runs() {
        let mut summary = Summary::default();
        assert_eq!(summary.step("lint", || bail!("no")), None::<()>);
        assert_eq!(summary.step("tests", || Ok(1)), Some(1));
        assert_eq!(summary.failed(), ["lint"]);
        let table = summary.to_string();
        assert_eq!(
            table,
            "lint                     0.0 s  FAILED\ntests                    0.0 s  ok\n"
        );
    }

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
