//! Rendezvous hashing: a key's endpoint, which changes for as few keys as possible when the set does.
//!
//! Each endpoint has a score for each key, and the highest wins: Thaler and Ravishankar, *A Name-Based Mapping Scheme
//! for Rendezvous* (1996); the weights are those of Schindelhauer and Schomaker, *Weighted Distributed Hash Tables*
//! (2005). The hashes are fixed, so all replicas agree, also after a restart.

/// The 64-bit [FNV-1a](http://www.isthe.com/chongo/tech/comp/fnv/) hash, mixed.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

/// The score of an endpoint for a key, both hashed.
pub(super) fn score(key: u64, endpoint: u64, weight: f64) -> f64 {
    let bits = mix(key ^ endpoint) >> 11;
    // In (0, 1), both ends excluded.
    let uniform = (bits as f64 + 0.5) / (1_u64 << 53) as f64;
    weight / -uniform.ln()
}

/// The finalizer of [SplitMix64](https://prng.di.unimi.it/splitmix64.c): each bit depends on all.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(key: u32, weights: &[(&str, f64)]) -> String {
        let key = hash(&key.to_be_bytes());
        let scored = weights
            .iter()
            .map(|(name, weight)| (score(key, hash(name.as_bytes()), *weight), name));
        scored
            .max_by(|one, other| one.0.total_cmp(&other.0))
            .unwrap()
            .1
            .to_string()
    }

    #[test]
    fn keys_are_spread_by_weight_and_only_those_of_the_one_that_left_move() {
        let all = [("a", 1.0), ("b", 1.0), ("c", 2.0)];
        let mut counts = [0; 3];
        for key in 0..10_000 {
            let with = best(key, &all);
            counts[all.iter().position(|(name, _)| *name == with).unwrap()] += 1;
            let without = best(key, &all[1..]);
            assert!(with == "a" || with == without);
        }
        assert!((2300..2700).contains(&counts[0]), "{counts:?}");
        assert!((2300..2700).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn the_hash_never_changes() {
        // Replicas of different versions have to agree.
        assert_eq!(hash(b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(hash(b"a"), mix(0xaf63_dc4c_8601_ec8c));
    }
}
