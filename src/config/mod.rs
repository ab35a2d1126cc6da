//! The plugin configuration: JSON and environment in, a checked [`Config`] or every problem out. It makes
//! no connection and fetches nothing.

mod identity;
mod reader;
mod uri;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

pub use reader::Problem;
pub use uri::{HttpUrl, HttpsUri};

use self::reader::{Fields, Problems};
use crate::azure::forms::Kind as ObjectKind;
use crate::azure::identity::Identity;
use crate::body::Kind;
use crate::json::Json;
use crate::limits::Limits;
use crate::placement;
use crate::policy::{Allowed, HeaderNames, MediaTypes, ParameterNames, Policy};
use crate::quoted::Quoted;
use crate::reference::{Reference, lua_number};
use crate::secret::SecretValue;
use crate::template::{Part, Template};
use crate::time::Span;

/// Kong's largest ttl, about three years (`kong/constants.lua`, `DATABASE_MAX_TTL`).
const MAX_TTL: u32 = 100_000_000;
/// The prefix of the vault that the environment makes: the name of Kong's strategy.
const ENVIRONMENTS: &str = "azure";
/// The last one of the numbered ones, which every Key Vault serves; the dated ones since then change
/// nothing for reading secrets.
const DEFAULT_API_VERSION: &str = "7.6";

/// A configuration that was checked as a whole.
#[derive(Clone, Debug)]
pub struct Config {
    /// Never empty; the prefixes are unique.
    pub vaults: Vec<Vault>,
    /// What is done to requests.
    pub request: Rules,
    /// What is done to responses.
    pub response: Rules,
    /// Whether values that requests got are masked where the upstream sends them back.
    pub redact: bool,
    /// What traffic may cost.
    pub limits: Limits,
    /// What becomes of a place whose reference cannot be resolved.
    pub on_error: OnError,
    /// Whether workers share their cache through the host; `None` is the host's default.
    pub shared_data: Option<bool>,
    /// What is told of what happens.
    pub metrics: MetricRules,
    /// Whether each use of a secret by a client is logged.
    pub audit: Option<Audit>,
}

/// `audit`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// The header that names the client; without, it is the address.
    pub client_header: Option<String>,
}

/// `metrics`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricRules {
    /// Whether there are any; `None` is the host's default.
    pub enabled: Option<bool>,
    /// Whether they may name secrets.
    pub secret_names: bool,
}

/// One vault with the identity that reads it.
#[derive(Clone, Debug)]
pub struct Vault {
    /// The name that references use.
    pub prefix: String,
    /// `https://NAME.vault.azure.net`
    pub uri: HttpsUri,
    /// Envoy's cluster, or WasmX's `host:port`, for the vault.
    pub cluster: String,
    /// The identity that reads this vault.
    pub identity: Identity,
    /// What its references are to.
    pub kind: ObjectKind,
    /// How long one call may take.
    pub timeout: Span,
    /// How long its secrets live in the cache.
    pub cache: CacheRules,
    /// Whether every secret of this vault is decoded from base64.
    pub base64_decode: bool,
    /// The `api-version` of Key Vault's data plane.
    pub api_version: String,
    /// What a secret's `exp` and `nbf` do.
    pub dates: Dates,
}

/// `dates`: Key Vault calls `exp` and `nbf` informational, its `get` works outside of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dates {
    /// A secret outside of its dates is not served.
    #[default]
    Enforce,
    /// It is served, with a warning.
    Warn,
}

/// Kong's three times (`kong/pdk/vault.lua`, as documented: a ttl of 0, or none, is no rotation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheRules {
    /// How long a value is fresh; [`Span::FOREVER`] for no rotation.
    pub ttl: Span,
    /// How long a secret that is not there is remembered as such.
    pub neg_ttl: Span,
    /// How long a value may be used after its ttl when it cannot be had anew.
    pub resurrect_ttl: Span,
}

/// `on_error`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The client gets 503.
    #[default]
    Deny,
    /// The header is dropped.
    Remove,
    /// The reference goes on as it came.
    Keep,
}

/// What is done to one side of the traffic.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Headers that the operator sets.
    pub set_headers: Vec<(String, Template)>,
    /// Query parameters that the operator sets; none in responses.
    pub set_query: Vec<(String, Template)>,
    /// Headers in which references from the traffic are resolved.
    pub resolve_headers: HeaderNames,
    /// Query parameters in which they are.
    pub resolve_query: ParameterNames,
    /// Bodies in which they are.
    pub resolve_body: MediaTypes,
    /// Which references from the traffic may be resolved.
    pub allow: Policy,
}

impl Rules {
    /// Whether nothing is to be done.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.set_headers.is_empty()
            && self.set_query.is_empty()
            && self.resolve_headers.is_empty()
            && self.resolve_query.is_empty()
            && self.resolve_body.is_empty()
    }
}

impl Config {
    /// Reads a plugin configuration. `env` gives the environment's variables.
    ///
    /// # Errors
    /// Every problem that was found, with its path.
    pub fn parse(json: &[u8], env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let problems = Problems::default();
        let json = if json.is_empty() { b"{}" } else { json };
        let config = match Json::read(json) {
            Ok(value) => read(value, env, &problems),
            Err(error) => {
                problems.add("(all)", format!("is not valid JSON: {error}"));
                None
            }
        };
        let problems = problems.into_vec();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }

    /// The index of the vault with this prefix.
    #[must_use]
    pub fn vault_index(&self, prefix: &str) -> Option<usize> {
        self.vaults.iter().position(|vault| vault.prefix == prefix)
    }
}

fn read<'p>(
    value: Json<'p>,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &'p Problems,
) -> Option<Config> {
    let mut root = Fields::of(value, String::new(), problems)?;
    let known = Known(read_vaults(&mut root, env, problems));
    let request = root
        .object("request")
        .map(|r| read_request(r, &known, problems));
    let response = root
        .object("response")
        .map(|r| read_response(r, &known, problems));
    let limits = read_limits(&mut root);
    let on_error = root.choice(
        "on_error",
        &[
            ("deny", OnError::Deny),
            ("remove", OnError::Remove),
            ("keep", OnError::Keep),
        ],
    );
    let shared_data = root.boolean("shared_data");
    let metrics = root.object("metrics").map(|mut metrics| {
        let rules = MetricRules {
            enabled: metrics.boolean("enabled"),
            secret_names: metrics.boolean("secret_names").unwrap_or_default(),
        };
        metrics.done();
        rules
    });
    let audit = root.object("audit").map(|fields| {
        let rules = request.as_ref();
        read_audit(fields, rules)
    });
    root.done();
    Some(Config {
        vaults: known.0.into_iter().filter_map(|(_, vault)| vault).collect(),
        request: request.unwrap_or_default(),
        redact: response.as_ref().is_some_and(|(_, redact)| *redact),
        response: response.unwrap_or_default().0,
        limits,
        on_error: on_error.unwrap_or_default(),
        shared_data,
        metrics: metrics.unwrap_or_default(),
        audit,
    })
}

fn read_vaults(
    root: &mut Fields<'_>,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &Problems,
) -> Vec<(String, Option<Vault>)> {
    let entities = root.list("vaults").unwrap_or_default();
    if entities.is_empty() {
        // As in Kong: the environment alone makes a vault.
        let config = Fields::of(Json::EMPTY, "vaults[0].config".into(), problems);
        let vault = config.and_then(|config| read_vault_config(config, ENVIRONMENTS.into(), env));
        return vec![(ENVIRONMENTS.into(), vault)];
    }
    let mut vaults: Vec<(String, Option<Vault>)> = Vec::with_capacity(entities.len());
    for (index, entity) in entities.into_iter().enumerate() {
        let path = format!("vaults[{index}]");
        let Some((prefix, vault)) = read_entity(entity, &path, env, problems) else {
            continue;
        };
        if vaults.iter().any(|(other, _)| *other == prefix) {
            let message = format!(
                "{prefix} is already taken by another vault",
                prefix = Quoted(&prefix)
            );
            problems.add(format!("{path}.prefix"), message);
        }
        vaults.push((prefix, vault));
    }
    if !vaults.iter().any(|(prefix, _)| prefix == ENVIRONMENTS) {
        vaults.extend(environments_vault(env));
    }
    vaults
}

/// Beside its entities Kong knows the vault of its environment, by the name of the strategy. It is there
/// only if the environment alone makes a whole one: the same variables are also defaults for entities.
fn environments_vault(env: &dyn Fn(&str) -> Option<String>) -> Option<(String, Option<Vault>)> {
    let problems = Problems::default();
    let fields = Fields::of(Json::EMPTY, String::new(), &problems)?;
    let vault = read_vault_config(fields, ENVIRONMENTS.into(), env)?;
    let whole = problems.into_vec().is_empty();
    whole.then(|| (ENVIRONMENTS.to_owned(), Some(vault)))
}

/// The vaults by their prefixes; one that could not be read is still known by its name.
struct Known(Vec<(String, Option<Vault>)>);

impl Known {
    fn has(&self, prefix: &str) -> bool {
        self.0.iter().any(|(known, _)| known == prefix)
    }

    fn unknown(&self, prefix: &str) -> String {
        let names: Vec<&str> = self.0.iter().map(|(known, _)| known.as_str()).collect();
        let names = names.join(", ");
        format!(
            "names the vault {prefix}, which is not configured; there are {names}",
            prefix = Quoted(prefix)
        )
    }

    /// Why this reference cannot be resolved whatever the vault answers.
    fn problem_of(&self, reference: &Reference) -> Option<String> {
        let found = self.0.iter().find(|(known, _)| *known == reference.vault);
        let Some((_, vault)) = found else {
            return Some(self.unknown(&reference.vault));
        };
        let refused = vault
            .as_ref()
            .is_some_and(|v| v.kind.locate(&reference.keys).is_none());
        refused.then(|| {
            let keys = reference.keys.join("/");
            format!("asks for {keys}, which certificates do not have; they have certificate, der, private_key and pkcs12", keys = Quoted(&keys))
        })
    }
}

/// Kong's vault entity (`kong/db/schema/entities/vaults.lua`).
fn read_entity<'p>(
    entity: Json<'p>,
    path: &str,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &'p Problems,
) -> Option<(String, Option<Vault>)> {
    let mut fields = Fields::of(entity, path.to_owned(), problems)?;
    let name = fields.text("name");
    if name.as_deref().is_some_and(|name| name != "azure") {
        fields.problem(
            "name",
            "must be azure: this filter reads Azure Key Vault only",
        );
    }
    let prefix = fields.text("prefix");
    if prefix.as_deref().is_some_and(|prefix| !is_prefix(prefix)) {
        let message = "must be at least two lower-case letters, digits or dashes, \
                       starting with a letter and not ending with a dash";
        fields.problem("prefix", message);
    }
    fields.text("description");
    fields.texts("tags");
    for kongs_own in ["id", "created_at", "updated_at"] {
        fields.ignore(kongs_own);
    }
    let config = fields
        .object("config")
        .or_else(|| Fields::of(Json::EMPTY, format!("{path}.config"), problems));
    if prefix.is_none() {
        fields.problem("prefix", "is missing: it is the name that references use");
    }
    let prefix = prefix.unwrap_or_default();
    fields.done();
    let vault = config.and_then(|config| read_vault_config(config, prefix.clone(), env));
    Some((prefix, vault))
}

/// Kong's pattern, `^[a-z][a-z%d-]-[a-z%d]+$` in its Lua form: at least two characters.
fn is_prefix(prefix: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    prefix.len() >= 2
        && prefix.starts_with(|c: char| c.is_ascii_lowercase())
        && !prefix.ends_with('-')
        && prefix.bytes().all(allowed)
}

/// A vault's settings: from the entity, else from Kong's environment.
struct Settings<'p, 'e> {
    fields: Fields<'p>,
    env: &'e dyn Fn(&str) -> Option<String>,
}

impl Settings<'_, '_> {
    fn kongs(&self, name: &str) -> Option<String> {
        (self.env)(&format!("KONG_VAULT_AZURE_{}", name.to_ascii_uppercase()))
            .filter(|value| !value.is_empty())
    }

    /// Kong has this one setting under another name in its environment.
    fn base64_decode(&mut self) -> bool {
        let given = self.fields.boolean("base64_decode");
        given.unwrap_or_else(|| {
            let kongs = self
                .kongs("base64_decode")
                .or_else(|| self.kongs("decode_base64"));
            kongs.is_some_and(|text| matches!(text.as_str(), "true" | "on"))
        })
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        self.fields.text(name).or_else(|| self.kongs(name))
    }

    fn required(&mut self, name: &'static str) -> Option<String> {
        let value = self.text(name);
        if value.is_none() {
            let variable = name.to_ascii_uppercase();
            let message = format!("is missing; set it here or as KONG_VAULT_AZURE_{variable}");
            self.fields.problem(name, message);
        }
        value
    }

    fn span(&mut self, name: &'static str) -> Option<Span> {
        let seconds = self.fields.number(name, 0, MAX_TTL);
        let seconds = seconds.or_else(|| {
            let text = self.kongs(name)?;
            let parsed = lua_number(&text).filter(|s| (0.0..=f64::from(MAX_TTL)).contains(s));
            if parsed.is_none() {
                let message = "in the environment must be a number of seconds from 0 to 100000000";
                self.fields.problem(name, message);
            }
            parsed
        });
        seconds.map(Span::from_seconds)
    }

    fn kind(&mut self) -> ObjectKind {
        match self.text("type").as_deref() {
            None | Some("secrets") => ObjectKind::Secrets,
            Some("certificates") => ObjectKind::Certificates,
            Some("keys") => ObjectKind::Keys,
            Some(other) => {
                let message = format!(
                    "must be secrets, certificates or keys, not {other}",
                    other = Quoted(other)
                );
                self.fields.problem("type", message);
                ObjectKind::Secrets
            }
        }
    }

    fn uri(&mut self, name: &'static str, text: Option<String>) -> Option<HttpsUri> {
        match HttpsUri::parse(&text?) {
            Ok(uri) => Some(uri),
            Err(message) => {
                self.fields.problem(name, message);
                None
            }
        }
    }
}

fn read_vault_config(
    fields: Fields<'_>,
    prefix: String,
    env: &dyn Fn(&str) -> Option<String>,
) -> Option<Vault> {
    let mut settings = Settings { fields, env };
    let kind = settings.kind();
    settings.text("location");
    let uri = settings.required("vault_uri");
    let uri = settings.uri("vault_uri", uri);
    let cluster = settings.fields.text("vault_cluster");
    let cluster = cluster.or_else(|| uri.as_ref().map(HttpsUri::upstream));
    let target = identity::Target {
        uri: uri.as_ref(),
        cluster: cluster.as_deref(),
        kind,
    };
    let identity = identity::read(&mut settings, &target);
    let cache = CacheRules {
        ttl: settings
            .span("ttl")
            .filter(|ttl| ttl.0 > 0)
            .unwrap_or(Span::FOREVER),
        neg_ttl: settings.span("neg_ttl").unwrap_or_default(),
        resurrect_ttl: settings
            .span("resurrect_ttl")
            .unwrap_or_else(|| Span::seconds(MAX_TTL.into())),
    };
    let timeout = settings
        .fields
        .number("timeout_ms", 1, 600_000)
        .unwrap_or(5000.0);
    let base64_decode = settings.base64_decode();
    let api_version = settings
        .fields
        .text("api_version")
        .unwrap_or_else(|| DEFAULT_API_VERSION.into());
    if !api_version
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
    {
        settings
            .fields
            .problem("api_version", "must be letters, digits, dots and dashes");
    }
    let dates = settings.fields.choice(
        "dates",
        &[("enforce", Dates::Enforce), ("warn", Dates::Warn)],
    );
    settings.fields.done();
    let uri = uri?;
    Some(Vault {
        cluster: cluster?,
        prefix,
        uri,
        kind,
        identity: identity?,
        timeout: Span::from_seconds(timeout / 1000.0),
        cache,
        base64_decode,
        api_version,
        dates: dates.unwrap_or_default(),
    })
}

fn read_request(mut fields: Fields<'_>, known: &Known, problems: &Problems) -> Rules {
    let mut rules = Rules::default();
    if let Some(mut set) = fields.object("set") {
        read_set_headers(&mut set, known, problems, &mut rules);
        let path = set.path("query");
        for (name, text) in set.map_of_texts("query") {
            let path = format!("{path}.{name}");
            let template = read_template(&text, known, &path, problems);
            rules.set_query.extend(template.map(|t| (name, t)));
        }
        set.done();
    }
    if let Some(mut resolve) = fields.object("resolve") {
        read_resolve(&mut resolve, known, problems, &mut rules);
        let names = resolve.texts("query").unwrap_or_default();
        rules.resolve_query = ParameterNames::new(names);
        resolve.done();
    }
    fields.done();
    rules
}

/// The rules, and whether values are masked.
fn read_response(mut fields: Fields<'_>, known: &Known, problems: &Problems) -> (Rules, bool) {
    let mut rules = Rules::default();
    if let Some(mut set) = fields.object("set") {
        read_set_headers(&mut set, known, problems, &mut rules);
        set.done();
    }
    if let Some(mut resolve) = fields.object("resolve") {
        read_resolve(&mut resolve, known, problems, &mut rules);
        resolve.done();
    }
    let redact = fields.boolean("redact").unwrap_or_default();
    fields.done();
    (rules, redact)
}

fn read_limits(root: &mut Fields<'_>) -> Limits {
    let mut number = |name, min, max, default: u32| {
        let given = root.number(name, min, max);
        // Within the range of u32 by its limits.
        given.map_or(default, |n| n as u32)
    };
    let body_bytes = number("max_body_bytes", 1u32, 64 << 20, 1 << 20);
    let per_second = number("max_fetches_per_second", 1, 100_000, 50);
    let in_flight = number("max_fetches_in_flight", 1, 100_000, 100);
    Limits {
        body_bytes: usize::try_from(body_bytes).unwrap_or(usize::MAX),
        fetches_per_second: u64::from(per_second),
        fetches_in_flight: usize::try_from(in_flight).unwrap_or(usize::MAX),
        ..Limits::default()
    }
}

/// The header must not be one that holds a secret by the time it is read.
fn read_audit(mut fields: Fields<'_>, request: Option<&Rules>) -> Audit {
    let client_header = fields.text("client_header").map(|h| h.to_ascii_lowercase());
    if let Some(name) = &client_header {
        let set = |rules: &Rules| rules.set_headers.iter().any(|(set, _)| set == name);
        let filled = request.is_some_and(|r| set(r) || r.resolve_headers.lists(name.as_bytes()));
        let secret = ["authorization", "proxy-authorization", "cookie"].contains(&name.as_str());
        if filled || secret {
            let message = "is a header that may hold a secret, which would be in the log";
            fields.problem("client_header", message);
        } else if !placement::is_header_target(name.as_bytes()) {
            fields.problem("client_header", "is no header name");
        }
    }
    fields.done();
    Audit { client_header }
}

fn read_set_headers(set: &mut Fields<'_>, known: &Known, problems: &Problems, rules: &mut Rules) {
    let path = set.path("headers");
    for (name, text) in set.map_of_texts("headers") {
        let template = read_set_header(&name, &text, known, &format!("{path}.{name}"), problems);
        let header = template.map(|t| (name.to_ascii_lowercase(), t));
        rules.set_headers.extend(header);
    }
}

fn read_set_header(
    name: &str,
    text: &str,
    known: &Known,
    path: &str,
    problems: &Problems,
) -> Option<Template> {
    if !placement::is_header_target(name.as_bytes()) {
        problems.add(path, "is not a header that may be set: it routes or frames the message, or is no header name");
        return None;
    }
    if !placement::fits_header(text.as_bytes()) {
        problems.add(
            path,
            "holds a control character (a line break?), which no header can",
        );
        return None;
    }
    read_template(text, known, path, problems)
}

fn read_template(text: &str, known: &Known, path: &str, problems: &Problems) -> Option<Template> {
    let template = Template::parse(text.as_bytes());
    let before = problems_of(&template, known);
    for message in &before {
        problems.add(path, message);
    }
    before.is_empty().then_some(template)
}

fn problems_of(template: &Template, known: &Known) -> Vec<String> {
    let references = template.parts.iter().filter_map(|part| match part {
        Part::Reference { parsed, .. } => Some(parsed),
        Part::Literal(_) => None,
    });
    references
        .filter_map(|parsed| match parsed {
            Ok(reference) => known.problem_of(reference),
            Err(error) => Some(format!("holds a reference that cannot be read: {error}")),
        })
        .collect()
}

fn read_resolve(resolve: &mut Fields<'_>, known: &Known, problems: &Problems, rules: &mut Rules) {
    let path = resolve.path("headers");
    let names = resolve.texts("headers").unwrap_or_default();
    for (index, name) in names.iter().enumerate() {
        let literal = name.replace('*', "x");
        if !placement::is_header_target(literal.as_bytes()) {
            let message = "is not a header that may be resolved: it routes or frames the message, or is no header name";
            problems.add(format!("{path}[{index}]"), message);
        }
    }
    rules.resolve_headers = HeaderNames::new(names);
    rules.resolve_body = read_media_types(resolve, problems);
    let path = resolve.path("allow");
    let mut allowed = Vec::new();
    for (index, text) in resolve
        .texts("allow")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        match Allowed::parse(text) {
            Ok(pattern)
                if pattern.vault().bytes().any(|b| b == b'*') || known.has(pattern.vault()) =>
            {
                allowed.push(pattern);
            }
            Ok(pattern) => problems.add(format!("{path}[{index}]"), known.unknown(pattern.vault())),
            Err(message) => problems.add(format!("{path}[{index}]"), message),
        }
    }
    rules.allow = Policy::new(allowed);
}

/// Only kinds whose rules of writing are known: elsewhere a value could break out of its place.
fn read_media_types(resolve: &mut Fields<'_>, problems: &Problems) -> MediaTypes {
    let path = resolve.path("body");
    let types = resolve.texts("body").unwrap_or_default();
    for (index, media_type) in types.iter().enumerate() {
        if Kind::of(&media_type.to_ascii_lowercase()).is_none() {
            let message = format!(
                "must be application/json, application/x-www-form-urlencoded, text/plain or a +json type, not {media_type}: \
                 of others it is not known how a value has to be written",
                media_type = Quoted(media_type)
            );
            problems.add(format!("{path}[{index}]"), message);
        }
    }
    MediaTypes::new(types.iter().map(|t| t.to_ascii_lowercase()).collect())
}

#[cfg(test)]
mod tests;
