//! Replies that wait: for something in this process, or for another server. No worker waits with them.
//!
//! ```text
//!   worker: sends what can be sent, has the socket watched ──▶ event loop: it is ready, or the time is over
//!      ▲                                                           │ resume: never blocks
//!      │ what may block                                            ▼
//!      └─────────────────────────────────────────────────── waits on, or replies
//! ```

use std::io;
use std::time::Instant;

use mio::{Registry, Token};

use super::Response;
use crate::server::request::Request;

/// How the event loop is told that it may be worth going on.
pub(crate) struct Signals<'a> {
    /// By a socket that is registered here ...
    pub(crate) registry: &'a Registry,
    /// ... with this.
    pub(crate) token: Token,
    /// By what this makes.
    #[cfg_attr(
        not(feature = "cache"),
        expect(dead_code, reason = "only the cache waits for other requests")
    )]
    pub(crate) wake: &'a dyn Fn() -> Wake,
}

/// Tells the event loop, from any thread. It holds nothing of the request.
pub(crate) type Wake = Box<dyn FnOnce() + Send>;

/// What is to be done with a request that was waiting.
pub(crate) type Continuation = Box<dyn FnOnce(&mut Request) -> Response + Send>;

/// What a request waits for. The event loop has it, so it never blocks and runs no user's code, not even when it is dropped.
pub(crate) trait Waiting: Send {
    /// Has the event loop told when it is worth going on; nothing if it waits for the time alone.
    ///
    /// # Errors
    /// The event queue's refusal.
    fn watch(&mut self, signals: &Signals<'_>) -> io::Result<()>;

    /// When it goes on at the latest.
    fn due(&self) -> Instant;

    /// Goes on, since something may have happened, or since it is [due](Self::due).
    fn resume(self: Box<Self>, request: &Request, event: Trigger, now: Instant) -> Resumed;

    /// Whether another server has the request: as many of these wait at once as there are workers.
    fn asks_a_server(&self) -> bool {
        true
    }

    /// Whether other requests wait for the same, so that it goes on though its client has left.
    fn is_shared(&self) -> bool {
        false
    }
}

/// Why it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The socket may be ready, or has failed; or what else it waits for may have happened.
    Ready {
        /// There may be something to read.
        readable: bool,
    },
    /// It is due.
    Due,
}

/// What came of it.
pub(crate) enum Resumed {
    /// It waits on, for the same or for the time.
    Waits(Box<dyn Waiting>),
    Replies(Response),
    /// What follows may block, so it is for a worker.
    Works(Continuation),
}
