//! The binary under a service manager: what it tells, and the sockets that it is passed.

use std::env;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::kit::Plimsoll;
use crate::kit::process::TempDir;
use crate::kit::{Client, PATIENCE, get};

const LOOPBACK: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// What a service manager hears.
struct Manager {
    socket: UnixDatagram,
    /// What goes into `NOTIFY_SOCKET`.
    name: String,
    /// Where its file is, until the end.
    _directory: Option<TempDir>,
}

impl Manager {
    fn at_a_path() -> Self {
        let directory = TempDir::new("notify");
        let path = directory.path().join("notify");
        Self {
            socket: UnixDatagram::bind(&path).expect("the directory is there"),
            name: path.to_str().expect("a path of text").to_owned(),
            _directory: Some(directory),
        }
    }

    fn without_a_file() -> Self {
        let name = format!("plimsoll-test-notify-{}", std::process::id());
        let address = net::SocketAddr::from_abstract_name(&name).expect("a short name");
        Self {
            socket: UnixDatagram::bind_addr(&address).expect("a name of our own"),
            name: format!("@{name}"),
            _directory: None,
        }
    }

    /// Starts the binary under this manager.
    fn start(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Plimsoll {
        let ours = ("NOTIFY_SOCKET", self.name.as_str());
        let variables: Vec<_> = variables.iter().copied().chain([ours]).collect();
        Plimsoll::start(&[&LOOPBACK, arguments].concat(), &variables)
    }

    /// The lines of the next message; `None` when there is none within that time.
    fn hear_within(&self, time: Duration) -> Option<Vec<String>> {
        let timeout = self.socket.set_read_timeout(Some(time));
        timeout.expect("a time above 0");
        let mut buffer = [0; 4096];
        let length = loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => break length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                // As when the process was stopped, and goes on.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("the socket fails: {error}"),
            }
        };
        let text = str::from_utf8(&buffer[..length]).expect("a message of text");
        Some(text.lines().map(str::to_owned).collect())
    }

    #[track_caller]
    fn hear(&self) -> Vec<String> {
        self.hear_within(PATIENCE).expect("a message")
    }

    /// Hears messages until one has that line.
    #[track_caller]
    fn hear_until(&self, line: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.hear().iter().any(|heard| heard == line) {
            assert!(Instant::now() < deadline, "never: {line}");
        }
    }
}

#[test]
fn a_manager_hears_that_it_is_ready_once_it_listens_and_that_it_stops() {
    for manager in [Manager::at_a_path(), Manager::without_a_file()] {
        let server = manager.start(&["--drain", "0"], &[]);
        assert_eq!(manager.hear(), ["READY=1", "STATUS=healthy"]);
        TcpStream::connect(server.address()).expect("it listens");
        server.terminate();
        assert_eq!(
            manager.hear(),
            [
                "STOPPING=1",
                "STATUS=draining",
                "EXTEND_TIMEOUT_USEC=1000000"
            ]
        );
        let (status, _, lines) = server.exit();
        assert_eq!(status.code(), Some(0), "{lines:?}");
    }
}

#[test]
fn a_manager_is_told_how_long_a_long_drain_takes() {
    let manager = Manager::at_a_path();
    let server = manager.start(&["--drain", "2m", "--work", "1h", "--workers", "1"], &[]);
    manager.hear_until("READY=1");
    // What is in flight keeps it from ending early; it is killed at the end.
    let mut held = Client::connect(server.address());
    held.get("/");
    server.terminate();
    manager.hear_until("EXTEND_TIMEOUT_USEC=121000000");
}

#[test]
fn a_manager_hears_of_a_trip() {
    let manager = Manager::at_a_path();
    let literal = [
        "--gate",
        "literal",
        "--threshold",
        "1us",
        "--cooldown",
        "1h",
    ];
    let server = manager.start(&literal, &[]);
    manager.hear_until("STATUS=healthy");
    assert_eq!(get(server.address(), "/").status, 200);
    manager.hear_until("STATUS=unhealthy: resetting");
}

#[test]
fn a_store_that_is_down_is_named_and_the_signs_of_life_go_on() {
    for (option, status) in [(",critical", "unhealthy"), ("", "warning")] {
        let manager = Manager::at_a_path();
        let check = format!("db=tcp://127.0.0.1:1,interval=200ms,fall=2{option}");
        let _server = manager.start(&["--check", &check], &[("WATCHDOG_USEC", "400000")]);
        manager.hear_until(&format!("STATUS={status}: db is down"));
        for _ in 0..4 {
            manager.hear_until("WATCHDOG=1");
        }
    }
}

#[test]
fn signs_of_life_come_at_half_the_watchdogs_time_and_end_when_every_worker_is_stuck() {
    let manager = Manager::at_a_path();
    let stuck = ["--work", "1h", "--workers", "2", "--gate", "off"];
    let timeout = ["--request-timeout", "300ms", "--queue-budget", "1h"];
    let server = manager.start(
        &[&stuck[..], &timeout].concat(),
        &[("WATCHDOG_USEC", "400000")],
    );

    manager.hear_until("WATCHDOG=1");
    let first = Instant::now();
    for _ in 0..4 {
        manager.hear_until("WATCHDOG=1");
    }
    // The first may have been heard late, by up to one.
    assert!(first.elapsed() >= Duration::from_millis(3 * 200));

    let address = server.address();
    let mut held = [(); 2].map(|()| Client::connect(address));
    for client in &mut held {
        client.get("/");
    }
    manager.hear_until("STATUS=unhealthy: every worker is stuck");
    let end = Instant::now() + Duration::from_secs(2);
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        if let Some(lines) = manager.hear_within(left.max(Duration::from_millis(1))) {
            assert!(!lines.iter().any(|line| line == "WATCHDOG=1"), "{lines:?}");
        }
    }
}

#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    let manager = Manager::at_a_path();
    let variables = [("WATCHDOG_USEC", "2000"), ("WATCHDOG_PID", "1")];
    let server = manager.start(&["--drain", "0"], &variables);
    assert_eq!(manager.hear(), ["READY=1", "STATUS=healthy"]);
    // Hundreds would have come by then.
    assert_eq!(manager.hear_within(Duration::from_secs(1)), None);
    server.terminate();
    assert_eq!(manager.hear()[0], "STOPPING=1");
}

#[test]
fn a_manager_that_is_not_there_is_logged_once_and_changes_nothing() {
    for name in [
        "/nonexistent/notify",
        "@plimsoll-test-nobody",
        "vsock:2:1234",
    ] {
        let variables = [("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "2000")];
        let server = Plimsoll::start(&[&LOOPBACK[..], &["--drain", "0"]].concat(), &variables);
        assert_eq!(get(server.address(), "/livez").status, 200);
        let line = server.next_line();
        assert!(
            line.contains("[WARN]") && line.contains("service manager"),
            "{line}"
        );
        server.terminate();
        let (status, _, lines) = server.exit();
        assert_eq!(status.code(), Some(0));
        let complaints = lines.iter().filter(|line| line.contains("[WARN]"));
        assert_eq!(complaints.count(), 0, "{lines:?}");
    }
}

/// Starts the binary with a descriptor passed as systemd passes it: as number 3, to the process of that id.
fn start_with(descriptor: impl Into<OwnedFd>, process: &str, arguments: &[&str]) -> Plimsoll {
    let script = format!("LISTEN_FDS=1 LISTEN_PID={process} exec \"$0\" \"$@\" 3<&0 </dev/null");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script, env!("CARGO_BIN_EXE_plimsoll")])
        .args(arguments)
        .stdin(Stdio::from(descriptor.into()));
    Plimsoll::spawn(command, &[])
}

/// A socket that listens, and its address.
fn listening(at: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(at).expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

#[test]
fn a_socket_that_is_passed_is_served_instead_of_listen() {
    let (_taken, taken) = listening("127.0.0.1:0");
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let (listener, address) = listening(at);
        // Who comes before the server is up finds it all the same.
        let mut early = Client::connect(address);
        early.get("/livez");
        let server = start_with(listener, "$$", &["--listen", &taken.to_string()]);
        assert_eq!(server.address(), address);
        assert_eq!(early.reply().status, 200);
        assert_eq!(get(address, "/").status, 200);
    }
}

#[test]
fn a_socket_that_was_passed_to_another_process_is_left_alone() {
    let (listener, address) = listening("127.0.0.1:0");
    let server = start_with(listener, "1", &LOOPBACK);
    let own = server.address();
    assert_ne!(own, address);
    assert_eq!(get(own, "/livez").status, 200);
}

#[test]
fn what_is_no_listening_tcp_socket_exits_1_and_says_so() {
    let (listener, address) = listening("127.0.0.1:0");
    let connection = TcpStream::connect(address).expect("it listens");
    let directory = TempDir::new("passed");
    let unix = UnixListener::bind(directory.path().join("unix")).expect("the directory is there");
    let file = std::fs::File::open("/dev/null").expect("it is there");
    let (accepted, _) = listener.accept().expect("it has connected");
    let cases: [(OwnedFd, &str); 4] = [
        (connection.into(), "it is a connection from 127.0.0.1:"),
        (accepted.into(), "it is a connection from 127.0.0.1:"),
        (unix.into(), "fd 3 is not a valid tcp socket"),
        (file.into(), "fd 3 is not a socket"),
    ];
    for (descriptor, expected) in cases {
        let (status, _, lines) = start_with(descriptor, "$$", &LOOPBACK).exit();
        assert_eq!(status.code(), Some(1), "{lines:?}");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(expected), "{lines:?}");
    }
}
