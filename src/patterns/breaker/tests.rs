use super::state::{DELAYS, SUCCESSES};
use super::*;
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::thread;

const SECOND: Duration = Duration::from_secs(1);

/// Without jitter: the random number is just below 1.
fn exact() -> BreakerBuilder {
    CircuitBreaker::builder("test").random(|| 1.0 - f64::EPSILON)
}

fn fail(breaker: &CircuitBreaker, now: Instant) {
    breaker.permit_at(now).unwrap().failure_at(now);
}

fn succeed(breaker: &CircuitBreaker, now: Instant) {
    breaker.permit_at(now).unwrap().success_at(now);
}

fn state(breaker: &CircuitBreaker, now: Instant) -> BreakerState {
    breaker.status_at(now).state
}

/// Fails until it opens; returns how long it refuses.
fn open(breaker: &CircuitBreaker, now: Instant) -> Duration {
    for _ in 0..FAILURES {
        fail(breaker, now);
    }
    let status = breaker.status_at(now);
    assert_eq!(status.state, BreakerState::Open);
    status.remaining
}

fn about(delay: Duration, seconds: f64) -> bool {
    (delay.as_secs_f64() - seconds).abs() < 1e-6
}

#[test]
fn failures_in_a_row_open_it() {
    let now = Instant::now();
    let breaker = CircuitBreaker::builder("test").failures(3).build();
    for _ in 0..2 {
        fail(&breaker, now);
    }
    succeed(&breaker, now);
    for _ in 0..2 {
        fail(&breaker, now);
        assert_eq!(state(&breaker, now), BreakerState::Closed);
    }
    fail(&breaker, now);
    assert_eq!(state(&breaker, now), BreakerState::Open);
    assert_eq!(breaker.status_at(now).openings, 1);
}

#[test]
fn half_of_twenty_calls_open_it_and_half_of_nineteen_do_not() {
    let now = Instant::now();
    let breaker = exact().build();
    for _ in 0..9 {
        fail(&breaker, now);
        succeed(&breaker, now);
    }
    fail(&breaker, now);
    assert_eq!(state(&breaker, now), BreakerState::Closed, "10 of 19");
    fail(&breaker, now);
    assert_eq!(state(&breaker, now), BreakerState::Open, "11 of 20");
}

#[test]
fn what_is_older_than_ten_seconds_does_not_open_it() {
    let now = Instant::now();
    let breaker = exact().build();
    for _ in 0..9 {
        fail(&breaker, now);
        succeed(&breaker, now);
    }
    let later = now + 11 * SECOND;
    succeed(&breaker, later);
    for _ in 0..4 {
        fail(&breaker, later);
    }
    let status = breaker.status_at(later);
    assert_eq!(status.state, BreakerState::Closed);
    assert_eq!((status.calls, status.failures, status.in_a_row), (5, 4, 4));
}

#[test]
fn an_open_breaker_refuses_until_its_delay_is_over_then_lends_one_permit_at_a_time() {
    let now = Instant::now();
    let breaker = exact().build();
    assert!(about(open(&breaker, now), 5.0));
    let refused = breaker.permit_at(now + 2 * SECOND).unwrap_err();
    assert!(about(refused.remaining, 3.0), "{refused}");
    assert!(!breaker.trial_due_at(now + 4 * SECOND));

    let over = now + 5 * SECOND;
    assert!(breaker.trial_due_at(over));
    let trial = breaker.permit_at(over).unwrap();
    assert!(trial.is_trial());
    assert!(!breaker.trial_due_at(over));
    let second = breaker.permit_at(over).unwrap_err();
    assert_eq!(second.remaining, Duration::ZERO);
    assert_eq!(breaker.status_at(over).refused, 2);

    trial.success_at(over);
    assert_eq!(state(&breaker, over), BreakerState::HalfOpen);
    succeed(&breaker, over);
    assert_eq!(state(&breaker, over), BreakerState::Closed);
    assert!(!breaker.permit_at(over).unwrap().is_trial());
}

#[test]
fn a_trial_that_is_dropped_is_given_back_and_counts_as_nothing() {
    let now = Instant::now();
    let breaker = exact().build();
    let over = now + open(&breaker, now);
    for _ in 0..3 {
        drop(breaker.permit_at(over).unwrap());
        assert_eq!(state(&breaker, over), BreakerState::HalfOpen);
        assert!(breaker.trial_due_at(over));
    }
}

#[test]
fn a_panic_gives_the_permit_back() {
    let breaker = CircuitBreaker::builder("test")
        .failures(1)
        .open_for(Duration::ZERO, Duration::ZERO)
        .build();
    let failed: Result<(), _> = breaker.call(|| Err(()));
    assert_eq!(failed, Err(BreakerError::Failed(())));
    let panicking = || breaker.call(|| -> Result<(), ()> { panic!("on purpose") });
    assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
    assert!(breaker.trial_due());
    assert_eq!(breaker.call(|| Ok::<_, ()>(7)), Ok(7));
}

#[test]
fn the_delay_doubles_while_it_relapses_and_begins_anew_after_a_good_time() {
    let mut now = Instant::now();
    let breaker = exact().build();
    now += open(&breaker, now);
    for seconds in [10.0, 20.0, 40.0, 60.0, 60.0] {
        fail(&breaker, now);
        let delay = breaker.status_at(now).remaining;
        assert!(about(delay, seconds), "{delay:?}");
        now += delay;
    }
    for _ in 0..SUCCESSES {
        succeed(&breaker, now);
    }
    // It fails again at once: a relapse.
    let delay = open(&breaker, now + 9 * SECOND);
    assert!(about(delay, 60.0), "{delay:?}");
    now += 9 * SECOND + delay;
    for _ in 0..SUCCESSES {
        succeed(&breaker, now);
    }
    assert!(about(open(&breaker, now + 10 * SECOND), 5.0));
}

#[test]
fn jitter_shortens_a_delay_by_a_fifth_at_most() {
    let now = Instant::now();
    let shortest = CircuitBreaker::builder("test").random(|| 0.0).build();
    assert!(about(open(&shortest, now), 4.0));
    for _ in 0..100 {
        let delay = open(&CircuitBreaker::new("test"), now);
        assert!((4 * SECOND..=5 * SECOND).contains(&delay), "{delay:?}");
    }
}

#[test]
fn the_only_endpoint_is_tried_sooner() {
    let mut now = Instant::now();
    let breaker = exact().only().build();
    now += open(&breaker, now);
    for seconds in [2.0, 4.0, 8.0, 10.0] {
        fail(&breaker, now);
        let delay = breaker.status_at(now).remaining;
        assert!(about(delay, seconds), "{delay:?}");
        now += delay;
    }
    breaker.set_only_at(false, now);
    fail(&breaker, now);
    assert!(about(breaker.status_at(now).remaining, 20.0));
    breaker.set_only_at(true, now);
    assert!(about(breaker.status_at(now).remaining, 10.0));
}

#[test]
fn what_began_before_it_opened_says_nothing_later() {
    let now = Instant::now();
    let breaker = exact().build();
    let old: Vec<_> = (0..12).map(|_| breaker.permit_at(now).unwrap()).collect();
    let mut old = old.into_iter();
    let over = now + open(&breaker, now);
    old.next().unwrap().success_at(now);
    assert_eq!(state(&breaker, now), BreakerState::Open);

    let trial = breaker.permit_at(over).unwrap();
    old.next().unwrap().failure_at(over);
    drop(old.next());
    assert_eq!(state(&breaker, over), BreakerState::HalfOpen);
    assert!(
        breaker.permit_at(over).is_err(),
        "the trial is still under way"
    );
    trial.success_at(over);
    succeed(&breaker, over);
    for permit in old {
        permit.failure_at(over);
    }
    let status = breaker.status_at(over);
    assert_eq!((status.state, status.calls), (BreakerState::Closed, 0));
}

#[test]
fn of_sixty_requests_to_a_dead_service_six_reach_it() {
    let mut now = Instant::now();
    let breaker = CircuitBreaker::builder("test").only().build();
    let mut reached = 0;
    for _ in 0..60 {
        if let Ok(permit) = breaker.permit_at(now) {
            reached += 1;
            permit.failure_at(now);
        }
        now += Duration::from_millis(20);
    }
    assert_eq!(reached, 6);
}

#[test]
fn threads_that_fail_together_open_it_once_and_one_gets_the_trial() {
    let now = Instant::now();
    for _ in 0..50 {
        let breaker = exact().build();
        let start = Barrier::new(4);
        let trials: usize = thread::scope(|scope| {
            let callers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        for _ in 0..FAILURES {
                            if let Ok(permit) = breaker.permit_at(now) {
                                permit.failure_at(now);
                            }
                        }
                        let permit = breaker.permit_at(now + 5 * SECOND);
                        start.wait();
                        usize::from(permit.is_ok_and(|permit| permit.is_trial()))
                    })
                })
                .collect();
            callers
                .into_iter()
                .map(|caller| caller.join().unwrap())
                .sum()
        });
        assert_eq!(breaker.status_at(now).openings, 1);
        assert_eq!(trials, 1);
    }
}

#[test]
fn errors_tell_what_happened() {
    let open = BreakerOpen {
        remaining: Duration::from_millis(2345),
    };
    assert_eq!(
        BreakerError::<&str>::Open(open).to_string(),
        "the circuit breaker is open for another 2.3 s"
    );
    assert_eq!(BreakerError::Failed("timeout").to_string(), "timeout");
}

/// What a caller, or time, does.
#[derive(Clone, Debug)]
enum Step {
    Ask,
    /// The report of one of the permits that are out.
    Report(usize, TryOutcome),
    Wait(u64),
    Only(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Ask),
        4 => (any::<usize>(), prop_oneof![
            2 => Just(TryOutcome::Success),
            3 => Just(TryOutcome::Failure),
            1 => Just(TryOutcome::Nothing),
        ]).prop_map(|(which, outcome)| Step::Report(which, outcome)),
        2 => (0..20_000_u64).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Only),
    ]
}

proptest! {
    #[test]
    fn no_permit_leaks_one_trial_at_a_time_and_it_always_comes_back(
        steps in prop::collection::vec(step(), 0..300),
        random in 0.0..1.0_f64,
    ) {
        let mut now = Instant::now();
        let breaker = CircuitBreaker::builder("test").random(move || random).build();
        let mut out: Vec<Permit> = Vec::new();
        for step in steps {
            match step {
                Step::Ask => {
                    let due = breaker.trial_due_at(now);
                    let before = state(&breaker, now);
                    match breaker.permit_at(now) {
                        Ok(permit) => {
                            prop_assert_eq!(permit.is_trial(), due);
                            prop_assert!(due || before == BreakerState::Closed);
                            out.push(permit);
                        }
                        Err(open) => {
                            prop_assert!(!due && before != BreakerState::Closed);
                            prop_assert!(open.remaining <= DELAYS[1]);
                        }
                    }
                }
                Step::Report(which, outcome) if !out.is_empty() => {
                    let permit = out.swap_remove(which % out.len());
                    match outcome {
                        TryOutcome::Success => permit.success_at(now),
                        TryOutcome::Failure => permit.failure_at(now),
                        TryOutcome::Nothing => drop(permit),
                    }
                }
                Step::Report(..) => {}
                Step::Wait(ms) => now += Duration::from_millis(ms),
                Step::Only(only) => breaker.set_only_at(only, now),
            }
            let trials = out.iter().filter(|permit| permit.is_trial()).count();
            prop_assert!(trials <= 1);
            let status = breaker.status_at(now);
            // Either everyone passes, or there is a trial out, a trial to be had, or a delay that ends.
            let waits = status.remaining > Duration::ZERO;
            match status.state {
                BreakerState::Closed => prop_assert!(trials == 0 && !status.trial_due && !waits),
                BreakerState::Open => prop_assert!(trials == 0 && status.trial_due != waits),
                BreakerState::HalfOpen => prop_assert_eq!(trials == 0, status.trial_due),
            }
        }
        // Nobody reports any more and nobody sends traffic. Who looks after it asks whether a trial is due.
        out.clear();
        for _ in 0..=DELAYS[1].as_secs() {
            if breaker.trial_due_at(now) {
                succeed(&breaker, now);
            }
            now += SECOND;
        }
        while breaker.trial_due_at(now) {
            succeed(&breaker, now);
        }
        prop_assert_eq!(state(&breaker, now), BreakerState::Closed);
    }
}
