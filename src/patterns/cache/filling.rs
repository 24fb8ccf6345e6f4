//! The body of a reply that is to be kept.

use std::sync::Arc;

use super::blocks::{BLOCK, Growing};
use super::flight::FetchOutcome;
use super::freshness::CacheTime;
use super::reply::{CachedBody, CachedReply};
use super::reuse::may_be_given;
use super::store::Entry;
use super::ticket::Ticket;

/// Takes the body of a reply that is to be kept, while it is relayed. Those who wait go on when it is
/// [finished](Self::finish). When the body was cut, [say so](Self::fail). Dropped before, it keeps nothing either, and
/// another of those who wait goes on in its place.
#[derive(Debug)]
pub struct Filling {
    ticket: Ticket,
    entry: Option<Entry>,
    body: Growing,
    /// Bytes set apart in the store.
    reserved: usize,
    length: Option<usize>,
}

impl Filling {
    pub(super) fn new(ticket: Ticket, entry: Entry, length: Option<usize>) -> Self {
        let spare = Arc::clone(&ticket.shared.spare);
        Self {
            ticket,
            entry: Some(entry),
            body: Growing::new(spare),
            reserved: 0,
            length,
        }
    }

    /// The next bytes of the body; how many of them it takes. Of a body that does not fit it takes no more, and keeps
    /// nothing; the relaying is not concerned.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while self.entry.is_some() && !rest.is_empty() {
            if self.body.needs_block() && !self.reserve_block() {
                self.give_up();
                break;
            }
            rest = self.body.push(rest);
        }
        bytes.len() - rest.len()
    }

    /// Keeps nothing, and lets those go on who wait, each with a fetch of its own. What it has taken is given back.
    #[must_use]
    pub fn into_body(mut self) -> CachedBody {
        self.give_up();
        CachedBody::new(Arc::new(self.body.finish()))
    }

    /// The body was cut, or malformed: nothing is kept. A kept reply that may be given stale for that is returned.
    #[must_use]
    pub fn fail(mut self, now: CacheTime) -> Option<CachedReply> {
        let status = self.entry.take().map(|entry| entry.status);
        self.ticket.land(FetchOutcome::Failed, now);
        self.ticket.stale(status, now)
    }

    /// Sets bytes apart for one more block; false if that would be too many for one reply, or for all that are coming.
    fn reserve_block(&mut self) -> bool {
        let shared = &self.ticket.shared;
        let fits = self.body.len() < shared.most_of_one && shared.state().store.reserve(BLOCK);
        self.reserved += if fits { BLOCK } else { 0 };
        fits
    }

    fn give_up(&mut self) {
        self.entry = None;
        self.release();
        self.ticket.land(FetchOutcome::NotShared, CacheTime::now());
    }

    fn release(&mut self) {
        let bytes = std::mem::take(&mut self.reserved);
        self.ticket.shared.state().store.release(bytes);
    }

    /// The body is whole, and is given back. If it is shorter than its Content-Length said, or did not fit, nothing is
    /// kept.
    #[expect(clippy::must_use_candidate, reason = "it keeps the body")]
    pub fn finish(mut self, now: CacheTime) -> CachedBody {
        let body = Arc::new(self.body.finish());
        let whole = CachedBody::new(Arc::clone(&body));
        let Some(mut entry) = self.entry.take() else {
            return whole;
        };
        if self.length.is_some_and(|length| length != body.len()) {
            return whole;
        }
        entry.body = body;
        let is_fresh = may_be_given(&entry, now.monotonic);
        let reserved = std::mem::take(&mut self.reserved);
        let mut state = self.ticket.shared.state();
        state.store.release(reserved);
        let is_valid = state.fetches.is_valid(&self.ticket.place);
        if is_valid {
            state.store.insert(self.ticket.place.key.clone(), entry);
        }
        drop(state);
        let outcome = FetchOutcome::of_storable(is_valid, is_fresh);
        self.ticket.land(outcome, now);
        whole
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.release();
    }
}
