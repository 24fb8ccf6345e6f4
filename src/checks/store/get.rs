//! A GET over HTTP/1.1 on a connection of its own. Nothing is read beyond the reply's head.

use std::ops::Range;

use super::clean::clean;
use crate::checks::CheckError;
use crate::net::client::{self, ClientError, Reply, Request};
use crate::net::stream::Socket;
use crate::patterns::Deadline;

/// The statuses of who serves: 2xx and 3xx.
pub(crate) const WELL: Range<u16> = 200..400;

/// The whole request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Get(pub(super) String);

impl Get {
    /// `target` is the path and query, `host` and `accept` are the values of those fields: visible ASCII and spaces, so
    /// that none of it can end the line it is in.
    pub(crate) fn new(target: &str, host: &str, accept: &str) -> Self {
        Self(format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: plimsoll/{}\r\nAccept: {accept}\r\n\
             Connection: close\r\n\r\n",
            env!("CARGO_PKG_VERSION")
        ))
    }

    /// Asks, and waits for the reply's head, whose status is one of `statuses`.
    pub(crate) fn ask(
        &self,
        socket: Socket,
        deadline: Deadline,
        statuses: &Range<u16>,
    ) -> Result<Reply, CheckError> {
        let unexpected = |line: &[u8]| {
            let found = clean(line, None);
            let (first, last) = (statuses.start, statuses.end - 1);
            let expected = format!("a reply of HTTP/1.1 with a status from {first} to {last}");
            CheckError::new(format!("GET: expected {expected}, found {found:?}"))
        };
        let request = Request::get(self.0.as_bytes());
        let reply = match client::send_once(socket, &request, deadline) {
            Ok(reply) => reply,
            Err(ClientError::StatusLine(found)) => return Err(unexpected(&found)),
            Err(error @ ClientError::Response(_)) => {
                return Err(CheckError::new(format!("GET: {error}")));
            }
            Err(error) => return Err(CheckError::new(error.to_string())),
        };
        let head = &reply.head;
        if !statuses.contains(&head.status) {
            let version = u8::from(head.http11);
            let start = format!("HTTP/1.{version} {} ", head.status);
            let line = [start.as_bytes(), head.reason()].concat();
            return Err(unexpected(&line).with_answer());
        }
        Ok(reply)
    }
}
