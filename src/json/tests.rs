use super::*;

#[test]
fn members_by_kind() {
    let text = br#"{"t":"a\"\u00e9","n":12,"b":true,"x":null,"l":[ 1, "2", 30 ],"o":{"t":"in"},"n":13,"\u0061":1.5}"#;
    let object = Object::read(text).unwrap();
    let read = |name| object.text(name).map(|text| text.map(|t| t.to_string()));
    assert_eq!(read("t"), Ok(Some("a\"é".to_owned())));
    assert_eq!(read("x"), Ok(None));
    assert_eq!(read("none"), Ok(None));
    assert_eq!(read("n"), Err(Malformed));
    assert_eq!(object.number("n"), Ok(Some(13)));
    assert_eq!(object.number("a"), Err(Malformed));
    assert_eq!(object.number("t"), Err(Malformed));
    assert_eq!(object.boolean("b"), Ok(Some(true)));
    assert_eq!(object.boolean("n"), Err(Malformed));
    assert_eq!(object.get("n").map(Json::written), Some("13"));
    assert_eq!(object.numbers("l"), [1, 30]);
    assert!(object.numbers("t").is_empty());
    let inner = object.object("o").unwrap();
    assert_eq!(inner.text("t").unwrap().unwrap().as_str(), "in");
    assert!(object.object("none").unwrap().get("t").is_none());
    assert_eq!(object.object("t").map(|_| ()), Err(Malformed));
    assert!(object.has("x") && !object.has("none"));
}

#[test]
fn what_is_no_object_is_told() {
    for text in [
        "",
        "1",
        "[]",
        "\"t\"",
        "{",
        "{\"a\":}",
        "{}x",
        "\u{feff}{}",
        "{\"a\":\"\n\"}",
    ] {
        assert!(Object::read(text.as_bytes()).is_err(), "{text:?}");
    }
    assert!(Object::read(b"{\"a\":\"\xff\"}").is_err());
    assert!(Object::read(b" {} ").is_ok());
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, told) in [
        ("", "expected a value at line 1 column 1"),
        (
            "{\"a\": 1,\n \"b\"; 2}",
            "expected a colon at line 2 column 5",
        ),
        ("[1,]", "expected a value at line 1 column 4"),
        (
            "[1 2]",
            "expected a comma or the end of the list or object at line 1 column 4",
        ),
        ("{1}", "expected a name in quotes at line 1 column 2"),
        ("{} {}", "expected nothing more at line 1 column 4"),
        ("-", "expected a digit at line 1 column 2"),
        ("\"a", "a string without an end at line 1 column 3"),
        (
            "\"a\nb\"",
            "a control character in a string (a line break?) at line 2 column 1",
        ),
        (
            "\"\\x\"",
            "a backslash that escapes nothing at line 1 column 4",
        ),
        (
            "\"\\ud800\"",
            "a backslash that escapes nothing at line 1 column 8",
        ),
        ("nul", "expected a value at line 1 column 2"),
    ] {
        assert_eq!(
            Json::read(text.as_bytes()).unwrap_err().to_string(),
            told,
            "{text:?}"
        );
    }
    let error = Json::read(b"\"ab\xff\"").unwrap_err();
    assert_eq!(error.to_string(), "not UTF-8 at line 1 column 4");
}

#[test]
fn what_is_too_deep_is_refused() {
    let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert!(Json::read(nested(128).as_bytes()).is_ok());
    assert!(Json::read(nested(129).as_bytes()).is_err());
    assert!(Json::read("[{\"a\":".repeat(1_000_000).as_bytes()).is_err());
}

proptest::proptest! {
    #[test]
    fn it_takes_what_serde_takes(text in r#"[\[\]{}":,\\a-fnrtu0-9.eE+\- \u{e9}]{0,16}"#) {
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        // A number that no float holds is one all the same.
        let out_of_range = theirs.as_ref().is_err_and(|e| e.to_string().starts_with("number out of range"));
        proptest::prop_assert_eq!(Json::read(text.as_bytes()).is_ok(), theirs.is_ok() || out_of_range, "{}", text);
    }

    #[test]
    fn it_reads_what_serde_writes(texts in proptest::collection::vec(".{0,6}", 0..6)) {
        let written = serde_json::to_string(&texts).unwrap();
        let list = Json::read(written.as_bytes()).unwrap().list().unwrap();
        let read: Vec<String> = list.iter().map(|item| item.text().unwrap().into_owned()).collect();
        proptest::prop_assert_eq!(read, texts);
    }
}
