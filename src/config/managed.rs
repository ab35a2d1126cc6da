//! Which endpoint a managed identity has, and by which id it is known there: from the settings, else from the
//! environment as Azure's SDKs do. It makes no call.

use super::identity::{Given, Place};
use super::uri::HttpUrl;
use super::vaults::Settings;
use crate::azure::identity::{Credential, Identity, Managed, Service, UserAssigned};
use crate::secret::SecretValue;

const IMDS: &str = "http://169.254.169.254/metadata/identity/oauth2/token";

/// The managed identity; `None` when there is a problem, which then is among the problems.
pub(super) fn read(
    settings: &Settings<'_, '_>,
    given: Given,
    place: Option<Place>,
) -> Option<Identity> {
    let env = |name: &str| (settings.env)(name).filter(|value| !value.is_empty());
    let fields = &settings.fields;
    let (service, url, header) = endpoint(settings, &given)?;
    let url = match HttpUrl::parse(&url) {
        Ok(url) => url,
        Err(message) => {
            fields.problem("managed_identity_endpoint", message);
            return None;
        }
    };
    if let Some(variable) = header
        && env(variable).is_none()
    {
        fields.problem("identity", format!(
            "managed_identity needs the environment variable {variable}, which Azure sets for the app; let the gateway pass it on"
        ));
        return None;
    }
    let cluster = given.cluster.clone();
    let user_assigned = user_assigned(settings, given, service).ok()?;
    Some(Identity {
        cluster: cluster.unwrap_or_else(|| url.upstream()),
        scope: place?.scope,
        credential: Credential::Managed(Managed {
            service,
            url,
            header: header.and_then(env).map(SecretValue::new),
            user_assigned,
        }),
    })
}

/// The problem is among the problems.
struct Refused;

/// The user-assigned identity, if one is named.
fn user_assigned(
    settings: &Settings<'_, '_>,
    given: Given,
    service: Service,
) -> Result<Option<UserAssigned>, Refused> {
    let users = [
        ("client_id", given.client_id.map(UserAssigned::ClientId)),
        ("object_id", given.object_id.map(UserAssigned::ObjectId)),
        (
            "resource_id",
            given.resource_id.map(UserAssigned::ResourceId),
        ),
    ];
    let mut users = users
        .into_iter()
        .filter_map(|(name, user)| Some((name, user?)));
    let user = users.next();
    if let Some((name, _)) = users.next() {
        settings.fields.problem(name, "is one too many: a user-assigned identity has either client_id, object_id or resource_id here");
        return Err(Refused);
    }
    if let Some((name, user)) = &user
        && service.parameter(user).is_none()
    {
        settings.fields.problem(
            name,
            format!("is not known to {}; use client_id", service.as_str()),
        );
        return Err(Refused);
    }
    Ok(user.map(|(_, user)| user))
}

/// Which service is there, its URL, and the variable with its header's value: from the settings, else from
/// the environment as the SDKs do.
fn endpoint(
    settings: &Settings<'_, '_>,
    given: &Given,
) -> Option<(Service, String, Option<&'static str>)> {
    let env = |name: &str| (settings.env)(name).filter(|value| !value.is_empty());
    let impossible = |what: &str| {
        settings.fields.problem("identity", format!("managed_identity: {what}; use client_secret or client_certificate, or set managed_identity_source to imds"));
    };
    let header = |service| match service {
        Service::Imds => None,
        Service::AppService => Some("IDENTITY_HEADER"),
        Service::AppService2017 => Some("MSI_SECRET"),
    };
    let found = match given.source {
        Some(source) => source,
        None if env("IDENTITY_ENDPOINT").is_some()
            && env("IDENTITY_SERVER_THUMBPRINT").is_some() =>
        {
            impossible(
                "Service Fabric wants its own certificate to be pinned, which a filter cannot",
            );
            return None;
        }
        None if env("IDENTITY_ENDPOINT").is_some() && env("IMDS_ENDPOINT").is_some() => {
            impossible("Azure Arc proves itself by a file, and a filter cannot read files");
            return None;
        }
        None if env("IDENTITY_ENDPOINT").is_some() => Service::AppService,
        None if env("MSI_ENDPOINT").is_some() && env("MSI_SECRET").is_none() => {
            impossible("Cloud Shell is no place for a gateway");
            return None;
        }
        None if env("MSI_ENDPOINT").is_some() => Service::AppService2017,
        None => Service::Imds,
    };
    let variable = match found {
        Service::Imds => None,
        Service::AppService => env("IDENTITY_ENDPOINT"),
        Service::AppService2017 => env("MSI_ENDPOINT"),
    };
    let url = given.endpoint.clone().or(variable);
    let url = url.or_else(|| (found == Service::Imds).then(|| IMDS.to_owned()));
    if url.is_none() {
        let message = format!(
            "is missing, and so is the environment variable with it; {} needs the one that Azure sets for the app",
            found.as_str()
        );
        settings
            .fields
            .problem("managed_identity_endpoint", message);
    }
    Some((found, url?, header(found)))
}
