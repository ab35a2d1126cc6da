//! The fields of the configuration, declared once: the reader takes names, ranges and variables from these
//! tables, and `cargo xtask schema` makes of them `filter-config/schema.json`, Kong's `.meta.json` and
//! `docs/configuration.md`. A new field is one line here and one where `config` reads it. The texts for people
//! are empty in the filter itself.

/// Kong's largest ttl, about three years (`kong/constants.lua`, `DATABASE_MAX_TTL`).
pub const MAX_TTL: u32 = 100_000_000;

/// A text that the filter itself has no use for.
const fn docs(text: &'static str) -> &'static str {
    if cfg!(target_os = "wasi") { "" } else { text }
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
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
    /// An object with the fields of [`LIMITS`](super::limits::LIMITS).
    Limits,
    /// Anything: it means nothing here.
    Anything,
}

/// A field of an object.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name in the configuration.
    pub name: &'static str,
    /// What it holds.
    pub shape: Shape,
    /// Whether it has to be there.
    pub required: bool,
    /// What it means, for people.
    pub about: &'static str,
    /// JSON where it is a value (tests compare it with the reader's), else words; empty for nothing.
    pub default: &'static str,
    /// The variables that are looked at when the field is absent, in this order. `AZURE_` stands for
    /// `credentials_prefix` in them.
    pub variables: &'static [&'static str],
    /// JSON; only objects have none.
    pub example: &'static str,
}

pub(super) const fn field(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field {
        name,
        shape,
        required: false,
        about: docs(about),
        default: "",
        variables: &[],
        example: "",
    }
}

impl Field {
    const fn default(self, default: &'static str) -> Self {
        Self {
            default: docs(default),
            ..self
        }
    }

    const fn or_from(self, variables: &'static [&'static str]) -> Self {
        Self { variables, ..self }
    }

    const fn example(self, example: &'static str) -> Self {
        Self {
            example: docs(example),
            ..self
        }
    }
}

const fn required(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field {
        required: true,
        ..field(name, shape, about)
    }
}

/// The `https://HOST` of a vault or an authority.
pub const HTTPS: Shape = Shape::Like(docs(
    r"^https://[A-Za-z0-9-][A-Za-z0-9.-]*(:[0-9]{1,5})?/?$",
));
/// An `http` or `https` URL.
pub const HTTP: Shape = Shape::Like(docs(r"^https?://[A-Za-z0-9-]"));
/// A time in seconds; the reader also refuses what lies between 0 and 1.
const SECONDS: Shape = Shape::Number(0, MAX_TTL);
/// RFC 9110, section 5.6.2. (Kong's validator would take `~0` and `~1` in a pattern for the escapes of a JSON
/// pointer: no digit may follow the tilde.) `*` is one of its characters, and stands for any run of them in a pattern.
pub const HEADER_NAME: &str = docs(r"^[!#$%&'*+.^_`|~A-Za-z0-9-]+$");
const ALLOWED: &str = r"^(\*|[^/]+/[^/]+(/.+)?)$";

/// The whole configuration, but for the limits at its top ([`TOP_LEVEL`](super::limits::TOP_LEVEL)).
#[rustfmt::skip]
pub const ROOT: &[Field] = &[
    field("vaults", Shape::Objects(VAULT), "Kong's vault entities, each an Azure Key Vault with the identity that reads it. Without any, the environment (KONG_VAULT_AZURE_…) makes one with the prefix azure."),
    field("request", Shape::Object(REQUEST), "What is done to requests."),
    field("response", Shape::Object(RESPONSE), "What is done to responses."),
    field("limits", Shape::Limits, "What traffic may cost beside the three above."),
    field("on_error", Shape::Word(&["deny", "remove", "keep"]), "When a secret could not be resolved: deny (the client gets 503), remove (the header or parameter is dropped, in JSON the string becomes null) or keep (the reference goes on as it came).").default("\"deny\"").example("\"remove\""),
    field("shared_data", Shape::Boolean, "Whether workers share their cache through the host. In Kong it needs nginx_wasm_shm_kv.").default("true in Envoy, false in Kong").example("true"),
    field("metrics", Shape::Object(METRICS), "What metrics may tell."),
    field("audit", Shape::Object(AUDIT), "A line in the log for each use of a secret by a client's reference: who, which, when, outcome. Off without this."),
];

/// An object of the configuration.
#[rustfmt::skip]
pub const AUDIT: &[Field] = &[
    field("client_header", Shape::Like(HEADER_NAME), "The request header that names the client, best one that the gateway sets. None that is resolved or set.").default("the client's address").example("\"x-client-id\""),
];

/// An object of the configuration.
#[rustfmt::skip]
pub const METRICS: &[Field] = &[
    field("enabled", Shape::Boolean, "Whether there are metrics. Kong has them from 3.9 on; in older ones the filter dies of them.").default("true in Envoy, false in Kong").example("true"),
    field("secret_names", Shape::Boolean, "Whether metrics name secrets: failures and expiry dates of the first 100 that a worker sees.").default("false").example("true"),
];

/// An object of the configuration.
#[rustfmt::skip]
pub const VAULT: &[Field] = &[
    field("name", Shape::Word(&["azure"]), "Kong's name for the kind of vault.").example("\"azure\""),
    required("prefix", Shape::Like("^[a-z][a-z0-9-]*[a-z0-9]$"), "The name that references use: {vault://PREFIX/SECRET}.").example("\"payments\""),
    field("description", Shape::Text, "For people.").example("\"Payments secrets\""),
    field("tags", Shape::Texts, "For people.").example("[\"payments\"]"),
    field("config", Shape::Object(CONFIG), "The vault and the identity that reads it."),
    field("id", Shape::Anything, "Kong's; means nothing here.").example("\"1b5d6c62-6b4f-4f0f-9b1c-2b9e0c9d3a11\""),
    field("created_at", Shape::Anything, "Kong's; means nothing here.").example("1764000000"),
    field("updated_at", Shape::Anything, "Kong's; means nothing here.").example("1764000000"),
];

/// An object of the configuration.
#[rustfmt::skip]
pub const CONFIG: &[Field] = &[
    field("type", Shape::Word(&["secrets", "certificates", "keys"]), "What references to this vault are to.").default("\"secrets\"").or_from(&["KONG_VAULT_AZURE_TYPE"]).example("\"certificates\""),
    field("vault_uri", HTTPS, "The vault. Has to be set, here or in the environment.").or_from(&["KONG_VAULT_AZURE_VAULT_URI"]).example("\"https://payments.vault.azure.net\""),
    field("location", Shape::Text, "Kong's; means nothing here.").example("\"westeurope\""),
    field("vault_cluster", Shape::Text, "Envoy's cluster for the vault.").default("HOST:PORT of vault_uri, which is what Kong needs").example("\"key_vault\""),
    field("ttl", SECONDS, "Seconds for which a value is fresh; 0 for no rotation, else 1 at the least.").default("0").or_from(&["KONG_VAULT_AZURE_TTL"]).example("300"),
    field("neg_ttl", SECONDS, "Seconds for which a missing secret is remembered as missing: 0 or at least 1; for 0 it is one second.").default("0").or_from(&["KONG_VAULT_AZURE_NEG_TTL"]).example("10"),
    field("resurrect_ttl", SECONDS, "Seconds beyond the ttl for which a value serves when Azure fails or the secret is gone.").default("100000000").or_from(&["KONG_VAULT_AZURE_RESURRECT_TTL"]).example("86400"),
    field("revoked_ttl", SECONDS, "Seconds for which a value serves after Key Vault's definite refusal: the secret is deleted or disabled, or this identity may not read it. 0 ends it at once. Other failures keep resurrect_ttl.").default("as long as without a refusal").example("60"),
    field("base64_decode", Shape::Boolean, "Decode every secret of this vault from base64, after the key was taken.").default("false").or_from(&["KONG_VAULT_AZURE_BASE64_DECODE", "KONG_VAULT_AZURE_DECODE_BASE64"]).example("true"),
    field("timeout_ms", Shape::Number(1, 600_000), "The longest that one call may take; a request that finds neither token nor secret makes two.").default("5000").example("2000"),
    field("api_version", Shape::Like("^[A-Za-z0-9.-]+$"), "The api-version of Key Vault's data plane.").default("\"7.6\"").example("\"7.4\""),
    field("dates", Shape::Word(&["enforce", "warn"]), "What a secret's exp and nbf do: enforce, it is not served outside of them; warn, it is served with a warning. Key Vault calls them informational.").default("\"enforce\"").example("\"warn\""),
    field("identity", Shape::Word(&["client_secret", "client_certificate", "workload_identity", "managed_identity"]), "Who asks.").default("the first one, in this order, that has what it needs").example("\"managed_identity\""),
    field("identity_cluster", Shape::Text, "Envoy's cluster for Entra ID, or for the managed identity's endpoint.").default("HOST:PORT of authority_host or of the endpoint").example("\"azure_identity\""),
    field("credentials_prefix", Shape::Text, "The first part of the variables' names.").default("\"AZURE\"").example("\"PAYMENTS\""),
    field("tenant_id", Shape::Like("^[A-Za-z0-9.-]+$"), "The tenant's id or domain.").default("the vault is asked").or_from(&["KONG_VAULT_AZURE_TENANT_ID", "AZURE_TENANT_ID"]).example("\"11111111-1111-1111-1111-111111111111\""),
    field("client_id", Shape::Text, "The app registration, or the user-assigned managed identity.").or_from(&["KONG_VAULT_AZURE_CLIENT_ID", "AZURE_CLIENT_ID"]).example("\"22222222-2222-2222-2222-222222222222\""),
    field("client_secret", Shape::Text, "The app registration's secret. Better in the environment: gateways show their configuration.").or_from(&["AZURE_CLIENT_SECRET"]).example("\"the-value-not-the-id\""),
    field("client_secret_next", Shape::Text, "The app registration's other secret, for a rotation: it is tried when Entra ID says that client_secret is wrong or expired.").or_from(&["AZURE_CLIENT_SECRET_NEXT"]).example("\"the-next-value\""),
    field("client_certificate", Shape::Text, "PEM with an RSA key and its certificate; line breaks may be written as \\n. Better in the environment. Needs the filter from target/dist/full.").or_from(&["AZURE_CLIENT_CERTIFICATE"]).example("\"-----BEGIN PRIVATE KEY-----…\""),
    field("federated_token", Shape::Text, "A workload identity's token, for as long as it lives.").or_from(&["AZURE_FEDERATED_TOKEN"]).example("\"eyJhbGciOi…\""),
    field("federated_token_url", HTTP, "The URL that gives a workload identity's token.").or_from(&["AZURE_FEDERATED_TOKEN_URL"]).example("\"http://127.0.0.1:8181/azure-identity-token\""),
    field("federated_token_header", Shape::Text, "One header for federated_token_url.").example("\"Metadata-Flavor: Google\""),
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

/// An object of the configuration.
#[rustfmt::skip]
pub const REQUEST: &[Field] = &[
    field("set", Shape::Object(REQUEST_SET), "What the operator sets; it replaces what the client sent, and its secrets are fetched ahead."),
    field("resolve", Shape::Object(REQUEST_RESOLVE), "References that arrive in requests: only in these places, and only to these secrets."),
];

/// An object of the configuration.
#[rustfmt::skip]
pub const RESPONSE: &[Field] = &[
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

/// An object of the configuration.
#[rustfmt::skip]
pub const REQUEST_SET: &[Field] = &[
    SET_HEADERS,
    field("query", Shape::Parameters, "Names of query parameters, and texts with references.").example(r#"{ "api-key": "{vault://payments/search-key}" }"#),
    field("keep_underscores", Shape::Boolean, "Whether a client's header that differs from one in headers by `_` in place of `-` goes on. Upstreams like CGI take both for one.").default("false").example("true"),
];

/// An object of the configuration.
#[rustfmt::skip]
pub const REQUEST_RESOLVE: &[Field] = &[
    RESOLVE_HEADERS,
    field("query", Shape::Texts, "Names of query parameters; * stands for any run of characters.").example(r#"["key"]"#),
    RESOLVE_BODY,
    ALLOW,
    field("on_too_large", Shape::Word(&["deny", "pass"]), "A body of a listed type that is longer than max_body_bytes: deny (413), or pass (it goes on as it is, unless a reference was found in what had come of it).").default("\"deny\"").example("\"pass\""),
];

/// An object of the configuration.
pub const RESPONSE_SET: &[Field] = &[SET_HEADERS];
/// An object of the configuration.
pub const RESPONSE_RESOLVE: &[Field] = &[RESOLVE_HEADERS, RESOLVE_BODY, ALLOW];
