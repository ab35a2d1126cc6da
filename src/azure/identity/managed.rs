//! Managed identities: the endpoints that Azure puts beside a machine, an app or a container, which give
//! tokens to whoever can reach them
//! (<https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>,
//! <https://learn.microsoft.com/azure/app-service/overview-managed-identity>).

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::{Circumstances, Identity, Managed, Token};
use crate::azure::dates;
use crate::azure::http::{Answer, HttpRequest, Response, push_encoded};
use crate::failure::{Failure, Reason};
use crate::json::{Json, Malformed, Object};
use crate::time::{Span, Timestamp};

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

struct TokenAnswer {
    access_token: Zeroizing<String>,
    expires_in: Option<Number>,
    expires_on: Option<Number>,
    refresh_in: Option<Number>,
}

impl TokenAnswer {
    fn read(body: &[u8]) -> Result<Self, Malformed> {
        let answer = Object::read(body)?;
        let number = |name| {
            let written = answer.get(name);
            written.map(Number::read).transpose()
        };
        Ok(Self {
            access_token: answer.text("access_token")?.ok_or(Malformed)?,
            expires_in: number("expires_in")?,
            expires_on: number("expires_on")?,
            refresh_in: number("refresh_in")?,
        })
    }
}

/// A number, or a number as text, or (App Service, once) a date.
struct Number(String);

impl Number {
    fn read(json: Json<'_>) -> Result<Self, Malformed> {
        let text = match json.number() {
            Some(_) => Some(json.written().into()),
            None => json.text(),
        };
        Ok(Self(text.ok_or(Malformed)?.into_owned()))
    }

    fn seconds(&self) -> Option<u64> {
        self.0.trim().parse().ok()
    }

    fn time(&self) -> Option<Timestamp> {
        self.seconds().map_or_else(
            || dates::app_service_date(&self.0),
            |seconds| Some(Timestamp(seconds.saturating_mul(1000))),
        )
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
            Service::Imds => ("metadata", Zeroizing::new("true".to_owned())),
            Service::AppService => ("x-identity-header", header()),
            Service::AppService2017 => ("secret", header()),
        };
        HttpRequest {
            cluster: identity.cluster.clone(),
            scheme: self.url.scheme(),
            method: "GET",
            authority: self.url.authority().to_owned(),
            path: String::from_utf8(path).unwrap_or_default(),
            headers: vec![proof, ("accept", "application/json".to_owned().into())],
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
        let bad = || {
            Failure::new(
                Reason::BadAnswer,
                "the managed identity's endpoint gave no usable token",
            )
        };
        let answer = TokenAnswer::read(&response.body).map_err(|_| bad())?;
        let until = answer.expires_on.as_ref().and_then(Number::time);
        let life = answer.expires_in.as_ref().and_then(Number::seconds);
        let life = life
            .map(Span::seconds)
            .or_else(|| until.map(|until| until.until(now)))
            .ok_or_else(bad)?;
        let refresh_in = answer.refresh_in.as_ref().and_then(Number::seconds);
        Token::new(
            &answer.access_token,
            life,
            refresh_in.map(Span::seconds),
            now,
        )
        .ok_or_else(bad)
    }

    fn refused(&self, response: &Response, now: Timestamp) -> Failure {
        let error = Object::read(&response.body).unwrap_or_default();
        let error = error.text("error").ok().flatten().unwrap_or_default();
        let error = super::entra::plain(&error);
        let (reason, advice) = match (self.service, response.status) {
            (_, 429) => (
                Reason::Throttled,
                "the managed identity's endpoint asked us to slow down",
            ),
            // IMDS says both while it is being updated, for up to 70 seconds.
            (Service::Imds, 404 | 410) => {
                (Reason::Unavailable, "the metadata service is being updated")
            }
            (_, 400) => (
                Reason::Credentials,
                "this machine has no such identity; assign one to it, or check client_id, object_id and resource_id",
            ),
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
        let mut detail = format!("{advice} (status {}", response.status);
        if !error.is_empty() {
            detail.push_str(", ");
            detail.push_str(&error);
        }
        detail.push(')');
        Failure {
            retry_after: response.retry_after(now),
            ..Failure::new(reason, detail)
        }
    }
}
