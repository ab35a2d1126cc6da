//! Where the messages of a gRPC stream end (gRPC over HTTP2, "Length-Prefixed-Message"). It does not know what
//! messages hold, and does not check them.

/// Bytes before each message: a flag, and its length in four bytes.
const PREFIX: usize = 5;

/// How far a stream of messages has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Bytes of a message's prefix that were read: 0 to 4.
    prefix: usize,
    /// The length that they say so far.
    length: u32,
    /// Bytes of the message that are still to come.
    left: u32,
}

impl Frames {
    /// The same stream, these bytes further on.
    #[must_use]
    pub fn after(mut self, mut bytes: &[u8]) -> Self {
        loop {
            let of_message = (self.left as usize).min(bytes.len());
            self.left = self
                .left
                .saturating_sub(u32::try_from(of_message).unwrap_or(self.left));
            let Some((byte, rest)) = bytes.get(of_message..).and_then(<[u8]>::split_first) else {
                return self;
            };
            self.read_prefix(*byte);
            bytes = rest;
        }
    }

    fn read_prefix(&mut self, byte: u8) {
        // The flag is shifted out by the four bytes that follow it.
        self.length = self.length << 8 | u32::from(byte);
        self.prefix += 1;
        if self.prefix == PREFIX {
            *self = Self {
                left: self.length,
                ..Self::default()
            };
        }
    }

    /// Whether every message that began is whole.
    #[must_use]
    pub const fn is_between_messages(self) -> bool {
        self.prefix == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_end_where_their_prefixes_say_whatever_the_pieces_are() {
        let mut stream = Vec::new();
        let mut ends = vec![0];
        for length in [0, 1, 3, 300, 70_000] {
            // A flag that is not 0 is no part of the length.
            stream.push(1);
            stream.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
            stream.resize(stream.len() + length, 0xff);
            ends.push(stream.len());
        }
        for at in 0..=stream.len() {
            if at > 400 && at % 97 != 0 && !ends.contains(&at) {
                continue;
            }
            let (before, after) = stream.split_at(at);
            let frames = Frames::default().after(before);
            assert_eq!(frames.is_between_messages(), ends.contains(&at), "{at}");
            assert!(frames.after(after).is_between_messages(), "{at}");
        }
        let bytewise = stream.iter().fold(Frames::default(), |f, b| f.after(&[*b]));
        assert!(bytewise.is_between_messages());
    }

    #[test]
    fn the_longest_message_has_no_end_here() {
        let frames = Frames::default().after(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2]);
        assert!(!frames.is_between_messages());
    }
}
