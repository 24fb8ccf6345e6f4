//! Signals as a process gets them.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::kit::binary::{SIGHUP, SIGTERM, SIGUSR1};
use crate::kit::{Client, Latch, Plimsoll, Serving, Upstream, get, wait_until};

/// It ended, as its parent's terminal went.
#[test]
fn an_ignored_sighup_stays_ignored() {
    let server = Serving::start_under("trap '' HUP", &["--drain", "0"]);
    assert!(server.process.catches(SIGTERM) && !server.process.catches(SIGHUP));
    for _ in 0..3 {
        server.process.signal("-HUP");
        assert_eq!(get(server.address, "/readyz").text(), "ready\n");
    }
    server.process.terminate();
    let (status, ..) = server.process.exit();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_sighup_that_is_not_ignored_drains() {
    // Also where the tests themselves ignore it.
    let mut command = Command::new("env");
    command
        .args(["--default-signal=HUP", env!("CARGO_BIN_EXE_plimsoll")])
        .args(["--listen", "127.0.0.1:0", "--drain", "0"])
        .stdin(Stdio::null());
    let process = Plimsoll::spawn(command, &[]);
    process.address();
    wait_until("it is caught", || process.catches(SIGHUP));
    process.signal("-HUP");
    let (status, _, lines) = process.exit();
    assert_eq!(status.code(), Some(0));
    assert!(
        lines.iter().any(|line| line.contains("draining")),
        "{lines:?}"
    );
}

#[test]
fn sigusr1_is_left_alone_where_there_is_no_access_log() {
    let logging = Serving::start(&["--access-log", "/dev/null"]);
    wait_until("it is caught", || logging.process.catches(SIGUSR1));
    let silent = Serving::start(&[]);
    assert!(!silent.process.catches(SIGUSR1));
}

/// They were closed as idle, with their requests unread: as on a host that was suspended or moved.
#[test]
fn requests_that_come_while_it_is_stopped_are_answered_though_the_time_for_them_is_over_then() {
    let timeout = Duration::from_secs(2);
    let options = ["--head-timeout=2s", "--idle-timeout=2s"];
    let server = Serving::start(&[&options[..], &["--queue-budget=10s"]].concat());
    let connect = |_| Client::connect(server.address);
    let mut clients: Vec<_> = (0..64).map(connect).collect();
    wait_until("all of them are accepted", || {
        // The one that asks is among them.
        server.metric("plimsoll_connections_accepted_total", "") > 64
    });
    server.process.signal("-STOP");
    for client in &mut clients {
        client.get("/");
    }
    thread::sleep(timeout + timeout / 10);
    server.process.signal("-CONT");
    for client in &mut clients {
        assert_eq!(client.reply().status, 200);
    }
}

/// They were 504, and spoke against the service, which had answered in time.
#[test]
fn answers_that_come_while_it_is_stopped_are_passed_on_though_the_time_for_them_is_over_then() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    const REQUESTS: usize = 8;
    let latch = Arc::new(Latch::default());
    let held = latch.clone();
    let upstream = Upstream::start(move |_, stream| {
        held.pass();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes")
    });
    let url = upstream.url();
    let server = Serving::start(&["--upstream", &url, "--try-timeout=2s", "--retries=0"]);
    let mut clients = Client::asking(server.address, REQUESTS);
    wait_until("all have come", || upstream.asked().len() == REQUESTS);
    server.process.signal("-STOP");
    latch.open();
    thread::sleep(TIMEOUT + TIMEOUT / 10);
    server.process.signal("-CONT");
    for client in &mut clients {
        let reply = client.reply();
        assert_eq!((reply.status, reply.text()), (200, "yes"));
    }
}
