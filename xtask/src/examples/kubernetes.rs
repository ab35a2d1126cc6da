//! The Kubernetes examples against the form of their resources (`envoy-test/tests/data/kubernetes-kinds.json`),
//! and against each other: what one names another has to be.

use std::collections::BTreeSet;

use super::*;

fn kinds() -> Value {
    let path = workspace().join("envoy-test/tests/data/kubernetes-kinds.json");
    serde_json::from_str::<Value>(&text(&path)).unwrap()["kinds"].take()
}

/// What is wrong with a resource.
fn problems(kinds: &Value, resource: &Value) -> Vec<String> {
    let name = resource["kind"].as_str().unwrap_or_default();
    let kind = &kinds[name];
    if kind.is_null() {
        return vec![format!("{name} is no known kind")];
    }
    let mut problems = Vec::new();
    let versions = kind["apiVersions"].as_array().unwrap();
    if !versions.contains(&resource["apiVersion"]) {
        problems.push(format!(
            "{} is no version of {name}",
            resource["apiVersion"]
        ));
    }
    let fields = resource.as_object().unwrap().keys();
    let strangers =
        fields.filter(|f| !["apiVersion", "kind", "metadata", "spec"].contains(&f.as_str()));
    problems.extend(strangers.map(|field| format!("{field} is no field")));
    let metadata = ["name", "namespace"].map(|field| resource["metadata"][field].is_string());
    if metadata != [true, true] {
        problems.push("metadata has no name and namespace".into());
    }
    let validator = jsonschema::draft7::new(&kind["spec"]).unwrap();
    let errors = validator.iter_errors(&resource["spec"]);
    problems.extend(errors.map(|error| format!("spec{}: {error}", error.instance_path())));
    problems
}

fn manifests() -> Vec<PathBuf> {
    ["istio", "envoy-gateway"]
        .map(|name| files(name, ".yaml"))
        .concat()
}

#[test]
fn every_resource_has_the_form_of_its_kind() {
    let kinds = kinds();
    let mut seen = BTreeSet::new();
    for path in manifests() {
        for (place, document) in documents(&path) {
            let resource = document.value();
            assert_eq!(problems(&kinds, &resource), Vec::<String>::new(), "{place}");
            seen.insert(resource["kind"].as_str().unwrap().to_owned());
        }
    }
    let known: BTreeSet<String> = kinds.as_object().unwrap().keys().cloned().collect();
    assert_eq!(seen, known, "every form is used");
}

/// The forms refuse what is wrong: each of these replacements is one that a cluster would refuse or drop.
#[test]
fn mistakes_in_resources_are_found() {
    let kinds = kinds();
    for (from, to) in [
        ("failStrategy: FAIL_RELOAD", "failStrategy: FAIL_RESTART"),
        ("valueFrom: HOST", "valueFrom: SECRET"),
        ("pluginConfig:", "plugin_config:"),
        ("resolution: DNS", "resolution: dns"),
        ("mode: SIMPLE", "mode: TLS"),
        ("subjectAltNames: [login", "subjectAltName: [login"),
        ("baseEjectionTime: 10s", "baseEjectionTime: 10"),
        (
            "hostKeys: [AZURE_CLIENT_SECRET]",
            "host_env_keys: [AZURE_CLIENT_SECRET]",
        ),
        ("type: Image", "type: HTTP"),
        ("defaultAction: Deny", "defaultAction: Forbid"),
        (
            "wellKnownCACertificates: System",
            "wellKnownCACertificates: All",
        ),
        ("port: 443", "port: https"),
        ("connectTimeout: 2s", "connectTimeout: 2"),
        ("secretKeyRef:", "secretRef:"),
        ("bufferLimit: 1Mi", "bufferLimit: 1MiB"),
        ("kind: Backend\n", "kind: Backends\n"),
        ("gateway.envoyproxy.io/v1alpha1", "gateway.envoyproxy.io/v1"),
    ] {
        let mut found = 0;
        for path in manifests() {
            let original = text(&path);
            let changed = original.replace(from, to);
            if original == changed {
                continue;
            }
            let documents = read(&changed).unwrap();
            found += documents
                .iter()
                .filter(|d| !problems(&kinds, &d.value()).is_empty())
                .count();
        }
        assert!(found > 0, "{from} -> {to}");
    }
}

/// Each reference within a file leads somewhere: policies to routes, routes to backends, and TLS to every
/// backend or host that is called.
#[test]
fn what_is_named_is_there() {
    for path in manifests() {
        let resources: Vec<Value> = documents(&path)
            .into_iter()
            .map(|(_, d)| d.value())
            .collect();
        let there: BTreeSet<(String, String)> = resources
            .iter()
            .map(|r| (r["kind"].to_string(), r["metadata"]["name"].to_string()))
            .collect();
        let mut named = Vec::new();
        for resource in &resources {
            collect(&resource["spec"], &mut named);
        }
        for name in named {
            assert!(there.contains(&name), "{}: {name:?}", path.display());
        }
        let of_kind = |kind: &str| -> Vec<&Value> {
            resources.iter().filter(|r| r["kind"] == kind).collect()
        };
        for backend in of_kind("Backend") {
            let host = &backend["spec"]["endpoints"][0]["fqdn"]["hostname"];
            let has_tls = of_kind("BackendTLSPolicy").iter().any(|policy| {
                policy["spec"]["targetRefs"][0]["name"] == backend["metadata"]["name"]
                    && policy["spec"]["validation"]["hostname"] == *host
            });
            assert!(has_tls, "{host} is called without TLS");
        }
        for entry in of_kind("ServiceEntry") {
            for host in entry["spec"]["hosts"].as_array().unwrap() {
                let rule = of_kind("DestinationRule")
                    .into_iter()
                    .find(|r| r["spec"]["host"] == *host);
                let tls = &rule.unwrap_or_else(|| panic!("{host} has no TLS"))["spec"]["trafficPolicy"]
                    ["tls"];
                assert_eq!((&tls["mode"], &tls["sni"]), (&json!("SIMPLE"), host));
                assert_eq!(
                    (&tls["caCertificates"], &tls["subjectAltNames"]),
                    (&json!("system"), &json!([host]))
                );
            }
        }
    }
}

/// Kinds and names of everything that is referred to by kind.
fn collect(value: &Value, named: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            if let (Some(kind), Some(name)) = (fields.get("kind"), fields.get("name")) {
                named.push((kind.to_string(), name.to_string()));
            }
            fields.values().for_each(|field| collect(field, named));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, named)),
        _ => {}
    }
}
