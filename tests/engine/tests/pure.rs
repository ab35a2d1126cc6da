//! Parsers, cache and Azure's answers inside a Wasm engine: numbers and lengths are as they are in the
//! gateway, where `usize` has 32 bits and overflow is not what it is in native tests. Natively there is
//! nothing here.

#![cfg(all(target_arch = "wasm32", target_os = "unknown"))]

use azure_key_vault_filter::azure::challenge::Challenge;
use azure_key_vault_filter::azure::dates;
use azure_key_vault_filter::azure::forms::Collection;
use azure_key_vault_filter::azure::http::{Answer, Response};
use azure_key_vault_filter::azure::identity::{Progress, Step};
use azure_key_vault_filter::azure::key_vault::{Refusal, read_secret};
use azure_key_vault_filter::body::Kind;
use azure_key_vault_filter::cache::{Found, Record};
use azure_key_vault_filter::config::Config;
use azure_key_vault_filter::fetch::seal::Sealer;
use azure_key_vault_filter::filter::header_map::{HeaderMap, serialize};
use azure_key_vault_filter::grpc::Frames;
use azure_key_vault_filter::message::find::Search;
use azure_key_vault_filter::query;
use azure_key_vault_filter::reference::{Reference, explain, parse_kong};
use azure_key_vault_filter::subkey;
use azure_key_vault_filter::template::{Part, Template};
use azure_key_vault_filter::time::{Span, Timestamp};
use serde_json::Value;
use wasm_bindgen_test::wasm_bindgen_test;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn config() -> Config {
    let json = br#"{"vaults":[{"name":"azure","prefix":"az","config":{"vault_uri":"https://v.vault.azure.net",
        "tenant_id":"t","client_id":"c","client_secret":"s","ttl":100000000,"resurrect_ttl":100000000}}],
        "request":{"resolve":{"body":["application/json"],"allow":["az/db"]}}}"#;
    Config::parse(json, &|_| None).expect("a configuration")
}

fn answer(status: u16, body: &str) -> Answer {
    Answer::Response(Response {
        status,
        body: body.as_bytes().to_vec().into(),
        ..Response::default()
    })
}

/// The same vectors as the native test, every one.
#[wasm_bindgen_test]
fn kongs_reference_vectors() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../data/reference_vectors.json")).expect("JSON");
    let vectors = vectors["vectors"].as_array().expect("a list");
    assert!(vectors.len() >= 250);
    for vector in vectors {
        let (input, expect) = (vector["input"].as_str().expect("a text"), &vector["expect"]);
        match (parse_kong(input), expect["ok"].as_bool()) {
            (Err(_), Some(false)) => {}
            (Ok(parsed), Some(true)) => {
                assert_eq!(parsed.name, expect["parsed"]["name"], "{input}");
                let resource = String::from_utf8_lossy(&parsed.resource);
                assert_eq!(
                    resource,
                    expect["parsed"]["resource"].as_str().unwrap_or(""),
                    "{input}"
                );
            }
            // Azure's versions, which Kong does not have.
            (Ok(parsed), _) => assert!(parsed.version.is_some(), "{input}"),
            (Err(error), _) => panic!("{input}: {error}"),
        }
        let _ = explain(input);
    }
}

#[wasm_bindgen_test]
fn templates_of_every_length() {
    for length in [0, 1, 100, 70_000, 5_000_000] {
        let text = format!(
            "{}{{vault://azure/db}}{}",
            "{".repeat(length),
            "}".repeat(length)
        );
        let template = Template::parse(text.as_bytes());
        let references = template
            .parts
            .iter()
            .filter(|p| matches!(p, Part::Reference { .. }));
        assert_eq!(references.count(), 1, "{length}");
    }
    let long = format!("{{vault://azure/{}}}", "x".repeat(1 << 20));
    assert!(Reference::parse(&long).is_err());
}

#[wasm_bindgen_test]
fn the_cache_counts_in_64_bits() {
    let config = config();
    let rules = config.vaults[0].cache;
    let secret = read_secret(
        &config.vaults[0],
        Collection::Secrets,
        &answer(
            200,
            r#"{"value":"v","attributes":{"exp":18446744073709551}}"#,
        ),
        NOW,
    );
    let found = Found {
        secret: secret.expect("a secret"),
        fetched_at: NOW,
    };
    assert_eq!(found.fresh_until(&rules), NOW + Span::seconds(100_000_000));
    let record = Record {
        found: Some(found),
        failed: None,
    };
    let entry = record.pack("key");
    assert_eq!(Record::unpack("key", &entry), Some(record));
    assert_eq!(Record::unpack("other", &entry), None);
    for cut in 0..entry.len() {
        assert_eq!(Record::unpack("key", &entry[..cut]), None);
    }
    // A length of more than 32 bits, behind a right checksum or not, is no length.
    let mut huge = entry.to_vec();
    huge[4..12].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(Record::unpack("key", &huge), None);
}

#[wasm_bindgen_test]
fn header_maps_with_lengths_beyond_their_end() {
    let good = serialize(&[(b"a", b"1"), (b"b", b"2")]);
    assert_eq!(HeaderMap::new(&good).iter().count(), 2);
    for at in (0..good.len().min(20)).step_by(4) {
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(HeaderMap::new(&bad).iter().count() <= 2);
    }
}

#[wasm_bindgen_test]
fn azures_answers() {
    let config = config();
    let vault = &config.vaults[0];
    let recorded: Value =
        serde_json::from_str(include_str!("../../data/azure_recorded.json")).expect("JSON");
    for exchange in recorded["exchanges"].as_array().expect("a list") {
        let status = exchange["status"].as_u64().expect("a status") as u16;
        let read = read_secret(
            vault,
            Collection::Secrets,
            &answer(status, &exchange["body"].to_string()),
            NOW,
        );
        match status {
            200 => assert!(read.is_ok()),
            401 => assert!(matches!(read, Err(Refusal::Token { .. }))),
            _ => assert!(matches!(read, Err(Refusal::Other(_)))),
        }
    }
    for life in ["1", "3599", "4294967296", "18446744073709551615"] {
        let body = format!(r#"{{"access_token":"t","expires_in":{life}}}"#);
        let token = vault.identity.read(
            Step::Token,
            &answer(200, &body),
            &mut Progress::default(),
            NOW,
        );
        let token = token.unwrap_or_else(|failure| panic!("expires_in {life}: {failure:?}"));
        let token = token.expect("a token");
        assert!(
            token.renew_at <= token.expires_at
                && token.expires_at <= NOW + Span::seconds(7 * 86_400)
        );
    }
    assert_eq!(
        dates::http_date("Fri, 31 Dec 9999 23:59:59 GMT"),
        Some(Timestamp(253_402_300_799_000))
    );
    let header =
        r#"Bearer authorization="https://login.windows.net/t", resource="https://vault.azure.net""#;
    assert_eq!(
        Challenge::parse(header).map(|c| c.tenant),
        Some("t".to_owned())
    );
}

#[wasm_bindgen_test]
fn bodies_queries_and_keys() {
    let text = r#"{"a":"{vault://az/db}","n":18446744073709551616,"d":{"e":"\u00e9"}}"#;
    let config = config();
    let found = Search::of_requests(&config).body(Kind::Json, text.as_bytes());
    assert_eq!(
        found.expect("not refused").map(|place| place.references()),
        Some(1)
    );
    assert_eq!(
        subkey::select(text.as_bytes(), &["n".into()])
            .expect("a number")
            .as_ref(),
        b"18446744073709551616"
    );
    assert_eq!(
        subkey::select(text.as_bytes(), &["d".into(), "e".into()])
            .expect("a text")
            .as_ref(),
        "é".as_bytes()
    );
    assert_eq!(
        query::parameters(b"a=%zz%41+&b")
            .map(|p| p.value().into_owned())
            .collect::<Vec<_>>(),
        [b"%zzA ".to_vec(), Vec::new()]
    );
}

#[wasm_bindgen_test]
fn grpc_messages_of_more_than_31_bits() {
    let frames = Frames::default().after(&[0, 0xff, 0xff, 0xff, 0xff, 1]);
    assert!(!frames.is_between_messages());
}

#[wasm_bindgen_test]
fn sealed_entries_open_here_too() {
    let config = config();
    let sealer = Sealer::of(&config.vaults[0].identity).expect("a sealer");
    let sealed = sealer.seal("key", b"entry", &|| 7).expect("sealed");
    assert_eq!(
        sealer.open("key", &sealed).expect("opened").as_slice(),
        b"entry"
    );
    assert!(sealer.open("other", &sealed).is_none());
}
