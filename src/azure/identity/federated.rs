//! Federated tokens over HTTP: SDKs read them from a file, which a sandbox cannot, so a sidecar or a
//! service in the cluster hands them over. It takes the bare token, `{"token":"…"}`, or Kubernetes'
//! TokenRequest (`{"status":{"token":"…"}}`).

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::Circumstances;
use crate::azure::http::{Answer, HttpRequest};
use crate::config::HttpUrl;
use crate::failure::{Failure, Reason};
use crate::json::{Malformed, Object};
use crate::secret::SecretValue;

/// The request for a federated token.
pub(super) fn request(url: &HttpUrl, cluster: &str, at: &Circumstances<'_>) -> HttpRequest {
    HttpRequest {
        cluster: cluster.to_owned(),
        scheme: url.scheme(),
        method: "GET",
        authority: url.authority().to_owned(),
        path: url.path().to_owned(),
        headers: vec![("accept", "*/*".to_owned().into())],
        body: Vec::new().into(),
        timeout: at.timeout,
    }
}

/// `token`, or `status.token`.
fn unwrapped(body: &[u8]) -> Result<Option<Zeroizing<String>>, Malformed> {
    let answer = Object::read(body)?;
    answer.text("token")?.map_or_else(
        || answer.object("status")?.text("token"),
        |token| Ok(Some(token)),
    )
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
    let body = response.body.trim_ascii();
    let token = if body.first() == Some(&b'{') {
        unwrapped(body).ok().flatten()
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
