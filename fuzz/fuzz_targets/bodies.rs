//! Bodies and queries of any bytes: what holds no reference stays, and what was JSON is JSON afterwards.

#![no_main]

use std::cell::LazyCell;

use azure_key_vault_filter::body::{self, Kind};
use azure_key_vault_filter::config::{Config, OnError};
use azure_key_vault_filter::fetch::{Lookup, Want};
use azure_key_vault_filter::message::find::Search;
use azure_key_vault_filter::message::render::{Context, judge};
use azure_key_vault_filter::message::{Cache, Edit, Verdict};
use azure_key_vault_filter::metrics::Source;
use azure_key_vault_filter::placement::Encoding;
use azure_key_vault_filter::query;
use azure_key_vault_filter::redact::Redactor;
use azure_key_vault_filter::secret::SecretValue;
use azure_key_vault_filter::time::Timestamp;
use libfuzzer_sys::fuzz_target;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// Every secret has this value.
struct Everything<'a>(&'a [u8]);

impl Cache for Everything<'_> {
    fn look_up(&self, _: &Want, _: Option<Timestamp>, now: Timestamp) -> Lookup {
        Lookup::Value { value: SecretValue::new(self.0), fresh_until: now, source: Source::Local }
    }
    fn mark_used(&mut self, _: &Want, _: Timestamp) {}
    fn fetch_in_background(&mut self, _: &Want, _: Timestamp) {}
}

fn config() -> Config {
    let json = br#"{"vaults":[{"name":"azure","prefix":"azure","config":{"vault_uri":"https://v.vault.azure.net",
        "vault_cluster":"v","identity_cluster":"i","tenant_id":"t","client_id":"c","client_secret":"s"}}],
        "request":{"resolve":{"headers":["x-*"],"query":["*"],"body":["text/plain"],"allow":["azure/*"]}}}"#;
    Config::parse(json, &|_| None).expect("a configuration")
}

/// The text with every reference replaced; `None` when it stays, or is refused.
fn resolved(config: &Config, kind: Kind, text: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let place = Search::of_requests(config).body(kind, text).ok()??;
    let mut context = Context {
        on_error: OnError::Keep,
        cache: &mut Everything(value),
        limits: &config.limits,
        body: text,
        since: None,
        now: NOW,
        patient: true,
        refusable: true,
        looked_up: &mut Vec::new(),
        used: None,
    };
    match judge(std::iter::once(&place), &mut context) {
        Verdict::Edit(mut edits) => match edits.pop() {
            Some(Edit::Body(body)) => Some(body.to_vec()),
            _ => None,
        },
        Verdict::Deny(_) => None,
        Verdict::Wait(_) => panic!("every value is known"),
    }
}

thread_local!(static CONFIG: LazyCell<Config> = const { LazyCell::new(config) });

fuzz_target!(|input: (&[u8], &[u8], u8)| {
    let (text, value, cut) = input;
    CONFIG.with(|config| {
        for kind in [Kind::Json, Kind::Form, Kind::Text] {
            let Some(got) = resolved(config, kind, text, value) else {
                continue;
            };
            let is_json = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).is_ok();
            assert!(kind != Kind::Json || !is_json(text) || is_json(&got));
        }
    });
    let raw: Vec<&[u8]> = query::parameters(text).map(|p| p.raw).collect();
    assert_eq!(raw.join(&b'&'), text);
    if let Ok(media_type) = body::media_type(text) {
        let _ = Kind::of(&media_type);
    }
    let mut json = vec![b'"'];
    if Encoding::Json.write(&mut json, value) {
        json.push(b'"');
        assert!(serde_json::from_slice::<String>(&json).is_ok());
    }
    let mut form = query::start(b"k");
    assert!(Encoding::Form.write(&mut form, value));
    let decoded: Vec<_> = query::parameters(&form).map(|p| p.value().into_owned()).collect();
    assert_eq!(decoded, [value]);
    if let Some(redactor) = Redactor::new(&[SecretValue::new(value)]) {
        let mut redactor = redactor.stream();
        let at = usize::from(cut).min(text.len());
        let mut out = redactor.piece(&text[..at], false).to_vec();
        out.extend_from_slice(&redactor.piece(&text[at..], true));
        assert_eq!(out.len(), text.len(), "a mask has the length of what it covers");
    }
});
