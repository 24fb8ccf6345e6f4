//! Defaults and bounds that come from the machine.

use std::ops::RangeInclusive;
use std::thread;

use nix::sys::resource::{Resource, getrlimit};

/// Bounds of [`Config::workers`](super::Config::workers). Each is a thread with a stack of its own.
pub(super) const WORKERS: RangeInclusive<usize> = 1..=1024;

/// Bounds of [`Config::max_connections`](super::Config::max_connections); the upper one is the most descriptors that
/// Linux gives a process unless told otherwise (`fs.nr_open`).
pub(super) const MAX_CONNECTIONS: RangeInclusive<usize> = 1..=1_048_576;

/// The most that [`Config::max_bodies`](super::Config::max_bodies) may be: on a 32-bit system a quarter of what it can
/// address.
pub(super) const MAX_BODIES: usize = 1 << if usize::BITS < 64 { 30 } else { 36 };

/// Descriptors kept from clients: for listeners, the reserve of the admin and agent listeners (16 connections each),
/// streams to the workers, logs and data-store checks.
pub(crate) const DESCRIPTORS_KEPT: usize = 64;
/// The most client connections held unless told otherwise.
const MOST_CONNECTIONS_BY_DEFAULT: usize = 65_536;
/// The descriptor limit assumed where it cannot be read: the customary soft limit.
const DESCRIPTOR_LIMIT_ASSUMED: usize = 1024;

pub(super) fn default_workers() -> usize {
    workers_of(thread::available_parallelism().map_or(1, usize::from))
}

fn workers_of(cores: usize) -> usize {
    cores.saturating_mul(2).clamp(4, *WORKERS.end())
}

pub(super) fn default_max_connections() -> usize {
    connections_of(descriptor_limit())
}

fn connections_of(descriptor_limit: Option<usize>) -> usize {
    descriptor_limit
        .unwrap_or(DESCRIPTOR_LIMIT_ASSUMED)
        .saturating_sub(DESCRIPTORS_KEPT)
        .clamp(*MAX_CONNECTIONS.start(), MOST_CONNECTIONS_BY_DEFAULT)
}

/// How many descriptors are left for connections to the service beside so many clients.
#[cfg(feature = "proxy")]
pub(crate) fn descriptors_beside(clients: usize) -> usize {
    let limit = descriptor_limit().unwrap_or(DESCRIPTOR_LIMIT_ASSUMED);
    limit.saturating_sub(DESCRIPTORS_KEPT.saturating_add(clients))
}

/// The process's soft limit of open files, where the system tells it.
pub(crate) fn descriptor_limit() -> Option<usize> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some(usize::try_from(soft).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_default_to_twice_the_cores_within_the_bounds() {
        assert_eq!(workers_of(1), 4);
        assert_eq!(workers_of(2), 4);
        assert_eq!(workers_of(3), 6);
        assert_eq!(workers_of(64), 128);
        assert_eq!(workers_of(usize::MAX), 1024);
    }

    #[test]
    fn connections_default_to_the_descriptor_limit_less_what_is_kept() {
        assert_eq!(connections_of(Some(20_000)), 19_936);
        assert_eq!(connections_of(Some(usize::MAX)), 65_536);
        assert_eq!(connections_of(Some(10)), 1);
        assert_eq!(connections_of(None), 960);
    }
}
