//! What a handler reads.

use std::fmt;
use std::io::{Cursor, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::exchange::{Exchange, Stage};
use crate::frontend::head::{RAW_PREFIX, decode_raw};
use crate::frontend::intake::target_start;
use crate::health::Health;

/// A whole request: its head, and its body behind a [`Read`].
pub struct Request {
    /// `None` only while dropping.
    inner: Option<tiny_http::Request>,
    /// Headers that travelled encoded: where they stand, and what they say.
    decoded: Vec<Decoded>,
    exchange: Arc<Exchange>,
    health: Arc<Health>,
    body: Cursor<Vec<u8>>,
}

struct Decoded {
    index: usize,
    bytes: Vec<u8>,
    text: String,
}

impl Request {
    pub(crate) fn new(
        inner: tiny_http::Request,
        exchange: Arc<Exchange>,
        health: Arc<Health>,
    ) -> Self {
        let decoded = inner
            .headers()
            .iter()
            .enumerate()
            .filter(|(_, header)| header.field.as_str().as_str().starts_with(RAW_PREFIX))
            .map(|(index, header)| {
                let bytes = decode_raw(header.value.as_str());
                let text = match String::from_utf8(bytes.clone()) {
                    Ok(text) => text,
                    // Every byte is a character of ISO 8859-1, HTTP's charset of old.
                    Err(_) => bytes.iter().copied().map(char::from).collect(),
                };
                Decoded { index, bytes, text }
            })
            .collect();
        let body = Cursor::new(exchange.take_body());
        Self {
            inner: Some(inner),
            decoded,
            exchange,
            health,
            body,
        }
    }

    fn inner(&self) -> &tiny_http::Request {
        self.inner.as_ref().expect("taken only while dropping")
    }

    /// The method, as the client wrote it: methods are case-sensitive (RFC 9110 section 9.1).
    #[must_use]
    pub fn method(&self) -> &str {
        self.inner().method().as_str()
    }

    /// The target in origin form: path and query, or `*`.
    #[must_use]
    pub fn url(&self) -> &str {
        let url = self.inner().url();
        &url[target_start(url)..]
    }

    /// The target up to its `?`, not decoded.
    #[must_use]
    pub fn path(&self) -> &str {
        let url = self.url();
        url.split_once('?').map_or(url, |(path, _)| path)
    }

    /// What stands after the target's first `?`, not decoded.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.url().split_once('?').map(|(_, query)| query)
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
        self.entries()
            .find(|(_, field, _)| field.eq_ignore_ascii_case(name))
            .map(|(index, _, value)| match self.decoded_at(index) {
                Some(decoded) => decoded.bytes.as_slice(),
                None => value.as_bytes(),
            })
    }

    /// All headers as the client sent them, in its order: name and value.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries().map(|(index, field, value)| {
            let decoded = self.decoded_at(index);
            (field, decoded.map_or(value, |decoded| &decoded.text))
        })
    }

    /// Index, client's name and value in transit of each header.
    fn entries(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        let headers = self.inner().headers().iter().enumerate();
        headers.map(|(index, header)| {
            let field = header.field.as_str().as_str();
            let field = field.strip_prefix(RAW_PREFIX).unwrap_or(field);
            (index, field, header.value.as_str())
        })
    }

    fn decoded_at(&self, index: usize) -> Option<&Decoded> {
        self.decoded.iter().find(|decoded| decoded.index == index)
    }

    /// The body, without its transfer coding. It is whole before the handler starts.
    pub fn body(&mut self) -> &mut dyn Read {
        &mut self.body
    }

    /// The whole body's length in bytes, however much of it has been read.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.body.get_ref().len()
    }

    /// The client's address.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.exchange.origin.peer
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

impl Drop for Request {
    fn drop(&mut self) {
        // A tiny_http request dropped with its writer answers 500 up the stream; without, it is silent.
        if let Some(inner) = self.inner.take() {
            drop(inner.into_writer());
        }
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
