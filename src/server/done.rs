//! A worker's word to the event loop: what became of a job.

use std::sync::Arc;
use std::time::Instant;

use super::event_loop::connection::{CloseReason, Piece};
use super::exchange::Exchange;
use super::stream::Stream;
use super::task::Waits;

/// A worker's word that it is done with a job.
#[derive(Debug)]
pub(crate) struct Done {
    /// When.
    pub(crate) at: Instant,
    /// `None` when the job was not about one.
    pub(crate) exchange: Option<Arc<Exchange>>,
    pub(crate) result: Ended,
    /// It was none of the workers that did it.
    pub(crate) aside: bool,
}

impl Done {
    /// Whether nothing is left to do but to wait for the client's next request.
    pub(crate) fn awaits_next_request(&self) -> bool {
        self.result.is_sent()
            && matches!(
                self.result,
                Ended::Replied {
                    then: Then::Keep,
                    ..
                }
            )
    }

    /// When a request that waits is to go on at the latest.
    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.result {
            Ended::Waits(waits) => Some(waits.waiting.due()),
            _ => None,
        }
    }
}

/// What became of a job.
#[derive(Debug)]
pub(crate) enum Ended {
    /// A reply: what the socket has not taken yet, and what comes then.
    Replied { rest: Vec<Piece>, then: Then },
    /// The reply can't be made whole: the connection must close, for that reason.
    Broken(CloseReason),
    /// It waits, and the event loop is told when it is worth going on.
    Waits(Box<Waits>),
    /// Nothing is left to do: it was abandoned, or was no request.
    Dropped,
}

impl Ended {
    /// Whether the last byte of a reply was given to the socket.
    pub(crate) fn is_sent(&self) -> bool {
        let Self::Replied { rest, then } = self else {
            return false;
        };
        rest.is_empty() && !matches!(then, Then::More(_))
    }
}

/// What comes after the part of a reply that was sent.
#[derive(Debug)]
pub(crate) enum Then {
    /// The next request.
    Keep,
    /// The connection closes.
    Close,
    /// The rest of the reply, once the client has read what came before.
    More(Stream),
}
