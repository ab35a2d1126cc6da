//! Reads JSON objects field by field and collects every problem with its path, so that a user sees all
//! errors at once. It knows JSON and nothing of vaults.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use crate::json::{Json, Kind, Object};
use crate::quoted::Quoted;

/// One thing that is wrong in a configuration. Never holds a secret: values are quoted only where the
/// field cannot hold one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `vaults[0].config.ttl`.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Collects problems from wherever they are found.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(super) fn add(&self, path: impl Into<String>, message: impl Into<String>) {
        self.0.borrow_mut().push(Problem {
            path: path.into(),
            message: message.into(),
        });
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// One JSON object being read. Fields are asked for by name; [`Fields::done`] then names those that were
/// not asked for.
pub(super) struct Fields<'p> {
    path: String,
    members: Object<'p>,
    known: Vec<&'static str>,
    problems: &'p Problems,
}

impl<'p> Fields<'p> {
    /// Reads `value` as an object. The root's path is empty.
    pub(super) fn of(value: Json<'p>, path: String, problems: &'p Problems) -> Option<Self> {
        if let Some(members) = value.object() {
            return Some(Self {
                path,
                members,
                known: Vec::new(),
                problems,
            });
        }
        let message = format!("must be an object, not {}", kind(value));
        problems.add(
            if path.is_empty() {
                "(all)".into()
            } else {
                path
            },
            message,
        );
        None
    }

    /// An object without any fields.
    pub(super) fn empty(path: String, problems: &'p Problems) -> Self {
        Self {
            path,
            members: Object::default(),
            known: Vec::new(),
            problems,
        }
    }

    /// The path of one of this object's fields.
    pub(super) fn path(&self, name: &str) -> String {
        // JSON has a field without a name; a path without one would be nowhere.
        let name = if name.is_empty() { "\"\"" } else { name };
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    pub(super) fn problem(&self, name: &str, message: impl Into<String>) {
        self.problems.add(self.path(name), message);
    }

    /// A field that is absent or null gives `None`, without a problem.
    fn take(&mut self, name: &'static str) -> Option<Json<'p>> {
        self.known.push(name);
        self.members.get(name)
    }

    fn wrong(&self, name: &str, wanted: &str, value: Json<'_>) {
        self.problem(name, format!("must be {wanted}, not {}", kind(value)));
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        let value = self.take(name)?;
        let Some(text) = value.text() else {
            self.wrong(name, "a text", value);
            return None;
        };
        if text.is_empty() {
            self.problem(name, "must not be empty; leave it out instead");
            return None;
        }
        Some(text.into_owned())
    }

    pub(super) fn number(&mut self, name: &'static str, min: u32, max: u32) -> Option<f64> {
        let value = self.take(name)?;
        if value.kind() != Kind::Number {
            self.wrong(name, "a number", value);
            return None;
        }
        let written = value.written();
        let number = value
            .float()
            .filter(|n| (min.into()..=max.into()).contains(n));
        if number.is_none() {
            self.problem(name, format!("must be from {min} to {max}, not {written}"));
        }
        number
    }

    pub(super) fn whole_number(&mut self, name: &'static str, min: u32, max: u32) -> Option<u32> {
        let number = self.number(name, min, max)?;
        if number.fract() == 0.0 {
            // Within u32 by its range.
            return Some(number as u32);
        }
        self.problem(name, format!("must be a whole number, not {number}"));
        None
    }

    pub(super) fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let value = self.take(name)?;
        if value.boolean().is_none() {
            self.wrong(name, "true or false", value);
        }
        value.boolean()
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let at = self.one_of(name, &words)?;
        choices.get(at).map(|(_, choice)| *choice)
    }

    /// Which of these words it is.
    fn one_of(&mut self, name: &'static str, words: &[&str]) -> Option<usize> {
        let text = self.text(name)?;
        let found = words.iter().position(|word| *word == text);
        if found.is_none() {
            let words = words.join(", ");
            let text = Quoted(&text);
            self.problem(name, format!("must be one of {words}, not {text}"));
        }
        found
    }

    pub(super) fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let items = self.list(name)?;
        let path = self.path(name);
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item.text() {
                Some(text) => texts.push(text.into_owned()),
                None => self.problems.add(
                    format!("{path}[{index}]"),
                    format!("must be a text, not {}", kind(item)),
                ),
            }
        }
        Some(texts)
    }

    pub(super) fn list(&mut self, name: &'static str) -> Option<Vec<Json<'p>>> {
        let value = self.take(name)?;
        let items = value.list();
        if items.is_none() {
            self.wrong(name, "a list", value);
        }
        items
    }

    pub(super) fn object(&mut self, name: &'static str) -> Option<Self> {
        let value = self.take(name)?;
        Self::of(value, self.path(name), self.problems)
    }

    /// An object from names of the user's choice to texts.
    pub(super) fn map_of_texts(&mut self, name: &'static str) -> Vec<(String, String)> {
        let Some(object) = self.object(name) else {
            return Vec::new();
        };
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (key, value) in object.members.members() {
            match value.text() {
                _ if pairs.iter().any(|(other, _)| other == key) => {
                    object.problem(key, "is there twice; leave one of them out");
                }
                Some(text) => pairs.push((key.to_owned(), text.into_owned())),
                None => object.problem(key, format!("must be a text, not {}", kind(value))),
            }
        }
        pairs
    }

    /// A field that is accepted because others write it, and means nothing here.
    pub(super) fn ignore(&mut self, name: &'static str) {
        self.take(name);
    }

    /// Names every field that was not taken, and those that are there twice.
    pub(super) fn done(self) {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.members.members() {
            if !self.known.contains(&name) {
                self.problem(name, unknown_field(name, &self.known));
            } else if names.contains(&name) {
                self.problem(name, "is there twice; leave one of them out");
            }
            names.push(name);
        }
    }
}

fn unknown_field(name: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance * 2 <= candidate.len().max(2));
    match nearest {
        Some((_, candidate)) => format!("is not a known field; did you mean `{candidate}`?"),
        None => format!("is not a known field; known are {}", known.join(", ")),
    }
}

/// What a JSON value is, without showing it: a value that stands in a wrong place may be a secret.
fn kind(value: Json<'_>) -> &'static str {
    match value.kind() {
        Kind::Null => "null",
        Kind::Boolean => "true or false",
        Kind::Number => "a number",
        Kind::Text if value.text().is_none() => "a text with an invalid escape",
        Kind::Text => "a text",
        Kind::List => "a list",
        Kind::Object => "an object",
    }
}
