//! The gate: tells a sick service from a busy one, and lets it recover.
//!
//! ```text
//!                      a run of readings at or above the threshold,
//!                      or every worker stalled
//!              ┌────────┐ ─────────────────────────────▶ ┌────────┐
//!       start ▶│ Closed │                                │  Open  │◀─┐
//!              └────────┘ ◀─── literal: reset thread ─── └────────┘  │
//!                  ▲                                          │      │
//!                  │                      guarded: reset thread      │ probes are slow,
//!                  │ probes are quick                         ▼      │ or one is stuck
//!                  │                                     ┌────────┐  │
//!                  └──────────────────────────────────── │  Half  │──┘
//!                                                        └────────┘
//! ```
//!
//! The gate knows service time only (handler start to reply handed over), so queueing cannot trip it: too much traffic
//! is the business of [admission](crate::server::event_loop::admission). It is a pure state machine. Time is an argument, and
//! the caller carries out what it asks for:
//!
//! 1. [`observe`](Gate::observe) before each request, and when the state is to be read: it notices a stall; then
//!    [`admit`](Gate::admit) for the request;
//! 2. [`done`](Gate::done) for each job that ran, [`abandon_probe`](Gate::abandon_probe) for a probe that never will;
//! 3. a [`Trip`] that any of these returns goes to the reset thread, which sleeps its cooldown and calls
//!    [`reset`](Gate::reset). Nothing else clears the averages or moves the epoch.
//!
//! An *epoch* is the time between two resets. In guarded mode a job counts only in the epoch that admitted it.
//!
//! A guarded gate has an average of its own, in which a sample weighs no more than [`MOST_OF_SAMPLE`] thresholds: one
//! request that hangs is not a sick service. What is reported is the average of the samples as they are.
//!
//! # Why there is a lock
//!
//! The caller keeps the gate, and with it the adding to its averages, behind one lock, also while the gate is closed. A
//! sample, the run of readings that it lengthens or ends, and the epoch in which it counts have to agree: without the
//! lock a job that was admitted before a reset could add its sample just after it, and a new epoch would begin with what
//! it is to forget. The lock is taken twice a request, for some additions each, and nothing is logged, sent or allocated
//! under it; beside what else a request costs it does not show (the bench of the parts has both). Whoever reads an
//! average takes no lock.

use super::ewma::Ewma;
use crate::settings::GateMode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Average age, in samples, of the average that predicts the queue: slow enough not to follow single long jobs.
pub(crate) const PREDICTOR_AGE: u32 = 200;

/// Consecutive readings at or above the threshold that trip a guarded gate: one slow request is not a sick service.
const RUN: u32 = 30;

/// The most of a sample that counts in a guarded gate's average, in thresholds. With more, one very long job would keep
/// the average at or above the threshold for a whole [`RUN`] of quick ones.
const MOST_OF_SAMPLE: f64 = 5.0;

/// Probes that a half-open gate wants before it judges by their average.
const FEWEST_PROBES: u64 = 5;

/// Probes after which any average below the threshold closes a half-open gate.
///
/// Without this bound a service whose average stays between [`CLOSE_BELOW`] and the threshold, which would never have
/// tripped the gate, could leave it half open for ever.
const MOST_PROBES: u64 = 30;

/// The part of the threshold that the average of the first probes must stay below to close the gate.
const CLOSE_BELOW: f64 = 0.8;

/// How long a gate whose cooldown is over stays open while every worker is stuck, before it looks again: the service may
/// be well at any moment.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A job older than this many thresholds is stuck, as far as the gate can tell.
const STALL_THRESHOLDS: u32 = 3;

/// The same for a probe. A service that is well again a moment after a probe started waits for this and a cooldown.
const PROBE_THRESHOLDS: u32 = 2;

/// A guarded gate that trips again this soon after it closed waits longer than the last time.
const RELAPSE: Duration = Duration::from_secs(10);

/// The longest cooldown is this many times the configured one ...
const COOLDOWN_GROWTH: u32 = 8;

/// ... and grows no further than this: a long cooldown is pure loss once the service is well again.
const LONGEST_COOLDOWN: Duration = Duration::from_secs(10);

/// What the gate is told once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GateConfig {
    /// What trips the gate and how it recovers.
    pub mode: GateMode,
    /// Average service time at which the service is unhealthy.
    pub threshold: Duration,
    /// How long the reset thread sleeps after a first trip.
    pub cooldown: Duration,
}

/// What the workers are doing at the moment of a decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occupancy {
    /// Whether a worker would start the next job at once.
    pub idle: bool,
    /// When a worker last started a job; `None` before the first. While no worker is idle this is the start of the
    /// youngest job that runs.
    pub last_start: Option<Instant>,
}

/// A request's leave to go on, which [`Gate::admit`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    /// The epoch to report to [`Gate::done`].
    pub epoch: u64,
    /// The request is a probe: it goes to an idle worker now, and tells whether the service is well again. The gate gets
    /// exactly one report of it: [`Gate::done`] when it ran, [`Gate::abandon_probe`] when it will not. A
    /// [`Permit`](super::Permit) sees to that.
    pub probe: bool,
}

/// The gate has opened: the reset thread has to sleep this long, then to call [`Gate::reset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Trip {
    /// How long the gate stays open.
    pub cooldown: Duration,
    /// What opened it.
    pub cause: TripCause,
}

/// What opens a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TripCause {
    /// The average service time has reached the threshold.
    Average,
    /// No worker has begun a job for several thresholds, since all are busy.
    Stalled,
    /// A probe has run for several thresholds.
    ProbeStuck,
}

/// Where the gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GateState {
    /// Requests pass.
    Closed,
    /// Every request is refused until the reset thread has slept: for this long still.
    Open {
        /// Time until the reset.
        reopens_in: Duration,
    },
    /// One request at a time passes, to see whether the service is well again.
    HalfOpen,
}

impl GateState {
    /// `closed`, `open` or `half-open`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// The gate: see the [module](self).
#[derive(Debug)]
pub(crate) struct Gate {
    config: GateConfig,
    /// What is reported.
    average: Arc<Ewma>,
    /// What a guarded gate goes by: of samples that are cut at [`MOST_OF_SAMPLE`].
    guarded: Option<f64>,
    predictor: Arc<Ewma>,
    /// As it was when it was entered.
    state: GateState,
    entered: Instant,
    /// Since when the gate stands there: before `entered`, if the time that it stays open was changed.
    since: Instant,
    epoch: u64,
    /// Samples in the averages.
    samples: u64,
    /// Consecutive readings of the average at or above the threshold.
    over: u32,
    /// When the probe that is out was admitted.
    probe: Option<Instant>,
    /// When probes last closed the gate.
    recovered: Option<Instant>,
    /// The cooldown of the last trip.
    cooldown: Duration,
    trips: u64,
    resets: u64,
    probes: u64,
}

impl Gate {
    /// A closed gate. `average` is held against the threshold, `predictor` (of age [`PREDICTOR_AGE`]) predicts
    /// the queue; both are in seconds, and others may read them while the gate is locked.
    pub(crate) fn new(
        config: GateConfig,
        average: Arc<Ewma>,
        predictor: Arc<Ewma>,
        now: Instant,
    ) -> Self {
        Self {
            config,
            average,
            guarded: None,
            predictor,
            state: GateState::Closed,
            entered: now,
            since: now,
            epoch: 0,
            samples: 0,
            over: 0,
            probe: None,
            recovered: None,
            cooldown: config.cooldown,
            trips: 0,
            resets: 0,
            probes: 0,
        }
    }

    /// Decides on a request that wants a worker, after [`observe`](Self::observe).
    ///
    /// # Errors
    /// It is to be answered 503, with this value of Retry-After: whole seconds, at least one.
    pub(crate) fn admit(&mut self, occupancy: Occupancy, now: Instant) -> Result<Pass, Duration> {
        let epoch = self.epoch;
        match self.state(now) {
            GateState::Closed => Ok(Pass {
                epoch,
                probe: false,
            }),
            // A probe that waited for a worker would measure nothing while it waits.
            GateState::HalfOpen if self.probe.is_none() && occupancy.idle => {
                self.probe = Some(now);
                self.probes += 1;
                Ok(Pass { epoch, probe: true })
            }
            GateState::HalfOpen => Err(Duration::from_secs(1)),
            GateState::Open { reopens_in } => Err(whole_seconds(reopens_in)),
        }
    }

    /// Trips a guarded gate whose workers, or whose probe, have been stuck for too long to wait for their samples.
    pub(crate) fn observe(&mut self, occupancy: Occupancy, now: Instant) -> Option<Trip> {
        if self.config.mode != GateMode::Guarded {
            return None;
        }
        let over = |since: Instant, thresholds| {
            let limit = self.config.threshold.saturating_mul(thresholds);
            now.saturating_duration_since(since) > limit
        };
        match self.state {
            // Jobs from before the gate closed are no evidence against what came after.
            GateState::Closed if self.stalled(occupancy, Some(self.since), now) => {
                Some(TripCause::Stalled)
            }
            GateState::HalfOpen if self.probe.is_some_and(|at| over(at, PROBE_THRESHOLDS)) => {
                Some(TripCause::ProbeStuck)
            }
            GateState::Closed | GateState::HalfOpen | GateState::Open { .. } => None,
        }
        .map(|cause| self.trip(cause, now))
    }

    /// Whether all workers are busy, and none has begun a job for several thresholds, counted from `since` at the
    /// earliest.
    fn stalled(&self, occupancy: Occupancy, since: Option<Instant>, now: Instant) -> bool {
        let limit = self.config.threshold.saturating_mul(STALL_THRESHOLDS);
        let last_start = occupancy.last_start.filter(|_| !occupancy.idle);
        last_start.is_some_and(|start| {
            let start = since.map_or(start, |since| start.max(since));
            now.saturating_duration_since(start) > limit
        })
    }

    /// Takes the service time of a job that ran, whoever still waits for its reply.
    pub(crate) fn done(&mut self, epoch: u64, service: Duration, now: Instant) -> Option<Trip> {
        let guarded = self.config.mode == GateMode::Guarded;
        if guarded && epoch != self.epoch {
            return None;
        }
        self.samples += 1;
        let sample = service.as_secs_f64();
        let mean = 1.0 / self.samples as f64;
        self.predictor
            .add_weighted(sample, self.predictor.alpha().max(mean));
        let weight = if guarded {
            self.average.alpha().max(mean)
        } else {
            self.average.alpha()
        };
        let threshold = self.config.threshold.as_secs_f64();
        let mut average = self.average.add_weighted(sample, weight);
        if guarded {
            let sample = sample.min(MOST_OF_SAMPLE * threshold);
            let before = self.guarded.unwrap_or(sample);
            average = before + weight * (sample - before);
            self.guarded = Some(average);
        }
        let over = average >= threshold;
        self.over = if over { self.over.saturating_add(1) } else { 0 };
        match self.state {
            GateState::HalfOpen => {
                // All jobs of this epoch are probes until the gate closes.
                self.probe = None;
                let judged = self.samples >= FEWEST_PROBES;
                if judged && over {
                    return Some(self.trip(TripCause::Average, now));
                }
                let quick = average < CLOSE_BELOW * threshold;
                if judged && (quick || self.samples >= MOST_PROBES) {
                    self.enter(GateState::Closed, now);
                    self.recovered = Some(now);
                }
                None
            }
            GateState::Closed => {
                let run = match self.config.mode {
                    GateMode::Guarded => RUN,
                    GateMode::Literal => 1,
                    GateMode::Off => return None,
                };
                (self.over >= run).then(|| self.trip(TripCause::Average, now))
            }
            GateState::Open { .. } => None,
        }
    }

    /// Frees the probe of `epoch`, which was refused, dropped or lost before its job started.
    pub(crate) fn abandon_probe(&mut self, epoch: u64) {
        if epoch == self.epoch && self.state == GateState::HalfOpen {
            self.probe = None;
        }
    }

    /// Starts the averages afresh and a new epoch. Only for the reset thread; ignored unless the gate is open.
    ///
    /// While every worker is stuck there is nobody who could run a probe. A guarded gate stays open then, nothing is
    /// reset, and the thread is to come again after the time returned.
    pub(crate) fn reset(&mut self, occupancy: Occupancy, now: Instant) -> Option<Duration> {
        if !self.is_open() {
            return None;
        }
        // What the workers hang in may have begun long before the gate opened.
        let guarded = self.config.mode == GateMode::Guarded;
        if guarded && self.stalled(occupancy, None, now) {
            self.state = GateState::Open {
                reopens_in: LOOK_AGAIN,
            };
            self.entered = now;
            return Some(LOOK_AGAIN);
        }
        self.average.reset();
        self.guarded = None;
        self.predictor.reset();
        self.samples = 0;
        self.over = 0;
        self.probe = None;
        self.epoch += 1;
        self.resets += 1;
        let next = if guarded {
            GateState::HalfOpen
        } else {
            GateState::Closed
        };
        self.enter(next, now);
        None
    }

    fn trip(&mut self, cause: TripCause, now: Instant) -> Trip {
        let relapse = self.state == GateState::Closed
            && self
                .recovered
                .is_some_and(|at| now.saturating_duration_since(at) < RELAPSE);
        let guarded = self.config.mode == GateMode::Guarded;
        let first = self.config.cooldown;
        self.cooldown = if guarded && relapse {
            let longest = first
                .saturating_mul(COOLDOWN_GROWTH)
                .min(LONGEST_COOLDOWN)
                .max(first);
            self.cooldown.saturating_mul(2).min(longest)
        } else if guarded && self.state == GateState::HalfOpen {
            // A failed probe costs one request, where a relapse costs all that came in: only the latter is worth a
            // longer wait. Were this one to grow, the service would be kept waiting long after it is well.
            self.cooldown
        } else {
            first
        };
        self.trips += 1;
        let reopens_in = self.cooldown;
        self.enter(GateState::Open { reopens_in }, now);
        Trip {
            cooldown: self.cooldown,
            cause,
        }
    }

    fn enter(&mut self, state: GateState, now: Instant) {
        self.state = state;
        self.entered = now;
        self.since = now;
    }

    /// Where the gate stands at `now`.
    pub(crate) fn state(&self, now: Instant) -> GateState {
        match self.state {
            GateState::Open { reopens_in } => GateState::Open {
                reopens_in: reopens_in.saturating_sub(now.saturating_duration_since(self.entered)),
            },
            state => state,
        }
    }

    /// Whether the gate is open, and so refuses everything.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, GateState::Open { .. })
    }

    /// Since when it stands there.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// How many resets came before this moment's jobs.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How often the gate has opened.
    pub(crate) fn trips(&self) -> u64 {
        self.trips
    }

    /// How often the reset thread has ended a cooldown.
    pub(crate) fn resets(&self) -> u64 {
        self.resets
    }

    /// How many probes have been admitted.
    pub(crate) fn probes(&self) -> u64 {
        self.probes
    }

    /// The cooldown of the last trip, or of the next one before the first.
    pub(crate) fn cooldown(&self) -> Duration {
        self.cooldown
    }

    /// The service time to expect of the next job; `None` without a sample since the reset.
    #[cfg(test)]
    pub(crate) fn predicted(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.predictor.value()?).ok()
    }
}

/// Rounds up to whole seconds, at least one.
///
/// An exact time would bring every client back at the same instant; rounded up, they return spread over the second in
/// which they were refused.
fn whole_seconds(wait: Duration) -> Duration {
    let partial = u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs(wait.as_secs().saturating_add(partial).max(1))
}

#[cfg(test)]
mod tests;
