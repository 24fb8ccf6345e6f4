use std::ops::RangeInclusive;

use super::limits::{MAX_CONNECTIONS, WORKERS};
use super::*;

fn complaint(change: impl FnOnce(&mut Config)) -> String {
    let mut config = Config::default();
    change(&mut config);
    config.validate().unwrap_err().to_string()
}

fn accepts(change: impl FnOnce(&mut Config)) -> bool {
    let mut config = Config::default();
    change(&mut config);
    config.validate().is_ok()
}

#[test]
fn the_default_is_valid() {
    assert_eq!(Config::default().validate(), Ok(()));
}

#[test]
fn numbers_are_accepted_at_their_bounds_and_refused_beyond() {
    type Set = fn(&mut Config, usize);
    let settings: [(&str, &RangeInclusive<usize>, Set); 6] = [
        ("workers", &WORKERS, |c, n| c.workers = n),
        ("ewma-age", &(1..=1_000_000), |c, n| {
            c.ewma_age = u32::try_from(n).unwrap();
        }),
        ("queue-max", &(0..=1_000_000), |c, n| c.queue_max = n),
        ("max-connections", &MAX_CONNECTIONS, |c, n| {
            c.max_connections = n;
        }),
        ("max-head", &(256..=1024 * 1024), |c, n| c.max_head = n),
        ("max-body", &(0..=1024 * 1024 * 1024), |c, n| c.max_body = n),
    ];
    for (option, bounds, set) in settings {
        let (low, high) = (*bounds.start(), *bounds.end());
        assert!(accepts(|c| set(c, low)), "{option} at {low}");
        assert!(accepts(|c| set(c, high)), "{option} at {high}");
        for beyond in [low.checked_sub(1), Some(high + 1)].into_iter().flatten() {
            let line = complaint(|c| set(c, beyond));
            assert!(line.starts_with(&format!("{option}: expected a")), "{line}");
            assert!(line.ends_with(&format!(", found {beyond}")), "{line}");
        }
    }
}

#[test]
fn durations_are_above_zero_and_at_most_a_day() {
    type Set = fn(&mut Config, Duration);
    let settings: [(&str, Set); 8] = [
        ("threshold", |c, d| c.threshold = d),
        ("cooldown", |c, d| c.cooldown = d),
        ("queue-budget", |c, d| c.queue_budget = d),
        ("head-timeout", |c, d| c.head_timeout = d),
        ("body-timeout", |c, d| c.body_timeout = d),
        ("idle-timeout", |c, d| c.idle_timeout = d),
        ("write-timeout", |c, d| c.write_timeout = d),
        ("request-timeout", |c, d| c.request_timeout = d),
    ];
    for (option, set) in settings {
        assert!(accepts(|c| set(c, Duration::from_nanos(1))), "{option}");
        assert!(accepts(|c| set(c, LONGEST)), "{option}");
        assert_eq!(
            complaint(|c| set(c, Duration::ZERO)),
            format!(
                "{option}: expected a duration above 0 and at most 24h, such as 250ms, 1.5s or 2m, found 0"
            ),
        );
        assert_eq!(
            complaint(|c| set(c, LONGEST + Duration::from_secs(1))),
            format!(
                "{option}: expected a duration above 0 and at most 24h, such as 250ms, 1.5s or 2m, found 86401s"
            ),
        );
    }
}

#[test]
fn drain_may_be_zero_but_not_more_than_a_day() {
    assert!(accepts(|c| c.drain = Duration::ZERO));
    assert!(accepts(|c| c.drain = LONGEST));
    assert_eq!(
        complaint(|c| c.drain = Duration::MAX),
        format!(
            "drain: expected a duration of at most 24h, such as 250ms, 1.5s or 2m, found {:?}",
            Duration::MAX
        ),
    );
}

#[test]
fn an_address_is_a_host_and_a_port() {
    let good = [
        "127.0.0.1:0",
        "0.0.0.0:65535",
        "[::1]:8080",
        "[fe80::1%2]:80",
        "localhost:80",
        "my_host-1.example:443",
    ];
    for text in good {
        assert!(accepts(|c| c.listen = vec![text.to_owned()]), "{text}");
    }
    let bad = [
        "",
        ":",
        ":8080",
        "8080",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:+80",
        "127.0.0.1:http",
        "::1:8080",
        "[::1]",
        "[localhost]:80",
        "http://127.0.0.1:8080",
        "a b:80",
        "127.0.0.1:80 ",
        "a:80\n",
    ];
    for text in bad {
        assert_eq!(
            complaint(|c| c.listen.push(text.to_owned())),
            format!(
                "listen: expected HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080, found {text:?}"
            ),
        );
    }
}

#[test]
fn the_number_of_addresses_is_bounded_and_the_first_beyond_it_is_named() {
    let addresses =
        |count| -> Vec<_> { (0..count).map(|port| format!("127.0.0.1:{port}")).collect() };
    assert!(accepts(|c| c.listen = addresses(64)));
    assert_eq!(
        complaint(|c| c.listen = addresses(0)),
        "listen: expected a number of addresses from 1 to 64, found 0",
    );
    assert_eq!(
        complaint(|c| c.listen = addresses(65)),
        "listen: expected at most 64 addresses, found 127.0.0.1:64 too",
    );
}
