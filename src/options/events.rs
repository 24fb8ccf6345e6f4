//! The arguments of `plimsoll events`.

use std::path::PathBuf;

use lexopt::{Arg, Parser};
use plimsoll::patterns::EventId;

use super::{Command, OptionError};

/// What is to be done with the dead letters of a directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EventsOptions {
    /// What.
    pub action: Action,
    /// The queue's directory.
    pub directory: PathBuf,
    /// Which of them.
    pub letters: Letters,
}

/// What is done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Print a line for each.
    List,
    /// Print each as it is.
    Show,
    /// Queue each again.
    Replay,
    /// Forget each for good.
    Purge,
}

/// A choice of dead letters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Letters {
    /// All that are there.
    All,
    /// These.
    Some(Vec<EventId>),
}

/// Reads what follows `events`.
///
/// # Errors
/// The first bad argument, or what is missing.
pub(super) fn parse(mut parser: Parser) -> Result<Command, OptionError> {
    let (mut action, mut directory, mut ids, mut all) = (None, None, Vec::new(), false);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(HELP.to_owned())),
            Arg::Long("all") => all = true,
            Arg::Value(word) if action.is_none() => {
                action = Some(match word.to_str() {
                    Some("list") => Action::List,
                    Some("show") => Action::Show,
                    Some("replay") => Action::Replay,
                    Some("purge") => Action::Purge,
                    _ => return Err(bad("list, show, replay or purge", &word.to_string_lossy())),
                });
            }
            Arg::Value(word) if directory.is_none() => directory = Some(PathBuf::from(word)),
            Arg::Value(word) => {
                let word = word.to_string_lossy();
                let id = word.parse();
                ids.push(
                    id.map_err(|error| OptionError(format!("events: {error}, found {word:?}")))?,
                );
            }
            Arg::Long(flag) => return Err(bad("--all or --help", &format!("--{flag}"))),
            Arg::Short(letter) => return Err(bad("--all or --help", &format!("-{letter}"))),
        }
    }
    let action = action.ok_or_else(|| missing("list, show, replay or purge"))?;
    let directory = directory.ok_or_else(|| missing("the directory of --events PREFIX=DIR"))?;
    let letters = match (all, ids.is_empty()) {
        (true, false) => {
            return Err(OptionError(
                "events: expected --all or ids, found both".into(),
            ));
        }
        (false, false) => Letters::Some(ids),
        (true, true) => Letters::All,
        (false, true) if action == Action::List => Letters::All,
        (false, true) => return Err(missing("ids, as list shows them, or --all")),
    };
    Ok(Command::Events(EventsOptions {
        action,
        directory,
        letters,
    }))
}

fn bad(expected: &str, found: &str) -> OptionError {
    OptionError(format!("events: expected {expected}, found {found:?}"))
}

fn missing(expected: &str) -> OptionError {
    OptionError(format!("events: expected {expected}, found nothing"))
}

const HELP: &str = "\
Looks at the dead letters of --events PREFIX=DIR: the events that were given up. It asks the server
that has DIR open, by DIR/control; when none has, it opens DIR itself. Built with the feature redis,
it takes redis://HOST/STREAM in place of DIR.

Usage: plimsoll events list DIR [ID...]
       plimsoll events show DIR ID...     (or --all)
       plimsoll events replay DIR ID...   (or --all)
       plimsoll events purge DIR ID...    (or --all)

  list     a line for each: id, how long ago it died, attempts, topic, and what went wrong
  show     each as it is: what is known of it, and its body
  replay   queues each again, behind all that wait, with its id and without its attempts
  purge    forgets each for good

Options:
  --all                  all that are there
  -h, --help             print this and exit

Exit codes: 0 when all was done; 1 when something was not, with a line for each reason on standard
error; 2 for a bad argument.
";

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn parse(words: &str) -> Result<Command, OptionError> {
        let words = words.split(' ').map(OsString::from);
        super::parse(Parser::from_args(words))
    }

    #[test]
    fn an_action_a_directory_and_ids_are_read() {
        let id = "00112233445566778899aabbccddeeff";
        let parsed = parse(&format!("replay /var/events {id}"));
        let expected = EventsOptions {
            action: Action::Replay,
            directory: "/var/events".into(),
            letters: Letters::Some(vec![id.parse().unwrap()]),
        };
        assert_eq!(parsed, Ok(Command::Events(expected)));
        let all = |action, words| {
            let expected = EventsOptions {
                action,
                directory: "dir".into(),
                letters: Letters::All,
            };
            assert_eq!(parse(words), Ok(Command::Events(expected)), "{words}");
        };
        all(Action::List, "list dir");
        all(Action::Purge, "purge --all dir");
        all(Action::Show, "show dir --all");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let id = "00112233445566778899aabbccddeeff";
        for (words, expected) in [
            (
                "burn dir",
                "events: expected list, show, replay or purge, found \"burn\"",
            ),
            (
                "list",
                "events: expected the directory of --events PREFIX=DIR, found nothing",
            ),
            (
                "purge dir",
                "events: expected ids, as list shows them, or --all, found nothing",
            ),
            (
                "show dir 7",
                "events: expected 32 hexadecimal digits, found \"7\"",
            ),
            (
                "show dir --each",
                "events: expected --all or --help, found \"--each\"",
            ),
            (
                &format!("purge dir --all {id}"),
                "events: expected --all or ids, found both",
            ),
        ] {
            assert_eq!(
                parse(words),
                Err(OptionError(expected.to_owned())),
                "{words}"
            );
        }
    }
}
