//! Bugs that a filter might have, between the filter and the host: see [`Planted`].

use super::Host;
use crate::settings::Planted;

/// A secret's value, `mark-name#version`, as it was written into a header.
pub(super) struct Written {
    whole: Vec<u8>,
    secret: Vec<u8>,
    /// What stands before the name, and behind the version.
    around: (Vec<u8>, Vec<u8>),
}

impl Written {
    /// `None` for a text without a value.
    fn of(whole: &[u8]) -> Option<Self> {
        let end = whole.iter().position(|b| *b == b'#')?;
        let name = whole.iter().position(|b| *b == b'-')?;
        let secret = whole.get(name..end)?.to_vec();
        let version = whole[end + 1..].iter();
        let digits = version.take_while(|b| b.is_ascii_digit()).count();
        Some(Self {
            whole: whole.to_vec(),
            secret,
            around: (whole[..name].to_vec(), whole[end + 1 + digits..].to_vec()),
        })
    }
}

impl Host {
    /// Whether a planted bug of this kind takes effect now: every seventh time.
    pub(crate) fn bug(&mut self, kind: Planted) -> bool {
        if self.settings.planted != Some(kind) {
            return false;
        }
        self.chances += 1;
        self.chances.is_multiple_of(7)
    }

    /// A value on its way into a header, as a filter with a planted bug would have written it.
    pub(super) fn tampered(&mut self, value: &[u8]) -> Vec<u8> {
        let Some(planted) = self.settings.planted else {
            return value.to_vec();
        };
        if self.bug(Planted::Leak) {
            self.log(2, value);
        }
        let Some(own) = Written::of(value) else {
            return value.to_vec();
        };
        let wrong = |other: &&Written| {
            let same = other.secret == own.secret;
            other.around == own.around && same == (planted == Planted::Stale)
        };
        let replaced = match planted {
            Planted::Stale | Planted::Mixed => self.values.iter().find(wrong),
            Planted::Hang | Planted::Leak | Planted::Panic => None,
        };
        let written = replaced.unwrap_or(&own).whole.clone();
        self.values.push(own);
        written
    }
}
