use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::checks::{CheckState, PoolStatus};

fn server() -> (Health, Instant) {
    let start = Instant::now();
    (Health::of_a_new_server(start), start)
}

#[track_caller]
fn report(now: &Snapshot, health: &Health, after: Option<u64>) -> Value {
    serde_json::from_str(&status(now, health, after)).expect("JSON")
}

#[test]
fn columns_have_a_value_for_each_sample_and_null_for_what_is_not_known() {
    let (health, start) = server();
    health.responded(Duration::from_millis(2));
    health.ended(crate::health::ReplyOutcome::Served);
    health.sample(start + Duration::from_secs(1));
    health.sample(start + Duration::from_secs(4));
    let report = report(&health.snapshot(), &health, None);
    let history = report["history"].as_object().unwrap();
    assert_eq!(
        (&history["first"], &history["next"]),
        (&json!(0), &json!(4))
    );
    assert_eq!(history["state"], "h--h");
    assert_eq!(history["gate"], "c--c");
    assert_eq!(history["served"], json!([1, null, null, 0]));
    assert_eq!(history["p50_us"][1], Value::Null);
    assert_eq!(history["p50_us"][3], Value::Null);
    for column in history.values().filter_map(Value::as_array) {
        assert_eq!(column.len(), 4);
    }
}

#[test]
fn a_reader_that_has_samples_is_sent_the_newer_ones_alone() {
    let (health, start) = server();
    for second in 1..=30 {
        health.sample(start + Duration::from_secs(second));
    }
    let now = health.snapshot();
    let whole = report(&now, &health, None);
    assert_eq!(whole["history"]["served"].as_array().unwrap().len(), 30);
    let rest = report(&now, &health, Some(28));
    assert_eq!(rest["history"]["first"], 29);
    assert_eq!(rest["history"]["next"], 30);
    assert_eq!(rest["history"]["served"].as_array().unwrap().len(), 1);
    let none = report(&now, &health, Some(29));
    assert_eq!(none["history"]["first"], 30);
    assert_eq!(none["history"]["state"], "");
}

#[test]
fn what_stores_say_is_escaped() {
    let (health, _) = server();
    let mut now = health.snapshot();
    let wild = "</script>\"\\\n\u{1}\u{2028}";
    now.checks = vec![CheckReport {
        name: Arc::from(wild),
        critical: true,
        state: CheckState::Down,
        state_for: Duration::from_secs(1),
        last_run: Some(SystemTime::UNIX_EPOCH),
        last_success: None,
        duration: Some(Duration::from_millis(15)),
        consecutive_failures: 4,
        error: Some(Arc::from(wild)),
        pool: Some(PoolStatus {
            used: 3,
            idle: 1,
            max: 10,
        }),
    }];
    let text = status(&now, &health, None);
    assert!(!text.contains('<'));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        report["checks"],
        json!([{
            "name": wild, "critical": true, "state": "down", "for": 1.0, "last_run": 0.0, "last_success": null,
            "duration": 0.015, "failures": 4, "error": wild, "pool": {"used": 3, "idle": 1, "max": 10},
        }])
    );
    assert_eq!(report["state"]["word"], "unhealthy");
    assert_eq!(report["state"]["status"], "fail");
    assert_eq!(report["state"]["detail"], format!("{wild} is down"));
}

/// What one open page is sent each second.
#[test]
fn a_page_that_is_open_is_sent_little() {
    let (health, start) = server();
    for second in 1..=600 {
        health.sample(start + Duration::from_secs(second));
    }
    let now = health.snapshot();
    let each_second = status(&now, &health, Some(598)).len();
    assert!(each_second < 3 * 1024, "{each_second} bytes");
    let whole = status(&now, &health, None).len();
    assert!(whole < 64 * 1024, "{whole} bytes");
}

#[test]
fn settings_are_told_as_the_command_line_takes_them() {
    let (health, _) = server();
    let config = &report(&health.snapshot(), &health, None)["config"];
    assert_eq!(config["queue-budget"], "50ms");
    assert_eq!(config["max-head"], "16KiB");
    assert_eq!(config["fair"], "off");
    assert_eq!(config["admin"], Value::Null);
}
