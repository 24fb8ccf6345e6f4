//! What the workers and the event loop share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use mio::Registry;

use super::access_log::AccessLog;
use super::busy_poll::BusyPoll;
use super::event_loop::intake::Carrier;
use super::event_loop::wake::Sender;
use super::handler::Handler;
use super::idle_workers::IdleWorkers;
use super::jobs::Jobs;
use super::throttling::Throttling;
use crate::health::Health;
use crate::panics::lock;

/// See the [module](self).
pub(crate) struct Shared {
    /// Where workers pull from: another one once the stream into it has broken.
    pub(crate) carrier: Mutex<Arc<Carrier>>,
    pub(crate) handler: Box<dyn Handler>,
    pub(crate) access_log: Option<Arc<AccessLog>>,
    pub(crate) health: Arc<Health>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) idle_workers: IdleWorkers,
    pub(crate) busy_poll: BusyPoll,
    pub(crate) throttling: Arc<Throttling>,
    pub(crate) event_loop: Sender,
    /// Where sockets are watched for the event loop.
    pub(crate) registry: Registry,
    pub(crate) closing: AtomicBool,
}

impl Shared {
    pub(crate) fn carrier(&self) -> Arc<Carrier> {
        lock(&self.carrier).clone()
    }

    /// Whether workers pull from that one now.
    pub(crate) fn is_current(&self, carrier: &Arc<Carrier>) -> bool {
        Arc::ptr_eq(&lock(&self.carrier), carrier)
    }

    /// Has the workers pull from another server from now on.
    pub(crate) fn replace_carrier(&self, carrier: Arc<Carrier>, workers: usize) {
        let old = std::mem::replace(&mut *lock(&self.carrier), carrier);
        unblock(&old, workers);
    }

    /// Has every worker end once it is done with its job.
    pub(crate) fn close(&self, workers: usize) {
        self.closing.store(true, Ordering::Release);
        unblock(&self.carrier(), workers);
        self.idle_workers.close();
    }

    /// Wakes a worker that waits for requests.
    pub(crate) fn wake_receiver(&self) {
        self.carrier().server.unblock();
    }
}

/// Wakes all workers that wait for requests. A worker may take two of these calls, as it looks before it waits.
fn unblock(carrier: &Carrier, workers: usize) {
    for _ in 0..2 * workers {
        carrier.server.unblock();
    }
}
