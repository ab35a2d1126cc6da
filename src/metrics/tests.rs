//! The names of the series, and what is counted. No host is involved.

use super::series::{LONGEST_LABEL, label};
use super::*;
use crate::azure::forms::Collection;
use crate::cache::SecretKey;
use crate::failure::Reason;

fn metrics(secret_names: bool) -> Metrics {
    let mut metrics = Metrics::default();
    metrics.vaults = vec![label("azure"), label("two-b")];
    metrics.most_names = if secret_names { 2 } else { 0 };
    metrics
}

fn key(vault: usize, name: &str) -> SecretKey {
    SecretKey {
        vault,
        collection: Collection::Secrets,
        name: name.to_owned(),
        version: None,
    }
}

#[test]
fn names_are_made_of_what_prometheus_takes() {
    let mut metrics = metrics(true);
    metrics.secret_failed(&key(1, "db-main"), Reason::Forbidden);
    for (series, name) in [
        (
            Series::References(Source::Stale, 1),
            "akv_references_total.source.stale.vault.two_b",
        ),
        (
            Series::Calls(Endpoint::Secrets, Status::TooMany, Some(0)),
            "akv_azure_calls_total.endpoint.secrets.status.429.vault.azure",
        ),
        (
            Series::Calls(Endpoint::Token, Status::Class(7), None),
            "akv_azure_calls_total.endpoint.token.status.other",
        ),
        (
            Series::NamedFailures(0),
            "akv_named_secret_failures_total.vault.two_b.secret.db_main",
        ),
        (Series::TokenBackoffs, "akv_backoffs.kind.tokens"),
    ] {
        assert_eq!(metrics.name(series), name);
    }
    assert_eq!(label(&"ä".repeat(300)).len(), LONGEST_LABEL);
}

#[test]
fn what_is_at_hand_counts_as_local_and_what_was_looked_up_by_its_source() {
    let mut metrics = metrics(false);
    metrics.operator_sets([0, 0, 1].into_iter());
    metrics.record(&[], 0, Outcome::Served);
    metrics.record(&[(Source::Stale, 1)], 1, Outcome::Served);
    let mut taken = metrics.take();
    taken.sort();
    let expected = [
        (Series::References(Source::Local, 0), 4),
        (Series::References(Source::Local, 1), 1),
        (Series::References(Source::Stale, 1), 1),
    ];
    assert_eq!(taken, expected);
    assert_eq!(metrics.take(), [], "taken");
}

#[test]
fn no_secret_is_named_unasked_and_never_more_than_some() {
    let mut metrics = metrics(false);
    assert_eq!(metrics.name_of(&key(0, "a")), None);
    let mut metrics = self::metrics(true);
    let numbers = ["a", "b", "c", "b"].map(|name| metrics.name_of(&key(0, name)));
    assert_eq!(numbers, [Some(0), Some(1), None, Some(1)]);
    assert_eq!(metrics.name_of(&key(1, "a")), None);
}
