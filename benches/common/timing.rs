//! How the benches of single parts are timed.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::Criterion;

/// How long `threads` threads take for `each` operations each, all at once.
pub(crate) fn contended(threads: usize, each: u64, operation: impl Fn() + Sync) -> Duration {
    let start = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    (0..each).for_each(|_| operation());
                })
            })
            .collect();
        start.wait();
        let begun = Instant::now();
        for worker in workers {
            worker.join().expect("no operation panics");
        }
        begun.elapsed()
    })
}

/// With QUICK=1 each measurement is as short as it can be and still say something.
pub(crate) fn settings() -> Criterion {
    let criterion = Criterion::default();
    if !crate::common::quick() {
        return criterion
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_millis(1500));
    }
    criterion
        .sample_size(10)
        .nresamples(1000)
        .warm_up_time(Duration::from_millis(20))
        .measurement_time(Duration::from_millis(60))
}
