//! The `https://host[:port]` that vaults and authorities have. It knows no DNS and makes no connection.

use std::fmt;

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
            format!("must start with https:// (a token is sent there), not {text:?}")
        })?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@']) {
            return Err(format!(
                "must be https://HOST or https://HOST:PORT, not {text:?}"
            ));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(parse_port(port, text)?)),
            None => (authority, None),
        };
        if !is_host(host) {
            return Err(format!("has no valid host name: {text:?}"));
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

fn parse_port(port: &str, text: &str) -> Result<u16, String> {
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(number) if digits && number > 0 => Ok(number),
        _ => Err(format!("has a port that is not from 1 to 65535: {text:?}")),
    }
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
