//! Reads JSON objects field by field and collects every problem with its path, so that a user sees all
//! errors at once. It knows JSON and nothing of vaults.

use std::cell::RefCell;
use std::fmt;

use serde_json::{Map, Value};

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

/// One JSON object being read. Fields are taken out by name; [`Fields::done`] then names what is left
/// over.
pub(super) struct Fields<'p> {
    path: String,
    left: Map<String, Value>,
    known: Vec<&'static str>,
    problems: &'p Problems,
}

impl<'p> Fields<'p> {
    /// Reads `value` as an object. The root's path is empty.
    pub(super) fn of(value: Value, path: String, problems: &'p Problems) -> Option<Self> {
        if let Value::Object(left) = value {
            return Some(Self {
                path,
                left,
                known: Vec::new(),
                problems,
            });
        }
        let message = format!("must be an object, not {}", kind(&value));
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
    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.left.remove(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, wanted: &str, value: &Value) {
        self.problem(name, format!("must be {wanted}, not {}", kind(value)));
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) if text.is_empty() => {
                self.problem(name, "must not be empty; leave it out instead");
                None
            }
            Value::String(text) => Some(text),
            other => {
                self.wrong(name, "a text", &other);
                None
            }
        }
    }

    pub(super) fn number(&mut self, name: &'static str, min: u32, max: u32) -> Option<f64> {
        let value = self.take(name)?;
        let number = value.as_f64();
        if number.is_none() {
            self.wrong(name, "a number", &value);
        }
        let number = number?;
        if (f64::from(min)..=f64::from(max)).contains(&number) {
            return Some(number);
        }
        // As serde_json writes it: the standard library's code for this is larger.
        let number = value.as_number().map(ToString::to_string);
        let number = number.unwrap_or_default();
        self.problem(name, format!("must be from {min} to {max}, not {number}"));
        None
    }

    pub(super) fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let value = self.take(name)?;
        if value.as_bool().is_none() {
            self.wrong(name, "true or false", &value);
        }
        value.as_bool()
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let text = self.text(name)?;
        let found = choices.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.problem(
                name,
                format!("must be one of {}, not {text:?}", words.join(", ")),
            );
        }
        found.map(|(_, choice)| *choice)
    }

    pub(super) fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let items = self.list(name)?;
        let path = self.path(name);
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text),
                other => self.problems.add(
                    format!("{path}[{index}]"),
                    format!("must be a text, not {}", kind(&other)),
                ),
            }
        }
        Some(texts)
    }

    pub(super) fn list(&mut self, name: &'static str) -> Option<Vec<Value>> {
        match self.take(name)? {
            Value::Array(items) => Some(items),
            other => {
                self.wrong(name, "a list", &other);
                None
            }
        }
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
        let mut pairs = Vec::with_capacity(object.left.len());
        for (key, value) in &object.left {
            match value {
                Value::String(text) => pairs.push((key.clone(), text.clone())),
                other => object.problem(key, format!("must be a text, not {}", kind(other))),
            }
        }
        pairs
    }

    /// A field that is accepted because others write it, and means nothing here.
    pub(super) fn ignore(&mut self, name: &'static str) {
        self.take(name);
    }

    /// Names every field that nobody took.
    pub(super) fn done(self) {
        for name in self.left.keys() {
            self.problem(name, unknown_field(name, &self.known));
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
const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
