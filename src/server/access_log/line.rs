//! How a request looks in the access log.
//!
//! Whatever a client sends, a line is one line, a field in quotes ends at the next quote, and a line of JSON is JSON.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::time::{Duration, SystemTime};

use super::Record;
use crate::calendar::Utc;
use crate::http::head::Version;
use crate::json;
use crate::server::request_head::{AskedEndpoint, new_id};
use crate::settings::AccessLogFormat;

/// The most bytes of a target in a line; with the rest it stays below the longest line that is not cut.
const TARGET: usize = 4096;

/// The most bytes of another value of a client in a line.
const VALUE: usize = 1024;

const METHOD: usize = 32;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// What is known once a request is answered.
#[derive(Debug)]
pub(super) struct Facts {
    /// When it was whole, or refused.
    pub(super) time: SystemTime,
    /// From then to the last byte.
    pub(super) duration: Duration,
    /// What was sent of the reply behind its head.
    pub(super) bytes: u64,
}

/// The line, without its end.
pub(super) fn write(format: AccessLogFormat, record: &Record, facts: &Facts) -> Vec<u8> {
    let mut line = String::with_capacity(512);
    let written = match format {
        AccessLogFormat::Common => write_common(&mut line, record, facts),
        AccessLogFormat::Combined => write_combined(&mut line, record, facts),
        AccessLogFormat::Json => write_json(&mut line, record, facts),
    };
    // To write to a string never fails.
    debug_assert!(written.is_ok());
    line.into_bytes()
}

/// The [common log format](https://httpd.apache.org/docs/2.4/logs.html#common).
fn write_common(line: &mut String, record: &Record, facts: &Facts) -> fmt::Result {
    let Utc {
        year,
        month,
        day,
        hour,
        minute,
        second,
    } = Utc::at(facts.time);
    let month = usize::try_from(month).unwrap_or_default();
    let month = MONTHS[month.clamp(1, 12) - 1];
    write!(
        line,
        "{} - - [{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000] \"",
        record.client
    )?;
    match &record.head {
        Some(head) => {
            escape(line, head.method_text().as_bytes(), METHOD);
            line.push(' ');
            escape(line, head.target().as_bytes(), TARGET);
            write!(line, " {}", protocol(head.version))?;
        }
        None => line.push('-'),
    }
    write!(line, "\" {:03} {}", record.status, facts.bytes)
}

/// Apache's combined format, and behind it the duration and the wait in seconds, the id and the reason; of a
/// request that was forwarded also the endpoint, the tries, and their time in seconds; of one that a cache was asked for,
/// behind these, what it did.
fn write_combined(line: &mut String, record: &Record, facts: &Facts) -> fmt::Result {
    write_common(line, record, facts)?;
    for name in ["referer", "user-agent"] {
        line.push_str(" \"");
        match field(record, name) {
            Some(value) if !value.is_empty() => escape(line, value, VALUE),
            _ => line.push('-'),
        }
        line.push('"');
    }
    write!(line, " {} ", Seconds(facts.duration))?;
    match record.wait {
        Some(wait) => write!(line, "{} ", Seconds(wait))?,
        None => line.push_str("- "),
    }
    escape(line, id(record).as_bytes(), VALUE);
    line.push(' ');
    line.push_str(record.reason.unwrap_or("-"));
    if let Some(AskedEndpoint { name, tries, time }) = endpoint(record) {
        line.push(' ');
        escape(line, name.as_bytes(), VALUE);
        write!(line, " {tries} {}", Seconds(*time))?;
    } else if cache(record).is_some() {
        line.push_str(" - - -");
    }
    if let Some(result) = cache(record) {
        write!(line, " {result}")?;
    }
    Ok(())
}

/// One object with everything.
fn write_json(line: &mut String, record: &Record, facts: &Facts) -> fmt::Result {
    let since = facts.time.duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.subsec_millis());
    let second = Utc::at(facts.time).to_string();
    write!(
        line,
        r#"{{"time":"{}.{millis:03}Z","client":"{}","peer":"{}""#,
        second.trim_end_matches('Z'),
        record.client,
        record.peer,
    )?;
    let head = record.head.as_deref();
    let method = head.map(|head| head.method_text().as_bytes());
    member(line, "method", method, METHOD)?;
    let target = head.map(|head| head.target().as_bytes());
    member(line, "target", target, TARGET)?;
    let version = head.map(|head| protocol(head.version).as_bytes());
    member(line, "protocol", version, VALUE)?;
    member(line, "host", field(record, "host"), VALUE / 4)?;
    let (status, bytes) = (record.status, facts.bytes);
    let duration = Seconds(facts.duration);
    write!(
        line,
        r#","status":{status},"bytes":{bytes},"duration":{duration},"wait":"#
    )?;
    match record.wait {
        Some(wait) => write!(line, "{}", Seconds(wait))?,
        None => line.push_str("null"),
    }
    member(line, "id", Some(id(record).as_bytes()), VALUE)?;
    member(line, "reason", record.reason.map(str::as_bytes), VALUE)?;
    if let Some(AskedEndpoint { name, tries, time }) = endpoint(record) {
        member(line, "endpoint", Some(name.as_bytes()), VALUE)?;
        write!(
            line,
            ",\"tries\":{tries},\"upstream_time\":{}",
            Seconds(*time)
        )?;
    }
    if let Some(result) = cache(record) {
        member(line, "cache", Some(result.as_bytes()), VALUE)?;
    }
    member(line, "referer", field(record, "referer"), VALUE)?;
    member(line, "user_agent", field(record, "user-agent"), VALUE)?;
    line.push('}');
    Ok(())
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
    }
}

fn field<'a>(record: &'a Record, name: &str) -> Option<&'a [u8]> {
    record.head.as_ref()?.field(name)
}

fn endpoint(record: &Record) -> Option<&AskedEndpoint> {
    record.head.as_ref()?.endpoint()
}

fn cache(record: &Record) -> Option<&'static str> {
    record.head.as_ref()?.cache()
}

/// That of a request which could not be read is made up, so that every line has one.
fn id(record: &Record) -> Cow<'_, str> {
    record.head.as_ref().map_or_else(
        || Cow::Owned(new_id().into_string()),
        |head| Cow::Borrowed(head.id()),
    )
}

/// Seconds, to the microsecond.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0.as_secs(), self.0.subsec_micros())
    }
}

/// Shows that a value was cut.
const CUT: &str = "...";

/// Appends a value as nginx does: quotes, backslashes and what is no visible ASCII or space as `\xHH`. At most `limit`
/// bytes of it, then `...`.
fn escape(line: &mut String, value: &[u8], limit: usize) {
    let end = line.len() + limit;
    for &byte in value {
        if line.len() >= end {
            line.push_str(CUT);
            return;
        }
        match byte {
            b'"' | b'\\' | ..=0x1f | 0x7f.. => {
                // To write to a string never fails.
                let _ = write!(line, "\\x{byte:02X}");
            }
            _ => line.push(char::from(byte)),
        }
    }
}

/// Appends a member of a JSON object: a string, or null. What is not UTF-8 is read as ISO 8859-1, as handlers see it.
fn member(line: &mut String, name: &str, value: Option<&[u8]>, limit: usize) -> fmt::Result {
    write!(line, ",\"{name}\":")?;
    let Some(value) = value else {
        line.push_str("null");
        return Ok(());
    };
    line.push('"');
    let end = line.len() + limit;
    let mut push = |character| {
        if line.len() >= end {
            line.push_str(CUT);
            return Ok(false);
        }
        json::write_escaped(character, line).map(|()| true)
    };
    match str::from_utf8(value) {
        Ok(text) => {
            for character in text.chars() {
                if !push(character)? {
                    break;
                }
            }
        }
        Err(_) => {
            for &byte in value {
                if !push(char::from(byte))? {
                    break;
                }
            }
        }
    }
    line.push('"');
    Ok(())
}

#[cfg(test)]
mod tests;
