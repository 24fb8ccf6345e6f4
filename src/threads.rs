//! Threads that are started together and end together.
//!
//! Each is told to end by a channel that is disconnected, which ends a wait on it too. How long its end is waited for is
//! up to the list's owner: one that hangs in a user's code can't be ended, and is left to itself.

use std::io;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

/// A list of threads. Dropping it tells them to end, and waits for none.
pub(crate) struct Threads {
    /// Nothing is ever sent: its end is the word.
    _stop: Sender<()>,
    stopped: Receiver<()>,
    started: Vec<Started>,
}

/// A thread of the list.
struct Started {
    /// What the log calls it and its like.
    what: &'static str,
    thread: JoinHandle<()>,
    /// Disconnected when nobody holds its [`Alive`] any more.
    ended: Receiver<()>,
}

/// Held by a thread of a list for as long as it runs, and by those that it starts in turn.
#[derive(Clone)]
pub(crate) struct Alive(#[expect(dead_code, reason = "held only to be dropped")] Sender<()>);

impl Threads {
    pub(crate) fn new() -> Self {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        Self {
            _stop: stop,
            stopped,
            started: Vec::new(),
        }
    }

    /// What tells a thread to end: it is disconnected then.
    pub(crate) fn stopped(&self) -> Receiver<()> {
        self.stopped.clone()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.started.len()
    }

    /// Starts a thread of that name; `what` is what the log calls it and its like.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn spawn(
        &mut self,
        what: &'static str,
        name: impl Into<String>,
        run: impl FnOnce(Alive) + Send + 'static,
    ) -> io::Result<()> {
        let (alive, ended) = crossbeam_channel::bounded(0);
        let alive = Alive(alive);
        let thread = Builder::new().name(name.into()).spawn(move || run(alive))?;
        self.started.push(Started {
            what,
            thread,
            ended,
        });
        Ok(())
    }

    /// Tells all to end; they are yet to be [joined](Stopped::join).
    pub(crate) fn stop(self) -> Stopped {
        Stopped(self.started)
    }
}

/// Threads that have been told to end.
#[must_use]
pub(crate) struct Stopped(Vec<Started>);

impl Stopped {
    /// Joins those that end by the deadline, and says which did not, or panicked.
    pub(crate) fn join(self, deadline: Instant) {
        let mut hanging = Vec::new();
        for Started {
            what,
            thread,
            ended,
        } in self.0
        {
            match ended.recv_deadline(deadline) {
                Err(RecvTimeoutError::Timeout) if hanging.contains(&what) => {}
                Err(RecvTimeoutError::Timeout) => hanging.push(what),
                Err(RecvTimeoutError::Disconnected) | Ok(()) => {
                    if thread.join().is_err() {
                        log::error!("a thread panicked: {what}");
                    }
                }
            }
        }
        for what in hanging {
            log::warn!("left behind, as they hang: {what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// Longer than any test should take.
    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn all_are_told_to_end_and_joined() {
        let mut threads = Threads::new();
        let ended = Arc::new(AtomicUsize::new(0));
        for index in 0..3 {
            let (stopped, ended) = (threads.stopped(), ended.clone());
            let run = move |_alive| {
                assert!(stopped.recv().is_err());
                ended.fetch_add(1, Ordering::Relaxed);
            };
            threads
                .spawn("tests", format!("test-{index}"), run)
                .unwrap();
        }
        assert_eq!(threads.len(), 3);
        threads.stop().join(Instant::now() + PATIENCE);
        assert_eq!(ended.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn one_that_hangs_is_waited_for_until_the_deadline_and_the_others_are_joined() {
        let mut threads = Threads::new();
        let (go_on, hangs) = crossbeam_channel::bounded::<()>(0);
        let run = move |_alive| assert!(hangs.recv().is_err());
        threads.spawn("tests", "test-hangs", run).unwrap();
        threads.spawn("tests", "test-ends", |_| {}).unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        threads.stop().join(deadline);
        assert!(Instant::now() >= deadline);
        drop(go_on);
    }

    /// A check's thread ends before those of its runs, whose results come from a user's code too.
    #[test]
    fn a_thread_has_ended_when_those_that_it_started_have() {
        let mut threads = Threads::new();
        let (go_on, waits) = crossbeam_channel::bounded::<()>(0);
        let run = move |alive: Alive| {
            std::thread::spawn(move || {
                let _alive = alive;
                assert!(waits.recv().is_err());
            });
        };
        threads.spawn("tests", "test-starts", run).unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        threads.stop().join(deadline);
        assert!(Instant::now() >= deadline, "the second thread still ran");
        drop(go_on);
    }

    #[test]
    fn a_panic_is_no_hindrance() {
        let mut threads = Threads::new();
        threads
            .spawn("tests", "test-panics", |_| panic!("as the test asked"))
            .unwrap();
        threads.stop().join(Instant::now() + PATIENCE);
    }
}
