//! Signals, for the servers that wait for them, and for no others.
//!
//! | signal | what it does |
//! |---|---|
//! | SIGINT, SIGTERM | drains every server that waits; once all of them drain, ends the process |
//! | SIGHUP | the same, unless it was ignored when the first server came to wait: then it stays so |
//! | SIGUSR1 | each goes on in a new access log; only where a server has one |
//!
//! A program's own handlers of these are called too.

use std::fs;
use std::io;
use std::sync::Mutex;
use std::thread::Builder;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::{Handle as SignalsHandle, Signals};

use crate::error::Error;
use crate::panics::lock;
use crate::server::handle::Handle;

/// The servers that a signal drains: one list for the process, since a signal is sent to a process.
static SERVERS: Mutex<Servers> = Mutex::new(Servers {
    watch: None,
    next: 0,
    waiting: Vec::new(),
});

struct Servers {
    /// Which signals are handled, once any are.
    watch: Option<SignalsHandle>,
    /// The number of the next server; none is used again.
    next: u64,
    waiting: Vec<WaitingServer>,
}

struct WaitingServer {
    number: u64,
    server: Handle,
    drain: Duration,
    /// A signal has come since it waits.
    told: bool,
}

/// A server waits for signals for as long as this lives.
#[derive(Debug)]
pub(super) struct Registration {
    number: u64,
}

/// From now on the first signal to stop drains this server, and one that finds no server to drain ends the process.
///
/// # Errors
/// The handlers can't be installed, or there is no thread for them.
pub(super) fn register(server: Handle, drain: Duration) -> Result<Registration, Error> {
    let mut servers = lock(&SERVERS);
    if servers.watch.is_none() {
        servers.watch = Some(watch().map_err(Error::Signals)?);
    }
    if let Some(watch) = &servers.watch
        && server.has_access_log()
    {
        watch.add_signal(SIGUSR1).map_err(Error::Signals)?;
    }
    let number = servers.next;
    servers.next += 1;
    servers.waiting.push(WaitingServer {
        number,
        server,
        drain,
        told: false,
    });
    Ok(Registration { number })
}

/// Installs the handlers, and starts the thread that acts.
fn watch() -> io::Result<SignalsHandle> {
    let hangup = (!is_hangup_ignored()).then_some(SIGHUP);
    let mut signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(hangup))?;
    let watch = signals.handle();
    Builder::new()
        .name("plimsoll-signal".into())
        .spawn(move || signals.forever().for_each(handle_signal))?;
    Ok(watch)
}

/// Whether SIGHUP is ignored, as under nohup; also where the system does not say so.
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status");
    let mask = status.ok().and_then(|status| ignored(&status));
    mask.is_none_or(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}

/// The mask of ignored signals, see `proc_pid_status(5)`.
fn ignored(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// It runs on a thread of its own, so it may take locks.
fn handle_signal(signal: i32) {
    let mut servers = lock(&SERVERS);
    if signal == SIGUSR1 {
        for waiting in &servers.waiting {
            waiting.server.reopen_access_log();
        }
        return;
    }
    let mut untold = servers.waiting.iter_mut().filter(|waiting| !waiting.told);
    let Some(first) = untold.next() else {
        // Without a word: nothing may hold it up.
        std::process::exit(1);
    };
    for waiting in std::iter::once(first).chain(untold) {
        waiting.told = true;
        waiting.server.shutdown(waiting.drain);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let waiting = &mut lock(&SERVERS).waiting;
        waiting.retain(|waiting| waiting.number != self.number);
    }
}

#[cfg(test)]
mod tests;
