//! One client's HTTP/1.1 conversation, without I/O and without a clock of its own.
//!
//! The driver reads and writes the socket; the machine decides. It is given bytes and the time, and gives back
//! events, bytes to send and the next deadline:
//!
//! ```text
//!         first byte        head whole, body due             room        request whole
//!   Idle ────────────▶ Head ────────────────────▶ Announced ──────▶ Body ──────────────▶ Answering
//!    ▲                   │                                                                ▲  │
//!    │                   └────────── head whole, no body; or a refusal, from any ─────────┘  │
//!    │  kept alive                                                                           │
//!    └───────────────── Replying ◀───────────────────────────────────────────────────────────┘
//!                           │ to be closed                                            answer()
//!                           ▼
//!                       Lingering ──▶ Closed
//! ```
//!
//! - [`handle_input`](Connection::handle_input), [`handle_eof`](Connection::handle_eof),
//!   [`handle_sent`](Connection::handle_sent), [`handle_timeout`](Connection::handle_timeout) take what happened;
//! - [`poll_event`](Connection::poll_event) gives what the driver has to act on; it answers a request or a refusal,
//!   now or later, with [`answer`](Connection::answer), and [`poll_sent`](Connection::poll_sent) says when that is out;
//! - [`output`](Connection::output) gives what to send, and [`next_timeout`](Connection::next_timeout) when to call
//!   again if nothing happens. A timeout that comes early is a no-op.
//!
//! Only one thing is ever awaited of a client, so one deadline is enough.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bodies::{Place, Room};
use crate::http::body::{BodyBuffer, BodyDecoder};
use crate::http::head::{self, Framing, Head};
use crate::http::refusal::Refusal;
use crate::server::request_head::RequestHead;

/// The bounds on what a client may send and on how long it may take.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) max_head: usize,
    pub(crate) max_body: usize,
    pub(crate) head_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) request_timeout: Duration,
}

/// How long a client that must go may still send, so that it reads the refusal before a reset reaches it.
const LINGER: Duration = Duration::from_secs(1);

/// How much such a client may still send.
const LINGER_BYTES: usize = 1 << 20;

/// Trailers and chunk extensions, which are read over, in bytes for each body.
const MAX_TRAILERS: usize = 8 * 1024;

/// A whole request.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) head: Arc<RequestHead>,
    pub(crate) body: BodyBuffer,
    /// What the body has of the room for all bodies, unless it is empty.
    pub(crate) room: Option<Room>,
}

/// A request whose body is being received.
#[derive(Debug)]
struct Receiving {
    head: Head,
    decoder: BodyDecoder,
    body: BodyBuffer,
    room: Room,
}

/// What the driver has to act on.
#[derive(Debug)]
pub(crate) enum ConnectionEvent {
    /// A whole request: to be answered with [`Connection::answer`].
    Request(Incoming),
    /// What came can't be served: to be answered likewise, with the refusal. With the head, if that was fit.
    Refused(Refusal, Option<Arc<RequestHead>>),
    /// The request that is being answered has reached its deadline.
    Overdue,
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The client closed it between requests.
    Client,
    /// The last reply said so.
    Finished,
    /// Kept alive, and unused for the idle timeout.
    IdleTimeout,
    /// A reply made no progress for the write timeout.
    WriteTimeout,
    /// The socket failed, or its client was reset.
    Reset,
    /// Another client needed the place.
    Evicted,
    /// A reply could not be made whole.
    Cut,
    /// The server stops.
    Stopped,
}

impl CloseReason {
    /// Whether it is the client's doing: a reply that it did not take to its end is not the service's failure.
    pub(crate) fn is_the_clients(self) -> bool {
        matches!(self, Self::Client | Self::Reset | Self::WriteTimeout)
    }
}

/// A piece of output: bytes, and how many of them have been sent.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Cow<'static, [u8]>,
    sent: usize,
}

impl Piece {
    pub(crate) fn new(bytes: impl Into<Cow<'static, [u8]>>, sent: usize) -> Self {
        let bytes = bytes.into();
        debug_assert!(sent <= bytes.len());
        Self { bytes, sent }
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }
}

/// What happens once a reply is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// The next request.
    Keep,
    /// The connection closes.
    Close,
    /// More output follows, from a worker or from another server.
    More,
}

#[derive(Debug)]
enum State {
    Idle,
    Head(head::Scan),
    /// A body is to come, and waits for room. The place among those that wait is given up with the state.
    Announced(Box<(Head, BodyDecoder)>, Option<Place>),
    Body(Box<Receiving>),
    /// The driver has the request, or a refusal to send.
    Answering,
    Replying(After),
    Lingering {
        discarded: usize,
    },
    Closed(CloseReason),
}

/// One client's conversation. See the module's documentation for the calling order.
#[derive(Debug)]
pub(crate) struct Connection {
    limits: Arc<Limits>,
    state: State,
    /// What the current state waits for must happen before this.
    deadline: Option<Instant>,
    /// Bytes that came and are not consumed yet.
    input: Vec<u8>,
    output: VecDeque<Piece>,
    event: Option<ConnectionEvent>,
    /// A reply is out, and [`poll_sent`](Self::poll_sent) has not said so.
    sent: bool,
    /// The client sends nothing more; it may still read.
    eof: bool,
}

impl Connection {
    /// A conversation that has just been accepted: its first head is due within the head timeout.
    pub(crate) fn new(limits: Arc<Limits>, now: Instant) -> Self {
        let deadline = Some(now + limits.head_timeout);
        Self {
            limits,
            state: State::Idle,
            deadline,
            input: Vec::new(),
            output: VecDeque::new(),
            event: None,
            sent: false,
            eof: false,
        }
    }

    /// A conversation that tells one line and is over, whatever the client says.
    pub(crate) fn telling(limits: Arc<Limits>, line: String, now: Instant) -> Self {
        let mut connection = Self::new(limits, now);
        let piece = Piece::new(line.into_bytes(), 0);
        connection.answer([piece], After::Close, now);
        connection
    }

    /// Takes bytes that the client sent. Call it only while [`wants_input`](Self::wants_input), or what comes
    /// is kept until the state wants it.
    pub(crate) fn handle_input(&mut self, data: &[u8], now: Instant) {
        if let State::Lingering { discarded } = &mut self.state {
            *discarded += data.len();
            if *discarded > LINGER_BYTES {
                self.close(CloseReason::Finished);
            }
        } else if matches!(self.state, State::Closed(_)) {
            // Nobody will ever want it.
        } else if self.input.is_empty() {
            let used = self.advance(data, now);
            self.input.extend_from_slice(&data[used..]);
        } else {
            self.input.extend_from_slice(data);
            self.advance_buffered(now);
        }
    }

    /// Notes that the client will send nothing more. A request that is being answered still gets its reply.
    pub(crate) fn handle_eof(&mut self, now: Instant) {
        self.eof = true;
        match &self.state {
            State::Idle => self.close(CloseReason::Client),
            State::Lingering { .. } => self.close(CloseReason::Finished),
            State::Head(_) | State::Body(_) => {
                self.refuse(
                    Refusal::Malformed("Send the whole request: it ended in its middle.\n"),
                    now,
                );
            }
            // An announced body may be here as a whole, and only wait for room.
            State::Announced(..) | State::Answering | State::Replying(_) | State::Closed(_) => {}
        }
    }

    /// Handles what is due at `now`. Before the deadline nothing is.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.deadline = None;
        match &self.state {
            State::Idle => self.close(CloseReason::IdleTimeout),
            State::Head(_) | State::Body(_) => self.refuse(Refusal::TooSlow, now),
            State::Announced(..) => self.refuse(Refusal::NoRoom, now),
            State::Answering if self.event.is_none() => self.event = Some(ConnectionEvent::Overdue),
            // What the driver has not taken yet, it can't be late with.
            State::Answering => self.deadline = Some(now + self.limits.request_timeout),
            State::Replying(_) => self.close(CloseReason::WriteTimeout),
            State::Lingering { .. } => self.close(CloseReason::Finished),
            State::Closed(_) => {}
        }
    }

    /// What the driver has to act on, once.
    pub(crate) fn poll_event(&mut self) -> Option<ConnectionEvent> {
        self.event.take()
    }

    /// Whether the last byte of a reply has been sent, once.
    pub(crate) fn poll_sent(&mut self) -> bool {
        std::mem::take(&mut self.sent)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due if nothing else happens.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether bytes from the client are of use now. While a request is answered they stay in the kernel, so
    /// that a client that sends ahead fills its own buffers, not ours.
    pub(crate) fn wants_input(&self) -> bool {
        !self.eof
            && self.event.is_none()
            && matches!(
                self.state,
                State::Idle | State::Head(_) | State::Body(_) | State::Lingering { .. }
            )
    }

    /// How many bytes to read at most: what the body at hand lacks, else a head's worth. So no more than that of later
    /// requests is ever kept.
    pub(crate) fn read_limit(&self) -> usize {
        match &self.state {
            State::Body(receiving) => {
                let missing = usize::try_from(receiving.decoder.missing()).unwrap_or(usize::MAX);
                missing.max(self.limits.max_head)
            }
            State::Lingering { .. } => LINGER_BYTES,
            _ => {
                let most = self.limits.max_head + head::MAX_EMPTY_BYTES;
                most.saturating_sub(self.input.len()).max(1)
            }
        }
    }

    /// The head of a request whose body has to be [given room](Self::give_room) before it is read, and the most bytes
    /// that it may have; `None` also once it [waits](Self::await_room) for room.
    pub(crate) fn wants_room(&self) -> Option<(&Head, usize)> {
        match &self.state {
            State::Announced(parts, None) => {
                let (head, decoder) = &**parts;
                let size = usize::try_from(decoder.most_missing()).unwrap_or(usize::MAX);
                Some((head, size))
            }
            _ => None,
        }
    }

    /// Takes the place among those that wait for room. Until then the client's bytes stay in the kernel.
    pub(crate) fn await_room(&mut self, place: Place) {
        if let State::Announced(_, waits) = &mut self.state {
            *waits = Some(place);
        }
    }

    /// Takes the room for the body: from now on it is read.
    pub(crate) fn give_room(&mut self, room: Room, now: Instant) {
        if !matches!(self.state, State::Announced(..)) {
            return;
        }
        if let State::Announced(parts, _) = std::mem::replace(&mut self.state, State::Answering) {
            let (head, decoder) = *parts;
            if head.expects_continue && self.input.is_empty() {
                let go_on = &b"HTTP/1.1 100 Continue\r\n\r\n"[..];
                self.output.push_back(Piece::new(go_on, 0));
            }
            let body = room.buffer();
            self.state = State::Body(Box::new(Receiving {
                head,
                decoder,
                body,
                room,
            }));
        }
        self.advance_buffered(now);
        if self.eof {
            self.handle_eof(now);
        }
    }

    /// Answers the request or refusal that [`poll_event`](Self::poll_event) gave: `pieces` are still to be sent,
    /// and may be none when somebody else has sent it all.
    pub(crate) fn answer(
        &mut self,
        pieces: impl IntoIterator<Item = Piece>,
        after: After,
        now: Instant,
    ) {
        if matches!(self.state, State::Closed(_)) {
            return;
        }
        // What is answered is not overdue any more.
        self.event = None;
        self.output.extend(pieces);
        self.state = State::Replying(after);
        self.deadline = Some(now + self.limits.write_timeout);
        self.handle_sent(0, now);
    }

    /// Whether bytes of a further request have come.
    pub(crate) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Takes what has come behind the request, for a protocol that is not HTTP.
    pub(crate) fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    /// The next bytes to send; empty when there are none.
    pub(crate) fn output(&self) -> &[u8] {
        self.output.front().map_or(&[], Piece::rest)
    }

    /// Whether the reply is sent so far and the rest of it is to come from a worker.
    pub(crate) fn wants_more(&self) -> bool {
        matches!(self.state, State::Replying(After::More)) && self.output.is_empty()
    }

    /// Notes that the next part of the reply is made elsewhere, until `deadline`: its time is not the client's.
    pub(crate) fn await_more(&mut self, deadline: Instant) {
        if self.wants_more() {
            self.state = State::Answering;
            self.deadline = Some(deadline);
        }
    }

    /// Notes that there was progress which is not the client's: what is awaited may take until `deadline`.
    pub(crate) fn put_off(&mut self, deadline: Instant) {
        if self.is_answering() {
            self.deadline = Some(deadline);
        }
    }

    /// Notes that the reply to an overdue request is at hand and is being sent: it has as long as any reply.
    pub(crate) fn await_reply(&mut self, now: Instant) {
        if matches!(self.state, State::Answering) {
            self.deadline = Some(now + self.limits.write_timeout);
        }
    }

    /// Notes that `count` bytes of [`output`](Self::output) were sent.
    pub(crate) fn handle_sent(&mut self, count: usize, now: Instant) {
        if count > 0 && matches!(self.state, State::Replying(_)) {
            self.deadline = Some(now + self.limits.write_timeout);
        }
        if let Some(piece) = self.output.front_mut() {
            piece.sent += count;
        }
        while self
            .output
            .front()
            .is_some_and(|piece| piece.rest().is_empty())
        {
            self.output.pop_front();
        }
        if self.output.is_empty() {
            match self.state {
                State::Replying(After::Keep) => {
                    self.sent = true;
                    self.next_request(now);
                }
                State::Replying(After::Close) => {
                    self.sent = true;
                    self.linger(now);
                }
                _ => {}
            }
        }
    }

    /// Whether it waits for a request of which no byte has come.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether a request or refusal awaits the driver's answer.
    pub(crate) fn is_answering(&self) -> bool {
        matches!(self.state, State::Answering)
    }

    /// Whether a reply (or a refusal) is on its way out.
    pub(crate) fn is_replying(&self) -> bool {
        matches!(self.state, State::Replying(_))
    }

    /// Whether the reply is out and only the client's own end is awaited: nothing more will be sent.
    pub(crate) fn is_lingering(&self) -> bool {
        matches!(self.state, State::Lingering { .. })
    }

    /// Ends it, for a reason; the first one stays.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        if !matches!(self.state, State::Closed(_)) {
            self.state = State::Closed(reason);
            self.deadline = None;
            self.event = None;
            self.input = Vec::new();
            self.output = VecDeque::new();
        }
    }

    /// Why it is over, once it is.
    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        match self.state {
            State::Closed(reason) => Some(reason),
            _ => None,
        }
    }

    /// Bytes of heap it holds: for tests of the bounds.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn held(&self) -> usize {
        let body = match (&self.state, &self.event) {
            (State::Announced(parts, _), _) => parts.0.canonical().len(),
            (State::Body(receiving), _) => {
                receiving.body.capacity() + receiving.head.canonical().len()
            }
            (_, Some(ConnectionEvent::Request(incoming))) => {
                incoming.body.capacity() + incoming.head.canonical().len()
            }
            _ => 0,
        };
        let output: usize = self.output.iter().map(|piece| piece.bytes.len()).sum();
        self.input.capacity() + body + output
    }

    fn advance_buffered(&mut self, now: Instant) {
        let mut input = std::mem::take(&mut self.input);
        let used = self.advance(&input, now);
        if matches!(self.state, State::Closed(_) | State::Lingering { .. }) {
            return;
        }
        if used < input.len() {
            input.drain(..used);
            self.input = input;
        }
    }

    /// Consumes what makes up the request at hand, and stops at its end; returns how much that was.
    fn advance(&mut self, data: &[u8], now: Instant) -> usize {
        let mut used = 0;
        loop {
            let rest = &data[used..];
            match &mut self.state {
                State::Idle if is_blank(rest) => return used,
                State::Idle => {
                    self.state = State::Head(head::Scan::default());
                    self.deadline = Some(now + self.limits.head_timeout);
                }
                State::Head(progress) => match head::parse(rest, self.limits.max_head, progress) {
                    Ok(None) => return used,
                    Ok(Some((length, head))) => {
                        used += length;
                        self.begin_body(head, now);
                    }
                    Err(refusal) => {
                        self.refuse(refusal, now);
                        return data.len();
                    }
                },
                State::Body(receiving) => {
                    match receiving.decoder.decode(rest, &mut receiving.body) {
                        Ok((length, whole)) => {
                            used += length;
                            if !whole {
                                return used;
                            }
                            if let State::Body(receiving) =
                                std::mem::replace(&mut self.state, State::Answering)
                            {
                                let Receiving {
                                    head,
                                    body,
                                    mut room,
                                    ..
                                } = *receiving;
                                room.shrink(body.len());
                                self.request_is_whole(head, body, Some(room), now);
                            }
                        }
                        Err(error) => {
                            self.refuse(error.into(), now);
                            return data.len();
                        }
                    }
                }
                State::Announced(..)
                | State::Answering
                | State::Replying(_)
                | State::Lingering { .. }
                | State::Closed(_) => return used,
            }
        }
    }

    fn begin_body(&mut self, head: Head, now: Instant) {
        if matches!(head.framing, Framing::None | Framing::Length(0)) {
            return self.request_is_whole(head, BodyBuffer::default(), None, now);
        }
        match BodyDecoder::new(head.framing, self.limits.max_body, MAX_TRAILERS) {
            Ok(decoder) => {
                self.deadline = Some(now + self.limits.body_timeout);
                self.state = State::Announced(Box::new((head, decoder)), None);
            }
            Err(error) => self.refuse_request(error.into(), Some(head), now),
        }
    }

    fn request_is_whole(&mut self, head: Head, body: BodyBuffer, room: Option<Room>, now: Instant) {
        self.state = State::Answering;
        self.deadline = Some(now + self.limits.request_timeout);
        let head = Arc::new(RequestHead::new(head));
        self.event = Some(ConnectionEvent::Request(Incoming { head, body, room }));
    }

    /// Refuses what has come of a request so far.
    fn refuse(&mut self, refusal: Refusal, now: Instant) {
        let head = match std::mem::replace(&mut self.state, State::Answering) {
            State::Announced(parts, _) => Some(parts.0),
            State::Body(receiving) => Some(receiving.head),
            _ => None,
        };
        self.refuse_request(refusal, head, now);
    }

    fn refuse_request(&mut self, refusal: Refusal, head: Option<Head>, now: Instant) {
        self.input = Vec::new();
        self.state = State::Answering;
        self.deadline = Some(now + self.limits.request_timeout);
        let head = head.map(|head| Arc::new(RequestHead::new(head)));
        self.event = Some(ConnectionEvent::Refused(refusal, head));
    }

    fn next_request(&mut self, now: Instant) {
        self.state = State::Idle;
        self.deadline = Some(now + self.limits.idle_timeout);
        if !self.input.is_empty() {
            self.advance_buffered(now);
            if self.event.is_none() {
                // The start of a head must not hold on to the space of the requests before it.
                self.input.shrink_to_fit();
            }
        }
        if self.eof {
            self.handle_eof(now);
        }
    }

    fn linger(&mut self, now: Instant) {
        if self.eof {
            self.close(CloseReason::Finished);
        } else {
            self.input = Vec::new();
            self.state = State::Lingering { discarded: 0 };
            self.deadline = Some(now + LINGER);
        }
    }
}

/// Whether a request has yet to begin: old clients send an empty line after a body, which promises no other request.
fn is_blank(input: &[u8]) -> bool {
    matches!(input[head::empty_lines(input)..], [] | [b'\r'])
}

#[cfg(test)]
mod tests;
