//! The schema against the filter's own reader: what one refuses for its form the other refuses too. (That the
//! reader reads every field of the tables is tested beside it, in `src/config`.)

use std::collections::BTreeSet;

use azure_key_vault_filter::config::Config;
use jsonschema::Validator;

use super::*;

#[test]
fn the_files_are_those_that_are_generated() {
    for (name, generated) in files() {
        let text = fs::read_to_string(workspace().join(name)).unwrap_or_default();
        assert!(
            text == generated,
            "run `cargo xtask schema` and commit {name}"
        );
    }
}

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
        json!({ "limits": { "references": 3, "token_interval_ms": 1 } }),
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
        json!({ "limits": { "references": 0 } }),
        json!({ "limits": { "reference": 1 } }),
        json!({ "limits": [] }),
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

/// Vaults of every kind, so that each field has one that it fits.
fn kinds_of_vaults() -> Vec<Value> {
    let secret = json!({ "vault_uri": "https://v.vault.azure.net", "tenant_id": "t", "client_id": "c", "client_secret": "s" });
    let with = |more: Value| {
        let mut vault = secret.clone();
        for (name, value) in more.as_object().unwrap() {
            vault[name] = value.clone();
        }
        vault
    };
    let managed =
        json!({ "vault_uri": "https://v.vault.azure.net", "identity": "managed_identity" });
    let managed_by = |source: &str| {
        let mut vault = managed.clone();
        vault["managed_identity_source"] = json!(source);
        vault["managed_identity_endpoint"] = json!("http://127.0.0.1:4141/token");
        vault
    };
    vec![
        secret.clone(),
        with(json!({ "vault_uri": "https://v.vault.usgovcloudapi.net" })),
        with(json!({ "vault_uri": "https://v.vault.azure.cn" })),
        with(
            json!({ "cloud": "custom", "vault_uri": "https://v.vaults.example.com", "dns_suffix": "vaults.example.com" }),
        ),
        json!({ "vault_uri": "https://v.vault.azure.net", "tenant_id": "t", "client_id": "c", "federated_token_url": "http://127.0.0.1:1/t" }),
        managed_by("imds"),
        managed_by("app_service"),
        managed_by("app_service_2017"),
        managed.clone(),
    ]
}

/// Whole configurations, each with a vault of another kind and the section's object, and the place of that.
fn wholes(section: &str) -> Vec<(Value, String)> {
    let path = section.replace("[]", "/0").replace('.', "/");
    let path = if path.is_empty() {
        path
    } else {
        format!("/{path}")
    };
    let configs = kinds_of_vaults().into_iter();
    let all = configs.map(|config| {
        let mut whole =
            json!({ "vaults": [{ "name": "azure", "prefix": "payments", "config": config }] });
        if whole.pointer(&path).is_none() {
            let mut object = &mut whole;
            for name in section.split('.') {
                object = &mut object[name];
                if object.is_null() {
                    *object = json!({});
                }
            }
            if section.ends_with("resolve") {
                // Places without `allow`, and `allow` without a place, are refused.
                *object = json!({ "headers": ["x-key"], "allow": ["*"] });
            }
        }
        (whole, path.clone())
    });
    all.collect()
}

const AZURES: [(&str, &str); 2] = [("IDENTITY_HEADER", "h"), ("MSI_SECRET", "s")];

/// What the reader makes of it, with these variables beside those that Azure sets.
fn read_with(whole: &Value, variables: &[(&str, &str)]) -> Result<String, String> {
    let env = |name: &str| {
        let mut all = variables.iter().chain(&AZURES);
        all.find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    };
    let read = Config::parse(whole.to_string().as_bytes(), &env);
    let read = read.map(|config| format!("{config:?}"));
    read.map_err(|problems| format!("{problems:?}"))
}

/// Every field with the path of its object, but for objects themselves.
fn leaves() -> Vec<(String, &'static Field)> {
    let all = page::sections()
        .into_iter()
        .flat_map(|(path, fields)| fields.iter().map(move |field| (path.clone(), field)));
    all.filter(|(_, field)| {
        !matches!(
            field.shape,
            Shape::Object(_) | Shape::Objects(_) | Shape::Limits
        )
    })
    .collect()
}

fn placed(whole: &Value, at: &str, field: &Field, value: Option<&Value>) -> Value {
    let mut whole = whole.clone();
    let object = whole.pointer_mut(at).and_then(Value::as_object_mut);
    let object = object.unwrap_or_else(|| panic!("{at}"));
    object.remove(field.name);
    if let Some(value) = value {
        object.insert(field.name.to_owned(), value.clone());
    }
    whole
}

#[test]
fn every_example_is_taken() {
    for (section, field) in leaves() {
        let name = path(&section, field.name);
        let example: Value = serde_json::from_str(field.example).unwrap_or_else(|error| {
            panic!("{name} has no example in src/config/fields.rs: {error}")
        });
        let all: Vec<Value> = wholes(&section)
            .iter()
            .map(|(whole, at)| placed(whole, at, field, Some(&example)))
            .collect();
        for validator in validators() {
            assert!(all.iter().all(|whole| validator.is_valid(whole)), "{name}");
        }
        // What is shortened is not whole.
        if field.example.contains('…') {
            continue;
        }
        let read: Vec<_> = all.iter().map(|whole| read_with(whole, &[])).collect();
        assert!(read.iter().any(Result::is_ok), "{name}: {read:?}");
    }
}

#[test]
fn every_default_is_what_the_reader_takes() {
    let mut seen = 0;
    for (section, field) in leaves() {
        let Ok(default) = serde_json::from_str::<Value>(field.default) else {
            continue;
        };
        for (whole, at) in wholes(&section) {
            let without = read_with(&placed(&whole, &at, field, None), &[]);
            let with = read_with(&placed(&whole, &at, field, Some(&default)), &[]);
            assert_eq!(without, with, "{}", path(&section, field.name));
            seen += usize::from(with.is_ok());
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn every_variable_stands_for_its_field() {
    for (section, field) in leaves() {
        let name = path(&section, field.name);
        let example: Value = serde_json::from_str(field.example).unwrap();
        let text = example
            .as_str()
            .map_or_else(|| example.to_string(), ToOwned::to_owned);
        let own = [(
            "client_certificate",
            include_str!("../../../tests/data/keys/bundle.pem"),
        )];
        let text = own
            .iter()
            .find(|(name, _)| *name == field.name)
            .map_or(text, |(_, text)| (*text).to_owned());
        for variable in field.variables {
            let fits = wholes(&section).into_iter().any(|(mut whole, at)| {
                // With another prefix the environment might make a second vault.
                whole["vaults"][0]["prefix"] = json!("azure");
                if ["client_certificate", "federated_token"].contains(&field.name) {
                    // In place of what this vault proves itself with.
                    for other in ["client_secret", "federated_token_url"] {
                        let object = whole.pointer_mut(&at).and_then(Value::as_object_mut);
                        object.unwrap().remove(other);
                    }
                }
                let set = placed(&whole, &at, field, Some(&json!(text)));
                let set = [set, placed(&whole, &at, field, Some(&example))]
                    .map(|whole| read_with(&whole, &[]));
                let absent = placed(&whole, &at, field, None);
                let from = read_with(&absent, &[(variable, &text)]);
                from.is_ok() && set.contains(&from) && from != read_with(&absent, &[])
            });
            assert!(fits, "{name} from {variable}");
        }
    }
}

/// A variable that the reader looks for has to be in a table, or among those that Azure sets.
#[test]
fn the_reader_asks_for_no_other_variable() {
    let known: BTreeSet<&str> = leaves()
        .iter()
        .flat_map(|(_, field)| field.variables)
        .copied()
        .collect();
    // Named in advice, looked at for what the machine is, or Kong's for a field that means nothing here.
    let others = [
        "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_CLIENT_CERTIFICATE_PATH",
        "IDENTITY_HEADER",
        "IDENTITY_SERVER_THUMBPRINT",
        "IMDS_ENDPOINT",
        "KONG_VAULT_AZURE_LOCATION",
        "MSI_SECRET",
    ];
    let asked = std::cell::RefCell::new(BTreeSet::new());
    for config in kinds_of_vaults().into_iter().chain([
        json!({}),
        json!({ "vault_uri": "https://v.vault.azure.net", "tenant_id": "t" }),
    ]) {
        let whole = json!({ "vaults": [{ "name": "azure", "prefix": "pay", "config": config }] });
        let env = |name: &str| {
            asked.borrow_mut().insert(name.to_owned());
            None
        };
        let _ = Config::parse(whole.to_string().as_bytes(), &env);
    }
    let asked = asked.into_inner();
    let strangers: Vec<&String> = asked
        .iter()
        .filter(|name| !known.contains(name.as_str()) && !others.contains(&name.as_str()))
        .collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    let unasked: Vec<&&str> = known
        .iter()
        .filter(|name| !asked.contains(**name))
        .collect();
    assert!(unasked.is_empty(), "{unasked:?}");
}

#[test]
fn the_page_shows_a_configuration_that_is_taken() {
    let read = Config::parse(page::WHOLE.as_bytes(), &|name| {
        (name == "AZURE_CLIENT_SECRET").then(|| "s".to_owned())
    });
    assert!(read.is_ok(), "{read:?}");
}
