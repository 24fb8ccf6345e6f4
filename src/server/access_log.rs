//! The access log: a line for each request, written by nobody who serves.
//!
//! ```text
//!   request whole or refused         status, wait, reason              last byte sent, or cut
//!   ─────────────────────────▶ Record ──────────────────▶ (the same) ─────────────────────────▶ a line, queued
//!         event loop                 worker or event loop               whoever sent it
//! ```
//!
//! The record waits at the client's [socket](super::client_socket::ClientSocket), which also counts the bytes. Whoever
//! takes it from there writes the line, so a request has one line and no more.

mod line;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::request_head::RequestHead;
use crate::error::Error;
use crate::lines::Lines;
use crate::lines::file::FileSink;
use crate::settings::{AccessLogFormat, Config};

/// How long the end of a server waits for what is still to be written.
const FLUSH: Duration = Duration::from_secs(1);

/// The status of a request whose client left before it had a reply, as nginx has it.
const CLIENT_LEFT: u16 = 499;

/// The log, and what it is to have.
#[derive(Debug)]
pub(crate) struct AccessLog {
    lines: Lines,
    format: AccessLogFormat,
    /// Health requests too.
    health: bool,
}

impl AccessLog {
    /// Opens what the settings name, if anything.
    ///
    /// # Errors
    /// The file can't be opened, or the system gives no thread.
    pub(crate) fn open(config: &Config) -> Result<Option<Arc<Self>>, Error> {
        let Some(target) = &config.access_log else {
            return Ok(None);
        };
        let failed = |source: io::Error| Error::AccessLog {
            path: target.clone(),
            source,
        };
        let sink = FileSink::open(target, "the access log").map_err(failed)?;
        let lines = Lines::start("the access log", sink).map_err(failed)?;
        Ok(Some(Arc::new(Self {
            lines,
            format: config.access_log_format,
            health: config.access_log_health,
        })))
    }

    /// Begins the record of a request; none if the log is not to have it.
    pub(crate) fn record(
        self: &Arc<Self>,
        about: About,
        client: IpAddr,
        peer: SocketAddr,
        received: Instant,
    ) -> Option<Record> {
        if about.is_health && !self.health {
            return None;
        }
        Some(Record {
            log: self.clone(),
            head: about.head,
            client,
            peer,
            received,
            sent_before: 0,
            status: 0,
            head_length: 0,
            wait: None,
            reason: about.is_health.then_some("health"),
        })
    }

    /// Opens the file anew, as it has been moved away.
    pub(crate) fn reopen(&self) {
        self.lines.reopen();
    }

    /// Its queue.
    pub(crate) fn lines(&self) -> Lines {
        self.lines.clone()
    }

    /// Ends it, and waits a moment until everything is written.
    pub(crate) fn close(&self) {
        if !self.lines.close(FLUSH) {
            log::warn!("the end of the access log could not be written in time");
        }
    }
}

/// Which request it is.
#[derive(Debug)]
pub(crate) struct About {
    /// `None` when it could not be read.
    pub(crate) head: Option<Arc<RequestHead>>,
    /// It asks for the server's health.
    pub(crate) is_health: bool,
}

/// How the answer to a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The last byte was given to the socket.
    Whole,
    /// The client left before that.
    Left,
    /// The client took nothing for the write timeout.
    Stalled,
    /// The server cut it.
    Cut,
}

impl End {
    fn reason(self) -> Option<&'static str> {
        match self {
            Self::Whole => None,
            Self::Left => Some("left"),
            Self::Stalled => Some("stalled"),
            Self::Cut => Some("cut"),
        }
    }
}

/// What the log is to say of one request.
#[derive(Debug)]
pub(crate) struct Record {
    log: Arc<AccessLog>,
    head: Option<Arc<RequestHead>>,
    client: IpAddr,
    peer: SocketAddr,
    /// When it was whole, or refused.
    received: Instant,
    /// What the socket had taken before the reply, in bytes.
    sent_before: u64,
    /// Zero until there is a reply.
    status: u16,
    /// The reply's head, in bytes.
    head_length: usize,
    /// How long it waited for a worker.
    wait: Option<Duration>,
    /// Why the server answered it by itself, in a word.
    reason: Option<&'static str>,
}

impl Record {
    /// The same, of a request for whose socket so many bytes were sent before.
    pub(crate) fn after(mut self, sent_before: u64) -> Self {
        self.sent_before = sent_before;
        self
    }

    /// Notes that a reply of that status begins with a head of so many bytes.
    pub(crate) fn replied(&mut self, status: u16, head_length: usize) {
        self.status = status;
        self.head_length = head_length;
    }

    /// Takes how long it waited for a worker.
    pub(crate) fn waited(&mut self, wait: Duration) {
        self.wait = Some(wait);
    }

    /// Takes why it is refused; the first reason is the true one.
    pub(crate) fn refused(&mut self, reason: &'static str) {
        self.reason.get_or_insert(reason);
    }

    /// Writes the line; the socket has taken `sent` bytes by now.
    pub(crate) fn log(mut self, end: End, sent: u64) {
        if self.status == 0 && end == End::Left {
            self.status = CLIENT_LEFT;
        }
        self.reason = end.reason().or(self.reason);
        let duration = self.received.elapsed();
        let time = SystemTime::now().checked_sub(duration);
        let sent = sent.saturating_sub(self.sent_before);
        let facts = line::Facts {
            time: time.unwrap_or(SystemTime::UNIX_EPOCH),
            duration,
            bytes: sent.saturating_sub(self.head_length as u64),
        };
        self.log
            .lines
            .push(&line::write(self.log.format, &self, &facts));
    }
}
