//! The endpoints that a handler forwards to, as reports show them: plain data, which the handler's owner gives.

mod metrics;

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

/// What an endpoint does that makes its requests fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointFault {
    /// It takes no connections.
    Refuses,
    /// It can't be connected to for another reason.
    Unreachable,
    /// It takes too long to connect or to answer.
    Late,
    /// It closes the connection too early, or does not keep to the protocol.
    Broken,
    /// It answers that it can't do its work: 502, 503, 504, and what else counts as a failure.
    Unable,
    /// It does not answer its check.
    Silent,
}

impl EndpointFault {
    /// What one endpoint does, and what several do.
    const fn words(self) -> [&'static str; 2] {
        match self {
            Self::Refuses => ["refuses connections", "refuse connections"],
            Self::Unreachable => ["cannot be reached", "cannot be reached"],
            Self::Late => ["does not answer in time", "do not answer in time"],
            Self::Broken => ["breaks its answers off", "break their answers off"],
            Self::Unable => ["answers with errors", "answer with errors"],
            Self::Silent => ["does not answer its check", "do not answer their checks"],
        }
    }

    /// What the endpoint does, in words, such as `refuses connections`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        let [one, _] = self.words();
        one
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
    /// Why requests to it fail, while it is not up.
    pub fault: Option<EndpointFault>,
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
        self.known_down().count() + self.others.down
    }

    /// Those of them that are told of one by one.
    fn known_down(&self) -> impl Iterator<Item = &EndpointReport> {
        let endpoints = self.endpoints.iter();
        endpoints.filter(|endpoint| endpoint.state == EndpointState::Down)
    }

    /// How many endpoints there are.
    pub(crate) fn count(&self) -> usize {
        self.endpoints.len() + self.others.count
    }

    /// What the endpoints do that get no requests, and when the first of them is tried again.
    pub(crate) fn told(&self) -> String {
        let down: Vec<_> = self.known_down().collect();
        let number = usize::from(self.down() != 1);
        let fault = down.first().and_then(|first| first.fault);
        let is_shared = down.iter().all(|endpoint| endpoint.fault == fault);
        let verb = match fault.filter(|_| is_shared) {
            Some(fault) => fault.words()[number],
            None => ["is down", "are down"][number],
        };
        let who = match (self.down(), self.count()) {
            (1, 1) => "The only endpoint".to_owned(),
            (2, 2) => "Both endpoints".to_owned(),
            (some, all) if some == all => format!("All {all} endpoints"),
            (some, all) => format!("{some} of {all} endpoints"),
        };
        let waiting = down.iter().filter(|endpoint| !endpoint.retry_in.is_zero());
        let next = waiting.min_by_key(|endpoint| endpoint.retry_in);
        match (next, &down[..]) {
            (Some(next), _) => {
                // Rounded up, so that it does not say 0 before it is true.
                let seconds = next.retry_in.as_secs_f64().ceil();
                let name = &next.name;
                format!("{who} {verb}; the circuit breaker of {name} tries again in {seconds} s.")
            }
            (None, [one]) => format!("{who} {verb}: {}.", one.name),
            (None, _) => format!("{who} {verb}."),
        }
    }
}

/// What gives the report.
pub(crate) type Reporter = Arc<dyn Fn() -> UpstreamsReport + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str, fault: Option<EndpointFault>, retry_in: Duration) -> EndpointReport {
        EndpointReport {
            name: name.into(),
            state: fault.map_or(EndpointState::Up, |_| EndpointState::Down),
            breaker: if retry_in.is_zero() { "closed" } else { "open" },
            retry_in,
            latency: None,
            pending: 0,
            idle: 0,
            weight: 1,
            successes: 0,
            failures: 0,
            error: None,
            fault,
        }
    }

    #[test]
    fn what_is_down_is_told_in_words() {
        use EndpointFault::{Late, Refuses, Silent};
        let [soon, later] = [3200, 9000].map(Duration::from_millis);
        let up = || endpoint("a:1", None, Duration::ZERO);
        for (endpoints, told) in [
            (
                vec![endpoint("b:1", Some(Refuses), soon)],
                "The only endpoint refuses connections; the circuit breaker of b:1 tries again in 4 s.",
            ),
            (
                vec![
                    up(),
                    endpoint("b:1", Some(Refuses), later),
                    endpoint("c:1", Some(Refuses), soon),
                ],
                "2 of 3 endpoints refuse connections; the circuit breaker of c:1 tries again in 4 s.",
            ),
            (
                vec![
                    endpoint("b:1", Some(Refuses), later),
                    endpoint("c:1", Some(Late), soon),
                ],
                "Both endpoints are down; the circuit breaker of c:1 tries again in 4 s.",
            ),
            (
                vec![up(), endpoint("b:1", Some(Silent), Duration::ZERO)],
                "1 of 2 endpoints does not answer its check: b:1.",
            ),
        ] {
            let report = UpstreamsReport {
                endpoints,
                ..UpstreamsReport::default()
            };
            assert_eq!(report.told(), told);
        }
    }
}
