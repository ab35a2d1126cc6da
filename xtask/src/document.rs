//! JSON and YAML as values that know on which line of the file they stand, so that a problem can be shown
//! where it is. JSON is read as YAML, of which it is a part. It knows nothing of what the values mean.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};

/// A value with its line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Counted from 1; for a field's value, the line of its name.
    pub(crate) line: usize,
    /// What stands there.
    pub(crate) content: Content,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    /// A text; `lines` is set where its lines are the file's lines, and then is where it begins.
    Text { text: String, lines: Option<usize> },
    /// A number, a truth value or nothing.
    Plain(Value),
    /// A list.
    List(Vec<Node>),
    /// An object, in the file's order.
    Object(Vec<(String, Node)>),
}

/// Why a file cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// All documents of a file; a file of JSON has one.
pub(crate) fn read(text: &str) -> Result<Vec<Node>, Unreadable> {
    // YAML indents with blanks only, JSON also with tabs. Outside of JSON's texts a tab is a blank, and
    // inside them it may not be.
    let blanks;
    let text = if text.trim_start().starts_with(['{', '[']) {
        blanks = text.replace('\t', " ");
        &blanks
    } else {
        text
    };
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Unreadable {
            line: error.marker().line(),
            message: error.info().to_owned(),
        })?;
        builder.take(event, span)?;
    }
    Ok(builder.documents)
}

impl Node {
    fn plain(line: usize, value: Value) -> Self {
        Self {
            line,
            content: Content::Plain(value),
        }
    }

    /// A field of an object.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        let found = self.fields().iter().find(|(key, _)| key == name);
        found.map(|(_, node)| node)
    }

    /// A field of a field and so on.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| node.get(name))
    }

    /// The fields of an object; none of what is no object.
    pub(crate) fn fields(&self) -> &[(String, Self)] {
        match &self.content {
            Content::Object(fields) => fields,
            _ => &[],
        }
    }

    /// The items of a list; none of what is no list.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.content {
            Content::List(items) => items,
            _ => &[],
        }
    }

    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The text of a field.
    pub(crate) fn text_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path)?.text()
    }

    /// The same without lines.
    pub(crate) fn value(&self) -> Value {
        match &self.content {
            Content::Text { text, .. } => Value::String(text.clone()),
            Content::Plain(value) => value.clone(),
            Content::List(items) => items.iter().map(Self::value).collect(),
            Content::Object(fields) => {
                let fields = fields.iter().map(|(k, node)| (k.clone(), node.value()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }

    /// The line of what `path` names (`vaults[0].config.ttl`), or of the last part of it that is there.
    pub(crate) fn line_of(&self, path: &str) -> usize {
        self.follow(path).unwrap_or(self.line)
    }

    fn follow(&self, path: &str) -> Option<usize> {
        let path = path.strip_prefix('.').unwrap_or(path);
        if let Some(rest) = path.strip_prefix('[') {
            let (index, rest) = rest.split_once(']')?;
            return Some(
                self.items()
                    .get(index.parse::<usize>().ok()?)?
                    .line_of(rest),
            );
        }
        // A header's name may hold dots: the longest name that fits is meant.
        let fits = |name: &str| {
            let rest = path.strip_prefix(name)?;
            (rest.is_empty() || rest.starts_with(['.', '['])).then_some(rest)
        };
        let candidates = self
            .fields()
            .iter()
            .filter_map(|(k, n)| Some((k, n, fits(k)?)));
        let (_, node, rest) = candidates.max_by_key(|(name, _, _)| name.len())?;
        Some(node.line_of(rest))
    }

    /// Moves every line by so many.
    pub(crate) fn moved(mut self, by: usize) -> Self {
        self.line += by;
        self.content = match self.content {
            Content::List(items) => {
                Content::List(items.into_iter().map(|item| item.moved(by)).collect())
            }
            Content::Object(fields) => {
                let fields = fields.into_iter().map(|(k, node)| (k, node.moved(by)));
                Content::Object(fields.collect())
            }
            Content::Text { text, lines } => Content::Text {
                text,
                lines: lines.map(|line| line + by),
            },
            plain @ Content::Plain(_) => plain,
        };
        self
    }

    /// Gives everything one line: for text of which only the beginning is known.
    pub(crate) fn on_line(mut self, line: usize) -> Self {
        self.line = line;
        self.content = match self.content {
            Content::List(items) => {
                Content::List(items.into_iter().map(|item| item.on_line(line)).collect())
            }
            Content::Object(fields) => {
                let fields = fields.into_iter().map(|(k, node)| (k, node.on_line(line)));
                Content::Object(fields.collect())
            }
            other => other,
        };
        self
    }
}

/// A list or object that is not complete yet.
struct Open {
    line: usize,
    anchor: usize,
    name: Option<(String, usize)>,
    content: Content,
    /// What `<<` brings in: fields that are written here go before it.
    merged: Vec<Node>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    documents: Vec<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Unreadable> {
        let line = span.start.line();
        match event {
            Event::SequenceStart(anchor, _) => self.begin(line, anchor, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.begin(line, anchor, Content::Object(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(mut open) = self.open.pop() {
                    if let Content::Object(fields) = &mut open.content {
                        open.merged.iter().for_each(|from| merge(fields, from));
                    }
                    let node = Node {
                        line: open.line,
                        content: open.content,
                    };
                    return self.put(node, open.anchor, line);
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_text =
                    style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str");
                let node = scalar(&text, style, is_text, line);
                return self.put(node, anchor, line);
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(Unreadable {
                        line,
                        message: "refers to an anchor that is not there".into(),
                    });
                };
                return self.put(node, 0, line);
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, line: usize, anchor: usize, content: Content) {
        self.open.push(Open {
            line,
            anchor,
            name: None,
            content,
            merged: Vec::new(),
        });
    }

    /// Puts a complete value where it belongs: it is an object's name, its value, an item, or a document.
    fn put(&mut self, mut node: Node, anchor: usize, line: usize) -> Result<(), Unreadable> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Object(fields) => match open.name.take() {
                None => {
                    let name = as_name(&node).ok_or_else(|| Unreadable {
                        line,
                        message: "has a list or an object as a name; is a reference `{vault://…}` written without quotes?".into(),
                    })?;
                    open.name = Some((name, node.line));
                }
                Some((name, _)) if name == "<<" => open.merged.push(node),
                Some((name, _)) if fields.iter().any(|(other, _)| *other == name) => {
                    return Err(Unreadable {
                        line: node.line,
                        message: format!("has {name:?} a second time"),
                    });
                }
                Some((name, name_line)) => {
                    node.line = name_line;
                    fields.push((name, node));
                }
            },
            _ => {}
        }
        Ok(())
    }
}

/// `<<`: the fields of another object, or of several, that are not here already.
fn merge(fields: &mut Vec<(String, Node)>, from: &Node) {
    for (name, node) in from.fields() {
        if !fields.iter().any(|(other, _)| other == name) {
            fields.push((name.clone(), node.clone()));
        }
    }
    for item in from.items() {
        merge(fields, item);
    }
}

fn as_name(node: &Node) -> Option<String> {
    match &node.content {
        Content::Text { text, .. } => Some(text.clone()),
        Content::Plain(value) => Some(value.to_string()),
        _ => None,
    }
}

fn scalar(text: &str, style: ScalarStyle, is_text: bool, line: usize) -> Node {
    if !is_text && let Some(value) = plain(text) {
        return Node::plain(line, value);
    }
    let lines = match style {
        // The parser's line is the first one that is not empty.
        ScalarStyle::Literal => {
            let empty = text.chars().take_while(|c| *c == '\n').count();
            Some(line.saturating_sub(empty))
        }
        _ if !text.contains('\n') => Some(line),
        _ => None,
    };
    Node {
        line,
        content: Content::Text {
            text: text.to_owned(),
            lines,
        },
    }
}

/// YAML's core schema, as far as JSON has it.
fn plain(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Some(Value::Null),
        "true" | "True" | "TRUE" => Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => Some(Value::Bool(false)),
        _ => number(text),
    }
}

fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = text.parse::<i64>() {
        return Some(Value::Number(number.into()));
    }
    let float = text.parse::<f64>().ok();
    float.and_then(Number::from_f64).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(text: &str) -> Node {
        let mut documents = read(text).unwrap();
        assert_eq!(documents.len(), 1);
        documents.remove(0)
    }

    #[test]
    fn json_and_yaml_give_the_same_value() {
        let json = "{\n\t\"a\": [1, true, null, \"x\", 1.5],\n\t\"b\": {\"c\": \"\"}\n}";
        let yaml = "a:\n  - 1\n  - true\n  - ~\n  - x\n  - 1.5\nb: {c: ''}\n";
        let value = json!({"a": [1, true, null, "x", 1.5], "b": {"c": ""}});
        assert_eq!(one(json).value(), value);
        assert_eq!(one(yaml).value(), value);
    }

    #[test]
    fn a_path_leads_to_its_line_or_as_far_as_it_goes() {
        let node = one(
            "vaults:\n  - name: azure\n    config:\n      ttl: 1\nrequest:\n  headers:\n    x.a: 1\n    x: 2\n",
        );
        for (path, line) in [
            ("vaults[0].name", 2),
            ("vaults[0].config.ttl", 4),
            ("vaults[0].config.vault_uri", 3),
            ("vaults[3].name", 1),
            ("request.headers.x.a", 7),
            ("request.headers.x", 8),
            ("on_error", 1),
            ("(all)", 1),
        ] {
            assert_eq!(node.line_of(path), line, "{path}");
        }
    }

    #[test]
    fn a_literal_text_knows_its_lines_and_a_folded_one_does_not() {
        let node = one("a: | # why\n\n  {\n  }\nb: >\n  {\n\n  }\nc: '{}'\n");
        let lines = |name| match &node.get(name).unwrap().content {
            Content::Text { lines, .. } => *lines,
            _ => panic!("a text"),
        };
        assert_eq!(
            (lines("a"), lines("b"), lines("c")),
            (Some(2), None, Some(9))
        );
    }

    #[test]
    fn anchors_merges_and_documents_are_followed() {
        let documents =
            read("x: &x {a: 1}\ny: {<<: *x, b: 2}\nw: {<<: *x, a: 3}\n---\nz: 0123\n").unwrap();
        assert_eq!(
            documents[0].get("y").unwrap().value(),
            json!({"a": 1, "b": 2})
        );
        assert_eq!(documents[0].get("w").unwrap().value(), json!({"a": 3}));
        assert_eq!(documents[1].value(), json!({"z": 123}));
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_line() {
        for (text, line, message) in [
            ("a: 1\nb: [1\n", 3, ""),
            ("a: 1\na: 2\n", 2, "a second time"),
            ("a: {{vault://x/y}: 1}\n", 1, "without quotes"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error:?}");
            assert!(error.message.contains(message), "{error:?}");
        }
    }
}
