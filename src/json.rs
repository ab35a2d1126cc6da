//! JSON, one level at a time, as slices of the text that it is in: what the configuration, Azure's answers
//! and structured secrets are read with. It knows none of their fields.
//!
//! Numbers stay text, and nothing is built of what nobody asks for: readers that make a value of
//! everything are 77 KB larger.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use hifijson::str::LexAlloc as _;
use hifijson::token::Lex as _;
use hifijson::{Error, Expect, SliceLexer};
use zeroize::Zeroizing;

/// Lists and objects inside each other. Reading them is recursive, and a VM's stack is small.
const DEEPEST: u32 = 128;

/// The text is not JSON, or not what was expected at this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Where a text stops being JSON, and why. It shows nothing of the text.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// From 1.
    line: usize,
    /// From 1, in bytes.
    column: usize,
    why: Error,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, why } = self;
        let why = match why {
            Error::Depth => "too many lists and objects inside each other",
            Error::Num(_) => "expected a digit",
            Error::Str(hifijson::str::Error::Eof) => "a string without an end",
            Error::Str(hifijson::str::Error::Control) => {
                "a control character in a string (a line break?)"
            }
            Error::Str(hifijson::str::Error::Utf8(_)) => "not UTF-8",
            Error::Str(hifijson::str::Error::Escape(_)) => "a backslash that escapes nothing",
            Error::Token(Expect::Value) => "expected a value",
            Error::Token(Expect::ValueOrEnd) => "expected a value or the end of the list or object",
            Error::Token(Expect::CommaOrEnd) => "expected a comma or the end of the list or object",
            Error::Token(Expect::String) => "expected a name in quotes",
            Error::Token(Expect::Colon) => "expected a colon",
            Error::Token(Expect::Eof) => "expected nothing more",
        };
        write!(f, "{why} at line {line} column {column}")
    }
}

/// A JSON value as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<'a>(&'a str);

/// What kind of value it is.
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
    /// A list.
    List,
    /// An object.
    Object,
}

impl<'a> Json<'a> {
    /// An object without members.
    pub const EMPTY: Self = Self("{}");

    /// The one value that a text is.
    ///
    /// # Errors
    /// Where it stops being one.
    pub fn read(text: &'a [u8]) -> Result<Self, SyntaxError> {
        let failed = |left: usize, why| {
            let read = text.get(..text.len() - left).unwrap_or_default();
            let column = read.iter().rev().take_while(|b| **b != b'\n').count() + 1;
            SyntaxError {
                line: read.iter().filter(|b| **b == b'\n').count() + 1,
                column,
                why,
            }
        };
        let text = core::str::from_utf8(text).map_err(|error| {
            let left = text.len() - error.valid_up_to();
            failed(left, hifijson::str::Error::Utf8(error).into())
        })?;
        let mut lexer = SliceLexer::new(text.as_bytes());
        lexer
            .exactly_one(SliceLexer::ws_peek, |next, lexer| {
                value(text, next, lexer, DEEPEST)
            })
            .map_err(|why| failed(lexer.as_slice().len(), why))
    }

    /// As it is written.
    #[must_use]
    pub const fn written(self) -> &'a str {
        self.0
    }

    /// What it is.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'"') => Kind::Text,
            Some(b'[') => Kind::List,
            Some(b'{') => Kind::Object,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            _ => Kind::Null,
        }
    }

    /// The members of an object.
    #[must_use]
    pub fn object(self) -> Option<Object<'a>> {
        if self.kind() != Kind::Object {
            return None;
        }
        Object::read(self.0.as_bytes()).ok()
    }

    /// The items of a list.
    #[must_use]
    pub fn list(self) -> Option<Vec<Self>> {
        if self.kind() != Kind::List {
            return None;
        }
        let mut lexer = SliceLexer::new(self.0.as_bytes());
        let mut items = Vec::new();
        let read = lexer
            .discarded()
            .seq(b']', SliceLexer::ws_peek, |next, lexer| {
                items.push(value(self.0, next, lexer, DEEPEST)?);
                Ok::<_, Error>(())
            });
        read.ok()?;
        Some(items)
    }

    /// What a string says.
    #[must_use]
    pub fn text(self) -> Option<Cow<'a, str>> {
        text(self.0.as_bytes()).ok()
    }

    /// `true` or `false`.
    #[must_use]
    pub fn boolean(self) -> Option<bool> {
        self.0.parse().ok()
    }

    /// A whole number, not below zero.
    #[must_use]
    pub fn number(self) -> Option<u64> {
        self.0.parse().ok()
    }
}

/// Reads the value that begins with `next`, and gives it as it is written in `text`, whose rest the lexer
/// has.
fn value<'a>(
    text: &'a str,
    next: u8,
    lexer: &mut SliceLexer<'a>,
    depth: u32,
) -> Result<Json<'a>, Error> {
    let from = text.len() - lexer.as_slice().len();
    pass(next, lexer, depth)?;
    let to = text.len() - lexer.as_slice().len();
    Ok(Json(text.get(from..to).unwrap_or_default()))
}

/// Reads over a value: [`hifijson::ignore::parse`] with a limit to its depth, and stricter with escapes.
fn pass(next: u8, lexer: &mut SliceLexer<'_>, depth: u32) -> Result<(), Error> {
    let deeper = || depth.checked_sub(1).ok_or(Error::Depth);
    match next {
        b'a'..=b'z' => Ok(lexer.null_or_bool().map(drop).ok_or(Expect::Value)?),
        b'0'..=b'9' | b'-' => Ok(hifijson::num::Lex::num_ignore(lexer).validate().map(drop)?),
        b'"' => Ok(lexer.discarded().str_string().map(drop)?),
        b'[' => {
            let depth = deeper()?;
            let each = |next, lexer: &mut SliceLexer<'_>| pass(next, lexer, depth);
            lexer.discarded().seq(b']', SliceLexer::ws_peek, each)
        }
        b'{' => {
            let depth = deeper()?;
            lexer
                .discarded()
                .seq(b'}', SliceLexer::ws_peek, |next, lexer| {
                    let (_, first) = name(next, lexer)?;
                    pass(first, lexer, depth)
                })
        }
        _ => Err(Expect::Value)?,
    }
}

/// A member's name, with the first byte of its value.
fn name<'a>(next: u8, lexer: &mut SliceLexer<'a>) -> Result<(Cow<'a, str>, u8), Error> {
    lexer.expect(|_| Some(next), b'"').ok_or(Expect::String)?;
    let name = lexer.str_string()?;
    lexer
        .expect(SliceLexer::ws_peek, b':')
        .ok_or(Expect::Colon)?;
    Ok((name, lexer.ws_peek().ok_or(Expect::Value)?))
}

/// An object's members in the order of the text. Of those that have the same name, the last one counts, as
/// in Lua's, Python's and JavaScript's readers.
#[derive(Debug, Default)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Object<'a> {
    /// The object that a text is.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn read(text: &'a [u8]) -> Result<Self, Malformed> {
        let text = core::str::from_utf8(text).map_err(|_| Malformed)?;
        let mut members = Vec::new();
        let read =
            SliceLexer::new(text.as_bytes()).exactly_one(SliceLexer::ws_peek, |first, lexer| {
                if first != b'{' {
                    return Err(Error::from(Expect::Value));
                }
                lexer
                    .discarded()
                    .seq(b'}', SliceLexer::ws_peek, |next, lexer| {
                        let (name, first) = name(next, lexer)?;
                        members.push((name, value(text, first, lexer, DEEPEST)?));
                        Ok(())
                    })
            });
        read.map_err(|_| Malformed)?;
        Ok(Self(members))
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

    /// A member that is a string.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn text(&self, name: &str) -> Result<Option<Zeroizing<String>>, Malformed> {
        self.member(name, |json| {
            json.text().map(|text| Zeroizing::new(text.into_owned()))
        })
    }

    /// A member that is a whole number, not below zero.
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

    /// A member that is a list: its whole numbers.
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

/// What a JSON string says.
///
/// # Errors
/// When the text is anything else.
pub fn text(json: &[u8]) -> Result<Cow<'_, str>, Malformed> {
    let read = SliceLexer::new(json).exactly_one(SliceLexer::ws_peek, |next, lexer| {
        if next != b'"' {
            return Err(Error::from(Expect::Value));
        }
        Ok(lexer.discarded().str_string()?)
    });
    read.map_err(|_| Malformed)
}

#[cfg(test)]
mod tests;
