//! Chooses among the versions of a secret. It knows only the list that one answer holds, and no values.

use serde::Deserialize;

use super::read::Attributes;
use crate::azure::http::Answer;
use crate::azure::json;
use crate::time::Timestamp;

#[derive(Deserialize)]
struct Versions {
    value: Vec<Version>,
}

#[derive(Deserialize)]
struct Version {
    id: String,
    attributes: Option<Attributes>,
}

/// The newest version in the answer to [`versions_request`](super::versions_request) that is enabled and within its dates, for
/// [`secret_request`](super::secret_request); `None` when there is none, or the answer is no list. Only the first page counts:
/// Key Vault gives versions in no stated order, so a secret with more than 25 versions may have a newer one.
#[must_use]
pub fn newest_valid_version(answer: &Answer, now: Timestamp) -> Option<String> {
    let response = match answer {
        Answer::Response(response) if response.status == 200 => response,
        _ => return None,
    };
    let versions: Versions = json::read(&response.body).ok()?;
    let valid = versions.value.into_iter().filter_map(|version| {
        let attributes = version.attributes.unwrap_or_default();
        let usable = attributes.enabled != Some(false) && attributes.out_of_dates(now).is_none();
        let id = version.id.rsplit('/').next()?.to_owned();
        // It becomes part of a path, which WasmX sends as it is.
        let plain = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        (usable && plain).then_some((attributes.created, id))
    });
    valid.max().map(|(_, id)| id)
}
