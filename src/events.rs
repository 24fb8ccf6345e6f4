//! `plimsoll events`: lists, shows, replays and purges dead letters.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use plimsoll::patterns::{DeadLetter, DeadLetters, EventError, EventId, EventOpenError};

use crate::options::{Action, EventsOptions, Letters};

/// Does what is asked for. Whether all of it was done; each reason why not goes to standard error.
pub(crate) fn run(options: &EventsOptions) -> bool {
    // A URL may hold a password, and the error says of which it speaks.
    let place = match options.directory.to_string_lossy() {
        url if url.contains("://") => "the stream".into(),
        directory => directory,
    };
    let letters = match DeadLetters::of(&options.directory) {
        Ok(letters) => letters,
        Err(error) => {
            let advice = match &error {
                EventOpenError::Missing(_) => ": give the DIR of --events PREFIX=DIR",
                EventOpenError::Io(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                    ": run this as the user that the server runs as"
                }
                _ => "",
            };
            complain(&format!("cannot open {place}: {error}{advice}"));
            return false;
        }
    };
    let ids = match &options.letters {
        Letters::All => letters.ids(),
        Letters::Some(ids) => Ok(ids.clone()),
    };
    let ids = match ids {
        Ok(ids) => ids,
        Err(error) => {
            complain(&told(&error));
            return false;
        }
    };
    let mut done = true;
    for id in ids {
        let result = match options.action {
            Action::List => print_one(&letters, id, list_line),
            Action::Show => print_one(&letters, id, shown),
            Action::Replay => letters.replay(id).map_err(Failure::Letter),
            Action::Purge => letters.purge(id).map_err(Failure::Letter),
        };
        match result {
            Ok(()) => {}
            // All that were there when they were listed; another has replayed or purged this one meanwhile.
            Err(Failure::Letter(EventError::Unknown)) if options.letters == Letters::All => {}
            Err(Failure::Letter(error)) => {
                complain(&format!("{id}: {}", told(&error)));
                done = false;
            }
            // Whoever has read enough, as head does, closes the pipe.
            Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(Failure::Output(error)) => {
                complain(&format!("cannot write to standard output: {error}"));
                return false;
            }
        }
    }
    done
}

enum Failure {
    Letter(EventError),
    Output(io::Error),
}

fn print_one(
    letters: &DeadLetters,
    id: EventId,
    text: impl Fn(&DeadLetter) -> Vec<u8>,
) -> Result<(), Failure> {
    let letter = letters.get(id).map_err(Failure::Letter)?;
    let mut output = io::stdout().lock();
    let printed = output
        .write_all(&text(&letter))
        .and_then(|()| output.flush());
    printed.map_err(Failure::Output)
}

fn list_line(letter: &DeadLetter) -> Vec<u8> {
    let age = SystemTime::now()
        .duration_since(letter.died)
        .unwrap_or_default();
    let line = format!(
        "{}  {:>4}  {:>3}  {}  {}\n",
        letter.id,
        rough(age),
        letter.attempts,
        printable(&letter.event.topic),
        printable(&letter.reason)
    );
    line.into_bytes()
}

/// What is known of a letter, an empty line, and its body.
fn shown(letter: &DeadLetter) -> Vec<u8> {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}: {}", printable(value));
    };
    line("id", &letter.id.to_string());
    line("accepted", &httpdate::fmt_http_date(letter.accepted));
    line("died", &httpdate::fmt_http_date(letter.died));
    line("attempts", &letter.attempts.to_string());
    line("reason", &letter.reason);
    line("topic", &letter.event.topic);
    if let Some(key) = &letter.event.key {
        line("key", key);
    }
    for attribute in String::from_utf8_lossy(&letter.event.attributes).lines() {
        line("attribute", attribute);
    }
    text.push('\n');
    let mut bytes = text.into_bytes();
    let body = &letter.event.body;
    if io::stdout().is_terminal() {
        let body = String::from_utf8_lossy(body);
        let lines = body.split('\n').map(printable).collect::<Vec<_>>();
        bytes.extend_from_slice(lines.join("\n").as_bytes());
    } else {
        bytes.extend_from_slice(body);
    }
    bytes.push(b'\n');
    bytes
}

/// A text of others, without what a terminal would take for a command.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() {
            out.extend(char.escape_default());
        } else {
            out.push(char);
        }
    }
    out
}

/// A time in its largest unit.
fn rough(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// An error, and what to do about it.
fn told(error: &EventError) -> String {
    let advice = match error {
        EventError::Unknown => "plimsoll events list shows those that there are",
        EventError::Full => "try again when some events have been delivered, or raise --events-max",
        EventError::Stopped => "the server is stopping: try again when it has ended",
        EventError::TimedOut => "look at the disk of the directory, and with list at what was done",
        EventError::Control(_) => {
            "run this as the user that the server runs as, or when the server has ended"
        }
        _ => return error.to_string(),
    };
    format!("{error} ({advice})")
}

fn complain(line: &str) {
    // Nothing is left to tell when standard error is gone; the exit code still says it.
    let _ = writeln!(io::stderr(), "plimsoll: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_others_holds_no_command_for_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n\u{9b}ü"), "a\\u{1b}[2Jb\\n\\u{9b}ü");
    }

    #[test]
    fn an_age_is_told_in_its_largest_unit() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (7199, "1h"),
            (200_000, "2d"),
        ] {
            assert_eq!(rough(Duration::from_secs(seconds)), text);
        }
    }
}
