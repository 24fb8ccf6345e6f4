//! The shortest way through the cache: a fresh reply to a request that asks for no more than that.

use std::sync::Arc;
use std::time::Instant;

use super::Cache;
use super::fields::Fields;
use super::key::Key;
use super::reply::CachedReply;
use super::reuse::may_be_given;
use super::store::Entry;

/// A GET without a body, with the fields as its client sent them.
#[derive(Debug, Clone, Copy)]
pub struct PlainGet<'a, F> {
    /// Whether the client's URI is one of https, as far as it is known.
    pub https: bool,
    /// The Host, or the authority of a target in absolute form.
    pub host: &'a str,
    /// The target in origin form.
    pub target: &'a str,
    /// The fields, name and value.
    pub fields: F,
    /// Whether the origin gets the fields of this name as they are here, in case a reply varies by them.
    pub is_sent_on: fn(&str) -> bool,
}

impl Cache {
    /// A fresh reply, where one is kept that this request takes as it is. It is what a
    /// [look-up](Cache::lookup) would give, and takes less time: nothing has to be made of the request first. None says
    /// nothing: look up then.
    #[must_use]
    pub fn hit<'f, F>(&self, request: &PlainGet<'_, F>, now: Instant) -> Option<CachedReply>
    where
        F: Iterator<Item = (&'f str, &'f [u8])> + Clone,
    {
        let mut fields = request.fields.clone();
        if fields.any(|(name, _)| asks_for_more(name)) {
            return None;
        }
        let key = Key::text(request.https, request.host, request.target);
        let mut state = self.shared.state();
        let kept = state.store.under(&key);
        // Which of them answers the request depends on what it is sent on with.
        let is_known = |entry: &Entry| entry.vary.names().all(|name| (request.is_sent_on)(name));
        if !kept.clone().all(|(_, entry)| is_known(entry)) {
            return None;
        }
        let (found, entry) = kept
            .filter(|(_, entry)| entry.answers(&request.fields))
            .max_by_key(|(_, entry)| entry.freshness.date)?;
        if !may_be_given(entry, now) {
            return None;
        }
        let entry = Arc::clone(entry);
        state.store.touch(found);
        state.counts.hits += 1;
        drop(state);
        Some(CachedReply::hit(&entry, &Fields::new(), false, now))
    }
}

/// Fields by which a client says how fresh a reply has to be, which part it wants, or on what condition.
fn asks_for_more(name: &str) -> bool {
    const NAMES: [&str; 7] = [
        "Cache-Control",
        "If-Match",
        "If-Modified-Since",
        "If-None-Match",
        "If-Range",
        "If-Unmodified-Since",
        "Range",
    ];
    NAMES.iter().any(|listed| listed.eq_ignore_ascii_case(name))
}
