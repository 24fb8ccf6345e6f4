//! All that the server knows about itself at one moment, and what follows from it.

#[cfg(feature = "status-page")]
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::causes;
use super::counts::Totals;
use super::gate::GateState;
use super::upstreams::UpstreamsReport;
use crate::checks::CheckReport;
use crate::metrics::Measured;
#[cfg(feature = "cache")]
use crate::patterns::CacheStats;
#[cfg(feature = "events")]
use crate::patterns::EventStats;
#[cfg(feature = "redis")]
use crate::patterns::ThrottleStoreStatus;
use crate::settings::GateMode;

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

    /// Each part that has numbers of its own.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &dyn Measured> {
        let own: [&dyn Measured; 3] = [self, &self.throttles, &self.checks];
        let own = own.into_iter();
        #[cfg(feature = "redis")]
        let own = own.chain(self.throttle_store.iter().map(|it| it as &dyn Measured));
        #[cfg(feature = "cache")]
        let own = own.chain(self.cache.iter().map(|it| it as &dyn Measured));
        #[cfg(feature = "events")]
        let own = own.chain(self.events.iter().map(|it| it as &dyn Measured));
        own.chain(self.upstreams.iter().map(|it| it as &dyn Measured))
    }

    /// What the history has a column of for this server, beside what it has for each.
    #[cfg(feature = "status-page")]
    pub(crate) fn counted(&self, tell: &mut dyn FnMut(&dyn Display, u64)) {
        for part in self.parts() {
            part.history(tell);
        }
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
