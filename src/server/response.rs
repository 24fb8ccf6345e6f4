//! What a handler returns.

mod head;
mod into;
mod later;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};

use self::head::{is_own, push_status_line};
use crate::http::fields::{self, is_control, is_token_byte};
use crate::server::relay::{Relay, Tunnel};

#[cfg(feature = "proxy")]
pub(crate) use head::usual_reason;
pub(crate) use head::{DateCache, Payload, write_head};
pub use into::IntoResponse;
pub(crate) use later::{Continuation, Resumed, Signals, Trigger, Waiting, Wake};

/// A reply: status, headers, and a body in memory or behind a [`Read`].
///
/// The server adds `Connection` and the framing (`Content-Length`, or chunks when the length is not known) by itself, and
/// `Date` unless the reply has one.
///
/// ```
/// use plimsoll::Response;
///
/// # fn main() -> std::io::Result<()> {
/// let mut response = Response::json(r#"{"id":7}"#).with_status(201).with_header("Location", "/orders/7");
///
/// // A test reads what a handler returned.
/// assert_eq!(response.status(), 201);
/// assert_eq!(response.header("content-type"), Some("application/json"));
/// assert_eq!(response.body()?, br#"{"id":7}"#);
/// # Ok(())
/// # }
/// ```
pub struct Response {
    status: u16,
    /// The reason phrase; none: the usual one.
    reason: Option<Cow<'static, str>>,
    /// As [`fields::push`] writes them.
    headers: Vec<u8>,
    /// They can be sent as they are: none of them is the server's, and the date is among them.
    complete: bool,
    /// Heads of interim replies as they go over the wire.
    interim: Vec<u8>,
    body: Body,
}

/// A reply's body.
pub(crate) enum Body {
    Bytes(Cow<'static, [u8]>),
    Reader {
        reader: Box<dyn Read + Send>,
        length: Option<u64>,
    },
    /// What another server sends.
    Relay {
        relay: Box<Relay>,
        length: Option<u64>,
    },
    /// Another protocol, after 101.
    Tunnel {
        tunnel: Box<Tunnel>,
        protocol: String,
    },
    /// Nothing is known of the reply yet, and no worker waits for it.
    Later(Box<dyn Waiting>),
}

impl Response {
    /// A reply with a body in memory; no `Content-Type` yet.
    ///
    /// A status outside 200 to 999 is the handler's mistake, and becomes 500.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self::with_body(status, Body::Bytes(body.into()))
    }

    /// A reply with a `text/plain` body.
    #[must_use]
    pub fn text(status: u16, body: impl Into<Cow<'static, str>>) -> Self {
        Self::new(status, text_bytes(body.into()))
            .with_header("Content-Type", "text/plain; charset=utf-8")
    }

    /// 200 with an `application/json` body, which the caller has serialized; see [`with_status`](Self::with_status)
    /// for another status.
    #[must_use]
    pub fn json(body: impl Into<Cow<'static, str>>) -> Self {
        Self::new(200, text_bytes(body.into())).with_header("Content-Type", "application/json")
    }

    /// A reply without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self::new(status, &b""[..])
    }

    /// Sends the client elsewhere (RFC 9110 section 15.4). `location` is a URI or a part of one, such as `/orders/7`.
    ///
    /// The status is 303 after a POST, whose result is to be read with GET; 307 for now, or 308 for ever, where the
    /// client repeats the same request. With 301 and 302 a client may turn POST into GET.
    #[must_use]
    pub fn redirect(status: u16, location: impl AsRef<[u8]>) -> Self {
        Self::empty(status).with_header("Location", location)
    }

    /// A reply whose body is read as the client takes it, by a worker, never more than a little ahead.
    ///
    /// `length` is in bytes; without one the body goes out in chunks (to an HTTP/1.0 client, until the
    /// connection closes). A reader that ends short of `length`, or fails, cuts the connection so that the
    /// client can tell; what it has beyond `length` is not sent.
    #[must_use]
    pub fn reader(status: u16, reader: impl Read + Send + 'static, length: Option<u64>) -> Self {
        let reader = Box::new(reader);
        Self::with_body(status, Body::Reader { reader, length })
    }

    /// A reply whose body another server sends: `length` bytes of it, or as many as come. No worker waits for it.
    pub(crate) fn relayed(status: u16, relay: Relay, length: Option<u64>) -> Self {
        let relay = Box::new(relay);
        Self::with_body(status, Body::Relay { relay, length })
    }

    /// 101: the connection becomes a tunnel to another server, whose reply said so. `protocol` is a name of `Upgrade`
    /// there.
    pub(crate) fn switching(protocol: String, tunnel: Tunnel) -> Self {
        let tunnel = Box::new(tunnel);
        let response = Self::with_body(200, Body::Tunnel { tunnel, protocol });
        Self {
            status: 101,
            ..response
        }
    }

    /// What the handler answers once something else has happened. No worker waits for that.
    #[cfg(feature = "proxy")]
    pub(crate) fn later(waiting: Box<dyn Waiting>) -> Self {
        Self::with_body(503, Body::Later(waiting))
    }

    /// The other server's reply that it is to be relayed, if it is.
    pub(crate) fn relay(&mut self) -> Option<&mut Relay> {
        match &mut self.body {
            Body::Relay { relay, .. } => Some(relay),
            _ => None,
        }
    }

    /// What it waits for, if it does.
    pub(crate) fn into_later(self) -> Result<Box<dyn Waiting>, Self> {
        match self.body {
            Body::Later(waiting) => Ok(waiting),
            body => Err(Self { body, ..self }),
        }
    }

    /// The same reply with these headers only, which can be sent as they are: as [`fields::push`] writes them, none of them
    /// one that [only the server sets](Self::with_header), and the date among them.
    #[cfg(feature = "proxy")]
    pub(crate) fn with_complete_headers(self, headers: Vec<u8>) -> Self {
        Self {
            headers,
            complete: true,
            ..self
        }
    }

    /// Adds a header that is not one of the [server's own](Self::with_header), beside those of that name.
    #[cfg(all(feature = "proxy", feature = "cache"))]
    pub(crate) fn with_plain_header(mut self, name: &str, value: &[u8]) -> Self {
        push_header(&mut self.headers, name, value);
        self
    }

    /// The same reply with another body.
    #[cfg(all(feature = "proxy", feature = "cache"))]
    pub(crate) fn with_other_body(self, body: Body) -> Self {
        Self { body, ..self }
    }

    fn with_body(status: u16, body: Body) -> Self {
        Self {
            status: final_status(status),
            reason: None,
            headers: Vec::new(),
            complete: false,
            interim: Vec::new(),
            body,
        }
    }

    /// The same reply with another status; one outside 200 to 999 becomes 500.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        let status = final_status(status);
        Self { status, ..self }
    }

    /// Sets the reason phrase behind the status, which nothing but people read. Control characters in it become spaces.
    #[must_use]
    pub fn with_reason(self, reason: impl Into<Cow<'static, str>>) -> Self {
        let mut reason = reason.into();
        if reason.bytes().any(is_control) {
            reason = Cow::Owned(reason.replace(|c: char| c.is_ascii_control(), " "));
        }
        Self {
            reason: Some(reason),
            ..self
        }
    }

    /// Sets a header: it replaces those of that name (in any case). The value is text or bytes.
    ///
    /// The server's own (`Content-Length`, `Transfer-Encoding`, `Connection`, `Keep-Alive`, `Upgrade`, `Trailer`) are
    /// left out, except that `close` in `Connection` closes. A name that is no token is left out; control characters in
    /// a value become spaces, so that no value can split a reply.
    #[must_use]
    pub fn with_header(mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref();
        let is_same = |(other, _): &(&str, &[u8])| other.eq_ignore_ascii_case(name);
        if self.headers_bytes().any(|field| is_same(&field)) {
            let mut others = Vec::with_capacity(self.headers.capacity());
            for (name, value) in self.headers_bytes().filter(|field| !is_same(field)) {
                fields::push(&mut others, name, value);
            }
            self.headers = others;
        }
        self.with_added_header(name, value)
    }

    /// Adds a header, beside those of that name.
    ///
    /// Only a header whose value is a list may stand in a reply several times, such as `Vary`, `Link`, `Via`,
    /// `Cache-Control` or `WWW-Authenticate`, and `Set-Cookie` (RFC 9110 section 5.3). Of `Content-Type`, `Location`,
    /// `ETag` and the like there is one, so set them with [`with_header`](Self::with_header). Names and values are
    /// treated as there.
    ///
    /// ```
    /// use plimsoll::Response;
    ///
    /// let response = Response::text(200, "{}")
    ///     .with_header("Content-Type", "application/json")
    ///     .with_added_header("Set-Cookie", "a=1")
    ///     .with_added_header("Set-Cookie", "b=2");
    /// # assert_eq!(response.status(), 200);
    /// ```
    #[must_use]
    pub fn with_added_header(mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        push_header(&mut self.headers, name.as_ref(), value.as_ref());
        self.complete = false;
        self
    }

    /// Adds an interim reply (status 100 to 199, but not 101), which is sent before this one, to clients of HTTP/1.1 only.
    /// Another status is left out.
    #[must_use]
    pub fn with_interim<'a>(
        mut self,
        status: u16,
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        if !matches!(status, 100 | 102..=199) {
            log::warn!("left out an interim reply with status {status}");
            return self;
        }
        let mut lines = Vec::new();
        for (name, value) in headers {
            push_header(&mut lines, name, value);
        }
        push_status_line(&mut self.interim, status, None);
        self.interim.extend_from_slice(b"\r\n");
        for (name, value) in fields::iterate(&lines).filter(|(name, _)| !is_own(name)) {
            fields::push(&mut self.interim, name, value);
        }
        self.interim.extend_from_slice(b"\r\n");
        self
    }

    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first header of that name (in any case); `None` too when its value is not UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers_bytes();
        let (_, value) = headers.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        str::from_utf8(value).ok()
    }

    /// The headers that were set, in that order: name and value, byte for byte. Those that the server adds are not there
    /// yet.
    pub fn headers_bytes(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        fields::iterate(&self.headers)
    }

    /// The body. One behind a [`Read`] is first read to its end, or to its length, and kept in memory: use it in tests.
    ///
    /// # Errors
    /// The reader's own, or `UnexpectedEof` when it ends short of the length that was promised.
    pub fn body(&mut self) -> io::Result<&[u8]> {
        if let Body::Reader { reader, length } = &mut self.body {
            let mut bytes = Vec::new();
            reader
                .take(length.unwrap_or(u64::MAX))
                .read_to_end(&mut bytes)?;
            if length.is_some_and(|length| length > bytes.len() as u64) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.body = Body::Bytes(bytes.into());
        }
        match &self.body {
            Body::Bytes(bytes) => Ok(bytes),
            // No handler outside this crate makes the other three.
            Body::Reader { .. } | Body::Relay { .. } | Body::Tunnel { .. } | Body::Later(_) => {
                Ok(&[])
            }
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &String::from_utf8_lossy(&self.headers))
            .finish_non_exhaustive()
    }
}

/// Appends a header, if its name is a token, with a value that cannot split a reply.
fn push_header(lines: &mut Vec<u8>, name: &str, value: &[u8]) {
    if !is_token(name) {
        log::warn!("left out a reply header whose name is not a token: {name:?}");
        return;
    }
    if fields::has_control(value) {
        log::warn!("control characters in the reply header {name} became spaces");
        let harmless = |&byte: &u8| if is_control(byte) { b' ' } else { byte };
        let value: Vec<u8> = value.iter().map(harmless).collect();
        fields::push(lines, name, &value);
    } else {
        fields::push(lines, name, value);
    }
}

/// A status that ends an exchange; anything else is a handler's mistake.
fn final_status(status: u16) -> u16 {
    if (200..=999).contains(&status) {
        return status;
    }
    log::error!("a handler returned status {status}, expected 200 to 999: sent as 500");
    500
}

fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_token_byte)
}

fn text_bytes(text: Cow<'static, str>) -> Cow<'static, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

#[cfg(test)]
mod tests;
