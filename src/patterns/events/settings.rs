//! What can be set, and what follows from it.

use std::time::Duration;

use super::error::{EventError, EventOpenError};
use super::event::{Event, OVERHEAD};
use super::log::COMMIT;
use super::record::{BLOCK, FIRST, span};

/// Least bytes of a queue: the segments of a smaller one would hold little.
const LEAST_BYTES: u64 = 512 * 1024;

/// Most bytes of a queue: the segments of a larger one would be too many open files.
pub(crate) const MOST_BYTES: u64 = 4 << 30;

/// Least bytes of a segment.
const LEAST_SEGMENT: u64 = 64 * 1024;

/// Most bytes of a segment, unless one event needs more: it is filled with zeros in one go.
const MOST_SEGMENT: u64 = 8 << 20;

/// Settings of an [`EventQueue`](super::EventQueue).
///
/// ```
/// use plimsoll::patterns::EventSettings;
///
/// let mut settings = EventSettings::default();
/// settings.max_bytes = 16 << 20;
/// settings.parallel = 2;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventSettings {
    /// Most bytes of all files together: 64 MiB by default, from 512 KiB to 4 GiB. Events may take about half of that, and
    /// a quarter of the smallest. The rest is for dead letters, for keys of producers, and to win back space. A power cut
    /// in the midst of that can take one file more for a while: a 32nd of it, or the room for the largest event.
    pub max_bytes: u64,
    /// Most bytes of an event, topic, key and attributes included: 1 MiB by default. An eighth of `max_bytes` must have
    /// room for it.
    pub max_event: usize,
    /// How many events are delivered at once: 8 by default.
    pub parallel: usize,
    /// How long to wait after the first, second, ... failed attempt: by default 1 s, 5 s, 30 s, 2 min, 10 min, 1 h, 3 h,
    /// 6 h, 12 h. An event has one attempt more than there are waits. A wait is up to a fifth longer or shorter.
    pub delays: Vec<Duration>,
    /// How long a caller waits for the disk, or for redis: 30 s by default.
    pub patience: Duration,
    /// How long an `EventStream` leaves an event to the replica that was given it before another takes it over: 1 min by
    /// default. Longer than an attempt to deliver may take, or it is delivered twice.
    pub takeover: Duration,
}

impl Default for EventSettings {
    fn default() -> Self {
        let seconds = [
            1,
            5,
            30,
            2 * 60,
            10 * 60,
            3600,
            3 * 3600,
            6 * 3600,
            12 * 3600,
        ];
        Self {
            max_bytes: 64 << 20,
            max_event: 1 << 20,
            parallel: 8,
            delays: seconds.map(Duration::from_secs).to_vec(),
            patience: Duration::from_secs(30),
            takeover: Duration::from_secs(60),
        }
    }
}

/// The sizes that follow from the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Bytes of a segment.
    pub(crate) segment: u64,
    /// Bytes of the file of keys.
    pub(crate) keys: u64,
    /// Bytes that live events may take.
    pub(crate) live: u64,
    /// Bytes that dead letters may take.
    pub(crate) dead: u64,
    /// Bytes of a commit, unless one event needs more.
    pub(crate) commit: u64,
}

impl EventSettings {
    pub(crate) fn sizes(&self) -> Result<Sizes, EventOpenError> {
        let max = self.max_bytes;
        if !(LEAST_BYTES..=MOST_BYTES).contains(&max) {
            return Err(EventOpenError::Setting(format!(
                "max_bytes: expected {LEAST_BYTES} to {MOST_BYTES}, found {max}"
            )));
        }
        self.check_parallel()?;
        let longest = (self.max_event as u64).saturating_add(OVERHEAD as u64);
        // With one block more for a list that shares the commit.
        let needed = FIRST + span(longest.min(max)).next_multiple_of(BLOCK) + BLOCK;
        let segment = (max / 32).clamp(LEAST_SEGMENT, MOST_SEGMENT).max(needed);
        let segment = segment.next_multiple_of(BLOCK);
        if segment > max / 8 {
            return Err(EventOpenError::Setting(format!(
                "max_event: an eighth of max_bytes, which is {}, has no room for events of {} bytes",
                max / 8,
                self.max_event
            )));
        }
        let keys = (max / 16) / BLOCK * BLOCK;
        // With one segment for letters beside what is kept for their progress and copies.
        let dead = (max / 4).max(3 * segment);
        Ok(Sizes {
            segment,
            keys,
            // The file of keys is there twice while it is written anew.
            live: max - 2 * keys - dead,
            dead,
            commit: COMMIT.min((segment - FIRST) / 4),
        })
    }

    pub(crate) fn check_parallel(&self) -> Result<(), EventOpenError> {
        if (1..=1024).contains(&self.parallel) {
            return Ok(());
        }
        Err(EventOpenError::Setting(format!(
            "parallel: expected 1 to 1024, found {}",
            self.parallel
        )))
    }

    /// Whether an event is small enough.
    pub(crate) fn check_size(&self, event: &Event) -> Result<(), EventError> {
        let key = event.key.as_ref().map_or(0, String::len);
        let length = event.topic.len() + key + event.attributes.len() + event.body.len();
        let limit = self.max_event;
        if length > limit {
            return Err(EventError::TooLarge { limit });
        }
        Ok(())
    }
}
