//! The numbers of the endpoints, as Prometheus and the history have them.

use std::fmt::Display;

use super::{EndpointReport, EndpointState, UpstreamsReport};
use crate::metrics::{Exposition, Measured, labels};

/// What a label says of the endpoints that are not told of one by one.
const OTHERS: &str = "others";

/// A number of an endpoint.
type Gauge = fn(&EndpointReport) -> f64;

const GAUGES: [(&str, &str, Gauge); 3] = [
    (
        "plimsoll_upstream_up",
        "Whether the endpoint gets requests, if only single ones as a trial.",
        |endpoint| f64::from(u8::from(endpoint.state != EndpointState::Down)),
    ),
    (
        "plimsoll_upstream_breaker_state",
        "Where the endpoint's circuit breaker stands: 0 closed or off, 1 half-open, 2 open.",
        |endpoint| match endpoint.breaker {
            "open" => 2.0,
            "half-open" => 1.0,
            _ => 0.0,
        },
    ),
    (
        "plimsoll_upstream_latency_seconds",
        "Moving average of the time to the head of the endpoint's answers; no number before the first.",
        |endpoint| {
            endpoint
                .latency
                .map_or(f64::NAN, |latency| latency.as_secs_f64())
        },
    ),
];

impl Measured for UpstreamsReport {
    fn metrics(&self, page: &mut Exposition) {
        let endpoints = &self.endpoints;
        for (name, help, read) in GAUGES {
            page.family(name, "gauge", help);
            for endpoint in endpoints {
                page.sample(
                    name,
                    &labels(&[("endpoint", &endpoint.name)]),
                    read(endpoint),
                );
            }
        }
        let name = "plimsoll_upstream_requests_total";
        page.family(
            name,
            "counter",
            "Tries of requests that the endpoint was asked, by how they went.",
        );
        let others = (self.others.count > 0).then_some(self.others);
        let counts = endpoints
            .iter()
            .map(|it| (&*it.name, it.successes, it.failures));
        let summed = others.map(|it| (OTHERS, it.successes, it.failures));
        for (endpoint, successes, failures) in counts.chain(summed) {
            for (outcome, count) in [("success", successes), ("failure", failures)] {
                let labels = labels(&[("endpoint", endpoint), ("outcome", outcome)]);
                page.sample(name, &labels, count);
            }
        }
        let name = "plimsoll_upstream_connections";
        let help = "Connections to the endpoint: used ones have a request, idle ones are kept for the next.";
        page.family(name, "gauge", help);
        let counts = endpoints
            .iter()
            .map(|it| (&*it.name, u64::from(it.pending), it.idle));
        let summed = others.map(|it| (OTHERS, it.pending, it.idle));
        for (endpoint, used, idle) in counts.chain(summed) {
            let idle = u64::try_from(idle).unwrap_or(u64::MAX);
            for (state, count) in [("used", used), ("idle", idle)] {
                let labels = labels(&[("endpoint", endpoint), ("state", state)]);
                page.sample(name, &labels, count);
            }
        }
        let name = "plimsoll_upstream_endpoints";
        let help = "Endpoints, those included that the other families sum as others.";
        page.family(name, "gauge", help);
        let down = self.down();
        for (state, count) in [("usable", self.count() - down), ("down", down)] {
            page.sample(name, &labels(&[("state", state)]), count);
        }
        page.counters(
            "plimsoll_upstream_errors_total",
            "Requests answered by the server itself, by the error that their Proxy-Status tells.",
            "error",
            &self.errors,
        );
        page.counter(
            "plimsoll_upstream_retries_total",
            "Tries after the first one.",
            self.retries,
        );
        page.counter(
            "plimsoll_retry_budget_exhausted_total",
            "Tries after the first one that were not made for want of budget.",
            self.retries_refused,
        );
    }

    /// Tries after the first one, and those that were not made.
    fn history(&self, tell: &mut dyn FnMut(&dyn Display, u64)) {
        tell(&"retries", self.retries);
        tell(&"retries_refused", self.retries_refused);
    }
}
