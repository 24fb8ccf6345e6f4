//! `--check NAME=URL[,critical][,interval=10s][,timeout=2s][,fall=3][,rise=2]`.
//!
//! What an error shows of a value is no part of the URL, and nothing that might be a piece of a password in which a
//! comma was not percent-encoded.

use std::fmt::Write;

use plimsoll::{CheckSettings, Store, WatchedStore};

use super::{parse_count, parse_duration};

pub(super) const EXPECTED: &str = "NAME=URL, such as cache=redis://127.0.0.1:6379,critical";
const WORDS: &str = "critical, interval=DUR, timeout=DUR, fall=N or rise=N after the URL";

/// Reads one check.
///
/// # Errors
/// What was expected, and what was found.
pub(super) fn parse(text: &str) -> Result<WatchedStore, String> {
    let (name, rest) = text
        .split_once('=')
        .ok_or_else(|| format!("expected {EXPECTED}, found no ="))?;
    let mut words = rest.split(',');
    let url = words.next().unwrap_or_default();
    let store = url.parse::<Store>().map_err(|error| error.to_string())?;
    let mut settings = CheckSettings::default();
    // What follows a comma in a password is the rest of it, and then an @.
    let may_be_shown = !words.clone().any(|word| word.contains('@'));
    for (index, word) in words.enumerate() {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let understood = match key {
            "critical" if key == word => set(&mut settings.critical, Some(true)),
            "interval" => set(&mut settings.interval, parse_duration(value)),
            "timeout" => set(&mut settings.timeout, parse_duration(value)),
            "fall" => set(&mut settings.fall, parse_runs(value)),
            "rise" => set(&mut settings.rise, parse_runs(value)),
            _ => None,
        };
        understood.ok_or_else(|| {
            if may_be_shown {
                format!("expected {WORDS}, found {word:?}")
            } else {
                let place = index + 1;
                format!("expected {WORDS}, found something else in place {place}")
            }
        })?;
    }
    Ok(WatchedStore {
        name: name.to_owned(),
        store,
        settings,
    })
}

fn set<T>(place: &mut T, value: Option<T>) -> Option<()> {
    *place = value?;
    Some(())
}

fn parse_runs(text: &str) -> Option<u32> {
    Some(u32::try_from(parse_count(text)?).unwrap_or(u32::MAX))
}

/// The checks of a comma-separated list: a new one begins where a part looks like `NAME=scheme:`, which no option of a
/// check does.
pub(super) fn split_list(text: &str) -> Vec<String> {
    let mut checks: Vec<String> = Vec::new();
    for part in text.split(',').map(str::trim) {
        match checks.last_mut() {
            Some(check) if !begins_check(part) => {
                check.push(',');
                check.push_str(part);
            }
            _ => checks.push(part.to_owned()),
        }
    }
    checks
}

fn begins_check(part: &str) -> bool {
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    part.split_once('=').is_some_and(|(name, rest)| {
        let scheme = rest.split_once(':').map_or("", |(scheme, _)| scheme);
        !name.is_empty()
            && name.bytes().all(in_name)
            && !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_lowercase())
    })
}

/// A check as it would be written, with `***` for a password.
pub(super) fn show(check: &WatchedStore) -> String {
    let WatchedStore {
        name,
        store,
        settings,
    } = check;
    let usual = CheckSettings::default();
    let mut text = format!("{name}={store}");
    if settings.critical {
        text.push_str(",critical");
    }
    let durations = [
        ("interval", settings.interval, usual.interval),
        ("timeout", settings.timeout, usual.timeout),
    ];
    for (key, duration, usual) in durations {
        if duration != usual {
            // Writing to a string cannot fail.
            let _ = write!(text, ",{key}={duration:?}");
        }
    }
    let counts = [
        ("fall", settings.fall, usual.fall),
        ("rise", settings.rise, usual.rise),
    ];
    for (key, count, usual) in counts {
        if count != usual {
            let _ = write!(text, ",{key}={count}");
        }
    }
    text
}
