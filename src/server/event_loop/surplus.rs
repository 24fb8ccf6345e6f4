//! When the allocator is asked for memory that nobody needs any more.
//!
//! That of the static binary, mimalloc, looks for it once in 10,000 allocations of more than a KiB, and each thread among
//! what it has allocated itself. After a burst of clients there may be none for hours, so that their memory would stay.

#[cfg(feature = "mimalloc")]
use std::hint;

use crate::health::Totals;

/// How often it is asked once nothing happens any more: what is free is first noted, then given back.
const LOOKS: u8 = 3;

/// See the [module](self).
#[derive(Default)]
pub(super) struct Surplus {
    seen: (Totals, usize),
    looks: u8,
}

impl Surplus {
    /// Notes once a second what has happened so far, and how many connections there are. Whether the allocator is to be
    /// asked now.
    pub(super) fn observe(&mut self, totals: Totals, connections: usize) -> bool {
        let seen = (totals, connections);
        if seen != self.seen {
            self.seen = seen;
            self.looks = LOOKS;
        }
        let is_due = self.looks > 0;
        self.looks = self.looks.saturating_sub(1);
        is_due
    }
}

/// Has mimalloc give back what this thread has freed. It takes half a millisecond.
#[cfg(feature = "mimalloc")]
pub(super) fn give_back() {
    for _ in 0..10_000 {
        drop(hint::black_box(Vec::<u8>::with_capacity(2048)));
    }
}

/// Other allocators are left to their own rules.
#[cfg(not(feature = "mimalloc"))]
pub(super) fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocator_is_asked_while_something_happens_and_a_few_times_after() {
        let mut surplus = Surplus::default();
        let seen = [
            (0, 0),
            (0, 0),
            (9, 9),
            (9, 4),
            (9, 4),
            (9, 4),
            (9, 4),
            (10, 5),
        ];
        let asked = seen.map(|(accepted, connections)| {
            let totals = Totals {
                accepted,
                ..Totals::default()
            };
            u8::from(surplus.observe(totals, connections))
        });
        assert_eq!(asked, [0, 0, 1, 1, 1, 1, 0, 1]);
    }
}
