//! Dead letters, as `plimsoll events` shows them.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use plimsoll::patterns::{DeadLetters, Event, EventError, EventId, EventQueue, Outcome};

use super::{deliver_all, event, open};
use crate::kit::process::TempDir;
use crate::kit::{Plimsoll, wait_until};

/// Runs `plimsoll events`; gives its exit code, its output and its errors.
fn run(action: &str, directory: &Path, words: &[&str]) -> (i32, String, Vec<String>) {
    let directory = directory.to_str().expect("it is text");
    let arguments = [&["events", action, directory], words].concat();
    let (status, output, errors) = Plimsoll::start(&arguments, &[]).exit();
    (status.code().expect("no signal ends it"), output, errors)
}

/// A queue that gives up all its events, which are two.
fn with_two_letters(directory: &Path) -> (EventQueue, [EventId; 2]) {
    let queue = open(directory);
    let publish = |text: &str, key: Option<&str>| {
        let event = Event {
            key: key.map(str::to_owned),
            attributes: b"content-type: text/plain\n".to_vec(),
            ..event(text)
        };
        queue.publish(&event).expect("it is taken")
    };
    queue
        .deliver(|_| Outcome::Rejected {
            reason: "422\x1b[2J".to_owned(),
        })
        .expect("threads start");
    let first = publish("one\n", None);
    wait_until("it is dead", || queue.stats().dead_letters == 1);
    let second = publish("two\n", Some("k"));
    wait_until("it is dead", || queue.stats().dead_letters == 2);
    (queue, [first, second])
}

/// Looks at the letters, replays the first and purges the second.
fn look_replay_and_purge(directory: &Path, [first, second]: [EventId; 2]) {
    let (code, output, errors) = run("list", directory, &[]);
    assert_eq!((code, errors), (0, vec![]), "{output}");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), 2, "{output}");
    assert!(lines[0].starts_with(&first.to_string()), "{output}");
    let rest = "1  /events  422\\u{1b}[2J";
    assert!(lines[1].ends_with(rest), "{output}");

    let (code, output, errors) = run("show", directory, &[&second.to_string()]);
    assert_eq!((code, errors), (0, vec![]), "{output}");
    let expected = "attempts: 1\nreason: 422\\u{1b}[2J\ntopic: /events\nkey: k\n\
                    attribute: content-type: text/plain\n\ntwo\n\n";
    assert!(output.ends_with(expected), "{output}");

    assert_eq!(run("replay", directory, &[&first.to_string()]).0, 0);
    assert_eq!(run("purge", directory, &["--all"]).0, 0);
    let (code, output, errors) = run("list", directory, &[]);
    assert_eq!((code, output.as_str(), errors), (0, "", vec![]));
    let (code, _, errors) = run("purge", directory, &[&second.to_string()]);
    assert_eq!(code, 1);
    let expected = format!(
        "plimsoll: {second}: no dead letter has this id (plimsoll events list shows those that there are)"
    );
    assert_eq!(errors, [expected]);
}

#[test]
fn letters_of_a_queue_that_nobody_has_open_are_shown_replayed_and_purged() {
    let directory = TempDir::new("letters");
    let (queue, ids) = with_two_letters(directory.path());
    drop(queue);
    look_replay_and_purge(directory.path(), ids);
    let seen = deliver_all(&open(directory.path()));
    assert_eq!((seen.len(), seen[0].id, seen[0].attempt), (1, ids[0], 1));
}

#[test]
fn letters_of_a_queue_that_a_process_has_open_are_shown_replayed_and_purged() {
    let directory = TempDir::new("letters");
    let (queue, ids) = with_two_letters(directory.path());
    drop(queue);
    // This one does not deliver, so that what is replayed stays.
    let queue = open(directory.path());
    look_replay_and_purge(directory.path(), ids);
    assert_eq!((queue.stats().backlog, queue.stats().dead_letters), (1, 0));
    let seen = deliver_all(&queue);
    assert_eq!((seen.len(), seen[0].id, seen[0].attempt), (1, ids[0], 1));
    drop(queue);
    let left = fs::exists(directory.path().join("control")).expect("it can be looked at");
    assert!(!left, "the socket is left");
}

#[test]
fn a_process_that_was_killed_leaves_a_socket_that_the_next_one_replaces() {
    let directory = TempDir::new("letters");
    let (queue, ids) = with_two_letters(directory.path());
    drop(queue);
    fs::write(directory.path().join("control"), "stale").expect("it is made");
    let _queue = open(directory.path());
    let letters = DeadLetters::of(directory.path()).expect("it is there");
    assert_eq!(letters.ids().expect("it answers"), ids);
}

#[test]
fn what_is_no_request_is_not_answered_and_the_next_one_is() {
    let directory = TempDir::new("letters");
    let (_queue, ids) = with_two_letters(directory.path());
    for nonsense in ["\n", "purge\n", "ids", &"x".repeat(10_000)] {
        let socket = UnixStream::connect(directory.path().join("control"));
        let mut socket = socket.expect("it accepts");
        // It may have closed already.
        let _ = socket.write_all(nonsense.as_bytes());
    }
    let letters = DeadLetters::of(directory.path()).expect("it is there");
    assert_eq!(letters.ids().expect("it answers"), ids);
    let unknown = letters.get("00".repeat(16).parse().expect("an id"));
    assert!(matches!(unknown, Err(EventError::Unknown)), "{unknown:?}");
}

#[test]
fn a_directory_that_is_no_queue_is_named_and_not_made() {
    let directory = TempDir::new("letters");
    let nowhere = directory.path().join("typo");
    let (code, output, errors) = run("list", &nowhere, &[]);
    assert_eq!((code, output.as_str()), (1, ""));
    let path = nowhere.display();
    let expected = format!(
        "plimsoll: cannot open {path}: {path} is no directory of events: give the DIR of --events PREFIX=DIR"
    );
    assert_eq!(errors, [expected]);
    assert!(!nowhere.exists());
}
