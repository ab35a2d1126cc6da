//! The configuration's tables of fields (`src/config/fields.rs`, which the filter reads a configuration by) as
//! `filter-config/schema.json` for editors, Kong's `.meta.json` and `docs/configuration.md`.
//!
//! The schema refuses less than the reader does: whether a header may be set, or a vault is in Azure, is
//! the reader's to say. It refuses nothing that the reader takes.

use std::fs;
use std::sync::LazyLock;

use anyhow::{Context as _, Result};
use azure_key_vault_filter::config::fields::{Field, HEADER_NAME, ROOT, Shape};
use azure_key_vault_filter::config::limits::{LIMITS, Limit, TOP_LEVEL};
use azure_key_vault_filter::limits::Limits;
use serde_json::{Map, Value, json};

use crate::errors;
use crate::steps::workspace;

mod page;

/// What editors show.
fn description(field: &Field) -> String {
    let mut text = field.about.to_owned();
    if !field.default.is_empty() {
        text.push_str(&format!(" Default: {}.", field.default.trim_matches('"')));
    }
    if !field.variables.is_empty() {
        text.push_str(&format!(
            " Else from the environment: {}.",
            field.variables.join(", ")
        ));
    }
    text
}

/// The fields of the whole configuration.
fn root() -> &'static [Field] {
    static ALL: LazyLock<Vec<Field>> = LazyLock::new(|| {
        let at = ROOT.iter().position(|field| field.name == "limits");
        let (before, after) = ROOT.split_at(at.unwrap_or_default());
        [
            before,
            &TOP_LEVEL.iter().map(of_limit).collect::<Vec<_>>(),
            after,
        ]
        .concat()
    });
    &ALL
}

/// The fields of `limits`: the reader's own table has them.
fn limits() -> &'static [Field] {
    static ALL: LazyLock<Vec<Field>> = LazyLock::new(|| LIMITS.iter().map(of_limit).collect());
    &ALL
}

fn of_limit(limit: &Limit) -> Field {
    let default = (limit.get)(&Limits::default());
    // Another value than the default that is in every range.
    let example = (default / 2).max(1);
    Field {
        default: default.to_string().leak(),
        example: example.to_string().leak(),
        ..limit.field
    }
}

/// Kong's Prometheus plugin takes labels out of metrics' names: the label, and a pattern with two captures,
/// the part of the name that goes and the label's value. Of several matches the first counts, so what users
/// name comes last in a metric's name. The patterns are PCRE in Kong 3.9 (`kong/plugins/prometheus/wasmx.lua`)
/// and were Lua's before: `[.]` means the same in both.
const LABELS: &[(&str, &str)] = &[
    ("source", r"([.]source[.]([a-z0-9_]+))"),
    ("reason", r"([.]reason[.]([a-z0-9_]+))"),
    ("endpoint", r"([.]endpoint[.]([a-z0-9_]+))"),
    ("status", r"([.]status[.]([a-z0-9_]+))"),
    ("identity", r"([.]identity[.]([a-z0-9_]+))"),
    ("kind", r"([.]kind[.]([a-z0-9_]+))"),
    ("vault", r"([.]vault[.]([a-z0-9_]+))"),
    ("secret", r"([.]secret[.]([a-z0-9_]+))$"),
];

/// Where a schema goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Editors and other tools: draft 7.
    Editor,
    /// Kong: draft 4, which is all that its metaschema takes.
    Kong,
}

/// The schema of a configuration.
pub(crate) fn schema(dialect: Dialect) -> Value {
    let mut schema = object(root(), dialect);
    let (id, url) = match dialect {
        Dialect::Editor => ("$schema", "http://json-schema.org/draft-07/schema#"),
        Dialect::Kong => ("$schema", "http://json-schema.org/draft-04/schema#"),
    };
    schema.insert(id.to_owned(), json!(url));
    schema.insert("title".into(), json!("azure-key-vault-filter"));
    Value::Object(schema)
}

fn object(fields: &[Field], dialect: Dialect) -> Map<String, Value> {
    let mut schema = Map::new();
    schema.insert("type".into(), json!("object"));
    let properties = fields.iter().map(|field| {
        let mut property = of_shape(field.shape, dialect);
        if !field.required {
            or_null(&mut property);
        }
        property.insert("description".into(), json!(description(field)));
        (field.name.to_owned(), Value::Object(property))
    });
    schema.insert("properties".into(), Value::Object(properties.collect()));
    schema.insert("additionalProperties".into(), json!(false));
    let required: Vec<&str> = fields
        .iter()
        .filter(|f| f.required)
        .map(|f| f.name)
        .collect();
    // Draft 4 has no empty list here.
    if !required.is_empty() {
        schema.insert("required".into(), json!(required));
    }
    schema
}

/// A field that is null is absent: Kong writes its entities so.
fn or_null(schema: &mut Map<String, Value>) {
    if let Some(kind) = schema.get_mut("type") {
        *kind = json!([kind.take(), "null"]);
    }
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.push(Value::Null);
    }
}

fn of_shape(shape: Shape, dialect: Dialect) -> Map<String, Value> {
    let schema = match shape {
        Shape::Text => json!({ "type": "string", "minLength": 1 }),
        Shape::Like(pattern) => json!({ "type": "string", "pattern": pattern }),
        // Before its version 1.2.0 Kong's validator takes no null in `enum`, which an optional field has.
        Shape::Word(words) if dialect == Dialect::Kong => {
            json!({ "type": "string", "pattern": format!("^({})$", words.join("|")) })
        }
        Shape::Word(words) => json!({ "type": "string", "enum": words }),
        Shape::Number(min, max) => json!({ "type": "number", "minimum": min, "maximum": max }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Texts => list(json!({ "type": "string" }), dialect),
        Shape::TextsLike(pattern) => list(json!({ "type": "string", "pattern": pattern }), dialect),
        Shape::Headers => json!({
            "type": "object",
            "patternProperties": { HEADER_NAME: { "type": "string" } },
            "additionalProperties": false,
        }),
        Shape::Parameters => json!({
            "type": "object",
            "additionalProperties": { "type": "string" },
        }),
        Shape::Object(fields) => return object(fields, dialect),
        Shape::Limits => return object(limits(), dialect),
        Shape::Objects(fields) => list(Value::Object(object(fields, dialect)), dialect),
        Shape::Anything => json!({}),
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn list(items: Value, dialect: Dialect) -> Value {
    let mut list = json!({ "type": "array", "items": items });
    if dialect == Dialect::Kong {
        // Kong's JSON library writes an empty list as an empty object, which the filter would refuse.
        list["minItems"] = json!(1);
    }
    list
}

/// What Kong reads from beside the filter.
pub(crate) fn meta() -> Value {
    let labels: Vec<Value> = LABELS
        .iter()
        .map(|(label, pattern)| json!({ "label": label, "pattern": pattern }))
        .collect();
    json!({
        "config_schema": schema(Dialect::Kong),
        "metrics": { "label_patterns": labels },
    })
}

/// The generated files by their paths.
fn files() -> [(&'static str, String); 4] {
    let json = |value: Value| format!("{value:#}\n");
    [
        ("filter-config/schema.json", json(schema(Dialect::Editor))),
        (
            "filter-config/azure_key_vault_filter.meta.json",
            json(meta()),
        ),
        ("docs/configuration.md", page::page()),
        ("docs/errors.md", errors::page()),
    ]
}

/// Writes the generated files.
pub(crate) fn write() -> Result<()> {
    for (name, text) in files() {
        let path = workspace().join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod kongs_validator;
#[cfg(test)]
mod tests;
