//! One request over HTTP/1.1, and the head of its response: blocking, under one deadline, on a kept connection or a new
//! one.
//!
//! The caller gives the whole request, and gets the response's head and a [handle](ReplyBody) on its body. That is read
//! here, blocking, or [taken apart](ReplyBody::into_parts): an event loop then relays from the socket, which never
//! blocks, and gives it back to its pool.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pool::{Lease, Pool, Reuse};
use super::stream::{Interest, Socket, Waited};
use crate::http::body::Body;
use crate::http::response::{Asked, ResponseError, ResponseHead, ResponseParser};
use crate::patterns::Deadline;

/// How much of a body is read at a time.
const PIECE: usize = 16 * 1024;

/// How much is read at a time while there is no head: with a small body, all of the response.
const HEAD_PIECE: usize = 4 * 1024;

/// Most bytes that an error holds of what came instead of a response.
const MOST_SHOWN: usize = 256;

/// Most bytes of a response's trailer section.
const MAX_TRAILERS: usize = 16 * 1024;

/// A request, whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// The method, as it stands in the head too.
    pub(crate) method: &'a str,
    /// From the request line to the empty line. It frames `body`.
    pub(crate) head: &'a [u8],
    /// The body as it goes over the wire.
    pub(crate) body: &'a [u8],
    /// Whether the head asks for another protocol.
    pub(crate) upgrade: bool,
    /// Which kept connection it may use.
    pub(crate) reuse: Reuse,
}

impl<'a> Request<'a> {
    /// A GET without a body, on a connection of its own.
    pub(crate) fn get(head: &'a [u8]) -> Self {
        Self {
            method: "GET",
            head,
            body: &[],
            upgrade: false,
            reuse: Reuse::Never,
        }
    }

    fn asked(&self) -> Asked {
        Asked {
            head: self.method == "HEAD",
            upgrade: self.upgrade,
        }
    }

    /// Whether servers are known that leave the body of such a request on the connection, where it would be taken for
    /// the next request (RFC 9110 9.3.1).
    fn has_unusual_body(&self) -> bool {
        let bodiless = matches!(self.method, "GET" | "HEAD" | "DELETE" | "OPTIONS" | "TRACE");
        bodiless && !self.body.is_empty()
    }
}

/// What a caller wants to do while it waits for the head.
pub(crate) struct Meanwhile<'a> {
    /// Whether the response is not wanted any more; asked twice a second.
    pub(crate) cancelled: &'a dyn Fn() -> bool,
    /// Takes each interim reply.
    pub(crate) interim: &'a mut dyn FnMut(&ResponseHead),
}

/// Why there is no response, or no more of it.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// The server cannot be connected to.
    Connect(io::Error),
    /// The connection was not made in time.
    ConnectTimeout,
    /// A kept connection turned out to be closed, before a byte of the response: the server may not have seen the
    /// request. Another try, on a [new connection](Reuse::Never), tells nothing about the server's health.
    Stale,
    /// The connection was closed before a byte of the response.
    Closed,
    /// The connection was closed in the middle of the response.
    Incomplete,
    /// The request was not taken in time.
    SendTimeout,
    /// The response did not come in time.
    ResponseTimeout,
    /// What came is no response: the beginning of it.
    StatusLine(Vec<u8>),
    /// The response is not acceptable.
    Response(ResponseError),
    /// The caller does not want the response any more.
    Cancelled,
}

impl ClientError {
    /// The error type of Proxy-Status (RFC 9209 2.3).
    pub(crate) fn token(&self) -> &'static str {
        match self {
            Self::Connect(error) => match error.kind() {
                // Nobody listens on a Unix socket that is not there.
                ErrorKind::ConnectionRefused | ErrorKind::NotFound => "connection_refused",
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                    "destination_ip_unroutable"
                }
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
                    "connection_terminated"
                }
                _ => "proxy_internal_error",
            },
            Self::ConnectTimeout => "connection_timeout",
            Self::Stale | Self::Closed => "connection_terminated",
            Self::Incomplete => "http_response_incomplete",
            Self::SendTimeout => "connection_write_timeout",
            Self::ResponseTimeout => "http_response_timeout",
            Self::StatusLine(_) => ResponseError::StatusLine.token(),
            Self::Response(error) => error.token(),
            Self::Cancelled => "http_request_error",
        }
    }

    /// The status of the reply that says so: 504 when time is over, 499 (nginx's) when it was not waited for, else 502.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Cancelled => 499,
            Self::ConnectTimeout | Self::SendTimeout | Self::ResponseTimeout => 504,
            _ => 502,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect(error) => return error.fmt(f),
            Self::StatusLine(_) => return ResponseError::StatusLine.fmt(f),
            Self::Response(error) => return error.fmt(f),
            Self::ConnectTimeout => "no connection in time",
            Self::SendTimeout | Self::ResponseTimeout => "no answer in time",
            Self::Stale | Self::Closed => "the connection was closed before the answer",
            Self::Incomplete => "the connection was closed in the middle of the answer",
            Self::Cancelled => "the answer is not wanted any more",
        })
    }
}

impl std::error::Error for ClientError {}

impl From<ResponseError> for ClientError {
    fn from(error: ResponseError) -> Self {
        Self::Response(error)
    }
}

impl From<ClientError> for io::Error {
    fn from(error: ClientError) -> Self {
        let kind = match &error {
            ClientError::ResponseTimeout => ErrorKind::TimedOut,
            ClientError::Incomplete => ErrorKind::UnexpectedEof,
            _ => ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// The head of a response, and a handle on its body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) head: ResponseHead,
    pub(crate) body: ReplyBody,
}

/// Sends a request to an endpoint and waits for the response's head, until `deadline`. A new connection has to be made
/// within `connect_timeout`.
///
/// # Errors
///
/// Why there is no head. The connection is closed then.
pub(crate) fn send(
    pool: &Arc<Pool>,
    request: &Request<'_>,
    connect_timeout: Duration,
    deadline: Deadline,
    meanwhile: &mut Meanwhile<'_>,
) -> Result<Reply, ClientError> {
    let kept = pool.take(request.reuse, Instant::now());
    let is_kept = kept.is_some();
    let socket = match kept {
        Some(socket) => socket,
        None => pool
            .connect(deadline.within(connect_timeout))
            .map_err(|error| match error.kind() {
                ErrorKind::TimedOut => ClientError::ConnectTimeout,
                _ => ClientError::Connect(error),
            })?,
    };
    let heard = exchange(socket, request, deadline, meanwhile).map_err(|error| match error {
        ClientError::Closed if is_kept => ClientError::Stale,
        error => error,
    })?;
    let must_close = heard.early || request.has_unusual_body();
    let lease = Lease::new(pool.clone(), &heard.head, must_close);
    heard.into_reply(Some(lease), deadline)
}

/// Sends a request on a connection that is not kept after it.
///
/// # Errors
///
/// Why there is no head.
pub(crate) fn send_once(
    socket: Socket,
    request: &Request<'_>,
    deadline: Deadline,
) -> Result<Reply, ClientError> {
    let mut meanwhile = Meanwhile {
        cancelled: &|| false,
        interim: &mut |_| {},
    };
    exchange(socket, request, deadline, &mut meanwhile)?.into_reply(None, deadline)
}

/// A connection on which the final head has come.
struct Heard {
    socket: Socket,
    head: ResponseHead,
    /// What has come behind the head.
    ahead: Vec<u8>,
    /// The head came before the whole request was sent.
    early: bool,
}

impl Heard {
    fn into_reply(self, lease: Option<Lease>, deadline: Deadline) -> Result<Reply, ClientError> {
        let decoder = Body::new(self.head.framing, usize::MAX, MAX_TRAILERS)
            .map_err(ResponseError::from)?
            .keeping_trailers();
        let mut body = ReplyBody {
            connection: Some((self.socket, lease)),
            ahead: self.ahead,
            start: 0,
            decoder,
            deadline,
        };
        body.finish();
        Ok(Reply {
            head: self.head,
            body,
        })
    }
}

/// A conversation up to the final head.
struct Conversation<'a, 'b> {
    socket: Socket,
    parser: ResponseParser,
    /// What has come and was not used.
    ahead: Vec<u8>,
    deadline: Deadline,
    meanwhile: &'a mut Meanwhile<'b>,
}

fn exchange(
    socket: Socket,
    request: &Request<'_>,
    deadline: Deadline,
    meanwhile: &mut Meanwhile<'_>,
) -> Result<Heard, ClientError> {
    let mut conversation = Conversation {
        socket,
        parser: ResponseParser::new(request.asked()),
        ahead: Vec::new(),
        deadline,
        meanwhile,
    };
    let early = conversation.send(request)?;
    let is_early = early.is_some();
    let head = match early {
        Some(head) => head,
        None => conversation.receive()?,
    };
    Ok(Heard {
        socket: conversation.socket,
        head,
        ahead: conversation.ahead,
        early: is_early,
    })
}

impl Conversation<'_, '_> {
    /// Sends the request; gives the final head if that comes before all is sent, as with a server that refuses the body.
    fn send(&mut self, request: &Request<'_>) -> Result<Option<ResponseHead>, ClientError> {
        let (mut head, mut body) = (request.head, request.body);
        while !(head.is_empty() && body.is_empty()) {
            let sent = self
                .socket
                .write_vectored(&[IoSlice::new(head), IoSlice::new(body)]);
            match sent {
                Ok(0) => return Err(self.closed()),
                Ok(count) => {
                    let of_head = count.min(head.len());
                    head = &head[of_head..];
                    body = &body[count - of_head..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.wait(Interest::Either, ClientError::SendTimeout)?
                        && let Some(head) = self.read_head()?
                    {
                        return Ok(Some(head));
                    }
                }
                // The server has closed; it may have replied before that.
                Err(_) => return self.receive().map(Some),
            }
        }
        Ok(None)
    }

    /// Waits for the final head.
    fn receive(&mut self) -> Result<ResponseHead, ClientError> {
        loop {
            self.wait(Interest::Readable, ClientError::ResponseTimeout)?;
            if let Some(head) = self.read_head()? {
                return Ok(head);
            }
        }
    }

    /// Waits until the socket is ready: whether there is something to read.
    fn wait(&self, interest: Interest, over: ClientError) -> Result<bool, ClientError> {
        let cancelled = Some(self.meanwhile.cancelled);
        match self.socket.wait(interest, self.deadline, cancelled) {
            Ok(Waited::Ready { readable }) => Ok(readable),
            Ok(Waited::Over) => Err(over),
            Ok(Waited::Cancelled) => Err(ClientError::Cancelled),
            Err(_) => Err(self.closed()),
        }
    }

    /// Reads what has come; gives the final head once that is whole.
    fn read_head(&mut self) -> Result<Option<ResponseHead>, ClientError> {
        let mut piece = [0; HEAD_PIECE];
        match self.socket.read(&mut piece) {
            Ok(0) => return Err(self.closed()),
            Ok(count) => self.ahead.extend_from_slice(&piece[..count]),
            Err(error) if is_not_ready(&error) => return Ok(None),
            Err(_) => return Err(self.closed()),
        }
        while let Some((used, head)) = self.parse()? {
            self.ahead.drain(..used);
            if !head.is_interim() {
                return Ok(Some(head));
            }
            (self.meanwhile.interim)(&head);
        }
        Ok(None)
    }

    fn parse(&mut self) -> Result<Option<(usize, ResponseHead)>, ClientError> {
        self.parser.parse(&self.ahead).map_err(|error| match error {
            ResponseError::StatusLine => {
                self.ahead.truncate(MOST_SHOWN);
                ClientError::StatusLine(std::mem::take(&mut self.ahead))
            }
            error => error.into(),
        })
    }

    /// Why there is no head now that the connection is closed.
    fn closed(&self) -> ClientError {
        if self.ahead.is_empty() && !self.parser.has_interim() {
            ClientError::Closed
        } else {
            ClientError::Incomplete
        }
    }
}

fn is_not_ready(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The body of a response, still to be read. Reading goes on until the request's deadline, or [another
/// one](Self::set_deadline); errors hold a [`ClientError`].
///
/// The connection goes back to its pool as soon as the body has been read to its end, and is closed when this is dropped
/// before.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    /// None once the body is whole.
    connection: Option<(Socket, Option<Lease>)>,
    ahead: Vec<u8>,
    /// How much of `ahead` was used.
    start: usize,
    decoder: Body,
    deadline: Deadline,
}

/// A body that another one reads on.
#[derive(Debug)]
pub(crate) struct Parts {
    /// It does not block.
    pub(crate) socket: Socket,
    /// What has come and was not decoded yet.
    pub(crate) ahead: Vec<u8>,
    /// Knows where the body ends.
    pub(crate) decoder: Body,
    /// Where the socket goes when the body is whole and nothing has come behind it.
    pub(crate) lease: Option<Lease>,
}

impl ReplyBody {
    /// Another deadline for what is still to be read.
    pub(crate) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Takes it apart; none if the body has been read to its end.
    pub(crate) fn into_parts(mut self) -> Option<Parts> {
        let (socket, lease) = self.connection.take()?;
        self.ahead.drain(..self.start);
        Some(Parts {
            socket,
            ahead: self.ahead,
            decoder: self.decoder,
            lease,
        })
    }

    /// Gives the connection back if the body is whole. Bytes behind it belong to nothing that was asked.
    fn finish(&mut self) {
        if self.decoder.is_complete()
            && let Some((socket, lease)) = self.connection.take()
            && let Some(lease) = lease
            && self.start == self.ahead.len()
        {
            lease.give_back(socket, Instant::now());
        }
    }

    /// The whole body, if all of it is here or comes without being waited for. Else it is as before: of one that is longer
    /// than `most` bytes on the wire nothing is lost.
    ///
    /// # Errors
    /// The body is broken, or was cut.
    pub(crate) fn whole_at_hand(&mut self, most: usize) -> Result<Option<Vec<u8>>, ClientError> {
        if let Some(data) = self.try_whole(false)? {
            return Ok(Some(data));
        }
        if usize::try_from(self.decoder.missing()).is_ok_and(|missing| missing > most) {
            return Ok(None);
        }
        self.ahead.drain(..self.start);
        self.start = 0;
        while self.ahead.len() < most
            && let Some((socket, _)) = &mut self.connection
        {
            let before = self.ahead.len();
            self.ahead.resize(before + PIECE, 0);
            let read = socket.read(&mut self.ahead[before..]);
            self.ahead.truncate(before + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => {
                    return self
                        .try_whole(true)?
                        .map(Some)
                        .ok_or(ClientError::Incomplete);
                }
                Ok(_) => {}
                Err(error) if is_not_ready(&error) => break,
                Err(_) => return Err(ClientError::Incomplete),
            }
        }
        self.try_whole(false)
    }

    /// The whole body, if that is what has come; at the connection's end, if it `has_ended`.
    fn try_whole(&mut self, has_ended: bool) -> Result<Option<Vec<u8>>, ClientError> {
        let (mut decoder, mut data) = (self.decoder.clone(), Vec::new());
        let input = &self.ahead[self.start..];
        let (used, is_complete) = decoder
            .decode(input, &mut data)
            .map_err(ResponseError::from)?;
        let is_ended = has_ended && decoder.is_whole_at_close();
        if !is_complete && !is_ended {
            return Ok(None);
        }
        self.decoder = decoder;
        self.start += used;
        self.finish();
        if is_ended {
            self.connection = None;
        }
        Ok(Some(data))
    }

    /// Decodes at most `most` bytes of what has come.
    fn decode(&mut self, buffer: &mut [u8]) -> Result<usize, ClientError> {
        let end = self
            .ahead
            .len()
            .min(self.start.saturating_add(buffer.len()));
        let input = &self.ahead[self.start..end];
        let (used, data) = self.decoder.next(input).map_err(ResponseError::from)?;
        buffer[..data.len()].copy_from_slice(data);
        let count = data.len();
        self.start += used;
        self.finish();
        Ok(count)
    }

    /// Waits for more; false at the connection's end.
    fn fill(&mut self) -> Result<bool, ClientError> {
        let Some((socket, _)) = &mut self.connection else {
            return Ok(false);
        };
        if self.deadline.is_over() {
            return Err(ClientError::ResponseTimeout);
        }
        self.ahead.resize(PIECE, 0);
        self.start = 0;
        let read = loop {
            match socket.read(&mut self.ahead) {
                Err(error) if is_not_ready(&error) => {
                    match socket.wait(Interest::Readable, self.deadline, None) {
                        Ok(Waited::Over) => break Err(ClientError::ResponseTimeout),
                        Ok(_) => {}
                        Err(_) => break Err(ClientError::Incomplete),
                    }
                }
                Ok(count) => break Ok(count),
                // A reset is not the end of a body, also not of one that ends with the connection.
                Err(_) => break Err(ClientError::Incomplete),
            }
        };
        self.ahead.truncate(*read.as_ref().unwrap_or(&0));
        read.map(|count| count > 0)
    }
}

impl Read for ReplyBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.start < self.ahead.len() {
                let count = self.decode(buffer)?;
                if count > 0 {
                    return Ok(count);
                }
            }
            if self.decoder.is_complete() {
                return Ok(0);
            }
            if self.start == self.ahead.len() && !self.fill()? {
                return if self.decoder.is_whole_at_close() {
                    Ok(0)
                } else {
                    Err(ClientError::Incomplete.into())
                };
            }
        }
    }
}

#[cfg(test)]
mod tests;
