//! The queue's numbers, as Prometheus has them.

use super::EventStats;
use crate::metrics::{Exposition, Measured};

impl Measured for EventStats {
    fn metrics(&self, page: &mut Exposition) {
        for (name, help, value) in [
            (
                "accepted",
                "Events that were kept and answered 202.",
                self.accepted,
            ),
            (
                "delivered",
                "Events that the service has taken.",
                self.delivered,
            ),
            (
                "retried",
                "Deliveries that failed and are to be repeated.",
                self.retried,
            ),
            ("dead", "Events that were given up.", self.dead),
        ] {
            page.counter(&format!("plimsoll_events_{name}_total"), help, value);
        }
        let seconds = |age: Option<std::time::Duration>| age.unwrap_or_default().as_secs_f64();
        for (name, help, value) in [
            (
                "backlog",
                "Events that wait or are being delivered.",
                self.backlog as f64,
            ),
            (
                "bytes",
                "Bytes of all files of the events.",
                self.bytes as f64,
            ),
            (
                "oldest_seconds",
                "How long ago the oldest event that waits was accepted.",
                seconds(self.oldest),
            ),
            (
                "dead_letters",
                "Events that were given up and are kept.",
                self.dead_letters as f64,
            ),
            (
                "dead_letters_oldest_seconds",
                "How long ago the oldest of those died.",
                seconds(self.oldest_dead),
            ),
        ] {
            page.gauge(&format!("plimsoll_events_{name}"), help, value);
        }
    }
}
