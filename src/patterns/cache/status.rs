//! Cache-Status: what the cache did with a request (RFC 9211).

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::fields::Fields;
use super::freshness::Freshness;

const CACHE_STATUS: &str = "Cache-Status";

/// Why a request goes to the origin (RFC 9211 section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forward {
    /// The cache does not handle such a request.
    Bypass,
    /// The cache does not handle the method.
    Method,
    /// No reply is kept for the URI.
    UriMiss,
    /// Replies are kept for the URI, but not for such a request.
    VaryMiss,
    /// One is kept and fresh, but the request does not take it.
    Request,
    /// One is kept and stale.
    Stale,
}

impl Forward {
    fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }
}

/// What a cache did with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheResult {
    /// It had a fresh reply.
    Hit,
    /// It gave a stale reply, which may stand for a fresh one or for an error.
    Stale,
    /// The origin said that the kept reply is still valid.
    Validated,
    /// It had the origin asked, or, of a client that wants nothing else than what is kept, had nothing.
    Miss,
    /// It let the request go past.
    Bypass,
}

impl CacheResult {
    /// The word for it: `hit`, `stale`, `validated`, `miss` or `bypass`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Validated => "validated",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }
}

/// Seconds for which a reply is still fresh, negative when it is stale.
fn ttl(freshness: &Freshness, now: Instant) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds(freshness.lifetime).saturating_sub(seconds(freshness.age(now)))
}

/// Says that the request was answered from the cache.
pub(super) fn push_hit(fields: &mut Fields, freshness: &Freshness, now: Instant) {
    let ttl = ttl(freshness, now);
    fields.push_made(CACHE_STATUS, format_args!("plimsoll; hit; ttl={ttl}"));
}

/// Says that the request went on to the origin.
pub(super) fn push_forward(
    fields: &mut Fields,
    forward: Forward,
    status: Option<u16>,
    stored: bool,
    collapsed: bool,
) {
    let mut value = format!("plimsoll; fwd={}", forward.token());
    if let Some(status) = status {
        write!(value, "; fwd-status={status}").expect("a String takes all");
    }
    if stored {
        value.push_str("; stored");
    }
    if collapsed {
        value.push_str("; collapsed");
    }
    fields.push(CACHE_STATUS, value);
}
