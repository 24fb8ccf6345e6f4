//! How old a reply is, and how old it may become (RFC 9111 section 4.2).

use std::time::{Duration, Instant, SystemTime};

use super::control::{Directives, seconds};
use super::date;
use super::fields::Fields;

/// A heuristic lifetime is this part of the time since the last modification (RFC 9111 section 4.2.2).
const HEURISTIC_PART: u32 = 10;
/// And no longer than this.
const MOST_HEURISTIC: Duration = Duration::from_secs(24 * 60 * 60);

/// The time on both clocks: one that only goes forward, for how long a reply has been kept, and the one that people
/// read, for the dates in its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheTime {
    /// The clock that only goes forward.
    pub monotonic: Instant,
    /// The clock that people read.
    pub wall: SystemTime,
}

impl CacheTime {
    /// The time now.
    #[must_use]
    pub fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

/// The age and the lifetime of one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Freshness {
    received: Instant,
    initial_age: Duration,
    pub(super) lifetime: Duration,
    /// When it was made: its Date, or when it came.
    pub(super) date: SystemTime,
}

impl Freshness {
    /// Of a reply that was asked for at one time and came at another.
    pub(super) fn new(
        status: u16,
        fields: &Fields,
        directives: &Directives,
        asked: CacheTime,
        received: CacheTime,
    ) -> Self {
        let dated = fields.text("Date").and_then(date::parse);
        // Section 4.2.3.
        let apparent = dated.and_then(|date| received.wall.duration_since(date).ok());
        let delay = received
            .monotonic
            .saturating_duration_since(asked.monotonic);
        let corrected = age(fields) + delay;
        let date = dated.unwrap_or(received.wall);
        Self {
            received: received.monotonic,
            initial_age: apparent.unwrap_or_default().max(corrected),
            lifetime: lifetime(status, fields, directives, date).unwrap_or_default(),
            date,
        }
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        self.initial_age + now.saturating_duration_since(self.received)
    }

    /// How old it was when it came.
    pub(super) fn age_at_receipt(&self) -> Duration {
        self.initial_age
    }

    /// How long it is still fresh; none once it is stale.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.lifetime
            .checked_sub(self.age(now))
            .filter(|left| !left.is_zero())
    }

    /// For how long it has been stale.
    pub(super) fn staleness(&self, now: Instant) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }
}

/// The lifetime that the origin set (section 4.2.1), whatever it is.
pub(super) fn explicit_lifetime(
    fields: &Fields,
    directives: &Directives,
    dated: SystemTime,
) -> Option<Duration> {
    if let Some(seconds) = directives.s_maxage.or(directives.max_age) {
        return Some(Duration::from_secs(seconds.into()));
    }
    if directives.targeted {
        return None;
    }
    let expires = fields.first("Expires")?;
    // What is no date is a time in the past (section 5.3).
    let expires = str::from_utf8(expires).ok().and_then(date::parse);
    Some(
        expires
            .and_then(|expires| expires.duration_since(dated).ok())
            .unwrap_or_default(),
    )
}

fn lifetime(
    status: u16,
    fields: &Fields,
    directives: &Directives,
    dated: SystemTime,
) -> Option<Duration> {
    explicit_lifetime(fields, directives, dated).or_else(|| {
        let allowed = is_heuristically_cacheable(status) || directives.public;
        let modified = fields.text("Last-Modified").and_then(date::parse)?;
        let unchanged = dated.duration_since(modified).ok()?;
        allowed.then_some((unchanged / HEURISTIC_PART).min(MOST_HEURISTIC))
    })
}

/// The Age field: the first member counts, and one that is no number is not there (section 5.1). A number with a
/// parameter, which it may not have, is taken: to take a reply for too old is safe.
fn age(fields: &Fields) -> Duration {
    let first = fields
        .text("Age")
        .and_then(|value| value.split([',', ';']).next());
    let seconds = first.and_then(|first| seconds(first.trim()));
    Duration::from_secs(seconds.unwrap_or(0).into())
}

/// Status codes that may be given a lifetime by the cache (RFC 9110 section 15.1).
pub(super) fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(
        status,
        200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}
