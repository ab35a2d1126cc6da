//! What moves a message on, answers it, or leaves the gateway: resuming, local replies, calls out.

use super::{BAD_ARGUMENT, Host, INTERNAL_FAILURE, Ill, Reply, trap};
use crate::calls::Call;
use crate::headers::Headers;
use crate::settings::Planted;
use crate::stream::{Answer, Hold, Way};

const HTTP_CALL_CALLBACKS: [&str; 4] = [
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_tick",
    "proxy_on_http_call_response",
];

impl Host {
    /// `kind` is `proxy_stream_type_t`: 0 the request, 1 the response.
    pub(crate) fn continue_stream(&mut self, kind: u32) -> Reply {
        const CALL: &str = "proxy_continue_stream";
        if !self.is_envoy() {
            if self.in_root() {
                return Err(Ill::Crash("resume from a root context".to_owned()));
            }
            return Ok(());
        }
        let way = match kind {
            0 => Way::Request,
            1 => Way::Response,
            _ => return Err(Ill::Status(BAD_ARGUMENT)),
        };
        let (stream, hop) = self.stream()?;
        let answered = stream.local.is_some();
        let side = stream.hops[hop].side(way);
        if side.resume || answered {
            self.violation(CALL, "the message was resumed or answered already");
            return Ok(());
        }
        if side.hold == Hold::Nothing {
            self.violation(CALL, "the message does not wait");
            return Ok(());
        }
        // From now on every setter is refused.
        side.resume = true;
        if self.bug(Planted::Hang) {
            let (stream, hop) = self.stream()?;
            stream.hops[hop].side(way).resume = false;
        }
        Ok(())
    }

    /// `kind` is `proxy_stream_type_t`. Envoy resets the stream.
    pub(crate) fn close_stream(&mut self, kind: u32) -> Reply {
        if !self.is_envoy() || kind > 1 {
            return Err(Ill::Status(BAD_ARGUMENT));
        }
        let (stream, _) = self.stream()?;
        stream.reset = true;
        stream.over = true;
        Ok(())
    }

    /// Envoy makes a gRPC answer to a gRPC request of it; WasmX has no use for `grpc_status`.
    pub(crate) fn local_response(
        &mut self,
        status: u32,
        headers: Headers,
        body: &[u8],
        grpc_status: i32,
    ) -> Reply {
        let envoy = self.is_envoy();
        if !envoy && self.in_root() {
            return Err(Ill::Crash(
                "a local response from a root context".to_owned(),
            ));
        }
        let (stream, hop) = self.stream()?;
        let resumed = stream.hops[hop].request.resume || stream.hops[hop].response.resume;
        if stream.local.is_some() || stream.stashed.is_some() || (envoy && resumed) {
            if envoy {
                self.violation(
                    "proxy_send_local_response",
                    "the request was resumed or answered already",
                );
                return Ok(());
            }
            return trap("local response already stashed");
        }
        let (mut status, mut headers, mut body) = (status, headers, body.to_vec());
        let grpc = stream
            .headers
            .text("content-type")
            .strip_prefix("application/grpc")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('+'));
        if envoy && grpc {
            headers.set("content-type", b"application/grpc");
            headers.set("grpc-status", grpc_status.to_string().as_bytes());
            headers.set("grpc-message", &body);
            (status, body) = (200, Vec::new());
        }
        if !envoy && !body.is_empty() {
            body.push(b'\n');
        }
        stream.local = Some(Answer {
            status: u16::try_from(status).unwrap_or(500),
            headers,
            body,
            local: true,
            ..Answer::default()
        });
        Ok(())
    }

    pub(crate) fn set_effective_context(&mut self, context: u32) -> Reply {
        if !self.is_envoy() {
            // It does nothing there, for any number.
            return Ok(());
        }
        let worker = self.here.worker;
        let alive = self.find(worker, context).is_some();
        if !self.roots.contains_key(&(worker, context)) && !alive {
            return Err(Ill::Status(BAD_ARGUMENT));
        }
        self.here.effective = context;
        self.here.root = self.root_of(worker, context);
        Ok(())
    }

    /// The number by which the answer comes back.
    pub(crate) fn http_call(
        &mut self,
        upstream: &str,
        headers: Headers,
        body: &[u8],
        timeout: u32,
    ) -> Reply<u32> {
        if self.bug(Planted::Panic) {
            return trap("panicked: a planted bug");
        }
        if !self.is_envoy() && self.bug(Planted::Hang) {
            self.next_token += 1;
            return Ok(self.next_token);
        }
        for name in [":path", ":authority"] {
            let value = headers.get(name).unwrap_or_default();
            if value.iter().any(|b| *b <= b' ') {
                self.violation(
                    "proxy_http_call",
                    format!("{name} is sent as it is, with a byte that ends it"),
                );
            }
        }
        let own = if self.is_envoy() {
            self.call_in_envoy(upstream, &headers)?;
            None
        } else {
            self.call_in_nginx(upstream, &headers)?
        };
        self.next_token += 1;
        let limit = match (self.is_envoy(), timeout) {
            (true, 0) => None,
            (false, 0) => Some(60_000),
            (_, timeout) => Some(u64::from(timeout)),
        };
        self.calls.push(Call {
            token: self.next_token,
            worker: self.here.worker,
            context: own.unwrap_or(self.here.root),
            stream: own,
            upstream: upstream.to_owned(),
            headers,
            body: body.to_vec(),
            deadline: limit.map(|limit| self.now + limit),
        });
        Ok(self.next_token)
    }

    /// All calls are the root context's for this host.
    fn call_in_envoy(&self, upstream: &str, headers: &Headers) -> Reply {
        let complete = [":method", ":path", ":authority"].map(|n| headers.get(n).is_some());
        if complete.contains(&false) || !self.settings.clusters.iter().any(|c| c == upstream) {
            return Err(Ill::Status(BAD_ARGUMENT));
        }
        if self.settings.empty_clusters.iter().any(|c| c == upstream) {
            return Err(Ill::Status(INTERNAL_FAILURE));
        }
        Ok(())
    }

    /// The context whose call it is, if it is a request's.
    fn call_in_nginx(&mut self, upstream: &str, headers: &Headers) -> Reply<Option<u32>> {
        if !HTTP_CALL_CALLBACKS.contains(&self.here.callback) {
            return trap(
                "can only send HTTP dispatch during on_request_headers, on_request_body, on_tick, on_dispatch_response, on_foreign_function",
            );
        }
        let complete = [":method", ":path"]
            .iter()
            .all(|n| headers.get(n).is_some());
        if !complete || !is_host_and_port(upstream) {
            return if self.in_root() {
                Err(Ill::Status(INTERNAL_FAILURE))
            } else {
                trap(format!("dispatch failed: {upstream}"))
            };
        }
        if self.in_root() && self.here.callback == "proxy_on_http_call_response" {
            return Err(Ill::Crash(
                "a call from the root's on_http_call_response".to_owned(),
            ));
        }
        let scheme = headers.text(":scheme");
        if !["http", "https"].contains(&scheme.as_str()) {
            self.violation(
                "proxy_http_call",
                format!("unknown scheme {scheme:?}: sent without TLS"),
            );
        }
        if self.in_root() {
            return Ok(None);
        }
        let (stream, hop) = self.stream()?;
        stream.hops[hop].calls += 1;
        Ok(Some(self.here.context))
    }
}

fn is_host_and_port(upstream: &str) -> bool {
    upstream.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(' ') && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}
