//! The 401 of a vault: which tenant it belongs to and for which resource it wants a token
//! (`WWW-Authenticate`, RFC 9110, section 11.6.1, as Key Vault fills it in). It sends nothing.

use alloc::borrow::ToOwned;
use alloc::string::String;

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
    /// in place of `resource=`. Anything else is no challenge of a vault.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let (scheme, parameters) = header.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let find = |name: &str| {
            let parameters = parameters.split(',').filter_map(|p| p.split_once('='));
            let mut found = parameters.filter(|(n, _)| n.trim().eq_ignore_ascii_case(name));
            found
                .next()
                .map(|(_, value)| value.trim().trim_matches('"'))
        };
        let authorization = find("authorization").or_else(|| find("authorization_uri"))?;
        let resource = find("resource").or_else(|| find("scope"))?;
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
