//! Asks a health endpoint how its service is, as a container's health check does: one GET, by one absolute deadline.

use std::fmt;
use std::io::Read;
use std::str::FromStr;
use std::time::Instant;

use super::clean::clean;
use super::http::Http;
use crate::checks::CheckError;
use crate::health::Status;
use crate::net::url::{Scheme, StoreUrlError, Url, UrlPart};

/// Most of a body that is read: a status is in its beginning.
const MOST_BODY: u64 = 64 * 1024;

/// A health endpoint to ask.
///
/// ```no_run
/// use std::time::{Duration, Instant};
///
/// let probe: plimsoll::Probe = "http://127.0.0.1:8080/readyz".parse()?;
/// let answer = probe.ask(Instant::now() + Duration::from_secs(2))?;
/// assert_eq!(answer.to_string(), "200 ready");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe(Http);

/// What a health endpoint said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probed {
    /// Its status: [`Warn`](Status::Warn) for 429, for a 2xx whose text says `warning`, and for one in
    /// `application/health+json` whose status is `warn`; [`Pass`](Status::Pass) for any other 2xx; else
    /// [`Fail`](Status::Fail). A redirection is not followed.
    pub status: Status,
    /// The status code of HTTP.
    pub code: u16,
    /// The first line of the body: short, without control characters, perhaps empty.
    pub line: String,
}

impl fmt::Display for Probed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.code, self.line)
    }
}

impl FromStr for Probe {
    type Err = StoreUrlError;

    /// Reads a URL of `http://`; its port is 80 unless it names one.
    ///
    /// # Errors
    /// The first part that is not as it should be.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SCHEMES: &str = "http://";
        let scheme = Scheme::split(text, SCHEMES)?;
        match scheme.name {
            "http" => {}
            "https" => {
                let expected = "http://: TLS is not spoken here";
                return Err(StoreUrlError::new(UrlPart::Scheme, expected, "https://"));
            }
            _ => return Err(scheme.refuse(SCHEMES)),
        }
        // Text first, as Consul asks for it: then a warning is told in a line.
        let accept = "text/plain, text/*, */*";
        Ok(Self(Http::accepting(accept, &Url::parse(&scheme)?)?))
    }
}

impl Probe {
    /// Asks, and waits for the answer until `deadline`: for the address, the connection, and every byte of the reply
    /// together.
    ///
    /// # Errors
    /// Why there is no answer: it can't be reached, takes too long, or speaks something else than HTTP/1.
    pub fn ask(&self, deadline: Instant) -> Result<Probed, CheckError> {
        let mut reply = self.0.ask(deadline, &(100..1000))?;
        let mut body = Vec::new();
        let read = reply.body.by_ref().take(MOST_BODY).read_to_end(&mut body);
        read.map_err(|error| CheckError::new(error.to_string()))?;
        let content_type = reply.head.field("content-type").unwrap_or_default();
        let media_type = content_type.split(|&byte| byte == b';').next();
        let is_health_json = media_type.is_some_and(|media_type| {
            media_type
                .trim_ascii()
                .eq_ignore_ascii_case(b"application/health+json")
        });
        Ok(Probed {
            status: verdict(reply.head.status, is_health_json, &body),
            code: reply.head.status,
            line: clean(&body, None),
        })
    }
}

fn verdict(code: u16, is_health_json: bool, body: &[u8]) -> Status {
    match code {
        429 => Status::Warn,
        200..=299 if is_health_json => json_status(body).unwrap_or(Status::Pass),
        200..=299 if body.trim_ascii() == b"warning" => Status::Warn,
        200..=299 => Status::Pass,
        _ => Status::Fail,
    }
}

/// The status at the top of `application/health+json`, whatever the checks below it say; its words are the draft's,
/// see draft-inadarei-api-health-check-06 section 3.1.
fn json_status(body: &[u8]) -> Option<Status> {
    let mut depth = 0_u32;
    let mut rest = body;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let (text, behind) = json_string(after)?;
                rest = behind;
                let value = behind.trim_ascii_start().strip_prefix(b":");
                // Only a key has a colon behind it.
                if let Some(value) = value
                    && depth == 1
                    && text == b"status"
                {
                    let (word, _) = json_string(value.trim_ascii_start().strip_prefix(b"\"")?)?;
                    return match word.to_ascii_lowercase().as_slice() {
                        b"pass" | b"ok" | b"up" => Some(Status::Pass),
                        b"warn" => Some(Status::Warn),
                        b"fail" | b"error" | b"down" => Some(Status::Fail),
                        _ => None,
                    };
                }
            }
            _ => {}
        }
    }
    None
}

/// A string whose first quote has been read, as it is written, and what is behind its last.
fn json_string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    let end = text.iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some((&text[..end], &text[end + 1..]))
}

#[cfg(all(test, feature = "checks"))]
mod tests;
