//! What a reference means, as JSON, for tools and tests. The filter is built without it.

use serde_json::{Map, Value, json};

use super::{Field, Reference, ReferenceError, Version, options, parse_kong};

/// What a reference means, as JSON: `name`, `resource`, `key`, `config` and `version` as Kong's own
/// parser has them, or `error` and `part`. A reference that Kong's grammar allows and Azure cannot have
/// also gets an `azure_error`.
#[must_use]
pub fn explain(text: &str) -> Value {
    let error = |e: &ReferenceError| json!({ "error": e.to_string(), "part": e.part.as_str() });
    let kong = match parse_kong(text) {
        Ok(kong) => kong,
        Err(e) => return error(&e),
    };
    if let Err(e) = options(kong.config.as_deref().unwrap_or_default()) {
        return error(&e);
    }
    let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut explained = json!({
        "name": kong.name,
        "resource": text_of(&kong.resource),
        "key": kong.key.as_deref().map(text_of),
        "config": kong.config.as_ref().map(|fields| config_json(fields)),
        "version": kong.version.as_ref().map(version_json),
    });
    if let (Err(e), Some(object)) = (Reference::from_kong(&kong), explained.as_object_mut()) {
        object.insert("azure_error".to_owned(), Value::String(e.to_string()));
    }
    explained
}

/// The query as an object, the way Kong's parser gives it.
#[must_use]
pub fn config_json(fields: &[(String, Field)]) -> Value {
    Value::Object(
        fields
            .iter()
            .map(|(name, value)| (name.clone(), field_json(value)))
            .collect::<Map<_, _>>(),
    )
}

fn field_json(field: &Field) -> Value {
    match field {
        Field::Text(text) => json!(text),
        Field::True => json!(true),
        Field::Many(values) => Value::Array(values.iter().map(field_json).collect()),
    }
}

/// A version as JSON; null for Lua's `inf` and `nan`, which JSON cannot hold.
#[must_use]
pub fn version_json(version: &Version) -> Value {
    match version {
        Version::Number(n) => json!(n),
        Version::Id(id) => json!(id),
        Version::Latest => json!("latest"),
    }
}
