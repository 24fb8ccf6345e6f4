//! A request that has been begun, wherever it goes on: with a worker, or where it waits.

use std::sync::Arc;
use std::time::Instant;

use super::exchange::Exchange;
use super::request::Request;
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
