//! Is this head acceptable? Its canonical form.
//!
//! `httparse` finds the parts; this module refuses what RFC 9110 and RFC 9112 forbid and `httparse` lets through,
//! decides how the body is framed, and keeps the head in one form, whatever form the client chose.
//!
//! Three things a strict reading forbids are met too often to refuse, so they are made harmless instead: a fragment
//! is cut off, non-ASCII bytes in a target are percent-encoded, and up to [`MAX_EMPTY_LINES`] empty lines before the
//! request line are skipped.

use std::mem::MaybeUninit;
use std::ops::Range;

use httparse::Status;
use percent_encoding::percent_encode_byte;

use super::authority::{self, is_authority};
pub(crate) use super::body::Framing;
pub(crate) use super::fields::Scan;
use super::fields::{self, Coding, LineEnds, MAX_FIELDS};
use super::refusal::Refusal;

/// Empty lines skipped before a request line. RFC 9112 2.2 asks for at least one; old clients send one after a body.
const MAX_EMPTY_LINES: usize = 2;
/// The bytes of so many.
pub(crate) const MAX_EMPTY_BYTES: usize = 2 * MAX_EMPTY_LINES;
/// Room for what the canonical form may add to a usual head: a space after each colon.
const CANONICAL_SLACK: usize = 32;

const BAD_REQUEST_LINE: Refusal = Refusal::Malformed(
    "Write the request line as METHOD TARGET HTTP/1.1, with single spaces, then CR LF.\n",
);
const BAD_LINE_END: Refusal = Refusal::Malformed("End every line of the head with CR LF.\n");
const BAD_VERSION: Refusal = Refusal::Malformed("Write the version as HTTP/1.1.\n");
const BAD_FIELD_NAME: Refusal = Refusal::Malformed(
    "Write each header as name:value on one line, with no space before the colon.\n",
);
const BAD_FIELD_VALUE: Refusal =
    Refusal::Malformed("Leave control characters out of header values.\n");
const BAD_TARGET: Refusal = Refusal::Malformed(
    "Write the request target as /path?query, an http URL, or, for OPTIONS only, *.\n",
);
const BAD_HOST: Refusal = Refusal::Malformed("Write Host as name, name:port, or empty.\n");
const BAD_HOST_COUNT: Refusal = Refusal::Malformed("Send exactly one Host header.\n");
const BAD_LENGTH: Refusal =
    Refusal::Malformed("Send at most one Content-Length, as decimal digits.\n");
const BAD_CODING: Refusal =
    Refusal::Malformed("Apply the chunked transfer coding once, and last.\n");
const CODING_IN_HTTP_1_0: Refusal =
    Refusal::Malformed("Use HTTP/1.1 to send a Transfer-Encoding.\n");
const LENGTH_AND_CODING: Refusal =
    Refusal::Malformed("Send either Content-Length or Transfer-Encoding, not both.\n");

/// The methods the event loop tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `OPTIONS`
    Options,
    /// Any other token.
    Other,
}

/// The version of HTTP a request is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// An acceptable head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The method.
    pub(crate) method: Method,
    /// The version.
    pub(crate) version: Version,
    /// How the end of the body is found.
    pub(crate) framing: Framing,
    /// Whether the client wants the connection to stay open.
    pub(crate) keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
    canonical: Vec<u8>,
    /// Where in `canonical` the target is.
    target: Range<usize>,
    /// Where in `canonical` the fields start.
    fields: usize,
    /// Where in `canonical` the value of the first Accept is.
    accept: Option<Range<usize>>,
}

impl Head {
    /// The target in origin-form, or `*`. Printable ASCII, without a fragment.
    pub(crate) fn target(&self) -> &str {
        self.text(&self.target)
    }

    /// The target up to its first `?`.
    pub(crate) fn path(&self) -> &str {
        self.target()
            .split_once('?')
            .map_or(self.target(), |(path, _)| path)
    }

    /// The target after its first `?`.
    pub(crate) fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }

    /// The value of the first Accept; none if it isn't ASCII.
    pub(crate) fn accept(&self) -> Option<&str> {
        self.accept.as_ref().map(|range| self.text(range))
    }

    /// The host that was asked, without its port and brackets; `None` if the request names none.
    pub(crate) fn host(&self) -> Option<&str> {
        let mut fields = self.fields();
        let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case("host"))?;
        let host = authority::host(str::from_utf8(value).ok()?);
        (!host.is_empty()).then_some(host)
    }

    /// The method as the client wrote it.
    pub(crate) fn method_text(&self) -> &str {
        self.text(&(0..self.target.start.saturating_sub(1)))
    }

    /// The fields in the client's order: name and value.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        fields::iterate(self.canonical.get(self.fields..).unwrap_or_default())
    }

    /// The whole head as it is kept: `METHOD SP target SP HTTP/1.1 CRLF`, then the fields, each ended by CRLF.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn canonical(&self) -> &[u8] {
        &self.canonical
    }

    fn text(&self, range: &Range<usize>) -> &str {
        let bytes = self.canonical.get(range.clone()).unwrap_or_default();
        str::from_utf8(bytes).unwrap_or_default()
    }
}

/// Parses the head at the start of `input`: all that has arrived and not been used yet.
///
/// Returns how many bytes it used, empty lines before the request line included, or `None` if the head is unfinished.
/// An error in an unfinished head may be found at once or as it grows; the same heads are accepted however they are
/// split. `max_head` bounds the head in bytes, from the request line to the empty line, both included.
///
/// # Errors
///
/// Why the head is refused. The end of the request is then unknown: the connection must close.
pub(crate) fn parse(
    input: &[u8],
    max_head: usize,
    progress: &mut Scan,
) -> Result<Option<(usize, Head)>, Refusal> {
    let skipped = empty_lines(input);
    let rest = input.get(skipped..).unwrap_or_default();
    match rest {
        [] => return Ok(None),
        [b'\r'] if skipped < 2 * MAX_EMPTY_LINES => return Ok(None),
        // `httparse` would skip any number of these.
        [b'\r' | b'\n', ..] => return Err(BAD_REQUEST_LINE),
        _ => {}
    }
    let full = rest.len() >= max_head;
    let window = rest.get(..max_head).unwrap_or(rest);

    let is_first = progress.is_fresh();
    if !is_first && !advance(progress, window)? && !full {
        return Ok(None);
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(window, &mut fields) {
        Ok(Status::Complete(used)) => {
            let (head, _) = window.split_at(used);
            let head = accept(head, &request)?;
            *progress = Scan::default();
            return Ok(Some((skipped + used, head)));
        }
        Ok(Status::Partial) => {}
        Err(httparse::Error::Version) => {
            if let Some(refusal) = refused_version(window) {
                return Err(refusal);
            }
        }
        Err(error) => return Err(refused(error)),
    }
    if is_first {
        advance(progress, window)?;
    }
    if !full {
        Ok(None)
    } else if window.contains(&b'\n') {
        Err(Refusal::HeadTooLarge)
    } else {
        Err(Refusal::TargetTooLong)
    }
}

fn advance(progress: &mut Scan, window: &[u8]) -> Result<bool, Refusal> {
    progress.advance(window, LineEnds::CrLf).ok_or(BAD_LINE_END)
}

/// Bytes of the empty lines before a request line that are skipped. While `input` holds nothing else, no request has
/// begun.
pub(crate) fn empty_lines(input: &[u8]) -> usize {
    let lines = input
        .chunks_exact(2)
        .take(MAX_EMPTY_LINES)
        .take_while(|pair| *pair == b"\r\n");
    2 * lines.count()
}

fn refused(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::HeaderName => BAD_FIELD_NAME,
        httparse::Error::HeaderValue => BAD_FIELD_VALUE,
        httparse::Error::NewLine => BAD_LINE_END,
        httparse::Error::TooManyHeaders => Refusal::HeadTooLarge,
        httparse::Error::Version => BAD_VERSION,
        httparse::Error::Token | httparse::Error::Status => BAD_REQUEST_LINE,
    }
}

/// Why a request line is refused whose version `httparse` doesn't know; none while it may still become well-formed.
fn refused_version(window: &[u8]) -> Option<Refusal> {
    let line_end = window.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let line = window
        .get(..line_end.unwrap_or(window.len()))
        .unwrap_or_default();
    let version = line
        .splitn(3, |&byte| byte == b' ')
        .nth(2)
        .unwrap_or_default();
    let form = b"HTTP/0.0";
    let fits = version.len() <= form.len()
        && version
            .iter()
            .zip(form)
            .all(|(byte, expected)| match expected {
                b'0' => byte.is_ascii_digit(),
                _ => byte == expected,
            });
    match (fits, line_end) {
        (true, None) => None,
        (true, Some(_)) if version.len() == form.len() => Some(Refusal::Version),
        (false, _) | (true, Some(_)) => Some(BAD_VERSION),
    }
}

/// The form a request target comes in (RFC 9112 3.2).
struct Target<'a> {
    /// The host and port of an absolute-form target.
    authority: Option<&'a str>,
    /// The path and query, or `*`. An absolute-form target may lack the path.
    origin: &'a str,
}

impl<'a> Target<'a> {
    fn read(method: &str, target: &'a str) -> Result<Self, Refusal> {
        if method == "CONNECT" {
            let is_authority = !target.is_empty() && is_authority(target.as_bytes());
            return Err(if is_authority {
                Refusal::TunnelUnsupported
            } else {
                BAD_TARGET
            });
        }
        let target = target.split_once('#').map_or(target, |(target, _)| target);
        if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
            return Ok(Self {
                authority: None,
                origin: target,
            });
        }
        let (scheme, rest) = target.split_once("://").ok_or(BAD_TARGET)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(BAD_TARGET);
        }
        let (authority, origin) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        // RFC 9110 4.2.1: an http URL with an empty host is invalid.
        if authority.is_empty() || !is_authority(authority.as_bytes()) {
            return Err(BAD_TARGET);
        }
        // RFC 9112 3.2.4: OPTIONS with neither path nor query is about the whole server.
        let origin = if origin.is_empty() && method == "OPTIONS" {
            "*"
        } else {
            origin
        };
        Ok(Self {
            authority: Some(authority),
            origin,
        })
    }
}

/// Judges a whole head, which `request` is parsed from, and rewrites it.
fn accept(head: &[u8], request: &httparse::Request<'_, '_>) -> Result<Head, Refusal> {
    check_line_ends(head, request)?;
    let method = request.method.unwrap_or_default();
    let target = Target::read(method, request.path.unwrap_or_default())?;
    let version = if request.version == Some(1) {
        Version::Http11
    } else {
        Version::Http10
    };

    let mut canonical = Vec::with_capacity(head.len() + CANONICAL_SLACK);
    canonical.extend_from_slice(method.as_bytes());
    canonical.push(b' ');
    let target_start = canonical.len();
    push_target(&mut canonical, target.origin)?;
    let target_end = canonical.len();
    canonical.extend_from_slice(b" HTTP/1.1\r\n");
    let fields = canonical.len();

    let mut facts = Facts::default();
    let mut accept = None;
    for field in &*request.headers {
        let (name, value) = (field.name, field.value);
        let known = Known::of(name);
        facts.note(known, value)?;
        if fields::has_control(value) {
            return Err(BAD_FIELD_VALUE);
        }
        // RFC 9112 3.2.2: the target's authority replaces Host.
        let replaced = target.authority.filter(|_| known == Known::Host);
        let value = replaced.map_or(value, str::as_bytes);
        fields::push(&mut canonical, name, value);
        if known == Known::Accept && accept.is_none() && value.is_ascii() {
            let end = canonical.len() - b"\r\n".len();
            accept = Some(end - value.len()..end);
        }
    }
    if !facts.has_host {
        if version == Version::Http11 {
            return Err(BAD_HOST_COUNT);
        }
        if let Some(authority) = target.authority {
            fields::push(&mut canonical, "Host", authority.as_bytes());
        }
    }
    Ok(Head {
        method: match method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        },
        version,
        framing: framing(version, facts.length, facts.coding)?,
        keep_alive: facts.keep_alive.unwrap_or(version == Version::Http11),
        // RFC 9110 10.1.1: HTTP/1.0 has no interim replies.
        expects_continue: facts.expects_continue && version == Version::Http11,
        canonical,
        target: target_start..target_end,
        fields,
        accept,
    })
}

/// What the fields say about the message and the connection.
#[derive(Default)]
struct Facts {
    has_host: bool,
    length: Option<u64>,
    coding: Coding,
    /// What Connection asks for; `close` beats `keep-alive`.
    keep_alive: Option<bool>,
    expects_continue: bool,
}

impl Facts {
    fn note(&mut self, known: Known, value: &[u8]) -> Result<(), Refusal> {
        match known {
            Known::Host => {
                if self.has_host {
                    return Err(BAD_HOST_COUNT);
                }
                if !is_authority(value) {
                    return Err(BAD_HOST);
                }
                self.has_host = true;
            }
            Known::ContentLength => {
                let length = fields::parse_length(value).ok_or(BAD_LENGTH)?;
                if self.length.replace(length).is_some() {
                    return Err(BAD_LENGTH);
                }
            }
            Known::TransferEncoding => self.coding = self.coding.and(value),
            Known::Connection => {
                for option in fields::list(value) {
                    if option.eq_ignore_ascii_case(b"close") {
                        self.keep_alive = Some(false);
                    } else if option.eq_ignore_ascii_case(b"keep-alive") {
                        self.keep_alive.get_or_insert(true);
                    }
                }
            }
            Known::Expect => {
                for expectation in fields::list(value) {
                    if !expectation.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Refusal::ExpectationFailed);
                    }
                    self.expects_continue = true;
                }
            }
            Known::Accept | Known::Other => {}
        }
        Ok(())
    }
}

/// `httparse` takes a bare LF for a line end; a proxy in front may not, and then both see different fields.
fn check_line_ends(head: &[u8], request: &httparse::Request<'_, '_>) -> Result<(), Refusal> {
    let is_strict = request.headers.iter().all(|field| {
        // A line ends where the next field's name starts; names are slices of the head.
        let start = field
            .name
            .as_ptr()
            .addr()
            .saturating_sub(head.as_ptr().addr());
        head.get(..start)
            .is_some_and(|before| before.ends_with(b"\r\n"))
    });
    if is_strict && head.ends_with(b"\r\n\r\n") {
        Ok(())
    } else {
        Err(BAD_LINE_END)
    }
}

/// How the end of the body is found (RFC 9112 6.1 and 6.3).
fn framing(version: Version, length: Option<u64>, coding: Coding) -> Result<Framing, Refusal> {
    match (coding, length) {
        (Coding::Absent, None) => Ok(Framing::None),
        (Coding::Absent, Some(length)) => Ok(Framing::Length(length)),
        _ if version == Version::Http10 => Err(CODING_IN_HTTP_1_0),
        (Coding::Empty | Coding::Unframed, _) => Err(BAD_CODING),
        (Coding::Unknown, _) => Err(Refusal::UnknownTransferCoding),
        (Coding::Chunked, None) => Ok(Framing::Chunked),
        (Coding::Chunked, Some(_)) => Err(LENGTH_AND_CODING),
    }
}

/// The fields that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Accept,
    Connection,
    ContentLength,
    Expect,
    Host,
    TransferEncoding,
    Other,
}

impl Known {
    fn of(name: &str) -> Self {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is("host") => Self::Host,
            6 if is("accept") => Self::Accept,
            6 if is("expect") => Self::Expect,
            10 if is("connection") => Self::Connection,
            14 if is("content-length") => Self::ContentLength,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            _ => Self::Other,
        }
    }
}

fn push_target(canonical: &mut Vec<u8>, origin: &str) -> Result<(), Refusal> {
    if origin != "*" && !origin.starts_with('/') {
        canonical.push(b'/');
    }
    for &byte in origin.as_bytes() {
        match byte {
            0x21..=0x7e => canonical.push(byte),
            0x80.. => canonical.extend_from_slice(percent_encode_byte(byte).as_bytes()),
            _ => return Err(BAD_TARGET),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
