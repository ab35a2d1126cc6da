//! The labels of the metrics and all of their values. It counts nothing, and does not know which metric has
//! which label.

use crate::azure::forms::Collection;
use crate::azure::http::{Answer, CallFailure};
use crate::azure::identity::{Credential, Identity, Managed, Proof, Step};

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

    pub(super) const fn as_str(self) -> &'static str {
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

    pub(super) const fn as_str(self) -> &'static str {
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

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecret => "client_secret",
            Self::ClientCertificate => "client_certificate",
            Self::WorkloadIdentity => "workload_identity",
            Self::ManagedIdentity => "managed_identity",
        }
    }
}
