//! Cache-Status: what the cache did with a request (RFC 9211).

use std::fmt::Write as _;
use std::time::Instant;

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

/// Seconds for which a reply is still fresh, negative when it is stale.
fn ttl(freshness: &Freshness, now: Instant) -> i128 {
    let seconds = |duration: std::time::Duration| i128::from(duration.as_secs());
    seconds(freshness.lifetime) - seconds(freshness.age(now))
}

/// Says that the request was answered from the cache.
pub(super) fn push_hit(fields: &mut Fields, freshness: &Freshness, now: Instant) {
    fields.push(
        CACHE_STATUS,
        format!("plimsoll; hit; ttl={}", ttl(freshness, now)),
    );
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
