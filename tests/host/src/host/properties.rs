//! Properties, as far as filters of this kind ask for them.

use super::{BAD_ARGUMENT, Host, Ill, NOT_FOUND, Reply};
use crate::settings::Front;

impl Host {
    /// WasmX: any property of a root context takes the worker down.
    pub(crate) fn property(&mut self, path: &[u8]) -> Reply<Vec<u8>> {
        if !self.is_envoy() && self.in_root() {
            return Err(Ill::Crash("get_property in a root context".to_owned()));
        }
        let path = String::from_utf8_lossy(path).replace('\0', ".");
        let envoy = self.is_envoy();
        let found = match (path.as_str(), envoy) {
            ("plugin_name", _) => Some(b"filter".to_vec()),
            ("plugin_root_id", true) => Some(b"filter".to_vec()),
            ("plugin_root_id", false) => Some(b"0".to_vec()),
            ("plugin_vm_id", true) => Some(b"vm".to_vec()),
            ("source.address", _) => Some(b"192.0.2.7:1234".to_vec()),
            (path, false) if path.starts_with("ngx.") => self.nginx_variable(path)?,
            ("request.path", _) => {
                let (stream, _) = self.stream()?;
                Some(stream.headers.get(":path").unwrap_or_default().to_vec())
            }
            ("request.query", _) => {
                let (stream, _) = self.stream()?;
                let path = stream.headers.get(":path").unwrap_or_default().to_vec();
                let mut parts = path.splitn(2, |b| *b == b'?');
                let own = parts.nth(1).unwrap_or_default().to_vec();
                Some(stream.query.clone().unwrap_or(own))
            }
            ("request.total_size", true) => Some(self.total_size()?),
            (path, true) => {
                let (stream, _) = self.stream()?;
                stream.properties.get(path).cloned()
            }
            _ => None,
        };
        found.ok_or(Ill::Status(NOT_FOUND))
    }

    /// Headers, and what has come of the body; its bytes are counted before the filters see them, but not
    /// before the headers' callback.
    fn total_size(&mut self) -> Reply<Vec<u8>> {
        let at_headers = self.here.callback == "proxy_on_request_headers";
        let (stream, _) = self.stream()?;
        let pairs = stream.headers.iter();
        let head: usize = pairs.map(|(name, value)| name.len() + value.len()).sum();
        let body = if at_headers { 0 } else { stream.received };
        Ok(((head + body) as u64).to_le_bytes().to_vec())
    }

    /// Envoy's `declare_property` for a property that lives as long as the downstream request. WasmX traps.
    pub(crate) fn foreign_function(&mut self, name: &[u8], arguments: &[u8]) -> Reply {
        if !self.is_envoy() {
            return Err(Ill::Trap("call_foreign_function".to_owned()));
        }
        if name != b"declare_property" {
            return Err(Ill::Status(NOT_FOUND));
        }
        let property = match arguments {
            [0x0a, length, rest @ ..] => rest.split_at_checked(usize::from(*length)),
            _ => None,
        };
        let Some((property, [0x28, 1])) = property else {
            return Err(Ill::Status(BAD_ARGUMENT));
        };
        self.declared
            .insert(String::from_utf8_lossy(property).into_owned());
        Ok(())
    }

    /// wasmx.md, last section: what tells requests apart, and what does not.
    fn nginx_variable(&mut self, path: &str) -> Reply<Option<Vec<u8>>> {
        let kong = self.settings.front == Front::Kong;
        let any = self.random.u128(..);
        let (stream, _) = self.stream()?;
        Ok(match path {
            "ngx.pid" => Some(b"4711".to_vec()),
            "ngx.connection" => Some(stream.connection.to_string().into_bytes()),
            "ngx.connection_requests" => Some(stream.nth.to_string().into_bytes()),
            "ngx.kong_request_id" if kong => {
                Some(format!("4f1d7e0a9c5b4c0f8d3e2a1b{:08x}", stream.number).into_bytes())
            }
            // Another one each time that it is read.
            "ngx.request_id" => Some(format!("{any:032x}").into_bytes()),
            "ngx.upstream_uri" if kong => {
                let original = stream.wire.get(":path").unwrap_or_default().to_vec();
                Some(stream.upstream_uri.clone().unwrap_or(original))
            }
            _ => None,
        })
    }

    /// What reaches the upstream under Kong is `ngx.upstream_uri` only.
    pub(crate) fn set_property(&mut self, path: &[u8], value: &[u8]) -> Reply {
        let path = String::from_utf8_lossy(path).replace('\0', ".");
        if self.is_envoy() {
            // No effect on the request itself.
            let declared = self.declared.contains(&path);
            let (stream, _) = self.stream()?;
            if declared {
                stream.properties.insert(path, value.to_vec());
            }
            return Ok(());
        }
        let kong = self.settings.front == Front::Kong;
        let (stream, _) = self.stream()?;
        match path.as_str() {
            "request.query" => stream.query = Some(value.to_vec()),
            "ngx.upstream_uri" if kong => stream.upstream_uri = Some(value.to_vec()),
            _ => return Err(Ill::Status(BAD_ARGUMENT)),
        }
        Ok(())
    }
}
