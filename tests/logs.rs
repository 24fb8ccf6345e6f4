//! The log: what is said, and that nobody ever waits for whoever reads it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use crate::kit::{Client, PATIENCE, get, wait_until};

/// A binary whose standard error is read only when a test does so; killed when dropped.
struct Unread {
    child: Child,
    /// Until a test reads it.
    stderr: Option<BufReader<ChildStderr>>,
    address: SocketAddr,
}

impl Unread {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(Stdio::null(), arguments)
    }

    fn start_with(stdout: Stdio, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .env_clear()
            .env("PLIMSOLL_QUEUE_BUDGET", "30s")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let address = loop {
            let mut line = String::new();
            assert!(stderr.read_line(&mut line).expect("text") > 0, "it ended");
            if let Some((_, address)) = line.trim_end().split_once("listening on http://") {
                break address.parse().expect("an address");
            }
        };
        Self {
            child,
            stderr: Some(stderr),
            address,
        }
    }

    /// Its lines from here on.
    fn read(&mut self) -> Receiver<String> {
        let stderr = self.stderr.take().expect("it is read once");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // The test may be over.
                let _ = sender.send(line);
            }
        });
        lines
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status();
        assert!(status.expect("kill runs").success());
    }

    fn metric(&self, name: &str) -> f64 {
        let page = get(self.address, "/metrics");
        let line = page.text().lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("no {name}"));
        value.trim().parse().expect("a number")
    }

    /// Serves requests whose log lines nobody reads, until some are lost.
    fn lose_lines(&self) {
        let mut client = Client::connect(self.address);
        let target = format!("/{}", "x".repeat(7_000));
        wait_until("lines are dropped", || {
            for _ in 0..20 {
                assert_eq!(client.get(&target).reply().status, 404);
            }
            self.metric(DROPPED) > 0.0
        });
    }
}

/// The next line that contains this.
#[track_caller]
fn await_line(lines: &Receiver<String>, text: &str) -> String {
    loop {
        let line = lines.recv_timeout(PATIENCE).expect(text);
        if line.contains(text) {
            return line;
        }
    }
}

const DROPPED: &str = "plimsoll_dropped_lines_total{log=\"stderr\"}";

impl Drop for Unread {
    fn drop(&mut self) {
        // Either fails only when the child has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It hung altogether, its liveness included, as soon as the pipe was full.
#[test]
fn a_stderr_that_nobody_reads_costs_lines_and_nothing_else() {
    let mut server = Unread::start(&["--log-level", "debug"]);
    server.lose_lines();
    assert_eq!(get(server.address, "/livez").status, 200);
    let lines = server.read();
    wait_until("the gap is told", || {
        // One more request may be what there is to write after the gap.
        assert_eq!(get(server.address, "/livez").status, 200);
        lines
            .try_iter()
            .any(|line| line.contains("lines of the log were dropped"))
    });
}

#[test]
fn a_stop_does_not_wait_for_a_stderr_that_nobody_reads() {
    for second in [false, true] {
        let drain = if second { "1h" } else { "0" };
        let mut server = Unread::start(&["--log-level", "debug", "--drain", drain]);
        server.lose_lines();
        server.signal("-TERM");
        if second {
            wait_until("it drains", || {
                get(server.address, "/readyz").text() == "draining\n"
            });
            server.signal("-TERM");
        }
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = server.child.try_wait().expect("a child") {
                break status;
            }
            assert!(Instant::now() < deadline, "it hangs");
            thread::yield_now();
        };
        assert_eq!(status.code(), Some(i32::from(second)), "second: {second}");
    }
}

#[test]
fn an_access_log_into_a_closed_pipe_costs_lines_and_nothing_else() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let server = Unread::start_with(writer.into(), &["--access-log", "-"]);
    for _ in 0..3 {
        assert_eq!(get(server.address, "/").status, 200);
    }
    wait_until("the lost lines are counted", || {
        server.metric("plimsoll_dropped_lines_total{log=\"access\"}") > 2.5
    });
    assert_eq!(get(server.address, "/livez").status, 200);
}

/// Ten thousand requests were refused, and the log said nothing.
#[test]
fn shedding_is_in_the_log_with_its_reason() {
    let mut server = Unread::start(&[
        "--workers",
        "1",
        "--queue-max",
        "0",
        "--work",
        "1h",
        "--request-timeout",
        "1h",
        "--drain",
        "0",
    ]);
    let mut held = Client::connect(server.address);
    held.get("/");
    wait_until("a request is refused", || {
        // Which of the two is served depends on who comes first.
        let mut client = Client::connect(server.address);
        client.get("/nothing");
        client.reply().status == 503
    });
    let lines = server.read();
    let line = await_line(&lines, "shedding begins: ");
    assert!(
        line.contains("[WARN]") && line.contains("(queue "),
        "{line}"
    );
    server.signal("-TERM");
    await_line(&lines, "shedding ended ");
}
