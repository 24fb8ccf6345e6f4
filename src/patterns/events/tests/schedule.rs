use super::super::record::Note;
use super::super::schedule::{Arrival, Next, Schedule};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn arrival(sequence: u64, key: u64) -> Arrival {
    Arrival {
        sequence,
        key,
        accepted: 0,
    }
}

fn schedule(delays: &[u64]) -> (Schedule, Instant) {
    let now = Instant::now();
    let delays = delays.iter().copied().map(Duration::from_secs).collect();
    (Schedule::new(delays, now), now)
}

#[test]
fn events_go_in_the_order_in_which_they_came() {
    let (mut schedule, now) = schedule(&[1]);
    for slot in 0..3 {
        schedule.insert(slot, arrival(slot.into(), 0), now);
    }
    for slot in 0..3 {
        assert_eq!(schedule.poll(now), Next::Deliver(slot));
    }
    assert_eq!(schedule.poll(now), Next::Wait(None));
}

#[test]
fn a_failed_event_waits_its_step_and_is_given_up_after_the_last() {
    let (mut schedule, mut now) = schedule(&[10, 100]);
    schedule.insert(0, arrival(1, 0), now);
    for (attempts, step) in [(1, 10), (2, 100)] {
        assert_eq!(schedule.poll(now), Next::Deliver(0));
        let note = schedule.retry(0, None, 0.5, now, 5_000).unwrap();
        assert_eq!((note.attempts, note.delay), (attempts, step * 1000));
        assert_eq!(note.due, 5_000 + u64::from(step) * 1000);
        let Next::Wait(Some(due)) = schedule.poll(now) else {
            panic!("it is not due yet");
        };
        let exact = now + Duration::from_secs(step.into());
        assert!(due >= exact && due < exact + Duration::from_millis(1));
        now = due;
    }
    assert_eq!(schedule.poll(now), Next::Deliver(0));
    assert_eq!(schedule.retry(0, None, 0.5, now, 0), None);
    schedule.finish(0, true);
    assert_eq!(schedule.backlog(), 0);
}

#[test]
fn a_wait_is_jittered_by_a_fifth_and_a_consumer_may_ask_for_one_up_to_the_longest_step() {
    for (what, luck, asked, milliseconds) in [
        ("the shortest", 0.0, None, 8_000),
        ("the mean", 0.5, None, 10_000),
        ("the longest", 0.999_999, None, 11_999),
        ("asked for less", 0.5, Some(1), 10_000),
        ("asked for more", 0.5, Some(50), 50_000),
        ("asked for too much", 0.5, Some(5_000), 100_000),
    ] {
        let (mut schedule, now) = schedule(&[10, 100]);
        schedule.insert(0, arrival(1, 0), now);
        assert_eq!(schedule.poll(now), Next::Deliver(0));
        let asked = asked.map(Duration::from_secs);
        let note = schedule.retry(0, asked, luck, now, 0).unwrap();
        assert_eq!(note.delay, milliseconds, "{what}");
    }
}

#[test]
fn one_event_of_a_key_goes_at_a_time_and_others_go_beside_it() {
    let (mut schedule, now) = schedule(&[10]);
    for slot in 0..3 {
        schedule.insert(slot, arrival(slot.into(), 7), now);
    }
    schedule.insert(3, arrival(3, 8), now);
    assert_eq!(schedule.poll(now), Next::Deliver(0));
    assert_eq!(schedule.poll(now), Next::Deliver(3));
    assert_eq!(schedule.poll(now), Next::Wait(None));
    // A failed one keeps its place.
    schedule.retry(0, None, 0.5, now, 0).unwrap();
    assert!(matches!(schedule.poll(now), Next::Wait(Some(_))));
    let now = now + 11 * SECOND;
    assert_eq!(schedule.poll(now), Next::Deliver(0));
    schedule.finish(0, true);
    assert_eq!(schedule.poll(now), Next::Deliver(1));
    schedule.finish(1, true);
    schedule.insert(0, arrival(4, 7), now);
    assert_eq!(schedule.poll(now), Next::Deliver(2));
    schedule.finish(2, true);
    assert_eq!(schedule.poll(now), Next::Deliver(0));
    schedule.finish(0, true);
    schedule.insert(1, arrival(5, 7), now);
    assert_eq!(schedule.poll(now), Next::Deliver(1), "the key starts anew");
}

#[test]
fn an_unreachable_consumer_is_tried_with_one_event_at_growing_waits_and_that_is_no_attempt() {
    let (mut schedule, mut now) = schedule(&[10]);
    for slot in 0..4 {
        schedule.insert(slot, arrival(slot.into(), 0), now);
    }
    assert_eq!(schedule.poll(now), Next::Deliver(0));
    assert_eq!(schedule.poll(now), Next::Deliver(1));
    schedule.unreachable(0, now);
    schedule.unreachable(1, now);
    for wait in [1, 2, 4, 8, 15, 15] {
        assert_eq!(schedule.poll(now), Next::Wait(Some(now + wait * SECOND)));
        now += wait * SECOND;
        assert_eq!(schedule.poll(now), Next::Deliver(0));
        assert_eq!(schedule.poll(now), Next::Wait(None), "one alone");
        assert_eq!(schedule.attempts(0), 0);
        assert!(schedule.is_paused());
        schedule.unreachable(0, now);
    }
    now += 15 * SECOND;
    assert_eq!(schedule.poll(now), Next::Deliver(0));
    schedule.retry(0, None, 0.5, now, 0).unwrap();
    assert!(!schedule.is_paused(), "an answer is an answer");
    for slot in 1..4 {
        assert_eq!(schedule.poll(now), Next::Deliver(slot));
    }
}

#[test]
fn after_a_start_an_event_waits_what_was_left_and_never_longer_than_its_step() {
    let note = |due| Note {
        due,
        delay: 10_000,
        attempts: 2,
    };
    // The clock may have been set back by years meanwhile.
    for (due, wall, left) in [(15_000, 9_000, 6), (15_000, 99_000, 0), (1 << 50, 0, 10)] {
        let (mut schedule, now) = schedule(&[10, 10, 10]);
        schedule.restore(0, arrival(1, 0));
        schedule.restore_note(0, &note(due), wall);
        schedule.start();
        assert_eq!(schedule.attempts(0), 2);
        if left > 0 {
            let before = (now + left * SECOND)
                .checked_sub(Duration::from_millis(1))
                .unwrap();
            assert!(matches!(schedule.poll(before), Next::Wait(Some(_))));
        }
        let now = now + left * SECOND;
        assert_eq!(schedule.poll(now), Next::Deliver(0));
    }
}
