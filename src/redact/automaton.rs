//! An Aho-Corasick automaton over the bytes of some values: a state is the longest end of what was read
//! that begins a value. It knows nothing of spellings or of text. The crate `aho-corasick` does not show
//! depths, failure links and next bytes, which tell where an occurrence began and what may complete it.

use std::collections::BTreeMap;

use crate::secret::SecretValue;

/// A state: the root, or a beginning of a value.
pub(super) type State = u32;

/// Nothing was read that begins a value.
pub(super) const ROOT: State = 0;

struct Node {
    /// The longest proper end of this beginning that begins a value too.
    fail: State,
    /// As `fail`, without those that the same next byte would fail at: so that chains are short
    /// (Knuth, Morris and Pratt: logarithmic for one value).
    skip: State,
    depth: u32,
    /// Length of the longest value that ends here, as an index into `lengths`.
    longest: u16,
    byte: u8,
    /// Whether the node after this one in the list is its child.
    next: bool,
    /// Whether it has children in `branches`.
    branched: bool,
}

/// The automaton. Sixteen bytes for each byte of the values, and those of the values' first nodes.
pub(super) struct Automaton {
    nodes: Vec<Node>,
    branches: BTreeMap<(State, u8), State>,
    /// The parents of the states in `branches`.
    parents: BTreeMap<State, State>,
    first: Box<[State; 256]>,
    lengths: Vec<usize>,
}

impl Automaton {
    /// Over these values.
    pub(super) fn new(values: &[SecretValue]) -> Self {
        let bytes: usize = values.iter().map(|value| value.expose().len()).sum();
        let mut automaton = Self {
            nodes: Vec::with_capacity(bytes + 1),
            branches: BTreeMap::new(),
            parents: BTreeMap::new(),
            first: Box::new([ROOT; 256]),
            lengths: vec![0],
        };
        automaton.push(0, 0);
        for value in values {
            automaton.insert(value.expose());
        }
        automaton.link();
        automaton
    }

    fn push(&mut self, byte: u8, depth: u32) -> State {
        self.nodes.push(Node {
            fail: ROOT,
            skip: ROOT,
            depth,
            longest: 0,
            byte,
            next: false,
            branched: false,
        });
        State::try_from(self.nodes.len() - 1).unwrap_or(ROOT)
    }

    fn insert(&mut self, value: &[u8]) {
        let mut state = ROOT;
        for &byte in value {
            state = match self.child(state, byte) {
                Some(child) => child,
                None => self.grow(state, byte),
            };
        }
        let index = self.lengths.iter().position(|l| *l == value.len());
        let index = index.unwrap_or_else(|| {
            self.lengths.push(value.len());
            self.lengths.len() - 1
        });
        if let Some(node) = self.nodes.get_mut(state as usize) {
            node.longest = u16::try_from(index).unwrap_or(u16::MAX);
        }
    }

    fn grow(&mut self, parent: State, byte: u8) -> State {
        let child = self.push(byte, self.depth_u32(parent) + 1);
        if parent == ROOT {
            if let Some(first) = self.first.get_mut(usize::from(byte)) {
                *first = child;
            }
        } else if let Some(node) = self.nodes.get_mut(parent as usize) {
            if child == parent + 1 {
                node.next = true;
            } else {
                node.branched = true;
                self.branches.insert((parent, byte), child);
                self.parents.insert(child, parent);
            }
        }
        child
    }

    /// Sets every failure link, the shorter beginnings first.
    fn link(&mut self) {
        let mut level: Vec<State> = self.children(ROOT).map(|(_, child)| child).collect();
        while !level.is_empty() {
            let mut deeper = Vec::new();
            for state in level {
                self.shorten(state);
                let children: Vec<(u8, State)> = self.children(state).collect();
                for (byte, child) in children {
                    let fail = self.step(self.fail(state), byte, &mut 0);
                    let inherited = self.node(fail).map_or(0, |n| n.longest);
                    if let Some(node) = self.nodes.get_mut(child as usize) {
                        node.fail = fail;
                        if node.longest == 0 {
                            node.longest = inherited;
                        }
                    }
                    deeper.push(child);
                }
            }
            level = deeper;
        }
    }

    /// Sets the link that a failing byte follows, once `fail` is known.
    fn shorten(&mut self, state: State) {
        let fail = self.fail(state);
        let only = |state: State| {
            let is_only = self.node(state).is_some_and(|n| n.next && !n.branched);
            let child = self.node(state + 1).filter(|_| is_only)?;
            Some(child.byte)
        };
        let same = fail != ROOT && only(state).is_some() && only(state) == only(fail);
        let skip = if same { self.skip(fail) } else { fail };
        if let Some(node) = self.nodes.get_mut(state as usize) {
            node.skip = skip;
        }
    }

    fn node(&self, state: State) -> Option<&Node> {
        self.nodes.get(state as usize)
    }

    fn skip(&self, state: State) -> State {
        self.node(state).map_or(ROOT, |n| n.skip)
    }

    fn depth_u32(&self, state: State) -> u32 {
        self.node(state).map_or(0, |n| n.depth)
    }

    /// The next shorter beginning that what was read ends in.
    pub(super) fn fail(&self, state: State) -> State {
        self.node(state).map_or(ROOT, |n| n.fail)
    }

    /// How many bytes of a value this state is.
    pub(super) fn depth(&self, state: State) -> u64 {
        u64::from(self.depth_u32(state))
    }

    /// Length of the longest value that ends here; 0 for none.
    pub(super) fn longest_match(&self, state: State) -> u64 {
        match self.node(state) {
            Some(node) if node.longest > 0 => {
                let length = self.lengths.get(usize::from(node.longest));
                length.map_or(0, |length| *length as u64)
            }
            _ => 0,
        }
    }

    /// Whether a value goes on after this beginning.
    pub(super) fn goes_on(&self, state: State) -> bool {
        state == ROOT || self.node(state).is_some_and(|n| n.next || n.branched)
    }

    fn child(&self, state: State, byte: u8) -> Option<State> {
        if state == ROOT {
            let first = self.first.get(usize::from(byte)).copied();
            return first.filter(|first| *first != ROOT);
        }
        let node = self.node(state)?;
        if node.next && self.node(state + 1).is_some_and(|child| child.byte == byte) {
            return Some(state + 1);
        }
        if node.branched {
            return self.branches.get(&(state, byte)).copied();
        }
        None
    }

    /// Every byte that may come next in a value, and the state after it.
    pub(super) fn children(&self, state: State) -> impl Iterator<Item = (u8, State)> + '_ {
        let firsts: &[State] = if state == ROOT {
            self.first.as_slice()
        } else {
            &[]
        };
        let firsts = (0..=255_u8).zip(firsts).map(|(byte, child)| (byte, *child));
        let next = self.node(state).filter(|n| n.next).map(|_| state + 1);
        let next = next.and_then(|child| Some((self.node(child)?.byte, child)));
        let branched = self.branches.range((state, 0)..=(state, 255));
        let branched = branched.map(|((_, byte), child)| (*byte, *child));
        let firsts = firsts.filter(|(_, child)| *child != ROOT);
        firsts.chain(next).chain(branched)
    }

    /// The state after one more byte. `steps` counts what it costs.
    #[inline]
    pub(super) fn step(&self, mut state: State, byte: u8, steps: &mut u64) -> State {
        loop {
            *steps += 1;
            if let Some(child) = self.child(state, byte) {
                return child;
            }
            if state == ROOT {
                return ROOT;
            }
            state = self.skip(state);
        }
    }

    /// Whether what was read at `longer` ends in what was read at `shorter`, as far as `most` steps show
    /// it.
    pub(super) fn ends_in(
        &self,
        longer: State,
        shorter: State,
        most: u64,
        steps: &mut u64,
    ) -> bool {
        let depth = self.depth(shorter);
        if depth <= most {
            return self.ends_alike(longer, shorter, steps);
        }
        let mut state = longer;
        for _ in 0..most {
            if self.depth(state) <= depth {
                break;
            }
            *steps += 1;
            state = self.fail(state);
        }
        state == shorter
    }

    /// The same, byte by byte from the end.
    fn ends_alike(&self, mut longer: State, mut shorter: State, steps: &mut u64) -> bool {
        let byte = |state: State| self.node(state).map(|n| n.byte);
        while shorter != ROOT && longer != shorter {
            *steps += 1;
            if longer == ROOT || byte(longer) != byte(shorter) {
                return false;
            }
            (longer, shorter) = (self.parent(longer), self.parent(shorter));
        }
        true
    }

    fn parent(&self, state: State) -> State {
        let before = state.saturating_sub(1);
        match self.node(before) {
            Some(node) if node.next => before,
            _ => self.parents.get(&state).copied().unwrap_or(ROOT),
        }
    }

    /// The longest value.
    pub(super) fn longest_value(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }
}
