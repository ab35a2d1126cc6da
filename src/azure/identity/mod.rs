//! Who the gateway is to Azure, and the way to a token: which request comes next, and what its answer
//! means. A state machine without I/O: it makes no calls, keeps no cache and reads no clock.
//!
//! ```text
//!   no tenant known    -> ask the vault for its challenge     (401 with the tenant)
//!   no assertion       -> ask the source of federated tokens  (workload identity over HTTP)
//!   all there          -> ask Entra ID, or the managed identity's endpoint -> token
//! ```

pub mod assertion;
mod entra;
mod federated;
mod managed;
mod token_answer;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use crate::azure::challenge::Challenge;
use crate::azure::http::{Answer, HttpRequest, Scheme};
use crate::config::{HttpUrl, HttpsUri};
use crate::failure::{Failure, Reason};
use crate::quoted::Quoted;
use crate::secret::SecretValue;
use crate::time::{Span, Timestamp};

use assertion::ClientCertificate;
pub use entra::AADSTS;
pub use managed::{Service, UserAssigned};

/// How long before its end a token is renewed, as in Azure's SDKs; never more than a fifth of its life,
/// so that a short token is not renewed all the time.
const MARGIN: Span = Span::seconds(300);
/// Longest life that an answer is believed.
const LONGEST: Span = Span::seconds(7 * 24 * 3600);

/// An identity that can have tokens for vaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Envoy's cluster, or WasmX's `host:port`, for the token endpoint.
    pub cluster: String,
    /// What the token is for: `https://vault.azure.net/.default`.
    pub scope: String,
    /// How it shows who it is.
    pub credential: Credential,
}

/// How an identity shows who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// An app registration, or a user-assigned identity with a federated credential.
    App(App),
    /// An identity that Azure gave to the machine.
    Managed(Managed),
}

/// An application in Entra ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// The token endpoint's host.
    pub authority: HttpsUri,
    /// Its directory.
    pub tenant: Tenant,
    /// Its id.
    pub client_id: String,
    /// Its credential.
    pub proof: Proof,
    /// The first part of the environment's variables, for advice.
    pub credentials_prefix: String,
}

/// A directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenant {
    /// By id or domain.
    Known(String),
    /// The one that this vault names in its challenge.
    OfVault {
        /// The vault.
        uri: HttpsUri,
        /// Envoy's cluster, or WasmX's `host:port`, for the vault.
        cluster: String,
        /// Whether the resource that it names has to fit its host.
        check_resource: bool,
    },
}

/// What an application proves itself with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A client secret, and the one that replaces it.
    Secret {
        /// The one that is used first.
        current: SecretValue,
        /// Used when Entra ID refuses the other one as wrong or expired.
        next: Option<SecretValue>,
    },
    /// A certificate whose key signs an assertion.
    Certificate(ClientCertificate),
    /// A token of another issuer, as it is.
    Federated(SecretValue),
    /// A token of another issuer, to be had anew each time.
    FederatedSource {
        /// Where.
        url: HttpUrl,
        /// Envoy's cluster, or WasmX's `host:port`.
        cluster: String,
        /// One header that the source wants, such as `metadata-flavor: Google`.
        header: Option<(String, SecretValue)>,
    },
}

/// A managed identity's endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    /// What is there.
    pub service: Service,
    /// Its URL, without a query.
    pub url: HttpUrl,
    /// `IDENTITY_HEADER` or `MSI_SECRET`.
    pub header: Option<SecretValue>,
    /// Which identity, if not the system's.
    pub user_assigned: Option<UserAssigned>,
}

/// An access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What goes behind `Bearer `.
    pub value: SecretValue,
    /// From when on a new one should be had.
    pub renew_at: Timestamp,
    /// From when on it is of no use.
    pub expires_at: Timestamp,
}

impl Token {
    /// A token that lives for `life` from `now` on, and may be renewed in `refresh_in`.
    fn new(value: &str, life: Span, refresh_in: Option<Span>, now: Timestamp) -> Option<Self> {
        let life = life.min(LONGEST);
        let margin = MARGIN.min(life.fraction(1, 5));
        let renew_in = refresh_in.map_or(life - margin, |s| s.min(life - margin));
        let usable = !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic());
        usable.then(|| Self {
            value: SecretValue::new(value),
            renew_at: now + renew_in,
            expires_at: now + life,
        })
    }
}

/// A call on the way to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To the vault, for its tenant.
    Challenge,
    /// To the source of federated tokens.
    Assertion,
    /// To the token endpoint.
    Token,
}

/// What an identity has learnt on its way.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    tenant: Option<String>,
    assertion: Option<SecretValue>,
    /// What the vault wants the next token to say: decoded JSON of a challenge's `claims`.
    claims: Option<String>,
    /// Which of two client secrets is used.
    secret: Which,
    /// The other one was tried since the last token.
    tried_both: bool,
    warning: Option<&'static str>,
}

/// One of two client secrets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Which {
    #[default]
    Current,
    Next,
}

impl Progress {
    /// The vault refused a token and wants one with these claims (JSON): they go with the next request of
    /// a client credential.
    pub fn ask_for_claims(&mut self, claims: String) {
        self.claims = Some(claims);
    }

    /// The tenant that the vault named may be the wrong one by now: the vault is asked again.
    pub fn forget_tenant(&mut self) {
        self.tenant = None;
    }

    /// What an operator should know though there was no failure; given once.
    pub const fn take_warning(&mut self) -> Option<&'static str> {
        self.warning.take()
    }

    /// Changes to the other client secret after Entra ID refused this one; once for each token.
    fn try_other_secret(&mut self) -> bool {
        if self.tried_both {
            return false;
        }
        self.tried_both = true;
        (self.secret, self.warning) = match self.secret {
            Which::Current => (
                Which::Next,
                Some(
                    "Entra ID refused the client secret (expired or wrong), the one in CLIENT_SECRET_NEXT is used; move it to CLIENT_SECRET",
                ),
            ),
            Which::Next => (
                Which::Current,
                Some(
                    "Entra ID refused the client secret in CLIENT_SECRET_NEXT, the one in CLIENT_SECRET is used",
                ),
            ),
        };
        true
    }
}

/// What a request is made with.
pub struct Circumstances<'a> {
    /// The time.
    pub now: Timestamp,
    /// How long a call may take.
    pub timeout: Span,
    /// A UUID for Azure's logs, and for assertions.
    pub id: &'a str,
    /// For signatures; need not be secret.
    pub random: &'a dyn Fn() -> u64,
}

impl Identity {
    /// The same for two identities only if Azure sees the same one: they may use each other's tokens.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.credential {
            Credential::App(app) => {
                let tenant = match &app.tenant {
                    Tenant::Known(tenant) => tenant.as_str(),
                    Tenant::OfVault { uri, .. } => uri.host(),
                };
                format!("{}/{tenant}/{}", app.authority.authority(), app.client_id)
            }
            Credential::Managed(managed) => {
                let user = managed.user_assigned.as_ref();
                format!(
                    "{}/{}",
                    managed.url.upstream(),
                    user.map_or("", UserAssigned::id)
                )
            }
        }
    }

    /// For log lines: `identity=client_secret client_id=… tenant=…`.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.credential {
            Credential::App(app) => {
                let tenant = match &app.tenant {
                    Tenant::Known(tenant) => tenant.as_str(),
                    Tenant::OfVault { .. } => "(the vault's)",
                };
                let kind = app.proof.kind();
                format!(
                    "identity={kind} client_id={} tenant={tenant}",
                    app.client_id
                )
            }
            Credential::Managed(managed) => {
                let user = managed.user_assigned.as_ref();
                let user = user.map_or("(system)", UserAssigned::id);
                format!(
                    "identity=managed_identity source={} id={user}",
                    managed.service.as_str()
                )
            }
        }
    }

    /// What only this identity's holders know, if there is anything.
    #[must_use]
    pub fn secret(&self) -> Option<&[u8]> {
        match &self.credential {
            Credential::App(app) => match &app.proof {
                Proof::Secret {
                    current: secret, ..
                }
                | Proof::Federated(secret) => Some(secret.expose()),
                Proof::Certificate(certificate) => certificate.secret(),
                Proof::FederatedSource { .. } => None,
            },
            Credential::Managed(managed) => managed.header.as_ref().map(SecretValue::expose),
        }
    }

    /// The most calls that lead to a token.
    #[must_use]
    pub const fn most_calls(&self) -> u64 {
        match &self.credential {
            Credential::Managed(_) => 1,
            Credential::App(app) => {
                1 + matches!(app.tenant, Tenant::OfVault { .. }) as u64
                    + matches!(
                        app.proof,
                        Proof::FederatedSource { .. } | Proof::Secret { next: Some(_), .. }
                    ) as u64
            }
        }
    }

    /// The next call.
    ///
    /// # Errors
    /// When there is none to make: the certificate's key does not sign.
    pub fn next(
        &self,
        progress: &Progress,
        at: &Circumstances<'_>,
    ) -> Result<(HttpRequest, Step), Failure> {
        let app = match &self.credential {
            Credential::Managed(managed) => {
                return Ok((managed.request(self, at), Step::Token));
            }
            Credential::App(app) => app,
        };
        let tenant = match (&app.tenant, &progress.tenant) {
            (Tenant::Known(tenant), _) | (Tenant::OfVault { .. }, Some(tenant)) => tenant,
            (Tenant::OfVault { uri, cluster, .. }, None) => {
                return Ok((challenge_request(uri, cluster, at), Step::Challenge));
            }
        };
        let federated = match (&app.proof, &progress.assertion) {
            (
                Proof::FederatedSource {
                    url,
                    cluster,
                    header,
                },
                None,
            ) => {
                let request = federated::request(url, cluster, header.as_ref(), at);
                return Ok((request, Step::Assertion));
            }
            (_, assertion) => assertion.as_ref(),
        };
        let request = entra::token_request(self, app, tenant, federated, progress, at)?;
        Ok((request, Step::Token))
    }

    /// Reads the answer to a step; a token at the end of the way, nothing in between.
    ///
    /// # Errors
    /// What Azure, or the way there, said instead.
    pub fn read(
        &self,
        step: Step,
        answer: &Answer,
        progress: &mut Progress,
        now: Timestamp,
    ) -> Result<Option<Token>, Failure> {
        let (app, token) = match (&self.credential, step) {
            (Credential::Managed(managed), _) => {
                return managed.read(&self.cluster, answer, now).map(Some);
            }
            (Credential::App(app), Step::Token) => (app, true),
            (Credential::App(app), _) => (app, false),
        };
        if token {
            // One assertion, one token: the next one may be another by then.
            progress.assertion = None;
            return entra::read_token(self, app, answer, progress, now);
        }
        match (&app.tenant, &app.proof, step) {
            (
                Tenant::OfVault {
                    uri,
                    cluster,
                    check_resource,
                },
                _,
                Step::Challenge,
            ) => {
                progress.tenant = Some(read_challenge(uri, cluster, *check_resource, answer)?);
            }
            (_, Proof::FederatedSource { url, cluster, .. }, Step::Assertion) => {
                progress.assertion = Some(federated::read(url, cluster, answer)?);
            }
            _ => {}
        }
        Ok(None)
    }
}

impl Proof {
    /// The word in the configuration.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Secret { .. } => "client_secret",
            Self::Certificate(_) => "client_certificate",
            Self::Federated(_) | Self::FederatedSource { .. } => "workload_identity",
        }
    }
}

/// A request without a token, which every vault refuses with its tenant.
fn challenge_request(uri: &HttpsUri, cluster: &str, at: &Circumstances<'_>) -> HttpRequest {
    HttpRequest {
        cluster: cluster.to_owned(),
        scheme: Scheme::Https,
        method: "GET",
        authority: uri.authority(),
        path: "/secrets?api-version=7.6".to_owned(),
        headers: vec![
            ("accept".into(), "application/json".to_owned().into()),
            ("x-ms-client-request-id".into(), at.id.to_owned().into()),
        ],
        body: Vec::new().into(),
        timeout: at.timeout,
    }
}

fn read_challenge(
    uri: &HttpsUri,
    cluster: &str,
    check_resource: bool,
    answer: &Answer,
) -> Result<String, Failure> {
    let response = match answer {
        Answer::Response(response) => response,
        Answer::Failed(failure) => return Err(failure.explain(cluster)),
    };
    if response.status >= 500 || response.status == 429 {
        let text = format!(
            "the vault did not say which tenant it is in (status {})",
            response.status
        );
        return Err(Failure::new(Reason::Unavailable, text));
    }
    let challenge = response.challenge.as_deref().and_then(Challenge::parse);
    let Some(challenge) = challenge.filter(|_| response.status == 401) else {
        let text = format!(
            "{} did not answer as a vault does, with 401 and its tenant (status {}); set tenant_id, and check vault_uri",
            uri.host(),
            response.status
        );
        return Err(Failure::new(Reason::BadAnswer, text));
    };
    if check_resource && !challenge.fits(uri.host()) {
        let text = format!(
            "{} asks for a token for {}, which is not its own domain: it gets none. If this is meant, set tenant_id",
            uri.host(),
            Quoted(&challenge.resource_host)
        );
        return Err(Failure::new(Reason::Credentials, text));
    }
    Ok(challenge.tenant)
}

#[cfg(test)]
mod tests;
