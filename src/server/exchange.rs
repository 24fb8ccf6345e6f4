//! One request in flight: who may answer it, since when, and where the reply goes.
//!
//! A worker, the request's deadline and the client's disconnect race for an exchange. One
//! compare-and-exchange on its stage decides, so that a request is answered exactly once:
//!
//! ```text
//!            begins           reply at hand
//!   Waiting ───────▶ Running ──────────────▶ Replying
//!      │  ◀───────      │  │ a part at hand      ▲
//!      │   waits on     │  └──────▶ Streaming ───┘ the end at hand
//!      ▼                ▼               ▼
//!      └──────────▶ Abandoned ◀─────────┘
//!       (refused, 504, cut, or the client has gone)
//! ```
//!
//! Whoever moves it to `Replying` or `Abandoned` also counts it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::server::client_socket::ClientSocket;

/// How long another server is waited for at least for a client that sends nothing more, and is taken to have left then: so
/// that server is told to stop within 2 s.
pub(crate) const LONG_WAIT: Duration = Duration::from_secs(1);

/// Where an exchange stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// No worker has it: none has begun it yet, or it waits for something else, and nobody waits with it.
    Waiting,
    /// A worker runs the handler, or waits for the first byte of its reply. Nothing has been sent.
    Running,
    /// A part of the reply is out; the next part is made, or waits for the client.
    Streaming,
    /// All that is left of the reply is at hand and is being sent: that waits for nobody.
    Replying,
    /// The event loop has answered it, or nobody is left to answer.
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

/// The place of a client in the event loop: a slot, and which of the slot's clients in turn.
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
    /// Where the request began: the peer, or for whom it asks if it is a trusted proxy.
    pub(crate) client_ip: IpAddr,
    /// The client's socket: the event loop reads it; whoever holds the reply writes to it.
    pub(crate) socket: Arc<ClientSocket>,
    pub(crate) rules: ReplyRules,
}

/// One request in flight, shared by the event loop and the worker that has it.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) origin: Origin,
    /// When it was whole, and let in.
    pub(crate) admitted: Instant,
    /// When the client gets 504 instead.
    pub(crate) deadline: Instant,
    stage: AtomicU8,
    /// When a worker began it; told only where the access log asks.
    began: OnceLock<Instant>,
    /// The reply's status, from the stage [`Streaming`](Stage::Streaming) on.
    status: AtomicU16,
    /// The client has sent more already, or has ended: the event loop waits for this exchange's end.
    awaited: AtomicBool,
}

impl Exchange {
    /// A request that is whole and admitted.
    pub(crate) fn new(origin: Origin, admitted: Instant, deadline: Instant) -> Self {
        Self {
            origin,
            admitted,
            deadline,
            stage: AtomicU8::new(Stage::Waiting as u8),
            began: OnceLock::new(),
            status: AtomicU16::new(0),
            awaited: AtomicBool::new(false),
        }
    }

    /// Moves from one stage to the next; false when another got there first.
    pub(crate) fn advance(&self, from: Stage, to: Stage) -> bool {
        self.stage
            .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Takes it from whoever would answer it, if nothing has been sent; false when somebody took it before.
    pub(crate) fn abandon(&self) -> bool {
        self.advance(Stage::Waiting, Stage::Abandoned)
            || self.advance(Stage::Running, Stage::Abandoned)
    }

    /// Moves on to [`Streaming`](Stage::Streaming) with a reply of that status.
    pub(crate) fn begin_stream(&self, status: u16) -> bool {
        self.status.store(status, Ordering::Relaxed);
        self.advance(Stage::Running, Stage::Streaming)
    }

    /// The status of the reply of which a part is out.
    pub(crate) fn status(&self) -> u16 {
        self.status.load(Ordering::Relaxed)
    }

    /// Notes when a worker began it.
    pub(crate) fn set_began(&self, began: Instant) {
        // Only one worker begins it.
        self.began.get_or_init(|| began);
    }

    /// How long it waited for a worker, until `now` if it still does.
    pub(crate) fn waited(&self, now: Instant) -> Duration {
        let end = self.began.get().copied().unwrap_or(now);
        end.saturating_duration_since(self.admitted)
    }

    /// Whether it stands at `stage` now.
    pub(crate) fn is(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::Acquire) == stage as u8
    }

    /// Notes that the event loop waits for the end of this exchange.
    pub(crate) fn wake_at_end(&self) {
        self.awaited.store(true, Ordering::SeqCst);
    }

    /// Whether the event loop waits for the end of this exchange.
    pub(crate) fn wakes_at_end(&self) -> bool {
        self.awaited.load(Ordering::SeqCst)
    }
}
