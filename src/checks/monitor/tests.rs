use super::*;
use crate::random::seed;

const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest that a quick run takes here.
const QUICK: Duration = Duration::from_millis(5);

/// A monitor, and the clocks and the chance that it is given.
struct Scenario {
    monitor: Monitor,
    now: Timestamp,
    random: Random,
}

impl Scenario {
    fn new(settings: CheckSettings) -> Self {
        let now = Timestamp::now();
        let mut random = Random::new(seed());
        Self {
            monitor: Monitor::new(settings, now.instant, &mut random),
            now,
            random,
        }
    }

    fn advance(&mut self, by: Duration) {
        self.now.instant += by;
        self.now.time += by;
    }

    /// Goes on to the next moment at which there is something to do; how long that took.
    fn advance_to_timeout(&mut self) -> Duration {
        let by = self
            .monitor
            .next_timeout()
            .saturating_duration_since(self.now.instant);
        self.advance(by);
        by
    }

    fn begin(&mut self) -> Instant {
        assert!(self.monitor.is_due(self.now.instant));
        self.monitor.begin(self.now.instant)
    }

    fn end(&mut self, result: Result<(), &str>) -> Option<Change> {
        self.end_with(result.map_err(CheckError::new))
    }

    fn end_with(&mut self, result: Result<(), CheckError>) -> Option<Change> {
        let pool = None;
        self.monitor
            .end(CheckResult { result, pool }, self.now, &mut self.random)
    }

    fn handle_timeout(&mut self) -> Option<Change> {
        self.monitor.handle_timeout(self.now, &mut self.random)
    }

    /// Waits for the next run, and has it end quickly.
    fn run(&mut self, result: Result<(), &str>) -> Option<Change> {
        self.advance_to_timeout();
        self.begin();
        self.advance(QUICK);
        self.end(result)
    }

    fn report(&self) -> CheckReport {
        self.monitor.report("store".into(), self.now.instant)
    }

    #[track_caller]
    fn expect(&self, state: CheckState) {
        assert_eq!(self.report().state, state);
    }
}

fn settings() -> CheckSettings {
    CheckSettings {
        interval: INTERVAL,
        timeout: TIMEOUT,
        ..CheckSettings::default()
    }
}

fn up() -> Scenario {
    let mut scenario = Scenario::new(settings());
    assert_eq!(scenario.run(Ok(())), Some(Change::Up));
    scenario
}

fn down() -> Scenario {
    let mut scenario = Scenario::new(settings());
    assert_eq!(
        scenario.run(Err("refused")),
        Some(Change::Down("refused".into()))
    );
    scenario
}

#[test]
fn nothing_is_known_until_the_first_run_has_ended() {
    let mut scenario = Scenario::new(settings());
    scenario.expect(CheckState::NotYet);
    scenario.advance_to_timeout();
    scenario.begin();
    let report = scenario.report();
    assert_eq!(report.state, CheckState::NotYet);
    assert_eq!(
        (report.last_run, report.last_success, report.duration),
        (None, None, None)
    );
    scenario.advance(QUICK);
    scenario.end(Ok(()));
    let report = scenario.report();
    assert_eq!(report.state, CheckState::Up);
    assert_eq!(report.duration, Some(QUICK));
    assert_eq!(report.last_run, Some(scenario.now.time));
    assert_eq!(report.last_success, Some(scenario.now.time));
    assert_eq!(report.error, None);
}

#[test]
fn the_first_run_decides_by_itself() {
    up().expect(CheckState::Up);
    let scenario = down();
    let report = scenario.report();
    assert_eq!(report.state, CheckState::Down);
    assert_eq!(report.consecutive_failures, 1);
    assert_eq!(report.error.as_deref(), Some("refused"));
    assert_eq!(report.last_success, None);
}

#[test]
fn it_falls_with_the_third_failure_in_a_row() {
    let mut scenario = up();
    let last_success = scenario.report().last_success;
    for (result, failures) in [
        (Err("a"), 1),
        (Err("b"), 2),
        (Ok(()), 0),
        (Err("c"), 1),
        (Err("d"), 2),
    ] {
        assert_eq!(scenario.run(result), None);
        let report = scenario.report();
        assert_eq!(report.state, CheckState::Up);
        assert_eq!(report.consecutive_failures, failures);
        assert_eq!(report.error.as_deref(), result.err());
    }
    assert_eq!(scenario.run(Err("e")), Some(Change::Down("e".into())));
    assert_eq!(scenario.run(Err("f")), None, "it is a change only once");
    let report = scenario.report();
    assert_eq!(report.state, CheckState::Down);
    assert_eq!(report.consecutive_failures, 4);
    assert_eq!(report.error.as_deref(), Some("f"));
    assert!(report.last_success > last_success);
    assert!(report.last_run > report.last_success);
}

#[test]
fn it_rises_with_the_second_success_in_a_row() {
    let mut scenario = down();
    assert_eq!(scenario.run(Ok(())), None);
    scenario.expect(CheckState::Down);
    assert_eq!(scenario.report().error, None, "the last run did not fail");
    assert_eq!(scenario.run(Err("again")), None);
    assert_eq!(scenario.run(Ok(())), None);
    assert_eq!(scenario.run(Ok(())), Some(Change::Up));
    scenario.expect(CheckState::Up);
    assert_eq!(scenario.report().consecutive_failures, 0);
}

#[test]
fn the_state_is_as_old_as_the_run_that_decided_it() {
    let mut scenario = up();
    for _ in 0..4 {
        let before = scenario.report().state_for;
        scenario.run(Ok(()));
        assert!(scenario.report().state_for > before + INTERVAL / 2);
    }
    for _ in 0..3 {
        scenario.run(Err("gone"));
    }
    assert_eq!(scenario.report().state_for, Duration::ZERO);
}

#[test]
fn the_first_run_starts_within_a_second_and_within_the_interval() {
    let mut delays = Vec::new();
    for interval in [INTERVAL, Duration::from_millis(100)] {
        let most = interval.min(Duration::from_secs(1));
        for _ in 0..100 {
            let mut scenario = Scenario::new(CheckSettings {
                interval,
                ..settings()
            });
            assert!(most >= scenario.advance_to_timeout(), "{interval:?}");
            delays.push(scenario.monitor.next_timeout() - scenario.now.instant);
            assert!(scenario.monitor.is_due(scenario.now.instant));
        }
    }
}

#[test]
fn first_runs_are_spread() {
    let delays: Vec<_> = (0..100)
        .map(|_| Scenario::new(settings()).advance_to_timeout())
        .collect();
    let early = delays
        .iter()
        .filter(|delay| **delay < Duration::from_millis(500));
    // 50 on average, with a standard deviation of 5.
    assert!((15..=85).contains(&early.count()), "{delays:?}");
}

/// How long after the begin of a run the next is due.
fn pause(scenario: &mut Scenario, result: Result<(), &str>) -> Duration {
    scenario.run(result);
    scenario.monitor.next_timeout() - scenario.now.instant + QUICK
}

#[test]
fn runs_start_an_interval_apart_give_or_take_a_tenth() {
    let mut scenario = up();
    let pauses: Vec<_> = (0..200).map(|_| pause(&mut scenario, Ok(()))).collect();
    for pause in &pauses {
        assert!(
            *pause >= INTERVAL.mul_f64(0.9) && *pause <= INTERVAL.mul_f64(1.1),
            "{pause:?}"
        );
    }
    assert!(pauses.iter().any(|pause| *pause < INTERVAL.mul_f64(0.97)));
    assert!(pauses.iter().any(|pause| *pause > INTERVAL.mul_f64(1.03)));
}

#[test]
fn a_store_that_is_down_is_asked_a_third_as_often_until_it_answers() {
    let mut scenario = up();
    assert!(
        pause(&mut scenario, Err("a")) < INTERVAL * 2,
        "not down yet"
    );
    assert!(
        pause(&mut scenario, Err("b")) < INTERVAL * 2,
        "not down yet"
    );
    for _ in 0..20 {
        let pause = pause(&mut scenario, Err("c"));
        assert!(
            pause >= INTERVAL.mul_f64(2.7) && pause <= INTERVAL.mul_f64(3.3),
            "{pause:?}"
        );
    }
    assert!(
        pause(&mut scenario, Ok(())) < INTERVAL * 2,
        "it may be back"
    );
    assert!(pause(&mut scenario, Ok(())) < INTERVAL * 2);
    scenario.expect(CheckState::Up);
}

#[test]
fn a_store_that_is_not_there_yet_is_asked_as_often_as_one_that_is() {
    let mut scenario = down();
    let first = scenario.monitor.next_timeout() - scenario.now.instant;
    assert!(first < INTERVAL * 2, "{first:?}");
    assert!(pause(&mut scenario, Err("b")) < INTERVAL * 2);
    scenario.expect(CheckState::Down);
    assert!(pause(&mut scenario, Err("c")) > INTERVAL * 2, "for long");
}

#[test]
fn the_check_is_told_a_deadline_a_little_before_its_time_is_over() {
    let mut scenario = Scenario::new(settings());
    scenario.advance_to_timeout();
    let deadline = scenario.begin();
    assert_eq!(deadline, scenario.now.instant + Duration::from_millis(1900));
    let timeout = Duration::from_millis(50);
    let mut scenario = Scenario::new(CheckSettings {
        timeout,
        ..settings()
    });
    scenario.advance_to_timeout();
    let deadline = scenario.begin();
    assert_eq!(deadline, scenario.now.instant + timeout * 9 / 10);
}

#[test]
fn a_run_that_outlives_its_time_counts_as_failed_at_once_and_only_once() {
    let mut scenario = up();
    scenario.advance_to_timeout();
    scenario.begin();
    assert!(scenario.monitor.is_running());
    scenario.advance(TIMEOUT.saturating_sub(QUICK));
    assert_eq!(scenario.handle_timeout(), None);
    assert_eq!(scenario.report().consecutive_failures, 0);

    assert_eq!(scenario.advance_to_timeout(), QUICK);
    assert_eq!(scenario.handle_timeout(), None);
    assert!(!scenario.monitor.is_running(), "it gives its place up");
    let report = scenario.report();
    assert_eq!(report.consecutive_failures, 1);
    assert_eq!(report.error.as_deref(), Some("no result within 2s"));
    assert_eq!(report.duration, Some(TIMEOUT));
    assert_eq!(scenario.handle_timeout(), None);
    assert_eq!(scenario.report().consecutive_failures, 1);

    // What it says at last is not counted, whatever it is.
    scenario.advance(QUICK);
    assert_eq!(scenario.end(Ok(())), None);
    let report = scenario.report();
    assert_eq!(report.consecutive_failures, 1);
    assert_eq!(report.error.as_deref(), Some("no result within 2s"));
    assert_eq!(scenario.run(Ok(())), None);
    assert_eq!(scenario.report().consecutive_failures, 0);
}

#[test]
fn no_run_is_due_while_the_last_has_not_ended_and_each_interval_is_one_more_failure() {
    let mut scenario = up();
    scenario.advance_to_timeout();
    scenario.begin();
    for failures in 1..10 {
        let waited = scenario.advance_to_timeout();
        assert!(waited >= TIMEOUT.min(INTERVAL / 2), "{waited:?}");
        assert!(!scenario.monitor.is_due(scenario.now.instant));
        let change = scenario.handle_timeout();
        assert_eq!(change.is_some(), failures == 3, "{failures}");
        let report = scenario.report();
        assert_eq!(report.consecutive_failures, failures);
        assert_eq!(report.state == CheckState::Down, failures >= 3);
    }
    let error = scenario.report().error.expect("an error");
    assert!(
        error.starts_with("a run that began ") && error.ends_with(" s ago has not ended"),
        "{error}"
    );
    assert_eq!(scenario.end(Ok(())), None);
    assert_eq!(scenario.run(Ok(())), None);
    assert_eq!(scenario.run(Ok(())), Some(Change::Up));
}

#[test]
fn a_hanging_first_run_is_a_failure() {
    let mut scenario = Scenario::new(settings());
    scenario.advance_to_timeout();
    scenario.begin();
    scenario.advance_to_timeout();
    assert!(matches!(scenario.handle_timeout(), Some(Change::Down(_))));
    scenario.expect(CheckState::Down);
}

#[test]
fn a_run_longer_than_the_interval_is_no_two_failures() {
    let interval = Duration::from_millis(100);
    let mut scenario = Scenario::new(CheckSettings {
        interval,
        ..settings()
    });
    scenario.advance_to_timeout();
    scenario.begin();
    scenario.advance_to_timeout();
    scenario.handle_timeout();
    assert_eq!(scenario.handle_timeout(), None);
    assert_eq!(scenario.report().consecutive_failures, 1);
    assert!(scenario.advance_to_timeout() >= interval / 2);
}

#[test]
fn what_is_heard_late_of_a_run_that_ended_in_time_counts() {
    let mut scenario = up();
    scenario.advance_to_timeout();
    scenario.begin();
    scenario.advance(TIMEOUT);
    let ended = scenario.now;
    scenario.advance(QUICK);
    let result_found = CheckResult {
        result: Ok(()),
        pool: None,
    };
    scenario
        .monitor
        .end(result_found, ended, &mut scenario.random);
    assert_eq!(scenario.report().consecutive_failures, 0);
}

#[test]
fn a_success_after_the_time_is_over_is_a_failure_and_a_failure_keeps_its_reason() {
    for (result, error) in [
        (Ok(()), "no result within 2s"),
        (Err("no answer"), "no answer"),
    ] {
        let mut scenario = up();
        scenario.advance_to_timeout();
        scenario.begin();
        scenario.advance(TIMEOUT + QUICK);
        scenario.end(result);
        let report = scenario.report();
        assert_eq!(report.consecutive_failures, 1);
        assert_eq!(report.error.as_deref(), Some(error));
    }
}

#[test]
fn a_result_older_than_three_intervals_counts_as_failed() {
    let mut scenario = up();
    scenario.advance((INTERVAL * 3).saturating_sub(QUICK));
    scenario.expect(CheckState::Up);
    scenario.advance(QUICK * 3);
    let report = scenario.report();
    assert_eq!(report.state, CheckState::Down);
    assert_eq!(report.state_for, QUICK * 2);
    assert_eq!(report.error.as_deref(), Some("no run has ended for 30 s"));
    // It was the result that had become old: with a new one all is known again.
    scenario.run(Ok(()));
    let report = scenario.report();
    assert_eq!(report.state, CheckState::Up);
    assert_eq!(report.error, None);
}

#[test]
fn a_stale_result_says_so_whatever_it_was() {
    let mut scenario = up();
    scenario.run(Err("once"));
    scenario.advance(INTERVAL * 3);
    assert_eq!(scenario.report().state, CheckState::Down);
    assert_eq!(
        scenario.report().error.as_deref(),
        Some("no run has ended for 30 s")
    );
    let mut scenario = down();
    scenario.run(Ok(()));
    scenario.advance(INTERVAL * 3);
    assert_eq!(
        scenario.report().error.as_deref(),
        Some("no run has ended for 30 s")
    );
    let mut scenario = down();
    scenario.run(Err("refused"));
    scenario.run(Err("refused again"));
    // It is asked that seldom.
    scenario.advance(INTERVAL * 3 + INTERVAL / 3);
    assert_eq!(scenario.report().error.as_deref(), Some("refused again"));
}

#[test]
fn a_store_that_takes_its_time_is_not_stale() {
    let interval = Duration::from_millis(200);
    let mut scenario = Scenario::new(CheckSettings {
        interval,
        ..settings()
    });
    for _ in 0..20 {
        scenario.advance_to_timeout();
        scenario.begin();
        scenario.advance(TIMEOUT.saturating_sub(QUICK));
        assert_ne!(scenario.report().state, CheckState::Down);
        scenario.end(Ok(()));
    }
}

#[test]
fn the_pool_is_as_the_last_run_found_it() {
    let pool = |used| {
        Some(PoolStatus {
            used,
            idle: 0,
            max: 4,
        })
    };
    let mut scenario = up();
    assert_eq!(scenario.report().pool, None);
    for used in [1, 4] {
        scenario.advance_to_timeout();
        scenario.begin();
        let result_found = CheckResult {
            result: Ok(()),
            pool: pool(used),
        };
        scenario
            .monitor
            .end(result_found, scenario.now, &mut scenario.random);
        assert_eq!(scenario.report().pool, pool(used));
    }
    // Of a run that ends too late, too.
    scenario.advance_to_timeout();
    scenario.begin();
    scenario.advance_to_timeout();
    scenario.handle_timeout();
    let result_found = CheckResult {
        result: Ok(()),
        pool: pool(2),
    };
    scenario
        .monitor
        .end(result_found, scenario.now, &mut scenario.random);
    assert_eq!(scenario.report().pool, pool(2));
}

#[test]
#[cfg(feature = "proxy")]
fn whether_it_has_answered_is_known_of_the_last_run_that_has_ended() {
    let mut scenario = Scenario::new(settings());
    scenario.advance_to_timeout();
    scenario.begin();
    let answer = Err(CheckError::new("404").with_answer());
    scenario.end_with(answer);
    scenario.expect(CheckState::Down);
    assert!(scenario.monitor.has_answered());
    scenario.advance_to_timeout();
    scenario.begin();
    assert!(scenario.monitor.has_answered(), "nothing else is known yet");
    scenario.advance(TIMEOUT);
    scenario.handle_timeout();
    assert!(!scenario.monitor.has_answered(), "it took too long");
    scenario.end(Ok(()));
    scenario.run(Err("refused"));
    assert!(!scenario.monitor.has_answered());
    scenario.run(Ok(()));
    assert!(scenario.monitor.has_answered());
}
