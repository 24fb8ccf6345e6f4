//! A client that speaks in bytes.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{PATIENCE, Reply};

/// One connection. What is called `try_` tells of an error; the rest panics at one.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: BufReader<TcpStream>,
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("a connection")
    }

    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// So many of them, of which each has asked for `/`.
    #[track_caller]
    pub(crate) fn asking(address: SocketAddr, count: usize) -> Vec<Self> {
        let ask = || {
            let mut client = Self::connect(address);
            client.get("/");
            client
        };
        std::iter::repeat_with(ask).take(count).collect()
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).expect("a write");
        self
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a GET for that target, to be kept alive.
    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> &mut Self {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    /// Closes this end: the server sees the end of input, and can still reply.
    #[track_caller]
    pub(crate) fn finish(&mut self) -> &mut Self {
        let socket = self.socket();
        socket.shutdown(Shutdown::Write).expect("a half-close");
        self
    }

    /// Leaves at once, with a reset.
    #[track_caller]
    pub(crate) fn reset(self) {
        let socket = SockRef::from(self.socket());
        let set = socket.set_linger(Some(Duration::ZERO));
        set.expect("an open socket");
    }

    /// Reads one whole reply to a request with a method other than HEAD.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> Reply {
        whole(self.try_reply())
    }

    /// Reads one reply to a HEAD request.
    #[track_caller]
    pub(crate) fn reply_to_head(&mut self) -> Reply {
        whole(Reply::read(&mut self.stream, true))
    }

    /// Reads one reply, which may be cut; see [`Reply::read`].
    pub(crate) fn try_reply(&mut self) -> io::Result<Reply> {
        Reply::read(&mut self.stream, false)
    }

    /// Reads until the server closes; gives what came.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            panic!("{error} after {:?}", start(&rest));
        }
        rest
    }

    /// Waits for the server to close, and wants nothing to come before that.
    #[track_caller]
    pub(crate) fn expect_close(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "before the end: {:?}", start(&rest));
    }

    /// Whether the server ends the connection, orderly or not, without another byte.
    pub(crate) fn ends(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

#[track_caller]
fn whole(reply: io::Result<Reply>) -> Reply {
    let reply = reply.expect("a reply");
    assert!(reply.whole, "cut after {:?}", start(&reply.body));
    reply
}

/// As much of it as a message can hold.
fn start(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(1000)]).into_owned()
}

/// Sends bytes on a connection of their own, and reads one reply.
#[track_caller]
pub(crate) fn ask(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Reply {
    Client::connect(address).send(bytes).reply()
}

/// GETs a target on a connection of its own.
#[track_caller]
pub(crate) fn get(address: SocketAddr, target: &str) -> Reply {
    Client::connect(address).get(target).reply()
}

/// How long a GET takes on a fresh connection: the shortest of a few tries, since the machine may be busy.
#[track_caller]
pub(crate) fn time_to_get(address: SocketAddr, target: &str) -> Duration {
    let tries = (0..5).map(|_| {
        let began = Instant::now();
        let reply = get(address, target);
        assert_eq!(reply.status, 200, "{reply:?}");
        began.elapsed()
    });
    tries.min().unwrap_or_default()
}

/// Bytes that differ from place to place, so that a piece lost, doubled or moved shows.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    /// A prime: no buffer is a multiple of it.
    const PERIOD: usize = 65_521;
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    let period: Vec<u8> = std::iter::repeat_with(next).take(PERIOD).collect();
    let mut bytes = period.repeat(length.div_ceil(PERIOD));
    bytes.truncate(length);
    bytes
}
