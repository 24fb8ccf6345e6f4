//! The queue of events.

use super::Page;
use crate::health::Snapshot;

pub(super) fn events(page: &mut Page, now: &Snapshot) {
    let Some(events) = &now.events else {
        return;
    };
    for (name, help, value) in [
        (
            "accepted",
            "Events that were kept and answered 202.",
            events.accepted,
        ),
        (
            "delivered",
            "Events that the service has taken.",
            events.delivered,
        ),
        (
            "retried",
            "Deliveries that failed and are to be repeated.",
            events.retried,
        ),
        ("dead", "Events that were given up.", events.dead),
    ] {
        page.counter(&format!("plimsoll_events_{name}_total"), help, value);
    }
    let seconds = |age: Option<std::time::Duration>| age.unwrap_or_default().as_secs_f64();
    for (name, help, value) in [
        (
            "backlog",
            "Events that wait or are being delivered.",
            events.backlog as f64,
        ),
        (
            "bytes",
            "Bytes of all files of the events.",
            events.bytes as f64,
        ),
        (
            "oldest_seconds",
            "How long ago the oldest event that waits was accepted.",
            seconds(events.oldest),
        ),
        (
            "dead_letters",
            "Events that were given up and are kept.",
            events.dead_letters as f64,
        ),
        (
            "dead_letters_oldest_seconds",
            "How long ago the oldest of those died.",
            seconds(events.oldest_dead),
        ),
    ] {
        page.gauge(&format!("plimsoll_events_{name}"), help, value);
    }
}
