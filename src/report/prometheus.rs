//! Prometheus text format 0.0.4: base units, ratios from 0 to 1, counters that end in `_total`.

mod checks;
#[cfg(feature = "events")]
mod events;
mod process;
mod upstreams;

use std::fmt::{Display, Write};
use std::time::Duration;

use crate::health::histogram::{BOUNDS, Histogram};
use crate::health::{GateState, Health, Snapshot, Status};
#[cfg(feature = "binary")]
use crate::lines;
#[cfg(feature = "cache")]
use crate::patterns::CacheStats;
use crate::report::parts;
use crate::settings::GateMode;

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

/// Labels in their braces, the values escaped: some of them come from elsewhere.
fn labels(pairs: &[(&str, &str)]) -> String {
    let mut out = String::from("{");
    for (index, (name, value)) in pairs.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(out, "{comma}{name}=\"");
        for character in value.chars() {
            match character {
                '\n' => out.push_str("\\n"),
                '"' | '\\' => {
                    out.push('\\');
                    out.push(character);
                }
                _ => out.push(character),
            }
        }
        out.push('"');
    }
    out.push('}');
    out
}

/// The page of `/metrics`.
pub(super) fn metrics(now: &Snapshot, health: &Health) -> String {
    let mut page = Page(String::with_capacity(12 * 1024));
    state(&mut page, now);
    times(&mut page, now, health);
    requests(&mut page, now);
    connections(&mut page, now);
    workers(&mut page, now);
    gate(&mut page, now);
    checks::checks(&mut page, now);
    #[cfg(feature = "events")]
    events::events(&mut page, now);
    upstreams::upstreams(&mut page, now);
    let access = health.access_log.iter();
    let logs = access.map(|log| ("access", log.dropped()));
    #[cfg(feature = "binary")]
    let logs = std::iter::once(("stderr", lines::stderr::dropped())).chain(logs);
    let dropped: Vec<_> = logs.collect();
    page.counters(
        "plimsoll_dropped_lines_total",
        "Lines not written: nobody took them in time, or the disk is full.",
        "log",
        &dropped,
    );
    process::process(&mut page, now);
    page.0
}

fn state(page: &mut Page, now: &Snapshot) {
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
    let help = "Whether a part of readiness is well.";
    page.family("plimsoll_part_up", "gauge", help);
    for part in parts::ready(now) {
        let labels = labels(&[("part", part.name())]);
        page.sample("plimsoll_part_up", &labels, u8::from(part.is_good()));
    }
    page.gauge(
        "plimsoll_load_ratio",
        "Load as a part of what may be carried: wait by its budget or service time by its threshold; 1 is the line.",
        now.load(),
    );
}

fn times(page: &mut Page, now: &Snapshot, health: &Health) {
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
    for (name, help, histogram) in [
        (
            "request_duration",
            "Request whole to reply handed over.",
            &health.response_times,
        ),
        (
            "service_duration",
            "Handler start to reply handed over.",
            &health.service_times,
        ),
        (
            "queue_wait",
            "Request whole to handler start.",
            &health.queue_waits,
        ),
    ] {
        page.histogram(&format!("plimsoll_{name}_seconds"), help, histogram);
    }
}

fn requests(page: &mut Page, now: &Snapshot) {
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
    page.family(
        "plimsoll_throttled_total",
        "counter",
        "Requests refused with 429: their client asked too often. By the limit that refused them.",
    );
    for throttle in &now.throttles {
        let labels = labels(&[("rule", &throttle.name)]);
        page.sample("plimsoll_throttled_total", &labels, throttle.throttled);
    }
    #[cfg(feature = "redis")]
    if let Some(store) = now.throttle_store {
        page.gauge(
            "plimsoll_throttle_store_up",
            "Whether the store in which limits are shared answers.",
            u8::from(store.is_up),
        );
        page.counter(
            "plimsoll_throttle_store_unanswered_total",
            "Requests that the store did not answer for in time, and that only this replica has counted.",
            store.unanswered,
        );
    }
    #[cfg(feature = "cache")]
    if let Some(cache) = &now.cache {
        self::cache(page, cache);
    }
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

#[cfg(feature = "cache")]
fn cache(page: &mut Page, cache: &CacheStats) {
    const RESULTS: &str = "Requests by what the cache did: answered (hit, stale), had the service asked (miss), or let go past (bypass).";
    let results = [
        ("hit", cache.hits),
        ("stale", cache.stale),
        ("miss", cache.misses),
        ("bypass", cache.bypassed),
    ];
    page.counters("plimsoll_cache_requests_total", RESULTS, "result", &results);
    for (name, help, value) in [
        (
            "waits",
            "Requests that waited for another's fetch.",
            cache.waits,
        ),
        (
            "validated",
            "Misses whose kept reply the service called valid.",
            cache.validated,
        ),
    ] {
        page.counter(&format!("plimsoll_cache_{name}_total"), help, value);
    }
    for (name, help, value) in [
        ("entries", "Replies that are kept.", cache.entries),
        (
            "bytes",
            "Bytes that they take, with those set apart for replies that are coming.",
            cache.bytes,
        ),
        (
            "capacity_bytes",
            "Most bytes that they may take.",
            cache.capacity,
        ),
    ] {
        page.gauge(&format!("plimsoll_cache_{name}"), help, value);
    }
}

fn connections(page: &mut Page, now: &Snapshot) {
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

fn workers(page: &mut Page, now: &Snapshot) {
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

fn gate(page: &mut Page, now: &Snapshot) {
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

#[cfg(test)]
#[path = "../../tests/kit/process.rs"]
#[allow(dead_code, reason = "the socket tests use the rest")]
mod programs;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::CheckReport;
    use crate::checks::{CheckState, PoolStatus};
    use std::process::Command;
    use std::time::Instant;

    #[test]
    fn a_label_value_is_escaped() {
        let labels = labels(&[("check", "a\\b\"c\nd"), ("critical", "true")]);
        assert_eq!(labels, r#"{check="a\\b\"c\nd",critical="true"}"#);
    }

    #[test]
    fn promtool_has_nothing_to_say_about_stores_and_pools() {
        let Some(program) = programs::find("promtool", "prometheus") else {
            return;
        };
        let health = Health::of_a_new_server(Instant::now());
        let mut now = health.snapshot();
        now.checks = vec![
            CheckReport::sample("db", true, CheckState::Up),
            CheckReport::sample("ca\\che \"x\"\n", false, CheckState::NotYet),
        ];
        now.checks[0].pool = Some(PoolStatus::default());
        let page = metrics(&now, &health);
        assert!(page.contains("\nplimsoll_pool_connections_max{"), "{page}");
        let mut promtool = Command::new(program);
        let (good, said) = programs::run(promtool.args(["check", "metrics"]), &page);
        assert!(good && said.is_empty(), "{said}");
    }
}
