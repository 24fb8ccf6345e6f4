use super::*;
use crate::patterns::EventError;

fn keyed(key: &str, text: &str) -> Event {
    Event {
        idempotency_key: Some(key.to_owned()),
        ..event(text)
    }
}

#[test]
fn a_repeated_key_is_the_same_event_also_after_a_start_and_another_body_is_refused() {
    let memory = Arc::default();
    let queue = open(&memory, small());
    let id = queue.publish(&keyed("a", "one")).unwrap();
    assert_eq!(queue.publish(&keyed("a", "one")).unwrap(), id);
    drop(queue);
    let queue = open(&memory, small());
    assert_eq!(queue.publish(&keyed("a", "one")).unwrap(), id);
    let refused = queue.publish(&keyed("a", "two")).unwrap_err();
    assert!(matches!(refused, EventError::KeyReused), "{refused}");
    assert_ne!(queue.publish(&keyed("b", "one")).unwrap(), id);
    let elsewhere = Event {
        topic: "/elsewhere".to_owned(),
        ..keyed("a", "two")
    };
    queue.publish(&elsewhere).unwrap();
    assert_eq!(deliver_all(&queue).len(), 3);
}

#[test]
fn keys_outlive_the_segments_of_their_events() {
    let memory: Arc<Memory> = Arc::default();
    let queue = open(&memory, small());
    let id = queue.publish(&keyed("old", "one")).unwrap();
    queue.deliver(|_| Outcome::Delivered).unwrap();
    let filler = "x".repeat(8000);
    for number in 0..200 {
        queue.publish(&keyed(&number.to_string(), &filler)).unwrap();
        eventually("it is delivered", || queue.stats().backlog == 0);
    }
    eventually("the first segment is gone", || {
        !memory
            .files()
            .iter()
            .any(|(name, _)| name == "0000000001.log")
    });
    drop(queue);
    let queue = open(&memory, small());
    assert_eq!(queue.publish(&keyed("old", "one")).unwrap(), id);
    assert!(queue.publish(&keyed("old", "two")).is_err());
}

#[test]
fn old_keys_make_room_for_new_ones() {
    let memory: Arc<Memory> = Arc::default();
    let queue = open(&memory, roomy());
    queue.deliver(|_| Outcome::Delivered).unwrap();
    let first = queue.publish(&keyed("0", "text")).unwrap();
    // The file of keys has 128 KiB, of which a fifth stays free: 2116 keys.
    for round in 0..2 {
        for number in 1..=2116 {
            let key = format!("{round} {number}");
            let event = keyed(&key, &"text".repeat(200));
            // They may come faster than they are delivered.
            eventually("there is room", || queue.publish(&event).is_ok());
        }
        eventually("all is delivered", || queue.stats().backlog == 0);
    }
    drop(queue);
    let queue = open(&memory, roomy());
    let keys = lock(&queue.shared().live.owner.keys);
    assert!(keys.kept() <= 2116);
    drop(keys);
    assert_ne!(queue.publish(&keyed("0", "text")).unwrap(), first);
}

#[test]
fn the_same_key_at_the_same_time_is_one_event() {
    let memory = Arc::default();
    let queue = open(&memory, roomy());
    let ids = thread::scope(|scope| {
        let publish = || queue.publish(&keyed("k", "one")).unwrap();
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(publish)).collect();
        let ids = threads.into_iter().map(|thread| thread.join().unwrap());
        counted(ids)
    });
    assert_eq!(ids.len(), 1);
    assert_eq!(queue.stats().accepted, 1);
}

#[test]
fn a_key_whose_event_was_refused_is_free() {
    let memory: Arc<Memory> = Arc::default();
    let queue = open(&memory, roomy());
    memory.fail(|op, _| (op == memory::Op::Sync).then_some(std::io::ErrorKind::Other));
    assert!(queue.publish(&keyed("k", "one")).is_err());
    memory.heal();
    eventually("the disk is tried again", || {
        queue.publish(&keyed("k", "two")).is_ok()
    });
}
