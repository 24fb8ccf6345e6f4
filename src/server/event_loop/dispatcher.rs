//! From admission to the workers: what waits, what is dispatched, and how much of it the workers still have.
//!
//! ```text
//!   submit ─────────▶ admission ──┐
//!                                 ├─ next ─▶ dispatch ─▶ jobs (announced through tiny_http) ─▶ a worker ─▶ done
//!   submit_exempt ──▶ exempt ─────┘
//!      ▲
//!   next_woken, once one more request may begin
//! ```
//!
//! No I/O, and time is an argument. The event loop sends the announcements and tells of what has broken.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::admission::{Admission, Shed, Ticket};
use crate::health::gate::Occupancy;
use crate::server::exchange::ClientKey;
use crate::server::jobs::{Job, Jobs};

/// Requests dispatched beyond one for each worker are at most so many ...
const MOST_PREFETCHED: usize = 64;

/// ... and no more than the workers finish in this time: enough to hide the way to a worker behind the jobs that are
/// about to end, too little to matter to a queue budget.
const PREFETCH_TIME: Duration = Duration::from_millis(1);

/// When no job has been begun for this time though some are dispatched, the workers that are awake are busy for longer
/// than was predicted: another one is woken.
const PROGRESS_WITHIN: Duration = Duration::from_millis(1);

/// The same while every worker is awake and has something to do, so that there is nobody to wake.
const PROGRESS_WITHIN_WHEN_FULL: Duration = Duration::from_millis(20);

/// How often in a row there is no progress although a worker waits for requests, until the stream to the workers is taken
/// for broken: a second at least. Counted and not timed, so that a process that gets no processor does not look like this.
const LOST: u32 = 1000;

/// The requests on their way to the workers.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    workers: usize,
    admission: Admission<Job>,
    /// What needs no admission: requests that have waited, replies to go on with, and what a worker is to drop. Bounded by
    /// the number of clients.
    exempt: VecDeque<Job>,
    /// Of these, requests that have waited, and may ask another server.
    continuing: usize,
    /// The last job that was dispatched came from there.
    last_was_exempt: bool,
    /// Clients whose requests have waited for others' requests, which have ended. Nobody leads without a place, so while
    /// there is none no more are added than wait already.
    woken: VecDeque<ClientKey>,
    jobs: Arc<Jobs>,
    /// Whether what is dispatched reaches the workers.
    open: bool,
    /// Jobs dispatched since the start; the last one's number.
    dispatched: u64,
    /// Of these, how many have been announced.
    announced: u64,
    /// Of these, how many nobody has to do any more.
    done: u64,
    /// Of these, how many were taken back before a worker began them.
    taken_back: u64,
    /// Requests that wait for another server.
    places: Arc<AtomicUsize>,
    /// Some have.
    has_places: bool,
    /// The stream was made anew when so many had been begun, and nothing has come through it yet.
    unproven: Option<u64>,
    /// How many had been begun when that last changed, and when that was.
    begun: (u64, Instant),
    /// How often since then there was no progress although a worker waited for requests.
    unanswered: u32,
    /// When a lack of progress was last acted upon.
    called: Instant,
}

impl Dispatcher {
    pub(crate) fn new(
        admission: Admission<Job>,
        workers: usize,
        jobs: Arc<Jobs>,
        now: Instant,
    ) -> Self {
        Self {
            workers,
            admission,
            exempt: VecDeque::new(),
            last_was_exempt: false,
            continuing: 0,
            woken: VecDeque::new(),
            jobs,
            open: true,
            dispatched: 0,
            announced: 0,
            done: 0,
            taken_back: 0,
            places: Arc::default(),
            has_places: false,
            unproven: None,
            begun: (0, now),
            unanswered: 0,
            called: now,
        }
    }

    /// Jobs dispatched that no worker is done with.
    pub(crate) fn at_workers(&self) -> usize {
        usize::try_from(self.dispatched - self.done).unwrap_or(usize::MAX)
    }

    /// Requests that wait for another server.
    pub(crate) fn places(&self) -> usize {
        self.places.load(Ordering::Relaxed)
    }

    /// Whether requests have waited for another server.
    pub(crate) fn has_places(&self) -> bool {
        self.has_places
    }

    /// What has begun, or is about to: as many as there are workers may, whether a worker waits with them or not. So the
    /// number of workers bounds what another server gets at once.
    fn busy(&self) -> usize {
        self.at_workers() + self.places() + self.continuing
    }

    /// Notes that a worker is done with a request, which now waits for another server: until the place is dropped.
    pub(crate) fn place(&mut self) -> Place {
        self.has_places = true;
        self.places.fetch_add(1, Ordering::Relaxed);
        Place(self.places.clone())
    }

    /// Requests that wait for a worker.
    pub(crate) fn waiting(&self) -> usize {
        self.admission.len()
    }

    /// Whether the end of any job sets something going here.
    pub(crate) fn has_backlog(&self) -> bool {
        self.admission.len() > 0 || !self.exempt.is_empty() || !self.woken.is_empty()
    }

    /// Whether a worker would begin one more request at once. What waits already has the workers that fall idle.
    pub(crate) fn has_idle_worker(&self) -> bool {
        self.open && self.busy() + self.admission.len() < self.workers
    }

    /// Whether a request of `peer` may wait; see [`Admission::decide`].
    pub(crate) fn decide(
        &self,
        peer: IpAddr,
        occupancy: Occupancy,
        predicted: Option<Duration>,
        now: Instant,
    ) -> Result<(), Shed> {
        let prefetched = self.busy().saturating_sub(self.workers);
        self.admission
            .decide(peer, prefetched, occupancy, predicted, now)
    }

    /// How long a request that came now would wait for a worker.
    pub(crate) fn predicted_wait(
        &self,
        occupancy: Occupancy,
        predicted: Option<Duration>,
        now: Instant,
    ) -> Duration {
        let prefetched = self.busy().saturating_sub(self.workers);
        self.admission
            .predicted_wait(prefetched, occupancy, predicted, now)
    }

    /// Appends an admitted request to those that wait.
    pub(crate) fn submit(&mut self, job: Job, peer: IpAddr, now: Instant) -> Ticket {
        self.admission.push(job, peer, now)
    }

    /// Appends a request that has waited, the rest of a reply, or something to drop.
    pub(crate) fn submit_exempt(&mut self, job: Job) {
        self.continuing += usize::from(job.continues());
        self.exempt.push_back(job);
    }

    /// Has the request of a client go on that has waited for another request.
    pub(crate) fn wake(&mut self, client: ClientKey) {
        self.woken.push_back(client);
    }

    /// The next of them, if it could begin now.
    pub(crate) fn next_woken(&mut self) -> Option<ClientKey> {
        let has_place = self.busy() < self.workers;
        has_place.then(|| self.woken.pop_front()).flatten()
    }

    /// Takes a request out whose client has gone.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Job> {
        self.admission.remove(ticket)
    }

    /// The next job for the workers, if they have room for one. The caller looks whether it is still wanted, and then
    /// calls [`dispatch`](Self::dispatch).
    pub(crate) fn next(&mut self, predicted: Option<Duration>, now: Instant) -> Option<Job> {
        if !self.open || self.at_workers() >= self.workers + self.prefetch(predicted) {
            return None;
        }
        // Where requests wait without a worker, one is free at once for what is dispatched ahead.
        let has_place = !self.has_places || self.busy() < self.workers;
        let waits = has_place && self.admission.len() > 0;
        // By turns, so that endless replies and new requests do not starve each other.
        let first = !waits || !std::mem::take(&mut self.last_was_exempt);
        let exempt = first.then(|| self.exempt.pop_front()).flatten();
        self.last_was_exempt = exempt.is_some();
        self.continuing -= usize::from(exempt.as_ref().is_some_and(Job::continues));
        exempt.or_else(|| waits.then(|| self.admission.pop(now)).flatten())
    }

    fn prefetch(&self, predicted: Option<Duration>) -> usize {
        let Some(predicted) = predicted else {
            return 0;
        };
        let jobs = PREFETCH_TIME.as_nanos() * self.workers as u128 / predicted.as_nanos().max(1);
        usize::try_from(jobs)
            .unwrap_or(usize::MAX)
            .min(MOST_PREFETCHED)
    }

    /// Gives a job to the workers; true when there is an idle one for it.
    pub(crate) fn dispatch(&mut self, job: Job, now: Instant) -> bool {
        let idle = self.busy() < self.workers;
        if self.unbegun() == 0 {
            self.begun.1 = now;
        }
        self.dispatched += 1;
        self.jobs.put(self.dispatched, job);
        idle
    }

    /// Notes that a worker is done with a job.
    pub(crate) fn done(&mut self) {
        self.done += 1;
    }

    /// The numbers of the jobs that are to be announced: beyond the first, up to the second. They count as announced
    /// from now on.
    pub(crate) fn announce(&mut self) -> (u64, u64) {
        let announced = std::mem::replace(&mut self.announced, self.dispatched);
        (announced, self.dispatched)
    }

    /// Notes that announcements are lost: what no worker has begun is to be announced anew, once
    /// [`opened`](Self::opened).
    pub(crate) fn broken(&mut self) {
        self.open = false;
        self.announced = self.jobs.first().map_or(self.dispatched, |first| first - 1);
    }

    /// Notes that the stream was made anew. A job that is nothing to do shows whether it works.
    pub(crate) fn opened(&mut self, now: Instant) {
        self.open = true;
        self.begun.1 = now;
        self.unanswered = 0;
        self.unproven = Some(self.jobs.begun());
        self.submit_exempt(Job::Drop(Box::new(())));
    }

    /// Whether something has just come through a stream that was made anew; true once.
    pub(crate) fn is_proven(&mut self) -> bool {
        let proven = |begun: &mut u64| *begun < self.jobs.begun();
        self.unproven.take_if(proven).is_some()
    }

    /// Ends: leaves all that is left, and `more`, for a worker to drop.
    pub(crate) fn leave(mut self, more: impl Send + 'static) {
        let left = (std::mem::take(&mut self.exempt), more);
        self.dispatched += 1;
        self.jobs.put(self.dispatched, Job::Drop(Box::new(left)));
        self.jobs.release(self.dispatched);
    }

    /// The next request that has waited for a worker as long as it may.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Job> {
        self.admission.expire(now)
    }

    /// Requests that were dispatched and have waited as long as they may. While a worker is idle there are none: it
    /// only has to be scheduled.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<Job> {
        if (self.open && self.at_workers() <= self.workers) || self.unbegun() == 0 {
            return Vec::new();
        }
        let limit = now.checked_sub(self.admission.budget());
        let overdue = limit.map_or_else(Vec::new, |limit| self.jobs.overdue(limit));
        self.done += overdue.len() as u64;
        self.taken_back += overdue.len() as u64;
        overdue
    }

    /// Jobs dispatched that no worker has begun.
    pub(crate) fn unbegun(&self) -> u64 {
        self.dispatched - self.taken_back - self.jobs.begun()
    }

    /// Whether another worker is to be woken, since no job has been begun for a while; not again for as long.
    pub(crate) fn lacks_progress(&mut self, now: Instant) -> bool {
        let begun = self.jobs.begun();
        if begun != self.begun.0 || self.unbegun() == 0 {
            self.begun = (begun, now);
            self.unanswered = 0;
        }
        let still = now >= self.begun.1.max(self.called) + PROGRESS_WITHIN;
        if still {
            self.called = now;
        }
        still
    }

    /// Notes whether a worker waits for requests although there is no progress. True when that has been so for so long that
    /// what is announced can't have reached them.
    pub(crate) fn is_lost(&mut self, in_vain: bool) -> bool {
        self.unanswered = if in_vain { self.unanswered + 1 } else { 0 };
        self.unanswered >= LOST
    }

    /// When to look again. `all_work` while every worker has something to do.
    pub(crate) fn next_timeout(&self, all_work: bool) -> Option<Instant> {
        let progress = (self.unbegun() > 0).then(|| {
            let time = if all_work {
                PROGRESS_WITHIN_WHEN_FULL
            } else {
                PROGRESS_WITHIN
            };
            self.called.max(self.begun.1) + time
        });
        [progress, self.admission.next_timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}

/// A request's place among those that may be begun at once, while it waits for another server.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
