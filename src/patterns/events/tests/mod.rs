//! The queue on a disk in memory.

mod damage;
mod faults;
mod keys;
mod memory;
mod order;
mod power;
mod reuse;
mod schedule;
mod space;

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::files::Directory;
use super::{Delivery, Event, EventId, EventQueue, EventSettings, Outcome};
use crate::panics::lock;
use memory::Memory;

/// Longer than anything here takes on the busiest machine.
const LONG: Duration = Duration::from_secs(60);

fn small() -> EventSettings {
    EventSettings {
        max_bytes: 512 * 1024,
        max_event: 16 * 1024,
        parallel: 2,
        delays: vec![Duration::from_millis(1); 3],
        patience: LONG,
        ..EventSettings::default()
    }
}

/// With room for more than a few events of some KiB.
fn roomy() -> EventSettings {
    EventSettings {
        max_bytes: 2 << 20,
        ..small()
    }
}

fn open(memory: &Arc<Memory>, settings: EventSettings) -> EventQueue {
    let directory: Arc<dyn Directory> = Arc::clone(memory) as _;
    EventQueue::open_in(&directory, settings).unwrap()
}

fn event(text: &str) -> Event {
    Event {
        topic: "/topic".to_owned(),
        body: text.as_bytes().to_vec(),
        ..Event::default()
    }
}

fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.event.body.clone()).unwrap()
}

/// Waits until this holds.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Everything is delivered; what comes.
fn deliver_all(queue: &EventQueue) -> Vec<Delivery> {
    let deliveries = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&deliveries);
    queue
        .deliver(move |delivery| {
            lock(&seen).push(delivery.clone());
            Outcome::Delivered
        })
        .unwrap();
    eventually("all is delivered", || queue.stats().backlog == 0);

    lock(&deliveries).clone()
}

/// Deliveries that the test answers one by one.
fn ask(queue: &EventQueue) -> Receiver<(Delivery, mpsc::Sender<Outcome>)> {
    let (sender, receiver) = mpsc::channel();
    queue
        .deliver(move |delivery| {
            let (answer, answered) = mpsc::channel();
            if sender.send((delivery.clone(), answer)).is_err() {
                return Outcome::Unreachable;
            }
            answered.recv().unwrap_or(Outcome::Unreachable)
        })
        .unwrap();
    receiver
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed {
        reason: reason.to_owned(),
        retry_after: None,
    }
}

fn counted(ids: impl IntoIterator<Item = EventId>) -> HashMap<EventId, usize> {
    let mut counts = HashMap::new();
    for id in ids {
        *counts.entry(id).or_default() += 1;
    }
    counts
}

#[test]
fn what_was_accepted_is_delivered_after_a_start() {
    let memory = Arc::default();
    let queue = open(&memory, small());
    let id = queue.publish(&event("one")).unwrap();
    drop(queue);
    let queue = open(&memory, small());
    assert_eq!(queue.damage(), []);
    assert_eq!(queue.stats().backlog, 1);
    let seen = deliver_all(&queue);
    assert_eq!((seen[0].id, body(&seen[0]).as_str()), (id, "one"));
    drop(queue);
    let queue = open(&memory, small());
    assert_eq!(queue.stats().backlog, 0, "it is not delivered again");
}

#[test]
fn an_event_is_delivered_as_it_was_published() {
    let memory = Arc::default();
    let queue = open(&memory, small());
    let published = Event {
        topic: "/a?b".to_owned(),
        key: Some(String::new()),
        idempotency_key: None,
        attributes: vec![0, 255, 10],
        body: (0..=255).collect(),
    };
    queue.publish(&published).unwrap();
    assert_eq!(deliver_all(&queue)[0].event, published);
}

#[test]
fn a_failed_attempt_is_repeated_and_the_last_one_makes_a_dead_letter() {
    let memory = Arc::default();
    let queue = open(&memory, small());
    let id = queue.publish(&event("never")).unwrap();
    let asked = ask(&queue);
    for attempt in 1..=4 {
        let (delivery, answer) = asked.recv_timeout(LONG).unwrap();
        assert_eq!((delivery.id, delivery.attempt), (id, attempt));
        answer.send(failed("no")).unwrap();
    }
    eventually("it is dead", || queue.stats().backlog == 0);
    let stats = queue.stats();
    assert_eq!((stats.retried, stats.dead, stats.dead_letters), (3, 1, 1));
    let letter = queue.dead_letter(id).unwrap();
    assert_eq!((letter.attempts, letter.reason.as_str()), (4, "no"));
    assert_eq!(letter.event, event("never"));
}

#[test]
fn attempts_are_counted_over_a_start() {
    let memory = Arc::default();
    let settings = EventSettings {
        delays: vec![Duration::from_secs(60 * 60); 3],
        ..small()
    };
    let queue = open(&memory, settings.clone());
    queue.publish(&event("later")).unwrap();
    let asked = ask(&queue);
    let (_, answer) = asked.recv_timeout(LONG).unwrap();
    answer.send(failed("no")).unwrap();
    eventually("it waits", || queue.stats().retried == 1);
    drop((queue, asked));

    let queue = open(&memory, settings);
    let slot_attempts = lock(&queue.shared().live.owner.schedule).attempts(0);
    assert_eq!(slot_attempts, 1);
    assert_eq!(queue.stats().backlog, 1);
}

#[test]
fn a_rejected_event_is_dead_at_once_and_can_be_replayed_with_its_id() {
    let memory = Arc::default();
    let queue = open(&memory, small());
    let id = queue.publish(&event("bad")).unwrap();
    let asked = ask(&queue);
    let (_, answer) = asked.recv_timeout(LONG).unwrap();
    let reason = "422".to_owned();
    answer.send(Outcome::Rejected { reason }).unwrap();
    eventually("it is dead", || queue.stats().dead_letters == 1);
    drop((queue, asked));

    let queue = open(&memory, small());
    let letters: Result<Vec<_>, _> = queue.dead_letters().collect();
    let letters = letters.unwrap();
    assert_eq!((letters[0].id, letters[0].reason.as_str()), (id, "422"));
    assert_eq!(queue.stats().backlog, 0);
    queue.replay(id).unwrap();
    assert!(queue.replay(id).is_err(), "it is no dead letter any more");
    let seen = deliver_all(&queue);
    assert_eq!((seen[0].id, seen[0].attempt), (id, 1));
    drop(queue);

    let queue = open(&memory, small());
    let stats = queue.stats();
    assert_eq!((stats.backlog, stats.dead_letters), (0, 0));
}

#[test]
fn a_purged_dead_letter_is_gone_for_good() {
    let memory = Arc::default();
    let queue = open(&memory, small());
    let id = queue.publish(&event("bad")).unwrap();
    let asked = ask(&queue);
    let (_, answer) = asked.recv_timeout(LONG).unwrap();
    let reason = String::new();
    answer.send(Outcome::Rejected { reason }).unwrap();
    eventually("it is dead", || queue.stats().dead_letters == 1);
    queue.purge(id).unwrap();
    assert!(queue.purge(id).is_err());
    drop((queue, asked));
    assert_eq!(open(&memory, small()).stats().dead_letters, 0);
}

#[test]
fn a_delivery_that_panics_is_a_failed_attempt() {
    let memory = Arc::default();
    let queue = open(&memory, small());
    queue.publish(&event("one")).unwrap();
    queue
        .deliver(|delivery| {
            assert!(delivery.attempt > 1, "the first attempt panics");
            Outcome::Delivered
        })
        .unwrap();
    eventually("it is delivered", || queue.stats().delivered == 1);
    assert_eq!(queue.stats().retried, 1);
}

#[test]
fn a_stop_waits_for_what_is_being_delivered_and_then_takes_nothing() {
    let memory = Arc::default();
    let queue = open(&memory, small());
    queue.publish(&event("one")).unwrap();
    let asked = ask(&queue);
    let (_, answer) = asked.recv_timeout(LONG).unwrap();
    thread::scope(|scope| {
        let stopped = scope.spawn(|| queue.stop(LONG));
        answer.send(Outcome::Delivered).unwrap();
        assert!(stopped.join().unwrap());
    });
    assert!(queue.publish(&event("two")).is_err());
    drop(queue);
    assert_eq!(open(&memory, small()).stats().backlog, 0);
}

#[test]
fn what_is_still_being_delivered_when_the_time_is_over_stays_for_the_next_start() {
    let memory = Arc::default();
    let queue = open(&memory, small());
    queue.publish(&event("one")).unwrap();
    let asked = ask(&queue);
    let pending = asked.recv_timeout(LONG).unwrap();
    assert!(!queue.stop(Duration::from_millis(1)));
    assert_eq!(open(&memory, small()).stats().backlog, 1);
    drop(pending);
}

#[test]
fn events_that_come_together_share_a_sync() {
    let memory: Arc<Memory> = Arc::default();
    let queue = open(
        &memory,
        EventSettings {
            max_bytes: 8 << 20,
            ..small()
        },
    );
    // A sync takes some time, as it does on a disk.
    memory.fail(|op, _| {
        if op == memory::Op::Sync {
            thread::sleep(Duration::from_millis(1));
        }
        None
    });
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                for _ in 0..20 {
                    queue.publish(&event("together")).unwrap();
                }
            });
        }
    });
    assert_eq!(queue.stats().accepted, 1280);
    assert!(memory.syncs() < 320, "{} syncs", memory.syncs());
}

#[test]
fn an_event_that_is_too_large_is_refused_and_one_of_the_limit_is_taken() {
    let memory = Arc::default();
    let queue = open(&memory, small());
    let mut event = event("");
    event.body = vec![7; 16 * 1024 - event.topic.len()];
    queue.publish(&event).unwrap();
    event.body.push(7);
    let refused = queue.publish(&event).unwrap_err();
    assert!(matches!(
        refused,
        super::EventError::TooLarge { limit: 16_384 }
    ));
}
