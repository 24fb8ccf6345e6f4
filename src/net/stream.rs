//! A blocking stream under one absolute deadline.
//!
//! The socket itself never blocks: what waits is `poll`, which is given only the time that is left. So the socket can be
//! handed to an event loop as it is.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::patterns::Deadline;

/// How long a wait goes on before it asks again whether it is cancelled: a quarter of the 2 s within which a request
/// ends whose client has left, with room for a busy machine.
const SLICE: Duration = Duration::from_millis(500);

/// Longest single wait: `poll` takes its milliseconds as an `i32`.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// First pause before a Unix socket whose queue is full is tried again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// Longest pause before a Unix socket whose queue is full is tried again.
const LONGEST_PAUSE: Duration = Duration::from_millis(32);

/// Where a server listens: an address of TCP, or the path of a Unix socket.
///
/// ```
/// use plimsoll::patterns::Address;
/// use std::net::SocketAddr;
/// use std::path::Path;
///
/// let tcp = Address::from(SocketAddr::from(([127, 0, 0, 1], 9000)));
/// assert_eq!(tcp.to_string(), "127.0.0.1:9000");
/// let unix = Address::from(Path::new("/run/app.sock"));
/// assert_eq!(unix.to_string(), "unix:/run/app.sock");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(Arc<Path>),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Self::Unix(path.into())
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Self::Unix(path.into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Reads once, at most `most` bytes, and puts them behind what is in `buffer`.
///
/// # Errors
/// The source's own; nothing is added then.
pub(crate) fn read_behind(
    source: &mut (impl Read + ?Sized),
    most: usize,
    buffer: &mut Vec<u8>,
) -> io::Result<usize> {
    // `resize` sets one byte at a time where code is built for size.
    const ZEROS: &[u8] = &[0; 4096];
    let start = buffer.len();
    buffer.reserve(most);
    for at in (0..most).step_by(ZEROS.len()) {
        buffer.extend_from_slice(&ZEROS[..ZEROS.len().min(most - at)]);
    }
    // A reader that is a user's may claim more than there was room for.
    let read = source.read(&mut buffer[start..]);
    let read = read.map(|count| count.min(most));
    buffer.truncate(start + *read.as_ref().unwrap_or(&0));
    read
}

/// How a wait for a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The socket is ready, or has failed: reading or writing tells which.
    Ready {
        /// There is something to read, or the other side has closed.
        readable: bool,
    },
    /// The deadline is over.
    Over,
    /// It was cancelled.
    Cancelled,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Readable,
    Writable,
    Either,
}

/// A connected socket that does not block.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects.
    pub(crate) fn connect(address: &Address, deadline: Deadline) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => connect_tcp(address, deadline).map(Self::Tcp),
            Address::Unix(path) => connect_unix(path, deadline).map(Self::Unix),
        }
    }

    /// Connects to the first of the addresses that accepts. Each gets an equal part of the time that is left, so that
    /// one which swallows packets does not use up the time of those after it.
    ///
    /// # Errors
    /// The last address that was tried, and why it did not accept; without one, the deadline was over.
    pub(crate) fn connect_to_first(
        addresses: &[SocketAddr],
        deadline: Deadline,
    ) -> Result<Self, (Option<SocketAddr>, io::Error)> {
        let mut failed = (None, ErrorKind::TimedOut.into());
        for (index, &address) in addresses.iter().enumerate() {
            let Ok(left) = deadline.remaining() else {
                break;
            };
            let still = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            let part = (left / still).max(Duration::from_millis(1));
            match Self::connect(&address.into(), deadline.within(part)) {
                Ok(socket) => return Ok(socket),
                Err(error) => failed = (Some(address), error),
            }
        }
        Err(failed)
    }

    /// Whether nothing has come since the last response, not even the connection's end. A byte that has come is lost.
    pub(crate) fn is_silent(&mut self) -> bool {
        matches!(self.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Says that nothing more will be sent, or read.
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        }
    }

    /// Waits until it is ready, or the deadline is over, or `cancelled` says so, which is asked twice a second.
    pub(crate) fn wait(
        &self,
        interest: Interest,
        deadline: Deadline,
        cancelled: Option<&dyn Fn() -> bool>,
    ) -> io::Result<Waited> {
        let events = match interest {
            Interest::Readable => PollFlags::POLLIN,
            Interest::Writable => PollFlags::POLLOUT,
            Interest::Either => PollFlags::POLLIN | PollFlags::POLLOUT,
        };
        let longest = cancelled.map_or(LONGEST_WAIT, |_| SLICE);
        loop {
            let Ok(left) = deadline.remaining() else {
                return Ok(Waited::Over);
            };
            // Rounded up: a wait that ends just before the deadline would be followed by many of no time at all.
            let millis = left.min(longest).as_micros().div_ceil(1000);
            let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
            let mut polled = [PollFd::new(self.as_fd(), events)];
            match poll(&mut polled, timeout) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => {
                    let ready = polled[0].revents().unwrap_or(PollFlags::empty());
                    let readable = ready.intersects(!PollFlags::POLLOUT);
                    return Ok(Waited::Ready { readable });
                }
                Err(error) => return Err(error.into()),
            }
            if cancelled.is_some_and(|cancelled| cancelled()) {
                return Ok(Waited::Cancelled);
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(bytes),
            Self::Unix(stream) => stream.write_vectored(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn connect_tcp(address: &SocketAddr, deadline: Deadline) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, deadline.remaining()?)?;
    // A connection to a port of this host that nobody listens on can, by chance, be given that very port as its own, and
    // then TCP connects it to itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// The standard library's connect waits without end while the server's queue is full, so this one does not block.
fn connect_unix(path: &Path, deadline: Deadline) -> io::Result<UnixStream> {
    while_full(deadline, || mio::net::UnixStream::connect(path)).map(UnixStream::from)
}

/// Connects again as long as the server's queue is full: no event tells when it is not.
fn while_full<T>(deadline: Deadline, mut connect: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut pause = FIRST_PAUSE;
    loop {
        let left = deadline.remaining()?;
        match connect() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(pause.min(left)),
            done => return done,
        }
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// A blocking stream, all of whose reads and writes have to be done by one absolute [`Deadline`].
///
/// Each system call gets only the time that is left, so a peer that sends or takes a byte now and then gains nothing by
/// it. An operation that is not done in time fails with [`TimedOut`](ErrorKind::TimedOut); so does every one after it,
/// until there is [another deadline](Self::set_deadline).
///
/// ```
/// use plimsoll::patterns::{Deadline, DeadlineStream};
/// use std::io::{ErrorKind, Read, Write};
/// use std::net::TcpListener;
/// use std::time::Duration;
///
/// let silent = TcpListener::bind("127.0.0.1:0")?;
/// let deadline = Deadline::after(Duration::from_millis(20));
/// let mut stream = DeadlineStream::connect(silent.local_addr()?, deadline)?;
/// stream.write_all(b"PING\r\n")?;
/// let error = stream.read(&mut [0; 64]).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::TimedOut);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct DeadlineStream {
    socket: Socket,
    deadline: Deadline,
}

impl DeadlineStream {
    /// Connects to an address of TCP or to the path of a Unix socket. No name is looked up, so nothing else is waited
    /// for.
    ///
    /// # Errors
    /// Why it cannot be connected to; [`TimedOut`](ErrorKind::TimedOut) when the deadline is over.
    pub fn connect(address: impl Into<Address>, deadline: impl Into<Deadline>) -> io::Result<Self> {
        let deadline = deadline.into();
        let socket = Socket::connect(&address.into(), deadline)?;
        Ok(Self { socket, deadline })
    }

    /// A connected socket under a deadline.
    pub(crate) fn new(socket: Socket, deadline: Deadline) -> Self {
        Self { socket, deadline }
    }

    /// When everything has to be done.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Sets another deadline, as for the next request on a connection that is kept.
    pub fn set_deadline(&mut self, deadline: impl Into<Deadline>) {
        self.deadline = deadline.into();
    }

    /// Does `operation`, and waits as often as the socket is not ready for it.
    fn by_deadline<T>(
        &mut self,
        interest: Interest,
        mut operation: impl FnMut(&mut Socket) -> io::Result<T>,
    ) -> io::Result<T> {
        self.deadline.remaining()?;
        loop {
            match operation(&mut self.socket) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.socket.wait(interest, self.deadline, None)? == Waited::Over {
                        self.deadline.remaining()?;
                    }
                }
                done => return done,
            }
        }
    }
}

impl Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.by_deadline(Interest::Readable, |socket| socket.read(buffer))
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.by_deadline(Interest::Writable, |socket| socket.write(bytes))
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        self.by_deadline(Interest::Writable, |socket| socket.write_vectored(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(100);

    /// Gives its bytes once, then what is said of it.
    struct Once(&'static [u8], fn() -> io::Result<usize>);

    impl Read for Once {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert!(buffer.iter().all(|&byte| byte == 0), "room of zeros");
            let (now, later) = self.0.split_at(self.0.len().min(buffer.len()));
            if now.is_empty() {
                return self.1();
            }
            buffer[..now.len()].copy_from_slice(now);
            self.0 = later;
            Ok(now.len())
        }
    }

    #[test]
    fn what_is_read_stands_behind_what_was_there_and_nothing_else_does() {
        let mut buffer = b"a".to_vec();
        let mut source = Once(&[b'x'; 5000], || Err(ErrorKind::WouldBlock.into()));
        assert_eq!(read_behind(&mut source, 4999, &mut buffer).unwrap(), 4999);
        assert_eq!(read_behind(&mut source, 9000, &mut buffer).unwrap(), 1);
        read_behind(&mut source, 9000, &mut buffer).unwrap_err();
        assert_eq!(buffer, [b"a".as_slice(), &[b'x'; 5000]].concat());
        let mut liar = Once(b"", || Ok(100));
        assert_eq!(read_behind(&mut liar, 3, &mut buffer).unwrap(), 3);
        assert_eq!(buffer.len(), 5004);
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        (listener, address)
    }

    /// A directory of its own under the system's temporary one, removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let name = format!("plimsoll-stream-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            // What is left over is in the system's temporary directory.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn each_address_is_tried_until_one_accepts() {
        let closed = listener().1;
        let (open, address) = listener();
        let deadline = Deadline::after(PATIENCE);
        Socket::connect_to_first(&[closed, address], deadline).expect("one accepts");
        drop(open);
        let (failed, error) =
            Socket::connect_to_first(&[closed, address], deadline).expect_err("none accepts");
        assert_eq!(failed, Some(address));
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let over = Deadline::after(Duration::ZERO);
        let (failed, error) = Socket::connect_to_first(&[address], over).expect_err("no time");
        assert_eq!((failed, error.kind()), (None, ErrorKind::TimedOut));
    }

    #[test]
    fn a_peer_that_does_not_read_does_not_stretch_the_deadline() {
        let (_listener, address) = listener();
        let mut stream =
            DeadlineStream::connect(address, Deadline::after(PATIENCE)).expect("it accepts");
        let began = Instant::now();
        stream.set_deadline(began + SHORT);
        let error = stream
            .write_all(&vec![0; 64 << 20])
            .expect_err("it is not read");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(began.elapsed() >= SHORT, "given up early");
        assert!(began.elapsed() < PATIENCE, "the deadline was stretched");
    }

    #[test]
    fn a_peer_that_drips_does_not_stretch_the_deadline() {
        let (listener, address) = listener();
        let dripping = thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("a connection");
            while peer.write_all(b"x").is_ok() {
                thread::yield_now();
            }
        });
        let mut stream =
            DeadlineStream::connect(address, Deadline::after(PATIENCE)).expect("it accepts");
        let began = Instant::now();
        stream.set_deadline(began + SHORT);
        let error = loop {
            match stream.read(&mut [0]) {
                Ok(count) => assert_eq!(count, 1),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(began.elapsed() >= SHORT && began.elapsed() < PATIENCE);
        drop(stream);
        dripping.join().expect("the peer ends");
    }

    #[test]
    fn a_wait_is_cancelled_long_before_its_deadline() {
        let (_listener, address) = listener();
        let deadline = Deadline::after(PATIENCE);
        let socket = Socket::connect(&address.into(), deadline).expect("it accepts");
        let waited = socket.wait(Interest::Readable, deadline, Some(&|| true));
        assert_eq!(waited.expect("a wait"), Waited::Cancelled);
        assert!(!deadline.is_over());
    }

    #[test]
    fn unix_sockets_are_spoken_to() {
        let directory = Directory::new("unix");
        let path = directory.0.join("socket");
        let deadline = Deadline::after(PATIENCE);
        let missing = DeadlineStream::connect(path.clone(), deadline).expect_err("no file");
        assert_eq!(missing.kind(), ErrorKind::NotFound);

        let listener = UnixListener::bind(&path).expect("a socket");
        let mut stream = DeadlineStream::connect(path.as_path(), deadline).expect("it accepts");
        let (mut peer, _) = listener.accept().expect("a connection");
        stream.write_all(b"ping").expect("it is taken");
        let mut heard = [0; 4];
        peer.read_exact(&mut heard).expect("it comes");
        assert_eq!(&heard, b"ping");
    }

    #[test]
    fn a_full_queue_is_tried_again_until_the_deadline() {
        let mut tries = 0;
        let connected = while_full(Deadline::after(PATIENCE), || {
            tries += 1;
            if tries < 3 {
                return Err(ErrorKind::WouldBlock.into());
            }
            Ok(tries)
        });
        assert_eq!(connected.expect("the queue has room"), 3);
        let full = while_full::<()>(Deadline::after(SHORT), || Err(ErrorKind::WouldBlock.into()));
        assert_eq!(full.expect_err("it is full").kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn what_has_come_while_idle_is_noticed() {
        let (listener, address) = listener();
        let deadline = Deadline::after(PATIENCE);
        let mut socket = Socket::connect(&address.into(), deadline).expect("it accepts");
        let (mut peer, _) = listener.accept().expect("a connection");
        assert!(socket.is_silent());
        peer.write_all(b"x").expect("it is taken");
        socket
            .wait(Interest::Readable, deadline, None)
            .expect("a byte");
        assert!(!socket.is_silent());
        assert!(socket.is_silent());
        drop(peer);
        socket
            .wait(Interest::Readable, deadline, None)
            .expect("the end");
        assert!(!socket.is_silent());
    }
}
