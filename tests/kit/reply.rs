//! A reader of replies that takes nothing but what HTTP/1.1 allows.

use std::io::{self, BufRead, ErrorKind, Read};

/// How the end of a reply's body was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By its status, or because it answers HEAD.
    None,
    Length,
    Chunked,
    UntilClose,
}

/// A reply as it came.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Name and value as they came, in order.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) framing: Framing,
    pub(crate) body: Vec<u8>,
    /// Whether the body is as long as it says.
    pub(crate) whole: bool,
}

impl Reply {
    /// Reads the next reply; `to_head` when it answers HEAD.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when nothing comes before the end, what the system says when it says so before the first byte,
    /// and `Other` when the head is cut or something is no reply. A body that is cut is no error.
    pub(crate) fn read(stream: &mut impl BufRead, to_head: bool) -> io::Result<Self> {
        let status_line = match line(stream, true)? {
            line if line.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
            line => line,
        };
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.split_once(' '))
            .and_then(|(status, _)| status.parse().ok())
            .ok_or_else(|| wrong(&format!("a status line, not {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = line(stream, false)?;
            if line.is_empty() {
                break;
            }
            let header = line.split_once(": ");
            let (name, value) = header.ok_or_else(|| wrong(&format!("a header, not {line:?}")))?;
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut reply = Self {
            status,
            headers,
            framing: Framing::None,
            body: Vec::new(),
            whole: true,
        };
        let length: Option<u64> = match reply.header("Content-Length") {
            Some(length) => Some(length.parse().map_err(io::Error::other)?),
            None => None,
        };
        let chunked = match reply.header("Transfer-Encoding") {
            Some("chunked") => true,
            Some(other) => return Err(wrong(&format!("chunked, not {other:?}"))),
            None => false,
        };
        if length.is_some() && chunked {
            return Err(wrong(&format!("one framing, not two: {reply:?}")));
        }
        if to_head || matches!(status, 100..=199 | 204 | 304) {
            return Ok(reply);
        }
        if chunked {
            reply.framing = Framing::Chunked;
            reply.whole = read_chunks(stream, &mut reply.body)?;
        } else if let Some(length) = length {
            reply.framing = Framing::Length;
            reply.whole = read_exactly(stream, length, &mut reply.body);
        } else {
            reply.framing = Framing::UntilClose;
            reply.whole = stream.read_to_end(&mut reply.body).is_ok();
        }
        Ok(reply)
    }

    /// The value of the one header of that name, in any case.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let (_, value) = found.next()?;
        assert!(found.next().is_none(), "{name} more than once: {self:?}");
        Some(value)
    }

    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("a body of text")
    }

    /// Whether the server says that it will close the connection.
    #[track_caller]
    pub(crate) fn closes(&self) -> bool {
        self.header("Connection") == Some("close")
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::other(format!("expected {what}"))
}

/// A line of a head, without its end; empty at the end of input if this is the head's `first` line.
fn line(stream: &mut impl BufRead, first: bool) -> io::Result<String> {
    let mut line = String::new();
    match stream.read_line(&mut line) {
        Ok(0) if first => return Ok(line),
        Err(error) if first && line.is_empty() => return Err(error),
        Ok(_) if line.ends_with("\r\n") => line.truncate(line.len() - 2),
        Ok(_) => {
            return Err(wrong(&format!(
                "a line of a head, not {line:?} and the end"
            )));
        }
        Err(error) => return Err(io::Error::other(error)),
    }
    if first && line.is_empty() {
        return Err(wrong("a status line, not an empty one"));
    }
    Ok(line)
}

/// Whether so many bytes came; a reset is one of the ways in which they are cut.
fn read_exactly(stream: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> bool {
    let before = body.len() as u64;
    let got = stream.take(length).read_to_end(body);
    got.is_ok() && body.len() as u64 == before + length
}

/// Whether the last chunk came.
fn read_chunks(stream: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap_or(0) == 0 || !line.ends_with("\r\n") {
            return Ok(false);
        }
        let size = u64::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        let mut end = Vec::new();
        if !read_exactly(stream, size, body) || !read_exactly(stream, 2, &mut end) {
            return Ok(false);
        }
        if end != b"\r\n" {
            return Err(wrong(&format!("the end of a chunk, not {end:?}")));
        }
        if size == 0 {
            return Ok(true);
        }
    }
}
