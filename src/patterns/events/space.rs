//! How much of its space a log has taken.

use std::sync::{Mutex, MutexGuard};

use super::record::to_usize;
use crate::panics::lock;

/// The space of one log. It is taken by segments, of which the last ones are kept back from new events: for what is known
/// of events' delivery, and to copy into, so that space can be won back when there is none left.
#[derive(Debug)]
pub(crate) struct Space {
    /// Bytes of a new segment.
    pub(crate) segment: u64,
    total: u64,
    reserve: u64,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// Bytes of segments.
    segments: u64,
    /// Bytes of files whose segments are not needed any more. A new segment is made of one of these as long as there is
    /// any, so they take nothing beyond the total.
    spare: u64,
}

impl Space {
    /// `total` bytes, of which the last `reserve` segments are not for new events.
    pub(crate) fn new(segment: u64, total: u64, reserve: u64) -> Self {
        Self {
            segment,
            total,
            reserve,
            used: Mutex::default(),
        }
    }

    /// Takes a segment: for new events, or for what may have the reserve.
    pub(crate) fn take(&self, for_events: bool) -> bool {
        let mut used = self.lock();
        let least = if for_events { self.reserve } else { 0 };
        let room = self.free(&used) > least;
        if room {
            used.segments += self.segment;
        }
        room
    }

    /// Whether the reserve is there, so that new events may go to a segment that has been taken already.
    pub(crate) fn takes_events(&self) -> bool {
        self.free(&self.lock()) >= self.reserve
    }

    /// Counts a segment that is there already.
    pub(crate) fn found(&self, bytes: u64) {
        self.lock().segments += bytes;
    }

    /// A segment is gone.
    pub(crate) fn give_back(&self, bytes: u64) {
        self.lock().segments -= bytes;
    }

    /// The most files that are kept for new segments: an eighth of the space, and one at least.
    pub(crate) fn most_spares(&self) -> usize {
        to_usize(self.total / 8 / self.segment).max(1)
    }

    /// There are so many files now whose segments are not needed any more.
    pub(crate) fn has_spares(&self, count: usize) {
        self.lock().spare = count as u64 * self.segment;
    }

    /// Bytes of all files.
    pub(crate) fn used(&self) -> u64 {
        let used = self.lock();
        used.segments + used.spare
    }

    fn free(&self, used: &Used) -> u64 {
        self.total.saturating_sub(used.segments) / self.segment
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        lock(&self.used)
    }
}
