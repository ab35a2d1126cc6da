//! Entra ID's token endpoint and the managed identities' endpoints: who may have a token, shown how. It
//! knows nothing of vaults and of sockets.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use ring::{digest, hmac, signature};
use serde_json::{Value, json};

use super::azure::{AppRegistration, header_text, query};
use super::vault::Answer;

/// The resources that tokens are for; the first one is the public cloud's Key Vault.
pub(super) const RESOURCES: [&str; 4] = [
    "https://vault.azure.net",
    "https://vault.usgovcloudapi.net",
    "https://vault.azure.cn",
    "https://managedhsm.azure.net",
];
const IDENTITY_HEADER: &str = "emulator-identity-header";
const AUDIENCE: &str = "api://AzureADTokenExchange";
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The key of the one issuer of federated tokens, `https://issuer.test`.
const ISSUER_KEY: &[u8] = b"the emulated cluster's key";
pub(super) const ISSUER: &str = "https://issuer.test";

/// How a managed identity's endpoint says when its token ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpiryForm {
    /// `expires_in` and `expires_on` as text, as IMDS does.
    #[default]
    Seconds,
    /// Only `expires_on`, as `2026-11-27T13:00:00.0000000+00:00`.
    Iso8601,
    /// Only `expires_on`, as a number with a fraction.
    Fraction,
    /// Nothing at all.
    Absent,
}

/// A token that was given out.
pub(super) struct IssuedToken {
    /// Tenant and client; `None` for a managed identity.
    pub(super) app: Option<(String, String)>,
    pub(super) expires_at: u64,
    pub(super) resource: String,
}

/// A certificate that an application registered.
struct Certificate {
    client_id: String,
    sha1: String,
    sha256: String,
    /// RSAPublicKey (RFC 8017), as ring wants it.
    public_key: Vec<u8>,
}

/// A user-assigned identity of the emulated machine.
struct UserAssigned {
    client_id: String,
    object_id: String,
    resource_id: String,
}

type IdOf = fn(&UserAssigned) -> &str;

/// Everything that can have a token.
#[derive(Default)]
pub(super) struct Entra {
    pub(super) apps: Vec<AppRegistration>,
    pub(super) tokens: BTreeMap<String, IssuedToken>,
    /// Client secrets besides the first: (client id, secret).
    pub(super) more_secrets: Vec<(String, String)>,
    pub(super) token_life: Option<u64>,
    pub(super) refresh_in: Option<u64>,
    pub(super) expiry: ExpiryForm,
    certificates: Vec<Certificate>,
    /// (client id, subject) that tokens of [`ISSUER`] may stand for.
    federations: Vec<(String, String)>,
    user_assigned: Vec<UserAssigned>,
    /// `jti`s that were used.
    assertions: Vec<String>,
}

/// What a request is answered with.
pub(super) struct Moment {
    pub(super) now: u64,
    pub(super) new_id: String,
}

impl Entra {
    pub(super) fn register_certificate(&mut self, client_id: &str, der: &[u8]) {
        let public_key = x509_parser::parse_x509_certificate(der)
            .map(|(_, certificate)| certificate.public_key().subject_public_key.data.to_vec());
        self.certificates.push(Certificate {
            client_id: client_id.to_owned(),
            sha1: base64url(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der).as_ref()),
            sha256: base64url(digest::digest(&digest::SHA256, der).as_ref()),
            public_key: public_key.unwrap_or_default(),
        });
    }

    pub(super) fn federate(&mut self, client_id: &str, subject: &str) {
        self.federations
            .push((client_id.to_owned(), subject.to_owned()));
    }

    pub(super) fn add_user_assigned(&mut self, client: &str, object: &str, resource: &str) {
        self.user_assigned.push(UserAssigned {
            client_id: client.to_owned(),
            object_id: object.to_owned(),
            resource_id: resource.to_owned(),
        });
    }

    fn issue(
        &mut self,
        app: Option<(String, String)>,
        resource: &str,
        at: &Moment,
    ) -> (String, u64) {
        let life = self.token_life.unwrap_or(3599);
        let token = format!("emulated-{}", at.new_id);
        let issued = IssuedToken {
            app,
            expires_at: at.now.saturating_add(life),
            resource: resource.to_owned(),
        };
        self.tokens.insert(token.clone(), issued);
        (token, life)
    }

    /// OAuth 2.0 client credentials (Microsoft identity platform v2.0).
    pub(super) fn token(&mut self, request: &Request<Bytes>, at: &Moment) -> Answer {
        match self.grant(request, at) {
            Ok((app, resource)) => {
                let (token, life) = self.issue(Some(app), &resource, at);
                let mut body = json!({ "token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": token });
                if let Some(seconds) = self.refresh_in {
                    body["refresh_in"] = json!(seconds);
                }
                (200, body)
            }
            Err(refusal) => refusal,
        }
    }

    /// The application and the resource, if it may have a token.
    fn grant(
        &mut self,
        request: &Request<Bytes>,
        at: &Moment,
    ) -> Result<((String, String), String), Answer> {
        if request.method() != Method::POST {
            let text = "The endpoint only accepts POST requests.";
            return Err(entra_error(400, "invalid_request", 900_561, text));
        }
        let tenant = request.uri().path().split('/').nth(1).unwrap_or_default();
        let form: BTreeMap<String, String> = form_urlencoded::parse(request.body())
            .into_owned()
            .collect();
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if !self.apps.iter().any(|app| app.tenant == tenant) {
            let text = format!("Tenant '{tenant}' not found.");
            return Err(entra_error(400, "invalid_request", 90_002, &text));
        }
        if field("grant_type") != "client_credentials" {
            let text = "The app requested an unsupported grant type.";
            return Err(entra_error(400, "unsupported_grant_type", 70_003, text));
        }
        let client = field("client_id");
        let apps = &self.apps;
        let Some(app) = apps
            .iter()
            .find(|app| app.tenant == tenant && app.client_id == client)
            .cloned()
        else {
            let text = format!(
                "Application with identifier '{client}' was not found in the directory '{tenant}'."
            );
            return Err(entra_error(400, "unauthorized_client", 700_016, &text));
        };
        match (form.get("client_secret"), form.get("client_assertion")) {
            (Some(secret), _) => self.check_secret(&app, secret)?,
            (None, Some(assertion)) if field("client_assertion_type") == JWT_BEARER => {
                let host = header_text(request.headers(), "host");
                let audience = format!("https://{host}{}", request.uri().path());
                self.check_assertion(&app, assertion, &audience, at)?;
            }
            _ => {
                let text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
                return Err(entra_error(401, "invalid_client", 7_000_218, text));
            }
        }
        let resource = field("scope")
            .strip_suffix("/.default")
            .unwrap_or_default()
            .trim_end_matches('/');
        if !RESOURCES.contains(&resource) {
            let text =
                format!("The resource principal named {resource} was not found in the tenant.");
            return Err(entra_error(400, "invalid_resource", 500_011, &text));
        }
        Ok(((app.tenant, app.client_id), resource.to_owned()))
    }

    fn check_secret(&self, app: &AppRegistration, secret: &str) -> Result<(), Answer> {
        let other = |(id, s): &(String, String)| *id == app.client_id && s == secret;
        if app.client_secret == secret || self.more_secrets.iter().any(other) {
            return Ok(());
        }
        let text = format!(
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{}'.",
            app.client_id
        );
        Err(entra_error(401, "invalid_client", 7_000_215, &text))
    }

    /// RFC 7523: signed with a registered certificate, or a token of a federated issuer.
    fn check_assertion(
        &mut self,
        app: &AppRegistration,
        assertion: &str,
        audience: &str,
        at: &Moment,
    ) -> Result<(), Answer> {
        let malformed = || entra_error(401, "invalid_client", 50_027, "Invalid JWT token.");
        let (signed, signature) = assertion.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or_else(malformed)?;
        let (header, payload) = (
            decoded_json(header).ok_or_else(malformed)?,
            decoded_json(payload).ok_or_else(malformed)?,
        );
        let signature = unbase64url(signature).ok_or_else(malformed)?;
        let claim = |name: &str| payload[name].as_str().unwrap_or_default();
        // A NumericDate may have a fraction (RFC 7519, section 2), and Azure's SDK for Python writes one.
        let date = |name: &str| payload[name].as_f64();
        let now = Duration::from_secs(at.now).as_secs_f64();
        let in_time = date("exp").is_some_and(|exp| exp > now)
            && date("nbf").is_none_or(|nbf| nbf <= now + 300.0);
        if !in_time {
            let text = "Client assertion is not within its valid time range.";
            return Err(entra_error(401, "invalid_client", 700_024, text));
        }
        if header["alg"] == "HS256" {
            return self.check_federated(app, signed, &signature, claim);
        }
        // Azure's SDK for Python pads its thumbprints.
        let thumbprint = |name: &str| header[name].as_str().map(|t| t.trim_end_matches('='));
        let certificate = self.certificates.iter().find(|c| {
            c.client_id == app.client_id
                && (thumbprint("x5t#S256") == Some(&c.sha256) || thumbprint("x5t") == Some(&c.sha1))
        });
        let good = certificate.is_some_and(|c| verifies(c, &header, signed, &signature));
        let claims = claim("iss") == app.client_id
            && claim("sub") == app.client_id
            && claim("aud") == audience;
        if !good || !claims {
            let text = "The certificate with identifier used to sign the client assertion is not registered on application.";
            return Err(entra_error(401, "invalid_client", 700_027, text));
        }
        if self.assertions.iter().any(|used| used == claim("jti")) {
            let text = "The client assertion was used before.";
            return Err(entra_error(401, "invalid_client", 700_027, text));
        }
        self.assertions.push(claim("jti").to_owned());
        Ok(())
    }

    fn check_federated<'p>(
        &self,
        app: &AppRegistration,
        signed: &str,
        signature: &[u8],
        claim: impl Fn(&str) -> &'p str,
    ) -> Result<(), Answer> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, ISSUER_KEY);
        let genuine =
            hmac::verify(&key, signed.as_bytes(), signature).is_ok() && claim("iss") == ISSUER;
        if !genuine {
            let text =
                "The issuer of the presented assertion matches no federated identity record.";
            return Err(entra_error(401, "invalid_client", 700_211, text));
        }
        if claim("aud") != AUDIENCE {
            let text =
                "The audience of the presented assertion matches no federated identity record.";
            return Err(entra_error(401, "invalid_client", 700_212, text));
        }
        let fits =
            |(id, subject): &(String, String)| *id == app.client_id && subject == claim("sub");
        if self.federations.iter().any(fits) {
            return Ok(());
        }
        let text = "The subject of the presented assertion matches no federated identity record.";
        Err(entra_error(401, "invalid_client", 700_213, text))
    }

    /// IMDS, and App Service's endpoint in both of its versions.
    pub(super) fn managed_identity(&mut self, request: &Request<Bytes>, at: &Moment) -> Answer {
        let header = |name: &str| header_text(request.headers(), name);
        let query = query(request);
        let asked = |name: &str| query.get(name).map(String::as_str);
        let imds = request.uri().path().starts_with("/metadata/");
        let old = asked("api-version") == Some("2017-09-01");
        let allowed = match (imds, old) {
            (true, _) => header("metadata") == "true",
            (false, true) => header("secret") == IDENTITY_HEADER,
            (false, false) => header("x-identity-header") == IDENTITY_HEADER,
        };
        let refuse = |status, error: &str, text: &str| {
            (status, json!({ "error": error, "error_description": text }))
        };
        if !allowed && !imds {
            return refuse(
                401,
                "unauthorized",
                "The identity header is missing or wrong",
            );
        }
        if !allowed || request.headers().contains_key("x-forwarded-for") {
            return refuse(
                400,
                "invalid_request",
                "Required metadata header not specified",
            );
        }
        let versions: &[&str] = if imds {
            &["2018-02-01", "2019-08-01"]
        } else {
            &["2017-09-01", "2019-08-01"]
        };
        if !asked("api-version").is_some_and(|v| versions.contains(&v)) {
            return refuse(400, "bad_request", "The api-version is not supported");
        }
        let resource = asked("resource")
            .unwrap_or_default()
            .trim_end_matches('/')
            .to_owned();
        if !RESOURCES.contains(&resource.as_str()) {
            return refuse(400, "invalid_resource", "AADSTS500011");
        }
        let parameters: [(&str, IdOf); 3] = [
            (if old { "clientid" } else { "client_id" }, |u| &u.client_id),
            ("object_id", |u| &u.object_id),
            (if imds { "msi_res_id" } else { "mi_res_id" }, |u| {
                &u.resource_id
            }),
        ];
        let known = |name: &str| {
            ["api-version", "resource"].contains(&name)
                || parameters.iter().any(|(p, _)| *p == name)
        };
        if let Some(unknown) = query.keys().find(|name| !known(name)) {
            return refuse(400, "bad_request", unknown);
        }
        for (name, id) in parameters {
            if let Some(wanted) = asked(name)
                && !self.user_assigned.iter().any(|user| id(user) == wanted)
            {
                return refuse(400, "invalid_request", "Identity not found");
            }
        }
        let (token, life) = self.issue(None, &resource, at);
        let ends = at.now.saturating_add(life);
        let body = if old {
            json!({ "access_token": token, "expires_on": date_text(ends), "resource": resource, "token_type": "Bearer" })
        } else {
            let mut body = json!({ "access_token": token, "not_before": at.now.to_string(), "resource": resource,
                "token_type": "Bearer" });
            match self.expiry {
                ExpiryForm::Seconds => {
                    body["expires_in"] = json!(life.to_string());
                    body["expires_on"] = json!(ends.to_string());
                }
                ExpiryForm::Iso8601 => body["expires_on"] = json!(iso_8601_text(ends)),
                ExpiryForm::Fraction => body["expires_on"] = json!(format!("{ends}.25")),
                ExpiryForm::Absent => {}
            }
            body
        };
        (200, body)
    }
}

/// A token of the emulated cluster's issuer, as Kubernetes projects it into a pod.
pub(super) fn federated_token(subject: &str, now: u64) -> String {
    let header = base64url(br#"{"alg":"HS256","typ":"JWT"}"#);
    let payload =
        json!({ "iss": ISSUER, "sub": subject, "aud": AUDIENCE, "nbf": now, "exp": now + 3600 });
    let signed = format!("{header}.{}", base64url(payload.to_string().as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, ISSUER_KEY);
    format!(
        "{signed}.{}",
        base64url(hmac::sign(&key, signed.as_bytes()).as_ref())
    )
}

fn verifies(certificate: &Certificate, header: &Value, signed: &str, signature: &[u8]) -> bool {
    let algorithm: &dyn signature::VerificationAlgorithm = match header["alg"].as_str() {
        Some("PS256") => &signature::RSA_PSS_2048_8192_SHA256,
        Some("RS256") => &signature::RSA_PKCS1_2048_8192_SHA256,
        _ => return false,
    };
    let key = signature::UnparsedPublicKey::new(algorithm, &certificate.public_key);
    key.verify(signed.as_bytes(), signature).is_ok()
}

fn base64url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn unbase64url(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .ok()
}

fn decoded_json(text: &str) -> Option<Value> {
    serde_json::from_slice(&unbase64url(text)?).ok()
}

/// `9/14/2017 1:30:00 PM +00:00`: what App Service 2017-09-01 writes on Windows.
fn date_text(seconds: u64) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap_or(0))
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (hour, half) = match time.hour() {
        0 => (12, "AM"),
        hour @ 1..=11 => (hour, "AM"),
        12 => (12, "PM"),
        hour => (hour - 12, "PM"),
    };
    format!(
        "{}/{}/{} {hour}:{:02}:{:02} {half} +00:00",
        u8::from(time.month()),
        time.day(),
        time.year(),
        time.minute(),
        time.second()
    )
}

/// `2026-11-27T13:00:00.0000000+00:00`: what some hosts of managed identities write.
fn iso_8601_text(seconds: u64) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap_or(0))
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.0000000+00:00",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
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
