//! A reply's body that is made while it is sent: by a handler's reader, or by another server.

use std::fmt;
use std::io::{self, Read};

use super::relay::{Progress, Relay, Tunnel};
use crate::http::body::Framing;
use crate::net::stream::read_behind;

/// Where the bytes come from.
pub(crate) enum Source {
    /// A user's code, which may block: only workers read from it, and only they drop it.
    Reader(Box<dyn Read + Send>),
    /// Another server's reply. It never blocks.
    Relay(Box<Relay>),
    /// Another server, in both directions. It never blocks.
    Tunnel(Box<Tunnel>),
}

/// A body that is still to be sent, in whole or in part.
pub(crate) struct Stream {
    pub(crate) source: Source,
    /// How it goes over the wire; of a length, what is left.
    framing: Framing,
    /// Whether the connection closes after it.
    pub(crate) close: bool,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

/// How much of a stream is read at a time: what may be held for a client beyond the socket's buffer.
pub(crate) const STREAM_STEP: usize = 64 * 1024;

/// A chunk's size line has a fixed width, so that the data can be put behind it before its length is known.
const SIZE_LINE: usize = 10;

impl Stream {
    pub(crate) fn new(source: Source, framing: Framing, close: bool) -> Self {
        Self {
            source,
            framing,
            close,
        }
    }

    /// Reads one step of the body and appends it to `out` as it goes over the wire.
    ///
    /// # Errors
    /// The source's own, or `UnexpectedEof` when it ends short of the length that was promised: then the
    /// connection must be cut, since the reply can't be made whole.
    pub(crate) fn fill(&mut self, out: &mut Vec<u8>) -> io::Result<Progress> {
        let start = out.len();
        let filled = self.fill_from(start, out);
        if filled.is_err() {
            out.truncate(start);
        }
        filled
    }

    fn fill_from(&mut self, start: usize, out: &mut Vec<u8>) -> io::Result<Progress> {
        let limit = match self.framing {
            Framing::Length(rest) => usize::try_from(rest).unwrap_or(usize::MAX).min(STREAM_STEP),
            _ => STREAM_STEP,
        };
        if limit == 0 {
            return Ok(Progress::End);
        }
        let data = match self.framing {
            Framing::Chunked => start + SIZE_LINE,
            _ => start,
        };
        out.resize(data, 0);
        let progress = match &mut self.source {
            Source::Reader(reader) => read_step(reader, limit, out)?,
            Source::Relay(relay) => relay.read(limit, out)?,
            Source::Tunnel(tunnel) => {
                tunnel.read_ahead(out);
                return Ok(Progress::Dry);
            }
        };
        let count = out.len() - data;
        match &mut self.framing {
            Framing::Length(rest) => {
                *rest = rest
                    .checked_sub(count as u64)
                    .ok_or(io::ErrorKind::InvalidData)?;
                match progress {
                    _ if *rest == 0 => Ok(Progress::End),
                    Progress::End => Err(io::ErrorKind::UnexpectedEof.into()),
                    progress => Ok(progress),
                }
            }
            Framing::Chunked => {
                if count == 0 {
                    out.truncate(start);
                } else {
                    let line = format!("{count:08x}\r\n");
                    out[start..data].copy_from_slice(line.as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
                if progress == Progress::End {
                    out.extend_from_slice(b"0\r\n");
                    if let Source::Relay(relay) = &self.source {
                        relay.push_trailers(out);
                    }
                    out.extend_from_slice(b"\r\n");
                }
                Ok(progress)
            }
            Framing::UntilClose | Framing::None => Ok(progress),
        }
    }
}

/// Appends what a reader gives at once, at most `limit` bytes.
fn read_step(
    reader: &mut (dyn Read + Send),
    limit: usize,
    out: &mut Vec<u8>,
) -> io::Result<Progress> {
    loop {
        match read_behind(reader, limit, out) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) => return Ok(Progress::End),
            Ok(_) => return Ok(Progress::More),
            Err(error) => return Err(error),
        }
    }
}
