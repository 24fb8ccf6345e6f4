//! A segment that is copied forward, part by part.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::commit::Commit;
use super::files::File;
use super::log::{Index, Log};
use super::reader::{Item, Reader};
use super::record::{Done, FIRST, HEAD, Header, Kind, Note};

/// Most bytes of a part.
const STEP: u64 = 1024 * 1024;

/// A segment that is being copied.
pub(crate) struct Compaction {
    file: Arc<dyn File>,
    header: Header,
    /// Where its next part begins.
    position: u64,
    /// By offset: the slot of each event in it that is not over, and of each note that is an event's last.
    events: HashMap<u32, u32>,
    notes: HashMap<u32, u32>,
}

/// A part of a segment.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) commit: Commit,
    /// The slots of the commit's events, and of its notes.
    pub(crate) events: Vec<u32>,
    pub(crate) notes: Vec<u32>,
    /// Whether that was all.
    pub(crate) whole: bool,
}

impl Compaction {
    /// Begins with a segment of the index.
    pub(crate) fn new(index: &Index, victim: u32) -> Self {
        let info = &index.segments[&victim];
        let places = || (0_u32..).zip(&index.places);
        let events = places().filter(|(_, place)| place.segment == victim);
        let notes = places().filter(|(_, place)| place.note_segment == victim);
        Self {
            file: Arc::clone(&info.file),
            header: info.header,
            position: FIRST,
            events: events.map(|(slot, place)| (place.offset, slot)).collect(),
            notes: notes
                .map(|(slot, place)| (place.note_offset, slot))
                .collect(),
        }
    }

    /// The segment's number.
    pub(crate) fn number(&self) -> u32 {
        self.header.number
    }

    /// Reads its next part, of so many bytes unless one record alone has more, and leaves out what is not alive any more.
    pub(crate) fn next_part(&mut self, log: &Log, most: u64) -> io::Result<Part> {
        let Self {
            file,
            header,
            position,
            events,
            notes,
        } = self;
        let place = |slot: u32| log.lock().index.places[slot as usize];
        let mut reader = Reader::new(&**file, header, header.size);
        reader.skip_to(*position);
        let (start, mut part, mut bytes) = (*position, Part::default(), 0);
        loop {
            // Where the next part begins, if this record is not in this one.
            *position = reader.position();
            if *position - start >= STEP {
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
            if bytes > most && !part.commit.is_empty() {
                return Ok(part);
            }
            let offset = u32::try_from(offset).expect("a segment has less than 4 GiB");
            match head.kind {
                Kind::Event => {
                    let slot = events.get(&offset).filter(|slot| {
                        let place = place(**slot);
                        (place.segment, place.offset) == (header.number, offset)
                    });
                    if let Some(slot) = slot {
                        part.commit.events.push((head.sequence, body.to_vec()));
                        part.events.push(*slot);
                    }
                }
                Kind::Notes => {
                    let first = offset + record_head();
                    let offsets = (first..).step_by(Note::SIZE);
                    for ((sequence, note), offset) in Note::decode(body).zip(offsets) {
                        let slot = notes.get(&offset).filter(|slot| {
                            let place = place(**slot);
                            (place.note_segment, place.note_offset) == (header.number, offset)
                        });
                        if let Some(slot) = slot {
                            part.commit.notes.push((sequence, note));
                            part.notes.push(*slot);
                        }
                    }
                }
                Kind::Done => {
                    let state = log.lock();
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
}

fn record_head() -> u32 {
    u32::try_from(HEAD).expect("it is small")
}
