//! `application/health+json` (draft-inadarei-api-health-check-06).

use std::iter;
use std::time::{Duration, SystemTime};

use super::word;
use crate::calendar::Utc;
use crate::checks::CheckReport;
use crate::health::causes::{Cause, causes};
use crate::health::upstreams::{EndpointState, UpstreamsReport};
use crate::health::{Snapshot, Status};
use crate::json::{Number, Object, Quoted, append};
#[cfg(feature = "events")]
use crate::patterns::EventStats;

/// One entry of `checks`.
struct Reading<'a> {
    /// Which of several it is of; empty for the only one.
    id: &'a str,
    /// What is measured, and which of its measurements this is; neither holds a colon.
    component: &'a str,
    measurement: &'a str,
    /// `component`, `datastore` or `system`.
    kind: &'static str,
    /// In JSON.
    value: String,
    unit: &'static str,
    status: Status,
    time: SystemTime,
    /// Why it is as it is; told only where the status is not pass.
    output: String,
}

/// The health report.
pub(super) fn health(now: &Snapshot, time: SystemTime) -> String {
    let status = now.status();
    let causes = causes(now);
    let mut out = String::with_capacity(2048);
    let mut report = Object::open(&mut out);
    report.text("status", status.as_str());
    report.text("version", env!("CARGO_PKG_VERSION_MAJOR"));
    report.text("releaseId", env!("CARGO_PKG_VERSION"));
    report.text("serviceId", "plimsoll");
    report.text("description", "health of this server");
    report.array("notes", causes.iter(), |out, cause| {
        append(out, Quoted(&cause.sentence(now)));
    });
    if status != Status::Pass {
        report.text("output", word(now));
    }
    report.object("checks", |checks| {
        for reading in own(now, &causes, time) {
            reading.write(checks);
        }
        for check in &now.checks {
            for reading in store(check, now, &causes, time) {
                reading.write(checks);
            }
        }
        if let Some(upstreams) = &now.upstreams {
            write_upstreams(checks, upstreams, time);
        }
        #[cfg(feature = "events")]
        if let Some(events) = &now.events {
            for reading in queue(events, time) {
                reading.write(checks);
            }
        }
    });
    report.close();
    out.push('\n');
    out
}

/// The report for those who may not see more.
pub(super) fn status(now: &Snapshot) -> String {
    format!("{{\"status\":\"{}\"}}\n", now.status().as_str())
}

/// What the server measures of itself.
fn own(now: &Snapshot, causes: &[Cause<'_>], time: SystemTime) -> [Reading<'static>; 7] {
    let millis = |time: Option<Duration>| number(time.map(|time| time.as_secs_f64() * 1e3));
    let percent = |ratio: Option<f64>| number(ratio.map(|ratio| ratio * 1e2));
    let reading = |component, measurement, value, unit| {
        Reading::of(component, measurement, value, unit, time)
    };
    [
        reading("http", "responseTime", millis(now.response_time), "ms"),
        reading("http", "serviceTime", millis(now.service_time), "ms").failing(
            &["gate"],
            causes,
            now,
        ),
        reading(
            "http",
            "connections",
            now.connections.to_string(),
            "connections",
        ),
        reading("http", "badRequests", percent(now.bad_ratio), "percent"),
        reading(
            "http",
            "failedRequests",
            percent(now.failed_ratio),
            "percent",
        ),
        reading(
            "workers",
            "utilization",
            percent(ratio(now.workers_busy, now.workers)),
            "percent",
        )
        .failing(&["workers", "intake"], causes, now),
        Reading {
            kind: "system",
            ..reading("uptime", "", now.uptime.as_secs().to_string(), "s")
        },
    ]
}

impl<'a> Reading<'a> {
    /// What one of the server's own parts is, and that it is well.
    fn of(
        component: &'a str,
        measurement: &'static str,
        value: String,
        unit: &'static str,
        time: SystemTime,
    ) -> Self {
        Self {
            id: "",
            component,
            measurement,
            kind: "component",
            value,
            unit,
            status: Status::Pass,
            time,
            output: String::new(),
        }
    }

    /// Writes it as the only entry of its kind.
    fn write(&self, checks: &mut Object) {
        let key = match self.measurement {
            "" => self.component.to_owned(),
            _ => format!("{}:{}", self.component, self.measurement),
        };
        checks.array(&key, iter::once(self), |out, reading| reading.entry(out));
    }

    fn entry(&self, out: &mut String) {
        let mut fields = Object::open(out);
        if !self.id.is_empty() {
            fields.text("componentId", self.id);
        }
        fields.text("componentType", self.kind);
        fields.field("observedValue", &self.value);
        fields.text("observedUnit", self.unit);
        fields.text("status", self.status.as_str());
        fields.text("time", &Utc::at(self.time).to_string());
        if self.status != Status::Pass && !self.output.is_empty() {
            fields.text("output", &self.output);
        }
        fields.close();
    }

    /// The reading with the status and the reason of the gravest cause by which one of these parts fails, if there is one.
    fn failing(self, parts: &[&str], causes: &[Cause<'_>], now: &Snapshot) -> Self {
        let fails = |cause: &&Cause<'_>| cause.failed_part().is_some_and(|it| parts.contains(&it));
        match causes.iter().find(fails) {
            Some(cause) => Self {
                status: cause.status(),
                output: cause.reason(now),
                ..self
            },
            None => self,
        }
    }
}

/// What is known of a data store and of the pool in front of it.
fn store<'a>(
    check: &'a CheckReport,
    now: &Snapshot,
    causes: &[Cause<'_>],
    time: SystemTime,
) -> Vec<Reading<'a>> {
    let reading = |measurement, value, unit| Reading {
        kind: "datastore",
        ..Reading::of(
            &check.name,
            measurement,
            value,
            unit,
            check.last_run.unwrap_or(time),
        )
    };
    let state = format!("\"{}\"", check.state.as_str());
    let connection = reading("connection", state, "state");
    let mut readings = vec![connection.failing(&[&check.name], causes, now)];
    if let Some(duration) = check.duration {
        let millis = number(Some(duration.as_secs_f64() * 1e3));
        readings.push(reading("responseTime", millis, "ms"));
    }
    if let Some(pool) = check.pool {
        let percent = ratio(pool.used as usize, pool.max as usize).map(|ratio| ratio * 1e2);
        for (measurement, value, unit) in [
            ("utilization", number(percent), "percent"),
            ("connections", pool.used.to_string(), "connections"),
        ] {
            let mut reading = reading(measurement, value, unit);
            if pool.is_exhausted() {
                reading.status = Status::Warn;
                reading.output = "every connection of the pool is lent out".into();
            }
            readings.push(reading);
        }
    }
    readings
}

/// The queue of events: what waits, since when, and what was given up.
#[cfg(feature = "events")]
fn queue(events: &EventStats, time: SystemTime) -> [Reading<'static>; 4] {
    let reading = |measurement, value, unit| Reading::of("events", measurement, value, unit, time);
    let seconds = |age: Option<Duration>| number(Some(age.unwrap_or_default().as_secs_f64()));
    let mut backlog = reading("backlog", events.backlog.to_string(), "events");
    if events.failing {
        backlog.status = Status::Warn;
        backlog.output = "events cannot be stored".into();
    }
    let mut dead = reading("deadLetters", events.dead_letters.to_string(), "events");
    if events.dead_letters > 0 {
        dead.status = Status::Warn;
        dead.output = "events were given up: plimsoll events list shows them".into();
    }
    [
        backlog,
        reading("oldest", seconds(events.oldest), "s"),
        dead,
        reading("oldestDeadLetter", seconds(events.oldest_dead), "s"),
    ]
}

/// The endpoints: one entry each of `upstream:connection` and `upstream:responseTime`.
fn write_upstreams(checks: &mut Object, upstreams: &UpstreamsReport, time: SystemTime) {
    let reading = |endpoint, measurement, value, unit| Reading {
        id: endpoint,
        kind: "system",
        ..Reading::of("upstream", measurement, value, unit, time)
    };
    let endpoints = &upstreams.endpoints;
    checks.array("upstream:connection", endpoints.iter(), |out, endpoint| {
        let state = format!("\"{}\"", endpoint.state.as_str());
        let status = match endpoint.state {
            EndpointState::Down if !upstreams.ready => Status::Fail,
            EndpointState::Down => Status::Warn,
            _ => Status::Pass,
        };
        let reading = reading(&*endpoint.name, "connection", state, "state");
        Reading { status, ..reading }.entry(out);
    });
    checks.array(
        "upstream:responseTime",
        endpoints.iter(),
        |out, endpoint| {
            let millis = endpoint.latency.map(|latency| latency.as_secs_f64() * 1e3);
            reading(&*endpoint.name, "responseTime", number(millis), "ms").entry(out);
        },
    );
}

/// A part of a whole, from 0 to 1.
fn ratio(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Thousandths are enough for a person.
fn number(value: Option<f64>) -> String {
    let decimals = 3;
    Number { value, decimals }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{CheckReport, CheckState, PoolStatus};
    use crate::health::GateState;
    use crate::report::tests::snapshot;

    #[test]
    fn a_number_without_a_sample_is_null() {
        assert_eq!(number(None), "null");
        assert_eq!(number(Some(f64::NAN)), "null");
        assert_eq!(number(Some(0.0)), "0.000");
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn report(now: &Snapshot) -> serde_json::Value {
        serde_json::from_str(&health(now, at(1_767_225_600))).expect("JSON")
    }

    #[test]
    fn a_server_that_is_well_reports_no_output_and_no_notes() {
        let report = report(&snapshot());
        assert_eq!(report["status"], "pass");
        assert_eq!(report["serviceId"], "plimsoll");
        assert_eq!(report["releaseId"], env!("CARGO_PKG_VERSION"));
        assert_eq!(report["notes"], serde_json::json!([]));
        assert_eq!(report.get("output"), None);
        for (name, readings) in report["checks"].as_object().expect("checks") {
            assert_eq!(readings.as_array().map(Vec::len), Some(1), "{name}");
            let reading = &readings[0];
            assert_eq!(reading["status"], "pass", "{name}");
            assert_eq!(reading["time"], "2026-01-01T00:00:00Z", "{name}");
            assert!(reading["observedUnit"].is_string(), "{name}");
            assert_eq!(reading.get("output"), None, "{name}");
        }
    }

    #[test]
    fn a_store_reports_its_state_at_the_time_of_its_last_run() {
        let mut now = snapshot();
        let mut redis = CheckReport::sample("redis", false, CheckState::Down);
        redis.error = Some("said \"NOAUTH\"\r\n".into());
        redis.duration = Some(Duration::from_micros(1_250));
        redis.last_run = Some(at(951_782_400));
        now.checks = vec![redis];
        let report = report(&now);
        assert_eq!(report["status"], "warn");
        assert_eq!(report["output"], "warning");
        let expected = serde_json::json!([{
            "componentType": "datastore",
            "observedValue": "down",
            "observedUnit": "state",
            "status": "warn",
            "time": "2000-02-29T00:00:00Z",
            "output": "said \"NOAUTH\"\r\n",
        }]);
        assert_eq!(report["checks"]["redis:connection"], expected);
        let took = &report["checks"]["redis:responseTime"][0];
        assert_eq!(
            (took["observedValue"].as_f64(), &took["status"]),
            (Some(1.25), &"pass".into())
        );
        assert!(
            report["notes"][0]
                .as_str()
                .is_some_and(|note| note.contains("can do without redis, which has been down for"))
        );
    }

    #[test]
    fn an_exhausted_pool_is_a_warning_not_a_dead_store() {
        let mut now = snapshot();
        let mut db = CheckReport::sample("db", true, CheckState::Up);
        db.pool = Some(PoolStatus {
            used: 3,
            idle: 1,
            max: 4,
        });
        now.checks = vec![db];
        let healthy = report(&now);
        assert_eq!(healthy["status"], "pass");
        let reading = |report: &serde_json::Value, name: &str| {
            let reading = &report["checks"][name][0];
            (reading["observedValue"].as_f64(), reading["status"].clone())
        };
        assert_eq!(
            reading(&healthy, "db:utilization"),
            (Some(75.0), "pass".into())
        );
        assert_eq!(
            reading(&healthy, "db:connections"),
            (Some(3.0), "pass".into())
        );
        now.checks[0].pool = Some(PoolStatus {
            used: 4,
            idle: 0,
            max: 4,
        });
        let exhausted = report(&now);
        assert_eq!(exhausted["status"], "warn");
        assert_eq!(exhausted["checks"]["db:connection"][0]["status"], "pass");
        assert_eq!(
            reading(&exhausted, "db:utilization"),
            (Some(100.0), "warn".into())
        );
        assert!(exhausted["checks"]["db:connections"][0]["output"].is_string());
    }

    /// No reading is worse than the whole, and while nothing but a reading can be the cause, one is as bad.
    #[test]
    fn the_status_is_the_worst_of_the_readings() {
        let rank = |value: &serde_json::Value| {
            let words = ["pass", "warn", "fail"];
            words
                .iter()
                .position(|word| value == word)
                .expect("a status")
        };
        for state in [CheckState::Up, CheckState::Down, CheckState::NotYet] {
            for critical in [true, false] {
                for (used, stuck) in [(0, false), (4, false), (4, true)] {
                    let mut now = snapshot();
                    now.workers_stuck = if stuck { now.workers } else { 0 };
                    let mut db = CheckReport::sample("db", critical, state);
                    db.pool = Some(PoolStatus {
                        used,
                        idle: 0,
                        max: 4,
                    });
                    now.checks = vec![db];
                    let report = report(&now);
                    let checks = report["checks"].as_object().expect("checks");
                    let worst = checks.values().map(|check| rank(&check[0]["status"])).max();
                    assert_eq!(worst, Some(rank(&report["status"])), "{report}");
                    for check in checks.values() {
                        let told = check[0].get("output").is_some();
                        assert_eq!(told, check[0]["status"] != "pass", "{check}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_gate_and_the_drain_tell_their_story() {
        let mut now = snapshot();
        now.gate = GateState::Open {
            reopens_in: Duration::from_millis(1_240),
        };
        let open = report(&now);
        assert_eq!(open["status"], "fail");
        assert_eq!(open["checks"]["http:serviceTime"][0]["output"], "resetting");
        assert!(
            open["notes"][0]
                .as_str()
                .is_some_and(|note| note.ends_with("afresh in 1.24 s."))
        );
        now.gate = GateState::HalfOpen;
        let half = report(&now);
        assert_eq!(half["status"], "pass");
        assert!(
            half["notes"][0]
                .as_str()
                .is_some_and(|note| note.contains("single requests show whether"))
        );
        now.draining = true;
        let draining = report(&now);
        assert_eq!(
            (&draining["status"], &draining["output"]),
            (&"fail".into(), &"draining".into())
        );
        assert_eq!(draining["notes"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn the_public_sees_the_status_alone() {
        let mut now = snapshot();
        assert_eq!(status(&now), "{\"status\":\"pass\"}\n");
        now.checks = vec![CheckReport::sample("secret", false, CheckState::Down)];
        assert_eq!(status(&now), "{\"status\":\"warn\"}\n");
    }
}
