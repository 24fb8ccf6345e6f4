//! Times the parts: the average, the gate, the judging of heads, and a client's conversation.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::Duration;

use criterion::{Criterion, Throughput};

use crate::common::inputs::{BROWSER, GET, POST, POST_BODY, REPLY};
use crate::common::timing::{contended, settings};
use plimsoll::Ewma;
use plimsoll::internals::{ClosedGate, Conversation, decode_chunked, parse_head};

pub(crate) fn run() {
    let mut criterion = settings();
    for part in [average, gate, heads, bodies, connections] {
        part(&mut criterion);
    }
}

fn average(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("average");
    for threads in [1, 2, 4] {
        group.bench_function(format!("Ewma::add, threads: {threads}"), |bencher| {
            let average = Ewma::new(30);
            bencher.iter_custom(|each| contended(threads, each, || average.add(black_box(0.5))));
        });
        // The same sum behind a lock: what the compare-and-exchange has to beat.
        group.bench_function(format!("Mutex<f64>, threads: {threads}"), |bencher| {
            let average = Mutex::new(0.0);
            let add = || {
                let mut average = average.lock().expect("no holder panics");
                *average += 2.0 / 31.0 * (black_box(0.5) - *average);
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

/// What a request costs at a closed gate: two times its lock, and under that both averages.
fn gate(criterion: &mut Criterion) {
    const SERVICE: Duration = Duration::from_micros(5);
    let mut group = criterion.benchmark_group("gate");
    for threads in [1, 2, 4] {
        group.bench_function(format!("closed, threads: {threads}"), |bencher| {
            let gate = ClosedGate::new();
            bencher.iter_custom(|each| {
                contended(threads, each, || {
                    assert!(gate.pass(black_box(SERVICE)), "the gate is closed");
                })
            });
        });
    }
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
