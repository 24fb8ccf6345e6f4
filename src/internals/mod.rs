//! Ways into the parts, for benchmarks and fuzz targets only. Nothing here is promised to users.

pub mod invariants;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::health::Health;
use crate::http::body::BodyDecoder;
use crate::http::head::{self, Framing};
use crate::server::event_loop::bodies::Room;
use crate::server::event_loop::connection::{After, Connection, ConnectionEvent, Limits, Piece};
use crate::settings::Config;

const MAX_HEAD: usize = 16 * 1024;
const MAX_BODY: usize = 1024 * 1024;
const MAX_TRAILERS: usize = 8 * 1024;

/// Judges and rewrites a whole head; the length of its canonical form, unless it is unfinished or refused.
#[must_use]
pub fn parse_head(input: &[u8]) -> Option<usize> {
    let parsed = head::parse(input, MAX_HEAD, &mut head::Scan::default());
    let (_, head) = parsed.ok()??;
    Some(head.canonical().len())
}

/// Decodes a whole chunked body; the length of its data, unless it is unfinished or refused.
#[must_use]
pub fn decode_chunked(input: &[u8]) -> Option<usize> {
    let mut out = Vec::new();
    let mut body = BodyDecoder::new(Framing::Chunked, MAX_BODY, MAX_TRAILERS).ok()?;
    let (_, whole) = body.decode(input, &mut out).ok()?;
    whole.then_some(out.len())
}

/// A closed gate, and what a quick request costs there. Many threads may use it at once.
#[derive(Debug)]
pub struct ClosedGate {
    health: Arc<Health>,
    now: Instant,
}

impl ClosedGate {
    /// With the default settings.
    #[must_use]
    pub fn new() -> Self {
        let (trips, _) = crossbeam_channel::unbounded();
        let now = Instant::now();
        Self {
            health: Arc::new(Health::new(&Config::default(), trips, now)),
            now,
        }
    }

    /// Lets a request in, and takes its service time. False if the gate was not closed.
    #[must_use]
    pub fn pass(&self, service: Duration) -> bool {
        let Ok(permit) = self.health.admit(true, self.now) else {
            return false;
        };
        self.health.served(permit, service, self.now);
        true
    }
}

impl Default for ClosedGate {
    fn default() -> Self {
        Self::new()
    }
}

/// A client's conversation whose requests all get the same reply, at once and in one piece.
#[derive(Debug)]
pub struct Conversation {
    connection: Connection,
    now: Instant,
}

impl Conversation {
    /// One that has just been accepted, with the limits that are the defaults.
    #[must_use]
    pub fn new() -> Self {
        let timeout = Duration::from_secs(10);
        let limits = Limits {
            max_head: MAX_HEAD,
            max_body: MAX_BODY,
            head_timeout: timeout,
            body_timeout: timeout,
            idle_timeout: timeout,
            write_timeout: timeout,
            request_timeout: timeout,
        };
        let now = Instant::now();
        Self {
            connection: Connection::new(Arc::new(limits), now),
            now,
        }
    }

    /// Takes what the client sent, and replies to every request that is whole; returns how many those were.
    pub fn serve(&mut self, input: &[u8], reply: &'static [u8]) -> usize {
        let mut served = 0;
        self.connection.handle_input(input, self.now);
        loop {
            if let Some((_, size)) = self.connection.wants_room() {
                self.connection.give_room(Room::of_its_own(size), self.now);
            }
            let Some(ConnectionEvent::Request(incoming)) = self.connection.poll_event() else {
                return served;
            };
            let after = if incoming.head.keep_alive {
                After::Keep
            } else {
                After::Close
            };
            self.connection
                .answer([Piece::new(reply, 0)], after, self.now);
            let count = self.connection.output().len();
            self.connection.handle_sent(count, self.now);
            served += 1;
        }
    }
}

impl Default for Conversation {
    fn default() -> Self {
        Self::new()
    }
}
