//! A simulated server: the real admission and the real gate, driven by a virtual clock.
//!
//! Requests arrive at random (Poisson), wait in [`Admission`], and occupy one of [`WORKERS`] workers for as long as the
//! scenario says. Clients give up after [`PATIENCE`]. Everything is deterministic for a seed.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small numbers, chosen here

use super::admission::Admission;
use crate::health::ewma::Ewma;
use crate::health::gate::{Gate, GateConfig, GateState, Occupancy, PREDICTOR_AGE, Trip};
use crate::random::Random;
use crate::settings::GateMode;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const WORKERS: usize = 8;
const BUDGET: Duration = Duration::from_millis(50);
const THRESHOLD: Duration = Duration::from_millis(100);
const COOLDOWN: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(1);

/// Mean service time, in seconds, of a service that is well.
const MEAN: f64 = 0.005;

/// Requests per second that the workers can serve while the service is well.
const CAPACITY: f64 = WORKERS as f64 / MEAN;

/// What comes before this is not measured, in seconds.
const WARM_UP: f64 = 1.0;

/// When the service falls ill in a scenario with a stall, in seconds.
const ILL: f64 = 2.0;

/// Goodput is counted in buckets of this length, in seconds.
const BUCKET: f64 = 0.05;

/// Gives the service time of a job that starts at a given second, when the service is well from another second on.
type Service = fn(&mut Random, f64, f64) -> f64;

/// Exponentially distributed numbers with this mean.
fn exponential(random: &mut Random, mean: f64) -> f64 {
    -mean * (1.0 - random.uniform()).ln()
}

/// A scenario: what arrives, and what the service does with it.
#[derive(Clone, Copy)]
struct Scenario {
    mode: GateMode,
    fair: bool,
    budget: Duration,
    /// Arrivals, as a multiple of the capacity.
    load: f64,
    service: Service,
    peer: fn(&mut Random) -> IpAddr,
    /// In seconds.
    length: f64,
    /// When a stall ends, in seconds.
    well: f64,
    seed: u64,
}

impl Scenario {
    fn new(load: f64, service: Service, length: f64) -> Self {
        Self {
            mode: GateMode::Guarded,
            fair: false,
            budget: BUDGET,
            load,
            service,
            peer: |_| IpAddr::V4(Ipv4Addr::LOCALHOST),
            length,
            well: 12.0,
            seed: 0x9E37_79B9_7F4A_7C15,
        }
    }

    fn mode(self, mode: GateMode) -> Self {
        Self { mode, ..self }
    }

    fn well(self, well: f64) -> Self {
        Self { well, ..self }
    }

    fn seed(self, seed: u64) -> Self {
        // Neighbouring seeds would otherwise begin alike.
        let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self { seed, ..self }
    }

    fn run(self) -> Results {
        Simulation::new(self).run()
    }
}

#[derive(Clone, Copy)]
struct Request {
    arrived: Instant,
    peer: IpAddr,
    epoch: u64,
}

#[derive(Clone, Copy)]
struct Job {
    request: Request,
    started: Instant,
}

enum Event {
    Arrival,
    Finish(Job),
    Timeout,
    Reset,
}

/// An event and its time; of events at one time, the first scheduled comes first.
struct Scheduled {
    at: Instant,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What a run showed. Times in seconds.
#[derive(Default)]
struct Results {
    /// Requests finished for a client that still waited, by bucket.
    good: Vec<u32>,
    /// Of requests that arrived after the warm-up.
    offered: u32,
    shed: u32,
    /// Time to the reply: of requests that ran, and of those refused.
    accepted: Vec<f64>,
    refused: Vec<f64>,
    /// Finished after the client had left.
    late: u32,
    /// Changes between closed and not closed.
    flips: u32,
    /// Requests that the gate let in while the reset thread slept.
    admitted_while_open: u32,
    trips: u64,
    resets: u64,
    asleep: bool,
    longest_cooldown: Duration,
    last_state: Option<GateState>,
    /// Requests finished for the peer 127.0.0.1.
    good_for_localhost: u32,
}

impl Results {
    /// Goodput from one second to another, as a part of the capacity.
    fn goodput(&self, from: f64, to: f64) -> f64 {
        let bucket = |second: f64| (second / BUCKET).round() as usize;
        let range = bucket(from)..bucket(to).min(self.good.len());
        let good: u32 = self.good.get(range).map_or(0, |good| good.iter().sum());
        f64::from(good) / ((to - from) * CAPACITY)
    }

    /// Seconds from the end of the illness until goodput is back at 90 % of the capacity.
    fn recovery(&self, well: f64) -> f64 {
        let mut at = well;
        while self.goodput(at, at + 4.0 * BUCKET) < 0.9 && at < 100.0 {
            at += BUCKET;
        }
        at - well
    }

    fn shed_share(&self) -> f64 {
        f64::from(self.shed) / f64::from(self.offered)
    }
}

fn p99(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() * 99 / 100).copied().unwrap_or(0.0)
}

struct Simulation {
    scenario: Scenario,
    start: Instant,
    now: Instant,
    random: Random,
    events: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    gate: Gate,
    admission: Admission<Request>,
    busy: usize,
    last_start: Option<Instant>,
    /// Whether the reset thread has had a signal and not yet reset.
    asleep: bool,
    timeout: Option<Instant>,
    was_closed: bool,
    outcome: Results,
}

impl Simulation {
    fn new(scenario: Scenario) -> Self {
        let start = Instant::now();
        let config = GateConfig {
            mode: scenario.mode,
            threshold: THRESHOLD,
            cooldown: COOLDOWN,
        };
        let average = Arc::new(Ewma::new(30));
        let predictor = Arc::new(Ewma::new(PREDICTOR_AGE));
        Self {
            scenario,
            start,
            now: start,
            random: Random::new(scenario.seed),
            events: BinaryHeap::new(),
            order: 0,
            gate: Gate::new(config, average, predictor, start),
            admission: Admission::new(scenario.budget, 1024, WORKERS, scenario.fair),
            busy: 0,
            last_start: None,
            asleep: false,
            timeout: None,
            was_closed: true,
            outcome: Results::default(),
        }
    }

    fn run(mut self) -> Results {
        let end = self.start + Duration::from_secs_f64(self.scenario.length);
        self.outcome.good = vec![0; (self.scenario.length / BUCKET) as usize];
        self.schedule(self.start, Event::Arrival);
        while let Some(Reverse(next)) = self.events.pop()
            && next.at < end
        {
            self.now = next.at;
            match next.event {
                Event::Arrival => self.arrive(),
                Event::Finish(job) => self.finish(job),
                Event::Timeout => self.timeout = None,
                Event::Reset => {
                    self.asleep = false;
                    if let Some(again) = self.gate.reset(self.occupancy(), self.now) {
                        self.asleep = true;
                        self.schedule(self.now + again, Event::Reset);
                    }
                }
            }
            self.turn();
        }
        self.outcome.trips = self.gate.trips();
        self.outcome.resets = self.gate.resets();
        self.outcome.asleep = self.asleep;
        self.outcome.last_state = Some(self.gate.state(self.now));
        self.outcome
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.order += 1;
        let order = self.order;
        self.events.push(Reverse(Scheduled { at, order, event }));
    }

    fn seconds(&self) -> f64 {
        (self.now - self.start).as_secs_f64()
    }

    fn occupancy(&self) -> Occupancy {
        Occupancy {
            idle: self.busy + self.admission.len() < WORKERS,
            last_start: self.last_start,
        }
    }

    fn arrive(&mut self) {
        let gap = exponential(&mut self.random, 1.0 / (CAPACITY * self.scenario.load));
        self.schedule(self.now + Duration::from_secs_f64(gap), Event::Arrival);
        if self.seconds() >= WARM_UP {
            self.outcome.offered += 1;
        }
        let mut request = Request {
            arrived: self.now,
            peer: (self.scenario.peer)(&mut self.random),
            epoch: 0,
        };
        let trip = self.gate.observe(self.occupancy(), self.now);
        self.sleep(trip);
        let admitted = self.gate.admit(self.occupancy(), self.now);
        self.outcome.admitted_while_open += u32::from(self.asleep && admitted.is_ok());
        let Ok(pass) = admitted else {
            return self.refuse(request);
        };
        request.epoch = pass.epoch;
        if pass.probe {
            return self.begin(request);
        }
        let predicted = self.gate.predicted();
        let decision =
            self.admission
                .decide(request.peer, 0, self.occupancy(), predicted, self.now);
        match decision {
            Ok(()) => {
                self.admission.push(request, request.peer, self.now);
            }
            Err(_) => self.refuse(request),
        }
    }

    fn begin(&mut self, request: Request) {
        self.busy += 1;
        self.last_start = Some(self.now);
        let at = self.seconds();
        let service = (self.scenario.service)(&mut self.random, at, self.scenario.well);
        let job = Job {
            request,
            started: self.now,
        };
        self.schedule(
            self.now + Duration::from_secs_f64(service),
            Event::Finish(job),
        );
    }

    fn finish(&mut self, job: Job) {
        self.busy -= 1;
        let service = self.now - job.started;
        let trip = self.gate.done(job.request.epoch, service, self.now);
        self.sleep(trip);
        let took = self.now - job.request.arrived;
        if took > PATIENCE {
            self.outcome.late += 1;
            return;
        }
        let bucket = (self.seconds() / BUCKET) as usize;
        if let Some(good) = self.outcome.good.get_mut(bucket) {
            *good += 1;
        }
        if self.seconds() >= WARM_UP {
            self.outcome.accepted.push(took.as_secs_f64());
        }
        let localhost = job.request.peer == IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.outcome.good_for_localhost += u32::from(localhost);
    }

    fn refuse(&mut self, request: Request) {
        if self.seconds() >= WARM_UP {
            let waited = self.now - request.arrived;
            self.outcome.shed += 1;
            self.outcome.refused.push(waited.as_secs_f64());
        }
    }

    /// The reset thread's part.
    fn sleep(&mut self, trip: Option<Trip>) {
        let Some(Trip { cooldown, .. }) = trip else {
            return;
        };
        assert!(!self.asleep, "a second reset while the reset thread sleeps");
        self.asleep = true;
        let longest = &mut self.outcome.longest_cooldown;
        *longest = cooldown.max(*longest);
        self.schedule(self.now + cooldown, Event::Reset);
    }

    /// What the event loop does once in every turn.
    fn turn(&mut self) {
        while let Some(request) = self.admission.expire(self.now) {
            self.refuse(request);
        }
        while self.busy < WORKERS
            && let Some(request) = self.admission.pop(self.now)
        {
            self.begin(request);
        }
        if self.timeout.is_none()
            && let Some(at) = self.admission.next_timeout()
        {
            self.timeout = Some(at);
            self.schedule(at, Event::Timeout);
        }
        let closed = self.gate.state(self.now) == GateState::Closed;
        self.outcome.flips += u32::from(closed != self.was_closed);
        self.was_closed = closed;
    }
}

mod tests;
