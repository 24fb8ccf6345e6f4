//! A load generator that does not wait for the server.
//!
//! Requests are due at the times of a Poisson process (or, in a closed loop, as soon as a reply has come), and every
//! latency is taken from when its request was due: so a server that makes clients wait cannot make them ask less. A
//! request for which no connection is free waits for one, and its time runs. A client gives up one second after its
//! request was due, and closes the connection then.
//!
//! One thread, with an event loop over non-blocking sockets.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use std::{io, thread};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::common::descriptors;

/// How long a client waits for its reply.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// The most connections: enough for ten times the capacity of 400 requests/s with every client waiting to the end.
const MOST_CONNECTIONS: usize = 4096;

/// The event queue counts whole milliseconds; shorter waits are slept in steps of this.
const STEP: Duration = Duration::from_micros(100);

/// When requests are due.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrivals {
    /// As many clients, each asking again when it has its reply.
    Closed(usize),
    /// A Poisson process of that many a second.
    Open(f64),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Served,
    /// 503.
    Refused,
    /// The client left after [`PATIENCE`].
    GaveUp,
    /// Another status, or a connection that failed.
    Failed,
}

/// One request; times in seconds since the start of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) due: f64,
    /// When it was written; the time of giving up if it never was.
    pub(crate) sent: f64,
    pub(crate) done: f64,
    pub(crate) outcome: Outcome,
}

/// A random sequence that the seed decides: [splitmix64](https://prng.di.unimi.it/splitmix64.c).
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Exponentially distributed, with mean 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        let uniform = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        -(1.0 - uniform).ln()
    }
}

/// The most connections at once, both of whose ends may be in this process.
fn most_connections() -> usize {
    (descriptors::limits().0.saturating_sub(256) / 2).clamp(64, MOST_CONNECTIONS)
}

/// Puts `arrivals` on the server at `address` for `length`, and returns what became of each request, in the order in
/// which they ended. It takes up to [`PATIENCE`] longer.
pub(crate) fn generate(
    address: SocketAddr,
    arrivals: Arrivals,
    length: Duration,
    seed: u64,
    start: Instant,
) -> io::Result<Vec<Sample>> {
    let request = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n".to_vec();
    generate_of(request, address, arrivals, length, seed, start)
}

/// The same of a request that is given.
pub(crate) fn generate_of(
    request: Vec<u8>,
    address: SocketAddr,
    arrivals: Arrivals,
    length: Duration,
    seed: u64,
    start: Instant,
) -> io::Result<Vec<Sample>> {
    let mut load = Load {
        request,
        address,
        poll: Poll::new()?,
        start,
        slots: Vec::new(),
        vacant: Vec::new(),
        idle: Vec::new(),
        most: most_connections(),
        backlog: VecDeque::new(),
        in_flight: 0,
        patience: VecDeque::new(),
        serial: 0,
        closed: matches!(arrivals, Arrivals::Closed(_)),
        samples: Vec::new(),
    };
    let mut random = Random(seed);
    let end = start + length;
    let mut next = match arrivals {
        Arrivals::Closed(clients) => {
            for _ in 0..clients {
                load.backlog.push_back(start);
            }
            None
        }
        Arrivals::Open(_) => Some(start),
    };
    let mut events = Events::with_capacity(1024);
    loop {
        let now = Instant::now();
        while let (Some(due), Arrivals::Open(rate)) = (next, arrivals) {
            if due > now {
                break;
            }
            load.backlog.push_back(due);
            let due = due + Duration::from_secs_f64(random.exponential() / rate);
            next = (due < end).then_some(due);
        }
        if now >= end {
            load.closed = false;
        }
        load.give_up(now);
        load.dispatch(now);
        if now >= end && next.is_none() && load.in_flight == 0 && load.backlog.is_empty() {
            return Ok(load.samples);
        }
        load.wait(next, &mut events)?;
    }
}

struct Load {
    request: Vec<u8>,
    address: SocketAddr,
    poll: Poll,
    start: Instant,
    slots: Vec<Option<Connection>>,
    vacant: Vec<usize>,
    /// Connections without a request, the latest used last.
    idle: Vec<usize>,
    most: usize,
    /// When the requests were due for which no connection was free yet.
    backlog: VecDeque<Instant>,
    in_flight: usize,
    /// Requests in flight by the time at which they were due, some of which have ended: slot and serial number.
    patience: VecDeque<(Instant, usize, u64)>,
    serial: u64,
    /// Whether a reply makes the next request due.
    closed: bool,
    samples: Vec<Sample>,
}

struct Connection {
    socket: TcpStream,
    request: Option<Request>,
    /// How much of the request is written.
    written: usize,
    reply: Vec<u8>,
}

struct Request {
    due: Instant,
    sent: Option<Instant>,
    serial: u64,
}

impl Load {
    fn record(&mut self, due: Instant, sent: Instant, outcome: Outcome) {
        let now = Instant::now();
        let since = |time: Instant| time.saturating_duration_since(self.start).as_secs_f64();
        self.samples.push(Sample {
            due: since(due),
            sent: since(sent),
            done: since(now),
            outcome,
        });
        if self.closed {
            self.backlog.push_back(now);
        }
    }

    /// Lets the clients go whose patience has ended.
    fn give_up(&mut self, now: Instant) {
        while let Some(&(due, slot, serial)) = self.patience.front() {
            let current = self.slots[slot]
                .as_ref()
                .and_then(|connection| connection.request.as_ref());
            let waits = current.is_some_and(|request| request.serial == serial);
            if waits && now < due + PATIENCE {
                break;
            }
            self.patience.pop_front();
            if waits {
                self.end(slot, Outcome::GaveUp);
            }
        }
        while self
            .backlog
            .front()
            .is_some_and(|&due| now >= due + PATIENCE)
        {
            if let Some(due) = self.backlog.pop_front() {
                self.record(due, now, Outcome::GaveUp);
            }
        }
    }

    /// Gives each request that is due a connection, as far as there are any.
    fn dispatch(&mut self, now: Instant) {
        while !self.backlog.is_empty() {
            let slot = match self.idle.pop() {
                Some(slot) => slot,
                None if self.slots.len() - self.vacant.len() < self.most => {
                    let Ok(slot) = self.open() else {
                        if let Some(due) = self.backlog.pop_front() {
                            self.record(due, now, Outcome::Failed);
                        }
                        // In a closed loop this would be tried again at once, for ever.
                        return;
                    };
                    slot
                }
                None => return,
            };
            let (Some(due), Some(connection)) = (self.backlog.pop_front(), &mut self.slots[slot])
            else {
                return;
            };
            self.serial += 1;
            connection.request = Some(Request {
                due,
                sent: None,
                serial: self.serial,
            });
            connection.written = 0;
            self.in_flight += 1;
            self.patience.push_back((due, slot, self.serial));
            self.drive(slot);
        }
    }

    fn open(&mut self) -> io::Result<usize> {
        let mut socket = TcpStream::connect(self.address)?;
        let slot = self.vacant.pop().unwrap_or(self.slots.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut socket, Token(slot), interest)?;
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(Connection {
            socket,
            request: None,
            written: 0,
            reply: Vec::new(),
        });
        Ok(slot)
    }

    /// Ends a connection, and the request on it.
    fn end(&mut self, slot: usize, outcome: Outcome) {
        let Some(connection) = self.slots[slot].take() else {
            return;
        };
        self.vacant.push(slot);
        if let Some(request) = connection.request {
            self.in_flight -= 1;
            let sent = request.sent.unwrap_or_else(Instant::now);
            self.record(request.due, sent, outcome);
        } else {
            self.idle.retain(|&idle| idle != slot);
        }
    }

    /// Writes and reads what the socket allows.
    fn drive(&mut self, slot: usize) {
        let Some(connection) = &mut self.slots[slot] else {
            return;
        };
        if connection.request.is_some() && connection.written < self.request.len() {
            match connection.socket.write(&self.request[connection.written..]) {
                Ok(count) => connection.written += count,
                // Not connected yet is told so by some systems.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::NotConnected
                    ) =>
                {
                    return;
                }
                Err(_) => return self.end(slot, Outcome::Failed),
            }
            if let Some(request) = &mut connection.request
                && connection.written == self.request.len()
            {
                request.sent = Some(Instant::now());
            }
            // A reply to what was just written is told by an event.
            return;
        }
        let mut buffer = [0; 4096];
        loop {
            match connection.socket.read(&mut buffer) {
                Ok(0) => return self.end(slot, Outcome::Failed),
                Ok(count) => connection.reply.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.end(slot, Outcome::Failed),
            }
        }
        let Some(reply) = parse(&connection.reply) else {
            return;
        };
        let Some(request) = connection.request.take() else {
            return self.end(slot, Outcome::Failed);
        };
        connection.reply.clear();
        self.in_flight -= 1;
        let outcome = match reply.status {
            200 => Outcome::Served,
            503 => Outcome::Refused,
            _ => Outcome::Failed,
        };
        self.record(request.due, request.sent.unwrap_or(request.due), outcome);
        self.idle.push(slot);
        if reply.close {
            self.end(slot, outcome);
        }
    }

    /// Waits for readiness, or until something is due, and does what the sockets allow.
    fn wait(&mut self, next: Option<Instant>, events: &mut Events) -> io::Result<()> {
        let now = Instant::now();
        let patience = self.patience.front().map(|&(due, ..)| due + PATIENCE);
        let oldest = self.backlog.front().map(|&due| due + PATIENCE);
        let due = [next, patience, oldest].into_iter().flatten().min();
        let wait = due.map_or(Duration::from_millis(10), |due| {
            due.saturating_duration_since(now)
                .min(Duration::from_millis(10))
        });
        let whole = Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(0));
        let polled = self.poll.poll(events, Some(whole));
        if let Err(error) = polled
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error);
        }
        if events.is_empty() && whole.is_zero() && !wait.is_zero() {
            thread::sleep(wait.min(STEP));
        }
        for event in &*events {
            self.drive(event.token().0);
        }
        Ok(())
    }
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) close: bool,
}

/// A whole reply with a Content-Length; `None` while it is not whole.
pub(crate) fn parse(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = str::from_utf8(&bytes[..end]).ok()?;
    let status = head.get(9..12)?.parse().ok()?;
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    };
    let length: usize = field("content-length")?.parse().ok()?;
    let close = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    (bytes.len() >= end + length).then_some(Reply { status, close })
}
