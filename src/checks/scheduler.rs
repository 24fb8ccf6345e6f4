//! Runs the checks of data stores: one thread decides when, and each run has a thread of its own.
//!
//! Only so many runs go on within their time at the same moment. One that outlives it gives its place up to others, and keeps
//! its thread; its check does not run again before it has ended, so there is never more than one thread for each check.

use std::io;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, at, never};

use super::monitor::{Change, CheckResult, Timestamp};
use super::{Check, CheckError, Monitored};
use crate::panics::lock;
use crate::random::{self, Random};
use crate::threads::{Alive, Threads};

/// Most runs of checks of data stores that go on at the same time, those that have outlived their time aside. Enough
/// that, at the usual interval and timeout, twenty stores that hang keep no other waiting for longer than its interval;
/// few, for small hosts.
pub(crate) const STORES_SIDE_BY_SIDE: usize = 4;

/// A run's word that it has ended.
struct RunEnd {
    /// Of the check.
    index: usize,
    at: Timestamp,
    outcome: RunOutcome,
}

/// How a run ended.
enum RunOutcome {
    /// The system gave no thread for it.
    NotStarted,
    Panicked,
    Found(CheckResult),
}

/// Starts the thread, if there is something to check. It ends when it is told to; runs that go on then are left to
/// themselves. The checks are those of the `monitored`, in the same order; at most `side_by_side` of them run at the same
/// time.
pub(crate) fn spawn(
    monitored: Arc<[Arc<Monitored>]>,
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
        let scheduler = Scheduler {
            monitored,
            checks,
            side_by_side,
            random: Random::new(random::seed()),
            sender,
            alive,
        };
        scheduler.run(&ended, &stop);
    })
}

struct Scheduler {
    monitored: Arc<[Arc<Monitored>]>,
    checks: Vec<Arc<dyn Check>>,
    side_by_side: usize,
    random: Random,
    sender: Sender<RunEnd>,
    /// The last to go: dropping a check is its author's code.
    alive: Alive,
}

impl Scheduler {
    fn run(mut self, ended: &Receiver<RunEnd>, stop: &Receiver<()>) {
        loop {
            // Before anything counts as late: what has ended in time may be heard of with the timer.
            for ended in ended.try_iter() {
                self.end(ended);
            }
            let timer = self.step(Timestamp::now()).map_or_else(never, at);
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
    fn step(&mut self, now: Timestamp) -> Option<Instant> {
        let mut running = 0;
        for index in 0..self.checks.len() {
            let mut monitor = lock(&self.monitored[index].monitor);
            let change = monitor.handle_timeout(now, &mut self.random);
            running += usize::from(monitor.is_running());
            drop(monitor);
            self.tell(index, change);
        }
        while running < self.side_by_side
            && let Some(index) = self.longest_due(now.instant)
        {
            self.begin(index, now.instant);
            running += 1;
        }
        let monitors = self.monitored.iter().map(|store| lock(&store.monitor));
        let times = monitors.filter_map(|monitor| {
            // What is due and has no place waits for another run's end.
            let waits = monitor.is_due(now.instant);
            (!waits).then(|| monitor.next_timeout())
        });
        times.min()
    }

    /// The check that has been due for the longest time.
    fn longest_due(&self, now: Instant) -> Option<usize> {
        let stores = self.monitored.iter().enumerate();
        let due = stores.filter_map(|(index, store)| {
            let monitor = lock(&store.monitor);
            monitor.is_due(now).then(|| (monitor.next_timeout(), index))
        });
        due.min().map(|(_, index)| index)
    }

    fn begin(&self, index: usize, now: Instant) {
        let store = &self.monitored[index];
        let deadline = lock(&store.monitor).begin(now);
        let check = self.checks[index].clone();
        let run = CheckRun {
            index,
            outcome: RunOutcome::NotStarted,
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

    fn end(&mut self, ended: RunEnd) {
        let RunEnd { index, at, outcome } = ended;
        let store = &self.monitored[index];
        let failed = |why: &str| CheckResult {
            result: Err(CheckError::new(why)),
            pool: None,
        };
        let result_found = match outcome {
            RunOutcome::NotStarted => failed("the system gave no thread for the check"),
            RunOutcome::Panicked => {
                log::error!("the check of {} panicked", store.name);
                failed("the check panicked")
            }
            RunOutcome::Found(result_found) => result_found,
        };
        let change = lock(&store.monitor).end(result_found, at, &mut self.random);
        self.tell(index, change);
    }

    fn tell(&self, index: usize, change: Option<Change>) {
        let name = &self.monitored[index].name;
        match change {
            None => {}
            Some(Change::Up) => log::info!("{name} is up"),
            Some(Change::Down(reason)) => log::warn!("{name} is down: {reason}"),
        }
    }
}

/// One run of a check. Says that it has ended when it is dropped, so that nothing which happens in it can leave its
/// check waiting for ever.
struct CheckRun {
    index: usize,
    outcome: RunOutcome,
    /// When the check itself had ended.
    at: Option<Timestamp>,
    sender: Sender<RunEnd>,
    _alive: Alive,
}

impl CheckRun {
    fn run(mut self, check: &dyn Check, deadline: Instant) {
        self.outcome = RunOutcome::Panicked;
        let result = check.check(deadline);
        self.at = Some(Timestamp::now());
        let pool = check.pool();
        self.outcome = RunOutcome::Found(CheckResult { result, pool });
    }
}

impl Drop for CheckRun {
    fn drop(&mut self) {
        let ended = RunEnd {
            index: self.index,
            at: self.at.unwrap_or_else(Timestamp::now),
            outcome: std::mem::replace(&mut self.outcome, RunOutcome::Panicked),
        };
        // Nobody listens any more when the server has stopped.
        let _ = self.sender.try_send(ended);
    }
}
