//! Reads `vaults`: Kong's vault entities with their settings, from the JSON or the environment. It knows
//! identities only as a whole.

use super::fields::{CONFIG, MAX_TTL, VAULT};
use super::identity;
use super::reader::{Fields, Problems};
use super::uri::{HttpsUri, did_you_mean};
use super::{CacheRules, Dates, Vault};
use crate::azure::forms::Kind as ObjectKind;
use crate::json::Json;
use crate::quoted::Quoted;
use crate::reference::{Reference, TOO_SHORT, is_below_a_second, lua_number};
use crate::time::Span;

/// The prefix of the vault that the environment makes: the name of Kong's strategy.
const ENVIRONMENTS: &str = "azure";

/// The last one of the numbered ones, which every Key Vault serves; the dated ones since then change
/// nothing for reading secrets.
const DEFAULT_API_VERSION: &str = "7.6";

pub(super) fn read_vaults(
    root: &mut Fields<'_>,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &Problems,
) -> Vec<(String, Option<Vault>)> {
    let entities = root.list("vaults").unwrap_or_default();
    if entities.is_empty() {
        // As in Kong: the environment alone makes a vault.
        let config = Fields::empty("vaults[0].config".into(), CONFIG, problems);
        let vault = read_vault_config(config, ENVIRONMENTS.into(), env);
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
    let fields = Fields::empty(String::new(), CONFIG, &problems);
    let vault = read_vault_config(fields, ENVIRONMENTS.into(), env)?;
    let whole = problems.into_vec().is_empty();
    whole.then(|| (ENVIRONMENTS.to_owned(), Some(vault)))
}

/// The vaults by their prefixes; one that could not be read is still known by its name.
pub(super) struct Known(pub(super) Vec<(String, Option<Vault>)>);

impl Known {
    pub(super) fn has(&self, prefix: &str) -> bool {
        self.0.iter().any(|(known, _)| known == prefix)
    }

    pub(super) fn unknown(&self, prefix: &str) -> String {
        let names: Vec<&str> = self.0.iter().map(|(known, _)| known.as_str()).collect();
        let names = names.join(", ");
        format!(
            "names the vault {prefix}, which is not configured; there are {names}",
            prefix = Quoted(prefix)
        )
    }

    /// Why this reference cannot be resolved whatever the vault answers.
    pub(super) fn problem_of(&self, reference: &Reference) -> Option<String> {
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
    let mut fields = Fields::of(entity, path.to_owned(), VAULT, problems)?;
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
        .unwrap_or_else(|| Fields::empty(format!("{path}.config"), CONFIG, problems));
    if prefix.is_none() {
        fields.problem("prefix", "is missing: it is the name that references use");
    }
    let prefix = prefix.unwrap_or_default();
    fields.done();
    let vault = read_vault_config(config, prefix.clone(), env);
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

/// A vault's settings: from the entity, else from the environment.
pub(super) struct Settings<'p, 'e> {
    pub(super) fields: Fields<'p>,
    pub(super) env: &'e dyn Fn(&str) -> Option<String>,
    /// `credentials_prefix`
    pub(super) prefix: String,
}

impl<'p, 'e> Settings<'p, 'e> {
    fn new(mut fields: Fields<'p>, env: &'e dyn Fn(&str) -> Option<String>) -> Self {
        let prefix = fields.text("credentials_prefix");
        Self {
            fields,
            env,
            prefix: prefix.unwrap_or_else(|| "AZURE".to_owned()),
        }
    }

    /// What the first of the field's variables says that is set and not empty.
    fn variable_of(&self, name: &str) -> Option<String> {
        let field = self.fields.field(name)?;
        field.variables.iter().find_map(|variable| {
            let own = variable.strip_prefix("AZURE_");
            let own = own.map(|rest| format!("{}_{rest}", self.prefix));
            let value = (self.env)(own.as_deref().unwrap_or(variable))?;
            (!value.is_empty()).then_some(value)
        })
    }

    fn base64_decode(&mut self) -> bool {
        let given = self.fields.boolean("base64_decode");
        given.unwrap_or_else(|| {
            let text = self.variable_of("base64_decode");
            text.is_some_and(|text| matches!(text.as_str(), "true" | "on"))
        })
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        let given = self.fields.text(name);
        given.or_else(|| self.variable_of(name))
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
        let seconds = self.fields.number(name);
        let seconds = seconds.or_else(|| {
            let text = self.variable_of(name)?;
            let parsed = lua_number(&text).filter(|s| (0.0..=f64::from(MAX_TTL)).contains(s));
            if parsed.is_none() {
                let message = "in the environment must be a number of seconds from 0 to 100000000";
                self.fields.problem(name, message);
            }
            parsed
        })?;
        if is_below_a_second(seconds) {
            self.fields.problem(name, TOO_SHORT);
            return None;
        }
        Some(Span::from_seconds(seconds))
    }

    fn cache_rules(&mut self) -> CacheRules {
        CacheRules {
            ttl: self
                .span("ttl")
                .filter(|ttl| ttl.0 > 0)
                .unwrap_or(Span::FOREVER),
            neg_ttl: self.span("neg_ttl").unwrap_or_default(),
            resurrect_ttl: self
                .span("resurrect_ttl")
                .unwrap_or_else(|| Span::seconds(MAX_TTL.into())),
        }
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

    pub(super) fn uri(&mut self, name: &'static str, text: Option<String>) -> Option<HttpsUri> {
        let text = text?;
        match HttpsUri::parse(&text) {
            Ok(uri) => Some(uri),
            Err(mut message) => {
                if name == "vault_uri" {
                    message.push_str(&did_you_mean(&text));
                }
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
    let mut settings = Settings::new(fields, env);
    let kind = settings.kind();
    settings.fields.text("location");
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
    let cache = settings.cache_rules();
    let revoked_ttl = settings.span("revoked_ttl");
    let timeout = settings.fields.number("timeout_ms").unwrap_or(5000.0);
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
        revoked_ttl,
    })
}
