//! The time series: to which metric each belongs, how it is exported, and its name. It counts nothing.
//!
//! A series is named `METRIC.LABEL.VALUE.LABEL.VALUE`, in letters, digits and underscores: a name that
//! is one in Prometheus too where nobody takes the labels out of it.

use alloc::borrow::ToOwned;
use alloc::string::String;

use super::counting::Metrics;
use super::labels::{Endpoint, Kind, Source, Status};
use crate::failure::Reason;

/// Stands for "nothing that ends" where seconds are told: some three years.
pub const NEVER: u64 = 100_000_000;
/// A longer label is cut: WasmX kills the worker for a name of more than 256 bytes.
pub(super) const LONGEST_LABEL: usize = 64;

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

impl Metrics {
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
pub(super) fn label(text: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    text.chars().take(LONGEST_LABEL).map(plain).collect()
}
