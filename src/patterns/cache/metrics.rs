//! The cache's numbers, as Prometheus and the history have them.

use std::fmt::Display;

use super::CacheStats;
use crate::metrics::{Exposition, Measured};

impl Measured for CacheStats {
    fn metrics(&self, page: &mut Exposition) {
        const RESULTS: &str = "Requests by what the cache did: answered (hit, stale), had the service asked (miss), or let go past (bypass).";
        let results = [
            ("hit", self.hits),
            ("stale", self.stale),
            ("miss", self.misses),
            ("bypass", self.bypassed),
        ];
        page.counters("plimsoll_cache_requests_total", RESULTS, "result", &results);
        for (name, help, value) in [
            (
                "waits",
                "Requests that waited for another's fetch.",
                self.waits,
            ),
            (
                "validated",
                "Misses whose kept reply the service called valid.",
                self.validated,
            ),
        ] {
            page.counter(&format!("plimsoll_cache_{name}_total"), help, value);
        }
        for (name, help, value) in [
            ("entries", "Replies that are kept.", self.entries),
            (
                "bytes",
                "Bytes that they take, with those set apart for replies that are coming.",
                self.bytes,
            ),
            (
                "capacity_bytes",
                "Most bytes that they may take.",
                self.capacity,
            ),
        ] {
            page.gauge(&format!("plimsoll_cache_{name}"), help, value);
        }
    }

    /// Requests that it answered, and all that it could have answered.
    fn history(&self, tell: &mut dyn FnMut(&dyn Display, u64)) {
        let given = self.hits + self.stale;
        tell(&"cache_given", given);
        tell(&"cache_asked", given + self.misses);
    }
}
