//! The metrics in a real Envoy: each one moves, and the dashboard and the alerts ask for nothing that this
//! Envoy does not print.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use azure_key_vault_filter::metrics::{ENDPOINTS, STATUSES};
use envoy_test::client;
use envoy_test::emulator::{Endpoint, Fault};
use envoy_test::envoy::{Tools, stats_tags};
use envoy_test::world::{CLIENT, CLIENT_SECRET, World, configuration};
use serde_json::{Value, json};

use super::{documents, files, folder, text};
use crate::document::read;
use crate::steps::workspace;

const MARK: &str = "pl4nted";
/// Nothing ends.
const NEVER: f64 = azure_key_vault_filter::metrics::NEVER as f64;

/// Every metric and the labels that it has; histograms by their base name.
const METRICS: [(&str, &str, &[&str]); 14] = [
    ("akv_references_total", "counter", &["source", "vault"]),
    ("akv_refusals_total", "counter", &["reason"]),
    ("akv_request_delay_ms", "histogram", &[]),
    (
        "akv_azure_calls_total",
        "counter",
        &["endpoint", "status", "vault"],
    ),
    ("akv_tokens_renewed_total", "counter", &["identity"]),
    ("akv_token_failures_total", "counter", &["reason"]),
    ("akv_secret_failures_total", "counter", &["reason", "vault"]),
    ("akv_secret_expiry_seconds", "gauge", &["vault"]),
    ("akv_token_expiry_seconds", "gauge", &[]),
    ("akv_cache_entries", "gauge", &[]),
    ("akv_cache_bytes", "gauge", &[]),
    ("akv_backoffs", "gauge", &["kind", "vault"]),
    (
        "akv_named_secret_failures_total",
        "counter",
        &["secret", "vault"],
    ),
    (
        "akv_named_secret_expiry_seconds",
        "gauge",
        &["secret", "vault"],
    ),
];

/// What Envoy printed: series by name and labels, and the metrics' kinds.
#[derive(Default)]
struct Printed {
    kinds: BTreeMap<String, String>,
    series: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

impl Printed {
    /// The text format of Prometheus, as far as it is about the filter.
    fn parse(text: &str) -> Self {
        let mut printed = Self::default();
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE akv_") {
                let (name, kind) = kind.split_once(' ').expect("a kind");
                printed.kinds.insert(format!("akv_{name}"), kind.to_owned());
            }
            if !line.starts_with("akv_") {
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').expect("labels");
            let pairs = labels.split(',').filter(|pair| !pair.is_empty());
            let labels = pairs.map(|pair| {
                let (label, value) = pair.split_once('=').expect("a label");
                (label.to_owned(), value.trim_matches('"').to_owned())
            });
            let key = (name.to_owned(), labels.collect());
            printed.series.insert(key, value.parse().expect("a number"));
        }
        printed
    }

    /// Of the series with these labels, at least.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |has: &BTreeMap<String, String>| {
            labels
                .iter()
                .all(|(l, v)| has.get(*l).is_some_and(|h| h == v))
        };
        let series = self
            .series
            .iter()
            .filter(|((n, has), _)| n == name && fits(has));
        series.map(|(_, value)| value).sum()
    }

    /// Labels that series of this name have.
    fn labels(&self, name: &str) -> BTreeSet<String> {
        let of_name = self.series.keys().filter(|(n, _)| n == name);
        of_name
            .flat_map(|(_, labels)| labels.keys().cloned())
            .collect()
    }

    /// The values that a label has.
    fn values(&self, label: &str) -> BTreeSet<&str> {
        let labels = self.series.keys().map(|(_, labels)| labels);
        labels
            .filter_map(|l| l.get(label))
            .map(String::as_str)
            .collect()
    }
}

/// An Envoy whose metrics are watched.
struct Watched {
    world: World,
    /// What moved in any of the scrapes.
    moved: BTreeSet<String>,
    last: (Printed, String),
}

impl Watched {
    fn scrape(&mut self) {
        let text = self
            .world
            .envoy
            .admin_get("/stats/prometheus")
            .expect("metrics")
            .text();
        let printed = Printed::parse(&text);
        for ((name, _), value) in &printed.series {
            let ends = name.ends_with("expiry_seconds");
            if *value > 0.0 && (!ends || *value < NEVER) {
                self.moved.insert(name.clone());
            }
        }
        self.last = (printed, text);
    }

    fn wait_for(&mut self, what: &str, holds: impl Fn(&Printed) -> bool) {
        self.wait(what, holds, |_| {});
    }

    /// The same, while a client goes on asking for this reference.
    fn asking_for(&mut self, reference: &str, what: &str, holds: impl Fn(&Printed) -> bool) {
        self.wait(what, holds, |watched| {
            assert_eq!(watched.ask(reference), 200);
        });
    }

    fn wait(&mut self, what: &str, holds: impl Fn(&Printed) -> bool, meanwhile: impl Fn(&Self)) {
        let start = Instant::now();
        loop {
            meanwhile(self);
            self.scrape();
            if holds(&self.last.0) {
                return;
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{what}: not within 20 s; {}\n{}",
                self.last.1,
                self.world.envoy.log()
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Asks for a reference; each time on a new connection, so that both workers have some.
    fn ask(&self, reference: &str) -> u16 {
        let headers: [(&str, &[u8]); 1] = [("x-key", reference.as_bytes())];
        let answer = client::get(self.world.envoy.address, "/", &headers);
        answer.expect("an answer").status
    }
}

fn start() -> Watched {
    let rules = json!({
        "request": {
            "set": { "headers": { "authorization": "{vault://azure/db}" } },
            "resolve": { "headers": ["x-*"], "allow": ["azure/open-*"] },
        },
        "metrics": { "secret_names": true },
    });
    let vault = json!({ "ttl": 2, "neg_ttl": 60 });
    let tools = Tools::find().expect("the tools are there");
    let world = World::start(tools, &configuration(&vault, &rules), |azure| {
        azure.set_secret("db", &format!("{MARK}-db"));
        // The first calls for a token fail.
        azure.set_client_secret(CLIENT, "another");
    });
    Watched {
        world: world.expect("the world starts"),
        moved: BTreeSet::new(),
        last: Default::default(),
    }
}

/// Goes through everything that can happen to a gateway, and looks at its metrics meanwhile.
fn drive(watched: &mut Watched) {
    let azure = watched.world.azure.clone();
    let source = |printed: &Printed, source| {
        printed.sum(
            "akv_references_total",
            &[("source", source), ("vault", "azure")],
        )
    };
    let backoffs = |printed: &Printed, kind| printed.sum("akv_backoffs", &[("kind", kind)]);
    watched.wait_for("a token that is not given", |p| {
        p.sum("akv_token_failures_total", &[("reason", "credentials")]) > 0.0
            && backoffs(p, "tokens") > 0.0
    });
    assert_eq!(
        watched.ask("none"),
        503,
        "the operator's secret is not there"
    );
    azure.set_client_secret(CLIENT, CLIENT_SECRET);
    watched.wait_for("the token", |p| {
        p.sum("akv_tokens_renewed_total", &[("identity", "client_secret")]) == 1.0
            && p.sum("akv_cache_entries", &[]) > 0.0
            && backoffs(p, "tokens") == 0.0
    });
    let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    let in_an_hour = in_an_hour
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    // One worker fetches, the other one finds it in shared data.
    for n in 0..20 {
        let name = format!("open-{n}");
        azure.set_secret(&name, &format!("{MARK}-{n}"));
        azure.update_secret(&name, &json!({ "attributes": { "exp": in_an_hour } }));
        let reference = format!("{{vault://azure/{name}}}");
        // Several at a time: one worker alone may take all connections that come one after the other.
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        assert_eq!(watched.ask(&reference), 200);
                    }
                });
            }
        });
        // Handed over once a second.
        thread::sleep(Duration::from_millis(1200));
        watched.scrape();
        if source(&watched.last.0, "shared") > 0.0 {
            break;
        }
    }
    // A value that is not asked for is not counted for long: on a busy machine it would be gone by now.
    watched.asking_for("{vault://azure/open-0}", "the sources", |p| {
        ["local", "shared", "fetched"]
            .iter()
            .all(|s| source(p, s) > 0.0)
            && p.sum("akv_request_delay_ms_count", &[]) > 0.0
            && p.sum("akv_secret_expiry_seconds", &[("vault", "azure")]) < 3600.0
            && p.sum("akv_named_secret_expiry_seconds", &[("secret", "open_0")]) <= 3600.0
    });
    assert_eq!(watched.ask("{vault://azure/open-nobody}"), 503);
    assert_eq!(watched.ask("{vault://azure/open-nobody}"), 503);
    assert_eq!(watched.ask("{vault://azure/open-nobody}"), 503);
    watched.wait_for("the failures", |p| {
        p.sum("akv_refusals_total", &[("reason", "not_found")]) == 3.0
            && source(p, "failed") > 0.0
            && source(p, "negative") > 0.0
            && backoffs(p, "secrets") > 0.0
            && p.sum(
                "akv_named_secret_failures_total",
                &[("secret", "open_nobody")],
            ) > 0.0
    });
    azure.fail(Endpoint::Secrets, Fault::Throttle("4".into()));
    watched.wait_for("the vault's hold", |p| {
        let calls = [
            ("endpoint", "secrets"),
            ("status", "429"),
            ("vault", "azure"),
        ];
        backoffs(p, "vaults") > 0.0 && p.sum("akv_azure_calls_total", &calls) > 0.0
    });
    let start = Instant::now();
    while source(&watched.last.0, "stale") == 0.0 {
        assert_eq!(watched.ask("none"), 200, "the old value serves");
        watched.scrape();
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "nothing is stale"
        );
    }
    azure.clear_faults();
    watched.wait_for("the end of the hold", |p| backoffs(p, "vaults") == 0.0);
}

#[test]
fn every_metric_moves_and_the_dashboard_and_the_alerts_ask_for_no_other() {
    let mut watched = start();
    drive(&mut watched);
    let (printed, text) = &watched.last;
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("akv_")).collect();
    let _ = writeln!(std::io::stdout(), "{}", ours.join("\n"));
    for (name, kind, labels) in METRICS {
        assert_eq!(
            printed.kinds.get(name).map(String::as_str),
            Some(kind),
            "{name}"
        );
        let shown = if kind == "histogram" {
            format!("{name}_count")
        } else {
            name.to_owned()
        };
        assert!(watched.moved.contains(&shown), "{name} never moved");
        let expected: BTreeSet<String> = labels.iter().map(|l| (*l).to_owned()).collect();
        assert_eq!(printed.labels(&shown), expected, "{name}");
    }
    let known: BTreeSet<&str> = METRICS.iter().map(|(name, ..)| *name).collect();
    let others: Vec<&String> = printed
        .kinds
        .keys()
        .filter(|n| !known.contains(n.as_str()))
        .collect();
    assert!(others.is_empty(), "not in the table: {others:?}");
    watched
        .world
        .assert_clean(&[MARK, CLIENT_SECRET, "emulated-"]);
    check_dashboard(printed);
    check_alerts(printed);
}

fn check_dashboard(printed: &Printed) {
    let dashboard = text(&folder("observability").join("grafana-dashboard.json"));
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut used = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(
            ids.insert(panel["id"].as_u64().expect("an id")),
            "two panels of one id"
        );
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().expect("a query");
            used.extend(check_query(query, printed));
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            for part in legend.split("{{").skip(1) {
                let label = part.split("}}").next().expect("a label");
                let labels = query_labels(query);
                assert!(labels.contains(label), "{label} is not in {query}");
            }
        }
    }
    let all: BTreeSet<String> = METRICS
        .iter()
        .map(|(name, ..)| (*name).to_owned())
        .collect();
    assert_eq!(used, all, "the dashboard shows every metric");
}

fn check_alerts(printed: &Printed) {
    let rules = read(&text(&folder("observability").join("alerts.yaml"))).expect("YAML");
    let rules = rules.first().expect("a document").value();
    let mut names = BTreeSet::new();
    for group in rules["groups"].as_array().expect("groups") {
        for rule in group["rules"].as_array().expect("rules") {
            let name = rule["alert"].as_str().expect("a name");
            assert!(names.insert(name.to_owned()), "{name} twice");
            let query = rule["expr"].as_str().expect("a query");
            assert!(!check_query(query, printed).is_empty(), "{name}");
            for annotation in ["summary", "description"] {
                let text = rule["annotations"][annotation].as_str().expect(annotation);
                for part in text.split("$labels.").skip(1) {
                    let label: String = part.chars().take_while(|c| c.is_alphanumeric()).collect();
                    assert!(query_labels(query).contains(&label), "{name}: {label}");
                }
            }
            assert!(
                rule["labels"]["severity"].is_string() && rule["for"].is_string(),
                "{name}"
            );
        }
    }
    assert!(names.len() >= 5, "{names:?}");
}

/// A query in words: names, and texts in quotes with the label that they are compared with.
enum Word {
    Name(String),
    Text(String, String),
}

fn words(query: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = query;
    let mut last = String::new();
    while let Some(first) = rest.chars().next() {
        let length = if first == '"' {
            let text = rest[1..].split('"').next().expect("a text");
            words.push(Word::Text(last.clone(), text.to_owned()));
            text.len() + 2
        } else if first.is_ascii_alphabetic() || first == '_' || first == '$' {
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || "_$:".contains(*c))
                .collect();
            last.clone_from(&name);
            let length = name.len();
            words.push(Word::Name(name));
            length
        } else if first.is_ascii_digit() {
            // `5m`, `0.95`: nothing to look up.
            rest.chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '.')
                .count()
        } else {
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    words
}

fn query_labels(query: &str) -> BTreeSet<String> {
    let names = words(query).into_iter().filter_map(|word| match word {
        Word::Name(name) => Some(name),
        Word::Text(..) => None,
    });
    names.collect()
}

/// What of PromQL the queries use.
const LANGUAGE: [&str; 16] = [
    "sum",
    "by",
    "rate",
    "increase",
    "min",
    "max",
    "histogram_quantile",
    "and",
    "or",
    "unless",
    "on",
    "ignoring",
    "clamp_min",
    "bool",
    "without",
    "$__rate_interval",
];

/// Every name in a query is a metric that Envoy printed, one of its labels, or the language's; and every
/// value is one that the label had, or a pattern that fits one. Returns the metrics.
fn check_query(query: &str, printed: &Printed) -> BTreeSet<String> {
    let mut metrics = BTreeSet::new();
    let mut labels: BTreeSet<String> = BTreeSet::new();
    let in_query = query_labels(query);
    for name in in_query.iter().filter(|name| name.starts_with("akv_")) {
        let known = printed.series.keys().any(|(n, _)| n == name);
        assert!(known, "Envoy prints no {name}: {query}");
        labels.extend(printed.labels(name));
        let base = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .filter(|base| printed.kinds.contains_key(*base));
        metrics.insert(base.unwrap_or(name).to_owned());
    }
    for word in words(query) {
        match word {
            Word::Name(name) => {
                let known = name.starts_with("akv_")
                    || labels.contains(&name)
                    || LANGUAGE.contains(&name.as_str());
                assert!(
                    known,
                    "{name} is neither a label of {metrics:?} nor PromQL: {query}"
                );
            }
            Word::Text(label, text) => {
                let values = printed.values(&label);
                for value in text.split('|') {
                    let may_be = match label.as_str() {
                        "status" => STATUSES.contains(&value),
                        "endpoint" => ENDPOINTS.contains(&value),
                        _ => false,
                    };
                    assert!(
                        values.contains(value) || may_be,
                        "{label} never was {value}: {query}"
                    );
                }
            }
        }
    }
    metrics
}

/// The examples take the same labels out of names as the Envoy of the tests.
#[test]
fn envoys_examples_take_all_labels_out_of_names() {
    for name in ["envoy.yaml", "envoy-remote.yaml"] {
        let documents = read(&text(&folder("envoy").join(name))).expect("YAML");
        let tags = documents[0].value()["stats_config"]["stats_tags"].clone();
        assert_eq!(tags, stats_tags(), "{name}");
    }
    let of = |folder, kind: &str| {
        let documents = files(folder, ".yaml")
            .iter()
            .flat_map(|path| documents(path))
            .collect::<Vec<_>>();
        let found = documents.iter().find(|(_, d)| d.value()["kind"] == kind);
        found.expect(kind).1.value()["spec"].take()
    };
    let istios = of("istio", "EnvoyFilter");
    let value = &istios["configPatches"][0]["patch"]["value"];
    assert_eq!(value["stats_config"]["stats_tags"], stats_tags(), "Istio");
    let gateways = of("envoy-gateway", "EnvoyProxy");
    let bootstrap = gateways["bootstrap"]["value"]
        .as_str()
        .expect("YAML in a text");
    let bootstrap = read(bootstrap).expect("YAML")[0].value();
    assert_eq!(
        bootstrap["stats_config"]["stats_tags"],
        stats_tags(),
        "Envoy Gateway"
    );
    let kongs = text(&workspace().join("filter-config/azure_key_vault_filter.meta.json"));
    let kongs: Value = serde_json::from_str(&kongs).expect("JSON");
    let labels: Vec<&str> = kongs["metrics"]["label_patterns"]
        .as_array()
        .expect("patterns")
        .iter()
        .map(|pattern| pattern["label"].as_str().expect("a label"))
        .collect();
    assert_eq!(labels, envoy_test::envoy::LABELS);
}
