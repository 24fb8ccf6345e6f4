use std::io::ErrorKind;

use super::memory::Op;
use super::*;
use crate::patterns::EventError;

/// Every kind of operation fails at its n-th time: what was acknowledged is delivered, then and after a power cut.
#[test]
fn whatever_operation_fails_nothing_that_was_acknowledged_is_lost() {
    let operations = [
        Op::Create,
        Op::Write,
        Op::Sync,
        Op::Rename,
        Op::Remove,
        Op::SyncNames,
    ];
    for failing in operations {
        for nth in 0..12 {
            let memory: Arc<Memory> = Arc::default();
            let queue = open(&memory, roomy());
            let mut count = 0;
            memory.fail(move |op, _| {
                count += usize::from(op == failing);
                (op == failing && count == nth + 1).then_some(ErrorKind::Other)
            });
            let mut acknowledged = Vec::new();
            let text = "x".repeat(10_000);
            for _ in 0..16 {
                match queue.publish(&event(&text)) {
                    Ok(id) => acknowledged.push(id),
                    Err(EventError::Io(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(acknowledged.len() >= 14, "it goes on: {failing:?} {nth}");
            memory.heal();
            let mut random = crate::random::Random::new(nth as u64);
            let after = Arc::new(memory.cut_power(&mut random));
            drop(queue);
            for disk in [memory, after] {
                let seen = deliver_all(&open(&disk, roomy()));
                let seen = counted(seen.iter().map(|delivery| delivery.id));
                for id in &acknowledged {
                    assert!(seen.contains_key(id), "{failing:?} {nth}");
                }
            }
        }
    }
}

#[test]
fn a_file_whose_sync_failed_is_never_synced_again() {
    let memory: Arc<Memory> = Arc::default();
    let queue = open(&memory, small());
    let before = queue.publish(&event("before")).unwrap();
    let failed = Arc::new(Mutex::new(None::<String>));
    let seen = Arc::clone(&failed);
    let again = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&again);
    memory.fail(move |op, name| {
        let mut failed = lock(&seen);
        match (&*failed, op) {
            (None, Op::Sync) => {
                *failed = Some(name.to_owned());
                Some(ErrorKind::Other)
            }
            (Some(file), Op::Sync | Op::Write) if file == name => {
                *lock(&counted) += 1;
                None
            }
            _ => None,
        }
    });
    assert!(matches!(
        queue.publish(&event("refused")).unwrap_err(),
        EventError::Io(_)
    ));
    assert_eq!(queue.stats().failures, 1);
    let after = queue.publish(&event("after")).unwrap();
    assert!(!queue.stats().failing);
    eventually("what it held is copied elsewhere", || {
        !memory
            .files()
            .iter()
            .any(|(name, _)| name == "0000000001.log")
    });
    assert_eq!(*lock(&again), 0);
    let seen: Vec<_> = deliver_all(&queue).iter().map(|event| event.id).collect();
    assert_eq!(seen, [before, after]);
}

#[test]
fn a_full_disk_refuses_events_until_there_is_room() {
    let memory: Arc<Memory> = Arc::default();
    let queue = open(&memory, small());
    memory.fail(|op, _| (op == Op::Create).then_some(ErrorKind::StorageFull));
    let refused = queue.publish(&event("one")).unwrap_err();
    assert!(matches!(refused, EventError::Io(_)), "{refused}");
    assert!(queue.stats().failing);
    memory.heal();
    eventually("it goes on", || queue.publish(&event("one")).is_ok());
    assert!(!queue.stats().failing);
}

#[test]
fn a_failing_disk_is_left_alone_for_a_while() {
    let memory: Arc<Memory> = Arc::default();
    let queue = open(&memory, small());
    let tries = Arc::new(Mutex::new(0));
    let count = Arc::clone(&tries);
    memory.fail(move |op, _| {
        *lock(&count) += usize::from(op == Op::Create);
        (op == Op::Create).then_some(ErrorKind::StorageFull)
    });
    let start = Instant::now();
    for _ in 0..1000 {
        assert!(queue.publish(&event("one")).is_err());
    }
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap();
    assert!(*lock(&tries) <= seconds + 3, "{}", lock(&tries));
}

#[test]
fn an_event_that_cannot_be_read_now_is_delivered_later() {
    let memory: Arc<Memory> = Arc::default();
    let queue = open(&memory, small());
    queue.publish(&event("one")).unwrap();
    let mut count = 0;
    memory.fail(move |op, _| {
        count += usize::from(op == Op::Read);
        (op == Op::Read && count == 1).then_some(ErrorKind::Other)
    });
    let seen = deliver_all(&queue);
    assert_eq!((seen.len(), seen[0].attempt), (1, 1));
}

#[test]
fn a_dead_letter_that_finds_no_disk_stays_an_event() {
    let memory: Arc<Memory> = Arc::default();
    let queue = open(&memory, small());
    let id = queue.publish(&event("bad")).unwrap();
    memory.fail(|op, name| {
        (op == Op::Create && name.ends_with("dead")).then_some(ErrorKind::StorageFull)
    });
    let asked = ask(&queue);
    for attempt in 1..=2 {
        let (delivery, answer) = asked.recv_timeout(LONG).unwrap();
        assert_eq!((delivery.id, delivery.attempt), (id, attempt));
        let reason = "never".to_owned();
        answer.send(Outcome::Rejected { reason }).unwrap();
        eventually("it failed", || queue.stats().failures == u64::from(attempt));
    }
    assert!(queue.stats().failing);
    memory.heal();
    // Two failures in a row: the disk is left alone for a second, and the event tried until that is over.
    let deadline = Instant::now() + LONG;
    while queue.stats().dead_letters == 0 {
        assert!(Instant::now() < deadline);
        if let Ok((_, answer)) = asked.recv_timeout(Duration::from_millis(10)) {
            let reason = "never".to_owned();
            answer.send(Outcome::Rejected { reason }).unwrap();
        }
    }
    eventually("it is no event any more", || queue.stats().backlog == 0);
}
