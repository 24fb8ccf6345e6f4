//! Replies and tunnels of other servers: no worker waits for them.
//!
//! A worker has sent the head, and what was at hand of the body. From then on the event loop reads the other server's
//! socket when the client has taken what came before, and writes to the client's at once. So for each client at most one
//! buffer's worth is held, and a side that is slow makes the other wait in its own kernel.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::time::Instant;

use mio::{Registry, Token};

use super::EventLoop;
use super::client::Client;
use super::clients::upstream_token;
use super::connection::{After, CloseReason, Piece};
use crate::health::{Health, ReplyOutcome, bump};
use crate::server::exchange::Stage;
use crate::server::relay::{Fault, Progress, Step};
use crate::server::response::Trigger;
use crate::server::stream::Source;

/// What the event loop lends to a client whose reply comes from another server.
pub(super) struct Relaying<'a> {
    pub(super) registry: &'a Registry,
    /// The token of the other server's socket.
    pub(super) token: Token,
    pub(super) buffers: &'a mut Buffers,
    pub(super) health: &'a Health,
}

/// Where what is on its way from one socket to another stands meanwhile.
pub(super) struct Buffers {
    /// What was read at once.
    pub(super) read: Box<[u8]>,
    /// A step of what is relayed, as it goes to the client.
    relay: Vec<u8>,
}

impl Buffers {
    /// With so much read from a socket at once.
    pub(super) fn new(read_size: usize) -> Self {
        Self {
            read: vec![0; read_size].into_boxed_slice(),
            relay: Vec::new(),
        }
    }
}

impl EventLoop {
    /// Goes on with the part of a client's reply that comes from elsewhere; whether something has changed.
    pub(super) fn go_on(&mut self, slot: u32, now: Instant) -> bool {
        let token = upstream_token(self.clients.token(slot));
        let Some(client) = self.clients.get_mut(slot) else {
            return false;
        };
        if client.connection.close_reason().is_some() {
            return false;
        }
        let with = Relaying {
            registry: self.poller.registry(),
            token,
            buffers: &mut self.buffers,
            health: &self.shared.health,
        };
        let wants_more = client.connection.wants_more();
        match client.parked.as_ref().map(|stream| &stream.source) {
            Some(Source::Reader(_)) if wants_more => {
                let deadline = now + self.limits.request_timeout;
                client.connection.await_more(deadline);
                self.resume(slot);
                true
            }
            Some(Source::Relay(_)) => client.relay(with, now),
            Some(Source::Tunnel(_)) => client.tunnel(with, now),
            _ => false,
        }
    }

    /// Takes what an event says of the socket of another server.
    pub(super) fn handle_upstream(&mut self, slot: u32, event: &mio::event::Event, now: Instant) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        // A failed socket says what has happened when it is read or written.
        let readable = event.is_readable() || event.is_read_closed() || event.is_error();
        let writable = event.is_writable() || event.is_error();
        if client.wait.is_under_way() {
            self.go_on_waiting(slot, Trigger::Ready { readable }, now);
            return self.advance(slot, now);
        }
        match client.parked.as_mut().map(|stream| &mut stream.source) {
            Some(Source::Relay(relay)) => relay.set_ready(readable, writable),
            Some(Source::Tunnel(tunnel)) => tunnel.set_ready(readable, writable),
            _ => return client.note_early(),
        }
        self.advance(slot, now);
    }
}

impl Client {
    /// Passes a step of another server's reply on; whether something has changed.
    fn relay(&mut self, with: Relaying<'_>, now: Instant) -> bool {
        let Relaying {
            registry,
            token,
            buffers,
            health,
        } = with;
        let out = &mut buffers.relay;
        let Some(stream) = &mut self.parked else {
            return false;
        };
        let Source::Relay(relay) = &mut stream.source else {
            return false;
        };
        let idle = relay.idle();
        let watched = relay.watch(registry, token);
        let has_sent = relay.send();
        if has_sent {
            self.connection.put_off(now + idle);
            self.dry = self.dry.and(Some(now));
        }
        if !self.connection.output().is_empty() {
            return has_sent;
        }
        let filled = match watched {
            Ok(()) if relay.is_readable() => {
                out.clear();
                stream.fill(out)
            }
            Ok(()) => Ok(Progress::Dry),
            Err(error) => Err(error),
        };
        let progress = match filled {
            Ok(Progress::Dry) => {
                if !self.connection.wants_more() {
                    return has_sent;
                }
                self.connection.await_more(now + idle);
                self.dry = Some(now);
                return true;
            }
            Ok(progress) => {
                self.dry = None;
                progress
            }
            Err(error) => {
                self.cut(&error, health);
                return true;
            }
        };
        let Ok(sent) = self.socket.write_some(out) else {
            self.connection.close(CloseReason::Reset);
            return true;
        };
        let rest = &out[sent..];
        let rest = (!rest.is_empty()).then(|| Piece::new(rest.to_vec(), 0));
        let after = if progress == Progress::More {
            After::More
        } else {
            if let Source::Relay(relay) = &mut stream.source {
                relay.give_back(now);
            }
            let close = stream.close;
            self.parked = None;
            if let Some(exchange) = self.exchange.take()
                && exchange.advance(Stage::Streaming, Stage::Replying)
            {
                health.ended(ReplyOutcome::of(exchange.status()));
            }
            if close { After::Close } else { After::Keep }
        };
        self.connection.answer(rest, after, now);
        self.end_record_if_sent();
        true
    }

    /// Shows the client that its reply is not whole, whose body has failed.
    fn cut(&mut self, error: &io::Error, health: &Health) {
        log::debug!("{}: a reply was cut, its body failed: {error}", self.peer);
        if let Some(exchange) = self.exchange.take()
            && exchange.advance(Stage::Streaming, Stage::Abandoned)
        {
            bump(&health.counts.cut);
            health.ended(ReplyOutcome::Failed);
        }
        self.connection.close(CloseReason::Cut);
    }

    /// Passes on what both sides of a tunnel have sent; whether something has changed.
    fn tunnel(&mut self, with: Relaying<'_>, now: Instant) -> bool {
        let Relaying {
            registry,
            token,
            buffers,
            health,
        } = with;
        let Client {
            parked: Some(stream),
            connection,
            socket,
            readable,
            peer,
            ..
        } = self
        else {
            return false;
        };
        let Source::Tunnel(tunnel) = &mut stream.source else {
            return false;
        };
        if let Err(error) = tunnel.watch(registry, token) {
            log::warn!("{peer}: a tunnel cannot be watched: {error}");
            connection.close(CloseReason::Cut);
            return true;
        }
        let idle = now + tunnel.idle();
        connection.await_more(idle);
        // What came behind the request is the new protocol's.
        if connection.has_input() && !tunnel.has_pending() {
            tunnel.push(connection.take_input());
        }
        let read = |buffer: &mut [u8]| {
            if !*readable {
                return Ok(None);
            }
            match (&***socket).read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    *readable = false;
                    Ok(None)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
                came => came.map(Some),
            }
        };
        let forward = tunnel.forward(read, &mut buffers.read);
        let back = if connection.output().is_empty() {
            let write = |bytes: &[u8]| socket.write_some(bytes);
            let end = || socket.shutdown(Shutdown::Write);
            tunnel.back(write, end, &mut buffers.read)
        } else {
            Ok((Step::Waits, &[][..]))
        };
        let (forward, (back, rest)) = match (forward, back) {
            (Ok(forward), Ok(back)) => (forward, back),
            (Err(fault), _) | (_, Err(fault)) => {
                let (reason, error) = match fault {
                    Fault::Client(error) => (CloseReason::Reset, error),
                    Fault::Server(error) => (CloseReason::Cut, error),
                };
                log::debug!("{peer}: a tunnel broke: {error}");
                connection.close(reason);
                return true;
            }
        };
        if !rest.is_empty() {
            connection.answer([Piece::new(rest.to_vec(), 0)], After::More, now);
        }
        match (forward, back) {
            (Step::Over, Step::Over) => {
                self.end_tunnel(CloseReason::Finished, health);
                true
            }
            (Step::Moved, _) | (_, Step::Moved) => {
                connection.put_off(idle);
                true
            }
            _ => false,
        }
    }

    /// Ends a tunnel as both sides, or the time, have it: it is served then.
    pub(super) fn end_tunnel(&mut self, reason: CloseReason, health: &Health) {
        if let Some(exchange) = self.exchange.take()
            && exchange.advance(Stage::Streaming, Stage::Replying)
        {
            health.ended(ReplyOutcome::of(exchange.status()));
        }
        self.connection.close(reason);
    }
}
