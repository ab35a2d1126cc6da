//! Text from outside inside messages and log lines: in quotes, and so that it cannot end the quotes or the
//! line. It knows nothing of messages and logs.

use std::fmt::{self, Write};

/// A text in quotes. `{:?}` of the standard library lets letters of every script through, some of which
/// change the direction of writing; `escape_default` puts a backslash before each apostrophe.
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
        _ => write!(out, "{}", c.escape_unicode()),
    }
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
