//! How JSON, URLs and HTML spell a character other than by its bytes. It reads one escape at the beginning
//! of a text and knows nothing of the values that are looked for.
//!
//! Grammar: JSON escapes (RFC 8259, section 7), percent-encoding (RFC 3986, section 2.1), `+` for a blank
//! (WHATWG URL, application/x-www-form-urlencoded) and HTML character references with their semicolon, and
//! these nested ones: JSON in JSON (`\\n`, `\\\"`), percent-encoding twice (`%252F`), HTML in HTML
//! (`&amp;lt;`), HTML in JSON (`\u0026lt;`) and JSON in HTML (`\&quot;`).

/// Digits of a numeric character reference, leading zeros among them. More are not read.
const DIGITS: usize = 12;

/// HTML names of Latin-1 (HTML 4, section 24.2), of markup and of ASCII's other signs (HTML, section 13.5),
/// in the order of their bytes.
#[rustfmt::skip]
const NAMES: [(&str, char); 138] = [
    ("AElig", '\u{c6}'), ("AMP", '&'), ("Aacute", '\u{c1}'), ("Acirc", '\u{c2}'), ("Agrave", '\u{c0}'),
    ("Aring", '\u{c5}'), ("Atilde", '\u{c3}'), ("Auml", '\u{c4}'), ("Ccedil", '\u{c7}'), ("ETH", '\u{d0}'),
    ("Eacute", '\u{c9}'), ("Ecirc", '\u{ca}'), ("Egrave", '\u{c8}'), ("Euml", '\u{cb}'), ("GT", '>'), ("Hat", '^'),
    ("Iacute", '\u{cd}'), ("Icirc", '\u{ce}'), ("Igrave", '\u{cc}'), ("Iuml", '\u{cf}'), ("LT", '<'),
    ("NewLine", '\n'), ("Ntilde", '\u{d1}'), ("Oacute", '\u{d3}'), ("Ocirc", '\u{d4}'), ("Ograve", '\u{d2}'),
    ("Oslash", '\u{d8}'), ("Otilde", '\u{d5}'), ("Ouml", '\u{d6}'), ("QUOT", '"'), ("THORN", '\u{de}'), ("Tab", '\t'),
    ("Uacute", '\u{da}'), ("Ucirc", '\u{db}'), ("Ugrave", '\u{d9}'), ("Uuml", '\u{dc}'), ("Yacute", '\u{dd}'),
    ("aacute", '\u{e1}'), ("acirc", '\u{e2}'), ("acute", '\u{b4}'), ("aelig", '\u{e6}'), ("agrave", '\u{e0}'),
    ("amp", '&'), ("apos", '\''), ("aring", '\u{e5}'), ("ast", '*'), ("atilde", '\u{e3}'), ("auml", '\u{e4}'),
    ("brvbar", '\u{a6}'), ("bsol", '\\'), ("ccedil", '\u{e7}'), ("cedil", '\u{b8}'), ("cent", '\u{a2}'),
    ("colon", ':'), ("comma", ','), ("commat", '@'), ("copy", '\u{a9}'), ("curren", '\u{a4}'), ("deg", '\u{b0}'),
    ("divide", '\u{f7}'), ("dollar", '$'), ("eacute", '\u{e9}'), ("ecirc", '\u{ea}'), ("egrave", '\u{e8}'),
    ("equals", '='), ("eth", '\u{f0}'), ("euml", '\u{eb}'), ("excl", '!'), ("frac12", '\u{bd}'), ("frac14", '\u{bc}'),
    ("frac34", '\u{be}'), ("grave", '`'), ("gt", '>'), ("iacute", '\u{ed}'), ("icirc", '\u{ee}'), ("iexcl", '\u{a1}'),
    ("igrave", '\u{ec}'), ("iquest", '\u{bf}'), ("iuml", '\u{ef}'), ("laquo", '\u{ab}'), ("lbrace", '{'),
    ("lbrack", '['), ("lcub", '{'), ("lowbar", '_'), ("lpar", '('), ("lsqb", '['), ("lt", '<'), ("macr", '\u{af}'),
    ("micro", '\u{b5}'), ("midast", '*'), ("middot", '\u{b7}'), ("nbsp", '\u{a0}'), ("not", '\u{ac}'),
    ("ntilde", '\u{f1}'), ("num", '#'), ("oacute", '\u{f3}'), ("ocirc", '\u{f4}'), ("ograve", '\u{f2}'),
    ("ordf", '\u{aa}'), ("ordm", '\u{ba}'), ("oslash", '\u{f8}'), ("otilde", '\u{f5}'), ("ouml", '\u{f6}'),
    ("para", '\u{b6}'), ("percnt", '%'), ("period", '.'), ("plus", '+'), ("plusmn", '\u{b1}'), ("pound", '\u{a3}'),
    ("quest", '?'), ("quot", '"'), ("raquo", '\u{bb}'), ("rbrace", '}'), ("rbrack", ']'), ("rcub", '}'),
    ("reg", '\u{ae}'), ("rpar", ')'), ("rsqb", ']'), ("sect", '\u{a7}'), ("semi", ';'), ("shy", '\u{ad}'),
    ("sol", '/'), ("sup1", '\u{b9}'), ("sup2", '\u{b2}'), ("sup3", '\u{b3}'), ("szlig", '\u{df}'),
    ("thorn", '\u{fe}'), ("times", '\u{d7}'), ("uacute", '\u{fa}'), ("ucirc", '\u{fb}'), ("ugrave", '\u{f9}'),
    ("uml", '\u{a8}'), ("uuml", '\u{fc}'), ("verbar", '|'), ("vert", '|'), ("yacute", '\u{fd}'), ("yen", '\u{a5}'),
    ("yuml", '\u{ff}'),
];
/// Longest of these names.
const LONGEST_NAME: usize = 7;

/// The letters of JSON's short escapes, and what they stand for.
const SHORT: [(u8, u8); 8] = [
    (b'"', b'"'),
    (b'\\', b'\\'),
    (b'/', b'/'),
    (b'b', 8),
    (b'f', 12),
    (b'n', b'\n'),
    (b'r', b'\r'),
    (b't', b'\t'),
];

/// One reading of the beginning of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Escape {
    /// Bytes of the text that it takes.
    pub(super) len: u8,
    bytes: [u8; 4],
    count: u8,
}

impl Escape {
    /// The bytes that it stands for, one to four.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.count))
            .unwrap_or_default()
    }
}

/// Every reading of the escape at the beginning of a text.
#[derive(Default)]
pub(super) struct Escapes {
    found: [Option<Escape>; 4],
    /// Whether the text ended inside of what may become an escape, or another one.
    pub(super) ran_out: bool,
}

impl Escapes {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.found.first(), Some(None))
    }

    /// The readings.
    pub(super) fn iter(&self) -> impl Iterator<Item = Escape> + '_ {
        self.found.iter().flatten().copied()
    }

    fn add(&mut self, len: usize, character: char) {
        let mut bytes = [0; 4];
        let count = character.encode_utf8(&mut bytes).len();
        self.push(len, bytes, count);
    }

    fn add_byte(&mut self, len: usize, byte: u8) {
        self.push(len, [byte, 0, 0, 0], 1);
    }

    fn push(&mut self, len: usize, bytes: [u8; 4], count: usize) {
        let (Ok(len), Ok(count)) = (u8::try_from(len), u8::try_from(count)) else {
            return;
        };
        if let Some(free) = self.found.iter_mut().find(|f| f.is_none()) {
            *free = Some(Escape { len, bytes, count });
        }
    }

    /// The byte at a place; past the end it is noted that the text ran out.
    fn at(&mut self, text: &[u8], place: usize) -> Option<u8> {
        let byte = text.get(place).copied();
        self.ran_out |= byte.is_none();
        byte
    }

    fn hex(&mut self, text: &[u8], from: usize, digits: usize) -> Option<u32> {
        let mut value = 0;
        for place in from..from + digits {
            let digit = char::from(self.at(text, place)?).to_digit(16)?;
            value = value << 4 | digit;
        }
        Some(value)
    }
}

/// Whether an escape can begin with this byte.
pub(super) const fn is_introducer(byte: u8) -> bool {
    matches!(byte, b'\\' | b'%' | b'&' | b'+')
}

/// Reads the escape at the beginning of a text.
pub(super) fn read(text: &[u8]) -> Escapes {
    let mut found = Escapes::default();
    match text.first() {
        Some(b'+') => found.add_byte(1, b' '),
        Some(b'%') => percent(text, &mut found),
        Some(b'&') => html(text, &mut found),
        Some(b'\\') => json(text, &mut found),
        _ => {}
    }
    found
}

fn percent(text: &[u8], found: &mut Escapes) {
    let Some(byte) = found.hex(text, 1, 2).and_then(|b| u8::try_from(b).ok()) else {
        return;
    };
    found.add_byte(3, byte);
    if byte == b'%'
        && let Some(inner) = found.hex(text, 3, 2).and_then(|b| u8::try_from(b).ok())
    {
        found.add_byte(5, inner);
    }
}

fn html(text: &[u8], found: &mut Escapes) {
    let Some((end, character)) = reference(text, 1, found) else {
        return;
    };
    found.add(end, character);
    if text.starts_with(b"&amp;")
        && let Some((end, inner)) = reference(text, end, found)
    {
        found.add(end, inner);
    }
}

/// A character reference without its `&`, and where it ends.
fn reference(text: &[u8], from: usize, found: &mut Escapes) -> Option<(usize, char)> {
    match found.at(text, from)? {
        b'#' => return numeric(text, from + 1, found),
        letter if !letter.is_ascii_alphabetic() => return None,
        _ => {}
    }
    let rest = text.get(from..)?;
    let rest = rest.get(..=LONGEST_NAME).unwrap_or(rest);
    let Some(length) = memchr::memchr(b';', rest) else {
        let begins = NAMES.partition_point(|(name, _)| name.as_bytes() < rest);
        let begins = NAMES.get(begins);
        found.ran_out |= begins.is_some_and(|(name, _)| name.as_bytes().starts_with(rest));
        return None;
    };
    let name = rest.get(..length)?;
    let known = NAMES.binary_search_by(|(known, _)| known.as_bytes().cmp(name));
    let (_, character) = NAMES.get(known.ok()?)?;
    Some((from + length + 1, *character))
}

fn numeric(text: &[u8], from: usize, found: &mut Escapes) -> Option<(usize, char)> {
    let is_hex = matches!(found.at(text, from)?, b'x' | b'X');
    let (radix, first) = if is_hex { (16, from + 1) } else { (10, from) };
    let mut code = 0_u32;
    for place in first..=first + DIGITS {
        let byte = found.at(text, place)?;
        if byte == b';' {
            let character = (place > first).then_some(code).and_then(char::from_u32)?;
            return Some((place + 1, character));
        }
        let digit = char::from(byte).to_digit(radix)?;
        code = code.saturating_mul(radix).saturating_add(digit);
        if code > 0x10_ffff {
            return None;
        }
    }
    None
}

fn json(text: &[u8], found: &mut Escapes) {
    let Some(letter) = found.at(text, 1) else {
        return;
    };
    if let Some((_, byte)) = SHORT.iter().find(|(short, _)| *short == letter) {
        found.add_byte(2, *byte);
    }
    match letter {
        b'u' => {
            if let Some((end, character)) = unicode(text, b"\\u", found) {
                found.add(end, character);
                if character == '&'
                    && let Some((end, inner)) = reference(text, end, found)
                {
                    found.add(end, inner);
                }
            }
        }
        // JSON in HTML: of what JSON escapes, HTML has references for these.
        b'&' => {
            if let Some((end, inner @ ('"' | '\\' | '/'))) = reference(text, 2, found) {
                found.add(end, inner);
            }
        }
        b'\\' => json_in_json(text, found),
        _ => {}
    }
}

fn json_in_json(text: &[u8], found: &mut Escapes) {
    let Some(letter) = found.at(text, 2) else {
        return;
    };
    match letter {
        b'u' => {
            if let Some((end, character)) = unicode(text, b"\\\\u", found) {
                found.add(end, character);
            }
        }
        b'\\' => {
            if let Some(byte @ (b'"' | b'\\' | b'/')) = found.at(text, 3) {
                found.add_byte(4, byte);
            }
        }
        b'"' => {}
        _ => {
            if let Some((_, byte)) = SHORT.iter().find(|(short, _)| *short == letter) {
                found.add_byte(3, *byte);
            }
        }
    }
}

/// Four hexadecimal digits after this introducer, or a surrogate pair, and where they end.
fn unicode(text: &[u8], introducer: &[u8], found: &mut Escapes) -> Option<(usize, char)> {
    let first = introducer.len();
    let code = found.hex(text, first, 4)?;
    let end = first + 4;
    if !(0xd800..0xdc00).contains(&code) {
        return char::from_u32(code).map(|character| (end, character));
    }
    for (n, &expected) in introducer.iter().enumerate() {
        if found.at(text, end + n)? != expected {
            return None;
        }
    }
    let low = found.hex(text, end + first, 4)?;
    let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    let character = char::from_u32(0x1_0000 + ((code - 0xd800) << 10 | low))?;
    Some((2 * end, character))
}

/// Whether a text which ran out may become an escape that stands for these bytes: one whole character,
/// or one byte. It is asked by completing the text with the end of every spelling.
pub(super) fn may_become(text: &[u8], bytes: &[u8]) -> bool {
    let mut whole = Vec::with_capacity(text.len() + 32);
    spellings(bytes)
        .iter()
        .filter(|spelling| spelling.as_bytes().first() == text.first())
        .any(|spelling| {
            let spelling = spelling.as_bytes();
            (1..spelling.len()).any(|from| {
                whole.clear();
                whole.extend_from_slice(text);
                whole.extend_from_slice(spelling.get(from..).unwrap_or_default());
                read(&whole)
                    .iter()
                    .any(|e| usize::from(e.len) == whole.len() && e.bytes() == bytes)
            })
        })
}

/// One of each kind of escape for one character or byte, in lower case and without leading zeros.
pub(super) fn spellings(bytes: &[u8]) -> Vec<String> {
    let mut all = Vec::with_capacity(24);
    if let [byte] = bytes {
        all.push(format!("%{byte:02x}"));
        all.push(format!("%25{byte:02x}"));
    }
    let mut characters = std::str::from_utf8(bytes).unwrap_or_default().chars();
    let Some(character) = characters.next() else {
        return all;
    };
    for introducer in ["\\u", "\\\\u"] {
        let mut units = [0; 2];
        let units = character.encode_utf16(&mut units).iter();
        all.push(
            units
                .map(|unit| format!("{introducer}{unit:04x}"))
                .collect(),
        );
    }
    for (letter, byte) in SHORT {
        if bytes == [byte] {
            let letter = char::from(letter);
            all.push(format!("\\{letter}"));
            match letter {
                '"' | '\\' => all.push(format!("\\\\\\{letter}")),
                '/' => all.extend(["\\\\/".to_owned(), "\\\\\\/".to_owned()]),
                _ => all.push(format!("\\\\{letter}")),
            }
        }
    }
    let code = u32::from(character);
    let mut references = vec![format!("#{code};"), format!("#x{code:x};")];
    for (name, named) in NAMES {
        if named == character {
            references.push(format!("{name};"));
        }
    }
    for reference in references {
        for introducer in ["&", "&amp;", "\\u0026"] {
            all.push(format!("{introducer}{reference}"));
        }
        if matches!(character, '"' | '\\' | '/') {
            all.push(format!("\\&{reference}"));
        }
    }
    all
}
