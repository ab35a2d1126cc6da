//! Lines of the log about fetches: what failed, why, and when it is tried again. It does not know where they
//! are written.

use std::fmt::Write as _;

use super::{Action, Fetcher, Now};
use crate::azure::identity::{Identity, Token};
use crate::cache::{Entry, Failed, SecretKey};
use crate::config::Config;
use crate::events::{Events, Line, LogLine};
use crate::failure::{Failure, Reason};
use crate::time::{Span, Timestamp};

/// The beginning of a line about a secret, certificate or key.
pub(super) fn about(event: &str, config: &Config, key: &SecretKey) -> Line {
    let vault = config.vaults.get(key.vault);
    let line = Line::new(event).word("vault", vault.map_or("", |v| v.prefix.as_str()));
    line.word(key.collection.as_str().trim_end_matches('s'), &key.name)
}

fn recovered(line: Line, (since, failures): (Timestamp, u64)) -> LogLine {
    let line = line.number("failures", failures);
    LogLine {
        // As loud as what it ends.
        warning: true,
        text: line.word("since", &since.utc()).end(),
    }
}

/// The lines about a token that was received.
pub(super) fn token_received(
    events: &mut Events,
    who: &Identity,
    token: &Token,
    now: Timestamp,
) -> Vec<LogLine> {
    let who = who.describe();
    let left = token.expires_at.until(now).ceil_seconds();
    let renewed = Line::new("token_renewed").words(&who);
    let mut lines = vec![LogLine {
        warning: false,
        text: renewed.number("expires_in_s", left).end(),
    }];
    let failing = Line::new("token_failed").words(&who).words("reason=").end();
    if let Some(over) = events.over(&failing) {
        lines.push(recovered(Line::new("token_recovered").words(&who), over));
    }
    lines
}

impl Fetcher {
    fn warn(&mut self, text: String) {
        self.actions.push_back(Action::Log(LogLine {
            warning: true,
            text,
        }));
    }

    /// A refresh brought another value.
    pub(super) fn log_change(&mut self, key: &SecretKey) {
        self.actions.push_back(Action::Log(LogLine {
            warning: false,
            text: about("secret_changed", &self.config, key).end(),
        }));
    }

    pub(super) fn log_recovery(&mut self, key: &SecretKey) {
        let head = about("secret_failed", &self.config, key);
        let failing = head.words("reason=").end();
        if let Some(over) = self.events.over(&failing) {
            let line = about("secret_recovered", &self.config, key);
            self.actions.push_back(Action::Log(recovered(line, over)));
        }
    }

    /// `dates: warn`: the value is served outside of its dates.
    pub(super) fn log_out_of_dates(&mut self, key: &SecretKey, reason: Reason, now: Timestamp) {
        let detail = "served because of dates: warn; set a new version";
        self.log_dates(key, reason, detail, now);
    }

    /// What is served because of the dates of the newest version; the first time now, repeats summed up.
    pub(super) fn log_dates(
        &mut self,
        key: &SecretKey,
        reason: Reason,
        detail: &'static str,
        now: Timestamp,
    ) {
        let head = about("secret_out_of_dates", &self.config, key);
        let head = head.word("reason", reason.as_str()).end();
        let operators = self.entries.by_key(key).is_some_and(Entry::is_pinned);
        if self.events.first(&head, operators, now) {
            let line = Line::of(&head).quoted("detail", detail);
            self.actions.push_back(Action::Log(LogLine {
                warning: true,
                text: line.end(),
            }));
        }
    }

    pub(super) fn log_secret_failure(
        &mut self,
        key: &SecretKey,
        failure: &Failure,
        stale: bool,
        wait: Span,
        now: Timestamp,
    ) {
        let head = about("secret_failed", &self.config, key);
        let head = head.word("reason", failure.reason.as_str()).end();
        let operators = self.entries.by_key(key).is_some_and(Entry::is_pinned);
        if self.events.first(&head, operators, now) {
            let line = Line::of(&head)
                .word("azure_request_id", failure.request_id())
                .word("stale", if stale { "true" } else { "false" })
                .number("next_try_in_s", wait.ceil_seconds());
            self.warn(line.quoted("detail", &failure.detail).end());
        }
    }

    pub(super) fn log_hold(
        &mut self,
        vault: usize,
        failure: &Failure,
        failed: &Failed,
        now: Timestamp,
    ) {
        let prefix = self.config.vaults.get(vault).map_or("", |v| &v.prefix);
        let head = Line::new("vault_held").word("vault", prefix);
        let head = head.word("reason", failure.reason.as_str()).end();
        if self.events.first(&head, true, now) {
            let line = Line::of(&head).word("azure_request_id", failure.request_id());
            let wait = failed.until.until(now).ceil_seconds();
            self.warn(line.number("for_s", wait).end());
        }
    }

    /// A vault refuses a fresh token: one line for all of its secrets.
    pub(super) fn log_vault_refusal(&mut self, vault: usize, failure: &Failure, failed: &Failed) {
        let prefix = self.config.vaults.get(vault).map_or("", |v| &v.prefix);
        let head = Line::new("vault_refused").word("vault", prefix);
        let head = head.word("reason", failure.reason.as_str()).end();
        if self.events.first(&head, true, failed.at) {
            let wait = failed.until.until(failed.at).ceil_seconds();
            let line = Line::of(&head)
                .word("azure_request_id", failure.request_id())
                .number("next_try_in_s", wait);
            self.warn(line.quoted("detail", &failure.detail).end());
        }
    }

    pub(super) fn log_token_failure(
        &mut self,
        identity: usize,
        failure: &Failure,
        until: Timestamp,
        now: Timestamp,
    ) {
        let Some(who) = self.identities.get(identity) else {
            return;
        };
        let head = Line::new("token_failed").words(&who.describe());
        let head = head.word("reason", failure.reason.as_str()).end();
        if self.events.first(&head, true, now) {
            let line = Line::of(&head)
                .word("azure_request_id", failure.request_id())
                .number("next_try_in_s", until.until(now).ceil_seconds());
            self.warn(line.quoted("detail", &failure.detail).end());
        }
    }
}

/// A UUID (version 4, RFC 9562), as Azure's `x-ms-client-request-id` wants it.
pub(super) fn request_id(now: &Now<'_>) -> String {
    let (high, low) = ((now.random)(), (now.random)());
    let (high, low) = (high & !0xf000 | 0x4000, low & !(3 << 62) | 2 << 62);
    let mut id = String::with_capacity(36);
    // Writing to a String does not fail.
    let _ = write!(
        id,
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    );
    id
}
