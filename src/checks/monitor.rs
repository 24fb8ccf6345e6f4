//! What is known of one monitored data store, and when its next run is due. Pure: time and chance are arguments.
//!
//! ```text
//!              begin                      end
//!     Due ───────────────▶ Running ───────────────▶ Due, one interval after the begin
//!      ▲                      │ its time is over: a failure
//!      │         end          ▼
//!      └────────────────── Overrun ──┐ each interval that it goes on: another failure
//!                             ▲──────┘
//! ```
//!
//! Call [`handle_timeout`](Monitor::handle_timeout) when [`next_timeout`](Monitor::next_timeout) has come,
//! [`begin`](Monitor::begin) when [`is_due`](Monitor::is_due) says so, and [`end`](Monitor::end) when the run that was begun
//! has ended. A call that comes early changes nothing.
//!
//! The first run decides by itself: nothing is known in favour of a store whose first run has failed. From then on
//! `fall` failures in a row make it [`Down`](CheckState::Down), and `rise` successes in a row make it
//! [`Up`](CheckState::Up) again.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{CheckError, CheckReport, CheckSettings, CheckState, PoolStatus};
use crate::patterns::less_margin;
use crate::random::Random;

/// The first run starts within this time, or within one interval if that is shorter: soon, since a fresh instance gets
/// no traffic before it knows its critical stores; at random, so that a hundred fresh instances don't all ask at once.
const FIRST_RUN_WITHIN: Duration = Duration::from_secs(1);

/// How much a run may come early or late, as a part of the interval: instances that were started together drift apart.
const JITTER: f64 = 0.1;

/// How many intervals pass between two runs of a store that has failed `fall` times in a row.
const SLOWER_WHILE_DOWN: f64 = 3.0;

/// One moment, by the clock that never jumps and by the one that people read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timestamp {
    pub(crate) instant: Instant,
    pub(crate) time: SystemTime,
}

impl Timestamp {
    pub(crate) fn now() -> Self {
        Self {
            instant: Instant::now(),
            time: SystemTime::now(),
        }
    }
}

/// What a run found out.
#[derive(Debug)]
pub(crate) struct CheckResult {
    pub(crate) result: Result<(), CheckError>,
    pub(crate) pool: Option<PoolStatus>,
}

/// That a store is up or down, when it was not so before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Up,
    /// With the reason.
    Down(Arc<str>),
}

/// Where the store's runs stand.
#[derive(Debug, Clone, Copy)]
enum RunState {
    /// None goes on; the next may start then.
    Due(Instant),
    Running {
        began: Instant,
        deadline: Instant,
    },
    /// It has counted as failed, and still goes on. At `next` it counts once more.
    Overrun {
        began: Instant,
        next: Instant,
    },
}

/// The last run that ended, or was counted as failed.
#[derive(Debug, Clone, Copy)]
struct LastRun {
    at: Timestamp,
    took: Duration,
}

/// What is known of one monitored store.
#[derive(Debug)]
pub(crate) struct Monitor {
    settings: CheckSettings,
    state: CheckState,
    /// Since when.
    since: Instant,
    run: RunState,
    /// In a row; one of the two is 0.
    successes: u32,
    failures: u32,
    last: Option<LastRun>,
    last_success: Option<SystemTime>,
    error: Option<Arc<str>>,
    has_answered: bool,
    pool: Option<PoolStatus>,
}

impl Monitor {
    pub(crate) fn new(settings: CheckSettings, now: Instant, random: &mut Random) -> Self {
        let within = settings.interval.min(FIRST_RUN_WITHIN);
        Self {
            settings,
            state: CheckState::NotYet,
            since: now,
            run: RunState::Due(now + within.mul_f64(random.uniform())),
            successes: 0,
            failures: 0,
            last: None,
            last_success: None,
            error: None,
            has_answered: false,
            pool: None,
        }
    }

    /// Whether a run should begin.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        matches!(self.run, RunState::Due(due) if due <= now)
    }

    /// Whether a run goes on, within its time.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.run, RunState::Running { .. })
    }

    /// Whether the store has answered the last run, be it not as it should.
    #[cfg(feature = "proxy")]
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// When something is to be done next: a run is due, or one has gone on for too long.
    pub(crate) fn next_timeout(&self) -> Instant {
        match self.run {
            RunState::Due(at)
            | RunState::Running { deadline: at, .. }
            | RunState::Overrun { next: at, .. } => at,
        }
    }

    /// Notes that a run begins; returns the deadline that its check is to keep. Only for one that
    /// [is due](Self::is_due).
    pub(crate) fn begin(&mut self, now: Instant) -> Instant {
        let timeout = self.settings.timeout;
        let deadline = now + timeout;
        self.run = RunState::Running {
            began: now,
            deadline,
        };
        // It ends in time then, and what it says of a store that hangs is heard.
        now + less_margin(timeout)
    }

    /// Notes that the run has ended, and when.
    pub(crate) fn end(
        &mut self,
        result_found: CheckResult,
        at: Timestamp,
        random: &mut Random,
    ) -> Option<Change> {
        match self.run {
            RunState::Due(_) => None,
            RunState::Running { began, deadline } => {
                let late = || Err(CheckError::new(self.no_result()));
                let result = result_found.result.and_then(|()| {
                    let in_time = at.instant <= deadline;
                    if in_time { Ok(()) } else { late() }
                });
                self.pool = result_found.pool;
                let change = self.count(result, began, at);
                self.run = RunState::Due(self.next_run(began, random).max(at.instant));
                change
            }
            // It has counted already. What it saw of the pool is news all the same.
            RunState::Overrun { next, .. } => {
                self.pool = result_found.pool;
                self.run = RunState::Due(next);
                None
            }
        }
    }

    /// Counts a run that goes on for too long as failed: when its time is over, and then once an interval.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp, random: &mut Random) -> Option<Change> {
        let (began, from, error) = match self.run {
            RunState::Running { began, deadline } if deadline <= now.instant => {
                (began, began, self.no_result())
            }
            RunState::Overrun { began, next } if next <= now.instant => {
                let age = now.instant.saturating_duration_since(began).as_secs();
                let error = format!("a run that began {age} s ago has not ended");
                (began, next, error)
            }
            _ => return None,
        };
        let change = self.count(Err(CheckError::new(error)), began, now);
        let mut next = self.next_run(from, random);
        if next <= now.instant {
            next = self.next_run(now.instant, random);
        }
        self.run = RunState::Overrun { began, next };
        change
    }

    /// What a report says of the store.
    pub(crate) fn report(&self, name: Arc<str>, now: Instant) -> CheckReport {
        let mut report = CheckReport {
            name,
            critical: self.settings.critical,
            state: self.state,
            state_for: now.saturating_duration_since(self.since),
            last_run: self.last.map(|last| last.at.time),
            last_success: self.last_success,
            duration: self.last.map(|last| last.took),
            consecutive_failures: self.failures,
            error: self.error.clone(),
            pool: self.pool,
        };
        if let Some(last) = &self.last
            && (self.state == CheckState::Up || self.error.is_none())
        {
            let age = now.saturating_duration_since(last.at.instant);
            if let Some(stale_for) = age.checked_sub(self.fresh_for()) {
                if self.state == CheckState::Up {
                    report.state = CheckState::Down;
                    report.state_for = stale_for;
                }
                let error = format!("no run has ended for {} s", age.as_secs());
                report.error = Some(error.into());
            }
        }
        report
    }

    /// How old a result may be and still count: three intervals. When a run may take longer than an interval, results
    /// are as much older without any fault.
    fn fresh_for(&self) -> Duration {
        let interval = self.settings.interval;
        2 * interval + interval.max(self.settings.timeout)
    }

    fn no_result(&self) -> String {
        format!("no result within {:?}", self.settings.timeout)
    }

    fn count(
        &mut self,
        result: Result<(), CheckError>,
        began: Instant,
        at: Timestamp,
    ) -> Option<Change> {
        self.last = Some(LastRun {
            at,
            took: at.instant.saturating_duration_since(began),
        });
        let first = self.state == CheckState::NotYet;
        self.has_answered = result
            .as_ref()
            .map_or_else(CheckError::is_answer, |()| true);
        match result {
            Ok(()) => {
                self.successes = self.successes.saturating_add(1);
                self.failures = 0;
                self.last_success = Some(at.time);
                self.error = None;
                let enough = first || self.successes >= self.settings.rise;
                (enough && self.enter(CheckState::Up, at)).then_some(Change::Up)
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.successes = 0;
                let error: Arc<str> = error.to_string().into();
                self.error = Some(error.clone());
                let enough = first || self.failures >= self.settings.fall;
                (enough && self.enter(CheckState::Down, at)).then_some(Change::Down(error))
            }
        }
    }

    /// Whether that is a change.
    fn enter(&mut self, state: CheckState, at: Timestamp) -> bool {
        let change = self.state != state;
        if change {
            self.state = state;
            self.since = at.instant;
        }
        change
    }

    /// When to run after a run that began then. A store that is down is left in peace; but not one that has just
    /// answered, or has only just been started beside this server: whether it is up should soon be certain.
    fn next_run(&self, began: Instant, random: &mut Random) -> Instant {
        let intervals = if self.failures >= self.settings.fall {
            SLOWER_WHILE_DOWN
        } else {
            1.0
        };
        let jitter = 1.0 - JITTER + 2.0 * JITTER * random.uniform();
        began + self.settings.interval.mul_f64(intervals * jitter)
    }
}

#[cfg(test)]
mod tests;
