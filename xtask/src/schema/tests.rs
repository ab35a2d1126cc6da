//! The schema against the filter's own reader: every field is known to both, and what one refuses for its
//! form the other refuses too.

use std::collections::BTreeSet;

use azure_key_vault_filter::config::Config;
use jsonschema::Validator;

use super::*;

#[test]
fn the_files_are_those_that_are_generated() {
    for (name, value) in files() {
        let path = workspace().join("filter-config").join(name);
        let text = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            text,
            format!("{value:#}\n"),
            "run `cargo xtask schema` and commit {name}"
        );
    }
}

/// Objects of the configuration: how a field of one is put into a whole, and its table.
type Place = (&'static str, fn(Value) -> Value, &'static [Field]);

const PLACES: [Place; 9] = [
    ("", |object| object, ROOT),
    ("vaults[0]", |object| json!({ "vaults": [object] }), VAULT),
    (
        "vaults[0].config",
        |object| json!({ "vaults": [{ "prefix": "pay", "config": object }] }),
        CONFIG,
    ),
    ("request", |object| json!({ "request": object }), REQUEST),
    (
        "request.set",
        |object| json!({ "request": { "set": object } }),
        REQUEST_SET,
    ),
    (
        "request.resolve",
        |object| json!({ "request": { "resolve": object } }),
        REQUEST_RESOLVE,
    ),
    ("response", |object| json!({ "response": object }), RESPONSE),
    (
        "response.set",
        |object| json!({ "response": { "set": object } }),
        RESPONSE_SET,
    ),
    (
        "response.resolve",
        |object| json!({ "response": { "resolve": object } }),
        RESPONSE_RESOLVE,
    ),
];

fn problems(configuration: &Value) -> Vec<String> {
    let read = Config::parse(configuration.to_string().as_bytes(), &|_| None);
    let problems = read.err().unwrap_or_default();
    problems.iter().map(ToString::to_string).collect()
}

fn path(place: &str, name: &str) -> String {
    if place.is_empty() {
        name.to_owned()
    } else {
        format!("{place}.{name}")
    }
}

/// Whether the reader refuses this field because it does not have it.
fn is_unknown(place: Place, name: &str) -> bool {
    let (at, whole, _) = place;
    let configuration = whole(json!({ name: "" }));
    let start = path(at, name);
    let unknown = format!("{start}: is not a known field");
    problems(&configuration)
        .iter()
        .any(|problem| problem.starts_with(&unknown))
}

#[test]
fn the_reader_knows_every_field_of_the_schema() {
    for place in PLACES {
        for field in place.2 {
            assert!(
                !is_unknown(place, field.name),
                "{}",
                path(place.0, field.name)
            );
        }
        assert!(is_unknown(place, "such_a_field_there_is_not"));
    }
}

#[test]
fn the_schema_has_every_field_of_the_reader() {
    for place in PLACES {
        let (at, whole, fields) = place;
        let stranger = "such_a_field_there_is_not_at_all";
        let problems = problems(&whole(json!({ stranger: 1 })));
        let start = format!("{}: is not a known field; known are ", path(at, stranger));
        let known = problems
            .iter()
            .find_map(|problem| problem.strip_prefix(&start));
        let known = known.unwrap_or_else(|| panic!("{at}: {problems:?}"));
        let known: BTreeSet<&str> = known.split(", ").collect();
        let ours: BTreeSet<&str> = fields.iter().map(|field| field.name).collect();
        let missing: Vec<_> = known.difference(&ours).collect();
        assert!(
            missing.is_empty(),
            "{at} has {missing:?} in src/config: add a line for each to xtask/src/schema.rs"
        );
        assert!(ours.is_subset(&known), "{at}");
    }
}

fn validators() -> [Validator; 2] {
    [Dialect::Editor, Dialect::Kong].map(|dialect| {
        let schema = schema(dialect);
        assert!(jsonschema::meta::is_valid(&schema));
        jsonschema::validator_for(&schema).unwrap()
    })
}

fn good(config: &Value, rest: &Value) -> Value {
    let mut vault = json!({
        "vault_uri": "https://my-vault.vault.azure.net", "tenant_id": "t", "client_id": "c", "client_secret": "s"
    });
    let add = |to: &mut Value, from: &Value| {
        for (name, value) in from.as_object().unwrap() {
            to[name] = value.clone();
        }
    };
    add(&mut vault, config);
    let mut whole = json!({ "vaults": [{ "name": "azure", "prefix": "pay", "config": vault }] });
    add(&mut whole, rest);
    whole
}

/// Both take these.
fn good_ones() -> Vec<Value> {
    let mut all = vec![good(&json!({}), &json!({}))];
    for config in [
        json!({ "ttl": 0, "neg_ttl": 1.5, "resurrect_ttl": 100_000_000, "base64_decode": true }),
        json!({ "ttl": null, "location": null, "type": null, "base64_decode": null }),
        json!({ "type": "keys", "vault_uri": "https://h.managedhsm.azure.net:443/" }),
        json!({ "cloud": "china", "vault_uri": "https://v.vault.azure.cn" }),
        json!({ "cloud": "custom", "vault_uri": "https://v.example", "dns_suffix": "example", "authority_host": "https://login.example:8443" }),
        json!({ "identity": "client_secret", "credentials_prefix": "PAY", "timeout_ms": 1, "api_version": "7.5-preview.1" }),
        json!({ "identity": "workload_identity", "federated_token_url": "http://127.0.0.1:8181/token", "federated_token_cluster": "c" }),
        json!({ "identity": "workload_identity", "federated_token": "t" }),
        json!({ "identity": "managed_identity", "client_id": null, "object_id": "o", "managed_identity_source": "imds", "managed_identity_endpoint": "http://169.254.169.254/x" }),
    ] {
        all.push(good(&config, &json!({})));
    }
    for rest in [
        json!({ "request": null, "on_error": null, "shared_data": null }),
        json!({ "request": { "set": { "headers": { "X-Key!": "a {vault://pay/b} c" } } }, "on_error": "keep", "shared_data": true }),
        json!({ "request": {
            "set": { "query": { "any name": "{vault://pay/b}" } },
            "resolve": { "query": ["key", "a b"], "body": ["application/json", "application/x+json", "Text/Plain"], "allow": ["*"] },
        } }),
        json!({ "response": {
            "set": { "headers": { "x-kid": "{vault://pay/k}" } },
            "resolve": { "headers": ["x-next"], "body": ["application/x-www-form-urlencoded"], "allow": ["pay/*"] },
            "redact": true,
        } }),
        json!({ "max_body_bytes": 1, "max_fetches_per_second": 100_000, "max_fetches_in_flight": 1 }),
        json!({ "request": { "resolve": { "headers": ["x-*", "*"], "allow": ["*", "pay/a", "pay/a*/b/c"] } } }),
        json!({ "vaults": [{ "id": 1, "created_at": 2, "updated_at": [], "name": null, "prefix": "a1", "tags": ["t"], "description": "d",
            "config": { "vault_uri": "https://v.vault.azure.net", "client_id": "c" } }] }),
    ] {
        all.push(good(&json!({}), &rest));
    }
    all
}

/// Both refuse these.
fn bad_ones() -> Vec<Value> {
    let mut all = vec![json!([]), json!("x")];
    for config in [
        json!({ "ttl": -1 }),
        json!({ "ttl": "300" }),
        json!({ "neg_ttl": 100_000_001 }),
        json!({ "timeout_ms": 0 }),
        json!({ "vault_uri": "http://v.vault.azure.net" }),
        json!({ "vault_uri": "https://v.vault.azure.net/secrets" }),
        json!({ "vault_uri": "" }),
        json!({ "tenant_id": "a/b" }),
        json!({ "client_id": 7 }),
        json!({ "client_id": "" }),
        json!({ "client_secret": ["s"] }),
        json!({ "type": "secret" }),
        json!({ "identity": "azure_arc" }),
        json!({ "cloud": "germany" }),
        json!({ "managed_identity_source": "vm" }),
        json!({ "federated_token_url": "file:///token", "identity": "workload_identity" }),
        json!({ "base64_decode": "yes" }),
        json!({ "api_version": "7.4&x" }),
        json!({ "vault_url": "https://v.vault.azure.net" }),
        json!({ "authority_host": "login.microsoftonline.com" }),
    ] {
        all.push(good(&config, &json!({})));
    }
    for rest in [
        json!({ "vaults": {} }),
        json!({ "vaults": ["x"] }),
        json!({ "vaults": [{ "config": {} }] }),
        json!({ "vaults": [{ "prefix": "A" }] }),
        json!({ "vaults": [{ "prefix": "a" }] }),
        json!({ "vaults": [{ "prefix": "pay", "name": "aws" }] }),
        json!({ "vaults": [{ "prefix": "pay", "tags": "x" }] }),
        json!({ "request": [] }),
        json!({ "request": { "headers": {} } }),
        json!({ "request": { "set": { "headers": { ":path": "x" } } } }),
        json!({ "request": { "set": { "headers": { "x-a": 1 } } } }),
        json!({ "request": { "set": { "headers": ["x-a"] } } }),
        json!({ "request": { "resolve": { "headers": ["x a"] } } }),
        json!({ "request": { "resolve": { "allow": ["pay"] } } }),
        json!({ "request": { "resolve": { "allow": ["pay/"] } } }),
        json!({ "request": { "resolve": { "allow": "pay/a" } } }),
        json!({ "request": { "resolve": { "body": ["json"] } } }),
        json!({ "request": { "resolve": { "body": "application/json" } } }),
        json!({ "request": { "set": { "query": { "a": 1 } } } }),
        json!({ "request": { "redact": true } }),
        json!({ "response": { "set": { "query": { "a": "b" } } } }),
        json!({ "response": { "resolve": { "query": ["a"] } } }),
        json!({ "response": { "redact": "yes" } }),
        json!({ "max_body_bytes": 0 }),
        json!({ "max_fetches_per_second": 100_001 }),
        json!({ "max_fetches_in_flight": "1" }),
        json!({ "on_error": "ignore" }),
        json!({ "on_eror": "deny" }),
        json!({ "shared_data": 1 }),
    ] {
        all.push(good(&json!({}), &rest));
    }
    all
}

#[test]
fn the_schema_and_the_reader_agree() {
    let validators = validators();
    for configuration in good_ones() {
        assert_eq!(
            problems(&configuration),
            Vec::<String>::new(),
            "{configuration}"
        );
        for validator in &validators {
            let errors: Vec<_> = validator
                .iter_errors(&configuration)
                .map(|e| e.to_string())
                .collect();
            assert!(errors.is_empty(), "{configuration}: {errors:?}");
        }
    }
    for configuration in bad_ones() {
        assert_ne!(
            problems(&configuration),
            Vec::<String>::new(),
            "{configuration}"
        );
        for validator in &validators {
            assert!(!validator.is_valid(&configuration), "{configuration}");
        }
    }
}

/// Kong's library cannot tell an empty list from an empty object.
#[test]
fn an_empty_list_is_refused_for_kong_only() {
    let configuration = good(
        &json!({}),
        &json!({ "request": { "resolve": { "headers": [] } } }),
    );
    assert_eq!(
        validators().map(|validator| validator.is_valid(&configuration)),
        [true, false]
    );
    assert_eq!(problems(&configuration), Vec::<String>::new());
}

/// `kong/db/schema/json.lua` takes draft 4 only, and its validator leaves out words that are newer: a rule
/// written with one would hold nothing.
#[test]
fn kongs_schema_has_draft_4s_words_only() {
    const WORDS: [&str; 16] = [
        "$schema",
        "title",
        "description",
        "type",
        "enum",
        "properties",
        "patternProperties",
        "additionalProperties",
        "required",
        "items",
        "minItems",
        "minLength",
        "pattern",
        "minimum",
        "maximum",
        "not",
    ];
    fn check(schema: &Value) {
        for (word, value) in schema.as_object().unwrap() {
            assert!(WORDS.contains(&word.as_str()), "{word}");
            match word.as_str() {
                "properties" | "patternProperties" => {
                    value.as_object().unwrap().values().for_each(check)
                }
                "items" => check(value),
                "required" => assert!(!value.as_array().unwrap().is_empty()),
                _ => {}
            }
        }
    }
    let meta = meta();
    check(&meta["config_schema"]);
    assert_eq!(
        meta["config_schema"]["$schema"],
        "http://json-schema.org/draft-04/schema#"
    );
    assert!(meta["metrics"]["label_patterns"].is_array());
}
