use super::find::{Count, Search, shadows};
use super::render::{Context, judge};
use super::*;
use crate::body::Kind;
use crate::config::OnError;
use crate::limits::Limits;
use crate::metrics::Source;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

/// A cache of these values; every other name is missing.
#[derive(Default)]
struct Values(BTreeMap<&'static str, Vec<u8>>, std::cell::Cell<usize>);

impl Cache for Values {
    fn look_up(&self, want: &Want, _: Option<Timestamp>, now: Timestamp) -> Lookup {
        self.1.set(self.1.get() + 1);
        match self.0.get(want.key.name.as_str()) {
            Some(value) => Lookup::Value {
                value: SecretValue::new(value.clone()),
                fresh_until: now,
                source: Source::Local,
            },
            None => Lookup::Failed {
                reason: Reason::NotFound,
                retry_after: None,
                source: Source::Negative,
            },
        }
    }

    fn mark_used(&mut self, _: &Want, _: Timestamp) {}

    fn fetch_in_background(&mut self, _: &Want, _: Timestamp) {}
}

fn config(limit: usize) -> Config {
    let text = json!({
        "vaults": [{ "name": "azure", "prefix": "azure", "config": {
            "vault_uri": "https://a.vault.azure.net", "vault_cluster": "v", "identity_cluster": "l",
            "tenant_id": "11111111-2222-3333-4444-555555555555",
            "client_id": "11111111-2222-3333-4444-555555555555", "client_secret": "s",
        } }],
        "request": { "resolve": { "headers": ["x-*"], "query": ["*"],
            "body": ["application/json", "text/plain", "application/x-www-form-urlencoded"],
            "allow": ["azure/a", "azure/b", "azure/big", "azure/missing"] } },
    });
    let parsed = Config::parse(text.to_string().as_bytes(), &|_| None);
    let mut config = parsed.unwrap_or_else(|problems| panic!("{problems:?}"));
    config.limits.references = limit;
    config.limits.candidates = 10 * limit;
    config
}

fn cache() -> Values {
    let values = [
        ("a", b"A&\"".to_vec()),
        ("b", b"{vault://azure/a}".to_vec()),
        ("big", vec![b'B'; 25_000]),
    ];
    Values(BTreeMap::from(values), std::cell::Cell::new(0))
}

fn body(config: &Config, kind: Kind, text: &[u8], on_error: OnError) -> Result<Vec<u8>, Denial> {
    let Some(place) = Search::of_requests(config).body(kind, text)? else {
        return Ok(text.to_vec());
    };
    let mut context = Context {
        on_error,
        cache: &mut cache(),
        limits: &config.limits,
        body: text,
        since: None,
        now: Timestamp(1),
        patient: true,
        refusable: true,
        looked_up: &mut Vec::new(),
        used: None,
    };
    match judge(std::iter::once(&place), &mut context) {
        Verdict::Edit(mut edits) => match edits.pop() {
            Some(Edit::Body(body)) => Ok(body.to_vec()),
            other => panic!("{other:?}"),
        },
        Verdict::Deny(denial) => Err(denial),
        Verdict::Wait(_) => panic!("all is known"),
    }
}

fn texts(kind: Kind, text: &str, on_error: OnError) -> String {
    String::from_utf8(body(&config(100), kind, text.as_bytes(), on_error).unwrap()).unwrap()
}

#[test]
fn what_is_untouched_stays_byte_for_byte() {
    let keep = OnError::Keep;
    for (kind, text, expected) in [
        (
            Kind::Json,
            r#"{"k":"\u00e9\/ {vault://azure/a}","{vault://azure/a}":1}"#,
            r#"{"k":"\u00e9\/ A&\"","{vault://azure/a}":1}"#,
        ),
        (
            Kind::Json,
            r#"["\u007bvault:\/\/azure/a}","\\{vault://azure/a}","\u005c{vault://azure/a}"]"#,
            r#"["A&\"","{vault://azure/a}","{vault://azure/a}"]"#,
        ),
        (
            Kind::Json,
            r#"["{vault://azure/b}"]"#,
            r#"["{vault://azure/a}"]"#,
        ),
        (
            Kind::Json,
            r#"["{vault://azure/closed} {vault://azure/missing}"#,
            r#"["{vault://azure/closed} {vault://azure/missing}"#,
        ),
        (
            Kind::Form,
            "a=+1&b=%7bvault://azure%2Fa}&%7b=c&&d={vault://azure/a}",
            "a=+1&b=A%26%22&%7b=c&&d=A%26%22",
        ),
        (
            Kind::Form,
            r"a=\{vault://azure/a}&b=%5c{vault://azure/a}",
            "a={vault://azure/a}&b={vault://azure/a}",
        ),
        (
            Kind::Text,
            r"x {vault://azure/a} \{vault://azure/a} {vault:// {",
            r#"x A&" {vault://azure/a} {vault:// {"#,
        ),
        (
            Kind::Text,
            r"{vault://azure/missing}",
            "{vault://azure/missing}",
        ),
    ] {
        assert_eq!(texts(kind, text, keep), expected, "{text}");
    }
}

#[test]
fn what_could_not_be_resolved_is_removed_as_a_whole() {
    let m = "{vault://azure/missing}";
    for (kind, text, expected) in [
        (
            Kind::Json,
            format!(r#"{{"a":"x{m}","b":"{{vault://azure/a}}"}}"#),
            r#"{"a":null,"b":"A&\""}"#,
        ),
        (Kind::Form, format!("a=1&b={m}&c=2"), "a=1&c=2"),
        (Kind::Form, format!("b={m}&c=2"), "c=2"),
        (Kind::Form, format!("a=1&b={m}&c={m}"), "a=1"),
        (Kind::Form, format!("a=1&&b={m}"), "a=1&"),
        (Kind::Form, format!("b={m}"), ""),
        (Kind::Text, format!("a {m} b"), "a  b"),
    ] {
        assert_eq!(texts(kind, &text, OnError::Remove), expected, "{text}");
    }
}

#[test]
fn a_body_in_which_nothing_changes_has_no_plan() {
    let config = config(3);
    for (kind, text) in [
        (
            Kind::Json,
            r#"{"\u007b":"{vault://azure/closed}","x":"\\n"}"#.repeat(100),
        ),
        (Kind::Form, "&".repeat(1 << 20)),
        (Kind::Json, "\"{\",".repeat(1 << 18)),
        (Kind::Text, "{vault://".repeat(100_000)),
        (Kind::Text, r"\{vault://".repeat(100_000)),
    ] {
        let mut search = Search::of_requests(&config);
        // 100 references that are not allowed are too many to be parsed, of three that may be resolved.
        match search.body(kind, text.as_bytes()) {
            Ok(place) => assert!(place.is_none()),
            Err(denial) => assert_eq!(denial.reason, Reason::TooManyReferences),
        }
    }
}

#[test]
fn the_first_reference_beyond_the_limit_ends_the_search() {
    let config = config(3);
    let refused = |text: &str| {
        Search::of_requests(&config)
            .body(Kind::Text, text.as_bytes())
            .err()
    };
    let a = "{vault://azure/a}";
    assert_eq!(refused(&a.repeat(3)), None);
    let denial = refused(&a.repeat(4)).unwrap();
    assert_eq!(
        (denial.reason, denial.within),
        (Reason::TooManyReferences, Within::Body)
    );
    assert!(refused(&r"\{vault://azure/a}".repeat(4)).is_some());
    assert_eq!(refused(&"{vault://azure/closed}".repeat(30)), None);
    assert!(refused(&"{vault://azure/closed}".repeat(31)).is_some());
    let mut search = Search::of_requests(&config);
    search.count = Count {
        changed: 3,
        parsed: 3,
    };
    assert!(
        search.body(Kind::Text, a.as_bytes()).is_err(),
        "the headers' references count"
    );
    let mut search = Search::of_requests(&config);
    let denial = search
        .query(Some(format!("k={}", a.repeat(4)).as_bytes()))
        .unwrap_err();
    assert_eq!(denial.within, Within::Query);
    assert!(search.count.parsed <= 4);
}

#[test]
fn a_result_beyond_the_limit_is_refused_before_it_is_written() {
    let config = config(100);
    let text = "{vault://azure/big}".repeat(42);
    let denial = body(&config, Kind::Text, text.as_bytes(), OnError::Remove).unwrap_err();
    assert_eq!(denial.reason, Reason::BodyTooLarge);
    let text = "{vault://azure/big}".repeat(41);
    assert_eq!(
        body(&config, Kind::Text, text.as_bytes(), OnError::Deny)
            .unwrap()
            .len(),
        41 * 25_000
    );
    let place = Search::of_requests(&config).query(Some(
        format!("k={}", "{vault://azure/big}".repeat(3)).as_bytes(),
    ));
    let place = place.unwrap().unwrap();
    let limits = Limits::default();
    let mut context = Context {
        on_error: OnError::Remove,
        cache: &mut cache(),
        limits: &limits,
        body: b"",
        since: None,
        now: Timestamp(1),
        patient: true,
        refusable: true,
        looked_up: &mut Vec::new(),
        used: None,
    };
    match judge(std::iter::once(&place), &mut context) {
        Verdict::Deny(denial) => assert_eq!(
            (denial.reason, denial.within),
            (Reason::NotRepresentable, Within::Query)
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_that_an_upstream_may_take_for_ours_are_found() {
    let names = |sent: &[&str], set: &[&str]| {
        let pairs: Vec<(&[u8], &[u8])> = sent.iter().map(|n| (n.as_bytes(), &b"v"[..])).collect();
        let bytes = crate::filter::header_map::serialize(&pairs);
        let map = crate::filter::header_map::HeaderMap::new(&bytes);
        let found = shadows(map, set.iter().map(|name| name.as_bytes()));
        let found = found
            .iter()
            .map(|n| String::from_utf8_lossy(n).into_owned());
        found.collect::<Vec<_>>()
    };
    let sent = [
        ":path",
        "x-out-key",
        "X-Out-Key",
        "x_out_key",
        "x-OUT_key",
        "x_out_key",
        "x_out_keys",
        "xoutkey",
        "x_other",
    ];
    assert_eq!(
        names(&sent, &["x-out-key"]),
        ["x_out_key", "x-OUT_key", "x_out_key"]
    );
    // What the operator writes with `_` is read as one with `-`, too.
    assert_eq!(names(&["a-b", "a_b", "A-B"], &["a_b"]), ["a-b", "A-B"]);
    // Both spellings are the operator's.
    assert!(names(&["a-b", "a_b"], &["a_b", "a-b"]).is_empty());
    assert!(names(&sent, &[]).is_empty() && names(&[], &["x-out-key"]).is_empty());
}

#[test]
fn clients_parameters_that_are_read_as_a_list_of_ours_are_removed() {
    let mut config = config(3);
    let template = Template::parse(b"ours");
    config.request.set_query.push(("api-key".into(), template));
    for (sent, expected) in [
        ("a=1&api-key=x", "a=1&api-key=ours"),
        ("api-key[]=x&a=1", "a=1&api-key=ours"),
        ("api-key%5B%5d=x&api%2dkey[0]=y&a=1", "a=1&api-key=ours"),
        ("api-key[&a", "a&api-key=ours"),
        // Other spellings are the upstream's business.
        (
            "API-KEY=x&+api-key=y&api.key=z",
            "API-KEY=x&+api-key=y&api.key=z&api-key=ours",
        ),
        ("", "api-key=ours"),
    ] {
        let place = Search::of_requests(&config).query(Some(sent.as_bytes()));
        let place = place.unwrap().unwrap();
        let mut context = Context {
            on_error: OnError::Remove,
            cache: &mut cache(),
            limits: &config.limits,
            body: b"",
            since: None,
            now: Timestamp(1),
            patient: true,
            refusable: true,
            looked_up: &mut Vec::new(),
            used: None,
        };
        match judge(std::iter::once(&place), &mut context) {
            Verdict::Edit(edits) => match edits.as_slice() {
                [Edit::Query(query)] => {
                    assert_eq!(String::from_utf8_lossy(query), expected, "{sent}");
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    /// As one would write it without care for memory: parameter by parameter, decoded.
    #[test]
    fn forms_are_as_a_simple_reader_would_write_them(
        parts in proptest::collection::vec((0..5_usize, "[a-c%+]{0,3}"), 0..8),
    ) {
        const VALUES: [(&str, Option<&str>); 5] = [
            ("{vault://azure/a}", Some("A%26%22")),
            ("%7Bvault%3A//azure/a%7D", Some("A%26%22")),
            ("x{vault://azure/missing}", None),
            ("plain", Some("plain")),
            ("{vault://azure/closed}", Some("{vault://azure/closed}")),
        ];
        let text = parts.iter().map(|(n, name)| format!("{name}={}", VALUES[*n].0)).collect::<Vec<_>>().join("&");
        let kept = parts.iter().filter_map(|(n, name)| Some(format!("{name}={}", VALUES[*n].1?)));
        let expected = kept.collect::<Vec<_>>().join("&");
        prop_assert_eq!(texts(Kind::Form, &text, OnError::Remove), expected);
    }

    #[test]
    fn json_strings_say_what_they_said_with_the_values_in_them(
        parts in proptest::collection::vec((0..3_usize, "[a-z\"\\\\{}\u{e9}\u{1f600}\n/]{0,6}"), 1..6),
    ) {
        let spelled = ["{vault://azure/a}", "{vault://azure/closed}", "é"];
        let written = ["A&\"", "{vault://azure/closed}", "é"];
        // A backslash or a brace before a reference is another test's business.
        let clean = |text: &String| text.replace(['\\', '{'], "x");
        let join = |of: [&str; 3]| parts.iter().map(|(n, t)| format!("{}{}", clean(t), of[*n])).collect::<String>();
        let text = serde_json::to_string(&[join(spelled)]).unwrap();
        let read: Vec<String> = serde_json::from_str(&texts(Kind::Json, &text, OnError::Keep)).unwrap();
        prop_assert_eq!(read, [join(written)]);
    }

    #[test]
    fn any_bytes_are_searched_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), spelled in r#"(\{vault://|\\|"|%7b|%|\\u007b|azure/a|\}|&|=){0,12}"#) {
        let text = [bytes.as_slice(), spelled.as_bytes(), &bytes].concat();
        for kind in [Kind::Json, Kind::Form, Kind::Text] {
            let _ = body(&config(3), kind, &text, OnError::Remove);
        }
    }
}
