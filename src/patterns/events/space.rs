//! How much of its space a log has taken.

use std::sync::{Mutex, MutexGuard};

use super::record::to_usize;
use crate::panics::lock;

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// New events.
    Events,
    /// What is known of events' delivery, and which are over.
    Progress,
    /// What is copied, so that space can be won back when there is none left.
    Copies,
}

impl Use {
    /// How many segments stay free for the others.
    fn reserve(self) -> u64 {
        match self {
            Self::Events => 2,
            Self::Progress => 1,
            Self::Copies => 0,
        }
    }
}

/// The space of one log. It is taken by segments, of which the last ones are kept for [progress](Use::Progress) and for
/// [copies](Use::Copies).
///
/// A power cut in the midst of copying can leave a segment that was copied in part, and no room for the rest. Then one
/// segment more than the total is taken until that is copied: otherwise no space could be won back ever again.
#[derive(Debug)]
pub(crate) struct Space {
    /// Bytes of a new segment.
    pub(crate) segment: u64,
    total: u64,
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
    pub(crate) fn new(segment: u64, total: u64) -> Self {
        Self {
            segment,
            total,
            used: Mutex::default(),
        }
    }

    /// Takes a segment, if there is one for this.
    pub(crate) fn take(&self, wanted_for: Use) -> bool {
        let mut used = self.lock();
        let is_last_resort = wanted_for == Use::Copies && used.segments <= self.total;
        let room = self.free(&used) > wanted_for.reserve() || is_last_resort;
        if room {
            used.segments += self.segment;
        }
        room
    }

    /// Whether what is kept for the others is there, so that this may go to a segment that has been taken already.
    pub(crate) fn admits(&self, wanted_for: Use) -> bool {
        wanted_for != Use::Events || self.free(&self.lock()) >= wanted_for.reserve()
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
