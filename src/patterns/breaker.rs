//! Circuit breaking: leaves a service alone that fails, and finds out by single trials when it is well again.
//!
//! ```text
//!                    N failures in a row, or half of
//!                    the last 10 s' 20 or more
//!            ┌────────┐ ───────────────────────▶ ┌────────┐
//!     start ▶│ Closed │                          │  Open  │◀─┐
//!            └────────┘                          └────────┘  │
//!                ▲                                    │      │ a trial fails:
//!                │               a permit is asked    │      │ the delay doubles
//!                │               for after the delay  ▼      │
//!                │     2 trials succeed          ┌────────┐  │
//!                └────────────────────────────── │HalfOpen│──┘
//!                                                └────────┘
//!                                                one trial at a time
//! ```
//!
//! A permit reports to the state that lent it: what began before the breaker opened says nothing about a trial.

mod state;

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use self::state::{Inner, Pass, Phase, TryOutcome};
use super::chance::Chance;

pub use self::state::BreakerOpen;
pub(super) use self::state::NextPermit;

/// Failures in a row that open a breaker.
const FAILURES: u32 = 5;

/// No delay is set longer than this: a service may well be back by then.
const LONGEST_DELAY: Duration = Duration::from_secs(60 * 60);

/// What a breaker is told once.
#[derive(Debug)]
pub struct BreakerBuilder {
    name: String,
    failures: u32,
    delays: Option<[Duration; 2]>,
    only: bool,
    chance: Chance,
}

impl BreakerBuilder {
    /// Failures in a row that open it: 5 by default, at least 1.
    #[must_use]
    pub fn failures(self, failures: u32) -> Self {
        Self {
            failures: failures.max(1),
            ..self
        }
    }

    /// How long it stays open the first time, and the longest it stays open while it relapses.
    ///
    /// By default 5 s and 60 s, or 1 s and 10 s while it is for the [only](Self::only) endpoint. An hour at most.
    #[must_use]
    pub fn open_for(self, first: Duration, longest: Duration) -> Self {
        let longest = longest.min(LONGEST_DELAY);
        Self {
            delays: Some([first.min(longest), longest]),
            ..self
        }
    }

    /// There is nothing else to call, so it stays open for 1 s to 10 s only.
    #[must_use]
    pub fn only(self) -> Self {
        Self { only: true, ..self }
    }

    /// Other random numbers, in [0, 1), than this thread's own. A delay is at 0.8 of itself for 0, at all of it for 1.
    #[must_use]
    pub fn random(self, random: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self {
            chance: Chance::given(random),
            ..self
        }
    }

    /// The breaker, closed.
    #[must_use]
    pub fn build(self) -> CircuitBreaker {
        let inner = Inner::new(
            self.name,
            self.failures,
            self.delays,
            self.only,
            self.chance,
        );
        CircuitBreaker {
            inner: Arc::new(inner),
        }
    }
}

/// A circuit breaker: calls a service while it is well, and refuses at once while it is not.
///
/// A service that fails is not helped by calls, and its callers are not helped by waiting for it. The breaker counts:
///
/// - **Closed**, it lends a permit to everyone. It opens on [N failures in a row](BreakerBuilder::failures) (5), or
///   when half of the last 10 s' 20 or more calls failed.
/// - **Open**, it refuses everyone with [`BreakerOpen`] for 5 s. The delay doubles up to 60 s while it relapses (a trial
///   fails, or it opens again within 10 s of closing), and is shortened at random by up to a fifth, so that many
///   callers do not come back together. For the [only](BreakerBuilder::only) endpoint of a kind it is 1 s to 10 s.
/// - **Half-open**, once the delay is over, it lends one permit at a time, for a trial. Two successes close it, one
///   failure opens it again.
///
/// What is a failure is for the caller to say: the service could not be reached, took too long or cannot do its work.
/// An answer that blames the request, as a 404 does, is a success. A caller that gave up counts as nothing.
///
/// One breaker stands for one endpoint. A clone is another handle of the same breaker. The states are those of
/// [Nygard's *Release It!*](https://pragprog.com/titles/mnee2/release-it-second-edition/) and
/// [Fowler](https://martinfowler.com/bliki/CircuitBreaker.html).
///
/// # Costs
///
/// No thread and no timer; about 330 bytes. While closed a [`call`](Self::call) reads the clock once and takes no lock:
/// well under 100 ns on top of the call, also with two threads at once. A permit whose trial hangs keeps others from a
/// trial, so a call should have a [`Deadline`](super::Deadline).
///
/// # Example
///
/// ```
/// use plimsoll::patterns::{BreakerError, BreakerState, CircuitBreaker};
///
/// let breaker = CircuitBreaker::new("payments");
/// for _ in 0..5 {
///     assert_eq!(breaker.call(|| Err::<(), _>("timeout")), Err(BreakerError::Failed("timeout")));
/// }
/// assert_eq!(breaker.status().state, BreakerState::Open);
///
/// let refused = breaker.call(|| Ok::<_, &str>("not run"));
/// assert!(matches!(refused, Err(BreakerError::Open(open)) if open.remaining.as_secs() >= 3));
/// ```
#[derive(Clone, Debug)]
pub struct CircuitBreaker {
    inner: Arc<Inner>,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// Calls are refused. When the delay is over, the next permit is a trial.
    Open,
    /// One call at a time passes, as a trial.
    HalfOpen,
}

/// The numbers of a breaker at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerStatus {
    /// Where it stands.
    pub state: BreakerState,
    /// What is left of the delay; zero when it is over, or the breaker is not open.
    pub remaining: Duration,
    /// Whether the next permit would be a trial: the delay is over, and no trial is under way.
    pub trial_due: bool,
    /// Failures since the last success. Trials are not counted.
    pub in_a_row: u32,
    /// Calls of the last 10 s that succeeded or failed, since it last closed. Trials are not counted.
    pub calls: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// How often it opened since the start.
    pub openings: u64,
    /// Permits it refused since the start.
    pub refused: u64,
}

/// Why a [call through a breaker](CircuitBreaker::call) gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerError<E> {
    /// The breaker refused it: nothing was called.
    Open(BreakerOpen),
    /// It was called and failed.
    Failed(E),
}

impl<E> BreakerError<E> {
    /// Whether the breaker refused the call.
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }
}

impl<E: fmt::Display> fmt::Display for BreakerError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(open) => open.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for BreakerError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Open(open) => Some(open),
            Self::Failed(error) => Some(error),
        }
    }
}

impl CircuitBreaker {
    /// A closed breaker with the defaults. The log calls it by `name`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self::builder(name).build()
    }

    /// A breaker to be set up.
    #[must_use]
    pub fn builder(name: impl Into<String>) -> BreakerBuilder {
        BreakerBuilder {
            name: name.into(),
            failures: FAILURES,
            delays: None,
            only: false,
            chance: Chance::default(),
        }
    }

    /// Runs `call`, if the breaker lends a permit. An `Err` counts as a failure; a panic counts as nothing.
    ///
    /// Where not every error blames the service, take a [`permit`](Self::permit) and tell.
    ///
    /// # Errors
    ///
    /// The breaker refused the call, or the call failed.
    pub fn call<T, E>(&self, call: impl FnOnce() -> Result<T, E>) -> Result<T, BreakerError<E>> {
        let mut loan = Loan::take(&*self.inner, Instant::now).map_err(BreakerError::Open)?;
        match call() {
            Ok(value) => {
                loan.report(TryOutcome::Success, Instant::now());
                Ok(value)
            }
            Err(error) => {
                loan.report(TryOutcome::Failure, Instant::now());
                Err(BreakerError::Failed(error))
            }
        }
    }

    /// Lends a permit for one call, which is to report how it went.
    ///
    /// # Errors
    ///
    /// The breaker is open, or a trial is under way.
    pub fn permit(&self) -> Result<Permit, BreakerOpen> {
        Loan::take(Arc::clone(&self.inner), Instant::now).map(Permit)
    }

    /// [`permit`](Self::permit), with the time as an argument.
    ///
    /// # Errors
    ///
    /// The breaker is open at `now`, or a trial is under way.
    pub fn permit_at(&self, now: Instant) -> Result<Permit, BreakerOpen> {
        Loan::take(Arc::clone(&self.inner), || now).map(Permit)
    }

    /// Whether the next permit would be a trial: the delay is over, and no trial is under way.
    ///
    /// Who gets no traffic while the breaker is open has to make the trial itself, or it stays open: a health report
    /// that says "not ready", for one, keeps the traffic away that would show that the service is back.
    #[must_use]
    pub fn trial_due(&self) -> bool {
        self.trial_due_at(Instant::now())
    }

    /// [`trial_due`](Self::trial_due), with the time as an argument.
    #[must_use]
    pub fn trial_due_at(&self, now: Instant) -> bool {
        self.next_permit_at(now) == NextPermit::TrialDue
    }

    /// Says whether this is now the only endpoint of its kind, after the set of endpoints has changed.
    pub fn set_only(&self, only: bool) {
        self.set_only_at(only, Instant::now());
    }

    /// [`set_only`](Self::set_only), with the time as an argument.
    pub fn set_only_at(&self, only: bool, now: Instant) {
        self.inner.set_only(only, now);
    }

    /// Its numbers.
    #[must_use]
    pub fn status(&self) -> BreakerStatus {
        self.status_at(Instant::now())
    }

    /// [`status`](Self::status), with the time as an argument.
    #[must_use]
    pub fn status_at(&self, now: Instant) -> BreakerStatus {
        let inner = &*self.inner;
        let core = inner.core();
        let [calls, failures] = inner.window.sums(now);
        let next_permit = core.phase.next_permit(now);
        BreakerStatus {
            state: match core.phase {
                Phase::Closed => BreakerState::Closed,
                Phase::Open { .. } => BreakerState::Open,
                Phase::HalfOpen { .. } => BreakerState::HalfOpen,
            },
            remaining: match next_permit {
                NextPermit::Refusing(open) => open.remaining,
                NextPermit::Closed | NextPermit::TrialDue => Duration::ZERO,
            },
            trial_due: next_permit == NextPermit::TrialDue,
            in_a_row: inner.in_a_row.load(Relaxed),
            calls,
            failures,
            openings: core.openings,
            refused: inner.refused.load(Relaxed),
        }
    }

    /// What a permit that is asked for now would be.
    pub(super) fn next_permit_at(&self, now: Instant) -> NextPermit {
        self.inner.next_permit(now)
    }
}

/// Leave for one call. Dropped without a report it is given back, and counts as nothing.
///
/// ```
/// use plimsoll::patterns::CircuitBreaker;
///
/// let breaker = CircuitBreaker::new("payments");
/// let permit = breaker.permit()?;
/// match std::net::TcpListener::bind("127.0.0.1:0") {
///     Ok(_) => permit.success(),
///     Err(_) => permit.failure(),
/// }
/// assert_eq!(breaker.status().calls, 1);
/// # Ok::<(), plimsoll::patterns::BreakerOpen>(())
/// ```
#[derive(Debug)]
#[must_use = "a permit that is dropped counts as nothing"]
pub struct Permit(Loan<Arc<Inner>>);

impl Permit {
    /// The service did its work, or answered that the request is wrong.
    pub fn success(self) {
        self.success_at(Instant::now());
    }

    /// [`success`](Self::success), with the time as an argument.
    pub fn success_at(mut self, now: Instant) {
        self.0.report(TryOutcome::Success, now);
    }

    /// The service could not be reached, took too long or could not do its work.
    pub fn failure(self) {
        self.failure_at(Instant::now());
    }

    /// [`failure`](Self::failure), with the time as an argument.
    pub fn failure_at(mut self, now: Instant) {
        self.0.report(TryOutcome::Failure, now);
    }

    /// Whether the call is a trial of a half-open breaker.
    #[must_use]
    pub fn is_trial(&self) -> bool {
        self.0.pass == Some(Pass::Trial)
    }
}

/// A pass that is reported exactly once, at the latest when it is dropped.
#[derive(Debug)]
struct Loan<R: Deref<Target = Inner>> {
    inner: R,
    /// `None` once reported.
    pass: Option<Pass>,
}

impl<R: Deref<Target = Inner>> Loan<R> {
    fn take(inner: R, now: impl FnOnce() -> Instant) -> Result<Self, BreakerOpen> {
        let pass = inner.admit(now)?;
        Ok(Self {
            inner,
            pass: Some(pass),
        })
    }

    fn report(&mut self, outcome: TryOutcome, now: Instant) {
        if let Some(pass) = self.pass.take() {
            self.inner.report(pass, outcome, now);
        }
    }
}

impl<R: Deref<Target = Inner>> Drop for Loan<R> {
    fn drop(&mut self) {
        // A counted pass that reports nothing changes nothing, so only a trial needs to be given back.
        if self.pass == Some(Pass::Trial) {
            self.report(TryOutcome::Nothing, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
