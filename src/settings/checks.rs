//! Data stores to watch, as settings: `NAME=URL[,critical][,interval=10s][,timeout=2s][,fall=3][,rise=2]`.
//!
//! What an error shows of a value is no part of the URL, and nothing that might be a piece of a password in which a
//! comma was not percent-encoded.

use std::collections::HashSet;
use std::fmt::Write;
use std::ops::RangeInclusive;

use super::ConfigError;
use super::kinds::{self, Complaint, Kind, Span};
use crate::checks::CheckSettings;
use crate::checks::store::Store;
use crate::units::{parse_count, parse_duration, show_duration};

/// Bounds of the number of stores. Each may hold a thread.
const CHECKS: RangeInclusive<usize> = 0..=64;
/// Most bytes of a store's name.
const LONGEST_NAME: usize = 64;
/// Bounds of [`CheckSettings::fall`] and [`CheckSettings::rise`].
const RUNS: RangeInclusive<u32> = 1..=100;
/// What the reports call the server's own parts: a store of the same name could not be told from them.
const OWN_PARTS: [&str; 6] = ["gate", "http", "intake", "serving", "upstream", "workers"];

const EXPECTED: &str = "NAME=URL, such as cache=redis://127.0.0.1:6379,critical";
const NAME: &str = "a name of its own, up to 64 letters, digits, - and _";
const WORDS: &str = "critical, interval=DUR, timeout=DUR, fall=N or rise=N after the URL";

/// A data store to watch by its own protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedStore {
    /// What reports call it: up to 64 letters, digits, `-` and `_`, no two alike.
    pub name: String,
    /// Where it is, and what it speaks.
    pub store: Store,
    /// How it is watched.
    pub settings: CheckSettings,
}

/// The data stores to watch.
pub(super) struct Checks;

impl Kind for Checks {
    type Value = Vec<WatchedStore>;

    fn placeholder(&self) -> &'static str {
        "NAME=URL"
    }

    fn expected(&self) -> String {
        EXPECTED.to_owned()
    }

    /// A new one begins where a part looks like `NAME=scheme:`, which no option of a check does.
    fn split(&self, variable: &str) -> Option<Vec<String>> {
        Some(kinds::split(variable, begins_check))
    }

    fn parse(&self, text: &str) -> Result<Self::Value, Complaint> {
        Ok(vec![parse(text)?])
    }

    fn put(&self, value: &mut Self::Value, new: Self::Value) {
        value.extend(new);
    }

    fn clear(&self, value: &mut Self::Value) {
        value.clear();
    }

    /// With `***` for a password.
    fn show(&self, value: &Self::Value) -> String {
        let shown: Vec<_> = value.iter().map(show).collect();
        shown.join(",")
    }

    fn check(&self, value: &Self::Value) -> Result<(), Complaint> {
        let checks = value.iter();
        judge(checks.map(|store| (store.name.as_str(), &store.settings)))
    }
}

/// Checks the names and settings of all stores together.
pub(crate) fn validate<'a>(
    checks: impl ExactSizeIterator<Item = (&'a str, &'a CheckSettings)>,
) -> Result<(), ConfigError> {
    judge(checks).map_err(|complaint| complaint.of("check", String::new))
}

fn judge<'a>(
    checks: impl ExactSizeIterator<Item = (&'a str, &'a CheckSettings)>,
) -> Result<(), Complaint> {
    kinds::check_count(&CHECKS, "checks", checks.len())?;
    let mut names = HashSet::new();
    for (name, settings) in checks {
        let found = complain_of_name(name);
        let found = found.or_else(|| (!names.insert(name)).then(|| format!("{name:?} twice")));
        if let Some(found) = found {
            return Err(Complaint::found(NAME, found));
        }
        judge_settings(name, settings)?;
    }
    Ok(())
}

/// Checks how something of that name is watched.
pub(crate) fn judge_settings(name: &str, settings: &CheckSettings) -> Result<(), Complaint> {
    for (what, duration) in [
        ("an interval", settings.interval),
        ("a timeout", settings.timeout),
    ] {
        if Span::AboveZero.check(&duration).is_err() {
            let expected = duration_of(what, name);
            return Err(Complaint::found(expected, show_duration(duration)));
        }
    }
    for (what, count) in [("a fall", settings.fall), ("a rise", settings.rise)] {
        if !RUNS.contains(&count) {
            return Err(Complaint::found(run_of(what, name), count.to_string()));
        }
    }
    Ok(())
}

/// What is expected of an interval or a timeout.
fn duration_of(what: &str, name: &str) -> String {
    format!("{what} of {name:?} above 0 and at most 24h, such as 500ms or 10s")
}

/// What is expected of the length of a run.
fn run_of(what: &str, name: &str) -> String {
    format!("{what} of {name:?} from {} to {}", RUNS.start(), RUNS.end())
}

/// What is wrong with a name. Not the name itself: what stands in its place by mistake may hold a password.
fn complain_of_name(name: &str) -> Option<String> {
    if OWN_PARTS.contains(&name) {
        Some(format!("{name:?}, which reports have already"))
    } else if name.is_empty() {
        Some("none".to_owned())
    } else if name.len() > LONGEST_NAME {
        Some(format!("one of {} bytes", name.len()))
    } else if is_name(name) {
        None
    } else {
        Some("other characters in it".to_owned())
    }
}

pub(super) fn is_name(text: &str) -> bool {
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !text.is_empty() && text.bytes().all(in_name)
}

fn begins_check(part: &str) -> bool {
    part.split_once('=').is_some_and(|(name, rest)| {
        let scheme = rest.split_once(':').map_or("", |(scheme, _)| scheme);
        is_name(name) && !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase())
    })
}

/// Reads one check.
fn parse(text: &str) -> Result<WatchedStore, Complaint> {
    let (name, rest) = text
        .split_once('=')
        .ok_or_else(|| Complaint::found(EXPECTED, "no ="))?;
    if let Some(found) = complain_of_name(name) {
        return Err(Complaint::found(NAME, found));
    }
    let mut words = rest.split(',');
    let url = words.next().unwrap_or_default();
    let store = url.parse::<Store>().map_err(|error| Complaint {
        about: Some(format!("{name:?}: {}", error.part)),
        ..Complaint::found(error.expected, error.found)
    })?;
    let mut settings = CheckSettings::default();
    // What follows a comma in a password is the rest of it, and then an @.
    let may_be_shown = !words.clone().any(|word| word.contains('@'));
    for (index, word) in words.enumerate() {
        read(&mut settings, name, word).map_err(|expected| {
            let found = if may_be_shown {
                format!("{word:?}")
            } else {
                format!("something else in place {}", index + 1)
            };
            Complaint {
                about: Some(format!("{name:?}")),
                ..Complaint::found(expected, found)
            }
        })?;
    }
    Ok(WatchedStore {
        name: name.to_owned(),
        store,
        settings,
    })
}

/// Reads a word that stands behind the URL; an error is what was expected.
pub(crate) fn read(settings: &mut CheckSettings, name: &str, word: &str) -> Result<(), String> {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    let duration = |what| parse_duration(value).ok_or_else(|| duration_of(what, name));
    let run = |what| parse_count(value).ok_or_else(|| run_of(what, name));
    match key {
        "critical" if key == word => settings.critical = true,
        "interval" => settings.interval = duration("an interval")?,
        "timeout" => settings.timeout = duration("a timeout")?,
        "fall" => settings.fall = run("a fall")?,
        "rise" => settings.rise = run("a rise")?,
        _ => return Err(WORDS.to_owned()),
    }
    Ok(())
}

/// A check as it is written, with `***` for a password.
fn show(check: &WatchedStore) -> String {
    let WatchedStore {
        name,
        store,
        settings,
    } = check;
    let mut text = format!("{name}={store}");
    push_settings(&mut text, settings, &CheckSettings::default());
    text
}

/// Appends what is not as usual, as it is written.
pub(crate) fn push_settings(text: &mut String, settings: &CheckSettings, usual: &CheckSettings) {
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
            let _ = write!(text, ",{key}={}", show_duration(duration));
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
}
