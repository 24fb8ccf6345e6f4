//! Waiting for a state.

use std::thread;
use std::time::{Duration, Instant};

/// Longest any test waits for anything; reached only when something is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A setting for what must not happen during a test.
pub(crate) const NEVER: Duration = Duration::from_secs(60 * 60);

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        // Only so that the wait leaves the processor to what it waits for.
        thread::sleep(Duration::from_millis(1));
    }
}
