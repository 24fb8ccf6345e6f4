//! A process that is killed at any moment.

use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{self, Child, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use plimsoll::patterns::{Delivery, EventQueue, EventSettings, Outcome};

use super::{deliver_all, event};
use crate::kit::process::TempDir;

/// Threads that publish.
const PRODUCERS: usize = 32;

/// Tells the process that is to be killed its directory, and the other that its queue is small.
const VICTIM: &str = "PLIMSOLL_TEST_VICTIM";
const SMALL: &str = "PLIMSOLL_TEST_SMALL";

/// Bytes of the name that an event's body begins with.
const NAME: usize = 16;

fn name(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.event.body[..NAME]).into_owned()
}

/// A small queue has few and small segments: they are copied, removed and used again all the time.
fn open_sized(path: &Path, small: bool) -> EventQueue {
    let mut settings = EventSettings::default();
    if small {
        settings.max_bytes = 1 << 20;
        settings.max_event = 16 << 10;
        settings.delays = vec![Duration::from_millis(20); 1000];
    }
    EventQueue::open(path.join("queue"), settings).expect("it opens")
}

/// Publishes and delivers until it is killed, and says on its output what was accepted.
fn victim(path: &Path) {
    let small = std::env::var_os(SMALL).is_some();
    let queue = open_sized(path, small);
    let delivered = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path.join("delivered"))
        .expect("it opens");
    queue
        .deliver(move |delivery| {
            // Some wait, so that no segment is over by itself.
            if small && delivery.event.body.len() % 50 == 0 && delivery.attempt < 20 {
                return Outcome::Failed {
                    reason: "later".to_owned(),
                    retry_after: None,
                };
            }
            // One write, so that a kill leaves all of it or nothing.
            let line = format!("{}\n", name(delivery));
            match (&delivered).write_all(line.as_bytes()) {
                Ok(()) => Outcome::Delivered,
                Err(_) => Outcome::Unreachable,
            }
        })
        .expect("threads start");
    let start = process::id();
    let output = Mutex::new(std::io::stdout());
    thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (queue, output) = (&queue, &output);
            scope.spawn(move || {
                for number in 0.. {
                    let name = format!("{start:07}{producer:02}{number:07}");
                    let filler = "x".repeat(number % 2000);
                    if queue.publish(&event(&format!("{name}{filler}"))).is_ok() {
                        let mut output = output.lock().expect("no thread panics");
                        if writeln!(output, "\nACCEPTED {name}").is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
}

fn start_victim(path: &Path, small: bool) -> Child {
    Command::new(std::env::current_exe().expect("the tests are a file"))
        .args([
            "--exact",
            "events::kill::no_accepted_event_is_lost_by_kill_9",
        ])
        .arg("--nocapture")
        .env(VICTIM, path)
        .envs(small.then_some((SMALL, "1")))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the tests run")
}

/// Lets the process accept this many events and some more, and kills it; what it had accepted.
fn round(path: &Path, small: bool, least: usize, pause: Duration) -> Vec<String> {
    let mut child = start_victim(path, small);
    let lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
    let (reached, enough) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut names = Vec::new();
        for line in lines.map_while(Result::ok) {
            // A kill may cut the last line.
            let name = line.strip_prefix("ACCEPTED ");
            if let Some(name) = name.filter(|name| name.len() == NAME) {
                names.push(name.to_owned());
                if names.len() == least {
                    reached.send(()).expect("the test waits");
                }
            }
        }
        names
    });
    let patience = Duration::from_secs(60);
    enough.recv_timeout(patience).expect("it accepts events");
    // So that the kill comes at any moment of a commit.
    thread::sleep(pause);
    child.kill().expect("it runs");
    child.wait().expect("it has ended");
    reader.join().expect("no thread panics")
}

/// Whether the process was killed in the midst of it is left to chance; so many rounds hit most of it.
fn kill(rounds: usize, small: bool) {
    let directory = TempDir::new("kill");
    let mut accepted = HashSet::new();
    for number in 0..rounds {
        let least = 2000 + number * 7919 % 1013;
        let pause = Duration::from_micros(number as u64 * 7919 % 9973);
        accepted.extend(round(directory.path(), small, least, pause));
    }

    let queue = open_sized(directory.path(), small);
    let rest = deliver_all(&queue);
    let file = fs::read_to_string(directory.path().join("delivered")).expect("it is there");
    let mut delivered: HashMap<String, usize> = HashMap::new();
    for name in file.lines().map(str::to_owned).chain(rest.iter().map(name)) {
        *delivered.entry(name).or_default() += 1;
    }
    let lost: Vec<_> = accepted
        .iter()
        .filter(|name| !delivered.contains_key(*name))
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {} lost: {lost:?}",
        lost.len(),
        accepted.len()
    );
    let again: usize = delivered.values().map(|count| count - 1).sum();
    println!("{} accepted, {again} delivered again", accepted.len());
    // A kill has what was on its way delivered again, however little there was in all: a share says something of many
    // rounds only.
    if rounds >= 100 {
        assert!(
            again * 100 < accepted.len(),
            "{again} of {}",
            accepted.len()
        );
    }
}

#[test]
fn no_accepted_event_is_lost_by_kill_9() {
    match std::env::var_os(VICTIM) {
        Some(path) => victim(Path::new(&path)),
        None => kill(3, false),
    }
}

#[test]
#[ignore = "slow: make test-slow"]
fn no_accepted_event_is_lost_by_kill_9_at_any_of_200_moments() {
    kill(200, false);
}

#[test]
fn no_accepted_event_is_lost_by_kill_9_while_segments_are_copied_and_used_again() {
    kill(3, true);
}

#[test]
#[ignore = "slow: make test-slow"]
fn no_accepted_event_is_lost_by_kill_9_at_any_of_100_moments_while_segments_are_copied() {
    kill(100, true);
}
