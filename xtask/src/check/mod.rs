//! `cargo xtask check FILE`: whether the filter would take the configuration in a file, and what it would
//! do with it. The filter's own reader judges; this finds the configuration, says on which line a problem
//! is, and compares with what else the file has. No gateway is needed and nothing is asked.

mod clusters;
mod environment;
mod find;
mod summary;

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use azure_key_vault_filter::config::{Config, Problem};

use self::clusters::{Clusters, Judged, Needed};
use self::environment::Environment;
pub(crate) use self::environment::Variable;
use self::find::HeldHeaders;
pub(crate) use self::find::{Found, Host, OnCrash, find};
use crate::document::{Content, Node, read};

/// How a check is done.
pub(crate) struct Options<'a> {
    /// Variables that the filter would see.
    pub(crate) variables: &'a [Variable],
    /// The environment of this process.
    pub(crate) own: &'a dyn Fn(&str) -> Option<String>,
    /// Whether a credential that is not here is an error.
    pub(crate) strict: bool,
}

/// Checks a file, or standard input for `-`, and prints what comes out. Whether all is well.
pub(crate) fn run(file: &Path, variables: &[Variable], strict: bool) -> Result<bool> {
    let what = || format!("reading {}", file.display());
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .with_context(what)?;
        text
    } else {
        std::fs::read_to_string(file).with_context(what)?
    };
    let options = Options {
        variables,
        own: &|name| std::env::var(name).ok().filter(|value| !value.is_empty()),
        strict,
    };
    let report = check(&file.display().to_string(), &text, &options);
    print!("{report}");
    Ok(report.errors == 0)
}

/// What is said of a file.
#[derive(Debug, Default)]
pub(crate) struct Report {
    text: String,
    pub(crate) errors: usize,
    file: String,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)?;
        match self.errors {
            0 => writeln!(f, "ok"),
            1 => writeln!(f, "1 error"),
            count => writeln!(f, "{count} errors"),
        }
    }
}

impl Report {
    fn error(&mut self, line: usize, message: &str) {
        self.errors += 1;
        let _ = writeln!(self.text, "{}:{line}: error: {message}", self.file);
    }

    fn warning(&mut self, line: usize, message: &str) {
        let _ = writeln!(self.text, "{}:{line}: warning: {message}", self.file);
    }

    fn detail(&mut self, name: &str, text: &str) {
        let _ = writeln!(self.text, "  {name:<9} {text}");
    }
}

/// Checks the text of a file.
pub(crate) fn check(file: &str, text: &str, options: &Options<'_>) -> Report {
    let mut report = Report {
        file: file.to_owned(),
        ..Report::default()
    };
    // JSON that is broken is explained best by a reader of JSON.
    if file.ends_with(".json")
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text)
    {
        report.error(error.line(), &find::not_json(&error));
        return report;
    }
    let documents = match read(text) {
        Ok(documents) => documents,
        Err(error) => {
            report.error(error.line, &error.message);
            return report;
        }
    };
    let clusters = Clusters::of(&documents);
    let found = find(&documents);
    if found.is_empty() {
        report.error(
            1,
            "no configuration of this filter is here: it is neither one itself nor Kong's, Envoy's, Istio's or \
             Envoy Gateway's with a filter that is named azure_key_vault or has `vaults`",
        );
    }
    for one in &found {
        judge(one, &clusters, options, &mut report);
    }
    report
}

/// What the filter's reader says of a configuration.
pub(crate) struct Verdict {
    /// The configuration, if it is good.
    pub(crate) config: Result<Config, Vec<Problem>>,
    assumed: Vec<String>,
}

/// Reads a configuration as the filter would.
pub(crate) fn parse(found: &Found, node: &Node, options: &Options<'_>) -> Verdict {
    let json = node.value().to_string();
    let environment = Environment::new(
        options.variables,
        options.own,
        &found.passed,
        options.strict,
    );
    let read = || Config::parse(json.as_bytes(), &|name| environment.get(name));
    let mut config = read();
    if let Err(problems) = &config {
        let assumed = problems
            .iter()
            .filter(|problem| environment.assume_for(&problem.path, node));
        // A problem that is still there with the credential is one.
        if assumed.count() > 0 {
            config = read();
        }
    }
    Verdict {
        config,
        assumed: environment.assumed(),
    }
}

fn judge(found: &Found, clusters: &Clusters, options: &Options<'_>, report: &mut Report) {
    let node = match &found.configuration {
        Ok(node) => node,
        Err(error) => {
            let message = format!("the configuration of {} {}", found.place, error.message);
            report.error(error.line, &message);
            return;
        }
    };
    let _ = writeln!(
        report.text,
        "{}:{}: {}",
        report.file, node.line, found.place
    );
    let verdict = parse(found, node, options);
    match &verdict.config {
        Ok(config) => explain(config, node, found, clusters, &verdict.assumed, report),
        Err(problems) => {
            let mut problems: Vec<(usize, String)> = problems
                .iter()
                .map(|problem| (node.line_of(&problem.path), problem.to_string()))
                .collect();
            problems.sort_by_key(|(line, _)| *line);
            for (line, problem) in &problems {
                report.error(*line, problem);
            }
        }
    }
    if found.host == Host::Kong && !found.is_text {
        empty_lists(node, "", report);
    }
    if let Some(line) = found.shares_vm {
        report.warning(
            line,
            "has no vm_id of its own: other Wasm filters without one share its shared data; set vm_id: azure_key_vault",
        );
    }
    match found.on_crash {
        OnCrash::Fine => {}
        OnCrash::Dead(line) => report.warning(
            line,
            "a filter that has crashed answers 503 until the gateway is restarted; FAIL_RELOAD makes a new one",
        ),
        OnCrash::Open(line) => report.error(
            line,
            "a filter that has crashed or is missing would let references through to the upstream; take FAIL_RELOAD or fail closed",
        ),
    }
}

/// Kong's JSON library writes an empty list as an empty object. (In a text it does not read it.)
fn empty_lists(node: &Node, path: &str, report: &mut Report) {
    if node.content == Content::List(Vec::new()) {
        let message = format!(
            "{path}: is an empty list, which Kong hands on as an object, and the filter would refuse; leave it out"
        );
        report.error(node.line, &message);
    }
    for (name, field) in node.fields() {
        let dot = if path.is_empty() { "" } else { "." };
        empty_lists(field, &format!("{path}{dot}{name}"), report);
    }
    for (index, item) in node.items().iter().enumerate() {
        empty_lists(item, &format!("{path}[{index}]"), report);
    }
}

fn explain(
    config: &Config,
    node: &Node,
    found: &Found,
    clusters: &Clusters,
    assumed: &[String],
    report: &mut Report,
) {
    let judged: Vec<(Needed, Judged)> = clusters::needed(config)
        .into_iter()
        .map(|needed| {
            let judged = clusters.judge(&needed, found.host);
            (needed, judged)
        })
        .collect();
    for warning in &config.warnings {
        report.warning(node.line_of(&warning.path), &warning.to_string());
    }
    for (name, text) in summary::summarize(config, node, &judged) {
        report.detail(name, &text);
    }
    for note in summary::notes(config, assumed) {
        report.detail("note", &note);
    }
    if let Some(note) = headers_before_body(config, found.held_headers) {
        report.detail("note", note);
    }
    for (needed, judged) in &judged {
        let path = &needed.path;
        let line = node.line_of(path);
        match judged {
            Judged::There(_) => {}
            Judged::Elsewhere if matches!(found.host, Host::Bare | Host::Kong) => {}
            Judged::Elsewhere => report.detail(
                "note",
                &format!(
                    "the cluster {} is not in this file; the gateway has to have it",
                    needed.name
                ),
            ),
            Judged::Missing(message) | Judged::Unfit(_, message) => {
                report.error(line, &format!("{path}: {message}"));
            }
            Judged::Risky(_, message) => report.warning(line, &format!("{path}: {message}")),
        }
    }
}

/// A hint for those who have body rules: what the upstream sees of a request that is denied for its body.
fn headers_before_body(config: &Config, held: HeldHeaders) -> Option<&'static str> {
    if config.request.resolve_body.is_empty() {
        return None;
    }
    match held {
        HeldHeaders::Fine => None,
        HeldHeaders::NotSet => Some(
            "a request's headers go on before its body is judged; with allow_on_headers_stop_iteration: true beside \
             failure_policy (Envoy 1.35 and later) they wait for it",
        ),
        HeldHeaders::NoField => Some(
            "a request's headers go on before its body is judged; what holds them, Envoy's \
             allow_on_headers_stop_iteration, has no field here (docs/limits.md)",
        ),
    }
}

#[cfg(test)]
mod tests;
