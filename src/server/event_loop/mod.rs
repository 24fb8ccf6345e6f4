//! The event loop: one thread that holds every client's socket, and the only place that touches readiness.
//!
//! It accepts, reads requests until they are whole, answers the health paths and every refusal itself, and hands the
//! rest to the workers. It never runs user code and never waits for a worker.
//!
//! Readiness is edge-triggered and may be spurious: each client remembers whether its socket may be readable, and
//! every read and write is prepared to be told that it would block.

mod accept;
pub(crate) mod admission;
mod clients;
pub(crate) mod connection;
mod deadlines;
mod dispatch;
pub(crate) mod doors;
pub(crate) mod drain;
pub(crate) mod intake;
mod listeners;
mod reply;
#[cfg(test)]
mod simulation;
pub(crate) mod wake;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, UnixStream};
use mio::{Events, Interest, Poll, Registry, Token};

use crossbeam_channel::Sender;

use self::reply::Form;
use crate::health::bump;
use crate::random;
use crate::report::recent::Recent;
use crate::report::{Answer, Paths};
use crate::server::exchange::{Exchange, Stage};
use crate::server::response::DateCache;
use crate::server::workers::{Shared, write_some};
use crate::settings::{Config, Details};
use admission::{Admission, RetryAfter};
use clients::{Client, Clients};
use connection::{CloseReason, Limits};
use deadlines::Deadlines;
use doors::{Door, Doors};
use drain::Drain;
use intake::{Intake, Register};
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

/// Requests handed over beyond one for each worker are at most so many ...
const MOST_AHEAD: usize = 64;

/// ... and no more than the workers finish in this time: enough to hide the hand-over, too little to matter to a
/// queue budget. With handlers of some microseconds it is worth 1.24 times the rate at 16 connections and 1.29 times at
/// 64; with a handler of a millisecond a worker has one job ahead, with one of 20 ms none.
const AHEAD: Duration = Duration::from_millis(1);

/// While no more requests than these are with the workers, the one that listens may look around for the next before it
/// blocks: with more, one of the others is about to be ready for it.
const FEW: usize = 8;

/// Events come briskly when a wait for the next was no longer than this.
const BRISK: Duration = Duration::from_micros(100);

/// When no request has been taken for this time though some are handed over, the workers that are awake are busy for
/// longer than was predicted: another one is called, and one that waits for requests is nudged.
const STANDSTILL: Duration = Duration::from_millis(1);

/// The same while there seems to be nobody to call or to nudge.
const FULL_STANDSTILL: Duration = Duration::from_millis(20);

/// The size of the hand-over table: every exchange that can be handed over at once.
pub(crate) fn places(workers: usize) -> usize {
    workers + MOST_AHEAD
}

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
    pub(crate) intake: Intake,
    pub(crate) paths: Paths,
    /// Told once, when the stream to the workers is open.
    pub(crate) ready: Sender<()>,
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
    admission: Admission<Arc<Exchange>>,
    retry_after: RetryAfter,
    paths: Paths,
    recent: Recent,
    /// Who sees more of the health reports than the status word.
    details: Details,
    workers: usize,
    /// Free places in the hand-over table.
    free_places: Vec<usize>,
    /// The ids of exchanges on their way through tiny_http, or with a worker, by place.
    handed: Vec<Option<u64>>,
    /// How many were handed over since the start.
    handed_count: u64,
    /// How many of them the workers had taken when that last changed, and when that was.
    taken: (u64, Instant),
    /// Exchanges handed over that no worker was seen to have: their queue budget still runs.
    ahead: VecDeque<(Instant, Arc<Exchange>)>,
    /// Replies to go on with, and replies without a client whose readers are to be dropped: by a worker.
    resuming: VecDeque<Arc<Exchange>>,
    /// The last exchange from a queue was one of those.
    resumed: bool,
    /// Clients that have more to do than one turn allowed.
    unfinished: Vec<u32>,
    drain: Option<Drain>,
    /// The last wait was short: the next event is expected in a moment.
    brisk: bool,
    /// When the history's next sample is due.
    sample_due: Instant,
    /// Told once, when the stream to the workers is open.
    ready: Option<Sender<()>>,
    date: DateCache,
    read_buffer: Box<[u8]>,
    /// The last answer, with its head.
    scratch: Vec<u8>,
    /// Which one that is, if it may be given again.
    written: Option<(Arc<Answer>, Form)>,
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
            intake,
            paths,
            ready,
        } = parts;
        for (door, socket) in &mut listeners {
            poll.registry()
                .register(socket, listener_token(*door), Interest::READABLE)?;
        }
        let now = Instant::now();
        let places = places(config.workers);
        let capacity = config.max_connections.min(ROOM);
        let budget = config.queue_budget;
        Ok(Self {
            poll,
            inbox,
            doors: Doors::new(listeners),
            intake,
            clients: Clients::with_capacity(capacity),
            max_connections: config.max_connections,
            limits: Arc::new(Limits {
                max_head: config.max_head,
                max_body: config.max_body,
                head_timeout: config.head_timeout,
                body_timeout: config.body_timeout,
                idle_timeout: config.idle_timeout,
                write_timeout: config.write_timeout,
                request_timeout: config.request_timeout,
            }),
            deadlines: Deadlines::with_capacity(capacity),
            admission: Admission::new(budget, config.queue_max, config.workers, config.fair),
            retry_after: RetryAfter::new(random::seed(), now),
            paths,
            recent: Recent::default(),
            details: config.details,
            workers: config.workers,
            free_places: (0..places).rev().collect(),
            handed: (0..places).map(|_| None).collect(),
            handed_count: 0,
            taken: (0, now),
            ahead: VecDeque::new(),
            resuming: VecDeque::new(),
            resumed: false,
            unfinished: Vec::new(),
            drain: None,
            brisk: false,
            sample_due: now,
            ready: Some(ready),
            date: DateCache::default(),
            read_buffer: vec![0; READ_SIZE].into_boxed_slice(),
            scratch: Vec::new(),
            written: None,
            shared,
        })
    }

    /// Runs until a drain has ended; returns how many requests were cut.
    pub(crate) fn run(mut self) -> usize {
        let mut events = Events::with_capacity(256);
        loop {
            let began = Instant::now();
            let polled = self.wait(&mut events, began);
            self.inbox.awake();
            if let Err(error) = polled
                && error.kind() != ErrorKind::Interrupted
            {
                log::error!("the event queue failed: {error}");
                return self.stop(Instant::now());
            }
            let now = Instant::now();
            self.brisk = now.saturating_duration_since(began) <= BRISK;
            // Ends of exchanges first: the next request of a client is often here already.
            while let Some(message) = self.inbox.next() {
                self.handle_message(message, now);
            }
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
            self.accept(now);
            self.hand_over(now);
            let stands_still = self.stands_still(now);
            if self.send_handed(stands_still, now) {
                self.fail_stream(now);
            }
            self.call_workers(stands_still);
            if self.intake.is_open()
                && let Some(ready) = self.ready.take()
            {
                // Whoever waited for this has given up, and will say so.
                let _ = ready.try_send(());
            }
            self.publish(now);
            if self.is_drained(now) {
                return self.stop(now);
            }
        }
    }

    /// Waits until there is something to do. While events come briskly, it looks around for the next before it blocks.
    fn wait(&mut self, events: &mut Events, now: Instant) -> io::Result<()> {
        if self.brisk && self.unfinished.is_empty() && !self.doors.is_ready(now) {
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
        gauges.queue.store(self.admission.len(), Relaxed);
        let busy = self.busy();
        let ahead = busy.saturating_sub(self.workers);
        let crew = health.crew(busy < self.workers);
        let wait = self
            .admission
            .predicted_wait(ahead, crew, health.predicted(), now);
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        gauges.predicted_wait.store(nanos, Relaxed);
    }

    /// How long to wait for readiness: until the next deadline of anything.
    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let hungry = self.admission.len() > 0
            || !self.resuming.is_empty()
            || self.doors.is_full()
            || self.drain.is_some();
        if !self.unfinished.is_empty() || self.doors.is_ready(now) || !self.inbox.may_sleep(hungry)
        {
            return Some(Duration::ZERO);
        }
        let due = [
            self.deadlines.next(),
            self.admission.next_timeout(),
            self.ahead.front().map(|(due, _)| *due),
            self.intake.next_timeout(),
            self.doors.next_timeout(),
            self.drain.as_ref().map(Drain::next_timeout),
            Some(self.sample_due),
            self.stands_still_at(),
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
                if event.is_readable() && self.intake.handle_readable(now) {
                    self.fail_stream(now);
                }
            }
            Token(number) if number > LISTENER - Door::ALL.len() => {
                self.doors.of(Door::ALL[LISTENER - number]).set_ready();
            }
            Token(slot) => {
                let Ok(slot) = u32::try_from(slot) else {
                    return;
                };
                let Some(client) = self.clients.get_mut(slot) else {
                    return;
                };
                client.readable |= event.is_readable() || event.is_read_closed();
                client.ending |= event.is_read_closed();
                // An event may be of the slot's last client: the socket itself knows.
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
            Message::Greeting { attempt } => self.intake.handle_greeting(attempt),
            // Its channel has room for the one answer; nobody waits for it any more once it has none.
            Message::Ping(answer) => drop(answer.try_send(())),
            Message::Drain { until } => self.begin_drain(until, now),
            #[cfg(test)]
            Message::Sabotage => self.intake.sabotage(),
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
        while let Some(exchange) = self.admission.expire(now) {
            self.expire(&exchange, now);
        }
        while let Some((due, exchange)) = self.ahead.pop_front() {
            if !exchange.is(Stage::Waiting) {
                continue;
            }
            if due > now {
                self.ahead.push_front((due, exchange));
                break;
            }
            if self.busy() > self.workers {
                self.expire(&exchange, now);
            } else {
                // A worker is idle: it only has to be scheduled.
                let due = now + self.admission.budget();
                self.ahead.push_back((due, exchange));
            }
        }
        self.intake
            .handle_timeout(&mut Registrar(self.poll.registry()), now);
        self.drain_step(now);
        if now >= self.sample_due {
            self.publish(now);
            self.sample_due = self.shared.health.sample(now);
        }
    }

    fn queue_deadline(&self, exchange: &Exchange) -> Instant {
        exchange.admitted.at + self.admission.budget()
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
            } else if client.connection.wants_more() {
                client.connection.await_more(now);
                self.resume(slot);
            } else if client.readable && client.connection.wants_input() {
                if reads == READS {
                    break;
                }
                reads += 1;
                read(client, &mut self.read_buffer, now);
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
            self.part(slot, reason);
            return;
        }
        if client.connection.is_lingering() && !client.finished {
            client.finished = true;
            if client.socket.shutdown(Shutdown::Write).is_err() {
                client.connection.close(CloseReason::Reset);
                self.part(slot, CloseReason::Reset);
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
    fn part(&mut self, slot: u32, reason: CloseReason) {
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
        if let Some(exchange) = client.exchange {
            if let Some(ticket) = client.ticket {
                self.admission.remove(ticket);
                bump(&self.shared.health.counts.skipped);
            }
            if !self.abandon(&exchange)
                && !exchange.advance(Stage::Resuming, Stage::Abandoned)
                && client.parked
                && exchange.advance(Stage::Replying, Stage::Abandoned)
            {
                self.resuming.push_back(exchange);
            }
        }
        if Arc::strong_count(&client.socket) > 1 {
            // An exchange holds the socket still; its client need not wait for that.
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
        match write_some(&client.socket, output) {
            Ok(0) => return,
            Ok(sent) => {
                client.connection.handle_sent(sent, now);
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
    match (&*client.socket).read(buffer) {
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
