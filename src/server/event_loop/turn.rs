//! The time that a turn of the event loop has for clients with more to do.
//!
//! What came of a body may cost a hundred times as much to read as another of its size: it may consist of chunks of a byte.
//! So it is the time that is shared, not the bytes. Small requests need no line, they are served as they come; so they wait
//! for no more than such a turn, however many bodies are on their way.

use std::time::{Duration, Instant};

/// Time of all that have more to do. The last of them may take longer by one step.
const ALL: Duration = Duration::from_millis(2);

/// Time of one of them. The step at hand is always ended, and each has at least one.
const EACH: Duration = Duration::from_micros(100);

/// What a turn still has for those that have more to do.
#[derive(Debug)]
pub(super) struct Turn {
    /// Those that have not had theirs. Who then has more to do comes in the next turn.
    left: usize,
    until: Instant,
}

impl Turn {
    /// A turn in which so many have more to do.
    pub(super) fn new(unfinished: usize, now: Instant) -> Self {
        Self {
            left: unfinished,
            until: now + ALL,
        }
    }

    /// Until when the next one may take further steps; `None` when the others have to wait for the next turn.
    pub(super) fn next(&mut self, now: Instant) -> Option<Instant> {
        self.left = self.left.checked_sub(1)?;
        (now < self.until).then_some(now + EACH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many have their turn when each takes that long.
    fn served(unfinished: usize, each: Duration) -> usize {
        let mut now = Instant::now();
        let mut turn = Turn::new(unfinished, now);
        let mut served = 0;
        while let Some(until) = turn.next(now) {
            assert!(until > now);
            served += 1;
            now += each;
        }
        served
    }

    #[test]
    fn each_has_one_turn_while_there_is_time_and_one_has_its_turn_however_long_it_takes() {
        for (unfinished, micros, expected) in [
            (0, 1, 0),
            (3, 1, 3),
            (1000, 1, 1000),
            (1000, 50, 40),
            (1000, 1000, 2),
            (1000, 60_000, 1),
        ] {
            let each = Duration::from_micros(micros);
            assert_eq!(served(unfinished, each), expected, "{each:?}");
        }
    }
}
