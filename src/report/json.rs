//! `application/health+json` (draft-inadarei-api-health-check-06).

use std::fmt::Write;
use std::time::SystemTime;

use super::word;
use crate::health::Snapshot;

/// The health report.
pub(super) fn health(now: &Snapshot) -> String {
    let time = timestamp(SystemTime::now());
    let good = now.is_healthy();
    let status = if now.is_ready() { "pass" } else { "fail" };
    let part = if good { "pass" } else { "fail" };
    let millis = |seconds: Option<f64>| number(seconds.map(|seconds| seconds * 1e3));
    let percent = |ratio: Option<f64>| number(ratio.map(|ratio| ratio * 1e2));
    let mut out = format!(
        r#"{{"status":"{status}","version":"{}","releaseId":"{}","serviceId":"plimsoll","description":"health of this server""#,
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION"),
    );
    if status != "pass" {
        let _ = write!(out, r#","output":"{}""#, word(now));
    }
    out.push_str(r#","checks":{"#);
    let checks = [
        ("http:responseTime", millis(now.response_time), "ms", "pass"),
        ("http:serviceTime", millis(now.service_time), "ms", part),
        (
            "http:connections",
            now.connections.to_string(),
            "connections",
            "pass",
        ),
        (
            "http:badRequests",
            percent(now.bad_ratio),
            "percent",
            "pass",
        ),
        (
            "http:failedRequests",
            percent(now.failed_ratio),
            "percent",
            "pass",
        ),
        (
            "workers:utilization",
            number(utilization(now)),
            "percent",
            if now.is_live() { "pass" } else { "fail" },
        ),
        ("uptime", now.uptime.as_secs().to_string(), "s", "pass"),
    ];
    for (index, (name, value, unit, status)) in checks.into_iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let kind = if name == "uptime" {
            "system"
        } else {
            "component"
        };
        let _ = write!(
            out,
            r#"{comma}"{name}":[{{"componentType":"{kind}","observedValue":{value},"observedUnit":"{unit}","status":"{status}","time":"{time}""#,
        );
        if status != "pass" {
            let _ = write!(out, r#","output":"{}""#, word(now));
        }
        out.push_str("}]");
    }
    out.push_str("}}\n");
    out
}

/// Busy workers in percent.
fn utilization(now: &Snapshot) -> Option<f64> {
    (now.workers > 0).then(|| now.workers_busy as f64 * 1e2 / now.workers as f64)
}

/// A JSON number, or null where there is no sample.
fn number(value: Option<f64>) -> String {
    value
        .filter(|value| value.is_finite())
        .map_or_else(|| "null".into(), |value| format!("{value:.3}"))
}

/// A time in RFC 3339, in UTC, to the second. The days are counted as in Howard Hinnant's `civil_from_days`.
pub(super) fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timestamps_are_those_of_the_calendar() {
        // From date(1): date -u -d @N +%FT%TZ
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_767_225_600, "2026-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(timestamp(time), expected);
        }
    }

    #[test]
    fn a_number_without_a_sample_is_null() {
        assert_eq!(number(None), "null");
        assert_eq!(number(Some(f64::NAN)), "null");
        assert_eq!(number(Some(0.0)), "0.000");
    }
}
