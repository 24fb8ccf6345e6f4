//! HTTP/1.1 as text: heads, bodies, fields and refusals. No sockets, no clock.

pub(crate) mod authority;
pub(crate) mod body;
pub(crate) mod fields;
pub(crate) mod head;
pub(crate) mod path;
pub(crate) mod refusal;
pub(crate) mod response;
pub(crate) mod trust;
