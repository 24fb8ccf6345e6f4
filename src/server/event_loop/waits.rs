//! Requests that wait for another server, or for another request: no worker waits with them.

use std::time::Instant;

use super::EventLoop;
use super::client::Wait;
use super::connection::CloseReason;
use crate::health::bump;
use crate::panics::catch;
use crate::server::access_log::End;
use crate::server::exchange::{ClientKey, Stage};
use crate::server::jobs::Job;
use crate::server::response::{Response, Resumed, Trigger};
use crate::server::task::{Task, Waits};

impl EventLoop {
    /// Looks after a client whose request waits, at its deadline.
    pub(super) fn handle_wait_timeout(&mut self, slot: u32, now: Instant) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        if !client.awaits_other() {
            return;
        }
        if client.has_left(now) {
            client.connection.close(CloseReason::Client);
        } else if client.wait.due().is_some_and(|due| due <= now) {
            self.go_on_waiting(slot, Trigger::Due, now);
        }
    }

    /// What a client's request waits for may have happened.
    pub(super) fn handle_wake(&mut self, key: ClientKey) {
        let Some(client) = self.clients.by_key(key) else {
            return;
        };
        if client.wait.is_under_way() {
            self.workers.dispatcher.wake(key);
        } else {
            client.note_early();
        }
    }

    /// Lets those go on that have waited for other requests, as far as there is room.
    pub(super) fn resume_woken(&mut self, now: Instant) {
        while let Some(key) = self.workers.dispatcher.next_woken() {
            if self.clients.by_key(key).is_some() {
                self.go_on_waiting(key.slot, Trigger::Ready { readable: true }, now);
                self.advance(key.slot, now);
            }
        }
    }

    /// Goes on with the request of a client that waits. The caller serves the client then.
    pub(super) fn go_on_waiting(&mut self, slot: u32, event: Trigger, now: Instant) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        let Wait::For(waits, place) = client.wait.take() else {
            return;
        };
        let Waits { mut task, waiting } = *waits;
        let resumed = catch(|| waiting.resume(&task.request, event, now));
        let response = match resumed {
            Ok(Resumed::Waits(waiting)) => {
                client.wait = Wait::For(Box::new(Waits { task, waiting }), place);
                return;
            }
            Ok(Resumed::Works(then)) => {
                if place.is_none() {
                    // Another's request is not its own work.
                    task.began = now;
                }
                let task = Box::new(task);
                return self
                    .workers
                    .dispatcher
                    .submit_exempt(Job::Continue { task, then });
            }
            Ok(Resumed::Replies(response)) => response,
            Err(what) => {
                bump(&self.shared.health.counts.panics);
                log::error!("what waited panicked: {what}");
                Response::text(500, "the handler failed\n")
            }
        };
        self.reply(task, response, now);
    }

    /// Sends the reply to a request that has waited.
    fn reply(&mut self, task: Task, response: Response, now: Instant) {
        let exchange = task.exchange.clone();
        if !exchange.advance(Stage::Waiting, Stage::Running) {
            return;
        }
        let ended = self.replier.finish(task, response);
        if ended.is_sent() {
            exchange.origin.socket.end_record(End::Whole);
        }
        self.end(exchange, ended, now, now);
    }
}

#[cfg(all(test, feature = "proxy"))]
mod tests;
