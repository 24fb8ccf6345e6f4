//! What the event loop answers by itself: the health paths and every refusal.

use std::time::Instant;

use super::EventLoop;
use super::admission::Shed;
use super::client::Client;
use super::connection::{After, CloseReason, Piece};
use crate::health::bump;
use crate::http::body::Framing;
use crate::http::refusal::Refusal;
use crate::report::Answer;
use crate::server::exchange::ReplyRules;
use crate::server::response::{DateCache, write_head};
use crate::server::throttling::Throttled;

impl EventLoop {
    /// Refuses a request for want of a worker.
    pub(super) fn shed(&mut self, slot: u32, reason: Shed, now: Instant) {
        let counts = &self.shared.health.counts;
        bump(match reason {
            Shed::Queue => &counts.shed_queue,
            Shed::Deadline => &counts.shed_deadline,
            Shed::Fair => &counts.shed_fair,
            Shed::Bodies => &counts.shed_bodies,
        });
        self.note_refusal(slot, reason.name());
        self.retry_after.count(false, now);
        let seconds = self.retry_after.seconds(now);
        let refusal = match reason {
            Shed::Bodies => Refusal::NoRoom,
            _ if self.shared.health.sources.upstreams.is_some() => Refusal::AllWait,
            Shed::Queue | Shed::Deadline | Shed::Fair => Refusal::Shed,
        };
        self.refuse(slot, refusal, Some(seconds), now);
    }

    /// Refuses a request that comes too often.
    pub(super) fn throttle(&mut self, slot: u32, answer: &Answer, now: Instant) {
        self.note_refusal(slot, Refusal::Throttled.name());
        self.answer(slot, answer, now);
    }

    /// Answers with a refusal, and closes the connection where it can't be trusted further.
    pub(super) fn refuse(
        &mut self,
        slot: u32,
        refusal: Refusal,
        retry_after: Option<u64>,
        now: Instant,
    ) {
        self.note_refusal(slot, refusal.name());
        self.answer(slot, &refused(refusal, retry_after), now);
    }

    pub(super) fn answer(&mut self, slot: u32, answer: &Answer, now: Instant) {
        let closes = self.draining.is_under_way();
        if let Some(client) = self.clients.get_mut(slot) {
            self.replies.send(client, answer, closes, now);
        }
    }
}

/// What answers are written with.
#[derive(Default)]
pub(super) struct Replies {
    date: DateCache,
    /// The last answer, with its head.
    scratch: Vec<u8>,
}

impl Replies {
    /// Answers a client's request, as far as its socket takes that now. With `closes` the connection closes after it.
    fn send(&mut self, client: &mut Client, answer: &Answer, closes: bool, now: Instant) {
        log::debug!("{} {} from the event loop", client.peer, answer.status);
        let rules = client.rules;
        let close = answer.close || !rules.keep_alive || closes;
        let (head, out) = self.write(answer, rules, close);
        client
            .socket
            .note(|record| record.replied(answer.status, head));
        let after = if close { After::Close } else { After::Keep };
        if !client.connection.output().is_empty() {
            // What was sent before goes first.
            let piece = Piece::new(out.to_vec(), 0);
            return client.connection.answer([piece], after, now);
        }
        match client.socket.write_some(out) {
            Ok(sent) if sent == out.len() => client.connection.answer([], after, now),
            Ok(sent) => {
                let piece = Piece::new(out[sent..].to_vec(), 0);
                client.connection.answer([piece], after, now);
            }
            Err(_) => client.connection.close(CloseReason::Reset),
        }
        client.end_record_if_sent();
    }

    /// The answer with its head, and how long that is.
    fn write(&mut self, answer: &Answer, rules: ReplyRules, close: bool) -> (usize, &[u8]) {
        let seconds = answer.retry_after.map(|seconds| seconds.to_string());
        let headers = [
            Some(("Content-Type", answer.content_type)),
            answer.no_store.then_some(("Cache-Control", "no-store")),
            answer.allow.map(|methods| ("Allow", methods)),
            seconds.as_deref().map(|seconds| ("Retry-After", seconds)),
        ];
        let headers = headers.into_iter().flatten();
        let headers = headers.chain(answer.headers.iter().copied());
        let made = answer.made_headers.iter();
        let headers = headers.chain(made.map(|(name, value)| (*name, value.as_str())));
        let headers = headers.filter(|(_, value)| !value.is_empty());
        let length = Framing::Length(answer.body.len() as u64);
        let (out, date) = (&mut self.scratch, &mut self.date);
        out.clear();
        write_head(
            out,
            answer.status,
            headers,
            length,
            rules.http11,
            close,
            date,
        );
        let head = out.len();
        if !rules.head_only {
            out.extend_from_slice(&answer.body);
        }
        (head, out)
    }
}

/// The answer to a request that comes too often.
pub(super) fn throttled(throttled: &Throttled<'_>) -> Answer {
    Answer {
        made_headers: throttled.fields().into(),
        ..refused(Refusal::Throttled, Some(throttled.retry_after))
    }
}

fn refused(refusal: Refusal, retry_after: Option<u64>) -> Answer {
    Answer {
        status: refusal.status(),
        retry_after,
        close: refusal.must_close(),
        ..Answer::text(refusal.text())
    }
}
