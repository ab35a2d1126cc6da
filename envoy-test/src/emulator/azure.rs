//! The services as one value without sockets: a request in, an answer (or a fault) out. What it does to
//! connections, and when, is the server's affair.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use serde_json::{Value, json};

use super::entra::{self, Entra, ExpiryForm, IssuedToken, Moment, RESOURCES};
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
    /// Federated tokens, as a sidecar serves them.
    FederatedToken,
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
    /// The application whose token it had, if the token is known.
    pub client: Option<String>,
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

#[derive(Default)]
struct State {
    entra: Entra,
    /// Whom the emulated cluster's federated tokens are for.
    subject: String,
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
        self.state().entra.apps.push(app);
    }

    /// Gives the application another secret; tokens that it has stay good.
    pub fn set_client_secret(&self, client_id: &str, secret: &str) {
        for app in self
            .state()
            .entra
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
        self.state().entra.more_secrets.push(pair);
    }

    /// The application may sign with the key of this certificate (DER).
    pub fn add_certificate(&self, client_id: &str, der: &[u8]) {
        self.state().entra.register_certificate(client_id, der);
    }

    /// Tokens of the emulated cluster for `subject` may stand for this application; the plain port hands
    /// such tokens out at `/federated-token`.
    pub fn federate(&self, client_id: &str, subject: &str) {
        let mut state = self.state();
        subject.clone_into(&mut state.subject);
        state.entra.federate(client_id, subject);
    }

    /// A federated token as a pod of this subject has it.
    #[must_use]
    pub fn federated_token(&self, subject: &str) -> String {
        entra::federated_token(subject, self.state().now())
    }

    /// The emulated machine has this identity besides the system's.
    pub fn add_user_assigned(&self, client_id: &str, object_id: &str, resource_id: &str) {
        let mut state = self.state();
        state
            .entra
            .add_user_assigned(client_id, object_id, resource_id);
    }

    /// The application may use these secrets only; until this is called it may use all.
    pub fn allow_only(&self, client_id: &str, secrets: &[&str]) {
        self.state().access.allow_only(client_id, secrets);
    }

    /// What new tokens say about when to renew them; nothing to begin with.
    pub fn set_refresh_in(&self, seconds: Option<u64>) {
        self.state().entra.refresh_in = seconds;
    }

    /// How the managed identities' endpoint says when a token ends.
    pub fn set_expiry_form(&self, form: ExpiryForm) {
        self.state().entra.expiry = form;
    }

    /// How long new tokens live, in seconds.
    pub fn set_token_life(&self, seconds: u64) {
        self.state().entra.token_life = Some(seconds);
    }

    /// From now on this is the time, in seconds since the Unix epoch, until it is set again: for tests
    /// with a clock of their own.
    pub fn set_time(&self, seconds: u64) {
        self.state().time = Some(seconds);
    }

    /// Every token is refused from now on.
    pub fn revoke_tokens(&self) {
        self.state().entra.tokens.clear();
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
                Endpoint::FederatedToken | Endpoint::Other => &mut counts.other,
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
        let client = state.client_of(request).map(str::to_owned);
        state.log.push(CallRecord {
            client,
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
    } else if path.starts_with("/metadata/identity/") || path.eq_ignore_ascii_case("/msi/token") {
        Endpoint::ManagedIdentity
    } else if path == "/federated-token" {
        Endpoint::FederatedToken
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

pub(super) fn header_text(headers: &HeaderMap, name: &str) -> String {
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

pub(super) fn query(request: &Request<Bytes>) -> BTreeMap<String, String> {
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

    fn moment(&mut self) -> Moment {
        Moment {
            now: self.now(),
            new_id: self.new_id(),
        }
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
            Endpoint::Token => {
                let moment = self.moment();
                self.entra.token(request, &moment)
            }
            Endpoint::Secrets => self.secrets(request, headers),
            Endpoint::Certificates | Endpoint::Keys => self.object(request, headers),
            Endpoint::ManagedIdentity => {
                let moment = self.moment();
                self.entra.managed_identity(request, &moment)
            }
            Endpoint::FederatedToken => {
                let token = entra::federated_token(&self.subject, self.now());
                (200, json!({ "token": token }))
            }
            Endpoint::Other => discovery(request),
        }
    }

    /// Why this request may not go on, if so.
    fn unauthorized(&self, request: &Request<Bytes>, headers: &mut HeaderMap) -> Option<Answer> {
        let host = header_text(request.headers(), "host");
        let tenant = self.entra.apps.first().map(|app| app.tenant.as_str());
        let tenant = tenant.unwrap_or_default();
        let resource = resource_of(&host);
        let token = bearer(request.headers()).map(|t| self.entra.tokens.get(t));
        let of_tenant = |token: &IssuedToken| token.app.as_ref().is_none_or(|(t, _)| t == tenant);
        let message = match token {
            None => "AKV10000: Request is missing a Bearer or PoP token.",
            Some(None) => "AKV10022: Invalid audience or issuer, or the token is unknown.",
            Some(Some(token)) if token.expires_at <= self.now() => {
                "AKV10021: The token has expired."
            }
            Some(Some(token)) if token.resource != resource => "AKV10022: Invalid audience.",
            Some(Some(token)) if !of_tenant(token) => "AKV10032: Invalid issuer.",
            Some(Some(_)) => return None,
        };
        let challenge = format!(
            "Bearer authorization=\"https://login.windows.net/{tenant}\", resource=\"{resource}\""
        );
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
        let token = self.entra.tokens.get(bearer(request.headers())?)?;
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

/// What tokens for the vault with this host are for; for hosts that are not Azure's, the public cloud's.
fn resource_of(host: &str) -> &'static str {
    let name = host.split(':').next().unwrap_or_default();
    let below = |resource: &&&str| {
        let suffix = resource.strip_prefix("https://");
        suffix.is_some_and(|suffix| name.ends_with(&format!(".{suffix}")))
    };
    let [public, ..] = &RESOURCES;
    RESOURCES.iter().find(below).unwrap_or(public)
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
