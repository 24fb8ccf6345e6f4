// The text is in the files beside this one, which can be read where they lie. There a link leads to a file, here to what
// links.md says: of two definitions of one link the first counts.
#![doc = include_str!("links.md")]
#![doc = include_str!("README.md")]

#[doc = include_str!("links.md")]
#[doc = include_str!("back_off.md")]
pub mod back_off {}

#[doc = include_str!("links.md")]
#[cfg_attr(feature = "cache", doc = include_str!("caching.md"))]
pub mod caching {}

#[doc = include_str!("links.md")]
#[doc = include_str!("circuit_breaking.md")]
pub mod circuit_breaking {}

#[doc = include_str!("links.md")]
#[doc = include_str!("comparison.md")]
pub mod comparison {}

#[doc = include_str!("links.md")]
#[doc = include_str!("data_stores.md")]
pub mod data_stores {}

#[doc = include_str!("links.md")]
#[doc = include_str!("deployment.md")]
pub mod deployment {}

#[doc = include_str!("links.md")]
#[cfg_attr(feature = "events", doc = include_str!("event_processing.md"))]
pub mod event_processing {}

#[doc = include_str!("links.md")]
#[doc = include_str!("health_checks.md")]
pub mod health_checks {}

#[doc = include_str!("links.md")]
#[doc = include_str!("hostile_clients.md")]
pub mod hostile_clients {}

#[doc = include_str!("links.md")]
#[doc = include_str!("how_it_works.md")]
pub mod how_it_works {}

#[doc = include_str!("links.md")]
#[doc = include_str!("load_balancing.md")]
pub mod load_balancing {}

#[doc = include_str!("links.md")]
#[doc = include_str!("monitors.md")]
pub mod monitors {}

#[doc = include_str!("links.md")]
#[doc = include_str!("numbers.md")]
pub mod numbers {}

#[doc = include_str!("links.md")]
#[doc = include_str!("overload.md")]
pub mod overload {}

#[doc = include_str!("links.md")]
#[cfg_attr(feature = "r2d2", doc = include_str!("pools.md"))]
pub mod pools {}

#[doc = include_str!("links.md")]
#[doc = include_str!("running.md")]
pub mod running {}

#[doc = include_str!("links.md")]
#[doc = include_str!("service_discovery.md")]
pub mod service_discovery {}

#[doc = include_str!("links.md")]
#[cfg_attr(feature = "proxy", doc = include_str!("sidecar.md"))]
pub mod sidecar {}

#[doc = include_str!("links.md")]
#[doc = include_str!("throttling.md")]
pub mod throttling {}

#[doc = include_str!("links.md")]
#[doc = include_str!("timeout.md")]
pub mod timeout {}

// The examples of the README are tested too.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
