//! One signal drains every server that waits for it.

use std::sync::Mutex;
use std::time::Duration;

use crate::error::Error;
use crate::server::exchange::lock;
use crate::server::handle::Handle;

/// The servers that a signal drains: one list for the process, since a signal is sent to a process.
static SERVERS: Mutex<Servers> = Mutex::new(Servers {
    handlers_installed: false,
    next: 0,
    waiting: Vec::new(),
});

struct Servers {
    handlers_installed: bool,
    /// The number of the next server; none is used again.
    next: u64,
    waiting: Vec<Waiting>,
}

struct Waiting {
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

/// From now on the first SIGINT or SIGTERM drains this server, and one that finds no server to drain ends the process.
///
/// # Errors
/// The handlers can't be installed.
pub(super) fn register(server: Handle, drain: Duration) -> Result<Registration, Error> {
    let mut servers = lock(&SERVERS);
    if !servers.handlers_installed {
        ctrlc::set_handler(handle_signal).map_err(Error::Signals)?;
        servers.handlers_installed = true;
    }
    let number = servers.next;
    servers.next += 1;
    servers.waiting.push(Waiting {
        number,
        server,
        drain,
        told: false,
    });
    Ok(Registration { number })
}

/// It runs on a thread of its own, so it may take locks.
fn handle_signal() {
    let mut servers = lock(&SERVERS);
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
