//! What goes beside the filter: its hash, and a bill of materials (CycloneDX 1.5). Both depend on the source
//! and the toolchain alone, so that two builds can be compared file by file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::steps::{ask, cargo, workspace};

/// The package that is shipped.
const PACKAGE: &str = "azure-key-vault-filter";

/// A filter that was built.
pub(crate) struct Artifact<'a> {
    pub(crate) path: &'a Path,
    pub(crate) sha256: &'a str,
    /// The features that cargo built it with.
    pub(crate) features: &'a [&'a str],
    pub(crate) target: &'a str,
    /// `1.95.0`
    pub(crate) rust: &'a str,
}

/// Writes `FILE.sha256`, as `sha256sum --check` reads it, and `FILE.cdx.json`.
pub(crate) fn write(artifact: &Artifact<'_>) -> Result<()> {
    let name = artifact.path.file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    put(
        artifact,
        "sha256",
        &format!("{}  {name}\n", artifact.sha256),
    )?;
    let bill = bill_of_materials(artifact, &name)?;
    put(artifact, "cdx.json", &format!("{bill:#}\n"))
}

fn put(artifact: &Artifact<'_>, ending: &str, text: &str) -> Result<()> {
    let path = artifact.path.with_extension(format!("wasm.{ending}"));
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// A package that is in the filter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    license: String,
}

impl Package {
    fn url(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }
}

fn bill_of_materials(artifact: &Artifact<'_>, file: &str) -> Result<Value> {
    let mut tree = cargo();
    tree.args(["tree", "--locked", "--package", PACKAGE, "--target"])
        .arg(artifact.target)
        // Not `cargo metadata`, which adds the features that other members of the workspace want.
        .args(["--edges", "normal", "--prefix", "depth", "--no-dedupe"])
        .args(["--format", "|{p}|{l}"])
        .args(artifact.features);
    let tree = ask("asking cargo for the filter's dependencies", &mut tree)?;
    let lock = workspace().join("Cargo.lock");
    let lock = fs::read_to_string(&lock).with_context(|| format!("reading {}", lock.display()))?;
    Ok(bill(&read_tree(&tree), &checksums(&lock), artifact, file))
}

/// Every package with those that it depends on.
type Dependencies = BTreeMap<Package, BTreeSet<Package>>;

/// `1|serde v1.0.228|MIT OR Apache-2.0`, one a line, each below the one that wants it. The first is the filter;
/// other packages of this workspace, which have a folder behind their version, are parts of it.
fn read_tree(tree: &str) -> Dependencies {
    let mut dependencies = Dependencies::new();
    let mut above: Vec<Package> = Vec::new();
    for line in tree.lines() {
        let mut parts = line.splitn(3, '|');
        let depth = parts.next().and_then(|depth| depth.parse::<usize>().ok());
        let (Some(depth), Some(package)) = (depth, parts.next()) else {
            continue;
        };
        above.truncate(depth);
        let ours = package.ends_with(')') && package.contains("(/");
        if let (true, Some(filter)) = (ours, above.first()) {
            above.push(filter.clone());
            continue;
        }
        let mut words = package.split(' ');
        let package = Package {
            name: words.next().unwrap_or_default().to_owned(),
            version: words
                .next()
                .unwrap_or_default()
                .trim_start_matches('v')
                .to_owned(),
            // The older way to write it.
            license: parts.next().unwrap_or_default().replace('/', " OR "),
        };
        if let Some(parent) = above.last() {
            let wants = dependencies.entry(parent.clone()).or_default();
            wants.insert(package.clone());
        }
        dependencies.entry(package.clone()).or_default();
        above.push(package);
    }
    dependencies
}

/// Cargo.lock's checksums by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut checksums = BTreeMap::new();
    for block in lock.split("[[package]]") {
        let field = |name: &str| {
            let start = format!("{name} = \"");
            let line = block.lines().find_map(|line| line.strip_prefix(&start))?;
            Some(line.trim_end_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (field("name"), field("version"), field("checksum"))
        {
            checksums.insert((name, version), checksum);
        }
    }
    checksums
}

fn bill(
    dependencies: &Dependencies,
    checksums: &BTreeMap<(String, String), String>,
    artifact: &Artifact<'_>,
    file: &str,
) -> Value {
    let hash = |hash: &str| json!([{ "alg": "SHA-256", "content": hash }]);
    let component = |package: &Package| {
        let url = package.url();
        let mut component = json!({
            "type": "library",
            "bom-ref": url,
            "name": package.name,
            "version": package.version,
            "purl": url,
            "licenses": [{ "expression": package.license }],
        });
        let key = (package.name.clone(), package.version.clone());
        if let Some(checksum) = checksums.get(&key) {
            component["hashes"] = hash(checksum);
        }
        component
    };
    let ours = dependencies.keys().find(|package| package.name == PACKAGE);
    let others = dependencies
        .keys()
        .filter(|package| package.name != PACKAGE);
    let mut components: Vec<Value> = others.map(component).collect();
    // Linked into every Rust program.
    components.push(json!({
        "type": "library",
        "bom-ref": "rust-std",
        "name": "rust-std",
        "version": artifact.rust,
        "licenses": [{ "expression": "MIT OR Apache-2.0" }],
    }));
    let mut product = ours.map(component).unwrap_or_default();
    product["hashes"] = hash(artifact.sha256);
    product["description"] = json!(file);
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": product },
        "components": components,
        "dependencies": dependencies.iter().map(|(package, wants)| json!({
            "ref": package.url(),
            "dependsOn": wants.iter().map(Package::url).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact<'a>(features: &'a [&'a str]) -> Artifact<'a> {
        Artifact {
            path: Path::new("/none/azure_key_vault_filter.wasm"),
            sha256: "00ff",
            features,
            target: "wasm32-wasip1",
            rust: "1.95.0",
        }
    }

    fn names(bill: &Value) -> BTreeSet<String> {
        let components = bill["components"].as_array().unwrap();
        components
            .iter()
            .map(|c| c["name"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_bill_has_what_is_in_the_filter_and_nothing_else() {
        let standard = bill_of_materials(&artifact(&[]), "f.wasm").unwrap();
        let full = bill_of_materials(
            &artifact(&["--features", "client_certificate,pkcs12"]),
            "f.wasm",
        )
        .unwrap();
        for name in [
            "serde_json",
            "memchr",
            "zeroize",
            "zeroizing-alloc",
            "rust-std",
        ] {
            assert!(names(&standard).contains(name), "{name}");
        }
        for name in ["proptest", "xtask", "envoy-test", "tokio", "rsa", PACKAGE] {
            assert!(!names(&standard).contains(name), "{name}");
        }
        assert!(names(&full).contains("rsa") && names(&full).is_superset(&names(&standard)));
    }

    #[test]
    fn the_bill_is_whole() {
        let bill = bill_of_materials(&artifact(&[]), "f.wasm").unwrap();
        assert_eq!(bill["metadata"]["component"]["name"], PACKAGE);
        assert_eq!(
            bill["metadata"]["component"]["hashes"][0]["content"],
            "00ff"
        );
        let references: BTreeSet<&str> = bill["components"]
            .as_array()
            .unwrap()
            .iter()
            .chain([&bill["metadata"]["component"]])
            .map(|component| component["bom-ref"].as_str().unwrap())
            .collect();
        for component in bill["components"].as_array().unwrap() {
            let name = component["name"].as_str().unwrap();
            let license = component["licenses"][0]["expression"].as_str().unwrap();
            assert!(
                !license.is_empty() && !license.contains('/'),
                "{name}: {license:?}"
            );
            assert!(
                name == "rust-std"
                    || component["hashes"][0]["content"].as_str().unwrap().len() == 64,
                "{name}"
            );
        }
        for dependency in bill["dependencies"].as_array().unwrap() {
            assert!(references.contains(dependency["ref"].as_str().unwrap()));
            for wanted in dependency["dependsOn"].as_array().unwrap() {
                assert!(references.contains(wanted.as_str().unwrap()), "{wanted}");
            }
        }
        assert_eq!(bill, bill_of_materials(&artifact(&[]), "f.wasm").unwrap());
    }

    #[test]
    fn the_hash_is_as_sha256sum_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("azure_key_vault_filter.wasm");
        let artifact = Artifact {
            path: &path,
            ..artifact(&[])
        };
        write(&artifact).unwrap();
        let hash =
            fs::read_to_string(folder.path().join("azure_key_vault_filter.wasm.sha256")).unwrap();
        assert_eq!(hash, "00ff  azure_key_vault_filter.wasm\n");
        assert!(
            folder
                .path()
                .join("azure_key_vault_filter.wasm.cdx.json")
                .is_file()
        );
    }
}
