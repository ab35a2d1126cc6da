//! Dates as Azure writes them: in `Retry-After` (RFC 9110, section 5.6.7) and in the token answers of the
//! old App Service. Always in UTC; it knows no time zone and no clock.

use crate::time::Timestamp;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the form that all servers have to send.
#[must_use]
pub fn http_date(text: &str) -> Option<Timestamp> {
    let (_, rest) = text.trim().split_once(',')?;
    let mut parts = rest.strip_prefix(' ')?.split(' ');
    let day = parts.next()?.parse().ok()?;
    let month = parts.next()?;
    let month = 1 + MONTHS.iter().position(|name| *name == month)?;
    let year = parts.next()?.parse().ok()?;
    let time = clock(parts.next()?)?;
    (parts.next()? == "GMT" && parts.next().is_none())
        .then(|| at(year, u64::try_from(month).ok()?, day, time))?
}

/// `9/14/2017 00:00:00 PM +00:00` and `09/14/2017 00:00:00 +00:00`: the `expires_on` of App Service's
/// api-version 2017-09-01, on Windows and on Linux
/// (<https://learn.microsoft.com/azure/app-service/overview-managed-identity>).
#[must_use]
pub fn app_service_date(text: &str) -> Option<Timestamp> {
    let rest = text.trim().strip_suffix("+00:00")?.trim_end();
    let (rest, half) = match (rest.strip_suffix(" AM"), rest.strip_suffix(" PM")) {
        (Some(rest), _) => (rest, Some(0)),
        (_, Some(rest)) => (rest, Some(12)),
        _ => (rest, None),
    };
    let (date, time) = rest.split_once(' ')?;
    let mut date = date.split('/');
    let (month, day, year) = (date.next()?, date.next()?, date.next()?);
    if date.next().is_some() {
        return None;
    }
    let seconds = clock(time)?;
    let seconds = match half {
        // 12:30 AM is half past midnight. An hour past 12 beside AM or PM was seen: it is as it says.
        Some(half) if seconds < 13 * 3600 => seconds % (12 * 3600) + half * 3600,
        _ => seconds,
    };
    at(
        year.parse().ok()?,
        month.parse().ok()?,
        day.parse().ok()?,
        seconds,
    )
}

/// `08:49:37` in seconds.
fn clock(text: &str) -> Option<u64> {
    let mut parts = text.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let right = hour < 24 && minute < 60 && second <= 60 && parts.next().is_none();
    right.then_some(hour * 3600 + minute * 60 + second)
}

/// A day of the Gregorian calendar from 1970 to 9999, and the seconds in it.
fn at(year: u64, month: u64, day: u64, seconds: u64) -> Option<Timestamp> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March end with the leap day; 153 days are five months from there on.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leap_days + (153 * month + 2) / 5 + day - 1;
    // 719468 days from 1 March of the year 0 to 1 January 1970.
    let days = days.checked_sub(719_468)?;
    Some(Timestamp((days * 86_400 + seconds) * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_both_forms() {
        for (text, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Tue, 29 Feb 2028 23:59:60 GMT", Some(1_835_481_600)),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("120", None),
        ] {
            let read = http_date(text).map(|t| t.0 / 1000);
            assert_eq!(read, seconds, "{text}");
        }
        for (text, seconds) in [
            ("9/14/2017 1:30:00 PM +00:00", Some(1_505_395_800)),
            ("09/14/2017 13:30:00 +00:00", Some(1_505_395_800)),
            ("9/14/2017 12:30:00 AM +00:00", Some(1_505_349_000)),
            ("9/14/2017 00:00:00 PM +00:00", Some(1_505_390_400)),
            ("9/14/2017 13:30:00 PM +00:00", Some(1_505_395_800)),
            ("14/9/2017 13:30:00 +00:00", None),
            ("2017-09-14T13:30:00Z", None),
            ("9/14/2017 +00:00", None),
        ] {
            let read = app_service_date(text).map(|t| t.0 / 1000);
            assert_eq!(read, seconds, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[0-9A-Za-z/:, +]{0,40}") {
            let _ = (http_date(&text), app_service_date(&text));
        }
    }
}
