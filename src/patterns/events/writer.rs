//! The one thread that writes a log: commits, new segments, and the removal of those that nobody needs.

use std::io;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::commit::{Commit, Written};
use super::copying::Compaction;
use super::error::EventError;
use super::files::Directory;
use super::log::{Batch, Log, NOWHERE, Owner, Place, Settled};
use super::record::{Done, Purpose};
use super::segment::{Segment, Spare};
use super::space::{Space, Use};

/// How long the disk is left alone: by events after it failed twice in a row, by the rest after it failed once.
pub(crate) const REST: Duration = Duration::from_secs(1);

/// Where a log's files are.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) space: Arc<Space>,
    pub(crate) purpose: Purpose,
}

/// Writes a log.
pub(crate) struct Writer {
    pub(crate) log: Arc<Log>,
    pub(super) owner: Arc<dyn Owner>,
    pub(crate) store: Store,
    /// Where commits go.
    pub(crate) active: Option<Segment>,
    /// What comes next, made before it is needed by a thread of its own: no commit waits for that.
    pub(super) ahead: Option<JoinHandle<io::Result<Segment>>>,
    /// Files of segments that are not needed any more.
    pub(super) spares: Vec<Spare>,
    pub(crate) next_number: u32,
    pub(crate) next_sequence: u64,
    pub(crate) compaction: Option<Compaction>,
    /// The last segment that could not be copied: others go first, as one that cannot be read may never be.
    pub(crate) failed_copy: Option<u32>,
    /// An event found no room: space is won back also from segments that are well used.
    pub(crate) pressed: bool,
    /// Events are over since that was last done.
    pub(super) retired: bool,
    /// Nothing is copied or removed before this time.
    pub(crate) rest_until: Option<Instant>,
    /// Failures in a row, and when the last one was.
    pub(super) strikes: u32,
    pub(super) struck: Option<(Instant, Arc<io::Error>)>,
    buffer: Vec<u8>,
}

impl Writer {
    /// A writer of a log that has been read, which goes on in `active` if there is one.
    pub(crate) fn new(
        log: Arc<Log>,
        owner: Arc<dyn Owner>,
        store: Store,
        active: Option<Segment>,
        next_number: u32,
        next_sequence: u64,
    ) -> Self {
        Self {
            log,
            owner,
            store,
            active,
            ahead: None,
            spares: Vec::new(),
            next_number,
            next_sequence,
            compaction: None,
            failed_copy: None,
            pressed: false,
            retired: true,
            rest_until: None,
            strikes: 0,
            struck: None,
            buffer: Vec::new(),
        }
    }

    /// Writes what comes until the log is stopped.
    pub(crate) fn run(mut self) {
        loop {
            let batch = {
                let mut state = self.log.lock();
                loop {
                    if let Some(batch) = state.batches.pop_front() {
                        break Some(batch);
                    }
                    if state.stopping {
                        drop(state);
                        return self.end();
                    }
                    let now = Instant::now();
                    state = match (self.wants_copying(&state.index), self.rest_until) {
                        (false, _) => self
                            .log
                            .work
                            .wait(state)
                            .unwrap_or_else(PoisonError::into_inner),
                        (true, Some(after)) if after > now => {
                            self.log
                                .work
                                .wait_timeout(state, after - now)
                                .unwrap_or_else(PoisonError::into_inner)
                                .0
                        }
                        (true, _) => break None,
                    };
                }
            };
            if let Some(batch) = batch {
                self.take(batch);
            }
            self.remove_dead();
            self.copy_some();
            self.look_ahead();
        }
    }

    /// Ends, with nothing that goes on in the directory.
    fn end(self) {
        if let Some(ahead) = self.ahead {
            // What was made is there at the next start.
            let _ = ahead.join();
        }
        self.log.lock().ended = true;
        self.log.end.notify_all();
    }

    /// Writes a batch, or refuses it.
    fn take(&mut self, mut batch: Batch) {
        let now = Instant::now();
        let (bodies, callers): (Vec<_>, Vec<_>) = batch.events.drain(..).unzip();
        let mut commit = Commit {
            events: (self.next_sequence..).zip(bodies).collect(),
            ..Commit::default()
        };
        self.add_progress(&mut commit, &batch);
        let mut settled = Settled {
            events: Ok(()),
            progress: Ok(()),
        };
        if !commit.events.is_empty()
            && let Err(refusal) = self.make_room(commit.bytes(), Use::Events, now)
        {
            settled.events = Err(refusal);
            commit.events.clear();
        }
        let mut written = None;
        if !commit.is_empty() {
            if self.win_room(commit.bytes(), now) {
                self.add_progress(&mut commit, &batch);
            }
            match self.write(&commit, Use::Progress, now) {
                Ok(places) => written = Some(places),
                Err(error) => {
                    if !commit.events.is_empty() {
                        settled.events = Err(error.clone());
                    }
                    settled.progress = Err(error);
                }
            }
        }
        // A commit that failed holds nothing: its events are refused, and what else it was to hold is known in memory
        // only. At the next start its events are where they were before.
        let events = match &written {
            Some(_) => commit.events.len(),
            None => 0,
        };
        let mut slots = Vec::with_capacity(events);
        {
            let mut state = self.log.lock();
            let segment = written.as_ref().map(|written| written.segment);
            if let Some(written) = &written {
                for ((sequence, body), offset) in commit.events.iter().zip(&written.events) {
                    slots.push(state.index.insert(Place {
                        sequence: *sequence,
                        segment: written.segment,
                        offset: *offset,
                        length: u32::try_from(body.len()).expect("it has been written"),
                        note_segment: NOWHERE,
                        note_offset: 0,
                    }));
                }
                for ((slot, _), offset) in batch.notes.iter().zip(&written.notes) {
                    state.index.annotate(*slot, written.segment, *offset);
                }
            }
            for slot in &batch.dones {
                state.index.retire(*slot, segment);
            }
        }
        self.retired |= !batch.dones.is_empty();
        self.next_sequence += events as u64;
        let sequences = commit.events.iter().map(|(sequence, _)| *sequence);
        for ((slot, sequence), committed) in slots.into_iter().zip(sequences).zip(callers) {
            committed(slot, sequence);
        }
        batch.ticket.settle(settled);
    }

    /// Puts into a commit what a batch says of events that are there, by the segments where they stand now.
    fn add_progress(&self, commit: &mut Commit, batch: &Batch) {
        let state = self.log.lock();
        let place = |slot: &u32| state.index.places[*slot as usize];
        let notes = batch.notes.iter();
        commit.notes = notes
            .map(|(slot, note)| (place(slot).sequence, *note))
            .collect();
        let dones = batch.dones.iter().map(place);
        commit.dones = dones
            .map(|place| Done {
                sequence: place.sequence,
                segment: place.segment,
            })
            .collect();
    }

    /// Writes a commit to the active segment, or to a new one if that is full.
    pub(crate) fn write(
        &mut self,
        commit: &Commit,
        wanted_for: Use,
        now: Instant,
    ) -> Result<Written, EventError> {
        self.make_room(commit.bytes(), wanted_for, now)?;
        let mut active = self.active.take().expect("there is room in it");
        self.buffer.clear();
        let written = commit.append(&mut self.buffer, &active);
        let result = active.commit(&mut self.buffer);
        // One large event is no reason to hold its memory on.
        self.buffer.clear();
        self.buffer
            .shrink_to(usize::try_from(self.log.commit).unwrap_or(usize::MAX));
        let number = active.header.number;
        match result {
            Ok(()) => {
                self.active = Some(active);
                self.strikes = 0;
                self.log.lock().counts.failing = false;
                Ok(written)
            }
            Err(error) => {
                // Never used again, and what it holds is read, checked and copied elsewhere.
                if let Some(info) = self.log.lock().index.segments.get_mut(&number) {
                    info.suspect = true;
                }
                Err(self.strike(error, now))
            }
        }
    }

    pub(super) fn strike(&mut self, error: io::Error, now: Instant) -> EventError {
        let purpose = self.store.purpose.extension();
        log::error!("cannot write events (*.{purpose}): {error}");
        let error = Arc::new(error);
        self.strikes += 1;
        self.struck = Some((now, Arc::clone(&error)));
        let counts = &mut self.log.lock().counts;
        counts.failures += 1;
        counts.failing = true;
        EventError::Io(error)
    }

    /// Whether this is the segment that commits go to.
    pub(crate) fn is_open(&self, number: u32) -> bool {
        let active = self.active.as_ref();
        active.is_some_and(|segment| segment.header.number == number)
    }
}
