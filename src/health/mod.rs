//! The numbers that the server knows about itself, and the gate's state.
//!
//! Workers and the frontend write them as requests go by; a report reads them from memory. Averages and counts are
//! atomics, each right by itself; the [gate](gate), whose parts must agree, is behind a lock that is held for a few
//! additions.

pub(crate) mod causes;
pub(crate) mod ewma;
pub(crate) mod gate;
pub(crate) mod histogram;
#[cfg(feature = "status-page")]
pub(crate) mod history;
pub(crate) mod reset;
#[cfg(feature = "status-page")]
pub(crate) mod standing;
pub(crate) mod upstreams;

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;

use crate::checks::{CheckReport, Watched};
use crate::lines::Lines;
#[cfg(feature = "events")]
use crate::patterns::EventStats;
#[cfg(feature = "cache")]
use crate::patterns::{Cache, CacheStats};
#[cfg(feature = "redis")]
use crate::patterns::{ThrottleStore, ThrottleStoreStatus};
use crate::server::exchange::lock;
use crate::settings::{Config, GateMode};
pub use ewma::Ewma;
use gate::{Crew, Entry, Gate, GateConfig, PREDICTOR_AGE, State, Trip, TripCause};
use histogram::Histogram;
#[cfg(feature = "status-page")]
use history::History;
use upstreams::{Reporter, UpstreamsReport};

/// What tells the numbers of the queue of events.
#[cfg(feature = "events")]
pub(crate) type EventSource = Arc<dyn Fn() -> EventStats + Send + Sync>;

/// What the server knows about itself: read it with [`snapshot`](Health::snapshot).
///
/// ```
/// # fn main() -> Result<(), plimsoll::Error> {
/// let server = plimsoll::Server::builder().listen("127.0.0.1:0").start()?;
/// assert!(server.health().is_healthy());
/// let now = server.health().snapshot();
/// println!(
///     "{:?} on average of {:?}; {} of {} workers are busy; {} requests were served",
///     now.service_time, now.threshold, now.workers_busy, now.workers, now.totals.served,
/// );
/// # Ok(())
/// # }
/// ```
pub struct Health {
    started: Instant,
    start_time: SystemTime,
    gate: Mutex<Gate>,
    /// The reset thread's ear.
    trips: Sender<Duration>,
    service: Arc<Ewma>,
    predictor: Arc<Ewma>,
    response: Ewma,
    bad: Ewma,
    failed: Ewma,
    /// When each worker began its job: nanoseconds since the start, and 0 while idle.
    workers: Box<[AtomicU64]>,
    /// When a worker last began a job, likewise.
    last_start: AtomicU64,
    pub(crate) service_times: Histogram,
    pub(crate) response_times: Histogram,
    pub(crate) queue_waits: Histogram,
    pub(crate) counts: Counts,
    pub(crate) gauges: Gauges,
    pub(crate) checks: Arc<[Arc<Watched>]>,
    /// What tells of the endpoints that the handler forwards to.
    upstreams: Option<Reporter>,
    #[cfg(feature = "events")]
    events: Option<EventSource>,
    /// Requests that each limit has refused, with its name.
    throttles: Box<[(Arc<str>, AtomicU64)]>,
    /// What is kept of replies, if anything is.
    #[cfg(feature = "redis")]
    throttle_store: Option<ThrottleStore>,
    #[cfg(feature = "cache")]
    pub(crate) cache: Option<Cache>,
    #[cfg(feature = "status-page")]
    history: Mutex<History>,
    /// The queue of the access log, if there is one.
    pub(crate) access_log: Option<Lines>,
    /// What the server was started with.
    pub(crate) config: Config,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What only ever grows.
        #[derive(Debug, Default)]
        pub(crate) struct Counts { $($(#[$doc])* pub(crate) $name: AtomicU64,)* }

        /// What has happened since the start; each only ever grows.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Totals { $($(#[$doc])* pub $name: u64,)* }

        impl Counts {
            pub(crate) fn read(&self) -> Totals {
                Totals { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counts! {
    /// Requests answered with 1xx to 3xx by the handler.
    served,
    /// Requests answered with 4xx, malformed ones included.
    bad,
    /// Requests answered with 5xx by the handler or for it, 504 included.
    failed,
    /// Requests refused with 503 because the queue was full.
    shed_queue,
    /// Requests refused with 503 because they would not have reached a worker within the budget, or did not.
    shed_deadline,
    /// Requests refused with 503 because their client had its share of the queue.
    shed_fair,
    /// Requests refused with 503 because there was no room for their body in time.
    shed_bodies,
    /// Requests refused with 503 because the gate was open, or half-open with a probe out.
    shed_gate,
    /// Requests refused with 503 because the server was stopping.
    shed_drain,
    /// Requests refused with 429 because their client asked too often.
    throttled,
    /// Requests for the health paths, and agent-checks.
    probed,
    /// Handlers that panicked; each is a failed request too.
    panics,
    /// Requests whose handler was slower than the request timeout: answered 504.
    timeouts,
    /// Answers dropped because the client had been answered already, or had gone.
    late,
    /// Requests whose client had gone before the handler started: not started.
    skipped,
    /// Replies cut in their middle: the body's reader failed or ended short.
    cut,
    /// Client connections accepted.
    accepted,
    /// Kept-alive connections closed to make room for new ones.
    evicted,
    /// Connections closed for being idle too long.
    idle_closed,
    /// Requests that were not whole in time: answered 408.
    too_slow,
    /// Requests whose head or trailers were larger than the limit: answered 414 or 431.
    head_too_large,
    /// Requests whose body was larger than the limit: answered 413.
    body_too_large,
    /// Replies that made no progress for the write timeout: cut.
    write_timeouts,
    /// Times that accepting paused because all connections were in use.
    accept_pauses_full,
    /// Times that accepting paused because descriptors or memory had run out.
    accept_pauses_descriptors,
    /// Private streams into the workers that broke and were opened again.
    stream_failures,
}

/// A request's leave to run, which the gate gave. Dropped before it has run, it makes room for another one.
#[derive(Debug)]
pub(crate) struct Permit {
    epoch: u64,
    /// The request shows whether the service is well again.
    probe: Option<Arc<Health>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(health) = self.probe.take() {
            lock(&health.gate).abandon_probe(self.epoch);
        }
    }
}

/// What goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) connections: AtomicUsize,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) queue: AtomicUsize,
    /// Bytes of room that request bodies have.
    pub(crate) body_bytes: AtomicUsize,
    /// Requests whose body waits for room.
    pub(crate) bodies_waiting: AtomicUsize,
    /// Since when requests have no way to the workers: nanoseconds since the start, and 0 while they have one.
    pub(crate) intake_down_since: AtomicU64,
    /// Nanoseconds.
    pub(crate) predicted_wait: AtomicU64,
    pub(crate) draining: std::sync::atomic::AtomicBool,
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

/// A limit on how often clients may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThrottleReport {
    /// Its name.
    pub name: Arc<str>,
    /// Requests that it has refused.
    pub throttled: u64,
}

/// Every number of the health report at one moment. Ratios are from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Average service time: handler start to reply handed over. `None` before the first sample since a reset.
    pub service_time: Option<Duration>,
    /// Average response time: request whole to reply handed over, waiting included.
    pub response_time: Option<Duration>,
    /// Average share of requests answered 4xx.
    pub bad_ratio: Option<f64>,
    /// Average share of requests answered 5xx.
    pub failed_ratio: Option<f64>,
    /// Service time that admission expects of the next request.
    pub predicted_service_time: Option<Duration>,
    /// How long a request that came now would wait for a worker.
    pub predicted_wait: Duration,
    /// Client connections open.
    pub connections: usize,
    /// Requests handed to the workers and not answered yet.
    pub in_flight: usize,
    /// Requests that wait for a worker.
    pub queue: usize,
    /// Bytes of room that request bodies have: of [`max_bodies`](crate::Config::max_bodies).
    pub body_bytes: usize,
    /// Requests whose body waits for room.
    pub bodies_waiting: usize,
    /// Workers in the pool.
    pub workers: usize,
    /// Workers that run a handler or write a reply.
    pub workers_busy: usize,
    /// Workers busy with one request for longer than the request timeout.
    pub workers_stuck: usize,
    /// How long requests have had no way to the workers, since the server's own queue to them broke; `None` while they
    /// have one.
    pub intake_down: Option<Duration>,
    /// Where the gate stands.
    pub gate: GateState,
    /// What trips the gate.
    pub gate_mode: GateMode,
    /// How long it has stood there.
    pub gate_for: Duration,
    /// Resets so far, as jobs are told apart by it.
    pub epoch: u64,
    /// Times that the gate has tripped.
    pub trips: u64,
    /// Times that the reset thread has reset.
    pub resets: u64,
    /// Requests let through to see whether the service is well again.
    pub gate_probes: u64,
    /// The cooldown of the last trip, or the first one's.
    pub cooldown: Duration,
    /// Average service time at which the gate trips.
    pub threshold: Duration,
    /// Longest that a request may wait for a worker.
    pub queue_budget: Duration,
    /// Longest that a request may take until its reply.
    pub request_timeout: Duration,
    /// The data stores that are watched, in the order in which they were named.
    pub checks: Vec<CheckReport>,
    /// The queue of events, if there is one.
    #[cfg(feature = "events")]
    pub events: Option<EventStats>,
    /// The limits on how often clients may ask, in the order in which they were named.
    pub throttles: Vec<ThrottleReport>,
    /// How the store fares in which [limits are shared](crate::Builder::throttle_store), if there is one.
    #[cfg(feature = "redis")]
    pub throttle_store: Option<ThrottleStoreStatus>,
    /// The endpoints that the handler forwards to; `None` if it does not.
    pub upstreams: Option<UpstreamsReport>,
    /// How the cache is used, if the server [has one](crate::Builder::cache).
    #[cfg(feature = "cache")]
    pub cache: Option<CacheStats>,
    /// Whether the server is stopping.
    pub draining: bool,
    /// Time since the start.
    pub uptime: Duration,
    /// When the server was started.
    pub start_time: SystemTime,
    /// What has happened since the start.
    pub totals: Totals,
}

impl Snapshot {
    /// Whether requests are served: the gate is not open.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !matches!(self.gate, GateState::Open { .. })
    }

    /// What the history has a column of for this server: requests refused by each limit, then retries and those that the
    /// budget refused, then requests that the cache answered, and all that it could have answered.
    #[cfg(feature = "status-page")]
    pub(crate) fn counted(&self) -> impl Iterator<Item = u64> {
        let throttled = self.throttles.iter().map(|throttle| throttle.throttled);
        #[cfg(feature = "cache")]
        let cache = self.cache.map(|cache| {
            let given = cache.hits + cache.stale;
            [given, given + cache.misses]
        });
        #[cfg(not(feature = "cache"))]
        let cache: Option<[u64; 2]> = None;
        let upstreams = self.upstreams.as_ref();
        let retries = upstreams.map(|it| [it.retries, it.retries_refused]);
        throttled.chain([retries, cache].into_iter().flatten().flatten())
    }

    /// Whether the server wants traffic: healthy, live, not stopping, every critical data store up, and an
    /// endpoint to forward to, if it forwards.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status() != Status::Fail
    }

    /// The status in the words of health reports: `Fail` while not ready; `Warn` while a data store is down that the
    /// service can do without, or a pool is exhausted, or an endpoint gets no requests.
    #[must_use]
    pub fn status(&self) -> Status {
        let causes = causes::causes(self).into_iter();
        causes
            .map(causes::Cause::status)
            .max()
            .unwrap_or(Status::Pass)
    }

    /// The load, as a part of what the server may carry: the predicted wait over the queue budget or the service time
    /// over the threshold, whichever is nearer its limit. 1 is the load line.
    #[must_use]
    pub fn load(&self) -> f64 {
        let wait = self.predicted_wait.as_secs_f64() / self.queue_budget.as_secs_f64();
        let service =
            self.service_time.unwrap_or_default().as_secs_f64() / self.threshold.as_secs_f64();
        wait.max(service)
    }

    /// Whether requests have had no way to the workers for a second: by then a new one should have been made.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.intake_down >= Some(Duration::from_secs(1))
    }

    /// Whether the process can do its job: not every worker is stuck, and requests reach them.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.are_all_stuck() && !self.is_intake_lost()
    }

    /// Whether requests have had no way to the workers for as long as a request may take.
    pub(crate) fn is_intake_lost(&self) -> bool {
        self.intake_down >= Some(self.request_timeout)
    }

    /// Whether every worker has been busy with one request for longer than the request timeout.
    #[must_use]
    pub fn are_all_stuck(&self) -> bool {
        self.workers_stuck >= self.workers
    }
}

/// The status of the service, in the words of `application/health+json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// All is well.
    Pass,
    /// It serves, and an operator should look.
    Warn,
    /// It does not serve, or should get no traffic.
    Fail,
}

impl Status {
    /// `pass`, `warn` or `fail`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// How a request ended, for the averages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Served,
    Bad,
    Failed,
    /// The limit at that place has refused it.
    #[cfg(feature = "redis")]
    Throttled(usize),
}

impl Outcome {
    pub(crate) fn of(status: u16) -> Self {
        match status {
            400..=499 => Self::Bad,
            500.. => Self::Failed,
            _ => Self::Served,
        }
    }
}

/// The value of an average that is kept in seconds.
fn duration(average: &Ewma) -> Option<Duration> {
    let seconds = average.value()?;
    Duration::try_from_secs_f64(seconds).ok()
}

impl Health {
    pub(crate) fn new(config: &Config, trips: Sender<Duration>, now: Instant) -> Self {
        let service = Arc::new(Ewma::new(config.ewma_age));
        let predictor = Arc::new(Ewma::new(PREDICTOR_AGE));
        let gate_config = GateConfig {
            mode: config.gate,
            threshold: config.threshold,
            cooldown: config.cooldown,
        };
        let gate = Gate::new(gate_config, service.clone(), predictor.clone(), now);
        let rules = config.throttle.iter().enumerate();
        let throttles = rules.map(|(place, rule)| (rule.name_at(place).into(), AtomicU64::new(0)));
        Self {
            started: now,
            start_time: SystemTime::now(),
            gate: Mutex::new(gate),
            trips,
            service,
            predictor,
            response: Ewma::new(config.ewma_age),
            bad: Ewma::new(config.ewma_age),
            failed: Ewma::new(config.ewma_age),
            workers: (0..config.workers).map(|_| AtomicU64::new(0)).collect(),
            last_start: AtomicU64::new(0),
            service_times: Histogram::default(),
            response_times: Histogram::default(),
            queue_waits: Histogram::default(),
            counts: Counts::default(),
            gauges: Gauges::default(),
            checks: Arc::default(),
            upstreams: None,
            #[cfg(feature = "events")]
            events: None,
            throttles: throttles.collect(),
            #[cfg(feature = "redis")]
            throttle_store: None,
            #[cfg(feature = "cache")]
            cache: None,
            #[cfg(feature = "status-page")]
            history: Mutex::new(History::new(now)),
            access_log: None,
            config: config.clone(),
        }
    }

    /// Takes the data stores to watch, in the order of the report.
    pub(crate) fn watching(mut self, checks: impl Iterator<Item = Watched>) -> Self {
        self.checks = checks.map(Arc::new).collect();
        self
    }

    /// Takes where limits are shared, to tell whether it answers.
    #[cfg(feature = "redis")]
    pub(crate) fn sharing(mut self, store: Option<ThrottleStore>) -> Self {
        self.throttle_store = store;
        self
    }

    /// Takes the cache whose numbers are told.
    #[cfg(feature = "cache")]
    pub(crate) fn caching(mut self, cache: Option<Cache>) -> Self {
        self.cache = cache;
        self
    }

    /// Takes the queue of the access log, to tell what it drops.
    pub(crate) fn logging(mut self, access_log: Option<Lines>) -> Self {
        self.access_log = access_log;
        self
    }

    /// Takes what tells of the endpoints that the handler forwards to.
    pub(crate) fn with_upstreams(self, upstreams: Option<Reporter>) -> Self {
        Self { upstreams, ..self }
    }

    /// Takes the queue of events that the reports tell of.
    #[cfg(feature = "events")]
    pub(crate) fn with_events(self, events: Option<EventSource>) -> Self {
        Self { events, ..self }
    }

    /// Whether requests are served: the gate is not open.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !matches!(lock(&self.gate).state(), State::Open { .. })
    }

    /// Average service time: handler start to reply handed over. `None` before the first sample since a
    /// reset. Reads one atomic.
    #[must_use]
    pub fn service_time(&self) -> Option<Duration> {
        duration(&self.service)
    }

    /// Every number of the report, at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        let gate = lock(&self.gate);
        let state = match gate.state() {
            State::Closed => GateState::Closed,
            State::Open { reopen_at } => GateState::Open {
                reopens_in: reopen_at.saturating_duration_since(now),
            },
            State::Half => GateState::HalfOpen,
        };
        let gate_for = now.saturating_duration_since(gate.since());
        let (epoch, trips, resets) = (gate.epoch(), gate.trips(), gate.resets());
        let (gate_probes, cooldown) = (gate.probes(), gate.cooldown());
        drop(gate);
        let ages = self.workers.iter().filter_map(|start| self.age(start, now));
        let (busy, stuck) = ages.fold((0, 0), |(busy, stuck), age| {
            (
                busy + 1,
                stuck + usize::from(age > self.config.request_timeout),
            )
        });
        Snapshot {
            service_time: duration(&self.service),
            response_time: duration(&self.response),
            bad_ratio: self.bad.value(),
            failed_ratio: self.failed.value(),
            predicted_service_time: duration(&self.predictor),
            predicted_wait: Duration::from_nanos(self.gauges.predicted_wait.load(Relaxed)),
            connections: self.gauges.connections.load(Relaxed),
            in_flight: self.gauges.in_flight.load(Relaxed),
            queue: self.gauges.queue.load(Relaxed),
            body_bytes: self.gauges.body_bytes.load(Relaxed),
            bodies_waiting: self.gauges.bodies_waiting.load(Relaxed),
            workers: self.workers.len(),
            workers_busy: busy,
            workers_stuck: stuck,
            intake_down: self.age(&self.gauges.intake_down_since, now),
            gate: state,
            gate_mode: self.config.gate,
            gate_for,
            epoch,
            trips,
            resets,
            gate_probes,
            cooldown,
            threshold: self.config.threshold,
            queue_budget: self.config.queue_budget,
            request_timeout: self.config.request_timeout,
            checks: self.checks.iter().map(|store| store.report(now)).collect(),
            upstreams: self.upstreams.as_ref().map(|report| report()),
            #[cfg(feature = "events")]
            events: self.events.as_ref().map(|stats| stats()),
            throttles: self.throttles.iter().map(throttle_report).collect(),
            #[cfg(feature = "redis")]
            throttle_store: self.throttle_store.as_ref().map(ThrottleStore::status),
            #[cfg(feature = "cache")]
            cache: self.cache.as_ref().map(Cache::stats),
            draining: self.gauges.draining.load(Relaxed),
            uptime: now.saturating_duration_since(self.started),
            start_time: self.start_time,
            totals: self.counts.read(),
        }
    }

    /// Takes the sample of the last second if it is due; returns when the next one is. Only the frontend calls this, and
    /// has published its gauges.
    #[cfg(feature = "status-page")]
    pub(crate) fn sample(&self, now: Instant) -> Instant {
        let state = self.snapshot();
        let cells = self.response_times.cells();
        let mut history = self.history();
        history.record(&state, &cells, now);
        history.next_timeout()
    }

    /// Nothing shows samples; returns when to look again.
    #[cfg(not(feature = "status-page"))]
    #[allow(clippy::unused_self, reason = "as the one that takes samples")]
    pub(crate) fn sample(&self, now: Instant) -> Instant {
        now + Duration::from_secs(1)
    }

    /// The last ten minutes. Held by the frontend for as long as it writes a report of them; nothing else waits for it.
    #[cfg(feature = "status-page")]
    pub(crate) fn history(&self) -> std::sync::MutexGuard<'_, History> {
        lock(&self.history)
    }

    /// Asks the gate whether a request may go on.
    ///
    /// # Errors
    /// For how long not, in whole seconds.
    pub(crate) fn admit(self: &Arc<Self>, idle: bool, now: Instant) -> Result<Permit, Duration> {
        let crew = self.crew(idle);
        let mut gate = lock(&self.gate);
        let trip = gate.observe(crew, now);
        let entry = gate.admit(crew, now);
        drop(gate);
        self.signal(trip);
        match entry {
            Entry::Admit { epoch } => Ok(Permit { epoch, probe: None }),
            Entry::Probe { epoch } => Ok(Permit {
                epoch,
                probe: Some(self.clone()),
            }),
            Entry::Refuse { retry_after } => Err(retry_after),
        }
    }

    /// Lets the gate notice workers that have been stuck for too long, whether or not anyone asks to be admitted.
    pub(crate) fn observe(&self, idle: bool, now: Instant) {
        let trip = lock(&self.gate).observe(self.crew(idle), now);
        self.signal(trip);
    }

    /// Service time that admission expects of the next request.
    pub(crate) fn predicted(&self) -> Option<Duration> {
        let seconds = self.predictor.value()?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// What admission and the gate know of the workers.
    pub(crate) fn crew(&self, idle: bool) -> Crew {
        let nanos = self.last_start.load(Relaxed);
        Crew {
            idle,
            last_start: (nanos > 0).then(|| self.started + Duration::from_nanos(nanos)),
        }
    }

    /// Notes that an idle worker is about to begin a job. Without this, the first requests after a quiet time would
    /// find every worker taken and no job begun for long, which is what a stall looks like.
    pub(crate) fn idle_worker_taken(&self, now: Instant) {
        self.last_start.fetch_max(self.nanos(now), Relaxed);
    }

    /// Notes that `worker` begins a job that was admitted at `arrived`.
    pub(crate) fn job_begins(&self, worker: usize, arrived: Instant, now: Instant) {
        let nanos = self.nanos(now);
        self.workers[worker].store(nanos, Relaxed);
        self.last_start.fetch_max(nanos, Relaxed);
        self.queue_waits.add(now.saturating_duration_since(arrived));
    }

    /// Notes that a worker's job ran from `began` till `now`.
    pub(crate) fn job_ends(&self, worker: usize, mut permit: Permit, began: Instant, now: Instant) {
        let service = now.saturating_duration_since(began);
        self.service_times.add(service);
        // The gate counts the probe itself.
        permit.probe = None;
        let trip = lock(&self.gate).done(permit.epoch, service, now);
        self.signal(trip);
        self.worker_rests(worker);
    }

    /// Notes that a worker has nothing to do.
    pub(crate) fn worker_rests(&self, worker: usize) {
        self.workers[worker].store(0, Relaxed);
    }

    /// Notes that a reply has begun, or is whole: so long after the request was.
    pub(crate) fn responded(&self, response: Duration) {
        self.response.add(response.as_secs_f64());
        self.response_times.add(response);
    }

    /// Notes that requests have no way to the workers from now on, unless they had none before.
    pub(crate) fn intake_down_since(&self, now: Instant) {
        let since = &self.gauges.intake_down_since;
        // Only the event loop writes it, so nobody comes between.
        if since.load(Relaxed) == 0 {
            since.store(self.nanos(now), Relaxed);
        }
    }

    /// Notes that requests reach the workers again.
    pub(crate) fn intake_up(&self) {
        self.gauges.intake_down_since.store(0, Relaxed);
    }

    /// Notes that a request ended: its reply is whole, or never will be.
    pub(crate) fn ended(&self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Served => &self.counts.served,
            Outcome::Bad => &self.counts.bad,
            Outcome::Failed => &self.counts.failed,
            #[cfg(feature = "redis")]
            Outcome::Throttled(place) => return self.throttled(place),
        };
        bump(count);
        let as_sample = |it: bool| if it { 1.0 } else { 0.0 };
        self.bad.add(as_sample(outcome == Outcome::Bad));
        self.failed.add(as_sample(outcome == Outcome::Failed));
    }

    /// Notes that a request was refused by the limit at that place. It is in no average: it says nothing of the service.
    pub(crate) fn throttled(&self, place: usize) {
        bump(&self.counts.throttled);
        bump(&self.throttles[place].1);
    }

    /// Starts the averages afresh: for the reset thread alone. While every worker is stuck nothing happens, and the
    /// thread is to come again after the time returned.
    pub(crate) fn reset(&self, now: Instant) -> Option<Duration> {
        let idle = self.workers.iter().any(|start| start.load(Relaxed) == 0);
        lock(&self.gate).reset(self.crew(idle), now)
    }

    /// Tells the reset thread, and the log. Never under the gate's lock.
    fn signal(&self, trip: Option<Trip>) {
        let Some(Trip { cooldown, cause }) = trip else {
            return;
        };
        let why = match cause {
            TripCause::Average => "the average service time has reached the threshold",
            TripCause::Stalled => "every worker is stuck in its request",
            TripCause::ProbeStuck => "the request that was let through to try the service is stuck",
        };
        log::warn!("unhealthy: {why}; resetting in {cooldown:?}");
        // The thread is gone only when the server is stopping, and nothing is to be reset then.
        let _ = self.trips.send(cooldown);
    }

    fn nanos(&self, now: Instant) -> u64 {
        let nanos = now.saturating_duration_since(self.started).as_nanos();
        // 584 years; and never 0, which stands for idle.
        u64::try_from(nanos).unwrap_or(u64::MAX).max(1)
    }

    fn age(&self, start: &AtomicU64, now: Instant) -> Option<Duration> {
        let start = start.load(Relaxed);
        (start > 0).then(|| Duration::from_nanos(self.nanos(now).saturating_sub(start)))
    }
}

#[cfg(test)]
impl Health {
    /// That of a server with the default settings that has just started.
    pub(crate) fn of_a_new_server(now: Instant) -> Self {
        let (trips, _) = crossbeam_channel::unbounded();
        Self::new(&Config::default(), trips, now)
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Health").field(&self.snapshot()).finish()
    }
}

fn throttle_report((name, throttled): &(Arc<str>, AtomicU64)) -> ThrottleReport {
    ThrottleReport {
        name: name.clone(),
        throttled: throttled.load(Relaxed),
    }
}

/// Adds one to a count.
pub(crate) fn bump(count: &AtomicU64) {
    count.fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::sync::Once;

    thread_local! {
        /// The health that this thread's log lines are to find unlocked, and what each found.
        static WATCHED: RefCell<Option<(Arc<Health>, Vec<bool>)>> = const { RefCell::new(None) };
    }

    struct Watcher;

    impl log::Log for Watcher {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, _: &log::Record<'_>) {
            WATCHED.with_borrow_mut(|watched| {
                if let Some((health, found)) = watched {
                    found.push(health.gate.try_lock().is_ok());
                }
            });
        }

        fn flush(&self) {}
    }

    /// A logger that waited for its reader held the gate's lock, and so everybody.
    #[test]
    fn nothing_is_logged_under_the_gates_lock() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            log::set_logger(&Watcher).expect("no other test sets one");
            log::set_max_level(log::LevelFilter::Info);
        });
        let now = Instant::now();
        let (trips, tripped) = crossbeam_channel::unbounded();
        let config = Config {
            gate: GateMode::Literal,
            workers: 1,
            ..Config::default()
        };
        let health = Arc::new(Health::new(&config, trips, now));
        WATCHED.set(Some((health.clone(), Vec::new())));
        let permit = health.admit(true, now).expect("the gate is closed");
        health.job_ends(0, permit, now, now + 3 * config.threshold);
        let (_, found) = WATCHED.take().expect("set above");
        assert_eq!(tripped.len(), 1);
        assert_eq!(found, [true]);
    }
}
