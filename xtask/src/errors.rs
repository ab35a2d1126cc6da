//! `docs/errors.md`: every reason, and what to do. What Azure's answers lead to is asked of the filter's own
//! readers, so that the page says what the log says; a new reason does not compile before it has its lines here.

use std::fmt::Write as _;

use azure_key_vault_filter::azure::forms::Collection;
use azure_key_vault_filter::azure::http::{Answer, CallFailure, Response};
use azure_key_vault_filter::azure::identity::{AADSTS, Progress, Step};
use azure_key_vault_filter::azure::key_vault::{Refusal, read_secret};
use azure_key_vault_filter::config::{Config, Vault};
use azure_key_vault_filter::failure::{Failure, Reason};
use azure_key_vault_filter::time::Timestamp;
use serde_json::{Value, json};

const HEAD: &str = r#"<!-- Made by `cargo xtask schema` from xtask/src/errors.rs and the filter's own tables; a test keeps them equal. -->

# Errors, and what to do

A secret that could not be resolved has a *reason*, one word that is the same in the client's answer, in the log and in
metrics. The log line before it (`event=secret_failed`, `event=token_failed`) has Azure's request id, and in `detail` what
to do and Azure's codes. [observability.md](observability.md) has all events and metrics.

With `on_error: deny` the client gets the status of this table, and `Retry-After` where a time is known; with
`remove` and `keep` the request goes on.

"#;

/// A reason's lines: the status, what it means, what to do.
struct Lines(u16, &'static str, &'static str);

/// No reason can be forgotten: this is what makes the page, and the compiler knows them all.
const fn lines(reason: Reason) -> Lines {
    match reason {
        Reason::NotFound => Lines(
            503,
            "The vault has no such secret or version, or it is being deleted.",
            "Check the name. Deleted lately: `az keyvault secret recover`. The absence is remembered for `neg_ttl`.",
        ),
        Reason::Forbidden => Lines(
            503,
            "The identity may not read the secret, or the vault's network does not let the gateway in.",
            "See the table of Key Vault's answers; the detail names the identity.",
        ),
        Reason::Disabled => Lines(
            503,
            "The secret's version is disabled.",
            "`az keyvault secret set-attributes --enabled true`, or set a new version.",
        ),
        Reason::Expired => Lines(
            503,
            "The secret's expiry date has passed. It ends a cached value, too.",
            "Set a new version.",
        ),
        Reason::NotYetValid => Lines(
            503,
            "The secret's activation date has not come.",
            "Wait, or correct `nbf`.",
        ),
        Reason::Credentials => Lines(
            503,
            "Entra ID gave no token, or the vault does not accept it.",
            "See the table of Entra ID's codes.",
        ),
        Reason::Throttled => Lines(
            503,
            "Azure answered 429. If it was the vault, every call to it waits, in all workers that share data.",
            "Fewer calls: a longer `ttl`, fewer secrets, a vault of its own. See [sizing.md](sizing.md).",
        ),
        Reason::Unavailable => Lines(
            503,
            "Azure could not be reached, cut the connection, or answered 5xx.",
            "See the table of calls. Until `ttl` and `resurrect_ttl` are over, cached values serve on.",
        ),
        Reason::Timeout => Lines(
            503,
            "No answer within `timeout_ms`.",
            "Network, DNS, firewall; then `timeout_ms`.",
        ),
        Reason::BadAnswer => Lines(
            503,
            "Something answered that is not Azure, or not in its form.",
            "`vault_uri`, `authority_host`, `api_version`; a proxy on the way.",
        ),
        Reason::Gateway => Lines(
            503,
            "The gateway has no such cluster, or one without hosts.",
            "`vault_cluster`, `identity_cluster`; `cargo xtask check FILE` compares them with the file.",
        ),
        Reason::NoSuchKey => Lines(
            503,
            "The reference has a `/KEY`, and the secret is not a JSON object or has no text, number or boolean there.",
            "The reference, or the secret's value.",
        ),
        Reason::NotBase64 => Lines(
            503,
            "`base64_decode` is on and the value is not base64.",
            "Switch it off for this vault, or for this reference: `?base64_decode=false`.",
        ),
        Reason::NotRepresentable => Lines(
            503,
            "The value cannot be written where it was to go: a control character in a header (often a line break at the end), bytes that are not UTF-8 in JSON.",
            "Store it without the line break (`printf %s` instead of `echo`), or with `base64_decode`.",
        ),
        Reason::BadReference => Lines(
            503,
            "Not given at present: a reference that cannot be read goes on as it came, and is an error in the configuration.",
            "–",
        ),
        Reason::RepeatedHeader => Lines(
            400,
            "Kong only: the client sent a header twice that is set or resolved, and this host would send its copy beside ours.",
            "The client sends it once.",
        ),
        Reason::NeedsPkcs12 => Lines(
            503,
            "A private key out of a certificate that is stored as PKCS#12.",
            "The filter from `target/dist/full`, or a certificate that is stored as PEM.",
        ),
        Reason::TooManyFetches => Lines(
            503,
            "Clients' references cause more fetches than `max_fetches_per_second` or `max_fetches_in_flight` allow. `Retry-After: 1`.",
            "Who asks for so many secrets? A narrower `allow`, else higher limits.",
        ),
        Reason::BodyTooLarge => Lines(
            413,
            "The body is longer than `max_body_bytes`, or (Kong) than nginx's buffer.",
            "`max_body_bytes`; Kong: `nginx_http_client_body_buffer_size`.",
        ),
        Reason::TooManyReferences => Lines(
            413,
            "A message holds more than 100 references that would be resolved or are escaped, or more than 1,000 that look like one. 413 is the status for a body; in headers it is 431, in the query 414.",
            "The client sends fewer references in one message.",
        ),
        Reason::NotReady => Lines(
            503,
            "Kong only: the value came too late for a body, or for a response. `Retry-After: 1`.",
            "The next request goes through. What the operator's `set` needs is there before.",
        ),
        Reason::Overloaded => Lines(
            503,
            "The worker holds as much for waiting messages and collected responses as `limits.held_bytes` allows. `Retry-After: 1`.",
            "Is Azure slow? Smaller bodies (`max_body_bytes`), more workers, else a higher limit.",
        ),
    }
}

/// The page.
pub(crate) fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("| reason | status | what it means | what to do |\n| --- | --- | --- | --- |\n");
    for reason in (0..=u8::MAX).map_while(Reason::from_code) {
        let Lines(status, means, todo) = lines(reason);
        let _ = writeln!(
            page,
            "| `{}` | {status} | {means} | {todo} |",
            reason.as_str()
        );
    }
    page.push_str(
        "\nFailures that may pass are tried again after a second, and twice as long with each further one up to 30 seconds \
         (up to half\nof it left out by chance), or after Azure's `Retry-After` if that is longer (an hour at the most). Until then \
         requests are\nanswered at once. A 429 or 503 of the vault holds every call to it.\n",
    );
    entra(&mut page);
    key_vault(&mut page);
    managed(&mut page);
    calls(&mut page);
    configuration(&mut page);
    page
}

fn entra(page: &mut String) {
    page.push_str(
        "\n## Entra ID's codes\n\nIn `detail` of `event=token_failed`, with Entra's own ids. Codes that are not here have the advice\n\
         to look them up at <https://login.microsoftonline.com/error>.\n\n| code | reason | detail |\n| --- | --- | --- |\n",
    );
    for (codes, reason, text) in AADSTS {
        let codes: Vec<String> = codes.iter().map(|code| format!("AADSTS{code}")).collect();
        let text = text
            .replace("{prefix}", "AZURE")
            .replace("{id}", "*CLIENT_ID*");
        let _ = writeln!(
            page,
            "| {} | `{}` | {text} |",
            codes.join(", "),
            reason.as_str()
        );
    }
}

/// Status, code and inner code of Key Vault's answers.
const KEY_VAULT: [(u16, &str, &str); 12] = [
    (401, "Unauthorized", ""),
    (403, "Forbidden", "ForbiddenByRbac"),
    (403, "Forbidden", "ForbiddenByPolicy"),
    (403, "Forbidden", "ForbiddenByFirewall"),
    (403, "Forbidden", "ForbiddenByConnection"),
    (403, "Forbidden", "SecretDisabled"),
    (404, "SecretNotFound", ""),
    (409, "Conflict", "ObjectIsBeingDeleted"),
    (429, "Throttled", ""),
    (400, "BadParameter", ""),
    (503, "", ""),
    (504, "", ""),
];

fn key_vault(page: &mut String) {
    page.push_str(
        "\n## Key Vault's answers\n\nIn `detail` of `event=secret_failed`.\n\n\
         | status | code | reason | detail |\n| --- | --- | --- | --- |\n",
    );
    let vault =
        vault(json!({ "tenant_id": "TENANT", "client_id": "CLIENT_ID", "client_secret": "-" }));
    for (status, code, inner) in KEY_VAULT {
        let body = json!({ "error": { "code": code, "innererror": { "code": inner } } });
        let read = read_secret(
            &vault,
            Collection::Secrets,
            &answer(status, &body),
            Timestamp(0),
        );
        let Err(Refusal::Token { failure, .. } | Refusal::Other(failure)) = read else {
            continue;
        };
        let code = if inner.is_empty() { code } else { inner };
        row(page, &format!("{status} | {code}"), &failure);
    }
}

fn managed(page: &mut String) {
    page.push_str(
        "\n## Managed identities' answers\n\nIn `detail` of `event=token_failed`.\n\n\
         | endpoint | status | reason | detail |\n| --- | --- | --- | --- |\n",
    );
    let sources = [
        ("imds", "metadata service", &[400, 404, 410, 429, 500][..]),
        (
            "app_service",
            "App Service, Container Apps",
            &[400, 401, 403, 500][..],
        ),
    ];
    for (source, name, statuses) in sources {
        let vault = vault(json!({
            "identity": "managed_identity",
            "managed_identity_source": source,
            "managed_identity_endpoint": "http://127.0.0.1:4141/token",
        }));
        for status in statuses {
            let answer = answer(*status, &json!({}));
            let mut progress = Progress::default();
            let read = vault
                .identity
                .read(Step::Token, &answer, &mut progress, Timestamp(0));
            if let Err(failure) = read {
                row(page, &format!("{name} | {status}"), &failure);
            }
        }
    }
}

const fn what_happened(failure: CallFailure) -> &'static str {
    match failure {
        CallFailure::UnknownCluster => {
            "the gateway knows no such cluster, or not yet: at its start, before DNS has answered (Envoy)"
        }
        CallFailure::NotSent => {
            "the gateway did not send it: no address, DNS among the reasons (Envoy)"
        }
        CallFailure::Timeout => "time is over",
        CallFailure::Broken => "no connection, or cut off",
        CallFailure::Tls => {
            "TLS (told apart in Kong 3.9 and later only; in Envoy it is a connection that could not be made)"
        }
        CallFailure::Dns => {
            "DNS (told apart in Kong 3.9 and later only; in Envoy it is a cluster without hosts)"
        }
    }
}

fn calls(page: &mut String) {
    page.push_str(
        "\n## Calls that get no answer\n\nTo whatever is called; the detail begins with the cluster.\n\n\
         | what happened | reason | detail |\n| --- | --- | --- |\n",
    );
    let all = [
        CallFailure::UnknownCluster,
        CallFailure::NotSent,
        CallFailure::Timeout,
        CallFailure::Broken,
        CallFailure::Tls,
        CallFailure::Dns,
    ];
    for failure in all {
        row(page, what_happened(failure), &failure.explain("*CLUSTER*"));
    }
}

fn configuration(page: &mut String) {
    page.push_str(
        r#"
## A configuration that is refused

`event=configuration_refused`, a line for each error, with its path and what to do; `cargo xtask check FILE` gives the
same lines with the file's line numbers. Envoy keeps the configuration that it had, or does not start. In Kong every
request of that filter is answered 503 until it is corrected.
"#,
    );
}

fn row(page: &mut String, first: &str, failure: &Failure) {
    // The status is in a column of its own.
    let detail = failure.detail.split(" (status ").next().unwrap_or_default();
    let _ = writeln!(
        page,
        "| {first} | `{}` | {detail} |",
        failure.reason.as_str()
    );
}

fn answer(status: u16, body: &Value) -> Answer {
    Answer::Response(Response {
        status,
        body: body.to_string().into_bytes().into(),
        ..Response::default()
    })
}

/// A vault with this configuration, which has to be good.
fn vault(mut config: Value) -> Vault {
    config["vault_uri"] = json!("https://payments.vault.azure.net");
    let whole = json!({ "vaults": [{ "name": "azure", "prefix": "payments", "config": config }] });
    let env = |name: &str| (name == "IDENTITY_HEADER").then(|| "-".to_owned());
    let read = Config::parse(whole.to_string().as_bytes(), &env);
    let vault = read
        .ok()
        .and_then(|config| config.vaults.into_iter().next());
    vault.unwrap_or_else(|| unreachable!("a configuration that a test reads"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_on_the_page() {
        let page = page();
        for reason in (0..=u8::MAX).map_while(Reason::from_code) {
            let start = format!("\n| `{}` | ", reason.as_str());
            assert!(page.contains(&start), "{}", reason.as_str());
        }
        for row in ["401 | Unauthorized", "504 | ", "metadata service | 410"] {
            assert!(page.contains(&format!("| {row}")), "{row}");
        }
    }
}
