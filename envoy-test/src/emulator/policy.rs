//! Who may use which secret. It knows names only: no tokens, no vaults, no values.

use std::collections::{BTreeMap, BTreeSet};

/// Why Key Vault refuses an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No role assignment.
    Rbac,
    /// No access policy.
    Policy,
}

impl Denial {
    /// What stands in `innererror`.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Rbac => "ForbiddenByRbac",
            Self::Policy => "ForbiddenByPolicy",
        }
    }

    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Rbac => "Caller is not authorized to perform action on resource.",
            Self::Policy => {
                "The user, group or application does not have secrets get permission on key vault."
            }
        }
    }
}

/// The rules. Names are kept in lower case, as Key Vault's have none.
#[derive(Default)]
pub(super) struct Access {
    denied: BTreeMap<String, Denial>,
    allowed: BTreeMap<String, BTreeSet<String>>,
}

impl Access {
    pub(super) fn deny(&mut self, secret: &str, denial: Denial) {
        self.denied.insert(secret.to_ascii_lowercase(), denial);
    }

    pub(super) fn allow_only(&mut self, client: &str, secrets: &[&str]) {
        let names = secrets.iter().map(|name| name.to_ascii_lowercase());
        self.allowed.insert(client.to_owned(), names.collect());
    }

    /// Why this client may not use this secret, if so; without rules, everybody may.
    pub(super) fn refuses(&self, client: Option<&str>, secret: &str) -> Option<Denial> {
        let secret = secret.to_ascii_lowercase();
        if let Some(denial) = self.denied.get(&secret) {
            return Some(*denial);
        }
        let allowed = self.allowed.get(client?)?;
        (!allowed.contains(&secret)).then_some(Denial::Policy)
    }
}
