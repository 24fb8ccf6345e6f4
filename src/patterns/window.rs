//! Two counts over the last ten seconds, without a lock.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How far back the counts reach: this second and the nine before it.
pub(super) const SPAN: Duration = Duration::from_secs(BUCKETS as u64);

const BUCKETS: usize = 10;

/// Bits of each count in a bucket. The rest is the second that the bucket stands for.
const BITS: u32 = 20;
const COUNT: u64 = (1 << BITS) - 1;
const STAMP: u64 = u64::MAX >> (2 * BITS);

/// Above this many in one second a count stays as it is. What is left below 2^20 keeps additions that run at the same
/// time from reaching into the next count.
const MOST: u64 = COUNT - 4096;

/// Two counts over the last ten seconds, which many threads add to. 96 bytes.
///
/// A bucket for each second holds both counts and the second in one word, so a bucket that is over is replaced in one
/// step. The seconds come round after 194 days; a bucket of just that age is taken for a new one, for a second.
/// Relaxed ordering is enough: the counts guard no other memory.
#[derive(Debug)]
pub(super) struct Window {
    origin: Instant,
    buckets: [AtomicU64; BUCKETS],
}

impl Window {
    pub(super) fn new(origin: Instant) -> Self {
        Self {
            origin,
            buckets: Default::default(),
        }
    }

    /// Adds to both counts; each addend is 0 or 1.
    pub(super) fn add(&self, now: Instant, [first, second]: [bool; 2]) {
        let second_of_now = self.second(now);
        let index = usize::try_from(second_of_now % BUCKETS as u64).unwrap_or(0);
        let stamp = second_of_now & STAMP;
        let addend = u64::from(first) | u64::from(second) << BITS;
        let bucket = &self.buckets[index];
        let mut word = bucket.load(Relaxed);
        loop {
            if word >> (2 * BITS) == stamp {
                if word & COUNT < MOST && (word >> BITS) & COUNT < MOST {
                    bucket.fetch_add(addend, Relaxed);
                }
                return;
            }
            // A thread that was held up for ten seconds does not overwrite what is newer.
            if age(word, stamp) > STAMP / 2 {
                return;
            }
            let fresh = stamp << (2 * BITS) | addend;
            match bucket.compare_exchange_weak(word, fresh, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(changed) => word = changed,
            }
        }
    }

    /// Both counts of the last ten seconds.
    pub(super) fn sums(&self, now: Instant) -> [u64; 2] {
        let stamp = self.second(now) & STAMP;
        let mut sums = [0; 2];
        for bucket in &self.buckets {
            let word = bucket.load(Relaxed);
            if age(word, stamp) < BUCKETS as u64 {
                sums[0] += word & COUNT;
                sums[1] += (word >> BITS) & COUNT;
            }
        }
        sums
    }

    /// Forgets both counts.
    pub(super) fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
    }

    /// Whole seconds since the origin; 0 before it.
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_secs()
    }
}

/// How many seconds before `stamp` the bucket was begun; close to the largest stamp when it was begun after.
fn age(word: u64, stamp: u64) -> u64 {
    stamp.wrapping_sub(word >> (2 * BITS)) & STAMP
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn counts_leave_after_ten_seconds() {
        let start = Instant::now();
        let window = Window::new(start);
        window.add(start, [true, true]);
        window.add(start + 5 * SECOND, [true, false]);
        assert_eq!(window.sums(start + 9 * SECOND), [2, 1]);
        assert_eq!(window.sums(start + 10 * SECOND), [1, 0]);
        assert_eq!(window.sums(start + 15 * SECOND), [0, 0]);
        // The bucket of the first second is used again.
        window.add(start + 10 * SECOND, [false, true]);
        assert_eq!(window.sums(start + 10 * SECOND), [1, 1]);
        window.clear();
        assert_eq!(window.sums(start + 10 * SECOND), [0, 0]);
    }

    #[test]
    fn a_late_thread_does_not_overwrite_what_is_newer() {
        let start = Instant::now();
        let window = Window::new(start);
        window.add(start + 12 * SECOND, [true, false]);
        window.add(start + 2 * SECOND, [true, false]);
        assert_eq!(window.sums(start + 12 * SECOND), [1, 0]);
    }

    #[test]
    fn a_full_count_stays_full() {
        let start = Instant::now();
        let window = Window::new(start);
        for _ in 0..=COUNT {
            window.add(start, [true, false]);
        }
        assert_eq!(window.sums(start), [MOST, 0]);
    }

    #[test]
    fn no_addition_is_lost() {
        let start = Instant::now();
        let window = Window::new(start);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for at in 0..4000 {
                        window.add(start + at * Duration::from_millis(2), [true, at % 2 == 0]);
                    }
                });
            }
        });
        assert_eq!(window.sums(start + 8 * SECOND), [16_000, 8_000]);
    }
}
