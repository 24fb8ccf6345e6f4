//! The guard of a request that is pending at an endpoint.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SharedMembers;
use super::members::{Id, Member, Report};
use crate::patterns::breaker::{CircuitBreaker, Permit};
use crate::patterns::deadline::Deadline;

#[cfg(doc)]
use super::Ask;

/// What is taken along from under the lock.
pub(super) struct Chosen<E> {
    id: Id,
    name: Arc<str>,
    data: Arc<E>,
    breaker: Option<CircuitBreaker>,
}

impl<E> Chosen<E> {
    pub(super) fn of(member: &Member<E>) -> Self {
        Self {
            id: member.id,
            name: Arc::clone(&member.endpoint.name),
            data: Arc::clone(&member.endpoint.data),
            breaker: member.endpoint.breaker.clone(),
        }
    }
}

/// How much of a request has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Pending,
    /// The answer has begun.
    Answered,
    /// How it went, or that this says nothing.
    Reported,
}

/// An endpoint that was chosen for a request, which is pending there until this is dropped.
///
/// The first [`success`](Self::success) or [`failure`](Self::failure) counts, unless it was [excused](Self::excuse) before.
/// Without any of these, as when the client has left:
///
/// - if the answer had [begun](Self::answered), the request was a success;
/// - if it has waited for 1 s or longer, the endpoint has answered no request since it began, and there are others to ask,
///   it was a failure: else an endpoint that hangs would never be found out where clients have less patience than the
///   deadline;
/// - any other counts as nothing, but the endpoint's latency is at least the time that it has waited.
#[derive(Debug)]
#[must_use = "the request counts as pending only as long as this lives"]
pub struct Pick<E> {
    shared: Arc<SharedMembers<E>>,
    id: Id,
    name: Arc<str>,
    data: Arc<E>,
    breaker: Option<CircuitBreaker>,
    permit: Option<Permit>,
    trial: bool,
    begun: Instant,
    /// The time it may take.
    longest: Duration,
    stage: Stage,
}

impl<E> Pick<E> {
    /// Makes the guard, if the breaker lends a permit; else says who refused.
    pub(super) fn lend(
        shared: &Arc<SharedMembers<E>>,
        chosen: Chosen<E>,
        deadline: Deadline,
        now: Instant,
    ) -> Result<Self, Id> {
        // From here on the guard gives the place back.
        let mut pick = Self {
            shared: Arc::clone(shared),
            id: chosen.id,
            name: chosen.name,
            data: chosen.data,
            breaker: chosen.breaker,
            permit: None,
            trial: false,
            begun: now,
            longest: deadline.remaining_at(now).unwrap_or_default(),
            stage: Stage::Pending,
        };
        if let Some(breaker) = &pick.breaker {
            let permit = breaker.permit_at(now).map_err(|_open| pick.id)?;
            pick.trial = permit.is_trial();
            pick.permit = Some(permit);
        }
        Ok(pick)
    }

    /// The endpoint's name, also for [`Ask::avoid`].
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What is needed to reach it.
    #[must_use]
    pub fn data(&self) -> &Arc<E> {
        &self.data
    }

    /// Whether this is a trial of the endpoint's breaker.
    #[must_use]
    pub fn is_trial(&self) -> bool {
        self.trial
    }

    /// The endpoint's answer has begun: the time since it was picked is its latency.
    ///
    /// Whether the answer comes whole is told by [`success`](Self::success) or [`failure`](Self::failure) when it has
    /// ended. If this is dropped before, since nobody wants the rest, the request was a success. A trial of the breaker has
    /// succeeded by now: an answer may take days, and nobody else gets a trial as long as one is under way.
    pub fn answered(&mut self) {
        self.answered_at(Instant::now());
    }

    /// [`answered`](Self::answered), with the time as an argument.
    pub fn answered_at(&mut self, now: Instant) {
        self.report(None, now);
    }

    /// The endpoint did its work. If the answer has not [begun](Self::answered) before, the time since it was picked is its
    /// latency. The request stays pending until this is dropped.
    pub fn success(&mut self) {
        self.success_at(Instant::now());
    }

    /// [`success`](Self::success), with the time as an argument.
    pub fn success_at(&mut self, now: Instant) {
        self.report(Some(true), now);
    }

    /// The endpoint failed: it could not be reached, took too long, could not do its work or did not end its answer.
    pub fn failure(&mut self) {
        self.failure_at(Instant::now());
    }

    /// [`failure`](Self::failure), with the time as an argument.
    pub fn failure_at(&mut self, now: Instant) {
        self.report(Some(false), now);
    }

    /// How the request went says nothing about the endpoint: it counts as nothing, however long it has waited.
    pub fn excuse(&mut self) {
        self.stage = Stage::Reported;
    }

    /// Tells how the request went; none: its answer has begun.
    fn report(&mut self, success: Option<bool>, now: Instant) {
        let before = self.stage;
        let stage = match success {
            None => Stage::Answered,
            Some(_) => Stage::Reported,
        };
        if before >= stage {
            return;
        }
        self.stage = stage;
        let elapsed = now.saturating_duration_since(self.begun);
        let time = match success {
            Some(false) => Some(elapsed.max(self.longest)),
            _ => (before == Stage::Pending).then_some(elapsed),
        };
        let report = Report {
            success,
            seconds: time.map(|time| time.as_secs_f64()),
            trial: self.trial,
        };
        self.shared.members().report(self.id, report, now);
        match success {
            None if !self.trial => {}
            None | Some(true) => {
                if let Some(permit) = self.permit.take() {
                    permit.success_at(now);
                }
            }
            Some(false) => {
                // That of a trial whose answer has begun is spent.
                let another = || self.breaker.as_ref()?.permit_at(now).ok();
                if let Some(permit) = self.permit.take().or_else(another) {
                    permit.failure_at(now);
                }
            }
        }
    }

    /// Nobody waits for the endpoint any more.
    pub(super) fn give_up(&mut self, now: Instant) {
        match self.stage {
            Stage::Pending => {
                let hangs = self.shared.members().give_up(self.id, self.begun, now);
                if hangs {
                    self.failure_at(now);
                }
            }
            Stage::Answered => self.success_at(now),
            Stage::Reported => {}
        }
    }
}

impl<E> Drop for Pick<E> {
    fn drop(&mut self) {
        if self.stage != Stage::Reported {
            self.give_up(Instant::now());
        }
        self.shared.end(self.id);
    }
}
