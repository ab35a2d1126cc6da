//! Header lists, and the form in which the ABI hands them over. It knows no HTTP.

/// Names and values in their order; names keep their case, values are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    /// A list of these.
    #[must_use]
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        let pairs = pairs.iter();
        Self(
            pairs
                .map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec()))
                .collect(),
        )
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_slice()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values of this name, compared without case.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        let of_name = self.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        of_name.map(|(_, v)| v).collect()
    }

    /// The first value of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.all(name).first().copied()
    }

    /// The first value of this name as text; empty for none.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(self.get(name).unwrap_or_default()).into_owned()
    }

    /// Adds one at the end.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        self.0.push((name.to_owned(), value.to_vec()));
    }

    /// One in place of all of this name, where the first of them was.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        match self.set_first(name, value) {
            Some(first) => self.keep(|at, n| at <= first || !n.eq_ignore_ascii_case(name)),
            None => self.push(name, value),
        }
    }

    /// Another value for the first one of this name only; where it is, if there is one.
    pub fn set_first(&mut self, name: &str, value: &[u8]) -> Option<usize> {
        let found = self
            .0
            .iter()
            .position(|(n, _)| n.eq_ignore_ascii_case(name))?;
        self.0[found].1 = value.to_vec();
        Some(found)
    }

    /// Takes all of this name away.
    pub fn remove(&mut self, name: &str) {
        self.keep(|_, n| !n.eq_ignore_ascii_case(name));
    }

    fn keep(&mut self, keep: impl Fn(usize, &str) -> bool) {
        let mut at = 0;
        self.0.retain(|(name, _)| {
            at += 1;
            keep(at - 1, name)
        });
    }

    /// As Envoy has them: names in lower case.
    #[must_use]
    pub fn lower_case(mut self) -> Self {
        for (name, _) in &mut self.0 {
            name.make_ascii_lowercase();
        }
        self
    }

    /// The ABI's form: a count, the lengths, then the bytes with a NUL behind each
    /// (proxy-wasm spec, `serialized_map`).
    #[must_use]
    pub fn serialize(&self) -> Vec<u8> {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        let mut out = number(self.len()).to_vec();
        for (name, value) in &self.0 {
            out.extend(number(name.len()));
            out.extend(number(value.len()));
        }
        for (name, value) in &self.0 {
            out.extend(name.as_bytes());
            out.push(0);
            out.extend(value);
            out.push(0);
        }
        out
    }

    /// Reads the ABI's form; `None` when it is damaged.
    #[must_use]
    pub fn deserialize(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let number = |at: usize| -> Option<usize> {
            let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes) as usize)
        };
        let count = number(0)?;
        let mut at = 4 + count * 8;
        let mut headers = Self::default();
        for n in 0..count {
            let (name, value) = (number(4 + n * 8)?, number(8 + n * 8)?);
            let name_bytes = bytes.get(at..at + name)?;
            let value_bytes = bytes.get(at + name + 1..at + name + 1 + value)?;
            headers.push(std::str::from_utf8(name_bytes).ok()?, value_bytes);
            at += name + value + 2;
        }
        Some(headers)
    }
}
