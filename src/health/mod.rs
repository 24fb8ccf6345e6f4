//! The numbers that the server knows about itself, and the gate's state.
//!
//! Workers and the event loop write them as requests go by; a report reads them from memory. Averages and counts are
//! atomics, each right by itself; the [gate], whose parts must agree, is behind a lock that is held for a few
//! additions.

pub(crate) mod causes;
#[cfg(feature = "status-page")]
pub(crate) mod condition;
mod counts;
pub(crate) mod ewma;
pub(crate) mod gate;
pub(crate) mod histogram;
#[cfg(feature = "status-page")]
pub(crate) mod history;
mod metrics;
pub(crate) mod reset;
mod snapshot;
pub(crate) mod upstreams;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;

use crate::checks::Monitored;
use crate::lines::Lines;
use crate::panics::lock;
#[cfg(feature = "cache")]
use crate::patterns::Cache;
#[cfg(feature = "events")]
use crate::patterns::EventStats;
#[cfg(feature = "redis")]
use crate::patterns::ThrottleStore;
use crate::settings::Config;
pub use counts::Totals;
pub(crate) use counts::bump;
use counts::{Counts, Gauges};
pub use ewma::Ewma;
pub use gate::GateState;
use gate::{Gate, GateConfig, Occupancy, PREDICTOR_AGE, Trip, TripCause};
use histogram::Histogram;
#[cfg(feature = "status-page")]
use history::History;
pub use snapshot::{Snapshot, Status, ThrottleReport};
use upstreams::Reporter;

/// What tells the numbers of the queue of events.
#[cfg(feature = "events")]
pub(crate) type EventSource = Arc<dyn Fn() -> EventStats + Send + Sync>;

/// What other parts of a server tell of themselves when a report is made.
#[derive(Default)]
pub(crate) struct Sources {
    /// The endpoints that the handler forwards to.
    pub(crate) upstreams: Option<Reporter>,
    /// The queue of events.
    #[cfg(feature = "events")]
    pub(crate) events: Option<EventSource>,
    /// What is kept of replies, if anything is.
    #[cfg(feature = "cache")]
    pub(crate) cache: Option<Cache>,
    /// Where limits are shared, if they are.
    #[cfg(feature = "redis")]
    pub(crate) throttle_store: Option<ThrottleStore>,
}

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
    /// Time that a job keeps a worker, in seconds.
    work: Ewma,
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
    pub(crate) checks: Arc<[Arc<Monitored>]>,
    pub(crate) sources: Sources,
    /// Requests that each limit has refused, with its name.
    throttles: Box<[(Arc<str>, AtomicU64)]>,
    #[cfg(feature = "status-page")]
    history: Mutex<History>,
    /// The queue of the access log, if there is one.
    pub(crate) access_log: Option<Lines>,
    /// What the server was started with.
    pub(crate) config: Config,
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

/// How a request ended, for the averages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyOutcome {
    Served,
    Bad,
    Failed,
    /// The limit at that place has refused it.
    #[cfg(feature = "redis")]
    Throttled(usize),
}

impl ReplyOutcome {
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
            work: Ewma::new(PREDICTOR_AGE),
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
            sources: Sources::default(),
            throttles: throttles.collect(),
            #[cfg(feature = "status-page")]
            history: Mutex::new(History::new(now)),
            access_log: None,
            config: config.clone(),
        }
    }

    /// Takes the data stores to monitor, in the order of the report.
    pub(crate) fn watching(mut self, checks: impl Iterator<Item = Monitored>) -> Self {
        self.checks = checks.map(Arc::new).collect();
        self
    }

    /// Takes the queue of the access log, to tell what it drops.
    pub(crate) fn logging(mut self, access_log: Option<Lines>) -> Self {
        self.access_log = access_log;
        self
    }

    /// With what other parts tell of themselves.
    pub(crate) fn with_sources(self, sources: Sources) -> Self {
        Self { sources, ..self }
    }

    /// Whether requests are served: the gate is not open.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !lock(&self.gate).is_open()
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
        let state = gate.state(now);
        let gate_for = now.saturating_duration_since(gate.since());
        let (epoch, trips, resets) = (gate.epoch(), gate.trips(), gate.resets());
        let (gate_probes, cooldown) = (gate.probes(), gate.cooldown());
        drop(gate);
        let (busy, stuck) = self.busy_and_stuck(now);
        Snapshot {
            service_time: duration(&self.service),
            response_time: duration(&self.response),
            bad_ratio: self.bad.value(),
            failed_ratio: self.failed.value(),
            predicted_service_time: duration(&self.predictor),
            predicted_wait: Duration::from_nanos(self.gauges.predicted_wait.load(Relaxed)),
            connections: self.gauges.connections.load(Relaxed),
            in_flight: self.gauges.in_flight.load(Relaxed) + self.gauges.places.load(Relaxed),
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
            upstreams: self.sources.upstreams.as_ref().map(|report| report()),
            #[cfg(feature = "events")]
            events: self.sources.events.as_ref().map(|stats| stats()),
            throttles: self.throttles.iter().map(throttle_report).collect(),
            #[cfg(feature = "redis")]
            throttle_store: self
                .sources
                .throttle_store
                .as_ref()
                .map(ThrottleStore::status),
            #[cfg(feature = "cache")]
            cache: self.sources.cache.as_ref().map(Cache::stats),
            draining: self.gauges.draining.load(Relaxed),
            uptime: now.saturating_duration_since(self.started),
            start_time: self.start_time,
            totals: self.counts.read(),
        }
    }

    /// Takes the sample of the last second if it is due; returns when the next one is. Only the event loop calls this, and
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

    /// The last ten minutes. Held by the event loop for as long as it writes a report of them; nothing else waits for it.
    #[cfg(feature = "status-page")]
    pub(crate) fn history(&self) -> std::sync::MutexGuard<'_, History> {
        lock(&self.history)
    }

    /// Asks the gate whether a request may go on.
    ///
    /// # Errors
    /// For how long not, in whole seconds.
    pub(crate) fn admit(self: &Arc<Self>, idle: bool, now: Instant) -> Result<Permit, Duration> {
        let occupancy = self.occupancy(idle);
        let mut gate = lock(&self.gate);
        let trip = gate.observe(occupancy, now);
        let admitted = gate.admit(occupancy, now);
        drop(gate);
        self.signal(trip);
        admitted.map(|pass| Permit {
            epoch: pass.epoch,
            probe: pass.probe.then(|| self.clone()),
        })
    }

    /// Lets the gate notice workers that have been stuck for too long, whether or not anyone asks to be admitted.
    pub(crate) fn observe(&self, idle: bool, now: Instant) {
        let trip = lock(&self.gate).observe(self.occupancy(idle), now);
        self.signal(trip);
    }

    /// Service time that admission expects of the next request.
    pub(crate) fn predicted(&self) -> Option<Duration> {
        let seconds = self.predictor.value()?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// How long a job keeps a worker, usually: less than the service time where requests wait for other servers.
    pub(crate) fn work(&self) -> Option<Duration> {
        duration(&self.work)
    }

    /// What admission and the gate know of the workers.
    pub(crate) fn occupancy(&self, idle: bool) -> Occupancy {
        let nanos = self.last_start.load(Relaxed);
        Occupancy {
            idle,
            last_start: (nanos > 0).then(|| self.started + Duration::from_nanos(nanos)),
        }
    }

    /// Notes that an idle worker is about to begin a job. Without this, the first requests after a quiet time would
    /// find every worker taken and no job begun for long, which is what a stall looks like.
    pub(crate) fn idle_worker_taken(&self, now: Instant) {
        self.last_start.fetch_max(self.nanos(now), Relaxed);
    }

    /// Notes that `worker` begins a job.
    pub(crate) fn job_begins(&self, worker: usize, now: Instant) {
        let nanos = self.nanos(now);
        self.workers[worker].store(nanos, Relaxed);
        self.last_start.fetch_max(nanos, Relaxed);
    }

    /// Notes that a request which the gate let in has been answered, so long after its handler began.
    pub(crate) fn served(&self, mut permit: Permit, service: Duration, now: Instant) {
        self.service_times.add(service);
        // The gate counts the probe itself.
        permit.probe = None;
        let trip = lock(&self.gate).done(permit.epoch, service, now);
        self.signal(trip);
    }

    /// Notes that a worker's job ran from `began` till `now`.
    pub(crate) fn job_ends(&self, worker: usize, began: Instant, now: Instant) {
        let work = now.saturating_duration_since(began);
        self.work.add(work.as_secs_f64());
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
    pub(crate) fn ended(&self, outcome: ReplyOutcome) {
        let count = match outcome {
            ReplyOutcome::Served => &self.counts.served,
            ReplyOutcome::Bad => &self.counts.bad,
            ReplyOutcome::Failed => &self.counts.failed,
            #[cfg(feature = "redis")]
            ReplyOutcome::Throttled(place) => return self.throttled(place),
        };
        bump(count);
        let as_sample = |it: bool| if it { 1.0 } else { 0.0 };
        self.bad.add(as_sample(outcome == ReplyOutcome::Bad));
        self.failed.add(as_sample(outcome == ReplyOutcome::Failed));
    }

    /// Notes that a request was refused by the limit at that place. It is in no average: it says nothing of the service.
    pub(crate) fn throttled(&self, place: usize) {
        bump(&self.counts.throttled);
        bump(&self.throttles[place].1);
    }

    /// How many workers have a job, and how many of these for longer than a request may take.
    fn busy_and_stuck(&self, now: Instant) -> (usize, usize) {
        let ages = self.workers.iter().filter_map(|start| self.age(start, now));
        ages.fold((0, 0), |(busy, stuck), age| {
            let is_stuck = age > self.config.request_timeout;
            (busy + 1, stuck + usize::from(is_stuck))
        })
    }

    /// Starts the averages afresh: for the reset thread alone. While every worker is stuck nothing happens, and the
    /// thread is to come again after the time returned.
    pub(crate) fn reset(&self, now: Instant) -> Option<Duration> {
        let (busy, _) = self.busy_and_stuck(now);
        // A request that waits for another server has a worker's place.
        let idle = busy + self.gauges.places.load(Relaxed) < self.workers.len();
        lock(&self.gate).reset(self.occupancy(idle), now)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::GateMode;
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
            WATCHED.with_borrow_mut(|monitored| {
                if let Some((health, found)) = monitored {
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
        health.served(permit, 3 * config.threshold, now);
        let (_, found) = WATCHED.take().expect("set above");
        assert_eq!(tripped.len(), 1);
        assert_eq!(found, [true]);
    }

    /// Requests that wait for another server hold no worker: the gate closed although all of them hung.
    #[test]
    fn the_gate_stays_open_while_all_that_the_workers_may_do_at_once_hangs() {
        let now = Instant::now();
        let (trips, tripped) = crossbeam_channel::unbounded();
        let config = Config {
            workers: 2,
            ..Config::default()
        };
        let health = Health::new(&config, trips, now);
        health.idle_worker_taken(now);
        health.job_begins(0, now);
        health.gauges.places.store(1, Relaxed);
        let later = now + 60 * config.threshold;
        health.observe(false, later);
        assert_eq!(tripped.len(), 1);
        let again = health.reset(later + config.cooldown);
        assert!(again.is_some() && !health.is_healthy(), "{health:?}");
        health.gauges.places.store(0, Relaxed);
        assert_eq!(health.reset(later + 2 * config.cooldown), None);
        assert!(health.is_healthy());
    }
}
