//! What a handler reads.

use std::fmt;
use std::io::{Cursor, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::health::Health;
use crate::http::head::{Head, Version};
use crate::server::event_loop::connection::Incoming;
use crate::server::exchange::{Exchange, Stage};

/// A whole request: its head, and its body behind a [`Read`].
pub struct Request {
    head: Head,
    /// Values that are not UTF-8, as text: the field's number, and every byte as a character of ISO 8859-1, HTTP's
    /// charset of old.
    latin: Vec<(usize, String)>,
    exchange: Arc<Exchange>,
    health: Arc<Health>,
    body: Cursor<Vec<u8>>,
}

impl Request {
    pub(crate) fn new(incoming: Incoming, exchange: Arc<Exchange>, health: Arc<Health>) -> Self {
        let Incoming { head, body } = incoming;
        let values = head.fields().map(|(_, value)| value).enumerate();
        let latin = values.filter(|(_, value)| str::from_utf8(value).is_err());
        let latin =
            latin.map(|(index, value)| (index, value.iter().copied().map(char::from).collect()));
        let latin = latin.collect();
        Self {
            head,
            latin,
            exchange,
            health,
            body: Cursor::new(body),
        }
    }

    /// The method, as the client wrote it: methods are case-sensitive (RFC 9110 section 9.1).
    #[must_use]
    pub fn method(&self) -> &str {
        self.head.method_text()
    }

    /// The version of HTTP that the client speaks: `1.0` or `1.1`.
    #[must_use]
    pub fn version(&self) -> &'static str {
        match self.head.version {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
        }
    }

    /// The target in origin form: path and query, or `*`.
    #[must_use]
    pub fn url(&self) -> &str {
        self.head.target()
    }

    /// The target up to its `?`, not decoded.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.path()
    }

    /// What stands after the target's first `?`, not decoded.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.head.query()
    }

    /// The first header of that name (in any case).
    ///
    /// Bytes outside ASCII are read as UTF-8 where they are UTF-8, else as ISO 8859-1; see
    /// [`header_bytes`](Self::header_bytes) for the bytes themselves.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The first header of that name (in any case), byte for byte.
    #[must_use]
    pub fn header_bytes(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.headers_bytes();
        let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    /// All headers in the client's order, those of one name beside each other or not: name and value, byte for byte.
    pub fn headers_bytes(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.head.fields()
    }

    /// All headers as the client sent them, in its order: name and value.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = self.head.fields().enumerate();
        fields.map(|(index, (name, value))| {
            let text = str::from_utf8(value).unwrap_or_else(|_| self.latin_at(index));
            (name, text)
        })
    }

    fn latin_at(&self, index: usize) -> &str {
        let mut latin = self.latin.iter();
        latin
            .find(|(at, _)| *at == index)
            .map_or("", |(_, text)| text)
    }

    /// The body, without its transfer coding. It is whole before the handler starts.
    pub fn body(&mut self) -> &mut dyn Read {
        &mut self.body
    }

    /// The whole body, however much of it has been read.
    #[must_use]
    pub fn body_bytes(&self) -> &[u8] {
        self.body.get_ref()
    }

    /// The whole body's length in bytes, however much of it has been read.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.body.get_ref().len()
    }

    /// The address at the other end of the connection: the client's, or that of a proxy in front.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.exchange.origin.peer
    }

    /// The client's address: the [peer's](Self::peer), unless the setting [`trust`](crate::Config::trust) names it as a
    /// proxy. Then it is the last address in `X-Forwarded-For` that is not such a proxy's. An IPv4-mapped IPv6 address
    /// is given as IPv4.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        self.exchange.origin.client_ip
    }

    /// The request's id: its `X-Request-Id` if that is 1 to 128 visible ASCII characters, else 32 random hexadecimal
    /// digits. The access log has the same. Send it on with requests to other services, so that their logs can be put
    /// beside.
    #[must_use]
    pub fn id(&self) -> &str {
        self.exchange.id(&self.head)
    }

    /// Time left until the client gets 504 instead of this handler's reply; zero when it is over.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.exchange
            .deadline
            .saturating_duration_since(Instant::now())
    }

    /// Whether nobody waits for the reply any more: the client has gone, or was answered 504. A long-running
    /// handler should look now and then, and stop.
    #[must_use]
    pub fn abandoned(&self) -> bool {
        self.exchange.is(Stage::Abandoned)
    }

    /// The health of the server that runs this handler.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method())
            .field("url", &self.url())
            .field("peer", &self.peer())
            .finish_non_exhaustive()
    }
}
