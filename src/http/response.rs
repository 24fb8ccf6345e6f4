//! Is this response's head acceptable? How does its body end?
//!
//! Nothing that a server says is trusted: what RFC 9110 and RFC 9112 forbid is an [error](ResponseError), with one
//! leniency that RFC 9112 2.2 allows: a line of a head may end with LF alone. The head is kept in one form, so that
//! nothing of how it came can reach another reader.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::time::Duration;

use httparse::Status;

use super::body::{BodyError, Framing};
use super::fields::{self, Coding, LineEnds, MAX_FIELDS, Scan};

/// Most bytes of a head, from the status line to the empty line, both included.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// Most interim replies (1xx) before the final one.
pub(crate) const MAX_INTERIM: u8 = 16;

/// Why a response is not acceptable. The connection cannot be used further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseError {
    /// The status line is not `HTTP/1.x CODE [REASON]` with a code from 100 to 999 (RFC 9112 4).
    StatusLine,
    /// A line ends otherwise than with CR LF or LF, as one with a bare CR does (RFC 9112 2.2).
    LineEnd,
    /// A field's name is empty, or holds what a token may not, as a space before the colon (RFC 9112 5.1).
    FieldName,
    /// A field's value goes on in the next line (RFC 9112 5.2).
    FoldedField,
    /// A field's value holds NUL or another control character (RFC 9110 5.5).
    FieldValue,
    /// The head is longer than [`MAX_HEAD`].
    HeadTooLarge,
    /// The head has more than [`MAX_FIELDS`] fields.
    TooManyFields,
    /// Content-Length is not one number (RFC 9112 6.3).
    Length,
    /// There are both Content-Length and Transfer-Encoding (RFC 9112 6.1).
    LengthAndCoding,
    /// Chunked is applied twice, or not last, or in HTTP/1.0; or the field is empty (RFC 9112 6.1).
    Coding,
    /// The body is in a transfer coding other than chunked.
    UnknownCoding,
    /// An interim reply announces a body (RFC 9110 8.6, RFC 9112 6.1).
    InterimBody,
    /// There are more than [`MAX_INTERIM`] interim replies.
    TooManyInterim,
    /// The protocol is switched, which nobody asked for (RFC 9110 15.2.2).
    UnaskedUpgrade,
    /// The body's framing is broken.
    Body(BodyError),
}

impl ResponseError {
    /// The error type of Proxy-Status (RFC 9209 2.3).
    pub(crate) fn token(self) -> &'static str {
        match self {
            Self::HeadTooLarge | Self::TooManyFields => "http_response_header_section_size",
            Self::UnknownCoding => "http_response_transfer_coding",
            Self::Body(BodyError::LongTrailers) => "http_response_trailer_section_size",
            Self::Body(BodyError::TooLarge) => "http_response_body_size",
            _ => "http_protocol_error",
        }
    }
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StatusLine => {
                "expected a reply of HTTP/1.1 with a status from 100 to 999, found another"
            }
            Self::LineEnd => "expected lines ended by CR LF, found a CR by itself",
            Self::FieldName => "expected fields as name:value, found one without a proper name",
            Self::FoldedField => "expected each field on one line, found one that goes on",
            Self::FieldValue => "expected field values of text, found a control character",
            Self::HeadTooLarge => "expected a head of at most 65536 bytes, found more",
            Self::TooManyFields => "expected at most 100 fields, found more",
            Self::Length => "expected at most one Content-Length of digits, found another",
            Self::LengthAndCoding => "expected Content-Length or Transfer-Encoding, found both",
            Self::Coding => "expected chunked once, last and in HTTP/1.1, found it otherwise",
            Self::UnknownCoding => "expected no transfer coding but chunked, found another",
            Self::InterimBody => "expected no body of an interim reply, found one",
            Self::TooManyInterim => "expected at most 16 interim replies, found more",
            Self::UnaskedUpgrade => "expected a reply, found a change of protocol",
            Self::Body(BodyError::ChunkSize) => {
                "expected a chunk's size of 1 to 16 hexadecimal digits, found another"
            }
            Self::Body(BodyError::ChunkExtension) => {
                "expected a chunk's extensions as ;name=value, found others"
            }
            Self::Body(BodyError::LongExtension) => {
                "expected at most 1024 bytes of extensions of a chunk, found more"
            }
            Self::Body(BodyError::ChunkEnd) => {
                "expected CR LF behind a chunk's data, found something else"
            }
            Self::Body(BodyError::Trailer) => "expected trailers as name:value, found others",
            Self::Body(BodyError::LongTrailers) => {
                "expected at most 16384 bytes of trailers, found more"
            }
            Self::Body(BodyError::TooLarge) => "expected a smaller body, found more",
        })
    }
}

impl std::error::Error for ResponseError {}

impl From<BodyError> for ResponseError {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

/// What was asked, as far as it decides how the response is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The method was HEAD, whose response has no body.
    pub(crate) head: bool,
    /// The request had an Upgrade field.
    pub(crate) upgrade: bool,
}

/// An acceptable head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResponseHead {
    /// The status code, from 100 to 999.
    pub(crate) status: u16,
    /// Whether the version is HTTP/1.1; else it is HTTP/1.0.
    pub(crate) http11: bool,
    /// How the end of the body is found.
    pub(crate) framing: Framing,
    /// Whether the connection can take another request after the body.
    pub(crate) keep_alive: bool,
    /// How long the server keeps an idle connection, if it says so.
    pub(crate) keep_alive_timeout: Option<Duration>,
    /// The reason phrase, CR LF, then the fields.
    canonical: Vec<u8>,
    reason: Range<usize>,
}

impl ResponseHead {
    /// Whether another head follows this one on the connection.
    pub(crate) fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..=199)
    }

    /// The reason phrase; empty if there is none, or one that isn't ASCII.
    pub(crate) fn reason(&self) -> &[u8] {
        &self.canonical[self.reason.clone()]
    }

    /// The fields in the server's order: name and value.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        fields::iterate(&self.canonical[self.reason.end..])
    }

    /// How many bytes the fields take.
    pub(crate) fn fields_len(&self) -> usize {
        self.canonical.len() - self.reason.end
    }

    /// The value of the first field of that name.
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// Reads the heads of the response to one request. It does no I/O, and the result does not depend on how the bytes were
/// split.
#[derive(Debug, Default)]
pub(crate) struct ResponseParser {
    asked: Asked,
    interim: u8,
    progress: Scan,
}

impl ResponseParser {
    /// One for the response to what was asked.
    pub(crate) fn new(asked: Asked) -> Self {
        Self {
            asked,
            ..Self::default()
        }
    }

    /// Whether the final head has not come, but an interim one has.
    pub(crate) fn has_interim(&self) -> bool {
        self.interim > 0
    }

    /// Parses the head at the start of `input`, which is all that has come and was not used yet.
    ///
    /// Returns how many bytes it used and the head, or `None` if that is unfinished. After an [interim
    /// head](ResponseHead::is_interim), call it again with the rest of the input.
    ///
    /// # Errors
    ///
    /// Why the response is refused. An error in an unfinished head may be found at once or as it grows.
    pub(crate) fn parse(
        &mut self,
        input: &[u8],
    ) -> Result<Option<(usize, ResponseHead)>, ResponseError> {
        // `httparse` would skip any number of empty lines.
        if matches!(input.first(), Some(b'\r' | b'\n')) {
            return Err(ResponseError::StatusLine);
        }
        let full = input.len() >= MAX_HEAD;
        let window = &input[..input.len().min(MAX_HEAD)];
        let due = self.progress.advance(window, LineEnds::Lf);
        if window.is_empty() || (due == Some(false) && !full) {
            return Ok(None);
        }
        let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            window,
            &mut room,
        );
        match parsed {
            Ok(Status::Complete(used)) => {
                let head = accept(used, &response, self.asked)?;
                self.progress = Scan::default();
                if head.is_interim() {
                    self.interim += 1;
                    if self.interim > MAX_INTERIM {
                        return Err(ResponseError::TooManyInterim);
                    }
                }
                Ok(Some((used, head)))
            }
            Ok(Status::Partial) if full => Err(ResponseError::HeadTooLarge),
            Ok(Status::Partial) => Ok(None),
            Err(error) => Err(refused(error, window)),
        }
    }
}

fn refused(error: httparse::Error, window: &[u8]) -> ResponseError {
    let folded = || {
        window
            .windows(2)
            .any(|pair| matches!(pair, [b'\n', b' ' | b'\t']))
    };
    match error {
        httparse::Error::HeaderName if folded() => ResponseError::FoldedField,
        httparse::Error::HeaderName => ResponseError::FieldName,
        httparse::Error::HeaderValue => ResponseError::FieldValue,
        httparse::Error::NewLine => ResponseError::LineEnd,
        httparse::Error::TooManyHeaders => ResponseError::TooManyFields,
        httparse::Error::Version | httparse::Error::Token | httparse::Error::Status => {
            ResponseError::StatusLine
        }
    }
}

/// Judges a whole head of `length` bytes, and rewrites it.
fn accept(
    length: usize,
    response: &httparse::Response<'_, '_>,
    asked: Asked,
) -> Result<ResponseHead, ResponseError> {
    let status = response.code.unwrap_or_default();
    if status < 100 {
        return Err(ResponseError::StatusLine);
    }
    let http11 = response.version == Some(1);
    let reason = response.reason.unwrap_or_default().trim_ascii();
    let mut canonical = Vec::with_capacity(length);
    canonical.extend_from_slice(reason.as_bytes());
    canonical.extend_from_slice(b"\r\n");
    let mut facts = Facts::default();
    for field in &*response.headers {
        if fields::has_control(field.value) {
            return Err(ResponseError::FieldValue);
        }
        facts.note(field.name, field.value)?;
        fields::push(&mut canonical, field.name, field.value);
    }
    if status == 101 && !asked.upgrade {
        return Err(ResponseError::UnaskedUpgrade);
    }
    let announced = announced(http11, &facts)?;
    let is_empty = matches!(announced, None | Some(Framing::Length(0)));
    if status < 200 && !is_empty {
        return Err(ResponseError::InterimBody);
    }
    let framing = match status {
        // What follows is in the other protocol, to the connection's end.
        101 => Framing::UntilClose,
        // RFC 9112 6.3: these have no body, whatever their fields say.
        100..=199 | 204 | 304 => Framing::None,
        _ if asked.head => Framing::None,
        _ => announced.unwrap_or(Framing::UntilClose),
    };
    // A body that is announced where there is none may come all the same, and would be taken for the next response.
    let may_follow = framing == Framing::None && !is_empty;
    Ok(ResponseHead {
        status,
        http11,
        framing,
        keep_alive: facts.keep_alive.unwrap_or(http11)
            && framing != Framing::UntilClose
            && !may_follow,
        keep_alive_timeout: facts.keep_alive_timeout,
        reason: 0..reason.len(),
        canonical,
    })
}

/// How the end of the body is found, as the fields say (RFC 9112 6.1 and 6.3); none if they say nothing.
fn announced(http11: bool, facts: &Facts) -> Result<Option<Framing>, ResponseError> {
    match (facts.coding, facts.length) {
        (Coding::Absent, length) => Ok(length.map(Framing::Length)),
        _ if !http11 => Err(ResponseError::Coding),
        (Coding::Empty | Coding::Unframed, _) => Err(ResponseError::Coding),
        (Coding::Unknown, _) => Err(ResponseError::UnknownCoding),
        (Coding::Chunked, None) => Ok(Some(Framing::Chunked)),
        (Coding::Chunked, Some(_)) => Err(ResponseError::LengthAndCoding),
    }
}

/// What the fields say about the message and the connection.
#[derive(Default)]
struct Facts {
    length: Option<u64>,
    coding: Coding,
    /// What Connection says; `close` beats `keep-alive`.
    keep_alive: Option<bool>,
    keep_alive_timeout: Option<Duration>,
}

impl Facts {
    fn note(&mut self, name: &str, value: &[u8]) -> Result<(), ResponseError> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            10 if is("connection") => {
                for option in fields::list(value) {
                    if option.eq_ignore_ascii_case(b"close") {
                        self.keep_alive = Some(false);
                    } else if option.eq_ignore_ascii_case(b"keep-alive") {
                        self.keep_alive.get_or_insert(true);
                    }
                }
            }
            10 if is("keep-alive") => {
                // RFC 2068 19.7.1.1: `timeout=SECONDS`.
                let seconds = fields::list(value).find_map(|parameter| {
                    let (name, seconds) = parameter.split_at_checked(8)?;
                    let is_timeout = name.eq_ignore_ascii_case(b"timeout=");
                    is_timeout.then(|| fields::parse_length(seconds)).flatten()
                });
                self.keep_alive_timeout = seconds.map(Duration::from_secs);
            }
            14 if is("content-length") => {
                let length = fields::parse_length(value).ok_or(ResponseError::Length)?;
                if self.length.replace(length).is_some() {
                    return Err(ResponseError::Length);
                }
            }
            17 if is("transfer-encoding") => self.coding = self.coding.and(value),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
