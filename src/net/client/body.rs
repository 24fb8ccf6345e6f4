//! A response's body, read as it comes.

use std::io::{self, Read};
use std::time::Instant;

use super::error::ClientError;
use super::is_not_ready;
use crate::http::body::BodyDecoder;
use crate::http::response::ResponseError;
use crate::net::pool::Lease;
use crate::net::stream::{Interest, Socket, Waited, read_behind};
use crate::patterns::Deadline;

/// How much of a body is read at a time.
const PIECE: usize = 16 * 1024;

/// The body of a response, still to be read. Reading goes on until the request's deadline, or [another
/// one](Self::set_deadline); errors hold a [`ClientError`].
///
/// The connection goes back to its pool as soon as the body has been read to its end, and is closed when this is dropped
/// before.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    /// None once the body is whole.
    pub(super) connection: Option<(Socket, Option<Lease>)>,
    ahead: Vec<u8>,
    /// How much of `ahead` was used.
    start: usize,
    pub(super) decoder: BodyDecoder,
    deadline: Deadline,
    /// See [`Parts::unsent`].
    pub(super) unsent: Option<usize>,
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
    /// How much of the request's body was sent, if not all of it was: a server may answer before it has all, and may end
    /// its answer only once it has.
    pub(crate) unsent: Option<usize>,
}

impl ReplyBody {
    /// What is behind the head, some of which has come already.
    pub(super) fn new(
        connection: (Socket, Option<Lease>),
        ahead: Vec<u8>,
        decoder: BodyDecoder,
        deadline: Deadline,
    ) -> Self {
        let mut body = Self {
            connection: Some(connection),
            ahead,
            start: 0,
            decoder,
            deadline,
            unsent: None,
        };
        body.finish();
        body
    }

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
            unsent: self.unsent,
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
            match read_behind(socket, PIECE, &mut self.ahead) {
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
        self.ahead.clear();
        self.start = 0;
        loop {
            match read_behind(socket, PIECE, &mut self.ahead) {
                Err(error) if is_not_ready(&error) => {
                    match socket.wait(Interest::Readable, self.deadline, None) {
                        Ok(Waited::Over) => return Err(ClientError::ResponseTimeout),
                        Ok(_) => {}
                        Err(_) => return Err(ClientError::Incomplete),
                    }
                }
                Ok(count) => return Ok(count > 0),
                // A reset is not the end of a body, also not of one that ends with the connection.
                Err(_) => return Err(ClientError::Incomplete),
            }
        }
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
