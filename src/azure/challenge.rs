//! The 401 of a vault: which tenant it belongs to and for which resource it wants a token
//! (`WWW-Authenticate`, RFC 9110, section 11.6.1, as Key Vault fills it in). It sends nothing.

use serde::de::IgnoredAny;

use super::json;
use crate::base64;

/// A vault's challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The directory's id or name.
    pub tenant: String,
    /// The host of the resource, `vault.azure.net`.
    pub resource_host: String,
}

impl Challenge {
    /// Reads `Bearer authorization="https://HOST/TENANT", resource="https://vault.azure.net"`, or `scope=`
    /// in place of `resource=`, among other challenges in any order. `header` is all values of
    /// `WWW-Authenticate`, joined by commas. `None` when no Bearer challenge is a vault's.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        bearer(header).find_map(|challenge| Self::of(&challenge))
    }

    fn of(challenge: &Parameters) -> Option<Self> {
        let authorization = challenge
            .get("authorization")
            .or_else(|| challenge.get("authorization_uri"))?;
        let resource = challenge
            .get("resource")
            .or_else(|| challenge.get("scope"))?;
        let tenant = path_of(authorization)?.split('/').next()?;
        let resource_host = host_of(resource)?;
        (is_tenant(tenant) && !resource_host.is_empty()).then(|| Self {
            tenant: tenant.to_owned(),
            resource_host: resource_host.to_ascii_lowercase(),
        })
    }

    /// Whether a token for this resource may go to `vault`: the resource's host has to be a suffix of the
    /// vault's, at a dot. A vault that asks for a token for something else is not what it says it is.
    #[must_use]
    pub fn fits(&self, vault: &str) -> bool {
        is_within(vault, &self.resource_host)
    }
}

/// The `claims` of a challenge for continuous access evaluation, decoded: JSON that the next token request
/// passes on (<https://learn.microsoft.com/entra/identity-platform/claims-challenge>). What is not base64
/// of a JSON object is left out.
#[must_use]
pub fn claims(header: &str) -> Option<String> {
    let written =
        bearer(header).find_map(|challenge| challenge.get("claims").map(ToOwned::to_owned))?;
    let decoded = base64::decode(written.as_bytes())?;
    let is_object = decoded.trim_ascii_start().starts_with(b"{");
    json::read::<IgnoredAny>(&decoded)
        .ok()
        .filter(|_| is_object)?;
    String::from_utf8(decoded).ok()
}

/// One challenge's parameters, as they were written, names in lower case.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The Bearer challenges of a list of challenges (RFC 9110, section 11.6.1): a comma ends a parameter, and
/// also a challenge when a scheme follows it.
fn bearer(header: &str) -> impl Iterator<Item = Parameters> {
    let mut challenges: Vec<(bool, Parameters)> = Vec::new();
    let mut rest = header;
    while let Some(item) = next_item(&mut rest) {
        let (scheme, parameter) = split_scheme(item);
        if let Some(scheme) = scheme {
            let is_bearer = scheme.eq_ignore_ascii_case("bearer");
            challenges.push((is_bearer, Parameters(Vec::new())));
        }
        if let (Some((_, Parameters(all))), Some((name, value))) =
            (challenges.last_mut(), parameter.split_once('='))
        {
            all.push((name.trim().to_ascii_lowercase(), unquoted(value.trim())));
        }
    }
    challenges
        .into_iter()
        .filter_map(|(is_bearer, p)| is_bearer.then_some(p))
}

/// What is before the next comma outside of quotes; `None` at the end.
fn next_item<'a>(rest: &mut &'a str) -> Option<&'a str> {
    if rest.is_empty() {
        return None;
    }
    let (mut quoted, mut escaped) = (false, false);
    let end = rest.find(|c| match c {
        _ if escaped => {
            escaped = false;
            false
        }
        '\\' if quoted => {
            escaped = true;
            false
        }
        '"' => {
            quoted = !quoted;
            false
        }
        ',' => !quoted,
        _ => false,
    });
    let (item, left) = rest.split_at(end.unwrap_or(rest.len()));
    *rest = left.strip_prefix(',').unwrap_or(left);
    Some(item.trim())
}

/// `Bearer realm=""` begins a challenge, `realm=""` and `realm = ""` do not.
fn split_scheme(item: &str) -> (Option<&str>, &str) {
    let end = item.find([' ', '\t', '=']).unwrap_or(item.len());
    let (word, rest) = item.split_at(end);
    let rest = rest.trim_start();
    if rest.starts_with('=') || word.is_empty() {
        (None, item)
    } else {
        (Some(word), rest)
    }
}

/// A quoted string's content, with its escapes undone (RFC 9110, section 5.6.4); a token as it is.
fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

/// Whether `host` is `suffix`, or a name below it.
#[must_use]
pub fn is_within(host: &str, suffix: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.strip_suffix(suffix)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// It becomes part of a path, which WasmX sends as it is.
#[must_use]
pub fn is_tenant(tenant: &str) -> bool {
    !tenant.is_empty()
        && tenant.len() <= 253
        && tenant
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

fn path_of(url: &str) -> Option<&str> {
    Some(url.strip_prefix("https://")?.split_once('/')?.1)
}

fn host_of(url: &str) -> Option<&str> {
    url.strip_prefix("https://")?
        .split(['/', ':', '?', '#'])
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_and_resource() {
        for header in [
            r#"Bearer authorization="https://login.windows.net/72f988bf-86f1-41af-91ab-2d7cd011db47", resource="https://vault.azure.net""#,
            r#"bearer authorization="https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47", scope="https://vault.azure.net/.default""#,
            r#"Bearer resource="https://VAULT.azure.net", authorization_uri="https://x/72f988bf-86f1-41af-91ab-2d7cd011db47/oauth2""#,
        ] {
            let challenge = Challenge::parse(header).unwrap();
            assert_eq!(challenge.tenant, "72f988bf-86f1-41af-91ab-2d7cd011db47");
            assert_eq!(challenge.resource_host, "vault.azure.net");
        }
    }

    #[test]
    fn what_is_no_challenge() {
        for header in [
            "",
            "Bearer",
            "Basic realm=\"x\"",
            r#"Bearer authorization="https://login.windows.net/t""#,
            r#"Bearer authorization="http://login.windows.net/t", resource="https://vault.azure.net""#,
            r#"Bearer authorization="https://login.windows.net", resource="https://vault.azure.net""#,
            r#"Bearer authorization="https://login.windows.net/a?b", resource="https://vault.azure.net""#,
            r#"Bearer authorization="https://login.windows.net/t", resource="vault.azure.net""#,
            "Bearer authorization=\"https://login.windows.net/t\r\nx\", resource=\"https://vault.azure.net\"",
        ] {
            assert_eq!(Challenge::parse(header), None, "{header}");
        }
    }

    #[test]
    fn several_challenges_in_any_order() {
        const BEARER: &str = r#"Bearer authorization="https://login.windows.net/t", resource="https://vault.azure.net""#;
        for header in [
            format!(
                r#"PoP authorization="https://login.windows.net/wrong", resource="https://x.test", {BEARER}"#
            ),
            format!(
                r#"{BEARER}, PoP authorization="https://login.windows.net/wrong", resource="https://x.test""#
            ),
            format!(r#"Negotiate, Basic realm="a, Bearer b=\"c\"", {BEARER}"#),
            format!("Negotiate YII=, {BEARER}"),
            format!(r#"Bearer realm="proxy", {BEARER}"#),
            format!(" , ,{BEARER},"),
            BEARER.replace('=', " = "),
        ] {
            let challenge = Challenge::parse(&header).map(|c| (c.tenant, c.resource_host));
            assert_eq!(
                challenge,
                Some(("t".to_owned(), "vault.azure.net".to_owned())),
                "{header}"
            );
        }
        for header in [
            r#"PoP authorization="https://login.windows.net/t", resource="https://vault.azure.net""#,
            r#"Basic realm="Bearer authorization=https://login.windows.net/t, resource=https://vault.azure.net""#,
        ] {
            assert_eq!(Challenge::parse(header), None, "{header}");
        }
    }

    #[test]
    fn claims_are_decoded() {
        let json = r#"{"access_token":{"nbf":{"essential":true,"value":"1726077595"}}}"#;
        let encoded = base64::encode(json.as_bytes());
        let header = format!(
            r#"PoP x="y", Bearer realm="", error="insufficient_claims", claims="{encoded}", authorization="https://login.windows.net/t", resource="https://vault.azure.net""#
        );
        assert_eq!(claims(&header).as_deref(), Some(json));
        assert!(Challenge::parse(&header).is_some());
        for claim in ["", "!!", "AAAA", "WzFd", "Im5vIG9iamVjdCI="] {
            assert_eq!(
                claims(&format!(r#"Bearer claims="{claim}""#)),
                None,
                "{claim}"
            );
        }
        assert_eq!(claims(&format!(r#"PoP claims="{encoded}""#)), None);
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(header in "(Bearer |PoP )?[a-zA-Z0-9=\",\\\\ é/:]{0,80}") {
            let _ = (Challenge::parse(&header), claims(&header));
        }
    }

    #[test]
    fn a_vault_gets_tokens_for_its_own_suffix_only() {
        let challenge = |host: &str| Challenge {
            tenant: "t".into(),
            resource_host: host.into(),
        };
        assert!(challenge("vault.azure.net").fits("my.vault.azure.net"));
        assert!(challenge("vault.azure.net").fits("my.vault.azure.net."));
        assert!(!challenge("vault.azure.net").fits("myvault.azure.net"));
        assert!(!challenge("vault.azure.net").fits("my.vault.azure.net.evil.test"));
        assert!(!challenge("management.azure.com").fits("my.vault.azure.net"));
    }
}
