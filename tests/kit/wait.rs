//! Waiting for a state, and what goes on until it is there.

use std::sync::atomic::{AtomicBool, Ordering};
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

/// Sets a flag at the end of what it stands in, also where that is an assertion that fails: what goes on beside it until
/// the flag is set would otherwise hold the test for ever.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Does `work` again and again in a thread of its own until `body` is over.
pub(crate) fn meanwhile<T>(mut work: impl FnMut() + Send, body: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                work();
            }
        });
        let _over = Over(&is_over);
        body()
    })
}
