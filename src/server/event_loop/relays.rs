//! Replies and tunnels of other servers: no worker waits for them.
//!
//! A worker has sent the head, and what was at hand of the body. From then on the event loop reads the other server's
//! socket when the client has taken what came before, and writes to the client's at once. So for each client at most one
//! buffer's worth is held, and a side that is slow makes the other wait in its own kernel.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::time::Instant;

use super::Frontend;
use super::clients::{Client, upstream_token};
use super::connection::{After, CloseReason, Piece};
use crate::health::{Outcome, bump};
use crate::server::exchange::Stage;
use crate::server::relay::Step;
use crate::server::stream::{Progress, Source};

impl Frontend {
    /// Goes on with the part of a client's reply that comes from elsewhere; whether something has changed.
    pub(super) fn go_on(&mut self, slot: u32, now: Instant) -> bool {
        let Some(client) = self.clients.get_mut(slot) else {
            return false;
        };
        if client.connection.close_reason().is_some() {
            return false;
        }
        let wants_more = client.connection.wants_more();
        match client.parked.as_ref().map(|stream| &stream.source) {
            Some(Source::Reader(_)) if wants_more => {
                let deadline = now + self.limits.request_timeout;
                client.connection.await_more(deadline);
                self.resume(slot);
                true
            }
            Some(Source::Relay(_)) => self.relay(slot, now),
            Some(Source::Tunnel(_)) => self.tunnel(slot, now),
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
        match client.parked.as_mut().map(|stream| &mut stream.source) {
            Some(Source::Relay(relay)) if readable => relay.set_readable(),
            Some(Source::Tunnel(tunnel)) => tunnel.set_ready(readable, writable),
            _ => return,
        }
        self.drive(slot, now);
    }

    fn relay(&mut self, slot: u32, now: Instant) -> bool {
        let token = upstream_token(self.clients.token(slot));
        let Some(client) = self.clients.get_mut(slot) else {
            return false;
        };
        let Some(stream) = &mut client.parked else {
            return false;
        };
        let Source::Relay(relay) = &mut stream.source else {
            return false;
        };
        if !client.connection.output().is_empty() {
            return false;
        }
        let idle = relay.idle();
        let filled = match relay.watch(self.poll.registry(), token) {
            Ok(()) if relay.is_readable() => {
                self.relay_buffer.clear();
                stream.fill(&mut self.relay_buffer)
            }
            Ok(()) => Ok(Progress::Dry),
            Err(error) => Err(error),
        };
        let progress = match filled {
            Ok(Progress::Dry) => {
                if !client.connection.wants_more() {
                    return false;
                }
                client.connection.await_more(now + idle);
                return true;
            }
            Ok(progress) => progress,
            Err(error) => {
                self.cut(slot, &error);
                return true;
            }
        };
        let Ok(sent) = client.socket.write_some(&self.relay_buffer) else {
            client.connection.close(CloseReason::Reset);
            return true;
        };
        let rest = &self.relay_buffer[sent..];
        let rest = (!rest.is_empty()).then(|| Piece::new(rest.to_vec(), 0));
        let after = if progress == Progress::More {
            After::More
        } else {
            if let Source::Relay(relay) = &mut stream.source {
                relay.give_back(Some(self.poll.registry()), now);
            }
            let close = stream.close;
            client.parked = None;
            if let Some(exchange) = client.exchange.take()
                && exchange.advance(Stage::Streaming, Stage::Replying)
            {
                self.shared.health.ended(Outcome::of(exchange.status()));
            }
            if close { After::Close } else { After::Keep }
        };
        client.connection.answer(rest, after, now);
        client.end_record_if_sent();
        true
    }

    /// Shows a client that its reply is not whole, whose body has failed.
    fn cut(&mut self, slot: u32, error: &io::Error) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        log::warn!("{}: a reply was cut, its body failed: {error}", client.peer);
        if let Some(exchange) = client.exchange.take()
            && exchange.advance(Stage::Streaming, Stage::Abandoned)
        {
            bump(&self.shared.health.counts.cut);
            self.shared.health.ended(Outcome::Failed);
        }
        client.connection.close(CloseReason::Cut);
    }

    fn tunnel(&mut self, slot: u32, now: Instant) -> bool {
        let token = upstream_token(self.clients.token(slot));
        let Some(client) = self.clients.get_mut(slot) else {
            return false;
        };
        let Client {
            parked: Some(stream),
            connection,
            socket,
            readable,
            ..
        } = client
        else {
            return false;
        };
        let Source::Tunnel(tunnel) = &mut stream.source else {
            return false;
        };
        if let Err(error) = tunnel.watch(self.poll.registry(), token) {
            log::warn!("{}: a tunnel cannot be watched: {error}", client.peer);
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
        let forward = tunnel.forward(read, &mut self.read_buffer);
        let back = if connection.output().is_empty() {
            let write = |bytes: &[u8]| socket.write_some(bytes);
            let end = || socket.shutdown(Shutdown::Write);
            tunnel.back(write, end, &mut self.read_buffer)
        } else {
            Ok((Step::Waits, &[][..]))
        };
        let (forward, (back, rest)) = match (forward, back) {
            (Ok(forward), Ok(back)) => (forward, back),
            (Err(error), _) | (_, Err(error)) => {
                log::debug!("{}: a tunnel broke: {error}", client.peer);
                connection.close(CloseReason::Cut);
                return true;
            }
        };
        if !rest.is_empty() {
            connection.answer([Piece::new(rest.to_vec(), 0)], After::More, now);
        }
        match (forward, back) {
            (Step::Over, Step::Over) => {
                self.end_tunnel(slot, CloseReason::Finished);
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
    pub(super) fn end_tunnel(&mut self, slot: u32, reason: CloseReason) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        if let Some(exchange) = client.exchange.take()
            && exchange.advance(Stage::Streaming, Stage::Replying)
        {
            self.shared.health.ended(Outcome::of(exchange.status()));
        }
        client.connection.close(reason);
    }
}
