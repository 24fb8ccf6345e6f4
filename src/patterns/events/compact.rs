//! Wins back space: copies what is alive in a segment forward, so that one old event does not keep a whole segment.
//!
//! A segment is copied when less than half of it is alive, or when a write to it failed: then this reads and checks what
//! it holds. It is done in steps between commits. What is copied keeps its sequence number, so a crash in the midst of it
//! leaves two copies of one event, not two events.

use std::time::Instant;

use super::copying::Compaction;
use super::error::EventError;
use super::log::{COMMIT, Index, Info};
use super::record::BLOCK;
use super::segment::Segment;
use super::space::Use;
use super::writer::{REST, Writer};

impl Writer {
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

    /// Copies a part of a segment, if there is one to be copied. Whether it did.
    pub(crate) fn copy_some(&mut self) -> bool {
        let now = Instant::now();
        if self.rest_until.is_some_and(|after| now < after) {
            return false;
        }
        self.rest_until = None;
        let Some(compaction) = self.compaction.take().or_else(|| self.begin()) else {
            return false;
        };
        let victim = compaction.number();
        match self.step(compaction, now) {
            Ok(Some(compaction)) => {
                self.compaction = Some(compaction);
                true
            }
            Ok(None) => {
                self.pressed = false;
                self.failed_copy = None;
                self.remove_dead();
                true
            }
            Err(error) => {
                log::warn!("cannot copy events out of an old segment: {error}");
                self.rest_until = Some(now + REST);
                self.failed_copy = Some(victim);
                false
            }
        }
    }

    /// Sees to it that there is room for so much progress, if that can be won back. Whether something was copied, and so
    /// stands elsewhere now.
    pub(super) fn win_room(&mut self, bytes: u64, now: Instant) -> bool {
        let mut copied = false;
        let most = self.log.lock().index.segments.len();
        for attempt in 0..most {
            let room = self.make_room(bytes, Use::Progress, now);
            if !matches!(room, Err(EventError::Full)) {
                break;
            }
            self.pressed |= attempt == 0;
            if !self.copy_some() {
                break;
            }
            copied = true;
            while self.compaction.is_some() && self.copy_some() {}
        }
        copied
    }

    fn begin(&mut self) -> Option<Compaction> {
        let state = self.log.lock();
        let Some(victim) = self.victim(&state.index) else {
            drop(state);
            self.pressed = false;
            return None;
        };
        Some(Compaction::new(&state.index, victim))
    }

    /// Copies one part. What is left, if anything is.
    fn step(
        &mut self,
        mut compaction: Compaction,
        now: Instant,
    ) -> Result<Option<Compaction>, EventError> {
        // What still fits into the active segment, if anything does.
        let room = self.active.as_ref().map_or(0, Segment::room);
        let most = if room > BLOCK { room } else { COMMIT };
        let part = compaction.next_part(&self.log, most.min(COMMIT))?;
        let victim = compaction.number();
        if !part.commit.is_empty() {
            let written = self.write(&part.commit, Use::Copies, now)?;
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
}
