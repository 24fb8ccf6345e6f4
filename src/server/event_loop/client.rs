//! One client: its socket, its conversation, and what becomes of its request.

use std::io::{ErrorKind, Read};
use std::mem;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use socket2::SockRef;

use super::admission::Ticket;
use super::connection::{CloseReason, Connection};
use super::dispatcher::Place;
use super::listeners::Listener;
use crate::health::{Health, bump};
use crate::server::client_socket::ClientSocket;
use crate::server::exchange::{Exchange, LONG_WAIT, ReplyRules, Stage};
use crate::server::stream::{Source, Stream};
use crate::server::task::Waits;

/// See [`Client::has_left`].
const SHORT_WAIT: Duration = Duration::from_millis(10);

/// What a client's request waits for beside a worker.
#[derive(Debug)]
pub(super) enum Wait {
    None,
    /// For nothing yet, but what its worker is just about to have it wait for may have happened.
    Early,
    /// For another server, in its place among those that may; or for another request, with none.
    For(Box<Waits>, Option<Place>),
}

impl Wait {
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self, Self::For(..))
    }

    /// When it is over.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::For(waits, _) => Some(waits.waiting.due()),
            Self::None | Self::Early => None,
        }
    }

    /// Whether other requests wait for the same, so that it goes on though its client has left.
    fn is_shared(&self) -> bool {
        matches!(self, Self::For(waits, _) if waits.waiting.is_shared())
    }

    pub(super) fn take(&mut self) -> Self {
        mem::replace(self, Self::None)
    }
}

/// One client: its socket, its conversation, and its request in flight.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: Arc<ClientSocket>,
    pub(crate) peer: SocketAddr,
    /// What it came through.
    pub(crate) listener: Listener,
    pub(crate) connection: Connection,
    /// The request that is being answered.
    pub(crate) exchange: Option<Arc<Exchange>>,
    /// The rest of its reply, while no worker has it. A handler's reader is to be dropped by a worker.
    pub(crate) parked: Option<Stream>,
    pub(super) wait: Wait,
    /// Its place in the queue, while it waits there.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) rules: ReplyRules,
    /// The socket may have something to read.
    pub(crate) readable: bool,
    /// When the client said that it will send nothing more: what it sent ends with an end.
    pub(crate) ending: Option<Instant>,
    /// Since when another server has had nothing more of its reply's body.
    pub(super) dry: Option<Instant>,
    /// We have told the client that nothing more will come.
    pub(crate) finished: bool,
}

impl Client {
    /// One that has just been accepted and may have sent something.
    pub(crate) fn new(
        socket: TcpStream,
        peer: SocketAddr,
        listener: Listener,
        connection: Connection,
    ) -> Self {
        Self {
            socket: Arc::new(ClientSocket::new(socket)),
            peer,
            listener,
            connection,
            exchange: None,
            parked: None,
            wait: Wait::None,
            ticket: None,
            rules: ReplyRules::UNKNOWN,
            readable: true,
            ending: None,
            dry: None,
            finished: false,
        }
    }

    /// Whether nothing is lost when it has to go for another one: it waits for a request, or has been told everything.
    pub(crate) fn is_evictable(&self) -> bool {
        self.connection.is_idle()
            || (self.listener == Listener::Agent && self.connection.is_lingering())
    }

    /// Whether it has left while its request waits for a worker, or for another server, be it in the middle of a body. An
    /// end that comes with the request, or just behind it, only says that nothing more will be sent: while the wait is
    /// short, such a client gets its answer. Only a write would tell a client that reads on from one that has gone. While
    /// others wait for the answer too, it stays in its place.
    pub(crate) fn has_left(&self, now: Instant) -> bool {
        let is_long = self.is_long_at().is_some_and(|at| at <= now);
        is_long && (self.ending.is_some() || self.has_ended()) && !self.wait.is_shared()
    }

    /// Whether another server has yet to say something for it.
    pub(super) fn awaits_other(&self) -> bool {
        self.wait.is_under_way() || self.dry.is_some()
    }

    /// When its wait is no longer short.
    fn is_long_at(&self) -> Option<Instant> {
        let admitted = self.exchange.as_ref()?.admitted;
        if self.ticket.is_some() {
            Some(admitted + SHORT_WAIT)
        } else if self.wait.is_under_way() {
            Some(admitted + LONG_WAIT)
        } else {
            // A download may have been slow for long before.
            Some(self.dry?.max(self.ending?) + LONG_WAIT)
        }
    }

    /// When something is due if nothing else happens.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        // One that waits for a worker is looked at when it has its turn.
        let leaves = self
            .is_long_at()
            .filter(|_| self.ending.is_some() && self.awaits_other() && !self.wait.is_shared());
        let due = [self.connection.next_timeout(), self.wait.due(), leaves];
        due.into_iter().flatten().min()
    }

    /// Notes that what is waited for may have happened before the worker has said that it is waited for.
    pub(super) fn note_early(&mut self) {
        if let Some(exchange) = &self.exchange {
            self.wait = Wait::Early;
            // The worker's word is not to wait for the next event.
            exchange.wake_at_end();
        }
    }

    /// Lets go of what its request waits for. Nobody wants the reply any more, so it is late.
    pub(super) fn end_wait(&mut self, health: &Health) {
        if self.wait.take().is_under_way() {
            bump(&health.counts.late);
        }
    }

    /// Whether the socket has come to its end, or has failed, though no event has said so yet.
    fn has_ended(&self) -> bool {
        match self.socket.peek(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Whether it speaks another protocol by now.
    pub(crate) fn has_tunnel(&self) -> bool {
        let source = self.parked.as_ref().map(|stream| &stream.source);
        matches!(source, Some(Source::Tunnel(_)))
    }

    /// Whether a request of it is being answered.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.connection.is_answering() || self.connection.is_replying()
    }

    /// Whether a worker writes its reply, or has written it and has yet to say so.
    pub(crate) fn is_written_to(&self) -> bool {
        let is_written = |exchange: &Arc<Exchange>| {
            exchange.is(Stage::Replying) || exchange.is(Stage::Streaming)
        };
        self.parked.is_none() && self.exchange.as_ref().is_some_and(is_written)
    }

    /// Takes what an event says of the socket.
    pub(super) fn handle_readiness(&mut self, event: &mio::event::Event, now: Instant) {
        self.readable |= event.is_readable() || event.is_read_closed();
        if event.is_read_closed() {
            self.ending.get_or_insert(now);
        }
        if self.ending.is_some() && self.has_left(now) {
            self.connection.close(CloseReason::Client);
        }
        // Readiness may be spurious: the socket itself knows.
        let suspect = event.is_error() || event.is_write_closed();
        if suspect && !matches!(self.socket.take_error(), Ok(None)) {
            if self.wait.is_shared() {
                self.ending.get_or_insert(now);
            } else {
                self.connection.close(CloseReason::Reset);
            }
        }
    }

    /// Sends what the conversation has to send, as far as the socket takes it.
    pub(super) fn flush(&mut self, now: Instant) {
        loop {
            let output = self.connection.output();
            if output.is_empty() {
                return;
            }
            let whole = output.len();
            match self.socket.write_some(output) {
                Ok(0) => return,
                Ok(sent) => {
                    self.connection.handle_sent(sent, now);
                    self.end_record_if_sent();
                    if sent < whole {
                        return;
                    }
                }
                Err(_) => return self.connection.close(CloseReason::Reset),
            }
        }
    }

    /// Reads once from the socket.
    pub(super) fn read(&mut self, buffer: &mut [u8], now: Instant) {
        let limit = self.connection.read_limit().min(buffer.len());
        let buffer = &mut buffer[..limit];
        match (&**self.socket).read(buffer) {
            Ok(0) => {
                self.readable = false;
                self.connection.handle_eof(now);
            }
            Ok(count) => {
                // A short read has emptied the socket: what comes later, comes with an event. Not so an end that came
                // together with the bytes.
                self.readable = count == buffer.len() || self.ending.is_some();
                self.connection.handle_input(&buffer[..count], now);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.connection.close(CloseReason::Reset),
        }
    }

    /// Reads what is here at the deadline for it. When the process was stopped, or the host was, clients have sent it in
    /// time, and the events that tell of it are yet to be seen.
    pub(super) fn read_if_due(&mut self, buffer: &mut [u8], now: Instant) {
        let is_due = self.connection.next_timeout().is_some_and(|at| at <= now);
        if is_due && self.connection.wants_input() {
            self.read(buffer, now);
        }
    }

    /// Tells a client whose connection lingers that nothing more will come, once.
    pub(super) fn finish_lingering(&mut self) {
        if self.connection.is_lingering() && !self.finished {
            self.finished = true;
            if self.socket.shutdown(Shutdown::Write).is_err() {
                self.connection.close(CloseReason::Reset);
            }
        }
    }

    /// Has the event loop woken at the end of the exchange, if the client has sent more already, or has ended.
    pub(super) fn await_end(&self) {
        if let Some(exchange) = &self.exchange
            && (self.readable || self.connection.has_input())
        {
            exchange.wake_at_end();
        }
    }

    /// Closes the socket, also where an exchange holds it still.
    pub(super) fn hang_up(&self, reason: CloseReason) {
        // To an HTTP/1.0 client an orderly end may be that of a whole reply (RFC 9112 section 8).
        let is_cut = matches!(reason, CloseReason::Cut | CloseReason::WriteTimeout);
        if is_cut && !self.rules.http11 {
            // The reset goes out when the last holder lets go, and an orderly end must not come first.
            let reset = SockRef::from(&**self.socket).set_linger(Some(Duration::ZERO));
            if let Err(error) = reset {
                log::debug!("{}: closed without a reset: {error}", self.peer);
            }
        } else if Arc::strong_count(&self.socket) > 1 {
            // The client need not wait for those who hold it.
            drop(self.socket.shutdown(Shutdown::Both));
        }
    }
}
