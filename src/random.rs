//! Random numbers for jitter and for spreading load; not for secrets.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Random numbers that need not be unpredictable: [xorshift64*](https://en.wikipedia.org/wiki/Xorshift#xorshift*).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A sequence of its own for almost every seed.
    pub(crate) fn new(seed: u64) -> Self {
        // Zero is the generator's one fixed point.
        Self(seed | 1)
    }

    /// 64 bits.
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number in [0, 1), uniformly distributed.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

thread_local! {
    /// Each thread has a sequence of its own, so none waits for another.
    static RANDOM: RefCell<Random> = RefCell::new(Random::new(seed()));
}

/// A number in [0, 1).
pub(crate) fn uniform() -> f64 {
    RANDOM.with_borrow_mut(Random::uniform)
}

/// 64 bits.
pub(crate) fn bits() -> u64 {
    RANDOM.with_borrow_mut(Random::bits)
}

/// A seed that differs from call to call and from process to process, also where every process has the same id, as in
/// containers: the keys that the system gives the standard library's hash maps.
pub(crate) fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_seeds_differ() {
        assert_ne!(seed(), seed());
    }

    #[test]
    fn numbers_are_spread_over_the_unit_interval() {
        let mut random = Random::new(seed());
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let number = random.uniform();
            assert!((0.0..1.0).contains(&number), "{number}");
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "from 0 to 9"
            )]
            let tenth = (number * 10.0) as usize;
            tenths[tenth] += 1;
        }
        // 1,000 each on average, with a standard deviation of 30.
        assert!(
            tenths.iter().all(|count| (700..1300).contains(count)),
            "{tenths:?}"
        );
    }
}
