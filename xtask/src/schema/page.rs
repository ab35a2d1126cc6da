//! `docs/configuration.md`: every field with its type, default, meaning and an example, from the same tables
//! as the schemas.

use std::fmt::Write as _;

use azure_key_vault_filter::config::fields::{Field, HTTP, HTTPS, Shape};

use super::{limits, root};

/// What stands before the tables.
const HEAD: &str = r#"<!-- Made by `cargo xtask schema` from src/config/fields.rs; a test keeps them equal. Change it there. -->

# Configuration reference

The configuration is one JSON object, the same on every gateway (Istio, Envoy Gateway and Kong take it as YAML,
too). A field that is absent or `null` has its default. A field that is not known, or is of another type, is an
error; so is a reference to a vault that is not configured. All errors are shown at once, with their paths:
`cargo xtask check FILE` shows them without a gateway. `filter-config/schema.json` has the same for editors.

The whole, with the fields that are used most:

```json
"#;

pub(super) const WHOLE: &str = r#"{
  "vaults": [
    {
      "name": "azure",
      "prefix": "payments",
      "config": {
        "vault_uri": "https://payments.vault.azure.net",
        "tenant_id": "11111111-1111-1111-1111-111111111111",
        "client_id": "22222222-2222-2222-2222-222222222222",
        "ttl": 300,
        "neg_ttl": 10,
        "vault_cluster": "key_vault",
        "identity_cluster": "azure_identity"
      }
    }
  ],
  "request": {
    "set": {
      "headers": { "authorization": "Bearer {vault://payments/api/token}" },
      "query": { "api-key": "{vault://payments/search-key}" }
    },
    "resolve": {
      "headers": ["x-partner-key", "x-db-*"],
      "query": ["key"],
      "body": ["application/json", "application/x-www-form-urlencoded", "text/plain"],
      "allow": ["payments/partner-*"]
    }
  },
  "response": {
    "set": { "headers": { "x-signature-key-id": "{vault://payments/signing/kid}" } },
    "resolve": { "headers": ["x-next-key"], "body": ["application/json"], "allow": ["payments/public-*"] },
    "redact": true
  },
  "on_error": "deny"
}"#;

const ENVIRONMENT: &str = r#"
## The environment

A field of `config` that is absent is looked for in the environment, under the names that its table gives; the
first one that is set and not empty counts. Where the table says `AZURE_`, the vault's `credentials_prefix` stands in
its place. The gateway has to pass the variables on: Envoy by `vm_config.environment_variables`, Istio by
`vmConfig.env`, Envoy Gateway by `env.hostKeys`, Kong by `nginx_main_env`.

The `KONG_VAULT_AZURE_…` variables are defaults for every vault. If they, with the `AZURE_…` ones, describe a whole
vault, it is there under the prefix `azure`, beside those of `vaults` or instead of them.

`IDENTITY_HEADER` (with `IDENTITY_ENDPOINT`) and `MSI_SECRET` (with `MSI_ENDPOINT`) come from the environment only:
Azure sets them for the app.
"#;

/// The objects of the configuration with their paths, each before those within it; the root's path is empty.
pub(super) fn sections() -> Vec<(String, &'static [Field])> {
    fn walk(path: &str, fields: &'static [Field], all: &mut Vec<(String, &'static [Field])>) {
        all.push((path.to_owned(), fields));
        for field in fields {
            if let Some((path, fields)) = within(path, field) {
                walk(&path, fields, all);
            }
        }
    }
    let mut all = Vec::new();
    walk("", root(), &mut all);
    all
}

/// The path and the fields of the object that a field of `section` holds, or has a list of.
fn within(section: &str, field: &Field) -> Option<(String, &'static [Field])> {
    let (fields, suffix) = match field.shape {
        Shape::Object(fields) => (fields, ""),
        Shape::Limits => (limits(), ""),
        Shape::Objects(fields) => (fields, "[]"),
        _ => return None,
    };
    let separator = if section.is_empty() { "" } else { "." };
    Some((
        format!("{section}{separator}{}{suffix}", field.name),
        fields,
    ))
}

/// The page.
pub(super) fn page() -> String {
    let mut page = format!("{HEAD}{WHOLE}\n```\n");
    for (path, fields) in sections() {
        section(&mut page, &path, fields);
    }
    page.push_str(ENVIRONMENT);
    page
}

fn section(page: &mut String, path: &str, fields: &[Field]) {
    let environment = fields.iter().any(|field| !field.variables.is_empty());
    let title = if path.is_empty() {
        "Top level".to_owned()
    } else {
        format!("`{path}`")
    };
    let _ = writeln!(page, "\n## {title}\n");
    let mut columns = vec!["field", "type", "default", "meaning", "example"];
    if environment {
        columns.insert(3, "else from the environment");
    }
    row(page, columns.iter().map(|column| (*column).to_owned()));
    row(page, columns.iter().map(|_| "---".to_owned()));
    for field in fields {
        let mut cells = vec![
            format!("`{}`", field.name),
            kind(path, field),
            default(field),
            field.about.to_owned(),
            code(field.example),
        ];
        if environment {
            let names = field.variables.iter().map(|name| format!("`{name}`"));
            cells.insert(3, names.collect::<Vec<_>>().join(", "));
        }
        row(page, cells);
    }
}

fn row(page: &mut String, cells: impl IntoIterator<Item = String>) {
    for cell in cells {
        // A bar would end the cell, in code too.
        let _ = write!(page, "| {} ", cell.replace('|', "\\|"));
    }
    page.push_str("|\n");
}

fn code(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("`{text}`")
    }
}

fn default(field: &Field) -> String {
    if field.required {
        return "required".into();
    }
    // Words are words, values are code.
    if serde_json::from_str::<serde_json::Value>(field.default).is_ok() {
        code(field.default)
    } else {
        field.default.to_owned()
    }
}

fn kind(section: &str, field: &Field) -> String {
    let same =
        |shape: Shape| matches!((shape, field.shape), (Shape::Like(a), Shape::Like(b)) if a == b);
    match field.shape {
        Shape::Like(_) if same(HTTPS) => "https URL".into(),
        Shape::Like(_) if same(HTTP) => "http or https URL".into(),
        Shape::Text | Shape::Like(_) => "text".into(),
        Shape::Word(words) => {
            let words: Vec<String> = words.iter().map(|word| code(word)).collect();
            words.join(", ")
        }
        Shape::Number(min, max) => format!("number, {min} to {max}"),
        Shape::Boolean => "true or false".into(),
        Shape::Texts | Shape::TextsLike(_) => "list of texts".into(),
        Shape::Headers | Shape::Parameters => "object of names and texts".into(),
        Shape::Object(_) | Shape::Limits => link("object", section, field),
        Shape::Objects(_) => link("list of objects", section, field),
        Shape::Anything => "anything".into(),
    }
}

/// To the section of an object's fields.
fn link(text: &str, section: &str, field: &Field) -> String {
    let path = within(section, field).map_or_else(String::new, |(path, _)| path);
    // GitHub's anchors have neither dots nor brackets.
    let anchor = path.replace(['.', '[', ']'], "");
    format!("[{text}](#{anchor})")
}
