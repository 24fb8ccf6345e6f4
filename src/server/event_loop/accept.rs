//! Taking connections in: as many as each listener may have, and what each is told first.

use std::net::SocketAddr;
use std::time::Instant;

use mio::Interest;
use mio::net::TcpStream;

use super::acceptor::Accepted;
use super::client::Client;
use super::connection::{CloseReason, Connection};
use super::listeners::Listener;
use super::{EventLoop, TURN};
use crate::health::bump;
use crate::report;

impl EventLoop {
    /// Accepts a turn's worth of connections at each listener.
    pub(super) fn accept(&mut self, now: Instant) {
        for listener in Listener::ALL {
            self.accept_at(listener, now);
        }
    }

    /// Accepts a turn's worth of one listener's connections.
    pub(super) fn accept_at(&mut self, listener: Listener, now: Instant) {
        for _ in 0..TURN {
            if !self.listeners.of(listener).is_ready(now) {
                return;
            }
            let most = self.listeners.most(listener);
            let full = self.clients.count(listener) >= most;
            if full && self.clients.longest_idle(listener).is_none() {
                // The kernel's backlog holds the others until a client leaves or falls idle.
                if listener == Listener::Public {
                    bump(&self.shared.health.counts.accept_pauses_full);
                }
                self.listeners.of(listener).pause(most, now);
                return;
            }
            match self.listeners.of(listener).accept(now) {
                Accepted::Client(socket, peer) => {
                    // Not before somebody is known to wait: readiness may be spurious.
                    if full {
                        self.make_room(listener, now);
                    }
                    self.connect(listener, socket, peer, now);
                }
                Accepted::Gone => {}
                Accepted::Nobody => return,
                Accepted::Exhausted => {
                    bump(&self.shared.health.counts.accept_pauses_descriptors);
                    return;
                }
            }
        }
    }

    /// Closes the connection of that listener that has been idle the longest.
    fn make_room(&mut self, listener: Listener, now: Instant) {
        let Some(slot) = self.clients.longest_idle(listener) else {
            return;
        };
        if let Some(client) = self.clients.get_mut(slot) {
            client.connection.close(CloseReason::Evicted);
        }
        self.advance(slot, now);
    }

    fn connect(
        &mut self,
        listener: Listener,
        mut socket: TcpStream,
        peer: SocketAddr,
        now: Instant,
    ) {
        let slot = self.clients.vacant();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let ready = socket.set_nodelay(true).and_then(|()| {
            self.poller
                .registry()
                .register(&mut socket, self.clients.token(slot), interest)
        });
        if let Err(error) = ready {
            log::debug!("{peer}: gone while it was accepted: {error}");
            return;
        }
        let connection = match listener {
            Listener::Agent => Connection::telling(self.limits.clone(), self.agent_line(now), now),
            Listener::Public | Listener::Admin => Connection::new(self.limits.clone(), now),
        };
        if listener == Listener::Public {
            bump(&self.shared.health.counts.accepted);
        }
        self.clients
            .insert(Client::new(socket, peer, listener, connection));
        self.advance(slot, now);
    }

    /// What HAProxy's agent-check is told.
    fn agent_line(&mut self, now: Instant) -> String {
        self.note_probe(now);
        self.observe(now);
        report::agent_line(&self.shared.health.snapshot())
    }
}
