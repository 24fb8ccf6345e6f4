//! Requests that no client has sent.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::{Reply, Request};
use crate::health::Health;
use crate::http::fields::{self, has_control, is_token_byte};
use crate::http::head::{self, Scan};
use crate::server::request_head::RequestHead;
use crate::settings::{Config, LONGEST};

/// Makes a [`Request`] without a server, to test a handler with.
///
/// What is not set is that of a usual request: `GET /` from 127.0.0.1, of which 30 s remain. `Host: localhost` and the
/// length of the body are added when they are not given.
///
/// ```
/// use std::time::Duration;
///
/// use plimsoll::Request;
///
/// let mut request = Request::builder()
///     .method("POST")
///     .url("/orders?dry-run")
///     .header("Content-Type", "application/json")
///     .body(r#"{"tea":1}"#)
///     .remaining(Duration::from_secs(2))
///     .build();
/// assert_eq!((request.path(), request.query()), ("/orders", Some("dry-run")));
/// assert_eq!(request.header("content-length"), Some("9"));
/// ```
#[derive(Debug, Clone)]
#[must_use = "build makes the request"]
pub struct RequestBuilder {
    method: String,
    url: String,
    /// Each as it stands in a head, with its CR LF.
    fields: Vec<u8>,
    body: Vec<u8>,
    peer: SocketAddr,
    remaining: Duration,
    abandoned: bool,
}

impl RequestBuilder {
    pub(super) fn new() -> Self {
        Self {
            method: "GET".to_owned(),
            url: "/".to_owned(),
            fields: Vec::new(),
            body: Vec::new(),
            peer: (Ipv4Addr::LOCALHOST, 0).into(),
            remaining: Duration::from_secs(30),
            abandoned: false,
        }
    }

    /// The method. Default GET.
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = method.into();
        self
    }

    /// The target: path and query. Default `/`.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self
    }

    /// Adds a header, behind those that were added before.
    ///
    /// # Panics
    /// The name is not a token, or the value holds control characters.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        assert!(
            !name.is_empty() && name.bytes().all(is_token_byte),
            "expected a token as the name of a header, found {name:?}"
        );
        assert!(
            !has_control(value),
            "expected no control characters in the header {name}, found some"
        );
        fields::push(&mut self.fields, name, value);
        self
    }

    /// The body. Default empty.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The address at the other end of the connection, and so the client's. Default 127.0.0.1, port 0.
    pub fn peer(mut self, peer: SocketAddr) -> Self {
        self.peer = peer;
        self
    }

    /// How long after [`build`](Self::build) the handler is overdue. Default 30 s, at most 24 h.
    pub fn remaining(mut self, remaining: Duration) -> Self {
        self.remaining = remaining;
        self
    }

    /// Whether the handler is told that nobody waits for its reply any more. Default false.
    pub fn abandoned(mut self, abandoned: bool) -> Self {
        self.abandoned = abandoned;
        self
    }

    /// The request. Its [`health`](Request::health) is that of a server that has just started.
    ///
    /// # Panics
    /// Method, target and headers are none that a server would hand to its handler: it answers them 400 or the like.
    #[must_use]
    pub fn build(self) -> Request {
        let has = |wanted: &str| {
            let mut fields = fields::iterate(&self.fields);
            fields.any(|(name, _)| name.eq_ignore_ascii_case(wanted))
        };
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.url).into_bytes();
        if !has("Host") {
            fields::push(&mut text, "Host", b"localhost");
        }
        if !self.body.is_empty() && !has("Content-Length") && !has("Transfer-Encoding") {
            fields::push_number(&mut text, "Content-Length", self.body.len() as u64);
        }
        text.extend_from_slice(&self.fields);
        text.extend_from_slice(b"\r\n");
        // The ends of lines are written above, and nowhere else.
        let one_line = !has_control(self.method.as_bytes()) && !has_control(self.url.as_bytes());
        let head = match head::parse(&text, usize::MAX, &mut Scan::default()) {
            Ok(Some((_, head))) if one_line => head,
            other => panic!(
                "no server hands {} {:?} to a handler: {other:?}",
                self.method, self.url
            ),
        };
        let (trips, _) = crossbeam_channel::bounded(0);
        let now = Instant::now();
        Request {
            head: Arc::new(RequestHead::new(head)),
            latin: OnceLock::new(),
            body: std::io::Cursor::new(self.body.into()),
            room: None,
            peer: self.peer,
            client: self.peer.ip().to_canonical(),
            deadline: now + self.remaining.min(LONGEST),
            reply: Reply::Built {
                abandoned: self.abandoned,
            },
            health: Arc::new(Health::new(&Config::default(), trips, now)),
        }
    }
}
