//! `/status.json`: what the status page shows. Its fields are described in the guide, on the page of monitors.
//!
//! Written once a second for each open page, with the samples that it has not shown yet.

use std::time::{Duration, Instant, SystemTime};

use crate::checks::CheckReport;
use crate::health::condition::{self, Condition};
use crate::health::history::{EndpointHistory, EndpointSample, INTERVAL, SAMPLES, Sample};
use crate::health::upstreams::{EndpointFault, UpstreamsReport};
use crate::health::{GateState, Health, Snapshot};
use crate::json::{Number, Object, append};
use crate::settings::{self, Config};

/// The report, with the samples after the one of that number, or all.
pub(super) fn status(now: &Snapshot, health: &Health, after: Option<u64>) -> String {
    let mut history = health.history();
    let recent = history.recent(&now.totals);
    let condition = Condition::of(now, recent);
    let at = Instant::now();
    let lasted = at.saturating_duration_since(history.enter(condition, now, at));
    let time = SystemTime::now();

    let mut out = String::with_capacity(8 * 1024);
    let mut report = Object::open(&mut out);
    report.text("version", env!("CARGO_PKG_VERSION"));
    report.field("time", unix(time));
    report.field("start_time", unix(now.start_time));
    report.field("uptime", seconds(now.uptime));
    report.object("state", |state| {
        state.text("word", condition.word());
        state.text("detail", &condition::detail(now, recent));
        state.text("why", &condition::why(now, recent));
        state.field("since", unix(time.checked_sub(lasted).unwrap_or(time)));
        state.text("status", now.status().as_str());
        state.field("ready", now.is_ready());
        state.field("live", now.is_live());
    });
    report.object("load", |load| self::load(load, now));
    report.object("gate", |gate| self::gate(gate, now));
    report.object("now", |current| self::current(current, now));
    report.object("totals", |totals| self::totals(totals, now));
    parts(&mut report, now, &health.config);
    report.object("config", |fields| config(fields, &health.config));
    report.object("history", |fields| {
        let samples: Vec<_> = history.since_sample(after).collect();
        self::history(fields, &samples, history.next());
        let mut at = 0;
        now.counted(&mut |name, _| {
            let counted = |&(number, _): &(u64, &Sample)| Some(history.counted(at, number));
            column(fields, &name.to_string(), &samples, counted);
            at += 1;
        });
        for endpoint in history.endpoints() {
            endpoint_history(fields, endpoint, &samples);
        }
    });
    report.close();
    out.push('\n');
    out
}

fn load(load: &mut Object, now: &Snapshot) {
    let service = now.service_time.unwrap_or_default().as_secs_f64() / now.threshold.as_secs_f64();
    let wait = now.predicted_wait.as_secs_f64() / now.queue_budget.as_secs_f64();
    load.field("value", number(Some(now.load())));
    load.text("nearest", if wait > service { "wait" } else { "service" });
    load.field("service", number(Some(service)));
    load.field("wait", number(Some(wait)));
    load.field("threshold", seconds(now.threshold));
    load.field("queue_budget", seconds(now.queue_budget));
}

fn gate(gate: &mut Object, now: &Snapshot) {
    gate.text("state", now.gate.as_str());
    gate.text("mode", now.gate_mode.as_str());
    let reopens_in = match now.gate {
        GateState::Open { reopens_in } => Some(reopens_in.as_secs_f64()),
        _ => None,
    };
    gate.field("reopens_in", number(reopens_in));
    gate.field("for", seconds(now.gate_for));
    gate.field("cooldown", seconds(now.cooldown));
    gate.field("trips", now.trips);
    gate.field("resets", now.resets);
    gate.field("probes", now.gate_probes);
}

fn current(current: &mut Object, now: &Snapshot) {
    let exact = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    for (name, value) in [
        ("service_time", exact(now.service_time)),
        ("response_time", exact(now.response_time)),
        ("predicted_wait", exact(Some(now.predicted_wait))),
        ("bad_ratio", now.bad_ratio),
        ("failed_ratio", now.failed_ratio),
    ] {
        current.field(name, number(value));
    }
    for (name, count) in [
        ("connections", now.connections),
        ("queue", now.queue),
        ("body_bytes", now.body_bytes),
        ("bodies_waiting", now.bodies_waiting),
        ("in_flight", now.in_flight),
        ("workers", now.workers),
        ("workers_busy", now.workers_busy),
        ("workers_stuck", now.workers_stuck),
    ] {
        current.field(name, count);
    }
}

fn totals(totals: &mut Object, now: &Snapshot) {
    let counts = &now.totals;
    for (name, count) in [
        ("served", counts.served),
        ("bad", counts.bad),
        ("failed", counts.failed),
        ("shed_queue", counts.shed_queue),
        ("shed_deadline", counts.shed_deadline),
        ("shed_fair", counts.shed_fair),
        ("shed_bodies", counts.shed_bodies),
        ("shed_gate", counts.shed_gate),
        ("shed_drain", counts.shed_drain),
        ("throttled", counts.throttled),
        ("timeouts", counts.timeouts),
        ("panics", counts.panics),
        ("accepted", counts.accepted),
    ] {
        totals.field(name, count);
    }
}

fn check(fields: &mut Object, check: &CheckReport) {
    fields.text("name", &check.name);
    fields.field("critical", check.critical);
    fields.text("state", check.state.as_str());
    fields.field("for", seconds(check.state_for));
    let time = |time: Option<SystemTime>| time.map_or(number(None), unix);
    fields.field("last_run", time(check.last_run));
    fields.field("last_success", time(check.last_success));
    fields.field(
        "duration",
        number(check.duration.map(|it| it.as_secs_f64())),
    );
    fields.field("failures", check.consecutive_failures);
    match &check.error {
        Some(error) => fields.text("error", error),
        None => fields.field("error", "null"),
    }
    match check.pool {
        Some(pool) => fields.object("pool", |fields| {
            fields.field("used", pool.used);
            fields.field("idle", pool.idle);
            fields.field("max", pool.max);
        }),
        None => fields.field("pool", "null"),
    }
    fields.close();
}

/// The endpoints that the handler forwards to.
fn upstreams(report: &mut Object, now: &Snapshot) {
    match &now.upstreams {
        Some(upstreams) => report.object("upstreams", |fields| endpoints(fields, upstreams)),
        None => report.field("upstreams", "null"),
    }
}

fn endpoints(fields: &mut Object, upstreams: &UpstreamsReport) {
    fields.field("ready", upstreams.ready);
    fields.field("retries", upstreams.retries);
    fields.field("retries_refused", upstreams.retries_refused);
    fields.field("others", upstreams.others.count);
    fields.array("endpoints", upstreams.endpoints.iter(), |out, endpoint| {
        let mut fields = Object::open(out);
        fields.text("name", &endpoint.name);
        fields.text("state", endpoint.state.as_str());
        fields.text("breaker", endpoint.breaker);
        fields.field("retry_in", seconds(endpoint.retry_in));
        let latency = endpoint.latency.map(|latency| latency.as_secs_f64());
        fields.field("latency", number(latency));
        fields.field("pending", endpoint.pending);
        fields.field("idle", endpoint.idle);
        fields.field("weight", endpoint.weight);
        fields.field("successes", endpoint.successes);
        fields.field("failures", endpoint.failures);
        let fault = endpoint.fault.map(EndpointFault::as_str);
        match endpoint.error.as_deref().or(fault) {
            Some(error) => fields.text("error", error),
            None => fields.field("error", "null"),
        }
        fields.close();
    });
    fields.array("faults", upstreams.faults.iter(), |out, (source, error)| {
        let mut fields = Object::open(out);
        fields.text("source", source);
        fields.text("error", error);
        fields.close();
    });
}

/// The data stores, the limits and the cache.
fn parts(report: &mut Object, now: &Snapshot, config: &Config) {
    report.array("checks", now.checks.iter(), |out, check| {
        self::check(&mut Object::open(out), check);
    });
    throttles(report, now, config);
    upstreams(report, now);
    #[cfg(feature = "cache")]
    cache(report, now);
    #[cfg(feature = "events")]
    events(report, now);
}

/// How the cache is used; null where there is none.
#[cfg(feature = "cache")]
fn cache(report: &mut Object, now: &Snapshot) {
    let Some(cache) = &now.cache else {
        return report.field("cache", "null");
    };
    report.object("cache", |fields| {
        for (name, count) in [
            ("hits", cache.hits),
            ("stale", cache.stale),
            ("misses", cache.misses),
            ("bypassed", cache.bypassed),
            ("waits", cache.waits),
            ("validated", cache.validated),
            ("entries", cache.entries as u64),
            ("bytes", cache.bytes as u64),
            ("capacity", cache.capacity as u64),
        ] {
            fields.field(name, count);
        }
    });
}

/// The queue of events; null where there is none.
#[cfg(feature = "events")]
fn events(report: &mut Object, now: &Snapshot) {
    let Some(events) = &now.events else {
        return report.field("events", "null");
    };
    report.object("events", |fields| {
        for (name, count) in [
            ("accepted", events.accepted),
            ("delivered", events.delivered),
            ("retried", events.retried),
            ("dead", events.dead),
            ("backlog", events.backlog as u64),
            ("dead_letters", events.dead_letters as u64),
            ("bytes", events.bytes),
        ] {
            fields.field(name, count);
        }
        let age = |age: Option<Duration>| number(age.map(|age| age.as_secs_f64()));
        fields.field("oldest", age(events.oldest));
        fields.field("oldest_dead", age(events.oldest_dead));
        fields.field("unreachable", events.unreachable);
        fields.field("failing", events.failing);
    });
}

/// The limits on how often clients may ask, and what each has refused.
fn throttles(report: &mut Object, now: &Snapshot, config: &Config) {
    let limits = now.throttles.iter().zip(&config.throttle);
    report.array("throttles", limits, |out, (throttle, rule)| {
        let mut fields = Object::open(out);
        fields.text("name", &throttle.name);
        fields.text("rule", &rule.to_string());
        fields.field("throttled", throttle.throttled);
        fields.close();
    });
}

/// The settings in force, by the names and in the manner of the command line.
fn config(fields: &mut Object, config: &Config) {
    for setting in settings::table() {
        let value = setting.field.show(config);
        if !value.is_empty() {
            fields.text(setting.flag, &value);
        }
    }
}

/// The samples, a column to each kind of value, so that no name is said twice.
fn history(fields: &mut Object, samples: &[(u64, &Sample)], next: u64) {
    fields.field("interval", INTERVAL.as_secs());
    fields.field("size", SAMPLES);
    fields.field("first", samples.first().map_or(next, |(number, _)| *number));
    fields.field("next", next);
    let letters = |letter: fn(&Sample) -> char| -> String {
        let letter = |(_, sample): &(u64, &Sample)| {
            if sample.is_gap() { '-' } else { letter(sample) }
        };
        samples.iter().map(letter).collect()
    };
    let state = |sample: &Sample| sample.condition.map_or('-', Condition::letter);
    fields.text("state", &letters(state));
    fields.text("gate", &letters(Sample::gate));
    let mut column = |name, value: fn(&Sample) -> Option<u32>| {
        column(fields, name, samples, |(_, sample)| value(sample));
    };
    column("response_us", Sample::response);
    column("p50_us", Sample::p50);
    column("p99_us", Sample::p99);
    column("service_us", Sample::service);
    column("served", |sample| Some(sample.served));
    column("bad", |sample| Some(sample.bad));
    column("failed", |sample| Some(sample.failed));
    column("shed", |sample| {
        Some(sample.overload.saturating_add(sample.unavailable))
    });
    column("throttled", |sample| Some(sample.throttled));
    column("connections", |sample| Some(sample.connections));
    column("queue", |sample| Some(sample.queue));
    column("busy", |sample| Some(u32::from(sample.busy)));
    column("load_percent", |sample| Some(sample.load));
}

/// The columns of one endpoint, each with its name behind a dot.
fn endpoint_history(fields: &mut Object, endpoint: &EndpointHistory, samples: &[(u64, &Sample)]) {
    let name = &endpoint.name;
    let letters = |letter: fn(&EndpointSample) -> char| -> String {
        let letters = samples.iter();
        letters
            .map(|(number, _)| letter(&endpoint.sample(*number)))
            .collect()
    };
    fields.text(
        &format!("endpoint_state.{name}"),
        &letters(EndpointSample::state),
    );
    fields.text(
        &format!("endpoint_breaker.{name}"),
        &letters(EndpointSample::breaker),
    );
    let mut column = |word, value: fn(&EndpointSample) -> Option<u32>| {
        column(
            fields,
            &format!("endpoint_{word}.{name}"),
            samples,
            |(number, _)| {
                let sample = endpoint.sample(*number);
                value(&sample).filter(|_| !sample.is_gap())
            },
        );
    };
    column("latency_us", EndpointSample::latency);
    column("pending", |sample| Some(sample.pending.into()));
    column("requests", |sample| Some(sample.requests));
    column("failed", |sample| Some(sample.failed));
}

/// One value of each sample; null where it is not known.
fn column(
    fields: &mut Object,
    name: &str,
    samples: &[(u64, &Sample)],
    value: impl Fn(&(u64, &Sample)) -> Option<u32>,
) {
    fields.array(name, samples.iter(), |out, sample| {
        match value(sample).filter(|_| !sample.1.is_gap()) {
            Some(value) => append(out, value),
            None => out.push_str("null"),
        }
    });
}

fn number(value: Option<f64>) -> Number {
    let decimals = 6;
    Number { value, decimals }
}

fn seconds(time: Duration) -> Number {
    number(Some(time.as_secs_f64()))
}

/// Seconds since the Unix epoch.
fn unix(time: SystemTime) -> Number {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    Number {
        value: Some(since.unwrap_or_default().as_secs_f64()),
        decimals: 3,
    }
}

#[cfg(test)]
mod tests;
