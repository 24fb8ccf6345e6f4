//! Fetches that no client waits for.

use std::io;

use crossbeam_channel::{Sender, bounded};

use crate::threads::Threads;

/// How many are made at once.
const THREADS: usize = 2;

/// Most fetches that wait to be made.
const MOST_WAITING: usize = 256;

/// Makes fetches, with threads of its own.
pub(super) struct Background(Sender<Box<dyn FnOnce() + Send>>);

impl Background {
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(threads: &mut Threads) -> io::Result<Self> {
        let (sender, due) = bounded::<Box<dyn FnOnce() + Send>>(MOST_WAITING);
        for number in 0..THREADS {
            let due = due.clone();
            // It ends when nobody can ask for anything any more.
            threads.spawn("refreshes", format!("plimsoll-fresh-{number}"), move |_| {
                due.iter().for_each(|fetch| fetch());
            })?;
        }
        Ok(Self(sender))
    }

    /// Has a fetch made. One for which there is no room is given up: the next request for the same begins another.
    pub(super) fn run(&self, fetch: impl FnOnce() + Send + 'static) {
        drop(self.0.try_send(Box::new(fetch)));
    }
}
