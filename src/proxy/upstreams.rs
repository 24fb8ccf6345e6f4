//! The endpoints: who they are, and the thread that asks for them and frees what they do not need.

use std::io;
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::config::{BalanceBy, BreakerMode, ProxyConfig};
use crate::net::pool::Pool;
use crate::patterns::{
    Balance, Balancer, CircuitBreaker, Discovered, Discovery, Endpoint, SourceError,
};

/// How often connections that have been idle for too long are closed.
const SWEEP: Duration = Duration::from_secs(1);

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
}

/// All endpoints.
#[derive(Debug)]
pub(super) struct Upstreams {
    pub(super) balancer: Balancer<Upstream>,
    pub(super) discovery: Discovery,
    /// Failures in a row that open a breaker; `None`: there are none.
    failures: Option<u32>,
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
            discovery: Discovery::new(&config.upstream)?,
            failures: match config.breaker {
                BreakerMode::Off => None,
                BreakerMode::On { failures, .. } => Some(failures),
            },
        })
    }

    /// Starts the thread, which ends when the returned sender is dropped, and waits a moment for what it finds first.
    pub(super) fn watch(self: &Arc<Self>) -> io::Result<Sender<()>> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (first, found) = crossbeam_channel::bounded(1);
        let upstreams = self.clone();
        Builder::new()
            .name("plimsoll-upstreams".into())
            .spawn(move || upstreams.run(&first, &stopped))?;
        // Whether it has found something in time is told by the endpoints there are.
        let _ = found.recv_timeout(FIRST_ANSWERS);
        Ok(stop)
    }

    fn run(&self, first: &Sender<()>, stopped: &Receiver<()>) {
        let mut known: Arc<[Discovered]> = Arc::new([]);
        let mut due = Instant::now();
        loop {
            let now = Instant::now();
            if due <= now {
                due = self.discovery.refresh(now);
                let found = self.discovery.endpoints();
                if !Arc::ptr_eq(&found, &known) {
                    self.replace(&found);
                    known = found;
                }
                // Nobody waits for the second answer.
                let _ = first.try_send(());
            }
            for endpoint in self.balancer.endpoints() {
                endpoint.data.pool.sweep(now);
            }
            let next = due.min(now + SWEEP);
            if stopped.recv_deadline(next) != Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                return;
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
        };
        let mut endpoint = Endpoint::new(&name, upstream)
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
}
