//! The release filter: the Wasm target where it is missing, the build, and what came out.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use crate::steps::{cargo, run, workspace};

const TARGET: &str = "wasm32-wasip1";
/// What Debian calls the pieces of a Rust for Wasm.
const DEBIAN: [&str; 5] = ["rustc-web", "cargo-web", "rust-web-src", "wasi-libc", "lld"];

/// A filter that was built.
pub(crate) struct Built {
    /// Where it is.
    pub(crate) path: PathBuf,
    size: usize,
    gzipped: usize,
    sha256: String,
}

impl fmt::Display for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.path.display())?;
        writeln!(f, "  {} bytes, {} gzipped", self.size, self.gzipped)?;
        write!(f, "  sha256 {}", self.sha256)
    }
}

/// Builds the filter into `target/dist`.
pub(crate) fn build() -> Result<Built> {
    let folder = match toolchain()? {
        Toolchain::Rustup => {
            run(
                "building the filter",
                build_command(&mut cargo()).env("RUSTFLAGS", remap()),
            )?;
            target_folder()
        }
        Toolchain::Debian => build_with_debian()?,
    };
    let dist = workspace().join("target/dist");
    fs::create_dir_all(&dist).context("making target/dist")?;
    let from = folder
        .join(TARGET)
        .join("release/azure_key_vault_filter.wasm");
    let path = dist.join("azure_key_vault_filter.wasm");
    fs::copy(&from, &path).with_context(|| format!("copying {}", from.display()))?;
    measure(path)
}

fn build_command(cargo: &mut Command) -> &mut Command {
    cargo.args([
        "build",
        "--release",
        "--locked",
        "--target",
        TARGET,
        "--package",
        "azure-key-vault-filter",
    ])
}

fn target_folder() -> PathBuf {
    let given = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    given.unwrap_or_else(|| workspace().join("target"))
}

/// The same file from every folder and every home: no path of this machine in it.
fn remap() -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let mut flags = format!("--remap-path-prefix={}=/filter", workspace().display());
    if let Some(home) = home {
        flags.push_str(&format!(" --remap-path-prefix={}=/cargo", home.display()));
    }
    flags
}

enum Toolchain {
    /// The toolchain that runs this, with the target added.
    Rustup,
    /// The distribution's, which brings the standard library as source.
    Debian,
}

/// A toolchain that can build for Wasm: the one that is here, else with the target from rustup, else the
/// distribution's.
fn toolchain() -> Result<Toolchain> {
    if has_target()? {
        return Ok(Toolchain::Rustup);
    }
    let added = run(
        "getting the Wasm target (rustup)",
        Command::new("rustup").args(["target", "add", TARGET]),
    );
    match added {
        Ok(_) if has_target()? => return Ok(Toolchain::Rustup),
        Ok(_) => eprintln!("rustup added {TARGET}, but to another toolchain than this one"),
        Err(error) => eprintln!("{error:#}"),
    }
    if !has_debian() {
        let mut apt = Command::new("apt-get");
        run("getting the distribution's Rust for Wasm (apt-get)", apt.args(["install", "-y"]).args(DEBIAN))
            .with_context(|| format!(
                "the target {TARGET} is missing: run `rustup target add {TARGET}`, or install {} as root",
                DEBIAN.join(" ")
            ))?;
    }
    Ok(Toolchain::Debian)
}

pub(crate) fn has_target() -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut rustc = Command::new(rustc);
    let sysroot = run(
        "looking for the Wasm target",
        rustc.current_dir(workspace()).args(["--print", "sysroot"]),
    )?;
    Ok(Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(TARGET)
        .join("lib")
        .exists())
}

fn has_debian() -> bool {
    Path::new("/usr/lib/wasm32-wasi").exists() && Path::new("/usr/share/cargo-web").exists()
}

/// Debian's Rust has no compiled standard library for this target: it is built along.
fn build_with_debian() -> Result<PathBuf> {
    let cargo = [
        "/usr/share/cargo-web/bin/cargo",
        "/usr/bin/cargo-web",
        "/usr/bin/cargo",
    ];
    let Some(cargo) = cargo.iter().find(|path| Path::new(path).exists()) else {
        bail!("Debian's cargo-web is installed, but its cargo is not where it was expected");
    };
    let folder = target_folder().join("debian");
    let mut command = Command::new(cargo);
    build_command(command.current_dir(workspace()))
        .args(["-Zbuild-std=std,panic_abort"])
        .env_remove("RUSTUP_TOOLCHAIN")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", format!("{} -L/usr/lib/wasm32-wasi", remap()));
    run("building the filter with Debian's Rust", &mut command)?;
    Ok(folder)
}

fn measure(path: PathBuf) -> Result<Built> {
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&bytes)?;
    let sha256 = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(Built {
        path,
        size: bytes.len(),
        gzipped: gzip.finish()?.len(),
        sha256,
    })
}
