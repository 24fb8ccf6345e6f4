//! The workers as the event loop sees them: what waits for them, what they have, and the stream that announces it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mio::Registry;
use mio::net::UnixStream;

use super::admission::Admission;
use super::dispatcher::Dispatcher;
use super::intake::Intake;
use super::poller::Registrar;
use crate::health::gate::Occupancy;
use crate::health::{Health, bump};
use crate::server::aside::Lane;
use crate::server::idle_workers::IdleWorkers;
use crate::server::jobs::Job;
use crate::server::shared::Shared;
use crate::settings::Config;

/// See the [module](self).
pub(super) struct WorkerPool {
    pub(super) dispatcher: Dispatcher,
    intake: Intake,
    shared: Arc<Shared>,
    workers: usize,
    /// For what does not wait for the workers.
    pub(super) lane: Option<Lane>,
    /// Dropped once the first job has come back.
    proof: Option<Sender<()>>,
}

impl WorkerPool {
    /// All workers free, behind that stream.
    ///
    /// # Errors
    /// The event queue's refusal of the stream.
    pub(super) fn new(
        config: &Config,
        shared: Arc<Shared>,
        stream: UnixStream,
        lane: Option<Lane>,
        proof: Sender<()>,
        registry: &Registry,
        now: Instant,
    ) -> io::Result<Self> {
        let intake = Intake::new(stream, &mut Registrar(registry), now)?;
        let admission = Admission::new(
            config.queue_budget,
            config.queue_max,
            config.workers,
            config.fair,
        );
        let mut dispatcher = Dispatcher::new(admission, config.workers, shared.jobs.clone(), now);
        dispatcher.submit_exempt(Job::Drop(Box::new(())));
        Ok(Self {
            dispatcher,
            intake,
            shared,
            workers: config.workers,
            lane,
            proof: Some(proof),
        })
    }

    fn health(&self) -> &Health {
        &self.shared.health
    }

    /// What admission and the gate know of the workers.
    pub(super) fn occupancy(&self) -> Occupancy {
        self.health().occupancy(self.dispatcher.has_idle_worker())
    }

    /// How long a request that came now would wait for a worker.
    pub(super) fn predicted_wait(&self, now: Instant) -> Duration {
        let predicted = self.health().predicted();
        self.dispatcher
            .predicted_wait(self.occupancy(), predicted, now)
    }

    /// The next job for the workers, see [`Dispatcher::next`].
    pub(super) fn next(&mut self, now: Instant) -> Option<Job> {
        self.dispatcher.next(self.shared.health.predicted(), now)
    }

    /// Gives a job to the workers.
    pub(super) fn dispatch(&mut self, job: Job, now: Instant) {
        self.health().gauges.in_flight.fetch_add(1, Relaxed);
        if self.dispatcher.dispatch(job, now) {
            self.health().idle_worker_taken(now);
        }
    }

    /// Takes back what was dispatched and has waited as long as it may.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Vec<Job> {
        let overdue = self.dispatcher.overdue(now);
        self.health()
            .gauges
            .in_flight
            .fetch_sub(overdue.len(), Relaxed);
        overdue
    }

    /// Notes that the first job of all has come back: from here on every worker is known to be free.
    pub(super) fn started(&mut self) {
        self.proof = None;
    }

    /// Announces what is dispatched through tiny_http, and wakes as many workers as it needs.
    pub(super) fn announce(&mut self, registry: &Registry, now: Instant) {
        let lacks_progress = self.dispatcher.lacks_progress(now);
        let shared = self.shared.clone();
        let (idle_workers, work) = (&shared.idle_workers, shared.health.work());
        if self.intake.is_open() {
            let batch = IdleWorkers::batch(work);
            let announced = self.dispatcher.announce();
            self.intake.announce(announced, batch);
            let sent = self.intake.flush(&mut Registrar(registry));
            let in_vain = idle_workers.has_receiver() && !shared.jobs.is_ready();
            let lost = lacks_progress && self.dispatcher.is_lost(in_vain);
            if let Err(error) = sent {
                self.lose_stream(&error, now);
            } else if lost {
                self.lose_stream(&io::Error::other("nothing comes through"), now);
            }
        }
        if self.dispatcher.is_proven() {
            self.intake.proven();
            shared.health.intake_up();
        }
        if self.dispatcher.unbegun() == 0 {
            return;
        }
        // Of jobs that were announced together, the worker that has the first may be held up by it, and one that waits
        // for requests sees the others only when it wakes.
        if lacks_progress && idle_workers.has_receiver() && shared.jobs.is_ready() {
            shared.wake_receiver();
        }
        let awake = idle_workers.awake();
        let (requests, are_put_off) = (self.dispatcher.at_workers(), self.dispatcher.has_places());
        let mut needed = idle_workers.needed(requests, work, are_put_off);
        if lacks_progress {
            needed = needed.max(awake + 1);
        }
        idle_workers.wake(needed.saturating_sub(awake));
    }

    /// Looks at the stream, which has become readable.
    pub(super) fn handle_readable(&mut self, now: Instant) {
        if let Err(error) = self.intake.handle_readable() {
            self.lose_stream(&error, now);
        }
    }

    /// Notes that the stream is broken, if it is still known as whole.
    pub(super) fn stream_failed(&mut self, why: &io::Error, now: Instant) {
        if self.intake.is_open() {
            self.lose_stream(why, now);
        }
    }

    /// Gives the stream up. What is on its way waits for the next one, as long as it may.
    fn lose_stream(&mut self, why: &io::Error, now: Instant) {
        self.intake.fail(why, now);
        self.dispatcher.broken();
        self.health().intake_down_since(now);
        bump(&self.health().counts.stream_failures);
    }

    /// Opens a broken stream anew when that is due; true when there is one again.
    pub(super) fn reopen_stream(&mut self, registry: &Registry, now: Instant) -> bool {
        let Some(carrier) = self.intake.reopen(&mut Registrar(registry), now) else {
            return false;
        };
        self.shared.replace_carrier(carrier, self.workers);
        self.dispatcher.opened(now);
        true
    }

    /// When to look again.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let idle_workers = &self.shared.idle_workers;
        // A worker may begin to wait just after this look, so it has to be repeated all the same.
        let all_work = idle_workers.awake() == self.workers && !idle_workers.has_receiver();
        let due = [
            self.dispatcher.next_timeout(all_work),
            self.intake.next_timeout(),
        ];
        due.into_iter().flatten().min()
    }

    /// Breaks the stream as a fault would.
    #[cfg(test)]
    pub(super) fn sabotage(&self) {
        self.intake.sabotage();
    }
}
