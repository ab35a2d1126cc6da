//! Lines for the log: `event=… vault=… secret=… reason=… azure_request_id=…`, then what else there is to an
//! event, always in the same order; `-` for what is not known. The first line of a trouble comes at once,
//! those like it are counted and told after a minute, two, four, and then every ten minutes. It writes no
//! log and reads no clock.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::quoted;
use crate::time::{Span, Timestamp};

/// After how long a trouble that goes on is told again; doubled each time.
const AGAIN: Span = Span::seconds(60);
/// The longest such time; a trouble that did not come again for so long is over.
const OVER: Span = Span::seconds(600);
/// So many troubles are told apart; half of them for what clients' references may cause by the million.
const MOST: usize = 128;
/// Longer texts are cut: some come from clients.
const LONGEST: usize = 512;

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Whether somebody should look at this.
    pub warning: bool,
    /// The line: `event=… key=value …`.
    pub text: String,
}

/// A line that is being written.
pub struct Line(String);

impl Line {
    /// The beginning of a line.
    #[must_use]
    pub fn new(event: &str) -> Self {
        Self("event=".to_owned() + event)
    }

    /// The beginning of a line about what is called so already.
    #[must_use]
    pub fn of(head: &str) -> Self {
        Self(head.to_owned())
    }

    /// A field whose value is a word of ours: a name that was checked, a reason.
    #[must_use]
    pub fn word(mut self, name: &str, value: &str) -> Self {
        let value = if value.is_empty() { "-" } else { value };
        for part in [" ", name, "=", value] {
            self.0.push_str(part);
        }
        self
    }

    /// Fields that are written already.
    #[must_use]
    pub fn words(mut self, fields: &str) -> Self {
        self.0.push(' ');
        self.0.push_str(fields);
        self
    }

    /// A field with a number.
    #[must_use]
    pub fn number(self, name: &str, value: u64) -> Self {
        self.word(name, &value.to_string())
    }

    /// A field whose value may be anybody's: in quotes, without a line break or another byte that could
    /// look like more than a value, and not too long.
    #[must_use]
    pub fn quoted(mut self, name: &str, value: &str) -> Self {
        for part in [" ", name, "=\""] {
            self.0.push_str(part);
        }
        for (n, c) in value.chars().enumerate() {
            if n == LONGEST {
                self.0.push('…');
                break;
            }
            // A text takes whatever is written to it.
            let _ = quoted::escape(&mut self.0, c);
        }
        self.0.push('"');
        self
    }

    /// The line.
    #[must_use]
    pub fn end(self) -> String {
        self.0
    }
}

/// A trouble that was told, and how often it came again since.
#[derive(Debug)]
struct Trouble {
    /// The part of its line that is the same each time.
    head: String,
    first_at: Timestamp,
    told_at: Timestamp,
    total: u64,
    repeated: u64,
    /// When to tell it again.
    again: Span,
}

/// The troubles of one worker.
#[derive(Debug, Default)]
pub struct Events {
    troubles: Vec<Trouble>,
    /// Those for which there was no room, since when.
    others: Option<(Timestamp, u64)>,
}

impl Events {
    /// Whether this trouble is to be told now: its line begins with `head`. If not, it is counted.
    /// `operators` for what cannot be caused at will by clients.
    pub fn first(&mut self, head: &str, operators: bool, now: Timestamp) -> bool {
        if let Some(known) = self.troubles.iter_mut().find(|t| t.head == head) {
            known.total += 1;
            if known.repeated == 0 && known.told_at.age(now) >= known.again {
                known.told_at = now;
                known.again = AGAIN;
                return true;
            }
            known.repeated += 1;
            return false;
        }
        let room = if operators { MOST } else { MOST / 2 };
        if self.troubles.len() >= room {
            self.others.get_or_insert((now, 0)).1 += 1;
            return false;
        }
        self.troubles.push(Trouble {
            head: head.to_owned(),
            first_at: now,
            told_at: now,
            total: 1,
            repeated: 0,
            again: AGAIN,
        });
        true
    }

    /// What came again, where it is time to tell; what did not come again is forgotten after a while.
    pub fn summed_up(&mut self, now: Timestamp) -> Vec<LogLine> {
        let mut lines = Vec::new();
        let mut tell = |line: Line, repeated: u64, since: Timestamp| {
            let line = line.number("repeated", repeated);
            lines.push(LogLine {
                warning: true,
                text: line.word("since", &since.utc()).end(),
            });
        };
        for trouble in &mut self.troubles {
            if trouble.repeated > 0 && trouble.told_at.age(now) >= trouble.again {
                tell(Line::of(&trouble.head), trouble.repeated, trouble.told_at);
                trouble.told_at = now;
                trouble.repeated = 0;
                trouble.again = (trouble.again + trouble.again).min(OVER);
            }
        }
        self.troubles.retain(|t| t.told_at.age(now) < OVER);
        if let Some((since, count)) = self.others.filter(|(since, _)| since.age(now) >= AGAIN) {
            tell(Line::new("other_troubles"), count, since);
            self.others = None;
        }
        lines
    }

    /// A trouble is over: since when there was one whose line begins so, and how often it was.
    pub fn over(&mut self, beginning: &str) -> Option<(Timestamp, u64)> {
        let mut over: Option<(Timestamp, u64)> = None;
        self.troubles.retain(|trouble| {
            let ends = trouble.head.starts_with(beginning);
            if ends {
                let (since, total) = over.unwrap_or((trouble.first_at, 0));
                over = Some((since.min(trouble.first_at), total + trouble.total));
            }
            !ends
        });
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_750_000_000_000 + seconds * 1000)
    }

    #[test]
    fn the_first_is_told_at_once_and_the_rest_once_a_minute() {
        let mut events = Events::default();
        let told = (0..120_000)
            .filter(|n| events.first("event=x reason=a", true, at(n / 1000)))
            .count();
        assert_eq!(told, 1);
        let lines = events.summed_up(at(120));
        assert_eq!(
            lines[0].text,
            "event=x reason=a repeated=119999 since=2025-06-15T15:06:40Z"
        );
        assert_eq!(lines.len(), 1);
        assert_eq!(events.summed_up(at(300)), []);
        assert!(
            events.first("event=x reason=a", true, at(300)),
            "it is back"
        );
        assert_eq!(events.over("event=x "), Some((at(0), 120_001)));
        assert_eq!(events.over("event=x "), None);
    }

    #[test]
    fn a_trouble_that_stays_is_told_less_and_less() {
        let mut events = Events::default();
        let mut told = Vec::new();
        for second in 0..3600 {
            events.first("event=x", true, at(second));
            told.extend(events.summed_up(at(second)).iter().map(|_| second));
        }
        assert_eq!(told, [60, 180, 420, 900, 1500, 2100, 2700, 3300]);
    }

    #[test]
    fn a_flood_of_names_is_one_line() {
        let mut events = Events::default();
        let flood = (0..1000).filter(|n| events.first(&format!("event=x {n}"), false, at(0)));
        assert_eq!(flood.count(), MOST / 2);
        assert!(events.first("event=operators", true, at(0)));
        let lines = events.summed_up(at(60));
        assert_eq!(
            lines[0].text,
            "event=other_troubles repeated=936 since=2025-06-15T15:06:40Z"
        );
        assert_eq!(lines.len(), 1);
        events.summed_up(at(600));
        assert!(events.first("event=x again", false, at(600)), "forgotten");
    }

    #[test]
    fn a_strangers_text_stays_a_value() {
        let evil = "a\" event=forged\r\nevent=forged \u{202e}\\ \u{1b}[31m";
        let line = Line::new("x").quoted("client", evil).word("id", "").end();
        assert_eq!(
            line,
            r#"event=x client="a\" event=forged\u{d}\u{a}event=forged \u{202e}\\ \u{1b}[31m" id=-"#
        );
        let long = Line::new("x").quoted("client", &"x".repeat(600)).end();
        assert_eq!(
            long.chars().count(),
            "event=x client=\"\"".len() + LONGEST + 1
        );
    }
}
