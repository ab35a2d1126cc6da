//! The SDK's contexts: which callback is for which plugin. Nothing is decided here.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

use super::calls::Callback;
use super::host::{Dialect, Host as _, SdkHost, install_logger};
use super::plugin::Plugin;
use super::reply;
use super::waiting::Flow;

thread_local! {
    /// WasmX: the requests that were refused in the answer to a call, as long as the refusing filter has
    /// their contexts. The host goes on with the chain's next filter all the same, where a second reply would
    /// trap.
    static REFUSED: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Called once for each VM, before everything else.
pub(crate) fn start() {
    install_logger();
    proxy_wasm::set_root_context(|_| Box::new(Root::new()));
}

/// The plugin of a root context, shared with its requests; `None` when its configuration has errors.
type Shared = Rc<RefCell<Option<Plugin<SdkHost>>>>;

struct Root {
    host: SdkHost,
    plugin: Shared,
}

/// One request and its response.
struct Http {
    id: u32,
    host: SdkHost,
    plugin: Shared,
    /// WasmX: its name in [`REFUSED`].
    refused: Option<Vec<u8>>,
}

impl Root {
    fn new() -> Self {
        Self {
            host: SdkHost::detect(),
            plugin: Shared::default(),
        }
    }
}

/// Runs `act` on the plugin. The host never calls back into the filter while the filter calls it, so the
/// plugin is never borrowed already; if it were, or has no configuration, this is `None`.
fn with<R>(plugin: &Shared, act: impl FnOnce(&mut Plugin<SdkHost>) -> R) -> Option<R> {
    plugin.try_borrow_mut().ok()?.as_mut().map(act)
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body: usize, _: usize) {
        with(&self.plugin, |plugin| {
            plugin.call_answered(None, token, headers, body)
        });
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let plugin = Plugin::configure(self.host);
        let good = plugin.is_some();
        if let Ok(mut current) = self.plugin.try_borrow_mut() {
            *current = plugin;
        }
        // Envoy keeps what it had. WasmX would lose the worker, or run all chains without filters: there
        // this filter starts and refuses every request instead.
        good || self.host.dialect() == Dialect::WasmX
    }

    fn on_tick(&mut self) {
        with(&self.plugin, Plugin::tick);
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Http {
            id,
            host: self.host,
            plugin: Rc::clone(&self.plugin),
            refused: None,
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        with(&self.plugin, Plugin::retire);
    }
}

impl Context for Http {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body: usize, _: usize) {
        let refused = with(&self.plugin, |plugin| {
            plugin.call_answered(Some(self.id), token, headers, body)
        });
        if refused == Some(true) && self.host.dialect() == Dialect::WasmX {
            let request = identity_of_request(self.host);
            REFUSED.with_borrow_mut(|refused| refused.push(request.clone()));
            self.refused = Some(request);
        }
    }
}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _: usize, end: bool) -> Action {
        if self.was_refused() {
            return Action::Continue;
        }
        let flow = with(&self.plugin, |plugin| {
            plugin.callback = Callback::Request;
            plugin.request_headers(self.id, end)
        });
        flow.map_or_else(
            || {
                reply::not_configured(&self.host);
                Action::Pause
            },
            action,
        )
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        if self.was_refused() {
            return Action::Continue;
        }
        self.run(|plugin, id| plugin.request_body(id, size, end))
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.run(Plugin::request_trailers)
    }

    fn on_http_response_headers(&mut self, _: usize, end: bool) -> Action {
        self.run(|plugin, id| plugin.response_headers(id, end))
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        self.run(|plugin, id| plugin.response_body(id, size, end))
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.run(Plugin::response_trailers)
    }
}

impl Http {
    /// Without a configuration the request was refused in its first callback, and what follows is our reply.
    fn run(&self, act: impl FnOnce(&mut Plugin<SdkHost>, u32) -> Flow) -> Action {
        let flow = with(&self.plugin, |plugin| {
            plugin.callback = Callback::Request;
            act(plugin, self.id)
        });
        flow.map_or(Action::Continue, action)
    }

    /// WasmX: whether another filter of this chain refused this very request.
    fn was_refused(&self) -> bool {
        if self.host.dialect() == Dialect::Envoy {
            return false;
        }
        // Reading the identity takes three host calls.
        REFUSED.with_borrow(|refused| {
            !refused.is_empty() && refused.contains(&identity_of_request(self.host))
        })
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        if let Some(request) = &self.refused {
            REFUSED.with_borrow_mut(|refused| refused.retain(|other| other != request));
        }
        with(&self.plugin, |plugin| plugin.forget(self.id));
    }
}

/// WasmX: what tells requests apart. (`$request_id` is another one each time that it is read.)
fn identity_of_request(host: SdkHost) -> Vec<u8> {
    const VARIABLES: [&[u8]; 3] = [
        b"ngx\0connection",
        b"ngx\0connection_requests",
        b"ngx\0kong_request_id",
    ];
    let values = VARIABLES.map(|name| host.property(name).unwrap_or_default());
    values
        .iter()
        .map(|value| value.as_slice())
        .collect::<Vec<_>>()
        .join(&b'/')
}

fn action(flow: Flow) -> Action {
    match flow {
        Flow::Continue => Action::Continue,
        Flow::Pause => Action::Pause,
    }
}
