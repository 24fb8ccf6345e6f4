use super::*;
use crate::Server;
use std::thread;
use std::time::Instant;

const PATIENCE: Duration = Duration::from_secs(20);

fn await_that(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "never: {what}");
        thread::yield_now();
    }
}

/// The second server of a process could not wait for signals, and neither could one that came after the first.
#[test]
fn one_signal_drains_every_server_that_waits_and_those_that_come_later_wait_for_the_next() {
    let waiting = || lock(&SERVERS).waiting.len();
    for _ in 0..2 {
        let mut handles = Vec::new();
        let mut serving = Vec::new();
        for _ in 0..2 {
            let server = Server::builder().listen("127.0.0.1:0").start().unwrap();
            handles.push(server.handle());
            serving.push(thread::spawn(move || server.run_until_signal()));
        }
        await_that("both wait", || waiting() == 2);
        assert!(!serving.iter().any(thread::JoinHandle::is_finished));
        // Without the system's part: a real signal would reach the tests beside this one.
        handle_signal();
        for serving in serving {
            serving.join().unwrap().unwrap();
        }
        assert!(
            handles
                .iter()
                .all(|handle| handle.health().snapshot().draining)
        );
        assert_eq!(waiting(), 0);
    }
}
