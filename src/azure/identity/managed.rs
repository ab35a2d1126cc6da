//! Managed identities: the endpoints that Azure puts beside a machine, an app or a container, which give
//! tokens to whoever can reach them
//! (<https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>,
//! <https://learn.microsoft.com/azure/app-service/overview-managed-identity>).

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Circumstances, Identity, Managed, Token, token_answer};
use crate::azure::http::{Answer, HttpRequest, Response, push_encoded};
use crate::azure::{json, stranger};
use crate::failure::{Failure, Reason};
use crate::time::Timestamp;

/// As the log calls it.
const SERVICE: &str = "the managed identity's endpoint";

/// The kinds of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Virtual machines, scale sets and AKS nodes: the instance metadata service.
    Imds,
    /// App Service, Functions and Container Apps.
    AppService,
    /// App Service as it was before 2019.
    AppService2017,
}

/// A user-assigned identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserAssigned {
    /// By its client id.
    ClientId(String),
    /// By its object (principal) id.
    ObjectId(String),
    /// By its Azure resource id.
    ResourceId(String),
}

impl UserAssigned {
    /// The id, of whichever kind.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::ClientId(id) | Self::ObjectId(id) | Self::ResourceId(id) => id,
        }
    }
}

impl Service {
    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Imds => "imds",
            Self::AppService => "app_service",
            Self::AppService2017 => "app_service_2017",
        }
    }

    const fn api_version(self) -> &'static str {
        match self {
            Self::Imds => "2018-02-01",
            Self::AppService => "2019-08-01",
            Self::AppService2017 => "2017-09-01",
        }
    }

    /// The query's name for a user-assigned identity; `None` where the service has none.
    #[must_use]
    pub const fn parameter(self, user: &UserAssigned) -> Option<&'static str> {
        Some(match (self, user) {
            (Self::AppService2017, UserAssigned::ClientId(_)) => "clientid",
            (Self::AppService2017, _) => return None,
            (_, UserAssigned::ClientId(_)) => "client_id",
            (_, UserAssigned::ObjectId(_)) => "object_id",
            (Self::Imds, UserAssigned::ResourceId(_)) => "msi_res_id",
            (Self::AppService, UserAssigned::ResourceId(_)) => "mi_res_id",
        })
    }
}

/// An error answer: IMDS has OAuth's fields, App Service a `statusCode` and a `message`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct EndpointError {
    error: Option<String>,
    error_description: Option<String>,
    #[serde(alias = "Message", alias = "ExceptionMessage")]
    message: Option<String>,
}

impl EndpointError {
    fn read(body: &[u8]) -> Self {
        json::read(body).unwrap_or_default()
    }

    /// What it says for people; for decisions only, it does not get into the log.
    fn text(&self) -> &str {
        let text = self.error_description.as_deref();
        text.or(self.message.as_deref()).unwrap_or_default()
    }
}

/// What a 400 means.
fn bad_request(error: &EndpointError) -> (Reason, &'static str) {
    let text = error.text().to_ascii_lowercase();
    let code = error.error.as_deref().unwrap_or_default();
    if text.contains("multiple user assigned") {
        return (
            Reason::Credentials,
            "several user-assigned identities belong to this machine; say which one by client_id, object_id or resource_id",
        );
    }
    if text.contains("metadata header") {
        return (
            Reason::BadAnswer,
            "the metadata service refuses requests that a proxy changed: keep x-forwarded-for and the like away from it",
        );
    }
    if text.contains("identity not found") || text.contains("managed identity found") {
        return (
            Reason::Credentials,
            "this machine has no such identity; assign one to it, or check client_id, object_id and resource_id",
        );
    }
    match code {
        "invalid_resource" => (
            Reason::Credentials,
            "the identity's tenant knows no such resource; check that vault_uri, or scope, is of this machine's cloud",
        ),
        _ => (
            Reason::Credentials,
            "the managed identity's endpoint refused the request; check which identities are assigned, and client_id, object_id or resource_id",
        ),
    }
}

impl Managed {
    /// The request for a token.
    pub(super) fn request(&self, identity: &Identity, at: &Circumstances<'_>) -> HttpRequest {
        let mut path = self.url.path().as_bytes().to_vec();
        let mut push = |separator: u8, name: &str, value: &[u8]| {
            path.push(separator);
            path.extend_from_slice(name.as_bytes());
            path.push(b'=');
            push_encoded(&mut path, value);
        };
        let scope = &identity.scope;
        let resource = scope.strip_suffix("/.default").unwrap_or(scope);
        push(b'?', "api-version", self.service.api_version().as_bytes());
        push(b'&', "resource", resource.as_bytes());
        if let Some(user) = &self.user_assigned
            && let Some(name) = self.service.parameter(user)
        {
            push(b'&', name, user.id().as_bytes());
        }
        let header = || {
            let header = self.header.as_ref().map(|h| h.expose().to_vec());
            Zeroizing::new(String::from_utf8(header.unwrap_or_default()).unwrap_or_default())
        };
        let proof = match self.service {
            Service::Imds => ("metadata".into(), Zeroizing::new("true".to_owned())),
            Service::AppService => ("x-identity-header".into(), header()),
            Service::AppService2017 => ("secret".into(), header()),
        };
        HttpRequest {
            cluster: identity.cluster.clone(),
            scheme: self.url.scheme(),
            method: "GET",
            authority: self.url.authority().to_owned(),
            path: String::from_utf8(path).unwrap_or_default(),
            headers: vec![
                proof,
                ("accept".into(), "application/json".to_owned().into()),
            ],
            body: Vec::new().into(),
            timeout: at.timeout,
        }
    }

    /// Reads the answer to [`Managed::request`].
    pub(super) fn read(
        &self,
        cluster: &str,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<Token, Failure> {
        let response = match answer {
            Answer::Response(response) => response,
            Answer::Failed(failure) => {
                let mut failure = failure.explain(cluster);
                failure.detail.push_str(match self.service {
                    Service::Imds => "; the metadata service is at 169.254.169.254:80 of Azure's machines only",
                    _ => "; the endpoint's port changes with each start: take it from IDENTITY_ENDPOINT",
                });
                return Err(failure);
            }
        };
        if response.status != 200 {
            return Err(self.refused(response, now));
        }
        token_answer::read(&response.body, SERVICE, now)
    }

    fn refused(&self, response: &Response, now: Timestamp) -> Failure {
        let error = EndpointError::read(&response.body);
        if matches!(response.status, 300..=399 | 407) || json::is_html(&response.body) {
            return stranger::failure(SERVICE, response, now);
        }
        let aadsts = super::entra::aadsts_code(error.text());
        let id = self.user_assigned.as_ref().map_or("", UserAssigned::id);
        let advice = aadsts.and_then(|code| super::entra::advice(code, id, "AZURE"));
        let (reason, advice) = advice.unwrap_or_else(|| self.advice(response.status, &error));
        let mut detail = format!("{advice} (status {}", response.status);
        if let Some(error) = &error.error {
            detail.push_str(", ");
            detail.push_str(&super::entra::plain(error));
        }
        if let Some(code) = aadsts {
            detail.push_str(&format!(", AADSTS{code}"));
        }
        detail.push_str(if error.text().is_empty() && error.error.is_none() {
            "; without an error of the endpoint's form)"
        } else {
            "; answered by the endpoint)"
        });
        Failure {
            retry_after: response.retry_after(now),
            ..Failure::new(reason, detail)
        }
    }

    /// What to do about a status.
    fn advice(&self, status: u16, error: &EndpointError) -> (Reason, String) {
        let (reason, advice) = match (self.service, status) {
            (_, 429) => (
                Reason::Throttled,
                "the managed identity's endpoint asked us to slow down",
            ),
            // IMDS says both while it is being updated, for up to 70 seconds.
            (Service::Imds, 404 | 410) => {
                (Reason::Unavailable, "the metadata service is being updated")
            }
            (_, 400) => bad_request(error),
            (_, 401 | 403) => (
                Reason::Credentials,
                "the endpoint does not accept IDENTITY_HEADER or MSI_SECRET; pass on the ones of this start of the app",
            ),
            (_, status) if status >= 500 => (
                Reason::Unavailable,
                "the managed identity's endpoint could not be reached or is at fault",
            ),
            _ => (
                Reason::BadAnswer,
                "what answers is no managed identity's endpoint",
            ),
        };
        (reason, advice.to_owned())
    }
}
