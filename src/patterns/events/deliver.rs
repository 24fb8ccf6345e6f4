//! The threads that deliver.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime};

use super::dead::Letter;
use super::error::EventError;
use super::event::{Death, Delivery, Outcome, Stored, milliseconds, time};
use super::schedule::Next;
use super::shared::SharedQueue;
use crate::panics::lock;
use crate::random::uniform;

/// Delivers what is due until the queue stops.
pub(crate) fn run(shared: &SharedQueue, deliver: &dyn Fn(&Delivery) -> Outcome) {
    while let Some((slot, attempt)) = next(shared) {
        attempt_one(shared, slot, attempt, deliver);
    }
}

/// Waits for an event that is due: its slot, and which attempt this is. `None` once the queue stops.
fn next(shared: &SharedQueue) -> Option<(u32, u32)> {
    let live = &shared.live.owner;
    let mut schedule = lock(&live.schedule);
    loop {
        if shared.stopping.load(Ordering::Acquire) {
            return None;
        }
        let now = Instant::now();
        schedule = match schedule.poll(now) {
            Next::Deliver(slot) => {
                return Some((slot, schedule.attempts(slot).saturating_add(1)));
            }
            Next::Wait(None) => live
                .due
                .wait(schedule)
                .unwrap_or_else(PoisonError::into_inner),
            Next::Wait(Some(until)) => {
                let longest = until.saturating_duration_since(now);
                live.due
                    .wait_timeout(schedule, longest)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
    }
}

fn attempt_one(
    shared: &SharedQueue,
    slot: u32,
    attempt: u32,
    deliver: &dyn Fn(&Delivery) -> Outcome,
) {
    let stored = match shared.live.read(slot) {
        Ok(body) => body.and_then(|body| Stored::decode(&body)),
        Err(error) => {
            log::error!("cannot read an event: {error}");
            // A disk that cannot be read is waited for as a consumer is that cannot be reached.
            let mut schedule = lock(&shared.live.owner.schedule);
            schedule.unreachable(slot, Instant::now());
            return;
        }
    };
    let Some(stored) = stored else {
        log::error!("an event is damaged, and cannot be delivered");
        shared.lost.fetch_add(1, Ordering::Relaxed);
        finish(shared, slot, false);
        return;
    };
    let delivery = Delivery {
        id: stored.id,
        attempt,
        accepted: time(stored.accepted),
        event: stored.event,
    };
    match Outcome::of(deliver, &delivery) {
        Outcome::Delivered => {
            shared.delivered.fetch_add(1, Ordering::Relaxed);
            finish(shared, slot, true);
        }
        Outcome::Rejected { reason } => bury(shared, slot, &delivery, reason),
        Outcome::Failed {
            reason,
            retry_after,
        } => {
            let (now, wall) = (Instant::now(), milliseconds(SystemTime::now()));
            let luck = uniform();
            let note = {
                let mut schedule = lock(&shared.live.owner.schedule);
                schedule.retry(slot, retry_after, luck, now, wall)
            };
            if let Some(note) = note {
                shared.retried.fetch_add(1, Ordering::Relaxed);
                shared.live.note(slot, note);
                shared.live.owner.due.notify_all();
            } else {
                bury(shared, slot, &delivery, reason);
            }
        }
        Outcome::Unreachable => {
            let mut schedule = lock(&shared.live.owner.schedule);
            schedule.unreachable(slot, Instant::now());
            drop(schedule);
            shared.live.owner.due.notify_one();
        }
    }
}

fn finish(shared: &SharedQueue, slot: u32, reached: bool) {
    lock(&shared.live.owner.schedule).finish(slot, reached);
    // Another of its key may go now, or all others after a pause.
    shared.live.owner.due.notify_all();
    shared.live.done(slot);
}

/// Makes an event a dead letter; if that cannot be, it is tried again later.
fn bury(shared: &SharedQueue, slot: u32, delivery: &Delivery, reason: String) {
    let wall = milliseconds(SystemTime::now());
    let sequence = lock(&shared.live.owner.schedule).sequence(slot);
    let death = Death {
        at: wall,
        sequence,
        attempts: delivery.attempt,
        reason,
    };
    let accepted = milliseconds(delivery.accepted);
    let body = Stored::encode(delivery.id, accepted, None, Some(&death), &delivery.event);
    let (id, died_as) = (delivery.id, sequence);
    let owner = Arc::clone(&shared.dead.owner);
    let kept = shared.dead.append(body, move |slot, sequence| {
        owner.put(Letter {
            id,
            slot,
            sequence,
            died_as,
            died: wall,
        });
    });
    let full = matches!(kept, Err(EventError::Full));
    shared.dead_full.store(full, Ordering::Relaxed);
    if let Err(error) = kept {
        log::warn!("an event cannot become a dead letter: {error}");
        let luck = uniform();
        let mut schedule = lock(&shared.live.owner.schedule);
        let note = schedule.hold(slot, luck, Instant::now(), wall);
        drop(schedule);
        shared.live.note(slot, note);
        shared.live.owner.due.notify_all();
        return;
    }
    log::warn!(
        "event {} is a dead letter after {} attempt(s): {}",
        delivery.id,
        delivery.attempt,
        death.reason
    );
    shared.died.fetch_add(1, Ordering::Relaxed);
    finish(shared, slot, true);
}

/// Starts one more thread that delivers.
pub(crate) fn start(
    shared: &Arc<SharedQueue>,
    deliver: Arc<dyn Fn(&Delivery) -> Outcome + Send + Sync>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("events".to_owned())
        .spawn(move || run(&shared, &*deliver))
}
