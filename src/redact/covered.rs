//! The places of a stream that are to be masked. It knows nothing of what is there.

use std::ops::Range;

/// Places that were found, in order and apart.
#[derive(Default)]
pub(super) struct Covered(Vec<Range<u64>>);

impl Covered {
    /// Notes that these places are to be masked.
    pub(super) fn add(&mut self, found: Range<u64>) {
        // Nearly always the last one is extended.
        let first = match self.0.last() {
            Some(last) if last.start <= found.start && found.start <= last.end => self.0.len() - 1,
            _ => self.0.partition_point(|c| c.end < found.start),
        };
        let (mut all, mut last) = (found, first);
        for touched in self.0.iter().skip(first) {
            if touched.start > all.end {
                break;
            }
            all = all.start.min(touched.start)..all.end.max(touched.end);
            last += 1;
        }
        self.0.splice(first..last, [all]);
    }

    /// The first place from `place` on that no occurrence covers.
    pub(super) fn uncovered(&self, place: u64) -> u64 {
        let mut covered = self.0.iter();
        covered
            .find(|c| c.contains(&place))
            .map_or(place, |c| c.end)
    }

    /// Masks what is covered of a text that begins at `base`, and forgets it. Whether there was anything.
    pub(super) fn mask(&mut self, text: &mut [u8], base: u64) -> bool {
        let end = base + text.len() as u64;
        let index =
            |place: u64| usize::try_from(place.clamp(base, end) - base).unwrap_or(usize::MAX);
        let mut found = false;
        self.0.retain_mut(|c| {
            if let Some(place) = text.get_mut(index(c.start)..index(c.end)) {
                place.fill(b'*');
                found |= !place.is_empty();
            }
            c.start = c.start.max(end);
            c.end > end
        });
        found
    }
}
