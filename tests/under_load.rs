//! Stopping while 64 clients go at full speed: whoever was let in gets a whole reply, and the process ends in time.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::{Client, Serving, wait_until};

#[derive(Default)]
struct Tally {
    whole: AtomicUsize,
    after_signal: AtomicUsize,
    /// Replies that ended in their middle.
    cut: AtomicUsize,
    /// Requests on a connection that was in use and had not been told to close, without a byte in reply.
    dropped: AtomicUsize,
    /// The same on a new connection, which the server may not have accepted when it stopped.
    unaccepted: AtomicUsize,
}

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Requests at full speed, on one connection for as long as the server keeps it, until nobody listens.
fn full_speed(address: SocketAddr, signalled: &AtomicBool, tally: &Tally) {
    while let Ok(mut client) = Client::try_connect(address) {
        let mut fresh = true;
        loop {
            match client.try_send(GET).and_then(|()| client.try_reply()) {
                Ok(reply) => {
                    tally.whole.fetch_add(1, Ordering::Relaxed);
                    if signalled.load(Ordering::Relaxed) {
                        tally.after_signal.fetch_add(1, Ordering::Relaxed);
                    }
                    if !reply.whole {
                        tally.cut.fetch_add(1, Ordering::Relaxed);
                    }
                    if reply.closes() {
                        break;
                    }
                    fresh = false;
                }
                Err(error) => {
                    let what = match error.kind() {
                        io::ErrorKind::Other => &tally.cut,
                        _ if fresh => &tally.unaccepted,
                        _ => &tally.dropped,
                    };
                    what.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
    }
}

fn stop_under_load(drain: u64, arguments: &[&str]) {
    let drain_option = format!("--drain={drain}s");
    let server = Serving::start(&[&[&drain_option[..]], arguments].concat());
    let address = server.address;
    let tally = Tally::default();
    let signalled = AtomicBool::new(false);
    let began = thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| full_speed(address, &signalled, &tally));
        }
        wait_until("the load is on", || {
            tally.whole.load(Ordering::Relaxed) > 1000
        });
        server.process.terminate();
        signalled.store(true, Ordering::Relaxed);
        Instant::now()
    });
    let (status, _, lines) = server.process.exit();
    let took = began.elapsed();
    assert_eq!(status.code(), Some(0), "{lines:?}");
    // The drain, what a join may take, and a busy machine.
    assert!(took < Duration::from_secs(drain + 3), "it took {took:?}");
    let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    assert_eq!(count(&tally.cut), 0, "replies were cut");
    assert_eq!(count(&tally.dropped), 0, "requests in use were dropped");
    assert!(count(&tally.after_signal) > 0, "it did not go on serving");
    let unaccepted = count(&tally.unaccepted);
    println!("{} whole, {unaccepted} not accepted", count(&tally.whole));
    assert!(unaccepted <= 64, "{unaccepted} connections ended unserved");
}

#[test]
fn whoever_was_let_in_is_answered_by_handlers_that_compute() {
    stop_under_load(2, &[]);
}

#[test]
fn whoever_was_let_in_is_answered_by_handlers_that_wait() {
    // The last fifth of the drain is for those who were let in last: enough of it for a busy machine.
    stop_under_load(4, &["--work", "3ms", "--queue-budget", "1s"]);
}

#[test]
fn clients_that_hold_on_do_not_keep_it_from_ending() {
    let server = Serving::start(&["--drain", "1s"]);
    let mut idle = Client::connect(server.address);
    assert_eq!(idle.get("/").reply().status, 200);
    let mut half = Client::connect(server.address);
    half.send("GET / HTTP/1.1\r\nHost: lo");
    let mut in_body = Client::connect(server.address);
    in_body.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx");
    let silent = Client::connect(server.address);
    wait_until("all are accepted", || {
        server.metric("plimsoll_connections", "") > 4
    });
    server.process.terminate();
    let began = Instant::now();
    let (status, _, lines) = server.process.exit();
    assert_eq!(status.code(), Some(0), "{lines:?}");
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert!(idle.ends());
    drop(silent);
}
