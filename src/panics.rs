//! Where a user's code is called by a thread that must outlive it, and locks whose holder has panicked.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Calls what may panic. What it borrows must be looked at as after any error.
///
/// # Errors
/// What the panic said.
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(said)
}

/// What a panic said. What it carries beside text is a user's, and may panic again when it is dropped: so it never is.
pub(crate) fn said(panic: Box<dyn Any + Send>) -> String {
    let panic = match panic.downcast::<String>() {
        Ok(text) => return *text,
        Err(panic) => panic,
    };
    if let Some(text) = panic.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    mem::forget(panic);
    "no message".to_owned()
}

/// A lock whose holder panicked still guards whole data here: every critical section is a move.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::panic_any;

    /// Panics when it is dropped.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn what_a_panic_says_is_told_and_what_it_carries_is_never_dropped() {
        let number = 7;
        assert_eq!(catch(|| number), Ok(7));
        assert_eq!(catch(|| panic!("plain")), Err::<(), _>("plain".to_owned()));
        let formatted = catch(|| panic!("number {number}"));
        assert_eq!(formatted, Err::<(), _>("number 7".to_owned()));
        let bomb = catch(|| panic_any(Bomb));
        assert_eq!(bomb, Err::<(), _>("no message".to_owned()));
    }
}
