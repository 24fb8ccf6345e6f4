//! Busy polling: asking for what comes next a few times before blocking.
//!
//! A thread that blocks is woken some microseconds late, and whoever wakes it pays for that with a system call; where a
//! processor was put to sleep meanwhile, as on a virtual machine, it is tens of microseconds. While requests come often
//! it is cheaper to ask a few times, and to let whoever else wants the processor have it between.
//!
//! But a thread that yields to one that computes gets the processor back only when that one's time slice is over, some
//! milliseconds later, where one that is woken gets it at once. So after a yield that took long no thread polls for a
//! while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a thread polls at most.
const LONGEST: Duration = Duration::from_micros(50);

/// A yield that takes so long was to somebody who computes: the threads of a server that is only busy with small
/// requests take turns more quickly.
const LONG_YIELD: Duration = Duration::from_millis(1);

/// How long nobody polls then.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether polling pays, as all threads of a server have found.
#[derive(Debug)]
pub(crate) struct BusyPoll {
    started: Instant,
    /// Nanoseconds since the start; nobody polls before.
    paused_until: AtomicU64,
}

impl BusyPoll {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            paused_until: AtomicU64::new(0),
        }
    }

    /// Calls `ask` until it returns something: once at least, and for a moment at most.
    pub(crate) fn poll<T>(&self, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
        let began = Instant::now();
        let mut now = began;
        loop {
            if let Some(found) = ask() {
                return Some(found);
            }
            if now.saturating_duration_since(began) >= LONGEST || self.is_paused(now) {
                return None;
            }
            thread::yield_now();
            let before = now;
            now = Instant::now();
            self.note_yield(before, now);
        }
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.nanos(now) < self.paused_until.load(Ordering::Relaxed)
    }

    /// Notes how long a yield took, with the question before it.
    fn note_yield(&self, from: Instant, to: Instant) {
        if to.saturating_duration_since(from) >= LONG_YIELD {
            let until = self.nanos(to + PAUSE);
            self.paused_until.store(until, Ordering::Relaxed);
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.started);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_until_something_is_found_or_the_time_is_over() {
        let busy_poll = BusyPoll::new();
        assert_eq!(busy_poll.poll(|| Some("found")), Some("found"));
        let mut asked = 0;
        let found = busy_poll.poll(|| {
            asked += 1;
            None::<()>
        });
        assert_eq!(found, None);
        assert!(asked >= 2, "{asked}");
    }

    #[test]
    fn nobody_asks_twice_for_a_while_after_a_yield_that_took_long() {
        const TICK: Duration = Duration::from_nanos(1);
        let busy_poll = BusyPoll::new();
        let start = busy_poll.started;
        busy_poll.note_yield(start + TICK, start + LONG_YIELD);
        assert!(!busy_poll.is_paused(start + LONG_YIELD));
        busy_poll.note_yield(start, start + LONG_YIELD);
        assert!(busy_poll.is_paused(start + LONG_YIELD));
        assert!(!busy_poll.is_paused(start + LONG_YIELD + PAUSE));
        assert!(busy_poll.is_paused(start + LONG_YIELD.saturating_sub(TICK) + PAUSE));

        let ahead = Instant::now();
        busy_poll.note_yield(ahead, ahead + Duration::from_secs(60 * 60));
        let mut asked = 0;
        let found = busy_poll.poll(|| {
            asked += 1;
            None::<()>
        });
        assert_eq!((found, asked), (None, 1));
    }
}
