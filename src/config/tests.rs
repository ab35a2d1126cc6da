//! Configurations, good and bad: what they mean, and that every error has its path.

use super::*;

fn no_env(_: &str) -> Option<String> {
    None
}

const VAULT: &str = r#"{"name":"azure","prefix":"azure-key-vault","description":"d","tags":["t"],
  "config":{"type":"secrets","vault_uri":"https://my-vault.vault.azure.net","location":"us-east",
  "tenant_id":"1111","client_id":"2222","credentials_prefix":"PAY","ttl":300,"neg_ttl":10,
  "resurrect_ttl":100,"base64_decode":false,"identity":"client_secret",
  "vault_cluster":"key_vault","identity_cluster":"azure_identity","timeout_ms":1500}}"#;

fn parse(json: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Vec<String>> {
    Config::parse(json.as_bytes(), env)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn with_secret(name: &str) -> Option<String> {
    (name == "PAY_CLIENT_SECRET").then(|| "s3cret".to_owned())
}

#[test]
fn the_designs_vault_is_read() {
    let config = parse(&format!(r#"{{"vaults":[{VAULT}]}}"#), &with_secret).unwrap();
    let vault = &config.vaults[0];
    assert_eq!(vault.prefix, "azure-key-vault");
    assert_eq!(vault.cluster, "key_vault");
    assert_eq!(vault.timeout, Span(1500));
    assert_eq!(vault.cache.ttl, Span::seconds(300));
    assert_eq!(vault.cache.neg_ttl, Span::seconds(10));
    assert_eq!(vault.cache.resurrect_ttl, Span::seconds(100));
    assert_eq!(vault.identity.client_secret.expose(), b"s3cret");
    assert_eq!(vault.identity.authority.host(), "login.microsoftonline.com");
    assert_eq!(config.on_error, OnError::Deny);
}

#[test]
fn the_environment_alone_makes_a_vault() {
    let env = |name: &str| {
        Some(match name {
            "KONG_VAULT_AZURE_VAULT_URI" => "https://v.vault.azure.net".to_owned(),
            "KONG_VAULT_AZURE_TENANT_ID" => "t".to_owned(),
            "KONG_VAULT_AZURE_CLIENT_ID" => "c".to_owned(),
            "KONG_VAULT_AZURE_TTL" => "0".to_owned(),
            "AZURE_CLIENT_SECRET" => "s".to_owned(),
            _ => return None,
        })
    };
    let config = parse("", &env).unwrap();
    let vault = &config.vaults[0];
    assert_eq!(vault.prefix, "azure");
    assert_eq!(vault.cluster, "v.vault.azure.net:443");
    assert_eq!(vault.identity.cluster, "login.microsoftonline.com:443");
    assert_eq!(vault.cache.ttl, Span::FOREVER, "0 is no rotation");
    assert_eq!(vault.cache.resurrect_ttl, Span::seconds(100_000_000));
}

#[test]
fn every_problem_is_named_at_once_with_its_path() {
    let json = r#"{"vaults":[{"name":"aws","prefix":"A","config":{"vault_url":"https://x","ttl":-1,
        "client_id":7,"client_secret":["hush-hush"]}}],
        "request":{"set":{"headers":{"host":"x","x-a":"{vault://other/s}","x-b":"{vault://azure/}"}},
        "resolve":{"headers":[":path","x-*"],"allow":["nope"],"body":["text/plain"]}},"on_eror":"deny","on_error":"ignore"}"#;
    let problems = parse(json, &no_env).unwrap_err();
    for expected in [
        "vaults[0].name: must be azure",
        "vaults[0].prefix: must be at least two",
        "vaults[0].config.vault_url: is not a known field; did you mean `vault_uri`?",
        "vaults[0].config.vault_uri: is missing",
        "vaults[0].config.tenant_id: is missing",
        "vaults[0].config.client_id: must be a text, not a number",
        "vaults[0].config.client_secret: must be a text, not a list",
        "vaults[0].config.ttl: must be from 0 to 100000000, not -1",
        "request.set.headers.host: is not a header that may be set",
        "request.set.headers.x-a: names the vault \"other\"",
        "request.set.headers.x-b: holds a reference that cannot be read",
        "request.resolve.headers[0]: is not a header that may be resolved",
        "request.resolve.allow[0]: must be `*`",
        "request.resolve.body: is not supported by this version",
        "on_eror: is not a known field; did you mean `on_error`?",
        "on_error: must be one of deny, remove, keep",
    ] {
        assert!(
            problems.iter().any(|p| p.starts_with(expected)),
            "{expected}\n{problems:#?}"
        );
    }
    assert!(!format!("{problems:?}").contains("hush-hush"));
}

#[test]
fn a_wrong_client_secret_variable_is_named() {
    let problems = parse(&format!(r#"{{"vaults":[{VAULT}]}}"#), &no_env).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("PAY_CLIENT_SECRET"), "{problems:?}");
}

#[test]
fn what_is_not_an_object_is_said_without_being_shown() {
    for (json, start) in [
        ("[", "(all): is not valid JSON"),
        ("\"hush-hush\"", "(all): must be an object, not a text"),
        (
            r#"{"vaults":{"a":1}}"#,
            "vaults: must be a list, not an object",
        ),
        (
            r#"{"vaults":["hush-hush"]}"#,
            "vaults[0]: must be an object, not a text",
        ),
    ] {
        let problems = parse(json, &no_env).unwrap_err();
        assert!(problems[0].starts_with(start), "{problems:?}");
        assert!(!problems.concat().contains("hush-hush"), "{problems:?}");
    }
}

#[test]
fn two_vaults_need_two_prefixes() {
    let problems = parse(&format!(r#"{{"vaults":[{VAULT},{VAULT}]}}"#), &with_secret).unwrap_err();
    assert_eq!(
        problems,
        ["vaults[1].prefix: \"azure-key-vault\" is already taken by another vault"]
    );
}

#[test]
fn the_environments_vault_stands_beside_entities() {
    let env = |name: &str| {
        Some(match name {
            "KONG_VAULT_AZURE_VAULT_URI" => "https://env.vault.azure.net".to_owned(),
            "KONG_VAULT_AZURE_TENANT_ID" => "t".to_owned(),
            "KONG_VAULT_AZURE_CLIENT_ID" => "c".to_owned(),
            "KONG_VAULT_AZURE_DECODE_BASE64" => "true".to_owned(),
            "AZURE_CLIENT_SECRET" | "PAY_CLIENT_SECRET" => "s".to_owned(),
            _ => return None,
        })
    };
    let config = parse(&format!(r#"{{"vaults":[{VAULT}]}}"#), &env).unwrap();
    let vaults: Vec<_> = config
        .vaults
        .iter()
        .map(|v| (v.prefix.as_str(), v.uri.host(), v.base64_decode))
        .collect();
    let entity = ("azure-key-vault", "my-vault.vault.azure.net", false);
    assert_eq!(vaults, [entity, ("azure", "env.vault.azure.net", true)]);
    let config = parse(&format!(r#"{{"vaults":[{VAULT}]}}"#), &with_secret).unwrap();
    assert_eq!(config.vaults.len(), 1);
}

#[test]
fn a_certificate_has_no_part_of_that_name() {
    let json = format!(
        r#"{{"vaults":[{}],"request":{{"set":{{"headers":{{"x-a":"{{vault://azure-key-vault/web/pfx}}"}}}}}}}}"#,
        VAULT.replace("\"secrets\"", "\"certificates\"")
    );
    let problems = parse(&json, &with_secret).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("request.set.headers.x-a: asks for \"pfx\""),
        "{problems:?}"
    );
}
