//! Masks secret values that an upstream sends back, in whole texts and in streams whose pieces end
//! anywhere, whatever JSON, URLs and HTML make of them (`escapes`). A mask is as long as what it covers,
//! so that no length changes. It knows nothing of HTTP but which headers must not change.
//!
//! It is defence in depth. What it does not find: other encodings (base64, hexadecimal, hashes), compressed
//! text, values that come in several messages or ranges, HTML references without a semicolon, JavaScript's
//! `\x2f`, and escapes nested otherwise or deeper than `escapes` says.

mod automaton;
mod coarse;
mod covered;
mod escapes;
mod follow;
mod history;
mod scan;
mod starts;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use zeroize::Zeroizing;

use self::automaton::Automaton;
use self::scan::{End, Scan};
use crate::limits::Limits;
use crate::secret::SecretValue;

/// Shorter values, in bytes, would be found in every other word.
const SHORTEST: usize = 4;
/// Longest escape, in bytes: `\u0026#x000000000041;`.
const LONGEST_ESCAPE: usize = 21;

/// Headers that frame a message or belong to the protocol below: a mask in them would break the connection.
/// RFC 9110, sections 6.6 and 7.6.1; RFC 9112, section 6; RFC 6455, section 4; gRPC over HTTP/2.
const FRAMING: [&str; 20] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "date",
    "expect",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-status",
    "grpc-timeout",
    "keep-alive",
    "proxy-connection",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-version",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether this header, in any case, frames a message or is a pseudo-header: it is never masked.
#[must_use]
pub fn is_framing_header(name: &[u8]) -> bool {
    name.starts_with(b":")
        || FRAMING
            .iter()
            .any(|f| name.eq_ignore_ascii_case(f.as_bytes()))
}

/// Looks for some values in any spelling. Cheap to clone: the automaton is shared.
#[derive(Clone)]
pub struct Redactor {
    values: Rc<Automaton>,
    /// Most bytes that a stream holds back.
    most_held: usize,
}

impl Redactor {
    /// Looks for these values; `None` when there is nothing to look for, since all are shorter than four
    /// bytes. It takes time and sixteen bytes of memory for each byte of the values, up to
    /// `limits.masked_value_bytes`.
    #[must_use]
    pub fn new(values: &[SecretValue]) -> Option<Self> {
        Self::within(values, &Limits::default())
    }

    /// As [`Redactor::new`], within these limits: it holds back no more than `limits.masked_bytes_held`, and of
    /// values that have more than `limits.masked_value_bytes` together it knows the beginnings exactly, the
    /// rest by pairs of bytes.
    #[must_use]
    pub fn within(values: &[SecretValue], limits: &Limits) -> Option<Self> {
        let long = values.iter().filter(|v| v.expose().len() >= SHORTEST);
        let mut distinct: Vec<SecretValue> = long.cloned().collect();
        distinct.sort_by(|a, b| a.expose().cmp(b.expose()));
        distinct.dedup();
        if distinct.is_empty() {
            return None;
        }
        let values = Automaton::new(&distinct, limits.masked_value_bytes);
        let longest = LONGEST_ESCAPE * values.longest_value();
        Some(Self {
            values: Rc::new(values),
            most_held: longest.min(limits.masked_bytes_held.max(2 * LONGEST_ESCAPE)),
        })
    }

    /// Masks every occurrence in a whole text (a header, a trailer, a body). Whether there was any.
    pub fn mask(&self, text: &mut [u8]) -> bool {
        let mut scan = Scan::default();
        scan.run(&self.values, text, 0, End::Closed);
        scan.covered.mask(text, 0)
    }

    /// How many bytes at the end of a text may be the beginning of an occurrence that goes on after it;
    /// `None` for none.
    #[must_use]
    pub fn ends_in_a_beginning(&self, text: &[u8]) -> Option<usize> {
        let from = text.len().saturating_sub(self.most_held);
        let end = text.get(from..)?;
        let mut scan = Scan::default();
        scan.run(&self.values, end, 0, End::Open);
        let place = scan.beginning(&self.values, end, 0)?;
        Some(end.len() - usize::try_from(place).ok()?)
    }

    /// Looks for the same values in a stream.
    #[must_use]
    pub fn stream(self) -> MaskStream {
        MaskStream {
            redactor: self,
            scan: Box::default(),
            held: Zeroizing::default(),
            base: 0,
        }
    }
}

/// Masks a text that comes in pieces.
pub struct MaskStream {
    redactor: Redactor,
    scan: Box<Scan>,
    /// The end of what came, from the first byte of a beginning that is not masked yet.
    held: Zeroizing<Vec<u8>>,
    /// Its place in the stream.
    base: u64,
}

impl MaskStream {
    /// Takes the next piece of the stream; what may go on now comes back. At the end, everything; a piece after it
    /// begins a stream anew.
    ///
    /// Only a true beginning of an occurrence is held back, at most the longest spelling of the longest
    /// value, and no more than `limits.masked_bytes_held`: what exceeds that goes on masked.
    pub fn piece(&mut self, piece: &[u8], end: bool) -> Zeroizing<Vec<u8>> {
        let mut all = std::mem::take(&mut self.held);
        all.reserve_exact(piece.len());
        all.extend_from_slice(piece);
        let after = self.base + all.len() as u64;
        let values = &self.redactor.values;
        let open = if end { End::Closed } else { End::Open };
        self.scan.run(values, &all, self.base, open);
        let from = if end { after } else { self.hold(&all, after) };
        let cut = usize::try_from(from - self.base).map_or(all.len(), |cut| cut.min(all.len()));
        self.held = Zeroizing::new(all.split_off(cut));
        self.scan.covered.mask(&mut all, self.base);
        self.base += cut as u64;
        if end {
            *self.scan = Scan::default();
            self.base = 0;
        }
        all
    }

    /// The place from which on the stream is held back; its end for nothing.
    fn hold(&mut self, all: &[u8], after: u64) -> u64 {
        let scan = &mut self.scan;
        let Some(beginning) = scan.beginning(&self.redactor.values, all, self.base) else {
            scan.restart(after);
            return after;
        };
        if beginning >= scan.place() {
            scan.restart(beginning);
        }
        // What is masked whatever comes need not wait, unless it is to be read again.
        let from = scan
            .covered
            .uncovered(beginning.max(self.base))
            .min(scan.place());
        let most = self.redactor.most_held as u64;
        if after - from <= most {
            return from;
        }
        scan.covered.add(from..after - most);
        after - most
    }

    /// Looks for these values from now on, those of before among them, also in what is held back.
    #[must_use]
    pub fn looking_for(self, redactor: Redactor) -> Self {
        Self {
            scan: Box::new(self.scan.anew(&self.redactor.values, self.base)),
            redactor,
            ..self
        }
    }

    /// As [`Redactor::ends_in_a_beginning`].
    #[must_use]
    pub fn ends_in_a_beginning(&self, text: &[u8]) -> Option<usize> {
        self.redactor.ends_in_a_beginning(text)
    }

    /// Bytes that are held back at the moment; 0 unless the last piece ended in a beginning of an
    /// occurrence.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }
}
