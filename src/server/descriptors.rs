//! Whether the system's limit of open files leaves what the server needs: said at the start, once.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::error::Error;
use crate::settings::{Config, DESCRIPTORS_KEPT, descriptor_limit};

/// Descriptors that are needed beside the listeners: four for the way to the workers, two for the event queue, one for a
/// client, and one to spare.
const NEEDED: usize = 8;

/// Warns of a limit that is lower than the settings ask for.
///
/// # Errors
/// What is left is too little to serve anybody. Without this a start would try for ever.
pub(super) fn check(config: &Config, listener: &impl AsFd) -> Result<(), Error> {
    let wanted = config.max_connections.saturating_add(DESCRIPTORS_KEPT);
    if let Some(limit) = descriptor_limit().filter(|limit| *limit < wanted) {
        log::warn!(
            "the limit of open files is {limit}: expected {wanted} or more, of which max-connections has {}; raise it \
             (ulimit -n), or clients wait",
            config.max_connections
        );
    }
    let copies = (0..NEEDED).map(|_| listener.as_fd().try_clone_to_owned());
    let held: io::Result<Vec<OwnedFd>> = copies.collect();
    held.map(drop).map_err(|source| Error::System {
        what: "the event loop and the way to the workers, which need 8 descriptors",
        source,
    })
}
