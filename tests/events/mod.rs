//! The queue of events on a real disk, which may be full or fail, in a process that may be killed.

mod disk;
mod kill;
mod letters;
mod sidecar;
#[cfg(feature = "redis")]
mod stream;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};

use plimsoll::patterns::{
    Delivery, Event, EventError, EventOpenError, EventQueue, EventSettings, Outcome,
};

use crate::kit::process::TempDir;
use crate::kit::wait_until;

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
