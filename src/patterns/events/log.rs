//! A log of events on disk: one writer, group commit, and a small index.
//!
//! Whoever adds to the log puts it in the batch that is gathering and waits. The writer takes a batch, writes it, syncs
//! it, and meanwhile the next one gathers: there is no timer, and as many events share a sync as come during one.
//! Bodies are on disk only. The index has a *slot* for each event that is not over.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::EventError;
use super::files::File;
use super::record::{Done, FIRST, Header, Note, span};
use super::segment;
use crate::panics::lock;

/// Most bytes of a commit, unless one event alone is larger.
pub(crate) const COMMIT: u64 = 256 * 1024;

/// What a log tells about the events that it finds, to be put into the index of who owns it.
pub(crate) trait Owner: Send + Sync + 'static {
    /// An event was found at the start. Whether it could be read.
    fn recovered(&self, slot: u32, sequence: u64, body: &[u8]) -> bool;
    /// How far the delivery of a found event has come; the last one counts.
    fn recovered_note(&self, slot: u32, note: &Note);
    /// A found event turned out to be over.
    fn recovered_gone(&self, slot: u32);
    /// A segment is about to be removed: what is to outlive it must be durable.
    fn before_removal(&self) -> io::Result<()>;
}

/// No segment: its numbers begin with 1.
pub(crate) const NOWHERE: u32 = 0;

/// Where an event stands. Small, since a backlog can be long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) sequence: u64,
    /// [`NOWHERE`] if the event is over, or lost by damage.
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    /// Bytes of the record's body.
    pub(crate) length: u32,
    /// Where its last note stands; [`NOWHERE`] for none.
    pub(crate) note_segment: u32,
    pub(crate) note_offset: u32,
}

impl Place {
    pub(crate) fn span(&self) -> u64 {
        span(self.length.into())
    }
}

/// What the index knows of a segment.
pub(crate) struct Info {
    pub(crate) file: Arc<dyn File>,
    pub(crate) header: Header,
    /// Bytes of records that are still needed.
    pub(crate) alive: u64,
    /// How many events of each other segment this one says are over.
    pub(crate) dones: HashMap<u32, u64>,
    /// The segments that events here were copied from, and which hold them still.
    pub(crate) sources: HashSet<u32>,
    /// A write to it failed: what it holds is copied elsewhere.
    pub(crate) suspect: bool,
}

impl Info {
    pub(crate) fn new(file: Arc<dyn File>, header: Header) -> Self {
        Self {
            file,
            header,
            alive: 0,
            dones: HashMap::new(),
            sources: HashSet::new(),
            suspect: false,
        }
    }

    /// Whether nothing needs this segment. As long as another holds what was copied here, this one has to be there too:
    /// without it, nobody would need to know which of these events are over, and a start would take them from the other.
    pub(crate) fn is_over(&self) -> bool {
        self.alive == 0 && self.sources.is_empty()
    }

    /// Bytes that records may take.
    pub(crate) fn capacity(&self) -> u64 {
        self.header.size - FIRST
    }
}

/// Which events there are, and where.
#[derive(Default)]
pub(crate) struct Index {
    pub(crate) places: Vec<Place>,
    free: Vec<u32>,
    pub(crate) segments: BTreeMap<u32, Info>,
}

impl Index {
    /// A slot for an event that has just been written.
    pub(crate) fn insert(&mut self, place: Place) -> u32 {
        self.alive(place.segment, place.span(), 0);
        if let Some(slot) = self.free.pop() {
            self.places[slot as usize] = place;
            return slot;
        }
        let slot = u32::try_from(self.places.len()).expect("the disk has room for fewer events");
        self.places.push(place);
        slot
    }

    /// An event now stands elsewhere.
    pub(crate) fn relocate(&mut self, slot: u32, segment: u32, offset: u32) {
        let place = &mut self.places[slot as usize];
        let (from, span) = (place.segment, place.span());
        (place.segment, place.offset) = (segment, offset);
        self.alive(from, 0, span);
        self.alive(segment, span, 0);
        if from != segment
            && self.segments.contains_key(&from)
            && let Some(info) = self.segments.get_mut(&segment)
        {
            info.sources.insert(from);
        }
    }

    /// An event's last note now stands here.
    pub(crate) fn annotate(&mut self, slot: u32, segment: u32, offset: u32) {
        let place = &mut self.places[slot as usize];
        let from = place.note_segment;
        (place.note_segment, place.note_offset) = (segment, offset);
        self.alive(from, 0, Note::SIZE as u64);
        self.alive(segment, Note::SIZE as u64, 0);
    }

    /// An event is over, and its slot free. `said_in` is the segment that says so, if any does.
    pub(crate) fn retire(&mut self, slot: u32, said_in: Option<u32>) {
        let place = self.places[slot as usize];
        self.alive(place.segment, 0, place.span());
        self.alive(place.note_segment, 0, Note::SIZE as u64);
        if let Some(said_in) = said_in {
            self.remember_done(said_in, place.segment, 1);
        }
        let place = &mut self.places[slot as usize];
        place.segment = NOWHERE;
        place.note_segment = NOWHERE;
        self.free.push(slot);
    }

    /// An event cannot be read any more. Its slot stays until its owner has noticed.
    pub(crate) fn lose(&mut self, slot: u32) {
        let place = &mut self.places[slot as usize];
        let (segment, span) = (place.segment, place.span());
        place.segment = NOWHERE;
        self.alive(segment, 0, span);
    }

    /// Segment `said_in` says of `count` more events of `segment` that they are over. That is needed for as long as the
    /// latter is there.
    pub(crate) fn remember_done(&mut self, said_in: u32, segment: u32, count: u64) {
        if !self.segments.contains_key(&segment) {
            return;
        }
        if let Some(info) = self.segments.get_mut(&said_in) {
            *info.dones.entry(segment).or_default() += count;
            info.alive += count * Done::SIZE as u64;
        }
    }

    /// Nothing in a segment is needed any more, whatever its count says: what was not found in it is damaged.
    pub(crate) fn abandon(&mut self, number: u32) {
        for place in &mut self.places {
            if place.note_segment == number {
                place.note_segment = NOWHERE;
            }
        }
        if let Some(info) = self.segments.get_mut(&number) {
            info.alive = 0;
            info.dones.clear();
        }
    }

    /// Whether some of what a segment holds was copied.
    pub(crate) fn is_source(&self, number: u32) -> bool {
        let mut segments = self.segments.values();
        segments.any(|info| info.sources.contains(&number))
    }

    /// A segment is gone, and with it the need to know what was over in it. The bytes that it took.
    pub(crate) fn remove_segment(&mut self, number: u32) -> u64 {
        let bytes = self.segments.remove(&number).map(|info| info.header.size);
        for info in self.segments.values_mut() {
            info.sources.remove(&number);
            if let Some(count) = info.dones.remove(&number) {
                info.alive -= count * Done::SIZE as u64;
            }
        }
        bytes.unwrap_or(0)
    }

    fn alive(&mut self, segment: u32, more: u64, less: u64) {
        if let Some(info) = self.segments.get_mut(&segment) {
            info.alive = info.alive + more - less;
        }
    }
}

/// Is called with an event's slot and number once it is durable.
pub(crate) type Committed = Box<dyn FnOnce(u32, u64) + Send>;

/// What is written together.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) events: Vec<(Vec<u8>, Committed)>,
    pub(crate) notes: Vec<(u32, Note)>,
    pub(crate) dones: Vec<u32>,
    bytes: u64,
    pub(crate) ticket: Arc<Ticket>,
}

/// What those wait for who have something in a batch.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    outcome: Mutex<Option<Settled>>,
    known: Condvar,
}

/// Whether the parts of a batch were written. Where there is no room for its events, there may be for the rest.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    pub(crate) events: Result<(), EventError>,
    pub(crate) progress: Result<(), EventError>,
}

impl Ticket {
    pub(crate) fn settle(&self, outcome: Settled) {
        *lock(&self.outcome) = Some(outcome);
        self.known.notify_all();
    }

    fn wait(&self, longest: Duration) -> Result<Settled, EventError> {
        let (outcome, _) = self
            .known
            .wait_timeout_while(lock(&self.outcome), longest, |outcome| outcome.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        outcome.clone().ok_or(EventError::TimedOut)
    }
}

/// What the writer and its callers share.
pub(crate) struct LogState {
    pub(crate) index: Index,
    pub(crate) batches: VecDeque<Batch>,
    /// No more is taken, and the writer ends when all is written.
    pub(crate) stopping: bool,
    /// The writer has ended.
    pub(crate) ended: bool,
    pub(crate) counts: Counts,
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Records that turned out to be damaged after the start.
    pub(crate) lost: u64,
    /// Commits or new segments that failed.
    pub(crate) failures: u64,
    /// Whether the last of these is not made good yet.
    pub(crate) failing: bool,
}

/// A log: see the [module](self). The writer is another thread, [`Writer::run`](super::writer::Writer::run).
pub(crate) struct Log {
    pub(crate) state: Mutex<LogState>,
    /// The writer has something to do.
    pub(crate) work: Condvar,
    /// The writer has ended.
    pub(crate) end: Condvar,
    /// Bytes of one batch.
    pub(crate) commit: u64,
    /// How long a caller waits for the disk.
    pub(crate) patience: Duration,
}

impl Log {
    pub(crate) fn new(index: Index, commit: u64, patience: Duration) -> Self {
        Self {
            state: Mutex::new(LogState {
                index,
                batches: VecDeque::new(),
                stopping: false,
                ended: false,
                counts: Counts::default(),
            }),
            work: Condvar::new(),
            end: Condvar::new(),
            commit,
            patience,
        }
    }

    /// Adds an event; it is durable when this returns.
    pub(crate) fn append(
        &self,
        body: Vec<u8>,
        committed: impl FnOnce(u32, u64) + Send + 'static,
    ) -> Result<(), EventError> {
        let bytes = span(body.len() as u64);
        let event = (body, Box::new(committed) as Committed);
        let ticket = self.add(bytes, |batch| batch.events.push(event))?;
        ticket.wait(self.patience)?.events
    }

    /// Adds how far the delivery of an event has come. Nobody waits for it: without it an attempt is made too early.
    pub(crate) fn note(&self, slot: u32, note: Note) {
        // A queue that stops has written all that it can.
        let _ = self.add(Note::SIZE as u64, |batch| batch.notes.push((slot, note)));
    }

    /// Adds that an event is over. Nobody waits for it: without it the event is delivered again after a start.
    pub(crate) fn done(&self, slot: u32) {
        let _ = self.add(Done::SIZE as u64, |batch| batch.dones.push(slot));
    }

    /// Adds that an event is over; that is durable when this returns.
    pub(crate) fn done_durably(&self, slot: u32) -> Result<(), EventError> {
        let ticket = self.add(Done::SIZE as u64, |batch| batch.dones.push(slot))?;
        ticket.wait(self.patience)?.progress
    }

    fn add(&self, bytes: u64, put: impl FnOnce(&mut Batch)) -> Result<Arc<Ticket>, EventError> {
        let mut state = self.lock();
        if state.stopping {
            return Err(EventError::Stopped);
        }
        let idle = state.batches.is_empty();
        let full = |batch: &Batch| batch.bytes + bytes > self.commit;
        if state.batches.back().is_none_or(full) {
            state.batches.push_back(Batch::default());
        }
        let batch = state.batches.back_mut().expect("there is one now");
        batch.bytes += bytes;
        put(batch);
        let ticket = Arc::clone(&batch.ticket);
        drop(state);
        if idle {
            self.work.notify_one();
        }
        Ok(ticket)
    }

    /// Reads an event's body. `None` if it is damaged or over.
    pub(crate) fn read(&self, slot: u32) -> io::Result<Option<Vec<u8>>> {
        let (file, salt, place) = {
            let state = self.lock();
            let Some(place) = state.index.places.get(slot as usize).copied() else {
                return Ok(None);
            };
            let Some(info) = state.index.segments.get(&place.segment) else {
                return Ok(None);
            };
            (Arc::clone(&info.file), info.header.salt, place)
        };
        // The writer may copy the event elsewhere meanwhile, and remove the file. It stays readable for as long as it
        // is open.
        segment::read_record(&*file, salt, place.offset.into(), place.length)
    }

    /// What happened since the start.
    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Takes no more, and waits until all that was taken is written. Whether the writer has ended by then.
    pub(crate) fn stop(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        state.stopping = true;
        self.work.notify_one();
        let left = deadline.saturating_duration_since(Instant::now());
        (state, _) = self
            .end
            .wait_timeout_while(state, left, |state| !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        state.ended
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, LogState> {
        lock(&self.state)
    }
}
