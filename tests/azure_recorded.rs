//! Answers of the real Azure, recorded by its SDKs' own tests (`data/azure_recorded.json` says which),
//! replayed through the parsers.

use azure_key_vault_filter::azure::challenge::Challenge;
use azure_key_vault_filter::azure::forms::Collection;
use azure_key_vault_filter::azure::http::{Answer, Response};
use azure_key_vault_filter::azure::key_vault::{Refusal, read_secret};
use azure_key_vault_filter::config::Config;
use azure_key_vault_filter::failure::Reason;
use azure_key_vault_filter::time::Timestamp;
use serde_json::Value;

/// How many there are: a file that was lost would make a test that finds nothing wrong.
const EXCHANGES: usize = 4;
const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn response(exchange: &Value) -> Response {
    let header = |name: &str| {
        let headers = exchange["headers"].as_object().expect("headers");
        let found = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found
            .and_then(|(_, value)| value.as_str())
            .map(ToOwned::to_owned)
    };
    Response {
        status: exchange["status"].as_u64().expect("a status") as u16,
        retry_after: header("retry-after"),
        request_id: header("x-ms-request-id"),
        challenge: header("www-authenticate"),
        body: exchange["body"].to_string().into_bytes().into(),
    }
}

#[test]
fn every_recorded_exchange_is_understood() {
    let recorded: Value =
        serde_json::from_str(include_str!("data/azure_recorded.json")).expect("JSON");
    let config = br#"{"vaults":[{"name":"azure","prefix":"az","config":{"vault_uri":"https://fakekvurl.vault.azure.net",
        "tenant_id":"mine","client_id":"c","client_secret":"s"}}]}"#;
    let config = Config::parse(config, &|_| None).expect("a configuration");
    let exchanges = recorded["exchanges"].as_array().expect("a list");
    for exchange in exchanges {
        let what = exchange["request"].as_str().expect("a request");
        let response = response(exchange);
        let status = response.status;
        let id = response.request_id.clone();
        if let Some(challenge) = response.challenge.as_deref() {
            let challenge = Challenge::parse(challenge).expect(what);
            assert_eq!(challenge.tenant, "72f988bf-86f1-41af-91ab-2d7cd011db47");
            assert!(challenge.fits("fakekvurl.vault.azure.net"));
        }
        let answer = Answer::Response(response);
        match (
            status,
            read_secret(&config.vaults[0], Collection::Secrets, &answer, NOW),
        ) {
            (200, Ok(secret)) => {
                assert_eq!(
                    secret.value.expose(),
                    exchange["body"]["value"]
                        .as_str()
                        .expect("a value")
                        .as_bytes()
                );
                assert_eq!((secret.expires_at, secret.not_before), (None, None));
            }
            (401, Err(Refusal::Token { failure, .. })) => {
                assert!(failure.detail.contains("AKV10000"), "{}", failure.detail);
                let tenants =
                    "in the tenant 72f988bf-86f1-41af-91ab-2d7cd011db47, tenant_id is mine";
                assert!(failure.detail.contains(tenants), "{}", failure.detail);
                assert_eq!(failure.request_id, id);
            }
            (404, Err(Refusal::Other(failure))) => {
                assert_eq!(failure.reason, Reason::NotFound, "{what}");
                assert!(
                    failure.detail.contains("SecretNotFound"),
                    "{}",
                    failure.detail
                );
            }
            (_, other) => panic!("{what}: {other:?}"),
        }
    }
    assert_eq!(exchanges.len(), EXCHANGES);
    println!("{EXCHANGES} recorded exchanges");
}
