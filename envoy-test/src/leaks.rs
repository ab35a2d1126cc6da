//! The forms in which a secret could lie in a log without being seen by a search for itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The secret itself, percent-encoded, with JSON's escapes, in hexadecimal, and the middle of its
/// base64 at each of the three places where it can begin.
#[must_use]
pub fn forms(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let percent: String = form_urlencoded::byte_serialize(bytes).collect();
    let json = serde_json::Value::from(secret).to_string();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let mut forms = vec![
        secret.to_owned(),
        percent.replace('+', "%20"),
        percent,
        json.trim_matches('"').to_owned(),
        hex,
    ];
    for offset in 0..3 {
        let padded = [vec![b'x'; offset], bytes.to_vec()].concat();
        let encoded = STANDARD.encode(&padded);
        // The first and the last group hold bits of their neighbours.
        let inner = encoded.trim_end_matches('=');
        let from = if offset == 0 { 0 } else { 4 };
        let inner = inner
            .get(from..inner.len().saturating_sub(2))
            .unwrap_or_default();
        if inner.len() >= 6 {
            forms.push(inner.to_owned());
            forms.push(inner.replace('+', "-").replace('/', "_"));
        }
    }
    forms.sort();
    forms.dedup();
    forms
}

/// The form in which one of these secrets lies in `text`, if any.
#[must_use]
pub fn find(text: &str, secrets: &[&str]) -> Option<String> {
    let mut forms = secrets.iter().flat_map(|secret| forms(secret));
    forms.find(|form| text.contains(form.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_found() {
        for text in [
            "a hunter2!/x b",
            "hunter2%21%2Fx",
            "68756e74657232212f78",
            "{\"k\":\"hunter2!/x\"}",
        ] {
            assert!(find(text, &["hunter2!/x"]).is_some(), "{text}");
        }
        for before in ["", "a", "ab", "abc"] {
            let encoded = STANDARD.encode(format!("{before}hunter2!/x and more"));
            assert!(find(&encoded, &["hunter2!/x"]).is_some(), "{encoded}");
        }
        assert_eq!(find("nothing here", &["hunter2!/x"]), None);
    }
}
