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
    /// The end of what came, which may be the beginning of a value.
    held: Zeroizing<Vec<u8>>,
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
        (!needles.is_empty()).then(|| Self {
            needles,
            held: Zeroizing::default(),
        })
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

    /// The next piece of a stream; what may go on now comes back. At the end, everything.
    pub fn piece(&mut self, piece: &[u8], end: bool) -> Zeroizing<Vec<u8>> {
        let mut all = Zeroizing::new(Vec::with_capacity(self.held.len() + piece.len()));
        all.extend_from_slice(&self.held);
        all.extend_from_slice(piece);
        self.mask(&mut all);
        let longest = self.needles.first().map_or(0, |needle| needle.len());
        let hold = if end {
            0
        } else {
            longest.saturating_sub(1).min(all.len())
        };
        let cut = all.len() - hold;
        self.held = Zeroizing::new(all.split_off(cut));
        all
    }
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
