//! The cases that were seen, random spellings in random pieces, a naive matcher beside ours, and what a
//! hostile text may cost.

mod naive;

use proptest::prelude::*;

use super::*;
use crate::redact::scan::{End, Scan};

fn redactor(values: &[impl AsRef<str>]) -> Redactor {
    let values: Vec<_> = values
        .iter()
        .map(|v| SecretValue::new(v.as_ref()))
        .collect();
    Redactor::new(&values).unwrap()
}

fn masked(values: &[&str], text: &str) -> String {
    let mut text = text.as_bytes().to_vec();
    redactor(values).mask(&mut text);
    String::from_utf8(text).unwrap()
}

/// A stream in the pieces that end at these places, and what was held after each of them.
fn in_pieces(redactor: &Redactor, text: &[u8], cuts: &[usize]) -> (Vec<u8>, Vec<usize>) {
    let mut stream = redactor.clone().stream();
    let (mut out, mut held, mut from) = (Vec::new(), Vec::new(), 0);
    for &cut in cuts {
        out.extend_from_slice(&stream.piece(&text[from..cut], false));
        held.push(stream.held());
        from = cut;
    }
    out.extend_from_slice(&stream.piece(&text[from..], true));
    assert_eq!(stream.held(), 0, "nothing is held at the end");
    (out, held)
}

#[test]
fn the_spellings_that_were_seen_are_masked() {
    for (value, spelled) in [
        ("s3cr3t/\"x", r#"s3cr3t/"x"#),
        ("s3cr3t/\"x", r#"s3cr3t\/\"x"#),
        ("s3cr3t/\"x", "s3cr3t%2F%22x"),
        ("s3cr3t/\"x", "s3cr3t%2f%22x"),
        ("line\nline\\", r"line\nline\\"),
        ("line\nline\\", r"line\u000Aline\u005c"),
        ("caf\u{e4}-key", r"caf\u00e4-key"),
        ("caf\u{e4}-key", r"caf\u00E4-key"),
        ("caf\u{e4}-key", "caf%c3%A4-key"),
        ("caf\u{e4}-key", "caf&#228;-key"),
        ("caf\u{e4}-key", "caf&#x000E4;-key"),
        ("key\u{1f511}", r"key\ud83d\uDD11"),
        ("key\u{1f511}", "key&#x1f511;"),
        ("a&b=<c>", r"a\u0026b=\u003cc\u003E"),
        ("a&b=<c>", "a&amp;b=&lt;c&gt;"),
        ("a&b=<c>", "a&#38;b=&#060;c&#x3e;"),
        ("it's \"q\"", "it&#39;s &quot;q&quot;"),
        ("it's \"q\"", "it&apos;s+%22q%22"),
        ("two words", "two+words"),
        ("two words", "two%20words"),
        ("two words", "t%77o+w%6Frds"),
        // encodeURIComponent leaves these.
        ("(it's)~*!", "(it's)~*!"),
        ("(it's)~*!", "%28it%27s%29~%2A%21"),
        ("a\"b\\n", r#"a\\\"b\\\\n"#),
        ("a\nbcd", r"a\\nbcd"),
        ("a/bcd", "a%252fbcd"),
        ("a<bcd", "a&amp;lt;bcd"),
        ("a<bcd", r"a\u0026lt;bcd"),
        ("a\"bcd", r"a\&quot;bcd"),
        ("caf\u{e4}-key", "caf&auml;-key"),
        ("\u{c4}\u{d6}\u{dc}\u{df}", "&Auml;&Ouml;&amp;Uuml;&szlig;"),
        ("(a);[b]", "&lpar;a&rpar;&semi;&lbrack;b&rsqb;"),
        ("a\nb\tc|", "a&NewLine;b&Tab;c&vert;"),
        ("mixed /\"&", r"%6Dix\u0065d+\/&quot;\u0026amp;"),
    ] {
        let stars = "*".repeat(spelled.len());
        assert_eq!(
            masked(&[value], &format!("x={spelled}&y")),
            format!("x={stars}&y"),
            "{value:?} as {spelled:?}"
        );
    }
}

#[test]
fn what_is_no_spelling_stays() {
    for (value, text) in [
        ("two words", "two-words two  words two%2words"),
        ("a\nbcd", r"a\\\nbcd a\Nbcd an bcd"),
        (
            "caf\u{e4}",
            r"caf\u00e caf\u00e5 caf\ud83d caf&#228 caf&#0000000000228;",
        ),
        ("key\u{1f511}", r"key\ud83d\ud83d key\ud83dxudd11 key\udd11"),
        (
            "a&bcd",
            "a&ampbcd a&am;bcd a&#;bcd a&#x;bcd a&#99999999999;bcd",
        ),
    ] {
        assert_eq!(masked(&[value], text), text);
    }
    assert!(
        Redactor::new(&[SecretValue::new("abc")]).is_none(),
        "too short to look for"
    );
}

#[test]
fn all_occurrences_are_masked_where_values_overlap() {
    assert_eq!(masked(&["abcd", "cdef"], "xabcdefx"), "x******x");
    assert_eq!(masked(&["abab"], "abababa"), "******a");
    assert_eq!(
        masked(&["abcd", "abcdefgh"], "abcdefgh abcdefg"),
        "******** ****efg"
    );
    assert_eq!(
        masked(&["bcde", "abcdef"], "abcdeX abcdef"),
        "a****X ******"
    );
    assert_eq!(masked(&["1234", "a12345"], "a%312345"), "********");
    // Two spellings of one value that end at the same place: the longer one.
    assert_eq!(masked(&["\nabc"], r"\\nabc"), "******");
}

#[test]
fn a_value_that_begins_another_does_not_wait_and_hides_nothing() {
    let mut stream = redactor(&["hunter", "hunter2-long"]).stream();
    assert_eq!(*stream.piece(b"x hunter", false), *b"x ******");
    assert_eq!(stream.held(), 0, "masked in any case");
    assert_eq!(*stream.piece(b"2-lo", false), *b"");
    assert_eq!(stream.held(), 4);
    assert_eq!(*stream.piece(b"ng y", false), *b"****** y");
    assert_eq!(*stream.piece(b" hunter2-lost", true), *b" ******2-lost");
}

#[test]
fn values_that_come_to_be_known_hide_no_other() {
    let redactor_of = |values: &[&str]| redactor(values);
    let mut stream = redactor_of(&["hunter", "hunter2-long"]).stream();
    let mut out = stream.piece(b"x hunter2-l", false).to_vec();
    assert_eq!(stream.held(), 3, "the rest goes on masked");
    let mut stream = stream.looking_for(redactor_of(&["hunter", "hunter2-long", "2-later"]));
    out.extend_from_slice(&stream.piece(b"ong 2-lat", false));
    let mut stream =
        stream.looking_for(redactor_of(&["hunter", "hunter2-long", "2-later", "late"]));
    out.extend_from_slice(&stream.piece(b"er 2-late", true));
    assert_eq!(out, b"x ************ ******* 2-****");
}

#[test]
fn only_a_true_beginning_is_held_back() {
    let redactor = redactor(&["s3cr3t/x", "caf\u{e4}"]);
    for (text, held) in [
        ("data: event\n\n", 0),
        ("no", 0),
        ("s", 1),
        ("as3cr3t", 6),
        ("s3cr3t%2", 8),
        ("s3cr3t%3", 0),
        (r"s3cr3t\", 7),
        (r"s3cr3t\u002", 11),
        (r"s3cr3t\u003", 0),
        ("s3cr3t&#4", 9),
        ("s3cr3t&#5", 0),
        ("s3cr3t&so", 9),
        ("s3cr3t&am", 9),
        ("s3cr3t&an", 0),
        ("caf%c3", 6),
        ("caf%c4", 0),
        (r"caf\u00e", 8),
        (r"caf\u00f", 0),
        // What an escape could begin, whatever comes before it.
        (r"x\", 1),
        (r"x\u00", 4),
        (r"x\u01", 0),
        ("x%6", 2),
        ("x%9", 0),
        ("x&#", 2),
        ("x&", 1),
        ("x&n", 0),
    ] {
        assert_eq!(
            redactor.ends_in_a_beginning(text.as_bytes()),
            (held > 0).then_some(held),
            "{text}"
        );
        let mut stream = redactor.clone().stream();
        let out = stream.piece(text.as_bytes(), false);
        assert_eq!(
            (stream.held(), out.len()),
            (held, text.len() - held),
            "{text}"
        );
        assert_eq!(
            *stream.piece(b"", true),
            text.as_bytes()[text.len() - held..]
        );
    }
}

#[test]
fn after_its_end_a_stream_begins_anew() {
    let known_by_its_beginning = format!("{}end", "ab".repeat(40));
    let limits = Limits {
        masked_value_bytes: 20,
        ..Limits::default()
    };
    let long = Redactor::within(&[SecretValue::new(known_by_its_beginning)], &limits).unwrap();
    let pieces = |mut stream: MaskStream, pieces: &[(&str, bool)]| {
        let mut got = Vec::new();
        for (piece, end) in pieces {
            got.extend_from_slice(&stream.piece(piece.as_bytes(), *end));
            assert!(!end || stream.held() == 0, "{piece}");
        }
        String::from_utf8(got).unwrap()
    };
    let sent = [
        ("xp", true),
        ("l4nted pl4", false),
        ("nted", false),
        ("p", true),
    ];
    let got = pieces(redactor(&["pl4nted"]).stream(), &sent);
    assert_eq!(got, "xpl4nted *******p");
    // What masks on by pairs of bytes ends there too.
    let sent = [("ab".repeat(20), true), ("abab".to_owned(), true)];
    let sent = sent.each_ref().map(|(piece, end)| (piece.as_str(), *end));
    assert_eq!(
        pieces(long.stream(), &sent),
        format!("{}abab", "*".repeat(40))
    );
}

#[test]
fn what_is_held_is_bounded_and_goes_on_masked() {
    let limits = Limits {
        masked_bytes_held: 100,
        ..Limits::default()
    };
    let value = "a".repeat(400);
    let mut stream = Redactor::within(&[SecretValue::new(value)], &limits)
        .unwrap()
        .stream();
    let mut out = Vec::new();
    for _ in 0..30 {
        out.extend_from_slice(&stream.piece(b"aaaaaaaaaa", false));
        assert!(stream.held() <= 100);
    }
    assert_eq!(out, b"*".repeat(200));
    assert_eq!(
        *stream.piece(b"b", true),
        [b"a".repeat(100), b"b".to_vec()].concat()
    );
}

#[test]
fn no_escape_is_longer_than_the_longest() {
    let longest = (0..=127_u8).flat_map(|byte| naive::spellings(&[byte]));
    let longest = longest
        .map(|spelling| spelling.write(&mut |n| n - 1).len())
        .max();
    assert_eq!(longest, Some(LONGEST_ESCAPE));
}

#[test]
fn values_that_are_not_text_are_masked_raw_and_percent_encoded() {
    let value = [0xff, 0xa4, b'a', b'b', 0xc3];
    let redactor = Redactor::new(&[SecretValue::new(value)]).unwrap();
    let mut text = b"x \xff\xa4ab\xc3 %Ff%a4a%62%C3 y".to_vec();
    assert!(redactor.mask(&mut text));
    assert_eq!(text, b"x ***** ************* y");
}

#[test]
fn headers_that_frame_are_known_in_any_case() {
    for name in [
        "Content-Length",
        "transfer-encoding",
        ":status",
        "DATE",
        "grpc-status",
        "Connection",
    ] {
        assert!(is_framing_header(name.as_bytes()), "{name}");
    }
    for name in [
        "location",
        "set-cookie",
        "grpc-message",
        "content-lengths",
        "x-date",
        "etag",
    ] {
        assert!(!is_framing_header(name.as_bytes()), "{name}");
    }
}

/// Pieces of text that escapes are made of, and a few others.
const TOKENS: [&str; 44] = [
    "a", "b", "ab", "aa", "ba", "\\", "\\\\", "%", "25", "%25", "2", "5", "61", "%61", "%6", "u",
    "00", "0061", "0026", "\\u0061", "\\u00", "\\u0026", "&", "&amp;", "amp;", "am", "#", "&#",
    "&#97;", "97;", "x61;", "0", ";", "\"", "quot;", "n", "\n", "+", " ", "/", "\u{e4}", "e4",
    "%c3", "%A4",
];
/// What values are made of.
const VALUE_TOKENS: [&str; 17] = [
    "a", "b", "a", "b", "aa", "ab", "\\", "%", "25", "&", "amp;", "n", "\n", "\"", " ", "+",
    "\u{e4}",
];

fn values() -> impl Strategy<Value = Vec<String>> {
    let value = proptest::collection::vec(proptest::sample::select(&VALUE_TOKENS[..]), 1..6);
    let value = value.prop_map(|tokens| tokens.concat());
    proptest::collection::vec(value.prop_filter("too short", |v| v.len() >= 4), 1..4)
}

/// A value in a random mixture of spellings.
fn spelled(value: &str, choices: &[usize]) -> String {
    let mut choices = choices.iter().copied().cycle();
    let mut choose = move |n: usize| choices.next().unwrap_or(0) % n;
    let mut text = String::new();
    for character in value.chars() {
        let character = character.to_string();
        match choose(3) {
            0 => text.push_str(&character),
            1 => {
                for byte in character.bytes() {
                    let all = naive::spellings(&[byte]);
                    let percent = &all[choose(2)];
                    text.push_str(&percent.write(&mut choose));
                }
            }
            _ => {
                let all = naive::spellings(character.as_bytes());
                text.push_str(&all[choose(all.len())].write(&mut choose));
            }
        }
    }
    text
}

/// Values between other text, each in a mixture of spellings, and where they are.
fn among(
    values: &[String],
    around: &[String],
    choices: &[usize],
) -> (Vec<u8>, Vec<std::ops::Range<usize>>) {
    let (mut text, mut inside) = (around[0].clone(), Vec::new());
    for (n, value) in values.iter().enumerate() {
        let start = text.len();
        text.push_str(&spelled(value, &choices[n..]));
        inside.push(start..text.len());
        text.push_str(&around[n + 1]);
    }
    (text.into_bytes(), inside)
}

/// That these places are masked, in the whole text and in its pieces.
fn masks_all(
    redactor: &Redactor,
    text: &[u8],
    cuts: &[usize],
    inside: Vec<std::ops::Range<usize>>,
) -> Result<(), TestCaseError> {
    let mut whole = text.to_vec();
    redactor.mask(&mut whole);
    let (out, _) = in_pieces(redactor, text, cuts);
    prop_assert_eq!(out.len(), text.len());
    for place in inside {
        let is_masked = |text: &[u8]| text[place.clone()].iter().all(|b| *b == b'*');
        prop_assert!(is_masked(&whole), "{:?}", place);
        prop_assert!(is_masked(&out), "{:?} in pieces {:?}", place, cuts);
    }
    Ok(())
}

fn cuts(text: &[u8], cuts: Vec<usize>) -> Vec<usize> {
    let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c % (text.len() + 1)).collect();
    cuts.sort_unstable();
    cuts
}

/// Compares with the naive matcher: the whole text, its pieces, and what is held after each.
fn compare(values: &[String], text: &[u8], cuts: &[usize]) -> Result<(), TestCaseError> {
    let redactor = redactor(values);
    let right = naive::mask(text, values);
    let mut whole = text.to_vec();
    let found = redactor.mask(&mut whole);
    prop_assert_eq!(
        String::from_utf8_lossy(&whole),
        String::from_utf8_lossy(&right)
    );
    prop_assert_eq!(found, !naive::find(text, values).occurrences.is_empty());
    let (out, held) = in_pieces(&redactor, text, cuts);
    prop_assert_eq!(
        String::from_utf8_lossy(&out),
        String::from_utf8_lossy(&right),
        "in pieces {:?}",
        cuts
    );
    for (&cut, held) in cuts.iter().zip(held) {
        let begun = naive::find(&text[..cut], values);
        let most = begun.beginning.map(|b| cut - b);
        prop_assert_eq!(
            redactor.ends_in_a_beginning(&text[..cut]),
            most.filter(|m| *m > 0)
        );
        prop_assert!(
            held <= most.unwrap_or(0),
            "{} held of {:?} at {}",
            held,
            most,
            cut
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn it_finds_what_a_naive_matcher_finds(
        values in values(),
        tokens in proptest::collection::vec(proptest::sample::select(&TOKENS[..]), 0..16),
        places in proptest::collection::vec(0_usize..64, 0..5),
    ) {
        let text = tokens.concat().into_bytes();
        let places = cuts(&text, places);
        compare(&values, &text, &places)?;
    }

    #[test]
    fn it_finds_what_a_naive_matcher_finds_in_values_broken_off(
        values in values(),
        choices in proptest::collection::vec(any::<usize>(), 8..40),
        ends in proptest::collection::vec((0_usize..3, 0_usize..60), 1..4),
        places in proptest::collection::vec(0_usize..200, 0..5),
    ) {
        let mut text = Vec::new();
        for (n, (value, end)) in ends.into_iter().enumerate() {
            let spelled = spelled(&values[value % values.len()], &choices[n..]);
            text.extend_from_slice(&spelled.as_bytes()[..end.min(spelled.len())]);
        }
        let places = cuts(&text, places);
        compare(&values, &text, &places)?;
    }

    #[test]
    fn no_spelling_and_no_border_hides_a_value(
        values in proptest::collection::vec("[a-zA-Z0-9 /\\\\\"'&<>+=%\\n\\t\u{e4}\u{20ac}\u{1f511}]{4,20}", 1..4),
        around in proptest::collection::vec("[ -~]{0,12}", 4),
        choices in proptest::collection::vec(any::<usize>(), 8..80),
        places in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let redactor = redactor(&values);
        let (text, inside) = among(&values, &around, &choices);
        let places = cuts(&text, places);
        masks_all(&redactor, &text, &places, inside)?;
        let (out, _) = in_pieces(&redactor, &text, &places);
        let right = naive::mask(&text, &values);
        prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&right));
    }

    #[test]
    fn readings_that_are_too_many_hide_no_value(
        values in proptest::collection::vec(ambiguous(), 1..4),
        around in proptest::collection::vec("[;/%&25a\\\\]{0,12}", 4),
        choices in proptest::collection::vec(any::<usize>(), 8..80),
        places in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let (text, inside) = among(&values, &around, &choices);
        let places = cuts(&text, places);
        masks_all(&redactor(&values), &text, &places, inside)?;
    }

    #[test]
    fn values_that_do_not_fit_are_masked_to_their_end(
        values in proptest::collection::vec("[a-z0-9 /\"\u{e4}\\\\]{4,200}", 1..4),
        most in 1_usize..300,
        around in proptest::collection::vec("[ -~]{0,12}", 4),
        choices in proptest::collection::vec(any::<usize>(), 8..80),
        places in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let redactor = redactor_of(&values, most);
        let states = redactor.values.states();
        prop_assert!(states <= 1 + most.max(16 * values.len()), "{} states", states);
        let (text, inside) = among(&values, &around, &choices);
        let places = cuts(&text, places);
        masks_all(&redactor, &text, &places, inside)?;
    }
}

/// A value that many readings of one text begin: runs of what escapes consist of.
fn ambiguous() -> impl Strategy<Value = String> {
    let run = (
        proptest::sample::select(&["\\", "/", ";", "%", "25", "&", "\0", "a", "amp;"][..]),
        1_usize..40,
    );
    let run = run.prop_map(|(unit, times)| unit.repeat(times));
    proptest::collection::vec(run, 2..6).prop_map(|runs| runs.concat() + "tail")
}

fn redactor_of(values: &[String], masked_value_bytes: usize) -> Redactor {
    let limits = Limits {
        masked_value_bytes,
        ..Limits::default()
    };
    let values: Vec<_> = values
        .iter()
        .map(|v| SecretValue::new(v.as_str()))
        .collect();
    Redactor::within(&values, &limits).unwrap()
}

#[test]
fn a_long_value_is_known_by_its_beginning_and_what_may_be_the_rest() {
    let long = "0123456789".repeat(20);
    let values = [long.clone(), "hunter2".to_owned()];
    let redactor = redactor_of(&values, 50);
    let mut text = format!("{long} 45 hunter2 0123456789 {long}0123").into_bytes();
    redactor.mask(&mut text);
    let stars = "*".repeat(200);
    assert_eq!(
        String::from_utf8(text).unwrap(),
        format!("{stars} 45 ******* 0123456789 {stars}****"),
        "what follows a value as its bytes follow each other is masked too"
    );
}

#[test]
fn more_readings_than_are_followed_hide_no_value() {
    // Each semicolon begins the first value: a reading for each escape. Found by the fuzz target.
    let zeros = |n: usize| "\0".repeat(n);
    let values = [
        format!(";{}", zeros(60)),
        format!("{}0", zeros(86)),
        format!("I{}=0", zeros(6)),
    ];
    let redactor = redactor(&values);
    let second = "&#x0;&amp;#0;".repeat(43) + "&amp;#48;";
    let text = format!("#=&amp;#59;{}#={second}#= and so on", "&amp;#0;".repeat(60));
    let mut masked = text.clone().into_bytes();
    redactor.mask(&mut masked);
    let masked = String::from_utf8(masked).unwrap();
    let right = format!(
        "#={}#={}#= and so on",
        "*".repeat(489),
        "*".repeat(second.len())
    );
    assert_eq!(masked, right);
    let (out, _) = in_pieces(&redactor, text.as_bytes(), &[7, 100, 101, 500, 777, 901]);
    assert_eq!(String::from_utf8(out).unwrap(), right);
}

/// One value of 12,000 bytes: `unit` again and again, then `end`.
fn long(unit: &str, end: &str) -> Vec<String> {
    vec![unit.repeat(12_000 / unit.len()) + end]
}

/// A value of 3,000 words, each `%` or `%25`, which are two spellings of the same character.
fn ambiguous_words() -> String {
    let word = |n: u32| match n.wrapping_mul(2_654_435_769) >> 31 {
        0 => "%",
        _ => "%25",
    };
    (0..3000).map(word).collect()
}

/// Steps for each byte of a text of 1 MB that repeats `pattern`.
fn steps(values: &[String], pattern: &str) -> f64 {
    let redactor = redactor(values);
    let text = pattern.repeat(300_000 / pattern.len()).into_bytes();
    let mut scan = Scan::default();
    scan.run(&redactor.values, &text, 0, End::Closed);
    scan.steps as f64 / text.len() as f64
}

#[test]
fn hostile_texts_cost_few_steps_for_each_byte() {
    let nested: Vec<String> = (4..104).map(|n| "a".repeat(n)).collect();
    for (name, values, pattern) in [
        ("the value nearly, again and again", long("a", "b"), "a"),
        ("the value throughout", long("a", ""), "a"),
        ("escapes throughout", long("a", "b"), "%61"),
        ("escapes between", long("a", "b"), "a%61"),
        (
            "escapes after a long beginning",
            long("a", "b"),
            "aaaaaaaaaaaaaaaa%61",
        ),
        ("two letters", long("ab", "c"), "ababa"),
        ("no escape", long("a", "b"), "%"),
        ("no JSON escape", long("a", "b"), "\\u"),
        ("no entity", long("a", "b"), "&#"),
        ("entities", long("a", "b"), "&#x000000000061;"),
        ("nested entities", long("&", "b"), "&amp;"),
        ("semicolons", long(";", "b"), "&#59;"),
        ("backslashes", long("\\", "b"), "\\"),
        ("newlines", long("\n", "b"), "\\\\n"),
        ("percent twice", long("%25", "b"), "%25"),
        (
            "a reading for each escape",
            vec![format!(";{}b", "a".repeat(12_000))],
            "&#97;",
        ),
        ("names", long("\u{e4}", "b"), "&auml;"),
        ("nearly names", long("\u{e4}", "b"), "&aum"),
        ("values in values", nested, "a"),
        ("a value of ambiguous words", vec![ambiguous_words()], "%25"),
    ] {
        let steps = steps(&values, pattern);
        assert!(steps <= 18.0, "{name}: {steps} steps a byte");
    }
}

#[test]
#[ignore = "measures; run it with --release and --nocapture"]
fn nanoseconds_for_each_byte() {
    let json =
        r#"{"id":12345,"name":"Example name","tags":["one","two"],"note":"some text\nmore"},"#;
    for (name, values, pattern) in [
        (
            "no start",
            vec!["qQz8~key-of-forty-characters".to_owned()],
            "abcdefghi jklmn",
        ),
        ("JSON", vec!["s3cr3t-of-twenty-four-ch".to_owned()], json),
        (
            "JSON, 20 values",
            (0..20)
                .map(|n| format!("{}-value{n}", char::from(b'a' + n)))
                .collect(),
            json,
        ),
        ("aaaa", long("a", "b"), "a"),
        ("all masked", long("a", ""), "a"),
        ("%61", long("a", "b"), "%61"),
        ("%", long("a", "b"), "%"),
        ("\\u", long("a", "b"), "\\u"),
        ("\\u0061", long("a", "b"), "\\u0061"),
        ("&#", long("a", "b"), "&#"),
        ("&", long("a", "b"), "&"),
        ("backslashes", long("\\", "b"), "\\"),
        ("newlines", long("\n", "b"), "\\\\n"),
        ("percent twice", long("%25", "b"), "%25"),
        ("amp", long("&", "b"), "&amp;"),
        ("words", vec![ambiguous_words()], "%25"),
    ] {
        let redactor = redactor(&values);
        let text = pattern.repeat((1 << 20) / pattern.len()).into_bytes();
        let mut copy = text.clone();
        let begun = std::time::Instant::now();
        redactor.mask(&mut copy);
        let whole = begun.elapsed();
        let mut stream = redactor.stream();
        let begun = std::time::Instant::now();
        for piece in text.chunks(16 << 10) {
            stream.piece(piece, false);
        }
        let pieces = begun.elapsed();
        let each = |time: std::time::Duration| time.as_nanos() as f64 / text.len() as f64;
        println!(
            "{name}: {:.2} ns a byte; in pieces of 16 KB {:.2}",
            each(whole),
            each(pieces)
        );
    }
}
