//! Header maps, trailers and bodies: what a filter reads, and what becomes of what it writes.

use super::{BAD_ARGUMENT, Dialect, Host, Ill, NOT_FOUND, Reply, trap};
use crate::headers::Headers;
use crate::stream::{Phase, Stream, Way};

/// `proxy_map_type_t`
const REQUEST_HEADERS: u32 = 0;
const REQUEST_TRAILERS: u32 = 1;
const RESPONSE_HEADERS: u32 = 2;
const RESPONSE_TRAILERS: u32 = 3;
const CALL_HEADERS: u32 = 6;

/// `proxy_buffer_type_t`
const REQUEST_BODY: u32 = 0;
const RESPONSE_BODY: u32 = 1;
const CALL_BODY: u32 = 4;
const VM_CONFIGURATION: u32 = 6;
const PLUGIN_CONFIGURATION: u32 = 7;

impl Host {
    pub(crate) fn headers(&mut self, map: u32) -> Reply<Headers> {
        let envoy = self.is_envoy();
        match map {
            REQUEST_HEADERS => Ok(self.stream()?.0.headers.clone()),
            RESPONSE_HEADERS => {
                let (stream, hop) = self.stream()?;
                let begun = if envoy {
                    stream.hops[hop].response.begun
                } else {
                    stream.response_begun
                };
                if !begun {
                    return Err(Ill::Status(BAD_ARGUMENT));
                }
                Ok(stream.response_headers.clone())
            }
            REQUEST_TRAILERS | RESPONSE_TRAILERS if !envoy => {
                trap("trailers: host function not yet implemented")
            }
            REQUEST_TRAILERS | RESPONSE_TRAILERS => {
                let (stream, hop) = self.stream()?;
                let way = way_of(map == REQUEST_TRAILERS);
                if !stream.hops[hop].side(way).trailers {
                    return Err(Ill::Status(BAD_ARGUMENT));
                }
                Ok(if way == Way::Request {
                    stream.trailers.clone()
                } else {
                    stream.response_trailers.clone()
                })
            }
            CALL_HEADERS => {
                let shown = self.here.shown.as_ref();
                shown
                    .map(|s| s.headers.clone())
                    .ok_or(Ill::Status(BAD_ARGUMENT))
            }
            _ => Err(Ill::Status(BAD_ARGUMENT)),
        }
    }

    /// `change` gets what the filter sees and what goes over the wire.
    fn change(
        &mut self,
        map: u32,
        change: impl FnOnce(Dialect, &mut Headers, &mut Headers),
    ) -> Reply {
        let dialect = self.settings.dialect;
        let (stream, hop) = self.stream()?;
        let refused = Err(Ill::Status(BAD_ARGUMENT));
        if dialect == Dialect::Wasmx {
            return change_in_nginx(stream, map, change);
        }
        let way = way_of(map <= REQUEST_TRAILERS);
        let side = stream.hops[hop].side(way);
        let trailers = map == REQUEST_TRAILERS || map == RESPONSE_TRAILERS;
        // Changes reach no one once the headers are on their way, and are refused with this status.
        let open = match (trailers, map) {
            (true, _) => side.trailers,
            (false, REQUEST_HEADERS | RESPONSE_HEADERS) => {
                side.begun && !side.headers_gone && !side.resume
            }
            _ => false,
        };
        if !open {
            return refused;
        }
        let (view, wire) = match map {
            REQUEST_HEADERS => (&mut stream.headers, &mut stream.wire),
            REQUEST_TRAILERS => (&mut stream.trailers, &mut Headers::default()),
            RESPONSE_HEADERS => (&mut stream.response_headers, &mut Headers::default()),
            _ => (&mut stream.response_trailers, &mut Headers::default()),
        };
        change(Dialect::Envoy, view, wire);
        Ok(())
    }

    /// Envoy answers 503 to a value with control bytes; WasmX percent-encodes them.
    fn value(&mut self, call: &'static str, name: &str, value: &[u8]) -> Vec<u8> {
        let bad = |b: &u8| *b < 0x20 && *b != b'\t' || *b == 0x7f;
        if !value.iter().any(bad) {
            return value.to_vec();
        }
        self.violation(call, format!("a control byte in the header {name}"));
        let mut out = Vec::new();
        for byte in value {
            if bad(byte) {
                out.extend(format!("%{byte:02X}").bytes());
            } else {
                out.push(*byte);
            }
        }
        out
    }

    pub(crate) fn replace_header(&mut self, map: u32, name: &str, value: &[u8]) -> Reply {
        const CALL: &str = "proxy_replace_header_map_value";
        let value = self.tampered(value);
        let value = self.value(CALL, name, &value);
        let nginx = map == REQUEST_HEADERS && !self.is_envoy();
        let twice = nginx && self.stream()?.0.headers.all(name).len() > 1;
        if twice {
            let what = format!("the client's further {name} go to the upstream beside ours");
            self.violation(CALL, what);
        }
        if nginx && name == ":authority" {
            self.violation(CALL, ":authority is read-only");
            return Ok(());
        }
        self.change(map, |dialect, view, wire| {
            if twice {
                // wasmx.md, 0.5: the filter's own view shows none of them.
                view.remove(name);
            } else {
                view.set(name, &value);
            }
            match dialect {
                Dialect::Envoy => wire.set(name, &value),
                // `:path` changes nginx's $uri only, which Kong's proxy_pass does not use.
                Dialect::Wasmx if name == ":path" => {}
                Dialect::Wasmx => {
                    if wire.set_first(name, &value).is_none() {
                        wire.push(name, &value);
                    }
                }
            }
        })
    }

    pub(crate) fn add_header(&mut self, map: u32, name: &str, value: &[u8]) -> Reply {
        let value = self.value("proxy_add_header_map_value", name, value);
        self.change(map, |_, view, wire| {
            view.push(name, &value);
            wire.push(name, &value);
        })
    }

    /// WasmX: a removed request header is gone for the filter only.
    pub(crate) fn remove_header(&mut self, map: u32, name: &str) -> Reply {
        let nginx = map == REQUEST_HEADERS && !self.is_envoy();
        if nginx && self.stream()?.0.wire.get(name).is_some() {
            let what = format!("{name} reaches the upstream all the same");
            self.violation("proxy_remove_header_map_value", what);
        }
        self.change(map, |dialect, view, wire| {
            view.remove(name);
            if dialect == Dialect::Envoy {
                wire.remove(name);
            }
        })
    }

    pub(crate) fn buffer(&mut self, buffer: u32) -> Reply<Vec<u8>> {
        let none = || Err(Ill::Status(NOT_FOUND));
        match buffer {
            REQUEST_BODY | RESPONSE_BODY => {
                let envoy = self.is_envoy();
                let (stream, hop) = self.stream()?;
                if buffer == REQUEST_BODY && !envoy && stream.body_in_file {
                    return none();
                }
                let cut = stream.replaced_by.is_some_and(|by| by < hop);
                let side = stream.hops[hop].side(way_of(buffer == REQUEST_BODY));
                let Some(bytes) = &side.buffer else {
                    return none();
                };
                let mut bytes = bytes.clone();
                if buffer == REQUEST_BODY && cut {
                    bytes.truncate(bytes.len() / 2);
                }
                Ok(bytes)
            }
            CALL_BODY => {
                let Some(shown) = &self.here.shown else {
                    return none();
                };
                if shown.body.len() < shown.announced {
                    return Err(Ill::Status(BAD_ARGUMENT));
                }
                Ok(shown.body.clone())
            }
            VM_CONFIGURATION => Ok(Vec::new()),
            PLUGIN_CONFIGURATION => Ok(self.configuration(self.here.root)),
            _ => none(),
        }
    }

    pub(crate) fn set_buffer(
        &mut self,
        buffer: u32,
        start: usize,
        size: usize,
        new: &[u8],
    ) -> Reply {
        let way = match buffer {
            REQUEST_BODY => Way::Request,
            RESPONSE_BODY => Way::Response,
            _ => return Err(Ill::Status(BAD_ARGUMENT)),
        };
        if !self.is_envoy() {
            return self.set_buffer_in_nginx(way, start, size, new);
        }
        let (stream, hop) = self.stream()?;
        let Some(bytes) = stream.hops[hop].side(way).buffer.as_mut() else {
            return Err(Ill::Status(NOT_FOUND));
        };
        let end = start.saturating_add(size).min(bytes.len());
        let start = start.min(end);
        bytes.splice(start..end, new.iter().copied());
        Ok(())
    }

    /// wasmx.md, section 7: in the body's own callback only, and `size` bytes at the most.
    fn set_buffer_in_nginx(&mut self, way: Way, start: usize, size: usize, new: &[u8]) -> Reply {
        const CALL: &str = "proxy_set_buffer_bytes";
        let own = match way {
            Way::Request => "proxy_on_request_body",
            Way::Response => "proxy_on_response_body",
        };
        if self.here.callback != own {
            return trap(format!("can only set this body during {own}"));
        }
        let (stream, hop) = self.stream()?;
        let in_file = stream.body_in_file && way == Way::Request;
        if way == Way::Request {
            stream.body_replaced = true;
            stream.replaced_by = stream.replaced_by.or(Some(hop));
        }
        let Some(bytes) = stream.hops[hop].side(way).buffer.as_mut() else {
            return Err(Ill::Status(NOT_FOUND));
        };
        if in_file {
            bytes.splice(0..0, new.iter().copied());
            self.violation(CALL, "the body is in a file: this is put before it");
            return Ok(());
        }
        if way == Way::Response && bytes.is_empty() && new.is_empty() {
            self.violation(
                CALL,
                "an empty body set on an empty piece breaks the response",
            );
            return Ok(());
        }
        if size == 0 {
            bytes.splice(0..0, new.iter().copied());
            return Ok(());
        }
        let cut = &new[..new.len().min(size)];
        if start == 0 {
            *bytes = cut.to_vec();
        } else {
            bytes.extend_from_slice(cut);
        }
        if cut.len() < new.len() {
            let what = format!(
                "{} bytes are lost: set writes `size` bytes at most",
                new.len() - cut.len()
            );
            self.violation(CALL, what);
        }
        Ok(())
    }
}

const fn way_of(request: bool) -> Way {
    if request { Way::Request } else { Way::Response }
}

fn change_in_nginx(
    stream: &mut Stream,
    map: u32,
    change: impl FnOnce(Dialect, &mut Headers, &mut Headers),
) -> Reply {
    match (map, stream.phase) {
        (REQUEST_HEADERS, Phase::RequestHeaders(_) | Phase::RequestBody(_)) => {
            change(Dialect::Wasmx, &mut stream.headers, &mut stream.wire);
            Ok(())
        }
        (RESPONSE_HEADERS, Phase::ResponseHeaders) => {
            // A response's headers can be removed there too.
            let mut wire = Headers::default();
            change(Dialect::Envoy, &mut stream.response_headers, &mut wire);
            Ok(())
        }
        _ => Err(Ill::Status(BAD_ARGUMENT)),
    }
}
