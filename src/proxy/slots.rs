//! How many requests may be with the service at once. Each has a connection to it, also while its answer is relayed, and
//! so a descriptor that nobody else can have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The slots of all requests.
#[derive(Debug)]
pub(super) struct Slots {
    taken: AtomicUsize,
    most: AtomicUsize,
}

/// A request's, until it is dropped.
pub(super) struct Slot(Arc<Slots>);

impl Slots {
    /// Without a bound so far.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            most: AtomicUsize::new(usize::MAX),
        })
    }

    /// Bounds them from now on.
    pub(super) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Takes one, if there is one.
    pub(super) fn take(self: &Arc<Self>) -> Option<Slot> {
        let most = self.most.load(Ordering::Relaxed);
        let one_more = |taken| (taken < most).then_some(taken + 1);
        let taken = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| Slot(self.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_as_were_said_and_a_dropped_one_is_free() {
        let slots = Slots::new();
        slots.set_most(2);
        let first = slots.take().expect("the first");
        let second = slots.take().expect("the second");
        assert!(slots.take().is_none());
        drop(first);
        assert!(slots.take().is_some());
        drop(second);
        assert_eq!(slots.taken.load(Ordering::Relaxed), 0);
    }
}
