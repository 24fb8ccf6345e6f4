//! Throttling: how often one key may ask.

mod rate;
#[cfg(feature = "redis")]
mod store;
mod table;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub use rate::{Rate, RateError};
#[cfg(feature = "redis")]
pub use store::{SharedCheck, SharedLimit, ThrottleStore, ThrottleStoreStatus};
use table::Table;

use crate::net::peer::Peer;
use crate::panics::lock;

/// Most keys that are known at once; 36 bytes each.
const MAX_KEYS: u32 = 65_536;
/// Most requests that may come at once. With the slowest rate, one an hour, the time for them still fits 64 bits of
/// nanoseconds.
const MAX_BURST: u32 = 1_000_000;

/// A limit on how often each of many keys may ask: the generic cell rate algorithm.
///
/// A key has one number: the time at which it would have caught up if it had asked at exactly the [`Rate`]. A request
/// moves that time on by one interval; one that would move it more than the burst ahead of now is refused and moves
/// nothing. So a refused client that keeps asking is let through at the rate, and whatever times are given, no more
/// than `rate × time + burst` are let through. This is GCRA as in
/// [ITU-T I.371](https://www.itu.int/rec/T-REC-I.371), the virtual scheduling algorithm.
///
/// At most 65,536 keys are known, 36 bytes each, whatever comes. When another one comes, one that has caught up is
/// forgotten, since that changes nothing; if the eight longest unused have not, the longest unused of all. So a key
/// that keeps asking stays limited while a flood of others comes. Keys are known by a hash with a random seed: nobody
/// can choose keys that collide.
///
/// A check takes one uncontended lock and no allocation once the table is full size. Share it behind an
/// [`Arc`](std::sync::Arc) or a reference.
///
/// ```
/// use plimsoll::patterns::{Throttle, ThrottleKey};
/// use std::time::{Duration, Instant};
///
/// let throttle = Throttle::new("10/s".parse()?).with_burst(2);
/// let client = ThrottleKey::Address([192, 0, 2, 1].into());
/// let now = Instant::now();
/// assert_eq!(throttle.check(client, now)?.remaining, 1);
/// assert_eq!(throttle.check(client, now)?.remaining, 0);
/// let throttled = throttle.check(client, now).unwrap_err();
/// assert_eq!(throttled.retry_after, Duration::from_millis(100));
/// assert!(throttle.check(client, now + throttled.retry_after).is_ok());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Throttle {
    rate: Rate,
    burst: u32,
    /// Time between two requests at the rate, in nanoseconds.
    interval: u64,
    seed: RandomState,
    state: Mutex<ThrottleState>,
}

struct ThrottleState {
    table: Table,
    /// The first time that was given; all others are counted from it.
    epoch: Option<Instant>,
    /// The latest time that was given, in nanoseconds since the epoch. An earlier one stands for this one: threads that
    /// read the clock in turn may come here out of turn.
    latest: u64,
}

impl Throttle {
    /// Lets each key ask at this rate; the burst is what the rate gives in one second, and at least 1.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self::with_keys(rate, MAX_KEYS)
    }

    fn with_keys(rate: Rate, keys: u32) -> Self {
        Self {
            rate,
            burst: rate.in_one_second(),
            interval: rate.interval_nanos(),
            seed: RandomState::new(),
            state: Mutex::new(ThrottleState {
                table: Table::new(keys),
                epoch: None,
                latest: 0,
            }),
        }
    }

    /// How many requests may come at once; held between 1 and 1,000,000.
    #[must_use]
    pub fn with_burst(mut self, burst: u32) -> Self {
        self.burst = burst.clamp(1, MAX_BURST);
        self
    }

    /// How often a key may ask: `q` and `w` of a `RateLimit-Policy` field.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// How many requests may come at once.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// How many keys are known.
    #[must_use]
    pub fn keys(&self) -> usize {
        let state = lock(&self.state);
        state.table.len()
    }

    /// Counts one request of this key.
    ///
    /// # Errors
    ///
    /// [`Throttled`] when the key has asked too often; it tells when the next request will be let through.
    pub fn check(&self, key: ThrottleKey<'_>, now: Instant) -> Result<Quota, Throttled> {
        let hash = key.hash(&self.seed);
        let mut state = lock(&self.state);
        let epoch = *state.epoch.get_or_insert(now);
        let elapsed = now.saturating_duration_since(epoch).as_nanos();
        // 64 bits of nanoseconds are 584 years.
        state.latest = u64::try_from(elapsed).unwrap_or(u64::MAX).max(state.latest);
        let now = state.latest;

        let caught_up = state.table.touch(hash, now);
        let window = self.interval * u64::from(self.burst);
        let ahead = (*caught_up).max(now) - now;
        let then_ahead = ahead.saturating_add(self.interval);
        if then_ahead > window {
            return Err(Throttled {
                retry_after: Duration::from_nanos(then_ahead - window),
                reset: Duration::from_nanos(ahead),
            });
        }
        *caught_up = now.saturating_add(then_ahead);
        Ok(Quota {
            remaining: u32::try_from((window - then_ahead) / self.interval).unwrap_or(self.burst),
            reset: Duration::from_nanos(then_ahead),
        })
    }

    /// Takes back one request of this key that was let through, because it was not made after all: another limit
    /// refused it.
    pub fn give_back(&self, key: ThrottleKey<'_>) {
        let hash = key.hash(&self.seed);
        let mut state = lock(&self.state);
        if let Some(caught_up) = state.table.find(hash) {
            *caught_up = caught_up.saturating_sub(self.interval);
        }
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("rate", &self.rate)
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleKey<'a> {
    /// A client's address. IPv6 counts by /64, which is what one subscriber gets: else each of its 2^64 addresses would
    /// be a client. An IPv4 address counts as itself, also when it comes mapped into IPv6.
    Address(IpAddr),
    /// Any bytes, such as the value of a header.
    Value(&'a [u8]),
    /// All requests together.
    All,
}

impl ThrottleKey<'_> {
    fn hash(self, seed: &RandomState) -> u64 {
        let mut hasher = seed.build_hasher();
        match self {
            Self::Address(address) => match Peer::from(address) {
                Peer::V4(address) => (4_u8, address).hash(&mut hasher),
                Peer::V6(subnet) => (6_u8, subnet).hash(&mut hasher),
            },
            Self::Value(value) => {
                hasher.write_u8(1);
                hasher.write(value);
            }
            Self::All => hasher.write_u8(0),
        }
        hasher.finish()
    }
}

/// A request was let through: what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How many more may come at once: `r` of a `RateLimit` field.
    pub remaining: u32,
    /// Time until the whole burst may come again: `t` of a `RateLimit` field, whose unit is seconds.
    pub reset: Duration,
}

/// A request was refused: its key has asked too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    /// Time until the key's next request is let through.
    pub retry_after: Duration,
    /// Time until the whole burst may come again.
    pub reset: Duration,
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "too many requests; retry after {:?}", self.retry_after)
    }
}

impl Error for Throttled {}
