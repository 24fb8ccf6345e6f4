//! From a whole request to a worker, and back.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::admission::Shed;
use super::connection::{After, CloseReason, Event, Incoming};
use super::doors::Door;
use super::{AHEAD, FEW, FULL_STANDSTILL, Frontend, MOST_AHEAD, Registrar, STANDSTILL};
use crate::health::gate::Entry;
use crate::health::{Outcome, bump};
use crate::http::head::{Method, Version};
use crate::http::refusal::Refusal;
use crate::report::Answer;
use crate::server::exchange::{Admitted, Exchange, Origin, ReplyRules, Stage};
use crate::server::roster::Roster;
use crate::server::workers::{Done, Ended, Handover};

impl Frontend {
    pub(super) fn handle_event(&mut self, slot: u32, event: Event, now: Instant) {
        match event {
            Event::Request(incoming) => self.handle_request(slot, incoming, now),
            Event::Refused(refusal) => {
                let counts = &self.shared.health.counts;
                match refusal {
                    Refusal::TooSlow => bump(&counts.too_slow),
                    Refusal::HeadTooLarge | Refusal::TargetTooLong => bump(&counts.head_too_large),
                    Refusal::BodyTooLarge => bump(&counts.body_too_large),
                    _ => {}
                }
                let outcome = if refusal.is_client_fault() {
                    Outcome::Bad
                } else {
                    Outcome::Failed
                };
                if let Some(client) = self.clients.get_mut(slot) {
                    // Of its head nothing can be relied on.
                    client.rules = ReplyRules::UNKNOWN;
                    // The averages are the service's alone.
                    if client.door == Door::Public {
                        self.shared.health.ended(outcome);
                    }
                }
                self.refuse(slot, refusal, None, now);
            }
            Event::Overdue => self.handle_overdue(slot, now),
        }
    }

    fn handle_request(&mut self, slot: u32, incoming: Box<Incoming>, now: Instant) {
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
        if !client.connection.output().is_empty() {
            // It reads not even "100 Continue", which a worker's reply must not overtake.
            client.connection.close(CloseReason::Cut);
            return;
        }
        let origin = Origin {
            client: client_key,
            peer: client.peer,
            socket: client.socket.clone(),
            rules: client.rules,
        };
        let (door, details) = (client.door, client.details);
        let idle = self.has_idle_worker();
        let health = self.shared.health.clone();
        if let Some(page) = self.paths.find(head.path()) {
            bump(&health.counts.probed);
            health.observe(idle, now);
            self.publish(now);
            let answer = self.recent.answer(page, head, details, now, &health);
            return self.answer_again(slot, answer, now);
        }
        if head.method == Method::Options && head.target() == "*" {
            return self.answer(slot, &Answer::options(), now);
        }
        if door == Door::Admin {
            return self.answer(slot, &Answer::not_found(), now);
        }
        if let Some(drain) = &mut self.drain {
            drain.note_request(now);
        }
        let (epoch, probe) = match health.admit(idle, now) {
            Entry::Admit { epoch } => (epoch, false),
            Entry::Probe { epoch } => (epoch, true),
            Entry::Refuse { retry_after } => {
                bump(&health.counts.shed_gate);
                let seconds = Some(retry_after.as_secs());
                return self.refuse(slot, Refusal::Unhealthy, seconds, now);
            }
        };
        let ahead = self.busy().saturating_sub(self.workers);
        let crew = health.crew(idle);
        let verdict = self
            .admission
            .decide(origin.peer.ip(), ahead, crew, health.predicted(), now);
        if let Err(reason) = verdict {
            return self.shed(slot, reason, now);
        }
        self.retry_after.count(true, now);
        let admitted = Admitted {
            at: now,
            epoch,
            probe,
        };
        let deadline = now + self.limits.request_timeout;
        let peer = origin.peer.ip();
        let exchange = Arc::new(Exchange::new(origin, admitted, deadline, incoming));
        let ticket = if self.admission.len() == 0 && self.has_room() {
            self.hand_over_one(&exchange, now);
            None
        } else {
            Some(self.admission.push(exchange.clone(), peer, now))
        };
        if let Some(client) = self.clients.get_mut(slot) {
            client.exchange = Some(exchange);
            client.ticket = ticket;
        }
    }

    /// Exchanges handed over and not given back.
    pub(super) fn busy(&self) -> usize {
        self.handed.len() - self.free_places.len()
    }

    pub(super) fn has_idle_worker(&self) -> bool {
        self.busy() < self.workers && self.intake.is_open()
    }

    /// Whether another exchange may be handed over: to an idle worker, or to hide the hand-over behind the jobs that
    /// are about to end.
    fn has_room(&self) -> bool {
        let busy = self.busy();
        self.intake.is_open()
            && (busy < self.workers || busy < self.workers + self.most_ahead())
            && !self.free_places.is_empty()
    }

    fn most_ahead(&self) -> usize {
        let Some(predicted) = self.shared.health.predicted() else {
            return 0;
        };
        let jobs = AHEAD.as_nanos() * self.workers as u128 / predicted.as_nanos().max(1);
        usize::try_from(jobs).unwrap_or(usize::MAX).min(MOST_AHEAD)
    }

    /// Hands over what waits, as far as the workers take it.
    pub(super) fn hand_over(&mut self, now: Instant) {
        while self.has_room() {
            // By turns, so that endless replies and new requests do not starve each other.
            let first = self.admission.len() == 0 || !std::mem::take(&mut self.resumed);
            let resuming = first.then(|| self.resuming.pop_front()).flatten();
            if let Some(exchange) = resuming {
                self.resumed = true;
                self.hand_over_one(&exchange, now);
            } else if let Some(exchange) = self.admission.pop(now) {
                if let Some(client) = self.clients.by_key(exchange.origin.client) {
                    client.ticket = None;
                }
                self.hand_over_one(&exchange, now);
            } else {
                return;
            }
        }
    }

    /// Sends an exchange's id down the stream. Only where [`has_room`](Self::has_room).
    fn hand_over_one(&mut self, exchange: &Arc<Exchange>, now: Instant) {
        let busy = self.busy();
        let Some(place) = self.free_places.pop() else {
            return;
        };
        if self.untaken() == 0 {
            self.taken = (self.handed_count, now);
        }
        self.handed_count += 1;
        let id = Handover::id(self.handed_count, place);
        self.shared.handover.put(id, exchange.clone());
        self.intake.push(id);
        self.shared.health.gauges.in_flight.fetch_add(1, Relaxed);
        self.handed[place] = Some(id);
        if busy < self.workers {
            self.shared.health.idle_worker_taken(now);
        }
        while self
            .ahead
            .front()
            .is_some_and(|(_, front)| !front.is(Stage::Waiting))
        {
            self.ahead.pop_front();
        }
        // Whether or not a worker is idle: it may not be awake in time.
        if exchange.is(Stage::Waiting) {
            let due = self.queue_deadline(exchange);
            self.ahead.push_back((due, exchange.clone()));
        }
    }

    /// Exchanges handed over that no worker has taken yet.
    fn untaken(&self) -> u64 {
        let taken = self.shared.handover.taken();
        self.handed_count.saturating_sub(taken)
    }

    /// Whether requests are handed over and none has been taken for a while; not again for as long.
    pub(super) fn stands_still(&mut self, now: Instant) -> bool {
        let untaken = self.untaken();
        let taken = self.handed_count - untaken;
        if taken != self.taken.0 {
            self.taken = (taken, now);
        }
        let still = untaken > 0 && now >= self.taken.1 + STANDSTILL;
        if still {
            self.taken.1 = now;
        }
        still
    }

    /// Sends what is handed over to tiny_http, and a nudge if one is needed; true when the stream broke.
    pub(super) fn send_handed(&mut self, stands_still: bool, now: Instant) -> bool {
        // Of requests that came through together, the worker that has the first may be held up by it, and one that
        // waits for requests sees the others only when it wakes.
        if stands_still && self.shared.roster.is_listening() && self.shared.handover.is_waiting() {
            self.intake.nudge();
        }
        let share = Roster::share(self.shared.health.predicted());
        let registrar = &mut Registrar(self.poll.registry());
        self.intake.flush(share, registrar, now)
    }

    /// Calls as many workers as what is handed over needs.
    pub(super) fn call_workers(&mut self, stands_still: bool) {
        if self.untaken() == 0 {
            return;
        }
        let (busy, roster) = (self.busy(), &self.shared.roster);
        roster.expect_soon(self.brisk && busy <= FEW);
        let awake = roster.awake();
        if awake == self.workers {
            return;
        }
        let mut needed = roster.needed(busy, self.shared.health.predicted());
        if stands_still {
            needed = needed.max(awake + 1);
        }
        roster.call(needed.saturating_sub(awake));
    }

    /// When to look whether the workers take what is handed over.
    pub(super) fn stands_still_at(&self) -> Option<Instant> {
        let roster = &self.shared.roster;
        // A worker may begin to listen just after this look, so it has to be repeated all the same.
        let all_work = roster.awake() == self.workers && !roster.is_listening();
        let time = if all_work {
            FULL_STANDSTILL
        } else {
            STANDSTILL
        };
        (self.untaken() > 0).then(|| self.taken.1 + time)
    }

    /// Has a worker go on with a client's reply.
    pub(super) fn resume(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        if let Some(exchange) = &client.exchange
            && exchange.advance(Stage::Replying, Stage::Resuming)
        {
            client.parked = false;
            self.resuming.push_back(exchange.clone());
        }
    }

    pub(super) fn handle_done(&mut self, done: Done, now: Instant) {
        self.handed[done.place] = None;
        self.free_places.push(done.place);
        let key = done.exchange.origin.client;
        let client = self.clients.by_key(key).filter(|client| {
            let current = client.exchange.as_ref();
            current.is_some_and(|current| Arc::ptr_eq(current, &done.exchange))
        });
        let Some(client) = client else {
            // What is parked in it is a worker's to drop.
            if done.exchange.advance(Stage::Replying, Stage::Abandoned)
                && matches!(
                    done.result,
                    Ended::Replied {
                        after: After::More,
                        ..
                    }
                )
            {
                self.resuming.push_back(done.exchange);
            }
            return;
        };
        match done.result {
            Ended::Replied { rest, after } => {
                if after == After::More {
                    client.parked = true;
                } else {
                    client.exchange = None;
                }
                client.connection.answer(rest, after, done.at);
            }
            Ended::Broken => {
                client.exchange = None;
                client.connection.close(CloseReason::Cut);
            }
            // It was abandoned, and the frontend has answered.
            Ended::Dropped => {}
        }
        self.drive(key.slot, now);
    }

    /// Takes an exchange from whoever would answer it. False when a worker replies already, or somebody took it before.
    pub(super) fn abandon(&self, exchange: &Exchange) -> bool {
        self.abandon_waiting(exchange) || exchange.advance(Stage::Running, Stage::Abandoned)
    }

    /// The same, unless a worker has it already.
    fn abandon_waiting(&self, exchange: &Exchange) -> bool {
        let abandoned = exchange.advance(Stage::Waiting, Stage::Abandoned);
        if abandoned && exchange.admitted.probe {
            self.shared.health.abandon_probe(exchange.admitted.epoch);
        }
        abandoned
    }

    /// Refuses a request that has waited for a worker as long as it may.
    pub(super) fn expire(&mut self, exchange: &Exchange, now: Instant) {
        let key = exchange.origin.client;
        if self.abandon_waiting(exchange)
            && let Some(client) = self.clients.by_key(key)
        {
            client.ticket = None;
            client.exchange = None;
            self.shed(key.slot, Shed::Deadline, now);
            self.drive(key.slot, now);
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
        if let Some(ticket) = client.ticket.take() {
            self.admission.remove(ticket);
        }
        let health = self.shared.health.clone();
        if self.abandon(&exchange) {
            bump(&health.counts.timeouts);
            let waited = now.saturating_duration_since(exchange.admitted.at);
            health.answered(Outcome::Failed, waited);
            if let Some(client) = self.clients.get_mut(slot) {
                client.exchange = None;
            }
            self.refuse(slot, Refusal::HandlerTooSlow, None, now);
        } else if let Some(client) = self.clients.get_mut(slot) {
            // A part of the reply is out: all that is left is to show that it is not whole.
            bump(&health.counts.cut);
            client.connection.close(CloseReason::Cut);
        }
    }

    /// Answers for the exchanges that were on the stream when it broke.
    pub(super) fn fail_stream(&mut self, now: Instant) {
        bump(&self.shared.health.counts.stream_failures);
        for place in 0..self.handed.len() {
            // What is not there any more a worker has, and will say so.
            let taken = self.handed[place].and_then(|id| self.shared.handover.take(id));
            let Some(exchange) = taken else {
                continue;
            };
            self.handed[place] = None;
            self.free_places.push(place);
            self.shared.health.gauges.in_flight.fetch_sub(1, Relaxed);
            let key = exchange.origin.client;
            let waited = self.abandon(&exchange);
            let Some(client) = self.clients.by_key(key) else {
                continue;
            };
            client.exchange = None;
            if waited {
                let since = now.saturating_duration_since(exchange.admitted.at);
                self.shared.health.answered(Outcome::Failed, since);
                self.refuse(key.slot, Refusal::HandlerFailed, None, now);
            } else {
                client.connection.close(CloseReason::Cut);
            }
            self.drive(key.slot, now);
        }
    }
}
