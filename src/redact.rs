//! Masks secret values that an upstream sends back, in whole texts and in streams whose pieces end
//! anywhere. A mask is as long as what it covers, so that no length changes.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::azure::http::push_encoded;
use crate::placement::Encoding;
use crate::secret::SecretValue;

/// Shorter values would be found in every other word.
const SHORTEST: usize = 4;

/// Looks for some values, as they are and as JSON and URLs write them.
#[derive(Default)]
pub struct Redactor {
    needles: Vec<Zeroizing<Vec<u8>>>,
}

impl Redactor {
    /// Looks for these; `None` when there is nothing to look for.
    #[must_use]
    pub fn new(values: &[SecretValue]) -> Option<Self> {
        let mut needles: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        for value in values.iter().filter(|v| v.expose().len() >= SHORTEST) {
            let mut json = Zeroizing::new(Vec::new());
            let is_text = Encoding::Json.write(&mut json, value.expose());
            let mut encoded = Zeroizing::new(Vec::new());
            push_encoded(&mut encoded, value.expose());
            let mut add = |form: Zeroizing<Vec<u8>>| {
                if !needles.contains(&form) {
                    // The longest first: a value within another one is masked with it.
                    let at = needles.partition_point(|other| other.len() >= form.len());
                    needles.insert(at, form);
                }
            };
            add(Zeroizing::new(value.expose().to_vec()));
            if is_text {
                add(json);
            }
            add(encoded);
        }
        (!needles.is_empty()).then_some(Self { needles })
    }

    /// Masks what is found in a whole text. Whether there was anything.
    pub fn mask(&self, text: &mut [u8]) -> bool {
        let mut found = false;
        for needle in &self.needles {
            let mut from = 0;
            while let Some(at) = text
                .get(from..)
                .and_then(|rest| memchr::memmem::find(rest, needle))
            {
                let (start, end) = (from + at, from + at + needle.len());
                if let Some(place) = text.get_mut(start..end) {
                    place.fill(b'*');
                }
                from = end;
                found = true;
            }
        }
        found
    }

    /// Masks a stream, which begins with what another one held back.
    #[must_use]
    pub fn stream_after(self, held: Zeroizing<Vec<u8>>) -> MaskStream {
        MaskStream {
            redactor: self,
            held,
        }
    }

    /// How many bytes at the end of a text may be the beginning of a value.
    #[must_use]
    pub fn ends_in_a_beginning(&self, text: &[u8]) -> Option<usize> {
        let tails = |needle: &[u8]| {
            let longest = needle.len().saturating_sub(1).min(text.len());
            (1..=longest)
                .rev()
                .find(|&n| needle.get(..n).is_some_and(|head| text.ends_with(head)))
        };
        self.needles.iter().filter_map(|needle| tails(needle)).max()
    }
}

/// A stream that is masked piece by piece.
pub struct MaskStream {
    redactor: Redactor,
    /// The end of what came, which may be the beginning of a value.
    held: Zeroizing<Vec<u8>>,
}

impl MaskStream {
    /// The next piece; what may go on now comes back. At the end, everything.
    pub fn piece(&mut self, piece: &[u8], end: bool) -> Zeroizing<Vec<u8>> {
        let mut all = Zeroizing::new(Vec::with_capacity(self.held.len() + piece.len()));
        all.extend_from_slice(&self.held);
        all.extend_from_slice(piece);
        self.redactor.mask(&mut all);
        let hold = if end {
            0
        } else {
            self.redactor.ends_in_a_beginning(&all).unwrap_or(0)
        };
        let cut = all.len() - hold;
        self.held = Zeroizing::new(all.split_off(cut));
        all
    }

    /// Bytes that are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What is held back.
    #[must_use]
    pub fn into_held(self) -> Zeroizing<Vec<u8>> {
        self.held
    }

    /// How many bytes at the end of a text may be the beginning of a value.
    #[must_use]
    pub fn ends_in_a_beginning(&self, text: &[u8]) -> Option<usize> {
        self.redactor.ends_in_a_beginning(text)
    }
}

/// Whether a header frames its message, so that it is never masked.
#[must_use]
pub fn is_framing_header(name: &[u8]) -> bool {
    const FRAMING: [&str; 9] = [
        "content-length", "transfer-encoding", "connection", "date", "te", "trailer", "upgrade", "keep-alive", "grpc-status",
    ];
    name.starts_with(b":") || FRAMING.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redactor(values: &[&str]) -> Redactor {
        let values: Vec<_> = values.iter().map(|v| SecretValue::new(*v)).collect();
        Redactor::new(&values).unwrap()
    }

    #[test]
    fn every_form_is_masked_in_its_length() {
        let mut text = br#"s3cr3t/"x {"k":"s3cr3t/\"x"} ?s=s3cr3t%2F%22x"#.to_vec();
        assert!(redactor(&["s3cr3t/\"x"]).mask(&mut text));
        assert_eq!(text, br#"********* {"k":"**********"} ?s=*************"#);
        assert!(
            Redactor::new(&[SecretValue::new("abc")]).is_none(),
            "too short to look for"
        );
    }

    proptest! {
        #[test]
        fn no_border_hides_a_value(before in "[a-z]{0,9}", after in "[a-z]{0,9}", cuts in proptest::collection::vec(0usize..40, 0..6)) {
            let text = format!("{before}hunter2!{after}hunter2!");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.sort_unstable();
            let mut redactor = redactor(&["hunter2!"]);
            let (mut out, mut from) = (Vec::new(), 0);
            for cut in cuts {
                out.extend_from_slice(&redactor.piece(&text.as_bytes()[from..cut], false));
                from = cut;
            }
            out.extend_from_slice(&redactor.piece(&text.as_bytes()[from..], true));
            prop_assert_eq!(out, format!("{before}********{after}********").into_bytes());
        }
    }
}
