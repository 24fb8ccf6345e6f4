//! What every blocking client here needs: URLs, and names to addresses by a deadline.

pub(crate) mod resolve;
pub(crate) mod url;
