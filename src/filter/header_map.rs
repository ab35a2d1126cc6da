//! A header map in the form in which Proxy-Wasm hosts hand it over: read in place, and written. It
//! knows the bytes' layout and nothing of HTTP.
//!
//! Layout (proxy-wasm spec, `serialized_map`): a `u32` count; for each pair the `u32` lengths of name and
//! value; then each name and value, each followed by a NUL byte. All integers are little-endian.
//! The SDK turns this into two `Vec`s for each header, which costs more than all else that a filter does
//! to a request without references, so it is read where it lies.

use alloc::vec::Vec;
use core::slice::Iter;

/// A serialized header map, as it came from the host.
#[derive(Clone, Copy)]
pub struct HeaderMap<'a>(&'a [u8]);

impl<'a> HeaderMap<'a> {
    /// Wraps the host's bytes. Nothing is checked here: what is cut short simply has fewer headers.
    #[must_use]
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// All pairs in their order.
    #[must_use]
    #[inline]
    pub fn iter(self) -> Pairs<'a> {
        self.pairs().unwrap_or_else(|| Pairs {
            lengths: [].iter(),
            data: &[],
        })
    }

    #[inline]
    fn pairs(self) -> Option<Pairs<'a>> {
        let (count, rest) = self.0.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let (lengths, data) = rest.split_at_checked(count.checked_mul(8)?)?;
        Some(Pairs {
            lengths: lengths.as_chunks().0.iter(),
            data,
        })
    }

    /// The values of every header of this name, compared without case (WasmX keeps the sender's case).
    pub fn all<'n>(self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.all_of(name.as_bytes())
    }

    /// The same for a name that came as bytes.
    pub fn all_of<'n>(self, name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.iter()
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Whether there is more than one header of this name.
    #[must_use]
    pub fn repeats(self, name: &[u8]) -> bool {
        let Pairs { lengths, data } = self.iter();
        let (mut at, mut same) = (0_usize, 0);
        for (name_length, value_length) in lengths.map(lengths_of) {
            // Few names are of the same length: only those are looked at.
            if name_length == name.len() {
                let found = data.get(at..).and_then(|rest| rest.get(..name_length));
                same += usize::from(found.is_some_and(|found| found.eq_ignore_ascii_case(name)));
            }
            at = at
                .wrapping_add(name_length)
                .wrapping_add(value_length)
                .wrapping_add(2);
        }
        same > 1
    }

    /// Where `find` finds something first: it searches the map as one text, which is faster than value by
    /// value. No text that it looks for may hold a NUL byte.
    #[inline]
    pub fn find(self, find: impl Fn(&[u8]) -> Option<usize>) -> Option<Hit<'a>> {
        let at = find(self.pairs()?.data)?;
        Some(Hit { map: self, at })
    }

    /// The first value of this name, as text if it is text.
    #[must_use]
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.all(name)
            .next()
            .and_then(|v| core::str::from_utf8(v).ok())
    }
}

/// Which names of a map are there more than once. A pass over all names tells it of most of them, so that
/// a request with many references does not look at every header for each.
pub struct Repeats<'a> {
    map: HeaderMap<'a>,
    asked: usize,
    /// By checksum, the names that may be there twice.
    twice: Option<[u64; WORDS]>,
}

/// The pass costs as much as a few looks at every header.
const FEW: usize = 4;
/// 1,024 checksums: names that are there once and share theirs with another are rare among 100.
const WORDS: usize = 16;

impl<'a> Repeats<'a> {
    /// Nothing is looked at yet.
    #[must_use]
    pub const fn of(map: HeaderMap<'a>) -> Self {
        Self {
            map,
            asked: 0,
            twice: None,
        }
    }

    /// Whether there is more than one header of this name.
    #[must_use]
    pub fn has(&mut self, name: &[u8]) -> bool {
        self.asked = self.asked.wrapping_add(1);
        if self.asked > FEW {
            let map = self.map;
            let twice = self.twice.get_or_insert_with(|| twice(map));
            let (word, bit) = place_in_words(name);
            if twice.get(word).is_some_and(|word| word & bit == 0) {
                return false;
            }
        }
        self.map.repeats(name)
    }
}

fn twice(map: HeaderMap<'_>) -> [u64; WORDS] {
    let (mut once, mut twice) = ([0; WORDS], [0; WORDS]);
    for (name, _) in map.iter() {
        let (word, bit) = place_in_words(name);
        if let (Some(once), Some(twice)) = (once.get_mut(word), twice.get_mut(word)) {
            *twice |= *once & bit;
            *once |= bit;
        }
    }
    twice
}

/// FNV-1a of the name in lower case, as a word's number and a bit in it.
fn place_in_words(name: &[u8]) -> (usize, u64) {
    let sum = name.iter().fold(0x811c_9dc5_u32, |sum, byte| {
        (sum ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    });
    let sum = sum ^ sum >> 16;
    ((sum >> 6) as usize % WORDS, 1 << (sum & 63))
}

/// A place in a map at which something was found.
#[derive(Clone, Copy)]
pub struct Hit<'a> {
    map: HeaderMap<'a>,
    /// From the first pair's name on.
    at: usize,
}

impl<'a> Hit<'a> {
    /// The whole map.
    #[must_use]
    pub const fn map(self) -> HeaderMap<'a> {
        self.map
    }

    /// The pairs in whose value there is something: here, and behind it where the same `find` finds more.
    pub fn pairs<F>(self, find: F) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a, F>
    where
        F: Fn(&[u8]) -> Option<usize>,
    {
        let mut pairs = self.map.iter();
        let mut first = Some(self.at);
        core::iter::from_fn(move || {
            loop {
                let at = match first.take() {
                    Some(at) => at,
                    None => find(pairs.data)?,
                };
                let into = at.wrapping_sub(pairs.skip_to(at));
                let (name, value) = pairs.next()?;
                // What it found may be in the name.
                if into > name.len() || find(value).is_some() {
                    return Some((name, value));
                }
            }
        })
    }
}

/// The iterator of [`HeaderMap::iter`].
pub struct Pairs<'a> {
    /// Of the pairs that are left.
    lengths: Iter<'a, [u8; 8]>,
    /// From the next pair's name on.
    data: &'a [u8],
}

impl Pairs<'_> {
    /// Leaves out the pairs that end before this place in what is left; how many bytes these were.
    #[inline]
    fn skip_to(&mut self, at: usize) -> usize {
        let mut skipped = 0_usize;
        for &lengths in self.lengths.as_slice() {
            let (name, value) = lengths_of(&lengths);
            let end = skipped
                .wrapping_add(name)
                .wrapping_add(value)
                .wrapping_add(2);
            if end > at {
                break;
            }
            skipped = end;
            self.lengths.next();
        }
        self.data = self.data.get(skipped..).unwrap_or_default();
        skipped
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = lengths_of(self.lengths.next()?);
        let (name, rest) = self.data.split_at_checked(name)?;
        let (value, rest) = rest.get(1..)?.split_at_checked(value)?;
        self.data = rest.get(1..).unwrap_or_default();
        Some((name, value))
    }
}

/// The lengths of a pair's name and value.
#[inline]
fn lengths_of(bytes: &[u8; 8]) -> (usize, usize) {
    let both = u64::from_le_bytes(*bytes);
    ((both & 0xffff_ffff) as usize, (both >> 32) as usize)
}

/// Writes pairs in the host's form.
#[must_use]
pub fn serialize<T: AsRef<[u8]>>(pairs: &[(T, T)]) -> Vec<u8> {
    let data: usize = pairs
        .iter()
        .map(|(n, v)| n.as_ref().len() + v.as_ref().len() + 10)
        .sum();
    let mut out = Vec::with_capacity(data + 4);
    push_u32(&mut out, pairs.len());
    for (name, value) in pairs {
        push_u32(&mut out, name.as_ref().len());
        push_u32(&mut out, value.as_ref().len());
    }
    for (name, value) in pairs {
        out.extend_from_slice(name.as_ref());
        out.push(0);
        out.extend_from_slice(value.as_ref());
        out.push(0);
    }
    out
}

fn push_u32(out: &mut Vec<u8>, n: usize) {
    // On the 32-bit target every length fits; elsewhere nothing here comes near 4 GiB.
    out.extend_from_slice(&u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_it_wrote() {
        let pairs: Vec<(&[u8], &[u8])> = vec![
            (b":path", b"/a"),
            (b"X-Key", b"caf\xe9"),
            (b"empty", b""),
            (b"x-key", b"2"),
        ];
        let bytes = serialize(&pairs);
        let map = HeaderMap::new(&bytes);
        assert_eq!(map.iter().collect::<Vec<_>>(), pairs);
        assert_eq!(
            map.all("x-key").collect::<Vec<_>>(),
            vec![&b"caf\xe9"[..], b"2"]
        );
        assert_eq!(map.text(":path"), Some("/a"));
        assert!(map.repeats(b"x-keY") && !map.repeats(b":path") && !map.repeats(b"no"));
        assert_eq!(map.text("x-key"), None);
    }

    #[test]
    fn a_search_of_the_whole_map_finds_the_pairs_whose_values_hold_it() {
        let pairs: Vec<(&[u8], &[u8])> = vec![
            (b":path", b"/a"),
            (b"x-!", b"2"),
            (b"x-!-y", b"3!"),
            (b"a", b"!!!"),
            (b"empty", b""),
            (b"last", b"4!5!"),
        ];
        let bytes = serialize(&pairs);
        let find = |text: &[u8]| text.iter().position(|&byte| byte == b'!');
        let hit = HeaderMap::new(&bytes).find(find).expect("a hit");
        let found = hit.pairs(find).collect::<Vec<_>>();
        assert_eq!(found, [pairs[2], pairs[3], pairs[5]]);
        assert!(HeaderMap::new(b"").find(find).is_none());
    }

    #[test]
    fn an_empty_answer_is_an_empty_map() {
        assert_eq!(HeaderMap::new(b"").iter().count(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            HeaderMap::new(&bytes).iter().count();
            let _ = HeaderMap::new(&bytes).repeats(b"a");
            let find = |text: &[u8]| (!text.is_empty()).then_some(0);
            if let Some(hit) = HeaderMap::new(&bytes).find(find) {
                hit.pairs(find).count();
            }
        }

        #[test]
        fn repeated_names_are_told_however_often_one_asks(
            names in proptest::collection::vec("[a-cA-C]{1,2}", 0..30),
        ) {
            let pairs: Vec<(&[u8], &[u8])> = names.iter().map(|n| (n.as_bytes(), &b""[..])).collect();
            let bytes = serialize(&pairs);
            let mut repeats = Repeats::of(HeaderMap::new(&bytes));
            for name in &names {
                let same = names.iter().filter(|other| other.eq_ignore_ascii_case(name)).count();
                prop_assert_eq!(repeats.has(name.as_bytes()), same > 1);
            }
        }

        #[test]
        fn a_search_finds_what_a_look_at_each_value_finds(
            pairs in proptest::collection::vec(("[a!]{0,3}", "[a!]{0,4}"), 0..6),
        ) {
            let pairs: Vec<(&[u8], &[u8])> =
                pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            let bytes = serialize(&pairs);
            let find = |text: &[u8]| text.iter().position(|&byte| byte == b'!');
            let one_by_one = pairs.iter().filter(|(_, value)| find(value).is_some());
            let hit = HeaderMap::new(&bytes).find(find);
            let found = hit.into_iter().flat_map(|hit| hit.pairs(find));
            prop_assert_eq!(found.collect::<Vec<_>>(), one_by_one.copied().collect::<Vec<_>>());
        }
    }
}
