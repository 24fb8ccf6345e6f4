//! Caching: one reply of the origin for many requests, by the rules of HTTP.
//!
//! The rules are pure functions of heads and times, a file for each: what Cache-Control says ([`control`], and
//! [`targeted`] for RFC 9213), how old a reply is ([`freshness`]), whether it may be kept ([`storing`]) and given again
//! ([`reuse`]), to whom ([`key`], [`vary`]), and what a condition or a range makes of it ([`conditional`], [`range`]).
//! [`store`] keeps replies in a bounded amount of memory, and [`flight`] makes one fetch out of many. [`lookup`] brings
//! these together for a request, [`fetch`] and [`filling`] for what the origin says.

mod blocks;
mod conditional;
mod control;
mod date;
mod fetch;
mod fields;
mod filling;
mod flight;
mod freshness;
mod hit;
mod key;
mod lookup;
mod metrics;
mod range;
mod reply;
mod request;
mod reuse;
mod status;
mod store;
mod storing;
mod targeted;
#[cfg(test)]
mod tests;
mod ticket;
mod vary;
mod wait;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::panics::lock;
use blocks::Spare;
pub use fetch::{Fetch, Fetched};
pub use fields::Fields;
pub use filling::Filling;
use flight::Fetches;
pub use flight::Notice;
pub use freshness::CacheTime;
pub use hit::PlainGet;
use key::Key;
pub use reply::{CachedBody, CachedReply};
use request::Question;
pub use status::CacheResult;
use store::Store;
pub use wait::Wait;

/// A shared cache for HTTP by [RFC 9111](https://www.rfc-editor.org/rfc/rfc9111), over any client that blocks.
///
/// Each request is [looked up](Self::lookup). Either there is a reply for it, or it is to be fetched: the [`Fetch`]
/// says what to send, and is told what came of it. Many requests for the same at once make one fetch; the others
/// [`Wait`]. What is kept obeys Vary, validators, Age, every directive of Cache-Control, stale-while-revalidate and
/// stale-if-error ([RFC 5861](https://www.rfc-editor.org/rfc/rfc5861)) and, where one is named, a targeted field ([RFC
/// 9213](https://www.rfc-editor.org/rfc/rfc9213)); each reply says in Cache-Status what was done ([RFC
/// 9211](https://www.rfc-editor.org/rfc/rfc9211)).
///
/// Kept is what the origin says may be: replies to GET without a body, whole ones only, and with Set-Cookie or to a
/// request with Authorization only where the origin says more. Ranges are cut out of whole replies. A reply is kept
/// under the whole URI, byte for byte, and under what the request has for the names in Vary. So what one client sends
/// changes what another gets only where the origin lets a field of the request into its reply and does not name it in
/// Vary.
///
/// Memory: bodies, fields, keys and what goes with them are counted to the given capacity, and the longest unused goes
/// first; one reply may take an eighth. A reply that is being sent holds its bytes beyond that until it is sent.
///
/// One lock is held for a look-up, never while anything is fetched, waited for or sent.
///
/// ```
/// use plimsoll::patterns::{Cache, CacheRequest, CacheTime, Fetched, Fields, Lookup};
///
/// let cache = Cache::new(16 << 20);
/// let none = Fields::new();
/// let request = CacheRequest {
///     method: "GET",
///     https: false,
///     host: "example.com",
///     target: "/",
///     fields: &none,
///     has_body: false,
/// };
///
/// // Nothing is kept yet: send the request, and say what came back.
/// let Lookup::Fetch(fetch) = cache.lookup(&request, CacheTime::now()) else { panic!() };
/// let fields: Fields = [("Cache-Control", "max-age=60")].into_iter().collect();
/// let Fetched::Relay { filling, .. } = fetch.respond(200, &fields, CacheTime::now()) else { panic!() };
/// let mut filling = filling.expect("it may be kept");
/// filling.write(b"hello");
/// filling.finish(CacheTime::now());
///
/// let Lookup::Reply(reply) = cache.lookup(&request, CacheTime::now()) else { panic!() };
/// assert_eq!(reply.body(), &b"hello"[..]);
/// assert_eq!(reply.fields().first("Age"), Some(&b"0"[..]));
/// ```
#[derive(Clone)]
pub struct Cache {
    shared: Arc<SharedCache>,
}

#[derive(Debug)]
struct SharedCache {
    state: Mutex<CacheState>,
    capacity: usize,
    most_of_one: usize,
    target: Option<String>,
    spare: Arc<Spare>,
}

struct CacheState {
    store: Store,
    fetches: Fetches,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    hits: u64,
    stale: u64,
    waits: u64,
    misses: u64,
    validated: u64,
    bypassed: u64,
}

/// What the cache is asked.
#[derive(Debug, Clone, Copy)]
pub struct CacheRequest<'a> {
    /// The method, as the client wrote it.
    pub method: &'a str,
    /// Whether the client's URI is one of https, as far as it is known.
    pub https: bool,
    /// The Host, or the authority of a target in absolute form.
    pub host: &'a str,
    /// The target in origin form.
    pub target: &'a str,
    /// The fields, as they would be sent to the origin if there were no cache.
    pub fields: &'a Fields,
    /// Whether it has a body.
    pub has_body: bool,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Lookup {
    /// Give this to the client.
    Reply(CachedReply),
    /// Give this to the client; it is stale, but may be given while the fetch is made in the background.
    ReplyAndRefresh(CachedReply, Fetch),
    /// Send it to the origin.
    Fetch(Fetch),
    /// Another request fetches the same.
    Wait(Wait),
}

/// Numbers of a [`Cache`], counted since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Requests answered with a fresh reply.
    pub hits: u64,
    /// Requests answered with a stale reply, as the origin or the client allows.
    pub stale: u64,
    /// Requests that waited for another's fetch.
    pub waits: u64,
    /// Fetches of what was not kept, or not valid without asking.
    pub misses: u64,
    /// Fetches that the origin answered by saying that the kept reply is valid.
    pub validated: u64,
    /// Requests that went past the cache.
    pub bypassed: u64,
    /// Replies that are kept now.
    pub entries: usize,
    /// Bytes that they take now, with those set apart for replies that are coming.
    pub bytes: usize,
    /// Most bytes that they may take.
    pub capacity: usize,
}

impl Cache {
    /// An empty cache that takes at most this many bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self::with(capacity, None)
    }

    /// A cache that obeys the field with this name, such as `CDN-Cache-Control`, in place of Cache-Control and Expires
    /// where a reply has it and it is valid (RFC 9213).
    #[must_use]
    pub fn with_target(capacity: usize, target: impl Into<String>) -> Self {
        Self::with(capacity, Some(target.into()))
    }

    fn with(capacity: usize, target: Option<String>) -> Self {
        let store = Store::new(capacity);
        Self {
            shared: Arc::new(SharedCache {
                capacity,
                spare: Arc::clone(store.spare()),
                most_of_one: store.most_of_one(),
                state: Mutex::new(CacheState {
                    store,
                    fetches: Fetches::default(),
                    counts: Counts::default(),
                }),
                target,
            }),
        }
    }

    /// What to do with this request.
    #[must_use]
    pub fn lookup(&self, request: &CacheRequest<'_>, now: CacheTime) -> Lookup {
        let key = Key::new(request.https, request.host, request.target);
        let question = Question {
            key: &key,
            method: request.method,
            fields: request.fields,
            waits: 0,
            outcome: None,
        };
        self.shared.lookup(&question, request.has_body, now)
    }

    /// Forgets all replies for a URI, and does not keep what is being fetched for it; how many were kept.
    #[expect(clippy::must_use_candidate, reason = "it forgets")]
    pub fn purge(&self, https: bool, host: &str, target: &str) -> usize {
        self.shared
            .state()
            .invalidate(&Key::new(https, host, target))
    }

    /// How it has been used, and what it has.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let state = self.shared.state();
        let Counts {
            hits,
            stale,
            waits,
            misses,
            validated,
            bypassed,
        } = state.counts;
        CacheStats {
            hits,
            stale,
            waits,
            misses,
            validated,
            bypassed,
            entries: state.store.len(),
            bytes: state.store.used(),
            capacity: self.shared.capacity,
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cache").field(&self.stats()).finish()
    }
}

impl fmt::Debug for CacheState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheState")
            .field("bytes", &self.store.used())
            .finish_non_exhaustive()
    }
}

impl CacheState {
    fn invalidate(&mut self, key: &Key) -> usize {
        self.fetches.invalidate(key);
        self.store.remove_all(key)
    }
}

impl SharedCache {
    fn state(&self) -> MutexGuard<'_, CacheState> {
        lock(&self.state)
    }
}
