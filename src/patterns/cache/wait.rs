//! A request that waits for another's fetch.

use std::sync::Arc;
use std::time::Instant;

use super::control::Directives;
use super::flight::{Flight, Notice};
use super::freshness::CacheTime;
use super::key::Key;
use super::reply::CachedReply;
use super::request::{OwnedRequest, Question};
use super::reuse::may_stand_for_error;
use super::{Lookup, SharedCache};

/// A request for what another is fetching.
///
/// Either block in [`wait`](Self::wait), or hold no thread: have [`when_ended`](Self::when_ended) tell that the fetch
/// has ended, then [`resume`](Self::resume).
#[derive(Debug, Clone)]
#[must_use = "the request is still to be answered"]
pub struct Wait {
    pub(super) shared: Arc<SharedCache>,
    pub(super) key: Key,
    pub(super) request: OwnedRequest,
    pub(super) flight: Arc<Flight>,
    pub(super) waits: u8,
}

impl Wait {
    /// Blocks until the other fetch has ended, then looks up again. None if the deadline is over before; a kept reply
    /// that may be given stale for that is then returned.
    #[must_use]
    pub fn wait(self, deadline: Instant) -> Option<Lookup> {
        let outcome = self.flight.wait(deadline);
        let now = CacheTime::now();
        match outcome {
            Some(_) => Some(self.resume(now)),
            None => self.give_up(now).map(Lookup::Reply),
        }
    }

    /// Calls `wake` when the other fetch has ended, on the thread that ends it; at once if it has. It should do no more
    /// than wake another thread. Once what is returned is dropped, nothing is called any more.
    pub fn when_ended(&self, wake: impl FnOnce() + Send + 'static) -> Notice {
        self.flight.when_ended(Box::new(wake))
    }

    /// Whether the other fetch has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.flight.outcome().is_some()
    }

    /// Looks up again. Before the other fetch has ended, that is most often to wait again.
    #[must_use]
    pub fn resume(self, now: CacheTime) -> Lookup {
        let question = Question {
            key: &self.key,
            method: &self.request.method,
            fields: &self.request.fields,
            waits: self.waits + 1,
            outcome: self.flight.outcome(),
        };
        self.shared.lookup(&question, false, now)
    }

    /// The request can wait no longer. A kept reply that may be given stale for that is returned.
    #[must_use]
    pub fn give_up(&self, now: CacheTime) -> Option<CachedReply> {
        let mut state = self.shared.state();
        let kept = state.store.find(&self.key, &self.request.fields)?;
        let directives = Directives::of(&self.request.fields);
        if !may_stand_for_error(&kept, &directives, now.monotonic) {
            return None;
        }
        state.counts.stale += 1;
        drop(state);
        let is_head = self.request.is_head();
        Some(CachedReply::hit(
            &kept,
            &self.request.fields,
            is_head,
            now.monotonic,
        ))
    }
}
