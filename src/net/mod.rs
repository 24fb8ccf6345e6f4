//! What every blocking client here needs: URLs, names to addresses by a deadline, streams, and HTTP.

#[allow(dead_code, reason = "the checks use a part of it, the sidecar all")]
pub(crate) mod client;
#[allow(dead_code, reason = "the checks use a part of it, the sidecar all")]
pub(crate) mod pool;
pub(crate) mod resolve;
pub(crate) mod stream;
pub(crate) mod url;
