//! Patterns for programs that call other services: blocking types, each usable by itself.
//!
//! There is no HTTP in them: they work with any blocking client and any error type. Their decisions take the time as
//! an argument, so they can be tested without a sleep; the convenience methods read the clock once.

mod deadline;
mod throttle;

pub use deadline::{Deadline, DeadlineExceeded};
pub use throttle::{Quota, Rate, RateError, Throttle, ThrottleKey, Throttled};
