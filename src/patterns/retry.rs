//! Back off: tries again what may succeed the next time, with random pauses, a budget and a deadline.

use super::Deadline;
use super::chance::Chance;
use super::window::Window;
use crate::health::Ewma;
use crate::panics::lock;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Retries after the first try.
const RETRIES: u32 = 2;

/// The longest `Retry-After` that is waited for: who waits longer should hear of it instead.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Average age, in tries, of the usual time of a try.
const USUAL_AGE: u32 = 30;

/// Exponential back off with full jitter: the pause before a retry is uniform between 0 and a bound that doubles with
/// each retry.
///
/// A fixed pause brings all who failed together back together; of the ways to spread them this one needs the fewest
/// calls. Source: [Exponential Backoff And
/// Jitter](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
///
/// ```
/// use plimsoll::patterns::Backoff;
/// use std::time::Duration;
///
/// let backoff = Backoff::default(); // 25 ms, doubling to 1 s
/// assert_eq!(backoff.bound(1), Duration::from_millis(25));
/// assert_eq!(backoff.bound(3), Duration::from_millis(100));
/// assert_eq!(backoff.bound(99), Duration::from_secs(1));
/// assert_eq!(backoff.pause(3, 0.5), Duration::from_millis(50));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// A bound of `first` before the first retry, which doubles up to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The longest pause before retry number `retry`, which begins at 1.
    #[must_use]
    pub fn bound(&self, retry: u32) -> Duration {
        let doublings = retry.saturating_sub(1);
        2_u32
            .checked_pow(doublings)
            .and_then(|factor| self.first.checked_mul(factor))
            .map_or(self.longest, |bound| bound.min(self.longest))
    }

    /// The pause before retry number `retry`, for a random number in [0, 1).
    #[must_use]
    pub fn pause(&self, retry: u32, random: f64) -> Duration {
        let bound = self.bound(retry);
        let pause = bound.as_secs_f64() * random.clamp(0.0, 1.0);
        // The longest durations round up to what is none, and NaN is none either.
        Duration::try_from_secs_f64(pause).unwrap_or(bound)
    }
}

impl Default for Backoff {
    /// 25 ms, doubling to 1 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(25), Duration::from_secs(1))
    }
}

/// How many retries a program may make, whatever its single calls would like.
///
/// Two retries for each call make three times the load out of a service that is down because of its load. In each
/// window of 10 s a budget allows fewer retries than `share` times the requests and `at_hand` more. With the defaults
/// (0.2 and 30) the service sees at most 1.3 times the load from 30 requests a second on, and a program with little
/// traffic can still try again. A retry counts when it is decided, so the pause before it does not hide it.
/// The ratio is that of [Finagle](https://twitter.github.io/finagle/guide/Clients.html#retries) and
/// [Linkerd](https://linkerd.io/2/features/retries-and-timeouts/).
///
/// One budget can stand behind several [`Retry`]s that call the same service. About 130 bytes.
///
/// ```
/// use plimsoll::patterns::RetryBudget;
///
/// let budget = RetryBudget::new(0.2, 2);
/// budget.request();
/// assert!(budget.take() && budget.take() && budget.take()); // 0, 1 and 2 are below 2.2
/// assert!(!budget.take());
/// assert_eq!(budget.refused(), 1);
/// ```
#[derive(Debug)]
pub struct RetryBudget {
    share: f64,
    at_hand: f64,
    /// Requests and retries.
    window: Window,
    /// Held while one retry is decided: two at once would both take the last one.
    deciding: Mutex<()>,
    retries: AtomicU64,
    refused: AtomicU64,
}

impl RetryBudget {
    /// A budget of `share` times the requests, and `at_hand` more, in 10 s.
    #[must_use]
    pub fn new(share: f64, at_hand: u32) -> Self {
        Self {
            share,
            at_hand: f64::from(at_hand),
            window: Window::new(Instant::now()),
            deciding: Mutex::default(),
            retries: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Counts a request: its first try, however many follow.
    pub fn request(&self) {
        self.request_at(Instant::now());
    }

    /// [`request`](Self::request), with the time as an argument.
    pub fn request_at(&self, now: Instant) {
        self.window.add(now, [true, false]);
    }

    /// Takes a retry, if there is one left.
    #[must_use]
    pub fn take(&self) -> bool {
        self.take_at(Instant::now())
    }

    /// [`take`](Self::take), with the time as an argument.
    #[must_use]
    pub fn take_at(&self, now: Instant) -> bool {
        let deciding = lock(&self.deciding);
        let [requests, retries] = self.window.sums(now);
        let left = (retries as f64) < self.share * requests as f64 + self.at_hand;
        if left {
            self.window.add(now, [false, true]);
        }
        drop(deciding);
        let count = if left { &self.retries } else { &self.refused };
        count.fetch_add(1, Relaxed);
        left
    }

    /// Retries taken since the start.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.retries.load(Relaxed)
    }

    /// Retries refused since the start, for want of budget.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

impl Default for RetryBudget {
    /// 0.2 times the requests and 30 more, in 10 s.
    fn default() -> Self {
        Self::new(0.2, 30)
    }
}

/// A try that failed, and whether another one makes sense.
///
/// Worth another try is what may go well the next time and does no harm twice: a refused connection, a 503, a
/// timeout of something idempotent. A malformed request, a wrong password, or a payment of which nobody knows whether
/// it went through is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed<E> {
    error: E,
    next: Next,
}

/// What may follow a try that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    /// After a random pause.
    Pause,
    /// After this time and a random pause.
    After(Duration),
    AtOnce,
}

impl<E> Failed<E> {
    /// Another try makes no sense.
    pub const fn for_good(error: E) -> Self {
        Self {
            error,
            next: Next::Nothing,
        }
    }

    /// Another try makes sense, after a pause.
    pub const fn again(error: E) -> Self {
        Self {
            error,
            next: Next::Pause,
        }
    }

    /// Another try makes sense once `retry_after` is over, as the service asked for.
    ///
    /// A random pause is added: all who were told the same would come at once.
    pub const fn again_after(error: E, retry_after: Duration) -> Self {
        Self {
            error,
            next: Next::After(retry_after),
        }
    }

    /// Another try makes sense without a pause, since it goes elsewhere.
    pub const fn again_at_once(error: E) -> Self {
        Self {
            error,
            next: Next::AtOnce,
        }
    }

    /// [`again`](Self::again) if `worth` another try, else [`for_good`](Self::for_good).
    pub const fn again_if(worth: bool, error: E) -> Self {
        if worth {
            Self::again(error)
        } else {
            Self::for_good(error)
        }
    }

    /// The error.
    pub fn into_error(self) -> E {
        self.error
    }
}

/// How far the tries of one call have come, see [`Retry::begin_at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// The number of the last try, which begins at 1.
    number: u32,
    /// When that began.
    begun: Instant,
}

impl Attempts {
    /// Notes that the last try begins only now: what it has waited for, such as a place, is no part of its time.
    pub fn begins_at(&mut self, now: Instant) {
        self.begun = now;
    }
}

/// The time and the pauses of a [`Retry`], for tests that are exact and take no time.
pub trait Clock: Send + Sync {
    /// The time.
    fn now(&self) -> Instant;

    /// Returns when `pause` is over.
    fn sleep(&self, pause: Duration);
}

/// The system's clock.
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, pause: Duration) {
        thread::sleep(pause);
    }
}

/// Tries a blocking call again, for any client and any error type.
///
/// The closure tells with [`Failed`] what is worth another try. Another try is made if
///
/// - fewer than [`retries`](Self::retries) (2) were made for this call,
/// - the `Retry-After` that the service gave, if any, is at most [2 s](Self::longest_retry_after),
/// - what the [`Deadline`] leaves after the pause is more than the usual time of a try: a moving average of those that
///   succeeded, so one `Retry` should stand for calls of one kind,
/// - and the [`RetryBudget`] has one left.
///
/// Else the last error is returned as it is. The thread sleeps through the pauses (see [`Backoff`]).
///
/// A call that succeeds at once costs two readings of the clock and two atomic additions: some 75 ns.
///
/// ```
/// use plimsoll::patterns::{Deadline, Failed, Retry};
/// use std::io::{self, ErrorKind};
/// use std::time::Duration;
///
/// let retry = Retry::new();
/// let mut answers = [Err(ErrorKind::ConnectionRefused), Ok("paid")].into_iter();
/// let answer = retry.call(Deadline::after(Duration::from_secs(5)), |_attempt| {
///     let answer = answers.next().unwrap_or(Err(ErrorKind::Other));
///     answer.map_err(|kind| Failed::again_if(kind == ErrorKind::ConnectionRefused, io::Error::from(kind)))
/// });
/// assert_eq!(answer.unwrap(), "paid");
/// ```
///
/// With a clock and random numbers of its own a test is exact and takes no time:
///
/// ```
/// use plimsoll::patterns::{Clock, Deadline, Failed, Retry};
/// use std::sync::{Arc, Mutex};
/// use std::time::{Duration, Instant};
///
/// struct Pauses(Instant, Mutex<Vec<Duration>>);
///
/// impl Clock for Pauses {
///     fn now(&self) -> Instant {
///         self.0 + self.1.lock().unwrap().iter().sum::<Duration>()
///     }
///     fn sleep(&self, pause: Duration) {
///         self.1.lock().unwrap().push(pause);
///     }
/// }
///
/// let pauses = Arc::new(Pauses(Instant::now(), Mutex::default()));
/// let retry = Retry::new().clock(pauses.clone()).random(|| 0.5);
/// let deadline = Deadline::after_at(Duration::from_secs(5), pauses.0);
/// assert_eq!(retry.call(deadline, |attempt| Err::<(), _>(Failed::again(attempt))), Err(3));
/// assert_eq!(*pauses.1.lock().unwrap(), [12_500, 25_000].map(Duration::from_micros));
/// ```
pub struct Retry {
    retries: u32,
    backoff: Backoff,
    budget: Arc<RetryBudget>,
    longest_retry_after: Duration,
    /// The time of the tries that succeeded, in seconds.
    usual: Ewma,
    clock: Arc<dyn Clock>,
    chance: Chance,
}

impl Retry {
    /// Two retries, the default [`Backoff`] and a [`RetryBudget`] of its own.
    #[must_use]
    pub fn new() -> Self {
        Self {
            retries: RETRIES,
            backoff: Backoff::default(),
            budget: Arc::default(),
            longest_retry_after: LONGEST_RETRY_AFTER,
            usual: Ewma::new(USUAL_AGE),
            clock: Arc::new(SystemClock),
            chance: Chance::default(),
        }
    }

    /// How often a call may be tried after its first try; 0 for never.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self {
        Self { retries, ..self }
    }

    /// The pauses between tries.
    #[must_use]
    pub fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// A budget that others may share.
    #[must_use]
    pub fn budget(self, budget: Arc<RetryBudget>) -> Self {
        Self { budget, ..self }
    }

    /// The longest time that a service may ask to wait, 2 s by default. If it asks for more, there is no other try.
    #[must_use]
    pub fn longest_retry_after(self, longest_retry_after: Duration) -> Self {
        Self {
            longest_retry_after,
            ..self
        }
    }

    /// Another clock than the system's.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Other random numbers, in [0, 1), than this thread's own.
    #[must_use]
    pub fn random(self, random: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self {
            chance: Chance::given(random),
            ..self
        }
    }

    /// Runs `attempt` with its number, which begins at 1, until it succeeds or no other try is to be made.
    ///
    /// The first try is always made; it is for `attempt` to look at the deadline.
    ///
    /// # Errors
    ///
    /// The error of the last try.
    pub fn call<T, E>(
        &self,
        deadline: Deadline,
        mut attempt: impl FnMut(u32) -> Result<T, Failed<E>>,
    ) -> Result<T, E> {
        let mut attempts = self.begin_at(self.clock.now());
        loop {
            let result = attempt(attempts.number);
            let now = self.clock.now();
            let failed = match result {
                Ok(value) => {
                    self.success_at(&attempts, now);
                    return Ok(value);
                }
                Err(failed) => failed,
            };
            let Some(pause) = self.failure_at(&mut attempts, &failed, deadline, now) else {
                return Err(failed.error);
            };
            if !pause.is_zero() {
                self.clock.sleep(pause);
                attempts.begun = self.clock.now();
            }
        }
    }

    /// Begins the tries of a call that does not block a thread: the same as [`call`](Self::call), step by step, for a
    /// program with an event loop. Tell it of each try's end by [`success_at`](Self::success_at) or
    /// [`failure_at`](Self::failure_at).
    ///
    /// ```
    /// use plimsoll::patterns::{Deadline, Failed, Retry};
    /// use std::time::{Duration, Instant};
    ///
    /// let retry = Retry::new().random(|| 0.5);
    /// let now = Instant::now();
    /// let deadline = Deadline::after_at(Duration::from_secs(5), now);
    /// let mut attempts = retry.begin_at(now);
    /// let pause = retry.failure_at(&mut attempts, &Failed::again("refused"), deadline, now);
    /// assert_eq!(pause, Some(Duration::from_micros(12_500)));
    /// // The second try begins after the pause.
    /// let pause = retry.failure_at(&mut attempts, &Failed::for_good("malformed"), deadline, now);
    /// assert_eq!(pause, None);
    /// ```
    #[must_use]
    pub fn begin_at(&self, now: Instant) -> Attempts {
        self.budget.request_at(now);
        Attempts {
            number: 1,
            begun: now,
        }
    }

    /// Whether this is more time than a try usually takes: with less, one is not worth beginning.
    #[must_use]
    pub fn is_enough(&self, left: Duration) -> bool {
        left.as_secs_f64() > self.usual.value().unwrap_or(0.0)
    }

    /// Notes that the last try succeeded.
    pub fn success_at(&self, attempts: &Attempts, now: Instant) {
        let time = now.saturating_duration_since(attempts.begun);
        self.usual.add(time.as_secs_f64());
    }

    /// Notes that the last try failed. The pause until the next one, or `None` if no other is to be made.
    #[must_use]
    pub fn failure_at<E>(
        &self,
        attempts: &mut Attempts,
        failed: &Failed<E>,
        deadline: Deadline,
        now: Instant,
    ) -> Option<Duration> {
        let pause = self.pause(attempts.number, failed.next, deadline, now)?;
        attempts.number += 1;
        attempts.begun = now + pause;
        Some(pause)
    }

    /// The pause before retry number `retry`; `None` if it is not to be made.
    fn pause(&self, retry: u32, next: Next, deadline: Deadline, now: Instant) -> Option<Duration> {
        if retry > self.retries {
            return None;
        }
        let jitter = || self.backoff.pause(retry, self.chance.draw());
        let pause = match next {
            Next::Nothing => return None,
            Next::AtOnce => Duration::ZERO,
            Next::Pause => jitter(),
            Next::After(time) if time > self.longest_retry_after => return None,
            Next::After(time) => time.saturating_add(jitter()),
        };
        let left = deadline.remaining_at(now).ok()?.checked_sub(pause)?;
        (self.is_enough(left) && self.budget.take_at(now)).then_some(pause)
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("retries", &self.retries)
            .field("backoff", &self.backoff)
            .field("budget", &self.budget)
            .field("longest_retry_after", &self.longest_retry_after)
            .field("usual", &self.usual)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
