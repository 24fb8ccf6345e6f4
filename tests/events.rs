//! The queue of events on a real disk.

use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use plimsoll::patterns::{Event, EventError, EventOpenError, EventQueue, EventSettings, Outcome};

/// A directory of the test's own, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("plimsoll-events-{name}-{}", process::id()));
        drop(fs::remove_dir_all(&path));
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn event(text: &str) -> Event {
    Event {
        topic: "/events".to_owned(),
        body: text.as_bytes().to_vec(),
        ..Event::default()
    }
}

fn open(path: &Path) -> EventQueue {
    EventQueue::open(path, EventSettings::default()).expect("it opens")
}

#[test]
fn a_queue_that_is_open_elsewhere_is_refused_and_free_once_it_is_dropped() {
    let directory = Directory::new("lock");
    let queue = open(&directory.0);
    let second = EventQueue::open(&directory.0, EventSettings::default());
    assert!(
        matches!(second, Err(EventOpenError::Locked(_))),
        "{second:?}"
    );
    drop(queue);
    drop(open(&directory.0));
}

#[test]
fn only_the_owner_may_read_the_files() {
    let directory = Directory::new("modes");
    let queue = open(&directory.0);
    queue
        .publish(&Event {
            idempotency_key: Some("key".to_owned()),
            ..event("secret")
        })
        .expect("it is taken");
    drop(queue);
    for entry in fs::read_dir(&directory.0).expect("it is there") {
        let entry = entry.expect("it can be read");
        let mode = entry.metadata().expect("it is a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{entry:?}");
    }
}

#[test]
fn a_full_file_system_refuses_events_and_loses_none() {
    // A limit of a process of its own takes the place of a small disk. Its signal, SIGXFSZ, must not end the process.
    if std::env::var_os("PLIMSOLL_TEST_LIMIT").is_some() {
        let path = PathBuf::from(std::env::var_os("PLIMSOLL_TEST_LIMIT").expect("it is set"));
        let queue = open(&path);
        assert_eq!(queue.stats().backlog, 1);
        // The segment that is there has room. No other can be made.
        let mut taken = 1;
        let refused = loop {
            match queue.publish(&event(&"x".repeat(100_000))) {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, EventError::Io(_)), "{refused}");
        assert!(queue.stats().failing && taken > 5);
        let (sender, receiver) = mpsc::channel();
        queue
            .deliver(move |delivery| {
                sender.send(delivery.id).expect("the test waits");
                Outcome::Delivered
            })
            .expect("threads start");
        for _ in 0..taken {
            let seen = receiver.recv_timeout(Duration::from_mins(1));
            seen.expect("all are delivered");
        }
        return;
    }
    let directory = Directory::new("limit");
    open(&directory.0)
        .publish(&event("first"))
        .expect("it is taken");
    // Half a segment, in blocks of 512 bytes.
    let test = "events::a_full_file_system_refuses_events_and_loses_none";
    let run = Command::new("sh")
        .args([
            "-c",
            "ulimit -f 2048 && exec \"$0\" --exact \"$1\" --nocapture",
        ])
        .arg(std::env::current_exe().expect("the tests are a file"))
        .arg(test)
        .env("PLIMSOLL_TEST_LIMIT", &directory.0)
        .output()
        .expect("sh runs");
    let output = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(
        run.status.success() && output.contains("1 passed"),
        "{output}"
    );
}

/// What the child of the test below is told: its directory, and the file of what was delivered.
const VICTIM: &str = "PLIMSOLL_TEST_VICTIM";

/// A process that publishes with 32 threads and delivers, until it is killed.
fn victim(path: &Path) {
    let queue = open(&path.join("queue"));
    assert_eq!(
        queue
            .damage()
            .iter()
            .filter(|part| part.length > 1 << 18)
            .count(),
        0
    );
    let delivered = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path.join("delivered"))
        .expect("it opens");
    queue
        .deliver(move |delivery| {
            let text = String::from_utf8_lossy(&delivery.event.body[..16]).into_owned();
            // One write, so that a kill leaves all of it or nothing.
            match (&delivered).write_all(format!("{text}\n").as_bytes()) {
                Ok(()) => Outcome::Delivered,
                Err(_) => Outcome::Unreachable,
            }
        })
        .expect("threads start");
    let start = process::id();
    let output = Mutex::new(std::io::stdout());
    thread::scope(|scope| {
        for producer in 0..32 {
            let (queue, output) = (&queue, &output);
            scope.spawn(move || {
                for number in 0.. {
                    let name = format!("{start:07}{producer:02}{number:07}");
                    let filler = "x".repeat(number % 2000);
                    if queue.publish(&event(&format!("{name}{filler}"))).is_ok() {
                        let mut output = output.lock().expect("no thread panics");
                        // The line that answers it: a reference of what was accepted.
                        if writeln!(output, "\nACCEPTED {name}").is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
}

fn start_victim(path: &Path) -> Child {
    Command::new(std::env::current_exe().expect("the tests are a file"))
        .args(["--exact", "events::no_accepted_event_is_lost_by_kill_9"])
        .args(["--include-ignored", "--nocapture"])
        .env(VICTIM, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the tests run")
}

#[test]
#[ignore = "200 rounds"]
fn no_accepted_event_is_lost_by_kill_9() {
    if let Some(path) = std::env::var_os(VICTIM) {
        return victim(Path::new(&path));
    }
    let rounds: u64 = std::env::var("PLIMSOLL_TEST_ROUNDS")
        .map_or(200, |rounds| rounds.parse().expect("a number"));
    let directory = Directory::new("kill");
    fs::create_dir_all(&directory.0).expect("it is made");
    let mut accepted = HashSet::new();
    for round in 0..rounds {
        let mut child = start_victim(&directory.0);
        let lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
        let (first, started) = mpsc::channel();
        let reader = thread::spawn(move || {
            let mut names = Vec::new();
            for line in lines.map_while(Result::ok) {
                // A kill may cut the last line.
                if let Some(name) = line
                    .strip_prefix("ACCEPTED ")
                    .filter(|name| name.len() == 16)
                {
                    if names.is_empty() {
                        first.send(()).expect("the test waits");
                    }
                    names.push(name.to_owned());
                }
            }
            names
        });
        let patience = Duration::from_mins(1);
        started.recv_timeout(patience).expect("it accepts events");
        // At another moment in each round.
        thread::sleep(Duration::from_millis(150 + round * 7919 % 197));
        child.kill().expect("it runs");
        child.wait().expect("it has ended");
        accepted.extend(reader.join().expect("no thread panics"));
    }

    let queue = open(&directory.0.join("queue"));
    let rest = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&rest);
    queue
        .deliver(move |delivery| {
            let text = String::from_utf8_lossy(&delivery.event.body[..16]).into_owned();
            seen.lock().expect("no thread panics").push(text);
            Outcome::Delivered
        })
        .expect("threads start");
    let deadline = Instant::now() + Duration::from_mins(2);
    while queue.stats().backlog > 0 {
        assert!(Instant::now() < deadline, "{:?}", queue.stats());
        thread::sleep(Duration::from_millis(10));
    }
    let mut delivered: HashMap<String, u64> = HashMap::new();
    let file = fs::read_to_string(directory.0.join("delivered")).expect("it is there");
    let rest = rest.lock().expect("no thread panics");
    for name in file.lines().map(str::to_owned).chain(rest.iter().cloned()) {
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
    let twice: u64 = delivered.values().map(|count| count - 1).sum();
    println!(
        "{rounds} rounds: {} accepted, {twice} delivered again",
        accepted.len()
    );
    assert!(
        twice * 100 < accepted.len() as u64,
        "{twice} of {}",
        accepted.len()
    );
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error() {
    let directory = Directory::new("nowhere");
    symlink("/nowhere/at/all", &directory.0).expect("it is made");
    let opened = EventQueue::open(&directory.0, EventSettings::default());
    assert!(matches!(opened, Err(EventOpenError::Io(_))), "{opened:?}");
    fs::remove_file(&directory.0).expect("it is there");
}
