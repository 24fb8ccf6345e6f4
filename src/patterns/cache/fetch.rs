//! A request that goes on to the origin, and what its reply means for the cache.

use std::sync::Arc;

use super::conditional::{describes, is_of_another};
use super::control::Directives;
use super::date;
use super::fields::Fields;
use super::filling::Filling;
use super::flight::FetchOutcome;
use super::freshness::{CacheTime, Freshness};
use super::reply::CachedReply;
use super::reuse::may_be_given;
use super::status::{CacheResult, Forward};
use super::store::Entry;
use super::storing::{is_storable, kept_fields, updated_fields};
use super::ticket::Ticket;
use super::vary::Vary;

/// What the reply to a fetch is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// It goes past the cache, but may make kept replies invalid.
    Past,
    /// It may be kept.
    Keep,
    /// It is one to HEAD, and may say something new of a kept reply.
    Describe,
}

/// A request that goes on to the origin: send [`fields`](Self::fields), then say how it went by
/// [`respond`](Self::respond) or [`fail`](Self::fail). Dropped, it counts as given up, and another of those who wait
/// goes on in its place.
#[derive(Debug)]
#[must_use = "others may wait for this fetch"]
pub struct Fetch {
    pub(super) ticket: Ticket,
    pub(super) purpose: Purpose,
    pub(super) sent: Fields,
    /// The request asks whether the kept reply is valid.
    pub(super) validates: bool,
    pub(super) asked: CacheTime,
}

/// What to give to the client of a [`Fetch`].
#[derive(Debug)]
pub enum Fetched {
    /// The origin's reply with its own status and these fields. Where it is to be kept, give its body to `filling` as
    /// it comes.
    Relay {
        /// The origin's fields, with a Cache-Status.
        fields: Fields,
        /// Takes the body.
        filling: Option<Box<Filling>>,
    },
    /// This instead of the origin's reply, whose body, if it has one, is of no use.
    Reply(CachedReply),
}

impl Fetch {
    /// The fields to send: those of the client, less those by which clients try to reach another resource under this
    /// one's key, and with the validators of the kept reply.
    #[must_use]
    pub fn fields(&self) -> &Fields {
        &self.sent
    }

    /// What the cache did, unless the fetch ends in a kept reply.
    #[must_use]
    pub fn result(&self) -> CacheResult {
        match self.ticket.forward {
            Forward::Bypass | Forward::Method => CacheResult::Bypass,
            _ => CacheResult::Miss,
        }
    }

    /// Whether others wait for it now, so that it is worth its time even if its own client has left.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.ticket.place.is_awaited()
    }

    /// The origin has answered with this head; not with an interim one. `fields` are as it sent them.
    #[must_use]
    pub fn respond(mut self, status: u16, fields: &Fields, now: CacheTime) -> Fetched {
        match self.purpose {
            Purpose::Past => self.pass(status, fields),
            Purpose::Describe => self.describe(status, fields, now),
            Purpose::Keep => {
                if let Some(kept) = self
                    .ticket
                    .kept
                    .take_if(|_| self.validates && status == 304)
                {
                    return self.validated(&kept, fields, now);
                }
                if matches!(status, 500 | 502 | 503 | 504)
                    && let Some(reply) = self.ticket.stale(Some(status), now)
                {
                    self.ticket.land(FetchOutcome::Failed, now);
                    return Fetched::Reply(reply);
                }
                self.keep(status, fields, now)
            }
        }
    }

    /// The origin could not be reached, did not answer in time, or its reply was malformed; or it may not be asked, as its
    /// circuit breaker is open. A kept reply that may be given stale for that is returned.
    #[must_use]
    pub fn fail(mut self, now: CacheTime) -> Option<CachedReply> {
        self.ticket.land(FetchOutcome::Failed, now);
        self.ticket.stale(None, now)
    }

    /// The origin's fields with what was done.
    fn relayed(&self, status: u16, fields: &Fields, stored: bool) -> Fields {
        let mut fields = fields.clone();
        let status = self.ticket.kept.is_some().then_some(status);
        self.ticket.note(&mut fields, status, stored);
        fields
    }

    fn relay(&self, status: u16, fields: &Fields) -> Fetched {
        Fetched::Relay {
            fields: self.relayed(status, fields, false),
            filling: None,
        }
    }

    /// A reply that goes past the cache. If it tells that an unsafe request was done, what is kept for the same URI may
    /// no longer be so (RFC 9111 section 4.4).
    fn pass(self, status: u16, fields: &Fields) -> Fetched {
        let done = (200..400).contains(&status);
        if done && !is_safe(&self.ticket.request.method) {
            let mut state = self.ticket.shared.state();
            for key in self.ticket.place.key.made_invalid(fields) {
                state.invalidate(&key);
            }
        }
        self.relay(status, fields)
    }

    /// A reply to HEAD updates the kept one that it describes; one that it does not describe is out of date (section
    /// 4.3.5).
    fn describe(mut self, status: u16, fields: &Fields, now: CacheTime) -> Fetched {
        if let Some(kept) = self.ticket.kept.take_if(|_| status == 200) {
            if describes(fields, &kept.fields, kept.body.len()) {
                self.update(&kept, fields, now);
            } else {
                self.ticket
                    .shared
                    .state()
                    .store
                    .remove(&self.ticket.place.key, &kept);
            }
        }
        self.relay(status, fields)
    }

    /// The kept reply is still valid (section 4.3.4).
    fn validated(mut self, kept: &Arc<Entry>, fields: &Fields, now: CacheTime) -> Fetched {
        self.ticket.shared.state().counts.validated += 1;
        let (updated, outcome) = if is_of_another(&kept.fields, fields) {
            (None, FetchOutcome::NotShared)
        } else {
            let (updated, outcome) = self.update(kept, fields, now);
            (Some(updated), outcome)
        };
        self.ticket.land(outcome, now);
        let reply = self.ticket.reply(updated.as_ref().unwrap_or(kept), now);
        let mut reply = reply.validated();
        self.ticket.note(&mut reply.fields, Some(304), false);
        Fetched::Reply(reply)
    }

    /// Puts the kept reply with newer fields in the place of the older one, and tells what that means for those who wait.
    /// One that may no longer be kept goes.
    fn update(&self, kept: &Arc<Entry>, fields: &Fields, now: CacheTime) -> (Entry, FetchOutcome) {
        let shared = &self.ticket.shared;
        let target = shared.target.as_deref();
        let mut new = fields.clone();
        add_date(&mut new, now);
        let updated = updated_fields(&kept.fields, &new, &Directives::of_reply(&new, target));
        let directives = Directives::of_reply(&updated, target);
        // The age is the new head's; kept fields have none.
        let mut aged = updated.clone();
        for age in fields.all("Age") {
            aged.push("Age", age);
        }
        let freshness = Freshness::new(kept.status, &aged, &directives, self.asked, now);
        let entry = |vary: Vary| Entry {
            status: kept.status,
            fields: updated.clone(),
            body: Arc::clone(&kept.body),
            directives: directives.clone(),
            freshness,
            signature: vary.signature(&self.ticket.request.fields.iter()),
            vary,
        };
        let request = &self.ticket.request.fields;
        let storable = is_storable(kept.status, request, &updated, &directives, &freshness);
        let vary = Vary::of(&updated);
        let mut state = shared.state();
        let place = &self.ticket.place;
        let is_valid = state.fetches.is_valid(place);
        let mut is_fresh = false;
        if let Some(vary) = vary.clone().filter(|_| storable && is_valid) {
            let new = entry(vary);
            is_fresh = may_be_given(&new, now.monotonic);
            state.store.replace(&place.key, kept, new);
        } else {
            state.store.remove(&place.key, kept);
        }
        let outcome = FetchOutcome::of_storable(is_valid, is_fresh);
        (entry(vary.unwrap_or_default()), outcome)
    }

    /// A whole reply of the origin's own.
    fn keep(mut self, status: u16, fields: &Fields, now: CacheTime) -> Fetched {
        let shared = Arc::clone(&self.ticket.shared);
        let directives = Directives::of_reply(fields, shared.target.as_deref());
        let freshness = Freshness::new(status, fields, &directives, self.asked, now);
        let request = &self.ticket.request.fields;
        let storable = is_storable(status, request, fields, &directives, &freshness);
        let vary = Vary::of(fields).filter(|_| storable);
        let length = fields
            .text("Content-Length")
            .and_then(|text| text.parse::<usize>().ok());
        let Some(vary) = vary.filter(|_| length.is_none_or(|length| length <= shared.most_of_one))
        else {
            let failed = status >= 500;
            if let Some(kept) = self
                .ticket
                .kept
                .as_ref()
                .filter(|_| self.validates && !failed && status != 206)
            {
                // The origin has another reply now, and that one may not be kept.
                shared.state().store.remove(&self.ticket.place.key, kept);
            }
            let outcome = if failed {
                FetchOutcome::Failed
            } else {
                FetchOutcome::NotShared
            };
            self.ticket.land(outcome, now);
            return self.relay(status, fields);
        };
        let mut kept = kept_fields(fields, &directives);
        add_date(&mut kept, now);
        let entry = Entry {
            status,
            fields: kept,
            body: Arc::default(),
            directives,
            freshness,
            signature: vary.signature(&request.iter()),
            vary,
        };
        let fields = self.relayed(status, fields, true);
        let filling = Some(Box::new(Filling::new(self.ticket, entry, length)));
        Fetched::Relay { fields, filling }
    }
}

/// Adds the time of receipt as the date of a reply that has none (RFC 9110 section 6.6.1).
fn add_date(fields: &mut Fields, now: CacheTime) {
    if !fields.contains("Date")
        && let Some(date) = date::format(now.wall)
    {
        fields.push("Date", date);
    }
}

/// Methods that change nothing (RFC 9110 section 9.2.1). One that is not known may change something.
fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}
