//! From a whole request to a worker, and back.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use super::admission::Shed;
use super::client::Wait;
use super::connection::{After, CloseReason, ConnectionEvent, Incoming};
use super::listeners::Listener;
use super::reports::{self, Asks};
use super::{EventLoop, TURN, reply};
use crate::health::{ReplyOutcome, bump};
use crate::http::head::{Method, Version};
use crate::http::refusal::Refusal;
use crate::net::peer::Peer;
use crate::report::Answer;
use crate::server::aside::Lane;
use crate::server::done::{Done, Ended, Then};
use crate::server::exchange::{Exchange, Origin, ReplyRules, Stage};
use crate::server::jobs::Job;
use crate::server::response::Trigger;
use crate::server::stream::Source;

impl EventLoop {
    pub(super) fn handle_event(&mut self, slot: u32, event: ConnectionEvent, now: Instant) {
        match event {
            ConnectionEvent::Request(incoming) => self.handle_request(slot, incoming, now),
            ConnectionEvent::Refused(refusal, head) => {
                let fields = head.iter().flat_map(|head| head.fields());
                if let Some(client) = self.clients.get_mut(slot) {
                    // Of its head nothing can be relied on.
                    client.rules = ReplyRules::UNKNOWN;
                    let client_ip = self.trust.client(client.peer.ip(), fields);
                    self.begin_record(slot, head.as_ref(), client_ip, now);
                }
                if refusal == Refusal::NoRoom {
                    return self.shed(slot, Shed::Bodies, now);
                }
                let counts = &self.shared.health.counts;
                match refusal {
                    Refusal::TooSlow => bump(&counts.too_slow),
                    Refusal::HeadTooLarge | Refusal::TargetTooLong => bump(&counts.head_too_large),
                    Refusal::BodyTooLarge => bump(&counts.body_too_large),
                    _ => {}
                }
                let outcome = if refusal.is_client_fault() {
                    ReplyOutcome::Bad
                } else {
                    ReplyOutcome::Failed
                };
                if let Some(client) = self.clients.get_mut(slot) {
                    // The averages are the service's alone.
                    if client.listener == Listener::Public {
                        self.shared.health.ended(outcome);
                    }
                }
                self.refuse(slot, refusal, None, now);
            }
            ConnectionEvent::Overdue => self.handle_overdue(slot, now),
        }
    }

    fn handle_request(&mut self, slot: u32, incoming: Incoming, now: Instant) {
        let head = &incoming.head;
        let client_key = self.clients.key(slot);
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        client.rules = ReplyRules {
            http11: head.version == Version::Http11,
            head_only: head.method == Method::Head,
            keep_alive: head.keep_alive,
        };
        let client_ip = self.trust.client(client.peer.ip(), head.fields());
        self.begin_record(slot, Some(head), client_ip, now);
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        if !client.connection.output().is_empty() {
            // It reads not even "100 Continue", which a worker's reply must not overtake.
            client.connection.close(CloseReason::Cut);
            return;
        }
        let origin = Origin {
            client: client_key,
            peer: client.peer,
            client_ip,
            socket: client.socket.clone(),
            rules: client.rules,
        };
        let listener = client.listener;
        if let Some(page) = self.reports.page(listener, head.path()) {
            self.note_probe(now);
            let asks = Asks {
                peer: origin.peer.ip(),
                client: client_ip,
                host: head.host(),
            };
            let details = self.reports.shows_details(listener, asks);
            self.observe(now);
            let answer = page.answer(head, details, &self.shared.health);
            return self.answer(slot, &answer, now);
        }
        if head.method == Method::Options && head.target() == "*" {
            return self.answer(slot, &Answer::options(), now);
        }
        if listener == Listener::Admin {
            let answer = reports::administer(head, &self.shared.health);
            return self.answer(slot, &answer, now);
        }
        self.draining.note_request(now);
        if let Err(throttled) = self.shared.throttling.check(head, client_ip, now) {
            self.shared.health.throttled(throttled.place);
            let answer = reply::throttled(&throttled);
            return self.throttle(slot, &answer, now);
        }
        let lane = self.workers.lane.as_ref();
        if lane.is_some_and(|lane| lane.takes(head)) {
            return self.hand_aside(origin, incoming, now);
        }
        self.admit(slot, origin, incoming, now);
    }

    /// Has a request go to a worker, now or as soon as one is free, if the gate and the queue let it; else refuses it.
    fn admit(&mut self, slot: u32, origin: Origin, incoming: Incoming, now: Instant) {
        let client_ip = origin.client_ip;
        let health = self.shared.health.clone();
        let idle = self.workers.dispatcher.has_idle_worker();
        let permit = match health.admit(idle, now) {
            Ok(permit) => permit,
            Err(retry_after) => {
                bump(&health.counts.shed_gate);
                let seconds = Some(retry_after.as_secs());
                return self.refuse(slot, Refusal::Unhealthy, seconds, now);
            }
        };
        let predicted = health.predicted();
        let occupancy = health.occupancy(idle);
        let decided = self
            .workers
            .dispatcher
            .decide(client_ip, occupancy, predicted, now);
        if let Err(reason) = decided {
            return self.shed(slot, reason, now);
        }
        self.retry_after.count(true, now);
        let deadline = now + self.limits.request_timeout;
        let exchange = Arc::new(Exchange::new(origin, now, deadline));
        if let Some(client) = self.clients.get_mut(slot) {
            client.exchange = Some(exchange.clone());
            client.wait = Wait::None;
        }
        let job = Job::Handle {
            exchange,
            request: incoming,
            permit,
        };
        if idle {
            return self.workers.dispatch(job, now);
        }
        let ticket = self.workers.dispatcher.submit(job, client_ip, now);
        if let Some(client) = self.clients.get_mut(slot) {
            client.ticket = Some(ticket);
        }
    }

    /// Asks for the room that the body of a client's request needs.
    pub(super) fn ask_for_room(&mut self, slot: u32, now: Instant) {
        let key = self.clients.key(slot);
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        let Some((head, size)) = client.connection.wants_room() else {
            return;
        };
        let address = self.trust.client(client.peer.ip(), head.fields());
        match self.bodies.take(Peer::from(address), size, key) {
            Ok(room) => client.connection.give_room(room, now),
            Err(place) => client.connection.await_room(place),
        }
    }

    /// Gives room to a turn's worth of those whose bodies wait for it, as far as there is some.
    pub(super) fn admit_bodies(&mut self, now: Instant) {
        for _ in 0..TURN {
            let Some((key, room)) = self.bodies.next() else {
                return;
            };
            if let Some(client) = self.clients.by_key(key) {
                client.connection.give_room(room, now);
                self.advance(key.slot, now);
            }
        }
    }

    /// Hands a request to the lane beside the workers, if it has room.
    fn hand_aside(&mut self, origin: Origin, incoming: Incoming, now: Instant) {
        let slot = origin.client.slot;
        let deadline = now + self.limits.request_timeout;
        let exchange = Arc::new(Exchange::new(origin, now, deadline));
        let taken = |lane: &Lane| lane.hand_over(exchange.clone(), incoming);
        if !self.workers.lane.as_ref().is_some_and(taken) {
            return self.shed(slot, Shed::Queue, now);
        }
        if let Some(client) = self.clients.get_mut(slot) {
            client.exchange = Some(exchange);
        }
    }

    /// Dispatches what waits, as far as the workers take it.
    pub(super) fn dispatch(&mut self, now: Instant) {
        self.resume_woken(now);
        while let Some(job) = self.workers.next(now) {
            if let Job::Handle { exchange, .. } = &job
                && let Some(client) = self.clients.by_key(exchange.origin.client)
            {
                let left = client.has_left(now);
                client.ticket = None;
                if left {
                    let slot = exchange.origin.client.slot;
                    client.connection.close(CloseReason::Client);
                    bump(&self.shared.health.counts.skipped);
                    self.advance(slot, now);
                    continue;
                }
            }
            self.workers.dispatch(job, now);
        }
    }

    /// Announces what is dispatched.
    pub(super) fn announce(&mut self, now: Instant) {
        self.workers.announce(self.poller.registry(), now);
    }

    /// Has a worker go on with a client's reply.
    pub(super) fn resume(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        if let Some(exchange) = &client.exchange
            && let Some(stream) = client.parked.take()
        {
            let exchange = exchange.clone();
            self.workers
                .dispatcher
                .submit_exempt(Job::Resume { exchange, stream });
        }
    }

    pub(super) fn handle_done(&mut self, done: Done, now: Instant) {
        if !done.aside {
            self.workers.dispatcher.done();
        }
        let Some(exchange) = done.exchange else {
            // The first job of all is about no exchange.
            self.workers.started();
            return;
        };
        let slot = exchange.origin.client.slot;
        self.end(exchange, done.result, done.at, now);
        self.advance(slot, now);
    }

    /// Takes what became of an exchange at `at`. The caller serves its client then.
    pub(super) fn end(&mut self, exchange: Arc<Exchange>, ended: Ended, at: Instant, now: Instant) {
        let key = exchange.origin.client;
        let client = self.clients.by_key(key).filter(|client| {
            let current = client.exchange.as_ref();
            current.is_some_and(|current| Arc::ptr_eq(current, &exchange))
        });
        // It holds the client's socket, which may have to close now.
        drop(exchange);
        match (ended, client) {
            (Ended::Replied { rest, then }, Some(client)) => {
                let after = match then {
                    Then::Keep => After::Keep,
                    Then::Close => After::Close,
                    Then::More(stream) => {
                        client.parked = Some(stream);
                        After::More
                    }
                };
                if after != After::More {
                    client.exchange = None;
                }
                client.connection.answer(rest, after, at);
                client.end_record_if_sent();
            }
            (Ended::Replied { then, .. }, None) => {
                if let Then::More(stream) = then {
                    self.workers
                        .dispatcher
                        .submit_exempt(Job::Drop(Box::new(stream)));
                }
            }
            (Ended::Broken(reason), Some(client)) => {
                client.exchange = None;
                client.connection.close(reason);
            }
            (Ended::Waits(waits), Some(client)) => {
                let asks_a_server = waits.waiting.asks_a_server();
                let place = asks_a_server.then(|| self.workers.dispatcher.place());
                let before = mem::replace(&mut client.wait, Wait::For(waits, place));
                if matches!(before, Wait::Early) {
                    if asks_a_server {
                        let ready = Trigger::Ready { readable: true };
                        self.go_on_waiting(key.slot, ready, now);
                    } else {
                        self.workers.dispatcher.wake(key);
                    }
                }
            }
            // As where it waits already: nobody wants its reply any more.
            (Ended::Waits(_), None) => bump(&self.shared.health.counts.late),
            // The event loop has answered it, if anybody was left.
            (Ended::Dropped, _) | (Ended::Broken(_), None) => {}
        }
    }

    /// Refuses a request that has waited for a worker as long as it may.
    pub(super) fn expire(&mut self, job: Job, now: Instant) {
        let Job::Handle { exchange, .. } = job else {
            return self.workers.dispatcher.submit_exempt(job);
        };
        let key = exchange.origin.client;
        if exchange.advance(Stage::Waiting, Stage::Abandoned)
            && let Some(client) = self.clients.by_key(key)
        {
            client.ticket = None;
            client.exchange = None;
            client.note_wait(&exchange, now);
            self.shed(key.slot, Shed::Deadline, now);
            self.advance(key.slot, now);
        }
    }

    /// The request timeout has come: 504, whatever the handler does.
    fn handle_overdue(&mut self, slot: u32, now: Instant) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        let Some(exchange) = client.exchange.clone() else {
            return;
        };
        let health = self.shared.health.clone();
        if exchange.abandon() {
            client.exchange = None;
            client.end_wait(&health);
            client.note_wait(&exchange, now);
            if let Some(ticket) = client.ticket.take() {
                self.workers.dispatcher.remove(ticket);
            }
            bump(&health.counts.timeouts);
            let waited = now.saturating_duration_since(exchange.admitted);
            health.responded(waited);
            health.ended(ReplyOutcome::Failed);
            self.refuse(slot, Refusal::HandlerTooSlow, None, now);
        } else if client.has_tunnel() {
            // Nobody has said anything for long.
            client.end_tunnel(CloseReason::Finished, &health);
        } else if exchange.advance(Stage::Streaming, Stage::Abandoned) {
            if let Some(Source::Relay(relay)) = client.parked.as_mut().map(|it| &mut it.source) {
                relay.stalled();
            }
            // A part of the reply is out: all that is left is to show that it is not whole.
            log::debug!("{}: a reply was cut, its body stood still", client.peer);
            bump(&health.counts.cut);
            health.ended(ReplyOutcome::Failed);
            client.connection.close(CloseReason::Cut);
        } else {
            // All of the reply is at hand, and a worker is just sending it.
            client.connection.await_reply(now);
        }
    }
}
