//! Bodies and queries of any bytes: what is not touched stays, and JSON stays JSON.

#![no_main]

use azure_key_vault_filter::body::{self, JsonPart, Kind};
use azure_key_vault_filter::placement::Encoding;
use azure_key_vault_filter::query;
use azure_key_vault_filter::redact::Redactor;
use azure_key_vault_filter::secret::SecretValue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8], u8)| {
    let (text, value, cut) = input;
    let mut joined = Vec::new();
    for part in body::json_parts(text) {
        match part {
            JsonPart::Raw(raw) | JsonPart::Value(raw, _) => joined.extend_from_slice(raw),
        }
    }
    assert_eq!(joined, text);
    let raw: Vec<&[u8]> = query::parameters(text).map(|p| p.raw).collect();
    assert_eq!(raw.join(&b'&'), text);
    if let Some(media_type) = body::media_type(text) {
        let _ = Kind::of(&media_type);
    }
    let mut json = vec![b'"'];
    if Encoding::Json.write(&mut json, value) {
        json.push(b'"');
        assert_eq!(body::json_parts(&json).len() % 2, 1);
        assert!(!json[1..json.len() - 1].iter().any(|b| *b < 0x20));
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
