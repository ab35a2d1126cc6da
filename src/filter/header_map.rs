//! A header map in the form in which Proxy-Wasm hosts hand it over: read in place, and written. It
//! knows the bytes' layout and nothing of HTTP.
//!
//! Layout (proxy-wasm spec, `serialized_map`): a `u32` count; for each pair the `u32` lengths of name and
//! value; then each name and value, each followed by a NUL byte. All integers are little-endian.
//! The SDK turns this into two `Vec`s for each header, which costs more than all else that a filter does
//! to a request without references, so it is read where it lies.

/// A serialized header map, as it came from the host.
#[derive(Clone, Copy)]
pub struct HeaderMap<'a>(&'a [u8]);

impl<'a> HeaderMap<'a> {
    /// Wraps the host's bytes. Nothing is checked here: what is cut short simply has fewer headers.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// All pairs in their order.
    #[must_use]
    pub fn iter(self) -> Pairs<'a> {
        let count = read_u32(self.0, 0).unwrap_or(0);
        let data = count.checked_mul(8).and_then(|n| n.checked_add(4));
        Pairs {
            bytes: self.0,
            left: count,
            lengths: 4,
            data: data.unwrap_or(usize::MAX),
        }
    }

    /// The values of every header of this name, compared without case (WasmX keeps the sender's case).
    pub fn all(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.iter()
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// The first value of this name, as text if it is text.
    #[must_use]
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.all(name)
            .next()
            .and_then(|v| std::str::from_utf8(v).ok())
    }
}

/// The iterator of [`HeaderMap::iter`].
pub struct Pairs<'a> {
    bytes: &'a [u8],
    left: usize,
    lengths: usize,
    data: usize,
}

impl<'a> Pairs<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.data.checked_add(length)?;
        let taken = self.bytes.get(self.data..end)?;
        self.data = end.checked_add(1)?;
        Some(taken)
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = read_u32(self.bytes, self.lengths)?;
        let value = read_u32(self.bytes, self.lengths.checked_add(4)?)?;
        self.lengths = self.lengths.checked_add(8)?;
        Some((self.take(name)?, self.take(value)?))
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
}

/// Writes pairs in the host's form.
#[must_use]
pub fn serialize(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let data: usize = pairs.iter().map(|(n, v)| n.len() + v.len() + 10).sum();
    let mut out = Vec::with_capacity(data + 4);
    push_u32(&mut out, pairs.len());
    for (name, value) in pairs {
        push_u32(&mut out, name.len());
        push_u32(&mut out, value.len());
    }
    for (name, value) in pairs {
        out.extend_from_slice(name);
        out.push(0);
        out.extend_from_slice(value);
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
        assert_eq!(map.text("x-key"), None);
    }

    #[test]
    fn an_empty_answer_is_an_empty_map() {
        assert_eq!(HeaderMap::new(b"").iter().count(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            HeaderMap::new(&bytes).iter().count();
        }
    }
}
