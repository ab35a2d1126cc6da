//! The configuration's form, declared once: the tables below become `filter-config/schema.json` for
//! editors, Kong's `.meta.json` and `docs/configuration.md`. `src/config` is what really reads a
//! configuration; tests hold the two together, field by field. A new field is one line here.
//!
//! The schema refuses less than the reader does: whether a header may be set, or a vault is in Azure, is
//! the reader's to say. It refuses nothing that the reader takes.

use std::fs;
use std::sync::LazyLock;

use anyhow::{Context as _, Result};
use azure_key_vault_filter::config::limits::{LIMITS, Limit, TOP_LEVEL};
use azure_key_vault_filter::limits::Limits;
use serde_json::{Map, Value, json};

use crate::errors;
use crate::steps::workspace;

mod page;

/// What a field holds.
#[derive(Clone, Copy)]
enum Shape {
    /// A text that is not empty.
    Text,
    /// A text of this form; the pattern is one that PCRE and ECMAScript read in the same way.
    Like(&'static str),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A number from … to ….
    Number(u32, u32),
    /// true or false.
    Boolean,
    /// A list of texts.
    Texts,
    /// A list of texts of this form.
    TextsLike(&'static str),
    /// An object from header names to texts.
    Headers,
    /// An object from any names to texts.
    Parameters,
    /// An object with these fields.
    Object(&'static [Field]),
    /// A list of objects with these fields.
    Objects(&'static [Field]),
    /// An object with the fields of [`LIMITS`].
    Limits,
    /// Anything: it means nothing here.
    Anything,
}

/// A field of an object.
#[derive(Clone, Copy)]
struct Field {
    name: &'static str,
    shape: Shape,
    required: bool,
    about: &'static str,
    /// JSON where it is a value (tests compare it with the reader's), else words; empty for nothing.
    default: &'static str,
    /// The variables that are looked at when the field is absent, in this order. `AZURE_` stands for
    /// `credentials_prefix` in them.
    variables: &'static [&'static str],
    /// JSON; only objects have none.
    example: &'static str,
}

const fn field(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field {
        name,
        shape,
        required: false,
        about,
        default: "",
        variables: &[],
        example: "",
    }
}

impl Field {
    const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    const fn or_from(self, variables: &'static [&'static str]) -> Self {
        Self { variables, ..self }
    }

    const fn example(self, example: &'static str) -> Self {
        Self { example, ..self }
    }

    /// What editors show.
    fn description(&self) -> String {
        let mut text = self.about.to_owned();
        if !self.default.is_empty() {
            text.push_str(&format!(" Default: {}.", self.default.trim_matches('"')));
        }
        if !self.variables.is_empty() {
            text.push_str(&format!(
                " Else from the environment: {}.",
                self.variables.join(", ")
            ));
        }
        text
    }
}

const fn required(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field {
        required: true,
        ..field(name, shape, about)
    }
}

const HTTPS: Shape = Shape::Like(r"^https://[A-Za-z0-9-][A-Za-z0-9.-]*(:[0-9]{1,5})?/?$");
const HTTP: Shape = Shape::Like(r"^https?://[A-Za-z0-9-]");
/// Kong's largest ttl.
const SECONDS: Shape = Shape::Number(0, 100_000_000);
/// RFC 9110, section 5.6.2. (Kong's validator would take `~0` and `~1` in a pattern for the escapes of a JSON
/// pointer: no digit may follow the tilde.) `*` is one of its characters, and stands for any run of them in a pattern.
const HEADER_NAME: &str = r"^[!#$%&'*+.^_`|~A-Za-z0-9-]+$";
const ALLOWED: &str = r"^(\*|[^/]+/[^/]+(/.+)?)$";

/// The fields of the whole configuration.
fn root() -> &'static [Field] {
    static ALL: LazyLock<Vec<Field>> = LazyLock::new(|| {
        let at = ROOT.iter().position(|field| field.name == "limits");
        let (before, after) = ROOT.split_at(at.unwrap_or_default());
        [
            before,
            &TOP_LEVEL.iter().map(of_limit).collect::<Vec<_>>(),
            after,
        ]
        .concat()
    });
    &ALL
}

/// The fields of `limits`: the reader's own table has them.
fn limits() -> &'static [Field] {
    static ALL: LazyLock<Vec<Field>> = LazyLock::new(|| LIMITS.iter().map(of_limit).collect());
    &ALL
}

fn of_limit(limit: &Limit) -> Field {
    let default = (limit.get)(&Limits::default());
    // Another value than the default that is in every range.
    let example = (default / 2).max(1);
    Field {
        default: default.to_string().leak(),
        example: example.to_string().leak(),
        ..field(limit.name, Shape::Number(limit.min, limit.max), limit.about)
    }
}

#[rustfmt::skip]
const ROOT: &[Field] = &[
    field("vaults", Shape::Objects(VAULT), "Kong's vault entities, each an Azure Key Vault with the identity that reads it. Without any, the environment (KONG_VAULT_AZURE_…) makes one with the prefix azure."),
    field("request", Shape::Object(REQUEST), "What is done to requests."),
    field("response", Shape::Object(RESPONSE), "What is done to responses."),
    field("limits", Shape::Limits, "What traffic may cost beside the three above."),
    field("on_error", Shape::Word(&["deny", "remove", "keep"]), "When a secret could not be resolved: deny (the client gets 503), remove (the header or parameter is dropped, in JSON the string becomes null) or keep (the reference goes on as it came).").default("\"deny\"").example("\"remove\""),
    field("shared_data", Shape::Boolean, "Whether workers share their cache through the host. In Kong it needs nginx_wasm_shm_kv.").default("true in Envoy, false in Kong").example("true"),
    field("metrics", Shape::Object(METRICS), "What metrics may tell."),
    field("audit", Shape::Object(AUDIT), "A line in the log for each use of a secret by a client's reference: who, which, when, outcome. Off without this."),
];

#[rustfmt::skip]
const AUDIT: &[Field] = &[
    field("client_header", Shape::Like(HEADER_NAME), "The request header that names the client, best one that the gateway sets. None that is resolved or set.").default("the client's address").example("\"x-client-id\""),
];

#[rustfmt::skip]
const METRICS: &[Field] = &[
    field("enabled", Shape::Boolean, "Whether there are metrics. Kong has them from 3.9 on; in older ones the filter dies of them.").default("true in Envoy, false in Kong").example("true"),
    field("secret_names", Shape::Boolean, "Whether metrics name secrets: failures and expiry dates of the first 100 that a worker sees.").default("false").example("true"),
];

#[rustfmt::skip]
const VAULT: &[Field] = &[
    field("name", Shape::Word(&["azure"]), "Kong's name for the kind of vault.").example("\"azure\""),
    required("prefix", Shape::Like("^[a-z][a-z0-9-]*[a-z0-9]$"), "The name that references use: {vault://PREFIX/SECRET}.").example("\"payments\""),
    field("description", Shape::Text, "For people.").example("\"Payments secrets\""),
    field("tags", Shape::Texts, "For people.").example("[\"payments\"]"),
    field("config", Shape::Object(CONFIG), "The vault and the identity that reads it."),
    field("id", Shape::Anything, "Kong's; means nothing here.").example("\"1b5d6c62-6b4f-4f0f-9b1c-2b9e0c9d3a11\""),
    field("created_at", Shape::Anything, "Kong's; means nothing here.").example("1764000000"),
    field("updated_at", Shape::Anything, "Kong's; means nothing here.").example("1764000000"),
];

#[rustfmt::skip]
const CONFIG: &[Field] = &[
    field("type", Shape::Word(&["secrets", "certificates", "keys"]), "What references to this vault are to.").default("\"secrets\"").or_from(&["KONG_VAULT_AZURE_TYPE"]).example("\"certificates\""),
    field("vault_uri", HTTPS, "The vault. Has to be set, here or in the environment.").or_from(&["KONG_VAULT_AZURE_VAULT_URI"]).example("\"https://payments.vault.azure.net\""),
    field("location", Shape::Text, "Kong's; means nothing here.").example("\"westeurope\""),
    field("vault_cluster", Shape::Text, "Envoy's cluster for the vault.").default("HOST:PORT of vault_uri, which is what Kong needs").example("\"key_vault\""),
    field("ttl", SECONDS, "Seconds for which a value is fresh; 0 for no rotation, else 1 at the least.").default("0").or_from(&["KONG_VAULT_AZURE_TTL"]).example("300"),
    field("neg_ttl", SECONDS, "Seconds for which a missing secret is remembered as missing: 0 or at least 1; for 0 it is one second.").default("0").or_from(&["KONG_VAULT_AZURE_NEG_TTL"]).example("10"),
    field("resurrect_ttl", SECONDS, "Seconds beyond the ttl for which a value serves when Azure fails or the secret is gone.").default("100000000").or_from(&["KONG_VAULT_AZURE_RESURRECT_TTL"]).example("86400"),
    field("base64_decode", Shape::Boolean, "Decode every secret of this vault from base64, after the key was taken.").default("false").or_from(&["KONG_VAULT_AZURE_BASE64_DECODE", "KONG_VAULT_AZURE_DECODE_BASE64"]).example("true"),
    field("timeout_ms", Shape::Number(1, 600_000), "The longest that one call may take; a request that finds neither token nor secret makes two.").default("5000").example("2000"),
    field("api_version", Shape::Like("^[A-Za-z0-9.-]+$"), "The api-version of Key Vault's data plane.").default("\"7.6\"").example("\"7.4\""),
    field("identity", Shape::Word(&["client_secret", "client_certificate", "workload_identity", "managed_identity"]), "Who asks.").default("the first one, in this order, that has what it needs").example("\"managed_identity\""),
    field("identity_cluster", Shape::Text, "Envoy's cluster for Entra ID, or for the managed identity's endpoint.").default("HOST:PORT of authority_host or of the endpoint").example("\"azure_identity\""),
    field("credentials_prefix", Shape::Text, "The first part of the variables' names.").default("\"AZURE\"").example("\"PAYMENTS\""),
    field("tenant_id", Shape::Like("^[A-Za-z0-9.-]+$"), "The tenant's id or domain.").default("the vault is asked").or_from(&["KONG_VAULT_AZURE_TENANT_ID", "AZURE_TENANT_ID"]).example("\"11111111-1111-1111-1111-111111111111\""),
    field("client_id", Shape::Text, "The app registration, or the user-assigned managed identity.").or_from(&["KONG_VAULT_AZURE_CLIENT_ID", "AZURE_CLIENT_ID"]).example("\"22222222-2222-2222-2222-222222222222\""),
    field("client_secret", Shape::Text, "The app registration's secret. Better in the environment: gateways show their configuration.").or_from(&["AZURE_CLIENT_SECRET"]).example("\"the-value-not-the-id\""),
    field("client_certificate", Shape::Text, "PEM with an RSA key and its certificate; line breaks may be written as \\n. Better in the environment. Needs the filter from target/dist/full.").or_from(&["AZURE_CLIENT_CERTIFICATE"]).example("\"-----BEGIN PRIVATE KEY-----…\""),
    field("federated_token", Shape::Text, "A workload identity's token, for as long as it lives.").or_from(&["AZURE_FEDERATED_TOKEN"]).example("\"eyJhbGciOi…\""),
    field("federated_token_url", HTTP, "The URL that gives a workload identity's token.").or_from(&["AZURE_FEDERATED_TOKEN_URL"]).example("\"http://127.0.0.1:8181/azure-identity-token\""),
    field("federated_token_cluster", Shape::Text, "Envoy's cluster for federated_token_url.").default("HOST:PORT of federated_token_url").example("\"token_sidecar\""),
    field("managed_identity_source", Shape::Word(&["imds", "app_service", "app_service_2017"]), "Which endpoint a managed identity has.").default("what the environment says, else imds").example("\"imds\""),
    field("managed_identity_endpoint", HTTP, "Its URL.").default("the metadata service's, for imds").or_from(&["IDENTITY_ENDPOINT", "MSI_ENDPOINT"]).example("\"http://169.254.169.254/metadata/identity/oauth2/token\""),
    field("object_id", Shape::Text, "A user-assigned managed identity, by its object id.").example("\"33333333-3333-3333-3333-333333333333\""),
    field("resource_id", Shape::Text, "A user-assigned managed identity, by its resource id.").example("\"/subscriptions/…/userAssignedIdentities/gateway\""),
    field("cloud", Shape::Word(&["public", "us_government", "china", "custom"]), "Which of Azure's clouds.").default("the vault's own").example("\"us_government\""),
    field("dns_suffix", Shape::Text, "Of cloud custom, where it has to be set: the domain to which tokens may go.").example("\"vaults.example.com\""),
    field("scope", Shape::Text, "Of cloud custom: the scope of tokens.").default("https://vault.azure.net/.default").example("\"https://vaults.example.com/.default\""),
    field("authority_host", HTTPS, "Entra ID's host.").default("the one of the vault's cloud").or_from(&["AZURE_AUTHORITY_HOST"]).example("\"https://login.partner.microsoftonline.cn\""),
];

#[rustfmt::skip]
const REQUEST: &[Field] = &[
    field("set", Shape::Object(REQUEST_SET), "What the operator sets; it replaces what the client sent, and its secrets are fetched ahead."),
    field("resolve", Shape::Object(REQUEST_RESOLVE), "References that arrive in requests: only in these places, and only to these secrets."),
];

#[rustfmt::skip]
const RESPONSE: &[Field] = &[
    field("set", Shape::Object(RESPONSE_SET), "What the operator sets; it replaces what the upstream sent."),
    field("resolve", Shape::Object(RESPONSE_RESOLVE), "References that arrive in responses: only in these places, and only to these secrets. Warning: a client that can have the upstream send back a text of the client's (an echo, an error page, a stored comment) can read every secret that `allow` lists."),
    field("redact", Shape::Boolean, "Whether values that a request got are masked where the upstream sends them back.").default("false").example("true"),
];

const SET_HEADERS: Field = field(
    "headers",
    Shape::Headers,
    "Header names, and texts with references.",
)
.example(r#"{ "authorization": "Bearer {vault://payments/api/token}" }"#);
const RESOLVE_HEADERS: Field = field(
    "headers",
    Shape::TextsLike(HEADER_NAME),
    "Header names; * stands for any run of characters.",
)
.example(r#"["x-partner-key", "x-db-*"]"#);
const RESOLVE_BODY: Field = field(
    "body",
    Shape::TextsLike("^[^/]+/[^/]+$"),
    "Media types: application/json, application/x-www-form-urlencoded, text/plain, or application/…+json.",
)
.example(r#"["application/json"]"#);
const ALLOW: Field = field(
    "allow",
    Shape::TextsLike(ALLOWED),
    "VAULT/NAME or VAULT/NAME/KEY, in which * stands for any run of characters; or * for everything. Without a KEY the whole secret and every key in it.",
)
.example(r#"["payments/partner-*"]"#);

#[rustfmt::skip]
const REQUEST_SET: &[Field] = &[
    SET_HEADERS,
    field("query", Shape::Parameters, "Names of query parameters, and texts with references.").example(r#"{ "api-key": "{vault://payments/search-key}" }"#),
];

#[rustfmt::skip]
const REQUEST_RESOLVE: &[Field] = &[
    RESOLVE_HEADERS,
    field("query", Shape::Texts, "Names of query parameters; * stands for any run of characters.").example(r#"["key"]"#),
    RESOLVE_BODY,
    ALLOW,
];

const RESPONSE_SET: &[Field] = &[SET_HEADERS];
const RESPONSE_RESOLVE: &[Field] = &[RESOLVE_HEADERS, RESOLVE_BODY, ALLOW];

/// Kong's Prometheus plugin takes labels out of metrics' names: the label, and a pattern with two captures,
/// the part of the name that goes and the label's value. Of several matches the first counts, so what users
/// name comes last in a metric's name. The patterns are PCRE in Kong 3.9 (`kong/plugins/prometheus/wasmx.lua`)
/// and were Lua's before: `[.]` means the same in both.
const LABELS: &[(&str, &str)] = &[
    ("source", r"([.]source[.]([a-z0-9_]+))"),
    ("reason", r"([.]reason[.]([a-z0-9_]+))"),
    ("endpoint", r"([.]endpoint[.]([a-z0-9_]+))"),
    ("status", r"([.]status[.]([a-z0-9_]+))"),
    ("identity", r"([.]identity[.]([a-z0-9_]+))"),
    ("kind", r"([.]kind[.]([a-z0-9_]+))"),
    ("vault", r"([.]vault[.]([a-z0-9_]+))"),
    ("secret", r"([.]secret[.]([a-z0-9_]+))$"),
];

/// Where a schema goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Editors and other tools: draft 7.
    Editor,
    /// Kong: draft 4, which is all that its metaschema takes.
    Kong,
}

/// The schema of a configuration.
pub(crate) fn schema(dialect: Dialect) -> Value {
    let mut schema = object(root(), dialect);
    let (id, url) = match dialect {
        Dialect::Editor => ("$schema", "http://json-schema.org/draft-07/schema#"),
        Dialect::Kong => ("$schema", "http://json-schema.org/draft-04/schema#"),
    };
    schema.insert(id.to_owned(), json!(url));
    schema.insert("title".into(), json!("azure-key-vault-filter"));
    Value::Object(schema)
}

fn object(fields: &[Field], dialect: Dialect) -> Map<String, Value> {
    let mut schema = Map::new();
    schema.insert("type".into(), json!("object"));
    let properties = fields.iter().map(|field| {
        let mut property = of_shape(field.shape, dialect);
        if !field.required {
            or_null(&mut property);
        }
        property.insert("description".into(), json!(field.description()));
        (field.name.to_owned(), Value::Object(property))
    });
    schema.insert("properties".into(), Value::Object(properties.collect()));
    schema.insert("additionalProperties".into(), json!(false));
    let required: Vec<&str> = fields
        .iter()
        .filter(|f| f.required)
        .map(|f| f.name)
        .collect();
    // Draft 4 has no empty list here.
    if !required.is_empty() {
        schema.insert("required".into(), json!(required));
    }
    schema
}

/// A field that is null is absent: Kong writes its entities so.
fn or_null(schema: &mut Map<String, Value>) {
    if let Some(kind) = schema.get_mut("type") {
        *kind = json!([kind.take(), "null"]);
    }
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.push(Value::Null);
    }
}

fn of_shape(shape: Shape, dialect: Dialect) -> Map<String, Value> {
    let schema = match shape {
        Shape::Text => json!({ "type": "string", "minLength": 1 }),
        Shape::Like(pattern) => json!({ "type": "string", "pattern": pattern }),
        // Before its version 1.2.0 Kong's validator takes no null in `enum`, which an optional field has.
        Shape::Word(words) if dialect == Dialect::Kong => {
            json!({ "type": "string", "pattern": format!("^({})$", words.join("|")) })
        }
        Shape::Word(words) => json!({ "type": "string", "enum": words }),
        Shape::Number(min, max) => json!({ "type": "number", "minimum": min, "maximum": max }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Texts => list(json!({ "type": "string" }), dialect),
        Shape::TextsLike(pattern) => list(json!({ "type": "string", "pattern": pattern }), dialect),
        Shape::Headers => json!({
            "type": "object",
            "patternProperties": { HEADER_NAME: { "type": "string" } },
            "additionalProperties": false,
        }),
        Shape::Parameters => json!({
            "type": "object",
            "additionalProperties": { "type": "string" },
        }),
        Shape::Object(fields) => return object(fields, dialect),
        Shape::Limits => return object(limits(), dialect),
        Shape::Objects(fields) => list(Value::Object(object(fields, dialect)), dialect),
        Shape::Anything => json!({}),
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn list(items: Value, dialect: Dialect) -> Value {
    let mut list = json!({ "type": "array", "items": items });
    if dialect == Dialect::Kong {
        // Kong's JSON library writes an empty list as an empty object, which the filter would refuse.
        list["minItems"] = json!(1);
    }
    list
}

/// What Kong reads from beside the filter.
pub(crate) fn meta() -> Value {
    let labels: Vec<Value> = LABELS
        .iter()
        .map(|(label, pattern)| json!({ "label": label, "pattern": pattern }))
        .collect();
    json!({
        "config_schema": schema(Dialect::Kong),
        "metrics": { "label_patterns": labels },
    })
}

/// The generated files by their paths.
fn files() -> [(&'static str, String); 4] {
    let json = |value: Value| format!("{value:#}\n");
    [
        ("filter-config/schema.json", json(schema(Dialect::Editor))),
        (
            "filter-config/azure_key_vault_filter.meta.json",
            json(meta()),
        ),
        ("docs/configuration.md", page::page()),
        ("docs/errors.md", errors::page()),
    ]
}

/// Writes the generated files.
pub(crate) fn write() -> Result<()> {
    for (name, text) in files() {
        let path = workspace().join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod kongs_validator;
#[cfg(test)]
mod tests;
