//! The idempotency keys that producers gave, in memory and in a file of their own.
//!
//! A key stands in its event's record first, so event and key become durable together. Only before a segment is removed
//! are the keys of all events so far added to the file. The file is written anew when it is full, with what is still
//! kept.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;

use super::error::{EventDamageKind, EventOpenError};
use super::event::{EventId, Fingerprint};
use super::reader::{Item, Reader};
use super::record::{self, FIRST, HEAD, Kind, to_usize, u64_at};
use super::recover::{self, Damage};
use super::segment::{self, Segment};
use super::writer::Store;

/// Most keys that are kept.
const MOST: u64 = 65_536;

/// Bytes of a key on disk.
const SIZE: usize = 48;

/// Keys of one record: a commit stays below 256 KiB.
const PER_RECORD: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    fingerprint: Fingerprint,
    id: EventId,
}

impl Kept {
    fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.fingerprint.scope);
        out.extend_from_slice(&self.fingerprint.body);
        out.extend_from_slice(&self.id.0);
    }

    fn decode(body: &[u8]) -> impl Iterator<Item = Self> {
        let part = |bytes: &[u8], at: usize| bytes[at..at + 16].try_into().expect("16 bytes");
        body.chunks_exact(SIZE).map(move |bytes| Self {
            fingerprint: Fingerprint {
                scope: part(bytes, 0),
                body: part(bytes, 16),
            },
            id: EventId(part(bytes, 32)),
        })
    }
}

/// What is known of a key that a producer gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: it belongs to the caller now, who ends that with [`Keys::keep`] or [`Keys::release`].
    New,
    /// An event with it is being written.
    Pending,
    /// It is this event's.
    Same(EventId),
    /// It was given with another body.
    Reused,
}

/// The keys that are kept: the last ones, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Keys {
    most: usize,
    /// A ring, once it is full.
    ring: Vec<Kept>,
    /// How many keys came; the next place in the ring is this modulo its length.
    came: u64,
    /// How many of them are in the file, or no longer kept.
    filed: u64,
    /// Places in the ring, by the first half of a key's scope.
    places: HashMap<u64, u32>,
    pending: HashMap<[u8; 16], [u8; 16]>,
}

impl Keys {
    fn new(most: usize) -> Self {
        Self {
            most,
            ring: Vec::new(),
            came: 0,
            filed: 0,
            places: HashMap::new(),
            pending: HashMap::new(),
        }
    }

    /// Looks up a key.
    pub(crate) fn claim(&mut self, fingerprint: &Fingerprint) -> Known {
        if let Some(kept) = self.get(&fingerprint.scope) {
            return if kept.fingerprint.body == fingerprint.body {
                Known::Same(kept.id)
            } else {
                Known::Reused
            };
        }
        match self.pending.entry(fingerprint.scope) {
            Entry::Occupied(body) if *body.get() != fingerprint.body => Known::Reused,
            Entry::Occupied(_) => Known::Pending,
            Entry::Vacant(vacant) => {
                vacant.insert(fingerprint.body);
                Known::New
            }
        }
    }

    /// The event with this key was not accepted.
    pub(crate) fn release(&mut self, fingerprint: &Fingerprint) {
        self.pending.remove(&fingerprint.scope);
    }

    /// The event with this key is durable.
    pub(crate) fn keep(&mut self, fingerprint: Fingerprint, id: EventId) {
        self.pending.remove(&fingerprint.scope);
        // Read twice at the start, from the file and from the event.
        if self
            .get(&fingerprint.scope)
            .is_some_and(|kept| kept.id == id)
        {
            return;
        }
        let place = to_usize(self.came % self.most as u64);
        let kept = Kept { fingerprint, id };
        if place == self.ring.len() {
            self.ring.push(kept);
        } else {
            let before = half(&self.ring[place].fingerprint.scope);
            if self.places.get(&before).copied() == u32::try_from(place).ok() {
                self.places.remove(&before);
            }
            self.ring[place] = kept;
        }
        let number = u32::try_from(place).expect("fewer keys are kept");
        self.places.insert(half(&fingerprint.scope), number);
        self.came += 1;
    }

    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.ring.len()
    }

    fn get(&self, scope: &[u8; 16]) -> Option<&Kept> {
        let place = self.places.get(&half(scope))?;
        let kept = &self.ring[*place as usize];
        (kept.fingerprint.scope == *scope).then_some(kept)
    }

    /// The keys from the `first` that ever came on, as far as they are kept.
    fn since(&self, first: u64) -> impl Iterator<Item = &Kept> {
        let oldest = self.came - self.ring.len() as u64;
        (first.max(oldest)..self.came).map(|number| &self.ring[to_usize(number % self.most as u64)])
    }
}

fn half(scope: &[u8; 16]) -> u64 {
    u64_at(scope, 0)
}

/// The file that keys are kept in.
pub(crate) struct KeyFile {
    store: Store,
    segment: Option<Segment>,
    next_number: u32,
}

impl KeyFile {
    /// Reads the keys of a directory.
    pub(crate) fn open(
        store: Store,
        names: &[String],
        damage: &mut Damage,
    ) -> Result<(Self, Keys), EventOpenError> {
        // A fifth stays free, so that the file is not written anew for each key.
        let most = MOST
            .min((store.space.segment - FIRST) / SIZE as u64 * 4 / 5)
            .max(1);
        let mut keys = Keys::new(to_usize(most));
        let numbers = segment::numbers(names, store.purpose);
        let mut file = Self {
            segment: None,
            next_number: numbers.last().map_or(1, |number| number + 1),
            store,
        };
        for number in numbers {
            // An earlier file is there still if a crash came before its removal.
            file.remove_segment()?;
            let Some(mut segment) = recover::open(&file.store, number, damage)? else {
                continue;
            };
            file.read(&mut segment, &mut keys, damage)?;
            file.segment = Some(segment);
        }
        keys.filed = keys.came;
        Ok((file, keys))
    }

    fn read(
        &self,
        segment: &mut Segment,
        keys: &mut Keys,
        damage: &mut Damage,
    ) -> Result<(), EventOpenError> {
        let header = segment.header;
        let name = segment::name(self.store.purpose, header.number);
        let source = Arc::clone(&segment.file);
        let length = source.length()?;
        if length != header.size {
            let missing = header.size.saturating_sub(length);
            damage.add(&name, length, missing, EventDamageKind::Truncated);
        }
        let mut reader = Reader::new(&*source, &header, length.min(header.size));
        while let Some(item) = reader.next()? {
            match item {
                Item::Damage(hole) => damage.add_hole(&name, &hole),
                Item::Record { head, body, .. } if head.kind == Kind::Keys => {
                    for kept in Kept::decode(body) {
                        keys.keep(kept.fingerprint, kept.id);
                    }
                }
                Item::Record { .. } => {}
            }
        }
        segment.resume(&reader, length)?;
        Ok(())
    }

    /// Makes all keys durable that came since the last time. `keys` is the count of them and what is to be written.
    pub(crate) fn write(&mut self, unfiled: &Unfiled) -> io::Result<()> {
        if unfiled.new.is_empty() {
            return Ok(());
        }
        let bytes = |list: &[u8]| {
            list.len() as u64
                + 2 * record::BLOCK * (1 + list.len() as u64 / (SIZE * PER_RECORD) as u64)
        };
        if let Some(segment) = &mut self.segment
            && segment.room() >= bytes(&unfiled.new)
        {
            let added = add(segment, &unfiled.new);
            if added.is_err() {
                // Nothing is known about this file any more.
                segment.position = segment.header.size;
            }
            return added;
        }
        let (purpose, size) = (self.store.purpose, self.store.space.segment);
        let number = self.next_number;
        self.next_number += 1;
        let mut segment = Segment::create(&*self.store.directory, purpose, number, size)?;
        if let Err(error) = add(&mut segment, &unfiled.all) {
            self.store
                .directory
                .remove(&segment::name(purpose, number))?;
            return Err(error);
        }
        self.remove_segment()?;
        self.segment = Some(segment);
        Ok(())
    }

    fn remove_segment(&mut self) -> io::Result<()> {
        let Some(segment) = &self.segment else {
            return Ok(());
        };
        let name = segment::name(self.store.purpose, segment.header.number);
        match self.store.directory.remove(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        self.segment = None;
        self.store.directory.sync()
    }

    /// Bytes that the file takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.segment
            .as_ref()
            .map_or(0, |segment| segment.header.size)
    }
}

/// Keys that are to be written.
pub(crate) struct Unfiled {
    new: Vec<u8>,
    all: Vec<u8>,
    came: u64,
}

impl Keys {
    /// What the file lacks, and all that is kept.
    pub(crate) fn unfiled(&self) -> Unfiled {
        let list = |first| {
            let mut out = Vec::new();
            self.since(first).for_each(|kept| kept.append(&mut out));
            out
        };
        let new = list(self.filed);
        let all = if new.is_empty() { Vec::new() } else { list(0) };
        Unfiled {
            new,
            all,
            came: self.came,
        }
    }

    /// The file has these now.
    pub(crate) fn filed(&mut self, unfiled: &Unfiled) {
        self.filed = unfiled.came;
    }
}

fn add(segment: &mut Segment, list: &[u8]) -> io::Result<()> {
    for part in list.chunks(SIZE * PER_RECORD) {
        let mut commit = Vec::with_capacity(HEAD + part.len());
        let (salt, offset) = (segment.header.salt, segment.position);
        record::append(&mut commit, salt, offset, Kind::Keys, 0, part);
        segment.commit(&mut commit)?;
    }
    Ok(())
}
