//! What a handler reads.

mod builder;

use std::borrow::Cow;
use std::fmt;
use std::io::{Cursor, Read};
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::str::Utf8Error;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::health::Health;
use crate::http::body::BodyBuffer;
use crate::http::head::Version;
use crate::server::event_loop::bodies::Room;
use crate::server::event_loop::connection::Incoming;
use crate::server::exchange::{Exchange, LONG_WAIT, Stage};
use crate::server::request_head::{AskedEndpoint, RequestHead};

pub use builder::RequestBuilder;

/// A whole request: its head, and its body behind a [`Read`].
///
/// [`builder`](Self::builder) makes one without a server, so that a handler can be tested by a plain call:
///
/// ```
/// use plimsoll::{Handler, Request, Response};
///
/// fn greet(request: &mut Request) -> Response {
///     let mut pairs = request.query_pairs();
///     match pairs.find(|(name, _)| name == "name") {
///         Some((_, name)) => Response::text(200, format!("hello {name}\n")),
///         None => Response::text(400, "who?\n"),
///     }
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let mut request = Request::builder().url("/greet?name=J%C3%BCrgen").build();
/// let mut response = greet.handle(&mut request);
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.body()?, "hello Jürgen\n".as_bytes());
/// # Ok(())
/// # }
/// ```
pub struct Request {
    head: Arc<RequestHead>,
    /// Values that are not UTF-8, as text: the field's number, and every byte as a character of ISO 8859-1, HTTP's
    /// charset of old. Made when one is asked for.
    latin: OnceLock<Box<[(usize, String)]>>,
    body: Cursor<BodyBuffer>,
    /// What the body has of the room for all bodies. Given back after it.
    room: Option<Room>,
    peer: SocketAddr,
    client: IpAddr,
    deadline: Instant,
    reply: Reply,
    health: Arc<Health>,
}

/// The body of a request that is over: in memory, and in its room.
#[derive(Debug)]
pub(crate) struct RequestBody {
    bytes: BodyBuffer,
    _room: Option<Room>,
}

impl Deref for RequestBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Who waits for the reply.
enum Reply {
    /// The client of this exchange.
    To(Arc<Exchange>),
    /// Nobody: the request was made without a server.
    Built {
        /// What the handler is told.
        abandoned: bool,
    },
}

impl Request {
    pub(crate) fn new(incoming: Incoming, exchange: Arc<Exchange>, health: Arc<Health>) -> Self {
        Self {
            head: incoming.head,
            latin: OnceLock::new(),
            body: Cursor::new(incoming.body),
            room: incoming.room,
            peer: exchange.origin.peer,
            client: exchange.origin.client_ip,
            deadline: exchange.deadline,
            reply: Reply::To(exchange),
            health,
        }
    }

    /// Makes a request without a server, to test a handler with.
    pub fn builder() -> RequestBuilder {
        RequestBuilder::new()
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

    /// The pairs of the query, `name=value` joined by `&`, in their order. Both are decoded: `+` is a space, `%2F` is a
    /// slash, and what is not UTF-8 then becomes U+FFFD (the URL standard, section 5.1).
    ///
    /// ```
    /// use plimsoll::Request;
    ///
    /// let request = Request::builder().url("/search?q=load+line&lang=d%65").build();
    /// let pairs: Vec<_> = request.query_pairs().collect();
    /// assert_eq!(pairs, [("q".into(), "load line".into()), ("lang".into(), "de".into())]);
    /// ```
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(self.query().unwrap_or_default().as_bytes())
    }

    /// The first header of that name (in any case).
    ///
    /// Bytes outside ASCII are read as UTF-8 where they are UTF-8, else as ISO 8859-1; see
    /// [`header_bytes`](Self::header_bytes) for the bytes themselves.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers();
        let found = headers.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    /// The first header of that name (in any case), byte for byte.
    #[must_use]
    pub fn header_bytes(&self, name: &str) -> Option<&[u8]> {
        self.head.field(name)
    }

    /// All headers as the client sent them, in its order: name and value, which is text as that of
    /// [`header`](Self::header) is.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = self.headers_bytes().enumerate();
        fields.map(|(index, (name, value))| {
            let text = str::from_utf8(value).unwrap_or_else(|_| self.latin(index));
            (name, text)
        })
    }

    /// All headers in the client's order, those of one name beside each other or not: name and value, byte for byte.
    pub fn headers_bytes(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.head.fields()
    }

    /// The value of that number as ISO 8859-1, if it is not UTF-8.
    fn latin(&self, index: usize) -> &str {
        let values = self.latin.get_or_init(|| {
            let values = self.headers_bytes().map(|(_, value)| value).enumerate();
            let latin = values.filter(|(_, value)| str::from_utf8(value).is_err());
            latin
                .map(|(index, value)| (index, value.iter().copied().map(char::from).collect()))
                .collect()
        });
        let mut values = values.iter();
        let found = values.find(|(at, _)| *at == index);
        found.map_or("", |(_, text)| text)
    }

    /// The body, without its transfer coding. It is whole before the handler starts.
    pub fn body(&mut self) -> &mut dyn Read {
        &mut self.body
    }

    /// The whole body's length in bytes, however much of it has been read.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.bytes().len()
    }

    /// The whole body, however much of it has been read.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.body.get_ref()
    }

    /// Takes the whole body out.
    pub(crate) fn take_body(&mut self) -> RequestBody {
        RequestBody {
            bytes: std::mem::take(self.body.get_mut()),
            _room: self.room.take(),
        }
    }

    /// The whole body as text.
    ///
    /// # Errors
    /// It is not UTF-8.
    ///
    /// ```
    /// use plimsoll::{IntoResponse, Request, Response};
    ///
    /// fn shout(request: &mut Request) -> Response {
    ///     match request.text() {
    ///         Ok(text) => text.to_uppercase().into_response(),
    ///         Err(error) => (400, format!("the body is not UTF-8: {error}\n")).into_response(),
    ///     }
    /// }
    ///
    /// let mut request = Request::builder().method("POST").body([0xff]).build();
    /// assert_eq!(shout(&mut request).status(), 400);
    /// ```
    pub fn text(&self) -> Result<&str, Utf8Error> {
        str::from_utf8(self.bytes())
    }

    /// The pairs of a form in the body, decoded as those of [the query](Self::query_pairs). `None` when the request does
    /// not call its body `application/x-www-form-urlencoded`.
    ///
    /// ```
    /// use plimsoll::{IntoResponse, Request, Response};
    ///
    /// fn sign_up(request: &mut Request) -> Response {
    ///     let Some(mut form) = request.form() else {
    ///         return (415, "send a form\n").into_response();
    ///     };
    ///     match form.find(|(name, _)| name == "mail") {
    ///         Some((_, mail)) => format!("a letter goes to {mail}\n").into_response(),
    ///         None => (422, "mail is missing\n").into_response(),
    ///     }
    /// }
    ///
    /// let form = "application/x-www-form-urlencoded";
    /// let mut request = Request::builder()
    ///     .method("POST")
    ///     .header("Content-Type", form)
    ///     .body("mail=a%40example.org")
    ///     .build();
    /// assert_eq!(sign_up(&mut request).status(), 200);
    /// ```
    #[must_use]
    pub fn form(&self) -> Option<impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)>> {
        let content_type = self.header("Content-Type")?;
        let media_type = content_type.split(';').next().unwrap_or_default();
        let is_form = media_type
            .trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded");
        is_form.then(|| form_urlencoded::parse(self.bytes()))
    }

    /// The address at the other end of the connection: the client's, or that of a proxy in front.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The client's address: the [peer's](Self::peer), unless the setting [`trust`](crate::Config::trust) names it as a
    /// proxy. Then it is the last address in `X-Forwarded-For` that is not such a proxy's. An IPv4-mapped IPv6 address
    /// is given as IPv4.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// The request's id: its `X-Request-Id` if that is 1 to 128 visible ASCII characters, else 32 random hexadecimal
    /// digits. The access log has the same. Send it on with requests to other services, so that their logs can be put
    /// beside.
    #[must_use]
    pub fn id(&self) -> &str {
        self.head.id()
    }

    /// Notes for the access log which endpoint the request was forwarded to, the last of so many `tries`, and how much
    /// `time` they took to the head of the answer. The first note counts.
    pub fn note_endpoint(&self, name: impl Into<Arc<str>>, tries: usize, time: Duration) {
        self.head.note_endpoint(AskedEndpoint {
            name: name.into(),
            tries,
            time,
        });
    }

    /// Notes for the access log what a cache did with the request, in a word such as `hit`. The first note counts.
    pub fn note_cache(&self, result: &'static str) {
        self.head.note_cache(result);
    }

    /// Time left until the client gets 504 instead of this handler's reply; zero when it is over.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether nobody waits for the reply any more: the client has gone, or was answered 504. A long-running
    /// handler should look now and then, and stop.
    #[must_use]
    pub fn abandoned(&self) -> bool {
        match &self.reply {
            Reply::To(exchange) => exchange.is(Stage::Abandoned),
            Reply::Built { abandoned } => *abandoned,
        }
    }

    /// Whether the client has said for a while that it sends nothing more, which then means that it has left: most
    /// clients that close a connection say no more than that.
    pub(crate) fn is_given_up(&self) -> bool {
        let Reply::To(exchange) = &self.reply else {
            return false;
        };
        exchange.admitted.elapsed() >= LONG_WAIT
            && matches!(exchange.origin.socket.peek(&mut [0]), Ok(0))
    }

    /// Whether a server has it, so that it can wait without a worker.
    #[cfg(feature = "proxy")]
    pub(crate) fn is_served(&self) -> bool {
        matches!(self.reply, Reply::To(_))
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

#[cfg(test)]
mod tests;
