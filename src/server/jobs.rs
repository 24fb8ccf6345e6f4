//! What the workers are to do: dispatched by the event loop, announced through tiny_http, begun by whoever is free.
//!
//! ```text
//!   event loop ── put(1), put(2), put(3) ──▶ ┌───┬───┬───┐
//!        │                                   │ 1 │ 2 │ 3 │ ── next() ──▶ workers
//!        └── "up to 3" ─▶ tiny_http ─ recv ─▶ └───┴───┴───┘
//!                                  release(3)
//! ```
//!
//! A job may begin once a request with its number, or a later one, has come through tiny_http. Numbers are never used
//! again, so what is left over from a broken stream announces nothing that came later.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::event_loop::connection::Incoming;
use super::exchange::Exchange;
use super::response::Continuation;
use super::stream::Stream;
use super::task::Task;
use crate::health::Permit;
use crate::panics::lock;

/// One thing for a worker to do. It owns all that this takes.
pub(crate) enum Job {
    /// Run the handler and send its reply.
    Handle {
        exchange: Arc<Exchange>,
        request: Incoming,
        permit: Permit,
    },
    /// Go on with a request that waited for something else.
    Continue { task: Box<Task>, then: Continuation },
    /// Go on with a reply whose client has read what came before.
    Resume {
        exchange: Arc<Exchange>,
        stream: Stream,
    },
    /// Drop what may run a user's code when it is dropped, which the event loop must not.
    Drop(Box<dyn Send>),
}

impl Job {
    /// Whether it goes on with a request that waited.
    pub(crate) fn continues(&self) -> bool {
        matches!(self, Self::Continue { .. })
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handle { .. } => "Handle",
            Self::Continue { .. } => "Continue",
            Self::Resume { .. } => "Resume",
            Self::Drop(_) => "Drop",
        })
    }
}

/// The jobs that no worker has begun.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    queue: Mutex<Queue>,
    /// How many a worker has taken.
    begun: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    /// In the order of their numbers.
    jobs: VecDeque<(u64, Job)>,
    /// Up to this number they may begin.
    released: u64,
}

impl Jobs {
    /// Appends a job. Its number is above all before it.
    pub(crate) fn put(&self, number: u64, job: Job) {
        lock(&self.queue).jobs.push_back((number, job));
    }

    /// Notes that a request with this number has come through tiny_http.
    pub(crate) fn release(&self, number: u64) {
        let released = &mut lock(&self.queue).released;
        *released = number.max(*released);
    }

    /// The next job that may begin.
    pub(crate) fn next(&self) -> Option<Job> {
        let mut queue = lock(&self.queue);
        let released = queue.released;
        queue
            .jobs
            .front()
            .filter(|(number, _)| *number <= released)?;
        let (_, job) = queue.jobs.pop_front()?;
        self.begun.fetch_add(1, Ordering::Relaxed);
        Some(job)
    }

    /// Whether a job could begin now.
    pub(crate) fn is_ready(&self) -> bool {
        let queue = lock(&self.queue);
        let first = queue.jobs.front();
        first.is_some_and(|(number, _)| *number <= queue.released)
    }

    /// The number of the first job that no worker has begun.
    pub(crate) fn first(&self) -> Option<u64> {
        let queue = lock(&self.queue);
        queue.jobs.front().map(|(number, _)| *number)
    }

    /// Takes out the requests that were admitted at `limit` or before.
    pub(crate) fn overdue(&self, limit: Instant) -> Vec<Job> {
        let mut queue = lock(&self.queue);
        let mut overdue = Vec::new();
        let is_overdue =
            |job: &Job| matches!(job, Job::Handle { exchange, .. } if exchange.admitted <= limit);
        while let Some(at) = queue.jobs.iter().position(|(_, job)| is_overdue(job)) {
            overdue.extend(queue.jobs.remove(at).map(|(_, job)| job));
        }
        overdue
    }

    /// How many jobs a worker has taken since the start.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }
}
