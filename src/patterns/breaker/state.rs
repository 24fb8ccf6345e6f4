//! The state of a breaker: who passes, and what a report changes.
//!
//! While it is closed nothing is locked. Everything else happens under a short lock, which no log line is written under.

use std::error::Error;
use std::fmt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::super::chance::Chance;
use super::super::window::{self, Window};
use crate::panics::lock;

/// Fewer calls than this in the window say nothing about the share of failures.
const FEWEST_CALLS: u64 = 20;

/// Trials that succeed in a row before a breaker closes.
pub(super) const SUCCESSES: u32 = 2;

/// The delay of a first opening, and the longest one.
pub(super) const DELAYS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

/// The same where there is nothing else to call: each second out is an outage.
const ONLY_DELAYS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// The smallest part of a delay that jitter leaves.
const LEAST_JITTER: f64 = 0.8;

/// A breaker that opens again this soon after it closed waits longer than the last time.
const RELAPSE: Duration = window::SPAN;

/// A breaker refused a call. Another try within `remaining` makes no sense, but elsewhere it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerOpen {
    /// How long it stays open; zero while a trial is under way.
    pub remaining: Duration,
}

impl fmt::Display for BreakerOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.remaining.is_zero() {
            f.write_str("the circuit breaker waits for a trial")
        } else {
            let seconds = self.remaining.as_secs_f64();
            write!(f, "the circuit breaker is open for another {seconds:.1} s")
        }
    }
}

impl Error for BreakerOpen {}

/// What a permit that is asked for now would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextPermit {
    Closed,
    TrialDue,
    Refusing(BreakerOpen),
}

/// What all handles of a breaker share.
#[derive(Debug)]
pub(super) struct Inner {
    name: String,
    /// Failures in a row that open it.
    failures: u32,
    /// The first and the longest delay, if they were set.
    delays: Option<[Duration; 2]>,
    chance: Chance,
    /// Even while closed. It grows when the breaker opens and when it closes, so a permit knows whose it is.
    epoch: AtomicU64,
    /// Failures since the last success, in this epoch.
    pub(super) in_a_row: AtomicU32,
    /// Calls and failures, in this epoch.
    pub(super) window: Window,
    pub(super) refused: AtomicU64,
    core: Mutex<Core>,
}

/// What changes with the state, under the lock.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) phase: Phase,
    only: bool,
    /// The last delay, without its jitter.
    delay: Duration,
    /// When it last closed.
    closed: Option<Instant>,
    pub(super) openings: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen { trial: bool, successes: u32 },
}

impl Phase {
    pub(super) fn next_permit(self, now: Instant) -> NextPermit {
        match self {
            Self::Closed => NextPermit::Closed,
            Self::Open { until } if now < until => NextPermit::Refusing(BreakerOpen {
                remaining: until.duration_since(now),
            }),
            Self::HalfOpen { trial: true, .. } => NextPermit::Refusing(BreakerOpen {
                remaining: Duration::ZERO,
            }),
            Self::Open { .. } | Self::HalfOpen { trial: false, .. } => NextPermit::TrialDue,
        }
    }
}

/// What a call has from the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Counts while the epoch lasts.
    Counted { epoch: u64 },
    /// Is the one trial of a half-open breaker. The state stays until it is back.
    Trial,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TryOutcome {
    Success,
    Failure,
    /// Given back without a report.
    Nothing,
}

/// A change of the state, to be logged once the lock is free.
enum Change {
    Opened { delay: Duration, why: Why },
    Trial,
    Closed,
}

enum Why {
    InARow(u32),
    Share([u64; 2]),
    Trial,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InARow(failures) => write!(f, "{failures} failures in a row"),
            Self::Share([calls, failures]) => write!(f, "{failures} of {calls} calls failed"),
            Self::Trial => f.write_str("a trial failed"),
        }
    }
}

fn is_closed(epoch: u64) -> bool {
    epoch.is_multiple_of(2)
}

impl Inner {
    /// Closed.
    pub(super) fn new(
        name: String,
        failures: u32,
        delays: Option<[Duration; 2]>,
        only: bool,
        chance: Chance,
    ) -> Self {
        Self {
            name,
            failures,
            delays,
            chance,
            epoch: AtomicU64::new(0),
            in_a_row: AtomicU32::new(0),
            window: Window::new(Instant::now()),
            refused: AtomicU64::new(0),
            core: Mutex::new(Core {
                phase: Phase::Closed,
                only,
                delay: Duration::ZERO,
                closed: None,
                openings: 0,
            }),
        }
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    /// What a permit that is asked for now would be.
    pub(super) fn next_permit(&self, now: Instant) -> NextPermit {
        if is_closed(self.epoch.load(Acquire)) {
            NextPermit::Closed
        } else {
            self.core().phase.next_permit(now)
        }
    }

    /// Whether it is for the only endpoint; an opening under way then ends no later than such a one's.
    pub(super) fn set_only(&self, only: bool, now: Instant) {
        let mut core = self.core();
        core.only = only;
        let [_, longest] = self.delays(&core);
        if let Phase::Open { until } = &mut core.phase {
            *until = (*until).min(now + longest);
        }
    }

    fn delays(&self, core: &Core) -> [Duration; 2] {
        let defaults = if core.only { ONLY_DELAYS } else { DELAYS };
        self.delays.unwrap_or(defaults)
    }

    pub(super) fn admit(&self, now: impl FnOnce() -> Instant) -> Result<Pass, BreakerOpen> {
        let epoch = self.epoch.load(Acquire);
        if is_closed(epoch) {
            return Ok(Pass::Counted { epoch });
        }
        let now = now();
        let mut core = self.core();
        match core.phase.next_permit(now) {
            // It closed since the epoch was read. Under the lock the epoch belongs to the phase.
            NextPermit::Closed => Ok(Pass::Counted {
                epoch: self.epoch.load(Relaxed),
            }),
            NextPermit::Refusing(open) => {
                drop(core);
                self.refused.fetch_add(1, Relaxed);
                Err(open)
            }
            NextPermit::TrialDue => {
                let (successes, change) = match core.phase {
                    Phase::HalfOpen { successes, .. } => (successes, None),
                    Phase::Closed | Phase::Open { .. } => (0, Some(Change::Trial)),
                };
                core.phase = Phase::HalfOpen {
                    trial: true,
                    successes,
                };
                drop(core);
                self.log(change);
                Ok(Pass::Trial)
            }
        }
    }

    pub(super) fn report(&self, pass: Pass, outcome: TryOutcome, now: Instant) {
        let change = match pass {
            Pass::Counted { epoch } => self.count(epoch, outcome, now),
            Pass::Trial => self.judge(outcome, now),
        };
        self.log(change);
    }

    /// The report of a call that was admitted while the breaker was closed.
    fn count(&self, epoch: u64, outcome: TryOutcome, now: Instant) -> Option<Change> {
        if self.epoch.load(Acquire) != epoch {
            return None;
        }
        match outcome {
            TryOutcome::Nothing => None,
            TryOutcome::Success => {
                self.window.add(now, [true, false]);
                // Most often it is zero already, and reading does not take the line from other processors.
                if self.in_a_row.load(Relaxed) != 0 {
                    self.in_a_row.store(0, Relaxed);
                }
                None
            }
            TryOutcome::Failure => {
                self.window.add(now, [true, true]);
                let in_a_row = self.in_a_row.fetch_add(1, Relaxed) + 1;
                let sums @ [calls, failures] = self.window.sums(now);
                let why = if in_a_row >= self.failures {
                    Why::InARow(in_a_row)
                } else if calls >= FEWEST_CALLS && 2 * failures >= calls {
                    Why::Share(sums)
                } else {
                    return None;
                };
                let random = self.chance.draw();
                let mut core = self.core();
                // Of several failures that would open it one does.
                (self.epoch.load(Relaxed) == epoch).then(|| {
                    self.epoch.store(epoch + 1, Release);
                    let relapse = core.closed.is_some_and(|closed| now < closed + RELAPSE);
                    self.open(&mut core, relapse, why, random, now)
                })
            }
        }
    }

    /// The report of a trial.
    fn judge(&self, outcome: TryOutcome, now: Instant) -> Option<Change> {
        let random = self.chance.draw();
        let mut core = self.core();
        let Phase::HalfOpen { successes, .. } = core.phase else {
            return None;
        };
        match outcome {
            TryOutcome::Failure => Some(self.open(&mut core, true, Why::Trial, random, now)),
            TryOutcome::Success if successes + 1 >= SUCCESSES => {
                core.phase = Phase::Closed;
                core.closed = Some(now);
                self.in_a_row.store(0, Relaxed);
                self.window.clear();
                let epoch = self.epoch.load(Relaxed);
                self.epoch.store(epoch + 1, Release);
                Some(Change::Closed)
            }
            TryOutcome::Success | TryOutcome::Nothing => {
                core.phase = Phase::HalfOpen {
                    trial: false,
                    successes: successes + u32::from(outcome == TryOutcome::Success),
                };
                None
            }
        }
    }

    fn open(&self, core: &mut Core, relapse: bool, why: Why, random: f64, now: Instant) -> Change {
        let [first, longest] = self.delays(core);
        core.delay = if relapse {
            core.delay.saturating_mul(2).clamp(first, longest)
        } else {
            first
        };
        core.openings += 1;
        let delay = core
            .delay
            .mul_f64(LEAST_JITTER + (1.0 - LEAST_JITTER) * random);
        core.phase = Phase::Open { until: now + delay };
        Change::Opened { delay, why }
    }

    /// Called without the lock.
    fn log(&self, change: Option<Change>) {
        let name = &self.name;
        match change {
            Some(Change::Opened { delay, why }) => {
                let delay = delay.as_secs_f64();
                log::warn!("the circuit breaker of {name} opens for {delay:.1} s: {why}");
            }
            Some(Change::Trial) => log::info!("the circuit breaker of {name} is half-open"),
            Some(Change::Closed) => log::info!("the circuit breaker of {name} closes"),
            None => {}
        }
    }
}
