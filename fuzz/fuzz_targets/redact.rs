//! Values in any spelling, any text around them, any pieces: each is masked, everything else stays, and
//! nothing is held back that begins nothing.

#![no_main]

use azure_key_vault_filter::redact::Redactor;
use azure_key_vault_filter::secret::SecretValue;
use libfuzzer_sys::fuzz_target;

/// A value as encoders write it, one choice for each character.
fn spell(value: &str, choices: &[u8]) -> Vec<u8> {
    let mut choices = choices.iter().copied().cycle();
    let mut text = Vec::new();
    for character in value.chars() {
        let code = u32::from(character);
        let upper = |text: String, choice: u8| if choice & 64 == 0 { text } else { text.to_ascii_uppercase() };
        let choice = choices.next().unwrap_or(0);
        let spelled = match (choice % 16, character) {
            (1..=3, _) => {
                let mut utf8 = [0; 4];
                let bytes = character.encode_utf8(&mut utf8).bytes();
                let introducer = if choice % 16 == 3 { "%25" } else { "%" };
                bytes.map(|b| format!("{introducer}{}", upper(format!("{b:02x}"), choice))).collect()
            }
            (4..=6, _) => {
                let mut units = [0; 2];
                let units = character.encode_utf16(&mut units).iter();
                let introducer = if choice % 16 == 6 { "\\\\u" } else { "\\u" };
                units.map(|u| format!("{introducer}{}", upper(format!("{u:04x}"), choice))).collect()
            }
            (7, _) => format!("&#{code:0>width$};", width = usize::from(choice >> 6) + 9),
            (8, _) => format!("&#x{};", upper(format!("{code:x}"), choice)),
            (9, _) => format!("\\u0026#{code};"),
            (10, _) => format!("&amp;#{code};"),
            (11.., '\n') => "\\n".to_owned(),
            (11.., '"' | '\\' | '/') => format!("\\{character}"),
            (11.., '&') => "&amp;".to_owned(),
            (11.., '<') => "&lt;".to_owned(),
            (11.., ' ') => "+".to_owned(),
            (11.., '\'') => "&#39;".to_owned(),
            _ => character.to_string(),
        };
        text.extend_from_slice(spelled.as_bytes());
    }
    text
}

fuzz_target!(|input: (Vec<&str>, &[u8], &[u8], &[u8], Vec<u8>)| {
    let (values, before, after, choices, pieces) = input;
    let values: Vec<&str> = values.into_iter().filter(|v| v.len() >= 4).take(4).collect();
    let secrets: Vec<SecretValue> = values.iter().map(|v| SecretValue::new(*v)).collect();
    let Some(redactor) = Redactor::new(&secrets) else {
        return;
    };
    let mut text = before.to_vec();
    let mut inside = Vec::new();
    for value in &values {
        let start = text.len();
        text.extend(spell(value, choices));
        inside.push(start..text.len());
        text.extend_from_slice(after);
    }
    let mut whole = text.clone();
    assert!(redactor.mask(&mut whole));
    for place in inside {
        assert!(whole[place.clone()].iter().all(|b| *b == b'*'), "{:?}", &text[place]);
    }
    let (mut stream, mut out, mut at) = (redactor.clone().stream(), Vec::new(), 0);
    for piece in pieces {
        let end = (at + usize::from(piece)).min(text.len());
        out.extend_from_slice(&stream.piece(&text[at..end], false));
        at = end;
        assert_eq!(out.len() + stream.held(), at, "nothing is lost");
        let begun = redactor.ends_in_a_beginning(&text[..at]).unwrap_or(0);
        assert!(stream.held() <= begun, "{} held, {begun} begun", stream.held());
    }
    out.extend_from_slice(&stream.piece(&text[at..], true));
    assert_eq!(out, whole, "pieces change nothing");
    assert!(out.iter().zip(&text).all(|(masked, byte)| masked == byte || *masked == b'*'));
});
