//! Finds every occurrence of some values in a text that comes in pieces, whatever escapes spell them.
//!
//! An escape may stand for itself or for what it spells, so a text has several readings. Each reading is
//! one state of the automaton and the history that tells where its bytes began; an escape parts a reading in
//! two, and a reading that finds nothing which another one does not find is dropped. Nearly always there
//! is one reading or none. The cost is linear in the text, whatever the values are: each byte moves at most
//! [`READINGS`] readings, and one when these cost more than [`STEPS`]; the search goes on with the others
//! coarsely (`coarse`), which masks more than it has to. Only values that look like escapes themselves
//! (`\\\\`, `%25%25`) come near these bounds.

use std::cmp::Reverse;
use std::ops::Range;

use super::automaton::{Automaton, ROOT, State};
use super::coarse::Coarse;
use super::escapes::{self, Escape, Escapes};
use super::follow::may_follow;
use super::history::{Bends, History, Taken};
use super::starts::Starts;

/// Readings of one text that are followed at the same time; beyond, the shortest beginnings are followed
/// coarsely. More than three need values that look like escapes of each other.
const READINGS: usize = 32;
/// How many beginnings of values two readings are compared in. Those that have more in common stay apart.
const COMPARED: u64 = 16;
/// Steps for each byte of the text that readings may cost on average, and how many more for a while.
/// Beyond, readings are followed exactly only where there is one.
const STEPS: u64 = 6;
const MORE_STEPS: u64 = 100_000;
/// Bends beyond which those that nothing needs are freed.
const BENDS: usize = 1024;

/// A beginning of an occurrence that is under way.
#[derive(Clone, Copy)]
struct Reading {
    state: State,
    /// How many bytes were read; without bends it is the place in the stream.
    count: u64,
    bends: Bends,
}

impl Reading {
    /// One that begins at this place.
    const fn none(place: u64) -> Self {
        Self {
            state: ROOT,
            count: place,
            bends: None,
        }
    }
}

/// What is under way at one place of the stream.
#[derive(Clone, Default)]
struct Front {
    place: u64,
    /// Readings that began an occurrence. That one may begin here goes without saying.
    live: Vec<Reading>,
    /// Readings that took an escape, and where it ends.
    ahead: Vec<(u64, Reading)>,
    /// Those that are too many.
    coarse: Coarse,
}

impl Front {
    fn is_idle(&self) -> bool {
        self.live.is_empty() && self.ahead.is_empty() && self.coarse.is_idle()
    }
}

/// What the end of the text at hand means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// More comes: stop before an escape that may go on.
    Open,
    /// Nothing comes after it.
    Closed,
    /// Note where the first beginning of an occurrence is that may go on.
    Asked,
}

/// A search that is under way.
#[derive(Default)]
pub(super) struct Scan {
    front: Front,
    history: History,
    /// Lists that are empty but for a moment, kept for their room.
    spare: Vec<Reading>,
    ordered: Vec<(Reverse<u64>, u64, Reading)>,
    collect_at: usize,
    /// Steps and place when readings were compared last, and the steps that exceeded what is allowed.
    counted: (u64, u64),
    owed: u64,
    /// Whether that is too much.
    crowded: bool,
    /// Occurrences that were found, in order and apart, by their places in the stream.
    covered: Vec<Range<u64>>,
    /// Where the first beginning is that was found for [`End::Asked`].
    earliest: Option<u64>,
    /// Steps of the automaton and of the histories so far: what tests bound.
    pub(super) steps: u64,
}

impl Scan {
    /// Goes on over a text that begins at place `base` of the stream.
    pub(super) fn run(&mut self, values: &Automaton, text: &[u8], base: u64, end: End) {
        let mut starts = Starts::new(values, text);
        while let Some(mut at) = self.index(base).filter(|at| *at < text.len()) {
            if self.front.is_idle() {
                if end != End::Asked {
                    self.history.truncate(0);
                }
                at = starts.next(at);
                self.front.place = base + at as u64;
            }
            let Some(&byte) = text.get(at) else {
                return;
            };
            let rest = text.get(at..).unwrap_or_default();
            let found = if escapes::is_introducer(byte) {
                escapes::read(rest)
            } else {
                Escapes::default()
            };
            if found.ran_out && end == End::Open {
                return;
            }
            if found.ran_out && end == End::Asked {
                self.ask(values, rest);
            }
            let is_simple = self.front.ahead.is_empty() && self.front.coarse.is_idle();
            if found.is_empty() && is_simple && self.front.live.len() < 2 {
                self.plain(values, rest, end);
            } else {
                self.advance(values, byte, &found, end);
            }
        }
    }

    /// Where in the text the front is.
    fn index(&self, base: u64) -> Option<usize> {
        usize::try_from(self.front.place.checked_sub(base)?).ok()
    }

    /// Bytes that stand for themselves, the first one and those before the next escape, while there is one
    /// reading at most.
    fn plain(&mut self, values: &Automaton, text: &[u8], end: End) {
        let mut reading = self
            .front
            .live
            .pop()
            .unwrap_or_else(|| Reading::none(self.front.place));
        let mut taken = 0;
        for &byte in text {
            if taken > 0 && escapes::is_introducer(byte) {
                break;
            }
            taken += 1;
            reading.count += 1;
            reading.state = values.step(reading.state, byte, &mut self.steps);
            let longest = values.longest_match(reading.state);
            if longest > 0 {
                let first = reading.count - longest;
                let start = self.history.place(reading.bends, first, &mut self.steps);
                let after = self.front.place + taken;
                self.cover(start..after);
                if values.is_cut(reading.state) {
                    self.follow_coarsely(start, after, byte, end);
                }
            }
            while !values.goes_on(reading.state) {
                self.steps += 1;
                reading.state = values.fail(reading.state);
            }
            if reading.state == ROOT || !self.front.coarse.is_idle() {
                break;
            }
        }
        self.steps += taken;
        self.front.place += taken;
        if reading.state != ROOT {
            let first = reading.count - values.depth(reading.state);
            if self.history.is_straight(reading.bends, first) {
                (reading.bends, reading.count) = (None, self.front.place);
            }
            self.front.live.push(reading);
        }
    }

    /// One byte of the text, and the escapes that begin with it.
    fn advance(&mut self, values: &Automaton, byte: u8, found: &Escapes, end: End) {
        self.spend();
        let place = self.front.place;
        if end != End::Asked && !self.front.coarse.is_idle() {
            self.front
                .coarse
                .advance(values.pairs(), place, byte, found);
            self.steps += 1;
            if let Some(covered) = self.front.coarse.covered() {
                self.cover(covered);
            }
        }
        std::mem::swap(&mut self.front.live, &mut self.spare);
        if self.spare.is_empty() {
            self.spare.push(Reading::none(place));
        }
        while let Some(reading) = self.spare.pop() {
            let itself = self.take(values, reading, &[byte], 1, end);
            self.front.live.extend(itself);
            for escape in found.iter() {
                self.take_escape(values, reading, &escape, end);
            }
        }
        self.front.place += 1;
        let place = self.front.place;
        let Front { live, ahead, .. } = &mut self.front;
        ahead.retain(|(at, reading)| {
            if *at == place {
                live.push(*reading);
            }
            *at != place
        });
        self.prune(values, end);
        if end != End::Asked && self.history.len() > self.collect_at.max(BENDS) {
            self.collect(values);
        }
    }

    fn take_escape(&mut self, values: &Automaton, reading: Reading, escape: &Escape, end: End) {
        let at = self.front.place + u64::from(escape.len);
        let next = self.take(values, reading, escape.bytes(), escape.len, end);
        self.front.ahead.extend(next.map(|next| (at, next)));
    }

    /// Follows whatever is under way coarsely.
    fn give_up_all(&mut self, values: &Automaton, end: End) {
        let ahead = std::mem::take(&mut self.front.ahead);
        let live = std::mem::take(&mut self.front.live);
        let place = self.front.place;
        let live = live.into_iter().map(|reading| (place, reading));
        for (at, reading) in live.chain(ahead) {
            let from = self.begun(reading, values.depth(reading.state));
            self.follow_coarsely(from, at, values.last_byte(reading.state), end);
        }
    }

    fn follow_coarsely(&mut self, from: u64, at: u64, last: u8, end: End) {
        if end == End::Asked {
            self.note(from);
            return;
        }
        self.front.coarse.add(from, at, last);
        if let Some(covered) = self.front.coarse.covered() {
            self.cover(covered);
        }
    }

    /// A reading after `len` bytes of the text that stand for `bytes`; none if nothing is under way then.
    #[inline]
    fn take(
        &mut self,
        values: &Automaton,
        from: Reading,
        bytes: &[u8],
        len: u8,
        end: End,
    ) -> Option<Reading> {
        let place = self.front.place;
        let (mut state, mut count) = (from.state, from.count);
        self.steps += 1;
        for &byte in bytes {
            state = values.step(state, byte, &mut self.steps);
            count += 1;
            let longest = values.longest_match(state);
            if longest > 0 {
                let first = count - longest;
                let start = if first >= from.count {
                    place
                } else {
                    self.history.place(from.bends, first, &mut self.steps)
                };
                self.cover(start..place + u64::from(len));
                if let Some(&last) = bytes.last().filter(|_| values.is_cut(state)) {
                    self.follow_coarsely(start, place + u64::from(len), last, end);
                }
            }
        }
        while !values.goes_on(state) {
            self.steps += 1;
            state = values.fail(state);
        }
        if state == ROOT {
            return None;
        }
        let first = count - values.depth(state);
        let forget = first >= from.count || self.history.is_straight(from.bends, first);
        let (before, count) = if forget {
            (None, place)
        } else {
            (from.bends, from.count)
        };
        let taken = Taken {
            count,
            place,
            len,
            bytes: u8::try_from(bytes.len()).unwrap_or(len),
        };
        let bends = if len == 1 {
            before
        } else {
            self.history.push(before, taken)
        };
        Some(Reading {
            state,
            count: count + bytes.len() as u64,
            bends,
        })
    }

    /// Drops readings that find nothing which another one does not find, and follows those that are too many
    /// coarsely.
    fn prune(&mut self, values: &Automaton, end: End) {
        if self.crowded && self.front.live.len() + self.front.ahead.len() > 1 {
            self.give_up_all(values, end);
        }
        if self.front.live.len() < 2 {
            return;
        }
        self.steps += self.front.live.len() as u64;
        // The longest first, of these the one that began first: it finds what the others find.
        let mut ordered = std::mem::take(&mut self.ordered);
        for reading in self.front.live.drain(..) {
            let depth = values.depth(reading.state);
            let begun = self
                .history
                .place(reading.bends, reading.count - depth, &mut self.steps);
            ordered.push((Reverse(depth), begun, reading));
        }
        ordered.sort_unstable_by_key(|(depth, begun, _)| (*depth, *begun));
        for (_, begun, reading) in ordered.drain(..) {
            let mut steps = 0;
            let mut kept = self.front.live.iter();
            let found = kept.any(|longer| self.finds_all(values, *longer, reading, &mut steps));
            self.steps += steps;
            if found {
                continue;
            }
            if self.front.live.len() < READINGS {
                self.front.live.push(reading);
            } else {
                let last = values.last_byte(reading.state);
                self.follow_coarsely(begun, self.front.place, last, end);
            }
        }
        self.ordered = ordered;
    }

    /// Counts the steps since the last time against what is allowed.
    fn spend(&mut self) {
        let now = (self.steps, self.front.place);
        let (steps, place) = std::mem::replace(&mut self.counted, now);
        let allowed = STEPS * self.front.place.saturating_sub(place);
        self.owed = (self.owed + self.steps - steps).saturating_sub(allowed);
        self.crowded = self.owed > MORE_STEPS;
    }

    /// Whether `longer` finds whatever `reading` finds and covers no less of the text, as far as comparing
    /// them in so many beginnings of values shows it.
    fn finds_all(
        &self,
        values: &Automaton,
        longer: Reading,
        reading: Reading,
        steps: &mut u64,
    ) -> bool {
        if !values.ends_in(longer.state, reading.state, COMPARED, steps) {
            return false;
        }
        if longer.bends == reading.bends && longer.count == reading.count {
            return true;
        }
        let mut state = reading.state;
        for _ in 0..COMPARED {
            let back = values.depth(state);
            let ours = self.history.place(longer.bends, longer.count - back, steps);
            if ours
                > self
                    .history
                    .place(reading.bends, reading.count - back, steps)
            {
                return false;
            }
            state = values.fail(state);
            if state == ROOT {
                return true;
            }
        }
        false
    }

    /// Frees the bends that nothing under way needs.
    fn collect(&mut self, values: &Automaton) {
        let mut kept = History::default();
        let Front { live, ahead, .. } = &mut self.front;
        for reading in live.iter_mut().chain(ahead.iter_mut().map(|(_, r)| r)) {
            let first = reading.count - values.depth(reading.state);
            reading.bends = self.history.copy(reading.bends, first, &mut kept);
        }
        self.steps += kept.len() as u64;
        self.collect_at = 2 * kept.len();
        self.history = kept;
    }

    /// Notes that these places are to be masked.
    pub(super) fn cover(&mut self, found: Range<u64>) {
        // Nearly always the last one is extended.
        let first = match self.covered.last() {
            Some(last) if last.start <= found.start && found.start <= last.end => {
                self.covered.len() - 1
            }
            _ => self.covered.partition_point(|c| c.end < found.start),
        };
        let (mut all, mut last) = (found, first);
        for touched in self.covered.iter().skip(first) {
            if touched.start > all.end {
                break;
            }
            all = all.start.min(touched.start)..all.end.max(touched.end);
            last += 1;
        }
        self.covered.splice(first..last, [all]);
    }

    /// Notes where the first beginning is that an escape may go on with, of which only this end of the
    /// text is there.
    fn ask(&mut self, values: &Automaton, escape: &[u8]) {
        let mut refused = Vec::new();
        let mut live = self.front.live.clone();
        live.push(Reading::none(self.front.place));
        for reading in live {
            let mut state = reading.state;
            loop {
                if may_follow(values, state, escape, &mut refused) {
                    let begun = self.begun(reading, values.depth(state));
                    self.note(begun);
                    break;
                }
                if state == ROOT {
                    break;
                }
                self.steps += 1;
                state = values.fail(state);
            }
        }
    }

    fn note(&mut self, place: u64) {
        self.earliest = Some(self.earliest.map_or(place, |e| e.min(place)));
    }

    /// Where a reading's beginning of this length begins.
    fn begun(&mut self, reading: Reading, length: u64) -> u64 {
        self.history
            .place(reading.bends, reading.count - length, &mut self.steps)
    }

    /// The place of the first beginning that reaches the end of the text and may go on. What was found so
    /// far is noted; the search stands where it stood.
    pub(super) fn beginning(&mut self, values: &Automaton, text: &[u8], base: u64) -> Option<u64> {
        let (front, bends) = (self.front.clone(), self.history.len());
        let (steps, counted, owed) = (self.steps, self.counted, self.owed);
        let crowded = self.crowded;
        self.earliest = None;
        let was_idle = front.is_idle();
        self.run(values, text, base, End::Asked);
        if !front.coarse.is_idle() {
            self.note(front.place);
        }
        for reading in std::mem::take(&mut self.front.live) {
            let begun = self.begun(reading, values.depth(reading.state));
            self.note(begun);
        }
        self.history.truncate(if was_idle { 0 } else { bends });
        // Where pieces end changes nothing that is found.
        self.front = front;
        self.counted = (counted.0 + self.steps - steps, counted.1);
        (self.owed, self.crowded) = (owed, crowded);
        self.earliest.take()
    }

    /// Where the search stands: what comes before was read for good.
    pub(super) fn place(&self) -> u64 {
        self.front.place
    }

    /// Begins anew at this place: no occurrence that began before is under way.
    pub(super) fn restart(&mut self, place: u64) {
        self.front.place = place;
        self.front.live.clear();
        self.front.ahead.clear();
    }

    /// The first place from `place` on that no occurrence covers.
    pub(super) fn uncovered(&self, place: u64) -> u64 {
        let mut covered = self.covered.iter();
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
        self.covered.retain_mut(|c| {
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
