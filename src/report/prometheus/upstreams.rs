//! The endpoints that the handler forwards to.

use super::{Page, labels};
use crate::health::Snapshot;
use crate::health::upstreams::{EndpointReport, EndpointState};

/// A number of an endpoint.
type Reading = fn(&EndpointReport) -> f64;

const READINGS: [(&str, &str, Reading); 3] = [
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

pub(super) fn upstreams(page: &mut Page, now: &Snapshot) {
    let Some(upstreams) = &now.upstreams else {
        return;
    };
    let endpoints = &upstreams.endpoints;
    for (name, help, read) in READINGS {
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
    for endpoint in endpoints {
        for (outcome, count) in [
            ("success", endpoint.successes),
            ("failure", endpoint.failures),
        ] {
            let labels = labels(&[("endpoint", &endpoint.name), ("outcome", outcome)]);
            page.sample(name, &labels, count);
        }
    }
    let name = "plimsoll_upstream_connections";
    let help =
        "Connections to the endpoint: used ones have a request, idle ones are kept for the next.";
    page.family(name, "gauge", help);
    for endpoint in endpoints {
        let idle = u64::try_from(endpoint.idle).unwrap_or(u64::MAX);
        for (state, count) in [("used", u64::from(endpoint.pending)), ("idle", idle)] {
            let labels = labels(&[("endpoint", &endpoint.name), ("state", state)]);
            page.sample(name, &labels, count);
        }
    }
    page.counters(
        "plimsoll_upstream_errors_total",
        "Requests answered by the server itself, by the error that their Proxy-Status tells.",
        "error",
        &upstreams.errors,
    );
    page.counter(
        "plimsoll_upstream_retries_total",
        "Tries after the first one.",
        upstreams.retries,
    );
    page.counter(
        "plimsoll_retry_budget_exhausted_total",
        "Tries after the first one that were not made for want of budget.",
        upstreams.retries_refused,
    );
}
