//! Files of segments that are not needed any more, used again.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::super::event::Stored;
use super::super::record::Purpose;
use super::super::segment::{Segment, Spare};
use super::memory::Op;
use super::*;
use crate::patterns::{EventDamageKind, EventError};
use crate::random::Random;

/// Publishes one event after another, each once the last is delivered.
fn publish_and_deliver(queue: &EventQueue, count: usize) -> Vec<EventId> {
    let text = "x".repeat(9000);
    let ids = (0..count).map(|_| {
        let id = queue.publish(&event(&text)).unwrap();
        eventually("it is delivered", || queue.stats().backlog == 0);
        id
    });
    ids.collect()
}

#[test]
fn a_queue_that_is_delivered_as_it_comes_makes_no_more_files() {
    let memory: Arc<Memory> = Arc::default();
    let queue = open(&memory, small());
    queue.deliver(|_| Outcome::Delivered).unwrap();
    // Five go into a segment.
    publish_and_deliver(&queue, 20);
    let made = Arc::new(Mutex::new(0));
    let count = Arc::clone(&made);
    memory.fail(move |op, _| {
        *lock(&count) += usize::from(op == Op::Create);
        None
    });
    publish_and_deliver(&queue, 200);
    assert_eq!(*lock(&made), 0);
    assert!(memory.bytes() <= 6 * 64 * 1024, "{}", memory.bytes());
    assert_eq!(queue.stats().bytes, memory.bytes());
    drop(queue);
    let queue = open(&memory, small());
    assert_eq!((queue.damage(), queue.stats().backlog), (&[][..], 0));
}

#[test]
fn a_file_that_is_still_read_or_has_another_length_is_not_used_again() {
    let memory = Memory::default();
    let segment = |number| Segment::create(&memory, Purpose::Live, number, 8192).unwrap();
    let read = segment(1);
    let spare = Spare::set_aside(&memory, Arc::clone(&read.file), read.header);
    let reused = Segment::reuse(&memory, spare.unwrap().unwrap(), 2).unwrap();
    assert!(reused.is_none());
    assert!(memory.files().is_empty(), "it is removed");

    let short = segment(3);
    memory.put("0000000003.log", &[0; 100]);
    let file = memory.open("0000000003.log").unwrap();
    let spare = Spare::set_aside(&memory, file, short.header);
    assert!(spare.unwrap().is_none());
}

/// The events that wait, read from the disk.
fn waiting(queue: &EventQueue) -> HashSet<EventId> {
    let live = &queue.shared().live;
    let slots = u32::try_from(live.lock().index.places.len()).unwrap();
    let bodies = (0..slots).filter_map(|slot| live.read(slot).unwrap());
    bodies
        .map(|body| Stored::decode(&body).unwrap().id)
        .collect()
}

/// While segments are copied, removed and used again, the power is cut before each single operation on the disk.
#[test]
fn a_cut_at_any_step_of_using_a_file_again_loses_nothing_and_brings_nothing_back() {
    let memory: Arc<Memory> = Arc::default();
    let settings = EventSettings {
        delays: vec![Duration::from_secs(60 * 60)],
        ..small()
    };
    let queue = open(&memory, settings.clone());
    queue
        .deliver(|delivery| {
            if body(delivery).starts_with("kept") {
                return failed("later");
            }
            Outcome::Delivered
        })
        .unwrap();
    let over: HashSet<EventId> = publish_and_deliver(&queue, 40).into_iter().collect();
    // Once this one is durable, so is that all before it are over.
    queue.publish(&event("after them")).unwrap();

    let accepted: Arc<Mutex<Vec<EventId>>> = Arc::default();
    let again = Arc::new(Mutex::new(0));
    // What the disk holds at a moment, and what has to be on it. Few are in memory at once.
    let (sender, moments) = mpsc::sync_channel(4);
    let (disk, known, count) = (memory.clone(), accepted.clone(), again.clone());
    let mut random = Random::new(11);
    memory.fail(move |op, name| {
        *lock(&count) += usize::from(op == Op::Write && name.starts_with("new."));
        let moment = (disk.cut_power(&mut random), lock(&known).clone());
        // The other end is gone only if the test fails.
        let _ = sender.send(moment);
        None
    });
    let checked = thread::spawn(move || {
        let mut number = 0;
        for (disk, accepted) in moments {
            let queue = open(&Arc::new(disk), settings.clone());
            let found = waiting(&queue);
            number += 1;
            // A name may never lead to the file of another segment.
            let mut damage = queue.damage().iter();
            let wrong = damage.find(|part| part.what == EventDamageKind::Header);
            assert_eq!(wrong, None, "at operation {number}");
            for id in accepted {
                assert!(found.contains(&id), "lost at operation {number}");
            }
            assert!(found.is_disjoint(&over), "back at operation {number}");
        }
        number
    });
    let publish = |text: &str| {
        let deadline = Instant::now() + LONG;
        loop {
            match queue.publish(&event(text)) {
                Ok(id) => return id,
                Err(EventError::Full) => assert!(Instant::now() < deadline),
                Err(error) => panic!("{error}"),
            }
        }
    };
    for number in 0..12 {
        let id = publish(&format!("kept {number}"));
        lock(&accepted).push(id);
        for _ in 0..4 {
            publish(&"x".repeat(9000));
        }
    }
    memory.heal();
    drop(queue);
    let moments = checked.join().unwrap();
    let again = *lock(&again);
    assert!(moments > 100 && again > 5, "{moments}, {again}");
}

/// A crash, or a disk that fails, may come in the midst of copying a segment. Then an event stands in it still that was
/// copied, delivered, and whose copy is long gone.
#[test]
fn an_event_that_is_over_does_not_come_back_from_a_segment_that_was_copied_in_part() {
    let memory: Arc<Memory> = Arc::default();
    let mut delays = vec![Duration::from_millis(10); 10_000];
    delays.push(LONG * 60);
    // With segments that are copied in two parts at least.
    let settings = EventSettings {
        max_bytes: 16 << 20,
        max_event: 128 * 1024,
        delays,
        ..small()
    };
    let queue = open(&memory, settings.clone());
    let goes = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicBool::new(false));
    let (may_go, was_asked) = (Arc::clone(&goes), Arc::clone(&asked));
    queue
        .deliver(move |delivery| match &*body(delivery) {
            "first" if !may_go.load(Ordering::Relaxed) => failed("not yet"),
            "last" => {
                was_asked.store(true, Ordering::Relaxed);
                Outcome::Failed {
                    reason: "not for long".to_owned(),
                    retry_after: Some(LONG * 60),
                }
            }
            _ => Outcome::Delivered,
        })
        .unwrap();
    let fill = |count| {
        let text = "x".repeat(72_000);
        for _ in 0..count {
            eventually("there is room", || queue.publish(&event(&text)).is_ok());
            eventually("it is delivered", || queue.stats().backlog <= 2);
        }
    };
    let first = queue.publish(&event("first")).unwrap();
    fill(3);
    queue.publish(&event("last")).unwrap();
    eventually("it is tried", || asked.load(Ordering::Relaxed));
    // What copies the first segment can read it once: that is enough for its beginning.
    let reads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reads);
    memory.fail(move |op, name| {
        let copies = thread::current().name() == Some("events log");
        let read = op == Op::Read && name == "0000000001.log" && copies;
        (read && count.fetch_add(1, Ordering::Relaxed) > 0).then_some(ErrorKind::Other)
    });
    fill(3);
    eventually("it is copied in part", || reads.load(Ordering::Relaxed) > 1);
    goes.store(true, Ordering::Relaxed);
    eventually("it is delivered", || queue.stats().backlog == 1);
    fill(40);
    eventually("only the last one waits", || queue.stats().backlog == 1);
    memory.heal();
    drop(queue);
    let left = waiting(&open(&memory, settings));
    assert_eq!((left.len(), left.contains(&first)), (1, false));
}
