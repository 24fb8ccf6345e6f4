//! What the threads of a queue share, and what any of them may do with its events and dead letters.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use super::dead::{self, Dead};
use super::error::EventError;
use super::event::{DeadLetter, Event, EventId, Fingerprint, Stored, milliseconds};
use super::live::Live;
use super::log::Log;
use super::schedule::Arrival;

/// A log, and who owns it.
pub(crate) struct Owned<O> {
    pub(crate) owner: Arc<O>,
    pub(crate) log: Arc<Log>,
}

impl<O> Deref for Owned<O> {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.log
    }
}

/// What the queue's threads share.
pub(crate) struct SharedQueue {
    pub(crate) live: Owned<Live>,
    pub(crate) dead: Owned<Dead>,
    pub(crate) stopping: AtomicBool,
    pub(crate) delivered: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) died: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) dead_full: AtomicBool,
}

impl SharedQueue {
    /// Adds an event; it is durable when this returns.
    pub(crate) fn append(
        &self,
        id: EventId,
        event: &Event,
        fingerprint: Option<Fingerprint>,
    ) -> Result<EventId, EventError> {
        let live = &self.live;
        let accepted = milliseconds(SystemTime::now());
        let body = Stored::encode(id, accepted, fingerprint.as_ref(), None, event);
        let key = live.owner.hash(event.key.as_deref());
        let owner = Arc::clone(&live.owner);
        live.append(body, move |slot, sequence| {
            if let Some(fingerprint) = fingerprint {
                owner.keep_key(fingerprint, id);
            }
            let arrival = Arrival {
                sequence,
                key,
                accepted,
            };
            owner.arrived(slot, arrival);
        })?;
        live.owner.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(id)
    }

    /// The ids of all dead letters, the oldest first.
    pub(crate) fn ids(&self) -> Vec<EventId> {
        let letters = self.dead.owner.letters();
        letters.iter().map(|letter| letter.id).collect()
    }

    /// The body of a letter's record.
    pub(crate) fn record(&self, id: EventId) -> Result<Vec<u8>, EventError> {
        let letter = self.dead.owner.find(id).ok_or(EventError::Unknown)?;
        self.dead.read(letter.slot)?.ok_or(EventError::Unknown)
    }

    /// The letter in the body of a record. It may be another's by now, since slots are used again.
    pub(crate) fn letter(id: EventId, body: &[u8]) -> Result<DeadLetter, EventError> {
        dead::letter(body)
            .filter(|found| found.id == id)
            .ok_or(EventError::Unknown)
    }

    /// Queues a letter again.
    pub(crate) fn replay(&self, id: EventId) -> Result<(), EventError> {
        let letter = self.dead.owner.take(id).ok_or(EventError::Unknown)?;
        let read = self.dead.read(letter.slot).map_err(EventError::from);
        let queued = read.and_then(|body| {
            let found = Self::letter(id, &body.ok_or(EventError::Unknown)?)?;
            self.append(id, &found.event, None)
        });
        if let Err(error) = queued {
            self.dead.owner.put(letter);
            return Err(error);
        }
        self.dead.done_durably(letter.slot)
    }

    /// Forgets a letter.
    pub(crate) fn purge(&self, id: EventId) -> Result<(), EventError> {
        let letter = self.dead.owner.take(id).ok_or(EventError::Unknown)?;
        self.dead.done_durably(letter.slot)
    }
}
