//! When each event is due, and which may go now. No I/O and no clock: time is an argument.
//!
//! [`poll`](Schedule::poll) gives an event to deliver. What came of it is told by exactly one of
//! [`finish`](Schedule::finish), [`retry`](Schedule::retry), [`hold`](Schedule::hold) and
//! [`unreachable`](Schedule::unreachable).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use super::record::Note;

/// The first wait while the consumer cannot be reached; it doubles ...
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// ... up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How far a wait may be off what the schedule says, as a part of it: events that failed at the same moment do not all
/// come back at the same moment.
const JITTER: f64 = 0.2;

/// No slot.
const NONE: u32 = u32::MAX;

/// What the deliverer is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Deliver the event in this slot.
    Deliver(u32),
    /// Nothing is due before this time. `None`: nothing at all, until an event comes or one comes back.
    Wait(Option<Instant>),
}

/// An event for the schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Orders the events of a key.
    pub(crate) sequence: u64,
    /// The hash of its key; 0 for none.
    pub(crate) key: u64,
    /// When it was accepted, in milliseconds since 1970.
    pub(crate) accepted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Planned {
    arrival: Arrival,
    /// When it is due, in microseconds after the base.
    due: u64,
    /// The next event with the same key.
    next: u32,
    attempts: u32,
    /// Whether an event is in this slot.
    used: bool,
}

/// The consumer cannot be reached.
#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Instant,
    wait: Duration,
    /// The event that is out to see whether the consumer is there again.
    trial: Option<u32>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Schedule {
    base: Instant,
    delays: Vec<Duration>,
    /// By slot. An entry is small, since a backlog can be long.
    entries: Vec<Planned>,
    /// What may go, by the time at which it is due. Of a key only the first.
    ready: BinaryHeap<Reverse<(u64, u32)>>,
    /// The last event of each key.
    lasts: HashMap<u64, u32>,
    pause: Option<Pause>,
    backlog: usize,
}

impl Schedule {
    /// An empty one. `delays` are the waits after the first, second, ... failed attempt.
    pub(crate) fn new(delays: Vec<Duration>, now: Instant) -> Self {
        Self {
            base: now,
            delays,
            entries: Vec::new(),
            ready: BinaryHeap::new(),
            lasts: HashMap::new(),
            pause: None,
            backlog: 0,
        }
    }

    /// How many events wait or are being delivered.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog
    }

    /// When the oldest of them was accepted, in milliseconds since 1970.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let used = self.entries.iter().filter(|entry| entry.used);
        used.map(|entry| entry.arrival.accepted).min()
    }

    /// Whether the consumer could not be reached when it was last tried.
    pub(crate) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Takes an event that is due now.
    pub(crate) fn insert(&mut self, slot: u32, arrival: Arrival, now: Instant) {
        self.restore(slot, arrival);
        self.entries[index(slot)].due = self.ticks(now);
        self.line_up(slot);
    }

    /// Takes an event from before the start. It is not due before [`start`](Self::start).
    pub(crate) fn restore(&mut self, slot: u32, arrival: Arrival) {
        let entry = Planned {
            arrival,
            due: 0,
            next: NONE,
            attempts: 0,
            used: true,
        };
        let unused = Planned {
            used: false,
            ..entry
        };
        if self.entries.len() <= index(slot) {
            self.entries.resize(index(slot) + 1, unused);
        }
        self.entries[index(slot)] = entry;
        self.backlog += 1;
    }

    /// How far an event had come before the start. By the wall clock it may be due long ago or, if that was set, in
    /// years: it waits at most as long as it would have from its last attempt on.
    pub(crate) fn restore_note(&mut self, slot: u32, note: &Note, wall: u64) {
        let wait = note.due.saturating_sub(wall).min(note.delay.into());
        let entry = &mut self.entries[index(slot)];
        entry.attempts = note.attempts;
        entry.due = wait.saturating_mul(1000);
    }

    /// Forgets an event from before the start.
    pub(crate) fn restore_gone(&mut self, slot: u32) {
        self.entries[index(slot)].used = false;
        self.backlog -= 1;
    }

    /// All events from before the start are known.
    pub(crate) fn start(&mut self) {
        let mut slots: Vec<u32> = (0..)
            .zip(&self.entries)
            .filter_map(|(slot, entry)| entry.used.then_some(slot))
            .collect();
        slots.sort_unstable_by_key(|slot| self.entries[index(*slot)].arrival.sequence);
        self.ready.reserve_exact(slots.len());
        for slot in slots {
            self.line_up(slot);
        }
    }

    /// What is to be done now.
    pub(crate) fn poll(&mut self, now: Instant) -> Next {
        if let Some(pause) = self.pause {
            if pause.trial.is_some() {
                return Next::Wait(None);
            }
            if now < pause.until {
                return Next::Wait(Some(pause.until));
            }
        }
        let Some(Reverse((due, slot))) = self.ready.peek().copied() else {
            return Next::Wait(None);
        };
        if due > self.ticks(now) {
            // Rounded up: who wakes at this time finds the event due.
            return Next::Wait(Some(self.base + Duration::from_micros(due + 1)));
        }
        self.ready.pop();
        if let Some(pause) = &mut self.pause {
            pause.trial = Some(slot);
        }
        Next::Deliver(slot)
    }

    /// The number of the event in a slot.
    pub(crate) fn sequence(&self, slot: u32) -> u64 {
        self.entries[index(slot)].arrival.sequence
    }

    /// Whether this event is in this slot.
    pub(crate) fn holds(&self, slot: u32, sequence: u64) -> bool {
        let entry = &self.entries[index(slot)];
        entry.used && entry.arrival.sequence == sequence
    }

    /// Attempts so far at an event, without one that is being made.
    pub(crate) fn attempts(&self, slot: u32) -> u32 {
        self.entries[index(slot)].attempts
    }

    /// An event is delivered, dead or lost: the next of its key may go.
    pub(crate) fn finish(&mut self, slot: u32, reached: bool) {
        self.settle(slot, reached);
        let entry = &mut self.entries[index(slot)];
        entry.used = false;
        self.backlog -= 1;
        let Planned { arrival, next, .. } = *entry;
        if next != NONE {
            let due = self.entries[index(next)].due;
            self.ready.push(Reverse((due, next)));
        } else if arrival.key != 0 {
            self.lasts.remove(&arrival.key);
        }
    }

    /// An attempt failed. How far the event has come now, or `None` if that was the last attempt; then the event is
    /// still being delivered. `luck` is a random number in [0, 1).
    pub(crate) fn retry(
        &mut self,
        slot: u32,
        retry_after: Option<Duration>,
        luck: f64,
        now: Instant,
        wall: u64,
    ) -> Option<Note> {
        let attempts = self.entries[index(slot)].attempts;
        let delay = *self.delays.get(attempts as usize)?;
        Some(self.wait(slot, delay, retry_after, luck, now, wall))
    }

    /// An event should be a dead letter, but there is no room for it: it is tried again at the last interval.
    pub(crate) fn hold(&mut self, slot: u32, luck: f64, now: Instant, wall: u64) -> Note {
        let last = self.delays.last().copied().unwrap_or(LONGEST_PAUSE);
        self.wait(slot, last, None, luck, now, wall)
    }

    fn wait(
        &mut self,
        slot: u32,
        delay: Duration,
        retry_after: Option<Duration>,
        luck: f64,
        now: Instant,
        wall: u64,
    ) -> Note {
        self.settle(slot, true);
        let longest = self.delays.last().copied().unwrap_or(delay).max(delay);
        let delay = jittered(delay, luck);
        // Nobody can ask for a wait that is longer than the longest of the schedule.
        let delay = delay.max(retry_after.unwrap_or_default().min(longest));
        let due = self.ticks(now + delay);
        let entry = &mut self.entries[index(slot)];
        entry.attempts = entry.attempts.saturating_add(1);
        entry.due = due;
        let attempts = entry.attempts;
        self.ready.push(Reverse((due, slot)));
        let delay = u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
        Note {
            due: wall.saturating_add(delay.into()),
            delay,
            attempts,
        }
    }

    /// The consumer could not be reached: the event stays due, and nothing goes before the pause is over.
    pub(crate) fn unreachable(&mut self, slot: u32, now: Instant) {
        let due = self.entries[index(slot)].due;
        self.ready.push(Reverse((due, slot)));
        let wait = match self.pause {
            None => next_wait(None),
            Some(pause) if pause.trial == Some(slot) => next_wait(Some(pause.wait)),
            // It went before the pause began.
            Some(_) => return,
        };
        self.pause = Some(Pause {
            until: now + wait,
            wait,
            trial: None,
        });
    }

    /// An event comes back. Whatever else the consumer said, it was reached; if it is not known, the trial is open again.
    fn settle(&mut self, slot: u32, reached: bool) {
        if reached {
            self.pause = None;
        } else if let Some(pause) = &mut self.pause
            && pause.trial == Some(slot)
        {
            pause.trial = None;
        }
    }

    /// Behind the others of its key, or among what may go.
    fn line_up(&mut self, slot: u32) {
        let Planned { arrival, due, .. } = self.entries[index(slot)];
        let before = match arrival.key {
            0 => None,
            key => self.lasts.insert(key, slot),
        };
        match before {
            Some(before) => self.entries[index(before)].next = slot,
            None => self.ready.push(Reverse((due, slot))),
        }
    }

    fn ticks(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.base);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

/// How long a consumer that could not be reached is left alone, after it was left alone so long.
pub(super) fn next_wait(last: Option<Duration>) -> Duration {
    last.map_or(FIRST_PAUSE, |last| (2 * last).min(LONGEST_PAUSE))
}

/// A wait that is off by luck, a random number in [0, 1).
pub(super) fn jittered(wait: Duration, luck: f64) -> Duration {
    wait.mul_f64(1.0 + JITTER * (2.0 * luck - 1.0))
}

fn index(slot: u32) -> usize {
    slot as usize
}
