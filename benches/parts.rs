//! Times the parts: the average, the judging of heads, a client's conversation, and the patterns.

use std::hint::black_box;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};

use crate::common;
use crate::common::inputs::{BROWSER, GET, POST, POST_BODY, REPLY};
use plimsoll::Ewma;
use plimsoll::internals::{Conversation, decode_chunked, parse_head};
use plimsoll::patterns::{Throttle, ThrottleKey};

pub(crate) fn run() {
    let mut criterion = settings();
    for part in [average, heads, bodies, connections, throttle] {
        part(&mut criterion);
    }
}

/// How long `threads` threads take for `each` additions each, all at once.
fn contended(threads: usize, each: u64, add: impl Fn(f64) + Sync) -> Duration {
    let start = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let adders: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    (0..each).for_each(|_| add(black_box(0.5)));
                })
            })
            .collect();
        start.wait();
        let begun = Instant::now();
        for adder in adders {
            adder.join().expect("adding does not panic");
        }
        begun.elapsed()
    })
}

fn average(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("average");
    for threads in [1, 2, 4] {
        group.bench_function(format!("Ewma::add, threads: {threads}"), |bencher| {
            let average = Ewma::new(30);
            bencher.iter_custom(|each| contended(threads, each, |sample| average.add(sample)));
        });
        // The same sum behind a lock: what the compare-and-exchange has to beat.
        group.bench_function(format!("Mutex<f64>, threads: {threads}"), |bencher| {
            let average = Mutex::new(0.0);
            let add = |sample| {
                let mut average = average.lock().expect("no holder panics");
                *average += 2.0 / 31.0 * (sample - *average);
            };
            bencher.iter_custom(|each| contended(threads, each, add));
        });
    }
    group.bench_function("Ewma::value", |bencher| {
        let average = Ewma::new(30);
        average.add(0.5);
        bencher.iter(|| black_box(&average).value());
    });
}

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    for (name, head) in [("GET", GET), ("browser", BROWSER), ("POST", POST)] {
        assert!(parse_head(head).is_some(), "{name} is acceptable");
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| parse_head(black_box(head))));
    }
}

fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunked body, 64 KiB");
    for size in [1, 64, 4096] {
        let chunk = format!("{size:x}\r\n{}\r\n", "x".repeat(size));
        let body = chunk.repeat(64 * 1024 / size) + "0\r\n\r\n";
        assert_eq!(decode_chunked(body.as_bytes()), Some(64 * 1024));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("in chunks of {size}"), |bencher| {
            bencher.iter(|| decode_chunked(black_box(body.as_bytes())));
        });
    }
}

fn connections(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("connection");
    let post = [POST, POST_BODY].concat();
    for (name, count, input) in [
        ("one kept-alive GET", 1, GET.to_vec()),
        ("one kept-alive POST", 1, post),
        ("16 pipelined GETs", 16, GET.repeat(16)),
    ] {
        let mut conversation = Conversation::new();
        assert_eq!(conversation.serve(&input, REPLY), count, "{name}");
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| conversation.serve(black_box(&input), REPLY));
        });
    }
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

/// With QUICK=1 each measurement is as short as it can be and still say something.
fn settings() -> Criterion {
    let criterion = Criterion::default();
    if !common::quick() {
        return criterion
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_millis(1500));
    }
    criterion
        .sample_size(10)
        .nresamples(1000)
        .warm_up_time(Duration::from_millis(20))
        .measurement_time(Duration::from_millis(60))
}
