//! One request in flight: who may answer it, since when, and where the reply goes.
//!
//! A worker, the request's deadline and the client's disconnect race for an exchange. One
//! compare-and-exchange on its stage decides, so that a request is answered exactly once:
//!
//! ```text
//!             worker takes it          worker has the reply
//!   Waiting ───────────────▶ Running ───────────────▶ Replying ◀────▶ Resuming
//!      │                        │                                        │
//!      └────────────────────────┴──▶ Abandoned ◀─────────────────────────┘
//!                            (504, shed, or the client has gone)
//! ```

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mio::net::TcpStream;

use crate::server::event_loop::connection::Incoming;
use crate::server::response::Stream;

/// Where an exchange stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Handed over; no worker has it yet.
    Waiting,
    /// A worker runs the handler.
    Running,
    /// A worker owns the client's socket until it says "done".
    Replying,
    /// The client has read what came before; a worker is to go on with the reply.
    Resuming,
    /// The frontend has answered it, or nobody is left to answer.
    Abandoned,
}

/// What of a request's head shapes the reply to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplyRules {
    /// HTTP/1.1: chunks are understood and kept-alive is the default.
    pub(crate) http11: bool,
    /// The reply to HEAD has no body.
    pub(crate) head_only: bool,
    /// The client lets the connection be kept.
    pub(crate) keep_alive: bool,
}

impl ReplyRules {
    /// Nothing is known of the head: the reply has a body, and the connection closes.
    pub(crate) const UNKNOWN: Self = Self {
        http11: true,
        head_only: false,
        keep_alive: false,
    };
}

/// The place of a client in the frontend: a slot, and which of the slot's clients in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientKey {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// Where a request came from, and how its reply has to look.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) client: ClientKey,
    pub(crate) peer: SocketAddr,
    /// The client's socket: the frontend reads it; whoever holds the reply writes to it.
    pub(crate) socket: Arc<TcpStream>,
    pub(crate) rules: ReplyRules,
}

/// How a request was let in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admitted {
    /// When it was whole.
    pub(crate) at: Instant,
    /// The gate's epoch then.
    pub(crate) epoch: u64,
    /// Whether the gate's half-open state lives on its outcome.
    pub(crate) probe: bool,
}

/// One request in flight, shared by the frontend and the worker that has it.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) origin: Origin,
    pub(crate) admitted: Admitted,
    /// When the client gets 504 instead.
    pub(crate) deadline: Instant,
    stage: AtomicU8,
    /// The client has sent more already, or has ended: the frontend waits for this exchange's end.
    awaited: AtomicBool,
    /// What came, until a worker takes it.
    request: Mutex<Option<Box<Incoming>>>,
    /// A reply whose rest waits for the client to read.
    parked: Mutex<Option<Stream>>,
}

impl Exchange {
    /// A request that is whole and admitted.
    pub(crate) fn new(
        origin: Origin,
        admitted: Admitted,
        deadline: Instant,
        request: Box<Incoming>,
    ) -> Self {
        Self {
            origin,
            admitted,
            deadline,
            stage: AtomicU8::new(Stage::Waiting as u8),
            awaited: AtomicBool::new(false),
            request: Mutex::new(Some(request)),
            parked: Mutex::new(None),
        }
    }

    /// Moves from one stage to the next; false when another got there first.
    pub(crate) fn advance(&self, from: Stage, to: Stage) -> bool {
        self.stage
            .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Whether it stands at `stage` now.
    pub(crate) fn is(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::Acquire) == stage as u8
    }

    /// Notes that the frontend waits for the end of this exchange.
    pub(crate) fn set_awaited(&self) {
        self.awaited.store(true, Ordering::SeqCst);
    }

    /// Whether the frontend waits for the end of this exchange.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::SeqCst)
    }

    /// What came, once.
    pub(crate) fn take_request(&self) -> Option<Box<Incoming>> {
        lock(&self.request).take()
    }

    /// Sets the rest of a reply aside until the client has read what came before.
    pub(crate) fn park(&self, stream: Stream) {
        *lock(&self.parked) = Some(stream);
    }

    /// The rest of a reply, if one is set aside.
    pub(crate) fn unpark(&self) -> Option<Stream> {
        lock(&self.parked).take()
    }
}

/// A lock whose holder panicked still guards whole data here: every critical section is a move.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
