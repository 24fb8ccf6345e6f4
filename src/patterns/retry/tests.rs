use super::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A clock that moves when it is slept on or pushed.
struct Hands(Mutex<(Instant, Vec<Duration>)>);

impl Hands {
    fn new() -> Self {
        Self(Mutex::new((Instant::now(), Vec::new())))
    }

    fn push(&self, time: Duration) {
        self.0.lock().unwrap().0 += time;
    }

    fn pauses(&self) -> Vec<Duration> {
        self.0.lock().unwrap().1.clone()
    }

    fn deadline(&self, timeout: Duration) -> Deadline {
        Deadline::after_at(timeout, self.now())
    }
}

impl Clock for Hands {
    fn now(&self) -> Instant {
        self.0.lock().unwrap().0
    }

    fn sleep(&self, pause: Duration) {
        self.push(pause);
        self.0.lock().unwrap().1.push(pause);
    }
}

/// A `Retry` whose random number is always 0.8, and its clock.
fn retry() -> (Retry, Arc<Hands>) {
    let hands = Arc::new(Hands::new());
    (Retry::new().clock(hands.clone()).random(|| 0.8), hands)
}

/// Calls what always fails in this way; returns how many tries were made.
fn tries(retry: &Retry, deadline: Deadline, failed: Failed<&'static str>) -> u32 {
    let mut last = 0;
    let result = retry.call(deadline, |attempt| {
        last = attempt;
        Err::<(), _>(failed)
    });
    assert_eq!(result, Err(failed.error));
    last
}

#[test]
fn the_first_success_is_the_answer() {
    let (retry, hands) = retry();
    let result = retry.call(hands.deadline(SECOND), |attempt| {
        if attempt < 3 {
            Err(Failed::again("down"))
        } else {
            Ok(attempt)
        }
    });
    assert_eq!(result, Ok(3));
    assert_eq!(hands.pauses(), [20 * MS, 40 * MS]);
    assert_eq!(retry.budget.retries(), 2);
}

#[test]
fn the_pause_doubles_up_to_its_bound_for_any_number_of_retries() {
    let backoff = Backoff::default();
    let bounds: Vec<_> = (1..=8).map(|retry| backoff.bound(retry)).collect();
    assert_eq!(
        bounds,
        [25, 50, 100, 200, 400, 800, 1000, 1000].map(Duration::from_millis)
    );
    assert_eq!(backoff.bound(u32::MAX), SECOND);
    let wide = Backoff::new(Duration::MAX, Duration::MAX);
    assert_eq!(wide.bound(u32::MAX), Duration::MAX);
    assert_eq!(wide.pause(1, 1.0), Duration::MAX);
    assert_eq!(backoff.pause(1, f64::INFINITY), 25 * MS);
}

#[test]
fn how_often_is_tried_depends_on_the_failure_the_retries_and_the_time() {
    for (what, retries, time, failed, expected, pauses) in [
        ("not worth it", 2, SECOND, Failed::for_good("no"), 1, false),
        ("no retries", 0, SECOND, Failed::again("down"), 1, false),
        (
            "elsewhere, at once",
            2,
            SECOND,
            Failed::again_at_once("down"),
            3,
            false,
        ),
        (
            "no time",
            2,
            Duration::ZERO,
            Failed::again("down"),
            1,
            false,
        ),
        (
            "no pause reaches over the deadline",
            2,
            20 * MS,
            Failed::again("down"),
            1,
            false,
        ),
        (
            "time for one pause",
            2,
            21 * MS,
            Failed::again("down"),
            2,
            true,
        ),
    ] {
        let (retry, hands) = retry();
        let tried = tries(&retry.retries(retries), hands.deadline(time), failed);
        assert_eq!(tried, expected, "{what}");
        assert_eq!(!hands.pauses().is_empty(), pauses, "{what}");
    }
}

#[test]
fn retry_after_is_waited_for_up_to_its_bound() {
    let (retry, hands) = retry();
    let retry = retry.retries(1);
    let asked = |after| {
        tries(
            &retry,
            hands.deadline(60 * SECOND),
            Failed::again_after("busy", after),
        )
    };
    assert_eq!(asked(2 * SECOND), 2);
    assert_eq!(asked(2 * SECOND + MS), 1);
    assert_eq!(asked(Duration::MAX), 1);
    assert_eq!(hands.pauses(), [2 * SECOND + 20 * MS]);
}

#[test]
fn no_try_begins_that_would_usually_take_longer_than_what_is_left() {
    let (retry, hands) = retry();
    let slow = retry.call(hands.deadline(SECOND), |_| {
        hands.push(100 * MS);
        Ok::<_, Failed<()>>(())
    });
    assert_eq!(slow, Ok(()));
    assert_eq!(
        tries(&retry, hands.deadline(119 * MS), Failed::again("down")),
        1
    );
    assert_eq!(
        tries(&retry, hands.deadline(121 * MS), Failed::again("down")),
        2
    );
}

#[test]
fn a_retry_that_is_not_made_takes_nothing_from_the_budget() {
    let (retry, hands) = retry();
    tries(&retry, hands.deadline(MS), Failed::again("down"));
    tries(&retry, hands.deadline(SECOND), Failed::for_good("no"));
    assert_eq!((retry.budget.retries(), retry.budget.refused()), (0, 0));
}

#[test]
fn at_total_failure_the_load_is_at_most_that_of_the_budget() {
    let (retry, hands) = retry();
    let retry = retry.backoff(Backoff::new(Duration::ZERO, Duration::ZERO));
    for requests_a_second in [30, 200] {
        let mut reached = 0;
        let requests = 60 * requests_a_second;
        for _ in 0..requests {
            reached += tries(&retry, hands.deadline(SECOND), Failed::again("down"));
            hands.push(SECOND / requests_a_second);
        }
        let load = f64::from(reached) / f64::from(requests);
        assert!((1.1..=1.31).contains(&load), "{load}");
    }
    assert!(retry.budget.refused() > 0);
}

#[test]
fn little_traffic_may_always_try_again() {
    let (retry, hands) = retry();
    for _ in 0..100 {
        assert_eq!(
            tries(&retry, hands.deadline(SECOND), Failed::again("down")),
            3
        );
        hands.push(SECOND);
    }
}

#[test]
fn two_who_share_a_budget_cannot_take_the_last_retry_twice() {
    let budget = RetryBudget::new(0.0, 1000);
    let now = Instant::now();
    let taken: u32 = thread::scope(|scope| {
        let takers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..1000)
                        .map(|_| u32::from(budget.take_at(now)))
                        .sum::<u32>()
                })
            })
            .collect();
        takers.into_iter().map(|taker| taker.join().unwrap()).sum()
    });
    assert_eq!(taken, 1000);
    assert_eq!(budget.refused(), 3000);
}
