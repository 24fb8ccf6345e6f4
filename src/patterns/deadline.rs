//! Timeout: one absolute deadline for everything that a request makes a program do.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// What stands for a time too far away to be represented. No wait lasts that long.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Whoever waits for an answer gives it less time than there is, by this part of that ...
const MARGIN_PART: u32 = 10;

/// ... and by no more than this: so that there is time left to tell what happened.
const MOST_MARGIN: Duration = Duration::from_millis(100);

/// What is left of a time for an answer that is to be waited for and told of.
pub(crate) fn less_margin(time: Duration) -> Duration {
    time.saturating_sub((time / MARGIN_PART).min(MOST_MARGIN))
}

/// A point in time by which an operation with all its steps has to be done.
///
/// A timeout for each step bounds nothing: three tries with 5 s each take 15 s, and a peer that sends a byte every 4 s
/// holds a read with a timeout of 5 s for ever. A deadline is set once, where the work begins, and handed down by
/// copy. Each step is given only [what is left](Self::remaining). This is the deadline of
/// [gRPC](https://grpc.io/docs/guides/deadlines/).
///
/// Of two deadlines the earlier is the [`min`](Ord::min); [`within`](Self::within) shortens one for a single step.
///
/// It is 16 bytes; `remaining` reads the clock once.
///
/// ```
/// use plimsoll::patterns::{Deadline, DeadlineExceeded};
/// use std::time::Duration;
///
/// fn copy_report(deadline: Deadline) -> Result<(), DeadlineExceeded> {
///     // A connection may take 1 s, but never more than what is left for the whole.
///     let connect = deadline.within(Duration::from_secs(1)).remaining()?;
///     assert!(connect <= Duration::from_secs(1));
///     let read = deadline.remaining()?;
///     assert!(read <= Duration::from_secs(30));
///     Ok(())
/// }
///
/// assert_eq!(copy_report(Deadline::after(Duration::from_secs(30))), Ok(()));
/// assert_eq!(copy_report(Deadline::after(Duration::ZERO)), Err(DeadlineExceeded));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline that is over `timeout` from now. One beyond a hundred years is a hundred years away.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        Self::after_at(timeout, Instant::now())
    }

    /// [`after`](Self::after), with the time as an argument.
    #[must_use]
    pub fn after_at(timeout: Duration, now: Instant) -> Self {
        Self(now + timeout.min(FAR))
    }

    /// The deadline that is over at `instant`.
    #[must_use]
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// When it is over.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left, above zero: sockets refuse a timeout of zero.
    ///
    /// # Errors
    ///
    /// The deadline is over.
    pub fn remaining(self) -> Result<Duration, DeadlineExceeded> {
        self.remaining_at(Instant::now())
    }

    /// [`remaining`](Self::remaining), with the time as an argument.
    ///
    /// # Errors
    ///
    /// The deadline is over at `now`.
    pub fn remaining_at(self, now: Instant) -> Result<Duration, DeadlineExceeded> {
        let left = self.0.saturating_duration_since(now);
        if left.is_zero() {
            Err(DeadlineExceeded)
        } else {
            Ok(left)
        }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_over(self) -> bool {
        self.remaining().is_err()
    }

    /// The deadline of a step that may take `timeout`: the earlier of that and this one.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Self {
        self.min(Self::after(timeout))
    }
}

impl From<Instant> for Deadline {
    fn from(instant: Instant) -> Self {
        Self::at(instant)
    }
}

/// A [`Deadline`] is over. It converts into an [`io::Error`] of the kind [`TimedOut`](io::ErrorKind::TimedOut).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadlineExceeded;

impl fmt::Display for DeadlineExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline is over")
    }
}

impl std::error::Error for DeadlineExceeded {}

impl From<DeadlineExceeded> for io::Error {
    fn from(exceeded: DeadlineExceeded) -> Self {
        Self::new(io::ErrorKind::TimedOut, exceeded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_left_shrinks_to_an_error() {
        let start = Instant::now();
        let deadline = Deadline::after_at(3 * SECOND, start);
        assert_eq!(deadline.remaining_at(start), Ok(3 * SECOND));
        assert_eq!(deadline.remaining_at(start + 2 * SECOND), Ok(SECOND));
        for late in [3, 4] {
            assert_eq!(
                deadline.remaining_at(start + late * SECOND),
                Err(DeadlineExceeded)
            );
        }
    }

    #[test]
    fn a_step_gets_no_more_than_the_whole_has_left() {
        let start = Instant::now();
        let whole = Deadline::after_at(SECOND, start);
        assert_eq!(whole.min(Deadline::after_at(2 * SECOND, start)), whole);
        assert_eq!(whole.within(Duration::MAX), whole);
        assert!(whole.within(Duration::ZERO).is_over());
    }

    #[test]
    fn no_timeout_is_too_long() {
        let left = Deadline::after(Duration::MAX).remaining().unwrap();
        assert!(left + SECOND > FAR);
    }

    #[test]
    fn it_is_a_timeout_to_who_reads() {
        let error = io::Error::from(DeadlineExceeded);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "the deadline is over");
    }
}
