//! Which references from the traffic may be resolved, and in which headers. It decides by names alone:
//! whether the secret exists is somebody else's question.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use std::collections::HashSet;

use crate::body::{self, Kind, LeftAlone};
use crate::quoted::Quoted;

/// A list of patterns in which `*` stands for any run of characters within one part.
#[derive(Clone, Debug, Default)]
pub struct HeaderNames(Vec<String>);

impl HeaderNames {
    /// Patterns are compared with header names without case.
    pub fn new(patterns: impl IntoIterator<Item = String>) -> Self {
        Self(
            patterns
                .into_iter()
                .map(|p| p.to_ascii_lowercase())
                .collect(),
        )
    }

    /// Whether nothing is listed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a header of this name is listed.
    #[must_use]
    pub fn lists(&self, name: &[u8]) -> bool {
        any_matches(&self.0, name, u8::eq_ignore_ascii_case)
    }
}

/// Names of query and form parameters: patterns that are compared with case.
#[derive(Clone, Debug, Default)]
pub struct ParameterNames(Vec<String>);

impl ParameterNames {
    /// A list of these patterns.
    #[must_use]
    pub const fn new(patterns: Vec<String>) -> Self {
        Self(patterns)
    }

    /// Whether nothing is listed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a parameter of this name, decoded, is listed.
    #[must_use]
    pub fn lists(&self, name: &[u8]) -> bool {
        any_matches(&self.0, name, u8::eq)
    }
}

/// Media types of bodies; `application/*+json` is a pattern.
#[derive(Clone, Debug, Default)]
pub struct MediaTypes(Vec<String>);

impl MediaTypes {
    /// A list of these patterns, in lower case.
    #[must_use]
    pub const fn new(patterns: Vec<String>) -> Self {
        Self(patterns)
    }

    /// Whether nothing is listed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The kind of a body with this `content-type`, if it is listed.
    #[must_use]
    pub fn kind(&self, content_type: &[u8]) -> Option<Kind> {
        self.look(content_type).ok()?
    }

    /// The same, with the reason why a body of a listed type is left alone.
    ///
    /// # Errors
    /// That reason.
    pub fn look(&self, content_type: &[u8]) -> Result<Option<Kind>, LeftAlone> {
        let essence = body::essence(content_type);
        if !any_matches(&self.0, essence.as_bytes(), u8::eq) {
            return Ok(None);
        }
        body::media_type(content_type).map(|media_type| Kind::of(&media_type))
    }
}

/// One entry of `allow`: `prefix/name` or `prefix/name/key`, or `*` for everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    vault: String,
    secret: String,
    key: Option<String>,
}

impl Allowed {
    /// Reads a pattern; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self {
                vault: "*".into(),
                secret: "*".into(),
                key: None,
            });
        }
        let mut parts = text.splitn(3, '/');
        let (vault, secret) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let key = parts.next();
        if vault.is_empty() || secret.is_empty() || key.is_some_and(str::is_empty) {
            return Err(format!(
                "must be `*`, `VAULT/NAME` or `VAULT/NAME/KEY` (`*` may stand in each part), not {text}",
                text = Quoted(text)
            ));
        }
        Ok(Self {
            vault: vault.to_owned(),
            secret: secret.to_owned(),
            key: key.map(ToOwned::to_owned),
        })
    }

    /// The prefix of the vault that this pattern is about; it may hold `*`.
    #[must_use]
    pub fn vault(&self) -> &str {
        &self.vault
    }

    fn is_pattern(&self) -> bool {
        let parts = [Some(&self.vault), Some(&self.secret), self.key.as_ref()];
        parts.into_iter().flatten().any(|part| part.contains('*'))
    }

    /// The one secret that this pattern is about, if it has no `*`: vault and name.
    #[must_use]
    pub fn exact(&self) -> Option<(&str, &str)> {
        let one = !self.vault.contains('*') && !self.secret.contains('*');
        one.then_some((&self.vault, &self.secret))
    }

    /// Whether this pattern allows the secret or the key in it. A pattern without a key allows the whole
    /// secret, and so everything in it; a pattern with a key allows that key only, never the whole.
    /// Secrets' names are compared without case, as Key Vault does; vaults and keys are not.
    fn allows(&self, vault: &str, secret: &str, keys: &[String]) -> bool {
        let key_allowed = match (&self.key, keys) {
            (None, _) => true,
            (Some(_), []) => false,
            (Some(pattern), keys) => matches(pattern.as_bytes(), keys.join("/").as_bytes(), u8::eq),
        };
        key_allowed
            && matches(self.vault.as_bytes(), vault.as_bytes(), u8::eq)
            && matches(
                self.secret.as_bytes(),
                secret.as_bytes(),
                u8::eq_ignore_ascii_case,
            )
    }
}

/// The whole `allow` list: nothing that is not listed is ever resolved or fetched.
///
/// Entries without `*` are looked up, so that any number of them costs a reference the same.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// `vault/secret` and `vault/secret/key`, the secret in lower case. Neither vault nor secret holds a slash.
    exact: HashSet<String>,
    /// Vault and name of every secret that is listed without `*` in them, whatever its key.
    listed: Vec<(String, String)>,
    patterns: Vec<Allowed>,
}

impl Policy {
    /// A policy of these patterns; none allows nothing.
    #[must_use]
    pub fn new(allowed: Vec<Allowed>) -> Self {
        let listed = allowed.iter().filter_map(Allowed::exact);
        let listed = listed.map(|(vault, name)| (vault.to_owned(), name.to_owned()));
        let listed = listed.collect();
        let (patterns, exact): (Vec<_>, Vec<_>) =
            allowed.into_iter().partition(Allowed::is_pattern);
        let exact = exact.iter().map(|entry| {
            let key = entry.key.as_deref();
            exact_name(&entry.vault, &entry.secret, key)
        });
        Self {
            exact: exact.collect(),
            listed,
            patterns,
        }
    }

    /// The secrets that are listed exactly: vault and name.
    pub fn exact(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.listed.iter();
        pairs.map(|(vault, name)| (vault.as_str(), name.as_str()))
    }

    /// Whether a reference from the traffic to this secret, or to these keys in it, may be resolved.
    #[must_use]
    pub fn allows(&self, vault: &str, secret: &str, keys: &[String]) -> bool {
        let whole = || self.exact.contains(&exact_name(vault, secret, None));
        let key = || {
            let path = keys.join("/");
            !keys.is_empty() && self.exact.contains(&exact_name(vault, secret, Some(&path)))
        };
        (!self.exact.is_empty() && (whole() || key()))
            || self.patterns.iter().any(|a| a.allows(vault, secret, keys))
    }
}

fn exact_name(vault: &str, secret: &str, key: Option<&str>) -> String {
    let secret = secret.to_ascii_lowercase();
    match key {
        None => format!("{vault}/{secret}"),
        Some(key) => format!("{vault}/{secret}/{key}"),
    }
}

fn any_matches(patterns: &[String], text: &[u8], same: impl Fn(&u8, &u8) -> bool) -> bool {
    let mut patterns = patterns.iter();
    patterns.any(|pattern| matches(pattern.as_bytes(), text, &same))
}

/// Whole-text match with `*` for any run of bytes. Linear in practice: on a mismatch it goes back to the
/// last `*` only, so no pattern makes it explode.
fn matches(pattern: &[u8], text: &[u8], same: impl Fn(&u8, &u8) -> bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p + 1, t));
                p += 1;
            }
            Some(wanted) if same(wanted, byte) => {
                p += 1;
                t += 1;
            }
            _ => match back {
                Some((after_star, from)) => {
                    back = Some((after_star, from + 1));
                    p = after_star;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|&b| b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(patterns: &[&str]) -> Policy {
        Policy::new(
            patterns
                .iter()
                .map(|p| Allowed::parse(p).unwrap())
                .collect(),
        )
    }

    fn keys(path: &str) -> Vec<String> {
        path.split('/')
            .filter(|k| !k.is_empty())
            .map(ToOwned::to_owned)
            .collect()
    }

    #[test]
    fn patterns_match_whole_parts() {
        let policy = policy(&["azure/partner-*", "azure/payments/token"]);
        for (secret, key, allowed) in [
            ("partner-a", "", true),
            ("PARTNER-a", "", true),
            ("partner-a", "password", true),
            ("xpartner-a", "", false),
            ("partner", "", false),
            ("payments", "token", true),
            ("payments", "", false),
            ("payments", "token2", false),
            ("payments", "Token", false),
            ("payments2", "token", false),
        ] {
            assert_eq!(
                policy.allows("azure", secret, &keys(key)),
                allowed,
                "{secret}/{key}"
            );
        }
        assert!(!policy.allows("azure2", "partner-a", &[]));
        assert!(!policy.allows("Azure", "partner-a", &[]));
        assert!(!Policy::default().allows("azure", "a", &[]));
    }

    #[test]
    fn a_star_alone_allows_everything() {
        assert!(policy(&["*"]).allows("any", "thing", &keys("at/all")));
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in ["", "azure", "azure/", "/x", "azure/x/"] {
            assert!(Allowed::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn header_names_are_compared_without_case() {
        let names = HeaderNames::new(["x-upstream-key".into(), "X-Db-*".into()]);
        for (name, listed) in [
            ("X-Upstream-Key", true),
            ("x-db-password", true),
            ("x-db-", true),
            ("x-db", false),
            ("ax-db-p", false),
        ] {
            assert_eq!(names.lists(name.as_bytes()), listed, "{name}");
        }
    }

    #[test]
    fn stars_in_the_middle() {
        let same = u8::eq;
        for (pattern, text, expected) in [
            ("a*b*c", "axxbxxc", true),
            ("a*b*c", "axxbxx", false),
            ("**", "", true),
            ("a*", "a", true),
            ("*a", "bca", true),
            ("*a", "bcab", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes(), same),
                expected,
                "{pattern} {text}"
            );
        }
    }
}
