//! An Aho-Corasick automaton over the bytes of some values: a state is the longest end of what was read
//! that begins a value. It knows nothing of spellings or of text. The crate `aho-corasick` does not show
//! depths, failure links and next bytes, which tell where an occurrence began and what may complete it.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::coarse::Pairs;
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
    /// What ends here, as an index into `matches`.
    found: u16,
    byte: u8,
    /// Whether the node after this one in the list is its child.
    next: bool,
    /// Whether it has children in `branches`.
    branched: bool,
}

/// What ends at a state.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Match {
    /// Length of the longest value; 0 for none.
    longest: usize,
    /// Whether one of the values goes on, but no more of it is here.
    cut: bool,
}

/// The automaton. Sixteen bytes for each byte of the values, but no more than for the bytes that fit: then
/// of the longest values only the beginnings are here.
pub(super) struct Automaton {
    nodes: Vec<Node>,
    branches: BTreeMap<(State, u8), State>,
    /// The parents of the states in `branches`.
    parents: BTreeMap<State, State>,
    first: Box<[State; 256]>,
    matches: Vec<Match>,
    /// Which bytes follow which in the values, made when it is asked for.
    pairs: OnceCell<Pairs>,
}

/// Of each value at least this many bytes are here.
const SHORTEST_BEGINNING: usize = 16;

/// How many bytes of each value fit if they may have so many bytes together.
fn length_that_fits(values: &[SecretValue], most: usize) -> usize {
    let mut lengths: Vec<usize> = values.iter().map(|value| value.expose().len()).collect();
    lengths.sort_unstable();
    let (mut left, mut fits) = (most, 0);
    for (n, length) in lengths.iter().enumerate() {
        let share = left / (lengths.len() - n);
        if *length > share {
            return share.max(SHORTEST_BEGINNING);
        }
        (left, fits) = (left - length, *length);
    }
    fits
}

impl Automaton {
    /// Over these values, or if they have more than `most` bytes over as much of each as fits.
    pub(super) fn new(values: &[SecretValue], most: usize) -> Self {
        let fits = length_that_fits(values, most);
        let bytes = values.iter().map(|value| value.expose().len().min(fits));
        let bytes: usize = bytes.sum();
        let mut automaton = Self {
            nodes: Vec::with_capacity(bytes + 1),
            branches: BTreeMap::new(),
            parents: BTreeMap::new(),
            first: Box::new([ROOT; 256]),
            matches: vec![Match {
                longest: 0,
                cut: false,
            }],
            pairs: OnceCell::new(),
        };
        automaton.push(0, 0);
        let mut is_cut = false;
        for value in values {
            let value = value.expose();
            let beginning = value.get(..fits).unwrap_or(value);
            automaton.insert(beginning, beginning.len() < value.len());
            is_cut |= beginning.len() < value.len();
        }
        if is_cut {
            // The rest of the values is known by its pairs of bytes only.
            let all = values.iter().map(|value| value.expose());
            automaton.pairs = OnceCell::from(Pairs::of(all));
        }
        automaton.link();
        automaton
    }

    fn push(&mut self, byte: u8, depth: u32) -> State {
        self.nodes.push(Node {
            fail: ROOT,
            skip: ROOT,
            depth,
            found: 0,
            byte,
            next: false,
            branched: false,
        });
        State::try_from(self.nodes.len() - 1).unwrap_or(ROOT)
    }

    fn insert(&mut self, value: &[u8], is_cut: bool) {
        let mut state = ROOT;
        for &byte in value {
            state = match self.child(state, byte) {
                Some(child) => child,
                None => self.grow(state, byte),
            };
        }
        // An earlier value may begin with as much.
        let cut = is_cut || self.is_cut(state);
        self.set_match(
            state,
            Match {
                longest: value.len(),
                cut,
            },
        );
    }

    fn set_match(&mut self, state: State, found: Match) {
        let index = self.matches.iter().position(|m| *m == found);
        let index = index.unwrap_or_else(|| {
            self.matches.push(found);
            self.matches.len() - 1
        });
        if let Some(node) = self.nodes.get_mut(state as usize) {
            node.found = u16::try_from(index).unwrap_or(u16::MAX);
        }
    }

    fn found(&self, state: State) -> Option<Match> {
        let index = self.node(state)?.found;
        self.matches.get(usize::from(index)).copied()
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
                    if let Some(node) = self.nodes.get_mut(child as usize) {
                        node.fail = fail;
                    }
                    self.inherit(child, fail);
                    deeper.push(child);
                }
            }
            level = deeper;
        }
    }

    /// What ends at a shorter beginning ends here too.
    fn inherit(&mut self, state: State, shorter: State) {
        if let (Some(own), Some(inherited)) = (self.found(state), self.found(shorter)) {
            let found = Match {
                longest: own.longest.max(inherited.longest),
                cut: own.cut || inherited.cut,
            };
            if found != own {
                self.set_match(state, found);
            }
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
        self.found(state).map_or(0, |found| found.longest as u64)
    }

    /// Whether a value of which only the beginning is here goes on after this state.
    pub(super) fn is_cut(&self, state: State) -> bool {
        self.found(state).is_some_and(|found| found.cut)
    }

    /// The last byte of this state; 0 for the root.
    pub(super) fn last_byte(&self, state: State) -> u8 {
        self.node(state).map_or(0, |n| n.byte)
    }

    /// Which bytes follow which in the values.
    pub(super) fn pairs(&self) -> &Pairs {
        self.pairs.get_or_init(|| {
            let mut pairs = Pairs::new();
            for (state, node) in (ROOT..).zip(&self.nodes) {
                if node.depth > 1 {
                    pairs.add(self.last_byte(self.parent(state)), node.byte);
                }
            }
            pairs
        })
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

    /// How many states there are.
    #[cfg(test)]
    pub(super) fn states(&self) -> usize {
        self.nodes.len()
    }

    /// Length of the longest value, or of what is here of it.
    pub(super) fn longest_value(&self) -> usize {
        let longest = self.matches.iter().map(|m| m.longest).max();
        longest.unwrap_or(0)
    }
}
