//! The integration tests: one binary, so that they link once and run side by side. A test that needs a process of its
//! own asks for it, see [`kit::alone`].

mod kit;

mod access_log;
mod bodies;
mod caching;
mod checks;
mod cli;
mod corpus;
mod discovery;
mod endpoints;
#[cfg(feature = "events")]
mod events;
mod examples;
mod faults;
mod full;
mod guide;
mod health;
mod hostile;
mod http;
mod logs;
mod monitors;
#[cfg(feature = "r2d2")]
mod pools;
mod probe;
mod proxy;
mod refusals;
mod reports;
mod restarts;
mod service;
#[cfg(feature = "redis")]
mod shared_limits;
mod shutdown;
mod signals;
mod status;
mod stores;
mod throttling;
mod trust;
mod under_load;
mod watched;
