//! Fetches that no client waits for.

use std::io;

use crossbeam_channel::{Sender, bounded};

use crate::threads::Threads;

/// How many are made at once.
const THREADS: usize = 2;

/// Makes fetches, with threads of its own.
pub(super) struct Background(Sender<Box<dyn FnOnce() + Send>>);

impl Background {
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(threads: &mut Threads) -> io::Result<Self> {
        // Without a queue: as soon as a fetch has begun in the cache, requests may wait for it.
        let (sender, due) = bounded::<Box<dyn FnOnce() + Send>>(0);
        for number in 0..THREADS {
            let due = due.clone();
            // It ends when the sender is dropped, with the sidecar.
            threads.spawn("refreshes", format!("plimsoll-fresh-{number}"), move |_| {
                due.iter().for_each(|fetch| fetch());
            })?;
        }
        Ok(Self(sender))
    }

    /// Has a fetch made. If no thread is free it is given up: the next request for the same begins another.
    pub(super) fn run(&self, fetch: impl FnOnce() + Send + 'static) {
        drop(self.0.try_send(Box::new(fetch)));
    }
}
