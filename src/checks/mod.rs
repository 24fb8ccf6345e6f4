//! Data stores that are monitored: what a check is, and what is known of each.
//!
//! Checks run in the background, apart from every request; a report reads their last results from memory.

mod metrics;
pub(crate) mod monitor;
#[cfg(feature = "r2d2")]
pub(crate) mod pool;
pub(crate) mod scheduler;
pub(crate) mod store;

use std::fmt;
use std::sync::{Arc, Mutex};

use std::time::{Duration, Instant, SystemTime};

use crate::panics::lock;
use crate::random::Random;
use crate::text;
use monitor::Monitor;

/// Asks whether a data store is there.
///
/// It is called from a thread of its own, never twice at the same time, and may block until the deadline, which is a
/// little before the end of its [timeout](CheckSettings::timeout). A run that has not ended by then counts as failed,
/// and so does one that panics; no other starts until it has ended.
///
/// ```
/// use std::net::TcpStream;
/// use std::time::Instant;
///
/// use plimsoll::{Check, CheckError, Server};
///
/// struct Mailer;
///
/// impl Check for Mailer {
///     fn check(&self, deadline: Instant) -> Result<(), CheckError> {
///         let left = deadline.saturating_duration_since(Instant::now());
///         TcpStream::connect_timeout(&([127, 0, 0, 1], 25).into(), left)?;
///         Ok(())
///     }
/// }
///
/// let builder = Server::builder().check("mailer", Mailer);
/// # let _ = builder;
/// ```
pub trait Check: Send + Sync + 'static {
    /// Finds out whether the store serves, by `deadline`.
    ///
    /// # Errors
    /// Why it does not, in a line for the operator.
    fn check(&self, deadline: Instant) -> Result<(), CheckError>;

    /// The state of the connection pool in front of the store, if there is one. Called after each
    /// [`check`](Self::check); must not block.
    fn pool(&self) -> Option<PoolStatus> {
        None
    }
}

/// A closure is a check without a pool.
///
/// ```
/// use std::time::Instant;
///
/// use plimsoll::Server;
///
/// let builder = Server::builder().check("spool", |_: Instant| {
///     std::fs::read_dir("/var/spool/orders")?;
///     Ok(())
/// });
/// # let _ = builder;
/// ```
impl<F> Check for F
where
    F: Fn(Instant) -> Result<(), CheckError> + Send + Sync + 'static,
{
    fn check(&self, deadline: Instant) -> Result<(), CheckError> {
        self(deadline)
    }
}

impl Check for Box<dyn Check> {
    fn check(&self, deadline: Instant) -> Result<(), CheckError> {
        (**self).check(deadline)
    }

    fn pool(&self) -> Option<PoolStatus> {
        (**self).pool()
    }
}

/// Why a data store is not there: a line for the operator, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckError {
    message: String,
    /// It has answered, but not as it should.
    is_answer: bool,
}

/// Most bytes that an error keeps of its message, part of which a store may have chosen.
const LONGEST_ERROR: usize = 300;

impl CheckError {
    /// An error that says `message`, made one line of at most 300 bytes.
    pub fn new(message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if message.len() > LONGEST_ERROR {
            message.truncate(text::beginning(&message, LONGEST_ERROR - 3).len());
            message.push_str("...");
        }
        if message.contains(char::is_control) {
            message = message.replace(char::is_control, " ");
        }
        Self {
            message,
            is_answer: false,
        }
    }

    /// The same of a store that has answered, and so is there.
    #[cfg(any(feature = "checks", feature = "binary", feature = "proxy"))]
    pub(crate) fn with_answer(self) -> Self {
        Self {
            is_answer: true,
            ..self
        }
    }

    /// Whether the store has answered.
    pub(crate) fn is_answer(&self) -> bool {
        self.is_answer
    }
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CheckError {}

impl From<std::io::Error> for CheckError {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// How many connections a pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStatus {
    /// Connections lent out.
    pub used: u32,
    /// Connections open and not lent out.
    pub idle: u32,
    /// Most connections that the pool opens.
    pub max: u32,
}

impl PoolStatus {
    /// Whether every connection that the pool may open is lent out.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.max > 0 && self.used >= self.max
    }
}

/// How a data store is monitored. Each duration is above 0 and at most 24 hours.
///
/// ```
/// use plimsoll::{CheckSettings, Server};
///
/// let critical = CheckSettings { critical: true, ..CheckSettings::default() };
/// let builder = Server::builder().check_with("queue", critical, |deadline: std::time::Instant| {
///     let left = deadline.saturating_duration_since(std::time::Instant::now());
///     std::net::TcpStream::connect_timeout(&([127, 0, 0, 1], 5672).into(), left)?;
///     Ok(())
/// });
/// # let _ = builder;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckSettings {
    /// Whether the service is unhealthy without this store. Default false: a failure is a warning.
    pub critical: bool,
    /// From one run's start to the next, give or take 10 %; three times as long after `fall` failures in a row. The
    /// first run starts within this time, and within a second. Default 10 s.
    pub interval: Duration,
    /// Longest a run may take; one that takes longer counts as failed. Default 2 s.
    pub timeout: Duration,
    /// Failures in a row until the store counts as down; while it has never been up, one is enough. Default 3; 1 to
    /// 100.
    pub fall: u32,
    /// Successes in a row until it counts as up again; the very first run needs no second. Default 2; 1 to 100.
    pub rise: u32,
}

impl Default for CheckSettings {
    fn default() -> Self {
        Self {
            critical: false,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            fall: 3,
            rise: 2,
        }
    }
}

/// What is known of a data store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckState {
    /// No run has ended yet.
    NotYet,
    /// It serves.
    Up,
    /// It does not, or nothing has been heard of it for three intervals (or two and the timeout, if that is longer).
    Down,
}

impl CheckState {
    /// `not yet`, `up` or `down`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotYet => "not yet",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// One monitored data store at one moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CheckReport {
    /// The name that the operator gave it.
    pub name: Arc<str>,
    /// Whether the service is unhealthy without it.
    pub critical: bool,
    /// What is known of it.
    pub state: CheckState,
    /// How long it has been known.
    pub state_for: Duration,
    /// When the last run ended.
    pub last_run: Option<SystemTime>,
    /// When the last run that found the store serving ended.
    pub last_success: Option<SystemTime>,
    /// How long the last run took.
    pub duration: Option<Duration>,
    /// Runs that have failed since the last success.
    pub consecutive_failures: u32,
    /// Why the last run failed; `None` after a success.
    pub error: Option<Arc<str>>,
    /// The state of its connection pool, if it has one.
    pub pool: Option<PoolStatus>,
}

#[cfg(test)]
impl CheckReport {
    /// A store that has stood there for 42 seconds, and of which nothing else is known.
    pub(crate) fn sample(name: &str, critical: bool, state: CheckState) -> Self {
        Self {
            name: name.into(),
            critical,
            state,
            state_for: Duration::from_secs(42),
            last_run: None,
            last_success: None,
            duration: None,
            consecutive_failures: 0,
            error: None,
            pool: None,
        }
    }
}

/// A monitored data store: what the thread that runs its check writes, and reports read.
pub(crate) struct Monitored {
    name: Arc<str>,
    monitor: Mutex<Monitor>,
}

impl Monitored {
    pub(crate) fn new(
        name: &str,
        settings: CheckSettings,
        now: Instant,
        random: &mut Random,
    ) -> Self {
        Self {
            name: name.into(),
            monitor: Mutex::new(Monitor::new(settings, now, random)),
        }
    }

    /// Whether it has answered the last run, be it not as it should.
    #[cfg(feature = "proxy")]
    pub(crate) fn has_answered(&self) -> bool {
        lock(&self.monitor).has_answered()
    }

    /// What a report says of it.
    pub(crate) fn report(&self, now: Instant) -> CheckReport {
        lock(&self.monitor).report(self.name.clone(), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_of_bounded_length() {
        let error = CheckError::new("FATAL:\r\nforged \u{1b}[31mline");
        assert_eq!(error.to_string(), "FATAL:  forged  [31mline");
        let error = CheckError::new("ü".repeat(1000)).to_string();
        assert!(
            error.len() <= LONGEST_ERROR && error.ends_with("ü..."),
            "{error}"
        );
        let error = CheckError::from(std::io::Error::other("a\nb"));
        assert_eq!(error.to_string(), "a b");
    }

    #[test]
    fn a_pool_is_exhausted_when_every_connection_it_may_open_is_lent_out() {
        let status = |used, idle, max| PoolStatus { used, idle, max }.is_exhausted();
        assert!(status(4, 0, 4));
        assert!(!status(3, 1, 4));
        assert!(!status(3, 0, 4));
        assert!(!status(0, 0, 0));
    }
}
