use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn rate(text: &str) -> Rate {
    text.parse().expect("a rate")
}

fn number(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

#[test]
fn a_burst_is_let_through_at_once_and_then_the_rate() {
    let throttle = Throttle::new(rate("10/s")).with_burst(3);
    let now = Instant::now();
    let remaining = |at| {
        throttle
            .check(ThrottleKey::All, now + at)
            .map(|quota| quota.remaining)
    };
    assert_eq!(remaining(Duration::ZERO), Ok(2));
    assert_eq!(remaining(Duration::ZERO), Ok(1));
    assert_eq!(remaining(Duration::ZERO), Ok(0));
    let refused = Throttled {
        retry_after: Duration::from_millis(100),
        reset: Duration::from_millis(300),
    };
    assert_eq!(remaining(Duration::ZERO), Err(refused));
    assert_eq!(remaining(Duration::from_millis(100)), Ok(0));
    assert!(remaining(Duration::from_millis(199)).is_err());
    assert_eq!(remaining(Duration::from_millis(200)), Ok(0));
    // After a long rest it is the burst again, and not more.
    assert_eq!(remaining(Duration::from_secs(60 * 60)), Ok(2));
}

#[test]
fn a_refused_request_does_not_delay_the_next_one() {
    let throttle = Throttle::new(rate("1/m"));
    let now = Instant::now();
    assert!(throttle.check(ThrottleKey::All, now).is_ok());
    for second in 0..60 {
        assert!(
            throttle
                .check(ThrottleKey::All, now + SECOND * second)
                .is_err()
        );
    }
    assert!(throttle.check(ThrottleKey::All, now + SECOND * 60).is_ok());
}

#[test]
fn a_request_that_is_given_back_was_never_made() {
    let throttle = Throttle::new(rate("1/m")).with_burst(2);
    let now = Instant::now();
    let key = ThrottleKey::Value(b"a");
    throttle.give_back(key);
    assert_eq!(throttle.keys(), 0, "nothing is known of it");
    for _ in 0..10 {
        let remaining = throttle.check(key, now).map(|quota| quota.remaining);
        assert_eq!(remaining, Ok(1));
        throttle.give_back(key);
    }
    // More than was taken is not there to be given.
    throttle.give_back(key);
    let passed = (0..10).filter(|_| throttle.check(key, now).is_ok());
    assert_eq!(passed.count(), 2);
}

#[test]
fn the_burst_is_what_the_rate_gives_in_a_second_unless_it_is_set() {
    assert_eq!(Throttle::new(rate("100/s")).burst(), 100);
    assert_eq!(Throttle::new(rate("10/m")).burst(), 1);
    assert_eq!(Throttle::new(rate("90/m")).burst(), 2);
    assert_eq!(Throttle::new(rate("10/m")).with_burst(0).burst(), 1);
}

#[test]
fn keys_are_counted_apart() {
    let throttle = Throttle::new(rate("1/h"));
    let now = Instant::now();
    let address = |text: &str| ThrottleKey::Address(text.parse().expect("an address"));
    for key in [
        address("192.0.2.1"),
        address("192.0.2.2"),
        address("2001:db8:0:1::1"),
        address("2001:db8:0:2::1"),
        ThrottleKey::Value(b""),
        ThrottleKey::Value(b"192.0.2.1"),
        ThrottleKey::All,
    ] {
        assert!(throttle.check(key, now).is_ok(), "{key:?}");
        assert!(throttle.check(key, now).is_err(), "{key:?}");
    }
    // The rest of a /64 is the same subscriber; a mapped address is the IPv4 one.
    for key in [
        address("2001:db8:0:1:ffff:ffff:ffff:ffff"),
        address("::ffff:192.0.2.1"),
    ] {
        assert!(throttle.check(key, now).is_err(), "{key:?}");
    }
}

#[test]
fn a_time_that_jumps_back_stands_still_until_it_has_caught_up() {
    let throttle = Throttle::new(rate("1/s"));
    let now = Instant::now();
    assert!(throttle.check(ThrottleKey::All, now + SECOND * 10).is_ok());
    for back in 0..10 {
        let refused = throttle
            .check(ThrottleKey::All, now + SECOND * back)
            .expect_err("time stands still");
        assert_eq!(refused.retry_after, SECOND);
    }
    assert!(throttle.check(ThrottleKey::All, now + SECOND * 11).is_ok());
}

#[test]
fn an_active_key_stays_limited_while_a_million_others_come_and_memory_stays_bounded() {
    let throttle = Throttle::new(rate("1/s"));
    let now = Instant::now();
    let mut passed = 0;
    let millions = 1_000_000_u32;
    for other in 0..millions {
        // A million clients in ten seconds; the active one asks a thousand times in each of them.
        let at = now + Duration::from_micros(u64::from(other) * 10);
        assert!(
            throttle
                .check(ThrottleKey::Value(&number(other)), at)
                .is_ok()
        );
        if other % 100 == 0 {
            passed += u32::from(throttle.check(ThrottleKey::All, at).is_ok());
        }
    }
    assert_eq!(passed, 10);
    assert_eq!(throttle.keys(), MAX_KEYS as usize);
}

#[test]
fn what_has_caught_up_is_forgotten_before_what_has_not() {
    let throttle = Throttle::with_keys(rate("1/s"), 4).with_burst(4);
    let now = Instant::now();
    let limited = ThrottleKey::All;
    while throttle.check(limited, now).is_ok() {}
    for key in 0..3 {
        assert!(
            throttle
                .check(ThrottleKey::Value(&number(key)), now)
                .is_ok()
        );
    }
    // The limited key is the longest unused, but the others have caught up.
    let later = now + Duration::from_millis(1500);
    for key in 3..6 {
        assert!(
            throttle
                .check(ThrottleKey::Value(&number(key)), later)
                .is_ok()
        );
    }
    assert_eq!(
        throttle.check(limited, later).map(|quota| quota.remaining),
        Ok(0)
    );
    assert_eq!(throttle.keys(), 4);
}

#[test]
fn the_longest_unused_is_forgotten_when_none_has_caught_up() {
    let throttle = Throttle::with_keys(rate("1/h"), 3);
    let now = Instant::now();
    let check = |key| {
        throttle
            .check(ThrottleKey::Value(&number(key)), now)
            .is_ok()
    };
    assert!(check(0) && check(1) && check(2));
    assert!(!check(0), "used again, so 1 is the longest unused");
    assert!(check(3));
    assert!(!check(0) && !check(2) && !check(3));
    assert!(check(1), "forgotten");
}

#[test]
fn texts_that_are_no_rates_are_refused_and_named() {
    for text in [
        "",
        "/",
        "/s",
        "10",
        "10/",
        "0/s",
        "-1/s",
        "+1/s",
        "1/d",
        "1/ s",
        "1 /s",
        "1.5/s",
        "1/s ",
        "1000001/s",
        "99999999999999999999/s",
        "1/S",
        "1/1s",
    ] {
        let error = text.parse::<Rate>().expect_err(text).to_string();
        assert!(error.contains(&format!("{text:?}")), "{error}");
    }
    for text in ["1/s", "100/s", "10/m", "5/h", "1000000/h"] {
        assert_eq!(rate(text).to_string(), text);
    }
}

/// What the model of a throttle is given: which key asks, and when, in any order of times.
fn requests() -> impl Strategy<Value = Vec<(u32, u64)>> {
    let close = 0_u64..2_000_000_000;
    let anywhere = 0_u64..20_000_000_000;
    proptest::collection::vec((0_u32..3, prop_oneof![close, anywhere]), 1..300)
}

proptest! {
    #[test]
    fn no_sequence_of_times_lets_more_than_the_rate_and_the_burst_through(
        requests in requests(),
        count in 1_u32..50,
        burst in 1_u32..20,
    ) {
        let rate = rate(&format!("{count}/s"));
        let throttle = Throttle::new(rate).with_burst(burst);
        let start = Instant::now();
        for key in 0..3 {
            let mut passed = 0_u64;
            let mut span: Option<(u64, u64)> = None;
            for &(_, at) in requests.iter().filter(|&&(asking, _)| asking == key) {
                let at_instant = start + Duration::from_nanos(at);
                passed += u64::from(
                    throttle.check(ThrottleKey::Value(&number(key)), at_instant).is_ok()
                );
                let (first, last) = span.unwrap_or((at, at));
                span = Some((first.min(at), last.max(at)));
            }
            if let Some((first, last)) = span {
                let by_rate = (last - first) / rate.interval_nanos();
                prop_assert!(passed <= by_rate + u64::from(burst), "{passed}");
                prop_assert!(passed >= 1, "the first is always let through");
            }
        }
    }

    #[test]
    fn a_request_is_let_through_exactly_when_it_was_told_to_retry(
        requests in requests(),
        burst in 1_u32..20,
    ) {
        let throttle = Throttle::new(rate("7/s")).with_burst(burst);
        let start = Instant::now();
        let mut times: Vec<u64> = requests.into_iter().map(|(_, at)| at).collect();
        times.sort_unstable();
        let mut next = None;
        for at in times {
            let at = start + Duration::from_nanos(at);
            match throttle.check(ThrottleKey::All, at) {
                Ok(_) => {
                    prop_assert!(next.is_none_or(|next| at >= next));
                    next = None;
                }
                Err(Throttled { retry_after, .. }) => {
                    prop_assert!(next.is_none_or(|next| at + retry_after == next));
                    next = Some(at + retry_after);
                }
            }
        }
        if let Some(next) = next {
            prop_assert!(throttle.check(ThrottleKey::All, next).is_ok());
        }
    }
}
