//! The release filter: the Wasm target where it is missing, the build, and what came out.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use crate::release;
use crate::steps::{ask, cargo, run, workspace};

const TARGET: &str = "wasm32-wasip1";
/// What Debian calls the pieces of a Rust for Wasm.
const DEBIAN: [&str; 5] = ["rustc-web", "cargo-web", "rust-web-src", "wasi-libc", "lld"];

/// Where it puts them; a name on the path may be rustup's.
const DEBIANS_CARGO: &str = "/usr/bin/cargo";
const DEBIANS_RUSTC: &str = "/usr/bin/rustc";

/// A filter that was built.
pub(crate) struct Built {
    /// Where it is.
    pub(crate) path: PathBuf,
    pub(crate) size: usize,
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

/// Which filter: RSA and PKCS#12 are as large as all the rest, and few need them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// `target/dist/azure_key_vault_filter.wasm`
    Standard,
    /// With every feature: `target/dist/full/azure_key_vault_filter.wasm`. The same name, because Kong
    /// knows a filter by its file's name.
    Full,
}

/// Builds the filter into `target/dist`.
pub(crate) fn build(variant: Variant) -> Result<Built> {
    let what = match variant {
        Variant::Standard => "building the filter",
        Variant::Full => "building the filter with every feature",
    };
    let (from, compiler) = compile(what, "azure-key-vault-filter", "release", features(variant))?;
    let dist = workspace().join(match variant {
        Variant::Standard => "target/dist",
        Variant::Full => "target/dist/full",
    });
    fs::create_dir_all(&dist).context("making target/dist")?;
    let path = dist.join("azure_key_vault_filter.wasm");
    fs::copy(&from, &path).with_context(|| format!("copying {}", from.display()))?;
    copy_schema(&dist)?;
    let built = measure(path)?;
    release::write(&release::Artifact {
        path: &built.path,
        sha256: &built.sha256,
        features: features(variant),
        target: TARGET,
        rust: &version(&compiler)?,
    })?;
    Ok(built)
}

/// Builds the filters that the bench measures this one against.
pub(crate) fn build_peer() -> Result<PathBuf> {
    let (from, _) = compile("building its peers in Wasm", "bench-peer", "peer", &[])?;
    let folder = workspace().join("target/bench");
    fs::create_dir_all(&folder).context("making target/bench")?;
    let path = folder.join("bench_peer.wasm");
    fs::copy(&from, &path).with_context(|| format!("copying {}", from.display()))?;
    Ok(path)
}

/// Compiles a package for Wasm with the toolchain that can; gives the file and the compiler.
fn compile(
    what: &str,
    package: &str,
    profile: &str,
    features: &[&str],
) -> Result<(PathBuf, OsString)> {
    let (folder, compiler) = match toolchain()? {
        Toolchain::Rustup => {
            let mut cargo = cargo();
            let command = build_command(&mut cargo, package, profile, features);
            run(what, command.env("RUSTFLAGS", flags(&rustc())?))?;
            (target_folder(), rustc())
        }
        Toolchain::Debian => {
            let folder = build_with_debian(what, package, profile, features)?;
            (folder, DEBIANS_RUSTC.into())
        }
    };
    let file = format!("{profile}/{}.wasm", package.replace('-', "_"));
    Ok((folder.join(TARGET).join(file), compiler))
}

/// Cargo's options for a variant's features.
const fn features(variant: Variant) -> &'static [&'static str] {
    match variant {
        Variant::Standard => &[],
        Variant::Full => &["--features", "client_certificate,pkcs12"],
    }
}

/// Kong reads a filter's configuration schema from beside the filter.
fn copy_schema(dist: &Path) -> Result<()> {
    let name = "azure_key_vault_filter.meta.json";
    let from = workspace().join("filter-config").join(name);
    if from.exists() {
        fs::copy(&from, dist.join(name)).with_context(|| format!("copying {}", from.display()))?;
    }
    Ok(())
}

fn build_command<'c>(
    cargo: &'c mut Command,
    package: &str,
    profile: &str,
    features: &[&str],
) -> &'c mut Command {
    cargo.arg("build").args(features).args([
        "--profile",
        profile,
        "--locked",
        "--target",
        TARGET,
        "--package",
        package,
    ])
}

pub(crate) fn target_folder() -> PathBuf {
    let given = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    given.unwrap_or_else(|| workspace().join("target"))
}

/// The same file from every folder, home and toolchain folder, with no path of this machine in it.
fn remap(rustc: &OsStr) -> Result<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let mut flags = format!("--remap-path-prefix={}=/filter", workspace().display());
    if let Some(home) = home {
        flags.push_str(&format!(" --remap-path-prefix={}=/cargo", home.display()));
    }
    // With the component rust-src, rustc writes its path on this machine instead of this one.
    let source = sysroot(rustc)?.join("lib/rustlib/src/rust");
    flags.push_str(&format!(
        " --remap-path-prefix={}=/rustc/{}",
        source.display(),
        commit(rustc)?
    ));
    Ok(flags)
}

/// The compiler's flags beside the profile.
fn flags(rustc: &OsStr) -> Result<String> {
    let mut flags = remap(rustc)?;
    // Both hosts' engines have it, and the search for references takes a fifth of the instructions.
    flags.push_str(" -Ctarget-feature=+simd128");
    // Addresses take the bytes that they need, not five each: 30 KB.
    flags.push_str(" -Clink-arg=--compress-relocations");
    Ok(flags)
}

/// The commit that rustc was built from.
fn commit(rustc: &OsStr) -> Result<String> {
    fact(rustc, "commit-hash: ")
}

/// rustc's version: `1.95.0`.
fn version(rustc: &OsStr) -> Result<String> {
    fact(rustc, "release: ")
}

/// A line of what rustc says of itself.
fn fact(rustc: &OsStr, name: &str) -> Result<String> {
    let version = ask(
        "asking rustc for its version",
        in_workspace(rustc).arg("-vV"),
    )?;
    let fact = version.lines().find_map(|line| line.strip_prefix(name));
    Ok(fact.unwrap_or("unknown").to_owned())
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
    // To try what happens without rustup.
    if std::env::var_os("AKV_WASM_TOOLCHAIN").is_some_and(|name| name == "debian") {
        return Ok(Toolchain::Debian);
    }
    if has_target()? {
        return Ok(Toolchain::Rustup);
    }
    let added = run(
        "getting the Wasm target (rustup)",
        // In the workspace, where an override may choose the toolchain.
        Command::new("rustup")
            .args(["target", "add", TARGET])
            .current_dir(workspace()),
    );
    match added {
        Ok(_) if has_target()? => return Ok(Toolchain::Rustup),
        Ok(_) => eprintln!("rustup added {TARGET}, but to another toolchain than this one"),
        Err(error) => eprintln!("{error:#}"),
    }
    if !has_debian() {
        install_debian().with_context(|| {
            format!(
                "the target {TARGET} is missing: run `rustup target add {TARGET}`, or on Debian as root `apt-get install {}`",
                DEBIAN.join(" ")
            )
        })?;
    }
    Ok(Toolchain::Debian)
}

/// Never asks for a password: a user who is not root gets an error that says what to install.
fn install_debian() -> Result<()> {
    let user = ask("asking who this is", Command::new("id").arg("-u"))?;
    if user.trim() != "0" {
        bail!("only root can install Debian's packages");
    }
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "--no-install-recommends"])
        .args(DEBIAN);
    run(
        "getting the distribution's Rust for Wasm (apt-get)",
        &mut apt,
    )
    .map(drop)
}

pub(crate) fn has_target() -> Result<bool> {
    let libraries = sysroot(&rustc())?
        .join("lib/rustlib")
        .join(TARGET)
        .join("lib");
    Ok(libraries.exists())
}

fn rustc() -> OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

/// In the workspace, an override may choose the toolchain.
fn in_workspace(rustc: &OsStr) -> Command {
    let mut rustc = Command::new(rustc);
    rustc.current_dir(workspace());
    rustc
}

fn sysroot(rustc: &OsStr) -> Result<PathBuf> {
    let mut rustc = in_workspace(rustc);
    let sysroot = ask(
        "asking rustc for its folder",
        rustc.args(["--print", "sysroot"]),
    )?;
    Ok(PathBuf::from(sysroot.trim()))
}

fn has_debian() -> bool {
    let pieces = [
        "/usr/lib/wasm32-wasi",
        "/usr/lib/rustlib/src",
        DEBIANS_CARGO,
        DEBIANS_RUSTC,
    ];
    pieces.iter().all(|piece| Path::new(piece).exists())
}

/// Debian's Rust has no compiled standard library for this target: it is built along.
fn build_with_debian(
    what: &str,
    package: &str,
    profile: &str,
    features: &[&str],
) -> Result<PathBuf> {
    let folder = target_folder().join("debian");
    let mut command = Command::new(DEBIANS_CARGO);
    build_command(command.current_dir(workspace()), package, profile, features)
        .args(["-Zbuild-std=std,panic_abort"])
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .env("RUSTC", DEBIANS_RUSTC)
        // Building the standard library is not stable yet, and this is a release toolchain.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_WASIP1_LINKER", "wasm-ld")
        .env("CARGO_TARGET_DIR", &folder)
        .env(
            "RUSTFLAGS",
            format!("{} -L/usr/lib/wasm32-wasi", flags(DEBIANS_RUSTC.as_ref())?),
        );
    run(&format!("{what} with Debian's Rust"), &mut command)?;
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
