//! Whatever answers in Azure's place is a token, a secret or a failure.

#![no_main]

use azure_key_vault_filter::azure::challenge::Challenge;
use azure_key_vault_filter::azure::dates;
use azure_key_vault_filter::azure::forms::{self, Collection, Form};
use azure_key_vault_filter::azure::http::{Answer, Response};
use azure_key_vault_filter::azure::identity::{Progress, Step};
use azure_key_vault_filter::azure::key_vault::read_secret;
use azure_key_vault_filter::config::Config;
use azure_key_vault_filter::subkey;
use azure_key_vault_filter::time::Timestamp;
use libfuzzer_sys::fuzz_target;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn config() -> Config {
    let json = br#"{"vaults":[
        {"name":"azure","prefix":"aa","config":{"vault_uri":"https://v.vault.azure.net","client_id":"c","client_secret":"s"}},
        {"name":"azure","prefix":"bb","config":{"vault_uri":"https://v.vault.azure.net","identity":"managed_identity"}},
        {"name":"azure","prefix":"cc","config":{"vault_uri":"https://v.vault.azure.net","client_id":"c","federated_token_url":"http://h/t"}}]}"#;
    Config::parse(json, &|_| None).expect("a configuration")
}

fuzz_target!(|input: (u16, Option<String>, Option<String>, &[u8])| {
    let (status, retry_after, challenge, body) = input;
    thread_local!(static CONFIG: Config = config());
    if let Some(text) = &retry_after {
        let _ = (dates::http_date(text), dates::token_date(text));
    }
    if let Some(text) = &challenge
        && let Some(found) = Challenge::parse(text)
    {
        assert!(!found.tenant.contains('/'));
    }
    let answer = Answer::Response(Response {
        status,
        retry_after,
        challenge,
        body: body.to_vec().into(),
        ..Response::default()
    });
    CONFIG.with(|config| {
        for vault in &config.vaults {
            for step in [Step::Challenge, Step::Assertion, Step::Token] {
                if let Ok(Some(token)) = vault.identity.read(step, &answer, &mut Progress::default(), NOW) {
                    assert!(token.value.expose().iter().all(u8::is_ascii_graphic));
                    assert!(token.renew_at <= token.expires_at);
                }
            }
            for collection in [Collection::Secrets, Collection::Certificates, Collection::Keys] {
                let _ = read_secret(vault, collection, &answer, NOW);
            }
        }
    });
    for form in [Form::CertificatePem, Form::PrivateKeyPem, Form::Pkcs12, Form::PublicKeyPem] {
        let _ = forms::make(form, body, 1);
    }
    let _ = subkey::select(body, &["a".to_owned(), "b".to_owned()]);
});
