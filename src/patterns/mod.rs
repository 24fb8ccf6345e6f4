//! Patterns for programs that call other services: blocking types, each usable by itself.
//!
//! There is no HTTP in them, but for the cache: they work with any blocking client and any error type. Their decisions
//! take the time as an argument, so they can be tested without a sleep; the convenience methods read the clock once.

mod balance;
mod breaker;
#[cfg(feature = "cache")]
mod cache;
mod chance;
mod deadline;
mod discovery;
mod retry;
mod throttle;
mod window;

pub use crate::net::stream::{Address, DeadlineStream};
pub use balance::{
    Ask, Balance, Balancer, Endpoint, EndpointStatus, Pick, TooManyEndpoints, Unavailable,
};
pub use breaker::{
    BreakerBuilder, BreakerError, BreakerOpen, BreakerState, BreakerStatus, CircuitBreaker, Permit,
};
#[cfg(feature = "cache")]
pub use cache::{
    Cache, CacheRequest, CacheStats, CacheTime, CachedReply, Fetch, Fetched, Fields, Filling,
    Lookup, Wait,
};
pub use deadline::{Deadline, DeadlineExceeded};
pub use discovery::{Discovered, Discovery, SourceError, SourceStatus};
pub use retry::{Backoff, Clock, Failed, Retry, RetryBudget};
pub use throttle::{Quota, Rate, RateError, Throttle, ThrottleKey, Throttled};
