//! One request over HTTP/1.1, and the head of its response: on a kept connection or a new one.
//!
//! A [`Call`] does what can be done without waiting; its caller waits for the socket, by blocking or in an event loop,
//! under a deadline of its own. It ends with the response's head and a [handle](ReplyBody) on its body. That is read
//! here, blocking, or [taken apart](ReplyBody::into_parts): an event loop then relays from the socket, which never
//! blocks, and gives it back to its pool.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use super::pool::{Lease, Pool, Reuse};
use super::stream::{Interest, Socket, Waited};
use crate::http::body::BodyDecoder;
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
    /// The interim replies before it.
    pub(crate) interim: Vec<ResponseHead>,
}

/// A request on its way over one connection, up to the response's final head. Nothing here waits but the making of a new
/// connection.
#[derive(Debug)]
pub(crate) struct Call {
    socket: Socket,
    /// Where the connection is to be kept after it, if it may be.
    pool: Option<Arc<Pool>>,
    /// It was used before.
    is_kept: bool,
    parser: ResponseParser,
    /// Bytes of the request that were sent.
    sent: usize,
    /// All of the request was sent, or no more of it ever will be.
    is_sent: bool,
    /// The head came before the whole request was sent, or could have.
    early: bool,
    /// What has come and was not used.
    ahead: Vec<u8>,
    interim: Vec<ResponseHead>,
    head: Option<ResponseHead>,
}

impl Call {
    /// Takes a connection to an endpoint, or makes one by `connect_by`, and sends what it takes of the request.
    ///
    /// # Errors
    ///
    /// Why there is no connection.
    pub(crate) fn begin(
        pool: &Arc<Pool>,
        request: &Request<'_>,
        connect_by: Deadline,
    ) -> Result<Self, ClientError> {
        let kept = pool.take(request.reuse, Instant::now());
        let is_kept = kept.is_some();
        let socket = match kept {
            Some(socket) => socket,
            None => pool
                .connect(connect_by)
                .map_err(|error| match error.kind() {
                    ErrorKind::TimedOut => ClientError::ConnectTimeout,
                    _ => ClientError::Connect(error),
                })?,
        };
        let mut call = Self::new(socket, request);
        call.pool = Some(pool.clone());
        call.is_kept = is_kept;
        call.write(request)?;
        Ok(call)
    }

    fn new(socket: Socket, request: &Request<'_>) -> Self {
        Self {
            socket,
            pool: None,
            is_kept: false,
            parser: ResponseParser::new(request.asked()),
            sent: 0,
            is_sent: false,
            early: false,
            ahead: Vec::new(),
            interim: Vec::new(),
            head: None,
        }
    }

    /// The socket that has to be ready before it can go on, and what for.
    pub(crate) fn awaited(&self) -> (&Socket, Interest) {
        let interest = if self.is_sent {
            Interest::Readable
        } else {
            Interest::Either
        };
        (&self.socket, interest)
    }

    /// What it means that there is no more time.
    pub(crate) fn timed_out(&self) -> ClientError {
        if self.is_sent {
            ClientError::ResponseTimeout
        } else {
            ClientError::SendTimeout
        }
    }

    /// Goes on with the same request, now that the socket may be ready; whether the final head has come. Nothing else
    /// tells of what has come already: it reads until the head is whole, or nothing more is at hand.
    ///
    /// # Errors
    ///
    /// Why there will be no head.
    pub(crate) fn advance(
        &mut self,
        request: &Request<'_>,
        readable: bool,
    ) -> Result<bool, ClientError> {
        if !self.is_sent {
            self.write(request)?;
        }
        if readable {
            self.read()?;
        }
        Ok(self.head.is_some())
    }

    /// Waits for the final head until `deadline`; `cancelled` is asked twice a second whether it is still wanted.
    ///
    /// # Errors
    ///
    /// Why there is no head. The connection is closed then.
    pub(crate) fn finish(
        mut self,
        request: &Request<'_>,
        deadline: Deadline,
        cancelled: Option<&dyn Fn() -> bool>,
    ) -> Result<Reply, ClientError> {
        loop {
            let readable = self.wait(deadline, cancelled)?;
            if self.advance(request, readable)? {
                return self.into_reply(request, deadline);
            }
        }
    }

    /// Waits until the socket is ready: whether there is something to read.
    ///
    /// # Errors
    ///
    /// It is not ready in time, or not wanted any more.
    pub(crate) fn wait(
        &self,
        deadline: Deadline,
        cancelled: Option<&dyn Fn() -> bool>,
    ) -> Result<bool, ClientError> {
        let (socket, interest) = self.awaited();
        match socket.wait(interest, deadline, cancelled) {
            Ok(Waited::Ready { readable }) => Ok(readable),
            Ok(Waited::Over) => Err(self.timed_out()),
            Ok(Waited::Cancelled) => Err(ClientError::Cancelled),
            Err(_) => Err(self.closed()),
        }
    }

    /// The reply whose head [has come](Self::advance). Its body is read until `deadline`.
    ///
    /// # Errors
    ///
    /// The head has not come, or the body's framing is not acceptable.
    pub(crate) fn into_reply(
        mut self,
        request: &Request<'_>,
        deadline: Deadline,
    ) -> Result<Reply, ClientError> {
        let head = self.head.take().ok_or_else(|| self.closed())?;
        let must_close = self.early || request.has_unusual_body();
        let lease = self.pool.map(|pool| Lease::new(pool, &head, must_close));
        let decoder = BodyDecoder::new(head.framing, usize::MAX, MAX_TRAILERS)
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
            head,
            body,
            interim: self.interim,
        })
    }

    /// Sends what the socket takes of the rest of the request.
    fn write(&mut self, request: &Request<'_>) -> Result<(), ClientError> {
        let (head, body) = (request.head, request.body);
        while self.sent < head.len() + body.len() {
            let of_head = self.sent.min(head.len());
            let rest = [
                IoSlice::new(&head[of_head..]),
                IoSlice::new(&body[self.sent - of_head..]),
            ];
            match self.socket.write_vectored(&rest) {
                Ok(0) => return Err(self.closed()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The server has closed; it may have replied before that.
                Err(_) => {
                    self.early = true;
                    break;
                }
            }
        }
        self.is_sent = true;
        Ok(())
    }

    /// Reads up to the end of the final head.
    fn read(&mut self) -> Result<(), ClientError> {
        while self.head.is_none() {
            let before = self.ahead.len();
            self.ahead.resize(before + HEAD_PIECE, 0);
            let read = self.socket.read(&mut self.ahead[before..]);
            self.ahead.truncate(before + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(self.closed()),
                Ok(_) => self.parse()?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(self.closed()),
            }
        }
        Ok(())
    }

    /// Takes the heads that are whole, up to the final one.
    fn parse(&mut self) -> Result<(), ClientError> {
        while self.head.is_none() {
            let parsed = self.parser.parse(&self.ahead);
            let parsed = parsed.map_err(|error| match error {
                ResponseError::StatusLine => {
                    self.ahead.truncate(MOST_SHOWN);
                    ClientError::StatusLine(std::mem::take(&mut self.ahead))
                }
                error => error.into(),
            })?;
            let Some((used, head)) = parsed else {
                return Ok(());
            };
            self.ahead.drain(..used);
            if head.is_interim() {
                self.interim.push(head);
            } else {
                // Servers that refuse a body do so before all of it has come.
                self.early |= !self.is_sent;
                self.head = Some(head);
            }
        }
        Ok(())
    }

    /// Why there is no head now that the connection is closed.
    fn closed(&self) -> ClientError {
        if !self.ahead.is_empty() || self.parser.has_interim() {
            ClientError::Incomplete
        } else if self.is_kept {
            ClientError::Stale
        } else {
            ClientError::Closed
        }
    }
}

/// Sends a request on a connection that is not kept after it, and waits for the response's head.
///
/// # Errors
///
/// Why there is no head.
pub(crate) fn send_once(
    socket: Socket,
    request: &Request<'_>,
    deadline: Deadline,
) -> Result<Reply, ClientError> {
    let mut call = Call::new(socket, request);
    call.write(request)?;
    call.finish(request, deadline, None)
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
    decoder: BodyDecoder,
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
    pub(crate) decoder: BodyDecoder,
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
