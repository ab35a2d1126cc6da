//! Who used which secret: a line for each reference in a client's request, where the operator asks for it
//! (`audit`). It reads the request and writes the log, and changes neither.

use super::host::{Host, Map};
use super::reply;
use crate::config::{Audit, Config};
use crate::events::Line;
use crate::failure::Reason;
use crate::fetch::{Fetcher, Lookup};
use crate::message::Place;
use crate::time::Timestamp;

/// Longer names of clients are cut.
const LONGEST_NAME: usize = 128;

/// What became of the message.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// It goes on; each reference has its own end.
    GoesOn,
    /// It was refused for this reason, and nothing of it was used.
    Refused(Reason),
}

/// Writes the lines for a request's places. To be called before the request is changed: the header that
/// names the client must be as the client, or whoever authenticated it, wrote it.
pub(super) fn write(
    audit: &Audit,
    config: &Config,
    places: &[Place],
    outcome: Outcome,
    fetcher: &Fetcher,
    (since, now): (Timestamp, Timestamp),
    host: &impl Host,
) {
    let mut used = places
        .iter()
        .flat_map(|place| place.of_clients(config).map(move |want| (place, want)))
        .peekable();
    if used.peek().is_none() {
        return;
    }
    let client = client(audit, host);
    let id = reply::request_id(host).unwrap_or_default();
    let most = config.limits.audit_lines;
    let mut left_out = 0_u64;
    for (n, (place, want)) in used.enumerate() {
        if n >= most {
            left_out += 1;
            continue;
        }
        let end = match outcome {
            Outcome::Refused(reason) => reason.as_str(),
            Outcome::GoesOn => match fetcher.lookup(want, Some(since), now) {
                Lookup::Value { value, .. } if place.can_hold(&value) => "resolved",
                Lookup::Value { .. } => Reason::NotRepresentable.as_str(),
                Lookup::Failed { reason, .. } => reason.as_str(),
                Lookup::Miss => Reason::NotReady.as_str(),
            },
        };
        let line = fetcher.about("secret_used", &want.key);
        let line = line.word("outcome", end).word("request_id", &id);
        // As loud as a warning: Kong shows nothing softer unless it is told to.
        log::warn!("{}", line.quoted("client", &client).end());
    }
    if left_out > 0 {
        let line = Line::new("secrets_used").number("more", left_out);
        let line = line.word("request_id", &id);
        log::warn!("{}", line.quoted("client", &client).end());
    }
}

/// The header that the operator names, else the address.
fn client(audit: &Audit, host: &impl Host) -> String {
    let name = match &audit.client_header {
        Some(name) => host.header(Map::Request, name),
        None => host.property(b"source\0address"),
    };
    let name = name.unwrap_or_default();
    let name = String::from_utf8_lossy(&name);
    name.chars().take(LONGEST_NAME).collect()
}
