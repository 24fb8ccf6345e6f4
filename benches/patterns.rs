//! Times what the patterns cost on top of the calls that they stand around.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use plimsoll::patterns::{
    Ask, Balance, Balancer, CircuitBreaker, Deadline, Endpoint, Failed, Retry, Throttle,
    ThrottleKey,
};

use crate::common::timing::{contended, settings};

pub(crate) fn run() {
    let mut criterion = settings();
    for pattern in [deadline, retry, breaker, balancer, throttle] {
        pattern(&mut criterion);
    }
}

/// A call that succeeds and costs nothing.
fn succeed() -> Result<u32, ()> {
    black_box(Ok(1))
}

fn far() -> Deadline {
    Deadline::after(Duration::from_secs(60 * 60))
}

fn deadline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deadline");
    group.bench_function("Deadline::remaining", |bencher| {
        let deadline = far();
        bencher.iter(|| black_box(deadline).remaining());
    });
    group.finish();
}

fn retry(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("retry");
    let deadline = far();
    for threads in [1, 2] {
        group.bench_function(format!("Retry::call, threads: {threads}"), |bencher| {
            let retry = Retry::new();
            let call = || {
                let result = retry.call(deadline, |_| succeed().map_err(Failed::again));
                assert_eq!(result, Ok(1));
            };
            bencher.iter_custom(|each| contended(threads, each, call));
        });
    }
    group.finish();
}

fn breaker(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("breaker");
    for threads in [1, 2] {
        group.bench_function(
            format!("CircuitBreaker::call, threads: {threads}"),
            |bencher| {
                let breaker = CircuitBreaker::new("bench");
                let call = || assert_eq!(breaker.call(succeed), Ok(1));
                bencher.iter_custom(|each| contended(threads, each, call));
            },
        );
        group.bench_function(
            format!("CircuitBreaker::permit, threads: {threads}"),
            |bencher| {
                let breaker = CircuitBreaker::new("bench");
                let call = || breaker.permit().expect("it is closed").success();
                bencher.iter_custom(|each| contended(threads, each, call));
            },
        );
        group.bench_function(format!("refused, threads: {threads}"), |bencher| {
            let breaker = CircuitBreaker::builder("bench")
                .failures(1)
                .open_for(Duration::from_secs(60 * 60), Duration::from_secs(60 * 60))
                .build();
            assert!(breaker.call(|| Err::<(), _>(())).is_err());
            let call = || assert!(breaker.call(succeed).is_err());
            bencher.iter_custom(|each| contended(threads, each, call));
        });
    }
    group.finish();
}

fn balancer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("balancer");
    let deadline = far();
    for (name, way) in [
        ("latency", Balance::Latency),
        ("round-robin", Balance::RoundRobin),
        ("hash", Balance::Hash),
    ] {
        for (endpoints, threads) in [(3, 1), (3, 2), (256, 1)] {
            let id = format!("{name}, endpoints: {endpoints}, threads: {threads}");
            group.bench_function(id, |bencher| {
                let balancer = Balancer::new(way);
                let set = (0..endpoints).map(|number| {
                    let name = format!("10.0.0.{number}:80");
                    Endpoint::new(&name, ()).breaker(CircuitBreaker::new(&*name))
                });
                balancer.replace(set).expect("they are at most 256");
                let ask = Ask::by(deadline).key(b"a key");
                let call = || balancer.pick(ask).expect("all are well").success();
                bencher.iter_custom(|each| contended(threads, each, call));
            });
        }
    }
    group.finish();
}

/// A check with as many keys as a throttle knows: each asks in turn, so that the slot of none is in the cache.
fn throttle(criterion: &mut Criterion) {
    const KEYS: u32 = 65_536;
    let mut group = criterion.benchmark_group("throttle");
    for (name, keys) in [("known", KEYS), ("new", u32::MAX)] {
        group.bench_function(format!("Throttle::check, 65,536 keys, {name}"), |bencher| {
            let throttle = Throttle::new("1000/s".parse().expect("a rate"));
            let now = Instant::now();
            // An odd step visits every key, and none after its neighbour.
            let mut key = 0_u32;
            let mut check = || {
                key = key.wrapping_add(0x9E37_79B1) % keys;
                throttle.check(ThrottleKey::Address(key.to_be_bytes().into()), now)
            };
            for _ in 0..KEYS {
                let _ = black_box(check());
            }
            bencher.iter(check);
        });
    }
    group.finish();
}
