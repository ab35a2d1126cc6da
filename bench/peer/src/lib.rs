//! The least that a Proxy-Wasm filter can do, written as filters usually are (with the SDK): what the
//! filter is measured against. Its configuration says which of them it is: `empty` does nothing, `set`
//! sets one fixed header, `map` reads all headers and sets one.

// The macro makes a public function without one.
#![allow(missing_docs)]

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_root_context(|_| Box::new(Peer { work: Work::Nothing }));
}}

#[derive(Clone, Copy)]
enum Work {
    Nothing,
    Set,
    MapAndSet,
}

struct Peer {
    work: Work,
}

impl Context for Peer {}

impl RootContext for Peer {
    fn on_configure(&mut self, _: usize) -> bool {
        self.work = match self.get_plugin_configuration().as_deref() {
            Some(b"empty") => Work::Nothing,
            Some(b"set") => Work::Set,
            Some(b"map") => Work::MapAndSet,
            _ => return false,
        };
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request { work: self.work }))
    }
}

struct Request {
    work: Work,
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        match self.work {
            Work::Nothing => {}
            Work::Set => self.set_http_request_header("x-key", Some("Bearer fixed-value-01")),
            Work::MapAndSet => {
                let headers = self.get_http_request_headers_bytes();
                if headers
                    .iter()
                    .any(|(_, value)| value.starts_with(b"Bearer {vault://"))
                {
                    self.set_http_request_header("x-key", Some("Bearer fixed-value-01"));
                }
            }
        }
        Action::Continue
    }
}
