//! The `https://host[:port]` that vaults and authorities have. It knows no DNS and makes no connection.

use core::fmt;
use std::net::Ipv6Addr;

use crate::azure::cloud;
use crate::azure::http::Scheme;
use crate::quoted::Quoted;

/// A parsed `https` URI without path, query or user (RFC 3986, the part of it that Azure's endpoints use).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsUri {
    host: String,
    port: Option<u16>,
}

impl HttpsUri {
    /// Reads a URI; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("https://").ok_or_else(|| {
            format!(
                "must start with https:// (a token is sent there), not {text}",
                text = Quoted(text)
            )
        })?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@']) {
            return Err(format!(
                "must be https://HOST or https://HOST:PORT, not {text}",
                text = Quoted(text)
            ));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(parse_port(port, text)?)),
            None => (authority, None),
        };
        if !is_host(host) {
            return Err(format!(
                "has no valid host name: {text}",
                text = Quoted(text)
            ));
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// The host's name in lower case.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `host` or `host:port`, for the `:authority` of a request.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// `host:port` with the port always there: what WasmX wants as an upstream.
    #[must_use]
    pub fn upstream(&self) -> String {
        format!("{}:{}", self.host, self.port.unwrap_or(443))
    }
}

impl fmt::Display for HttpsUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

/// An `http` or `https` URL without user, query and fragment: where managed identities and federated
/// tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    scheme: Scheme,
    authority: String,
    path: String,
}

impl HttpUrl {
    /// Reads a URL without a query; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Self::parse_with_query(text)?;
        if url.path.contains('?') {
            return Err(format!(
                "must have a plain path without a query: {text}",
                text = Quoted(text)
            ));
        }
        Ok(url)
    }

    /// Reads a URL that may have a query, which is sent as it is written.
    pub fn parse_with_query(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (Scheme::Https, rest),
            (_, Some(rest)) => (Scheme::Http, rest),
            _ => {
                return Err(format!(
                    "must start with http:// or https://, not {text}",
                    text = Quoted(text)
                ));
            }
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        // The colons of an IPv6 literal are in brackets (RFC 3986, section 3.2.2).
        let with_port = authority
            .rsplit_once(':')
            .filter(|(_, port)| !port.contains(']'));
        let (host, port) = match with_port {
            Some((host, port)) => (host, Some(parse_port(port, text)?)),
            None => (authority, None),
        };
        if !is_host(host) && !is_ipv6_literal(host) {
            return Err(format!(
                "has no valid host name: {text}",
                text = Quoted(text)
            ));
        }
        // WasmX sends the path as it is.
        let plain = |b: u8| b.is_ascii_graphic() && !b"#\\\"<>".contains(&b);
        if !path.bytes().all(plain) {
            return Err(format!(
                "must have a plain path, without a fragment: {text}",
                text = Quoted(text)
            ));
        }
        let host = host.to_ascii_lowercase();
        Ok(Self {
            scheme,
            authority: port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")),
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
        })
    }

    /// With or without TLS.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// `host` or `host:port`.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Begins with a slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `host:port` with the port always there.
    #[must_use]
    pub fn upstream(&self) -> String {
        let port = self.authority.rsplit(']').next().unwrap_or_default();
        match (port.contains(':'), self.scheme) {
            (true, _) => self.authority.clone(),
            (false, Scheme::Http) => format!("{}:80", self.authority),
            (false, Scheme::Https) => format!("{}:443", self.authority),
        }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}{}",
            self.scheme.as_str(),
            self.authority,
            self.path
        )
    }
}

/// `; did you mean https://NAME.vault.azure.net?` for what is often written in place of a vault's URI: a
/// private link's name (`privatelink.vaultcore`), `vault.azure.com` (in Kong's documentation), `http`, the
/// URI of one of its secrets, the name alone. Empty when no vault of Azure's is recognized, or the text is
/// one's URI.
pub(super) fn did_you_mean(text: &str) -> String {
    let lower = text.trim().to_ascii_lowercase();
    let rest = lower
        .split_once("://")
        .map_or(lower.as_str(), |(_, rest)| rest);
    let host = rest.split(['/', '?', '#', ':']).next().unwrap_or_default();
    let (name, domain) = host.split_once('.').unwrap_or((host, "vault.azure.net"));
    let domain = domain.strip_prefix("privatelink.").unwrap_or(domain);
    let domain = domain
        .replace("vaultcore.", "vault.")
        .replace("azure.com", "azure.net");
    let meant = format!("{name}.{domain}");
    let is_vaults = cloud::of_vault(&meant).is_some_and(|(_, suffix)| suffix == domain);
    let own = format!("https://{meant}");
    if is_vaults && is_host(&meant) && text.trim_end_matches('/') != own {
        format!("; did you mean {own}?")
    } else {
        String::new()
    }
}

fn parse_port(port: &str, text: &str) -> Result<u16, String> {
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(number) if digits && number > 0 => Ok(number),
        _ => Err(format!(
            "has a port that is not from 1 to 65535: {text}",
            text = Quoted(text)
        )),
    }
}

/// `[::1]` (RFC 3986, section 3.2.2), without a zone.
fn is_ipv6_literal(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
}

/// Letters, digits, dots and dashes: WasmX sends `:authority` as it is, so nothing else may get there.
fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 253
        && !host.starts_with('.')
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_host_and_port() {
        let uri = HttpsUri::parse("https://My-Vault.vault.azure.net/").unwrap();
        assert_eq!(uri.authority(), "my-vault.vault.azure.net");
        assert_eq!(uri.upstream(), "my-vault.vault.azure.net:443");
        assert_eq!(
            HttpsUri::parse("https://localhost:8443")
                .unwrap()
                .authority(),
            "localhost:8443"
        );
    }

    #[test]
    fn urls_with_and_without_tls() {
        let url =
            |text| HttpUrl::parse(text).map(|u| (u.scheme(), u.upstream(), u.path().to_owned()));
        let http = Scheme::Http;
        assert_eq!(
            url("http://169.254.169.254/metadata/x"),
            Ok((http, "169.254.169.254:80".into(), "/metadata/x".into()))
        );
        assert_eq!(
            url("http://Localhost:42356"),
            Ok((http, "localhost:42356".into(), "/".into()))
        );
        assert_eq!(
            url("https://tokens.svc/a"),
            Ok((Scheme::Https, "tokens.svc:443".into(), "/a".into()))
        );
        for bad in [
            "ftp://x",
            "http://",
            "http://a b/",
            "http://a/b?c",
            "http://a/\r\nx: y",
            "http://u@h/",
            "http://h:0/",
        ] {
            assert!(HttpUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_with_a_query_and_ipv6() {
        let url = |text| {
            let url = HttpUrl::parse_with_query(text)?;
            Ok::<_, String>((
                url.authority().to_owned(),
                url.upstream(),
                url.path().to_owned(),
            ))
        };
        for (text, authority, upstream, path) in [
            ("http://[::1]:8181/t", "[::1]:8181", "[::1]:8181", "/t"),
            (
                "http://[fd00::1]/t?a=b",
                "[fd00::1]",
                "[fd00::1]:80",
                "/t?a=b",
            ),
            (
                "https://h?audience=api://x",
                "h",
                "h:443",
                "/?audience=api://x",
            ),
            ("http://h:80/a?b=c&d", "h:80", "h:80", "/a?b=c&d"),
        ] {
            let expected = (authority.into(), upstream.into(), path.into());
            assert_eq!(url(text), Ok(expected), "{text}");
        }
        for bad in [
            "http://[::1",
            "http://::1/",
            "http://[::g]/",
            "http://[::1]x/",
            "http://[::1]:0/",
            "http://h/a#b",
            "http://h/a?b c",
        ] {
            assert!(HttpUrl::parse_with_query(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refuses_what_could_send_a_token_astray() {
        for bad in [
            "http://v.vault.azure.net",
            "v.vault.azure.net",
            "https://",
            "https://u@v.net",
            "https://v.net/path",
            "https://v.net?x",
            "https://v.net:0",
            "https://v.net:65536",
            "https://v.net:+1",
            "https://v net",
            "https://v.net\r\nx: y",
            "https://.net",
        ] {
            assert!(HttpsUri::parse(bad).is_err(), "{bad}");
        }
    }
}
