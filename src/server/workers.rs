//! The fixed pool: each worker pulls a request from tiny_http, runs the handler, and writes the reply straight to the
//! client's socket. What the socket does not take at once goes back to the frontend, so that a slow reader never
//! holds a worker.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use crate::health::{Health, Outcome, bump};
use crate::server::event_loop::connection::{After, Piece};
use crate::server::event_loop::intake::{GREETING, carried_ids, greeted};
use crate::server::event_loop::wake::{Message, Sender};
use crate::server::exchange::{Exchange, Stage, lock};
use crate::server::handler::Handler;
use crate::server::request::Request;
use crate::server::response::{DateCache, Payload, Progress, Response, Stream};
use crate::server::roster::Roster;
use crate::server::spin::Spin;

/// What the workers and the frontend share.
pub(crate) struct Shared {
    pub(crate) server: tiny_http::Server,
    pub(crate) handler: Box<dyn Handler>,
    pub(crate) health: Arc<Health>,
    pub(crate) handover: Handover,
    pub(crate) roster: Roster,
    pub(crate) spin: Spin,
    pub(crate) frontend: Sender,
    pub(crate) closing: AtomicBool,
}

/// Exchanges on their way through tiny_http.
///
/// Each has a place in a table and an id that names the place and never comes again, so that a head which is left over
/// from a broken stream finds nothing, and never another client's exchange.
#[derive(Debug)]
pub(crate) struct Handover {
    places: Box<[Mutex<Option<Entry>>]>,
    /// How many have been taken.
    taken: AtomicU64,
    /// Ids that came through together: whoever is free begins the next, whichever worker pulled their request.
    through: Mutex<VecDeque<u64>>,
}

/// An exchange under its id.
type Entry = (u64, Arc<Exchange>);

/// The bits of an id that name the place.
const PLACE_BITS: u32 = 16;

impl Handover {
    pub(crate) fn new(places: usize) -> Self {
        debug_assert!(places <= 1 << PLACE_BITS);
        let places = (0..places).map(|_| Mutex::new(None)).collect();
        Self {
            places,
            taken: AtomicU64::new(0),
            through: Mutex::default(),
        }
    }

    /// The id of the `count`-th exchange, at that place.
    pub(crate) fn id(count: u64, place: usize) -> u64 {
        (count << PLACE_BITS | place as u64) & !GREETING
    }

    /// Puts an exchange at the place that its id names.
    pub(crate) fn put(&self, id: u64, exchange: Arc<Exchange>) {
        if let Some(place) = self.places.get(Self::place(id)) {
            *lock(place) = Some((id, exchange));
        }
    }

    /// Takes the exchange of that id, once.
    pub(crate) fn take(&self, id: u64) -> Option<Arc<Exchange>> {
        let mut place = lock(self.places.get(Self::place(id))?);
        let (_, exchange) = place.take_if(|(holder, _)| *holder == id)?;
        drop(place);
        self.taken.fetch_add(1, Ordering::Relaxed);
        Some(exchange)
    }

    /// How many have been taken since the start.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes the ids out of a request that came through.
    pub(crate) fn open(&self, request: tiny_http::Request) {
        lock(&self.through).extend(carried_ids(request.url()));
        // A request dropped with its writer answers 500 up the stream; without, it is silent.
        drop(request.into_writer());
    }

    /// The next id that has come through and that nobody has begun.
    fn next(&self) -> Option<u64> {
        lock(&self.through).pop_front()
    }

    /// Whether any such id is left.
    pub(crate) fn is_waiting(&self) -> bool {
        !lock(&self.through).is_empty()
    }

    /// The place that an id names.
    pub(crate) fn place(id: u64) -> usize {
        (id & ((1 << PLACE_BITS) - 1)) as usize
    }
}

/// A worker's word that it is done with an exchange.
#[derive(Debug)]
pub(crate) struct Done {
    /// The place in the hand-over table, free again.
    pub(crate) place: usize,
    /// When.
    pub(crate) at: Instant,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) result: Ended,
}

impl Done {
    /// Whether nothing is left to do but to wait for the client's next request.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(&self.result, Ended::Replied { rest, after: After::Keep } if rest.is_empty())
    }
}

/// What became of an exchange.
#[derive(Debug)]
pub(crate) enum Ended {
    /// A reply: what the socket has not taken yet, and what comes then.
    Replied { rest: Vec<Piece>, after: After },
    /// The reply can't be made whole: the connection must be cut.
    Broken,
    /// It was abandoned, and nothing was written.
    Dropped,
}

/// Starts worker number `index`, which holds `alive` for as long as it runs.
pub(crate) fn spawn(
    shared: Arc<Shared>,
    index: usize,
    alive: crossbeam_channel::Sender<()>,
) -> io::Result<JoinHandle<()>> {
    Builder::new()
        .name(format!("plimsoll-{index}"))
        .spawn(move || {
            let _alive = alive;
            Worker {
                shared,
                index,
                buffer: Vec::new(),
                date: DateCache::default(),
            }
            .run();
        })
}

struct Worker {
    shared: Arc<Shared>,
    index: usize,
    buffer: Vec<u8>,
    date: DateCache,
}

/// A body up to this size is copied behind its head, so that one plain write does; a larger one is left in place.
const COPY_UP_TO: usize = 16 * 1024;

/// How long a worker stays with a reply whose client takes all that its reader gives. Then the frontend sees that the
/// reply makes progress, and other requests have their turn.
const STREAM_TURN: Duration = Duration::from_millis(20);

/// A worker's buffer keeps no more than this between requests.
const KEEP_BUFFER: usize = 64 * 1024;

impl Worker {
    fn run(&mut self) {
        while !self.is_closing() {
            match self.next() {
                Ok(Some(id)) => self.take(id),
                Ok(None) => {}
                // How tiny_http says that it was told to wake up; or that its accept thread has failed, after which
                // the open streams go on.
                Err(error) if self.is_closing() => {
                    log::trace!("worker {} stops: {error}", self.index);
                }
                Err(error) => log::error!("no further streams to the workers: {error}"),
            }
            if self.buffer.capacity() > KEEP_BUFFER {
                self.buffer = Vec::new();
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire)
    }

    /// The next id: at once if there is one, else when a request comes. `None` when that carried nothing to do, or the
    /// server is stopping.
    fn next(&self) -> io::Result<Option<u64>> {
        if let Some(id) = self.at_hand()? {
            return Ok(Some(id));
        }
        let listening = self.shared.roster.listen(self.index);
        let look = || {
            // First, since to look takes away what tells a worker that blocks of the end.
            if self.is_closing() {
                return Some(Ok(None));
            }
            let found = self.at_hand();
            (!matches!(found, Ok(None))).then_some(found)
        };
        let found = if listening.may_spin() {
            self.shared.spin.look_around(look)
        } else {
            look()
        };
        if let Some(found) = found {
            return found;
        }
        let request = self.shared.server.recv()?;
        drop(listening);
        self.shared.handover.open(request);
        Ok(self.shared.handover.next())
    }

    /// The next id that is here already.
    fn at_hand(&self) -> io::Result<Option<u64>> {
        let handover = &self.shared.handover;
        if let Some(id) = handover.next() {
            return Ok(Some(id));
        }
        if let Some(request) = self.shared.server.try_recv()? {
            handover.open(request);
        }
        Ok(handover.next())
    }

    fn take(&mut self, id: u64) {
        if let Some(attempt) = greeted(id) {
            self.shared.frontend.send(Message::Greeting { attempt });
            return;
        }
        let Some(exchange) = self.shared.handover.take(id) else {
            // Its stream broke, and the frontend has answered for it.
            return;
        };
        let result = self.work(&exchange);
        let in_flight = &self.shared.health.gauges.in_flight;
        in_flight.fetch_sub(1, Ordering::Relaxed);
        self.shared.frontend.send_done(Done {
            place: Handover::place(id),
            at: Instant::now(),
            exchange,
            result,
        });
    }

    fn work(&mut self, exchange: &Arc<Exchange>) -> Ended {
        if let Some(stream) = exchange.unpark() {
            return self.resume(stream, exchange);
        }
        let began = Instant::now();
        let begins = exchange.advance(Stage::Waiting, Stage::Running);
        let Some(incoming) = exchange.take_request().filter(|_| begins) else {
            bump(&self.shared.health.counts.skipped);
            return Ended::Dropped;
        };
        let shared = self.shared.clone();
        let health = &shared.health;
        health.job_begins(self.index, exchange.admitted.at, began);
        let mut request = Request::new(*incoming, exchange.clone(), health.clone());
        let handled = catch_unwind(AssertUnwindSafe(|| shared.handler.handle(&mut request)));
        let response = handled.unwrap_or_else(|panic| {
            bump(&health.counts.panics);
            let what = panic_text(panic.as_ref());
            log::error!(
                "the handler panicked: {} {}: {what}",
                request.method(),
                request.url()
            );
            Response::text(500, "the handler failed\n")
        });
        let status = response.status();
        // A response may hold a reader, and dropping that is user code too.
        let replied = catch_unwind(AssertUnwindSafe(|| {
            if exchange.advance(Stage::Running, Stage::Replying) {
                self.reply(response, exchange)
            } else {
                bump(&health.counts.late);
                drop(response);
                Ended::Dropped
            }
        }));
        let result = replied.unwrap_or_else(|panic| {
            bump(&health.counts.panics);
            let what = panic_text(panic.as_ref());
            log::error!("a reply's reader panicked while it was dropped: {what}");
            Ended::Broken
        });
        let ended = Instant::now();
        health.job_ends(self.index, exchange.admitted.epoch, began, ended);
        if !matches!(result, Ended::Dropped) {
            let response = ended.saturating_duration_since(exchange.admitted.at);
            health.answered(Outcome::of(status), response);
        }
        log::debug!(
            "{} {} {} {status} {:?}",
            exchange.origin.peer,
            request.method(),
            request.url(),
            ended.saturating_duration_since(began),
        );
        result
    }

    /// Writes the reply as far as the socket takes it.
    fn reply(&mut self, response: Response, exchange: &Exchange) -> Ended {
        self.buffer.clear();
        let draining = self.shared.health.gauges.draining.load(Ordering::Relaxed);
        let (close, payload) = response.into_parts(
            exchange.origin.rules,
            draining,
            &mut self.date,
            &mut self.buffer,
        );
        let after = if close { After::Close } else { After::Keep };
        match payload {
            Some(Payload::Stream(stream)) => self.stream(stream, exchange),
            Some(Payload::Bytes(bytes)) if bytes.len() > COPY_UP_TO => {
                let head = self.buffer.len();
                match write_both(&exchange.origin.socket, &self.buffer, &bytes) {
                    Ok(sent) => {
                        let mut rest = Vec::new();
                        if sent < head {
                            rest.push(Piece::new(self.buffer[sent..].to_vec(), 0));
                        }
                        if sent < head + bytes.len() {
                            rest.push(Piece::new(bytes, sent.saturating_sub(head)));
                        }
                        Ended::Replied { rest, after }
                    }
                    Err(error) => broken(&error),
                }
            }
            payload => {
                if let Some(Payload::Bytes(bytes)) = payload {
                    self.buffer.extend_from_slice(&bytes);
                }
                match write_some(&exchange.origin.socket, &self.buffer) {
                    Ok(sent) => Ended::Replied {
                        rest: rest_of(&self.buffer, sent),
                        after,
                    },
                    Err(error) => broken(&error),
                }
            }
        }
    }

    /// Goes on with a reply whose client has read what came before.
    fn resume(&mut self, stream: Stream, exchange: &Exchange) -> Ended {
        // Its client may have gone meanwhile; then the reader is only dropped, here where user code belongs.
        if !exchange.advance(Stage::Resuming, Stage::Replying) {
            return self.drop_reader(stream);
        }
        let now = Instant::now();
        self.shared.health.job_begins(self.index, now, now);
        self.buffer.clear();
        let ended = self.stream(stream, exchange);
        self.shared.health.worker_rests(self.index);
        ended
    }

    /// Reads the body and writes it, until its end, until the socket is full, or until others should have a turn.
    fn stream(&mut self, mut stream: Stream, exchange: &Exchange) -> Ended {
        let began = Instant::now();
        let after = if stream.close {
            After::Close
        } else {
            After::Keep
        };
        loop {
            let start = self.buffer.len();
            let filled = catch_unwind(AssertUnwindSafe(|| stream.fill(&mut self.buffer)));
            let progress = filled.unwrap_or_else(|panic| {
                // The room that was made for the reader's bytes must not pass for them.
                self.buffer.truncate(start);
                bump(&self.shared.health.counts.panics);
                let what = panic_text(panic.as_ref());
                Err(io::Error::other(format!("the reader panicked: {what}")))
            });
            let progress = match progress {
                Ok(progress) => progress,
                Err(error) => {
                    log::warn!(
                        "{}: a reply was cut, its body failed: {error}",
                        exchange.origin.peer
                    );
                    bump(&self.shared.health.counts.cut);
                    // What came before the fault still goes out; the end that is missing tells the client.
                    drop(write_some(&exchange.origin.socket, &self.buffer));
                    self.drop_reader(stream);
                    return Ended::Broken;
                }
            };
            let sent = match write_some(&exchange.origin.socket, &self.buffer) {
                Ok(sent) => sent,
                Err(error) => {
                    self.drop_reader(stream);
                    return broken(&error);
                }
            };
            let may_go_on = began.elapsed() < STREAM_TURN;
            if sent == self.buffer.len() && progress == Progress::More && may_go_on {
                self.buffer.clear();
                continue;
            }
            let rest = rest_of(&self.buffer, sent);
            if progress == Progress::End {
                self.drop_reader(stream);
                return Ended::Replied { rest, after };
            }
            exchange.park(stream);
            let after = After::More;
            return Ended::Replied { rest, after };
        }
    }

    /// Drops a body's reader, which is user code and may panic.
    fn drop_reader(&self, stream: Stream) -> Ended {
        if catch_unwind(AssertUnwindSafe(|| drop(stream))).is_err() {
            bump(&self.shared.health.counts.panics);
            log::error!("a reply's reader panicked while it was dropped");
        }
        Ended::Dropped
    }
}

fn broken(error: &io::Error) -> Ended {
    log::debug!("a reply could not be written: {error}");
    Ended::Broken
}

fn rest_of(buffer: &[u8], sent: usize) -> Vec<Piece> {
    let rest = &buffer[sent..];
    if rest.is_empty() {
        Vec::new()
    } else {
        vec![Piece::new(rest.to_vec(), 0)]
    }
}

/// Writes until the socket takes no more; returns how much it took.
pub(crate) fn write_some(mut socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.write(&bytes[sent..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// The same for a head and the body behind it, in one call as long as the head is not out.
fn write_both(mut socket: &TcpStream, head: &[u8], body: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < head.len() {
        match socket.write_vectored(&[IoSlice::new(&head[sent..]), IoSlice::new(body)]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(sent),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let of_body = sent - head.len();
    Ok(sent + write_some(socket, &body[of_body..])?)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
