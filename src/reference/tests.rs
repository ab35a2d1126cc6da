//! What Azure can have, and what a reference may decide. Kong's own vectors are in
//! `tests/reference_vectors.rs`.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn refused(text: &str) -> ReferenceError {
    Reference::parse(text).expect_err(text)
}

#[test]
fn a_reference_with_everything() {
    let text = "{vault://pay/Db-1/user/name?ttl=60&neg_ttl=1.5&resurrect_ttl=0x10&base64_decode=true#0123456789ABCDEF0123456789abcdef}";
    let reference = Reference::parse(text).unwrap();
    assert_eq!(reference.vault, "pay");
    assert_eq!(
        (reference.secret.as_str(), reference.secret.folded()),
        ("Db-1", "db-1")
    );
    assert_eq!(
        reference.version.unwrap().as_str(),
        "0123456789abcdef0123456789abcdef"
    );
    assert_eq!(reference.keys, ["user", "name"]);
    let options = Options {
        ttl: Some(60.0),
        neg_ttl: Some(1.5),
        resurrect_ttl: Some(16.0),
        base64_decode: Some(true),
    };
    assert_eq!(reference.options, options);
}

#[test]
fn a_version_as_the_last_segment() {
    let reference = Reference::parse("{vault://a/db/0123456789abcdef0123456789abcdef/}").unwrap();
    assert_eq!(
        reference.version.unwrap().as_str(),
        "0123456789abcdef0123456789abcdef"
    );
    assert!(reference.keys.is_empty());
    let reference = Reference::parse("{vault://a/db/0123456789abcdef0123456789abcdef}").unwrap();
    assert_eq!(reference.keys.len(), 1, "without the slash it is a key");
}

#[test]
fn what_azure_cannot_have_is_refused_before_anything_is_sent() {
    for (text, part) in [
        ("{vault://a/..}", Part::Secret),
        ("{vault://a/./x}", Part::Secret),
        ("{vault://a/a%2Fb}", Part::Secret),
        ("{vault://a/a%252e%252e}", Part::Secret),
        ("{vault://a/a_b}", Part::Secret),
        ("{vault://a/a%00}", Part::Secret),
        ("{vault://a/a%0d%0ax}", Part::Secret),
        ("{vault://a/%ff}", Part::Secret),
        ("{vault://a/s/%ff}", Part::Key),
        ("{vault://a/s/../b}", Part::Key),
        ("{vault://a/s/%252e}", Part::Key),
        ("{vault://a/s/%00}", Part::Key),
        ("{vault://a/s/k/}", Part::Path),
        ("{vault://a/s#1}", Part::Version),
        ("{vault://a/s#xyz}", Part::Version),
        ("{vault://a/s?ttl=-1}", Part::Option),
        ("{vault://a/s?ttl=1&ttl=2}", Part::Option),
        ("{vault://a/s?ttl=nan}", Part::Option),
        ("{vault://a/s?ttl}", Part::Option),
        ("{vault://a/s?base64_decode=yes}", Part::Option),
        ("{vault://a/s?vault_uri=https://evil.example}", Part::Option),
        ("{vault://a/s?client_id=x}", Part::Option),
    ] {
        let error = refused(text);
        assert_eq!(error.part, part, "{text}: {error}");
    }
    assert_eq!(
        refused(&format!("{{vault://a/{}}}", "x".repeat(128))).part,
        Part::Secret
    );
    assert_eq!(
        refused(&format!("{{vault://a/s/{}}}", "x".repeat(3000))).part,
        Part::Whole
    );
}

#[test]
fn explanations() {
    assert_eq!(
        explain("{vault://azure/s/k?ttl=5#2}"),
        json!({"name":"azure","resource":"s","key":"k","config":{"ttl":"5"},"version":2.0,
            "azure_error":"the version is a number: Azure's versions have 32 hexadecimal digits; leave it out for the latest"})
    );
    assert_eq!(explain("{vault://azure/s#latest}")["version"], "latest");
    assert_eq!(explain("{vault://azure}")["part"], "path");
    assert_eq!(explain("{vault://azure/s?client_id=x}")["part"], "option");
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in ".{0,80}") {
        let _ = Reference::parse(&text);
        let _ = Reference::parse(&format!("{{vault://{text}}}"));
        let _ = explain(&format!("{{vault://a/{text}}}"));
    }

    #[test]
    fn a_name_that_passes_is_one_that_azure_can_have(text in "[ -~]{0,40}") {
        if let Ok(reference) = Reference::parse(&format!("{{vault://a/{text}}}")) {
            prop_assert!(reference.secret.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        }
    }
}

#[test]
fn a_time_below_one_second_is_refused_and_0_is_not() {
    for name in ["ttl", "neg_ttl", "resurrect_ttl"] {
        for seconds in ["0.0004", "0.999", "1e-300"] {
            let error =
                Reference::parse(&format!("{{vault://pay/s?{name}={seconds}}}")).unwrap_err();
            let message = format!("the option {name} is below one second");
            assert!(error.to_string().starts_with(&message), "{error}");
        }
        for seconds in ["0", "0.0", "1", "1.5", "1e8"] {
            assert!(Reference::parse(&format!("{{vault://pay/s?{name}={seconds}}}")).is_ok());
        }
    }
}
