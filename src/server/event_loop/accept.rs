//! Taking connections in: as many as each door may have, and what each is told first.

use std::net::SocketAddr;
use std::time::Instant;

use mio::Interest;
use mio::net::TcpStream;

use super::client::Client;
use super::connection::{CloseReason, Connection};
use super::doors::Door;
use super::listeners::Accepted;
use super::{Frontend, TURN};
use crate::health::bump;
use crate::report;

impl Frontend {
    /// Accepts a turn's worth of connections at each door.
    pub(super) fn accept(&mut self, now: Instant) {
        for door in Door::ALL {
            self.accept_at(door, now);
        }
    }

    /// Accepts a turn's worth of one door's connections.
    pub(super) fn accept_at(&mut self, door: Door, now: Instant) {
        for _ in 0..TURN {
            if !self.doors.of(door).is_ready(now) {
                return;
            }
            let full = self.clients.count(door) >= self.doors.most(door);
            if full && self.clients.dispensable(door).is_none() {
                // The kernel's backlog holds the others until a client leaves or falls idle.
                if door == Door::Public {
                    bump(&self.shared.health.counts.accept_pauses_full);
                }
                self.doors.of(door).pause();
                return;
            }
            match self.doors.of(door).accept(now) {
                Accepted::Client(socket, peer) => {
                    // Not before somebody is known to wait: readiness may be spurious.
                    if full {
                        self.make_room(door, now);
                    }
                    self.welcome(door, socket, peer, now);
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

    /// Closes the connection of that door that has been idle the longest.
    fn make_room(&mut self, door: Door, now: Instant) {
        let Some(slot) = self.clients.dispensable(door) else {
            return;
        };
        if let Some(client) = self.clients.get_mut(slot) {
            client.connection.close(CloseReason::Evicted);
        }
        self.drive(slot, now);
    }

    fn welcome(&mut self, door: Door, mut socket: TcpStream, peer: SocketAddr, now: Instant) {
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
        let connection = match door {
            Door::Agent => Connection::telling(self.limits.clone(), self.agent_line(now), now),
            Door::Public | Door::Admin => Connection::new(self.limits.clone(), now),
        };
        if door == Door::Public {
            bump(&self.shared.health.counts.accepted);
        }
        self.clients
            .insert(Client::new(socket, peer, door, connection));
        self.drive(slot, now);
    }

    /// What HAProxy's agent-check is told.
    fn agent_line(&mut self, now: Instant) -> String {
        self.note_probe(now);
        self.observe(now);
        report::agent::line(&self.shared.health.snapshot())
    }
}
