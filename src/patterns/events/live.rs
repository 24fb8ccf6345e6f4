//! The events that are to be delivered: when each is due, and the keys of their producers.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::event::{EventId, Fingerprint, Stored, milliseconds};
use super::keys::{KeyFile, Keys};
use super::log::Owner;
use super::record::Note;
use super::schedule::{Arrival, Schedule};
use crate::panics::lock;

/// What is known of the live events, beside where they stand.
pub(crate) struct Live {
    pub(crate) schedule: Mutex<Schedule>,
    /// An event may be due, or the queue stops.
    pub(crate) due: Condvar,
    pub(crate) keys: Mutex<Keys>,
    /// A key is no longer pending.
    pub(crate) settled: Condvar,
    file: Mutex<KeyFile>,
    hasher: RandomState,
    pub(crate) accepted: AtomicU64,
    /// Dead letters and live events with the same id, found at the start.
    twins: Mutex<Twins>,
}

/// What a crash left in both logs.
#[derive(Default)]
struct Twins {
    /// The dead letters: their slots, and the numbers that they had as live events.
    dead: HashMap<EventId, (u32, u64)>,
    /// The live events with the id of a dead letter: slot and number.
    live: Vec<(EventId, u32, u64)>,
}

/// A dead letter and a live event that are the same event.
pub(crate) enum Twin {
    /// It died, and only this was not noted any more.
    Died { live: u32 },
    /// It was replayed, and only this was not noted any more.
    Replayed { dead: u32 },
}

impl Live {
    /// `dead` has, for each dead letter, its id, its slot, and the number that it had as a live event.
    pub(crate) fn new(
        delays: Vec<Duration>,
        keys: Keys,
        file: KeyFile,
        dead: impl Iterator<Item = (EventId, u32, u64)>,
    ) -> Self {
        let dead = dead.map(|(id, slot, number)| (id, (slot, number)));
        Self {
            schedule: Mutex::new(Schedule::new(delays, Instant::now())),
            due: Condvar::new(),
            keys: Mutex::new(keys),
            settled: Condvar::new(),
            file: Mutex::new(file),
            hasher: RandomState::new(),
            accepted: AtomicU64::new(0),
            twins: Mutex::new(Twins {
                dead: dead.collect(),
                live: Vec::new(),
            }),
        }
    }

    /// The hash by which events of a key are kept in order. Two keys with the same hash share an order.
    pub(crate) fn hash(&self, key: Option<&str>) -> u64 {
        key.map_or(0, |key| self.hasher.hash_one(key).max(1))
    }

    /// The events that a crash left in both logs.
    pub(crate) fn twins(&self) -> Vec<Twin> {
        let Twins { dead, live } = std::mem::take(&mut *lock(&self.twins));
        let schedule = lock(&self.schedule);
        let present = live
            .into_iter()
            .filter(|(_, slot, number)| schedule.holds(*slot, *number));
        present
            .map(|(id, slot, number)| {
                let (dead_slot, died_as) = dead[&id];
                if number == died_as {
                    Twin::Died { live: slot }
                } else {
                    Twin::Replayed { dead: dead_slot }
                }
            })
            .collect()
    }

    /// A producer's key is that of a durable event.
    pub(crate) fn keep_key(&self, fingerprint: Fingerprint, id: EventId) {
        lock(&self.keys).keep(fingerprint, id);
        self.settled.notify_all();
    }

    /// A new event is durable.
    pub(crate) fn arrived(&self, slot: u32, arrival: Arrival) {
        lock(&self.schedule).insert(slot, arrival, Instant::now());
        self.due.notify_one();
    }

    /// Bytes of the file of keys.
    pub(crate) fn key_bytes(&self) -> u64 {
        lock(&self.file).bytes()
    }
}

impl Owner for Live {
    fn recovered(&self, slot: u32, sequence: u64, body: &[u8]) -> bool {
        let Some((stored, _)) = Stored::decode_without_body(body) else {
            return false;
        };
        let arrival = Arrival {
            sequence,
            key: self.hash(stored.event.key.as_deref()),
            accepted: stored.accepted,
        };
        lock(&self.schedule).restore(slot, arrival);
        if let Some(fingerprint) = stored.fingerprint {
            lock(&self.keys).keep(fingerprint, stored.id);
        }
        let mut twins = lock(&self.twins);
        if twins.dead.contains_key(&stored.id) {
            twins.live.push((stored.id, slot, sequence));
        }
        true
    }

    fn recovered_note(&self, slot: u32, note: &Note) {
        lock(&self.schedule).restore_note(slot, note, milliseconds(SystemTime::now()));
    }

    fn recovered_gone(&self, slot: u32) {
        lock(&self.schedule).restore_gone(slot);
    }

    fn before_removal(&self) -> io::Result<()> {
        let unfiled = lock(&self.keys).unfiled();
        lock(&self.file).write(&unfiled)?;
        lock(&self.keys).filed(&unfiled);
        Ok(())
    }
}
