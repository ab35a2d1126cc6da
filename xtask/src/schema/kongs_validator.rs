//! What Kong's validator, lua-resty-ljsonschema, cannot take: its rules as they stand in its source (1.1.3 to
//! 1.2.0: `store.lua`, `init.lua`). `kong start` fails where one is broken, as soon as a filter chain has a
//! configuration. A schema that keeps them is one that it makes a validator of; what that validator then says
//! of a configuration is tested with a reader of draft 4.

use serde_json::Value;

use super::{HEADER_NAME, meta};

/// Words that it knows: draft 4's, as it leaves out words that are newer (a rule written with one would hold
/// nothing), but for those that would need an answer here (`$ref`, `id`, `format`, `dependencies`).
const WORDS: [&str; 21] = [
    "$schema",
    "title",
    "description",
    "type",
    "enum",
    "properties",
    "patternProperties",
    "additionalProperties",
    "required",
    "items",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
];

/// A name on the way to a schema within: `store.lua` reads it as a part of a JSON pointer in a URI, undoes
/// the escapes, and asserts that the schema has the name that comes out.
fn is_changed_by_unescaping(name: &str) -> bool {
    let bytes = name.as_bytes();
    let tilde = bytes.windows(2).any(|two| two == b"~0" || two == b"~1");
    let percent = bytes.windows(3).any(|three| {
        three[0] == b'%' && three[1].is_ascii_hexdigit() && three[2].is_ascii_hexdigit()
    });
    tilde || percent
}

/// Patterns go to PCRE in Kong and to Lua's own patterns outside of OpenResty: classes, groups, anchors and
/// escaped punctuation are what is used here.
fn is_plain_pattern(pattern: &str) -> bool {
    let mut after_backslash = false;
    let escapes = pattern.chars().all(|c| {
        let fits = !after_backslash || c.is_ascii_punctuation();
        after_backslash = c == '\\' && !after_backslash;
        fits
    });
    escapes && !pattern.contains("(?") && !pattern.contains("[[:")
}

fn problems(schema: &Value, at: &str, found: &mut Vec<String>) {
    let Some(words) = schema.as_object() else {
        found.push(format!("{at}: no schema"));
        return;
    };
    for (word, value) in words {
        let place = format!("{at}/{word}");
        match word.as_str() {
            "properties" | "patternProperties" => {
                for (name, inner) in value.as_object().into_iter().flatten() {
                    if is_changed_by_unescaping(name) {
                        found.push(format!("{place}: {name} is changed by unescaping"));
                    }
                    if word == "patternProperties" && !is_plain_pattern(name) {
                        found.push(format!("{place}: {name}"));
                    }
                    problems(inner, &format!("{place}/{name}"), found);
                }
            }
            "items" | "not" => problems(value, &place, found),
            "allOf" | "anyOf" | "oneOf" => {
                for (n, inner) in value.as_array().into_iter().flatten().enumerate() {
                    problems(inner, &format!("{place}/{n}"), found);
                }
            }
            // Draft 4 has no empty list here.
            "required" if value.as_array().is_none_or(Vec::is_empty) => {
                found.push(format!("{place}: {value}"));
            }
            "additionalProperties" if value.is_object() => problems(value, &place, found),
            "pattern" if !value.as_str().is_some_and(is_plain_pattern) => {
                found.push(format!("{place}: {value}"));
            }
            // `unsupported enum type: userdata` before 1.2.0, and tables in all.
            "enum" => {
                let scalar = |v: &Value| v.is_string() || v.is_number() || v.is_boolean();
                if !value.as_array().is_some_and(|all| all.iter().all(scalar)) {
                    found.push(format!("{place}: null, a list or an object"));
                }
            }
            _ if WORDS.contains(&word.as_str()) => {}
            _ => found.push(format!("{place}: unknown word")),
        }
    }
}

fn all_problems(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    problems(schema, "", &mut found);
    found
}

#[test]
fn the_schema_breaks_no_rule_of_kongs_validator() {
    let schema = &meta()["config_schema"];
    assert_eq!(all_problems(schema), Vec::<String>::new());
    // `kong/db/schema/json.lua` takes no other draft.
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-04/schema#");
}

/// The schema with which `kong start` failed, and other ways to break a rule.
#[test]
fn what_kongs_validator_cannot_take_is_found() {
    let now = meta()["config_schema"].to_string();
    for (from, to) in [
        // As it was until 3.9.1 was tried.
        (
            HEADER_NAME,
            HEADER_NAME.replace("~A-Za-z0-9-", "~0-9A-Za-z-"),
        ),
        (HEADER_NAME, HEADER_NAME.replace("%&", "%2F")),
        (r#""minItems":1"#, r#""enum":["a",null]"#.to_owned()),
        (
            r#""minItems":1"#,
            r##""$ref":"#/definitions/a""##.to_owned(),
        ),
        (r#""minItems":1"#, r#""pattern":"\\d""#.to_owned()),
        (r#""minItems":1"#, r#""required":[]"#.to_owned()),
        (r#""minItems":1"#, r#""const":1"#.to_owned()),
        (r#""minItems":1"#, r#""anyOf":[{"const":1}]"#.to_owned()),
    ] {
        let broken = now.replace(from, &to);
        assert_ne!(broken, now, "{from}");
        let broken: Value = serde_json::from_str(&broken).unwrap();
        assert_ne!(all_problems(&broken), Vec::<String>::new(), "{to}");
    }
}

/// A label's pattern has to say the same in Lua and in PCRE: no `%`, no backslash, and two captures of which
/// the first one is all of it (Kong finds the label's place by its length).
#[test]
fn labels_are_read_alike_by_lua_and_pcre() {
    let labels = meta()["metrics"]["label_patterns"].take();
    let labels = labels.as_array().unwrap();
    assert!(!labels.is_empty());
    for label in labels {
        let name = label["label"].as_str().unwrap();
        let pattern = label["pattern"].as_str().unwrap();
        let end = pattern.strip_suffix('$').unwrap_or(pattern);
        assert_eq!(end, format!("([.]{name}[.]([a-z0-9_]+))"));
    }
}
