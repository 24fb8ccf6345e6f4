use super::super::schedule::Next;
use super::*;
use crate::patterns::EventError;
use crate::random::Random;

fn fill(queue: &EventQueue, length: usize) -> Vec<EventId> {
    let mut ids = Vec::new();
    loop {
        match queue.publish(&event(&"x".repeat(length))) {
            Ok(id) => ids.push(id),
            Err(EventError::Full) => return ids,
            Err(error) => panic!("{error}"),
        }
        assert!(ids.len() < 100_000, "it has a limit");
    }
}

#[test]
fn a_full_queue_refuses_events_and_takes_them_again_once_some_are_delivered() {
    for length in [1, 1000, 10_000] {
        let memory: Arc<Memory> = Arc::default();
        let queue = open(&memory, small());
        let ids = fill(&queue, length);
        assert!(memory.bytes() <= 512 * 1024);
        drop(queue);

        let queue = open(&memory, small());
        assert_eq!(queue.stats().backlog, ids.len());
        let seen = counted(deliver_all(&queue).iter().map(|delivery| delivery.id));
        assert!(ids.iter().all(|id| seen[id] == 1));
        assert!(memory.bytes() <= 512 * 1024);
        eventually("there is room", || queue.publish(&event("more")).is_ok());
    }
}

#[test]
fn a_full_queue_holds_a_quarter_of_its_limit_in_events_at_least() {
    let memory: Arc<Memory> = Arc::default();
    let settings = EventSettings {
        max_bytes: 4 << 20,
        ..small()
    };
    let queue = open(&memory, settings);
    let ids = thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| fill(&queue, 1000).len()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum::<usize>()
    });
    // How many share a commit, and so a block, is up to the machine.
    assert!(ids * 1000 > 1 << 20, "{ids} events");
}

#[test]
fn an_event_that_waits_does_not_keep_the_space_of_those_that_were_delivered() {
    let memory: Arc<Memory> = Arc::default();
    let settings = EventSettings {
        delays: vec![Duration::from_secs(12 * 60 * 60)],
        ..small()
    };
    let queue = open(&memory, settings.clone());
    queue
        .deliver(|delivery| {
            if body(delivery).starts_with("wait") {
                failed("not yet")
            } else {
                Outcome::Delivered
            }
        })
        .unwrap();
    // One of them in each segment, many times as much as there is room for.
    let filler = "x".repeat(4000);
    let publish = |text: &str| {
        eventually("there is room", || queue.publish(&event(text)).is_ok());
    };
    for round in 0..40 {
        publish(&format!("wait {round}"));
        for _ in 0..20 {
            publish(&filler);
        }
    }
    eventually("only these wait", || queue.stats().backlog == 40);
    eventually("the rest is gone", || memory.bytes() <= 4 * 64 * 1024);
    drop(queue);

    let queue = open(&memory, settings);
    assert_eq!(queue.damage(), []);
    assert_eq!(queue.stats().backlog, 40);
    // Where a note was lost, the event would be due at once.
    let now = Instant::now();
    let next = lock(&queue.shared().live.owner.schedule).poll(now);
    let hour = Duration::from_secs(60 * 60);
    assert!(
        matches!(next, Next::Wait(Some(due)) if due > now + hour),
        "{next:?}"
    );
}

#[test]
fn when_dead_letters_have_no_more_room_events_stay_queued() {
    let memory: Arc<Memory> = Arc::default();
    let queue = open(&memory, small());
    let ids = fill(&queue, 10_000);
    let reject = std::sync::atomic::AtomicBool::new(true);
    let reject = Arc::new(reject);
    let rejects = Arc::clone(&reject);
    queue
        .deliver(move |_| {
            if rejects.load(std::sync::atomic::Ordering::Relaxed) {
                let reason = "no".to_owned();
                Outcome::Rejected { reason }
            } else {
                Outcome::Delivered
            }
        })
        .unwrap();
    eventually("dead letters are full", || queue.stats().dead_full);
    let letters = queue.stats().dead_letters;
    assert!(letters > 0 && letters * 10_000 <= 128 * 1024);
    assert!(memory.bytes() <= 512 * 1024);
    reject.store(false, std::sync::atomic::Ordering::Relaxed);
    eventually("the others are delivered", || queue.stats().backlog == 0);
    let stats = queue.stats();
    assert_eq!(
        stats.dead_letters as u64 + stats.delivered,
        ids.len() as u64
    );
}

#[test]
fn settings_out_of_their_bounds_are_refused() {
    for settings in [
        EventSettings {
            max_bytes: 1,
            ..small()
        },
        EventSettings {
            max_event: usize::MAX,
            ..small()
        },
        EventSettings {
            max_event: 64 * 1024,
            ..small()
        },
        EventSettings {
            parallel: 0,
            ..small()
        },
    ] {
        assert!(settings.sizes().is_err(), "{settings:?}");
    }
}

/// Power cuts while dead letters are copied leave a segment that was copied in part, and another that is partly written.
/// Then too there is room to copy the rest, and to say which letters are over.
#[test]
fn dead_letters_can_be_purged_however_often_the_power_was_cut_before() {
    let mut memory: Arc<Memory> = Arc::default();
    let mut random = Random::new(5);
    for round in 0..200_u32 {
        let queue = open(&memory, small());
        queue
            .deliver(|_| Outcome::Rejected {
                reason: "no".to_owned(),
            })
            .unwrap();
        for length in (1..2000).step_by(371).cycle() {
            if queue.stats().dead_full {
                break;
            }
            let published = queue.publish(&event(&"x".repeat(length)));
            assert!(matches!(published, Ok(_) | Err(EventError::Full)));
        }
        let (disk, after) = (Arc::clone(&memory), Arc::new(Mutex::new(None)));
        let (cut, mut left) = (Arc::clone(&after), round * 7 % 60);
        let mut blocks = Random::new(round.into());
        memory.fail(move |_, name| {
            if name.contains("dead") {
                left = left.saturating_sub(1);
            }
            if left == 0 && lock(&cut).is_none() {
                *lock(&cut) = Some(disk.cut_power(&mut blocks));
            }
            None
        });
        let letters: Vec<_> = queue.dead_letters().collect();
        for letter in letters {
            if random.uniform() < 0.7 {
                let purged = queue.purge(letter.unwrap().id);
                assert!(purged.is_ok(), "{purged:?} in round {round}");
            }
        }
        drop(queue);
        memory.heal();
        if let Some(after) = lock(&after).take() {
            memory = Arc::new(after);
        }
    }
}
