//! One request to the endpoints: which try is worth another, and what each says about its endpoint.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::answer::{Answer, AnswerBody};
use super::config::BreakerMode;
use super::failure::Failure;
use super::slots::Slot;
use super::upstreams::{Upstream, Upstreams, fail, fault_of};
use super::way::{Sent, Way, blames_endpoint, retry_after};
use crate::health::upstreams::EndpointFault;
use crate::net::client::{ClientError, Reply};
use crate::net::pool::Reuse;
use crate::net::stream::{Interest, Socket, Waited};
use crate::patterns::{Ask, Attempts, Deadline, Failed, Pick, Retry, Unavailable};

/// Why a try failed.
enum FailedTry {
    Unanswered(Failure),
    /// The endpoint's answer says that another try may go better.
    Answered(Box<Answer>),
}

/// What a request waits for, or how it has ended.
#[expect(
    clippy::large_enum_variant,
    reason = "it is moved once, and its end is what is usual"
)]
pub(super) enum Step {
    /// The [socket](Tries::awaited), but no longer than [then](Tries::due).
    Waits,
    /// Another try is to [begin](Tries::begin) then.
    Again(Instant),
    Done(Result<Answer, Failure>),
}

/// What has happened meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The socket is ready, or has failed; whether there may be something to read.
    Ready { readable: bool },
    /// The time may be over.
    Over,
    /// Nobody waits for the answer any more.
    Cancelled,
}

/// A try under way.
struct Try {
    pick: Pick<Upstream>,
    slot: Slot,
    deadline: Deadline,
    /// Most of its time was over when it began: that it is not answered in time says nothing about the endpoint.
    is_short: bool,
    reuse: Reuse,
    /// None before it is sent.
    sent: Option<Sent>,
}

/// One request on its way through the tries. It is told what has happened, and says what it waits for: an event loop
/// waits with no thread, [`run`](Self::run) with its caller's.
///
/// ```text
///            begin            resume: the head is here, or no other try is worth it
///   (start) ──────▶ Waits ──────────────────────────────────────────────────────▶ Done
///                    ▲  │ failed, and worth another
///              begin │  ▼
///                   Again
/// ```
pub(super) struct Tries {
    deadline: Deadline,
    /// Longest that it waits while every endpoint does as much as it can.
    patience: Duration,
    began: Instant,
    attempts: Attempts,
    tried: Vec<Arc<str>>,
    /// Why there is no answer yet.
    last: Option<FailedTry>,
    current: Option<Try>,
    /// When the next try begins, between two of them.
    pauses_until: Instant,
}

impl Tries {
    pub(super) fn new(
        retry: &Retry,
        upstreams: &Upstreams,
        deadline: Deadline,
        patience: Duration,
    ) -> Self {
        let now = Instant::now();
        upstreams.note_request(now);
        Self {
            deadline,
            patience,
            began: now,
            attempts: retry.begin_at(now),
            tried: Vec::new(),
            last: None,
            current: None,
            pauses_until: now,
        }
    }

    /// Tries until there is an answer, or no other try is worth it. Blocks; `cancelled` is asked twice a second whether
    /// the answer is not wanted any more.
    pub(super) fn run(
        mut self,
        way: &Way<'_>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Answer, Failure> {
        let mut step = self.begin(way);
        loop {
            step = match step {
                Step::Waits => {
                    let event = self.wait(cancelled);
                    self.resume(way, event, Instant::now())
                }
                Step::Again(at) => {
                    thread::sleep(at.saturating_duration_since(Instant::now()));
                    self.begin(way)
                }
                Step::Done(result) => return result,
            };
        }
    }

    /// Blocks until there is something to [go on](Self::resume) with.
    fn wait(&self, cancelled: &dyn Fn() -> bool) -> Heard {
        let Some((socket, interest)) = self.awaited() else {
            return Heard::Over;
        };
        match socket.wait(interest, Deadline::at(self.due()), Some(cancelled)) {
            Ok(Waited::Ready { readable }) => Heard::Ready { readable },
            Ok(Waited::Over) => Heard::Over,
            Ok(Waited::Cancelled) => Heard::Cancelled,
            // Reading tells why.
            Err(_) => Heard::Ready { readable: true },
        }
    }

    /// The socket of the try under way, and what it has to be ready for.
    pub(super) fn awaited(&self) -> Option<(&Socket, Interest)> {
        let sent = self.current.as_ref()?.sent.as_ref()?;
        Some(sent.call.awaited())
    }

    /// When to [go on](Self::resume) at the latest.
    pub(super) fn due(&self) -> Instant {
        match &self.current {
            Some(current) => current.deadline.instant(),
            None => self.pauses_until,
        }
    }

    /// Begins a try. It may wait for an endpoint that can do more, and for a connection.
    pub(super) fn begin(&mut self, way: &Way<'_>) -> Step {
        let mut current = match self.current.take() {
            // Its connection turned out to be closed.
            Some(current) => current,
            None => match self.pick(way) {
                Ok(current) => current,
                Err(why) => {
                    let failure = FailedTry::Unanswered(Failure::Unavailable(why));
                    return self.failed(way, failure, &Failed::for_good(()), Instant::now());
                }
            },
        };
        current.is_short |= current.deadline.is_over();
        match way.send(current.pick.data(), current.deadline, current.reuse) {
            Ok(sent) => {
                current.sent = Some(sent);
                self.current = Some(current);
                Step::Waits
            }
            Err(error) => self.unanswered(way, current, error, Instant::now()),
        }
    }

    fn pick(&mut self, way: &Way<'_>) -> Result<Try, Unavailable> {
        let deadline = match way.config.try_timeout {
            Some(timeout) => self.deadline.within(timeout),
            None => self.deadline,
        };
        let slot = way.upstreams.slots.take().ok_or(Unavailable::Full)?;
        let ask = Ask::by(deadline).avoid(&self.tried);
        let key = way.outgoing.key.as_deref();
        let ask = key.map_or(ask, |key| ask.key(key));
        let asked = Instant::now();
        let mut is_short = false;
        let pick = match way.upstreams.balancer.pick_at(ask, asked) {
            Err(Unavailable::Full) => {
                let pick = way.upstreams.balancer.pick(ask.patience(self.patience))?;
                let now = Instant::now();
                let [whole, left] =
                    [asked, now].map(|at| deadline.remaining_at(at).unwrap_or_default());
                is_short = is_short_after_waiting(way.retry, whole, left)?;
                self.attempts.begins_at(now);
                pick
            }
            other => other?,
        };
        self.tried.push(pick.name().clone());
        Ok(Try {
            pick,
            slot,
            deadline,
            is_short,
            reuse: if way.outgoing.may_repeat {
                Reuse::Any
            } else {
                Reuse::Recent
            },
            sent: None,
        })
    }

    /// Goes on with the try under way, without waiting for anything.
    pub(super) fn resume(&mut self, way: &Way<'_>, event: Heard, now: Instant) -> Step {
        let Some(mut current) = self.current.take() else {
            return Step::Again(self.pauses_until);
        };
        let Some(mut sent) = current.sent.take() else {
            self.current = Some(current);
            return Step::Again(now);
        };
        let request = way.request(&sent.head, current.reuse);
        let advanced = match event {
            Heard::Ready { readable } => sent.call.advance(&request, readable),
            // After a pause of this process, what has come in time is yet to be read.
            Heard::Over => sent.call.advance(&request, true),
            Heard::Cancelled => Err(ClientError::Cancelled),
        };
        match advanced {
            Ok(true) => match sent.call.into_reply(&request, current.deadline) {
                Ok(reply) => self.answered(way, current, reply, now),
                Err(error) => self.unanswered(way, current, error, now),
            },
            Ok(false) if current.deadline.instant() <= now => {
                let error = sent.call.timed_out();
                self.unanswered(way, current, error, now)
            }
            Ok(false) => {
                current.sent = Some(sent);
                self.current = Some(current);
                Step::Waits
            }
            Err(error) => self.unanswered(way, current, error, now),
        }
    }

    /// The final head has come.
    fn answered(&mut self, way: &Way<'_>, mut current: Try, reply: Reply, now: Instant) -> Step {
        let Reply {
            head,
            body,
            mut interim,
        } = reply;
        let body = match way.body(&head, body) {
            Ok(body) => body,
            Err(error) => return self.unanswered(way, current, error, now),
        };
        // The event loop answers Expect.
        interim.retain(|head| head.status != 100);
        let is_whole = matches!(body, AnswerBody::Whole(_));
        let is_refusal = matches!(head.status, 502..=504);
        let on_5xx = matches!(way.config.breaker, BreakerMode::On { on_5xx: true, .. });
        if is_refusal || (on_5xx && head.status >= 500) {
            fail(&mut current.pick, EndpointFault::Unable);
        } else if is_whole || matches!(body, AnswerBody::Tunnel(..)) {
            current.pick.success_at(now);
        } else {
            current.pick.answered_at(now);
        }
        let Try { pick, slot, .. } = current;
        let next = (is_refusal && way.outgoing.may_repeat)
            .then(|| way.next(&pick, &self.tried, retry_after(&head), now));
        let answer = Answer {
            head,
            body,
            interim,
            pick: (!is_whole).then_some(pick),
            slot: (!is_whole).then_some(slot),
        };
        if let Some(next) = next {
            return self.failed(way, FailedTry::Answered(Box::new(answer)), &next, now);
        }
        way.retry.success_at(&self.attempts, now);
        self.done(way, Ok(answer), now)
    }

    /// There will be no head.
    fn unanswered(
        &mut self,
        way: &Way<'_>,
        mut current: Try,
        error: ClientError,
        now: Instant,
    ) -> Step {
        let is_stale = matches!(error, ClientError::Stale);
        if is_stale && way.outgoing.may_repeat && current.reuse != Reuse::Never {
            current.reuse = Reuse::Never;
            self.current = Some(current);
            return Step::Again(now);
        }
        log::debug!("{}: {error}", current.pick.name());
        let fault = fault_of(&error);
        let is_excused = current.is_short && fault == EndpointFault::Late;
        if blames_endpoint(&error) && !is_excused {
            fail(&mut current.pick, fault);
        } else if !matches!(error, ClientError::Cancelled) {
            current.pick.excuse();
        }
        let next = if way.is_worth_another(&error) {
            way.next(&current.pick, &self.tried, None, now)
        } else {
            Failed::for_good(())
        };
        let failure = FailedTry::Unanswered(Failure::Client(error));
        self.failed(way, failure, &next, now)
    }

    /// A try is over without the answer that was hoped for.
    fn failed(
        &mut self,
        way: &Way<'_>,
        failure: FailedTry,
        next: &Failed<()>,
        now: Instant,
    ) -> Step {
        // That there is no other endpoint says less than why the last try failed.
        let is_unavailable = matches!(failure, FailedTry::Unanswered(Failure::Unavailable(_)));
        if self.last.is_none() || !is_unavailable {
            self.last = Some(failure);
        }
        let pause = way
            .retry
            .failure_at(&mut self.attempts, next, self.deadline, now);
        if let Some(pause) = pause {
            // What it says of the endpoint was told, and the next try may need its place.
            if let Some(FailedTry::Answered(answer)) = &mut self.last {
                answer.pick = None;
            }
            self.pauses_until = now + pause;
            return Step::Again(self.pauses_until);
        }
        let result = match self.last.take() {
            Some(FailedTry::Answered(answer)) => Ok(*answer),
            Some(FailedTry::Unanswered(failure)) => Err(failure),
            None => Err(Failure::Unavailable(Unavailable::Empty)),
        };
        self.done(way, result, now)
    }

    fn done(&self, way: &Way<'_>, result: Result<Answer, Failure>, now: Instant) -> Step {
        if let (Some(endpoint), Some(request)) = (self.tried.last(), way.outgoing.request) {
            let time = now.saturating_duration_since(self.began);
            request.note_endpoint(endpoint.clone(), self.tried.len(), time);
        }
        Step::Done(result)
    }
}

/// Whether a try is short that had all of this time when it began to wait for a place, and has this left: less than half.
///
/// # Errors
///
/// It is not worth beginning: a try usually takes as long as that.
fn is_short_after_waiting(
    retry: &Retry,
    whole: Duration,
    left: Duration,
) -> Result<bool, Unavailable> {
    if retry.is_enough(left) {
        Ok(left < whole / 2)
    } else {
        Err(Unavailable::Full)
    }
}

#[cfg(all(test, feature = "events"))]
mod tests;
