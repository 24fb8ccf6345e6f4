//! What is written to a log at once, and how it stands in a segment.

use super::record::{self, BLOCK, Done, Kind, Note, span};
use super::segment::Segment;

/// What a commit holds.
#[derive(Default)]
pub(crate) struct Commit {
    /// Sequence numbers and bodies.
    pub(crate) events: Vec<(u64, Vec<u8>)>,
    /// Sequence numbers and notes.
    pub(crate) notes: Vec<(u64, Note)>,
    pub(crate) dones: Vec<Done>,
}

impl Commit {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.notes.is_empty() && self.dones.is_empty()
    }

    /// Bytes that it takes in a segment.
    pub(crate) fn bytes(&self) -> u64 {
        let lists = [self.notes.len() * Note::SIZE, self.dones.len() * Done::SIZE];
        let events = self.events.iter().map(|(_, body)| body.len());
        let lists = lists.into_iter().filter(|bytes| *bytes > 0);
        let spans = events.chain(lists).map(|bytes| span(bytes as u64));
        spans.sum::<u64>().next_multiple_of(BLOCK)
    }

    /// Appends it to a buffer that is to be written to a segment next. Where its parts go.
    pub(crate) fn append(&self, buffer: &mut Vec<u8>, segment: &Segment) -> Written {
        let (salt, start) = (segment.header.salt, segment.position);
        let at = |in_buffer: usize| {
            u32::try_from(start + in_buffer as u64).expect("a segment has less than 4 GiB")
        };
        let mut events = Vec::with_capacity(self.events.len());
        for (sequence, body) in &self.events {
            let offset = at(buffer.len());
            events.push(offset);
            record::append(buffer, salt, offset.into(), Kind::Event, *sequence, body);
        }
        let mut list = Vec::new();
        for (sequence, note) in &self.notes {
            note.append(&mut list, *sequence);
        }
        let mut notes = Vec::new();
        if !list.is_empty() {
            let offset = at(buffer.len()).into();
            let body = record::append(buffer, salt, offset, Kind::Notes, 0, &list);
            notes = body.step_by(Note::SIZE).map(at).collect();
        }
        list.clear();
        for done in &self.dones {
            done.append(&mut list);
        }
        if !list.is_empty() {
            let offset = at(buffer.len()).into();
            record::append(buffer, salt, offset, Kind::Done, 0, &list);
        }
        Written {
            segment: segment.header.number,
            events,
            notes,
        }
    }
}

/// Where the parts of a commit went.
pub(crate) struct Written {
    pub(crate) segment: u32,
    /// The offset of each event's record.
    pub(crate) events: Vec<u32>,
    /// The offset of each note.
    pub(crate) notes: Vec<u32>,
}
