//! Whether a kept reply may be given without asking the origin (RFC 9111 sections 4.2.4 and 5.2.1, RFC 5861).

use std::time::{Duration, Instant};

use super::control::{Directives, Scope};
use super::store::Entry;

/// What to do with a kept reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    /// Give it.
    Give,
    /// Give it, and ask the origin meanwhile.
    GiveAndRefresh,
    /// Ask first: it is stale, or is never given without asking.
    Validate,
    /// Ask first, because the request wants that.
    ValidateForRequest,
}

fn within(limit: Option<u32>, time: Duration) -> bool {
    limit.is_some_and(|limit| time <= Duration::from_secs(limit.into()))
}

impl Reuse {
    pub(super) fn of(entry: &Entry, request: &Directives, now: Instant) -> Self {
        let Entry {
            directives,
            freshness,
            ..
        } = entry;
        if request.no_cache != Scope::Absent
            || request.max_age.is_some() && !within(request.max_age, freshness.age(now))
        {
            return Self::ValidateForRequest;
        }
        if directives.no_cache == Scope::Whole {
            return Self::Validate;
        }
        if let Some(left) = freshness.left(now) {
            let wanted = Duration::from_secs(request.min_fresh.unwrap_or(0).into());
            return if left >= wanted {
                Self::Give
            } else {
                Self::ValidateForRequest
            };
        }
        let staleness = freshness.staleness(now);
        if directives.forbid_stale() {
            Self::Validate
        } else if within(request.max_stale, staleness) {
            Self::Give
        } else if within(directives.stale_while_revalidate, staleness) {
            Self::GiveAndRefresh
        } else {
            Self::Validate
        }
    }
}

/// Whether every request gets it that does not ask for more: it is fresh, and may be given without asking the origin.
pub(super) fn may_be_given(entry: &Entry, now: Instant) -> bool {
    Reuse::of(entry, &Directives::default(), now) == Reuse::Give
}

/// Whether it may be given because the origin cannot be asked, or failed (RFC 5861 section 4).
pub(super) fn may_stand_for_error(entry: &Entry, request: &Directives, now: Instant) -> bool {
    let Entry {
        directives,
        freshness,
        ..
    } = entry;
    let limit = directives.stale_if_error.max(request.stale_if_error);
    !directives.forbid_stale() && within(limit, freshness.staleness(now))
}
