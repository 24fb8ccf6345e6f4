//! Sockets to other servers that the event loop watches.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};

use mio::unix::SourceFd;
use mio::{Registry, Token};

use crate::net::stream::{Interest, Socket, read_behind};

/// A socket to another server, and what the event loop knows of it.
pub(crate) struct Watched {
    pub(crate) socket: Socket,
    /// The event loop is told of its readiness.
    registered: bool,
    /// It may have something to read.
    pub(crate) readable: bool,
    /// It may take something.
    pub(crate) writable: bool,
}

impl Watched {
    pub(crate) fn new(socket: Socket) -> Self {
        Self {
            socket,
            registered: false,
            readable: true,
            writable: true,
        }
    }

    /// Notes what the event loop was told.
    pub(crate) fn set_ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// Has the event loop told of the socket's readiness, unless it is already.
    pub(crate) fn watch(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        if !self.registered {
            watch(&self.socket, registry, token, interest)?;
            self.registered = true;
        }
        Ok(())
    }

    /// Reads once; `None` when nothing is at hand.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.read_by(|socket| socket.read(buffer))
    }

    /// The same, at most `most` bytes behind what is in `buffer`.
    pub(crate) fn read_behind(
        &mut self,
        most: usize,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Option<usize>> {
        self.read_by(|socket| read_behind(socket, most, buffer))
    }

    fn read_by(
        &mut self,
        mut read: impl FnMut(&mut Socket) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        loop {
            match read(&mut self.socket) {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes once; `None` when nothing is taken now.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        loop {
            match self.socket.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Has the event loop told of a socket's readiness under this token from now on: first if it is ready already. A
/// connection that is kept stays with the event loop, under the token that it had last; what is told of it then comes to
/// nothing.
///
/// # Errors
/// The event queue's refusal.
pub(crate) fn watch(
    socket: &Socket,
    registry: &Registry,
    token: Token,
    interest: Interest,
) -> io::Result<()> {
    let interest = match interest {
        Interest::Readable => mio::Interest::READABLE,
        Interest::Writable => mio::Interest::WRITABLE,
        Interest::Either => mio::Interest::READABLE | mio::Interest::WRITABLE,
    };
    let descriptor = socket.as_fd().as_raw_fd();
    let mut source = SourceFd(&descriptor);
    match registry.reregister(&mut source, token, interest) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            registry.register(&mut source, token, interest)
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::PATIENCE;
    use std::os::unix::net::UnixStream;

    /// An event may be of the time before, or the socket may have been read meanwhile.
    #[test]
    fn a_socket_that_is_watched_again_tells_that_it_is_ready() {
        let mut poll = mio::Poll::new().unwrap();
        let mut events = mio::Events::with_capacity(4);
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let socket = Socket::Unix(near);
        far.write_all(b"x").unwrap();
        for token in [Token(1), Token(2), Token(2)] {
            watch(&socket, poll.registry(), token, Interest::Readable).unwrap();
            poll.poll(&mut events, Some(PATIENCE)).unwrap();
            let told: Vec<_> = events.iter().map(mio::event::Event::token).collect();
            assert_eq!(told, [token]);
        }
    }
}
