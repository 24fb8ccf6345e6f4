//! What is counted, and what goes up and down: atomics, each right by itself.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What only ever grows.
        #[derive(Debug, Default)]
        pub(crate) struct Counts { $($(#[$doc])* pub(crate) $name: AtomicU64,)* }

        /// What has happened since the start; each only ever grows.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Totals { $($(#[$doc])* pub $name: u64,)* }

        impl Counts {
            pub(crate) fn read(&self) -> Totals {
                Totals { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counts! {
    /// Requests answered with 1xx to 3xx by the handler.
    served,
    /// Requests answered with 4xx, malformed ones included.
    bad,
    /// Requests answered with 5xx by the handler or for it, 504 included.
    failed,
    /// Requests refused with 503 because the queue was full.
    shed_queue,
    /// Requests refused with 503 because they would not have reached a worker within the budget, or did not.
    shed_deadline,
    /// Requests refused with 503 because their client had its share of the queue.
    shed_fair,
    /// Requests refused with 503 because there was no room for their body in time.
    shed_bodies,
    /// Requests refused with 503 because the gate was open, or half-open with a probe out.
    shed_gate,
    /// Requests refused with 503 because the server was stopping.
    shed_drain,
    /// Requests refused with 429 because their client asked too often.
    throttled,
    /// Requests for the health paths, and agent-checks.
    probed,
    /// Handlers that panicked; each is a failed request too.
    panics,
    /// Requests whose handler was slower than the request timeout: answered 504.
    timeouts,
    /// Answers dropped because the client had been answered already, or had gone.
    late,
    /// Requests whose client had gone before the handler started: not started.
    skipped,
    /// Replies cut in their middle: the body's reader failed or ended short.
    cut,
    /// Client connections accepted.
    accepted,
    /// Kept-alive connections closed to make room for new ones.
    evicted,
    /// Connections closed for being idle too long.
    idle_closed,
    /// Requests that were not whole in time: answered 408.
    too_slow,
    /// Requests whose head or trailers were larger than the limit: answered 414 or 431.
    head_too_large,
    /// Requests whose body was larger than the limit: answered 413.
    body_too_large,
    /// Replies that made no progress for the write timeout: cut.
    write_timeouts,
    /// Times that accepting paused because all connections were in use.
    accept_pauses_full,
    /// Times that accepting paused because descriptors or memory had run out.
    accept_pauses_descriptors,
    /// Private streams into the workers that broke and were opened again.
    stream_failures,
}

/// What goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) connections: AtomicUsize,
    /// Requests that workers have, or are about to.
    pub(crate) in_flight: AtomicUsize,
    /// Requests that wait for another server, with no worker.
    pub(crate) places: AtomicUsize,
    pub(crate) queue: AtomicUsize,
    /// Bytes of room that request bodies have.
    pub(crate) body_bytes: AtomicUsize,
    /// Requests whose body waits for room.
    pub(crate) bodies_waiting: AtomicUsize,
    /// Since when requests have no way to the workers: nanoseconds since the start, and 0 while they have one.
    pub(crate) intake_down_since: AtomicU64,
    /// Nanoseconds.
    pub(crate) predicted_wait: AtomicU64,
    pub(crate) draining: AtomicBool,
}

/// Adds one to a count.
pub(crate) fn bump(count: &AtomicU64) {
    count.fetch_add(1, Relaxed);
}
