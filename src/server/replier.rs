//! Replies on their way to clients: what the socket takes at once, and what is left for the event loop.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::health::{ReplyOutcome, bump};
use crate::panics::catch;
use crate::server::done::{Ended, Then};
use crate::server::event_loop::connection::{CloseReason, Piece};
use crate::server::exchange::{Exchange, Stage};
use crate::server::relay::Progress;
use crate::server::response::{DateCache, Payload, Response};
use crate::server::shared::Shared;
use crate::server::stream::{Source, Stream};
use crate::server::task::Task;

/// A body up to this size is copied behind its head, so that one plain write does; a larger one is left in place.
const COPY_UP_TO: usize = 16 * 1024;

/// A buffer keeps no more than this between replies.
const KEEP_BUFFER: usize = 64 * 1024;

/// Sends replies: each thread that does has its own.
pub(crate) struct Replier {
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    date: DateCache,
    /// How long it stays with a reply whose client takes all that comes. Then the event loop sees that the reply makes
    /// progress, and others have their turn.
    turn: Duration,
}

impl Replier {
    pub(crate) fn new(shared: Arc<Shared>, turn: Duration) -> Self {
        Self {
            shared,
            buffer: Vec::new(),
            date: DateCache::default(),
            turn,
        }
    }

    /// Lets go of the memory that a large reply took.
    pub(crate) fn trim(&mut self) {
        if self.buffer.capacity() > KEEP_BUFFER {
            self.buffer = Vec::new();
        }
    }

    /// Sends what a task has come to, and counts it.
    pub(crate) fn finish(&mut self, task: Task, mut response: Response) -> Ended {
        let Task {
            exchange,
            mut request,
            permit,
            began,
        } = task;
        if let Some(relay) = response.relay().filter(|relay| relay.is_unsent()) {
            relay.send_on(request.take_body());
        }
        let status = response.status();
        let result = self.reply(response, &exchange);
        let ended = Instant::now();
        let health = &self.shared.health;
        health.served(permit, ended.saturating_duration_since(began), ended);
        if matches!(result, Ended::Dropped) {
            bump(&health.counts.late);
        } else {
            health.responded(ended.saturating_duration_since(exchange.admitted));
        }
        log::debug!(
            "{} {} {} {status} {:?}",
            exchange.origin.peer,
            request.method(),
            request.url(),
            ended.saturating_duration_since(began),
        );
        result
    }

    /// Sends the reply as far as the socket takes it, and counts it once its end is at hand.
    pub(crate) fn reply(&mut self, response: Response, exchange: &Exchange) -> Ended {
        let outcome = ReplyOutcome::of(response.status());
        self.reply_as(response, exchange, outcome)
    }

    /// The same with another word on how the request has ended.
    pub(crate) fn reply_as(
        &mut self,
        response: Response,
        exchange: &Exchange,
        outcome: ReplyOutcome,
    ) -> Ended {
        self.buffer.clear();
        let status = response.status();
        let draining = self.shared.health.gauges.draining.load(Ordering::Relaxed);
        let rules = exchange.origin.rules;
        let (date, buffer) = (&mut self.date, &mut self.buffer);
        // A reply to HEAD drops its reader here, and that is user code too.
        let parts = catch(|| response.into_parts(rules, draining, date, buffer));
        let Ok((close, payload)) = parts else {
            bump(&self.shared.health.counts.panics);
            log::error!("a reply's reader panicked while it was dropped");
            if !claim(exchange, status, true) {
                return Ended::Dropped;
            }
            self.shared.health.ended(ReplyOutcome::Failed);
            return Ended::Broken(CloseReason::Cut);
        };
        let payload = match payload {
            Some(Payload::Stream(stream)) => return self.stream(stream, exchange, status),
            Some(Payload::Bytes(bytes)) => bytes,
            None => Cow::default(),
        };
        if !exchange.advance(Stage::Running, Stage::Replying) {
            return Ended::Dropped;
        }
        self.shared.health.ended(outcome);
        self.note_reply(exchange, status, self.buffer.len());
        let then = if close { Then::Close } else { Then::Keep };
        if payload.len() <= COPY_UP_TO {
            self.buffer.extend_from_slice(&payload);
            return match exchange.origin.socket.write_some(&self.buffer) {
                Ok(sent) => Ended::Replied {
                    rest: rest_of(&self.buffer, sent),
                    then,
                },
                Err(error) => broken(&error),
            };
        }
        let head = self.buffer.len();
        match exchange.origin.socket.write_both(&self.buffer, &payload) {
            Ok(sent) => {
                let mut rest = Vec::new();
                if sent < head {
                    rest.push(Piece::new(self.buffer[sent..].to_vec(), 0));
                }
                if sent < head + payload.len() {
                    rest.push(Piece::new(payload, sent.saturating_sub(head)));
                }
                Ended::Replied { rest, then }
            }
            Err(error) => broken(&error),
        }
    }

    /// Tells the access log that a reply begins. Only who has claimed the exchange may.
    fn note_reply(&self, exchange: &Exchange, status: u16, head_length: usize) {
        if self.shared.access_log.is_some() {
            exchange.origin.socket.note(|record| {
                record.replied(status, head_length);
                record.waited(exchange.waited(Instant::now()));
            });
        }
    }

    /// Goes on with a reply whose client has read what came before.
    pub(crate) fn go_on(&mut self, stream: Stream, exchange: &Exchange) -> Ended {
        self.buffer.clear();
        self.stream(stream, exchange, exchange.status())
    }

    /// Reads the body and sends it behind what is in the buffer, until its end, until the socket is full, or until
    /// others should have a turn. Until a byte has been sent, somebody else may still answer.
    fn stream(&mut self, mut stream: Stream, exchange: &Exchange, status: u16) -> Ended {
        let began = Instant::now();
        // Empty when the reply goes on.
        let mut head = self.buffer.len();
        loop {
            let start = self.buffer.len();
            // The error may be of a user's type, and so its text and its end a user's code.
            let filled = catch(|| {
                let filled = stream.fill(&mut self.buffer);
                filled.map_err(|error| error.to_string())
            });
            let progress = filled.unwrap_or_else(|what| {
                // The room that was made for the reader's bytes must not pass for them.
                self.buffer.truncate(start);
                bump(&self.shared.health.counts.panics);
                Err(format!("the reader panicked: {what}"))
            });
            let is_last = !matches!(progress, Ok(Progress::More | Progress::Dry));
            if !claim(exchange, status, is_last) {
                self.discard(stream);
                return Ended::Dropped;
            }
            if head > 0 {
                self.note_reply(exchange, status, std::mem::take(&mut head));
            }
            let progress = match progress {
                Ok(progress) => progress,
                Err(error) => {
                    log::debug!(
                        "{}: a reply was cut, its body failed: {error}",
                        exchange.origin.peer
                    );
                    bump(&self.shared.health.counts.cut);
                    self.shared.health.ended(ReplyOutcome::Failed);
                    // What came before the fault still goes out; the end that is missing tells the client.
                    drop(exchange.origin.socket.write_some(&self.buffer));
                    self.discard(stream);
                    return Ended::Broken(CloseReason::Cut);
                }
            };
            if progress == Progress::End {
                self.shared.health.ended(ReplyOutcome::of(status));
                // Before the client can ask again.
                if let Source::Relay(relay) = &mut stream.source {
                    relay.give_back(Instant::now());
                }
            }
            let sent = match exchange.origin.socket.write_some(&self.buffer) {
                Ok(sent) => sent,
                Err(error) => {
                    // Unless the event loop has noticed that before, and has counted it.
                    if progress != Progress::End
                        && exchange.advance(Stage::Streaming, Stage::Abandoned)
                    {
                        self.shared.health.ended(ReplyOutcome::of(status));
                    }
                    self.discard(stream);
                    return broken(&error);
                }
            };
            let may_go_on = began.elapsed() < self.turn;
            if sent == self.buffer.len() && progress == Progress::More && may_go_on {
                self.buffer.clear();
                continue;
            }
            let rest = rest_of(&self.buffer, sent);
            let then = match progress {
                Progress::More | Progress::Dry => Then::More(stream),
                Progress::End => {
                    let close = stream.close;
                    self.discard(stream);
                    if close { Then::Close } else { Then::Keep }
                }
            };
            return Ended::Replied { rest, then };
        }
    }

    /// Drops what may run a user's code when it is dropped, and so may panic.
    pub(crate) fn discard<T>(&self, it: T) {
        if let Err(what) = catch(|| drop(it)) {
            bump(&self.shared.health.counts.panics);
            log::error!("a reply's reader panicked while it was dropped: {what}");
        }
    }
}

/// Claims the right to send the next part of a reply; with `is_last`, all that is left. False when somebody else has
/// answered, or has cut it.
fn claim(exchange: &Exchange, status: u16, is_last: bool) -> bool {
    if is_last {
        exchange.advance(Stage::Running, Stage::Replying)
            || exchange.advance(Stage::Streaming, Stage::Replying)
    } else {
        exchange.begin_stream(status) || exchange.is(Stage::Streaming)
    }
}

fn broken(error: &io::Error) -> Ended {
    log::debug!("a reply could not be written: {error}");
    Ended::Broken(CloseReason::Reset)
}

fn rest_of(buffer: &[u8], sent: usize) -> Vec<Piece> {
    let rest = &buffer[sent..];
    if rest.is_empty() {
        Vec::new()
    } else {
        vec![Piece::new(rest.to_vec(), 0)]
    }
}
