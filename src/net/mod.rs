//! What every blocking client here needs: URLs, names to addresses by a deadline, streams, and HTTP.

pub(crate) mod client;
pub(crate) mod peer;
pub(crate) mod pool;
#[cfg(any(feature = "checks", feature = "redis"))]
pub(crate) mod redis;
pub(crate) mod resolve;
pub(crate) mod stream;
pub(crate) mod url;
