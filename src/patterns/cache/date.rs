//! Dates in fields (RFC 9110 section 5.6.7).

use std::time::{Duration, SystemTime};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
/// The end of the year 9999, in seconds since the Unix epoch.
const LAST_SECOND: u64 = 253_402_300_799;

/// A date in one of the three formats, with names in any case. A weekday that is not the date's is no reason to
/// distrust the rest.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let parts: Vec<&str> = text.split(' ').collect();
    let (weekday, day, month, year, time, is_long) = match parts[..] {
        [weekday, day, month, year, time, zone] if is_gmt(zone) && year.len() == 4 => (
            weekday.strip_suffix(',')?,
            number(day, 2)?,
            month,
            number(year, 4)?,
            time,
            false,
        ),
        [weekday, date, time, zone] if is_gmt(zone) => {
            let (day, month_and_year) = date.split_once('-')?;
            let (month, year) = month_and_year.split_once('-')?;
            // Two digits: from 1970 to 2069.
            let year = match number(year, 2)? {
                year @ 70.. => 1900 + year,
                year => 2000 + year,
            };
            (
                weekday.strip_suffix(',')?,
                number(day, 2)?,
                month,
                year,
                time,
                true,
            )
        }
        [weekday, month, "", day, time, year] => (
            weekday,
            number(day, 1)?,
            month,
            number(year, 4)?,
            time,
            false,
        ),
        [weekday, month, day, time, year] => (
            weekday,
            number(day, 2)?,
            month,
            number(year, 4)?,
            time,
            false,
        ),
        _ => return None,
    };
    WEEKDAYS.iter().find(|known| {
        let known = if is_long { known } else { &known[..3] };
        known.eq_ignore_ascii_case(weekday)
    })?;
    let month = MONTHS
        .iter()
        .position(|known| known.eq_ignore_ascii_case(month))?;
    let [hour, minute, second] = time.split(':').collect::<Vec<_>>()[..] else {
        return None;
    };
    let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
    // A second of 60 is a leap second.
    let is_time = hour < 24 && minute < 60 && second <= 60;
    if !is_time || !(1..=days_in(month, year)).contains(&day) {
        return None;
    }
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

/// A date as it is sent; none outside 1970 to 9999, for which there are no words.
pub(super) fn format(time: SystemTime) -> Option<String> {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since_epoch.as_secs() <= LAST_SECOND).then(|| httpdate::fmt_http_date(time))
}

fn is_gmt(zone: &str) -> bool {
    zone.eq_ignore_ascii_case("GMT")
}

fn number(text: &str, digits: usize) -> Option<i64> {
    let fits = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok())?
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days in a month, which is counted from 0.
fn days_in(month: usize, year: i64) -> i64 {
    match month {
        1 => 28 + i64::from(is_leap(year)),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar.
fn days_since_epoch(year: i64, month: usize, day: i64) -> i64 {
    // Leap days before a year, counted from the year 0.
    let leap_days = |year: i64| (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    let years = (year - 1970) * 365 + leap_days(year) - leap_days(1970);
    let months: i64 = (0..month).map(|month| days_in(month, year)).sum();
    years + months + day - 1
}
