//! The dead letters.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Mutex;

use super::event::{DeadLetter, EventId, Stored, time};
use super::log::Owner;
use super::record::Note;
use crate::panics::lock;

/// A dead letter, without what is on disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter {
    pub(crate) id: EventId,
    pub(crate) slot: u32,
    /// Its number among the dead letters.
    pub(crate) sequence: u64,
    /// The number that it had as a live event.
    pub(crate) died_as: u64,
    /// When it died, in milliseconds since 1970.
    pub(crate) died: u64,
}

/// What is known of the dead letters.
#[derive(Default)]
pub(crate) struct Dead {
    letters: Mutex<Letters>,
}

#[derive(Default)]
struct Letters {
    by_slot: HashMap<u32, Letter>,
    /// Their ids and slots. A crash may leave two with the same id: one that was replayed and died again.
    ids: BTreeSet<(EventId, u32)>,
}

impl Letters {
    fn find(&self, id: EventId) -> Option<u32> {
        let mut same = self.ids.range((id, 0)..=(id, u32::MAX));
        same.next_back().map(|(_, slot)| *slot)
    }

    fn remove(&mut self, slot: u32) -> Option<Letter> {
        let letter = self.by_slot.remove(&slot)?;
        self.ids.remove(&(letter.id, slot));
        Some(letter)
    }
}

impl Dead {
    /// All of them, the oldest first.
    pub(crate) fn letters(&self) -> Vec<Letter> {
        let mut letters: Vec<Letter> = lock(&self.letters).by_slot.values().copied().collect();
        letters.sort_unstable_by_key(|letter| letter.sequence);
        letters
    }

    pub(crate) fn find(&self, id: EventId) -> Option<Letter> {
        let letters = lock(&self.letters);
        letters.by_slot.get(&letters.find(id)?).copied()
    }

    /// Takes one out. Of two who want the same, one gets it.
    pub(crate) fn take(&self, id: EventId) -> Option<Letter> {
        let mut letters = lock(&self.letters);
        let slot = letters.find(id)?;
        letters.remove(slot)
    }

    /// One is durable, or was taken out and is to stay.
    pub(crate) fn put(&self, letter: Letter) {
        let mut letters = lock(&self.letters);
        letters.ids.insert((letter.id, letter.slot));
        letters.by_slot.insert(letter.slot, letter);
    }

    /// How many there are, and when the oldest died.
    pub(crate) fn count(&self) -> (usize, Option<u64>) {
        let letters = lock(&self.letters);
        let oldest = letters.by_slot.values().map(|letter| letter.died).min();
        (letters.by_slot.len(), oldest)
    }
}

impl Owner for Dead {
    fn recovered(&self, slot: u32, sequence: u64, body: &[u8]) -> bool {
        let Some((stored, _)) = Stored::decode_without_body(body) else {
            return false;
        };
        let Some(death) = stored.death else {
            return false;
        };
        self.put(Letter {
            id: stored.id,
            slot,
            sequence,
            died_as: death.sequence,
            died: death.at,
        });
        true
    }

    fn recovered_note(&self, _: u32, _: &Note) {}

    fn recovered_gone(&self, slot: u32) {
        lock(&self.letters).remove(slot);
    }

    fn before_removal(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The letter in a record's body.
pub(crate) fn letter(body: &[u8]) -> Option<DeadLetter> {
    let stored = Stored::decode(body)?;
    let death = stored.death?;
    Some(DeadLetter {
        id: stored.id,
        accepted: time(stored.accepted),
        died: time(death.at),
        attempts: death.attempts,
        reason: death.reason,
        event: stored.event,
    })
}
