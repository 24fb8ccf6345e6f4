//! The listening sockets of one listener, and when accepting pauses.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};

/// After a failed accept, how long until the next try.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the log hears of pauses at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Acceptor {
    sockets: Vec<TcpListener>,
    /// The socket to ask first, so that no one of them starves the others.
    next: usize,
    /// A connection may be waiting.
    ready: bool,
    /// All connections are in use: not before one is given back.
    full: bool,
    /// Descriptors or memory had run out: not before this.
    paused_until: Option<Instant>,
    logged: Option<Instant>,
}

/// What an attempt to accept gave.
#[derive(Debug)]
pub(crate) enum Accepted {
    Client(TcpStream, SocketAddr),
    /// Nobody waits.
    Nobody,
    /// Somebody waited, and gave up or lost the network (accept(2)): the next one's turn.
    Gone,
    /// Descriptors or memory have run out; accepting pauses.
    Exhausted,
}

impl Acceptor {
    pub(crate) fn new(sockets: Vec<TcpListener>) -> Self {
        Self {
            sockets,
            next: 0,
            ready: true,
            full: false,
            paused_until: None,
            logged: None,
        }
    }

    /// Notes that a connection may be waiting.
    pub(crate) fn set_ready(&mut self) {
        self.ready = true;
    }

    /// Whether an accept is worth trying at `now`.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.ready && !self.full && self.paused_until.is_none_or(|until| now >= until)
    }

    /// When accepting goes on by itself.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.paused_until.filter(|_| self.ready && !self.full)
    }

    /// Notes that all connections are in use, which are `most`.
    pub(crate) fn pause(&mut self, most: usize, now: Instant) {
        self.full = true;
        self.log_pause(&format_args!("all {most} connections are in use"), now);
    }

    /// Whether accepting waits for a connection to be given back.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Notes that a connection has been given back: a paused accept may go on.
    pub(crate) fn resume(&mut self) {
        self.full = false;
        self.paused_until = None;
    }

    /// Notes that a connection is idle, and could be given back.
    pub(crate) fn make_room(&mut self) {
        self.full = false;
    }

    pub(crate) fn accept(&mut self, now: Instant) -> Accepted {
        let mut empty = 0;
        while empty < self.sockets.len() {
            let listener = &self.sockets[self.next % self.sockets.len()];
            match listener.accept() {
                Ok((socket, peer)) => return Accepted::Client(socket, peer),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.next = (self.next + 1) % self.sockets.len();
                    empty += 1;
                }
                // Its caller counts these too: should a system say this without end, others still have their turn.
                Err(error) if is_the_clients(&error) => return Accepted::Gone,
                Err(error) => {
                    self.paused_until = Some(now + PAUSE);
                    self.log_pause(&error, now);
                    return Accepted::Exhausted;
                }
            }
        }
        self.ready = false;
        Accepted::Nobody
    }

    fn log_pause(&mut self, why: &dyn fmt::Display, now: Instant) {
        let quiet = self.logged.map(|at| now.saturating_duration_since(at));
        if quiet.is_none_or(|quiet| quiet >= LOG_EVERY) {
            self.logged = Some(now);
            log::warn!("accepting pauses: {why}");
        }
    }

    /// Closes the sockets: from now on the system refuses new connections.
    pub(crate) fn close(&mut self) {
        self.sockets.clear();
        self.ready = false;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sockets.is_empty()
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::TimedOut
    )
}
