//! The endpoints that a handler forwards to, as reports show them: plain data, which the handler's owner gives.

use std::sync::Arc;
use std::time::Duration;

/// Most endpoints that reports tell of one by one, and of which there is a history.
pub(crate) const MOST_REPORTED: usize = 32;

/// How an endpoint can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointState {
    /// It gets requests.
    Up,
    /// It gets them only if no other can be had: its check is answered with the wrong status.
    LastChoice,
    /// Single requests show whether it is well again.
    Trial,
    /// It gets none: its circuit breaker is open, or its check got no answer.
    Down,
}

impl EndpointState {
    /// `up`, `last choice`, `trial` or `down`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::LastChoice => "last choice",
            Self::Trial => "trial",
            Self::Down => "down",
        }
    }
}

/// One endpoint at one moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EndpointReport {
    /// Its address, with the prefix of its paths if it has one.
    pub name: Arc<str>,
    /// How it can be used.
    pub state: EndpointState,
    /// Where its circuit breaker stands: `closed`, `open`, `half-open`, or `off`.
    pub breaker: &'static str,
    /// How long its circuit breaker stays open; zero while it is not.
    pub retry_in: Duration,
    /// The moving average of its latency, to the head of its answers; `None` before the first one.
    pub latency: Option<Duration>,
    /// Requests on their way to it.
    pub pending: u32,
    /// Connections to it that are kept for the next request.
    pub idle: usize,
    /// Its share of the requests, beside the others'.
    pub weight: u32,
    /// Requests to it that succeeded.
    pub successes: u64,
    /// Requests to it that failed.
    pub failures: u64,
    /// Why its last check failed; `None` after a success, and where there is no check.
    pub error: Option<Arc<str>>,
}

/// Endpoints that are not told of one by one, summed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OtherEndpoints {
    /// How many there are.
    pub count: usize,
    /// Those of them that get no requests.
    pub down: usize,
    /// Requests on their way to them.
    pub pending: u64,
    /// Connections to them that are kept for the next request.
    pub idle: usize,
    /// Requests to them that succeeded.
    pub successes: u64,
    /// Requests to them that failed.
    pub failures: u64,
}

impl<'a> FromIterator<&'a EndpointReport> for OtherEndpoints {
    fn from_iter<I: IntoIterator<Item = &'a EndpointReport>>(endpoints: I) -> Self {
        let mut sum = Self::default();
        for endpoint in endpoints {
            sum.count += 1;
            sum.down += usize::from(endpoint.state == EndpointState::Down);
            sum.pending += u64::from(endpoint.pending);
            sum.idle += endpoint.idle;
            sum.successes += endpoint.successes;
            sum.failures += endpoint.failures;
        }
        sum
    }
}

/// What is known of the endpoints at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct UpstreamsReport {
    /// The busiest endpoints first, at most 32. Of two that have had about as many requests, one less than twice those of
    /// the other, the order is that of their sources.
    pub endpoints: Vec<EndpointReport>,
    /// The others.
    pub others: OtherEndpoints,
    /// Whether an endpoint can be tried.
    pub ready: bool,
    /// Sources of endpoints that cannot be read, and why.
    pub faults: Vec<(String, String)>,
    /// Tries after the first one, since the start.
    pub retries: u64,
    /// Those that were not made, for want of budget.
    pub retries_refused: u64,
    /// Requests answered by the server itself since the start, by the error that their `Proxy-Status` tells.
    pub errors: Vec<(&'static str, u64)>,
}

impl UpstreamsReport {
    /// How many endpoints get no requests.
    pub(crate) fn down(&self) -> usize {
        let endpoints = self.endpoints.iter();
        let down = endpoints.filter(|endpoint| endpoint.state == EndpointState::Down);
        down.count() + self.others.down
    }

    /// How many endpoints there are.
    pub(crate) fn count(&self) -> usize {
        self.endpoints.len() + self.others.count
    }
}

/// What gives the report.
pub(crate) type Reporter = Arc<dyn Fn() -> UpstreamsReport + Send + Sync>;
