//! What the rest of a program knows of a running server.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::health::Health;
use crate::server::access_log::AccessLog;
use crate::server::event_loop::wake::{self, Message};
use crate::server::shared::Shared;

/// A running server, for the rest of the program: its addresses, its health, and a way to stop it. Cheap to clone.
///
/// It does not keep the server running, and may outlive it.
///
/// ```
/// use std::thread;
/// use std::time::Duration;
///
/// use plimsoll::Server;
///
/// # fn main() -> Result<(), plimsoll::Error> {
/// let server = Server::builder().listen("127.0.0.1:0").handler_fn(|_| "hello\n").start()?;
/// let handle = server.handle();
/// let serving = thread::spawn(move || server.run());
///
/// println!("serving on {}", handle.local_addr());
/// assert!(handle.health().is_healthy());
/// handle.shutdown(Duration::from_secs(5));
/// serving.join().expect("no panic")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Handle(Arc<Known>);

struct Known {
    addresses: Addresses,
    health: Arc<Health>,
    event_loop: wake::Sender,
    access_log: Option<Arc<AccessLog>>,
    /// Tells whoever runs the server how long it drains; room for the first word.
    drains: Sender<Duration>,
}

/// Where a server listens.
#[derive(Debug)]
pub(super) struct Addresses {
    /// At least one.
    pub(super) public: Vec<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) agent: Option<SocketAddr>,
}

/// The longest drain: a longer one is taken for this.
const LONGEST_DRAIN: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Handle {
    /// A handle, and where its word to drain is heard.
    pub(super) fn new(addresses: Addresses, shared: &Shared) -> (Self, Receiver<Duration>) {
        let (drains, drained) = crossbeam_channel::bounded(1);
        let known = Known {
            addresses,
            health: shared.health.clone(),
            event_loop: shared.event_loop.clone(),
            access_log: shared.access_log.clone(),
            drains,
        };
        (Self(Arc::new(known)), drained)
    }

    /// The first address that the server listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.addresses.public[0]
    }

    /// Every address that the server listens on, in the order given.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.0.addresses.public
    }

    /// The address of the listener for the health paths only, if there is one.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.0.addresses.admin
    }

    /// The address of the listener for HAProxy's agent-check, if there is one.
    #[must_use]
    pub fn agent_addr(&self) -> Option<SocketAddr> {
        self.0.addresses.agent
    }

    /// What the server knows about itself; once it has stopped, as it was then.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// Begins a drain of at most that long, as [`Server::shutdown`](crate::Server::shutdown) does, and returns at once:
    /// [`Server::run`](crate::Server::run) or [`run_until_signal`](crate::Server::run_until_signal) returns when the
    /// drain is over. A second call may only shorten it; nothing happens once the server has stopped.
    pub fn shutdown(&self, drain: Duration) {
        // First, as a drain without time may be over at once. When there is no room, the first word is yet to be heard.
        let _ = self.0.drains.try_send(drain);
        self.drain(drain, true);
    }

    /// Has the access log go on in a new file of the same name, once the old one has been moved away, and returns at once.
    /// Nothing happens where there is no such file. One that can't be opened is told in the log, and the access log stays
    /// in the old one. SIGUSR1 does this for the servers that wait for signals.
    pub fn reopen_access_log(&self) {
        if let Some(log) = &self.0.access_log {
            log.reopen();
        }
    }

    pub(super) fn has_access_log(&self) -> bool {
        self.0.access_log.is_some()
    }

    /// Begins a drain in the event loop; `serves` is explained [there](Message::Drain).
    pub(super) fn drain(&self, drain: Duration, serves: bool) {
        let until = end_of(drain);
        self.0.event_loop.send(Message::Drain { until, serves });
    }
}

/// When a drain that begins now has to be over.
pub(super) fn end_of(drain: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(drain).unwrap_or(now + LONGEST_DRAIN)
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("addresses", &self.0.addresses)
            .field("health", &self.0.health)
            .finish_non_exhaustive()
    }
}
