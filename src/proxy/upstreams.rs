//! The endpoints: who they are, and what is done for them in the background.
//!
//! One thread asks the sources, which may take its time. Another closes connections that nobody takes, and makes the
//! trials of open circuit breakers that no traffic makes: a server that says it is not ready gets none.

use std::cmp::Reverse;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::check::{self, Checked, UpstreamCheck, Verdict};
use super::config::{BalanceBy, BreakerMode, ProxyConfig};
use super::slots::Slots;
use crate::checks::scheduler::MonitoredCheck;
use crate::health::upstreams::{
    EndpointFault, EndpointReport, EndpointState, MOST_REPORTED, UpstreamsReport,
};
use crate::net::client::ClientError;
use crate::net::pool::Pool;
use crate::panics::lock;
use crate::patterns::{
    Balance, Balancer, BreakerState, CircuitBreaker, Deadline, Discovered, Discovery, Endpoint,
    EndpointStatus, Pick, SourceError,
};
use crate::threads::Threads;

/// How often the endpoints are looked after.
const ROUND: Duration = Duration::from_millis(250);

/// How long no request may have come before trials are made without one.
const QUIET: Duration = Duration::from_millis(500);

/// How long a start waits for the first answers of the sources: a name server that does not answer must not keep the
/// server from starting.
const FIRST_ANSWERS: Duration = Duration::from_millis(500);

/// What is needed to reach an endpoint.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) pool: Arc<Pool>,
    /// What Host is if the client has sent none.
    pub(super) authority: String,
    /// What comes before each path.
    pub(super) prefix: String,
    /// The one that the balancer asks.
    pub(super) breaker: Option<CircuitBreaker>,
    /// What it is asked in the background.
    checked: Option<Checked>,
    /// Why the last request that failed did.
    fault: Mutex<Option<EndpointFault>>,
}

/// Counts a request as a failure of its endpoint, for this reason.
pub(super) fn fail(pick: &mut Pick<Upstream>, fault: EndpointFault) {
    *lock(&pick.data().fault) = Some(fault);
    pick.failure();
}

/// What an endpoint does that gives no answer.
pub(super) fn fault_of(error: &ClientError) -> EndpointFault {
    match error {
        _ if error.is_refusal() => EndpointFault::Refuses,
        ClientError::Connect(_) => EndpointFault::Unreachable,
        ClientError::ConnectTimeout | ClientError::SendTimeout | ClientError::ResponseTimeout => {
            EndpointFault::Late
        }
        _ => EndpointFault::Broken,
    }
}

/// The set of endpoints that is in use.
#[derive(Default)]
struct Known {
    endpoints: Arc<[Discovered]>,
    /// Whom they are told to who asks them how they are.
    checks: Option<Sender<Vec<MonitoredCheck>>>,
}

/// All endpoints.
#[derive(Debug)]
pub(super) struct Upstreams {
    pub(super) balancer: Balancer<Upstream>,
    pub(super) slots: Arc<Slots>,
    discovery: Discovery,
    /// Failures in a row that open a breaker; `None`: there are none.
    failures: Option<u32>,
    connect_timeout: Duration,
    check: Option<UpstreamCheck>,
    /// What Host is sent as, if it is not the client's.
    host: Option<String>,
    started: Instant,
    /// When a request last came: milliseconds since the start.
    asked: AtomicU64,
}

impl Upstreams {
    pub(super) fn new(config: &ProxyConfig) -> Result<Self, SourceError> {
        let way = match config.balance {
            BalanceBy::Latency => Balance::Latency,
            BalanceBy::RoundRobin => Balance::RoundRobin,
            BalanceBy::HashIp | BalanceBy::HashHeader(_) => Balance::Hash,
        };
        Ok(Self {
            balancer: Balancer::new(way),
            slots: Slots::new(),
            discovery: Discovery::new(&config.upstream)?,
            failures: match config.breaker {
                BreakerMode::Off => None,
                BreakerMode::On { failures, .. } => Some(failures),
            },
            connect_timeout: config.connect_timeout,
            check: config.upstream_check.clone(),
            host: config.upstream_host.clone(),
            started: Instant::now(),
            asked: AtomicU64::new(0),
        })
    }

    /// Starts the threads, and waits a moment for what is found first.
    pub(super) fn watch(self: &Arc<Self>, threads: &mut Threads) -> io::Result<()> {
        let (first, found) = crossbeam_channel::bounded(1);
        let checks = self.check.is_some().then(|| check::spawn(threads));
        let known = Mutex::new(Known {
            checks: checks.transpose()?,
            ..Known::default()
        });
        let (upstreams, stopped) = (self.clone(), threads.stopped());
        threads.spawn("discovery", "plimsoll-discover", move |_alive| {
            upstreams.discover(&known, &first, &stopped);
        })?;
        let (upstreams, stopped) = (self.clone(), threads.stopped());
        threads.spawn("endpoints", "plimsoll-upstreams", move |_alive| {
            upstreams.look_after(&stopped);
        })?;
        // Whether it has found something in time is told by the endpoints there are.
        let _ = found.recv_timeout(FIRST_ANSWERS);
        Ok(())
    }

    /// Notes that a request has come.
    pub(super) fn note_request(&self, now: Instant) {
        self.asked.store(self.millis(now), Relaxed);
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// Asks the sources again and again.
    fn discover(&self, known: &Mutex<Known>, first: &Sender<()>, stopped: &Receiver<()>) {
        let changed = || self.take(&mut lock(known));
        loop {
            let next = self.discovery.refresh_with(Instant::now(), changed);
            // Nobody waits for the second answer.
            let _ = first.try_send(());
            if stopped.recv_deadline(next) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// Takes the endpoints that are known by now.
    fn take(&self, known: &mut Known) {
        let found = self.discovery.endpoints();
        if found != known.endpoints {
            self.replace(&found);
            known.endpoints = found;
            if let Some(checks) = &known.checks {
                let endpoints = self.balancer.endpoints();
                let checked = endpoints.iter().filter_map(|it| it.data.checked.as_ref());
                // Nobody listens any more when the server stops.
                let _ = checks.send(checked.map(Checked::monitored_check).collect());
            }
        }
    }

    fn replace(&self, found: &[Discovered]) {
        // Discovery takes no more endpoints than the balancer does.
        if let Err(error) = self
            .balancer
            .replace(found.iter().map(|one| self.endpoint(one)))
        {
            log::warn!("{error}");
        }
    }

    fn endpoint(&self, found: &Discovered) -> Endpoint<Upstream> {
        let name = found.name();
        let breaker = self
            .failures
            .map(|failures| CircuitBreaker::builder(&name).failures(failures).build());
        let upstream = Upstream {
            pool: Pool::new(found.address.clone()),
            authority: found.authority.clone(),
            prefix: found.prefix.clone(),
            breaker: breaker.clone(),
            checked: self.check.as_ref().map(|check| {
                let host = self.host.as_ref().unwrap_or(&found.authority);
                Checked::new(check, &name, &found.address, host, &found.prefix)
            }),
            fault: Mutex::default(),
        };
        let mut endpoint = Endpoint::new(&name, upstream)
            .identity(&found.authority)
            .weight(found.weight)
            .priority(found.priority);
        if let Some(max) = found.max {
            endpoint = endpoint.max(max);
        }
        if let Some(breaker) = breaker {
            endpoint = endpoint.breaker(breaker);
        }
        endpoint
    }

    fn look_after(&self, stopped: &Receiver<()>) {
        while stopped.recv_timeout(ROUND) == Err(RecvTimeoutError::Timeout) {
            let now = Instant::now();
            let endpoints = self.balancer.endpoints_at(now);
            for endpoint in &endpoints {
                endpoint.data.pool.sweep(now);
                if let Some(checked) = &endpoint.data.checked {
                    let is_well = matches!(checked.verdict(now), Verdict::Good);
                    self.balancer.set_last_choice(&endpoint.name, !is_well);
                }
            }
            let quiet = self.millis(now).saturating_sub(self.asked.load(Relaxed));
            if u128::from(quiet) >= QUIET.as_millis() && !endpoints.iter().any(is_usable) {
                self.make_trials();
            }
        }
    }

    /// Makes the trials that are due, by a check or, where there is none, by connecting.
    fn make_trials(&self) {
        // One that fails is not due again, and one that succeeds twice is not either.
        while let Some(mut pick) = self
            .balancer
            .pick_trial(Deadline::after(self.connect_timeout))
        {
            let deadline = Deadline::after(self.connect_timeout);
            let endpoint = pick.data();
            let answers = match &endpoint.checked {
                Some(checked) => checked.ask(deadline.instant()),
                None => endpoint.pool.connect(deadline).is_ok(),
            };
            if answers {
                pick.success();
            } else {
                pick.failure();
            }
        }
    }

    /// What reports say of the endpoints.
    pub(super) fn report(&self) -> UpstreamsReport {
        let now = Instant::now();
        let mut endpoints = self.balancer.endpoints_at(now);
        // By the logarithm, so that those which are equally busy do not change places with each request.
        endpoints.sort_by_key(|it| Reverse((it.successes + it.failures).checked_ilog2()));
        let mut all: Vec<_> = endpoints
            .iter()
            .map(|endpoint| report(endpoint, now))
            .collect();
        let is_tried = |endpoint: &EndpointReport| endpoint.state != EndpointState::Down;
        let ready = all.iter().any(is_tried);
        let others = all.split_off(all.len().min(MOST_REPORTED));
        let faults = self.discovery.sources().into_iter();
        let faults = faults.filter_map(|source| Some((source.source, source.error?)));
        UpstreamsReport {
            others: others.iter().collect(),
            endpoints: all,
            ready,
            faults: faults.collect(),
            ..UpstreamsReport::default()
        }
    }
}

/// Whether traffic goes there.
fn is_usable(endpoint: &EndpointStatus<Upstream>) -> bool {
    let breaker = endpoint.breaker.as_ref();
    breaker.is_none_or(|breaker| breaker.state == BreakerState::Closed)
}

fn report(endpoint: &EndpointStatus<Upstream>, now: Instant) -> EndpointReport {
    let breaker = endpoint.breaker.as_ref();
    let (word, state) = match breaker.map(|breaker| breaker.state) {
        None => ("off", EndpointState::Up),
        Some(BreakerState::Closed) => ("closed", EndpointState::Up),
        Some(BreakerState::HalfOpen) => ("half-open", EndpointState::Trial),
        Some(BreakerState::Open) if breaker.is_some_and(|breaker| breaker.trial_due) => {
            ("open", EndpointState::Trial)
        }
        Some(BreakerState::Open) => ("open", EndpointState::Down),
    };
    let verdict = endpoint.data.checked.as_ref();
    let verdict = verdict.map_or(Verdict::Good, |checked| checked.verdict(now));
    let fault = lock(&endpoint.data.fault).filter(|_| state != EndpointState::Up);
    let (state, error, fault) = match (state, verdict) {
        (state, Verdict::Good) => (state, None, fault),
        (EndpointState::Up, Verdict::Wrong(error)) => {
            (EndpointState::LastChoice, Some(error), None)
        }
        (state, Verdict::Wrong(error)) => (state, Some(error), fault),
        (_, Verdict::Silent(error)) => {
            let fault = fault.unwrap_or(EndpointFault::Silent);
            (EndpointState::Down, Some(error), Some(fault))
        }
    };
    EndpointReport {
        name: endpoint.name.clone(),
        state,
        breaker: word,
        retry_in: breaker.map_or(Duration::ZERO, |breaker| breaker.remaining),
        latency: endpoint.latency,
        pending: endpoint.pending,
        idle: endpoint.data.pool.len(),
        weight: endpoint.weight,
        successes: endpoint.successes,
        failures: endpoint.failures,
        error,
        fault,
    }
}
