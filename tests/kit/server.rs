//! A server in this process, and handlers that wait.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use plimsoll::{Builder, CheckReport, GateMode, Handler, Request, Server};

use super::{NEVER, PATIENCE, wait_until};

/// A server on a free port of loopback that neither sheds nor trips nor times out, however slow the machine is: a test
/// sets what it is about.
pub(crate) fn quiet(workers: usize) -> Builder {
    quiet_at(([127, 0, 0, 1], 0).into(), workers)
}

/// The same at an address, such as a reserved one, at which nobody listens afterwards.
pub(crate) fn quiet_at(address: SocketAddr, workers: usize) -> Builder {
    Server::builder()
        .listen(address)
        .workers(workers)
        .gate(GateMode::Off)
        .threshold(NEVER)
        .queue_budget(NEVER)
        .head_timeout(NEVER)
        .body_timeout(NEVER)
        .idle_timeout(NEVER)
        .write_timeout(NEVER)
        .request_timeout(NEVER)
}

/// Waits until every request that has been admitted is over and counted: a client may have its reply before that.
#[track_caller]
pub(crate) fn settle(server: &Server) {
    wait_until("no request is in flight", || {
        server.health().snapshot().in_flight == 0
    });
}

/// Holds handlers until the test lets them go.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    state: Mutex<LatchState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LatchState {
    open: bool,
    /// How many have come so far.
    arrived: usize,
}

impl Latch {
    /// Called by a handler: returns once the latch is open.
    pub(crate) fn pass(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.arrived += 1;
        self.changed.notify_all();
        let held = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| !state.open);
        drop(held);
    }

    /// A handler that waits at the latch, then gives this reply.
    pub(crate) fn handler(self: &Arc<Self>, reply: &'static str) -> impl Handler + use<> {
        let latch = self.clone();
        move |_: &mut Request| {
            latch.pass();
            reply
        }
    }

    /// Waits until so many handlers have come to the latch, in total.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| state.arrived < count);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(
            !timeout.timed_out(),
            "{} of {count} handlers came",
            state.arrived
        );
    }

    /// Lets everyone pass, now and later.
    pub(crate) fn open(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open = true;
        self.changed.notify_all();
    }
}

/// What a server knows of the store of that name.
#[track_caller]
pub(crate) fn report(server: &Server, name: &str) -> CheckReport {
    let snapshot = server.health().snapshot();
    let mut checks = snapshot.checks.into_iter();
    checks
        .find(|check| &*check.name == name)
        .expect("a check of that name")
}
