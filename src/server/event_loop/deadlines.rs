//! When to look at which client again.
//!
//! A client's deadline moves several times a request, and nearly always later. So each slot has one entry in a heap,
//! which may be early: when it comes up, the driver asks the client for its real deadline and arms that. A later
//! deadline costs nothing. An earlier one leaves a stale entry behind; the heap is rid of those before it holds more than
//! two entries a slot, however far away they are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, u32)>>,
    /// The entry that counts of each slot; others of the slot in the heap are stale.
    armed: Vec<Option<Instant>>,
}

impl Deadlines {
    /// With room for so many slots: it is resident only once it is used, as that of the [`Clients`](super::clients::Clients).
    pub(crate) fn with_capacity(slots: usize) -> Self {
        Self {
            heap: BinaryHeap::with_capacity(slots),
            armed: Vec::with_capacity(slots),
        }
    }

    /// Sees to it that `slot` comes up no later than `at`.
    pub(crate) fn arm(&mut self, slot: u32, at: Instant) {
        let index = slot as usize;
        if index >= self.armed.len() {
            self.armed.resize(index + 1, None);
        }
        if self.armed[index].is_none_or(|armed| at < armed) {
            self.armed[index] = Some(at);
            // Each entry that is dropped here was pushed once since the last time, so this costs nothing to speak of.
            if self.heap.len() >= 2 * self.armed.len() {
                let armed = &self.armed;
                self.heap
                    .retain(|Reverse((at, slot))| armed[*slot as usize] == Some(*at));
            }
            self.heap.push(Reverse((at, slot)));
        }
    }

    /// A slot whose entry is due; it is disarmed.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<u32> {
        while let Some(&Reverse((at, slot))) = self.heap.peek() {
            if at > now {
                return None;
            }
            self.heap.pop();
            let armed = &mut self.armed[slot as usize];
            if *armed == Some(at) {
                *armed = None;
                return Some(slot);
            }
        }
        None
    }

    /// No slot comes up before this.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_slot_comes_up_once_at_its_earliest_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::default();
        deadlines.arm(3, at(60));
        deadlines.arm(1, at(20));
        deadlines.arm(3, at(10));
        deadlines.arm(3, at(30));
        assert_eq!(deadlines.next(), Some(at(10)));
        assert_eq!(deadlines.pop(at(9)), None);
        assert_eq!(deadlines.pop(at(10)), Some(3));
        assert_eq!(deadlines.pop(at(15)), None);
        assert_eq!(deadlines.pop(at(100)), Some(1));
        assert_eq!(deadlines.pop(at(100)), None, "the entry at 60 s is stale");
    }

    /// With a long idle timeout every request left its stale entry behind for as long.
    #[test]
    fn stale_entries_far_away_do_not_pile_up() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        let mut now = start;
        for step in 0..10_000 {
            let slot = step % 3;
            deadlines.arm(slot, now + Duration::from_secs(24 * 60 * 60));
            deadlines.arm(slot, now + Duration::from_secs(1));
            now += Duration::from_secs(1);
            assert_eq!(deadlines.pop(now), Some(slot));
            assert!(deadlines.heap.len() <= 6, "{}", deadlines.heap.len());
        }
    }

    #[test]
    fn later_deadlines_and_new_clients_in_a_slot_add_no_entries() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        for step in 0..100_000 {
            deadlines.arm(0, start + Duration::from_millis(step));
        }
        assert_eq!(deadlines.heap.len(), 1);
    }
}
