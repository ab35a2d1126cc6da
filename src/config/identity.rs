//! Which identity a vault's settings describe, and which cloud it is in. What cannot work in a sandbox is
//! refused here with the reason. It makes no call.

use super::managed;
use super::reader::Fields;
use super::uri::{HttpUrl, HttpsUri, did_you_mean};
use super::vaults::Settings;
use crate::azure::challenge::{is_tenant, is_within};
use crate::azure::cloud::{self, CLOUDS, Cloud};
use crate::azure::forms::Kind;
use crate::azure::identity::assertion::ClientCertificate;
use crate::azure::identity::{App, Credential, Identity, Proof, Service, Tenant};
use crate::quoted::Quoted;
use crate::secret::SecretValue;

/// A vault as far as its identity depends on it.
pub(super) struct Target<'a> {
    pub(super) uri: Option<&'a HttpsUri>,
    pub(super) cluster: Option<&'a str>,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    ClientSecret,
    ClientCertificate,
    WorkloadIdentity,
    ManagedIdentity,
}

const CHOICES: [(&str, Choice); 4] = [
    ("client_secret", Choice::ClientSecret),
    ("client_certificate", Choice::ClientCertificate),
    ("workload_identity", Choice::WorkloadIdentity),
    ("managed_identity", Choice::ManagedIdentity),
];

/// Everything below `config` that has to do with who asks.
pub(super) struct Given {
    prefix: String,
    tenant_id: Option<String>,
    pub(super) client_id: Option<String>,
    secret: Option<SecretValue>,
    next_secret: Option<SecretValue>,
    certificate: Option<String>,
    token: Option<SecretValue>,
    token_url: Option<String>,
    token_header: Option<String>,
    token_cluster: Option<String>,
    pub(super) source: Option<Service>,
    pub(super) endpoint: Option<String>,
    pub(super) object_id: Option<String>,
    pub(super) resource_id: Option<String>,
    pub(super) cluster: Option<String>,
}

/// The cloud that a vault's token is for.
pub(super) struct Place {
    pub(super) scope: String,
    authority: Option<HttpsUri>,
    check_resource: bool,
}

/// Reads the identity; `None` when there is a problem, which then is among the problems.
pub(super) fn read(settings: &mut Settings<'_, '_>, target: &Target<'_>) -> Option<Identity> {
    let chosen = chosen(&mut settings.fields);
    let given = Given::read(settings);
    let place = place(settings, target);
    let choice = match chosen {
        Chosen::Wrong => return None,
        Chosen::As(choice) => choice,
        Chosen::Nothing => guess(settings, &given)?,
    };
    given.complain_about_strays(settings, choice);
    if choice == Choice::ManagedIdentity {
        return managed::read(settings, given, place);
    }
    app(settings, given, place, choice, target)
}

enum Chosen {
    Nothing,
    As(Choice),
    Wrong,
}

/// `identity`, with a reason for those of Azure's that are impossible here.
fn chosen(fields: &mut Fields<'_>) -> Chosen {
    let Some(word) = fields.text("identity") else {
        return Chosen::Nothing;
    };
    if let Some((_, choice)) = CHOICES.iter().find(|(known, _)| *known == word) {
        return Chosen::As(*choice);
    }
    let why = match word.as_str() {
        "azure_arc" | "arc" => {
            "is impossible here: Azure Arc proves itself by a file, and a filter cannot read files; use client_secret or client_certificate"
        }
        "azure_cli" | "azure_developer_cli" | "azure_powershell" | "developer_tools" => {
            "is impossible here: it runs a program, and a filter cannot; use client_secret"
        }
        "cloud_shell" | "service_fabric" | "azure_ml" => {
            "is not supported: gateways do not run there; use client_secret or client_certificate"
        }
        _ => "",
    };
    let words = CHOICES.map(|(word, _)| word).join(", ");
    let message = if why.is_empty() {
        format!("must be one of {words}, not {word}", word = Quoted(&word))
    } else {
        format!("{word} {why}", word = Quoted(&word))
    };
    fields.problem("identity", message);
    Chosen::Wrong
}

impl Given {
    fn read(settings: &mut Settings<'_, '_>) -> Self {
        let secret = settings.text("client_secret");
        let certificate = settings.text("client_certificate");
        let token = settings.text("federated_token");
        let token_url = settings.text("federated_token_url");
        let next_secret = settings.text("client_secret_next");
        let fields = &mut settings.fields;
        let token_header = fields.text("federated_token_header");
        let token_cluster = fields.text("federated_token_cluster");
        let source = fields.choice(
            "managed_identity_source",
            &[Service::Imds, Service::AppService, Service::AppService2017].map(|s| (s.as_str(), s)),
        );
        let endpoint = fields.text("managed_identity_endpoint");
        let object_id = fields.text("object_id");
        let resource_id = fields.text("resource_id");
        let cluster = fields.text("identity_cluster");
        Self {
            tenant_id: settings.text("tenant_id"),
            client_id: settings.text("client_id"),
            secret: secret.map(SecretValue::new),
            next_secret: next_secret.map(SecretValue::new),
            token: token.map(SecretValue::new),
            certificate,
            token_url,
            token_header,
            token_cluster,
            source,
            endpoint,
            object_id,
            resource_id,
            cluster,
            prefix: settings.prefix.clone(),
        }
    }

    /// Fields that only another identity has: written, they would do nothing.
    fn complain_about_strays(&self, settings: &Settings<'_, '_>, choice: Choice) {
        let managed = choice == Choice::ManagedIdentity;
        let workload = choice == Choice::WorkloadIdentity;
        let name = CHOICES
            .iter()
            .find(|(_, c)| *c == choice)
            .map_or("", |(n, _)| n);
        let look_at = |field: &str, given: bool, fits: bool| {
            if given && !fits {
                let message = format!("means nothing with identity {name}; leave it out");
                settings.fields.problem(field, message);
            }
        };
        look_at("managed_identity_source", self.source.is_some(), managed);
        look_at(
            "managed_identity_endpoint",
            self.endpoint.is_some(),
            managed,
        );
        look_at("object_id", self.object_id.is_some(), managed);
        look_at("resource_id", self.resource_id.is_some(), managed);
        look_at(
            "federated_token_header",
            self.token_header.is_some(),
            workload,
        );
        look_at(
            "federated_token_cluster",
            self.token_cluster.is_some(),
            workload,
        );
    }
}

/// The order of Azure's DefaultAzureCredential: secret, certificate, workload identity, managed identity.
fn guess(settings: &Settings<'_, '_>, given: &Given) -> Option<Choice> {
    let has = |name: &str| (settings.env)(name).is_some_and(|value| !value.is_empty());
    if given.secret.is_some() {
        return Some(Choice::ClientSecret);
    }
    if given.certificate.is_some() {
        return Some(Choice::ClientCertificate);
    }
    if given.token.is_some() || given.token_url.is_some() {
        return Some(Choice::WorkloadIdentity);
    }
    let managed = given.source.is_some()
        || given.endpoint.is_some()
        || given.object_id.is_some()
        || given.resource_id.is_some();
    if managed || has("IDENTITY_ENDPOINT") || has("MSI_ENDPOINT") || given.tenant_id.is_none() {
        return Some(Choice::ManagedIdentity);
    }
    let prefix = &given.prefix;
    let mut message = format!(
        "is missing; set the environment variable {prefix}_CLIENT_SECRET and let the gateway pass it on \
         (Envoy: vm_config.environment_variables, Kong: KONG_NGINX_MAIN_ENV). Instead of a secret: \
         {prefix}_CLIENT_CERTIFICATE, {prefix}_FEDERATED_TOKEN_URL, or identity managed_identity"
    );
    if has("AZURE_FEDERATED_TOKEN_FILE") {
        message.push_str(". AZURE_FEDERATED_TOKEN_FILE names a file, which a filter cannot read: hand the token over by federated_token_url");
    }
    if has("AZURE_CLIENT_CERTIFICATE_PATH") {
        message.push_str(". AZURE_CLIENT_CERTIFICATE_PATH names a file, which a filter cannot read: hand the PEM text over");
    }
    settings.fields.problem("client_secret", message);
    None
}

/// The cloud: by its name, else by the vault's host. Authority, scope and host have to be of one cloud; a
/// host that is of none needs `cloud: custom` with its `dns_suffix`, so that no typing error sends a token
/// to a stranger.
fn place(settings: &mut Settings<'_, '_>, target: &Target<'_>) -> Option<Place> {
    let names = CLOUDS.iter().map(|cloud| (cloud.name, Some(cloud)));
    let names: Vec<(&str, Option<&Cloud>)> = names.chain([("custom", None)]).collect();
    let cloud = settings.fields.choice("cloud", &names);
    let suffix = settings.fields.text("dns_suffix");
    let scope = settings.fields.text("scope");
    let authority = settings.text("authority_host");
    let given_authority = authority.is_some();
    let authority = settings.uri("authority_host", authority);
    if given_authority && authority.is_none() {
        return None;
    }
    let host = target.uri?.host();
    if cloud == Some(None) {
        return custom(settings, host, suffix, scope, authority);
    }
    for (field, given) in [("dns_suffix", suffix.is_some()), ("scope", scope.is_some())] {
        if given {
            settings.fields.problem(
                field,
                "belongs to cloud custom only; leave it out, or set cloud to custom",
            );
        }
    }
    // A private link's name is not what the vault's certificate is for.
    let known = cloud::of_vault(host).filter(|_| !host.contains(".privatelink."));
    let Some((of_vault, suffix)) = known else {
        refuse_host(settings, host);
        return None;
    };
    if cloud.flatten().is_some_and(|cloud| cloud != of_vault) {
        settings.fields.problem(
            "cloud",
            format!("does not go with vault_uri, which is in {}", of_vault.name),
        );
        return None;
    }
    if suffix.starts_with("managedhsm.") && target.kind != Kind::Keys {
        settings
            .fields
            .problem("type", "must be keys: a managed HSM has nothing else");
    }
    if let Some(authority) = &authority
        && !check_authority(settings, authority, of_vault)
    {
        return None;
    }
    let default = of_vault
        .authorities
        .first()
        .map(|host| format!("https://{host}"));
    Some(Place {
        scope: cloud::scope(suffix),
        authority: authority.or_else(|| HttpsUri::parse(&default?).ok()),
        check_resource: true,
    })
}

fn refuse_host(settings: &Settings<'_, '_>, host: &str) {
    let known = CLOUDS
        .iter()
        .map(|c| format!("NAME.{}", c.suffixes.first().unwrap_or(&"")));
    let known: Vec<String> = known.collect();
    settings.fields.problem("vault_uri", format!(
            "has the host {host}, which is no vault of Azure's clouds ({}){}; if a token may go there, set cloud to custom and dns_suffix to its domain",
            known.join(", "),
            did_you_mean(host)
        ));
}

/// Adds a problem if an authority is not of the vault's cloud; whether it is.
fn check_authority(settings: &Settings<'_, '_>, authority: &HttpsUri, of_vault: &Cloud) -> bool {
    let known = cloud::of_authority(authority.host());
    let fits = known == Some(of_vault);
    if !fits {
        let whose = known.map_or("no cloud of Azure's", |cloud| cloud.name);
        settings.fields.problem("authority_host", format!(
            "is of {whose}, and the vault is in {}: its authority is https://{}; for an authority of your own set cloud to custom",
            of_vault.name,
            of_vault.authorities.first().unwrap_or(&"")
        ));
    }
    fits
}

fn custom(
    settings: &mut Settings<'_, '_>,
    host: &str,
    suffix: Option<String>,
    scope: Option<String>,
    authority: Option<HttpsUri>,
) -> Option<Place> {
    let Some(suffix) = suffix else {
        settings.fields.problem(
            "dns_suffix",
            "is missing: cloud custom needs the domain to which tokens may go",
        );
        return None;
    };
    let suffix = suffix.trim_start_matches('.').to_ascii_lowercase();
    if !is_within(host, &suffix) {
        settings.fields.problem(
            "vault_uri",
            format!(
                "has the host {host}, which is not within dns_suffix {suffix}",
                suffix = Quoted(&suffix)
            ),
        );
        return None;
    }
    let scope = scope.unwrap_or_else(|| cloud::scope("vault.azure.net"));
    let resource = scope.strip_prefix("https://");
    let Some(resource) = resource.and_then(|rest| rest.strip_suffix("/.default")) else {
        settings
            .fields
            .problem("scope", "must be like https://vault.azure.net/.default");
        return None;
    };
    Some(Place {
        check_resource: is_within(host, resource),
        authority: authority.or_else(|| HttpsUri::parse("https://login.microsoftonline.com").ok()),
        scope,
    })
}

fn app(
    settings: &mut Settings<'_, '_>,
    given: Given,
    place: Option<Place>,
    choice: Choice,
    target: &Target<'_>,
) -> Option<Identity> {
    let proof = proof(settings, &given, choice);
    let check_resource = place.as_ref().is_none_or(|place| place.check_resource);
    let tenant = tenant(settings, given.tenant_id, check_resource, target);
    if given.client_id.is_none() {
        let message = format!(
            "is missing; set it here or as KONG_VAULT_AZURE_CLIENT_ID or {}_CLIENT_ID",
            given.prefix
        );
        settings.fields.problem("client_id", message);
    }
    let place = place?;
    let authority = place.authority?;
    Some(Identity {
        cluster: given.cluster.unwrap_or_else(|| authority.upstream()),
        scope: place.scope,
        credential: Credential::App(App {
            authority,
            tenant: tenant?,
            client_id: given.client_id?,
            proof: proof?,
            credentials_prefix: given.prefix,
        }),
    })
}

fn tenant(
    settings: &Settings<'_, '_>,
    tenant: Option<String>,
    check_resource: bool,
    target: &Target<'_>,
) -> Option<Tenant> {
    match tenant {
        Some(tenant) if is_tenant(&tenant) => Some(Tenant::Known(tenant)),
        Some(_) => {
            settings
                .fields
                .problem("tenant_id", "must be a tenant's id or domain name");
            None
        }
        None => Some(Tenant::OfVault {
            uri: target.uri?.clone(),
            cluster: target.cluster?.to_owned(),
            check_resource,
        }),
    }
}

fn proof(settings: &Settings<'_, '_>, given: &Given, choice: Choice) -> Option<Proof> {
    let prefix = &given.prefix;
    let missing = |field: &str, variable: &str| {
        let message = format!(
            "is missing; set the environment variable {prefix}_{variable} and let the gateway pass it on \
             (Envoy: vm_config.environment_variables, Kong: KONG_NGINX_MAIN_ENV)"
        );
        settings.fields.problem(field, message);
    };
    match choice {
        Choice::ClientSecret => {
            if given.secret.is_none() {
                missing("client_secret", "CLIENT_SECRET");
            }
            let current = given.secret.clone()?;
            let next = given.next_secret.clone();
            for (name, secret) in [
                ("client_secret", Some(&current)),
                ("client_secret_next", next.as_ref()),
            ] {
                if secret.is_some_and(|secret| !is_clean(secret)) {
                    let message = "begins or ends with a blank, or holds a line break (from `echo … | base64`?), which Entra's \
                                   secrets never do; set it without (`printf %s … | base64`)";
                    settings.fields.problem(name, message);
                    return None;
                }
            }
            Some(Proof::Secret { current, next })
        }
        Choice::ClientCertificate => {
            let Some(pem) = &given.certificate else {
                missing("client_certificate", "CLIENT_CERTIFICATE");
                return None;
            };
            match ClientCertificate::parse(pem) {
                Ok(certificate) => Some(Proof::Certificate(certificate)),
                Err(why) => {
                    settings.fields.problem("client_certificate", why);
                    None
                }
            }
        }
        _ => federated(settings, given),
    }
}

/// Neither blanks around it nor a control character in it.
fn is_clean(secret: &SecretValue) -> bool {
    let bytes = secret.expose();
    bytes.trim_ascii() == bytes && !bytes.iter().any(u8::is_ascii_control)
}

fn federated(settings: &Settings<'_, '_>, given: &Given) -> Option<Proof> {
    let header = match given.token_header.as_deref().map(one_header) {
        Some(Err(message)) => {
            settings.fields.problem("federated_token_header", message);
            return None;
        }
        Some(Ok(header)) => Some(header),
        None => None,
    };
    match (&given.token_url, &given.token) {
        (Some(url), _) => match HttpUrl::parse_with_query(url) {
            Ok(url) => Some(Proof::FederatedSource {
                cluster: given
                    .token_cluster
                    .clone()
                    .unwrap_or_else(|| url.upstream()),
                header,
                url,
            }),
            Err(message) => {
                settings.fields.problem("federated_token_url", message);
                None
            }
        },
        (None, Some(token)) => Some(Proof::Federated(token.clone())),
        (None, None) => {
            let message = "is missing: SDKs read the token from a file, which a filter cannot; have a sidecar serve \
                           the file's directory over HTTP and name its URL here (see docs/identities.md)";
            settings.fields.problem("federated_token_url", message);
            None
        }
    }
}

/// `Name: value`, the one header that a source of federated tokens may want. WasmX sends it as it is.
fn one_header(text: &str) -> Result<(String, SecretValue), &'static str> {
    let (name, value) = text
        .split_once(':')
        .ok_or("must be like Metadata-Flavor: Google")?;
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
    // RFC 9110, section 5.6.2.
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return Err("has no valid header name before its colon");
    }
    const OURS: [&str; 5] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "te",
    ];
    if OURS.contains(&name.as_str()) {
        return Err("names a header that the gateway writes itself");
    }
    if value.is_empty() || !value.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return Err("has no printable ASCII value behind its colon");
    }
    Ok((name, SecretValue::new(value)))
}
