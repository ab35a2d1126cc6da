//! Key Vault's data plane, as far as it is read: `GET {vault}/secrets/{name}[/{version}]`, and the same
//! for `certificates` and `keys` (<https://learn.microsoft.com/rest/api/keyvault/>). The requests are built
//! here; it knows no cache, and not what an answer says.

mod read;
mod refusal;
#[cfg(test)]
mod tests;
mod versions;

use zeroize::Zeroizing;

use super::forms::Collection;
use super::http::{HttpRequest, Scheme};
use crate::config::Vault;
use crate::secret::SecretValue;

pub use read::{Secret, date_warning, read_secret};
pub use refusal::Refusal;
pub use versions::newest_valid_version;

/// The request for a secret. `name` and `version` were checked by the reference's parser, which lets
/// nothing through that would need encoding.
#[must_use]
pub fn secret_request(
    vault: &Vault,
    collection: Collection,
    name: &str,
    version: Option<&str>,
    token: &SecretValue,
    request_id: &str,
) -> HttpRequest {
    let mut path = format!("/{}/{name}", collection.as_str());
    if let Some(version) = version {
        path.push('/');
        path.push_str(version);
    }
    path.push_str("?api-version=");
    path.push_str(&vault.api_version);
    let bearer = [b"Bearer ", token.expose()].concat();
    let bearer = String::from_utf8(bearer).unwrap_or_default();
    HttpRequest {
        cluster: vault.cluster.clone(),
        scheme: Scheme::Https,
        method: "GET",
        authority: vault.uri.authority(),
        path,
        headers: vec![
            ("authorization".into(), Zeroizing::new(bearer)),
            ("accept".into(), Zeroizing::new("application/json".into())),
            (
                "x-ms-client-request-id".into(),
                Zeroizing::new(request_id.to_owned()),
            ),
        ],
        body: Zeroizing::default(),
        timeout: vault.timeout,
    }
}

/// The request for the versions of a secret, newest or not: asked when the newest one is not yet valid.
/// `name` was checked by the reference's parser.
#[must_use]
pub fn versions_request(
    vault: &Vault,
    name: &str,
    token: &SecretValue,
    request_id: &str,
) -> HttpRequest {
    let mut request = secret_request(
        vault,
        Collection::Secrets,
        name,
        Some("versions"),
        token,
        request_id,
    );
    // The most that Key Vault gives at once.
    request.path.push_str("&maxresults=25");
    request
}
