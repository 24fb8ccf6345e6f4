//! Which workers are awake.
//!
//! Waking a thread costs as much as a small request. So a worker that finds nothing to do rests here as soon as another
//! one listens for the next request, and the frontend, which knows how much there is to do, calls as many as that
//! needs:
//!
//! ```text
//!             nothing to do, nobody listens              a request
//!   ┌▶ Working ────────────────────────────▶ Listening ────────────┐
//!   │     │                                      ▲                 │
//!   │     │ nothing to do, another listens       │ called          │
//!   │     └────────────────────────▶ Resting ────┘                 │
//!   └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! The one that begins to listen while nobody else does looks around for a moment before it blocks, since the next
//! request is often some microseconds away. More of them would take the processor from those that make it ready.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::panics::lock;

/// The workers' states, as far as the frontend and the other workers have to know them.
#[derive(Debug)]
pub(crate) struct Roster {
    seats: Box<[Seat]>,
    resting: Mutex<Resting>,
    /// How many do not rest.
    awake: AtomicUsize,
    /// How many listen.
    listening: AtomicUsize,
}

#[derive(Debug)]
struct Resting {
    /// Who rests, the latest last: it is called first, since its memory is the warmest.
    workers: Vec<usize>,
    /// Nobody rests any more.
    closed: bool,
}

/// Where a worker rests.
#[derive(Debug, Default)]
struct Seat {
    thread: OnceLock<Thread>,
    called: AtomicBool,
}

impl Roster {
    /// All workers awake.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            seats: (0..workers).map(|_| Seat::default()).collect(),
            resting: Mutex::new(Resting {
                workers: Vec::with_capacity(workers),
                closed: false,
            }),
            awake: AtomicUsize::new(workers),
            listening: AtomicUsize::new(0),
        }
    }

    /// How many workers are awake: they work, or listen for the next request.
    pub(crate) fn awake(&self) -> usize {
        self.awake.load(Ordering::Relaxed)
    }

    /// Notes that a worker has nothing to do: returns when it is to listen. While another one listens, that is when it
    /// is called.
    pub(crate) fn listen(&self, worker: usize) -> Listening<'_> {
        let alone = self
            .listening
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if !alone {
            self.rest(worker);
            self.listening.fetch_add(1, Ordering::AcqRel);
        }
        Listening {
            roster: self,
            alone,
        }
    }

    /// How many requests go through tiny_http together, each taking `service` by prediction: as many as are worth waking
    /// a worker for.
    pub(crate) fn share(service: Option<Duration>) -> usize {
        let nanos = service.unwrap_or(SHARE).as_nanos().max(1);
        let share = usize::try_from(SHARE.as_nanos() / nanos);
        share.unwrap_or(usize::MAX).max(1)
    }

    /// Whether a worker waits for the next request.
    pub(crate) fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Acquire) > 0
    }

    /// How many workers should be awake for so many requests that are with them or on their way, each taking `service`
    /// by prediction; without one, each is for a worker of its own.
    pub(crate) fn needed(&self, requests: usize, service: Option<Duration>) -> usize {
        let service = service.unwrap_or(SHARE);
        let work = service.as_nanos().saturating_mul(requests as u128);
        let shares = work.div_ceil(SHARE.as_nanos());
        let shares = usize::try_from(shares).unwrap_or(usize::MAX);
        shares.min(requests).min(self.seats.len())
    }

    fn rest(&self, worker: usize) {
        let seat = &self.seats[worker];
        seat.thread.get_or_init(thread::current);
        let mut resting = lock(&self.resting);
        if resting.closed {
            return;
        }
        resting.workers.push(worker);
        self.awake.fetch_sub(1, Ordering::Relaxed);
        drop(resting);
        while !seat.called.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }

    /// Calls everybody, and lets nobody rest from now on: the server stops.
    pub(crate) fn close(&self) {
        lock(&self.resting).closed = true;
        self.call(self.seats.len());
    }

    /// Calls so many of those that rest, or all if they are fewer.
    pub(crate) fn call(&self, count: usize) {
        for _ in 0..count {
            let mut resting = lock(&self.resting);
            let Some(worker) = resting.workers.pop() else {
                return;
            };
            self.awake.fetch_add(1, Ordering::Relaxed);
            drop(resting);
            let seat = &self.seats[worker];
            seat.called.store(true, Ordering::Release);
            if let Some(thread) = seat.thread.get() {
                thread.unpark();
            }
        }
    }
}

/// The work that a worker is woken for. Waking one costs some microseconds and a processor's caches; jobs shorter than
/// this are quicker done one after the other.
const SHARE: Duration = Duration::from_micros(100);

/// A worker's time of listening.
#[derive(Debug)]
pub(crate) struct Listening<'a> {
    roster: &'a Roster,
    /// Nobody else listened when it began.
    alone: bool,
}

impl Listening<'_> {
    /// Whether it pays to look for the next request before blocking.
    pub(crate) fn may_spin(&self) -> bool {
        self.alone
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.roster.listening.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::{PATIENCE, await_that};
    use std::sync::mpsc;

    #[test]
    fn the_first_to_have_nothing_to_do_listens_and_the_others_rest_until_they_are_called() {
        let roster = Roster::new(3);
        let first = roster.listen(0);
        assert!(first.may_spin());
        thread::scope(|scope| {
            let (told, listening) = mpsc::channel();
            for worker in 1..3 {
                let (roster, told) = (&roster, told.clone());
                scope.spawn(move || {
                    let listening = roster.listen(worker);
                    told.send(listening.may_spin()).unwrap();
                });
            }
            await_that("both rest", || roster.awake() == 1);
            assert!(listening.try_recv().is_err());
            roster.call(1);
            assert_eq!(listening.recv_timeout(PATIENCE), Ok(false));
            assert_eq!(roster.awake(), 2);
            // More than there are.
            roster.call(7);
            assert_eq!(listening.recv_timeout(PATIENCE), Ok(false));
            assert_eq!(roster.awake(), 3);
        });
        drop(first);
        assert!(roster.listen(1).may_spin(), "nobody listens any more");
    }

    /// A worker that found nothing to do just before the server stopped slept for ever.
    #[test]
    fn nobody_rests_once_it_is_closed() {
        let roster = Roster::new(3);
        let _listening = roster.listen(0);
        thread::scope(|scope| {
            let resting = scope.spawn(|| drop(roster.listen(1)));
            await_that("it rests", || roster.awake() == 2);
            roster.close();
            await_that("it is called", || resting.is_finished());
            let late = scope.spawn(|| drop(roster.listen(2)));
            await_that("it does not rest", || late.is_finished());
        });
    }

    #[test]
    fn short_jobs_share_a_worker_and_long_ones_have_one_each() {
        let roster = Roster::new(4);
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
                roster.needed(requests, service),
                needed,
                "{requests} of {service:?}"
            );
        }
    }

    #[test]
    fn as_many_go_through_together_as_are_worth_waking_a_worker_for() {
        for (nanos, share) in [(0, 100_000), (5_000, 20), (60_000, 1), (u64::MAX, 1)] {
            let service = Duration::from_nanos(nanos);
            assert_eq!(Roster::share(Some(service)), share, "{service:?}");
        }
        assert_eq!(Roster::share(None), 1);
    }
}
