//! Files good and bad, and what is said of them: `xtask/tests/check/NAME` and beside it `NAME.expected`.
//! With `AKV_BLESS=1` the expectations are written anew, for a look at the difference.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::*;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/check")
}

fn nothing(_: &str) -> Option<String> {
    None
}

fn with<'a>(variables: &'a [Variable], strict: bool) -> Options<'a> {
    Options {
        variables,
        own: &nothing,
        strict,
    }
}

fn names() -> BTreeSet<String> {
    let entries = fs::read_dir(folder()).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".expected"))
        .collect()
}

#[test]
fn files_are_judged_as_expected() {
    let bless = std::env::var_os("AKV_BLESS").is_some();
    let mut wrong = Vec::new();
    for name in names() {
        let text = fs::read_to_string(folder().join(&name)).unwrap();
        let report = check(&name, &text, &with(&[], false)).to_string();
        let expectation = folder().join(format!("{name}.expected"));
        if bless {
            fs::write(&expectation, &report).unwrap();
        }
        let expected = fs::read_to_string(&expectation).unwrap_or_default();
        if report != expected {
            wrong.push(format!("{name}:\n{report}\ninstead of\n{expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn good_files_are_good_and_bad_ones_bad() {
    let names = names();
    for kind in ["bare", "kong", "envoy", "istio", "envoy-gateway"] {
        for goodness in ["good", "bad"] {
            let start = format!("{goodness}-{kind}");
            assert!(names.iter().any(|name| name.starts_with(&start)), "{start}");
        }
    }
    for name in names {
        let text = fs::read_to_string(folder().join(&name)).unwrap();
        let report = check(&name, &text, &with(&[], false));
        assert_eq!(
            report.errors == 0,
            name.starts_with("good-"),
            "{name}:\n{report}"
        );
    }
}

const BARE: &str = r#"{"vaults":[{"name":"azure","prefix":"pay","config":{
    "vault_uri":"https://my-vault.vault.azure.net","tenant_id":"t","client_id":"c"}}]}"#;

#[test]
fn a_missing_credential_is_a_note_unless_strict() {
    let report = check("a.json", BARE, &with(&[], false));
    assert_eq!(report.errors, 0);
    assert!(
        report.text.contains("AZURE_CLIENT_SECRET is assumed"),
        "{report}"
    );

    let report = check("a.json", BARE, &with(&[], true));
    assert_eq!(report.errors, 1);
    assert!(
        report
            .text
            .contains("a.json:1: error: vaults[0].config.client_secret: is missing"),
        "{report}"
    );

    for given in ["AZURE_CLIENT_SECRET=hush", "AZURE_CLIENT_SECRET"] {
        let report = check("a.json", BARE, &with(&[given.parse().unwrap()], true));
        assert_eq!(report.errors, 0, "{report}");
        assert!(
            !report.text.contains("assumed") && !report.text.contains("hush"),
            "{report}"
        );
    }
}

#[test]
fn every_kind_of_credential_can_be_assumed() {
    for (settings, variable) in [
        (
            r#""identity":"client_certificate","#,
            "AZURE_CLIENT_CERTIFICATE",
        ),
        (r#""credentials_prefix":"PAY","#, "PAY_CLIENT_SECRET"),
        (
            r#""identity":"managed_identity","managed_identity_source":"app_service","#,
            "IDENTITY_HEADER",
        ),
        (
            r#""identity":"managed_identity","managed_identity_source":"app_service_2017","#,
            "MSI_SECRET",
        ),
    ] {
        let text = BARE.replace(r#""config":{"#, &format!(r#""config":{{{settings}"#));
        let report = check("a.json", &text, &with(&[], false));
        assert_eq!(report.errors, 0, "{report}");
        assert!(
            report.text.contains(&format!("{variable} is assumed")),
            "{report}"
        );
    }
}

#[test]
fn assuming_a_credential_hides_no_other_problem() {
    let text = BARE.replace(
        r#""client_id":"c""#,
        r#""client_secret":["hush"],"clientid":"c""#,
    );
    let report = check("a.json", &text, &with(&[], false));
    for expected in [
        "client_secret: must be a text",
        "clientid: is not a known field; did you mean `client_id`?",
    ] {
        assert!(report.text.contains(expected), "{report}");
    }
    assert!(!report.text.contains("hush"), "{report}");
}

#[test]
fn variables_of_kongs_environment_are_settings() {
    let variables = [
        "KONG_VAULT_AZURE_VAULT_URI=https://v.vault.azure.net",
        "KONG_VAULT_AZURE_TENANT_ID=t",
        "AZURE_CLIENT_ID=c",
    ];
    let variables: Vec<Variable> = variables.iter().map(|text| text.parse().unwrap()).collect();
    let report = check("a.json", "{}", &with(&variables, false));
    assert_eq!(report.errors, 0, "{report}");
    assert!(
        report
            .text
            .contains("azure: secrets of https://v.vault.azure.net"),
        "{report}"
    );
    assert!("=x".parse::<Variable>().is_err());
}

#[test]
fn broken_json_is_said_with_its_line() {
    let report = check("a.json", "{\n  \"vaults\": [,]\n}", &with(&[], false));
    assert!(
        report
            .text
            .starts_with("a.json:2: error: is not valid JSON"),
        "{report}"
    );
}

/// The example of Envoy, with a rule for bodies and with or without the flag.
fn envoy_with_body_rules(flag: &str) -> Report {
    let example = include_str!("../../../filter-config/envoy/envoy.yaml");
    const FLAG: &str = "allow_on_headers_stop_iteration: true";
    const RULE: &str = r#""headers": ["x-partner-key"],"#;
    assert!(example.contains(FLAG) && example.contains(RULE));
    let text = example
        .replace(FLAG, flag)
        .replace(RULE, &format!(r#"{RULE} "body": ["application/json"],"#));
    check("envoy.yaml", &text, &with(&[], false))
}

#[test]
fn body_rules_without_held_headers_are_a_note_and_no_error() {
    const NOTE: &str = "a request's headers go on before its body is judged";
    for (flag, noted) in [
        ("allow_on_headers_stop_iteration: true", false),
        ("allowOnHeadersStopIteration: true", false),
        ("allow_on_headers_stop_iteration: false", true),
        ("", true),
    ] {
        let report = envoy_with_body_rules(flag);
        assert_eq!(report.errors, 0, "{report}");
        assert_eq!(report.text.contains(NOTE), noted, "{flag}: {report}");
    }
    let example = include_str!("../../../filter-config/envoy/envoy.yaml");
    let without_rules = example.replace("allow_on_headers_stop_iteration: true", "");
    let report = check("envoy.yaml", &without_rules, &with(&[], false));
    assert!(!report.text.contains(NOTE), "{report}");
}
