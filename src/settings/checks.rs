//! Data stores to watch, as settings: plain data.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{ConfigError, LONGEST, number};
use crate::checks::CheckSettings;
use crate::checks::store::Store;

/// Bounds of the number of stores. Each may hold a thread.
const CHECKS: RangeInclusive<usize> = 0..=64;
/// Most bytes of a store's name.
const LONGEST_NAME: usize = 64;
/// Bounds of [`CheckSettings::fall`] and [`CheckSettings::rise`].
const RUNS: RangeInclusive<u32> = 1..=100;

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

/// Checks the names and settings of all stores together.
pub(crate) fn validate<'a>(
    checks: impl ExactSizeIterator<Item = (&'a str, &'a CheckSettings)>,
) -> Result<(), ConfigError> {
    number("check", "a number of checks", checks.len(), &CHECKS)?;
    let mut names = HashSet::new();
    for (name, settings) in checks {
        let found = complain_of_name(name);
        let found = found.or_else(|| (!names.insert(name)).then(|| format!("{name:?} twice")));
        if let Some(found) = found {
            return Err(ConfigError {
                option: "check",
                expected: "a name of its own, up to 64 letters, digits, - and _".to_owned(),
                found,
            });
        }
        for (what, duration) in [
            ("an interval", settings.interval),
            ("a timeout", settings.timeout),
        ] {
            if duration.is_zero() || duration > LONGEST {
                return Err(ConfigError {
                    option: "check",
                    expected: format!("{what} of {name} above 0 and at most 24h"),
                    found: show(duration),
                });
            }
        }
        for (what, count) in [("fall", settings.fall), ("rise", settings.rise)] {
            if !RUNS.contains(&count) {
                return Err(ConfigError {
                    option: "check",
                    expected: format!("a {what} of {name} from {} to {}", RUNS.start(), RUNS.end()),
                    found: count.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// What is wrong with a name. Not the name itself: what stands in its place by mistake may hold a password.
/// What the reports call the server's own parts: a store of the same name could not be told from them.
const OWN_PARTS: [&str; 4] = ["gate", "http", "serving", "workers"];

fn complain_of_name(name: &str) -> Option<String> {
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if OWN_PARTS.contains(&name) {
        Some(format!("{name:?}, which reports have already"))
    } else if name.is_empty() {
        Some("none".to_owned())
    } else if name.len() > LONGEST_NAME {
        Some(format!("one of {} bytes", name.len()))
    } else if name.bytes().all(in_name) {
        None
    } else {
        Some("other characters in it".to_owned())
    }
}

fn show(duration: Duration) -> String {
    if duration.is_zero() {
        "0".to_owned()
    } else {
        format!("{duration:?}")
    }
}
