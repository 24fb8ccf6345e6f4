//! Admission: which requests wait for a worker, and which are refused at once.
//!
//! A request is queued only when it should reach a worker within the queue budget, and is refused when it has not: so
//! accepted requests are answered in time at any load, and the others learn it at once. The rule is that of
//! [little-loadshedder](https://docs.rs/little-loadshedder), with a number of workers that is known:
//! [Little's law](https://en.wikipedia.org/wiki/Little%27s_law) gives the wait.
//!
//! [`Admission`] is the queue and the rule; [`RetryAfter`] tells the refused when to come back. Both are pure: time is
//! an argument. For each request, and each time that a worker falls idle or [`next_timeout`](Admission::next_timeout)
//! has come: [`decide`](Admission::decide) and [`push`](Admission::push) what arrived, refuse what
//! [`expire`](Admission::expire) returns until it is `None`, then [`pop`](Admission::pop) for as long as a worker is
//! idle.

use crate::health::gate::Occupancy;
use crate::net::peer::Peer;
use crate::random::Random;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shed {
    /// The queue holds as many requests as it may.
    Queue,
    /// It would not reach a worker within the budget.
    Deadline,
    /// Its peer has its share of the queue already.
    Fair,
    /// There was no room for its body in time.
    Bodies,
}

impl Shed {
    /// The reason in a word, as metrics and the access log have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Deadline => "deadline",
            Self::Fair => "fair",
            Self::Bodies => "bodies",
        }
    }
}

/// Names a request that waits, to [`remove`](Admission::remove) it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// The requests that wait for a worker, first in, first out.
#[derive(Debug)]
pub(crate) struct Admission<T> {
    budget: Duration,
    queue_max: usize,
    workers: u32,
    /// In order of arrival. A map rather than a ring, so that a request whose client has gone leaves nothing behind.
    queue: BTreeMap<u64, Queued<T>>,
    next_ticket: u64,
    /// How many requests of each peer wait, while fairness is on. No peer has a count of zero.
    peers: Option<HashMap<Peer, usize>>,
}

#[derive(Debug)]
struct Queued<T> {
    item: T,
    peer: Peer,
    deadline: Instant,
}

impl<T> Admission<T> {
    /// The longest that a request may wait.
    pub(crate) fn budget(&self) -> Duration {
        self.budget
    }

    /// An empty queue of at most `queue_max` requests, each for at most `budget`, before `workers` workers.
    ///
    /// With `fair`, no peer may hold more than its share of the queue.
    pub(crate) fn new(budget: Duration, queue_max: usize, workers: usize, fair: bool) -> Self {
        Self {
            budget,
            queue_max,
            workers: u32::try_from(workers).unwrap_or(u32::MAX).max(1),
            queue: BTreeMap::new(),
            next_ticket: 0,
            peers: fair.then(HashMap::new),
        }
    }

    /// Whether a request of `peer` may wait, behind those in the queue and `prefetched` more that left it and have not
    /// reached a worker. `predicted` is the predicted service time, `None` without a sample.
    ///
    /// # Errors
    ///
    /// Why it may not.
    pub(crate) fn decide(
        &self,
        peer: IpAddr,
        prefetched: usize,
        occupancy: Occupancy,
        predicted: Option<Duration>,
        now: Instant,
    ) -> Result<(), Shed> {
        // Whatever the prediction, an idle worker is no wait. Were it not for this, one slow sample could refuse
        // everything, and no sample would ever come to correct it.
        if occupancy.idle {
            return Ok(());
        }
        if self.queue.len() >= self.queue_max {
            return Err(Shed::Queue);
        }
        if self.predicted_wait(prefetched, occupancy, predicted, now) > self.budget {
            return Err(Shed::Deadline);
        }
        if let Some(peers) = &self.peers {
            let peer = Peer::from(peer);
            let queued = peers.get(&peer).copied().unwrap_or(0);
            let waiting = peers.len() + usize::from(queued == 0);
            let service = self.service(occupancy, predicted, now).as_secs_f64();
            let room =
                self.budget.as_secs_f64() * f64::from(self.workers) / service.max(f64::EPSILON);
            // A share of places that are not there would be all of those that are.
            let room = room.min(self.queue_max as f64);
            if queued as f64 >= (room / (waiting + 1) as f64).max(1.0) {
                return Err(Shed::Fair);
            }
        }
        Ok(())
    }

    /// How long a request that arrived now would wait for a worker.
    pub(crate) fn predicted_wait(
        &self,
        prefetched: usize,
        occupancy: Occupancy,
        predicted: Option<Duration>,
        now: Instant,
    ) -> Duration {
        if occupancy.idle {
            return Duration::ZERO;
        }
        let ahead = u32::try_from(self.len() + prefetched + 1).unwrap_or(u32::MAX);
        self.service(occupancy, predicted, now)
            .saturating_mul(ahead)
            / self.workers
    }

    /// The service time to reckon with.
    ///
    /// Without a sample nothing is known against the workers but what the clock shows, so a first burst waits, and the
    /// deadline in the queue bounds what that can cost. While no worker starts a job, the time since the last start is
    /// a lower bound that shows a stall before any sample can. (The mean age of the running jobs would not do: it is
    /// biased towards long jobs.) A gap that is short beside the budget shows nothing: the system's scheduler makes
    /// such gaps, and taken for the service time of everything queued they refuse thousands of short requests.
    fn service(&self, occupancy: Occupancy, predicted: Option<Duration>, now: Instant) -> Duration {
        let gap = occupancy
            .last_start
            .map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        let expected = predicted.unwrap_or(Duration::ZERO);
        if gap > self.budget / 2 {
            expected.max(gap)
        } else {
            expected
        }
    }

    /// Appends a request that [`decide`](Self::decide) let in.
    pub(crate) fn push(&mut self, item: T, peer: IpAddr, now: Instant) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let peer = Peer::from(peer);
        if let Some(peers) = &mut self.peers {
            *peers.entry(peer).or_insert(0) += 1;
        }
        let deadline = now + self.budget;
        self.queue.insert(
            ticket,
            Queued {
                item,
                peer,
                deadline,
            },
        );
        Ticket(ticket)
    }

    /// Takes the request that has waited longest, for an idle worker. `None` when nothing waits, and also while the
    /// longest waiting is over its budget: [`expire`](Self::expire) first.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<T> {
        let (&ticket, head) = self.queue.first_key_value()?;
        if head.deadline <= now {
            return None;
        }
        self.remove(Ticket(ticket))
    }

    /// Takes a request that has waited as long as the budget allows, to be refused.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<T> {
        let (&ticket, head) = self.queue.first_key_value()?;
        if head.deadline > now {
            return None;
        }
        self.remove(Ticket(ticket))
    }

    /// When the next request is due to [`expire`](Self::expire).
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let (_, head) = self.queue.first_key_value()?;
        Some(head.deadline)
    }

    /// Takes a request out of the queue, since its client has gone; `None` when it no longer waits.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let waiting = self.queue.remove(&ticket.0)?;
        if let Some(peers) = &mut self.peers
            && let Entry::Occupied(mut count) = peers.entry(waiting.peer)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(waiting.item)
    }

    /// How many requests wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

/// Parts of the second over which [`RetryAfter`] counts.
const SLOTS: usize = 10;

/// Length of one such part.
const SLOT: Duration = Duration::from_millis(100);

/// The longest Retry-After of a shed request, in seconds.
const LONGEST_RETRY: f64 = 30.0;

/// When the clients of shed requests should come back.
///
/// The longer the more traffic there is for each request that is served, and at random, so that they do not all come
/// back at once.
#[derive(Debug)]
pub(crate) struct RetryAfter {
    start: Instant,
    /// The slot of `now`, counted from `start`.
    slot: u64,
    slots: [Count; SLOTS],
    random: Random,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    offered: u32,
    admitted: u32,
}

/// The place of the n-th part of a second since the start.
fn slot_of(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).unwrap_or(0)
}

impl RetryAfter {
    /// Nothing counted yet. `seed` should differ between processes.
    pub(crate) fn new(seed: u64, now: Instant) -> Self {
        Self {
            start: now,
            slot: 0,
            slots: [Count::default(); SLOTS],
            random: Random::new(seed),
        }
    }

    /// Counts a request that was offered, and whether it was admitted.
    pub(crate) fn count(&mut self, admitted: bool, now: Instant) {
        self.advance(now);
        let count = &mut self.slots[slot_of(self.slot)];
        count.offered = count.offered.saturating_add(1);
        count.admitted = count.admitted.saturating_add(u32::from(admitted));
    }

    /// The value of Retry-After for a request shed now, in whole seconds from 1 to 30.
    pub(crate) fn seconds(&mut self, now: Instant) -> u64 {
        self.advance(now);
        let sum = |part: fn(&Count) -> u32| -> f64 {
            self.slots.iter().map(|slot| f64::from(part(slot))).sum()
        };
        let ratio = sum(|slot| slot.offered) / sum(|slot| slot.admitted).max(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 30"
        )]
        let extra = (self.random.uniform() * ratio.min(LONGEST_RETRY)) as u64;
        1 + extra
    }

    /// Empties the slots that have passed since the last call.
    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.start).as_millis() / SLOT.as_millis();
        let slot = u64::try_from(passed).unwrap_or(u64::MAX).max(self.slot);
        for stale in (self.slot + 1..=slot).rev().take(SLOTS) {
            self.slots[slot_of(stale)] = Count::default();
        }
        self.slot = slot;
    }
}

#[cfg(test)]
mod tests;
