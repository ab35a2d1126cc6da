//! Whether the gateway has the clusters that a configuration names, and whether they are fit to carry a
//! token: with TLS, and with a look at the certificate. It knows the files of Envoy and of those that
//! control it, not what they become.

use azure_key_vault_filter::azure::identity::{Credential, Proof, Tenant};
use azure_key_vault_filter::config::{Config, Vault};

use super::find::Host;
use crate::document::Node;

/// A cluster that a configuration needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needed {
    /// Its name in the configuration.
    pub(crate) name: String,
    /// What it leads to: `https://login.microsoftonline.com`.
    pub(crate) target: String,
    /// The field that names it.
    pub(crate) path: String,
}

impl Needed {
    fn host(&self) -> Option<&str> {
        let rest = self.target.strip_prefix("https://")?;
        Some(rest.split(':').next().unwrap_or(rest))
    }
}

/// The clusters of a configuration, each once.
pub(crate) fn needed(config: &Config) -> Vec<Needed> {
    let mut needed: Vec<Needed> = Vec::new();
    for (index, vault) in config.vaults.iter().enumerate() {
        for one in of_vault(vault, index) {
            if !needed.iter().any(|other| other.name == one.name) {
                needed.push(one);
            }
        }
    }
    needed
}

fn of_vault(vault: &Vault, index: usize) -> Vec<Needed> {
    let needed = |name: &str, target: String, field: &str| Needed {
        name: name.to_owned(),
        target,
        path: format!("vaults[{index}].config.{field}"),
    };
    let identity = &vault.identity;
    let mut all = vec![needed(
        &vault.cluster,
        vault.uri.to_string(),
        "vault_cluster",
    )];
    match &identity.credential {
        Credential::Managed(managed) => {
            let url = managed.url.to_string();
            all.push(needed(&identity.cluster, url, "identity_cluster"));
        }
        Credential::App(app) => {
            let authority = app.authority.to_string();
            all.push(needed(&identity.cluster, authority, "identity_cluster"));
            if let Proof::FederatedSource { url, cluster, .. } = &app.proof {
                all.push(needed(cluster, url.to_string(), "federated_token_cluster"));
            }
            if let Tenant::OfVault { uri, cluster, .. } = &app.tenant {
                all.push(needed(cluster, uri.to_string(), "vault_cluster"));
            }
        }
    }
    all
}

/// A cluster that a file defines.
#[derive(Clone, Debug)]
struct Defined {
    name: String,
    line: usize,
    tls: Tls,
}

/// What is known of a cluster's TLS.
#[derive(Clone, Debug)]
enum Tls {
    /// Nothing: what decides it is not in the file.
    Unknown,
    /// There is none, because this is missing.
    Missing(&'static str),
    Some {
        sni: Option<String>,
        checks_issuer: bool,
        checks_name: bool,
    },
}

/// The clusters of a file.
#[derive(Debug, Default)]
pub(crate) struct Clusters {
    defined: Vec<Defined>,
    /// Whether there may be others, which come from elsewhere.
    open: bool,
}

/// What was found out about a needed cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It is there, on this line.
    There(usize),
    /// It is not in the file, and may be elsewhere.
    Elsewhere,
    /// It is not there.
    Missing(String),
    /// It is there and must not be used so.
    Unfit(usize, String),
    /// It is there and is used at a risk.
    Risky(usize, String),
}

impl Clusters {
    /// The clusters in a file.
    pub(crate) fn of(documents: &[Node]) -> Self {
        let mut clusters = Self::default();
        let resources: Vec<&Node> = documents.iter().flat_map(listed).collect();
        for resource in &resources {
            match resource.text_at(&["kind"]) {
                Some("ServiceEntry") => {
                    clusters
                        .defined
                        .extend(of_service_entry(resource, &resources));
                }
                Some("HTTPRoute") => clusters.defined.extend(of_http_route(resource, &resources)),
                Some(_) => clusters.open = true,
                None => clusters.add_envoys(resource),
            }
        }
        clusters
    }

    fn add_envoys(&mut self, document: &Node) {
        self.open |= document.at(&["dynamic_resources", "cds_config"]).is_some()
            || document.at(&["dynamic_resources", "ads_config"]).is_some()
            || document.get("static_resources").is_none();
        let fixed = document.at(&["static_resources", "clusters"]);
        let resources = document.get("resources");
        for list in [fixed, resources].into_iter().flatten() {
            for cluster in list.items() {
                let kind = cluster.text_at(&["@type"]).unwrap_or(".v3.Cluster");
                if kind.ends_with(".v3.Cluster")
                    && let Some(name) = cluster.text_at(&["name"])
                {
                    self.defined.push(Defined {
                        name: name.to_owned(),
                        line: cluster.line,
                        tls: tls_of(cluster),
                    });
                }
            }
        }
    }

    /// Judges a cluster that is needed by a configuration in this host.
    pub(crate) fn judge(&self, needed: &Needed, host: Host) -> Judged {
        if matches!(host, Host::Bare | Host::Kong) {
            return Judged::Elsewhere;
        }
        let Some(found) = self.defined.iter().find(|one| one.name == needed.name) else {
            return self.missing(needed, host);
        };
        judge_tls(found, needed)
    }

    fn missing(&self, needed: &Needed, host: Host) -> Judged {
        let what = match host {
            Host::Istio => "outbound|443||HOST, for which there has to be a ServiceEntry",
            Host::EnvoyGateway => "httproute/NAMESPACE/NAME/rule/N, of an HTTPRoute with a Backend",
            _ => "the name of a cluster",
        };
        // Kong's form, which is the default, is never a cluster's name.
        if needed.name.split('|').count() == 1 && needed.name.contains(':') {
            return Judged::Missing(format!(
                "is missing: {:?} is no cluster's name; set it to {what} that leads to {}",
                needed.name, needed.target
            ));
        }
        if self.open && (host == Host::Envoy || self.defined.is_empty()) {
            return Judged::Elsewhere;
        }
        let names: Vec<&str> = self.defined.iter().map(|one| one.name.as_str()).collect();
        Judged::Missing(format!(
            "names the cluster {:?}, which this file does not define; it has {}",
            needed.name,
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        ))
    }
}

fn judge_tls(found: &Defined, needed: &Needed) -> Judged {
    let Some(host) = needed.host() else {
        return Judged::There(found.line);
    };
    let name = &found.name;
    match &found.tls {
        Tls::Unknown => Judged::There(found.line),
        Tls::Missing(what) => Judged::Unfit(
            found.line,
            format!(
                "names the cluster {name:?}, which has no TLS ({what}): the token would go out in the clear"
            ),
        ),
        Tls::Some { sni: None, .. } => Judged::Unfit(
            found.line,
            format!(
                "names the cluster {name:?}, whose TLS has no sni: set it to {host}, else Azure does not know which certificate to show"
            ),
        ),
        Tls::Some { sni: Some(sni), .. } if sni != host => Judged::Unfit(
            found.line,
            format!("names the cluster {name:?}, whose sni is {sni}; it has to be {host}"),
        ),
        Tls::Some {
            checks_issuer: false,
            ..
        } => Judged::Unfit(
            found.line,
            format!(
                "names the cluster {name:?}, which trusts every certificate (Envoy's default): set validation_context.trusted_ca"
            ),
        ),
        Tls::Some {
            checks_name: false, ..
        } => Judged::Risky(
            found.line,
            format!(
                "names the cluster {name:?}, which takes a certificate for any name: set match_typed_subject_alt_names"
            ),
        ),
        Tls::Some { .. } => Judged::There(found.line),
    }
}

fn tls_of(cluster: &Node) -> Tls {
    let Some(socket) = cluster.at(&["transport_socket", "typed_config"]) else {
        return Tls::Missing("no transport_socket");
    };
    let kind = socket.text_at(&["@type"]).unwrap_or_default();
    if !kind.ends_with(".UpstreamTlsContext") {
        return Tls::Unknown;
    }
    let common = socket.get("common_tls_context");
    let own = common.and_then(|common| common.get("validation_context"));
    let combined = common.and_then(|common| {
        common.at(&["combined_validation_context", "default_validation_context"])
    });
    let from_sds = common.is_some_and(|common| {
        common.get("validation_context_sds_secret_config").is_some()
            || common
                .at(&[
                    "combined_validation_context",
                    "validation_context_sds_secret_config",
                ])
                .is_some()
    });
    let has = |names: &[&str]| {
        let contexts = [own, combined];
        let mut found = contexts.iter().flatten();
        found.any(|context| names.iter().any(|name| context.get(name).is_some()))
    };
    Tls::Some {
        sni: socket.text_at(&["sni"]).map(ToOwned::to_owned),
        checks_issuer: from_sds
            || has(&[
                "trusted_ca",
                "system_root_certs",
                "ca_certificate_provider_instance",
            ]),
        checks_name: has(&["match_typed_subject_alt_names", "match_subject_alt_names"])
            || socket.at(&["auto_sni_san_validation"]).is_some(),
    }
}

/// The resources of a document: it may be a list of them.
fn listed(document: &Node) -> Vec<&Node> {
    if document.text_at(&["kind"]) == Some("List") {
        let items = document.get("items").map(Node::items);
        return items.unwrap_or_default().iter().collect();
    }
    vec![document]
}

fn of_kind<'a>(resources: &[&'a Node], kind: &str) -> Vec<&'a Node> {
    let is = |resource: &&&Node| resource.text_at(&["kind"]) == Some(kind);
    resources.iter().filter(is).copied().collect()
}

/// Istio's names for the clusters of a `ServiceEntry`.
fn of_service_entry(document: &Node, resources: &[&Node]) -> Vec<Defined> {
    let spec = document.get("spec");
    let list = |name: &str| {
        let list = spec.and_then(|spec| spec.get(name)).map(Node::items);
        list.unwrap_or_default()
    };
    let ports = list("ports");
    let hosts = list("hosts");
    let pairs = hosts
        .iter()
        .flat_map(|host| ports.iter().map(move |port| (host, port)));
    let defined = pairs.filter_map(|(host, port)| {
        let number = port.get("number")?.value();
        Some(Defined {
            name: format!("outbound|{number}||{}", host.text()?),
            line: host.line,
            tls: istios_tls(host.text()?, resources),
        })
    });
    defined.collect()
}

/// The TLS that a `DestinationRule` gives a host. Without any in the file they are elsewhere.
fn istios_tls(host: &str, resources: &[&Node]) -> Tls {
    let rules = of_kind(resources, "DestinationRule");
    if rules.is_empty() {
        return Tls::Unknown;
    }
    let rule = rules
        .iter()
        .find(|rule| rule.text_at(&["spec", "host"]) == Some(host));
    let tls = rule.and_then(|rule| rule.at(&["spec", "trafficPolicy", "tls"]));
    let mode = tls.and_then(|tls| tls.text_at(&["mode"]));
    let (Some(tls), Some("SIMPLE" | "MUTUAL")) = (tls, mode) else {
        return Tls::Missing("no DestinationRule with tls mode SIMPLE for its host");
    };
    let skips = tls.get("insecureSkipVerify");
    Tls::Some {
        // Without one, Istio takes the call's host.
        sni: Some(tls.text_at(&["sni"]).unwrap_or(host).to_owned()),
        checks_issuer: !skips.is_some_and(|skips| skips.value() == true),
        checks_name: tls.get("subjectAltNames").is_some(),
    }
}

/// Envoy Gateway's names for the clusters of a route.
fn of_http_route(document: &Node, resources: &[&Node]) -> Vec<Defined> {
    let name = document.text_at(&["metadata", "name"]).unwrap_or_default();
    let namespace = document
        .text_at(&["metadata", "namespace"])
        .unwrap_or("default");
    let rules = document.at(&["spec", "rules"]).map(Node::items);
    let defined = rules.unwrap_or_default().iter().enumerate();
    defined
        .map(|(index, rule)| Defined {
            name: format!("httproute/{namespace}/{name}/rule/{index}"),
            line: rule.line,
            tls: gateways_tls(rule, resources),
        })
        .collect()
}

/// The TLS that a `BackendTLSPolicy`, or the `Backend` itself, gives what a rule leads to.
fn gateways_tls(rule: &Node, resources: &[&Node]) -> Tls {
    let first = rule.get("backendRefs").and_then(|all| all.items().first());
    let backend = first.and_then(|reference| reference.text_at(&["name"]));
    let policies = of_kind(resources, "BackendTLSPolicy");
    let policy = policies.iter().find(|policy| {
        let targets = policy.at(&["spec", "targetRefs"]).map(Node::items);
        let mut targets = targets.unwrap_or_default().iter();
        targets.any(|target| target.text_at(&["name"]) == backend)
    });
    let validation = policy.and_then(|policy| policy.at(&["spec", "validation"]));
    if let Some(validation) = validation {
        return Tls::Some {
            sni: validation.text_at(&["hostname"]).map(ToOwned::to_owned),
            checks_issuer: true,
            checks_name: true,
        };
    }
    let backends = of_kind(resources, "Backend");
    let found = backends
        .iter()
        .find(|one| one.text_at(&["metadata", "name"]) == backend);
    match found {
        None => Tls::Unknown,
        Some(found) if found.at(&["spec", "tls"]).is_some() || policies.is_empty() => Tls::Unknown,
        Some(_) => Tls::Missing("no BackendTLSPolicy for its Backend"),
    }
}
