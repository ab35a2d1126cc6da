//! Kong's examples by Kong's rules: the entities' fields, the filter's schema as the Admin API applies it, and
//! what kong.conf has to say.

use proxy_wasm_host::{Dialect as Speech, Gateway, Request, Settings, azure};

use super::*;
use crate::schema::{Dialect, schema};

const FILTER: &str = "azure_key_vault_filter";

/// `type` of a field in a table of fields.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
    Flag,
    Entities(&'static [(&'static str, Self)]),
    Entity,
    Configuration,
}

/// `kong/db/schema/entities/filter_chains.lua`, `plugins.lua`, `services.lua` and `routes.lua`, as far as the
/// examples go.
const FILTERS: &[(&str, Kind)] = &[
    ("name", Kind::Text),
    ("enabled", Kind::Flag),
    ("config", Kind::Configuration),
];
const CHAINS: &[(&str, Kind)] = &[
    ("name", Kind::Text),
    ("enabled", Kind::Flag),
    ("route", Kind::Entity),
    ("service", Kind::Entity),
    ("tags", Kind::Texts),
    ("filters", Kind::Entities(FILTERS)),
];
const ROUTES: &[(&str, Kind)] = &[
    ("name", Kind::Text),
    ("paths", Kind::Texts),
    ("filter_chains", Kind::Entities(CHAINS)),
    ("plugins", Kind::Entities(FILTERS)),
];
const SERVICES: &[(&str, Kind)] = &[
    ("name", Kind::Text),
    ("url", Kind::Text),
    ("routes", Kind::Entities(ROUTES)),
    ("filter_chains", Kind::Entities(CHAINS)),
    ("plugins", Kind::Entities(FILTERS)),
];
const DOCUMENT: &[(&str, Kind)] = &[
    ("_format_version", Kind::Text),
    ("services", Kind::Entities(SERVICES)),
    ("filter_chains", Kind::Entities(CHAINS)),
];

fn problems(fields: &[(&str, Kind)], entity: &Value, place: &str, found: &mut Vec<String>) {
    let Some(object) = entity.as_object() else {
        found.push(format!("{place}: no entity"));
        return;
    };
    for (name, value) in object {
        let place = format!("{place}.{name}");
        let Some((_, kind)) = fields.iter().find(|(known, _)| known == name) else {
            found.push(format!("{place}: unknown field"));
            continue;
        };
        let fits = match kind {
            Kind::Text => value.is_string(),
            Kind::Flag => value.is_boolean(),
            Kind::Texts => value
                .as_array()
                .is_some_and(|items| items.iter().all(Value::is_string)),
            // By its name: Kong 3.9.1 refuses `{ name: … }`.
            Kind::Entity => value.is_string(),
            Kind::Configuration => value.is_string() || value.is_object(),
            Kind::Entities(fields) => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    problems(fields, item, &format!("{place}[{index}]"), found);
                }
                value.as_array().is_some_and(|items| !items.is_empty())
            }
        };
        if !fits {
            found.push(format!("{place}: wrong type"));
        }
    }
}

fn declarative() -> Vec<PathBuf> {
    let mut files = files("kong", ".yaml");
    files.retain(|path| !path.ends_with("compose.yaml"));
    files
}

#[test]
fn entities_have_kongs_fields() {
    for path in declarative() {
        for (place, document) in documents(&path) {
            let mut found = Vec::new();
            problems(DOCUMENT, &document.value(), &place, &mut found);
            assert_eq!(found, Vec::<String>::new());
            assert_eq!(document.text_at(&["_format_version"]), Some("3.0"));
            let mut wrong = document.value();
            wrong["services"][0]["filter_chain"] = json!([]);
            wrong["filter_chains"] = json!([{ "route": { "name": "partners" } }]);
            problems(DOCUMENT, &wrong, &place, &mut found);
            assert_eq!(found.len(), 2, "{found:?}");
        }
    }
}

/// A chain belongs to one service or one route, and a name that is not the file's is `no such filter`.
#[test]
fn chains_belong_somewhere_and_name_the_filter() {
    for path in declarative() {
        let document = documents(&path).remove(0).1.value();
        for chain in document["filter_chains"].as_array().into_iter().flatten() {
            assert!(
                chain["route"].is_string() != chain["service"].is_string(),
                "{chain}"
            );
            let routes = document["services"].as_array().unwrap().iter();
            let mut routes = routes.flat_map(|service| service["routes"].as_array().unwrap());
            assert!(
                routes.any(|route| route["name"] == chain["route"]),
                "{chain}"
            );
        }
        let text = text(&path);
        let named = text.matches(&format!("- name: {FILTER}\n")).count();
        assert_eq!(named, check::find(&read(&text).unwrap()).len());
    }
}

/// As the Admin API does it from 3.5 on: an object by the schema of `.meta.json`. Without a schema (3.4), a
/// text is all that it takes.
#[test]
fn configurations_pass_the_schema_in_kong() {
    let validator = jsonschema::draft4::new(&schema(Dialect::Kong)).unwrap();
    for path in declarative() {
        let document = documents(&path).remove(0).1.value();
        let mut configurations = Vec::new();
        collect(&document, &mut configurations);
        assert!(!configurations.is_empty());
        for configuration in configurations {
            let old = path.ends_with("kong-3.4.yaml");
            assert_eq!(configuration.is_string(), old, "{}", path.display());
            if !old {
                let errors: Vec<_> = validator
                    .iter_errors(configuration)
                    .map(|e| e.to_string())
                    .collect();
                assert!(errors.is_empty(), "{}: {errors:?}", path.display());
                let mut wrong = configuration.clone();
                wrong["vaults"][0]["config"]["vault_url"] = json!("https://v.vault.azure.net");
                assert!(!validator.is_valid(&wrong));
            }
            // No zone, no sharing.
            let shares = configuration.to_string().contains("shared_data");
            assert_eq!(shares, !old, "{}", path.display());
        }
    }
}

fn collect<'a>(value: &'a Value, configurations: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            if value["name"] == FILTER {
                configurations.push(&value["config"]);
            }
            fields
                .values()
                .for_each(|field| collect(field, configurations));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, configurations)),
        _ => {}
    }
}

/// The settings of kong.conf by their names.
pub(super) fn settings() -> BTreeMap<String, String> {
    let text = text(&folder("kong").join("kong.conf"));
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let settings = lines.map(|line| {
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
        (name.trim().to_owned(), value.trim().to_owned())
    });
    settings.collect()
}

#[test]
fn kong_conf_has_what_the_filter_needs() {
    let settings = settings();
    for (name, value) in [
        ("wasm", "on"),
        ("nginx_main_env", "AZURE_CLIENT_SECRET"),
        ("nginx_wasm_tls_verify_cert", "on"),
        ("nginx_wasm_tls_verify_host", "on"),
        (
            "nginx_wasm_tls_trusted_certificate",
            "/etc/ssl/certs/ca-certificates.crt",
        ),
        ("nginx_wasm_shm_kv", "10m"),
    ] {
        assert_eq!(
            settings.get(name).map(String::as_str),
            Some(value),
            "{name}"
        );
    }
    // `wasm {}` has these words (ngx_wasm_module, docs/DIRECTIVES.md); nginx does not start with another.
    let words = [
        "shm_kv",
        "resolver",
        "resolver_timeout",
        "tls_verify_cert",
        "tls_verify_host",
        "tls_no_verify_warn",
        "tls_trusted_certificate",
        "socket_connect_timeout",
    ];
    for name in settings.keys() {
        if let Some(word) = name.strip_prefix("nginx_wasm_") {
            assert!(words.contains(&word), "{name}");
        }
    }
}

/// What the upstream gets in this header from a host that does what Kong's was measured to do.
fn upstream_gets(
    gateway: &mut Gateway,
    azure: &Azure,
    headers: &[(&str, &str)],
    name: &str,
) -> Vec<String> {
    let id = gateway.request(0, Request::get("/", headers));
    azure::answer_all(gateway, azure);
    let sent = gateway.sent(id);
    let sent = sent.unwrap_or_else(|| panic!("{:?}\n{:#?}", gateway.outcome(id), gateway.log()));
    let values = sent.headers.all(name);
    values
        .iter()
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect()
}

/// With `host:port` in place of clusters, `shared_data` and the release filter.
#[test]
fn kongs_examples_run_in_kongs_dialect() {
    let wasm = fs::read(Tools::find().unwrap().filter).unwrap();
    let mut ran = 0;
    for path in declarative() {
        for found in check::find(&read(&text(&path)).unwrap()) {
            let node = found.configuration.as_ref().unwrap();
            let around = Surroundings::start();
            around.azure.set_time(1_750_000_000);
            let mut settings = Settings::new(
                Speech::Wasmx,
                wasm.clone().into(),
                &node.value().to_string(),
            );
            settings.environment = vec![("AZURE_CLIENT_SECRET".into(), CLIENT_SECRET.into())];
            if path.ends_with("kong-3.4.yaml") {
                // No zone, and calls that fail are not heard of.
                settings.zone = None;
                settings.dispatch_status = false;
            }
            let mut gateway = Gateway::start(settings);
            if node.at(&["request", "set"]).is_some() {
                let set = upstream_gets(
                    &mut gateway,
                    &around.azure,
                    &[("authorization", "theirs")],
                    "authorization",
                );
                assert_eq!(set, [format!("Bearer {MARK}-token")], "{}", path.display());
            } else {
                let reference = "{vault://partners/partner-acme}";
                let got = upstream_gets(
                    &mut gateway,
                    &around.azure,
                    &[("x-partner-key", reference)],
                    "x-partner-key",
                );
                assert_eq!(got, [format!("{MARK}-acme")], "{}", path.display());
            }
            assert!(
                gateway.violations().is_empty(),
                "{:#?}",
                gateway.violations()
            );
            ran += 1;
        }
    }
    assert_eq!(ran, 4);
}
