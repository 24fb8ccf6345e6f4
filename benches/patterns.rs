//! What the patterns cost on top of the calls that they stand around: time, and memory.

use std::any::Any;
use std::hint::black_box;
use std::time::{Duration, Instant};
use std::{fs, io};

use criterion::Criterion;
use plimsoll::patterns::{
    Ask, Balance, Balancer, CircuitBreaker, Deadline, Endpoint, Failed, Retry, RetryBudget,
    Throttle, ThrottleKey,
};

use crate::common::timing::{contended, settings};
use crate::common::{self, Report};

pub(crate) fn run() -> io::Result<()> {
    memory()?;
    let mut criterion = settings();
    for pattern in [deadline, retry, breaker, balancer, throttle] {
        pattern(&mut criterion);
    }
    Ok(())
}

/// Many of each: pages are counted, not bytes.
const MANY: u32 = 100_000;

/// What one of each has resident, of [`MANY`].
fn memory() -> io::Result<()> {
    let mut report = Report::new("Patterns");
    report.line(&common::machine());
    // They stay until the end: what one gives back the next would take.
    let mut kept: Vec<Box<dyn Any>> = Vec::new();
    let mut rows = vec![vec![
        "Deadline".to_owned(),
        format!("{} bytes", size_of::<Deadline>()),
    ]];
    let mut add = |name: &str, bytes: f64| {
        report.figure(&format!("memory, {name}"), &format!("{bytes:.0} bytes"));
        rows.push(vec![name.to_owned(), format!("{bytes:.0} bytes")]);
    };
    add("RetryBudget", each(&mut kept, |_| RetryBudget::default())?);
    add("Retry", each(&mut kept, |_| Retry::new())?);
    add(
        "CircuitBreaker",
        each(&mut kept, |_| CircuitBreaker::new("10.0.0.1:80"))?,
    );
    let balancer = |number: u32| {
        let balancer = Balancer::new(Balance::Latency);
        let names = (0..256).map(|one| format!("10.{}.{}.{one}:80", number >> 8, number & 0xff));
        let set = balancer.replace(names.map(|name| Endpoint::new(&name, ())));
        set.map(|()| balancer).map_err(io::Error::other)
    };
    let before = resident()?;
    let balancers = (0..400).map(balancer).collect::<io::Result<Vec<_>>>()?;
    add(
        "an endpoint of a Balancer",
        (resident()? - before) / (400.0 * 256.0),
    );
    kept.push(Box::new(balancers));
    let before = resident()?;
    let throttle = Throttle::new("1/h".parse().map_err(io::Error::other)?);
    let now = Instant::now();
    for key in 0..65_536_u32 {
        // Whether it may is all one.
        let _ = throttle.check(ThrottleKey::Address(key.to_be_bytes().into()), now);
    }
    add("a key of a Throttle", (resident()? - before) / 65_536.0);
    kept.push(Box::new(throttle));
    report.line("Resident for each of many:");
    report.table(&["", "memory"], &rows);
    report.save("patterns")
}

/// What each of [`MANY`] has resident, in bytes.
fn each<T: 'static>(kept: &mut Vec<Box<dyn Any>>, make: impl Fn(u32) -> T) -> io::Result<f64> {
    let before = resident()?;
    let all: Vec<T> = (0..MANY).map(make).collect();
    let after = resident()?;
    kept.push(Box::new(all));
    Ok((after - before) / f64::from(MANY))
}

/// What this process has resident, in bytes.
fn resident() -> io::Result<f64> {
    let pages = fs::read_to_string("/proc/self/statm")?;
    let pages = pages.split_ascii_whitespace().nth(1);
    let pages: Option<f64> = pages.and_then(|pages| pages.parse().ok());
    pages
        .map(|pages| pages * 4096.0)
        .ok_or_else(|| io::Error::other("/proc/self/statm can't be read"))
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
