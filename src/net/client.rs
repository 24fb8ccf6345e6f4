//! One request over HTTP/1.1, and the head of its response: on a kept connection or a new one.
//!
//! A [`Call`] does what can be done without waiting; its caller waits for the socket, by blocking or in an event loop,
//! under a deadline of its own. It ends with the response's head and a [handle](ReplyBody) on its body. That is read
//! here, blocking, or [taken apart](ReplyBody::into_parts): an event loop then relays from the socket, which never
//! blocks, and gives it back to its pool.

mod body;
mod error;

use std::io::{self, ErrorKind, IoSlice, Write};
use std::sync::Arc;
use std::time::Instant;

use super::pool::{Lease, Pool, Reuse};
use super::stream::{Interest, Socket, Waited, read_behind};
use crate::http::body::BodyDecoder;
use crate::http::response::{Asked, ResponseError, ResponseHead, ResponseParser};
use crate::patterns::Deadline;

pub(crate) use self::body::{Parts, ReplyBody};
pub(crate) use self::error::ClientError;

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
        let connection = (self.socket, lease);
        let mut body = ReplyBody::new(connection, self.ahead, decoder, deadline);
        if !self.is_sent {
            body.unsent = self.sent.checked_sub(request.head.len());
        }
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
            match read_behind(&mut self.socket, HEAD_PIECE, &mut self.ahead) {
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

#[cfg(test)]
mod tests;
