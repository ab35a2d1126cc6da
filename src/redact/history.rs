//! Where in the text the bytes that one reading of it stands for begin. Bytes that stand for themselves
//! cost nothing; each escape is one bend. Readings that part share what they have in common.

/// The bends of a reading, the last one first; none while no occurrence is under way.
pub(super) type Bends = Option<u32>;

/// An escape of a reading. What follows it stands for itself until the next bend.
#[derive(Clone, Copy)]
struct Bend {
    before: Bends,
    /// An earlier one, so that far ones are found in a logarithmic number of steps (Myers, *An applicative
    /// random-access stack*).
    jump: Bends,
    rank: u32,
    /// How many bytes were read before it.
    count: u64,
    /// Where in the stream it begins.
    place: u64,
    /// Bytes of the text that it takes, and for how many bytes it stands.
    len: u8,
    bytes: u8,
}

/// Every bend that a reading still needs.
#[derive(Default)]
pub(super) struct History {
    bends: Vec<Bend>,
}

/// An escape that was read.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    pub(super) count: u64,
    pub(super) place: u64,
    pub(super) len: u8,
    pub(super) bytes: u8,
}

impl History {
    fn get(&self, bends: Bends) -> Option<&Bend> {
        self.bends.get(bends? as usize)
    }

    pub(super) fn push(&mut self, before: Bends, taken: Taken) -> Bends {
        let rank = |bends: Bends| self.get(bends).map_or(0, |b| b.rank);
        let near = self.get(before).and_then(|b| b.jump);
        let far = self.get(near).and_then(|b| b.jump);
        let even = near.is_some() && rank(before) - rank(near) == rank(near) - rank(far);
        let bend = Bend {
            before,
            jump: if even { far } else { before },
            rank: rank(before) + 1,
            count: taken.count,
            place: taken.place,
            len: taken.len,
            bytes: taken.bytes,
        };
        self.bends.push(bend);
        u32::try_from(self.bends.len() - 1).ok()
    }

    /// Where the byte number `count` of a reading begins. `steps` counts what it costs.
    pub(super) fn place(&self, mut bends: Bends, count: u64, steps: &mut u64) -> u64 {
        while let Some(bend) = self.get(bends) {
            *steps += 1;
            let after = bend.count + u64::from(bend.bytes);
            if count >= after {
                return bend.place + u64::from(bend.len) + (count - after);
            }
            if count >= bend.count {
                return bend.place;
            }
            let jump = self.get(bend.jump).is_some_and(|far| far.count > count);
            bends = if jump { bend.jump } else { bend.before };
        }
        count
    }

    /// Whether every byte from number `count` on stands for itself.
    pub(super) fn is_straight(&self, bends: Bends, count: u64) -> bool {
        self.get(bends)
            .is_none_or(|b| count >= b.count + u64::from(b.bytes))
    }

    pub(super) fn len(&self) -> usize {
        self.bends.len()
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.bends.truncate(len);
    }

    /// Copies what a reading needs from byte number `count` on into another history.
    pub(super) fn copy(&self, bends: Bends, count: u64, into: &mut Self) -> Bends {
        let mut needed = Vec::new();
        let mut at = bends;
        while let Some(bend) = self.get(at) {
            needed.push(Taken {
                count: bend.count,
                place: bend.place,
                len: bend.len,
                bytes: bend.bytes,
            });
            if count >= bend.count {
                break;
            }
            at = bend.before;
        }
        let needed = needed.into_iter().rev();
        needed.fold(None, |before, taken| into.push(before, taken))
    }
}
