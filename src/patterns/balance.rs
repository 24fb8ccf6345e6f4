//! Load balancing: chooses one of several endpoints for each request.
//!
//! The set and the choice are [pure](members); here are the lock, the breakers' permits, the guards and the waiting.
//! A permit is taken without the lock, since a breaker may log. If it is refused after all, another one is chosen.

mod members;
mod peak;
mod pick;
mod rendezvous;

use super::MOST_ENDPOINTS;
use super::breaker::{BreakerStatus, CircuitBreaker};
use super::chance::Chance;
use super::deadline::Deadline;
use crate::panics::lock;
use members::{Id, Members};
use pick::Chosen;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use self::pick::Pick;

/// How a [`Balancer`] chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The better of two random endpoints by latency × (pending requests + 1) / weight.
    ///
    /// The latency is a moving average that rises at once, falls slowly (10 s), and decays while the endpoint is idle,
    /// so one that was slow gets another try. An endpoint that is not known yet gets a request at once, but is alone
    /// with it until it is known; so does, after 5 s, one whose last request failed. Sources:
    /// [The power of two choices](https://www.eecs.harvard.edu/~michaelm/postscripts/tpds2001.pdf) and Finagle's [peak
    /// EWMA](https://twitter.github.io/finagle/guide/Clients.html#power-of-two-choices-p2c-least-loaded).
    #[default]
    Latency,
    /// Each in turn, by weight.
    RoundRobin,
    /// By the request's [key](Ask::key): always the same endpoint, as long as it can be had (rendezvous hashing).
    Hash,
}

/// One endpoint of a [`Balancer`]: a name that no other has, and whatever is needed to reach it.
#[derive(Debug)]
pub struct Endpoint<E> {
    name: Arc<str>,
    identity: Box<str>,
    data: Arc<E>,
    weight: u32,
    max: Option<u32>,
    priority: u16,
    breaker: Option<CircuitBreaker>,
}

impl<E> Endpoint<E> {
    /// An endpoint with a weight of 1, no limit and no breaker.
    #[must_use]
    pub fn new(name: &str, data: E) -> Self {
        Self {
            name: name.into(),
            identity: Box::default(),
            data: Arc::new(data),
            weight: 1,
            max: None,
            priority: 0,
            breaker: None,
        }
    }

    /// What tells it from another one of the same name in a set before or after, such as the host that it is asked for;
    /// empty by default.
    #[must_use]
    pub fn identity(self, identity: &str) -> Self {
        Self {
            identity: identity.into(),
            ..self
        }
    }

    /// How much it can carry, compared with the others: at least 1.
    #[must_use]
    pub fn weight(self, weight: u32) -> Self {
        Self {
            weight: weight.max(1),
            ..self
        }
    }

    /// The most requests it can do at once: at least 1.
    #[must_use]
    pub fn max(self, max: u32) -> Self {
        Self {
            max: Some(max.max(1)),
            ..self
        }
    }

    /// Endpoints with a higher number are used only when no other can be had. 0 by default.
    #[must_use]
    pub fn priority(self, priority: u16) -> Self {
        Self { priority, ..self }
    }

    /// A breaker that has to lend a permit for each request.
    #[must_use]
    pub fn breaker(self, breaker: CircuitBreaker) -> Self {
        Self {
            breaker: Some(breaker),
            ..self
        }
    }
}

/// What a request wants from a [`Balancer`]. A [`Deadline`] alone converts into it.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    deadline: Deadline,
    key: Option<&'a [u8]>,
    avoid: &'a [Arc<str>],
    patience: Duration,
}

impl<'a> Ask<'a> {
    /// A request that has to be done by `deadline`. One that fails counts as if it had taken that long.
    #[must_use]
    pub const fn by(deadline: Deadline) -> Self {
        Self {
            deadline,
            key: None,
            avoid: &[],
            patience: Duration::ZERO,
        }
    }

    /// The key for [`Balance::Hash`]. A request without one goes to a random endpoint.
    #[must_use]
    pub const fn key(self, key: &'a [u8]) -> Self {
        Self {
            key: Some(key),
            ..self
        }
    }

    /// [Names](Pick::name) of endpoints that were tried already: one of the others, if there is one.
    #[must_use]
    pub const fn avoid(self, avoid: &'a [Arc<str>]) -> Self {
        Self { avoid, ..self }
    }

    /// How long it may wait while all endpoints are [full](Endpoint::max); not at all by default.
    #[must_use]
    pub const fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

impl From<Deadline> for Ask<'_> {
    fn from(deadline: Deadline) -> Self {
        Self::by(deadline)
    }
}

/// Why no endpoint could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// There is none.
    Empty,
    /// Each has as many requests as it [can do at once](Endpoint::max), or its breaker is open.
    Full,
    /// Each one's breaker refuses.
    Open {
        /// When the first has its delay behind it; zero while it is under trial.
        remaining: Duration,
    },
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is no endpoint"),
            Self::Full => f.write_str("every endpoint has as many requests as it can do at once"),
            Self::Open { remaining } => {
                let seconds = remaining.as_secs_f64();
                write!(
                    f,
                    "every endpoint's circuit breaker is open, for another {seconds:.1} s"
                )
            }
        }
    }
}

impl Error for Unavailable {}

/// More endpoints than the 256 that a balancer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooManyEndpoints {
    /// The names of those that were not taken.
    pub refused: Vec<String>,
}

impl fmt::Display for TooManyEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected at most {MOST_ENDPOINTS} endpoints, refused {}",
            self.refused.join(", ")
        )
    }
}

impl Error for TooManyEndpoints {}

/// The numbers of an endpoint at one moment.
#[derive(Debug)]
#[non_exhaustive]
pub struct EndpointStatus<E> {
    /// Its name.
    pub name: Arc<str>,
    /// What is needed to reach it.
    pub data: Arc<E>,
    /// Where its breaker stands, if it has one.
    pub breaker: Option<BreakerStatus>,
    /// Its weight.
    pub weight: u32,
    /// Requests on their way.
    pub pending: u32,
    /// The moving average of its latency; `None` before the first report.
    pub latency: Option<Duration>,
    /// Whether it is the [last choice](Balancer::set_last_choice).
    pub last_choice: bool,
    /// Requests that succeeded since it came into the set.
    pub successes: u64,
    /// Requests that failed since it came into the set.
    pub failures: u64,
}

/// Chooses an endpoint for each request, by [latency](Balance::Latency), in turn or by a key.
///
/// [`pick`](Self::pick) returns a guard that counts as a pending request until it is dropped. It is told how the
/// request went, and tells the endpoint's breaker: once, or as the answer [begins](Pick::answered) and ends. What is never
/// chosen:
///
/// - an endpoint whose [breaker](Endpoint::breaker) refuses; one that is due for a trial gets the next request,
/// - one that has as many requests as it [can do at once](Endpoint::max),
/// - as long as there are others: the [last choice](Self::set_last_choice), what this request
///   [tried already](Ask::avoid), and then those with a higher [priority number](Endpoint::priority).
///
/// A new endpoint, and one that comes back, begins with a tenth of its weight and has all of it after 10 s, except
/// with [`Balance::Hash`]. A failure counts as if it had taken until the deadline, so an endpoint that fails quickly
/// does not look quick.
///
/// The breaker of an [only](super::BreakerBuilder::only) endpoint is told so.
///
/// A clone is another handle of the same balancer.
///
/// # Costs
///
/// A short lock for each choice, report and end of a request: some 250 ns in all with three endpoints. A choice looks
/// at each endpoint, so with 256 it takes a few microseconds. About 230 bytes an endpoint, and 330 for its breaker.
///
/// # Example
///
/// ```
/// use plimsoll::patterns::{Balance, Balancer, CircuitBreaker, Deadline, Endpoint};
/// use std::time::Duration;
///
/// let balancer = Balancer::new(Balance::Latency);
/// let endpoints = ["10.0.0.1:80", "10.0.0.2:80"]
///     .map(|address| Endpoint::new(address, ()).breaker(CircuitBreaker::new(address)));
/// balancer.replace(endpoints)?;
///
/// let mut pick = balancer.pick(Deadline::after(Duration::from_secs(1)))?;
/// assert!(pick.name().ends_with(":80"));
/// pick.success(); // the answer has begun: its latency is known
/// drop(pick); // and the request is over
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Balancer<E> {
    shared: Arc<SharedMembers<E>>,
}

impl<E> Clone for Balancer<E> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

#[derive(Debug)]
struct SharedMembers<E> {
    members: Mutex<Members<E>>,
    /// A request is over, or the set has changed.
    freed: Condvar,
    chance: Chance,
}

impl<E> SharedMembers<E> {
    fn members(&self) -> MutexGuard<'_, Members<E>> {
        lock(&self.members)
    }

    fn end(&self, id: Id) {
        let mut members = self.members();
        members.end(id);
        let waiting = members.waiting > 0;
        drop(members);
        if waiting {
            self.freed.notify_one();
        }
    }
}

impl<E> Balancer<E> {
    /// A balancer without endpoints.
    #[must_use]
    pub fn new(way: Balance) -> Self {
        Self::with(way, Chance::default())
    }

    /// [`new`](Self::new), with other random numbers, in [0, 1), than each thread's own.
    #[must_use]
    pub fn with_random(way: Balance, random: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self::with(way, Chance::given(random))
    }

    fn with(way: Balance, chance: Chance) -> Self {
        Self {
            shared: Arc::new(SharedMembers {
                members: Mutex::new(Members::new(way)),
                freed: Condvar::new(),
                chance,
            }),
        }
    }

    /// Replaces the set of endpoints.
    ///
    /// One whose name was there before, with the same [identity](Endpoint::identity), keeps its data, its breaker and its
    /// numbers; its weight, limit and priority are the new ones. Requests to endpoints that are gone go on to their end. Of two
    /// endpoints with one name the first counts.
    ///
    /// # Errors
    ///
    /// There are more than 256. The first 256 are the set nevertheless.
    pub fn replace(
        &self,
        endpoints: impl IntoIterator<Item = Endpoint<E>>,
    ) -> Result<(), TooManyEndpoints> {
        self.replace_at(endpoints, Instant::now())
    }

    /// [`replace`](Self::replace), with the time as an argument.
    ///
    /// # Errors
    ///
    /// There are more than 256. The first 256 are the set nevertheless.
    pub fn replace_at(
        &self,
        endpoints: impl IntoIterator<Item = Endpoint<E>>,
        now: Instant,
    ) -> Result<(), TooManyEndpoints> {
        let endpoints = endpoints.into_iter().collect();
        // What is dropped may take its time, as closing connections does: not under the lock.
        let (_dropped, refused) = self.shared.members().replace(endpoints, now);
        self.shared.freed.notify_all();
        if refused.is_empty() {
            Ok(())
        } else {
            Err(TooManyEndpoints { refused })
        }
    }

    /// Chooses an endpoint for a request.
    ///
    /// With some [patience](Ask::patience) it waits while all are full, at most until the deadline.
    ///
    /// # Errors
    ///
    /// No endpoint can be had.
    pub fn pick<'a>(&self, ask: impl Into<Ask<'a>>) -> Result<Pick<E>, Unavailable> {
        let ask = ask.into();
        let now = Instant::now();
        let until = Deadline::after_at(ask.patience, now).min(ask.deadline);
        self.choose(&ask, now, Some(until.instant()))
    }

    /// [`pick`](Self::pick), with the time as an argument, and without waiting.
    ///
    /// # Errors
    ///
    /// No endpoint can be had at `now`.
    pub fn pick_at<'a>(
        &self,
        ask: impl Into<Ask<'a>>,
        now: Instant,
    ) -> Result<Pick<E>, Unavailable> {
        self.choose(&ask.into(), now, None)
    }

    /// Whether a try that fails now can go on to an endpoint that is not among those `tried`.
    ///
    /// If it can, the next try needs no pause: [`Failed::again_at_once`](super::Failed::again_at_once).
    #[must_use]
    pub fn has_another(&self, tried: &[Arc<str>]) -> bool {
        self.has_another_at(tried, Instant::now())
    }

    /// [`has_another`](Self::has_another), with the time as an argument.
    #[must_use]
    pub fn has_another_at(&self, tried: &[Arc<str>], now: Instant) -> bool {
        self.shared.members().has_another(tried, now)
    }

    /// An endpoint whose breaker is due for a trial, if there is one.
    ///
    /// Where no traffic comes while all breakers are open, somebody has to ask for these, try each and tell how it went.
    #[must_use]
    pub fn pick_trial(&self, deadline: Deadline) -> Option<Pick<E>> {
        self.pick_trial_at(deadline, Instant::now())
    }

    /// [`pick_trial`](Self::pick_trial), with the time as an argument.
    #[must_use]
    pub fn pick_trial_at(&self, deadline: Deadline, now: Instant) -> Option<Pick<E>> {
        let mut refused = Vec::new();
        loop {
            let mut members = self.shared.members();
            let chosen = Chosen::of(members.choose_trial(&refused, now)?);
            drop(members);
            match Pick::lend(&self.shared, chosen, deadline, now) {
                Ok(pick) => return Some(pick),
                Err(id) => refused.push(id),
            }
        }
    }

    /// Says whether an endpoint is to be used only if no other can be had, as one whose health check is answered with
    /// the wrong status. A name that is not in the set is ignored.
    pub fn set_last_choice(&self, name: &str, last_choice: bool) {
        self.shared.members().set_last_choice(name, last_choice);
    }

    /// The numbers of all endpoints, in the order of the set.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointStatus<E>> {
        self.endpoints_at(Instant::now())
    }

    /// [`endpoints`](Self::endpoints), with the time as an argument.
    #[must_use]
    pub fn endpoints_at(&self, now: Instant) -> Vec<EndpointStatus<E>> {
        self.shared.members().statuses(now)
    }

    fn choose(
        &self,
        ask: &Ask<'_>,
        mut now: Instant,
        until: Option<Instant>,
    ) -> Result<Pick<E>, Unavailable> {
        let mut refused = Vec::new();
        loop {
            let random = [self.shared.chance.draw(), self.shared.chance.draw()];
            let mut members = self.shared.members();
            let chosen = loop {
                let left = until.map(|until| until.saturating_duration_since(now));
                match members.choose(ask, &refused, random, now) {
                    Ok(member) => break Chosen::of(member),
                    Err(Unavailable::Full) if left.is_some_and(|left| !left.is_zero()) => {
                        members.waiting += 1;
                        let freed = &self.shared.freed;
                        members = freed
                            .wait_timeout(members, left.unwrap_or_default())
                            .unwrap_or_else(PoisonError::into_inner)
                            .0;
                        members.waiting -= 1;
                        now = Instant::now();
                    }
                    Err(unavailable) => return Err(unavailable),
                }
            };
            drop(members);
            match Pick::lend(&self.shared, chosen, ask.deadline, now) {
                Ok(pick) => return Ok(pick),
                Err(id) => refused.push(id),
            }
        }
    }
}

#[cfg(test)]
mod tests;
