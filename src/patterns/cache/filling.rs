//! The body of a reply that is to be kept.

use std::sync::Arc;

use super::blocks::{BLOCK, Growing};
use super::control::Scope;
use super::fetch::Ticket;
use super::flight::Outcome;
use super::freshness::CacheTime;
use super::store::Entry;

/// Takes the body of a reply that is to be kept, while it is relayed. Those who wait go on when it is
/// [finished](Self::finish). Dropped before that, as when the body was cut, nothing is kept.
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
        Self {
            ticket,
            entry: Some(entry),
            body: Growing::default(),
            reserved: 0,
            length,
        }
    }

    /// The next bytes of the body. What does not fit is not kept; the relaying is not concerned.
    pub fn write(&mut self, mut bytes: &[u8]) {
        while self.entry.is_some() && !bytes.is_empty() {
            if self.body.needs_block() && !self.reserve_block() {
                self.give_up();
                return;
            }
            bytes = self.body.push(bytes);
        }
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
        self.body = Growing::default();
        self.release();
        self.ticket.land(Outcome::NotShared, CacheTime::now());
    }

    fn release(&mut self) {
        let bytes = std::mem::take(&mut self.reserved);
        self.ticket.shared.state().store.release(bytes);
    }

    /// The body is whole. If it is shorter than its Content-Length said, nothing is kept.
    pub fn finish(mut self, now: CacheTime) {
        let Some(mut entry) = self.entry.take() else {
            return;
        };
        if self.length.is_some_and(|length| length != self.body.len()) {
            return;
        }
        entry.body = Arc::new(std::mem::take(&mut self.body).finish());
        let is_fresh = entry.freshness.left(now.monotonic).is_some()
            && entry.directives.no_cache != Scope::Whole;
        let reserved = std::mem::take(&mut self.reserved);
        let mut state = self.ticket.shared.state();
        state.store.release(reserved);
        let is_valid = state.fetches.is_valid(&self.ticket.place);
        if is_valid {
            state.store.insert(self.ticket.place.key.clone(), entry);
        }
        drop(state);
        let shared = is_valid && is_fresh;
        let outcome = if shared {
            Outcome::Kept
        } else {
            Outcome::NotShared
        };
        self.ticket.land(outcome, now);
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.release();
    }
}
