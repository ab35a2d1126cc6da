//! Kong's own parser against ours: every vector that was made by running `kong/pdk/vault.lua`. Where we
//! go beyond Kong on purpose, the difference stands here by name.

use azure_key_vault_filter::reference::{
    Part, Reference, Version, config_json, is_reference, parse_kong, version_json,
};
use azure_key_vault_filter::subkey;
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("data/reference_vectors.json")).expect("the vectors are JSON")
}

/// Versions that Kong refuses and Azure has: 32 hexadecimal digits, and `latest`.
fn is_our_extension(version: Option<&Version>) -> bool {
    matches!(version, Some(Version::Id(_) | Version::Latest))
}

#[test]
fn every_reference_parses_as_in_kong() {
    let vectors = vectors();
    let vectors = vectors["vectors"].as_array().expect("a list");
    let mut extensions = Vec::new();
    for vector in vectors {
        let (input, expect) = (vector["input"].as_str().expect("a text"), &vector["expect"]);
        assert_eq!(is_reference(input), expect["is_reference"], "{input}");
        let parsed = parse_kong(input);
        match (parsed, expect["ok"].as_bool().expect("ok")) {
            (Err(_), false) => {}
            (Ok(parsed), false) if is_our_extension(parsed.version.as_ref()) => {
                extensions.push(input)
            }
            (Ok(parsed), true) => {
                let expected = &expect["parsed"];
                let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes).into_owned());
                assert_eq!(Value::from(parsed.name), expected["name"], "{input}");
                assert_eq!(text(&parsed.resource), expected["resource"], "{input}");
                assert_eq!(
                    parsed.key.as_deref().map_or(Value::Null, text),
                    expected["key"],
                    "{input}"
                );
                let config = parsed
                    .config
                    .map_or(Value::Null, |fields| config_json(&fields));
                assert_eq!(config, expected["config"], "{input}");
                if is_our_extension(parsed.version.as_ref()) {
                    extensions.push(input);
                    continue;
                }
                let version = parsed.version.as_ref().map_or(Value::Null, version_json);
                assert_eq!(version.as_f64(), expected["version"].as_f64(), "{input}");
            }
            (parsed, ok) => panic!("{input}: Kong says {ok}, we say {parsed:?}"),
        }
    }
    println!(
        "{} vectors, {} of them extensions: {extensions:?}",
        vectors.len(),
        extensions.len()
    );
    assert_eq!(vectors.len(), 250);
    assert_eq!(extensions.len(), 2, "{extensions:?}");
}

#[test]
fn every_sub_key_gives_what_it_gives_in_kong() {
    let vectors = vectors();
    let vectors = vectors["json_subfield_vectors"].as_array().expect("a list");
    let mut extensions = 0;
    for vector in vectors {
        let secret = vector["secret_value"].as_str().expect("a text");
        let key = vector["key"].as_str().expect("a text").to_owned();
        let selected = subkey::select(secret.as_bytes(), &[key]);
        match (selected, vector["result"].as_str()) {
            (Ok(value), Some(expected)) => assert_eq!(&*value, expected.as_bytes(), "{vector}"),
            (Err(_), None) => {}
            // Beyond Kong: a number or a boolean comes as it is written.
            (Ok(_), None)
                if vector["error"]
                    .as_str()
                    .is_some_and(|e| e.contains("number") || e.contains("boolean")) =>
            {
                extensions += 1;
            }
            (selected, _) => panic!("{vector}: {selected:?}"),
        }
    }
    println!(
        "{} sub-key vectors, {extensions} of them extensions",
        vectors.len()
    );
    assert_eq!(vectors.len(), 19);
}

/// Where Kong drops the vault's own value silently, or takes what a reference must not decide, we refuse.
/// What Kong takes rightly, we take.
#[test]
fn options_that_kong_takes_wrongly_are_refused() {
    let vectors = vectors();
    let vectors = vectors["config_override_vectors"]
        .as_array()
        .expect("a list");
    for vector in vectors {
        let text = vector["reference"].as_str().expect("a text");
        let parsed = Reference::parse(text);
        match vector["effective_ttl"].as_f64() {
            // Below one second Kong's time is rounded to its 60 s tick, and ours to milliseconds, 0 among them.
            Some(ttl) if text.contains("?ttl=") && ttl >= 1.0 => {
                assert_eq!(parsed.map(|r| r.options.ttl), Ok(Some(ttl)), "{text}");
            }
            _ => assert_eq!(parsed.map_err(|e| e.part), Err(Part::Option), "{text}"),
        }
    }
    println!("{} override vectors", vectors.len());
    assert_eq!(vectors.len(), 8);
}
