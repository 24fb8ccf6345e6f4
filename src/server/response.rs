//! What a handler returns, and how a reply's head is written.

mod into;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};
use std::time::SystemTime;

use crate::http::body::Framing;
use crate::http::fields::{self, is_control, is_token_byte};
use crate::server::exchange::ReplyRules;
use crate::server::relay::{Relay, Tunnel};
use crate::server::request::Request;
use crate::server::stream::{Source, Stream};
use crate::server::waiting::Waiting;

pub use into::IntoResponse;

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
    Later(Later),
}

/// A reply that waits for something.
pub(crate) enum Later {
    /// For something in this process.
    #[cfg_attr(
        not(feature = "cache"),
        expect(dead_code, reason = "only the cache has it")
    )]
    Told {
        /// Has this called once it is worth going on.
        when_ready: Box<dyn FnOnce(Wake) + Send>,
        /// Goes on.
        then: Continuation,
    },
    /// For another server.
    Waiting(Box<dyn Waiting>),
}

/// Tells that it is worth going on.
pub(crate) type Wake = Box<dyn FnOnce() + Send>;

/// What is to be done with a request that was waiting.
pub(crate) type Continuation = Box<dyn FnOnce(&mut Request) -> Response + Send>;

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
    pub(crate) fn later(later: Later) -> Self {
        Self::with_body(503, Body::Later(later))
    }

    /// What it waits for, if it does.
    pub(crate) fn into_later(self) -> Result<Later, Self> {
        match self.body {
            Body::Later(later) => Ok(later),
            body => Err(Self { body, ..self }),
        }
    }

    /// A reply whose headers can be sent as they are: as [`fields::push`] writes them, none of them one that
    /// [only the server sets](Self::with_header), and the date among them.
    #[cfg(all(feature = "proxy", feature = "cache"))]
    pub(crate) fn with_head(status: u16, headers: Vec<u8>, body: Body) -> Self {
        Self {
            headers,
            complete: true,
            ..Self::with_body(status, body)
        }
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
            // No handler outside this crate makes the other two.
            Body::Reader { .. } | Body::Relay { .. } | Body::Tunnel { .. } | Body::Later(_) => {
                Ok(&[])
            }
        }
    }

    /// Takes the reply apart: its head as bytes, whether the connection closes after it, and the body.
    pub(crate) fn into_parts(
        self,
        rules: ReplyRules,
        draining: bool,
        date: &mut DateCache,
        out: &mut Vec<u8>,
    ) -> (bool, Option<Payload>) {
        let is_close = |option: &[u8]| option.eq_ignore_ascii_case(b"close");
        let asks_to_close = |(name, value): (&str, &[u8])| {
            name.eq_ignore_ascii_case("connection") && fields::list(value).any(is_close)
        };
        let handler_closes = !self.complete && self.headers_bytes().any(asks_to_close);
        let bodiless = matches!(self.status, 204 | 304);
        // RFC 9110 section 15.3.6; unlike the others it says its length.
        let empty = self.status == 205;
        let length = match &self.body {
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::Reader { length, .. } | Body::Relay { length, .. } => *length,
            Body::Tunnel { .. } => None,
            // Workers take these out before.
            Body::Later(_) => Some(0),
        };
        let framing = match length {
            _ if bodiless => Framing::None,
            _ if matches!(self.body, Body::Tunnel { .. }) => Framing::None,
            _ if empty => Framing::Length(0),
            Some(length) => Framing::Length(length),
            None if rules.http11 => Framing::Chunked,
            None => Framing::UntilClose,
        };
        let close = !rules.keep_alive
            || draining
            || handler_closes
            || (framing == Framing::UntilClose && !rules.head_only);
        if rules.http11 {
            out.extend_from_slice(&self.interim);
        }
        push_status_line(out, self.status, self.reason.as_deref());
        if let (true, Some(lines)) = (self.complete, self.headers.strip_suffix(b"\r\n")) {
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(lines);
        } else {
            self.push_headers(date, out);
        }
        if let Body::Tunnel { protocol, .. } = &self.body {
            out.extend_from_slice(b"\r\nConnection: Upgrade\r\nUpgrade: ");
            out.extend_from_slice(protocol.as_bytes());
            out.extend_from_slice(b"\r\n\r\n");
        } else {
            end_head(out, framing, rules.http11, close);
        }
        let payload = match self.body {
            Body::Tunnel { tunnel, .. } => Some(Payload::Stream(Stream::new(
                Source::Tunnel(tunnel),
                framing,
                close,
            ))),
            _ if bodiless || empty || rules.head_only => None,
            Body::Later(_) => None,
            Body::Bytes(bytes) => Some(Payload::Bytes(bytes)),
            Body::Reader { reader, .. } => Some(Payload::Stream(Stream::new(
                Source::Reader(reader),
                framing,
                close,
            ))),
            Body::Relay { relay, .. } => Some(Payload::Stream(Stream::new(
                Source::Relay(relay),
                framing,
                close,
            ))),
        };
        (close, payload)
    }
}

impl Response {
    /// Appends the headers that may go out, each behind the end of a line, and the date where none of them is it.
    fn push_headers(&self, date: &mut DateCache, out: &mut Vec<u8>) {
        let mut names = self.headers_bytes().map(|(name, _)| name);
        if !names.any(|name| name.eq_ignore_ascii_case("date")) {
            push_date(out, date);
        }
        let trailers = matches!(&self.body, Body::Relay { relay, .. } if relay.has_trailers());
        let is_own =
            |name: &str| is_own(name) && !(trailers && name.eq_ignore_ascii_case("trailer"));
        for (name, value) in self.headers_bytes().filter(|(name, _)| !is_own(name)) {
            out.extend_from_slice(b"\r\n");
            push_field(out, name, value);
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

/// What goes out after the head.
pub(crate) enum Payload {
    Bytes(Cow<'static, [u8]>),
    Stream(Stream),
}

/// Headers that only the server may set.
const OWN_HEADERS: [&str; 6] = [
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "trailer",
];

fn is_own(name: &str) -> bool {
    OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Writes a reply's head (RFC 9112 section 4): the status line, `headers`, then the server's own.
pub(crate) fn write_head<'a>(
    out: &mut Vec<u8>,
    status: u16,
    headers: impl Iterator<Item = (&'a str, &'a str)>,
    framing: Framing,
    http11: bool,
    close: bool,
    date: &mut DateCache,
) {
    push_status_line(out, status, None);
    push_date(out, date);
    for (name, value) in headers {
        out.extend_from_slice(b"\r\n");
        push_field(out, name, value.as_bytes());
    }
    end_head(out, framing, http11, close);
}

/// Without the end of the line.
fn push_status_line(out: &mut Vec<u8>, status: u16, reason: Option<&str>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(out, u64::from(status));
    out.push(b' ');
    let reason = reason.unwrap_or_else(|| tiny_http::StatusCode(status).default_reason_phrase());
    out.extend_from_slice(reason.as_bytes());
}

/// Without the end of the line.
fn push_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
}

fn push_date(out: &mut Vec<u8>, date: &mut DateCache) {
    if let Some(date) = date.at(SystemTime::now()) {
        out.extend_from_slice(b"\r\n");
        push_field(out, "Date", date.as_bytes());
    }
}

/// Writes the framing and what becomes of the connection, and ends the head.
fn end_head(out: &mut Vec<u8>, framing: Framing, http11: bool, close: bool) {
    match framing {
        Framing::Length(length) => {
            out.extend_from_slice(b"\r\nContent-Length: ");
            push_decimal(out, length);
        }
        Framing::Chunked => out.extend_from_slice(b"\r\nTransfer-Encoding: chunked"),
        Framing::UntilClose | Framing::None => {}
    }
    if close {
        out.extend_from_slice(b"\r\nConnection: close");
    } else if !http11 {
        out.extend_from_slice(b"\r\nConnection: keep-alive");
    }
    out.extend_from_slice(b"\r\n\r\n");
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

/// Appends `number` in decimal, without the formatting machinery.
fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The Date header's value, made once a second.
#[derive(Debug, Default)]
pub(crate) struct DateCache {
    second: u64,
    text: String,
}

impl DateCache {
    /// The value at `now`; `None` before 1970 and after 9999, which the format has no words for. The clock is wrong then,
    /// and a server without a clock sends no Date (RFC 9110 section 6.6.1).
    fn at(&mut self, now: SystemTime) -> Option<&str> {
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let second = since_epoch.as_secs();
        if second > LAST_SECOND {
            return None;
        }
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(now);
        }
        Some(&self.text)
    }
}

/// The end of the year 9999, in seconds since the Unix epoch.
const LAST_SECOND: u64 = 253_402_300_799;

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
