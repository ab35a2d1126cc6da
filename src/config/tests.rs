//! Configurations, good and bad: what they mean, and that every error has its path.

use super::*;
use crate::azure::identity::{Credential, Managed, Proof, Service, Tenant, UserAssigned};
use crate::secret::SecretValue;

fn no_env(_: &str) -> Option<String> {
    None
}

const VAULT: &str = r#"{"name":"azure","prefix":"azure-key-vault","description":"d","tags":["t"],
  "config":{"type":"secrets","vault_uri":"https://my-vault.vault.azure.net","location":"us-east",
  "tenant_id":"1111","client_id":"2222","credentials_prefix":"PAY","ttl":300,"neg_ttl":10,
  "resurrect_ttl":100,"revoked_ttl":7,"base64_decode":false,"identity":"client_secret",
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
    assert_eq!(vault.revoked_ttl, Some(Span::seconds(7)));
    let Credential::App(app) = &vault.identity.credential else {
        panic!("{:?}", vault.identity);
    };
    let current = SecretValue::new("s3cret");
    let next = None;
    assert_eq!(app.proof, Proof::Secret { current, next });
    assert_eq!(app.authority.host(), "login.microsoftonline.com");
    assert_eq!(vault.identity.scope, "https://vault.azure.net/.default");
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
        "resolve":{"headers":[":path","x-*"],"allow":["nope"],"body":["text/html"]}},"on_eror":"deny","on_error":"ignore"}"#;
    let problems = parse(json, &no_env).unwrap_err();
    for expected in [
        "vaults[0].name: must be azure",
        "vaults[0].prefix: must be at least two",
        "vaults[0].config.vault_url: is not a known field; did you mean `vault_uri`?",
        "vaults[0].config.vault_uri: is missing",
        "vaults[0].config.client_id: must be a text, not a number",
        "vaults[0].config.client_secret: must be a text, not a list",
        "vaults[0].config.ttl: must be from 0 to 100000000, not -1",
        "request.set.headers.host: is not a header that may be set",
        "request.set.headers.x-a: names the vault \"other\"",
        "request.set.headers.x-b: holds a reference that cannot be read",
        "request.resolve.headers[0]: is not a header that may be resolved",
        "request.resolve.allow[0]: must be `*`",
        "request.resolve.body[0]: must be application/json",
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
fn what_is_there_twice_is_an_error() {
    for (more, message) in [
        (
            r#""on_error":"keep","on_error":"deny""#,
            "on_error: is there twice; leave one of them out",
        ),
        (
            r#""request":{"set":{"headers":{"x-a":"1","x-b":"2","x-a":"3"}}}"#,
            "request.set.headers.x-a: is there twice; leave one of them out",
        ),
    ] {
        let problems = parse(&format!(r#"{{"vaults":[{VAULT}],{more}}}"#), &with_secret);
        assert_eq!(problems.unwrap_err(), [message]);
    }
}

#[test]
fn half_a_surrogate_pair_is_refused_where_it_stands() {
    let json = format!(r#"{{"vaults":[{VAULT}],"on_error":"\\ud800"}}"#).replace("\\\\", "\\");
    let problems = parse(&json, &with_secret).unwrap_err();
    assert_eq!(
        problems,
        ["on_error: must be a text, not a text with an invalid escape"]
    );
}

/// Found by fuzzing.
#[test]
fn a_field_without_a_name_has_a_path() {
    let problems = parse(&format!(r#"{{"vaults":[{VAULT}],"":1}}"#), &with_secret).unwrap_err();
    assert!(
        problems[0].starts_with("\"\": is not a known field"),
        "{problems:?}"
    );
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

/// A configuration with one vault and these fields.
fn with_fields(fields: &str) -> Result<Config, Vec<String>> {
    parse(&format!(r#"{{"vaults":[{VAULT}],{fields}}}"#), &with_secret)
}

/// [`Fields::done`] fails in tests where a table has a field that is not read, and reading one that is in no
/// table fails, too: this configuration has every object.
#[test]
fn every_field_of_the_tables_is_read() {
    let rules = r#"{"set":{},"resolve":{}}"#;
    let fields = format!(
        r#""request":{rules},"response":{rules},"limits":{{}},"metrics":{{}},"audit":{{}}"#
    );
    assert!(with_fields(&fields).is_ok());
    let known = with_fields(r#""no_such_field_is_there":1"#).unwrap_err();
    let names: Vec<&str> = all_of_root().map(|field| field.name).collect();
    let message = format!("known are {}", names.join(", "));
    assert!(known[0].ends_with(&message), "{known:?}");
}

#[test]
fn underscores_of_clients_are_kept_only_if_it_is_said() {
    let read = |set: &str| {
        let text = format!(
            r#"{{"vaults":[{VAULT}],"request":{{"set":{{"headers":{{"x-a":"v"}}{set}}}}}}}"#
        );
        parse(&text, &with_secret).map(|config| config.request.keep_underscores)
    };
    assert_eq!(read(""), Ok(false));
    assert_eq!(read(r#","keep_underscores":true"#), Ok(true));
    assert_eq!(read(r#","keep_underscores":false"#), Ok(false));
    assert!(read(r#","keep_underscores":"yes""#).is_err());
    let response = format!(
        r#"{{"vaults":[{VAULT}],"response":{{"set":{{"headers":{{"x-a":"v"}},"keep_underscores":true}}}}}}"#
    );
    assert!(parse(&response, &with_secret).is_err());
}

#[test]
fn every_limit_can_be_set_to_3_and_has_its_default() {
    let names = |table: &[limits::Limit]| -> Vec<String> {
        let fields = table
            .iter()
            .map(|limit| format!("\"{}\":3", limit.field.name));
        fields.collect()
    };
    let fields = format!(
        "{},\"limits\":{{{}}}",
        names(limits::TOP_LEVEL).join(","),
        names(limits::LIMITS).join(",")
    );
    let config = with_fields(&fields).unwrap();
    // Every number in it, whichever fields there are: one that has no line in the tables is not 3.
    let shown = format!("{:?}", config.limits);
    let numbers: Vec<&str> = shown
        .split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .collect();
    assert!(numbers.iter().all(|number| *number == "3"), "{shown}");
    let tables = limits::TOP_LEVEL.len() + limits::LIMITS.len();
    assert_eq!(numbers.len(), tables, "{shown}");
    assert_eq!(
        with_fields("\"limits\":{}").unwrap().limits,
        Limits::default()
    );
    for limit in limits::TOP_LEVEL.iter().chain(limits::LIMITS) {
        let default = (limit.get)(&Limits::default());
        let fields::Shape::Number(min, max) = limit.field.shape else {
            panic!("{:?}", limit.field);
        };
        let range = u64::from(min)..=u64::from(max);
        assert!(range.contains(&default), "{}", limit.field.name);
    }
}

#[test]
fn a_limit_out_of_range_is_an_error_with_its_path() {
    for (fields, message) in [
        (
            r#""limits":{"references":0}"#,
            "limits.references: must be from 1 to 10000, not 0",
        ),
        (
            r#""limits":{"references":1.5}"#,
            "limits.references: must be a whole number, not 1.5",
        ),
        (
            r#""limits":{"token_interval":1}"#,
            "limits.token_interval: is not a known field; did you mean `token_interval_ms`?",
        ),
        (
            r#""max_body_bytes":1.5"#,
            "max_body_bytes: must be a whole number, not 1.5",
        ),
    ] {
        assert_eq!(with_fields(fields).unwrap_err(), [message]);
    }
}

/// The identity of a vault with these settings in this environment, or the problems.
fn identity(config: &str, variables: &[(&str, &str)]) -> Result<Identity, Vec<String>> {
    let json = format!(r#"{{"vaults":[{{"name":"azure","prefix":"az","config":{{{config}}}}}]}}"#);
    let env = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    parse(&json, &env).map(|config| config.vaults[0].identity.clone())
}

type Variables<'a> = &'a [(&'a str, &'a str)];

const URI: &str = r#""vault_uri":"https://v.vault.azure.net""#;

#[test]
fn the_identity_is_worked_out_in_the_order_of_azures_sdks() {
    let kind = |config: &str, variables: &[(&str, &str)]| match identity(
        &format!("{URI},{config}"),
        variables,
    )
    .unwrap()
    .credential
    {
        Credential::App(app) => app.proof.kind().to_owned(),
        Credential::Managed(managed) => managed.service.as_str().to_owned(),
    };
    let app = r#""tenant_id":"t","client_id":"c""#;
    let url = ("AZURE_FEDERATED_TOKEN_URL", "http://127.0.0.1:8181/token");
    let secret = ("AZURE_CLIENT_SECRET", "s");
    let service = [
        ("IDENTITY_ENDPOINT", "http://127.0.0.1:42/msi/token"),
        ("IDENTITY_HEADER", "h"),
    ];
    let old = [
        ("MSI_ENDPOINT", "http://127.0.0.1:42/msi/token"),
        ("MSI_SECRET", "h"),
    ];
    assert_eq!(kind(app, &[secret, url]), "client_secret");
    assert_eq!(
        kind(app, &[url, service[0], service[1]]),
        "workload_identity"
    );
    assert_eq!(
        kind(app, &[("AZURE_FEDERATED_TOKEN", "a.b.c")]),
        "workload_identity"
    );
    assert_eq!(kind(app, &service), "app_service");
    assert_eq!(kind(r#""client_id":"c""#, &old), "app_service_2017");
    assert_eq!(
        kind(
            r#""description":null"#.replace("description", "ttl").as_str(),
            &[]
        ),
        "imds"
    );
    assert_eq!(
        kind(
            r#""identity":"managed_identity","tenant_id":"t","client_id":"c""#,
            &[secret]
        ),
        "imds"
    );
    let variables = [secret, ("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c")];
    assert_eq!(kind(r#""ttl":1"#, &variables), "client_secret");
}

#[cfg(feature = "client_certificate")]
#[test]
fn a_certificate_comes_from_the_environment_in_one_line_too() {
    let pem = include_str!("../../tests/data/keys/bundle.pem");
    let app = format!(r#"{URI},"tenant_id":"t","client_id":"c""#);
    let one = identity(&app, &[("AZURE_CLIENT_CERTIFICATE", pem)]).unwrap();
    let other = identity(
        &app,
        &[("AZURE_CLIENT_CERTIFICATE", &pem.replace('\n', "\\n"))],
    )
    .unwrap();
    assert_eq!(one, other);
    let problems = identity(&app, &[("AZURE_CLIENT_CERTIFICATE", "hush")]).unwrap_err();
    assert!(
        problems[0].contains("client_certificate: holds no PRIVATE KEY"),
        "{problems:?}"
    );
    assert!(!problems[0].contains("hush"));
}

#[cfg(not(feature = "client_certificate"))]
#[test]
fn a_build_without_certificates_says_so() {
    let app = format!(r#"{URI},"tenant_id":"t","client_id":"c""#);
    let problems = identity(&app, &[("AZURE_CLIENT_CERTIFICATE", "x")]).unwrap_err();
    assert!(
        problems[0].contains("--features client_certificate"),
        "{problems:?}"
    );
}

#[test]
fn managed_identities_by_every_id() {
    let managed = |config: &str| match identity(&format!("{URI},{config}"), &[])
        .unwrap()
        .credential
    {
        Credential::Managed(managed) => managed,
        other => panic!("{other:?}"),
    };
    let Managed {
        service,
        url,
        user_assigned,
        ..
    } = managed(r#""object_id":"o""#);
    assert_eq!(
        (service, url.upstream().as_str()),
        (Service::Imds, "169.254.169.254:80")
    );
    assert_eq!(user_assigned, Some(UserAssigned::ObjectId("o".into())));
    let user =
        managed(r#""identity":"managed_identity","resource_id":"/subscriptions/s""#).user_assigned;
    assert_eq!(
        user,
        Some(UserAssigned::ResourceId("/subscriptions/s".into()))
    );
    assert_eq!(
        managed(r#""client_id":"c""#).user_assigned,
        Some(UserAssigned::ClientId("c".into()))
    );
}

#[test]
fn clouds_belong_together() {
    let app = r#""client_id":"c","client_secret":"s""#;
    let read = |host: &str, more: &str| {
        let identity = identity(&format!(r#""vault_uri":"https://{host}",{app}{more}"#), &[])?;
        let Credential::App(app) = identity.credential else {
            panic!("no app");
        };
        Ok::<_, Vec<String>>((app.authority.host().to_owned(), identity.scope))
    };
    let public = (
        "login.microsoftonline.com".into(),
        "https://vault.azure.net/.default".into(),
    );
    assert_eq!(read("v.vault.azure.net", ""), Ok(public));
    let gov = (
        "login.microsoftonline.us".into(),
        "https://vault.usgovcloudapi.net/.default".into(),
    );
    assert_eq!(read("v.vault.usgovcloudapi.net", ""), Ok(gov));
    let china = (
        "login.partner.microsoftonline.cn".into(),
        "https://vault.azure.cn/.default".into(),
    );
    assert_eq!(
        read(
            "v.vault.azure.cn",
            r#","authority_host":"https://login.partner.microsoftonline.cn""#
        ),
        Ok(china)
    );
    let own = (
        "login.test".into(),
        "https://vault.azure.net/.default".into(),
    );
    assert_eq!(
        read(
            "kv.internal.test",
            r#","cloud":"custom","dns_suffix":"internal.test","authority_host":"https://login.test""#
        ),
        Ok(own)
    );
    for (host, more, problem) in [
        (
            "v.vault.azure.com",
            "",
            "vault_uri: has the host v.vault.azure.com, which is no vault",
        ),
        (
            "v.vault.azure.net",
            r#","cloud":"china""#,
            "cloud: does not go with vault_uri, which is in public",
        ),
        (
            "v.vault.azure.net",
            r#","authority_host":"https://login.microsoftonline.us""#,
            "authority_host: is of us_government",
        ),
        (
            "v.vault.azure.net",
            r#","authority_host":"https://login.microsoftonline.co""#,
            "authority_host: is of no cloud",
        ),
        (
            "v.vault.azure.net",
            r#","scope":"https://x/.default""#,
            "scope: belongs to cloud custom",
        ),
        ("kv.test", r#","cloud":"custom""#, "dns_suffix: is missing"),
        (
            "kv.tset",
            r#","cloud":"custom","dns_suffix":"kv.test""#,
            "vault_uri: has the host kv.tset, which is not within",
        ),
        ("h.managedhsm.azure.net", "", "type: must be keys"),
    ] {
        let problems = read(host, more).unwrap_err();
        assert!(
            problems.iter().any(|p| p.contains(problem)),
            "{problem}\n{problems:#?}"
        );
    }
}

#[test]
fn what_a_sandbox_cannot_do_is_refused_with_the_reason() {
    let arc = [
        ("IDENTITY_ENDPOINT", "http://localhost:40342/x"),
        ("IMDS_ENDPOINT", "http://localhost:40342"),
    ];
    let fabric = [
        ("IDENTITY_ENDPOINT", "https://x/y"),
        ("IDENTITY_SERVER_THUMBPRINT", "t"),
        ("IDENTITY_HEADER", "h"),
    ];
    let file = [("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token")];
    let cases: [(&str, Variables<'_>, &str); 10] = [
        (
            r#""identity":"azure_arc""#,
            &[],
            "impossible here: Azure Arc proves itself by a file",
        ),
        (
            r#""identity":"azure_cli""#,
            &[],
            "impossible here: it runs a program",
        ),
        (
            r#""identity":"secret""#,
            &[],
            "must be one of client_secret",
        ),
        (r#""ttl":1"#, &arc, "Azure Arc proves itself by a file"),
        (r#""ttl":1"#, &fabric, "Service Fabric wants"),
        (
            r#""ttl":1"#,
            &[("MSI_ENDPOINT", "http://x/y")],
            "Cloud Shell is no place",
        ),
        (
            r#""ttl":1"#,
            &[("IDENTITY_ENDPOINT", "http://x/y")],
            "needs the environment variable IDENTITY_HEADER",
        ),
        (
            r#""tenant_id":"t","client_id":"c""#,
            &file,
            "AZURE_FEDERATED_TOKEN_FILE names a file",
        ),
        (
            r#""identity":"workload_identity","tenant_id":"t","client_id":"c""#,
            &file,
            "federated_token_url: is missing",
        ),
        (
            r#""object_id":"o","client_id":"c""#,
            &[],
            "object_id: is one too many",
        ),
    ];
    for (config, variables, problem) in cases {
        let problems = identity(&format!("{URI},{config}"), variables).unwrap_err();
        assert!(
            problems.iter().any(|p| p.contains(problem)),
            "{problem}\n{problems:#?}"
        );
    }
    let problems = identity(
        &format!(r#"{URI},"tenant_id":"t","client_id":"c","client_secret":"s","object_id":"o""#),
        &[],
    )
    .unwrap_err();
    assert!(
        problems[0].contains("object_id: means nothing with identity client_secret"),
        "{problems:?}"
    );
}

#[test]
fn without_a_tenant_the_vault_is_asked() {
    let identity = identity(
        &format!(r#"{URI},"client_id":"c","client_secret":"s""#),
        &[],
    )
    .unwrap();
    let Credential::App(app) = &identity.credential else {
        panic!("{identity:?}");
    };
    assert!(
        matches!(&app.tenant, Tenant::OfVault { uri, check_resource: true, .. } if uri.host() == "v.vault.azure.net")
    );
    assert_eq!(identity.most_calls(), 2);
}

#[test]
fn a_time_below_one_second_is_an_error_and_0_is_not() {
    for name in ["ttl", "neg_ttl", "resurrect_ttl"] {
        let read = |seconds: &str| {
            let config = format!(r#"{URI},"client_id":"c","client_secret":"s","{name}":{seconds}"#);
            identity(&config, &[])
        };
        for seconds in ["0.0004", "0.999"] {
            let problems = read(seconds).unwrap_err();
            let message = format!("vaults[0].config.{name}: is below one second");
            assert!(
                problems.len() == 1 && problems[0].starts_with(&message),
                "{problems:?}"
            );
        }
        for seconds in ["0", "1", "1.5", "100000000"] {
            assert!(read(seconds).is_ok(), "{seconds}");
        }
        let variable = format!("KONG_VAULT_AZURE_{}", name.to_ascii_uppercase());
        let config = format!(r#"{URI},"client_id":"c","client_secret":"s""#);
        assert!(identity(&config, &[(&variable, "0.5")]).is_err());
        assert!(identity(&config, &[(&variable, "1.5")]).is_ok());
    }
}

#[test]
fn places_without_allow_and_allow_without_places_are_errors() {
    for side in ["request", "response"] {
        let read = |resolve: &str| with_fields(&format!(r#""{side}":{{"resolve":{{{resolve}}}}}"#));
        for (resolve, message) in [
            (
                r#""headers":["x-a"]"#,
                "is missing: without it nothing is resolved",
            ),
            (
                r#""body":["text/plain"],"allow":[]"#,
                "is missing: without it nothing is resolved",
            ),
            (
                r#""allow":["*"]"#,
                "lists references, but there is no place",
            ),
            (
                r#""headers":[],"allow":["*"]"#,
                "lists references, but there is no place",
            ),
        ] {
            let problems = read(resolve).unwrap_err();
            let start = format!("{side}.resolve.allow: {message}");
            assert!(
                problems.len() == 1 && problems[0].starts_with(&start),
                "{problems:?}"
            );
        }
        assert!(read("").is_ok());
        assert!(read(r#""headers":["x-a"],"allow":["*"]"#).is_ok());
    }
    let query = r#""request":{"resolve":{"query":["key"],"allow":["*"]}}"#;
    assert!(with_fields(query).is_ok());
}

#[test]
fn resolving_in_responses_is_accepted_with_one_warning() {
    let resolve = r#""resolve":{"headers":["x-a"],"body":["text/plain"],"allow":["*"]}"#;
    let config = with_fields(&format!(r#""response":{{{resolve}}}"#)).unwrap();
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].starts_with("response.resolve: a client that can"),
        "{warnings:?}"
    );
    let config = with_fields(&format!(r#""request":{{{resolve}}}"#)).unwrap();
    assert_eq!(config.warnings, []);
}

#[test]
fn a_client_secret_with_blanks_or_line_breaks_is_refused() {
    let app = format!(r#"{URI},"tenant_id":"t","client_id":"c""#);
    for secret in ["hush\n", "hush\r\n", " hush", "hush ", "hu\nsh", "hush\t"] {
        let problems = identity(&app, &[("AZURE_CLIENT_SECRET", secret)]).unwrap_err();
        let start =
            "vaults[0].config.client_secret: begins or ends with a blank, or holds a line break";
        assert!(
            problems.len() == 1 && problems[0].starts_with(start),
            "{problems:?}"
        );
        assert!(!problems[0].contains("hu"), "{problems:?}");
    }
    assert!(identity(&app, &[("AZURE_CLIENT_SECRET", "h~8Q u.s-h_")]).is_ok());
}

#[test]
fn the_vault_that_was_meant_is_named() {
    let app = r#""tenant_id":"t","client_id":"c","client_secret":"s""#;
    for (uri, meant) in [
        (
            "https://my-vault.privatelink.vaultcore.azure.net",
            "my-vault.vault.azure.net",
        ),
        (
            "https://my-vault.privatelink.vault.azure.net/",
            "my-vault.vault.azure.net",
        ),
        (
            "https://my-vault.vaultcore.azure.net:443",
            "my-vault.vault.azure.net",
        ),
        (
            "https://My-Vault.vault.azure.com",
            "my-vault.vault.azure.net",
        ),
        (
            "http://my-vault.vault.azure.net",
            "my-vault.vault.azure.net",
        ),
        ("my-vault.vault.azure.net", "my-vault.vault.azure.net"),
        ("my-vault", "my-vault.vault.azure.net"),
        (
            "https://my-vault.vault.azure.net/secrets/a/b",
            "my-vault.vault.azure.net",
        ),
        (
            "https://v.privatelink.vaultcore.usgovcloudapi.net",
            "v.vault.usgovcloudapi.net",
        ),
        (
            "https://v.privatelink.vaultcore.azure.cn",
            "v.vault.azure.cn",
        ),
        (
            "https://h.privatelink.managedhsm.azure.net",
            "h.managedhsm.azure.net",
        ),
    ] {
        let problems = identity(&format!(r#""vault_uri":"{uri}",{app}"#), &[]).unwrap_err();
        let hint = format!("; did you mean https://{meant}?");
        let found = problems
            .iter()
            .any(|p| p.starts_with("vaults[0].config.vault_uri: ") && p.contains(&hint));
        assert!(found, "{uri} {problems:?}");
    }
    for uri in [
        "https://v.vault.azure.net.example.com",
        "https://example.com",
        "https://a b",
    ] {
        let problems = identity(&format!(r#""vault_uri":"{uri}",{app}"#), &[]).unwrap_err();
        assert!(!problems.concat().contains("did you mean"), "{problems:?}");
    }
}
