//! The plugin configuration: JSON and environment in, a checked [`Config`] or every problem out. It makes
//! no connection and fetches nothing.

pub mod fields;
mod identity;
pub mod limits;
mod managed;
mod reader;
mod rules;
mod uri;
mod vaults;

pub use reader::Problem;
pub use uri::{HttpUrl, HttpsUri};

use self::fields::ROOT;
use self::reader::{Fields, Problems};
use self::rules::{read_audit, read_request, read_response};
use self::vaults::{Known, read_vaults};
use crate::azure::forms::Kind as ObjectKind;
use crate::azure::identity::Identity;
use crate::json::Json;
use crate::limits::Limits;
use crate::policy::{HeaderNames, MediaTypes, ParameterNames, Policy};
use crate::template::Template;
use crate::time::Span;

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
    /// What metrics show.
    pub metrics: MetricRules,
    /// Whether each use of a secret by a client is logged.
    pub audit: Option<Audit>,
    /// What is accepted and has a risk that the operator should know.
    pub warnings: Vec<Problem>,
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
    /// How long a value serves after a definite refusal of the vault; `None` for as long as without one.
    pub revoked_ttl: Option<Span>,
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
    /// How long a value may be used after its ttl when it could not be fetched again (stale-if-error).
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
    /// Whether a client's headers that differ from these only by `_` for `-` go on.
    pub keep_underscores: bool,
    /// Headers in which references from the traffic are resolved.
    pub resolve_headers: HeaderNames,
    /// Query parameters in which they are.
    pub resolve_query: ParameterNames,
    /// Bodies in which they are.
    pub resolve_body: MediaTypes,
    /// Which references from the traffic may be resolved.
    pub allow: Policy,
    /// What is done with a request's body that is longer than `max_body_bytes`.
    pub on_too_large: TooLarge,
}

/// `on_too_large`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TooLarge {
    /// The client gets 413.
    #[default]
    Deny,
    /// It goes on as it is, unless a reference was found in what had come of it.
    Pass,
}

impl Rules {
    /// Whether nothing is to be done.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.set_headers.is_empty() && self.set_query.is_empty() && !self.resolves()
    }

    /// Whether references are resolved in any place.
    #[must_use]
    pub const fn resolves(&self) -> bool {
        !(self.resolve_headers.is_empty()
            && self.resolve_query.is_empty()
            && self.resolve_body.is_empty())
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
    let mut root = Fields::of(value, String::new(), all_of_root(), problems)?;
    let known = Known(read_vaults(&mut root, env, problems));
    let request = root
        .object("request")
        .map(|r| read_request(r, &known, problems));
    let response = root
        .object("response")
        .map(|r| read_response(r, &known, problems));
    let limits = limits::read(&mut root);
    let on_error = root.choice(
        "on_error",
        &[
            ("deny", OnError::Deny),
            ("remove", OnError::Remove),
            ("keep", OnError::Keep),
        ],
    );
    let shared_data = root.boolean("shared_data");
    let metrics = root.object("metrics").map(read_metrics);
    let audit = root.object("audit").map(|fields| {
        let rules = request.as_ref();
        read_audit(fields, rules)
    });
    root.done();
    let warnings = response
        .as_ref()
        .and_then(|(rules, _)| risk_of_echoes(rules));
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
        warnings: warnings.into_iter().collect(),
    })
}

fn read_metrics(mut metrics: Fields<'_>) -> MetricRules {
    let rules = MetricRules {
        enabled: metrics.boolean("enabled"),
        secret_names: metrics.boolean("secret_names").unwrap_or_default(),
    };
    metrics.done();
    rules
}

/// A reference in a response need not be the upstream's own.
fn risk_of_echoes(response: &Rules) -> Option<Problem> {
    response.resolves().then(|| Problem {
        path: "response.resolve".to_owned(),
        message: "a client that can have the upstream send back a text of the client's (an echo, an error page, \
                  a stored comment) can read every secret that allow lists; list only secrets that clients may see"
            .to_owned(),
    })
}

/// The fields at the top.
fn all_of_root() -> impl Iterator<Item = &'static fields::Field> {
    ROOT.iter()
        .chain(limits::TOP_LEVEL.iter().map(|limit| &limit.field))
}

#[cfg(test)]
mod tests;
