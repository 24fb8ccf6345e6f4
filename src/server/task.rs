//! A request that has been begun, wherever it goes on: with a worker, or where it waits.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::exchange::Exchange;
use super::request::Request;
use super::response::Waiting;
use crate::health::Permit;

/// A request that a worker has begun.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) request: Request,
    pub(crate) permit: Permit,
    /// When it began.
    pub(crate) began: Instant,
}

/// A request that waits.
pub(crate) struct Waits {
    pub(crate) task: Task,
    pub(crate) waiting: Box<dyn Waiting>,
}

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waits")
            .field("task", &self.task)
            .finish_non_exhaustive()
    }
}
