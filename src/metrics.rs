//! What is counted: the metrics, their labels (few, and of few values), and the counts of one worker as
//! plain integers until somebody takes them. It knows no host, and a request only ever adds to a number.
//!
//! A series is named `METRIC.LABEL.VALUE.LABEL.VALUE`, in letters, digits and underscores: a name that
//! is one in Prometheus too where nobody takes the labels out of it.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use crate::azure::forms::Collection;
use crate::azure::http::{Answer, CallFailure};
use crate::azure::identity::{Credential, Identity, Managed, Proof, Step};
use crate::cache::SecretKey;
use crate::config::Config;
use crate::failure::Reason;
use crate::time::Span;

/// Stands for "nothing that ends" where seconds are told: some three years.
pub const NEVER: u64 = 100_000_000;
/// So many secrets of one worker have metrics under their own names, where the operator asks for names.
pub const MOST_NAMES: usize = 100;
/// A longer label is cut: WasmX kills the worker for a name of more than 256 bytes.
const LONGEST_LABEL: usize = 64;

/// Every value of the label `endpoint`.
pub const ENDPOINTS: [&str; 7] = [
    "token",
    "managed_identity",
    "federated_token",
    "challenge",
    "secrets",
    "certificates",
    "keys",
];
/// Every value of the label `status`.
pub const STATUSES: [&str; 9] = [
    "2xx",
    "3xx",
    "4xx",
    "5xx",
    "other",
    "429",
    "timeout",
    "unreachable",
    "not_sent",
];

/// Where the value of a reference came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// This worker had it, fresh.
    Local,
    /// Another worker had fetched it; the request found it in shared data.
    Shared,
    /// The request waited for Azure.
    Fetched,
    /// A value past its ttl.
    Stale,
    /// A failure that was remembered.
    Negative,
    /// A failure that came while the request waited, or a value of another form than the reference's.
    Failed,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Local,
        Self::Shared,
        Self::Fetched,
        Self::Stale,
        Self::Negative,
        Self::Failed,
    ];

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Shared => "shared",
            Self::Fetched => "fetched",
            Self::Stale => "stale",
            Self::Negative => "negative",
            Self::Failed => "failed",
        }
    }
}

/// What of Azure was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// Entra ID's token endpoint.
    Token,
    /// A managed identity's endpoint.
    ManagedIdentity,
    /// The source of a workload identity's token.
    FederatedToken,
    /// The vault, for the tenant that it names.
    Challenge,
    /// A secret in a vault.
    Secrets,
    /// A certificate.
    Certificates,
    /// A key.
    Keys,
}

impl Endpoint {
    /// What a step on the way to a token calls.
    #[must_use]
    pub const fn of_token(identity: &Identity, step: Step) -> Self {
        match (step, &identity.credential) {
            (Step::Challenge, _) => Self::Challenge,
            (Step::Assertion, _) => Self::FederatedToken,
            (Step::Token, Credential::Managed(Managed { .. })) => Self::ManagedIdentity,
            (Step::Token, Credential::App(_)) => Self::Token,
        }
    }

    /// What a call to a vault calls.
    #[must_use]
    pub const fn of_vault(collection: Collection) -> Self {
        match collection {
            Collection::Secrets => Self::Secrets,
            Collection::Certificates => Self::Certificates,
            Collection::Keys => Self::Keys,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::ManagedIdentity => "managed_identity",
            Self::FederatedToken => "federated_token",
            Self::Challenge => "challenge",
            Self::Secrets => "secrets",
            Self::Certificates => "certificates",
            Self::Keys => "keys",
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// An answer of this hundred.
    Class(u16),
    /// 429.
    TooMany,
    /// No answer in time.
    Timeout,
    /// No connection, or a broken one.
    Unreachable,
    /// The gateway did not make the call.
    NotSent,
}

impl Status {
    /// Of an answer.
    #[must_use]
    pub const fn of(answer: &Answer) -> Self {
        match answer {
            Answer::Response(response) if response.status == 429 => Self::TooMany,
            Answer::Response(response) => Self::Class(response.status / 100),
            Answer::Failed(CallFailure::Timeout) => Self::Timeout,
            Answer::Failed(CallFailure::UnknownCluster | CallFailure::NotSent) => Self::NotSent,
            Answer::Failed(CallFailure::Broken | CallFailure::Tls | CallFailure::Dns) => {
                Self::Unreachable
            }
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Class(2) => "2xx",
            Self::Class(3) => "3xx",
            Self::Class(4) => "4xx",
            Self::Class(5) => "5xx",
            Self::Class(_) => "other",
            Self::TooMany => "429",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::NotSent => "not_sent",
        }
    }
}

/// The kinds of identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A client secret.
    ClientSecret,
    /// A client certificate.
    ClientCertificate,
    /// A workload identity.
    WorkloadIdentity,
    /// A managed identity.
    ManagedIdentity,
}

impl Kind {
    /// Of an identity.
    #[must_use]
    pub const fn of(identity: &Identity) -> Self {
        match &identity.credential {
            Credential::Managed(_) => Self::ManagedIdentity,
            Credential::App(app) => match &app.proof {
                Proof::Secret { .. } => Self::ClientSecret,
                Proof::Certificate(_) => Self::ClientCertificate,
                Proof::Federated(_) | Proof::FederatedSource { .. } => Self::WorkloadIdentity,
            },
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecret => "client_secret",
            Self::ClientCertificate => "client_certificate",
            Self::WorkloadIdentity => "workload_identity",
            Self::ManagedIdentity => "managed_identity",
        }
    }
}

/// One time series. Vaults are numbers of the configuration; secrets are numbers of
/// [`Metrics::name_of`]'s list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Series {
    /// References that were looked up.
    References(Source, usize),
    /// Requests that were answered here in place of the upstream.
    Refusals(Reason),
    /// How long requests waited, in milliseconds.
    Delay,
    /// Calls to Azure; those to a vault name it.
    Calls(Endpoint, Status, Option<usize>),
    /// Tokens that Azure gave.
    Tokens(Kind),
    /// Tokens that could not be had.
    TokenFailures(Reason),
    /// Secrets that could not be fetched.
    SecretFailures(Reason, usize),
    /// Seconds to the earliest expiry date of a cached secret.
    SecretExpiry(usize),
    /// Seconds to the end of the token in use that ends first.
    TokenExpiry,
    /// Values in memory.
    CacheEntries,
    /// Their bytes.
    CacheBytes,
    /// Vaults that are not called for a while.
    VaultBackoffs(usize),
    /// Secrets that are not asked for for a while.
    SecretBackoffs(usize),
    /// Tokens that are not asked for for a while.
    TokenBackoffs,
    /// Failures of one secret.
    NamedFailures(usize),
    /// Seconds to the expiry date of one secret.
    NamedExpiry(usize),
}

/// How a series is told to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// As what was added.
    Counter,
    /// As a gauge to which every worker adds its own share.
    Sum,
    /// As a gauge that shows the least that any worker has.
    Least,
    /// Each value by itself.
    Histogram,
}

impl Series {
    /// The metric's name, which is the first part of the series' name.
    #[must_use]
    pub const fn metric(self) -> &'static str {
        match self {
            Self::References(..) => "akv_references_total",
            Self::Refusals(_) => "akv_refusals_total",
            Self::Delay => "akv_request_delay_ms",
            Self::Calls(..) => "akv_azure_calls_total",
            Self::Tokens(_) => "akv_tokens_renewed_total",
            Self::TokenFailures(_) => "akv_token_failures_total",
            Self::SecretFailures(..) => "akv_secret_failures_total",
            Self::SecretExpiry(_) => "akv_secret_expiry_seconds",
            Self::TokenExpiry => "akv_token_expiry_seconds",
            Self::CacheEntries => "akv_cache_entries",
            Self::CacheBytes => "akv_cache_bytes",
            Self::VaultBackoffs(_) | Self::SecretBackoffs(_) | Self::TokenBackoffs => {
                "akv_backoffs"
            }
            Self::NamedFailures(_) => "akv_named_secret_failures_total",
            Self::NamedExpiry(_) => "akv_named_secret_expiry_seconds",
        }
    }

    /// What a gauge shows when there is nothing to show.
    #[must_use]
    pub const fn nothing(self) -> u64 {
        match self.told() {
            Told::Least => NEVER,
            Told::Counter | Told::Sum | Told::Histogram => 0,
        }
    }

    /// How it is told.
    #[must_use]
    pub const fn told(self) -> Told {
        match self {
            Self::References(..)
            | Self::Refusals(_)
            | Self::Calls(..)
            | Self::Tokens(_)
            | Self::TokenFailures(_)
            | Self::SecretFailures(..)
            | Self::NamedFailures(_) => Told::Counter,
            Self::Delay => Told::Histogram,
            Self::SecretExpiry(_) | Self::TokenExpiry | Self::NamedExpiry(_) => Told::Least,
            Self::CacheEntries
            | Self::CacheBytes
            | Self::VaultBackoffs(_)
            | Self::SecretBackoffs(_)
            | Self::TokenBackoffs => Told::Sum,
        }
    }
}

/// How a message counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A request that got all of what the operator sets.
    Served,
    /// Any other message: its own references count.
    Other,
}

/// What one worker counted since somebody took it.
#[derive(Debug, Default)]
pub struct Metrics {
    vaults: Vec<String>,
    /// Secrets that are counted under their own names; none unless the operator asks for them.
    names: Vec<(usize, String)>,
    most_names: usize,
    /// The vault of every reference that the operator sets.
    operators: Vec<usize>,
    /// Requests that got all of what the operator sets.
    served: i64,
    /// Those that moved; a list, which is small, as is its code.
    counters: Vec<(Series, i64)>,
    delays: Vec<Span>,
}

impl Metrics {
    /// Nothing counted.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let vaults = config.vaults.iter().map(|vault| label(&vault.prefix));
        Self {
            vaults: vaults.collect(),
            most_names: if config.metrics.secret_names {
                MOST_NAMES
            } else {
                0
            },
            ..Self::default()
        }
    }

    /// The vaults of the references that the operator sets, each as often as there are references.
    pub fn operator_sets(&mut self, vaults: impl Iterator<Item = usize>) {
        self.operators = vaults.collect();
    }

    /// A message went on or was refused: where the values of its references came from, those of the operator's
    /// headers first (`operators` of them; none where their values were at hand). Counts the message once.
    #[inline]
    pub fn record(&mut self, looked_up: &[(Source, usize)], operators: usize, outcome: Outcome) {
        self.served += i64::from(outcome == Outcome::Served);
        for (n, (source, vault)) in looked_up.iter().enumerate() {
            self.add(Series::References(*source, *vault), 1);
            if n < operators && outcome == Outcome::Served {
                self.add(Series::References(Source::Local, *vault), -1);
            }
        }
    }

    /// One more.
    pub fn count(&mut self, series: Series) {
        self.add(series, 1);
    }

    /// A secret could not be fetched.
    pub fn secret_failed(&mut self, key: &SecretKey, reason: Reason) {
        self.count(Series::SecretFailures(reason, key.vault));
        if let Some(name) = self.name_of(key) {
            self.count(Series::NamedFailures(name));
        }
    }

    #[inline]
    fn add(&mut self, series: Series, by: i64) {
        match self.counters.iter_mut().find(|(known, _)| *known == series) {
            Some((_, n)) => *n += by,
            None => self.counters.push((series, by)),
        }
    }

    /// A request waited this long.
    pub fn delayed(&mut self, by: Span) {
        // More than a worker ends between two looks; a host that never looks must not fill the memory.
        if self.delays.len() < 10_000 {
            self.delays.push(by);
        }
    }

    /// The number of a secret that is counted under its own name already.
    #[must_use]
    pub fn named(&self, key: &SecretKey) -> Option<usize> {
        let same = |(vault, name): &(usize, String)| *vault == key.vault && *name == key.name;
        self.names.iter().position(same)
    }

    /// The number of a secret that is counted under its own name: the first so many that are asked about.
    pub fn name_of(&mut self, key: &SecretKey) -> Option<usize> {
        if self.most_names == 0 {
            return None;
        }
        let same = |(vault, name): &(usize, String)| *vault == key.vault && *name == key.name;
        let known = self.names.iter().position(same);
        if known.is_none() && self.names.len() < self.most_names {
            self.names.push((key.vault, key.name.clone()));
            return Some(self.names.len() - 1);
        }
        known
    }

    /// What was counted, which is then forgotten here. Nothing that is zero.
    pub fn take(&mut self) -> Vec<(Series, u64)> {
        let served = core::mem::take(&mut self.served);
        if served > 0 {
            for vault in self.operators.clone() {
                self.add(Series::References(Source::Local, vault), served);
            }
        }
        let counters = core::mem::take(&mut self.counters);
        let moved = counters.into_iter();
        moved
            .filter_map(|(series, n)| Some((series, u64::try_from(n).ok().filter(|n| *n > 0)?)))
            .collect()
    }

    /// How long requests waited, which is then forgotten here.
    pub fn take_delays(&mut self) -> Vec<Span> {
        core::mem::take(&mut self.delays)
    }

    /// Counters that are shown from the start, so that their first step is seen as one.
    #[must_use]
    pub fn from_the_start(&self) -> Vec<Series> {
        let mut series = vec![Series::Delay];
        for vault in 0..self.vaults.len() {
            for source in Source::ALL {
                series.push(Series::References(source, vault));
            }
        }
        let mut code = 0;
        while let Some(reason) = Reason::from_code(code) {
            series.push(Series::Refusals(reason));
            code += 1;
        }
        series
    }

    /// The series' whole name.
    #[must_use]
    pub fn name(&self, series: Series) -> String {
        let mut name = series.metric().to_owned();
        let mut label = |label: &str, value: &str| {
            for part in [".", label, ".", value] {
                name.push_str(part);
            }
        };
        let named = |at: usize| self.names.get(at);
        let (mut vault, mut secret) = (None, None);
        match series {
            Series::References(source, of) => {
                label("source", source.as_str());
                vault = Some(of);
            }
            Series::Refusals(reason) | Series::TokenFailures(reason) => {
                label("reason", reason.as_str());
            }
            Series::SecretFailures(reason, of) => {
                label("reason", reason.as_str());
                vault = Some(of);
            }
            Series::Calls(endpoint, status, of) => {
                label("endpoint", endpoint.as_str());
                label("status", status.as_str());
                vault = of;
            }
            Series::Tokens(kind) => label("identity", kind.as_str()),
            Series::VaultBackoffs(of) => {
                label("kind", "vaults");
                vault = Some(of);
            }
            Series::SecretBackoffs(of) => {
                label("kind", "secrets");
                vault = Some(of);
            }
            Series::TokenBackoffs => label("kind", "tokens"),
            Series::SecretExpiry(of) => vault = Some(of),
            Series::NamedFailures(at) | Series::NamedExpiry(at) => {
                secret = named(at);
                vault = secret.map(|(vault, _)| *vault);
            }
            Series::Delay | Series::TokenExpiry | Series::CacheEntries | Series::CacheBytes => {}
        }
        if let Some(vault) = vault.and_then(|at| self.vaults.get(at)) {
            label("vault", vault);
        }
        if let Some((_, secret)) = secret {
            label("secret", &self::label(secret));
        }
        name
    }
}

/// A name as a label's value can be: both gateways take names apart at dots, and Prometheus knows no
/// dashes.
fn label(text: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    text.chars().take(LONGEST_LABEL).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(secret_names: bool) -> Metrics {
        Metrics {
            vaults: vec![label("azure"), label("two-b")],
            most_names: if secret_names { 2 } else { 0 },
            ..Metrics::default()
        }
    }

    fn key(vault: usize, name: &str) -> SecretKey {
        SecretKey {
            vault,
            collection: Collection::Secrets,
            name: name.to_owned(),
            version: None,
        }
    }

    #[test]
    fn names_are_made_of_what_prometheus_takes() {
        let mut metrics = metrics(true);
        metrics.secret_failed(&key(1, "db-main"), Reason::Forbidden);
        for (series, name) in [
            (
                Series::References(Source::Stale, 1),
                "akv_references_total.source.stale.vault.two_b",
            ),
            (
                Series::Calls(Endpoint::Secrets, Status::TooMany, Some(0)),
                "akv_azure_calls_total.endpoint.secrets.status.429.vault.azure",
            ),
            (
                Series::Calls(Endpoint::Token, Status::Class(7), None),
                "akv_azure_calls_total.endpoint.token.status.other",
            ),
            (
                Series::NamedFailures(0),
                "akv_named_secret_failures_total.vault.two_b.secret.db_main",
            ),
            (Series::TokenBackoffs, "akv_backoffs.kind.tokens"),
        ] {
            assert_eq!(metrics.name(series), name);
        }
        assert_eq!(label(&"ä".repeat(300)).len(), LONGEST_LABEL);
    }

    #[test]
    fn what_is_at_hand_counts_as_local_and_what_was_looked_up_by_its_source() {
        let mut metrics = metrics(false);
        metrics.operator_sets([0, 0, 1].into_iter());
        metrics.record(&[], 0, Outcome::Served);
        metrics.record(&[(Source::Stale, 1)], 1, Outcome::Served);
        let mut taken = metrics.take();
        taken.sort();
        let expected = [
            (Series::References(Source::Local, 0), 4),
            (Series::References(Source::Local, 1), 1),
            (Series::References(Source::Stale, 1), 1),
        ];
        assert_eq!(taken, expected);
        assert_eq!(metrics.take(), [], "taken");
    }

    #[test]
    fn no_secret_is_named_unasked_and_never_more_than_some() {
        let mut metrics = metrics(false);
        assert_eq!(metrics.name_of(&key(0, "a")), None);
        let mut metrics = self::metrics(true);
        let numbers = ["a", "b", "c", "b"].map(|name| metrics.name_of(&key(0, name)));
        assert_eq!(numbers, [Some(0), Some(1), None, Some(1)]);
        assert_eq!(metrics.name_of(&key(1, "a")), None);
    }
}
