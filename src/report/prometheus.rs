//! Prometheus text format 0.0.4: base units, ratios from 0 to 1, counters that end in `_total`.

use std::fmt::{Display, Write};
use std::time::{Duration, SystemTime};

use crate::config::GateMode;
use crate::health::histogram::{BOUNDS, Histogram};
use crate::health::{GateState, Health, Snapshot};

/// The page under construction. Writing to a String does not fail.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, "", value);
    }

    /// A gauge that has no sample before its first value.
    fn average(&mut self, name: &str, help: &str, value: Option<f64>) {
        self.family(name, "gauge", help);
        self.sample(name, "", value.unwrap_or(f64::NAN));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, "", value);
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        self.family(name, "counter", help);
        for (word, value) in values {
            self.sample(name, &format!("{{{label}=\"{word}\"}}"), value);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let reading = histogram.read();
        let mut count = 0;
        for (bucket, samples) in reading.buckets.iter().enumerate() {
            count += samples;
            let bound = BOUNDS.get(bucket).map_or("+Inf".into(), |&micros| {
                Duration::from_micros(micros).as_secs_f64().to_string()
            });
            self.sample(
                &format!("{name}_bucket"),
                &format!("{{le=\"{bound}\"}}"),
                count,
            );
        }
        self.sample(&format!("{name}_sum"), "", reading.sum);
        self.sample(&format!("{name}_count"), "", count);
    }
}

/// The page of `/metrics`.
pub(super) fn metrics(now: &Snapshot, health: &Health) -> String {
    let mut page = Page(String::with_capacity(12 * 1024));
    let totals = &now.totals;
    page.gauge(
        "plimsoll_up",
        "Whether requests are served: 1, or 0 while the gate is open.",
        u8::from(now.is_healthy()),
    );
    page.gauge(
        "plimsoll_ready",
        "Whether the server wants traffic.",
        u8::from(now.is_ready()),
    );
    page.gauge(
        "plimsoll_live",
        "Whether the process can do its job: not every worker is stuck.",
        u8::from(now.is_live()),
    );
    page.gauge(
        "plimsoll_draining",
        "Whether the server is stopping.",
        u8::from(now.draining),
    );
    page.average(
        "plimsoll_service_time_average_seconds",
        "Moving average of the service time: handler start to reply handed over.",
        now.service_time,
    );
    page.average(
        "plimsoll_response_time_average_seconds",
        "Moving average of the response time: request whole to reply handed over.",
        now.response_time,
    );
    page.average(
        "plimsoll_bad_requests_average_ratio",
        "Moving average of the share of requests answered 4xx.",
        now.bad_ratio,
    );
    page.average(
        "plimsoll_failed_requests_average_ratio",
        "Moving average of the share of requests answered 5xx.",
        now.failed_ratio,
    );
    page.histogram(
        "plimsoll_request_duration_seconds",
        "Request whole to reply handed over.",
        &health.response_times,
    );
    page.histogram(
        "plimsoll_service_duration_seconds",
        "Handler start to reply handed over.",
        &health.service_times,
    );
    page.histogram(
        "plimsoll_queue_wait_seconds",
        "Request whole to handler start.",
        &health.queue_waits,
    );
    page.counters(
        "plimsoll_requests_total",
        "Requests answered, by outcome: served (up to 3xx), bad (4xx, malformed included), failed (5xx).",
        "outcome",
        &[("served", totals.served), ("bad", totals.bad), ("failed", totals.failed)],
    );
    page.counters(
        "plimsoll_shed_total",
        "Requests refused with 503, by reason.",
        "reason",
        &[
            ("queue", totals.shed_queue),
            ("deadline", totals.shed_deadline),
            ("fair", totals.shed_fair),
            ("gate", totals.shed_gate),
            ("drain", totals.shed_drain),
        ],
    );
    page.counter(
        "plimsoll_health_requests_total",
        "Requests for the health paths.",
        totals.probed,
    );
    page.counter(
        "plimsoll_handler_panics_total",
        "Handlers that panicked.",
        totals.panics,
    );
    page.counter(
        "plimsoll_request_timeouts_total",
        "Requests answered 504: slower than the request timeout.",
        totals.timeouts,
    );
    page.counter(
        "plimsoll_late_replies_total",
        "Replies dropped: their client had been answered already, or had gone.",
        totals.late,
    );
    page.counter(
        "plimsoll_abandoned_requests_total",
        "Requests not started: their client had gone, or had been refused.",
        totals.skipped,
    );
    page.counter(
        "plimsoll_cut_replies_total",
        "Replies cut in their middle.",
        totals.cut,
    );
    page.counter(
        "plimsoll_slow_requests_total",
        "Requests not whole in time: answered 408.",
        totals.too_slow,
    );
    page.counter(
        "plimsoll_write_timeouts_total",
        "Replies cut for making no progress.",
        totals.write_timeouts,
    );
    page.gauge(
        "plimsoll_connections",
        "Client connections open.",
        now.connections,
    );
    page.counter(
        "plimsoll_connections_accepted_total",
        "Client connections accepted.",
        totals.accepted,
    );
    page.counters(
        "plimsoll_connections_closed_idle_total",
        "Kept-alive connections closed, by reason: unused for the idle timeout, or making room.",
        "reason",
        &[("timeout", totals.idle_closed), ("room", totals.evicted)],
    );
    page.counters(
        "plimsoll_accept_pauses_total",
        "Times that accepting paused, by reason: all connections in use, or no descriptors left.",
        "reason",
        &[
            ("full", totals.accept_pauses_full),
            ("descriptors", totals.accept_pauses_descriptors),
        ],
    );
    page.gauge(
        "plimsoll_requests_in_flight",
        "Requests handed to the workers and not answered yet.",
        now.in_flight,
    );
    page.gauge(
        "plimsoll_queue_length",
        "Requests that wait for a worker.",
        now.queue,
    );
    page.average(
        "plimsoll_predicted_service_time_seconds",
        "Service time that admission expects of the next request.",
        now.predicted_service_time,
    );
    page.gauge("plimsoll_workers", "Workers in the pool.", now.workers);
    page.gauge(
        "plimsoll_workers_busy",
        "Workers that run a handler or write a reply.",
        now.workers_busy,
    );
    page.gauge(
        "plimsoll_workers_stuck",
        "Workers busy with one request for longer than the request timeout.",
        now.workers_stuck,
    );
    page.counter(
        "plimsoll_stream_failures_total",
        "Private streams to the workers that broke and were opened again.",
        totals.stream_failures,
    );
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
        page.sample(
            "plimsoll_gate_mode",
            &format!("{{mode=\"{}\"}}", mode.as_str()),
            here,
        );
    }
    let reopens_in = match now.gate {
        GateState::Open { reopens_in } => reopens_in,
        _ => Duration::ZERO,
    };
    page.gauge(
        "plimsoll_gate_reopens_in_seconds",
        "Time until the reset while the gate is open, else 0.",
        reopens_in.as_secs_f64(),
    );
    page.gauge(
        "plimsoll_gate_state_seconds",
        "How long the gate has been in its state.",
        now.gate_for.as_secs_f64(),
    );
    page.gauge(
        "plimsoll_gate_threshold_seconds",
        "Average service time at which the gate trips.",
        now.threshold.as_secs_f64(),
    );
    page.gauge(
        "plimsoll_gate_cooldown_seconds",
        "Cooldown of the last trip.",
        now.cooldown.as_secs_f64(),
    );
    page.gauge(
        "plimsoll_gate_epoch",
        "Resets so far, as jobs are told apart by it.",
        now.epoch,
    );
    page.counter(
        "plimsoll_gate_trips_total",
        "Times that the gate tripped.",
        now.trips,
    );
    page.counter(
        "plimsoll_gate_resets_total",
        "Times that the reset thread reset.",
        now.resets,
    );
    page.counter(
        "plimsoll_gate_probes_total",
        "Requests let through to see whether the service is well again.",
        now.gate_probes,
    );
    page.gauge(
        "plimsoll_uptime_seconds",
        "Time since the start.",
        now.uptime.as_secs_f64(),
    );
    let start = now.start_time.duration_since(SystemTime::UNIX_EPOCH);
    page.gauge(
        "process_start_time_seconds",
        "Start time since the Unix epoch.",
        start.unwrap_or_default().as_secs_f64(),
    );
    page.family("plimsoll_build_info", "gauge", "The version, as a label.");
    page.sample(
        "plimsoll_build_info",
        concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}"),
        1,
    );
    page.0
}
