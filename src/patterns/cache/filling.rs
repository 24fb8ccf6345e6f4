//! The body of a reply that is to be kept.

use std::sync::Arc;

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
    body: Vec<u8>,
    /// Bytes set apart in the store.
    reserved: usize,
    length: Option<usize>,
}

impl Filling {
    pub(super) fn new(ticket: Ticket, entry: Entry, length: Option<usize>) -> Self {
        let mut filling = Self {
            ticket,
            entry: Some(entry),
            body: Vec::new(),
            reserved: 0,
            length,
        };
        filling.grow(length.unwrap_or(0));
        filling
    }

    /// The next bytes of the body. What does not fit is not kept; the relaying is not concerned.
    pub fn write(&mut self, bytes: &[u8]) {
        let needed = self.body.len() + bytes.len();
        if self.entry.is_none() || !self.grow(needed) {
            return;
        }
        self.body.extend_from_slice(bytes);
    }

    /// Makes room for this many bytes in all, or gives up.
    fn grow(&mut self, needed: usize) -> bool {
        if needed <= self.body.capacity() {
            return true;
        }
        let most = self.ticket.shared.most_of_one;
        let capacity = match self.length {
            Some(length) => length,
            None => needed.next_power_of_two().clamp(needed, most.max(needed)),
        };
        let more = capacity.saturating_sub(self.reserved);
        if needed > capacity || capacity > most || !self.ticket.shared.state().store.reserve(more) {
            self.give_up();
            return false;
        }
        self.reserved += more;
        self.body.reserve_exact(capacity - self.body.len());
        true
    }

    fn give_up(&mut self) {
        self.entry = None;
        self.body = Vec::new();
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
        let mut body = std::mem::take(&mut self.body);
        body.shrink_to_fit();
        entry.body = Arc::new(body);
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
