//! The binary as a user starts it: options, variables, standard error, signals, exit.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Instant;

use super::PATIENCE;

/// A running binary, killed when dropped.
pub(crate) struct Plimsoll {
    child: Child,
    /// Its lines, as they come.
    pub(crate) stderr: Receiver<String>,
}

impl Plimsoll {
    /// Starts the binary in an environment with no variables of its own but these.
    pub(crate) fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        command.args(arguments).stdin(Stdio::null());
        Self::spawn(command, variables)
    }

    /// Starts a command that becomes the binary, likewise.
    pub(crate) fn spawn(mut command: Command, variables: &[(&str, &str)]) -> Self {
        const OURS: [&str; 4] = ["PLIMSOLL_", "NOTIFY_", "WATCHDOG_", "LISTEN_"];
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if OURS.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        let mut child = command
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let (sender, stderr) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, stderr }
    }

    /// The address in the next `listening on` line of standard error.
    pub(crate) fn address(&self) -> SocketAddr {
        loop {
            let line = self.next_line();
            if let Some((_, address)) = line.split_once("listening on http://") {
                return address.parse().expect("an address and nothing after it");
            }
        }
    }

    /// The next line of standard error.
    pub(crate) fn next_line(&self) -> String {
        self.stderr
            .recv_timeout(PATIENCE)
            .expect("a line on standard error")
    }

    /// Sends SIGTERM once it is caught: the addresses are logged before the wait for a signal.
    pub(crate) fn terminate(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.catches_sigterm() {
            assert!(Instant::now() < deadline, "SIGTERM is not caught");
            thread::yield_now();
        }
        let status = Command::new("sh")
            .args(["-c", &format!("kill -TERM {}", self.child.id())])
            .status()
            .expect("sh runs");
        assert!(status.success(), "kill: {status}");
    }

    /// Reads the mask of caught signals, see `proc_pid_status(5)`.
    fn catches_sigterm(&self) -> bool {
        const SIGTERM: u32 = 15;
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the child is there until it is waited for");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let mask = u64::from_str_radix(mask.expect("a mask").trim(), 16).expect("a mask in hex");
        mask & (1 << (SIGTERM - 1)) != 0
    }

    /// Waits for the exit; gives its status, what is on standard output and the lines left on
    /// standard error.
    pub(crate) fn exit(mut self) -> (ExitStatus, String, Vec<String>) {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        // Standard error ends when the process does.
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stderr.recv_timeout(left) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("still running after {lines:?}"),
            }
        }
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                break status;
            }
            assert!(Instant::now() < deadline, "still running after {lines:?}");
            thread::yield_now();
        };
        let mut stdout = String::new();
        self.child
            .stdout
            .take()
            .expect("stdout is piped")
            .read_to_string(&mut stdout)
            .expect("stdout is text");
        (status, stdout, lines)
    }
}

impl Drop for Plimsoll {
    fn drop(&mut self) {
        // Either fails only when the child has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
