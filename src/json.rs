//! JSON one level at a time, over `serde_json`: what the configuration and structured secrets are read with.
//! It knows none of their fields.
//!
//! Where the fields of an answer are known beforehand, a struct with `derive(Deserialize)` reads it. This
//! module is for the three things that such structs and [`serde_json::Value`] cannot do: members that occur
//! twice stay visible, numbers stay as they are written, and what is not asked for is neither copied nor
//! built. `RawValue` is skipped without recursion, so depth costs no stack here.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The text is not JSON, or not of the type that was expected at this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A JSON value as it is written.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(transparent)]
pub struct Json<'a>(#[serde(borrow)] &'a RawValue);

/// The type of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean,
    /// A number.
    Number,
    /// A string.
    Text,
    /// An array.
    List,
    /// An object.
    Object,
}

impl<'a> Json<'a> {
    /// The one JSON value that a text is.
    ///
    /// # Errors
    /// Where it stops being JSON, and why; syntax errors of `serde_json` show nothing of the text. The
    /// escapes in a string are checked where the string is read.
    pub fn read(text: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// As it is written.
    #[must_use]
    pub fn written(self) -> &'a str {
        self.0.get()
    }

    /// Its type.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self.written().as_bytes().first() {
            Some(b'"') => Kind::Text,
            Some(b'[') => Kind::List,
            Some(b'{') => Kind::Object,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            _ => Kind::Null,
        }
    }

    /// The members, if it is an object.
    #[must_use]
    pub fn object(self) -> Option<Object<'a>> {
        self.parsed()
    }

    /// The items, if it is an array.
    #[must_use]
    pub fn list(self) -> Option<Vec<Self>> {
        self.parsed()
    }

    /// The text, if it is a string.
    #[must_use]
    pub fn text(self) -> Option<Cow<'a, str>> {
        text(self.written().as_bytes()).ok()
    }

    /// `true` or `false`, if it is one of them.
    #[must_use]
    pub fn boolean(self) -> Option<bool> {
        self.parsed()
    }

    /// The number, if it is a whole one from 0 on.
    #[must_use]
    pub fn number(self) -> Option<u64> {
        self.parsed()
    }

    /// The number, if it is one that a float holds.
    #[must_use]
    pub fn float(self) -> Option<f64> {
        self.parsed()
    }

    fn parsed<T: Deserialize<'a>>(self) -> Option<T> {
        serde_json::from_str(self.written()).ok()
    }
}

/// What a JSON string says.
///
/// # Errors
/// When the text is anything else.
pub fn text(json: &[u8]) -> Result<Cow<'_, str>, Malformed> {
    #[derive(serde::Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let text = serde_json::from_slice(json);
    text.map(|Text(text)| text).map_err(|_| Malformed)
}

/// An object's members in the order of the text. Of those that have the same name, the last one counts, as
/// in Lua's, Python's and JavaScript's readers.
#[derive(Debug, Default)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                #[derive(serde::Deserialize)]
                struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl<'a> Object<'a> {
    /// The object that a text is.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn read(text: &'a [u8]) -> Result<Self, Malformed> {
        serde_json::from_slice(text).map_err(|_| Malformed)
    }

    /// The member of this name; `None` if there is none or if it is `null`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Json<'a>> {
        let mut members = self.0.iter().rev();
        let (_, value) = members.find(|(known, _)| known == name)?;
        Some(*value).filter(|value| value.kind() != Kind::Null)
    }

    /// Whether there is a member of this name, `null` too.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// All members, also those that do not count.
    pub fn members(&self) -> impl Iterator<Item = (&str, Json<'a>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }
}

/// The members of Azure's answers, each of one type.
impl<'a> Object<'a> {
    /// A member that is a string.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn text(&self, name: &str) -> Result<Option<Zeroizing<String>>, Malformed> {
        self.member(name, |json| {
            json.text().map(|text| Zeroizing::new(text.into_owned()))
        })
    }

    /// A member that is a whole number from 0 on.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Malformed> {
        self.member(name, Json::number)
    }

    /// A member that is `true` or `false`.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Malformed> {
        self.member(name, Json::boolean)
    }

    /// A member that is an object; an empty one if there is none.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn object(&self, name: &str) -> Result<Self, Malformed> {
        Ok(self.member(name, Json::object)?.unwrap_or_default())
    }

    /// The whole numbers in a member that is an array.
    #[must_use]
    pub fn numbers(&self, name: &str) -> Vec<u64> {
        let items = self.get(name).and_then(Json::list).unwrap_or_default();
        items.into_iter().filter_map(Json::number).collect()
    }

    fn member<T>(
        &self,
        name: &str,
        read: impl FnOnce(Json<'a>) -> Option<T>,
    ) -> Result<Option<T>, Malformed> {
        let read = self.get(name).map(|json| read(json).ok_or(Malformed));
        read.transpose()
    }
}

#[cfg(test)]
mod tests;
