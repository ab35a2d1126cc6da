//! Texts of others inside messages and lines of the log: in quotes, and so that they cannot look like more
//! than they are. It knows nothing of either.

use core::fmt::{self, Write};

/// A text in quotes. `{:?}` of the standard library does nearly the same, with tables of all of Unicode.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            escape(f, c)?;
        }
        f.write_char('"')
    }
}

/// Writes visible ASCII as it is; what could end the quotes or the line, or turn the direction of writing,
/// shows as what it is: `\u{20ac}`.
///
/// # Errors
/// Those of `out`.
pub fn escape(out: &mut impl Write, c: char) -> fmt::Result {
    match c {
        '"' | '\\' => {
            out.write_char('\\')?;
            out.write_char(c)
        }
        ' '..='~' => out.write_char(c),
        _ => hexadecimal(out, c.into()),
    }
}

fn hexadecimal(out: &mut impl Write, code: u32) -> fmt::Result {
    out.write_str("\\u{")?;
    let mut shift = 28;
    // Without leading zeros, but not without a digit.
    while shift > 0 && code >> shift == 0 {
        shift -= 4;
    }
    loop {
        out.write_char(char::from_digit(code >> shift & 15, 16).unwrap_or('0'))?;
        if shift == 0 {
            break;
        }
        shift -= 4;
    }
    out.write_char('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_the_quotes() {
        let shown = |text| Quoted(text).to_string();
        assert_eq!(shown("a b-~"), "\"a b-~\"");
        assert_eq!(shown("a\"\\"), "\"a\\\"\\\\\"");
        assert_eq!(
            shown("\n\u{7f}€\u{202e}"),
            "\"\\u{a}\\u{7f}\\u{20ac}\\u{202e}\""
        );
        assert_eq!(shown("\0\u{10ffff}"), "\"\\u{0}\\u{10ffff}\"");
        assert_eq!(shown(""), "\"\"");
    }
}
