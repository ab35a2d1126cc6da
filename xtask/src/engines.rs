//! Tests that need more than cargo: the pure parts inside a Wasm engine, and the fuzz targets for a few
//! seconds each. Their tools are installed once into `target/tools`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::steps::{ask, cargo, run, workspace};

const TARGET: &str = "wasm32-unknown-unknown";
/// How long each fuzz target runs.
const SECONDS: u64 = 5;

/// The outcome of the tests in one engine.
pub(crate) enum Outcome {
    /// So many tests, or targets, went well.
    Passed(u64),
    /// This is missing here, and cargo cannot install it.
    Skipped(String),
}

/// The tests of `tests/engine` in Node.
pub(crate) fn wasm_engine() -> Result<Outcome> {
    if ask("asking for Node", Command::new("node").arg("--version")).is_err() {
        return Ok(Outcome::Skipped("there is no Node".to_owned()));
    }
    let mut rustup = Command::new("rustup");
    rustup
        .args(["target", "add", TARGET])
        .current_dir(workspace());
    if let Err(error) = run("getting the target for Node (rustup)", &mut rustup) {
        return Ok(Outcome::Skipped(format!("{error:#}")));
    }
    let runner = bindgen_runner()?;
    let output = run(
        "testing the pure parts in Node",
        cargo()
            .args([
                "test",
                "--locked",
                "--package",
                "engine-tests",
                "--target",
                TARGET,
                "--test",
                "pure",
            ])
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", runner),
    )?;
    let passed = output
        .lines()
        .filter_map(|line| line.strip_prefix("test result: ok. "))
        .filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok())
        .sum();
    if passed == 0 {
        bail!("no test ran in Node:\n{output}");
    }
    Ok(Outcome::Passed(passed))
}

/// wasm-bindgen's runner, of just the version that the tests are built with.
fn bindgen_runner() -> Result<PathBuf> {
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).context("reading Cargo.lock")?;
    let mut lines = lock.lines();
    lines.find(|line| *line == "name = \"wasm-bindgen\"");
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix("version = \""))
        .map(|version| version.trim_end_matches('"'))
        .context("wasm-bindgen is not in Cargo.lock")?;
    install(
        "wasm-bindgen-cli",
        "wasm-bindgen-test-runner",
        Some(version),
    )
}

/// A program of crates.io, unless it is here.
fn install(package: &str, program: &str, version: Option<&str>) -> Result<PathBuf> {
    let folder = workspace().join("target/tools");
    let marker = folder.join(format!("{program}-{}", version.unwrap_or("any")));
    let path = folder.join("bin").join(program);
    if path.exists() && marker.exists() {
        return Ok(path);
    }
    let mut command = cargo();
    // Not `--locked`: a version that its lock file names may have left the mirror.
    command
        .args(["install", "--quiet", "--force", package, "--root"])
        .arg(&folder);
    if let Some(version) = version {
        command.args(["--version", version]);
    }
    run(&format!("getting {package} (crates.io)"), &mut command)?;
    fs::write(&marker, "").context("noting what was installed")?;
    Ok(path)
}

/// Every fuzz target over its corpus, and for some seconds beyond.
pub(crate) fn fuzz() -> Result<Outcome> {
    let fuzz = install("cargo-fuzz", "cargo-fuzz", None)?;
    let nightly = Command::new("rustup")
        .args(["run", "nightly", "rustc", "--version"])
        .output();
    let nightly = nightly.is_ok_and(|output| output.status.success());
    if !nightly {
        return Ok(Outcome::Skipped("there is no nightly toolchain".to_owned()));
    }
    let targets = workspace().join("fuzz/fuzz_targets");
    let mut ran = 0;
    for entry in fs::read_dir(&targets).with_context(|| format!("reading {}", targets.display()))? {
        let path = entry?.path();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else {
            continue;
        };
        // What is found here is not for the repository.
        let found = workspace().join("target/fuzz-corpus").join(name);
        fs::create_dir_all(&found).context("making target/fuzz-corpus")?;
        let mut command = Command::new("rustup");
        command
            .current_dir(workspace().join("fuzz"))
            .args(["run", "nightly"])
            .arg(&fuzz)
            .args(["fuzz", "run", name])
            .arg(&found)
            .arg(format!("corpus/{name}"))
            .args(["--", &format!("-max_total_time={SECONDS}"), "-max_len=4096"])
            .env_remove("CARGO")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("RUSTFLAGS");
        run(&format!("fuzzing {name} for {SECONDS} s"), &mut command)?;
        ran += 1;
    }
    Ok(Outcome::Passed(ran))
}
