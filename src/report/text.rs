//! Short lines for people and Consul: byte for byte the same while the status is, so that a monitor that keeps them
//! sees no change where there is none.

use super::word;
use crate::health::Snapshot;

/// The line of `/health`.
pub(super) fn health(now: &Snapshot) -> String {
    format!("{}\n", word(now))
}

/// The line of `/readyz`, given its verdict.
pub(super) fn ready(now: &Snapshot, good: bool) -> String {
    let line = if good { "ready" } else { word(now) };
    format!("{line}\n")
}

/// The line of `/livez`, given its verdict.
pub(super) fn live(good: bool) -> String {
    let line = if good { "live\n" } else { "stuck\n" };
    line.into()
}
