//! What the disk is asked to do, and what happens when it refuses.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use plimsoll::patterns::{EventError, EventOpenError, EventQueue, EventSettings, Outcome};

use super::{deliver_all, event, open};
use crate::kit::process::{TempDir, find, run};
use crate::kit::{alone, alone_under, wait_until};

/// Publishes until the disk refuses; how many events were taken.
fn fill(queue: &EventQueue) -> usize {
    let mut taken = 0;
    loop {
        match queue.publish(&event(&"x".repeat(100_000))) {
            Ok(_) => taken += 1,
            Err(EventError::Io(_)) => return taken,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_limit_of_the_size_of_files_refuses_events_and_loses_none() {
    // Its signal, SIGXFSZ, would end the process.
    alone(|| {
        let directory = TempDir::new("events");
        open(directory.path())
            .publish(&event("first"))
            .expect("it is taken");
        let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).expect("there is one");
        setrlimit(Resource::RLIMIT_FSIZE, 1 << 20, hard).expect("less is allowed");
        let queue = open(directory.path());
        assert_eq!(queue.stats().backlog, 1);
        // The segment that is there has room below the limit. No other can be made.
        let taken = fill(&queue);
        assert!(queue.stats().failing && taken > 5, "{taken}");
        assert_eq!(deliver_all(&queue).len(), 1 + taken);
    });
}

/// A command that runs another with a file system of its own at /mnt, of so many MiB, where the system allows that.
fn with_small_disk(mib: u32) -> Option<Vec<String>> {
    find("unshare", "util-linux")?;
    let mount = format!("mount -t tmpfs -o size={mib}m tmpfs /mnt && exec \"$0\" \"$@\"");
    let command = ["unshare", "--map-root-user", "--mount", "sh", "-c", &mount];
    let (works, said) = run(Command::new(command[0]).args(&command[1..]).arg("true"), "");
    if !works {
        println!("SKIPPED: no file system can be mounted: {said}");
    }
    works.then(|| command.map(str::to_owned).to_vec())
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

#[test]
fn a_full_file_system_refuses_events_and_loses_none_and_takes_them_again_once_there_is_room() {
    let Some(command) = with_small_disk(9) else {
        return;
    };
    alone_under(&words(&command), || {
        let ballast = Path::new("/mnt/ballast");
        fs::write(ballast, vec![1; 2 << 20]).expect("it fits");
        let queue = open(Path::new("/mnt/queue"));
        let mut taken = fill(&queue);
        assert!(taken > 10 && queue.stats().failing, "{taken}");
        fs::remove_file(ballast).expect("it is there");
        wait_until("events are taken again", || {
            queue.publish(&event("more")).is_ok()
        });
        taken += 1;
        assert!(!queue.stats().failing);
        assert_eq!(deliver_all(&queue).len(), taken);
    });
}

#[test]
fn a_letter_that_is_replayed_to_a_full_file_system_is_delivered_once_there_is_room() {
    let Some(command) = with_small_disk(24) else {
        return;
    };
    alone_under(&words(&command), || {
        const EVENTS: usize = 80;
        let queue = open(Path::new("/mnt/queue"));
        let (rejects, is_there) = (AtomicBool::new(true), AtomicBool::new(true));
        let consumer = Arc::new((rejects, is_there));
        let asked = Arc::clone(&consumer);
        queue
            .deliver(move |_| {
                let (rejects, is_there) = &*asked;
                if rejects.load(Ordering::Relaxed) {
                    let reason = "not yet".to_owned();
                    Outcome::Rejected { reason }
                } else if is_there.load(Ordering::Relaxed) {
                    Outcome::Delivered
                } else {
                    Outcome::Unreachable
                }
            })
            .expect("threads start");
        for _ in 0..EVENTS {
            let text = "x".repeat(100_000);
            queue.publish(&event(&text)).expect("it is taken");
        }
        wait_until("all are dead", || queue.stats().dead_letters == EVENTS);
        consumer.1.store(false, Ordering::Relaxed);
        consumer.0.store(false, Ordering::Relaxed);
        let ballast = Path::new("/mnt/ballast");
        // As much as there is room for.
        fs::write(ballast, vec![1; 24 << 20]).expect_err("it does not fit");
        // And as much as there is in the files of events that are over.
        let more = fill(&queue);
        let letters = queue.dead_letters();
        let ids: Vec<_> = letters
            .map(|letter| letter.expect("it can be read").id)
            .collect();
        let replayed = queue.replay(ids[0]);
        assert!(matches!(replayed, Err(EventError::Io(_))), "{replayed:?}");
        fs::remove_file(ballast).expect("it is there");
        for id in &ids {
            wait_until("it is replayed", || {
                let result = queue.replay(*id);
                // It was queued, also where only its end as a letter could not be written.
                result.is_ok() || matches!(result, Err(EventError::Unknown))
            });
        }
        consumer.1.store(true, Ordering::Relaxed);
        let all = (EVENTS + more) as u64;
        wait_until("all are delivered", || queue.stats().delivered == all);
        assert_eq!(queue.stats().dead_letters, 0);
    });
}

#[test]
fn a_file_system_that_is_read_only_is_an_error() {
    let Some(command) = with_small_disk(9) else {
        return;
    };
    alone_under(&words(&command), || {
        let path = Path::new("/mnt/queue");
        open(path).publish(&event("kept")).expect("it is taken");
        let remount = |how: &str| {
            let (works, said) = run(Command::new("mount").args(["-o", how, "/mnt"]), "");
            assert!(works, "{said}");
        };
        remount("remount,ro");
        let opened = EventQueue::open(path, EventSettings::default());
        assert!(matches!(opened, Err(EventOpenError::Io(_))), "{opened:?}");
        remount("remount,rw");
        assert_eq!(deliver_all(&open(path)).len(), 1);
    });
}

/// A process that is killed says nothing of the disk: what the system still held is written all the same.
#[test]
fn an_event_is_synced_before_it_is_acknowledged_and_those_that_come_together_share_a_sync() {
    const ALONE: usize = 50;
    const TOGETHER: usize = 64 * 20;
    if find("strace", "strace").is_none() {
        return;
    }
    let directory = TempDir::new("events");
    let trace = directory.path().join("trace");
    let path = trace.to_str().expect("it is text");
    let calls = "trace=fdatasync,write";
    let waited = alone_under(&["strace", "-f", "-o", path, "-e", calls], || {
        let directory = TempDir::new("events");
        let queue = open(directory.path());
        for number in 0..ALONE {
            queue.publish(&event("alone")).expect("it is taken");
            println!("\nTAKEN {number}");
        }
        println!("\nTOGETHER");
        thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    for _ in 0..TOGETHER / 64 {
                        queue.publish(&event("together")).expect("it is taken");
                    }
                });
            }
        });
        println!("\nALL TAKEN");
    });
    if !waited {
        return;
    }
    let trace = fs::read_to_string(trace).expect("strace wrote it");
    let (mut synced, mut taken, mut before_all) = (0, 0, None);
    for line in trace.lines() {
        if line.contains("fdatasync") && line.ends_with("= 0") {
            synced += 1;
        } else if line.contains("TAKEN ") {
            taken += 1;
            assert!(synced >= taken, "{taken} taken, {synced} synced:\n{trace}");
        } else if line.contains("TOGETHER") {
            // A sync of the first segment, and perhaps one of each file that is made ahead of need.
            assert!(taken == ALONE && synced <= ALONE + 8, "{taken}, {synced}");
            before_all = Some(synced);
        } else if line.contains("ALL TAKEN") {
            let syncs = synced - before_all.expect("it comes first");
            let few = TOGETHER / 64..TOGETHER / 4;
            assert!(few.contains(&syncs), "{syncs} for {TOGETHER}");
            return;
        }
    }
    panic!("the trace ends too early:\n{trace}");
}

/// Bytes that this process has written so far.
fn written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").expect("it is there");
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.expect("it is told").parse().expect("a number")
}

#[test]
fn what_is_written_for_an_event_is_whole_blocks_and_nothing_else() {
    alone(|| {
        let directory = TempDir::new("events");
        let queue = open(directory.path());
        queue.publish(&event("first")).expect("it is taken");
        let before = written();
        for _ in 0..100 {
            queue.publish(&event("another")).expect("it is taken");
        }
        assert_eq!(written() - before, 100 * 4096);
    });
}

/// A new file is filled with zeros first. One that was a segment before is not.
#[test]
fn what_is_written_once_segments_are_used_again_is_little_more_than_the_events() {
    const PRODUCERS: usize = 64;
    /// All together fit into the files that are kept for new segments.
    const EACH: usize = 6;
    /// What a commit is filled up with is a quarter of it at most, also where no other event shares one.
    const SIZE: u64 = 16 * 1024;
    alone(|| {
        let directory = TempDir::new("events");
        let queue = open(directory.path());
        queue
            .deliver(|_| Outcome::Delivered)
            .expect("threads start");
        let event = event(&"x".repeat(16 * 1024));
        let written_for_each = || {
            let before = written();
            thread::scope(|scope| {
                for _ in 0..PRODUCERS {
                    scope.spawn(|| {
                        for _ in 0..EACH {
                            queue.publish(&event).expect("it is taken");
                        }
                    });
                }
            });
            wait_until("all are delivered", || queue.stats().backlog == 0);
            (written() - before) / (PRODUCERS * EACH) as u64
        };
        // At first, while there are no files to be used again, and by the thread that makes them, more is written.
        let rounds: Vec<_> = (0..6).map(|_| written_for_each()).collect();
        let least = rounds.iter().min().expect("some");
        assert!(*least <= SIZE * 5 / 4, "bytes for each: {rounds:?}");
    });
}
