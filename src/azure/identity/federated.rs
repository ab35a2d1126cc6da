//! Federated tokens over HTTP: SDKs read them from a file, which a sandbox cannot, so a sidecar or a
//! service in the cluster hands them over. It takes the bare token, `{"token":"…"}`, or Kubernetes'
//! TokenRequest (`{"status":{"token":"…"}}`).

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::Circumstances;
use crate::azure::http::{Answer, HttpRequest};
use crate::azure::json;
use crate::config::HttpUrl;
use crate::failure::{Failure, Reason};
use crate::secret::SecretValue;

/// The request for a federated token.
pub(super) fn request(
    url: &HttpUrl,
    cluster: &str,
    header: Option<&(String, SecretValue)>,
    at: &Circumstances<'_>,
) -> HttpRequest {
    let mut headers = vec![("accept".into(), "*/*".to_owned().into())];
    if let Some((name, value)) = header {
        let value = String::from_utf8_lossy(value.expose()).into_owned();
        headers.push((name.clone().into(), value.into()));
    }
    HttpRequest {
        cluster: cluster.to_owned(),
        scheme: url.scheme(),
        method: "GET",
        authority: url.authority().to_owned(),
        path: url.path().to_owned(),
        headers,
        body: Vec::new().into(),
        timeout: at.timeout,
    }
}

/// `{"token":"…"}`, or Kubernetes' TokenRequest.
#[derive(Deserialize)]
struct Wrapped {
    token: Option<String>,
    status: Option<Status>,
}

#[derive(Deserialize)]
struct Status {
    token: Option<String>,
}

/// `token`, or `status.token`.
fn unwrapped(body: &[u8]) -> Option<Zeroizing<String>> {
    let answer: Wrapped = json::read(body).ok()?;
    let token = answer.token.or_else(|| answer.status?.token);
    token.map(Zeroizing::new)
}

/// Reads the answer to [`request`].
pub(super) fn read(url: &HttpUrl, cluster: &str, answer: &Answer) -> Result<SecretValue, Failure> {
    let response = match answer {
        Answer::Response(response) => response,
        Answer::Failed(failure) => return Err(failure.explain(cluster)),
    };
    if response.status != 200 {
        let text = format!(
            "the source of federated tokens at {url} answered {}",
            response.status
        );
        return Err(Failure::new(Reason::Unavailable, text));
    }
    let body = json::without_bom(&response.body).trim_ascii();
    let token = if body.first() == Some(&b'{') {
        unwrapped(body)
    } else {
        core::str::from_utf8(body)
            .ok()
            .map(|text| Zeroizing::new(text.to_owned()))
    };
    match token.filter(|token| is_jwt(token)) {
        Some(token) => Ok(SecretValue::new(token.as_bytes())),
        None => Err(Failure::new(
            Reason::BadAnswer,
            format!("the source of federated tokens at {url} gave something that is no JWT"),
        )),
    }
}

/// Three parts of base64url (RFC 7519): nothing else is worth a call to Entra ID.
pub(crate) fn is_jwt(text: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && p.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.split('.').count() == 3 && text.split('.').all(part)
}
