//! Reads JSON objects field by field and collects every problem with its path, so that a user sees all
//! errors at once. It knows JSON and nothing of vaults.

use core::cell::RefCell;
use core::fmt;

use super::fields::{Field, Shape};
use super::limits::LIMITS;
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

/// One JSON object being read. Fields are read by name; [`Fields::done`] then names those that the
/// table does not have.
pub(super) struct Fields<'p> {
    path: String,
    members: Object<'p>,
    /// The fields that it may have.
    table: Vec<&'static Field>,
    taken: Vec<&'static str>,
    problems: &'p Problems,
}

impl<'p> Fields<'p> {
    /// Reads `value` as an object with the fields of `table`. The root's path is empty.
    pub(super) fn of(
        value: Json<'p>,
        path: String,
        table: impl IntoIterator<Item = &'static Field>,
        problems: &'p Problems,
    ) -> Option<Self> {
        if let Some(members) = value.object() {
            return Some(Self {
                members,
                ..Self::empty(path, table, problems)
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

    /// An object in which no field is set.
    pub(super) fn empty(
        path: String,
        table: impl IntoIterator<Item = &'static Field>,
        problems: &'p Problems,
    ) -> Self {
        Self {
            path,
            members: Object::default(),
            table: table.into_iter().collect(),
            taken: Vec::new(),
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
        self.taken.push(name);
        debug_assert!(self.field(name).is_some(), "{name} is in no table");
        self.members.get(name)
    }

    /// What the table says of a field.
    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.table.iter().find(|field| field.name == name).copied()
    }

    /// The range of a number.
    fn range(&self, name: &str) -> (u32, u32) {
        match self.field(name).map(|field| field.shape) {
            Some(Shape::Number(min, max)) => (min, max),
            shape => {
                debug_assert!(false, "{name} is {shape:?}");
                (0, u32::MAX)
            }
        }
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

    pub(super) fn number(&mut self, name: &'static str) -> Option<f64> {
        let (min, max) = self.range(name);
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

    pub(super) fn whole_number(&mut self, name: &'static str) -> Option<u32> {
        let number = self.number(name)?;
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
        let path = self.path(name);
        match self.field(name)?.shape {
            Shape::Object(table) => Self::of(value, path, table, self.problems),
            Shape::Limits => {
                let table = LIMITS.iter().map(|limit| &limit.field);
                Self::of(value, path, table, self.problems)
            }
            // Its names are the user's.
            _ => Self::of(value, path, [], self.problems),
        }
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

    /// Names every field that the table does not have, and those that are there twice.
    pub(super) fn done(self) {
        let known: Vec<&str> = self.table.iter().map(|field| field.name).collect();
        let unread = known.iter().find(|name| !self.taken.contains(name));
        debug_assert_eq!(unread, None, "{} has a field that is not read", self.path);
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.members.members() {
            if !known.contains(&name) {
                self.problem(name, unknown_field(name, &known));
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
