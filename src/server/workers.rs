//! The fixed pool: each worker pulls a request from tiny_http, runs the handler, and writes the reply straight to the
//! client's socket. What the socket does not take at once goes back to the event loop, so that a slow reader never
//! holds a worker.

use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::health::{Health, Outcome, Permit, bump};
#[cfg(feature = "redis")]
use crate::http::head::Head;
#[cfg(feature = "redis")]
use crate::http::refusal::Refusal;
use crate::panics::catch;
use crate::panics::lock;
use crate::server::access_log::{AccessLog, End};
use crate::server::event_loop::connection::{CloseReason, Incoming, Piece};
use crate::server::event_loop::intake::{Carrier, carried_number};
use crate::server::event_loop::wake::{Message, Sender};
use crate::server::exchange::{Exchange, Stage};
use crate::server::handler::Handler;
use crate::server::jobs::{Job, Jobs};
use crate::server::request::Request;
use crate::server::response::{Continuation, DateCache, Later, Payload, Response};
use crate::server::roster::Roster;
use crate::server::spin::Spin;
use crate::server::stream::{Progress, Source, Stream};
use crate::server::throttling::Throttling;
use crate::threads::Threads;

/// What the workers and the event loop share.
pub(crate) struct Shared {
    /// Where workers pull from: another one once the stream into it has broken.
    pub(crate) carrier: Mutex<Arc<Carrier>>,
    pub(crate) handler: Box<dyn Handler>,
    pub(crate) access_log: Option<Arc<AccessLog>>,
    pub(crate) health: Arc<Health>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) roster: Roster,
    pub(crate) spin: Spin,
    pub(crate) throttling: Arc<Throttling>,
    pub(crate) event_loop: Sender,
    pub(crate) closing: AtomicBool,
}

impl Shared {
    fn carrier(&self) -> Arc<Carrier> {
        lock(&self.carrier).clone()
    }

    /// Whether workers pull from that one now.
    pub(crate) fn is_current(&self, carrier: &Arc<Carrier>) -> bool {
        Arc::ptr_eq(&lock(&self.carrier), carrier)
    }

    /// Has the workers pull from another server from now on.
    pub(crate) fn replace_carrier(&self, carrier: Arc<Carrier>, workers: usize) {
        let old = std::mem::replace(&mut *lock(&self.carrier), carrier);
        unblock(&old, workers);
    }

    /// Has every worker end once it is done with its job.
    pub(crate) fn close(&self, workers: usize) {
        self.closing.store(true, Ordering::Release);
        unblock(&self.carrier(), workers);
        self.roster.close();
    }

    /// Wakes a worker that waits for requests.
    pub(crate) fn nudge(&self) {
        self.carrier().server.unblock();
    }
}

/// Wakes all workers that wait for requests. A worker may take two of these calls, as it looks before it waits.
fn unblock(carrier: &Carrier, workers: usize) {
    for _ in 0..2 * workers {
        carrier.server.unblock();
    }
}

/// A worker's word that it is done with a job.
#[derive(Debug)]
pub(crate) struct Done {
    /// When.
    pub(crate) at: Instant,
    /// `None` when the job was not about one.
    pub(crate) exchange: Option<Arc<Exchange>>,
    pub(crate) result: Ended,
    /// It was none of the workers that did it.
    pub(crate) aside: bool,
}

impl Done {
    /// Whether nothing is left to do but to wait for the client's next request.
    pub(crate) fn is_settled(&self) -> bool {
        self.result.is_sent()
            && matches!(
                self.result,
                Ended::Replied {
                    then: Then::Keep,
                    ..
                }
            )
    }
}

/// What became of a job.
#[derive(Debug)]
pub(crate) enum Ended {
    /// A reply: what the socket has not taken yet, and what comes then.
    Replied { rest: Vec<Piece>, then: Then },
    /// The reply can't be made whole: the connection must close, for that reason.
    Broken(CloseReason),
    /// Nothing is left to do: it was abandoned, or was no request.
    Dropped,
}

impl Ended {
    /// Whether the last byte of a reply was given to the socket.
    fn is_sent(&self) -> bool {
        let Self::Replied { rest, then } = self else {
            return false;
        };
        rest.is_empty() && !matches!(then, Then::More(_))
    }
}

/// What comes after the part of a reply that was sent.
#[derive(Debug)]
pub(crate) enum Then {
    /// The next request.
    Keep,
    /// The connection closes.
    Close,
    /// The rest of the reply, once the client has read what came before.
    More(Stream),
}

/// Starts worker number `index`.
pub(crate) fn spawn(shared: Arc<Shared>, index: usize, threads: &mut Threads) -> io::Result<()> {
    threads.spawn(HANDLERS, format!("plimsoll-{index}"), move |_alive| {
        Worker::new(shared, index).run();
    })
}

/// What the log calls the threads that run handlers.
pub(crate) const HANDLERS: &str = "workers with their handlers";

pub(crate) struct Worker {
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

/// How long a worker waits for a request at a time, so that a wake-up which another one took away is missed for no
/// longer.
const LISTEN: Duration = Duration::from_secs(1);

/// A worker's buffer keeps no more than this between requests.
const KEEP_BUFFER: usize = 64 * 1024;

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self {
            shared,
            index,
            buffer: Vec::new(),
            date: DateCache::default(),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn run(&mut self) {
        while !self.is_closing() {
            if let Some(job) = self.next() {
                self.take(job);
            }
            if self.buffer.capacity() > KEEP_BUFFER {
                self.buffer = Vec::new();
            }
        }
        // What the event loop has left for the workers to drop.
        while let Some(job) = self.shared.jobs.next() {
            self.discard(job);
        }
    }

    fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire)
    }

    /// The next job: at once if there is one, else when a request comes. `None` when it is worth looking anew.
    fn next(&self) -> Option<Job> {
        let carrier = self.shared.carrier();
        if let Some(job) = self.at_hand(&carrier) {
            return Some(job);
        }
        let listening = self.shared.roster.listen(self.index);
        let look = || {
            // First, since to look takes away what tells a worker that blocks of the end.
            if self.is_closing() {
                return Some(None);
            }
            self.at_hand(&carrier).map(Some)
        };
        let found = if listening.may_spin() {
            self.shared.spin.look_around(look)
        } else {
            look()
        };
        if let Some(found) = found {
            return found;
        }
        match carrier.server.recv_timeout(LISTEN) {
            Ok(Some(request)) => self.open(request),
            Ok(None) => {}
            Err(error) => self.carrier_failed(&carrier, error),
        }
        self.shared.jobs.next()
    }

    /// The next job that is here already.
    fn at_hand(&self, carrier: &Arc<Carrier>) -> Option<Job> {
        if let Some(job) = self.shared.jobs.next() {
            return Some(job);
        }
        match carrier.server.try_recv() {
            Ok(Some(request)) => self.open(request),
            Ok(None) => {}
            Err(error) => self.carrier_failed(carrier, error),
        }
        self.shared.jobs.next()
    }

    /// Takes what a request that came through announces.
    fn open(&self, request: tiny_http::Request) {
        if let Some(number) = carried_number(request.url()) {
            self.shared.jobs.come_through(number);
        }
        // A request dropped with its writer answers 500 up the stream; without, it is silent.
        drop(request.into_writer());
    }

    /// Notes that tiny_http accepts no more, which it says once.
    fn carrier_failed(&self, carrier: &Arc<Carrier>, error: io::Error) {
        let carrier = carrier.clone();
        let message = Message::CarrierFailed { carrier, error };
        self.shared.event_loop.send(message);
    }

    fn take(&mut self, job: Job) {
        let (exchange, result) = match job {
            Job::Handle {
                exchange,
                request,
                permit,
            } => {
                let result = self.handle(&exchange, request, permit);
                (Some(exchange), result)
            }
            Job::Continue {
                exchange,
                request,
                permit,
                then,
            } => {
                let result = self.go_on(&exchange, *request, permit, then);
                (Some(exchange), result)
            }
            Job::Resume { exchange, stream } => {
                let result = self.resume(stream, &exchange);
                (Some(exchange), result)
            }
            Job::Drop(left) => {
                self.discard(left);
                (None, Ended::Dropped)
            }
        };
        let in_flight = &self.shared.health.gauges.in_flight;
        in_flight.fetch_sub(1, Ordering::Relaxed);
        self.tell(exchange, result, false);
    }

    /// Tells the event loop what became of a job.
    pub(crate) fn tell(&self, exchange: Option<Arc<Exchange>>, result: Ended, aside: bool) {
        if let (Some(exchange), true) = (&exchange, result.is_sent()) {
            exchange.origin.socket.end_record(End::Whole);
        }
        self.shared.event_loop.send_done(Done {
            at: Instant::now(),
            exchange,
            result,
            aside,
        });
    }

    fn handle(&mut self, exchange: &Arc<Exchange>, request: Incoming, permit: Permit) -> Ended {
        let shared = self.shared.clone();
        let health = &shared.health;
        if !exchange.advance(Stage::Waiting, Stage::Running) {
            bump(&health.counts.skipped);
            return Ended::Dropped;
        }
        // It is no part of the service time, and the gate learns nothing by it.
        #[cfg(feature = "redis")]
        if let Some(ended) = self.throttle(exchange, &request.head) {
            return ended;
        }
        let began = Instant::now();
        health.job_begins(self.index, exchange.admitted, began);
        if shared.access_log.is_some() {
            exchange.set_began(began);
        }
        let request = Request::new(request, exchange.clone(), health.clone());
        let handle = |request: &mut Request| shared.handler.handle(request);
        self.run_handler(exchange, request, permit, began, handle)
    }

    /// Goes on with a request that has waited for something else.
    fn go_on(
        &mut self,
        exchange: &Arc<Exchange>,
        request: Request,
        permit: Permit,
        then: Continuation,
    ) -> Ended {
        let health = &self.shared.health;
        if !exchange.advance(Stage::Waiting, Stage::Running) {
            bump(&health.counts.skipped);
            return Ended::Dropped;
        }
        let now = Instant::now();
        health.job_begins(self.index, now, now);
        self.run_handler(exchange, request, permit, now, then)
    }

    /// Runs the handler, or the rest of it, and sends its reply.
    fn run_handler(
        &mut self,
        exchange: &Arc<Exchange>,
        mut request: Request,
        permit: Permit,
        began: Instant,
        handle: impl FnOnce(&mut Request) -> Response,
    ) -> Ended {
        let shared = self.shared.clone();
        let health = &shared.health;
        let response = self.call(handle, &mut request);
        let response = match response.into_later() {
            Ok(later) => return self.put_off(exchange, request, permit, later),
            Err(response) => response,
        };
        let status = response.status();
        let result = self.reply(response, exchange);
        let ended = Instant::now();
        health.job_ends(self.index, permit, began, ended);
        if matches!(result, Ended::Dropped) {
            bump(&health.counts.late);
        } else {
            health.responded(ended.saturating_duration_since(exchange.admitted));
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

    /// Lets a request wait for something else, with no worker. Its deadline and its client's end hold meanwhile.
    fn put_off(
        &mut self,
        exchange: &Arc<Exchange>,
        request: Request,
        permit: Permit,
        later: Later,
    ) -> Ended {
        self.shared.health.worker_rests(self.index);
        if !exchange.advance(Stage::Running, Stage::Waiting) {
            bump(&self.shared.health.counts.late);
            return Ended::Dropped;
        }
        let Later { when_ready, then } = later;
        let job = Job::Continue {
            exchange: exchange.clone(),
            request: Box::new(request),
            permit,
            then,
        };
        let event_loop = self.shared.event_loop.clone();
        when_ready(Box::new(move || {
            event_loop.send(Message::Continue(Box::new(job)));
        }));
        Ended::Dropped
    }

    /// What a handler answers; 500 if it panics.
    pub(crate) fn call(
        &self,
        handle: impl FnOnce(&mut Request) -> Response,
        request: &mut Request,
    ) -> Response {
        catch(|| handle(request)).unwrap_or_else(|what| {
            bump(&self.shared.health.counts.panics);
            log::error!(
                "the handler panicked: {} {}: {what}",
                request.method(),
                request.url()
            );
            Response::text(500, "the handler failed\n")
        })
    }

    /// Refuses a request that replicas have let through too often together.
    #[cfg(feature = "redis")]
    pub(crate) fn throttle(&mut self, exchange: &Exchange, head: &Head) -> Option<Ended> {
        let throttling = self.shared.throttling.clone();
        let checked = throttling.check_shared(head, exchange.origin.client_ip);
        let throttled = checked.err()?;
        let reason = Refusal::Throttled.name();
        exchange.origin.socket.note(|record| record.refused(reason));
        let outcome = Outcome::Throttled(throttled.place);
        Some(self.reply_as(throttled.response(), exchange, outcome))
    }

    /// Sends the reply as far as the socket takes it, and counts it once its end is at hand.
    pub(crate) fn reply(&mut self, response: Response, exchange: &Exchange) -> Ended {
        let outcome = Outcome::of(response.status());
        self.reply_as(response, exchange, outcome)
    }

    fn reply_as(&mut self, response: Response, exchange: &Exchange, outcome: Outcome) -> Ended {
        self.buffer.clear();
        let status = response.status();
        let draining = self.shared.health.gauges.draining.load(Ordering::Relaxed);
        let rules = exchange.origin.rules;
        let (date, buffer) = (&mut self.date, &mut self.buffer);
        // A reply to HEAD drops its reader here, and that is user code too.
        let parts = catch(|| response.into_parts(rules, draining, date, buffer));
        let Ok((close, payload)) = parts else {
            bump(&self.shared.health.counts.panics);
            log::error!("a reply's reader panicked while it was dropped");
            if !claim(exchange, status, true) {
                return Ended::Dropped;
            }
            self.shared.health.ended(Outcome::Failed);
            return Ended::Broken(CloseReason::Cut);
        };
        let payload = match payload {
            Some(Payload::Stream(stream)) => return self.stream(stream, exchange, status),
            Some(Payload::Bytes(bytes)) => bytes,
            None => Cow::default(),
        };
        if !exchange.advance(Stage::Running, Stage::Replying) {
            return Ended::Dropped;
        }
        self.shared.health.ended(outcome);
        self.note_reply(exchange, status, self.buffer.len());
        let then = if close { Then::Close } else { Then::Keep };
        if payload.len() <= COPY_UP_TO {
            self.buffer.extend_from_slice(&payload);
            return match exchange.origin.socket.write_some(&self.buffer) {
                Ok(sent) => Ended::Replied {
                    rest: rest_of(&self.buffer, sent),
                    then,
                },
                Err(error) => broken(&error),
            };
        }
        let head = self.buffer.len();
        match exchange.origin.socket.write_both(&self.buffer, &payload) {
            Ok(sent) => {
                let mut rest = Vec::new();
                if sent < head {
                    rest.push(Piece::new(self.buffer[sent..].to_vec(), 0));
                }
                if sent < head + payload.len() {
                    rest.push(Piece::new(payload, sent.saturating_sub(head)));
                }
                Ended::Replied { rest, then }
            }
            Err(error) => broken(&error),
        }
    }

    /// Tells the access log that a reply begins. Only who has claimed the exchange may.
    fn note_reply(&self, exchange: &Exchange, status: u16, head_length: usize) {
        if self.shared.access_log.is_some() {
            exchange.origin.socket.note(|record| {
                record.replied(status, head_length);
                record.waited(exchange.waited(Instant::now()));
            });
        }
    }

    /// Goes on with a reply whose client has read what came before.
    fn resume(&mut self, stream: Stream, exchange: &Exchange) -> Ended {
        let now = Instant::now();
        self.shared.health.job_begins(self.index, now, now);
        self.buffer.clear();
        let ended = self.stream(stream, exchange, exchange.status());
        self.shared.health.worker_rests(self.index);
        ended
    }

    /// Reads the body and sends it behind what is in the buffer, until its end, until the socket is full, or until
    /// others should have a turn. Until a byte has been sent, somebody else may still answer.
    fn stream(&mut self, mut stream: Stream, exchange: &Exchange, status: u16) -> Ended {
        let began = Instant::now();
        // Empty when the reply goes on.
        let mut head = self.buffer.len();
        loop {
            let start = self.buffer.len();
            // The error may be of a user's type, and so its text and its end a user's code.
            let filled = catch(|| {
                let filled = stream.fill(&mut self.buffer);
                filled.map_err(|error| error.to_string())
            });
            let progress = filled.unwrap_or_else(|what| {
                // The room that was made for the reader's bytes must not pass for them.
                self.buffer.truncate(start);
                bump(&self.shared.health.counts.panics);
                Err(format!("the reader panicked: {what}"))
            });
            let is_last = !matches!(progress, Ok(Progress::More | Progress::Dry));
            if !claim(exchange, status, is_last) {
                self.discard(stream);
                return Ended::Dropped;
            }
            if head > 0 {
                self.note_reply(exchange, status, std::mem::take(&mut head));
            }
            let progress = match progress {
                Ok(progress) => progress,
                Err(error) => {
                    log::warn!(
                        "{}: a reply was cut, its body failed: {error}",
                        exchange.origin.peer
                    );
                    bump(&self.shared.health.counts.cut);
                    self.shared.health.ended(Outcome::Failed);
                    // What came before the fault still goes out; the end that is missing tells the client.
                    drop(exchange.origin.socket.write_some(&self.buffer));
                    self.discard(stream);
                    return Ended::Broken(CloseReason::Cut);
                }
            };
            if progress == Progress::End {
                self.shared.health.ended(Outcome::of(status));
                // Before the client can ask again.
                if let Source::Relay(relay) = &mut stream.source {
                    relay.give_back(None, Instant::now());
                }
            }
            let sent = match exchange.origin.socket.write_some(&self.buffer) {
                Ok(sent) => sent,
                Err(error) => {
                    // Unless the event loop has noticed that before, and has counted it.
                    if progress != Progress::End
                        && exchange.advance(Stage::Streaming, Stage::Abandoned)
                    {
                        self.shared.health.ended(Outcome::of(status));
                    }
                    self.discard(stream);
                    return broken(&error);
                }
            };
            let may_go_on = began.elapsed() < STREAM_TURN;
            if sent == self.buffer.len() && progress == Progress::More && may_go_on {
                self.buffer.clear();
                continue;
            }
            let rest = rest_of(&self.buffer, sent);
            let then = match progress {
                Progress::More | Progress::Dry => Then::More(stream),
                Progress::End => {
                    let close = stream.close;
                    self.discard(stream);
                    if close { Then::Close } else { Then::Keep }
                }
            };
            return Ended::Replied { rest, then };
        }
    }

    /// Drops what may run a user's code when it is dropped, and so may panic.
    fn discard<T>(&self, it: T) {
        if let Err(what) = catch(|| drop(it)) {
            bump(&self.shared.health.counts.panics);
            log::error!("a reply's reader panicked while it was dropped: {what}");
        }
    }
}

/// Claims the right to send the next part of a reply; with `is_last`, all that is left. False when somebody else has
/// answered, or has cut it.
fn claim(exchange: &Exchange, status: u16, is_last: bool) -> bool {
    if is_last {
        exchange.advance(Stage::Running, Stage::Replying)
            || exchange.advance(Stage::Streaming, Stage::Replying)
    } else {
        exchange.begin_stream(status) || exchange.is(Stage::Streaming)
    }
}

fn broken(error: &io::Error) -> Ended {
    log::debug!("a reply could not be written: {error}");
    Ended::Broken(CloseReason::Reset)
}

fn rest_of(buffer: &[u8], sent: usize) -> Vec<Piece> {
    let rest = &buffer[sent..];
    if rest.is_empty() {
        Vec::new()
    } else {
        vec![Piece::new(rest.to_vec(), 0)]
    }
}
