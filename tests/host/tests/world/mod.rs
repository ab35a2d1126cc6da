//! A gateway with the release filter and the emulated Azure behind it. Whatever a test does, at its end
//! nothing may have been punished and nothing secret may be in a log.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::io::Write as _;
use std::path::PathBuf;
use std::rc::Rc;

use envoy_test::emulator::{AppRegistration, Azure};
use envoy_test::leaks;
use envoy_test::world::{CLIENT, CLIENT_SECRET, TENANT};
use proxy_wasm_host::{Dialect, Gateway, Request, Settings, StreamId, Violation, azure};
use serde_json::{Value, json};

pub const BOTH: [Dialect; 2] = [Dialect::Envoy, Dialect::Wasmx];
/// Every secret's value begins with this.
pub const MARK: &str = "pl4nted";

pub struct World {
    pub gateway: Gateway,
    pub azure: Azure,
    /// Punishments that a test brings about on purpose.
    pub expected: fn(&Violation) -> bool,
    checked: bool,
    unsealed: bool,
}

/// `$AKV_FILTER_WASM`, else what `cargo xtask build` made.
pub fn wasm() -> Rc<[u8]> {
    let given = std::env::var_os("AKV_FILTER_WASM").map(PathBuf::from);
    let built = envoy_test::envoy::workspace().join("target/dist/azure_key_vault_filter.wasm");
    let path = given.unwrap_or(built);
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask build` makes it", path.display()))
        .into()
}

pub fn resolve() -> Value {
    json!({ "resolve": { "headers": ["x-*"], "allow": ["azure/db", "azure/open-*"] } })
}

pub fn configuration(vault: &Value, request: &Value) -> Value {
    let rest = json!({ "request": request });
    envoy_test::world::configuration(vault, &rest)
}

/// WasmX takes `host:port` in place of clusters.
pub fn for_dialect(dialect: Dialect, mut configuration: Value) -> Value {
    if dialect == Dialect::Wasmx {
        configuration["shared_data"] = json!(true);
        configuration["metrics"]["enabled"] = json!(true);
        if let Some(vaults) = configuration["vaults"].as_array_mut() {
            for vault in vaults {
                let config = vault["config"].as_object_mut().expect("an object");
                config.remove("vault_cluster");
                config.remove("identity_cluster");
            }
        }
    }
    configuration
}

pub fn without_shared_data(configuration: &[u8]) -> Vec<u8> {
    let mut configuration: Value = serde_json::from_slice(configuration).expect("JSON");
    configuration["shared_data"] = json!(false);
    configuration.to_string().into_bytes()
}

pub fn without_metrics(configuration: &[u8]) -> Vec<u8> {
    let mut configuration: Value = serde_json::from_slice(configuration).expect("JSON");
    configuration["metrics"] = Value::Null;
    configuration.to_string().into_bytes()
}

pub fn emulated() -> Azure {
    let azure = Azure::new();
    azure.add_app(AppRegistration {
        tenant: TENANT.to_owned(),
        client_id: CLIENT.to_owned(),
        client_secret: CLIENT_SECRET.to_owned(),
    });
    azure.set_time(1_750_000_000);
    for name in ["db", "open-1", "open-2", "open-3", "closed"] {
        azure.set_secret(name, &format!("{MARK}-{name}"));
    }
    azure.set_secret(
        "open-json",
        &format!(r#"{{"user":"{MARK}-user","n":5,"q":"{MARK}\"\\quote"}}"#),
    );
    azure
}

/// Prints a line into the tests' output, also for tests that pass.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

impl World {
    pub fn new(dialect: Dialect, vault: Value, request: Value) -> Self {
        Self::with(dialect, vault, request, |_| {})
    }

    pub fn resolving(dialect: Dialect, vault: Value) -> Self {
        Self::new(dialect, vault, resolve())
    }

    pub fn with(
        dialect: Dialect,
        vault: Value,
        request: Value,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        Self::whole(dialect, configuration(&vault, &request), change)
    }

    pub fn whole(
        dialect: Dialect,
        configuration: Value,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let text = for_dialect(dialect, configuration).to_string();
        let mut settings = Settings::new(dialect, wasm(), &text);
        settings.environment = vec![("AZURE_CLIENT_SECRET".into(), CLIENT_SECRET.into())];
        change(&mut settings);
        Self {
            gateway: Gateway::start(settings),
            azure: emulated(),
            expected: |_| false,
            checked: false,
            unsealed: false,
        }
    }

    pub fn raw(dialect: Dialect, configuration: &str) -> Self {
        Self {
            gateway: Gateway::start(Settings::new(dialect, wasm(), configuration)),
            azure: emulated(),
            expected: |_| false,
            checked: false,
            unsealed: false,
        }
    }

    /// A metric's value; 0 where it was never written.
    pub fn metric(&self, name: &str) -> u64 {
        let metrics = self.gateway.metrics();
        let found = metrics.iter().find(|(known, _)| known == name);
        found.map_or(0, |(_, value)| *value)
    }

    pub fn get(&mut self, worker: usize, headers: &[(&str, &str)]) -> StreamId {
        let id = self
            .gateway
            .request(worker, Request::get("/path?q=1", headers));
        self.make_calls();
        id
    }

    /// Envoy: the root context makes a request's calls at the next tick.
    pub fn make_calls(&mut self) {
        self.gateway.advance(2);
    }

    /// Answers all calls, those too that follow from the answers.
    pub fn answer_all(&mut self) {
        for _ in 0..6 {
            self.make_calls();
            azure::answer_all(&mut self.gateway, &self.azure);
        }
    }

    /// What the operator sets is fetched, at every worker.
    pub fn warm(&mut self) {
        for _ in 0..40 {
            self.gateway.advance(50);
            self.answer_all();
        }
    }

    /// What the upstream got under this name.
    pub fn upstream(&self, id: StreamId, name: &str) -> Vec<String> {
        let sent = self.gateway.sent(id);
        let sent = sent.unwrap_or_else(|| {
            panic!(
                "not sent: {:?}\n{:#?}",
                self.gateway.outcome(id),
                self.gateway.log()
            )
        });
        let values = sent.headers.all(name);
        values
            .iter()
            .map(|v| String::from_utf8_lossy(v).into_owned())
            .collect()
    }

    /// An identity without a secret cannot seal.
    pub fn forgive_unsealed(&mut self) {
        self.unsealed = true;
    }

    /// What must hold at the end; also called when this is dropped.
    pub fn check(&mut self) {
        self.checked = true;
        let violations = self.gateway.violations();
        let bad: Vec<_> = violations.iter().filter(|v| !(self.expected)(v)).collect();
        assert!(bad.is_empty(), "{bad:#?}\n{:#?}", self.gateway.log());
        let secrets = [MARK, CLIENT_SECRET, "emulated-"];
        let log = self.gateway.log().into_iter().map(|line| line.text);
        let log: Vec<String> = log.collect();
        if let Some(form) = leaks::find(&log.join("\n"), &secrets) {
            panic!("{form} in the log: {log:#?}");
        }
        let entries = self.gateway.shared_data().into_iter();
        for (key, value) in entries.filter(|_| !self.unsealed) {
            let text = String::from_utf8_lossy(&value);
            let found = secrets.iter().find(|secret| text.contains(**secret));
            let key = String::from_utf8_lossy(&key);
            assert_eq!(found, None, "not sealed: {key}");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.checked && !std::thread::panicking() {
            self.check();
        }
    }
}
