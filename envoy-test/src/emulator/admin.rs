//! The admin API, for the demo and for curl: seed and rotate secrets, make Azure slow or sick, see what
//! it was asked. A thin skin over [`Azure`]; tests in Rust use that.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::azure::{Azure, Endpoint};
use super::faults::{Cut, Fault};
use super::vault::is_name;

/// What the admin API can do: the answer to any other request.
const HELP: &str = "PUT /admin/secrets/NAME with the value as body; DELETE /admin/secrets/NAME; \
    PATCH /admin/secrets/NAME with Key Vault's JSON; \
    PUT /admin/vaults/VAULT/secrets/NAME with the value as body; \
    PUT /admin/latency/ENDPOINT with milliseconds as body; PUT /admin/client-secret/CLIENT_ID with the secret; \
    POST /admin/revoke-tokens; POST /admin/faults with {\"endpoint\":\"token|secrets|certificates|keys|managed_identity\", \
    \"times\":N, and one of \"status\":N, \"delay_ms\":N, \"throttle\":\"RETRY-AFTER\", \"body\":\"TEXT\" (with \"status\" and \"headers\":{} too), \
    \"cut\":\"before_answer|in_body\"}; DELETE /admin/faults; GET /admin/calls; DELETE /admin/calls";

/// Answers an admin request.
pub(super) fn answer(azure: &Azure, request: &Request<Bytes>) -> Response<String> {
    let path: Vec<&str> = request
        .uri()
        .path()
        .trim_start_matches("/admin/")
        .split('/')
        .collect();
    let text = String::from_utf8_lossy(request.body()).into_owned();
    let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
    let done = match (request.method().as_str(), path.as_slice()) {
        ("PUT", ["secrets", name]) if is_name(name) => {
            azure.set_secret(name, &text);
            json!({})
        }
        ("PUT", ["vaults", vault, "secrets", name]) if is_name(name) => {
            azure.set_secret_in(vault, name, &json!({ "value": text }));
            json!({})
        }
        ("PUT", ["secrets", _] | ["vaults", _, "secrets", _]) => {
            let why =
                json!({ "error": "Key Vault's names have 1 to 127 letters, digits and hyphens" });
            return reply(StatusCode::BAD_REQUEST, &why);
        }
        ("PUT", ["latency", endpoint]) => match (endpoint_named(endpoint), text.trim().parse()) {
            (Some(endpoint), Ok(span)) => {
                azure.set_latency(endpoint, Duration::from_millis(span));
                json!({})
            }
            _ => return reply(StatusCode::BAD_REQUEST, &json!({ "error": HELP })),
        },
        ("PATCH", ["secrets", name]) => {
            azure.update_secret(name, &body);
            json!({})
        }
        ("DELETE", ["secrets", name]) => {
            azure.delete_secret(name);
            json!({})
        }
        ("PUT", ["client-secret", client]) => {
            azure.set_client_secret(client, &text);
            json!({})
        }
        ("POST", ["revoke-tokens"]) => {
            azure.revoke_tokens();
            json!({})
        }
        ("POST", ["faults"]) => match fault(&body) {
            Some((endpoint, fault)) => {
                match body["times"].as_u64().and_then(|n| u32::try_from(n).ok()) {
                    Some(times) => azure.fail_times(endpoint, fault, times),
                    None => drop(azure.fail(endpoint, fault)),
                }
                json!({})
            }
            None => return reply(StatusCode::BAD_REQUEST, &json!({ "error": HELP })),
        },
        ("DELETE", ["faults"]) => {
            azure.clear_faults();
            json!({})
        }
        ("GET", ["calls"]) => calls(azure),
        ("DELETE", ["calls"]) => {
            azure.reset_calls();
            json!({})
        }
        _ => return reply(StatusCode::NOT_FOUND, &json!({ "error": HELP })),
    };
    reply(StatusCode::OK, &done)
}

fn reply(status: StatusCode, body: &Value) -> Response<String> {
    let mut response = Response::new(format!("{body}\n"));
    *response.status_mut() = status;
    response
}

fn endpoint_named(name: &str) -> Option<Endpoint> {
    match name {
        "token" => Some(Endpoint::Token),
        "secrets" => Some(Endpoint::Secrets),
        "certificates" => Some(Endpoint::Certificates),
        "keys" => Some(Endpoint::Keys),
        "managed_identity" => Some(Endpoint::ManagedIdentity),
        "federated_token" => Some(Endpoint::FederatedToken),
        _ => None,
    }
}

/// `status` with `body`: a whole answer, with its headers.
fn whole_answer(body: &Value) -> Option<Fault> {
    let headers = body["headers"].as_object();
    let headers = headers.into_iter().flatten();
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), ToOwned::to_owned);
    Some(Fault::Answer {
        status: u16::try_from(body["status"].as_u64()?)
            .ok()
            .filter(|s| (200..600).contains(s))?,
        headers: headers.map(|(n, v)| (n.clone(), text(v))).collect(),
        body: body["body"].as_str()?.to_owned(),
    })
}

fn fault(body: &Value) -> Option<(Endpoint, Fault)> {
    let endpoint = endpoint_named(body["endpoint"].as_str()?)?;
    let text = |name: &str| body[name].as_str().map(ToOwned::to_owned);
    let fault = if let Some(fault) = whole_answer(body) {
        fault
    } else if let Some(status) = body["status"].as_u64() {
        Fault::Status(
            u16::try_from(status)
                .ok()
                .filter(|s| (200..600).contains(s))?,
        )
    } else if let Some(delay) = body["delay_ms"].as_u64() {
        Fault::Delay(Duration::from_millis(delay))
    } else if let Some(after) = text("throttle") {
        Fault::Throttle(after)
    } else if let Some(body) = text("body") {
        Fault::Body(body)
    } else {
        match body["cut"].as_str()? {
            "before_answer" => Fault::Cut(Cut::BeforeAnswer),
            "in_body" => Fault::Cut(Cut::InBody),
            _ => return None,
        }
    };
    Some((endpoint, fault))
}

fn calls(azure: &Azure) -> Value {
    let log: Vec<Value> = azure
        .calls()
        .iter()
        .map(|call| json!({ "method": call.method, "path": call.path, "status": call.status }))
        .collect();
    json!({
        "token": azure.count(Endpoint::Token),
        "secrets": azure.count(Endpoint::Secrets),
        "managed_identity": azure.count(Endpoint::ManagedIdentity),
        "by_secret": azure.counts().by_secret,
        "log": log,
    })
}
