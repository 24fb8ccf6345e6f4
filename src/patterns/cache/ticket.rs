//! The right to make a fetch.

use std::sync::Arc;

use super::SharedCache;
use super::control::Directives;
use super::fields::Fields;
use super::flight::{FetchOutcome, Place};
use super::freshness::CacheTime;
use super::reply::CachedReply;
use super::request::OwnedRequest;
use super::reuse::may_stand_for_error;
use super::status::{Forward, push_forward};
use super::store::Entry;

/// A fetch's place among those under way, and the request that it is for. Dropped, the place is given back, and whoever
/// waits goes on.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) shared: Arc<SharedCache>,
    pub(super) place: Place,
    pub(super) request: OwnedRequest,
    /// The kept reply that answers the request, if there is one.
    pub(super) kept: Option<Arc<Entry>>,
    /// Why it is made.
    pub(super) forward: Forward,
    /// The request has waited for others before.
    pub(super) collapsed: bool,
}

impl Ticket {
    /// Lets those go on who wait.
    pub(super) fn land(&mut self, outcome: FetchOutcome, now: CacheTime) {
        let mut state = self.shared.state();
        let flight = state.fetches.land(&mut self.place, outcome, now.monotonic);
        drop(state);
        if let Some(flight) = flight {
            flight.end(outcome);
        }
    }

    /// The kept reply, where it may stand for an error. `status`: what the origin answered, if it did.
    pub(super) fn stale(&self, status: Option<u16>, now: CacheTime) -> Option<CachedReply> {
        let kept = self.kept.as_ref()?;
        let directives = Directives::of(&self.request.fields);
        if !may_stand_for_error(kept, &directives, now.monotonic) {
            return None;
        }
        let mut reply = self.reply(kept, now);
        self.note(&mut reply.fields, status, false);
        Some(reply)
    }

    /// Says in Cache-Status why the fetch was made, and what came of it. `status`: what the origin answered, where a reply
    /// was kept before.
    pub(super) fn note(&self, fields: &mut Fields, status: Option<u16>, stored: bool) {
        push_forward(fields, self.forward, status, stored, self.collapsed);
    }

    /// What the request gets of this kept reply.
    pub(super) fn reply(&self, kept: &Entry, now: CacheTime) -> CachedReply {
        let is_head = self.request.is_head();
        CachedReply::new(kept, &self.request.fields, is_head, now.monotonic)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.land(FetchOutcome::Abandoned, CacheTime::now());
        self.shared.state().fetches.end(&self.place);
    }
}
