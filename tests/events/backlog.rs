//! Many events that wait.

use std::env;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use plimsoll::patterns::{EventQueue, EventSettings};

use super::event;
use crate::kit::process::TempDir;
use crate::kit::{Usage, alone_under};

const EVENTS: usize = 100_000;
const PRODUCERS: usize = 64;

/// Tells the process that is looked at where the queue is.
const BACKLOG: &str = "PLIMSOLL_TEST_BACKLOG";

fn open(path: &Path) -> EventQueue {
    let mut settings = EventSettings::default();
    settings.max_bytes = 512 << 20;
    EventQueue::open(path, settings).expect("it opens")
}

fn fill(path: &Path) {
    let queue = open(path);
    let event = event(&"x".repeat(1024));
    thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (queue, event) = (&queue, &event);
            scope.spawn(move || {
                for _ in (producer..EVENTS).step_by(PRODUCERS) {
                    queue.publish(event).expect("it is taken");
                }
            });
        }
    });
}

#[test]
#[ignore = "slow: make test-slow"]
fn a_queue_of_100_000_events_opens_within_a_second_and_takes_at_most_16_mib() {
    let directory = TempDir::new("backlog");
    let seen = env::var_os(BACKLOG);
    if seen.is_none() {
        fill(directory.path());
    }
    // Another process opens it, as what this one took for the writing would count.
    let path = directory.path().display();
    alone_under(&["env", &format!("{BACKLOG}={path}")], || {
        let path = seen.expect("it is told");
        let start = Instant::now();
        let queue = open(Path::new(&path));
        let took = start.elapsed();
        assert_eq!(queue.stats().backlog, EVENTS);
        let memory = Usage::of("self").memory;
        println!("opened in {took:?}, {memory} KiB resident");
        assert!(memory <= 16 * 1024, "{memory} KiB");
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}
