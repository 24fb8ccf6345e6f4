//! How much of its space a log has taken.

use std::sync::Mutex;

use super::log::lock;

/// The space of one log. It is taken by segments, of which the last ones are kept back from new events: for what is known
/// of events' delivery, and to copy into, so that space can be won back when there is none left.
#[derive(Debug)]
pub(crate) struct Space {
    /// Bytes of a new segment.
    pub(crate) segment: u64,
    total: u64,
    reserve: u64,
    used: Mutex<u64>,
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
        let mut used = lock(&self.used);
        let least = if for_events { self.reserve } else { 0 };
        let room = self.free(*used) > least;
        if room {
            *used += self.segment;
        }
        room
    }

    /// Whether the reserve is there, so that new events may go to a segment that has been taken already.
    pub(crate) fn takes_events(&self) -> bool {
        self.free(*lock(&self.used)) >= self.reserve
    }

    /// Counts a segment that is there already.
    pub(crate) fn found(&self, bytes: u64) {
        *lock(&self.used) += bytes;
    }

    /// A segment is gone.
    pub(crate) fn give_back(&self, bytes: u64) {
        *lock(&self.used) -= bytes;
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        *lock(&self.used)
    }

    fn free(&self, used: u64) -> u64 {
        self.total.saturating_sub(used) / self.segment
    }
}
