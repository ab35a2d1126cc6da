//! Dates as Azure writes them: in `Retry-After` (RFC 9110, section 5.6.7) and in the token answers of
//! managed identities. The crates `httpdate` and `time` do the reading; this file knows only which forms
//! Azure uses. A date without a zone is in UTC. It reads no clock.

use std::time::UNIX_EPOCH;

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

use crate::time::Timestamp;

/// `Sun, 06 Nov 1994 08:49:37 GMT`, and the two obsolete forms that a recipient has to accept
/// (RFC 9110, section 5.6.7).
#[must_use]
pub fn http_date(text: &str) -> Option<Timestamp> {
    let at = httpdate::parse_http_date(text.trim()).ok()?;
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp(u64::try_from(since.as_millis()).ok()?))
}

/// The date in `expires_on`: ISO 8601 as newer hosts write it (`2026-11-27T13:00:00.0000000+00:00`, also
/// without a zone or with a blank for the `T`), else as App Service's api-version 2017-09-01 does.
#[must_use]
pub fn token_date(text: &str) -> Option<Timestamp> {
    iso_8601(text.trim()).or_else(|| app_service_date(text.trim()))
}

fn iso_8601(text: &str) -> Option<Timestamp> {
    // A zone can only follow the time: the dashes of the date are before the 11th character.
    let time = text.get(10..)?;
    let zone = time.ends_with(['Z', 'z']) || time.contains(['+', '-']);
    let zone = if zone { "" } else { "Z" };
    let text = format!("{}T{}{zone}", text.get(..10)?, time.get(1..)?);
    let separated = time.starts_with(['T', 't', ' ']);
    let at = OffsetDateTime::parse(&text, &Rfc3339).ok()?;
    separated.then(|| timestamp(at))?
}

/// `9/14/2017 00:00:00 PM +00:00` and `09/14/2017 00:00:00 +00:00`: on Windows and on Linux
/// (<https://learn.microsoft.com/azure/app-service/overview-managed-identity>).
fn app_service_date(text: &str) -> Option<Timestamp> {
    let format = format_description!(
        "[month padding:none]/[day padding:none]/[year] [hour padding:none]:[minute]:[second]"
    );
    let rest = text.strip_suffix("+00:00").unwrap_or(text).trim_end();
    let (rest, half) = match (rest.strip_suffix(" AM"), rest.strip_suffix(" PM")) {
        (Some(rest), _) => (rest, Some(0)),
        (_, Some(rest)) => (rest, Some(12)),
        _ => (rest, None),
    };
    let at = PrimitiveDateTime::parse(rest, &format).ok()?;
    let hour = match (half, i64::from(at.hour())) {
        // 12:30 AM is half past midnight. An hour past 12 beside AM or PM was seen: it is as it says.
        (Some(half), hour) if hour <= 12 => hour % 12 + half,
        (_, hour) => hour,
    };
    let moved = Duration::hours(hour - i64::from(at.hour()));
    timestamp(at.assume_utc().checked_add(moved)?)
}

/// `None` before 1970.
fn timestamp(at: OffsetDateTime) -> Option<Timestamp> {
    let milliseconds = at.unix_timestamp_nanos() / 1_000_000;
    Some(Timestamp(u64::try_from(milliseconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_dates() {
        for (text, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("120", None),
        ] {
            let read = http_date(text).map(|t| t.0 / 1000);
            assert_eq!(read, seconds, "{text}");
        }
    }

    #[test]
    fn token_dates() {
        for (text, milliseconds) in [
            ("9/14/2017 1:30:00 PM +00:00", Some(1_505_395_800_000)),
            ("09/14/2017 13:30:00 +00:00", Some(1_505_395_800_000)),
            ("9/14/2017 12:30:00 AM +00:00", Some(1_505_349_000_000)),
            ("9/14/2017 12:30:00 PM +00:00", Some(1_505_392_200_000)),
            ("9/14/2017 00:00:00 PM +00:00", Some(1_505_390_400_000)),
            ("9/14/2017 13:30:00 PM +00:00", Some(1_505_395_800_000)),
            ("2017-09-14T13:30:00Z", Some(1_505_395_800_000)),
            ("2017-09-14T13:30:00.1234567+00:00", Some(1_505_395_800_123)),
            ("2017-09-14T15:30:00.0000000+02:00", Some(1_505_395_800_000)),
            ("2017-09-14T13:30:00.0000000Z", Some(1_505_395_800_000)),
            ("2017-09-14T13:30:00", Some(1_505_395_800_000)),
            ("2017-09-14 13:30:00.5", Some(1_505_395_800_500)),
            (" 2017-09-14 13:30:00+00:00 ", Some(1_505_395_800_000)),
            ("14/9/2017 13:30:00 +00:00", None),
            ("2017-13-14T13:30:00Z", None),
            ("1969-09-14T13:30:00Z", None),
            ("2017-09-14", None),
            ("2017-09-14x13:30:00Z", None),
            ("9/14/2017 +00:00", None),
            ("", None),
        ] {
            assert_eq!(token_date(text).map(|t| t.0), milliseconds, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[0-9A-Za-zé/:, +.-]{0,40}") {
            let _ = (http_date(&text), token_date(&text));
        }
    }
}
