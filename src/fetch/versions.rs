//! The newest version that is valid, where the newest one's activation date has not come: the list of the
//! secret's versions, then that version. It does not know what an answer looks like, nor how a call is made.

use super::{Fetcher, Lane, Now, Subject};
use crate::azure::http::Answer;
use crate::azure::key_vault::{self, Refusal, Secret};
use crate::cache::{Found, SecretKey, SlotId};
use crate::failure::{Failure, Reason};

/// Which of its secret's versions a flight asks for.
#[derive(Default)]
pub(super) enum Search {
    /// The one that the reference names; the newest, if it names none.
    #[default]
    Named,
    /// The list of all versions.
    List(NotYetValid),
    /// This older one.
    Older(String, NotYetValid),
}

/// What the newest version gives before its activation date: with `dates: warn` its value, else an error.
pub(super) type NotYetValid = Result<Secret, Failure>;

impl Fetcher {
    /// Asks for the list of versions, if an older one may be valid where this answer's is not yet. Returns
    /// what was read, if not.
    pub(super) fn search_older(
        &mut self,
        lane: Lane,
        key: &SecretKey,
        answer: &Answer,
        read: Result<Secret, Refusal>,
        now: &Now<'_>,
    ) -> Option<Result<Secret, Refusal>> {
        let newest = match read {
            Ok(secret) if self.date_warning(key, answer, now) == Some(Reason::NotYetValid) => {
                Ok(secret)
            }
            Err(Refusal::Other(failure)) if failure.reason == Reason::NotYetValid => Err(failure),
            other => return Some(other),
        };
        let flight = self.flights.get_mut(&(lane, Subject::Secret(key.clone())));
        let Some(flight) = flight.filter(|_| key.version.is_none()) else {
            return Some(newest.map_err(Refusal::Other));
        };
        flight.search = Search::List(newest);
        self.call_secret(lane, key, None, now);
        None
    }

    /// The list of versions was answered.
    pub(super) fn versions_answered(
        &mut self,
        lane: Lane,
        key: &SecretKey,
        newest: NotYetValid,
        answer: &Answer,
        now: &Now<'_>,
    ) {
        let valid = key_vault::newest_valid_version(answer, now.time);
        let flight = self.flights.get_mut(&(lane, Subject::Secret(key.clone())));
        let (Some(version), Some(flight)) = (valid, flight) else {
            return self.no_older(lane, key, newest, now);
        };
        flight.search = Search::Older(version, newest);
        self.call_secret(lane, key, None, now);
    }

    /// The older version was answered.
    pub(super) fn older_answered(
        &mut self,
        lane: Lane,
        key: &SecretKey,
        newest: NotYetValid,
        answer: &Answer,
        now: &Now<'_>,
    ) {
        let vault = self.config.vaults.get(key.vault);
        let read = vault.map(|v| key_vault::read_secret(v, key.collection, answer, now.time));
        let Some(Ok(secret)) = read else {
            return self.no_older(lane, key, newest, now);
        };
        let detail =
            "the newest version's activation date has not come: the newest valid one is served";
        self.log_dates(key, Reason::NotYetValid, detail, now.time);
        self.secret_read(lane, key, secret, now);
    }

    /// There is no older version to serve: what the newest one gave is the answer.
    fn no_older(&mut self, lane: Lane, key: &SecretKey, newest: NotYetValid, now: &Now<'_>) {
        match newest {
            Ok(secret) => {
                self.log_out_of_dates(key, Reason::NotYetValid, now.time);
                self.secret_read(lane, key, secret, now);
            }
            Err(failure) => self.secret_failed(lane, key, &failure, now),
        }
    }

    /// A secret was read for this flight.
    pub(super) fn secret_read(
        &mut self,
        lane: Lane,
        key: &SecretKey,
        secret: Secret,
        now: &Now<'_>,
    ) {
        let flight = self.flights.get(&(lane, Subject::Secret(key.clone())));
        let id: Option<SlotId> = flight.and_then(|flight| flight.entry);
        let Some(id) = id else { return };
        let found = Found {
            secret,
            fetched_at: now.time,
        };
        self.secret_found(lane, key, id, found, now);
    }
}
