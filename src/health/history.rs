//! The last ten minutes, a sample a second, so that who looks after the trouble still sees it.
//!
//! A ring of fixed size, allocated once. Samples stand on a grid of whole seconds since the start: sample `n` tells of
//! the second that ended `n + 1` seconds after it. A second that could not be sampled in time is a gap.

mod endpoints;

use std::time::{Duration, Instant};

use endpoints::Endpoints;
pub(crate) use endpoints::{EndpointHistory, EndpointSample};

use super::condition::{Condition, Recent};
use super::histogram::{Cells, whole};
use super::{GateState, Snapshot, Totals};

/// Samples kept: ten minutes of them, 33 KiB.
pub(crate) const SAMPLES: usize = 600;

/// From one sample to the next.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// How many samples the refusals are summed over that make the server count as shedding. In a single second there may be
/// none by chance.
const RECENT: u32 = 5;

/// Stands for "no value" in a time.
const NONE: u32 = u32::MAX;

/// The letters for where the gate stood.
const CLOSED: u8 = b'c';
const OPEN: u8 = b'o';
const HALF_OPEN: u8 = b'h';

/// One second. Times are in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    p50: u32,
    p99: u32,
    response: u32,
    service: u32,
    pub(crate) served: u32,
    pub(crate) bad: u32,
    pub(crate) failed: u32,
    /// Refused for want of a worker.
    pub(crate) overload: u32,
    /// Refused because the gate was not closed, or the server stopping.
    pub(crate) unavailable: u32,
    /// Refused because their client asked too often.
    pub(crate) throttled: u32,
    pub(crate) connections: u32,
    pub(crate) queue: u32,
    pub(crate) busy: u16,
    /// `None` in a gap.
    pub(crate) condition: Option<Condition>,
    /// A letter: where the gate stood at the second's end; open if it tripped within it.
    gate: u8,
    /// Percent of the load line.
    pub(crate) load: u32,
}

impl Sample {
    const GAP: Self = Self {
        p50: NONE,
        p99: NONE,
        response: NONE,
        service: NONE,
        served: 0,
        bad: 0,
        failed: 0,
        overload: 0,
        unavailable: 0,
        throttled: 0,
        connections: 0,
        queue: 0,
        busy: 0,
        condition: None,
        gate: CLOSED,
        load: 0,
    };

    /// Whether nothing is known of that second.
    pub(crate) fn is_gap(&self) -> bool {
        self.condition.is_none()
    }

    /// Median response time of the requests answered in that second.
    pub(crate) fn p50(&self) -> Option<u32> {
        known(self.p50)
    }

    /// The response time that 99 of 100 requests answered in that second did not exceed.
    pub(crate) fn p99(&self) -> Option<u32> {
        known(self.p99)
    }

    /// Average response time at the second's end.
    pub(crate) fn response(&self) -> Option<u32> {
        known(self.response)
    }

    /// The letter of the gate's state in that second.
    pub(crate) fn gate(&self) -> char {
        self.gate.into()
    }

    /// Average service time at the second's end.
    pub(crate) fn service(&self) -> Option<u32> {
        known(self.service)
    }
}

fn known(micros: u32) -> Option<u32> {
    (micros != NONE).then_some(micros)
}

fn micros(time: Option<Duration>) -> u32 {
    // Beyond an hour there is no value either.
    time.map_or(NONE, |time| whole(time.as_secs_f64() * 1e6))
}

/// What some servers count and others do not, beside the ring of samples.
#[derive(Debug)]
struct Counted {
    ring: Box<[u32]>,
    total: u64,
}

/// The ring, and what the next sample is the difference to.
#[derive(Debug)]
pub(crate) struct History {
    started: Instant,
    ring: Box<[Sample]>,
    /// The number of the next sample.
    next: u64,
    totals: Totals,
    /// See [`Snapshot::counted`].
    counted: Vec<Counted>,
    endpoints: Endpoints,
    cells: Box<Cells>,
    trips: u64,
    condition: Condition,
    since: Instant,
}

impl History {
    /// An empty history of a server that starts now.
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            started,
            ring: vec![Sample::GAP; SAMPLES].into_boxed_slice(),
            next: 0,
            totals: Totals::default(),
            counted: Vec::new(),
            endpoints: Endpoints::default(),
            cells: Box::new(Cells::EMPTY),
            trips: 0,
            condition: Condition::Healthy,
            since: started,
        }
    }

    /// When the next sample is due.
    pub(crate) fn next_timeout(&self) -> Instant {
        let seconds = u32::try_from(self.next + 1).unwrap_or(u32::MAX);
        self.started + INTERVAL.saturating_mul(seconds)
    }

    /// Takes a sample, if one is due, of what the server knows and of its response times until now. Allocates the first
    /// time only, and for an endpoint that is new.
    ///
    /// After a delay the seconds missed are gaps, and what was counted in them is spread over them and the sample: it
    /// is their average.
    pub(crate) fn record(&mut self, state: &Snapshot, cells: &Cells, now: Instant) {
        let due = now.saturating_duration_since(self.started).as_secs();
        if due <= self.next {
            return;
        }
        let (newest, span) = (due - 1, due - self.next);
        for missed in self.next.max(newest.saturating_sub(SAMPLES as u64))..newest {
            self.ring[place(missed)] = Sample::GAP;
        }
        self.next = newest;
        self.enter(Condition::of(state, self.recent(&state.totals)), state, now);
        self.ring[place(newest)] = self.sample(state, cells, span);
        let mut at = 0;
        state.counted(&mut |_, total| {
            if at == self.counted.len() {
                self.counted.push(Counted {
                    ring: vec![0; SAMPLES].into_boxed_slice(),
                    total: 0,
                });
            }
            let counted = &mut self.counted[at];
            counted.ring[place(newest)] = each(total, counted.total, span);
            counted.total = total;
            at += 1;
        });
        if let Some(upstreams) = &state.upstreams {
            self.endpoints.record(&upstreams.endpoints, newest, span);
        }
        self.next = due;
        self.totals = state.totals;
        self.trips = state.trips;
        *self.cells = cells.clone();
    }

    fn sample(&self, state: &Snapshot, cells: &Cells, span: u64) -> Sample {
        let (totals, before) = (&state.totals, &self.totals);
        let each = |count, before| each(count, before, span);
        let times = cells.since(&self.cells);
        let gate = match state.gate {
            _ if state.trips > self.trips => OPEN,
            GateState::Closed => CLOSED,
            GateState::Open { .. } => OPEN,
            GateState::HalfOpen => HALF_OPEN,
        };
        Sample {
            p50: times.percentile(0.5).unwrap_or(NONE),
            p99: times.percentile(0.99).unwrap_or(NONE),
            response: micros(state.response_time),
            service: micros(state.service_time),
            served: each(totals.served, before.served),
            bad: each(totals.bad, before.bad),
            failed: each(totals.failed, before.failed),
            overload: each(overload(totals), overload(before)),
            unavailable: each(unavailable(totals), unavailable(before)),
            throttled: each(totals.throttled, before.throttled),
            connections: u32::try_from(state.connections).unwrap_or(u32::MAX),
            queue: u32::try_from(state.queue).unwrap_or(u32::MAX),
            busy: u16::try_from(state.workers_busy).unwrap_or(u16::MAX),
            condition: Some(self.condition),
            gate,
            load: whole(state.load() * 100.0),
        }
    }

    /// What has just happened, up to a state whose totals are these.
    pub(crate) fn recent(&self, totals: &Totals) -> Recent {
        let newest = self.since_sample(self.next.checked_sub(u64::from(RECENT) + 1));
        let sampled: u64 = newest.map(|(_, it)| u64::from(it.overload)).sum();
        let unsampled = overload(totals).saturating_sub(overload(&self.totals));
        Recent {
            overload: sampled + unsampled,
            seconds: RECENT,
        }
    }

    /// Notes the condition of the server; returns since when it is in it.
    pub(crate) fn enter(
        &mut self,
        condition: Condition,
        state: &Snapshot,
        now: Instant,
    ) -> Instant {
        // The gate knows better than a look a second, and may have opened anew since the last.
        let of_gate = (condition == Condition::Unhealthy && !state.is_healthy())
            || condition == Condition::Recovering;
        if let Some(moved) = now.checked_sub(state.gate_for).filter(|_| of_gate) {
            self.since = moved;
        } else if condition != self.condition {
            self.since = now;
        }
        self.condition = condition;
        self.since
    }

    /// The samples after the one of that number, or all: numbers and samples in order of time.
    pub(crate) fn since_sample(&self, after: Option<u64>) -> impl Iterator<Item = (u64, &Sample)> {
        let oldest = self.next.saturating_sub(SAMPLES as u64);
        // From a number that is yet to come nothing follows.
        let first = after.map_or(oldest, |after| after.saturating_add(1).max(oldest));
        (first..self.next).map(|number| (number, &self.ring[place(number)]))
    }

    /// What was counted at that place of [`Snapshot::counted`] in the second of that sample.
    pub(crate) fn counted(&self, at: usize, number: u64) -> u32 {
        self.counted
            .get(at)
            .map_or(0, |counted| counted.ring[place(number)])
    }

    /// The samples of each endpoint that reports tell of.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &EndpointHistory> {
        self.endpoints.iter()
    }

    /// The number of the next sample.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }
}

/// How often a second something happened, in so many.
fn each(count: u64, before: u64, span: u64) -> u32 {
    let count = count.saturating_sub(before);
    // To the nearest, but never to none: a single failure is to be seen.
    let rate = (count + span / 2) / span;
    u32::try_from(rate.max(u64::from(count > 0))).unwrap_or(u32::MAX)
}

fn place(number: u64) -> usize {
    // The remainder is below 600.
    usize::try_from(number % SAMPLES as u64).unwrap_or(0)
}

fn overload(totals: &Totals) -> u64 {
    totals.shed_queue + totals.shed_deadline + totals.shed_fair + totals.shed_bodies
}

fn unavailable(totals: &Totals) -> u64 {
    totals.shed_gate + totals.shed_drain
}

#[cfg(test)]
mod tests;
