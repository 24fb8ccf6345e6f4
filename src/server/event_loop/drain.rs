//! Stopping: not ready at once, serve what comes, then end.
//!
//! ```text
//!   begun                                        last fifth                  until
//!     │  serve; every reply closes its connection    │  no new connections       │ cut what is left
//!     └───────────────────────────────────────────────┴───────────────────────────┘
//! ```
//!
//! A worker that writes a reply just then may finish first; see [`LAST_WORDS`].
//!
//! A balancer needs time to see that the server is not ready. While somebody watches the server's health, it accepts and
//! serves for the whole time, whether or not requests come. Else nobody can be told, and the drain ends early when
//! nothing is in flight and no request has come for a fifth of the time. A drain that does not serve takes nothing more
//! and ends as soon as nothing is in flight.

use std::time::{Duration, Instant};

use super::EventLoop;
use super::client::Client;
use super::connection::CloseReason;
use super::listeners::Listener;
use crate::health::bump;
use crate::http::refusal::Refusal;
use std::sync::atomic::Ordering::Relaxed;

/// A drain under way.
#[derive(Debug)]
struct Drain {
    until: Instant,
    /// Requests are served on. Else it ends as soon as those in flight are answered.
    serves: bool,
    /// A fifth of the time: how long it must be quiet, and how long before the end accepting stops.
    fifth: Duration,
    last_request: Instant,
    next_step: Instant,
    /// When somebody last asked for the health, before the drain or in it.
    last_probe: Option<Instant>,
    /// The time was seen to be over.
    over: bool,
}

/// How long beyond its time a drain waits for a worker that is writing a reply, or has written it and has yet to say so:
/// a client that has its reply was not cut.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(500);

/// Whoever has asked for the health within this time is taken to ask again: the slowest of the usual balancers and
/// monitors ask twice a minute.
const WATCHED: Duration = Duration::from_secs(60);

/// Turns of accepting before the listeners close: enough for a backlog of 4096, and not without end.
const BACKLOG_TURNS: usize = 64;

/// Whether there is a drain, and who may have to be told of it.
#[derive(Debug, Default)]
pub(super) struct Draining {
    drain: Option<Drain>,
    /// When somebody last asked for the health.
    last_probe: Option<Instant>,
}

impl Draining {
    /// Begins a drain. A second call may only hasten the first.
    fn begin(&mut self, until: Instant, serves: bool, now: Instant) {
        let (until, serves) = self.drain.as_ref().map_or((until, serves), |drain| {
            (drain.until.min(until), drain.serves && serves)
        });
        self.drain = Some(Drain::new(until, serves, self.last_probe, now));
    }

    /// Whether one is under way.
    pub(super) fn is_under_way(&self) -> bool {
        self.drain.is_some()
    }

    /// Notes that a request has come.
    pub(super) fn note_request(&mut self, now: Instant) {
        if let Some(drain) = &mut self.drain {
            drain.last_request = now;
        }
    }

    /// Notes that somebody has asked for the health.
    fn note_probe(&mut self, now: Instant) {
        self.last_probe = Some(now);
        if let Some(drain) = &mut self.drain {
            drain.last_probe = self.last_probe;
        }
    }

    /// When to look again.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.drain.as_ref().map(Drain::next_timeout)
    }
}

impl Drain {
    fn new(until: Instant, serves: bool, last_probe: Option<Instant>, now: Instant) -> Self {
        Self {
            until,
            serves,
            fifth: if serves {
                until.saturating_duration_since(now) / 5
            } else {
                Duration::ZERO
            },
            last_request: now,
            next_step: now,
            last_probe,
            over: false,
        }
    }

    /// Whether somebody is to be told, and so needs the whole time.
    fn is_watched(&self, now: Instant) -> bool {
        let age = self.last_probe.map(|at| now.saturating_duration_since(at));
        self.serves && age.is_some_and(|age| age < WATCHED)
    }

    /// When to look again.
    fn next_timeout(&self) -> Instant {
        let end = if self.over {
            self.until + LAST_WORDS
        } else {
            self.until
        };
        self.next_step.min(end)
    }

    fn is_quiet(&self, now: Instant) -> bool {
        !self.is_watched(now) && now >= self.last_request + self.fifth
    }

    fn accepts(&self, now: Instant) -> bool {
        let end = if self.is_watched(now) {
            self.until
        } else {
            self.until.checked_sub(self.fifth).unwrap_or(self.until)
        };
        self.serves && now < end
    }

    /// Whether the next step is due; it is then put off. What it is about: whether it is quiet, and whether the service
    /// accepts.
    fn step(&mut self, now: Instant) -> Option<(bool, bool)> {
        if now < self.next_step && now < self.until {
            return None;
        }
        self.next_step = now + (self.fifth / 4).max(Duration::from_millis(5));
        Some((self.is_quiet(now), self.accepts(now)))
    }

    /// Whether the drain need not wait for a client that would be served.
    fn leaves(&self, client: &Client, last_words: bool) -> bool {
        client.listener != Listener::Public
            || client.connection.is_lingering()
            || client.connection.is_idle() && self.over
            || !self.serves && !client.is_in_flight()
            || self.over && !last_words && !client.is_written_to()
    }

    /// Whether what was accepted until the time was over may be answered still: nothing but a drain without time, which
    /// is a stop at once, cuts it there.
    fn has_last_words(&self, now: Instant) -> bool {
        !self.fifth.is_zero() && self.is_watched(now)
    }
}

impl EventLoop {
    pub(super) fn begin_drain(&mut self, until: Instant, serves: bool, now: Instant) {
        self.draining.begin(until, serves, now);
        self.shared.health.gauges.draining.store(true, Relaxed);
    }

    /// Notes that somebody has asked for the health.
    pub(super) fn note_probe(&mut self, now: Instant) {
        bump(&self.shared.health.counts.probed);
        self.draining.note_probe(now);
    }

    /// Closes what the drain has come to: the listeners, and connections that stay idle.
    pub(super) fn drain_step(&mut self, now: Instant) {
        let Some((quiet, accepts)) = self.draining.drain.as_mut().and_then(|it| it.step(now))
        else {
            return;
        };
        // Monitors can still ask how it goes: the other listeners close at the very end.
        if !accepts && !self.listeners.of(Listener::Public).is_closed() {
            // Whoever is in the backlog was promised a reply.
            for _ in 0..BACKLOG_TURNS {
                if !self.listeners.of(Listener::Public).is_ready(now) {
                    break;
                }
                self.accept_at(Listener::Public, now);
            }
            self.listeners.of(Listener::Public).close();
            // Their requests may still be on the way: the next step closes whoever is idle then.
            return;
        }
        if quiet || !accepts {
            while let Some(slot) = self.clients.longest_idle(Listener::Public) {
                if let Some(client) = self.clients.get_mut(slot) {
                    client.connection.close(CloseReason::Stopped);
                }
                self.advance(slot, now);
            }
        }
    }

    /// Whether the drain is over.
    pub(super) fn is_drained(&mut self, now: Instant) -> bool {
        let Some(drain) = &mut self.draining.drain else {
            return false;
        };
        if now >= drain.until + LAST_WORDS {
            return true;
        }
        drain.over = now >= drain.until;
        let last_words = drain.has_last_words(now);
        let all_gone = drain.is_quiet(now) || !drain.accepts(now);
        (drain.over || all_gone)
            && self.clients.used().into_iter().all(|slot| {
                let client = self.clients.get_mut(slot);
                client.is_none_or(|client| drain.leaves(client, last_words))
            })
    }

    /// Lets go of every client; returns how many were still waiting for their reply.
    pub(super) fn stop(mut self, now: Instant) -> usize {
        self.listeners.close();
        let mut cut = 0;
        for slot in self.clients.used() {
            let Some(client) = self.clients.get_mut(slot) else {
                continue;
            };
            if let Some(ticket) = client.ticket.take() {
                // No worker has it: its client can be told to go elsewhere.
                if let Some(exchange) = client.exchange.take() {
                    client.note_wait(&exchange, now);
                }
                self.workers.dispatcher.remove(ticket);
                bump(&self.shared.health.counts.shed_drain);
                self.refuse(slot, Refusal::Draining, None, now);
            } else if client.listener == Listener::Public && client.is_in_flight() {
                cut += 1;
                self.disconnect(slot, CloseReason::Cut, now);
                continue;
            }
            self.disconnect(slot, CloseReason::Stopped, now);
        }
        self.publish(now);
        self.sampler.end();
        // Readers of replies are a user's code, and not this thread's to drop: neither those that are left here, nor
        // those in what the workers are about to say.
        self.workers.dispatcher.leave(self.poller.into_inbox());
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A quiet server was gone, and a busy one refused, before a balancer could see that it was not ready.
    #[test]
    fn a_watched_drain_accepts_for_its_whole_time_and_another_may_end_when_quiet() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let until = at(5_000);
        let unwatched = Drain::new(until, true, None, start);
        assert!(!unwatched.is_quiet(at(999)) && unwatched.is_quiet(at(1_000)));
        assert!(unwatched.accepts(at(3_999)) && !unwatched.accepts(at(4_000)));
        for asked in [at(0), at(2_000)] {
            let mut draining = Draining::default();
            draining.note_probe(start);
            draining.begin(until, true, start);
            draining.note_probe(asked);
            let watched = draining.drain.expect("it was begun");
            assert!(!watched.is_quiet(at(4_999)) && watched.accepts(at(4_999)));
            assert!(!watched.accepts(until));
        }
    }

    #[test]
    fn a_drain_that_serves_no_more_is_over_once_nothing_is_in_flight() {
        let start = Instant::now();
        let mut draining = Draining::default();
        draining.note_probe(start);
        draining.begin(start + Duration::from_secs(1), false, start);
        draining.note_request(start);
        let drain = draining.drain.expect("it was begun");
        assert!(!drain.accepts(start) && drain.is_quiet(start));
        assert!(!drain.is_watched(start) && !drain.has_last_words(start));
    }

    #[test]
    fn who_has_not_asked_for_a_minute_is_not_waited_for() {
        let start = Instant::now();
        let begun = start + Duration::from_secs(60);
        let drain = Drain::new(
            begun + Duration::from_secs(5 * 60),
            true,
            Some(start),
            begun,
        );
        assert!(!drain.is_watched(begun));
        assert!(drain.is_watched(start + Duration::from_secs(59)));
    }

    #[test]
    fn a_second_drain_may_only_hasten_the_first() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut draining = Draining::default();
        assert_eq!(draining.next_timeout(), None);
        for (until, serves, expected) in [
            (at(5), true, (at(5), true)),
            (at(9), true, (at(5), true)),
            (at(7), false, (at(5), false)),
            (at(1), true, (at(1), false)),
        ] {
            draining.begin(until, serves, start);
            let drain = draining.drain.as_ref().expect("it was begun");
            assert_eq!((drain.until, drain.serves), expected);
        }
    }
}
