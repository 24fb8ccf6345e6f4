//! The other server's side of what is relayed: a body on its way to a client, or a tunnel.
//!
//! Nothing here blocks. Whoever has it, a worker at first and the event loop from then on, takes what is at hand and
//! leaves it alone until the socket is ready for more.

use std::io::{self, ErrorKind, Read};
use std::mem;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::{Registry, Token};

use super::request::RequestBody;
use super::watched::Watched;
use crate::http::body::BodyDecoder;
use crate::http::fields;
use crate::net::client::Parts;
use crate::net::pool::Lease;
use crate::net::stream::Interest;

/// How far a body has come that is made while it is sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More may be at hand.
    More,
    /// More is to come, but nothing is at hand. Only another server is waited for like this.
    Dry,
    /// The body is whole.
    End,
}

/// Another server's reply, whose body goes to a client as it comes.
pub(crate) struct Relay {
    /// `None` once it was given back.
    watched: Option<Watched>,
    /// What was decoded before, if anything was; in memory.
    before: Option<Box<dyn Read + Send>>,
    /// What came with the head and was not decoded yet.
    ahead: Vec<u8>,
    decoder: BodyDecoder,
    lease: Option<Lease>,
    /// The body ended, and nothing came behind it.
    is_whole: bool,
    /// Longest silence of the other server.
    idle: Duration,
    /// Which trailers the client gets; none if it takes none.
    trailers: Option<IsPassed>,
    on_end: Option<Box<dyn OnEnd>>,
    /// What it has yet to take of the request's body.
    unsent: Option<Unsent>,
}

/// The rest of a request's body, for a server that answers before it has all of it.
#[derive(Debug)]
struct Unsent {
    /// Until it is [given](Relay::send_on), nothing more is sent.
    body: Option<RequestBody>,
    /// How much of it was sent.
    sent: usize,
}

/// Whether a trailer of that name is passed on.
pub(crate) type IsPassed = fn(&str) -> bool;

/// Wants to know how a body or a tunnel ends; see [`ended`](Self::ended). It is dropped at its end.
pub(crate) trait OnEnd: Send {
    /// Notes that the body came whole, or that the other server's side of it has failed. Not called when the client left
    /// before. The event loop calls it, so it must be quick.
    fn ended(&mut self, whole: bool);
}

impl Relay {
    /// The rest of a body. The client is cut when the other server says nothing for `idle`; it gets those of the body's
    /// trailers that `trailers` lets through, if it takes any.
    pub(crate) fn new(
        parts: Parts,
        idle: Duration,
        trailers: Option<IsPassed>,
        on_end: Box<dyn OnEnd>,
    ) -> Self {
        Self {
            watched: Some(Watched::new(parts.socket)),
            before: None,
            ahead: parts.ahead,
            decoder: parts.decoder,
            lease: parts.lease,
            is_whole: false,
            idle,
            trailers,
            on_end: Some(on_end),
            unsent: parts.unsent.map(|sent| Unsent { body: None, sent }),
        }
    }

    /// The same with this, which is in memory, before what is still to come.
    #[cfg(feature = "cache")]
    pub(crate) fn behind(self, before: impl Read + Send + 'static) -> Self {
        Self {
            before: Some(Box::new(before)),
            ..self
        }
    }

    /// Tells how the body has ended, once.
    fn end(&mut self, whole: bool) {
        if let Some(mut on_end) = self.on_end.take() {
            on_end.ended(whole);
        }
    }

    /// Notes that the other server was silent for too long.
    pub(crate) fn stalled(&mut self) {
        self.end(false);
    }

    /// Longest silence of the other server.
    pub(crate) fn idle(&self) -> Duration {
        self.idle
    }

    /// Whether the client takes trailers.
    pub(crate) fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    /// Appends the trailer section that the client is to have: fields, each ended by CR LF.
    pub(crate) fn push_trailers(&self, out: &mut Vec<u8>) {
        let Some(is_passed) = self.trailers else {
            return;
        };
        for (name, value) in fields::iterate(self.decoder.trailers()) {
            if is_passed(name) {
                fields::push(out, name, value);
            }
        }
    }

    /// Whether the socket may have something to read.
    pub(crate) fn is_readable(&self) -> bool {
        self.before.is_some()
            || !self.ahead.is_empty()
            || self.watched.as_ref().is_some_and(|it| it.readable)
    }

    pub(crate) fn set_ready(&mut self, readable: bool, writable: bool) {
        if let Some(watched) = &mut self.watched {
            watched.set_ready(readable, writable);
        }
    }

    /// Has the event loop told when something comes, or is taken while there is something to send.
    pub(crate) fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = match self.unsent {
            Some(_) => Interest::Either,
            None => Interest::Readable,
        };
        match &mut self.watched {
            Some(watched) => watched.watch(registry, token, interest),
            None => Ok(()),
        }
    }

    /// Whether the other server has yet to take some of the request's body.
    pub(crate) fn is_unsent(&self) -> bool {
        self.unsent.is_some()
    }

    /// Takes the request's body, to send the rest of it while the answer comes.
    pub(crate) fn send_on(&mut self, body: RequestBody) {
        if let Some(unsent) = &mut self.unsent {
            unsent.body = Some(body);
        }
    }

    /// Sends what the socket takes at once of the request's body; whether it took something.
    pub(crate) fn send(&mut self) -> bool {
        let Some(watched) = self.watched.as_mut().filter(|it| it.writable) else {
            return false;
        };
        let Some(unsent) = &mut self.unsent else {
            return false;
        };
        let rest = unsent.body.as_deref().and_then(|it| it.get(unsent.sent..));
        let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
            return false;
        };
        match watched.write(rest) {
            Ok(None) => false,
            Ok(Some(count)) => {
                unsent.sent += count;
                if count == rest.len() {
                    self.unsent = None;
                }
                true
            }
            Err(error) => {
                // It wants no more of it. What it answers, and how that ends, is to be read.
                log::debug!("the rest of a request was not taken: {error}");
                self.unsent = None;
                false
            }
        }
    }

    /// Gives the connection back to its pool if the body is whole and nothing came behind it.
    pub(crate) fn give_back(&mut self, now: Instant) {
        if self.is_whole
            && let Some(watched) = self.watched.take()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back(watched.socket, now);
        }
    }

    /// Appends what is at hand of the body, at most `limit` bytes.
    pub(crate) fn read(&mut self, limit: usize, out: &mut Vec<u8>) -> io::Result<Progress> {
        if let Some(before) = &mut self.before {
            let read = before.take(limit as u64).read_to_end(out)?;
            if read > 0 {
                return Ok(Progress::More);
            }
            self.before = None;
        }
        let progress = self.decode(limit, out);
        match progress {
            Ok(Progress::More | Progress::Dry) => {}
            Ok(Progress::End) => self.end(true),
            Err(_) => self.end(false),
        }
        progress
    }

    /// Reads into `out`, and decodes it there.
    fn decode(&mut self, limit: usize, out: &mut Vec<u8>) -> io::Result<Progress> {
        let start = out.len();
        loop {
            let came = if self.ahead.is_empty() {
                let Some(watched) = &mut self.watched else {
                    return Ok(Progress::End);
                };
                // What is behind the body's end stays in the kernel, where the pool sees it.
                let most = usize::try_from(self.decoder.most_missing()).unwrap_or(usize::MAX);
                let Some(came) = watched.read_behind(most.clamp(1, limit), out)? else {
                    return Ok(Progress::Dry);
                };
                if came == 0 {
                    return if self.decoder.is_whole_at_close() {
                        Ok(Progress::End)
                    } else {
                        Err(ErrorKind::UnexpectedEof.into())
                    };
                }
                came
            } else {
                let came = self.ahead.len().min(limit);
                out.extend(self.ahead.drain(..came));
                if self.ahead.is_empty() {
                    self.ahead = Vec::new();
                }
                came
            };
            let (mut used, mut end) = (0, start);
            while used < came {
                let input = &out[start + used..start + came];
                let decoded = self.decoder.next(input);
                let (count, data) = decoded.map_err(|error| {
                    io::Error::new(ErrorKind::InvalidData, format!("{error:?}"))
                })?;
                let data = data.len();
                used += count;
                let from = start + used - data;
                // A move to where it is costs most with some C libraries.
                if from != end {
                    out.copy_within(from..from + data, end);
                }
                end += data;
                if data == 0 {
                    break;
                }
            }
            out.truncate(end);
            if self.decoder.is_complete() {
                self.is_whole = used == came && self.ahead.is_empty();
                return Ok(Progress::End);
            }
            if end > start {
                return Ok(Progress::More);
            }
        }
    }
}

/// Whether one side of a tunnel sends no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It may send more.
    Open,
    /// It does not, and the other side has yet to be told.
    Came,
    /// The other side knows.
    Told,
}

/// Another server with which a client speaks a protocol of their own.
pub(crate) struct Tunnel {
    watched: Watched,
    /// What came with the head of the other server's reply.
    ahead: Vec<u8>,
    /// What the other server has not taken yet: at most what is read at a time.
    pending: Vec<u8>,
    /// How much of that it has taken.
    sent: usize,
    client_end: End,
    server_end: End,
    /// Longest silence of both.
    idle: Duration,
    /// Dropped at the tunnel's end.
    _on_end: Box<dyn OnEnd>,
}

/// Which side of a tunnel has failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The client has gone.
    Client(io::Error),
    /// The other server broke off.
    Server(io::Error),
}

/// What a step of a tunnel came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Bytes went on, or an end did.
    Moved,
    /// There is nothing to do before one of the sockets is ready.
    Waits,
    /// Both have ended, and each knows of the other.
    Over,
}

impl Tunnel {
    /// The tunnel that the other server has agreed to. It ends when nobody says anything for `idle`.
    pub(crate) fn new(parts: Parts, idle: Duration, on_end: Box<dyn OnEnd>) -> Self {
        Self {
            watched: Watched::new(parts.socket),
            ahead: parts.ahead,
            _on_end: on_end,
            pending: Vec::new(),
            sent: 0,
            client_end: End::Open,
            server_end: End::Open,
            idle,
        }
    }

    /// Longest silence of both.
    pub(crate) fn idle(&self) -> Duration {
        self.idle
    }

    pub(crate) fn set_ready(&mut self, readable: bool, writable: bool) {
        self.watched.set_ready(readable, writable);
    }

    /// Has the event loop told when something comes, or is taken.
    pub(crate) fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.watched.watch(registry, token, Interest::Either)
    }

    /// Appends what came with the other server's head, so that it goes out with ours. The rest is the event loop's.
    pub(crate) fn read_ahead(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.ahead);
    }

    /// Whether the other server has yet to take something.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What the client has sent already.
    pub(crate) fn push(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.pending.is_empty());
        self.pending = bytes;
    }

    /// Moves one buffer's worth from the client to the other server.
    pub(crate) fn forward(
        &mut self,
        mut client: impl FnMut(&mut [u8]) -> io::Result<Option<usize>>,
        buffer: &mut [u8],
    ) -> Result<Step, Fault> {
        if self.has_pending() {
            if !self.watched.writable {
                return Ok(Step::Waits);
            }
            // Most tunnels are silent most of the time: what was sent keeps no memory.
            let pending = mem::take(&mut self.pending);
            let count = self.give(&pending[self.sent..])?;
            self.sent += count;
            if self.sent < pending.len() {
                self.pending = pending;
            } else {
                self.sent = 0;
            }
            return Ok(if count > 0 { Step::Moved } else { Step::Waits });
        }
        match self.client_end {
            End::Open => {}
            End::Came => {
                self.client_end = End::Told;
                if let Err(error) = self.watched.socket.shutdown(Shutdown::Write) {
                    // It is to be read how the other server's side has ended.
                    log::debug!("another server could not be told of a tunnel's end: {error}");
                }
                return Ok(Step::Moved);
            }
            End::Told => return Ok(Step::Over),
        }
        let Some(came) = client(buffer).map_err(Fault::Client)? else {
            return Ok(Step::Waits);
        };
        if came == 0 {
            self.client_end = End::Came;
            return Ok(Step::Moved);
        }
        let sent = self.give(&buffer[..came])?;
        if sent < came {
            self.pending = buffer[sent..came].to_vec();
        }
        Ok(Step::Moved)
    }

    /// Gives bytes to the other server; returns how many need not be given again.
    fn give(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        match self.watched.write(bytes) {
            Ok(count) => Ok(count.unwrap_or(0)),
            // It had ended before it closed. What it has said until then still goes to the client.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.client_end = End::Told;
                Ok(bytes.len())
            }
            Err(error) => Err(Fault::Server(error)),
        }
    }

    /// Moves one buffer's worth from the other server to the client, who has taken all before it: what it does not take
    /// is returned.
    pub(crate) fn back<'a>(
        &mut self,
        client: impl FnOnce(&[u8]) -> io::Result<usize>,
        end: impl FnOnce() -> io::Result<()>,
        buffer: &'a mut [u8],
    ) -> Result<(Step, &'a [u8]), Fault> {
        match self.server_end {
            End::Open => {}
            End::Came => {
                self.server_end = End::Told;
                end().map_err(Fault::Client)?;
                return Ok((Step::Moved, &[]));
            }
            End::Told => return Ok((Step::Over, &[])),
        }
        if !self.watched.readable {
            return Ok((Step::Waits, &[]));
        }
        let Some(came) = self.watched.read(buffer).map_err(Fault::Server)? else {
            return Ok((Step::Waits, &[]));
        };
        if came == 0 {
            self.server_end = End::Came;
            return Ok((Step::Moved, &[]));
        }
        let sent = client(&buffer[..came]).map_err(Fault::Client)?;
        Ok((Step::Moved, &buffer[sent..came]))
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
