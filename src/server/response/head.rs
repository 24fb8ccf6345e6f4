//! How a reply's head is written (RFC 9112 section 4).

use std::borrow::Cow;
use std::time::SystemTime;

use super::{Body, Response};
use crate::http::body::Framing;
use crate::http::fields;
use crate::server::exchange::ReplyRules;
use crate::server::stream::{Source, Stream};

impl Response {
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
        let source = match self.body {
            Body::Tunnel { tunnel, .. } => Source::Tunnel(tunnel),
            _ if bodiless || empty || rules.head_only => return (close, None),
            Body::Later(_) => return (close, None),
            Body::Bytes(bytes) => return (close, Some(Payload::Bytes(bytes))),
            Body::Reader { reader, .. } => Source::Reader(reader),
            Body::Relay { relay, .. } => Source::Relay(relay),
        };
        let stream = Stream::new(source, framing, close);
        (close, Some(Payload::Stream(stream)))
    }

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

pub(super) fn is_own(name: &str) -> bool {
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
pub(super) fn push_status_line(out: &mut Vec<u8>, status: u16, reason: Option<&str>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    fields::push_decimal(out, u64::from(status));
    out.push(b' ');
    let reason = reason.unwrap_or_else(|| usual_reason(status));
    out.extend_from_slice(reason.as_bytes());
}

/// The reason phrase of a status where a reply has none of its own.
pub(crate) fn usual_reason(status: u16) -> &'static str {
    tiny_http::StatusCode(status).default_reason_phrase()
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
            fields::push_decimal(out, length);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_that_has_no_date_gives_no_date() {
        let mut date = DateCache::default();
        let epoch = SystemTime::UNIX_EPOCH;
        let second = Duration::from_secs(1);
        let last = Duration::from_secs(LAST_SECOND);
        for (now, expected) in [
            (epoch - second, None),
            (epoch, Some("Thu, 01 Jan 1970 00:00:00 GMT")),
            (epoch + last, Some("Fri, 31 Dec 9999 23:59:59 GMT")),
            (epoch + last + second, None),
            (epoch + second, Some("Thu, 01 Jan 1970 00:00:01 GMT")),
        ] {
            assert_eq!(date.at(now), expected, "{now:?}");
        }
    }
}
