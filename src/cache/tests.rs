//! The life of values, and entries of shared data that are torn, foreign or random.

use proptest::prelude::*;

use super::*;
use crate::azure::key_vault::Secret;
use crate::failure::Reason;
use crate::secret::SecretValue;

fn found(fetched_at: u64, expires_at: Option<u64>) -> Found {
    Found {
        secret: Secret {
            value: SecretValue::new(b"value".to_vec()),
            expires_at: expires_at.map(Timestamp),
            not_before: None,
        },
        fetched_at: Timestamp(fetched_at),
    }
}

fn rules(ttl: Span, resurrect: u64) -> CacheRules {
    CacheRules {
        ttl,
        neg_ttl: Span(0),
        resurrect_ttl: Span(resurrect),
    }
}

fn failed(at: u64, until: u64) -> Failed {
    Failed {
        reason: Reason::NotFound,
        at: Timestamp(at),
        until: Timestamp(until),
        attempts: 1,
    }
}

#[test]
fn a_value_lives_as_in_the_diagram() {
    let rules = rules(Span(100), 1000);
    let lives: Vec<Life> = [0, 99, 100, 199, 200, 1099, 1100]
        .map(|age| found(5, None).life(&rules, Timestamp(5 + age)))
        .into();
    use Life::{Fresh, Old, Over, Stale};
    assert_eq!(lives, [Fresh, Fresh, Stale, Stale, Old, Old, Over]);
}

#[test]
fn a_short_resurrect_ttl_and_exp_cut_the_life_short() {
    let short = rules(Span(100), 10);
    assert_eq!(found(0, None).life(&short, Timestamp(109)), Life::Stale);
    assert_eq!(found(0, None).life(&short, Timestamp(110)), Life::Over);
    let forever = rules(Span::FOREVER, 10);
    assert_eq!(
        found(0, None).life(&forever, Timestamp(u64::MAX - 1)),
        Life::Fresh
    );
    assert_eq!(found(0, Some(50)).life(&forever, Timestamp(50)), Life::Over);
    assert_eq!(found(0, Some(50)).fresh_until(&forever), Timestamp(50));
}

#[test]
fn merging_keeps_the_newest_value_and_the_failure_after_it() {
    let mut ours = Record {
        found: Some(found(10, None)),
        failed: None,
    };
    let failure = Record {
        found: None,
        failed: Some(failed(20, 30)),
    };
    assert!(!ours.merge(failure.clone()));
    assert_eq!(ours.backoff(Timestamp(29)), Some(failed(20, 30)));
    assert_eq!(ours.backoff(Timestamp(30)), None);
    assert!(ours.merge(Record {
        found: Some(found(25, None)),
        failed: None,
    }));
    assert_eq!(ours.failed, None);
    assert!(!ours.merge(failure), "an old failure does not come back");
    assert_eq!(ours.failed, None);
}

#[test]
fn of_one_value_with_two_ends_the_earlier_one_holds() {
    let record = |end| Record {
        found: Some(found(5, end)),
        failed: None,
    };
    let mut ours = record(None);
    assert!(ours.merge(record(Some(90))));
    assert!(!ours.merge(record(Some(100))));
    assert!(!ours.merge(record(None)));
    assert_eq!(ours, record(Some(90)));
}

#[test]
fn times_of_another_clock_are_over() {
    let hour = 3_600_000;
    let ahead = failed(2 * hour, 2 * hour + 5000);
    assert!(!ahead.holds(Timestamp(hour)), "the clock was set back");
    assert!(ahead.holds(Timestamp(2 * hour + 1)));
    assert!(
        !failed(0, 2 * hour).holds(Timestamp(1)),
        "longer than any wait"
    );
    let rules = rules(Span(100), 1000);
    let future = found(hour, None);
    assert_eq!(future.life(&rules, Timestamp(5000)), Life::Stale);
    let record = Record {
        found: Some(future),
        failed: Some(ahead),
    };
    let rebased = record.on_clock(&rules, Timestamp(5000));
    assert_eq!(rebased.failed, None);
    let mut ours = Record {
        found: Some(found(4950, None)),
        failed: None,
    };
    assert!(!ours.merge(rebased), "what this clock dates wins");
}

#[test]
fn renewal_is_before_the_end_and_scattered() {
    let rules = rules(Span(1000), 0);
    let at: Vec<u64> = [0, 50, 99]
        .map(|random| renewal(Timestamp(0), &rules, random).0)
        .into();
    assert_eq!(at, [800, 750, 701]);
}

fn any_record() -> impl Strategy<Value = Record> {
    let found = (
        any::<u32>(),
        proptest::option::of(any::<u32>()),
        proptest::collection::vec(any::<u8>(), 0..40),
    );
    let failed = (any::<u32>(), any::<u32>(), 0u8..17, any::<u32>());
    (proptest::option::of(found), proptest::option::of(failed)).prop_map(|(found, failed)| Record {
        found: found.map(|(at, exp, value)| Found {
            fetched_at: Timestamp(at.into()),
            secret: Secret {
                value: SecretValue::new(value),
                expires_at: exp.map(|e| Timestamp(e.into())),
                not_before: None,
            },
        }),
        failed: failed.map(|(at, until, reason, attempts)| Failed {
            at: Timestamp(at.into()),
            until: Timestamp(until.into()),
            reason: Reason::from_code(reason).unwrap(),
            attempts,
        }),
    })
}

proptest! {
    #[test]
    fn entries_come_back_whole_or_not_at_all(record in any_record(), cut in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>()) {
        let entry = record.pack("key");
        prop_assert_eq!(Record::unpack("key", &entry), Some(record));
        prop_assert_eq!(Record::unpack("other", &entry), None);
        prop_assert_eq!(Record::unpack("key", &entry[..cut.index(entry.len())]), None);
        let mut torn = entry.to_vec();
        let at = flip.index(torn.len());
        torn[at] ^= 1;
        prop_assert_eq!(Record::unpack("key", &torn), None);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(Record::unpack("key", &bytes), None);
    }
}
