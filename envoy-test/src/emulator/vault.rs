//! One key vault's secrets: versions, attributes, deletion, and the errors of Key Vault's data plane for
//! them. It knows no tokens and no sockets.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A status and a JSON body.
pub(super) type Answer = (u16, Value);

struct Version {
    id: String,
    value: String,
    content_type: Option<String>,
    tags: Value,
    enabled: bool,
    exp: Option<u64>,
    nbf: Option<u64>,
    created: u64,
    updated: u64,
}

struct Secret {
    /// The name as it was first written; looked up without case.
    name: String,
    /// Oldest first.
    versions: Vec<Version>,
}

/// A vault with its secrets.
#[derive(Default)]
pub(super) struct Vault {
    secrets: BTreeMap<String, Secret>,
    deleted: BTreeMap<String, Secret>,
}

/// An error body as Key Vault writes it.
pub(super) fn error(status: u16, code: &str, message: &str, inner: Option<&str>) -> Answer {
    let mut error = json!({ "code": code, "message": message });
    if let Some(inner) = inner {
        error["innererror"] = json!({ "code": inner });
    }
    (status, json!({ "error": error }))
}

fn not_found(name: &str) -> Answer {
    let message = format!(
        "A secret with (name/id) {name} was not found in this key vault. If you recently deleted this secret you may be able to recover it using the correct recovery command. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182"
    );
    error(404, "SecretNotFound", &message, None)
}

/// Whether Key Vault would take this as a secret's name.
pub(super) fn is_name(name: &str) -> bool {
    (1..=127).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

impl Vault {
    /// Adds a version, or the first one.
    pub(super) fn set(
        &mut self,
        base: &str,
        name: &str,
        body: &Value,
        version: String,
        now: u64,
    ) -> Answer {
        if !is_name(name) {
            return error(
                400,
                "BadParameter",
                &format!("The request URI contains an invalid name: {name}"),
                None,
            );
        }
        let Some(value) = body["value"].as_str() else {
            return error(400, "BadParameter", "Property value is required", None);
        };
        if self.deleted.contains_key(&name.to_ascii_lowercase()) {
            let message = format!(
                "Secret {name} is currently in a deleted but recoverable state, and its name cannot be reused"
            );
            return error(
                409,
                "Conflict",
                &message,
                Some("ObjectIsDeletedButRecoverable"),
            );
        }
        let mut new = Version {
            id: version,
            value: value.to_owned(),
            content_type: None,
            tags: Value::Null,
            enabled: true,
            exp: None,
            nbf: None,
            created: now,
            updated: now,
        };
        change(&mut new, body, now);
        let secret = self
            .secrets
            .entry(name.to_ascii_lowercase())
            .or_insert_with(|| Secret {
                name: name.to_owned(),
                versions: Vec::new(),
            });
        secret.versions.push(new);
        secret.versions.last().map_or_else(
            || not_found(name),
            |v| (200, bundle(base, &secret.name, v, true)),
        )
    }

    /// The current version, or the one named.
    pub(super) fn get(&self, base: &str, name: &str, version: Option<&str>) -> Answer {
        let secret = self.secrets.get(&name.to_ascii_lowercase());
        let found = secret.and_then(|s| match version {
            None => s.versions.last(),
            Some(id) => s.versions.iter().find(|v| v.id == id),
        });
        match (secret, found) {
            (Some(_), Some(v)) if !v.enabled => error(
                403,
                "Forbidden",
                "Operation get is not allowed on a disabled secret.",
                Some("SecretDisabled"),
            ),
            (Some(secret), Some(v)) => (200, bundle(base, &secret.name, v, true)),
            _ => not_found(name),
        }
    }

    /// Attributes, content type and tags of one version, or the current one.
    pub(super) fn update(
        &mut self,
        base: &str,
        name: &str,
        version: Option<&str>,
        body: &Value,
        now: u64,
    ) -> Answer {
        let Some(secret) = self.secrets.get_mut(&name.to_ascii_lowercase()) else {
            return not_found(name);
        };
        let found = match version {
            None => secret.versions.last_mut(),
            Some(id) => secret.versions.iter_mut().find(|v| v.id == id),
        };
        let Some(version) = found else {
            return not_found(name);
        };
        change(version, body, now);
        (200, bundle(base, &secret.name, version, false))
    }

    /// A page of all secrets, without values, as [`Vault::versions`].
    pub(super) fn list(
        &self,
        base: &str,
        skip: usize,
        most: usize,
        next: impl Fn(usize) -> String,
    ) -> Answer {
        let page = self.secrets.values().skip(skip).take(most);
        let items = page.filter_map(|s| {
            let mut item = bundle(base, &s.name, s.versions.last()?, false);
            item["id"] = json!(format!("{base}/secrets/{}", s.name));
            Some(item)
        });
        let items: Vec<Value> = items.collect();
        let end = skip.saturating_add(most);
        let next = (end < self.secrets.len()).then(|| next(end));
        (200, json!({ "value": items, "nextLink": next }))
    }

    /// The deleted secrets, without values.
    pub(super) fn list_deleted(&self, base: &str) -> Answer {
        let items = self
            .deleted
            .keys()
            .map(|name| self.get_deleted(base, name).1);
        (
            200,
            json!({ "value": items.collect::<Vec<_>>(), "nextLink": null }),
        )
    }

    /// A page of the versions of a secret, without values: `skip` is where the page begins.
    pub(super) fn versions(
        &self,
        base: &str,
        name: &str,
        skip: usize,
        most: usize,
        next: impl Fn(usize) -> String,
    ) -> Answer {
        let Some(secret) = self.secrets.get(&name.to_ascii_lowercase()) else {
            return not_found(name);
        };
        let page = secret.versions.iter().skip(skip).take(most);
        let items: Vec<Value> = page.map(|v| bundle(base, &secret.name, v, false)).collect();
        let end = skip.saturating_add(most);
        let next = (end < secret.versions.len()).then(|| next(end));
        (200, json!({ "value": items, "nextLink": next }))
    }

    /// Into the deleted ones, from which it can come back.
    pub(super) fn delete(&mut self, base: &str, name: &str) -> Answer {
        let key = name.to_ascii_lowercase();
        match self.secrets.remove(&key) {
            Some(secret) => {
                self.deleted.insert(key, secret);
                self.get_deleted(base, name)
            }
            None => not_found(name),
        }
    }

    /// A deleted secret, without its value.
    pub(super) fn get_deleted(&self, base: &str, name: &str) -> Answer {
        let deleted = self.deleted.get(&name.to_ascii_lowercase());
        let Some((secret, last)) = deleted.and_then(|s| Some((s, s.versions.last()?))) else {
            return error(
                404,
                "SecretNotFound",
                &format!("Deleted Secret not found: {name}"),
                None,
            );
        };
        let mut body = bundle(base, &secret.name, last, false);
        body["recoveryId"] = json!(format!("{base}/deletedsecrets/{}", secret.name));
        body["deletedDate"] = json!(last.updated);
        body["scheduledPurgeDate"] = json!(last.updated + 90 * 24 * 3600);
        (200, body)
    }

    /// Back from the deleted ones.
    pub(super) fn recover(&mut self, base: &str, name: &str) -> Answer {
        let key = name.to_ascii_lowercase();
        match self.deleted.remove(&key) {
            Some(secret) => {
                let body = secret
                    .versions
                    .last()
                    .map(|v| bundle(base, &secret.name, v, false));
                self.secrets.insert(key, secret);
                (200, body.unwrap_or_default())
            }
            None => self.get_deleted(base, name),
        }
    }

    /// Gone for good.
    pub(super) fn purge(&mut self, base: &str, name: &str) -> Answer {
        match self.deleted.remove(&name.to_ascii_lowercase()) {
            Some(_) => (204, Value::Null),
            None => self.get_deleted(base, name),
        }
    }
}

fn change(version: &mut Version, body: &Value, now: u64) {
    let attributes = &body["attributes"];
    if let Some(enabled) = attributes["enabled"].as_bool() {
        version.enabled = enabled;
    }
    version.exp = attributes["exp"].as_u64().or(version.exp);
    version.nbf = attributes["nbf"].as_u64().or(version.nbf);
    if let Some(text) = body["contentType"].as_str() {
        version.content_type = Some(text.to_owned());
    }
    if body["tags"].is_object() {
        version.tags = body["tags"].clone();
    }
    version.updated = now;
}

fn bundle(base: &str, name: &str, version: &Version, with_value: bool) -> Value {
    let mut body = json!({
        "id": format!("{base}/secrets/{name}/{}", version.id),
        "attributes": {
            "enabled": version.enabled,
            "created": version.created,
            "updated": version.updated,
            "recoveryLevel": "Recoverable+Purgeable",
            "recoverableDays": 90,
        },
    });
    for (field, time) in [("exp", version.exp), ("nbf", version.nbf)] {
        if let Some(time) = time {
            body["attributes"][field] = json!(time);
        }
    }
    if with_value {
        body["value"] = json!(version.value);
    }
    if let Some(text) = &version.content_type {
        body["contentType"] = json!(text);
    }
    if !version.tags.is_null() {
        body["tags"] = version.tags.clone();
    }
    body
}
