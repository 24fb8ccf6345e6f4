//! The queue of events on a real disk, which may be full or fail, in a process that may be killed.

mod backlog;
mod disk;
mod kill;
mod letters;
mod sidecar;
#[cfg(feature = "redis")]
mod stream;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use plimsoll::patterns::{
    DeadLetters, Delivery, Event, EventError, EventOpenError, EventQueue, EventSettings, Outcome,
};

use crate::kit::process::TempDir;
use crate::kit::{Over, wait_until};

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

/// Delivers what is there; what came.
fn deliver_all(queue: &EventQueue) -> Vec<Delivery> {
    let deliveries = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&deliveries);
    queue
        .deliver(move |delivery| {
            seen.lock()
                .expect("no thread panics")
                .push(delivery.clone());
            Outcome::Delivered
        })
        .expect("threads start");
    wait_until("all is delivered", || queue.stats().backlog == 0);
    deliveries.lock().expect("no thread panics").clone()
}

#[test]
fn a_queue_that_is_open_elsewhere_is_refused_and_free_once_it_is_dropped() {
    let directory = TempDir::new("events");
    let queue = open(directory.path());
    let second = EventQueue::open(directory.path(), EventSettings::default());
    assert!(
        matches!(second, Err(EventOpenError::Locked(_))),
        "{second:?}"
    );
    drop(queue);
    drop(open(directory.path()));
}

#[test]
fn only_the_owner_may_read_the_files() {
    let directory = TempDir::new("events");
    let queue = open(directory.path());
    queue
        .publish(&Event {
            idempotency_key: Some("key".to_owned()),
            ..event("secret")
        })
        .expect("it is taken");
    drop(queue);
    for entry in fs::read_dir(directory.path()).expect("it is there") {
        let entry = entry.expect("it can be read");
        let mode = entry.metadata().expect("it is a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{entry:?}");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error() {
    let directory = TempDir::new("events");
    let path = directory.path().join("queue");
    symlink("/nowhere/at/all", &path).expect("it is made");
    let opened = EventQueue::open(&path, EventSettings::default());
    assert!(matches!(opened, Err(EventOpenError::Io(_))), "{opened:?}");
}

#[test]
fn a_repeated_key_is_the_same_event_also_after_a_start_and_another_body_is_refused() {
    let directory = TempDir::new("events");
    let keyed = |text| Event {
        idempotency_key: Some("key".to_owned()),
        ..event(text)
    };
    let queue = open(directory.path());
    let id = queue.publish(&keyed("one")).expect("it is taken");
    drop(queue);
    let queue = open(directory.path());
    assert_eq!(queue.publish(&keyed("one")).expect("it is known"), id);
    let other = queue.publish(&keyed("two"));
    assert!(matches!(other, Err(EventError::KeyReused)), "{other:?}");
    let seen = deliver_all(&queue);
    assert_eq!((seen.len(), seen[0].id), (1, id));
}

#[test]
fn events_of_10_mib_go_through_and_stay_over_a_start() {
    let directory = TempDir::new("events");
    let mut settings = EventSettings::default();
    settings.max_bytes = 256 << 20;
    settings.max_event = 11 << 20;
    let open = || EventQueue::open(directory.path(), settings.clone()).expect("it opens");
    let queue = open();
    let text = "0123456789abcdef".repeat(10 << 16);
    for _ in 0..6 {
        queue.publish(&event(&text)).expect("it is taken");
    }
    drop(queue);
    let seen = deliver_all(&open());
    assert_eq!(seen.len(), 6);
    assert!(
        seen.iter()
            .all(|delivery| delivery.event.body == text.as_bytes())
    );
}

#[test]
fn letters_may_be_purged_and_replayed_by_many_while_events_are_delivered() {
    const EVENTS: usize = 400;
    let directory = TempDir::new("events");
    let queue = open(directory.path());
    let delivered = Arc::new(Mutex::new(HashMap::new()));
    let counts = Arc::clone(&delivered);
    queue
        .deliver(move |delivery| {
            let mut counts = counts.lock().expect("no thread panics");
            let (rejected, taken) = counts.entry(delivery.id).or_insert((0, 0));
            // One in two is rejected at first.
            if *rejected == 0
                && delivery
                    .id
                    .to_string()
                    .ends_with(['0', '2', '4', '6', '8', 'a', 'c', 'e'])
            {
                *rejected = 1;
                let reason = "the first time".to_owned();
                return Outcome::Rejected { reason };
            }
            *taken += 1;
            Outcome::Delivered
        })
        .expect("threads start");
    let is_over = || {
        let stats = queue.stats();
        stats.backlog == 0 && stats.dead_letters == 0
    };
    let purged = Mutex::new(Vec::new());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for purges in [true, true, false, false] {
            let (path, purged, done) = (directory.path(), &purged, &done);
            scope.spawn(move || {
                // As other processes do.
                let letters = DeadLetters::of(path).expect("it is there");
                while !done.load(Ordering::Relaxed) {
                    for id in letters.ids().expect("it answers") {
                        let result = if purges {
                            letters.purge(id)
                        } else {
                            letters.replay(id)
                        };
                        match result {
                            Ok(()) if purges => purged.lock().expect("no thread panics").push(id),
                            // Another was first.
                            Ok(()) | Err(EventError::Unknown) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
        let _over = Over(&done);
        for number in 0..EVENTS {
            queue
                .publish(&event(&number.to_string()))
                .expect("it is taken");
        }
        wait_until("all is over", is_over);
    });
    // A letter that is being replayed counts for neither.
    wait_until("what was replayed last is over too", is_over);
    let purged = purged.into_inner().expect("no thread panics");
    let delivered = delivered.lock().expect("no thread panics");
    assert_eq!(delivered.len(), EVENTS);
    for (id, (_, taken)) in &*delivered {
        let ends = taken + purged.iter().filter(|purged| *purged == id).count();
        assert_eq!(ends, 1, "{id}");
    }
}
