//! What the socket tests share: a server that nothing but the test itself troubles, a client that speaks in bytes,
//! and ways to wait for a state instead of sleeping.

// Each test binary compiles this file, and none uses all of it.
#![allow(dead_code)]

pub(crate) mod binary;
pub(crate) mod browser;
pub(crate) mod process;
pub(crate) mod stores;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use plimsoll::{Builder, CheckReport, GateMode, Handler, Request, Server};

/// Longest any test waits for anything; reached only when something is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A setting for what must not happen during a test.
pub(crate) const NEVER: Duration = Duration::from_hours(1);

/// A server on a free port of loopback that neither sheds nor trips nor times out, however slow the machine is: a test
/// sets what it is about.
pub(crate) fn quiet(workers: usize) -> Builder {
    Server::builder()
        .listen("127.0.0.1:0")
        .workers(workers)
        .gate(GateMode::Off)
        .threshold(NEVER)
        .queue_budget(NEVER)
        .head_timeout(NEVER)
        .body_timeout(NEVER)
        .idle_timeout(NEVER)
        .write_timeout(NEVER)
        .request_timeout(NEVER)
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        // Only so that the wait leaves the processor to what it waits for.
        thread::sleep(Duration::from_millis(1));
    }
}

/// Holds handlers until the test lets them go.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    state: Mutex<LatchState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LatchState {
    open: bool,
    /// How many have come so far.
    arrived: usize,
}

impl Latch {
    /// Called by a handler: returns once the latch is open.
    pub(crate) fn pass(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.arrived += 1;
        self.changed.notify_all();
        let held = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| !state.open);
        drop(held);
    }

    /// A handler that waits at the latch, then gives this reply.
    pub(crate) fn handler(self: &Arc<Self>, reply: &'static str) -> impl Handler + use<> {
        let latch = self.clone();
        move |_: &mut Request| {
            latch.pass();
            reply
        }
    }

    /// Waits until so many handlers have come to the latch, in total.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| state.arrived < count);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(
            !timeout.timed_out(),
            "{} of {count} handlers came",
            state.arrived
        );
    }

    /// Lets everyone pass, now and later.
    pub(crate) fn open(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open = true;
        self.changed.notify_all();
    }
}

/// How the end of a reply's body was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By its status, or because it answers HEAD.
    None,
    Length,
    Chunked,
    UntilClose,
}

/// A whole reply.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Name and value as they came, in order.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) framing: Framing,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The value of the one header of that name, in any case.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let (_, value) = found.next()?;
        assert!(found.next().is_none(), "{name} more than once: {self:?}");
        Some(value)
    }

    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("a body of text")
    }

    /// Whether the server says that it will close the connection.
    #[track_caller]
    pub(crate) fn closes(&self) -> bool {
        self.header("Connection") == Some("close")
    }
}

/// One connection, spoken to in bytes.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    /// What came after the last reply.
    ahead: Vec<u8>,
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let ahead = Vec::new();
        Self { stream, ahead }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).expect("a write");
        self
    }

    /// Sends a GET for that target, to be kept alive.
    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> &mut Self {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    /// Closes this end: the server sees the end of input, and can still reply.
    #[track_caller]
    pub(crate) fn finish(&mut self) -> &mut Self {
        self.stream.shutdown(Shutdown::Write).expect("a half-close");
        self
    }

    /// Reads one reply to a request with a method other than HEAD.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> Reply {
        self.read_reply(false)
    }

    /// Reads one reply to a HEAD request.
    #[track_caller]
    pub(crate) fn reply_to_head(&mut self) -> Reply {
        self.read_reply(true)
    }

    /// Reads until the server closes; gives what came.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.ahead)
    }

    /// Waits for the server to close, and wants nothing to come before that.
    #[track_caller]
    pub(crate) fn expect_close(&mut self) {
        let rest = self.rest();
        assert!(
            rest.is_empty(),
            "before the end: {:?}",
            String::from_utf8_lossy(&rest)
        );
    }

    /// Reads what has come; false at the end.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(count) => {
                    self.ahead.extend_from_slice(&buffer[..count]);
                    return count > 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!(
                    "{error} after {:?}",
                    String::from_utf8_lossy(&self.ahead[..self.ahead.len().min(1000)])
                ),
            }
        }
    }

    /// Takes what comes up to and without `end`.
    #[track_caller]
    fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut from = 0;
        loop {
            let rest = &self.ahead[from..];
            if let Some(at) = rest.windows(end.len()).position(|window| window == end) {
                let at = from + at;
                let taken = self.ahead[..at].to_vec();
                self.ahead.drain(..at + end.len());
                return taken;
            }
            from = self.ahead.len().saturating_sub(end.len() - 1);
            assert!(
                self.fill(),
                "the end, in the middle of a reply: {:?}",
                String::from_utf8_lossy(&self.ahead)
            );
        }
    }

    #[track_caller]
    fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.ahead.len() < length {
            let came = self.ahead.len();
            assert!(self.fill(), "the end after {came} of {length} bytes");
        }
        let rest = self.ahead.split_off(length);
        std::mem::replace(&mut self.ahead, rest)
    }

    #[track_caller]
    fn read_reply(&mut self, to_head: bool) -> Reply {
        let head = String::from_utf8(self.until(b"\r\n\r\n")).expect("a head of text");
        let mut lines = head.split("\r\n");
        let status_line = lines.next().expect("a status line");
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.split_once(' '))
            .and_then(|(status, _)| status.parse().ok())
            .unwrap_or_else(|| panic!("a status line, not {status_line:?}"));
        let headers: Vec<_> = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").expect("name: value");
                (name.to_owned(), value.to_owned())
            })
            .collect();
        let mut reply = Reply {
            status,
            headers,
            framing: Framing::None,
            body: Vec::new(),
        };
        let length = reply.header("Content-Length");
        let length = length.map(|length| length.parse().expect("a length"));
        let coding = reply.header("Transfer-Encoding");
        assert!(length.is_none() || coding.is_none(), "both: {reply:?}");
        if to_head || matches!(status, 100..=199 | 204 | 304) {
            return reply;
        }
        if let Some(coding) = coding {
            assert_eq!(coding, "chunked");
            reply.framing = Framing::Chunked;
            loop {
                let size = self.until(b"\r\n");
                let size = str::from_utf8(&size).expect("a size");
                let size = usize::from_str_radix(size, 16).expect("a size in hex");
                reply.body.extend(self.exactly(size));
                assert_eq!(self.exactly(2), b"\r\n", "the end of a chunk");
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = length {
            reply.framing = Framing::Length;
            reply.body = self.exactly(length);
        } else {
            reply.framing = Framing::UntilClose;
            reply.body = self.rest();
        }
        reply
    }
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

/// What a server knows of the store of that name.
#[track_caller]
pub(crate) fn report(server: &Server, name: &str) -> CheckReport {
    let snapshot = server.health().snapshot();
    let mut checks = snapshot.checks.into_iter();
    checks
        .find(|check| &*check.name == name)
        .expect("a check of that name")
}

/// Bytes that differ from place to place, so that a piece lost, doubled or moved shows.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}
