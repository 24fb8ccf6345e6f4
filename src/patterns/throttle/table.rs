//! The keys that a throttle knows: a hash table with a bound, and the order in which its keys were last used.
//!
//! Slots are linked by their numbers, each into the chain of its bucket and into the order of use. The index 0 stands
//! for none, so slot `n` is `slots[n - 1]`; then a table of zeros is an empty one, which the system gives without
//! making it resident.

/// How many of the longest unused keys are looked at for one that has caught up, before the longest unused is
/// forgotten.
const LOOK_AT: usize = 8;

pub(super) struct Table {
    /// The first slot of each chain; as many as there may be keys, a power of two.
    buckets: Vec<u32>,
    slots: Vec<Slot>,
    most: usize,
    newest: u32,
    oldest: u32,
}

/// 32 bytes; with its bucket a key takes 36.
struct Slot {
    hash: u64,
    /// When the key will have caught up, in nanoseconds.
    caught_up: u64,
    /// The next slot in the bucket's chain.
    chained: u32,
    newer: u32,
    older: u32,
}

impl Table {
    /// An empty table for at most this many keys.
    pub(super) fn new(most: u32) -> Self {
        let most = most.max(1) as usize;
        Self {
            buckets: vec![0; most.next_power_of_two()],
            slots: Vec::new(),
            most,
            newest: 0,
            oldest: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The time at which this key will have caught up, as the key used last. A key that is not known has always caught
    /// up; if there is no room for it, another is forgotten.
    pub(super) fn touch(&mut self, hash: u64, now: u64) -> &mut u64 {
        let mut index = self.index(hash);
        if index == 0 {
            index = self.insert(hash, now);
        } else if index != self.newest {
            self.unlink(index);
            self.link_newest(index);
        }
        &mut self.slot_mut(index).caught_up
    }

    /// The time at which this key will have caught up, if it is known. It is not used by that.
    pub(super) fn find(&mut self, hash: u64) -> Option<&mut u64> {
        match self.index(hash) {
            0 => None,
            index => Some(&mut self.slot_mut(index).caught_up),
        }
    }

    fn index(&self, hash: u64) -> u32 {
        let mut index = self.buckets[self.bucket(hash)];
        while index != 0 && self.slot(index).hash != hash {
            index = self.slot(index).chained;
        }
        index
    }

    fn insert(&mut self, hash: u64, now: u64) -> u32 {
        let index = if self.slots.len() < self.most {
            self.slots.push(Slot {
                hash,
                caught_up: 0,
                chained: 0,
                newer: 0,
                older: 0,
            });
            u32::try_from(self.slots.len()).expect("at most u32::MAX slots")
        } else {
            let index = self.forgettable(now);
            self.unlink(index);
            self.unchain(index);
            index
        };
        let bucket = self.bucket(hash);
        let chained = std::mem::replace(&mut self.buckets[bucket], index);
        let slot = self.slot_mut(index);
        slot.hash = hash;
        slot.caught_up = 0;
        slot.chained = chained;
        self.link_newest(index);
        index
    }

    /// The key to forget.
    fn forgettable(&self, now: u64) -> u32 {
        let by_age =
            std::iter::successors(Some(self.oldest), |&index| match self.slot(index).newer {
                0 => None,
                newer => Some(newer),
            });
        by_age
            .take(LOOK_AT)
            .find(|&index| self.slot(index).caught_up <= now)
            .unwrap_or(self.oldest)
    }

    fn bucket(&self, hash: u64) -> usize {
        // The number of buckets is a power of two, and all bits of the hash are equally good.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "only the low bits are wanted"
        )]
        let low = hash as usize;
        low & (self.buckets.len() - 1)
    }

    fn slot(&self, index: u32) -> &Slot {
        &self.slots[index as usize - 1]
    }

    fn slot_mut(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize - 1]
    }

    fn link_newest(&mut self, index: u32) {
        let before = std::mem::replace(&mut self.newest, index);
        let slot = self.slot_mut(index);
        slot.newer = 0;
        slot.older = before;
        match before {
            0 => self.oldest = index,
            before => self.slot_mut(before).newer = index,
        }
    }

    fn unlink(&mut self, index: u32) {
        let Slot { newer, older, .. } = *self.slot(index);
        match newer {
            0 => self.newest = older,
            newer => self.slot_mut(newer).older = older,
        }
        match older {
            0 => self.oldest = newer,
            older => self.slot_mut(older).newer = newer,
        }
    }

    fn unchain(&mut self, index: u32) {
        let Slot { hash, chained, .. } = *self.slot(index);
        let bucket = self.bucket(hash);
        let mut at = self.buckets[bucket];
        if at == index {
            self.buckets[bucket] = chained;
            return;
        }
        while self.slot(at).chained != index {
            at = self.slot(at).chained;
        }
        self.slot_mut(at).chained = chained;
    }
}
