//! The event loop: one thread that holds every client's socket, and the only place that touches readiness.
//!
//! It accepts, reads requests until they are whole, answers the health paths and every refusal itself, and hands the
//! rest to the workers. It never runs user code and never waits for a worker.
//!
//! Readiness is edge-triggered and may be spurious: each client remembers whether its socket may be readable, and
//! every read and write is prepared to be told that it would block.

mod accept;
pub(crate) mod admission;
pub(crate) mod bodies;
mod clients;
pub(crate) mod connection;
mod deadlines;
mod dispatch;
pub(crate) mod dispatcher;
pub(crate) mod doors;
pub(crate) mod drain;
pub(crate) mod intake;
mod listeners;
mod records;
mod relays;
mod reply;
mod shedding;
#[cfg(test)]
mod simulation;
pub(crate) mod wake;

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use socket2::SockRef;

use mio::net::{TcpListener, UnixStream};
use mio::{Events, Interest, Poll, Registry, Token};

use crossbeam_channel::Sender;

use crate::health::Outcome;
use crate::health::bump;
use crate::http::trust::Trust;
use crate::random;
use crate::report::Paths;
use crate::server::aside::Lane;
use crate::server::exchange::Stage;
use crate::server::jobs::Job;
use crate::server::response::DateCache;
use crate::server::stream::Source;
use crate::server::throttling::Throttling;
use crate::server::workers::Shared;
use crate::settings::{Config, Details};
use admission::{Admission, RetryAfter};
use bodies::Bodies;
use clients::{Client, Clients, client_of};
use connection::{CloseReason, Limits};
use deadlines::Deadlines;
use dispatcher::Dispatcher;
use doors::{Door, Doors};
use drain::Drain;
use intake::{Intake, Register};
use shedding::{Refused, Shedding};
use wake::{Inbox, Message};

/// Readiness tokens: clients have their slot's number, the others count down from the top.
pub(crate) const WAKER: Token = Token(usize::MAX);
const STREAM: Token = Token(usize::MAX - 1);
const LISTENER: usize = usize::MAX - 2;

/// The token of a door's listeners: one for them all, since each is asked when any is ready.
fn listener_token(door: Door) -> Token {
    Token(LISTENER - door as usize)
}

/// What is read from a client's socket at once.
const READ_SIZE: usize = 64 * 1024;

/// Connections accepted, and requests of one client served, before the others have their turn.
const TURN: usize = 64;

/// Connections that there is room for from the start, or all if they are fewer.
const ROOM: usize = 64 * 1024;

/// Reads of one client in its turn: a large body is not to keep small requests waiting.
const READS: usize = 4;

/// Events come briskly when a wait for the next was no longer than this.
const BRISK: Duration = Duration::from_micros(100);

/// Registers the intake's stream with the event loop.
struct Registrar<'a>(&'a Registry);

impl Register for Registrar<'_> {
    fn register(&mut self, socket: &mut UnixStream) -> io::Result<()> {
        self.0.register(socket, STREAM, Interest::READABLE)
    }

    fn watch_room(&mut self, socket: &mut UnixStream, on: bool) -> io::Result<()> {
        let room = on.then_some(Interest::WRITABLE);
        let interest = room.map_or(Interest::READABLE, |room| Interest::READABLE | room);
        self.0.reregister(socket, STREAM, interest)
    }
}

/// What a frontend is put together from.
pub(crate) struct Parts {
    pub(crate) poll: Poll,
    pub(crate) inbox: Inbox,
    pub(crate) shared: Arc<Shared>,
    pub(crate) listeners: Vec<(Door, TcpListener)>,
    /// The stream to the workers.
    pub(crate) stream: UnixStream,
    pub(crate) paths: Paths,
    pub(crate) lane: Option<Lane>,
    /// Dropped once a job has gone to a worker and come back: the way is whole then, and every worker free.
    pub(crate) proof: Sender<()>,
}

/// The frontend's state. [`run`](Frontend::run) is the thread.
pub(crate) struct Frontend {
    poll: Poll,
    inbox: Inbox,
    shared: Arc<Shared>,
    doors: Doors,
    intake: Intake,
    clients: Clients,
    max_connections: usize,
    limits: Arc<Limits>,
    deadlines: Deadlines,
    /// The room for request bodies.
    bodies: Arc<Bodies>,
    dispatcher: Dispatcher,
    retry_after: RetryAfter,
    shedding: Shedding,
    /// Dropped once the first job has come back.
    proof: Option<Sender<()>>,
    throttling: Arc<Throttling>,
    paths: Paths,
    /// For what does not wait for the workers.
    lane: Option<Lane>,
    /// Who sees more of the health reports than the status word.
    details: Details,
    /// Names of this host that its own clients may ask for those by.
    details_hosts: Vec<String>,
    /// The proxies whose word is taken for whom they ask.
    trust: Trust,
    workers: usize,
    /// Clients that have more to do than one turn allowed.
    unfinished: Vec<u32>,
    drain: Option<Drain>,
    /// When somebody last asked for the health.
    last_probe: Option<Instant>,
    /// The last wait was short: the next event is expected in a moment.
    brisk: bool,
    /// When the history's next sample is due.
    sample_due: Instant,
    date: DateCache,
    read_buffer: Box<[u8]>,
    /// A step of what is relayed, as it goes to the client.
    relay_buffer: Vec<u8>,
    /// The last answer, with its head.
    scratch: Vec<u8>,
}

impl Frontend {
    /// # Errors
    /// The event queue's refusal of a listener.
    pub(crate) fn new(parts: Parts, config: &Config) -> io::Result<Self> {
        let Parts {
            poll,
            inbox,
            shared,
            mut listeners,
            stream,
            paths,
            lane,
            proof,
        } = parts;
        for (door, socket) in &mut listeners {
            poll.registry()
                .register(socket, listener_token(*door), Interest::READABLE)?;
        }
        let now = Instant::now();
        let capacity = config.max_connections.min(ROOM);
        let intake = Intake::new(stream, &mut Registrar(poll.registry()), now)?;
        let admission = Admission::new(
            config.queue_budget,
            config.queue_max,
            config.workers,
            config.fair,
        );
        let mut dispatcher = Dispatcher::new(admission, config.workers, shared.jobs.clone(), now);
        dispatcher.resume(Job::Drop(Box::new(())));
        Ok(Self {
            poll,
            inbox,
            doors: Doors::new(listeners),
            intake,
            clients: Clients::with_capacity(capacity),
            max_connections: config.max_connections,
            limits: Arc::new(Limits {
                max_head: config.max_head,
                // A larger one would wait for room for ever.
                max_body: config.max_body.min(config.max_bodies),
                head_timeout: config.head_timeout,
                body_timeout: config.body_timeout,
                idle_timeout: config.idle_timeout,
                write_timeout: config.write_timeout,
                request_timeout: config.request_timeout,
            }),
            deadlines: Deadlines::with_capacity(capacity),
            bodies: Bodies::new(config.max_bodies),
            dispatcher,
            retry_after: RetryAfter::new(random::seed(), now),
            shedding: Shedding::default(),
            proof: Some(proof),
            throttling: Arc::new(Throttling::new(&config.throttle)),
            paths,
            lane,
            details: config.details,
            details_hosts: config.details_hosts.clone(),
            trust: Trust::new(config.trust.clone()),
            workers: config.workers,
            unfinished: Vec::new(),
            drain: None,
            last_probe: None,
            brisk: false,
            sample_due: now,
            date: DateCache::default(),
            read_buffer: vec![0; READ_SIZE].into_boxed_slice(),
            relay_buffer: Vec::new(),
            scratch: Vec::new(),
            shared,
        })
    }

    /// Runs until a drain has ended; returns how many requests were cut.
    ///
    /// # Errors
    /// The event queue's: nothing can be served any more.
    pub(crate) fn run(mut self) -> io::Result<usize> {
        let mut events = Events::with_capacity(256);
        let now = Instant::now();
        self.hand_over(now);
        self.announce(now);
        loop {
            let began = Instant::now();
            let polled = self.wait(&mut events, began);
            self.inbox.awake();
            if let Err(error) = polled
                && error.kind() != ErrorKind::Interrupted
            {
                self.stop(Instant::now());
                return Err(error);
            }
            let now = Instant::now();
            self.brisk = now.saturating_duration_since(began) <= BRISK;
            // Ends of exchanges first: the next request of a client is often here already.
            while let Some(message) = self.inbox.next() {
                self.handle_message(message, now);
            }
            // What has waited longest comes before what came just now.
            self.hand_over(now);
            for event in &events {
                self.handle_readiness(event, now);
            }
            // Once each, or a client that never pauses would get one more turn with every event.
            self.unfinished.sort_unstable();
            self.unfinished.dedup();
            for slot in std::mem::take(&mut self.unfinished) {
                self.drive(slot, now);
            }
            self.handle_timeouts(now);
            self.admit_bodies(now);
            self.accept(now);
            self.hand_over(now);
            self.announce(now);
            self.publish(now);
            if self.is_drained(now) {
                return Ok(self.stop(now));
            }
        }
    }

    /// Waits until there is something to do. While events come briskly, it looks around for the next before it blocks.
    fn wait(&mut self, events: &mut Events, now: Instant) -> io::Result<()> {
        if self.brisk && !self.has_more_to_do(now) {
            let look = || match self.poll.poll(events, Some(Duration::ZERO)) {
                Ok(()) if events.is_empty() && self.inbox.is_empty() => None,
                polled => Some(polled),
            };
            if let Some(polled) = self.shared.spin.look_around(look) {
                return polled;
            }
        }
        let timeout = self.timeout();
        self.poll.poll(events, timeout)
    }

    /// Sets the gauges that only the frontend knows.
    fn publish(&self, now: Instant) {
        let health = &self.shared.health;
        let gauges = &health.gauges;
        let connections = self.clients.count(Door::Public);
        gauges.connections.store(connections, Relaxed);
        gauges.queue.store(self.dispatcher.waiting(), Relaxed);
        let bodies = self.bodies.usage();
        gauges.body_bytes.store(bodies.held, Relaxed);
        gauges.bodies_waiting.store(bodies.waiting, Relaxed);
        let crew = health.crew(self.dispatcher.has_idle_worker());
        let wait = self
            .dispatcher
            .predicted_wait(crew, health.predicted(), now);
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        gauges.predicted_wait.store(nanos, Relaxed);
    }

    /// Whether a turn's worth was not all that there is to do.
    fn has_more_to_do(&self, now: Instant) -> bool {
        !self.unfinished.is_empty() || self.doors.is_ready(now) || self.bodies.is_ready()
    }

    /// How long to wait for readiness: until the next deadline of anything.
    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let hungry = self.dispatcher.is_hungry()
            || self.doors.is_full()
            || self.bodies.usage().waiting > 0
            || self.drain.is_some();
        if !self.inbox.may_sleep(hungry) || self.has_more_to_do(now) {
            return Some(Duration::ZERO);
        }
        let roster = &self.shared.roster;
        // A worker may begin to wait just after this look, so it has to be repeated all the same.
        let all_work = roster.awake() == self.workers && !roster.is_listening();
        let due = [
            self.deadlines.next(),
            self.dispatcher.next_timeout(all_work),
            self.intake.next_timeout(),
            self.doors.next_timeout(),
            self.drain.as_ref().map(Drain::next_timeout),
            Some(self.sample_due),
        ];
        let due = due.into_iter().flatten().min()?;
        // The system counts whole milliseconds; less than one would be none, and a busy loop.
        let wait = due.saturating_duration_since(now);
        Some(if wait.is_zero() {
            wait
        } else {
            wait.max(Duration::from_millis(1))
        })
    }

    fn handle_readiness(&mut self, event: &mio::event::Event, now: Instant) {
        match event.token() {
            WAKER => {}
            STREAM => {
                if event.is_readable()
                    && let Err(error) = self.intake.handle_readable()
                {
                    self.lose_stream(&error, now);
                }
            }
            Token(number) if number > LISTENER - Door::ALL.len() => {
                self.doors.of(Door::ALL[LISTENER - number]).set_ready();
            }
            token => {
                if let Some(client) = client_of(token) {
                    if let Some(slot) = self.clients.slot_of(client) {
                        self.handle_upstream(slot, event, now);
                    }
                    return;
                }
                let Some(slot) = self.clients.slot_of(token) else {
                    return;
                };
                let Some(client) = self.clients.get_mut(slot) else {
                    return;
                };
                client.readable |= event.is_readable() || event.is_read_closed();
                client.ending |= event.is_read_closed();
                if client.ending && client.has_left(now) {
                    client.connection.close(CloseReason::Client);
                }
                // Readiness may be spurious: the socket itself knows.
                let suspect = event.is_error() || event.is_write_closed();
                if suspect && !matches!(client.socket.take_error(), Ok(None)) {
                    client.connection.close(CloseReason::Reset);
                }
                self.drive(slot, now);
            }
        }
    }

    fn handle_message(&mut self, message: Message, now: Instant) {
        match message {
            Message::Done(done) => self.handle_done(done, now),
            Message::Continue(job) => self.dispatcher.resume(*job),
            Message::CarrierFailed { carrier, error } => {
                if self.shared.is_current(&carrier) && self.intake.is_open() {
                    self.lose_stream(&error, now);
                }
            }
            // Its channel has room for the one answer; nobody waits for it any more once it has none.
            Message::Ping(answer) => drop(answer.try_send(())),
            Message::Drain { until, serves } => self.begin_drain(until, serves, now),
            #[cfg(test)]
            Message::BreakStream => self.intake.sabotage(),
            #[cfg(test)]
            Message::Panic => panic!("as the test asked"),
        }
    }

    fn handle_timeouts(&mut self, now: Instant) {
        while let Some(slot) = self.deadlines.pop(now) {
            if let Some(client) = self.clients.get_mut(slot) {
                // The system reports a socket as writable only when a third of its buffer is free: a slow client's
                // progress may not have shown yet.
                flush(client, now);
                client.connection.handle_timeout(now);
                self.drive(slot, now);
            }
        }
        while let Some(job) = self.dispatcher.expire(now) {
            self.expire(job, now);
        }
        for job in self.dispatcher.overdue(now) {
            self.shared.health.gauges.in_flight.fetch_sub(1, Relaxed);
            self.expire(job, now);
        }
        self.reopen_stream(now);
        self.drain_step(now);
        if now >= self.sample_due {
            let idle = self.dispatcher.has_idle_worker();
            self.shared.health.observe(idle, now);
            self.publish(now);
            self.sample_due = self.shared.health.sample(now);
            self.bodies.trim();
            let refused = Refused::of(&self.shared.health.counts.read());
            if let Some(news) = self.shedding.observe(refused, now) {
                news.log();
            }
        }
    }

    /// Does for a client what can be done now, up to a turn's worth.
    fn drive(&mut self, slot: u32, now: Instant) {
        let mut reads = 0;
        for _ in 0..TURN {
            let Some(client) = self.clients.get_mut(slot) else {
                return;
            };
            flush(client, now);
            if let Some(event) = client.connection.poll_event() {
                // Also when the answer follows at once, it is the latest to be idle then.
                self.clients.set_idle(slot, false);
                self.handle_event(slot, event, now);
                continue;
            }
            if client.connection.wants_room().is_some() {
                self.ask_for_room(slot, now);
                continue;
            }
            if reads == READS {
                break;
            }
            let parked = client.parked.is_some();
            if client.readable && client.connection.wants_input() {
                reads += 1;
                read(client, &mut self.read_buffer, now);
            } else if parked && self.go_on(slot, now) {
                reads += 1;
            } else {
                self.settle(slot, now);
                return;
            }
        }
        // It is busy, so it must not make room for others.
        self.clients.set_idle(slot, false);
        self.unfinished.push(slot);
    }

    /// Puts a client that can do nothing now where it waits: on the list of the idle, before its deadline; or out.
    fn settle(&mut self, slot: u32, now: Instant) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        if let Some(reason) = client.connection.close_reason() {
            self.part(slot, reason, now);
            return;
        }
        if client.connection.is_lingering() && !client.finished {
            client.finished = true;
            if client.socket.shutdown(Shutdown::Write).is_err() {
                client.connection.close(CloseReason::Reset);
                self.part(slot, CloseReason::Reset, now);
                return;
            }
        }
        if let Some(exchange) = &client.exchange
            && (client.readable || client.connection.has_input())
        {
            exchange.set_awaited();
        }
        if let Some(deadline) = client.connection.next_timeout() {
            // The end of an exchange need not wake this thread, so the idle timeout behind it has to be looked for.
            let idle_timeout = now + self.limits.idle_timeout;
            self.deadlines.arm(slot, deadline.min(idle_timeout));
        }
        let door = client.door;
        let idle = client.is_dispensable();
        self.clients.set_idle(slot, idle);
        if idle {
            self.doors.of(door).make_room();
        }
    }

    /// Takes leave of a client.
    fn part(&mut self, slot: u32, reason: CloseReason, now: Instant) {
        let Some(client) = self.clients.remove(slot) else {
            return;
        };
        let counts = &self.shared.health.counts;
        match reason {
            CloseReason::IdleTimeout => bump(&counts.idle_closed),
            CloseReason::WriteTimeout => bump(&counts.write_timeouts),
            CloseReason::Evicted => bump(&counts.evicted),
            _ => {}
        }
        log::trace!("{}: closed: {reason:?}", client.peer);
        // To an HTTP/1.0 client an orderly end may be that of a whole reply (RFC 9112 section 8).
        let is_cut = matches!(reason, CloseReason::Cut | CloseReason::WriteTimeout);
        let must_reset = is_cut && !client.rules.http11;
        if must_reset
            && let Err(error) = SockRef::from(&**client.socket).set_linger(Some(Duration::ZERO))
        {
            log::debug!("{}: closed without a reset: {error}", client.peer);
        }
        if let Some(ticket) = client.ticket {
            self.dispatcher.remove(ticket);
            bump(&self.shared.health.counts.skipped);
        }
        if let Some(exchange) = &client.exchange
            && !Self::abandon(exchange)
            && exchange.advance(Stage::Streaming, Stage::Abandoned)
        {
            let outcome = if reason.is_the_clients() {
                Outcome::of(exchange.status())
            } else {
                Outcome::Failed
            };
            self.shared.health.ended(outcome);
        }
        client.end_record(reason, now);
        if let Some(stream) = client.parked
            && let Source::Reader(_) = stream.source
        {
            self.dispatcher.resume(Job::Drop(Box::new(stream)));
        }
        if Arc::strong_count(&client.socket) > 1 && !must_reset {
            // An exchange holds the socket still; its client need not wait for that. A reset goes out when the last
            // holder lets go, and an orderly end must not come first.
            drop(client.socket.shutdown(Shutdown::Both));
        }
        self.doors.of(client.door).resume();
    }
}

/// Sends what the conversation has to send, as far as the socket takes it.
fn flush(client: &mut Client, now: Instant) {
    loop {
        let output = client.connection.output();
        if output.is_empty() {
            return;
        }
        let whole = output.len();
        match client.socket.write_some(output) {
            Ok(0) => return,
            Ok(sent) => {
                client.connection.handle_sent(sent, now);
                client.end_record_if_sent();
                if sent < whole {
                    return;
                }
            }
            Err(_) => return client.connection.close(CloseReason::Reset),
        }
    }
}

/// Reads once from a client's socket.
fn read(client: &mut Client, buffer: &mut [u8], now: Instant) {
    let limit = client.connection.read_limit().min(buffer.len());
    let buffer = &mut buffer[..limit];
    match (&**client.socket).read(buffer) {
        Ok(0) => {
            client.readable = false;
            client.connection.handle_eof(now);
        }
        Ok(count) => {
            // A short read has emptied the socket: what comes later, comes with an event. Not so an end that came
            // together with the bytes.
            client.readable = count == buffer.len() || client.ending;
            client.connection.handle_input(&buffer[..count], now);
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => client.readable = false,
        Err(error) if error.kind() == ErrorKind::Interrupted => {}
        Err(_) => client.connection.close(CloseReason::Reset),
    }
}
