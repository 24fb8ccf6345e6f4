//! The listeners: of the service, of the health paths alone, and of HAProxy's agent-check.

use std::time::Instant;

use mio::net::TcpListener;

use super::acceptor::Acceptor;

/// Connections that the admin listener and the agent listener hold each, beyond those of the service: so that they can
/// be reached when the service is full. They come out of the descriptors that are kept from its clients.
const RESERVE: usize = 16;

/// What a listener is for, and so what its connections may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    /// The service, and the health paths in it.
    Public,
    /// The health paths only, with all details.
    Admin,
    /// HAProxy's agent-check.
    Agent,
}

impl Listener {
    pub(crate) const ALL: [Self; 3] = [Self::Public, Self::Admin, Self::Agent];
}

/// All listeners, each with its sockets.
#[derive(Debug)]
pub(crate) struct Listeners {
    acceptors: [Acceptor; Listener::ALL.len()],
    /// Most connections of the service at once.
    max_connections: usize,
}

impl Listeners {
    pub(crate) fn new(sockets: Vec<(Listener, TcpListener)>, max_connections: usize) -> Self {
        let mut by_listener = Listener::ALL.map(|_| Vec::new());
        for (listener, socket) in sockets {
            by_listener[listener as usize].push(socket);
        }
        Self {
            acceptors: by_listener.map(Acceptor::new),
            max_connections,
        }
    }

    /// Most connections that came through that listener at once.
    pub(crate) fn most(&self, listener: Listener) -> usize {
        match listener {
            Listener::Public => self.max_connections,
            Listener::Admin | Listener::Agent => RESERVE,
        }
    }

    /// The sockets of one listener.
    pub(crate) fn of(&mut self, listener: Listener) -> &mut Acceptor {
        &mut self.acceptors[listener as usize]
    }

    /// Whether an accept is worth trying at any listener.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.acceptors
            .iter()
            .any(|listeners| listeners.is_ready(now))
    }

    /// Whether the service waits for a connection to be given back before it accepts another.
    pub(crate) fn is_full(&self) -> bool {
        self.acceptors[Listener::Public as usize].is_full()
    }

    /// When accepting goes on by itself.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.acceptors
            .iter()
            .filter_map(Acceptor::next_timeout)
            .min()
    }

    /// Closes every socket: from now on the system refuses new connections.
    pub(crate) fn close(&mut self) {
        self.acceptors.iter_mut().for_each(Acceptor::close);
    }
}
