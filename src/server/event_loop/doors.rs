//! The doors that connections come through: to the service, to the health paths alone, and for HAProxy's agent-check.

use std::time::Instant;

use mio::net::TcpListener;

use super::listeners::Listeners;

/// Connections that the admin listener and the agent listener hold each, beyond those of the service: so that they can
/// be reached when the service is full. They come out of the descriptors that are kept from its clients.
const RESERVE: usize = 16;

/// What a listener is for, and so what its connections may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The service, and the health paths in it.
    Public,
    /// The health paths only, with all details.
    Admin,
    /// HAProxy's agent-check.
    Agent,
}

impl Door {
    pub(crate) const ALL: [Self; 3] = [Self::Public, Self::Admin, Self::Agent];
}

/// The listeners of each door.
#[derive(Debug)]
pub(crate) struct Doors {
    listeners: [Listeners; Door::ALL.len()],
    /// Most connections of the service at once.
    max_connections: usize,
}

impl Doors {
    pub(crate) fn new(sockets: Vec<(Door, TcpListener)>, max_connections: usize) -> Self {
        let mut by_door = Door::ALL.map(|_| Vec::new());
        for (door, socket) in sockets {
            by_door[door as usize].push(socket);
        }
        Self {
            listeners: by_door.map(Listeners::new),
            max_connections,
        }
    }

    /// Most connections that came through that door at once.
    pub(crate) fn most(&self, door: Door) -> usize {
        match door {
            Door::Public => self.max_connections,
            Door::Admin | Door::Agent => RESERVE,
        }
    }

    /// The listeners of one door.
    pub(crate) fn of(&mut self, door: Door) -> &mut Listeners {
        &mut self.listeners[door as usize]
    }

    /// Whether an accept is worth trying at any door.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.listeners
            .iter()
            .any(|listeners| listeners.is_ready(now))
    }

    /// Whether the service waits for a connection to be given back before it accepts another.
    pub(crate) fn is_full(&self) -> bool {
        self.listeners[Door::Public as usize].is_full()
    }

    /// When accepting goes on by itself.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.listeners
            .iter()
            .filter_map(Listeners::next_timeout)
            .min()
    }

    /// Closes every socket: from now on the system refuses new connections.
    pub(crate) fn close(&mut self) {
        self.listeners.iter_mut().for_each(Listeners::close);
    }
}
