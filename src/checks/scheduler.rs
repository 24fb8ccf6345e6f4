//! Runs checks: one thread decides when, and each run has a thread of its own.
//!
//! Only so many runs go on within their time at the same moment. One that outlives it gives its place up to others, and keeps
//! its thread; its check does not run again before it has ended, so there is never more than one thread for each check.
//!
//! The checks of data stores stay the same, those of endpoints change with the set of endpoints. A check that stays goes on
//! as if nothing had changed. The run of one that is gone keeps its place until it ends or its time is over.

use std::io;
use std::mem;
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

/// Most lines of the log that tell what was found first of checks that came with the same set: a source that names other
/// endpoints each time must not fill the log.
const MOST_FIRST_LINES: usize = 16;

/// A check, and what is known by it.
#[derive(Clone)]
pub(crate) struct MonitoredCheck {
    pub(crate) monitored: Arc<Monitored>,
    pub(crate) check: Arc<dyn Check>,
}

/// A run's word that it has ended.
struct RunEnd {
    monitored: Arc<Monitored>,
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

/// Starts the thread for these, if there are any. It ends when it is told to; runs that go on then are left to
/// themselves. At most `side_by_side` of them run at the same time.
pub(crate) fn spawn(
    checks: Vec<MonitoredCheck>,
    side_by_side: usize,
    threads: &mut Threads,
) -> io::Result<()> {
    if checks.is_empty() {
        return Ok(());
    }
    start(checks, never(), side_by_side, threads)
}

/// The same for none yet: each set of checks that is sent takes the place of the one before.
#[cfg(feature = "proxy")]
pub(crate) fn spawn_for_sets(
    side_by_side: usize,
    threads: &mut Threads,
) -> io::Result<Sender<Vec<MonitoredCheck>>> {
    let (sender, sets) = crossbeam_channel::bounded(1);
    start(Vec::new(), sets, side_by_side, threads)?;
    Ok(sender)
}

fn start(
    checks: Vec<MonitoredCheck>,
    sets: Receiver<Vec<MonitoredCheck>>,
    side_by_side: usize,
    threads: &mut Threads,
) -> io::Result<()> {
    // Each run says one word, and each check has one run at most.
    let (sender, ended) = crossbeam_channel::unbounded();
    let stop = threads.stopped();
    threads.spawn("checks", "plimsoll-checks", move |alive| {
        let scheduler = Scheduler {
            scheduled: checks.into_iter().map(ScheduledCheck::new).collect(),
            side_by_side,
            first_lines: usize::MAX,
            random: Random::new(random::seed()),
            sender,
            alive,
        };
        scheduler.run(&ended, sets, &stop);
    })
}

/// A check that runs from time to time.
struct ScheduledCheck {
    monitored: Arc<Monitored>,
    check: Arc<dyn Check>,
    /// Something was found out about it before.
    is_known: bool,
    /// It is not in the set any more: only its run is waited for.
    is_gone: bool,
}

impl ScheduledCheck {
    fn new(MonitoredCheck { monitored, check }: MonitoredCheck) -> Self {
        Self {
            monitored,
            check,
            is_known: false,
            is_gone: false,
        }
    }

    fn is(&self, monitored: &Arc<Monitored>) -> bool {
        Arc::ptr_eq(&self.monitored, monitored)
    }
}

struct Scheduler {
    scheduled: Vec<ScheduledCheck>,
    side_by_side: usize,
    /// How many lines may still tell what was found first.
    first_lines: usize,
    random: Random,
    sender: Sender<RunEnd>,
    /// The last to go: dropping a check is its author's code.
    alive: Alive,
}

impl Scheduler {
    fn run(
        mut self,
        ended: &Receiver<RunEnd>,
        mut sets: Receiver<Vec<MonitoredCheck>>,
        stop: &Receiver<()>,
    ) {
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
                recv(sets) -> set => match set {
                    Ok(checks) => self.replace(checks),
                    Err(_) => sets = never(),
                },
                recv(stop) -> _ => return,
                recv(timer) -> _ => {}
            }
        }
    }

    /// Takes another set.
    fn replace(&mut self, checks: Vec<MonitoredCheck>) {
        let mut before = mem::take(&mut self.scheduled);
        for check in checks {
            let same = before.iter().position(|one| one.is(&check.monitored));
            self.scheduled.push(match same {
                Some(index) => ScheduledCheck {
                    is_gone: false,
                    ..before.swap_remove(index)
                },
                None => ScheduledCheck::new(check),
            });
        }
        self.scheduled
            .extend(before.into_iter().map(|one| ScheduledCheck {
                is_gone: true,
                ..one
            }));
        self.first_lines = MOST_FIRST_LINES;
    }

    /// Counts the runs that go on for too long and begins those that are due; returns when to come back, unless a run
    /// ends before that.
    fn step(&mut self, now: Timestamp) -> Option<Instant> {
        let mut running = 0;
        for index in 0..self.scheduled.len() {
            let mut monitor = lock(&self.scheduled[index].monitored.monitor);
            let change = monitor.handle_timeout(now, &mut self.random);
            running += usize::from(monitor.is_running());
            drop(monitor);
            self.tell(index, change);
        }
        self.scheduled
            .retain(|one| !one.is_gone || lock(&one.monitored.monitor).is_running());
        while running < self.side_by_side
            && let Some(due) = self.longest_due(now.instant)
        {
            self.begin(due, now.instant);
            running += 1;
        }
        let monitors = self.scheduled.iter();
        let times = monitors.filter_map(|one| {
            let monitor = lock(&one.monitored.monitor);
            // What is due and has no place waits for another run's end.
            let waits = monitor.is_due(now.instant);
            (!waits).then(|| monitor.next_timeout())
        });
        times.min()
    }

    /// The check that has been due for the longest time.
    fn longest_due(&self, now: Instant) -> Option<&ScheduledCheck> {
        let there = self.scheduled.iter().filter(|one| !one.is_gone);
        let due = there.filter_map(|one| {
            let monitor = lock(&one.monitored.monitor);
            monitor.is_due(now).then(|| (monitor.next_timeout(), one))
        });
        due.min_by_key(|(at, _)| *at).map(|(_, one)| one)
    }

    fn begin(&self, due: &ScheduledCheck, now: Instant) {
        let (monitored, check) = (due.monitored.clone(), due.check.clone());
        let name = monitored.name.clone();
        let deadline = lock(&monitored.monitor).begin(now);
        let run = CheckRun {
            monitored,
            outcome: RunOutcome::NotStarted,
            at: None,
            sender: self.sender.clone(),
            _alive: self.alive.clone(),
        };
        let thread = Builder::new()
            .name(format!("check-{name}"))
            .spawn(move || run.run(&*check, deadline));
        // The run has been dropped then, and so has said that it was not started.
        if let Err(error) = thread {
            log::debug!("no thread for the check of {name}: {error}");
        }
    }

    fn end(&mut self, ended: RunEnd) {
        let RunEnd {
            monitored,
            at,
            outcome,
        } = ended;
        // One that is gone, and whose time was over.
        let Some(index) = self.scheduled.iter().position(|one| one.is(&monitored)) else {
            return;
        };
        let failed = |why: &str| CheckResult {
            result: Err(CheckError::new(why)),
            pool: None,
        };
        let result_found = match outcome {
            RunOutcome::NotStarted => failed("the system gave no thread for the check"),
            RunOutcome::Panicked => {
                log::error!("the check of {} panicked", monitored.name);
                failed("the check panicked")
            }
            RunOutcome::Found(result_found) => result_found,
        };
        let change = lock(&monitored.monitor).end(result_found, at, &mut self.random);
        self.tell(index, change);
    }

    fn tell(&mut self, index: usize, change: Option<Change>) {
        let scheduled = &mut self.scheduled[index];
        let Some(change) = change.filter(|_| !scheduled.is_gone) else {
            return;
        };
        if !mem::replace(&mut scheduled.is_known, true) {
            let Some(left) = self.first_lines.checked_sub(1) else {
                return;
            };
            self.first_lines = left;
        }
        let name = &scheduled.monitored.name;
        match change {
            Change::Up => log::info!("{name} is up"),
            Change::Down(reason) => log::warn!("{name} is down: {reason}"),
        }
    }
}

/// One run of a check. Says that it has ended when it is dropped, so that nothing which happens in it can leave its
/// check waiting for ever.
struct CheckRun {
    monitored: Arc<Monitored>,
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
            monitored: self.monitored.clone(),
            at: self.at.unwrap_or_else(Timestamp::now),
            outcome: mem::replace(&mut self.outcome, RunOutcome::Panicked),
        };
        // Nobody listens any more when the server has stopped.
        let _ = self.sender.try_send(ended);
    }
}

#[cfg(all(test, feature = "proxy"))]
mod tests;
