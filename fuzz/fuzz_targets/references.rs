//! References in any text: what is not a reference stays byte for byte, and what is one names nothing that
//! Azure could take for another path.

#![no_main]

use azure_key_vault_filter::template::{Part, Template};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let template = Template::parse(text);
    let mut whole = Vec::new();
    for part in &template.parts {
        match part {
            Part::Literal(bytes) => whole.extend_from_slice(bytes),
            Part::Reference { text, parsed } => {
                whole.extend_from_slice(text);
                if let Ok(reference) = parsed {
                    let name = reference.secret.as_str();
                    assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{name}");
                    assert!((1..=127).contains(&name.len()));
                }
            }
        }
    }
    if !template.unescaped {
        assert_eq!(whole, text, "nothing is lost");
    }
    if !Template::may_hold_reference(text) {
        assert!(template.parts.iter().all(|part| matches!(part, Part::Literal(_))));
    }
});
