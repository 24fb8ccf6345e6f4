//! What the tests share: a server that nothing but the test itself troubles, the binary as a user starts it, a client
//! that speaks in bytes, real programs beside them, and ways to wait for a state instead of sleeping.

pub(crate) mod alone;
pub(crate) mod binary;
pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod reply;
pub(crate) mod server;
pub(crate) mod stores;
pub(crate) mod upstream;
pub(crate) mod usage;
pub(crate) mod wait;

pub(crate) use alone::{alone, alone_under};
pub(crate) use binary::{Plimsoll, Serving, metric_in};
pub(crate) use client::{Client, ask, get, pattern, time_to_get};
pub(crate) use port::Reserved;
pub(crate) use reply::{Framing, Reply};
pub(crate) use server::{Latch, quiet, quiet_at, report, settle};
pub(crate) use upstream::Upstream;
pub(crate) use usage::Usage;
pub(crate) use wait::{NEVER, Over, PATIENCE, meanwhile, wait_until};
