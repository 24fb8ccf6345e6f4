//! A client's socket, and what was sent on it: the event loop and the worker that has the client's request share it.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mio::net::TcpStream;

use super::access_log::{End, Record};
use crate::panics::lock;

/// Only its own methods write to it, so that all is counted.
#[derive(Debug)]
pub(crate) struct ClientSocket {
    stream: TcpStream,
    /// Bytes that it has taken.
    sent: AtomicU64,
    /// What the access log is to say of the request that is being answered. A client has one at a time; who may answer it
    /// by the exchange's stage, or ends the connection, is who may touch this.
    record: Mutex<Option<Box<Record>>>,
}

impl ClientSocket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            sent: AtomicU64::new(0),
            record: Mutex::new(None),
        }
    }

    /// Writes until the socket takes no more; returns how much it took.
    pub(crate) fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match (&self.stream).write(&bytes[sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => sent += self.count(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    /// The same for a head and the body behind it, in one call as long as the head is not out.
    pub(crate) fn write_both(&self, head: &[u8], body: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < head.len() {
            match (&self.stream).write_vectored(&[IoSlice::new(&head[sent..]), IoSlice::new(body)])
            {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => sent += self.count(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(sent),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let of_body = sent - head.len();
        Ok(sent + self.write_some(&body[of_body..])?)
    }

    fn count(&self, sent: usize) -> usize {
        self.sent.fetch_add(sent as u64, Ordering::Relaxed);
        sent
    }

    /// Notes that the access log is to have a request.
    pub(crate) fn begin_record(&self, record: Record) {
        let sent_before = self.sent.load(Ordering::Relaxed);
        *lock(&self.record) = Some(Box::new(record.after(sent_before)));
    }

    /// Adds to what the access log is to say, if it is to have the request.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut *lock(&self.record) {
            change(record);
        }
    }

    /// Gives the request to the access log, unless it is there already.
    pub(crate) fn end_record(&self, end: End) {
        let record = lock(&self.record).take();
        if let Some(record) = record {
            record.log(end, self.sent.load(Ordering::Relaxed));
        }
    }
}

impl Deref for ClientSocket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl Drop for ClientSocket {
    /// Of a reply that a worker was writing as the client went, nobody else tells.
    fn drop(&mut self) {
        self.end_record(End::Left);
    }
}
