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
fn only_an_object_is_read_as_one() {
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
fn a_syntax_error_names_its_place_and_nothing_of_the_text() {
    for (text, message) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{\"a\": 1,\n \"b\"; 2}", "expected `:` at line 2 column 5"),
        ("[1,]", "expected value at line 1 column 4"),
        ("[1 2]", "expected `,` or `]` at line 1 column 4"),
        ("{1}", "key must be a string at line 1 column 2"),
        ("{} {}", "trailing characters at line 1 column 4"),
        ("-", "invalid number at line 1 column 1"),
        ("\"hush", "EOF while parsing a string at line 1 column 5"),
        (
            "\"hush\nhush\"",
            "control character (\\u0000-\\u001F) found while parsing a string at line 1 column 5",
        ),
        ("\"\\x\"", "invalid escape at line 1 column 3"),
        ("nul", "EOF while parsing a value at line 1 column 3"),
        ("hush", "expected value at line 1 column 1"),
    ] {
        let error = Json::read(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), message, "{text:?}");
    }
    let error = Json::read(b"\"ab\xff\"").unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid unicode code point at line 1 column 4"
    );
}

#[test]
fn depth_costs_no_stack() {
    let nested = format!("{}1{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let deep = format!("{{\"a\":{nested}}}");
    assert!(Object::read(deep.as_bytes()).unwrap().has("a"));
    assert_eq!(Json::read(deep.as_bytes()).unwrap().kind(), Kind::Object);
    assert!(Json::read("[{\"a\":".repeat(1_000_000).as_bytes()).is_err());
}

#[test]
fn half_a_surrogate_pair_is_no_text() {
    let json = Json::read(br#"["\ud800"]"#).unwrap();
    assert_eq!(json.list().unwrap()[0].text(), None);
}

proptest::proptest! {
    #[test]
    fn it_reads_what_serde_writes(texts in proptest::collection::vec(".{0,6}", 0..6)) {
        let written = serde_json::to_string(&texts).unwrap();
        let list = Json::read(written.as_bytes()).unwrap().list().unwrap();
        let read: Vec<String> = list.iter().map(|item| item.text().unwrap().into_owned()).collect();
        proptest::prop_assert_eq!(read, texts);
    }
}
