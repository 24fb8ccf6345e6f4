//! Short lines for people, Consul and Kubernetes.

use std::fmt::Write;

use super::word;
use crate::health::Snapshot;

/// The line of `/health`: byte for byte the same while the status is.
pub(super) fn health(now: &Snapshot) -> String {
    format!("{}\n", word(now))
}

/// The line of `/readyz`.
pub(super) fn ready(now: &Snapshot) -> String {
    let line = if now.is_ready() { "ready" } else { word(now) };
    format!("{line}\n")
}

/// The parts that make up readiness, in Kubernetes' manner.
pub(super) fn ready_parts(now: &Snapshot) -> String {
    let mut out = String::new();
    let parts = [("gate", now.is_healthy()), ("serving", !now.draining)];
    for (name, good) in parts {
        let line = if good {
            format!("[+]{name} ok")
        } else {
            format!("[-]{name} failed")
        };
        // Writing to a String does not fail.
        let _ = writeln!(out, "{line}");
    }
    let verdict = if now.is_ready() { "passed" } else { "failed" };
    let _ = writeln!(out, "readyz check {verdict}");
    out
}
