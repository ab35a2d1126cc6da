//! Every way in which a secret can fail to arrive: one class for clients and counters, one line for the
//! log. Neither ever holds a value.

use alloc::string::String;

use crate::time::Span;

/// Why there is no value, in the words that clients and metrics see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The vault has no such secret or version.
    NotFound,
    /// The identity may not read this secret.
    Forbidden,
    /// The secret is disabled.
    Disabled,
    /// The secret's `exp` has passed.
    Expired,
    /// The secret's `nbf` has not come.
    NotYetValid,
    /// Azure does not accept our credentials.
    Credentials,
    /// Azure asked us to slow down.
    Throttled,
    /// Azure answered with a fault of its own, or not at all.
    Unavailable,
    /// Azure did not answer in time.
    Timeout,
    /// Azure's answer could not be understood.
    BadAnswer,
    /// The gateway has no such cluster, or the call could not be made.
    Gateway,
    /// The secret is not a JSON object, or has no such key, or no text there.
    NoSuchKey,
    /// The secret is not base64.
    NotBase64,
    /// The value cannot be written where it was to go.
    NotRepresentable,
    /// The reference itself cannot be read.
    BadReference,
    /// The client sent this header more than once, and this host cannot replace it safely.
    RepeatedHeader,
    /// The filter was built without PKCS#12.
    NeedsPkcs12,
    /// Requests cause more fetches than they may.
    TooManyFetches,
    /// The body is longer than `max_body_bytes`, or than what the host keeps in memory.
    BodyTooLarge,
    /// The value came too late to be put there; it is there for the next request.
    NotReady,
    /// The worker holds as much for waiting messages as it may.
    Overloaded,
    /// The message holds more references than `limits.references`.
    TooManyReferences,
}

impl Reason {
    /// The word for clients, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Forbidden => "forbidden",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Credentials => "credentials",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::BadAnswer => "bad_answer",
            Self::Gateway => "gateway",
            Self::NoSuchKey => "no_such_key",
            Self::NotBase64 => "not_base64",
            Self::NotRepresentable => "not_representable",
            Self::BadReference => "bad_reference",
            Self::RepeatedHeader => "repeated_header",
            Self::NeedsPkcs12 => "needs_pkcs12",
            Self::TooManyFetches => "too_many_fetches",
            Self::BodyTooLarge => "body_too_large",
            Self::NotReady => "not_ready",
            Self::Overloaded => "overloaded",
            Self::TooManyReferences => "too_many_references",
        }
    }

    /// Whether the vault said that the secret is gone or not for this identity, rather than that something
    /// failed: what `revoked_ttl` is for.
    #[must_use]
    pub const fn is_definite(self) -> bool {
        matches!(self, Self::NotFound | Self::Forbidden | Self::Disabled)
    }

    /// The number by which shared data carries this reason; never changes its meaning.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        const ALL: [Reason; 22] = [
            Reason::NotFound,
            Reason::Forbidden,
            Reason::Disabled,
            Reason::Expired,
            Reason::NotYetValid,
            Reason::Credentials,
            Reason::Throttled,
            Reason::Unavailable,
            Reason::Timeout,
            Reason::BadAnswer,
            Reason::Gateway,
            Reason::NoSuchKey,
            Reason::NotBase64,
            Reason::NotRepresentable,
            Reason::BadReference,
            Reason::RepeatedHeader,
            Reason::NeedsPkcs12,
            Reason::TooManyFetches,
            Reason::BodyTooLarge,
            Reason::NotReady,
            Reason::Overloaded,
            Reason::TooManyReferences,
        ];
        ALL.get(usize::from(code)).copied()
    }
}

/// A failure with what a person needs to act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The class.
    pub reason: Reason,
    /// For the log: Azure's codes and what to do; no value, token or client secret.
    pub detail: String,
    /// How long Azure asked us to wait.
    pub retry_after: Option<Span>,
    /// Whether every call to that vault has to wait, not only this one.
    pub holds_vault: bool,
    /// Azure's id of the call, for its support; only if it looks like one.
    pub request_id: Option<String>,
}

impl Failure {
    /// A failure without a time to wait.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            retry_after: None,
            holds_vault: false,
            request_id: None,
        }
    }

    /// Azure's id of the call; empty for none.
    #[must_use]
    pub fn request_id(&self) -> &str {
        self.request_id.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lead_back_to_their_reasons() {
        for code in 0..22 {
            assert_eq!(Reason::from_code(code).map(Reason::code), Some(code));
        }
        assert_eq!(Reason::from_code(22), None);
    }
}
