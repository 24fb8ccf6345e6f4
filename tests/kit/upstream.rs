//! A service behind the sidecar that is told what to answer, byte for byte, and keeps what it was asked.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::{NEVER, PATIENCE, Reserved};

/// A request as it came: from the request line to the empty line, and the body that its Content-Length announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// The values of all fields of that name.
    pub(crate) fn fields(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let named = fields.filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value).collect()
    }

    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

/// It listens on loopback until it is stopped or dropped; its port is its own until it is dropped.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    _port: Reserved,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
    stopped: AtomicBool,
    open: Mutex<Vec<(usize, TcpStream)>>,
}

impl Upstream {
    /// Answers each request with what `script` writes; the connection closes when that fails.
    pub(crate) fn start(
        script: impl Fn(&Asked, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), script)
    }

    /// The same at an address that is reserved, or that of one that is stopped.
    pub(crate) fn start_at(
        address: SocketAddr,
        script: impl Fn(&Asked, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let port = Reserved::at(address);
        let address = port.address;
        let listener = TcpListener::bind(address).expect("nobody listens");
        let shared = Arc::new(Shared::default());
        let (kept, script) = (shared.clone(), Arc::new(script));
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                if kept.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.expect("a connection");
                let number = kept.connections.fetch_add(1, Ordering::SeqCst);
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
                stream.set_nodelay(true).expect("no delay");
                let other = stream.try_clone().expect("a descriptor is free");
                lock(&kept.open).push((number, other));
                let (kept, script) = (kept.clone(), script.clone());
                thread::spawn(move || {
                    while let Some(asked) = read_request(&mut stream) {
                        lock(&kept.asked).push(asked.clone());
                        if script(&asked, &mut stream).is_err() {
                            break;
                        }
                    }
                    // The last to go closes it.
                    lock(&kept.open).retain(|(other, _)| *other != number);
                });
            }
        });
        Self {
            address,
            _port: port,
            shared,
            accepting: Some(accepting),
        }
    }

    /// Answers each request with these bytes, and keeps the connection.
    pub(crate) fn answering(reply: impl Into<Vec<u8>>) -> Self {
        let reply = reply.into();
        Self::start(move |_, stream| stream.write_all(&reply))
    }

    /// Answers the first request on each connection with these bytes, and closes it.
    pub(crate) fn answering_once(reply: impl Into<Vec<u8>>) -> Self {
        let reply = reply.into();
        Self::start(move |_, stream| {
            stream.write_all(&reply)?;
            Err(io::ErrorKind::ConnectionAborted.into())
        })
    }

    /// Reads a request on each connection, and never answers.
    pub(crate) fn hanging() -> Self {
        Self::silent("")
    }

    /// Begins its answer to a request on each connection with this, and says nothing more.
    pub(crate) fn silent(beginning: &'static str) -> Self {
        Self::start(move |_, stream| {
            stream.write_all(beginning.as_bytes())?;
            // What ends the connection is the other side.
            stream.set_read_timeout(Some(NEVER))?;
            match stream.read(&mut [0])? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => panic!("nothing comes behind a request"),
            }
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }

    /// The one request that it was asked.
    #[track_caller]
    pub(crate) fn only(&self) -> Asked {
        let asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked[0].clone()
    }

    /// How many connections it has now.
    pub(crate) fn open(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// How many connections have come so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Nothing listens any more, and every connection is closed.
    pub(crate) fn stop(&mut self) {
        let Some(accepting) = self.accepting.take() else {
            return;
        };
        self.shared.stopped.store(true, Ordering::SeqCst);
        // It wakes the thread, which then ends.
        let _ = TcpStream::connect(self.address);
        accepting.join().expect("the thread ends");
        for (_, stream) in lock(&self.shared.open).drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a request; none at the connection's end.
fn read_request(stream: &mut impl Read) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head: String = head.into_iter().map(char::from).collect();
    let mut asked = Asked {
        head,
        body: Vec::new(),
    };
    if let Some(length) = asked.fields("content-length").first() {
        let length = length.parse().expect("a length");
        asked.body.resize(length, 0);
        stream.read_exact(&mut asked.body).ok()?;
    }
    Some(asked)
}
