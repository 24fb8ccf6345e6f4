//! The reset thread: it waits for a trip, sleeps the cooldown, and starts the averages afresh. Nothing else does.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::Health;
use crate::threads::Threads;

/// Starts the thread. It ends when it is told to, in the middle of a sleep too.
pub(crate) fn spawn(
    health: Arc<Health>,
    trips: Receiver<Duration>,
    threads: &mut Threads,
) -> io::Result<()> {
    let stop = threads.stopped();
    threads.spawn("the reset thread", "plimsoll-reset", move |_alive| {
        run(&health, &trips, &stop);
    })
}

fn run(health: &Health, trips: &Receiver<Duration>, stop: &Receiver<()>) {
    loop {
        let cooldown = crossbeam_channel::select! {
            recv(trips) -> trip => trip,
            recv(stop) -> _ => return,
        };
        let Ok(mut sleep) = cooldown else { return };
        loop {
            match stop.recv_timeout(sleep) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
            match health.reset(Instant::now()) {
                Some(again) => sleep = again,
                None => break,
            }
        }
        log::info!("reset: averages start afresh");
    }
}
