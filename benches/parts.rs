//! Times the parts: the average, the judging of heads, and a client's conversation.
//!
//! Run with `cargo bench --bench parts --features internals`.

use std::hint::black_box;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use plimsoll::Ewma;
use plimsoll::internals::{Conversation, decode_chunked, parse_head};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

const BROWSER: &[u8] = b"GET /orders/4711?page=2&sort=date HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://shop.example.com/orders\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=c2Vzc2lvbi1pZC1vZi1hLWN1c3RvbWVy; theme=dark; consent=1\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-User: ?1\r\n\
    Priority: u=0, i\r\n\
    If-None-Match: \"5f3b-61a2c4d9\"\r\n\r\n";

const POST: &[u8] = b"POST /orders HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 27\r\n\
    Accept: application/json\r\n\r\n";

const POST_BODY: &[u8] = b"{\"article\": 17, \"count\": 2}";

const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";

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
    for threads in [1, 2] {
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

/// With QUICK=1 each measurement is as short as it can be and still say something.
fn settings() -> Criterion {
    let criterion = Criterion::default();
    if std::env::var_os("QUICK").is_none() {
        return criterion.measurement_time(Duration::from_secs(3));
    }
    criterion
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
}

criterion_group!(
    name = parts;
    config = settings();
    targets = average, heads, bodies, connections
);
criterion_main!(parts);
