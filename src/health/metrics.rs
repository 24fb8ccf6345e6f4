//! The server's own numbers, as Prometheus has them.

use std::fmt::Display;
use std::time::Duration;

use super::gate::GateState;
use super::snapshot::{Snapshot, Status, ThrottleReport};
use crate::metrics::{Exposition, Measured, labels};
#[cfg(feature = "redis")]
use crate::patterns::ThrottleStoreStatus;
use crate::settings::GateMode;

impl Measured for Snapshot {
    fn metrics(&self, page: &mut Exposition) {
        state(page, self);
        times(page, self);
        requests(page, self);
        connections(page, self);
        workers(page, self);
        gate(page, self);
    }
}

impl Measured for Vec<ThrottleReport> {
    fn metrics(&self, page: &mut Exposition) {
        page.family(
            "plimsoll_throttled_total",
            "counter",
            "Requests refused with 429: their client asked too often. By the limit that refused them.",
        );
        for throttle in self {
            let labels = labels(&[("rule", &throttle.name)]);
            page.sample("plimsoll_throttled_total", &labels, throttle.throttled);
        }
    }

    fn history(&self, tell: &mut dyn FnMut(&dyn Display, u64)) {
        for throttle in self {
            tell(
                &format_args!("throttled.{}", throttle.name),
                throttle.throttled,
            );
        }
    }
}

#[cfg(feature = "redis")]
impl Measured for ThrottleStoreStatus {
    fn metrics(&self, page: &mut Exposition) {
        page.gauge(
            "plimsoll_throttle_store_up",
            "Whether the store in which limits are shared answers.",
            u8::from(self.is_up),
        );
        page.counter(
            "plimsoll_throttle_store_unanswered_total",
            "Requests that the store did not answer for in time, and that only this replica has counted.",
            self.unanswered,
        );
    }
}

fn state(page: &mut Exposition, now: &Snapshot) {
    for (name, help, value) in [
        (
            "up",
            "Whether requests are served: 0 while the gate is open.",
            now.is_healthy(),
        ),
        ("ready", "Whether the server wants traffic.", now.is_ready()),
        (
            "live",
            "Whether the process can do its job: not every worker is stuck, and requests reach them.",
            now.is_live(),
        ),
        ("draining", "Whether the server is stopping.", now.draining),
    ] {
        page.gauge(&format!("plimsoll_{name}"), help, u8::from(value));
    }
    let help = "1 for the status in the words of the health report; warn: it serves, and an operator should look.";
    page.family("plimsoll_status", "gauge", help);
    for status in [Status::Pass, Status::Warn, Status::Fail] {
        let labels = labels(&[("status", status.as_str())]);
        let here = u8::from(now.status() == status);
        page.sample("plimsoll_status", &labels, here);
    }
    page.gauge(
        "plimsoll_load_ratio",
        "Load as a part of what may be carried: wait by its budget or service time by its threshold; 1 is the line.",
        now.load(),
    );
}

fn times(page: &mut Exposition, now: &Snapshot) {
    const SERVICE: &str = "Moving average of the service time: handler start to reply handed over.";
    const RESPONSE: &str =
        "Moving average of the response time: request whole to reply handed over.";
    const BAD: &str = "Moving average of the share of requests answered 4xx.";
    const FAILED: &str = "Moving average of the share of requests answered 5xx.";
    const PREDICTED: &str = "Service time that admission expects of the next request.";
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    for (name, help, value) in [
        (
            "service_time_average_seconds",
            SERVICE,
            seconds(now.service_time),
        ),
        (
            "response_time_average_seconds",
            RESPONSE,
            seconds(now.response_time),
        ),
        ("bad_requests_average_ratio", BAD, now.bad_ratio),
        ("failed_requests_average_ratio", FAILED, now.failed_ratio),
        (
            "predicted_service_time_seconds",
            PREDICTED,
            seconds(now.predicted_service_time),
        ),
    ] {
        // A gauge without a sample yet is no number.
        page.gauge(&format!("plimsoll_{name}"), help, value.unwrap_or(f64::NAN));
    }
    page.gauge(
        "plimsoll_predicted_wait_seconds",
        "How long a request that came now would wait for a worker.",
        now.predicted_wait.as_secs_f64(),
    );
}

fn requests(page: &mut Exposition, now: &Snapshot) {
    const OUTCOMES: &str =
        "Requests answered: served (up to 3xx), bad (4xx, malformed included), failed (5xx).";
    let totals = &now.totals;
    let outcomes = [
        ("served", totals.served),
        ("bad", totals.bad),
        ("failed", totals.failed),
    ];
    page.counters("plimsoll_requests_total", OUTCOMES, "outcome", &outcomes);
    let shed = [
        ("queue", totals.shed_queue),
        ("deadline", totals.shed_deadline),
        ("fair", totals.shed_fair),
        ("bodies", totals.shed_bodies),
        ("gate", totals.shed_gate),
        ("drain", totals.shed_drain),
    ];
    page.counters(
        "plimsoll_shed_total",
        "Requests refused with 503.",
        "reason",
        &shed,
    );
    for (name, help, value) in [
        (
            "health_requests",
            "Requests for the health paths, and agent-checks.",
            totals.probed,
        ),
        ("handler_panics", "Handlers that panicked.", totals.panics),
        (
            "request_timeouts",
            "Requests answered 504: slower than the request timeout.",
            totals.timeouts,
        ),
        (
            "late_replies",
            "Replies dropped: their client was answered already, or had gone.",
            totals.late,
        ),
        (
            "abandoned_requests",
            "Requests not started: their client had gone.",
            totals.skipped,
        ),
        ("cut_replies", "Replies cut in their middle.", totals.cut),
        (
            "slow_requests",
            "Requests not whole in time: answered 408.",
            totals.too_slow,
        ),
        (
            "write_timeouts",
            "Replies cut for making no progress.",
            totals.write_timeouts,
        ),
    ] {
        page.counter(&format!("plimsoll_{name}_total"), help, value);
    }
    let too_large = [
        ("head", totals.head_too_large),
        ("body", totals.body_too_large),
    ];
    page.counters(
        "plimsoll_too_large_requests_total",
        "Requests refused for their size: answered 414 or 431 (head), 413 (body).",
        "part",
        &too_large,
    );
}

fn connections(page: &mut Exposition, now: &Snapshot) {
    const IDLE: &str =
        "Kept-alive connections closed: unused for the idle timeout, or making room.";
    const PAUSES: &str =
        "Times that accepting paused: all connections in use, or no descriptors left.";
    let totals = &now.totals;
    page.gauge(
        "plimsoll_connections",
        "Client connections open.",
        now.connections,
    );
    let accepted = "Client connections accepted.";
    page.counter(
        "plimsoll_connections_accepted_total",
        accepted,
        totals.accepted,
    );
    let idle = [("timeout", totals.idle_closed), ("room", totals.evicted)];
    page.counters(
        "plimsoll_idle_connections_closed_total",
        IDLE,
        "reason",
        &idle,
    );
    let pauses = [
        ("full", totals.accept_pauses_full),
        ("descriptors", totals.accept_pauses_descriptors),
    ];
    page.counters("plimsoll_accept_pauses_total", PAUSES, "reason", &pauses);
}

fn workers(page: &mut Exposition, now: &Snapshot) {
    const STUCK: &str = "Workers busy with one request for longer than the request timeout.";
    const BODIES: &str = "Bytes that request bodies have of the room for them.";
    const STREAMS: &str = "Private streams to the workers that broke and were opened again.";
    for (name, help, value) in [
        (
            "requests_in_flight",
            "Requests handed to the workers and not answered yet.",
            now.in_flight,
        ),
        (
            "queue_length",
            "Requests that wait for a worker.",
            now.queue,
        ),
        ("workers", "Workers in the pool.", now.workers),
        (
            "workers_busy",
            "Workers that run a handler or write a reply.",
            now.workers_busy,
        ),
        ("workers_stuck", STUCK, now.workers_stuck),
        ("body_bytes", BODIES, now.body_bytes),
        (
            "bodies_waiting",
            "Requests whose body waits for room.",
            now.bodies_waiting,
        ),
    ] {
        page.gauge(&format!("plimsoll_{name}"), help, value);
    }
    page.counter(
        "plimsoll_stream_failures_total",
        STREAMS,
        now.totals.stream_failures,
    );
}

fn gate(page: &mut Exposition, now: &Snapshot) {
    page.family(
        "plimsoll_gate_state",
        "gauge",
        "1 for the state that the gate is in.",
    );
    for state in ["closed", "open", "half-open"] {
        let here = u8::from(now.gate.as_str() == state);
        page.sample(
            "plimsoll_gate_state",
            &format!("{{state=\"{state}\"}}"),
            here,
        );
    }
    page.family("plimsoll_gate_mode", "gauge", "1 for what trips the gate.");
    for mode in [GateMode::Guarded, GateMode::Literal, GateMode::Off] {
        let here = u8::from(now.gate_mode == mode);
        page.sample("plimsoll_gate_mode", &format!("{{mode=\"{mode}\"}}"), here);
    }
    let reopens_in = match now.gate {
        GateState::Open { reopens_in } => reopens_in,
        _ => Duration::ZERO,
    };
    for (name, help, value) in [
        (
            "reopens_in",
            "Time until the reset while the gate is open, else 0.",
            reopens_in,
        ),
        (
            "state_age",
            "How long the gate has been in its state.",
            now.gate_for,
        ),
        (
            "threshold",
            "Average service time at which the gate trips.",
            now.threshold,
        ),
        ("cooldown", "Cooldown of the last trip.", now.cooldown),
    ] {
        page.gauge(
            &format!("plimsoll_gate_{name}_seconds"),
            help,
            value.as_secs_f64(),
        );
    }
    page.gauge(
        "plimsoll_gate_epoch",
        "Resets so far, as jobs are told apart by it.",
        now.epoch,
    );
    for (name, help, value) in [
        ("trips", "Times that the gate tripped.", now.trips),
        ("resets", "Times that the reset thread reset.", now.resets),
        (
            "probes",
            "Requests let through to see whether the service is well again.",
            now.gate_probes,
        ),
    ] {
        page.counter(&format!("plimsoll_gate_{name}_total"), help, value);
    }
}
