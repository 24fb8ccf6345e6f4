//! Runs the checks of data stores: one thread decides when, and each run has a thread of its own.
//!
//! Only so many runs go on within their time at the same moment. One that outlives it gives its place up to others, and keeps
//! its thread; its check does not run again before it has ended, so there is never more than one thread for each check.

use std::io;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, at, never};

use super::watch::{Change, Finding, Moment};
use super::{Check, CheckError, Watched};
use crate::panics::lock;
use crate::random::{self, Random};
use crate::threads::{Alive, Threads};

/// Most runs of checks of data stores that go on at the same time, those that have outlived their time aside. Enough
/// that, at the usual interval and timeout, twenty stores that hang keep no other waiting for longer than its interval;
/// few, for small hosts.
pub(crate) const STORES_SIDE_BY_SIDE: usize = 4;

/// A run's word that it has ended.
struct Ended {
    /// Of the check.
    index: usize,
    at: Moment,
    outcome: Outcome,
}

/// How a run ended.
enum Outcome {
    /// The system gave no thread for it.
    NotStarted,
    Panicked,
    Found(Finding),
}

/// Starts the thread, if there is something to check. It ends when it is told to; runs that go on then are left to
/// themselves. The checks are those of the `watched`, in the same order; at most `side_by_side` of them run at the same
/// time.
pub(crate) fn spawn(
    watched: Arc<[Arc<Watched>]>,
    checks: Vec<Arc<dyn Check>>,
    side_by_side: usize,
    threads: &mut Threads,
) -> io::Result<()> {
    if checks.is_empty() {
        return Ok(());
    }
    // Every check has one run at most, so none ever waits to say that it has ended.
    let (sender, ended) = crossbeam_channel::bounded(checks.len());
    let stop = threads.stopped();
    threads.spawn("checks", "plimsoll-checks", move |alive| {
        let runner = Runner {
            watched,
            checks,
            side_by_side,
            random: Random::new(random::seed()),
            sender,
            alive,
        };
        runner.run(&ended, &stop);
    })
}

struct Runner {
    watched: Arc<[Arc<Watched>]>,
    checks: Vec<Arc<dyn Check>>,
    side_by_side: usize,
    random: Random,
    sender: Sender<Ended>,
    /// The last to go: dropping a check is its author's code.
    alive: Alive,
}

impl Runner {
    fn run(mut self, ended: &Receiver<Ended>, stop: &Receiver<()>) {
        loop {
            // Before anything counts as late: what has ended in time may be heard of with the timer.
            for ended in ended.try_iter() {
                self.end(ended);
            }
            let timer = self.step(Moment::now()).map_or_else(never, at);
            crossbeam_channel::select! {
                recv(ended) -> ended => {
                    if let Ok(ended) = ended {
                        self.end(ended);
                    }
                }
                recv(stop) -> _ => return,
                recv(timer) -> _ => {}
            }
        }
    }

    /// Counts the runs that go on for too long and begins those that are due; returns when to come back, unless a run
    /// ends before that.
    fn step(&mut self, now: Moment) -> Option<Instant> {
        let mut running = 0;
        for index in 0..self.checks.len() {
            let mut watch = lock(&self.watched[index].watch);
            let change = watch.handle_timeout(now, &mut self.random);
            running += usize::from(watch.is_running());
            drop(watch);
            self.tell(index, change);
        }
        while running < self.side_by_side
            && let Some(index) = self.longest_due(now.instant)
        {
            self.begin(index, now.instant);
            running += 1;
        }
        let watches = self.watched.iter().map(|store| lock(&store.watch));
        let times = watches.filter_map(|watch| {
            // What is due and has no place waits for another run's end.
            let waits = watch.is_due(now.instant);
            (!waits).then(|| watch.next_timeout())
        });
        times.min()
    }

    /// The check that has been due for the longest time.
    fn longest_due(&self, now: Instant) -> Option<usize> {
        let stores = self.watched.iter().enumerate();
        let due = stores.filter_map(|(index, store)| {
            let watch = lock(&store.watch);
            watch.is_due(now).then(|| (watch.next_timeout(), index))
        });
        due.min().map(|(_, index)| index)
    }

    fn begin(&self, index: usize, now: Instant) {
        let store = &self.watched[index];
        let deadline = lock(&store.watch).begin(now);
        let check = self.checks[index].clone();
        let run = Run {
            index,
            outcome: Outcome::NotStarted,
            at: None,
            sender: self.sender.clone(),
            _alive: self.alive.clone(),
        };
        let thread = Builder::new()
            .name(format!("check-{}", store.name))
            .spawn(move || run.run(&*check, deadline));
        // The run has been dropped then, and so has said that it was not started.
        if let Err(error) = thread {
            log::debug!("no thread for the check of {}: {error}", store.name);
        }
    }

    fn end(&mut self, ended: Ended) {
        let Ended { index, at, outcome } = ended;
        let store = &self.watched[index];
        let failed = |why: &str| Finding {
            result: Err(CheckError::new(why)),
            pool: None,
        };
        let finding = match outcome {
            Outcome::NotStarted => failed("the system gave no thread for the check"),
            Outcome::Panicked => {
                log::error!("the check of {} panicked", store.name);
                failed("the check panicked")
            }
            Outcome::Found(finding) => finding,
        };
        let change = lock(&store.watch).end(finding, at, &mut self.random);
        self.tell(index, change);
    }

    fn tell(&self, index: usize, change: Option<Change>) {
        let name = &self.watched[index].name;
        match change {
            None => {}
            Some(Change::Up) => log::info!("{name} is up"),
            Some(Change::Down(reason)) => log::warn!("{name} is down: {reason}"),
        }
    }
}

/// One run of a check. Says that it has ended when it is dropped, so that nothing which happens in it can leave its
/// check waiting for ever.
struct Run {
    index: usize,
    outcome: Outcome,
    /// When the check itself had ended.
    at: Option<Moment>,
    sender: Sender<Ended>,
    _alive: Alive,
}

impl Run {
    fn run(mut self, check: &dyn Check, deadline: Instant) {
        self.outcome = Outcome::Panicked;
        let result = check.check(deadline);
        self.at = Some(Moment::now());
        let pool = check.pool();
        self.outcome = Outcome::Found(Finding { result, pool });
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let ended = Ended {
            index: self.index,
            at: self.at.unwrap_or_else(Moment::now),
            outcome: std::mem::replace(&mut self.outcome, Outcome::Panicked),
        };
        // Nobody listens any more when the server has stopped.
        let _ = self.sender.try_send(ended);
    }
}
