//! The matcher written again as its definition says it, by trying every spelling at every place: slow, and
//! with a grammar of its own.

use std::ops::Range;

/// A part of a spelling.
#[derive(Clone, Debug)]
enum Part {
    Exactly(String),
    /// Hexadecimal digits in any case.
    Hex(String),
    /// A number's digits, with zeros before them, twelve at the most.
    Number(String),
}

/// One way of writing a character or a byte.
#[derive(Clone, Debug)]
pub(super) struct Spelling(Vec<Part>);

fn exactly(text: &str) -> Part {
    Part::Exactly(text.to_owned())
}

/// Every escape that stands for these bytes, a character or one byte.
pub(super) fn spellings(bytes: &[u8]) -> Vec<Spelling> {
    let mut all = Vec::new();
    if let [byte] = bytes {
        for introducer in ["%", "%25"] {
            all.push(vec![exactly(introducer), Part::Hex(format!("{byte:02x}"))]);
        }
        if *byte == b' ' {
            all.push(vec![exactly("+")]);
        }
    }
    if let Some(character) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|s| s.chars().next())
    {
        for introducer in [r"\u", r"\\u"] {
            let mut parts = Vec::new();
            for unit in character.encode_utf16(&mut [0; 2]) {
                parts.extend([exactly(introducer), Part::Hex(format!("{unit:04x}"))]);
            }
            all.push(parts);
        }
        let json: &[&str] = match character {
            '"' => &[r#"\""#, r#"\\\""#],
            '\\' => &[r"\\", r"\\\\"],
            '/' => &[r"\/", r"\\/", r"\\\/"],
            '\u{8}' => &[r"\b", r"\\b"],
            '\u{c}' => &[r"\f", r"\\f"],
            '\n' => &[r"\n", r"\\n"],
            '\r' => &[r"\r", r"\\r"],
            '\t' => &[r"\t", r"\\t"],
            _ => &[],
        };
        all.extend(json.iter().map(|text| vec![exactly(text)]));
        for reference in references(character) {
            let mut introducers = vec!["&", "&amp;", r"\u0026"];
            if matches!(character, '"' | '\\' | '/') {
                introducers.push(r"\&");
            }
            for introducer in introducers {
                let mut parts = vec![exactly(introducer)];
                parts.extend(reference.clone());
                all.push(parts);
            }
        }
    }
    all.into_iter().map(Spelling).collect()
}

/// HTML's names of the characters from U+00A0 to U+00FF.
const LATIN_1: &str = "\
    nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr deg plusmn \
    sup2 sup3 acute micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 iquest Agrave \
    Aacute Acirc Atilde Auml Aring AElig Ccedil Egrave Eacute Ecirc Euml Igrave Iacute Icirc Iuml \
    ETH Ntilde Ograve Oacute Ocirc Otilde Ouml times Oslash Ugrave Uacute Ucirc Uuml Yacute THORN \
    szlig agrave aacute acirc atilde auml aring aelig ccedil egrave eacute ecirc euml igrave iacute \
    icirc iuml eth ntilde ograve oacute ocirc otilde ouml divide oslash ugrave uacute ucirc uuml \
    yacute thorn yuml";
/// Its names of other characters.
const SIGNS: &str = "\
    9=Tab a=NewLine 21=excl 22=quot 22=QUOT 23=num 24=dollar 25=percnt 26=amp 26=AMP 27=apos \
    28=lpar 29=rpar 2a=ast 2a=midast 2b=plus 2c=comma 2e=period 2f=sol 3a=colon 3b=semi 3c=lt 3c=LT \
    3d=equals 3e=gt 3e=GT 3f=quest 40=commat 5b=lbrack 5b=lsqb 5c=bsol 5d=rbrack 5d=rsqb 5e=Hat \
    5f=lowbar 60=grave 7b=lcub 7b=lbrace 7c=verbar 7c=vert 7d=rcub 7d=rbrace";

fn references(character: char) -> Vec<Vec<Part>> {
    let code = u32::from(character);
    let latin = code
        .checked_sub(0xa0)
        .and_then(|n| LATIN_1.split_whitespace().nth(usize::try_from(n).ok()?));
    let signs = SIGNS.split_whitespace().filter_map(|sign| {
        let (sign, name) = sign.split_once('=')?;
        (u32::from_str_radix(sign, 16) == Ok(code)).then_some(name)
    });
    let mut all: Vec<Vec<Part>> = latin
        .into_iter()
        .chain(signs)
        .map(|name| vec![exactly(&format!("{name};"))])
        .collect();
    all.push(vec![
        exactly("#"),
        Part::Number(code.to_string()),
        exactly(";"),
    ]);
    for x in ["#x", "#X"] {
        all.push(vec![
            exactly(x),
            Part::Number(format!("{code:x}")),
            exactly(";"),
        ]);
    }
    all
}

/// How a text begins with a spelling.
#[derive(PartialEq)]
enum Begins {
    With(usize),
    /// It ends inside of it.
    Inside,
    Not,
}

impl Spelling {
    /// It in full. `choose` says how many zeros, and which hexadecimal digits are in upper case.
    pub(super) fn write(&self, choose: &mut dyn FnMut(usize) -> usize) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Exactly(exact) => text.push_str(exact),
                Part::Hex(digits) | Part::Number(digits) => {
                    if matches!(part, Part::Number(_)) {
                        text.push_str(&"0".repeat(choose(13 - digits.len())));
                    }
                    for digit in digits.chars() {
                        let upper = choose(2) == 1;
                        text.push(if upper {
                            digit.to_ascii_uppercase()
                        } else {
                            digit
                        });
                    }
                }
            }
        }
        text
    }

    fn begins(&self, text: &[u8]) -> Begins {
        let mut at = 0;
        for part in &self.0 {
            let mut rest = &text[at..];
            let (wanted, any_case) = match part {
                Part::Exactly(exact) => (exact, false),
                Part::Hex(digits) | Part::Number(digits) => (digits, true),
            };
            if matches!(part, Part::Number(_)) {
                let zeros = rest.iter().take_while(|b| **b == b'0').count();
                // The number 0 is one zero itself.
                let zeros = if wanted == "0" {
                    zeros.saturating_sub(1)
                } else {
                    zeros
                };
                if zeros + wanted.len() > 12 {
                    return Begins::Not;
                }
                at += zeros;
                rest = &text[at..];
            }
            let common = rest.len().min(wanted.len());
            let (found, expected) = (&rest[..common], &wanted.as_bytes()[..common]);
            if !(found == expected || any_case && found.eq_ignore_ascii_case(expected)) {
                return Begins::Not;
            }
            if common < wanted.len() {
                return Begins::Inside;
            }
            at += common;
        }
        Begins::With(at)
    }
}

/// What is found in a text.
#[derive(Default)]
pub(super) struct Found {
    pub(super) occurrences: Vec<Range<usize>>,
    /// Where the first beginning is that the text ends in.
    pub(super) beginning: Option<usize>,
}

/// Everything that is found in a text.
pub(super) fn find(text: &[u8], values: &[String]) -> Found {
    let mut found = Found::default();
    for value in values {
        for start in 0..text.len() {
            follow(text, value.as_bytes(), start, start, &mut found);
        }
    }
    found
}

fn follow(text: &[u8], value: &[u8], start: usize, at: usize, found: &mut Found) {
    let Some(&byte) = value.first() else {
        found.occurrences.push(start..at);
        return;
    };
    let mut begins = at == text.len();
    if text.get(at) == Some(&byte) {
        follow(text, &value[1..], start, at + 1, found);
    }
    let character = (1..=value.len().min(4)).find(|n| std::str::from_utf8(&value[..*n]).is_ok());
    let mut lengths = vec![1];
    lengths.extend(character.filter(|n| *n > 1));
    for length in lengths {
        for spelling in spellings(&value[..length]) {
            match spelling.begins(&text[at..]) {
                Begins::With(taken) => follow(text, &value[length..], start, at + taken, found),
                Begins::Inside => begins = true,
                Begins::Not => {}
            }
        }
    }
    if begins {
        found.beginning = Some(found.beginning.map_or(start, |b| b.min(start)));
    }
}

/// The text as it should be masked.
pub(super) fn mask(text: &[u8], values: &[String]) -> Vec<u8> {
    let mut masked = text.to_vec();
    for place in find(text, values).occurrences {
        masked[place].fill(b'*');
    }
    masked
}
