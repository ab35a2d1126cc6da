//! What a configuration does, in a few lines: for an operator who wants to see before a deployment which
//! vaults are asked, as which identity, for what, and which clients may use it. It shows no secret.

use std::fmt::Write as _;

use azure_key_vault_filter::azure::forms::Kind;
use azure_key_vault_filter::azure::identity::{Credential, Proof};
use azure_key_vault_filter::config::{Config, OnError, Vault};
use azure_key_vault_filter::template::{Part, Template};
use azure_key_vault_filter::time::Span;

use super::clusters::{Judged, Needed};
use crate::document::Node;

/// The directions of traffic in a configuration.
const DIRECTIONS: [&str; 2] = ["request", "response"];

/// The lines of the summary.
pub(crate) fn summarize(
    config: &Config,
    node: &Node,
    clusters: &[(Needed, Judged)],
) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    for vault in &config.vaults {
        lines.push(("vault", vault_line(vault)));
        lines.push(("as", vault.identity.describe()));
    }
    lines.extend(clusters.iter().map(|one| ("cluster", cluster_line(one))));
    lines.extend(set_lines(node).into_iter().map(|line| ("ahead", line)));
    let clients = resolve_lines(node);
    if clients.is_empty() {
        lines.push(("clients", "may use nothing".into()));
    }
    lines.extend(clients.into_iter().map(|line| ("clients", line)));
    if config.redact {
        let text = "values that a request got, in its response";
        lines.push(("masked", text.into()));
    }
    let on_error = match config.on_error {
        OnError::Deny => "deny: 503, nothing is sent on",
        OnError::Remove => "remove: it is sent on without it",
        OnError::Keep => "keep: the reference is sent on as it came",
    };
    lines.push(("on error", on_error.into()));
    lines
}

fn vault_line(vault: &Vault) -> String {
    let kind = match vault.kind {
        Kind::Secrets => "secrets",
        Kind::Certificates => "certificates",
        Kind::Keys => "keys",
    };
    let mut line = format!("{}: {kind} of {}", vault.prefix, vault.uri);
    let ttl = match vault.cache.ttl {
        Span::FOREVER => "no rotation".to_owned(),
        ttl => format!("ttl {}", seconds(ttl)),
    };
    let _ = write!(
        line,
        ", {ttl}, neg_ttl {}, resurrect_ttl {}",
        seconds(vault.cache.neg_ttl),
        seconds(vault.cache.resurrect_ttl)
    );
    line
}

fn seconds(span: Span) -> String {
    let millis = span.0;
    if millis.is_multiple_of(1000) {
        format!("{} s", millis / 1000)
    } else {
        format!("{millis} ms")
    }
}

fn cluster_line((needed, judged): &(Needed, Judged)) -> String {
    let Needed { name, target, .. } = needed;
    match judged {
        Judged::There(line) | Judged::Risky(line, _) | Judged::Unfit(line, _) => {
            format!("{name} (line {line}) for {target}")
        }
        Judged::Elsewhere | Judged::Missing(_) => format!("{name} for {target}"),
    }
}

/// What the operator sets, and so is fetched ahead.
fn set_lines(node: &Node) -> Vec<String> {
    let mut lines = Vec::new();
    for direction in DIRECTIONS {
        let places = node.at(&[direction, "set"]).map(Node::fields);
        for (place, values) in places.unwrap_or_default() {
            for (name, value) in values.fields() {
                let references = references(value.text().unwrap_or_default());
                if !references.is_empty() {
                    lines.push(format!(
                        "{} for {direction} {place} {name}",
                        references.join(" ")
                    ));
                }
            }
        }
    }
    lines
}

fn references(text: &str) -> Vec<String> {
    let template = Template::parse(text.as_bytes());
    let references = template.parts.iter().filter_map(|part| match part {
        Part::Reference { text, .. } => Some(String::from_utf8_lossy(text).into_owned()),
        Part::Literal(_) => None,
    });
    references.collect()
}

/// What may be resolved in traffic, and where.
fn resolve_lines(node: &Node) -> Vec<String> {
    let mut lines = Vec::new();
    for direction in DIRECTIONS {
        let Some(resolve) = node.at(&[direction, "resolve"]) else {
            continue;
        };
        let list = |node: &Node| {
            let texts: Vec<&str> = node.items().iter().filter_map(Node::text).collect();
            texts.join(", ")
        };
        let allowed = resolve.get("allow").map(list).unwrap_or_default();
        let places: Vec<String> = resolve
            .fields()
            .iter()
            .filter(|(name, node)| name != "allow" && !node.items().is_empty())
            .map(|(name, node)| format!("{name} {}", list(node)))
            .collect();
        if !allowed.is_empty() && !places.is_empty() {
            lines.push(format!(
                "may use {allowed} in {direction} {}",
                places.join("; ")
            ));
        }
    }
    lines
}

/// What is worth knowing beyond the configuration's own words.
pub(crate) fn notes(config: &Config, assumed: &[String]) -> Vec<String> {
    let mut notes: Vec<String> = assumed
        .iter()
        .map(|name| format!("{name} is assumed: the gateway has to pass it on to the filter"))
        .collect();
    let has_certificate = config.vaults.iter().any(|vault| {
        let Credential::App(app) = &vault.identity.credential else {
            return false;
        };
        matches!(app.proof, Proof::Certificate(_))
    });
    if has_certificate {
        notes.push("a client certificate needs the filter from target/dist/full".into());
    }
    notes
}
