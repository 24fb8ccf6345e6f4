//! Wins back space: copies what is alive in a segment forward, so that one old event does not keep a whole segment.
//!
//! A segment is copied when less than half of it is alive, or when a write to it failed: then this reads and checks what
//! it holds. It is done in steps between commits. What is copied keeps its sequence number, so a crash in the midst of it
//! leaves two copies of one event, not two events.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::error::EventError;
use super::files::File;
use super::log::{Index, Info, Owner};
use super::reader::{Item, Reader};
use super::record::{Done, FIRST, Header, Kind, Note};
use super::writer::{Commit, REST, Writer};

/// Most bytes that one step looks at.
const STEP: u64 = 1024 * 1024;

/// A segment that is being copied.
pub(crate) struct Compaction {
    file: Arc<dyn File>,
    header: Header,
    position: u64,
    /// By offset: the slot of each event in it that is not over, and of each note that is an event's last.
    events: HashMap<u32, u32>,
    notes: HashMap<u32, u32>,
}

/// One step's part of a segment.
#[derive(Default)]
struct Part {
    commit: Commit,
    events: Vec<u32>,
    notes: Vec<u32>,
    position: u64,
    /// Whether that was all.
    whole: bool,
}

impl<O: Owner> Writer<O> {
    /// Whether there is something to copy.
    pub(crate) fn wants_copying(&self, index: &Index) -> bool {
        self.compaction.is_some() || self.victim(index).is_some()
    }

    /// The segment that is to be copied: one that failed or was copied in part, or the one with the least alive, if that
    /// is little enough.
    fn victim(&self, index: &Index) -> Option<u32> {
        let closed = index
            .segments
            .iter()
            .filter(|(number, info)| info.alive > 0 && !self.is_open(**number));
        let urgent = |number: u32, info: &Info| info.suspect || index.is_source(number);
        let (number, info) = closed.min_by_key(|(number, info)| {
            let failed = self.failed_copy == Some(**number);
            (failed, !urgent(**number, info), info.alive)
        })?;
        let most = if self.pressed {
            info.capacity() / 8 * 7
        } else {
            info.capacity() / 2
        };
        (urgent(*number, info) || info.alive < most).then_some(*number)
    }

    /// Copies a part of a segment, if there is one to be copied.
    pub(crate) fn copy_some(&mut self) {
        let now = Instant::now();
        if self.rest_until.is_some_and(|after| now < after) {
            return;
        }
        self.rest_until = None;
        let Some(compaction) = self.compaction.take().or_else(|| self.begin()) else {
            return;
        };
        let victim = compaction.header.number;
        match self.step(compaction, now) {
            Ok(Some(compaction)) => self.compaction = Some(compaction),
            Ok(None) => {
                self.pressed = false;
                self.failed_copy = None;
                self.remove_dead();
            }
            Err(error) => {
                log::warn!("cannot copy events out of an old segment: {error}");
                self.rest_until = Some(now + REST);
                self.failed_copy = Some(victim);
            }
        }
    }

    fn begin(&mut self) -> Option<Compaction> {
        let state = self.log.lock();
        let Some(victim) = self.victim(&state.index) else {
            drop(state);
            self.pressed = false;
            return None;
        };
        let info = &state.index.segments[&victim];
        let places = || (0_u32..).zip(&state.index.places);
        let events = places().filter(|(_, place)| place.segment == victim);
        let notes = places().filter(|(_, place)| place.note_segment == victim);
        Some(Compaction {
            file: Arc::clone(&info.file),
            header: info.header,
            position: FIRST,
            events: events.map(|(slot, place)| (place.offset, slot)).collect(),
            notes: notes
                .map(|(slot, place)| (place.note_offset, slot))
                .collect(),
        })
    }

    /// Copies one part. What is left, if anything is.
    fn step(
        &mut self,
        mut compaction: Compaction,
        now: Instant,
    ) -> Result<Option<Compaction>, EventError> {
        let part = self.read_part(&mut compaction)?;
        let victim = compaction.header.number;
        if !part.commit.is_empty() {
            let written = self.write(&part.commit, now)?;
            let index = &mut self.log.lock().index;
            for (slot, offset) in part.events.iter().zip(&written.events) {
                index.relocate(*slot, written.segment, *offset);
            }
            for (slot, offset) in part.notes.iter().zip(&written.notes) {
                index.annotate(*slot, written.segment, *offset);
            }
            for done in &part.commit.dones {
                index.remember_done(written.segment, done.segment, 1);
            }
        }
        compaction.position = part.position;
        if !part.whole {
            return Ok(Some(compaction));
        }
        let mut state = self.log.lock();
        // What has not been found is damaged. Whoever asks for it next is told so.
        let lost: Vec<u32> = (0_u32..)
            .zip(&state.index.places)
            .filter_map(|(slot, place)| (place.segment == victim).then_some(slot))
            .collect();
        for slot in lost {
            log::error!("an event was lost by damage in segment {victim}");
            state.index.lose(slot);
            state.counts.lost += 1;
        }
        state.index.abandon(victim);
        Ok(None)
    }

    fn read_part(&self, compaction: &mut Compaction) -> io::Result<Part> {
        let Compaction {
            file,
            header,
            position,
            events,
            notes,
        } = compaction;
        let mut reader = Reader::new(&**file, header, header.size);
        reader.skip_to(*position);
        let mut part = Part::default();
        let mut bytes = 0;
        loop {
            // Where the next part begins, if this record is not in this one.
            part.position = reader.position();
            if part.position - *position >= STEP {
                return Ok(part);
            }
            let (offset, head, body) = match reader.next()? {
                Some(Item::Record { offset, head, body }) => (offset, head, body),
                Some(Item::Damage(_)) => continue,
                None => {
                    part.whole = true;
                    return Ok(part);
                }
            };
            bytes += head.span();
            if bytes > self.log.commit && !part.commit.is_empty() {
                return Ok(part);
            }
            let offset = u32::try_from(offset).expect("a segment has less than 4 GiB");
            match head.kind {
                Kind::Event => {
                    if let Some(slot) = events.get(&offset).copied()
                        && self.still(slot, |place| {
                            (place.segment, place.offset) == (header.number, offset)
                        })
                    {
                        part.commit.events.push((head.sequence, body.to_vec()));
                        part.events.push(slot);
                    }
                }
                Kind::Notes => {
                    let first = offset + record_head();
                    let offsets = (first..).step_by(Note::SIZE);
                    for ((sequence, note), offset) in Note::decode(body).zip(offsets) {
                        if let Some(slot) = notes.get(&offset).copied()
                            && self.still(slot, |place| {
                                (place.note_segment, place.note_offset) == (header.number, offset)
                            })
                        {
                            part.commit.notes.push((sequence, note));
                            part.notes.push(slot);
                        }
                    }
                }
                Kind::Done => {
                    let state = self.log.lock();
                    let needed = Done::decode(body).filter(|done| {
                        done.segment != header.number
                            && state.index.segments.contains_key(&done.segment)
                    });
                    part.commit.dones.extend(needed);
                }
                Kind::Keys => {}
            }
        }
    }

    fn still(&self, slot: u32, at: impl FnOnce(&super::log::Place) -> bool) -> bool {
        at(&self.log.lock().index.places[slot as usize])
    }
}

fn record_head() -> u32 {
    u32::try_from(super::record::HEAD).expect("it is small")
}
