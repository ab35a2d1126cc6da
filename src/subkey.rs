//! A part of a secret whose value is a JSON object. Errors name the key that was looked for, never
//! anything of the value.
//!
//! Kong takes texts from flat objects only (`kong/pdk/vault.lua`, `extract_key_from_json_string`). So do
//! we, with the same result; beyond, numbers and booleans come as they are written in the JSON, and more
//! keys lead into nested objects.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;

use crate::json::{Json, Kind, Object};
use crate::quoted::Quoted;

/// Why there is nothing at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubkeyError {
    /// The secret, or what the key before leads to, is no JSON object.
    NotAnObject,
    /// There is no such key.
    Missing(String),
    /// There is an object, a list or null.
    NotText(String),
}

impl fmt::Display for SubkeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject => f.write_str("the secret is not a JSON object"),
            Self::Missing(key) => write!(f, "the secret has no key {key}", key = Quoted(key)),
            Self::NotText(key) => write!(
                f,
                "the secret has no text, number or boolean at {key}",
                key = Quoted(key)
            ),
        }
    }
}

/// The part of `secret` to which `keys` lead; all of it for no keys.
///
/// # Errors
/// Which key leads nowhere.
pub fn select<'s>(secret: &'s [u8], keys: &[String]) -> Result<Cow<'s, [u8]>, SubkeyError> {
    let Some((last, _)) = keys.split_last() else {
        return Ok(Cow::Borrowed(secret));
    };
    let mut object = Object::read(secret).ok();
    let mut value = None;
    for key in keys {
        let members = object.as_ref().ok_or(SubkeyError::NotAnObject)?;
        if !members.has(key) {
            return Err(SubkeyError::Missing(key.clone()));
        }
        value = members.get(key);
        object = value.and_then(Json::object);
    }
    let text = value.and_then(|value| match value.kind() {
        Kind::Text => value.text(),
        Kind::Boolean | Kind::Number => Some(Cow::Borrowed(value.written())),
        Kind::Null | Kind::List | Kind::Object => None,
    });
    match text.ok_or_else(|| SubkeyError::NotText(last.clone()))? {
        Cow::Borrowed(text) => Ok(Cow::Borrowed(text.as_bytes())),
        Cow::Owned(text) => Ok(Cow::Owned(text.into_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at<'s>(secret: &'s str, keys: &str) -> Result<Cow<'s, [u8]>, SubkeyError> {
        let keys: Vec<String> = keys.split('/').map(ToOwned::to_owned).collect();
        select(secret.as_bytes(), &keys)
    }

    #[test]
    fn texts_numbers_and_booleans_come_as_written() {
        let secret = r#"{"t":"a\"\u00e9","n":1.50e3,"b":true,"o":{"p":"deep","l":[1]},"a/b":1,"x":null,"t2":"","t2":"last"}"#;
        for (keys, value) in [
            ("t", "a\"é"),
            ("n", "1.50e3"),
            ("b", "true"),
            ("o/p", "deep"),
            ("t2", "last"),
        ] {
            assert_eq!(at(secret, keys).unwrap(), value.as_bytes(), "{keys}");
        }
        assert_eq!(at(secret, "o"), Err(SubkeyError::NotText("o".into())));
        assert_eq!(at(secret, "x"), Err(SubkeyError::NotText("x".into())));
        assert_eq!(at(secret, "o/q"), Err(SubkeyError::Missing("q".into())));
        assert_eq!(at(secret, "t/q"), Err(SubkeyError::NotAnObject));
    }

    #[test]
    fn errors_show_nothing_of_the_value() {
        for secret in [
            "12345",
            "hush-hush",
            "[\"hush-hush\"]",
            "{\"hush-hush\":1",
            "\u{feff}{}",
        ] {
            assert_eq!(at(secret, "k"), Err(SubkeyError::NotAnObject), "{secret}");
        }
        assert!(
            !at("{\"hush\":\"hush\"}", "k")
                .unwrap_err()
                .to_string()
                .contains("hush")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(secret in proptest::collection::vec(any::<u8>(), 0..100), key in ".{0,5}") {
            let _ = select(&secret, &[key]);
        }
    }
}
