//! The event loop: one thread that holds every client's socket, and the only place that touches readiness.
//!
//! It accepts, reads requests until they are whole, answers the health paths and every refusal itself, and hands the
//! rest to the workers. It never runs user code and never waits for a worker.
//!
//! Readiness is edge-triggered and may be spurious: each client remembers whether its socket may be readable, and
//! every read and write is prepared to be told that it would block.

mod accept;
mod acceptor;
pub(crate) mod admission;
pub(crate) mod bodies;
mod client;
pub(crate) mod clients;
pub(crate) mod connection;
mod deadlines;
pub(crate) mod dispatcher;
pub(crate) mod drain;
mod episodes;
pub(crate) mod intake;
pub(crate) mod listeners;
mod poller;
mod records;
mod relays;
mod reply;
mod reports;
mod requests;
mod sampler;
#[cfg(test)]
mod simulation;
mod surplus;
mod turn;
mod waits;
pub(crate) mod wake;
mod worker_pool;

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mio::net::{TcpListener, UnixStream};
use mio::{Events, Interest, Poll};

use crate::health::{ReplyOutcome, bump};
use crate::http::trust::Trust;
use crate::random;
use crate::server::aside::Lane;
use crate::server::exchange::Stage;
use crate::server::jobs::Job;
use crate::server::replier::Replier;
use crate::server::shared::Shared;
use crate::server::stream::Source;
use crate::settings::Config;
use admission::RetryAfter;
use bodies::Bodies;
use clients::{Clients, client_of};
use connection::{CloseReason, Limits};
use drain::Draining;
use listeners::{Listener, Listeners};
use poller::{Poller, STREAM, listener_of, listener_token};
use relays::Buffers;
use reply::Replies;
use reports::Reports;
use sampler::Sampler;
use turn::Turn;
use wake::{Inbox, Message};
use worker_pool::WorkerPool;

pub(crate) use poller::WAKER;

/// What is read from a client's socket at once.
const READ_SIZE: usize = 64 * 1024;

/// Connections accepted, and requests of one client served, before the others have their turn.
const TURN: usize = 64;

/// Connections that there is room for from the start, or all if they are fewer.
const ROOM: usize = 64 * 1024;

/// What an event loop is put together from.
pub(crate) struct Parts {
    pub(crate) poll: Poll,
    pub(crate) inbox: Inbox,
    pub(crate) shared: Arc<Shared>,
    pub(crate) listeners: Vec<(Listener, TcpListener)>,
    /// The stream to the workers.
    pub(crate) stream: UnixStream,
    pub(crate) lane: Option<Lane>,
    /// Dropped once a job has gone to a worker and come back: the way is whole then, and every worker free.
    pub(crate) proof: Sender<()>,
}

/// The event loop: the state of each concern, and what happens between them. [`run`](EventLoop::run) is the thread.
pub(crate) struct EventLoop {
    shared: Arc<Shared>,
    poller: Poller,
    listeners: Listeners,
    clients: Clients,
    limits: Arc<Limits>,
    /// The proxies whose word is taken for whom they ask.
    trust: Trust,
    /// The room for request bodies.
    bodies: Arc<Bodies>,
    workers: WorkerPool,
    retry_after: RetryAfter,
    reports: Reports,
    replies: Replies,
    /// For replies to requests that have waited.
    replier: Replier,
    draining: Draining,
    sampler: Sampler,
    buffers: Buffers,
}

impl EventLoop {
    /// # Errors
    /// The event queue's refusal of a listener.
    pub(crate) fn new(parts: Parts, config: &Config) -> io::Result<Self> {
        let Parts {
            poll,
            inbox,
            shared,
            mut listeners,
            stream,
            lane,
            proof,
        } = parts;
        let registry = poll.registry();
        for (listener, socket) in &mut listeners {
            registry.register(socket, listener_token(*listener), Interest::READABLE)?;
        }
        let now = Instant::now();
        let workers = WorkerPool::new(config, shared.clone(), stream, lane, proof, registry, now)?;
        // Without a turn of its own: what comes after the first part of a reply is driven as any other.
        let replier = Replier::new(shared.clone(), Duration::ZERO);
        Ok(Self {
            shared,
            poller: Poller::new(poll, inbox),
            listeners: Listeners::new(listeners, config.max_connections),
            clients: Clients::with_capacity(config.max_connections.min(ROOM)),
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
            trust: Trust::new(config.trust.clone()),
            bodies: Bodies::new(config.max_bodies),
            workers,
            retry_after: RetryAfter::new(random::seed(), now),
            reports: Reports::new(config),
            replies: Replies::default(),
            replier,
            draining: Draining::default(),
            sampler: Sampler::new(now),
            buffers: Buffers::new(READ_SIZE),
        })
    }

    /// Runs until a drain has ended; returns how many requests were cut.
    ///
    /// # Errors
    /// The event queue's: nothing can be served any more.
    pub(crate) fn run(mut self) -> io::Result<usize> {
        let mut events = Events::with_capacity(256);
        let now = Instant::now();
        self.dispatch(now);
        self.announce(now);
        loop {
            let began = Instant::now();
            let polled = self.wait(&mut events, began);
            self.poller.awake();
            if let Err(error) = polled
                && error.kind() != ErrorKind::Interrupted
            {
                self.stop(Instant::now());
                return Err(error);
            }
            let now = Instant::now();
            self.poller.waited(began, now);
            // Ends of exchanges first: the next request of a client is often here already.
            while let Some(message) = self.poller.message() {
                self.handle_message(message, now);
            }
            // What has waited longest comes before what came just now.
            self.dispatch(now);
            for event in &events {
                self.handle_readiness(event, now);
            }
            self.serve_unfinished(now);
            self.handle_timeouts(now);
            self.admit_bodies(now);
            self.accept(now);
            self.dispatch(now);
            self.announce(now);
            self.publish(now);
            self.replier.trim();
            if self.is_drained(now) {
                return Ok(self.stop(now));
            }
        }
    }

    /// Waits until there is something to do.
    fn wait(&mut self, events: &mut Events, now: Instant) -> io::Result<()> {
        if !self.has_more_to_do(now)
            && let Some(polled) = self.poller.busy_poll(events, &self.shared.busy_poll)
        {
            return polled;
        }
        let due = self.next_timeout();
        let may_block = self.poller.may_block(self.has_backlog(), due);
        if !may_block || self.has_more_to_do(Instant::now()) {
            return self.poller.poll_once(events);
        }
        self.poller.block(events, due)
    }

    /// Whether a turn's worth was not all that there is to do.
    fn has_more_to_do(&self, now: Instant) -> bool {
        self.clients.unfinished() > 0 || self.listeners.is_ready(now) || self.bodies.is_ready()
    }

    /// Whether the end of any exchange sets something going.
    fn has_backlog(&self) -> bool {
        self.workers.dispatcher.has_backlog()
            || self.listeners.is_full()
            || self.bodies.usage().waiting > 0
            || self.draining.is_under_way()
    }

    /// The next deadline of anything.
    fn next_timeout(&self) -> Option<Instant> {
        let due = [
            self.clients.next_timeout(),
            self.workers.next_timeout(),
            self.listeners.next_timeout(),
            self.draining.next_timeout(),
            Some(self.sampler.next_timeout()),
        ];
        due.into_iter().flatten().min()
    }

    /// Sets the gauges that only the event loop knows.
    fn publish(&self, now: Instant) {
        let gauges = &self.shared.health.gauges;
        let connections = self.clients.count(Listener::Public);
        gauges.connections.store(connections, Relaxed);
        gauges
            .queue
            .store(self.workers.dispatcher.waiting(), Relaxed);
        gauges
            .places
            .store(self.workers.dispatcher.places(), Relaxed);
        let bodies = self.bodies.usage();
        gauges.body_bytes.store(bodies.held, Relaxed);
        gauges.bodies_waiting.store(bodies.waiting, Relaxed);
        let wait = self.workers.predicted_wait(now);
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        gauges.predicted_wait.store(nanos, Relaxed);
    }

    /// Brings up to date what a report tells.
    fn observe(&mut self, now: Instant) {
        let idle = self.workers.dispatcher.has_idle_worker();
        self.shared.health.observe(idle, now);
        self.publish(now);
    }

    fn handle_readiness(&mut self, event: &mio::event::Event, now: Instant) {
        let token = event.token();
        if token == WAKER {
        } else if token == STREAM {
            if event.is_readable() {
                self.workers.handle_readable(now);
            }
        } else if let Some(listener) = listener_of(token) {
            self.listeners.of(listener).set_ready();
        } else if let Some(client) = client_of(token) {
            if let Some(slot) = self.clients.slot_of(client) {
                self.handle_upstream(slot, event, now);
            }
        } else if let Some(slot) = self.clients.slot_of(token)
            && let Some(client) = self.clients.get_mut(slot)
        {
            client.handle_readiness(event, now);
            self.advance(slot, now);
        }
    }

    fn handle_message(&mut self, message: Message, now: Instant) {
        match message {
            Message::Done(done) => self.handle_done(done, now),
            Message::Wake(client) => self.handle_wake(client),
            Message::CarrierFailed { carrier, error } => {
                if self.shared.is_current(&carrier) {
                    self.workers.stream_failed(&error, now);
                }
            }
            // Its channel has room for the one answer; nobody waits for it any more once it has none.
            Message::Ping(answer) => drop(answer.try_send(())),
            Message::Drain { until, serves } => self.begin_drain(until, serves, now),
            #[cfg(test)]
            Message::BreakStream => self.workers.sabotage(),
            #[cfg(test)]
            Message::Panic => panic!("as the test asked"),
        }
    }

    fn handle_timeouts(&mut self, now: Instant) {
        for slot in self.clients.take_due(now) {
            if let Some(client) = self.clients.get_mut(slot) {
                // The system reports a socket as writable only when a third of its buffer is free: a slow client's
                // progress may not have shown yet.
                client.flush(now);
                client.read_if_due(&mut self.buffers.read, now);
                client.connection.handle_timeout(now);
                self.handle_wait_timeout(slot, now);
                self.advance(slot, now);
            }
        }
        while let Some(job) = self.workers.dispatcher.expire(now) {
            self.expire(job, now);
        }
        for job in self.workers.take_overdue(now) {
            self.expire(job, now);
        }
        if self.workers.reopen_stream(self.poller.registry(), now) {
            self.dispatch(now);
        }
        self.drain_step(now);
        if self.sampler.is_due(now) {
            self.observe(now);
            self.sampler.sample(&self.shared.health, &self.bodies, now);
        }
    }

    /// Does for a client what can be done now, with one step of a body at most. One that has more to do already has its
    /// turn anyway.
    fn advance(&mut self, slot: u32, now: Instant) {
        if !self.clients.is_unfinished(slot) {
            self.serve(slot, now, now);
        }
    }

    /// Goes on with the clients that have more to do, as far as the turn has time for them.
    fn serve_unfinished(&mut self, now: Instant) {
        let unfinished = self.clients.unfinished();
        if unfinished == 0 {
            return;
        }
        let mut at = Instant::now();
        let mut turn = Turn::new(unfinished, at);
        while let Some(until) = turn.next(at)
            && let Some(slot) = self.clients.next_unfinished()
        {
            self.serve(slot, now, until);
            at = Instant::now();
        }
    }

    /// Does for a client what can be done now, up to a turn's worth. The first step of a body is taken in any case,
    /// others only until that time.
    fn serve(&mut self, slot: u32, now: Instant, until: Instant) {
        let mut has_moved = false;
        for _ in 0..TURN {
            let Some(client) = self.clients.get_mut(slot) else {
                return;
            };
            client.flush(now);
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
            let reads = client.readable && client.connection.wants_input();
            let parked = client.parked.is_some();
            if (reads || parked) && has_moved && Instant::now() >= until {
                break;
            }
            if reads {
                client.read(&mut self.buffers.read, now);
            } else if !parked || !self.go_on(slot, now) {
                self.wait_for_client(slot, now);
                return;
            }
            has_moved = true;
        }
        self.clients.set_unfinished(slot);
    }

    /// Puts a client that can do nothing now where it waits: on the list of the idle, before its deadline; or out.
    fn wait_for_client(&mut self, slot: u32, now: Instant) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        client.finish_lingering();
        if let Some(reason) = client.connection.close_reason() {
            self.disconnect(slot, reason, now);
            return;
        }
        client.await_end();
        let (listener, idle) = (client.listener, client.is_evictable());
        if let Some(deadline) = client.next_timeout() {
            // The end of an exchange need not wake this thread, so the idle timeout behind it has to be looked for.
            let idle_timeout = now + self.limits.idle_timeout;
            self.clients.arm(slot, deadline.min(idle_timeout));
        }
        self.clients.set_idle(slot, idle);
        if idle {
            self.listeners.of(listener).make_room();
        }
    }

    /// Lets go of a client, whose connection is over.
    fn disconnect(&mut self, slot: u32, reason: CloseReason, now: Instant) {
        let Some(mut client) = self.clients.remove(slot) else {
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
        if let Some(ticket) = client.ticket {
            self.workers.dispatcher.remove(ticket);
            bump(&counts.skipped);
        }
        client.end_wait(&self.shared.health);
        if let Some(exchange) = &client.exchange
            && !exchange.abandon()
            && exchange.advance(Stage::Streaming, Stage::Abandoned)
        {
            let outcome = if reason.is_the_clients() {
                ReplyOutcome::of(exchange.status())
            } else {
                ReplyOutcome::Failed
            };
            self.shared.health.ended(outcome);
        }
        client.end_record(reason, now);
        if let Some(stream) = client.parked.take()
            && let Source::Reader(_) = stream.source
        {
            self.workers
                .dispatcher
                .submit_exempt(Job::Drop(Box::new(stream)));
        }
        client.hang_up(reason);
        self.listeners.of(client.listener).resume();
    }
}
