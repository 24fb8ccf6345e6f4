//! What every blocking client here needs: URLs, names to addresses by a deadline, streams, and HTTP.

pub(crate) mod client;
pub(crate) mod peer;
pub(crate) mod pool;
pub(crate) mod resolve;
pub(crate) mod stream;
pub(crate) mod url;
