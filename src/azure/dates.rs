//! Dates as Azure writes them: in `Retry-After` (RFC 9110, section 5.6.7) and in the token answers of
//! managed identities. The crate `httpdate` knows the calendar; this file only takes the other forms of Azure
//! apart and puts them into HTTP's form. (The crate `time` would be 40 KB of the filter.) A date without a
//! zone is in UTC. It reads no clock.

use std::time::UNIX_EPOCH;

use crate::time::{Span, Timestamp};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

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

/// `2017-09-14T15:30:00.0000000+02:00`.
fn iso_8601(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let time = rest.strip_prefix(['T', 't', ' '])?;
    let mut date = date.split('-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let (time, zone) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => time.split_at_checked(at)?,
        None => (time, ""),
    };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let at = in_utc(year, month, day, clock)?;
    let offset = offset(zone)?;
    let local = at.0.checked_add(milliseconds(fraction)?)?;
    let utc = match offset {
        Offset::East(by) => local.checked_sub(by.0)?,
        Offset::West(by) => local.checked_add(by.0)?,
    };
    Some(Timestamp(utc))
}

/// How far a zone's time is from UTC.
enum Offset {
    /// Ahead of it.
    East(Span),
    /// Behind it.
    West(Span),
}

/// `Z`, `+02:00`, or nothing for UTC.
fn offset(zone: &str) -> Option<Offset> {
    let (make, rest): (fn(Span) -> Offset, _) = match zone.split_at_checked(1) {
        None | Some(("Z" | "z", "")) => return Some(Offset::East(Span(0))),
        Some(("+", rest)) => (Offset::East, rest),
        Some(("-", rest)) => (Offset::West, rest),
        Some(_) => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes) = (number(hours, 23)?, number(minutes, 59)?);
    Some(make(Span::seconds(hours * 3600 + minutes * 60)))
}

/// The first three digits of a second's fraction; any number of digits may follow.
fn milliseconds(fraction: &str) -> Option<u64> {
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(*b"000").take(3);
    Some(digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// `9/14/2017 00:00:00 PM +00:00` and `09/14/2017 00:00:00 +00:00`: on Windows and on Linux
/// (<https://learn.microsoft.com/azure/app-service/overview-managed-identity>).
fn app_service_date(text: &str) -> Option<Timestamp> {
    let rest = text.strip_suffix("+00:00").unwrap_or(text).trim_end();
    let (rest, half) = match (rest.strip_suffix(" AM"), rest.strip_suffix(" PM")) {
        (Some(rest), _) => (rest, Some(0)),
        (_, Some(rest)) => (rest, Some(12)),
        _ => (rest, None),
    };
    let (date, clock) = rest.split_once(' ')?;
    let (hour, minutes) = clock.split_once(':')?;
    let hour = match (half, number(hour, 23)?) {
        // 12:30 AM is half past midnight. An hour past 12 beside AM or PM was seen: it is as it says.
        (Some(half), hour) if hour <= 12 => hour % 12 + half,
        (_, hour) => hour,
    };
    let mut date = date.split('/');
    let (month, day, year) = (date.next()?, date.next()?, date.next()?);
    in_utc(year, month, day, &format!("{hour:02}:{minutes}"))
}

/// A date and a time of day (`13:30:00`) in UTC. HTTP's form wants the day of the week, and the right one.
fn in_utc(year: &str, month: &str, day: &str, clock: &str) -> Option<Timestamp> {
    let year = number(year, 9999)?;
    let day = number(day, 31)?;
    let month = usize::try_from(number(month, 12)?).ok()?;
    let month = MONTHS.get(month.checked_sub(1)?)?;
    let on = |weekday: &&str| {
        http_date(&format!(
            "{weekday}, {day:02} {month} {year:04} {clock} GMT"
        ))
    };
    WEEKDAYS.iter().find_map(on)
}

/// A number of digits only, up to `most`.
fn number(text: &str, most: u64) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && *n <= most)
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
