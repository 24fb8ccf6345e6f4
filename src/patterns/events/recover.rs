//! Reads a log at the start.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::{EventDamage, EventDamageKind, EventOpenError};
use super::files::Directory;
use super::log::{Index, Info, NOWHERE, Owner, Place};
use super::reader::{Hole, Item, Reader};
use super::record::{BadHeader, Done, HEAD, Kind, Note};
use super::segment::{self, Segment};
use super::writer::Store;

/// Most parts of damage that are told one by one.
const MOST_TOLD: usize = 1000;

/// What could not be read.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    pub(crate) parts: Vec<EventDamage>,
    /// How many there were, told or not.
    pub(crate) count: u64,
}

impl Damage {
    pub(crate) fn add(&mut self, file: &str, offset: u64, length: u64, what: EventDamageKind) {
        let part = EventDamage {
            file: file.to_owned(),
            offset,
            length,
            what,
        };
        self.count += 1;
        if self.parts.len() < MOST_TOLD {
            if what == EventDamageKind::End {
                log::info!("{part}");
            } else {
                log::warn!("{part}");
            }
            self.parts.push(part);
        }
    }

    pub(crate) fn add_hole(&mut self, file: &str, hole: &Hole) {
        let what = match hole {
            Hole {
                sequence: Some(_), ..
            } => EventDamageKind::Record,
            Hole { last: true, .. } => EventDamageKind::End,
            _ => EventDamageKind::Bytes,
        };
        self.add(file, hole.offset, hole.length, what);
    }
}

/// What was found of a log.
pub(crate) struct Found {
    pub(crate) index: Index,
    /// The last segment, if commits may go on in it.
    pub(crate) active: Option<Segment>,
    pub(crate) next_number: u32,
    pub(crate) next_sequence: u64,
}

struct Recovery<'a> {
    owner: &'a dyn Owner,
    index: Index,
    slots: HashMap<u64, u32>,
    last_sequence: u64,
    damage: &'a mut Damage,
}

/// Reads all segments of a log and tells its owner what is in them.
pub(crate) fn recover(
    store: &Store,
    owner: &dyn Owner,
    names: &[String],
    damage: &mut Damage,
) -> Result<Found, EventOpenError> {
    let mut recovery = Recovery {
        owner,
        index: Index::default(),
        slots: HashMap::new(),
        last_sequence: 0,
        damage,
    };
    let numbers = segment::numbers(names, store.purpose);
    let mut active = None;
    for number in &numbers {
        let last = Some(number) == numbers.last();
        if let Some(segment) = open(store, *number, recovery.damage)? {
            store.space.found(segment.header.size);
            active = recovery.read(segment, last)?;
        }
    }
    let next_number = numbers.last().map_or(1, |number| number + 1);
    Ok(Found {
        index: recovery.index,
        active,
        next_number,
        next_sequence: recovery.last_sequence + 1,
    })
}

/// Opens a segment. One whose header is damaged is set aside.
pub(crate) fn open(
    store: &Store,
    number: u32,
    damage: &mut Damage,
) -> Result<Option<Segment>, EventOpenError> {
    let name = segment::name(store.purpose, number);
    match Segment::open(&*store.directory, store.purpose, number)? {
        Ok(segment) => Ok(Some(segment)),
        Err(BadHeader::Version(found)) => Err(EventOpenError::Version { file: name, found }),
        Err(BadHeader::Damaged) => {
            damage.add(&name, 0, super::record::BLOCK, EventDamageKind::Header);
            store.directory.rename(&name, &format!("{name}.damaged"))?;
            store.directory.sync()?;
            Ok(None)
        }
    }
}

impl Recovery<'_> {
    /// Reads a segment; it is given back if commits may go on in it.
    fn read(
        &mut self,
        mut segment: Segment,
        last: bool,
    ) -> Result<Option<Segment>, EventOpenError> {
        let header = segment.header;
        let name = segment::name(header.purpose, header.number);
        let file = Arc::clone(&segment.file);
        let length = file.length()?;
        if length != header.size {
            let missing = header.size.saturating_sub(length);
            self.damage
                .add(&name, length, missing, EventDamageKind::Truncated);
        }
        let info = Info::new(Arc::clone(&file), header);
        self.index.segments.insert(header.number, info);
        let mut reader = Reader::new(&*file, &header, length.min(header.size));
        while let Some(item) = reader.next()? {
            match item {
                Item::Damage(hole) => self.damage.add_hole(&name, &hole),
                Item::Record { offset, head, body } => {
                    let offset = u32::try_from(offset).map_err(std::io::Error::other)?;
                    match head.kind {
                        Kind::Event => {
                            if !self.event(head.sequence, header.number, offset, body) {
                                let what = EventDamageKind::Record;
                                self.damage.add(&name, offset.into(), head.span(), what);
                            }
                        }
                        Kind::Notes => self.notes(header.number, offset, body),
                        Kind::Done => self.dones(header.number, body),
                        Kind::Keys => {}
                    }
                }
            }
        }
        if last {
            segment.resume(&reader, length)?;
        }
        Ok((last && segment.room() > 0).then_some(segment))
    }

    /// Whether it could be read.
    fn event(&mut self, sequence: u64, segment: u32, offset: u32, body: &[u8]) -> bool {
        self.last_sequence = self.last_sequence.max(sequence);
        // A copy: a crash came before its original was removed.
        if let Some(slot) = self.slots.get(&sequence) {
            self.index.relocate(*slot, segment, offset);
            return true;
        }
        let slot = self.index.insert(Place {
            sequence,
            segment,
            offset,
            length: u32::try_from(body.len()).expect("its head has 32 bits for it"),
            note_segment: NOWHERE,
            note_offset: 0,
        });
        if !self.owner.recovered(slot, sequence, body) {
            self.index.retire(slot, None);
            return false;
        }
        self.slots.insert(sequence, slot);
        true
    }

    fn notes(&mut self, segment: u32, offset: u32, body: &[u8]) {
        let first = offset + u32::try_from(HEAD).expect("it is small");
        let offsets = (first..).step_by(Note::SIZE);
        for ((sequence, note), offset) in Note::decode(body).zip(offsets) {
            if let Some(slot) = self.slots.get(&sequence) {
                self.index.annotate(*slot, segment, offset);
                self.owner.recovered_note(*slot, &note);
            }
        }
    }

    fn dones(&mut self, segment: u32, body: &[u8]) {
        for done in Done::decode(body) {
            self.last_sequence = self.last_sequence.max(done.sequence);
            if let Some(slot) = self.slots.remove(&done.sequence) {
                self.owner.recovered_gone(slot);
                self.index.retire(slot, None);
            }
            self.index.remember_done(segment, done.segment, 1);
        }
    }
}

/// The space that segments take which were set aside.
pub(crate) fn set_aside(
    directory: &dyn Directory,
    names: &[String],
) -> Result<u64, EventOpenError> {
    let mut total = 0;
    for name in names.iter().filter(|name| name.ends_with(".damaged")) {
        total += directory.open(name)?.length()?;
    }
    Ok(total)
}
