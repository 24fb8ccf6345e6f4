use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::checks::{CheckReport, PoolStatus};
use crate::health::{GateState, Health};
use crate::settings::Config;

const QUIET: Recent = Recent {
    overload: 0,
    seconds: 5,
};

const CROWD: Recent = Recent {
    overload: 12,
    seconds: 5,
};

fn fresh() -> Snapshot {
    let (trips, _) = crossbeam_channel::unbounded();
    let config = Config {
        workers: 8,
        ..Config::default()
    };
    Health::new(&config, trips, Instant::now()).snapshot()
}

fn store(name: &str, critical: bool, state: CheckState) -> CheckReport {
    CheckReport {
        name: Arc::from(name),
        critical,
        state,
        state_for: Duration::from_secs(5),
        last_run: None,
        last_success: None,
        duration: None,
        consecutive_failures: 3,
        error: Some(Arc::from("connection refused")),
        pool: None,
    }
}

#[track_caller]
fn expect(now: &Snapshot, recent: Recent, condition: Condition, words: &str, reason: &str) {
    assert_eq!(Condition::of(now, recent), condition);
    assert_eq!(detail(now, recent), words);
    let why = why(now, recent);
    assert!(why.contains(reason), "{why}");
    assert!(why.ends_with('.') && !why.ends_with(".."), "{why}");
}

#[test]
fn each_state_has_its_words_and_its_reason() {
    let now = fresh();
    expect(&now, QUIET, Condition::Healthy, "", "within the limits");
    expect(
        &now,
        CROWD,
        Condition::Shedding,
        "",
        "12 requests refused in the last 5 s",
    );

    let mut now = fresh();
    now.gate = GateState::Open {
        reopens_in: Duration::from_millis(2_100),
    };
    now.service_time = Some(Duration::from_millis(1_240));
    let words = "resetting, reopens in 3 s";
    expect(&now, QUIET, Condition::Unhealthy, words, "1.24 s of 1 s");
    now.service_time = Some(Duration::from_millis(100));
    expect(
        &now,
        QUIET,
        Condition::Unhealthy,
        words,
        "No worker came free",
    );

    now.gate = GateState::HalfOpen;
    now.service_time = None;
    let words = "one request at a time";
    expect(
        &now,
        QUIET,
        Condition::Recovering,
        words,
        "none has ended yet",
    );
    now.service_time = Some(Duration::from_millis(20));
    expect(
        &now,
        QUIET,
        Condition::Recovering,
        words,
        "20 ms on average",
    );

    let mut now = fresh();
    now.draining = true;
    expect(&now, QUIET, Condition::Draining, "", "told to stop");

    let mut now = fresh();
    now.workers_stuck = 2;
    expect(
        &now,
        QUIET,
        Condition::Warning,
        "2 of 8 workers stuck",
        "request timeout",
    );
    now.workers_stuck = 8;
    expect(
        &now,
        QUIET,
        Condition::Unhealthy,
        "every worker is stuck",
        "Every worker",
    );
}

#[test]
fn a_data_store_is_named_with_what_is_wrong_with_it() {
    let mut now = fresh();
    now.checks = vec![
        store("cache", false, CheckState::Up),
        store("db", true, CheckState::NotYet),
    ];
    expect(
        &now,
        QUIET,
        Condition::Starting,
        "db is not checked yet",
        "can't do without db",
    );
    now.checks[1].state = CheckState::Up;
    expect(&now, QUIET, Condition::Healthy, "", "within");
    now.checks[0].state = CheckState::NotYet;
    expect(&now, QUIET, Condition::Healthy, "", "within");
    now.checks[0].state = CheckState::Down;
    expect(
        &now,
        QUIET,
        Condition::Warning,
        "cache is down",
        "connection refused",
    );
    now.checks[1].state = CheckState::Down;
    now.checks[1].error = None;
    expect(
        &now,
        QUIET,
        Condition::Unhealthy,
        "db and 1 more are down",
        "down for 5 s: no result",
    );
    now.checks = vec![store("db", true, CheckState::Up)];
    now.checks[0].pool = Some(PoolStatus {
        used: 10,
        idle: 0,
        max: 10,
    });
    expect(
        &now,
        QUIET,
        Condition::Warning,
        "the pool of db is exhausted",
        "All 10 connections",
    );
}

#[test]
fn the_gravest_cause_is_told() {
    let mut now = fresh();
    now.checks = vec![store("cache", false, CheckState::Down)];
    assert_eq!(Condition::of(&now, CROWD), Condition::Shedding);
    now.gate = GateState::HalfOpen;
    assert_eq!(Condition::of(&now, CROWD), Condition::Recovering);
    now.checks.push(store("db", true, CheckState::Down));
    assert_eq!(Condition::of(&now, CROWD), Condition::Unhealthy);
    assert_eq!(detail(&now, CROWD), "db and 1 more are down");
    now.draining = true;
    assert_eq!(Condition::of(&now, CROWD), Condition::Draining);
}

/// What the page calls unhealthy is what probes call not ready, but for a gate that lets single requests through.
#[test]
fn a_server_that_wants_no_traffic_is_never_called_well() {
    let gates = [
        GateState::Closed,
        GateState::HalfOpen,
        GateState::Open {
            reopens_in: Duration::ZERO,
        },
    ];
    for gate in gates {
        for state in [CheckState::NotYet, CheckState::Up, CheckState::Down] {
            for critical in [false, true] {
                for (draining, stuck) in [(false, false), (true, false), (false, true)] {
                    let mut now = fresh();
                    now.workers_stuck = if stuck { now.workers } else { 0 };
                    now.gate = gate;
                    now.draining = draining;
                    now.checks = vec![store("db", critical, state)];
                    let bad = matches!(
                        Condition::of(&now, QUIET),
                        Condition::Unhealthy | Condition::Starting | Condition::Draining
                    );
                    assert_eq!(bad, !now.is_ready(), "{now:?}");
                }
            }
        }
    }
}

#[test]
fn words_and_letters_are_in_the_order_of_the_standings() {
    for (index, (condition, word, letter)) in Condition::ALL.into_iter().enumerate() {
        assert_eq!(condition as usize, index);
        assert_eq!((condition.word(), condition.letter()), (word, letter));
        let others = Condition::ALL.iter().filter(|other| other.2 == letter);
        assert_eq!(others.count(), 1);
    }
}
