//! What the event loop tells the access log: of every request that it begins, and of those that it ends itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::EventLoop;
use super::client::Client;
use super::connection::CloseReason;
use super::listeners::Listener;
use crate::server::access_log::{About, End};
use crate::server::exchange::{Exchange, Stage};
use crate::server::request_head::RequestHead;

impl EventLoop {
    /// Begins the record of a client's request, if there is a log that is to have it.
    pub(super) fn begin_record(
        &mut self,
        slot: u32,
        head: Option<&Arc<RequestHead>>,
        client_ip: IpAddr,
        now: Instant,
    ) {
        let Some(log) = &self.shared.access_log else {
            return;
        };
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        let is_page = head.is_some_and(|head| self.reports.has_page(head.path()));
        let about = About {
            head: head.cloned(),
            is_health: is_page || client.listener != Listener::Public,
        };
        if let Some(record) = log.record(about, client_ip, client.peer, now) {
            client.socket.begin_record(record);
        }
    }

    /// Notes why a client's request is refused.
    pub(super) fn note_refusal(&mut self, slot: u32, reason: &'static str) {
        if let Some(client) = self.clients.get_mut(slot) {
            client.socket.note(|record| record.refused(reason));
        }
    }
}

impl Client {
    /// Notes that bytes may have been sent: gives a request to the access log whose reply is out.
    pub(super) fn end_record_if_sent(&mut self) {
        if self.connection.poll_sent() {
            self.socket.end_record(End::Whole);
        }
    }

    /// Notes how long its request has waited for a worker.
    pub(super) fn note_wait(&self, exchange: &Exchange, now: Instant) {
        self.socket
            .note(|record| record.waited(exchange.waited(now)));
    }

    /// Gives the request to the access log that was at hand when the connection ended.
    pub(super) fn end_record(&self, reason: CloseReason, now: Instant) {
        if let Some(exchange) = &self.exchange {
            if exchange.is(Stage::Replying) {
                // A worker is writing the last of it, and tells how that ended.
                return;
            }
            self.note_wait(exchange, now);
        }
        self.socket.end_record(match reason {
            CloseReason::Finished => End::Whole,
            CloseReason::WriteTimeout => End::Stalled,
            reason if reason.is_the_clients() => End::Left,
            _ => End::Cut,
        });
    }
}
