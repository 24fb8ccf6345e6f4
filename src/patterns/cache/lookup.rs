//! What becomes of a request.

use std::sync::{Arc, MutexGuard};

use super::conditional::{has_validator, is_conditional, is_for_origin, validate};
use super::control::Directives;
use super::fetch::{Fetch, Purpose};
use super::flight::{FetchOutcome, Joined, Place};
use super::freshness::CacheTime;
use super::reply::CachedReply;
use super::request::Question;
use super::reuse::{Reuse, may_stand_for_error};
use super::status::Forward;
use super::store::Entry;
use super::ticket::Ticket;
use super::wait::Wait;
use super::{CacheState, Lookup, SharedCache};

impl SharedCache {
    pub(super) fn lookup(
        self: &Arc<Self>,
        question: &Question<'_>,
        has_body: bool,
        now: CacheTime,
    ) -> Lookup {
        let directives = Directives::of(question.fields);
        let mut state = self.state();
        let bypass = if !matches!(question.method, "GET" | "HEAD") {
            Some(Forward::Method)
        } else if has_body || is_for_origin(question.fields) || directives.no_store {
            Some(Forward::Bypass)
        } else {
            None
        };
        if let Some(forward) = bypass {
            state.counts.bypassed += 1;
            let place = state.fetches.alone(question.key);
            drop(state);
            return Lookup::Fetch(self.fetch(question, place, None, Purpose::Past, forward, now));
        }
        match state.store.find(question.key, question.fields) {
            Some(kept) => self.found(state, question, kept, &directives, now),
            None if directives.only_if_cached => Lookup::Reply(CachedReply::not_cached()),
            None => {
                let known = state.store.vary(question.key).is_some();
                let forward = if known {
                    Forward::VaryMiss
                } else {
                    Forward::UriMiss
                };
                let is_alone = is_conditional(question.fields);
                self.ask(state, question, None, is_alone, forward, now)
            }
        }
    }

    fn found(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, CacheState>,
        question: &Question<'_>,
        kept: Arc<Entry>,
        directives: &Directives,
        now: CacheTime,
    ) -> Lookup {
        let reuse = Reuse::of(&kept, directives, now.monotonic);
        let give = |kept: &Entry| {
            CachedReply::hit(kept, question.fields, question.is_head(), now.monotonic)
        };
        match reuse {
            Reuse::Give => {
                match kept.freshness.left(now.monotonic) {
                    Some(_) => state.counts.hits += 1,
                    None => state.counts.stale += 1,
                }
                drop(state);
                Lookup::Reply(give(&kept))
            }
            Reuse::GiveAndRefresh => {
                state.counts.stale += 1;
                let reply = give(&kept);
                // A HEAD, a range or a request with Authorization refreshes nothing.
                if question.is_alone() || state.fetches.is_flying(question.key, &kept.signature) {
                    return Lookup::Reply(reply);
                }
                match self.ask(state, question, Some(kept), false, Forward::Stale, now) {
                    Lookup::Fetch(fetch) => Lookup::ReplyAndRefresh(reply, fetch),
                    _ => Lookup::Reply(reply),
                }
            }
            Reuse::Validate | Reuse::ValidateForRequest => {
                if directives.only_if_cached {
                    return Lookup::Reply(CachedReply::not_cached());
                }
                let failed = question.outcome == Some(FetchOutcome::Failed);
                if failed && may_stand_for_error(&kept, directives, now.monotonic) {
                    state.counts.stale += 1;
                    drop(state);
                    return Lookup::Reply(give(&kept));
                }
                let for_request = reuse == Reuse::ValidateForRequest;
                let forward = if for_request {
                    Forward::Request
                } else {
                    Forward::Stale
                };
                let is_alone =
                    for_request || !has_validator(&kept.fields) && is_conditional(question.fields);
                self.ask(state, question, Some(kept), is_alone, forward, now)
            }
        }
    }

    /// Asks the origin, or waits for another who does.
    fn ask(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, CacheState>,
        question: &Question<'_>,
        kept: Option<Arc<Entry>>,
        is_alone: bool,
        forward: Forward,
        now: CacheTime,
    ) -> Lookup {
        let joined = if is_alone || question.is_alone() {
            Joined::Leads(state.fetches.alone(question.key))
        } else {
            let vary = state.store.vary(question.key).cloned().unwrap_or_default();
            let signature = vary.signature(&question.fields.iter());
            state.fetches.join(question.key, signature, now.monotonic)
        };
        match &joined {
            Joined::Leads(_) => state.counts.misses += 1,
            Joined::Waits(_) => state.counts.waits += 1,
        }
        drop(state);
        match joined {
            Joined::Leads(place) => {
                let purpose = if question.is_head() {
                    Purpose::Describe
                } else {
                    Purpose::Keep
                };
                Lookup::Fetch(self.fetch(question, place, kept, purpose, forward, now))
            }
            Joined::Waits(flight) => Lookup::Wait(Wait {
                shared: Arc::clone(self),
                key: question.key.clone(),
                request: question.owned(),
                flight,
                waits: question.waits,
            }),
        }
    }

    fn fetch(
        self: &Arc<Self>,
        question: &Question<'_>,
        place: Place,
        kept: Option<Arc<Entry>>,
        purpose: Purpose,
        forward: Forward,
        now: CacheTime,
    ) -> Fetch {
        let mut sent = question.fields.clone();
        let mut validates = false;
        if !matches!(purpose, Purpose::Past) {
            sent.retain(|name| !is_override(name));
        }
        if matches!(purpose, Purpose::Keep)
            && let Some(kept) = &kept
            && has_validator(&kept.fields)
        {
            validate(&mut sent, &kept.fields);
            validates = true;
        }
        Fetch {
            ticket: Ticket {
                shared: Arc::clone(self),
                place,
                request: question.owned(),
                kept,
                forward,
                collapsed: question.waits > 0,
            },
            purpose,
            sent,
            validates,
            asked: now,
        }
    }
}

/// Fields by which frameworks let a client choose another host, path or method than those under which its reply would
/// be kept. `_` and `-` are the same for those who read fields as variables of the environment.
fn is_override(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let names = [
        "x-host",
        "x-original-url",
        "x-rewrite-url",
        "x-method-override",
    ];
    names.contains(&name.as_str()) || name.starts_with("x-http-method")
}
