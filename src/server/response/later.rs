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

/// A reply that waits for something.
pub(crate) enum Later {
    /// For something in this process.
    #[cfg_attr(
        not(feature = "cache"),
        expect(dead_code, reason = "only the cache has it")
    )]
    Told {
        /// Has this called once it is worth going on.
        when_ready: Box<dyn FnOnce(Wake) + Send>,
        /// Goes on.
        then: Continuation,
    },
    /// For another server.
    Waiting(Box<dyn Waiting>),
}

/// Tells that it is worth going on.
pub(crate) type Wake = Box<dyn FnOnce() + Send>;

/// What is to be done with a request that was waiting.
pub(crate) type Continuation = Box<dyn FnOnce(&mut Request) -> Response + Send>;

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

    /// The client has left. Where others wait for the same, it may go on elsewhere with the request.
    fn leave(self: Box<Self>, _request: Request) {}
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
