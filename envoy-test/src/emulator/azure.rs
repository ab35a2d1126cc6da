//! The services as one value without sockets: a request in, an answer (or a fault) out. What it does to
//! connections, and when, is the server's affair.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use serde_json::{Value, json};

use super::faults::{Cut, Failing, Fault, Faults};
use super::policy::{Access, Denial};
use super::vault::{Answer, Vault, error, is_name};

/// The kinds of endpoints, for counting and for faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// Entra ID's token endpoint.
    Token,
    /// Key Vault's secrets.
    Secrets,
    /// Key Vault's certificates.
    Certificates,
    /// Key Vault's keys.
    Keys,
    /// Managed identity.
    ManagedIdentity,
    /// Discovery documents and whatever is unknown.
    Other,
}

/// An app registration that may have tokens.
#[derive(Clone, Debug)]
pub struct AppRegistration {
    /// The directory.
    pub tenant: String,
    /// The application.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
}

/// One call as it came.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// Which kind of endpoint.
    pub endpoint: Endpoint,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// `host`
    pub host: String,
    /// The status that was answered; 0 for a cut connection.
    pub status: u16,
    /// `user-agent`
    pub user_agent: String,
    /// Whether it had a client's request id.
    pub has_request_id: bool,
    /// Whether it had a bearer token.
    pub has_bearer: bool,
}

/// How many calls each kind of endpoint got since the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entra ID's token endpoint.
    pub token: usize,
    /// Key Vault's secrets.
    pub secrets: usize,
    /// Key Vault's certificates.
    pub certificates: usize,
    /// Key Vault's keys.
    pub keys: usize,
    /// Managed identity.
    pub managed_identity: usize,
    /// The rest.
    pub other: usize,
    /// Calls by the secret's name, in lower case.
    pub by_secret: BTreeMap<String, usize>,
}

/// What to send, when, and where to cut.
pub struct Reply {
    /// The answer.
    pub response: Response<Bytes>,
    /// How long to wait before.
    pub delay: Duration,
    /// Where to cut the connection, if at all.
    pub cut: Option<Cut>,
}

struct IssuedToken {
    /// `None`: a managed identity, which is in no tenant that the emulator knows.
    app: Option<(String, String)>,
    expires_at: u64,
}

#[derive(Default)]
struct State {
    apps: Vec<AppRegistration>,
    tokens: BTreeMap<String, IssuedToken>,
    /// Client secrets besides the first: (client id, secret).
    more_secrets: Vec<(String, String)>,
    token_life: Option<u64>,
    refresh_in: Option<u64>,
    vaults: BTreeMap<String, Vault>,
    /// Certificates and keys by their paths, as they are answered; read only.
    objects: BTreeMap<String, Value>,
    access: Access,
    faults: Faults,
    log: Vec<CallRecord>,
    next_id: u64,
    /// Seconds since the Unix epoch; `None` is the machine's clock.
    time: Option<u64>,
}

/// The emulated Azure. Clones are the same Azure.
#[derive(Clone, Default)]
pub struct Azure(Arc<Mutex<State>>);

const RESOURCE: &str = "https://vault.azure.net";
const IDENTITY_HEADER: &str = "emulator-identity-header";

impl Azure {
    /// An Azure with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere must not hide behind a poisoned lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_id_and_time(&self) -> (String, u64) {
        let mut state = self.state();
        (state.new_id(), state.now())
    }

    /// Registers an application.
    pub fn add_app(&self, app: AppRegistration) {
        self.state().apps.push(app);
    }

    /// Gives the application another secret; tokens that it has stay good.
    pub fn set_client_secret(&self, client_id: &str, secret: &str) {
        for app in self
            .state()
            .apps
            .iter_mut()
            .filter(|app| app.client_id == client_id)
        {
            secret.clone_into(&mut app.client_secret);
        }
    }

    /// Gives the application a secret besides those it has, as one does during a rotation.
    pub fn add_client_secret(&self, client_id: &str, secret: &str) {
        let pair = (client_id.to_owned(), secret.to_owned());
        self.state().more_secrets.push(pair);
    }

    /// The application may use these secrets only; until this is called it may use all.
    pub fn allow_only(&self, client_id: &str, secrets: &[&str]) {
        self.state().access.allow_only(client_id, secrets);
    }

    /// What new tokens say about when to renew them; nothing to begin with.
    pub fn set_refresh_in(&self, seconds: Option<u64>) {
        self.state().refresh_in = seconds;
    }

    /// How long new tokens live, in seconds.
    pub fn set_token_life(&self, seconds: u64) {
        self.state().token_life = Some(seconds);
    }

    /// From now on this is the time, in seconds since the Unix epoch, until it is set again: for tests
    /// with a clock of their own.
    pub fn set_time(&self, seconds: u64) {
        self.state().time = Some(seconds);
    }

    /// Every token is refused from now on.
    pub fn revoke_tokens(&self) {
        self.state().tokens.clear();
    }

    /// Sets a secret, or adds a version to it, in the vault `default`.
    pub fn set_secret(&self, name: &str, value: &str) {
        self.set_secret_in("default", name, &json!({ "value": value }));
    }

    /// Sets a secret with attributes, as the body of Key Vault's `PUT` has them.
    pub fn set_secret_in(&self, vault: &str, name: &str, body: &Value) {
        let mut state = self.state();
        let (version, now) = (state.new_id(), state.now());
        let vault = state.vaults.entry(vault.to_owned()).or_default();
        vault.set("https://emulator", name, body, version, now);
    }

    /// Puts a certificate there: its public side as DER in base64, and the secret of the same name, in
    /// PEM or as PKCS#12 in base64.
    pub fn set_certificate(&self, name: &str, cer: &str, secret: &str) {
        let pem = secret.starts_with("-----BEGIN");
        let content_type = if pem {
            "application/x-pem-file"
        } else {
            "application/x-pkcs12"
        };
        self.set_secret_in(
            "default",
            name,
            &json!({ "value": secret, "contentType": content_type }),
        );
        let (id, now) = self.new_id_and_time();
        let base = "https://emulator";
        let certificate = json!({
            "id": format!("{base}/certificates/{name}/{id}"),
            "kid": format!("{base}/keys/{name}/{id}"),
            "sid": format!("{base}/secrets/{name}/{id}"),
            "x5t": "fLi3U52HunIVNXubkEnf8tP6Wbo",
            "cer": cer,
            "attributes": attributes(now),
            "policy": { "id": format!("{base}/certificates/{name}/policy"),
                "secret_props": { "contentType": content_type } },
        });
        self.state().objects.insert(
            format!("certificates/{}", name.to_ascii_lowercase()),
            certificate,
        );
    }

    /// Puts a key there: the public part as a JWK.
    pub fn set_key(&self, name: &str, jwk: &Value) {
        let (id, now) = self.new_id_and_time();
        let mut key = jwk.clone();
        key["kid"] = json!(format!("https://emulator/keys/{name}/{id}"));
        let bundle = json!({ "key": key, "attributes": attributes(now) });
        self.state()
            .objects
            .insert(format!("keys/{}", name.to_ascii_lowercase()), bundle);
    }

    /// Changes attributes of a secret's current version in the vault `default`.
    pub fn update_secret(&self, name: &str, body: &Value) {
        let mut state = self.state();
        let now = state.now();
        let vault = state.vaults.entry("default".to_owned()).or_default();
        vault.update("https://emulator", name, None, body, now);
    }

    /// Deletes a secret for good from the vault `default`.
    pub fn delete_secret(&self, name: &str) {
        let mut state = self.state();
        let vault = state.vaults.entry("default".to_owned()).or_default();
        vault.delete("https://emulator", name);
        vault.purge("https://emulator", name);
    }

    /// No identity may read this secret from now on, as role-based access control says it.
    pub fn deny_secret(&self, name: &str) {
        self.deny_secret_as(name, Denial::Rbac);
    }

    /// No identity may read this secret from now on, and this is why.
    pub fn deny_secret_as(&self, name: &str, denial: Denial) {
        self.state().access.deny(name, denial);
    }

    /// A fault for every call to an endpoint, until cleared; `.times(n)` on what this returns makes it
    /// end after `n` calls.
    pub fn fail(&self, endpoint: Endpoint, fault: Fault) -> Failing<'_> {
        self.state().faults.set(endpoint, fault.clone(), None);
        Failing::new(self, endpoint, fault)
    }

    /// Every answer of an endpoint comes this much later, whatever else goes wrong with it.
    pub fn set_latency(&self, endpoint: Endpoint, latency: Duration) {
        self.state().faults.set_latency(endpoint, latency);
    }

    /// A fault for the next calls to an endpoint.
    pub fn fail_times(&self, endpoint: Endpoint, fault: Fault, times: u32) {
        self.state().faults.set(endpoint, fault, Some(times));
    }

    /// No faults any more.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Every call since the last reset, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<CallRecord> {
        self.state().log.clone()
    }

    /// How many calls an endpoint got since the last reset.
    #[must_use]
    pub fn count(&self, endpoint: Endpoint) -> usize {
        self.state()
            .log
            .iter()
            .filter(|call| call.endpoint == endpoint)
            .count()
    }

    /// All counts since the last reset.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for call in &self.state().log {
            let count = match call.endpoint {
                Endpoint::Token => &mut counts.token,
                Endpoint::Secrets => &mut counts.secrets,
                Endpoint::Certificates => &mut counts.certificates,
                Endpoint::Keys => &mut counts.keys,
                Endpoint::ManagedIdentity => &mut counts.managed_identity,
                Endpoint::Other => &mut counts.other,
            };
            *count += 1;
            let name = call.path.split(['/', '?']).nth(2);
            if let (Endpoint::Secrets, Some(name)) = (call.endpoint, name)
                && is_name(name)
            {
                *counts
                    .by_secret
                    .entry(name.to_ascii_lowercase())
                    .or_default() += 1;
            }
        }
        counts
    }

    /// How many calls asked for this secret, in any version.
    #[must_use]
    pub fn secret_calls(&self, name: &str) -> usize {
        let asks = |call: &&CallRecord| {
            let path = call.path.split('?').next().unwrap_or_default();
            path.split('/')
                .nth(2)
                .is_some_and(|n| n.eq_ignore_ascii_case(name))
        };
        let state = self.state();
        let secrets = state
            .log
            .iter()
            .filter(|call| call.endpoint == Endpoint::Secrets);
        secrets.filter(asks).count()
    }

    /// Forgets the calls.
    pub fn reset_calls(&self) {
        self.state().log.clear();
    }

    /// Answers a request.
    #[must_use]
    pub fn answer(&self, request: &Request<Bytes>) -> Reply {
        let mut state = self.state();
        let endpoint = endpoint_of(request.uri().path());
        let fault = state.faults.next(endpoint);
        let (mut delay, mut cut) = (state.faults.latency(endpoint), None);
        let mut headers = HeaderMap::new();
        let (status, body) = match fault {
            Some(Fault::Status(status)) => (status, failure_body(status).to_string()),
            Some(Fault::Throttle(after)) => {
                insert(&mut headers, "retry-after", &after);
                (429, failure_body(429).to_string())
            }
            Some(Fault::Body(body)) => (200, body),
            Some(Fault::Answer {
                status,
                headers: given,
                body,
            }) => {
                for (name, value) in &given {
                    insert(&mut headers, name, value);
                }
                (status, body)
            }
            other => {
                match other {
                    Some(Fault::Delay(span)) => delay = delay.saturating_add(span),
                    Some(Fault::Cut(place)) => cut = Some(place),
                    _ => {}
                }
                let (status, body) = state.serve(endpoint, request, &mut headers);
                (
                    status,
                    if body.is_null() {
                        String::new()
                    } else {
                        body.to_string()
                    },
                )
            }
        };
        let header = |name: &str| header_text(request.headers(), name);
        state.log.push(CallRecord {
            endpoint,
            method: request.method().to_string(),
            path: request
                .uri()
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default(),
            host: header("host"),
            status: if cut.is_some() { 0 } else { status },
            user_agent: header("user-agent"),
            has_request_id: !header("x-ms-client-request-id").is_empty()
                || !header("client-request-id").is_empty(),
            has_bearer: bearer(request.headers()).is_some(),
        });
        let request_id = state.new_id();
        // A test may have asked for another one.
        if !headers.contains_key("content-type") {
            let json = "application/json; charset=utf-8";
            insert(&mut headers, "content-type", json);
        }
        insert(&mut headers, "cache-control", "no-cache");
        insert(&mut headers, "x-ms-request-id", &request_id);
        if matches!(
            endpoint,
            Endpoint::Secrets | Endpoint::Certificates | Endpoint::Keys
        ) {
            insert(&mut headers, "x-ms-keyvault-region", "eastus");
            insert(&mut headers, "x-ms-keyvault-service-version", "1.9.395.1");
            let id = header("x-ms-client-request-id");
            if !id.is_empty() {
                insert(&mut headers, "x-ms-client-request-id", &id);
            }
        }
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
        *response.headers_mut() = headers;
        Reply {
            response,
            delay,
            cut,
        }
    }
}

fn endpoint_of(path: &str) -> Endpoint {
    if path.ends_with("/oauth2/v2.0/token") {
        Endpoint::Token
    } else if path.starts_with("/secrets") || path.starts_with("/deletedsecrets") {
        Endpoint::Secrets
    } else if path.starts_with("/certificates") {
        Endpoint::Certificates
    } else if path.starts_with("/keys") {
        Endpoint::Keys
    } else if path.starts_with("/metadata/identity/") || path == "/msi/token" {
        Endpoint::ManagedIdentity
    } else {
        Endpoint::Other
    }
}

fn attributes(now: u64) -> Value {
    json!({ "enabled": true, "created": now, "updated": now, "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90 })
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), value.parse()) {
        headers.insert(name, value);
    }
}

/// The bearer token; the scheme's name has no case.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("authorization")?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn header_text(headers: &HeaderMap, name: &str) -> String {
    headers
        .get(name)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

/// What Azure writes with a status that a test forces.
fn failure_body(status: u16) -> Value {
    let (code, message) = match status {
        429 => (
            "Throttled",
            "Request was not processed because too many requests were received.",
        ),
        403 => (
            "Forbidden",
            "The user does not have secrets get permission.",
        ),
        503 => (
            "ServiceUnavailable",
            "The service is temporarily unavailable.",
        ),
        _ => ("InternalServerError", "An internal error occurred."),
    };
    json!({ "error": { "code": code, "message": message } })
}

/// Entra ID's error body.
fn entra_error(status: u16, error: &str, code: u64, text: &str) -> Answer {
    let description = format!(
        "AADSTS{code}: {text} Trace ID: 00000000-0000-0000-0000-00000000000a Correlation ID: 00000000-0000-0000-0000-00000000000b Timestamp: 2026-11-23 00:00:00Z"
    );
    let body = json!({
        "error": error,
        "error_description": description,
        "error_codes": [code],
        "timestamp": "2026-11-23 00:00:00Z",
        "trace_id": "00000000-0000-0000-0000-00000000000a",
        "correlation_id": "00000000-0000-0000-0000-00000000000b",
        "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
    });
    (status, body)
}

fn query(request: &Request<Bytes>) -> BTreeMap<String, String> {
    let query = request.uri().query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

impl State {
    /// Seconds since the Unix epoch.
    fn now(&self) -> u64 {
        self.time.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.unwrap_or_default().as_secs()
        })
    }

    /// 32 hex digits that look like an id and come in the same order in every run.
    fn new_id(&mut self) -> String {
        self.next_id += 1;
        let high = self.next_id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let low = high.rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        format!("{high:016x}{low:016x}")
    }

    fn serve(
        &mut self,
        endpoint: Endpoint,
        request: &Request<Bytes>,
        headers: &mut HeaderMap,
    ) -> Answer {
        match endpoint {
            Endpoint::Token => self.token(request),
            Endpoint::Secrets => self.secrets(request, headers),
            Endpoint::Certificates | Endpoint::Keys => self.object(request, headers),
            Endpoint::ManagedIdentity => self.managed_identity(request),
            Endpoint::Other => discovery(request),
        }
    }

    fn issue(&mut self, app: Option<(String, String)>) -> (String, u64) {
        let life = self.token_life.unwrap_or(3599);
        let token = format!("emulated-{}", self.new_id());
        self.tokens.insert(
            token.clone(),
            IssuedToken {
                app,
                expires_at: self.now().saturating_add(life),
            },
        );
        (token, life)
    }

    /// OAuth 2.0 client credentials (Microsoft identity platform v2.0).
    fn token(&mut self, request: &Request<Bytes>) -> Answer {
        if request.method() != Method::POST {
            return entra_error(
                400,
                "invalid_request",
                900_561,
                "The endpoint only accepts POST requests.",
            );
        }
        let tenant = request.uri().path().split('/').nth(1).unwrap_or_default();
        let form: BTreeMap<String, String> = form_urlencoded::parse(request.body())
            .into_owned()
            .collect();
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if !self.apps.iter().any(|app| app.tenant == tenant) {
            return entra_error(
                400,
                "invalid_request",
                90_002,
                &format!("Tenant '{tenant}' not found."),
            );
        }
        if field("grant_type") != "client_credentials" {
            return entra_error(
                400,
                "unsupported_grant_type",
                70_003,
                "The app requested an unsupported grant type.",
            );
        }
        let client = field("client_id");
        let Some(app) = self
            .apps
            .iter()
            .find(|app| app.tenant == tenant && app.client_id == client)
        else {
            let text = format!(
                "Application with identifier '{client}' was not found in the directory '{tenant}'."
            );
            return entra_error(400, "unauthorized_client", 700_016, &text);
        };
        if form.contains_key("client_assertion") {
            return entra_error(
                401,
                "invalid_client",
                700_027,
                "The certificate with identifier used to sign the client assertion is not registered on application.",
            );
        }
        if !form.contains_key("client_secret") {
            return entra_error(
                401,
                "invalid_client",
                7_000_218,
                "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
            );
        }
        let secret = field("client_secret");
        let other = |(id, s): &(String, String)| id == client && s == secret;
        if app.client_secret != secret && !self.more_secrets.iter().any(other) {
            let text = format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{client}'."
            );
            return entra_error(401, "invalid_client", 7_000_215, &text);
        }
        if field("scope")
            .trim_end_matches(".default")
            .trim_end_matches('/')
            != RESOURCE
        {
            return entra_error(
                400,
                "invalid_scope",
                70_011,
                "The provided request must include a 'scope' input parameter.",
            );
        }
        let app = (tenant.to_owned(), client.to_owned());
        let (token, life) = self.issue(Some(app));
        let mut body = json!({ "token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": token });
        if let Some(seconds) = self.refresh_in {
            body["refresh_in"] = json!(seconds);
        }
        (200, body)
    }

    /// IMDS, and App Service's endpoint.
    fn managed_identity(&mut self, request: &Request<Bytes>) -> Answer {
        let header = |name: &str| header_text(request.headers(), name);
        let imds = request.uri().path() != "/msi/token";
        let allowed = if imds {
            header("metadata") == "true"
        } else {
            header("x-identity-header") == IDENTITY_HEADER
        };
        if !allowed || request.headers().contains_key("x-forwarded-for") {
            return (
                400,
                json!({ "error": "invalid_request", "error_description": "Required metadata header not specified" }),
            );
        }
        if query(request)
            .get("resource")
            .map(|r| r.trim_end_matches('/'))
            != Some(RESOURCE)
        {
            return (
                400,
                json!({ "error": "invalid_resource", "error_description": "AADSTS500011" }),
            );
        }
        let (token, life) = self.issue(None);
        let expires_on = self.now().saturating_add(life).to_string();
        (
            200,
            json!({ "access_token": token, "expires_in": life.to_string(), "expires_on": expires_on,
            "not_before": self.now().to_string(), "resource": RESOURCE, "token_type": "Bearer" }),
        )
    }

    /// Why this request may not go on, if so.
    fn unauthorized(&self, request: &Request<Bytes>, headers: &mut HeaderMap) -> Option<Answer> {
        let message = match bearer(request.headers()).map(|t| self.tokens.get(t)) {
            None => "AKV10000: Request is missing a Bearer or PoP token.",
            Some(None) => "AKV10022: Invalid audience or issuer, or the token is unknown.",
            Some(Some(token)) if token.expires_at <= self.now() => {
                "AKV10021: The token has expired."
            }
            Some(Some(_)) => return None,
        };
        let host = header_text(request.headers(), "host");
        let tenant = self
            .apps
            .first()
            .map(|app| app.tenant.as_str())
            .unwrap_or_default();
        let challenge =
            format!("Bearer authorization=\"https://{host}/{tenant}\", resource=\"{RESOURCE}\"");
        insert(headers, "www-authenticate", &challenge);
        Some(error(401, "Unauthorized", message, None))
    }

    /// A certificate or a key; there is one version of each.
    fn object(&self, request: &Request<Bytes>, headers: &mut HeaderMap) -> Answer {
        if let Some(answer) = self.unauthorized(request, headers) {
            return answer;
        }
        if !query(request).contains_key("api-version") {
            return error(
                400,
                "BadParameter",
                "The api-version query parameter is required",
                None,
            );
        }
        let path: Vec<&str> = request
            .uri()
            .path()
            .split('/')
            .filter(|s| !s.is_empty())
            .collect();
        let name = path
            .get(..2)
            .unwrap_or_default()
            .join("/")
            .to_ascii_lowercase();
        match self.objects.get(&name) {
            Some(object) if request.method() == Method::GET => (200, object.clone()),
            Some(_) => error(
                400,
                "BadParameter",
                "The request URI or method is not supported",
                None,
            ),
            None => {
                let code = if name.starts_with("keys") {
                    "KeyNotFound"
                } else {
                    "CertificateNotFound"
                };
                error(
                    404,
                    code,
                    &format!("{name} was not found in this key vault."),
                    None,
                )
            }
        }
    }

    /// The client id that the request's token was given to.
    fn client_of(&self, request: &Request<Bytes>) -> Option<&str> {
        let token = self.tokens.get(bearer(request.headers())?)?;
        token.app.as_ref().map(|(_, client)| client.as_str())
    }

    fn secrets(&mut self, request: &Request<Bytes>, headers: &mut HeaderMap) -> Answer {
        if let Some(answer) = self.unauthorized(request, headers) {
            return answer;
        }
        let query = query(request);
        let number = |name: &str, default: usize| {
            query
                .get(name)
                .and_then(|n| n.parse().ok())
                .unwrap_or(default)
        };
        // Key Vault's pages hold 25 at most; none at all would never end.
        let most = number("maxresults", 25).clamp(1, 25);
        let Some(api_version) = query.get("api-version") else {
            let message = "The api-version query parameter is required";
            return error(400, "BadParameter", message, None);
        };
        if !is_api_version(api_version) {
            let message = format!("The specified version ({api_version}) is not recognized.");
            return error(400, "BadParameter", &message, None);
        }
        let host = header_text(request.headers(), "host");
        let base = format!("https://{host}");
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let path: Vec<&str> = request
            .uri()
            .path()
            .split('/')
            .filter(|s| !s.is_empty())
            .collect();
        if let Some(name) = path.get(1)
            && let Some(denial) = self.access.refuses(self.client_of(request), name)
        {
            return error(403, "Forbidden", denial.message(), Some(denial.code()));
        }
        if let Some(name) = path.get(1)
            && !is_name(name)
        {
            let message = format!("The request URI contains an invalid name: {name}");
            return error(400, "BadParameter", &message, None);
        }
        let (version, now) = (self.new_id(), self.now());
        let vault = self.vaults.entry(vault_of(&host)).or_default();
        let next = |skip: usize| {
            format!(
                "{base}{}?api-version={api_version}&$skiptoken={skip}&maxresults={}",
                request.uri().path(),
                most
            )
        };
        match (request.method().as_str(), path.as_slice()) {
            ("PUT", ["secrets", name]) => vault.set(&base, name, &body, version, now),
            ("GET", ["secrets"]) => vault.list(&base, number("$skiptoken", 0), most, next),
            ("GET", ["deletedsecrets"]) => vault.list_deleted(&base),
            ("GET", ["secrets", name]) => vault.get(&base, name, None),
            ("GET", ["secrets", name, "versions"]) => {
                vault.versions(&base, name, number("$skiptoken", 0), most, next)
            }
            ("GET", ["secrets", name, version]) => vault.get(&base, name, Some(version)),
            ("PATCH", ["secrets", name]) => vault.update(&base, name, None, &body, now),
            ("PATCH", ["secrets", name, version]) => {
                vault.update(&base, name, Some(version), &body, now)
            }
            ("DELETE", ["secrets", name]) => vault.delete(&base, name),
            ("GET", ["deletedsecrets", name]) => vault.get_deleted(&base, name),
            ("DELETE", ["deletedsecrets", name]) => vault.purge(&base, name),
            ("POST", ["deletedsecrets", name, "recover"]) => vault.recover(&base, name),
            _ => error(
                400,
                "BadParameter",
                "The request URI or method is not supported",
                None,
            ),
        }
    }
}

/// The data plane's versions: 7.0 to 7.6, and since then dates, some with `-preview`.
fn is_api_version(text: &str) -> bool {
    let date = text.strip_suffix("-preview").unwrap_or(text);
    let is_date = date.len() == 10
        && date.bytes().enumerate().all(|(at, b)| match at {
            4 | 7 => b == b'-',
            _ => b.is_ascii_digit(),
        });
    is_date || ["7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6"].contains(&date)
}

/// `payments` for `payments.vault.azure.net`; `emulated.…` and every other host is the vault `default`.
fn vault_of(host: &str) -> String {
    let name = host.split(':').next().unwrap_or_default();
    let vault = name.split_once(".vault.").map(|(vault, _)| vault);
    vault
        .filter(|vault| *vault != "emulated")
        .unwrap_or("default")
        .to_owned()
}

/// What MSAL asks for before its first token.
fn discovery(request: &Request<Bytes>) -> Answer {
    let path = request.uri().path();
    let Some(tenant) = path.strip_suffix("/v2.0/.well-known/openid-configuration") else {
        return error(
            404,
            "NotFound",
            &format!("The emulator has nothing at {path}"),
            None,
        );
    };
    let base = format!("https://{}{tenant}", header_text(request.headers(), "host"));
    (
        200,
        json!({
            "issuer": format!("{base}/v2.0"),
            "token_endpoint": format!("{base}/oauth2/v2.0/token"),
            "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        }),
    )
}

#[cfg(test)]
mod tests;
