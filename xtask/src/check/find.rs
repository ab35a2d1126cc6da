//! Where in a file the filter's configurations are: the file itself, or a part of what a gateway is
//! configured with. It reads no configuration, and does not judge.

use super::environment::Passed;
use crate::document::{Content, Node, Unreadable, read};

/// What a configuration was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// The file is a configuration.
    Bare,
    /// Kong's declarative configuration.
    Kong,
    /// An Envoy's bootstrap or a part of one.
    Envoy,
    /// An Istio `WasmPlugin`.
    Istio,
    /// An Envoy Gateway `EnvoyExtensionPolicy`.
    EnvoyGateway,
}

/// A configuration of the filter.
#[derive(Debug)]
pub(crate) struct Found {
    /// What it was found in.
    pub(crate) host: Host,
    /// For people: `filter chain of the service payments`.
    pub(crate) place: String,
    /// What the gateway passes on.
    pub(crate) passed: Passed,
    /// The configuration, with the lines of the file.
    pub(crate) configuration: Result<Node, Unreadable>,
    /// Whether it is JSON in a text, which gateways hand on as it is.
    pub(crate) is_text: bool,
    /// What happens when the filter crashes, as far as the file says.
    pub(crate) on_crash: OnCrash,
    /// The line of an Envoy filter that has no `vm_id` of its own.
    pub(crate) shares_vm: Option<usize>,
    /// Whether the headers of a request wait until its body is judged.
    pub(crate) held_headers: HeldHeaders,
}

/// What a gateway does when a filter has crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnCrash {
    /// It cannot be chosen there, or is as it should be.
    Fine,
    /// The worker answers 503 for good.
    Dead(usize),
    /// Requests go past the filter, with their references.
    Open(usize),
}

/// Whether the headers of a request wait for its body: Envoy's `allow_on_headers_stop_iteration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldHeaders {
    /// They do, or the host has its own order.
    Fine,
    /// The flag is not set.
    NotSet,
    /// The gateway's own resource has no field for it.
    NoField,
}

/// The filter's names: Kong's is the file's, others are free.
const NAMES: [&str; 3] = ["azure_key_vault", "azure-key-vault", "azurekeyvault"];
/// The fields that only a configuration of this filter has at its top.
const OURS: [&str; 7] = [
    "vaults",
    "request",
    "response",
    "on_error",
    "shared_data",
    "metrics",
    "audit",
];
const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";

/// Every configuration of the filter in these documents.
pub(crate) fn find(documents: &[Node]) -> Vec<Found> {
    let mut found: Vec<Found> = documents.iter().flat_map(in_document).collect();
    if found.is_empty()
        && let [document] = documents
        && is_bare(document)
    {
        found.push(Found {
            host: Host::Bare,
            place: "the filter's configuration".into(),
            passed: Passed::Unknown,
            configuration: Ok(document.clone()),
            is_text: false,
            on_crash: OnCrash::Fine,
            shares_vm: None,
            held_headers: HeldHeaders::Fine,
        });
    }
    found
}

/// An object that is nothing else: also one with a typing error in each of its names.
fn is_bare(document: &Node) -> bool {
    let others = [
        "kind",
        "_format_version",
        "static_resources",
        "dynamic_resources",
        "resources",
        "services",
        "filter_chains",
    ];
    matches!(document.content, Content::Object(_))
        && !others.iter().any(|name| document.get(name).is_some())
}

fn in_document(document: &Node) -> Vec<Found> {
    match document.text_at(&["kind"]) {
        Some("List") => {
            let items = document.get("items").map(Node::items).unwrap_or_default();
            items.iter().flat_map(in_document).collect()
        }
        Some("WasmPlugin") => in_wasm_plugin(document).into_iter().collect(),
        Some("EnvoyExtensionPolicy") => in_extension_policy(document),
        _ => {
            let mut found = in_kong(document);
            in_envoy(document, &mut found);
            found
        }
    }
}

fn is_ours<'a>(names: impl IntoIterator<Item = Option<&'a str>>, config: Option<&Node>) -> bool {
    let named = names.into_iter().flatten().any(|name| {
        let name = name.to_ascii_lowercase();
        NAMES.iter().any(|ours| name.contains(ours))
    });
    let config = config.and_then(|config| configuration(config).ok());
    named || config.is_some_and(|config| OURS.iter().any(|field| config.get(field).is_some()))
}

/// A configuration as the gateway hands it over: an object, or JSON in a text.
fn configuration(node: &Node) -> Result<Node, Unreadable> {
    let Content::Text { text, lines } = &node.content else {
        return Ok(node.clone());
    };
    let at = |line: usize| lines.map_or(node.line, |first| first + line.max(1) - 1);
    // The filter reads JSON, which is less than YAML.
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        return Err(Unreadable {
            line: at(error.line()),
            message: not_json(&error),
        });
    }
    let documents = read(text).map_err(|error| Unreadable {
        line: at(error.line),
        message: error.message,
    })?;
    let parsed = documents.into_iter().next().ok_or_else(|| Unreadable {
        line: node.line,
        message: "is empty".into(),
    })?;
    Ok(lines.map_or_else(
        || parsed.clone().on_line(node.line),
        |first| parsed.clone().moved(first - 1),
    ))
}

/// Without the position, which is another one in the file.
pub(crate) fn not_json(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or(&message);
    format!("is not valid JSON: {what} (column {})", error.column())
}

fn of(holder: &Node, config: Option<&Node>) -> Result<Node, Unreadable> {
    config.map_or_else(
        || {
            Ok(Node {
                line: holder.line,
                content: Content::Object(Vec::new()),
            })
        },
        configuration,
    )
}

// --- Kubernetes

fn name_of(document: &Node) -> String {
    let name = document.text_at(&["metadata", "name"]).unwrap_or("?");
    match document.text_at(&["metadata", "namespace"]) {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

fn in_wasm_plugin(document: &Node) -> Option<Found> {
    let spec = document.get("spec")?;
    let config = spec.get("pluginConfig");
    let names = [
        document.text_at(&["metadata", "name"]),
        spec.text_at(&["url"]),
        spec.text_at(&["pluginName"]),
    ];
    if !is_ours(names, config) {
        return None;
    }
    let variables = spec.at(&["vmConfig", "env"]).map(Node::items);
    let mut passed = (Vec::new(), Vec::new());
    for variable in variables.unwrap_or_default() {
        let Some(name) = variable.text_at(&["name"]) else {
            continue;
        };
        if variable.text_at(&["valueFrom"]) == Some("HOST") {
            passed.0.push(name.to_owned());
        } else {
            let value = variable.text_at(&["value"]).unwrap_or_default();
            passed.1.push((name.to_owned(), value.to_owned()));
        }
    }
    let strategy = spec.get("failStrategy");
    Some(Found {
        host: Host::Istio,
        place: format!("WasmPlugin {}", name_of(document)),
        passed: Passed::exactly(passed.0, passed.1),
        configuration: of(spec, config),
        is_text: false,
        on_crash: match strategy.and_then(Node::text) {
            Some("FAIL_RELOAD") => OnCrash::Fine,
            Some("FAIL_OPEN") => OnCrash::Open(strategy.map_or(spec.line, |node| node.line)),
            _ => OnCrash::Dead(strategy.map_or(spec.line, |node| node.line)),
        },
        // Istio has none to choose.
        shares_vm: None,
        held_headers: HeldHeaders::NoField,
    })
}

fn in_extension_policy(document: &Node) -> Vec<Found> {
    let extensions = document.at(&["spec", "wasm"]).map(Node::items);
    let found = extensions.unwrap_or_default().iter().filter_map(|wasm| {
        let config = wasm.get("config");
        let names = [
            document.text_at(&["metadata", "name"]),
            wasm.text_at(&["name"]),
            wasm.text_at(&["code", "image", "url"]),
            wasm.text_at(&["code", "http", "url"]),
        ];
        if !is_ours(names, config) {
            return None;
        }
        let fail_open = wasm.get("failOpen");
        let open = fail_open.is_some_and(|node| node.value() == true);
        Some(Found {
            host: Host::EnvoyGateway,
            place: format!("EnvoyExtensionPolicy {}", name_of(document)),
            passed: Passed::exactly(texts(wasm.at(&["env", "hostKeys"])), Vec::new()),
            configuration: of(wasm, config),
            is_text: false,
            on_crash: match fail_open {
                Some(node) if open => OnCrash::Open(node.line),
                _ => OnCrash::Fine,
            },
            shares_vm: None,
            held_headers: HeldHeaders::NoField,
        })
    });
    found.collect()
}

fn texts(list: Option<&Node>) -> Vec<String> {
    let items = list.map(Node::items).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item.text().map(ToOwned::to_owned))
        .collect()
}

// --- Kong

fn in_kong(document: &Node) -> Vec<Found> {
    let mut found = Vec::new();
    in_kong_entity(document, "", &mut found);
    found
}

/// The document itself, a service or a route: all may have chains, plugins and routes.
fn in_kong_entity(entity: &Node, place: &str, found: &mut Vec<Found>) {
    let each = |name: &str| entity.get(name).map(Node::items).unwrap_or_default();
    for chain in each("filter_chains") {
        let place = chain_place(chain, place);
        for filter in chain.get("filters").map(Node::items).unwrap_or_default() {
            found.extend(kong_filter(filter, format!("filter chain{place}")));
        }
    }
    for plugin in each("plugins") {
        let place = chain_place(plugin, place);
        // A plugin's configuration may have fields of our names: only the plugin's own name counts.
        let name = plugin.text_at(&["name"]).unwrap_or_default();
        if NAMES.iter().any(|ours| name.contains(ours)) {
            found.extend(kong_filter(plugin, format!("plugin{place}")));
        }
    }
    for (list, kind) in [("services", "service"), ("routes", "route")] {
        for inner in each(list) {
            let name = inner.text_at(&["name"]).unwrap_or("?");
            in_kong_entity(inner, &format!(" of the {kind} {name}"), found);
        }
    }
}

fn chain_place(chain: &Node, place: &str) -> String {
    let named = |kind: &str| {
        let owner = chain.get(kind)?;
        let name = owner.text().or_else(|| owner.text_at(&["name"]))?;
        Some(format!(" of the {kind} {name}"))
    };
    let own = named("service").or_else(|| named("route"));
    own.unwrap_or_else(|| place.to_owned())
}

fn kong_filter(filter: &Node, place: String) -> Option<Found> {
    let config = filter.get("config");
    is_ours([filter.text_at(&["name"])], config).then(|| Found {
        host: Host::Kong,
        place,
        passed: Passed::Unknown,
        configuration: of(filter, config),
        is_text: config.is_some_and(|config| config.text().is_some()),
        on_crash: OnCrash::Fine,
        shares_vm: None,
        held_headers: HeldHeaders::Fine,
    })
}

// --- Envoy

/// Wherever it is: in a listener, in a resource of LDS, in an Istio `EnvoyFilter`.
fn in_envoy(node: &Node, found: &mut Vec<Found>) {
    if let Some(config) = wasm_config(node) {
        found.extend(envoy_filter(config));
        return;
    }
    for (_, field) in node.fields() {
        in_envoy(field, found);
    }
    for item in node.items() {
        in_envoy(item, found);
    }
}

/// The `config` of an object of the filter's type, also of one that is wrapped for a control plane.
fn wasm_config(node: &Node) -> Option<&Node> {
    let is = |field: &str| {
        let found = node.text_at(&[field]);
        found.is_some_and(|name| name.rsplit('/').next() == Some(WASM))
    };
    if is("@type") {
        return node.get("config");
    }
    let wrapped = is("type_url") || is("typeUrl");
    wrapped.then(|| node.at(&["value", "config"])).flatten()
}

/// Envoy's JSON has two spellings of each name.
fn either<'a>(node: &'a Node, snake: &str, camel: &str) -> Option<&'a Node> {
    node.get(snake).or_else(|| node.get(camel))
}

fn envoy_filter(config: &Node) -> Option<Found> {
    let configuration = config.get("configuration");
    let value = configuration.and_then(|any| any.get("value"));
    let vm = either(config, "vm_config", "vmConfig");
    let code = vm
        .and_then(|vm| vm.at(&["code", "local"]))
        .and_then(|local| local.text_at(&["filename"]));
    let names = [
        config.text_at(&["name"]),
        either(config, "root_id", "rootId").and_then(Node::text),
        code,
    ];
    if !is_ours(names, value) {
        return None;
    }
    let variables = vm.and_then(|vm| either(vm, "environment_variables", "environmentVariables"));
    let host = variables.and_then(|all| either(all, "host_env_keys", "hostEnvKeys"));
    let values = variables.and_then(|all| either(all, "key_values", "keyValues"));
    let values = values.map(Node::fields).unwrap_or_default();
    let values = values.iter().filter_map(|(name, value)| {
        let value = value.text().map(ToOwned::to_owned);
        Some((name.clone(), value?))
    });
    Some(Found {
        host: Host::Envoy,
        place: format!(
            "Envoy's filter {}",
            config.text_at(&["name"]).unwrap_or("?")
        ),
        passed: Passed::exactly(texts(host), values.collect()),
        configuration: of(config, value),
        is_text: value.is_some_and(|value| value.text().is_some()),
        on_crash: envoys_crash(config),
        shares_vm: match vm
            .and_then(|vm| either(vm, "vm_id", "vmId"))
            .and_then(Node::text)
        {
            None | Some("") => Some(vm.map_or(config.line, |vm| vm.line)),
            Some(_) => None,
        },
        held_headers: match either(
            config,
            "allow_on_headers_stop_iteration",
            "allowOnHeadersStopIteration",
        ) {
            Some(node) if node.value() == true => HeldHeaders::Fine,
            _ => HeldHeaders::NotSet,
        },
    })
}

fn envoys_crash(config: &Node) -> OnCrash {
    let policy = either(config, "failure_policy", "failurePolicy");
    let fail_open = either(config, "fail_open", "failOpen");
    match (
        policy.and_then(|node| Some((node, node.text()?))),
        fail_open,
    ) {
        (Some((_, "FAIL_RELOAD")), _) => OnCrash::Fine,
        (Some((node, "FAIL_OPEN")), _) => OnCrash::Open(node.line),
        (Some((node, _)), _) => OnCrash::Dead(node.line),
        (None, Some(node)) if node.value() == true => OnCrash::Open(node.line),
        (None, _) => OnCrash::Dead(config.line),
    }
}
