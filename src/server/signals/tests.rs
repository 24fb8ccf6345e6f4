use super::*;
use crate::Server;
use crate::server::tests::await_that;
use std::thread;

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
        handle_signal(SIGTERM);
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

#[test]
fn the_mask_of_ignored_signals_is_read() {
    let status = "Name:\tplimsoll\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
    assert_eq!(ignored(status), Some(0x1001));
    for broken in ["", "SigIgn:", "SigIgn:\tnone"] {
        assert_eq!(ignored(broken), None, "{broken}");
    }
}
