//! Idle workers: one waits for the next request, the others are parked.
//!
//! Waking a thread costs as much as a small request. So a worker that finds nothing to do is parked as soon as another
//! one waits for the next request, and the event loop, which knows how much there is to do, wakes as many as that needs:
//!
//! ```text
//!             nothing to do, nobody receives             a request
//!   ┌▶ Working ───────────────────────────▶ Receiving ─────────────┐
//!   │     │                                      ▲                 │
//!   │     │ nothing to do, another receives      │ woken           │
//!   │     └─────────────────────────▶ Parked ────┘                 │
//!   └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! The one that begins to receive while nobody else does polls for a moment before it blocks, since the next request is
//! often some microseconds away. More of them would take the processor from those that make it ready.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::panics::lock;

/// The workers' states, as far as the event loop and the other workers have to know them.
#[derive(Debug)]
pub(crate) struct IdleWorkers {
    slots: Box<[Slot]>,
    parked: Mutex<Parked>,
    /// How many are not parked.
    awake: AtomicUsize,
    /// How many wait for the next request.
    receiving: AtomicUsize,
    processors: usize,
}

#[derive(Debug)]
struct Parked {
    /// In the order in which they were parked: the last is woken first, since its memory is the warmest.
    workers: Vec<usize>,
    /// Nobody is parked any more.
    closed: bool,
}

/// Where a worker is parked.
#[derive(Debug, Default)]
struct Slot {
    thread: OnceLock<Thread>,
    woken: AtomicBool,
}

impl IdleWorkers {
    /// All workers awake.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            slots: (0..workers).map(|_| Slot::default()).collect(),
            parked: Mutex::new(Parked {
                workers: Vec::with_capacity(workers),
                closed: false,
            }),
            awake: AtomicUsize::new(workers),
            receiving: AtomicUsize::new(0),
            processors: thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// How many workers are awake: they work, or wait for the next request.
    pub(crate) fn awake(&self) -> usize {
        self.awake.load(Ordering::Relaxed)
    }

    /// Notes that a worker has nothing to do: returns when it is to wait for the next request. While another one does,
    /// that is when it is woken.
    pub(crate) fn receive(&self, worker: usize) -> Receiver<'_> {
        let alone = self
            .receiving
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if !alone {
            self.park(worker);
            self.receiving.fetch_add(1, Ordering::AcqRel);
        }
        Receiver {
            idle_workers: self,
            alone,
        }
    }

    /// How many requests go through tiny_http together, each taking `service` by prediction: as many as are worth waking
    /// a worker for.
    pub(crate) fn batch(service: Option<Duration>) -> usize {
        let nanos = service.unwrap_or(WORK_PER_WAKE_UP).as_nanos().max(1);
        let batch = usize::try_from(WORK_PER_WAKE_UP.as_nanos() / nanos);
        batch.unwrap_or(usize::MAX).max(1)
    }

    /// Whether a worker waits for the next request.
    pub(crate) fn has_receiver(&self) -> bool {
        self.receiving.load(Ordering::Acquire) > 0
    }

    /// How many workers should be awake for so many requests that are with them or on their way, each taking `service`
    /// by prediction; without one, each is for a worker of its own. If requests are put off while they wait for another
    /// server, what is left for a worker computes, unless it takes long: more workers than processors would only take
    /// turns.
    pub(crate) fn needed(
        &self,
        requests: usize,
        service: Option<Duration>,
        are_put_off: bool,
    ) -> usize {
        let service = service.unwrap_or(WORK_PER_WAKE_UP);
        let most = if are_put_off && service < LONG {
            self.processors
        } else {
            usize::MAX
        };
        let work = service.as_nanos().saturating_mul(requests as u128);
        let workers = work.div_ceil(WORK_PER_WAKE_UP.as_nanos());
        let workers = usize::try_from(workers).unwrap_or(usize::MAX);
        workers.min(requests).min(self.slots.len()).min(most)
    }

    fn park(&self, worker: usize) {
        let slot = &self.slots[worker];
        slot.thread.get_or_init(thread::current);
        let mut parked = lock(&self.parked);
        if parked.closed {
            return;
        }
        parked.workers.push(worker);
        self.awake.fetch_sub(1, Ordering::Relaxed);
        drop(parked);
        while !slot.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }

    /// Wakes everybody, and parks nobody from now on: the server stops.
    pub(crate) fn close(&self) {
        lock(&self.parked).closed = true;
        self.wake(self.slots.len());
    }

    /// Wakes so many of those that are parked, or all if they are fewer.
    pub(crate) fn wake(&self, count: usize) {
        for _ in 0..count {
            let mut parked = lock(&self.parked);
            let Some(worker) = parked.workers.pop() else {
                return;
            };
            self.awake.fetch_add(1, Ordering::Relaxed);
            drop(parked);
            let slot = &self.slots[worker];
            slot.woken.store(true, Ordering::Release);
            if let Some(thread) = slot.thread.get() {
                thread.unpark();
            }
        }
    }
}

/// The work that a worker is woken for. Waking one costs some microseconds and a processor's caches; jobs shorter than
/// this are quicker done one after the other.
const WORK_PER_WAKE_UP: Duration = Duration::from_micros(100);

/// A job that takes so long is likely to wait for something.
const LONG: Duration = Duration::from_millis(1);

/// A worker that waits for the next request, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Receiver<'a> {
    idle_workers: &'a IdleWorkers,
    /// Nobody else did when it began.
    alone: bool,
}

impl Receiver<'_> {
    /// Whether it pays to poll for the next request before blocking.
    pub(crate) fn may_poll(&self) -> bool {
        self.alone
    }
}

impl Drop for Receiver<'_> {
    fn drop(&mut self) {
        self.idle_workers.receiving.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::{PATIENCE, await_that};
    use std::sync::mpsc;

    #[test]
    fn the_first_to_have_nothing_to_do_receives_and_the_others_are_parked_until_they_are_woken() {
        let idle_workers = IdleWorkers::new(3);
        let first = idle_workers.receive(0);
        assert!(first.may_poll());
        thread::scope(|scope| {
            let (told, woken) = mpsc::channel();
            for worker in 1..3 {
                let (idle_workers, told) = (&idle_workers, told.clone());
                scope.spawn(move || {
                    let receiver = idle_workers.receive(worker);
                    told.send(receiver.may_poll()).unwrap();
                });
            }
            await_that("both are parked", || idle_workers.awake() == 1);
            assert!(woken.try_recv().is_err());
            idle_workers.wake(1);
            assert_eq!(woken.recv_timeout(PATIENCE), Ok(false));
            assert_eq!(idle_workers.awake(), 2);
            // More than there are.
            idle_workers.wake(7);
            assert_eq!(woken.recv_timeout(PATIENCE), Ok(false));
            assert_eq!(idle_workers.awake(), 3);
        });
        drop(first);
        assert!(
            idle_workers.receive(1).may_poll(),
            "nobody receives any more"
        );
    }

    /// A worker that found nothing to do just before the server stopped slept for ever.
    #[test]
    fn nobody_is_parked_once_it_is_closed() {
        let idle_workers = IdleWorkers::new(3);
        let _receiver = idle_workers.receive(0);
        thread::scope(|scope| {
            let parked = scope.spawn(|| drop(idle_workers.receive(1)));
            await_that("it is parked", || idle_workers.awake() == 2);
            idle_workers.close();
            await_that("it is woken", || parked.is_finished());
            let late = scope.spawn(|| drop(idle_workers.receive(2)));
            await_that("it is not parked", || late.is_finished());
        });
    }

    #[test]
    fn short_jobs_share_a_worker_and_long_ones_have_one_each() {
        let idle_workers = IdleWorkers::new(4);
        let micros = |micros| Some(Duration::from_micros(micros));
        for (requests, service, needed) in [
            (0, micros(5), 0),
            (1, micros(5), 1),
            (16, micros(5), 1),
            (64, micros(5), 4),
            (2, micros(100), 2),
            (3, micros(20_000), 3),
            (64, micros(20_000), 4),
            (3, None, 3),
            (usize::MAX, Some(Duration::MAX), 4),
        ] {
            assert_eq!(
                idle_workers.needed(requests, service, false),
                needed,
                "{requests} of {service:?}"
            );
        }
    }

    #[test]
    fn where_requests_are_put_off_no_more_workers_compute_than_there_are_processors() {
        let idle_workers = IdleWorkers {
            processors: 2,
            ..IdleWorkers::new(64)
        };
        for (requests, micros, needed) in [(64, 20, 2), (64, 999, 2), (1, 20, 1), (64, 1000, 64)] {
            let service = Some(Duration::from_micros(micros));
            let found = idle_workers.needed(requests, service, true);
            assert_eq!(found, needed, "{requests} of {service:?}");
        }
    }

    #[test]
    fn as_many_go_through_together_as_are_worth_waking_a_worker_for() {
        for (nanos, batch) in [(0, 100_000), (5_000, 20), (60_000, 1), (u64::MAX, 1)] {
            let service = Duration::from_nanos(nanos);
            assert_eq!(IdleWorkers::batch(Some(service)), batch, "{service:?}");
        }
        assert_eq!(IdleWorkers::batch(None), 1);
    }
}
