//! Requests that wait for another server, with no worker.
//!
//! ```text
//!   worker: sends what can be sent, has the socket watched ──▶ event loop: it is ready, or the time is over
//!      ▲                                                           │ resume: never blocks
//!      │ what may block                                            ▼
//!      └─────────────────────────────────────────────────── waits on, or replies
//! ```

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Registry, Token};

use super::request::Request;
use super::response::{Continuation, Response};
use super::task::Task;
use crate::net::stream::{Interest, Socket};

/// What a request waits for. The event loop has it, so it never blocks and runs no user's code, not even when it is dropped.
pub(crate) trait Waiting: Send {
    /// Has the event loop told when the socket that it waits for is ready; nothing if it waits for the time alone.
    ///
    /// # Errors
    /// The event queue's refusal.
    fn watch(&self, registry: &Registry, token: Token) -> io::Result<()>;

    /// When it goes on at the latest.
    fn due(&self) -> Instant;

    /// Goes on, since something may have happened to the socket, or since it is [due](Self::due).
    fn resume(self: Box<Self>, request: &Request, event: Trigger, now: Instant) -> Resumed;
}

/// Has the event loop told of a socket's readiness under this token from now on: first if it is ready already. A
/// connection that is kept stays with the event loop, under the token that it had last; what is told of it then comes to
/// nothing.
///
/// # Errors
/// The event queue's refusal.
pub(crate) fn watch(
    socket: &Socket,
    registry: &Registry,
    token: Token,
    interest: Interest,
) -> io::Result<()> {
    let interest = match interest {
        Interest::Readable => mio::Interest::READABLE,
        Interest::Writable => mio::Interest::WRITABLE,
        Interest::Either => mio::Interest::READABLE | mio::Interest::WRITABLE,
    };
    let descriptor = socket.as_fd().as_raw_fd();
    let mut source = SourceFd(&descriptor);
    match registry.reregister(&mut source, token, interest) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            registry.register(&mut source, token, interest)
        }
        done => done,
    }
}

/// Why it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The socket may be ready, or has failed.
    Ready {
        /// There may be something to read.
        readable: bool,
    },
    /// It is due.
    Due,
}

/// What came of it.
pub(crate) enum Resumed {
    /// It waits on, for the same socket or for the time.
    Waits(Box<dyn Waiting>),
    Replies(Response),
    /// What follows may block, so it is for a worker.
    Works(Continuation),
}

/// A request that waits.
pub(crate) struct Waits {
    pub(crate) task: Task,
    pub(crate) waiting: Box<dyn Waiting>,
}

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waits")
            .field("task", &self.task)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
