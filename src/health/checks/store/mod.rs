//! Data stores that a URL names: each is spoken to in its own protocol, far enough to know that it serves.
//!
//! A run opens a connection of its own and closes it again, so it says nothing about a pool and takes nothing from one.
//! All of it (resolving the name, connecting, writing, reading) happens by one absolute deadline, and everything that
//! the other side says is [bounded](wire) and [cleaned](words) before it gets into an error.

mod memcached;
mod redis;
mod resolve;
mod tcp;
mod url;
mod wire;
mod words;

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use super::{Check, CheckError};
use memcached::Memcached;
use redis::Redis;
use tcp::Tcp;
use url::{Scheme, Url};
pub use url::{StoreUrlError, UrlPart};

/// A data store to watch, named by a URL.
///
/// | URL | it serves when |
/// |---|---|
/// | `tcp://host:port` | it accepts a connection |
/// | `redis://[[user]:password@]host[:port][/database]` | it takes AUTH and SELECT, where the URL asks for them, and answers PING |
/// | `memcached://host[:port]` | it tells its version |
///
/// An IPv6 address is in brackets. What is not a letter, a digit or one of `-._~` is percent-encoded in a user's name, a
/// password and a path. What is shown of a store (by `Display` and `Debug`) has `***` in the password's place, and no
/// error holds it.
///
/// ```
/// let store: plimsoll::Store = "tcp://127.0.0.1:6379".parse()?;
/// assert_eq!(store.to_string(), "tcp://127.0.0.1:6379");
///
/// let error = "tcp://127.0.0.1:70000".parse::<plimsoll::Store>().unwrap_err();
/// assert_eq!(error.part, plimsoll::UrlPart::Port);
/// # Ok::<(), plimsoll::StoreUrlError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Store {
    /// The URL without secrets.
    shown: String,
    protocol: Protocol,
}

#[derive(Clone, PartialEq, Eq)]
enum Protocol {
    Tcp(Tcp),
    Redis(Redis),
    Memcached(Memcached),
}

/// The schemes, as an error lists them.
const SCHEMES: &str = "tcp://, redis://, memcached://";

impl FromStr for Store {
    type Err = StoreUrlError;

    /// Reads a URL.
    ///
    /// # Errors
    /// The first part that is not as it should be. The error holds neither the password nor any text that might be a
    /// piece of it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let scheme = Scheme::split(text, SCHEMES)?;
        let on_network: fn(&Url) -> Result<Protocol, StoreUrlError> = match scheme.name {
            "tcp" => |url| Tcp::new(url).map(Protocol::Tcp),
            "redis" => |url| Redis::new(url).map(Protocol::Redis),
            "memcached" => |url| Memcached::new(url).map(Protocol::Memcached),
            _ => return Err(scheme.refuse(SCHEMES)),
        };
        let url = Url::parse(&scheme)?;
        Ok(Self {
            protocol: on_network(&url)?,
            shown: url.shown(),
        })
    }
}

impl Check for Store {
    fn check(&self, deadline: Instant) -> Result<(), CheckError> {
        match &self.protocol {
            Protocol::Tcp(tcp) => tcp.check(deadline),
            Protocol::Redis(redis) => redis.check(deadline),
            Protocol::Memcached(memcached) => memcached.check(deadline),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Store").field(&self.shown).finish()
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
