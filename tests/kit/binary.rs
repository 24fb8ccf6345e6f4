//! The binary as a user starts it: options, variables, standard error, signals, exit.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::usage::{Usage, loop_time, threads};
use super::{PATIENCE, get, wait_until};

pub(crate) const SIGHUP: u32 = 1;
pub(crate) const SIGUSR1: u32 = 10;
pub(crate) const SIGTERM: u32 = 15;

/// A running binary, killed when dropped.
pub(crate) struct Plimsoll {
    child: Child,
    log: Arc<Log>,
}

/// What it writes to standard error.
#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<String>,
    /// How many of them [`Plimsoll::next_line`] has given.
    given: usize,
    /// Whether standard error has been closed, as it is when the process ends.
    ended: bool,
}

impl Log {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the lines while `condition` holds; panics when it holds for too long.
    #[track_caller]
    fn wait_while(&self, condition: impl Fn(&Lines) -> bool) -> MutexGuard<'_, Lines> {
        let waited = self
            .changed
            .wait_timeout_while(self.lines(), PATIENCE, |lines| condition(lines));
        let (lines, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "it goes on after {:?}", lines.all);
        lines
    }

    fn add(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.lines());
        self.changed.notify_all();
    }
}

impl Plimsoll {
    /// Starts the binary in an environment with no variables of its own but these, and one: on a busy machine a worker may
    /// wake later than a request is to wait for it by default, and few tests are about that.
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
            .env("PLIMSOLL_QUEUE_BUDGET", "30s")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let log = Arc::new(Log::default());
        let kept = log.clone();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                kept.add(|lines| lines.all.push(line));
            }
            kept.add(|lines| lines.ended = true);
        });
        Self { child, log }
    }

    /// The next line of standard error.
    #[track_caller]
    pub(crate) fn next_line(&self) -> String {
        let waits = |lines: &Lines| lines.given == lines.all.len() && !lines.ended;
        let mut lines = self.log.wait_while(waits);
        let line = lines.all.get(lines.given).cloned();
        lines.given += 1;
        line.unwrap_or_else(|| panic!("no more lines after {:?}", lines.all))
    }

    /// The address in the next `listening on` line of standard error.
    #[track_caller]
    pub(crate) fn address(&self) -> SocketAddr {
        loop {
            let line = self.next_line();
            if let Some((_, address)) = line.split_once("listening on http://") {
                return address.parse().expect("an address and nothing after it");
            }
        }
    }

    /// How many lines of standard error, so far, hold `text`.
    pub(crate) fn logged(&self, text: &str) -> usize {
        let lines = self.log.lines();
        lines.all.iter().filter(|line| line.contains(text)).count()
    }

    pub(crate) fn id(&self) -> String {
        self.child.id().to_string()
    }

    /// Sends SIGTERM once it is caught: the addresses are logged before the wait for a signal.
    pub(crate) fn terminate(&self) {
        wait_until("SIGTERM is caught", || self.catches(SIGTERM));
        self.signal("-TERM");
    }

    /// Sends the signal of that name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.id()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Reads the mask of caught signals, see `proc_pid_status(5)`.
    pub(crate) fn catches(&self, signal: u32) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("the child is there until it is waited for");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let mask = u64::from_str_radix(mask.expect("a mask").trim(), 16).expect("a mask in hex");
        mask & (1 << (signal - 1)) != 0
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the exit; gives its status, what is on standard output and the lines left on
    /// standard error.
    #[track_caller]
    pub(crate) fn exit(mut self) -> (ExitStatus, String, Vec<String>) {
        let mut lines = self.log.wait_while(|lines| !lines.ended);
        let given = lines.given;
        let left = lines.all.split_off(given);
        drop(lines);
        wait_until("it ends", || !self.is_running());
        let status = self.child.wait().expect("the child can be waited for");
        let mut stdout = String::new();
        self.child
            .stdout
            .take()
            .expect("stdout is piped")
            .read_to_string(&mut stdout)
            .expect("stdout is text");
        (status, stdout, left)
    }
}

impl Drop for Plimsoll {
    fn drop(&mut self) {
        // Either fails only when the child has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary serving on a port of its own.
pub(crate) struct Serving {
    pub(crate) process: Plimsoll,
    pub(crate) address: SocketAddr,
}

impl Serving {
    #[track_caller]
    pub(crate) fn start(arguments: &[&str]) -> Self {
        // The hard limit, since many of these tests open thousands of connections.
        Self::start_under("ulimit -n \"$(ulimit -H -n)\"", arguments)
    }

    /// Starts it after a shell has run `preparation`.
    #[track_caller]
    pub(crate) fn start_under(preparation: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("{preparation}; exec \"$0\" \"$@\""))
            .arg(env!("CARGO_BIN_EXE_plimsoll"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::null());
        let process = Plimsoll::spawn(command, &[]);
        let address = process.address();
        // It listens before its last thread, which waits for signals, has started.
        wait_until("it awaits signals", || {
            threads(&process.id())
                .iter()
                .any(|name| name == "plimsoll-signal")
        });
        Self { process, address }
    }

    /// The sum of a metric's values over its labels, of which one contains `label`.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, label: &str) -> u64 {
        metric_in(get(self.address, "/metrics").text(), name, label)
    }

    /// What the system says of it.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.process.id())
    }

    /// Waits until it uses no more than `before`, give or take `memory` KiB that the allocator keeps.
    #[track_caller]
    pub(crate) fn await_usage(&mut self, before: Usage, memory: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(self.process.is_running(), "the server has ended");
            let now = self.usage();
            let back = now.threads <= before.threads
                && now.descriptors <= before.descriptors
                && now.memory <= before.memory + memory;
            if back {
                return;
            }
            assert!(Instant::now() < deadline, "{before:?} became {now:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// CPU time that the event loop's thread has used.
    pub(crate) fn loop_time(&self) -> Duration {
        loop_time(&self.process.id())
    }

    /// CPU time that it has used since `before`.
    pub(crate) fn loop_time_since(&self, before: Duration) -> Duration {
        self.loop_time().saturating_sub(before)
    }
}

/// The same as [`Serving::metric`], for a page that has been read already.
#[track_caller]
pub(crate) fn metric_in(page: &str, name: &str, label: &str) -> u64 {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let of_this = rest.starts_with(['{', ' ']) && rest.contains(label);
        rest.rsplit_once(' ').filter(|_| of_this)?.1.parse().ok()
    });
    let values: Vec<u64> = values.collect();
    assert!(!values.is_empty(), "no {name} with {label:?} in {page}");
    values.iter().sum()
}
