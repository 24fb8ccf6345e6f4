//! Pages that bodies have given back, kept for a moment for those that come next: fresh pages cost the system more time
//! than to fill them does.

use std::sync::{Mutex, PoisonError};

use memmap2::MmapMut;

/// The most bytes that are kept.
const MOST_KEPT: usize = 8 << 20;

#[derive(Debug, Default)]
pub(crate) struct Spare(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Those that were used last come last.
    pages: Vec<MmapMut>,
    size: usize,
    /// How many of them nobody has needed since the last [`Spare::trim`].
    surplus: usize,
}

impl Spare {
    /// Pages for a body of up to that length. What is in them is of a body before.
    pub(super) fn take(&self, length: usize) -> Option<MmapMut> {
        self.with(|kept| {
            let fits = |pages: &MmapMut| (length..=length.saturating_mul(2)).contains(&pages.len());
            let found = kept.pages.iter().rposition(fits)?;
            let pages = kept.pages.remove(found);
            kept.size -= pages.len();
            kept.surplus = kept.surplus.min(kept.pages.len());
            Some(pages)
        })
    }

    /// Keeps pages for the next body, unless enough are kept.
    pub(super) fn put(&self, pages: MmapMut) {
        // What is not kept is given back to the system outside of the lock.
        let _too_many = self.with(|kept| {
            if kept.size + pages.len() > MOST_KEPT {
                return Some(pages);
            }
            kept.size += pages.len();
            kept.pages.push(pages);
            None
        });
    }

    /// Gives the system back what nobody has needed since the last call.
    pub(crate) fn trim(&self) {
        let _surplus: Vec<MmapMut> = self.with(|kept| {
            let surplus: Vec<_> = kept.pages.drain(..kept.surplus).collect();
            kept.size -= surplus.iter().map(|pages| pages.len()).sum::<usize>();
            kept.surplus = kept.pages.len();
            surplus
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> T {
        // A lock whose holder panicked still guards whole data here: every critical section is a move.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 100_000;

    fn pages(length: usize) -> MmapMut {
        MmapMut::map_anon(length).unwrap()
    }

    fn size(spare: &Spare) -> usize {
        spare.with(|kept| kept.size)
    }

    #[test]
    fn pages_are_used_again_for_bodies_that_they_fit() {
        let spare = Spare::default();
        spare.put(pages(LENGTH));
        assert!(spare.take(LENGTH + 1).is_none());
        assert!(spare.take(LENGTH / 2 - 1).is_none());
        assert_eq!(
            spare.take(LENGTH - 1).map(|pages| pages.len()),
            Some(LENGTH)
        );
        assert_eq!((size(&spare), spare.take(LENGTH).is_none()), (0, true));
    }

    #[test]
    fn no_more_is_kept_than_is_allowed() {
        let spare = Spare::default();
        for _ in 0..100 {
            spare.put(pages(MOST_KEPT / 10));
        }
        assert_eq!(size(&spare), MOST_KEPT / 10 * 10);
        spare.put(pages(MOST_KEPT + 1));
        assert!(size(&spare) <= MOST_KEPT);
    }

    #[test]
    fn what_nobody_has_needed_from_one_look_to_the_next_is_given_back() {
        let spare = Spare::default();
        for _ in 0..5 {
            spare.put(pages(LENGTH));
        }
        spare.trim();
        assert_eq!(size(&spare), 5 * LENGTH, "they have only just come");
        let used = [spare.take(LENGTH), spare.take(LENGTH)];
        used.into_iter()
            .flatten()
            .for_each(|pages| spare.put(pages));
        spare.trim();
        assert_eq!(size(&spare), 2 * LENGTH);
        spare.trim();
        assert_eq!(size(&spare), 0);
    }
}
