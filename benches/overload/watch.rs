//! Somebody who asks for `/health`, and somebody who watches the gate, beside a load.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::subject::Subject;
use crate::common;

/// The gate at one look; looks that saw the same as the one before only move `until`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) state: &'static str,
    pub(super) trips: u64,
    /// The first look had ended here ...
    pub(super) from: Instant,
    /// ... and the last began here.
    pub(super) until: Instant,
}

/// Runs `load` with somebody asking for `/health` and somebody watching the gate beside it.
pub(super) struct Watched<T> {
    pub(super) result: T,
    /// Seconds that `/health` took.
    pub(super) health: Vec<f64>,
    pub(super) looks: Vec<Look>,
    /// The longest that the watcher, who sleeps a millisecond at a time, was away: how long the machine stood still.
    pub(super) pause: Duration,
}

pub(super) fn watched<T>(
    subject: &Subject,
    load: impl FnOnce() -> io::Result<T>,
) -> io::Result<Watched<T>> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let health = scope.spawn(|| {
            let mut times = Vec::new();
            while !over.load(Relaxed) {
                let asked = Instant::now();
                // One that fails took the longest there is.
                let answered = common::get(subject.address(), "/health");
                let took = answered.map_or(f64::INFINITY, |_| asked.elapsed().as_secs_f64());
                times.push(took);
                thread::sleep(Duration::from_millis(20));
            }
            times
        });
        let gate = scope.spawn(|| {
            let mut looks: Vec<Look> = Vec::new();
            let mut pause = Duration::ZERO;
            let Subject::Plimsoll { server, .. } = subject else {
                return (looks, pause);
            };
            let mut until = Instant::now();
            while !over.load(Relaxed) {
                pause = pause.max(until.elapsed());
                until = Instant::now();
                let snapshot = server.health().snapshot();
                let from = Instant::now();
                let (state, trips) = (snapshot.gate.as_str(), snapshot.trips);
                match looks.last_mut() {
                    Some(last) if (last.state, last.trips) == (state, trips) => last.until = until,
                    _ => looks.push(Look {
                        state,
                        trips,
                        from,
                        until,
                    }),
                }
                thread::sleep(Duration::from_millis(1));
            }
            (looks, pause)
        });
        let result = load();
        over.store(true, Relaxed);
        let health = health.join().map_err(|_| io::Error::other("a panic"))?;
        let (looks, pause) = gate.join().map_err(|_| io::Error::other("a panic"))?;
        Ok(Watched {
            result: result?,
            health,
            looks,
            pause,
        })
    })
}
