//! The members of a JSON object, one level at a time, as slices of the text that they are in: what Azure's
//! answers and structured secrets are read with. It knows none of their fields.
//!
//! A type for each answer, read by code that serde derives, would be a tenth of the filter's size.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The text is not JSON, or not what was expected at this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// An object's members in the order of the text. Of those that have the same name, the last one counts, as
/// in Lua's, Python's and JavaScript's readers.
#[derive(Debug, Default)]
pub struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// The object that a text is.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn read(text: &'a [u8]) -> Result<Self, Malformed> {
        serde_json::from_slice(text).map_err(|_| Malformed)
    }

    /// The member of this name as it is written; `None` if there is none or if it is `null`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let mut members = self.0.iter().rev();
        let (_, value) = members.find(|(known, _)| known == name)?;
        Some(value.get()).filter(|text| *text != "null")
    }

    /// Whether there is a member of this name, `null` too.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// A member that is a string.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn text(&self, name: &str) -> Result<Option<Zeroizing<String>>, Malformed> {
        let text = self.get(name).map(|json| text(json.as_bytes()));
        let text = text.transpose()?;
        Ok(text.map(|text| Zeroizing::new(text.into_owned())))
    }

    /// A member that is a whole number, not below zero.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Malformed> {
        let number = self.get(name).map(str::parse);
        number.transpose().map_err(|_| Malformed)
    }

    /// A member that is `true` or `false`.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Malformed> {
        let boolean = self.get(name).map(str::parse);
        boolean.transpose().map_err(|_| Malformed)
    }

    /// A member that is a list: its whole numbers.
    #[must_use]
    pub fn numbers(&self, name: &str) -> Vec<u64> {
        let list = self.get(name).and_then(|json| json.strip_prefix('['));
        let items = list.unwrap_or_default().trim_end_matches(']').split(',');
        items.filter_map(|item| item.trim().parse().ok()).collect()
    }

    /// A member that is an object; an empty one if there is none.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn object(&self, name: &str) -> Result<Self, Malformed> {
        self.get(name)
            .map_or_else(|| Ok(Self::default()), |json| Self::read(json.as_bytes()))
    }
}

/// What a JSON string says.
///
/// # Errors
/// When the text is anything else.
pub fn text(json: &[u8]) -> Result<Cow<'_, str>, Malformed> {
    let text: Text<'_> = serde_json::from_slice(json).map_err(|_| Malformed)?;
    Ok(text.0)
}

/// Serde's own `Cow` never borrows.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        from.deserialize_str(Read)
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<Text<'de>, &RawValue>()? {
                    members.push((name.0, value));
                }
                Ok(Object(members))
            }
        }

        from.deserialize_map(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_by_kind() {
        let text = br#"{"t":"a\"\u00e9","n":12,"b":true,"x":null,"l":[ 1, "2", 30 ],"o":{"t":"in"},"n":13,"\u0061":1.5}"#;
        let object = Object::read(text).unwrap();
        let read = |name| object.text(name).map(|text| text.map(|t| t.to_string()));
        assert_eq!(read("t"), Ok(Some("a\"é".to_owned())));
        assert_eq!(read("x"), Ok(None));
        assert_eq!(read("none"), Ok(None));
        assert_eq!(read("n"), Err(Malformed));
        assert_eq!(object.number("n"), Ok(Some(13)));
        assert_eq!(object.number("a"), Err(Malformed));
        assert_eq!(object.number("t"), Err(Malformed));
        assert_eq!(object.boolean("b"), Ok(Some(true)));
        assert_eq!(object.boolean("n"), Err(Malformed));
        assert_eq!(object.numbers("l"), [1, 30]);
        assert!(object.numbers("t").is_empty());
        let inner = object.object("o").unwrap();
        assert_eq!(inner.text("t").unwrap().unwrap().as_str(), "in");
        assert!(object.object("none").unwrap().get("t").is_none());
        assert_eq!(object.object("t").map(|_| ()), Err(Malformed));
        assert!(object.has("x") && !object.has("none"));
    }

    #[test]
    fn what_is_no_object_is_told() {
        for text in [
            "",
            "1",
            "[]",
            "\"t\"",
            "{",
            "{\"a\":}",
            "{}x",
            "\u{feff}{}",
            "{\"a\":\"\n\"}",
        ] {
            assert!(Object::read(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(Object::read(b"{\"a\":\"\xff\"}").is_err());
        assert!(Object::read(b" {} ").is_ok());
    }
}
