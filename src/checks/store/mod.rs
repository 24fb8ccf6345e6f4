//! Data stores that a URL names: each is spoken to in its own protocol, far enough to know that it serves.
//!
//! A run opens a connection of its own and closes it again, so it says nothing about a pool and takes nothing from one.
//! All of it (resolving the name, connecting, writing, reading) happens by one absolute deadline, and everything that
//! the other side says is [bounded](wire) and [cleaned](clean) before it gets into an error.

#[cfg(any(feature = "checks", feature = "binary", feature = "proxy"))]
mod clean;
#[cfg(feature = "checks")]
mod file;
#[cfg(any(feature = "checks", feature = "binary", feature = "proxy"))]
pub(crate) mod get;
#[cfg(any(feature = "checks", feature = "binary"))]
mod http;
#[cfg(feature = "checks")]
mod memcached;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "checks", feature = "binary"))]
mod probe;
#[cfg(feature = "checks")]
mod redis;
#[cfg(feature = "checks")]
mod tcp;
#[cfg(any(feature = "checks", feature = "binary"))]
mod wire;

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use super::{Check, CheckError};
#[cfg(any(feature = "mysql", feature = "postgres"))]
use crate::net::url::Account;
use crate::net::url::Scheme;
#[cfg(feature = "checks")]
use crate::net::url::Url;
pub use crate::net::url::{StoreUrlError, UrlPart};
#[cfg(any(feature = "checks", feature = "binary"))]
pub use probe::{Probe, Probed};

/// A data store to monitor, named by a URL.
///
/// The features `checks`, `postgres` and `mysql` have the protocols; without them no URL is one.
///
/// | URL | it serves when |
/// |---|---|
/// | `tcp://host:port` | it accepts a connection |
/// | `http://host[:port][/path]` | it answers GET with a status from 200 to 399 |
/// | `redis://[[user]:password@]host[:port][/database]` | it takes AUTH and SELECT, where the URL asks for them, and answers PING |
/// | `memcached://host[:port]` | it tells its version |
/// | `postgres://user[:password]@host[:port][/database][?cleartext]`, also `postgresql://` | it takes the login and answers `SELECT 1`; without a password in the URL, it suffices that it asks for one |
/// | `mysql://user[:password]@host[:port][/database][?cleartext]` | it takes the login and answers COM_PING |
/// | `file:path` | the file or directory can be read |
/// | `sqlite:path` | the file can be read, and is empty or has the header of an SQLite database |
///
/// `file:` and `sqlite:` take the options `?writable` (a file can be opened for appending; in a directory, a file can be
/// made, written and removed) and `?free=100MiB` (so much space is left for unprivileged users), joined by `&`. A path
/// without a slash at its start is relative to the process's directory.
///
/// An IPv6 address is in brackets. What is not a letter, a digit or one of `-._~` is percent-encoded in a user's name, a
/// password and a path. Nobody gets a password of PostgreSQL or MySQL in clear, or encrypted with a key of his own, unless
/// the URL says `?cleartext`. What is shown of a store (by `Display` and `Debug`) has `***` in the password's place, and no
/// error holds it. Nothing here speaks TLS.
///
/// A run is over by its deadline, whatever the other side does. Only a file system that hangs makes it late.
///
/// A program that has an SQLite database open itself must not name it here: a run opens and closes the file, and on POSIX
/// systems that drops the [locks](https://www.sqlite.org/howtocorrupt.html) of the whole process on it. Ask it by a query
/// in a [`Check`] of your own instead. Databases of other processes are safe.
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
    #[cfg(feature = "checks")]
    Tcp(tcp::Tcp),
    #[cfg(feature = "checks")]
    Http(http::Http),
    #[cfg(feature = "checks")]
    Redis(redis::Redis),
    #[cfg(feature = "checks")]
    Memcached(memcached::Memcached),
    #[cfg(feature = "postgres")]
    Postgres(postgres::Postgres),
    #[cfg(feature = "mysql")]
    Mysql(mysql::Mysql),
    #[cfg(feature = "checks")]
    Files(file::Files),
}

/// The schemes, as an error lists them.
const SCHEMES: &str = match (
    cfg!(feature = "checks"),
    cfg!(feature = "postgres"),
    cfg!(feature = "mysql"),
) {
    (false, ..) => "a program that was built with the feature checks",
    (_, false, false) => "tcp://, http://, redis://, memcached://, sqlite: and file:",
    (_, true, false) => "tcp://, http://, redis://, memcached://, postgres://, sqlite: and file:",
    (_, false, true) => "tcp://, http://, redis://, memcached://, mysql://, sqlite: and file:",
    (_, true, true) => {
        "tcp://, http://, redis://, memcached://, postgres://, mysql://, sqlite: and file:"
    }
};

impl FromStr for Store {
    type Err = StoreUrlError;

    /// Reads a URL.
    ///
    /// # Errors
    /// The first part that is not as it should be. The error holds neither the password nor any text that might be a
    /// piece of it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let scheme = Scheme::split(text, SCHEMES)?;
        Protocol::read(&scheme, text)
    }
}

#[cfg(not(feature = "checks"))]
impl Protocol {
    fn read(scheme: &Scheme<'_>, _: &str) -> Result<Store, StoreUrlError> {
        Err(scheme.refuse(SCHEMES))
    }
}

#[cfg(feature = "checks")]
impl Protocol {
    fn read(scheme: &Scheme<'_>, text: &str) -> Result<Store, StoreUrlError> {
        let on_network: fn(&Url) -> Result<Self, StoreUrlError> = match scheme.name {
            "tcp" => |url| tcp::Tcp::new(url).map(Self::Tcp),
            "http" => |url| http::Http::new(url).map(Self::Http),
            "redis" => |url| redis::Redis::new(url).map(Self::Redis),
            "memcached" => |url| memcached::Memcached::new(url).map(Self::Memcached),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => |url| postgres::Postgres::new(url).map(Self::Postgres),
            #[cfg(feature = "mysql")]
            "mysql" => |url| mysql::Mysql::new(url).map(Self::Mysql),
            "file" => return Self::on_disk(text, scheme, file::Kind::Any),
            "sqlite" => return Self::on_disk(text, scheme, file::Kind::Sqlite),
            _ => return Err(scheme.refuse(SCHEMES)),
        };
        let url = Url::parse(scheme)?;
        Ok(Store {
            protocol: on_network(&url)?,
            shown: url.shown(),
        })
    }

    fn on_disk(text: &str, scheme: &Scheme<'_>, kind: file::Kind) -> Result<Store, StoreUrlError> {
        Ok(Store {
            protocol: Self::Files(file::Files::new(scheme, kind)?),
            shown: text.to_owned(),
        })
    }
}

impl Check for Store {
    #[cfg_attr(not(feature = "checks"), expect(unused_variables))]
    fn check(&self, deadline: Instant) -> Result<(), CheckError> {
        match self.protocol {
            #[cfg(feature = "checks")]
            Protocol::Tcp(ref tcp) => tcp.check(deadline),
            #[cfg(feature = "checks")]
            Protocol::Http(ref http) => http.check(deadline),
            #[cfg(feature = "checks")]
            Protocol::Redis(ref redis) => redis.check(deadline),
            #[cfg(feature = "checks")]
            Protocol::Memcached(ref memcached) => memcached.check(deadline),
            #[cfg(feature = "postgres")]
            Protocol::Postgres(ref postgres) => postgres.check(deadline),
            #[cfg(feature = "mysql")]
            Protocol::Mysql(ref mysql) => mysql.check(deadline),
            #[cfg(feature = "checks")]
            Protocol::Files(ref files) => files.check(deadline),
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

#[cfg(all(test, feature = "checks"))]
mod fake;

/// Lets a server have the password itself only where the URL says so: whoever listens there may ask for it.
#[cfg(any(feature = "mysql", feature = "postgres"))]
fn allow_cleartext(account: &Account) -> Result<(), CheckError> {
    if account.cleartext || account.password.is_none() {
        return Ok(());
    }
    let expected =
        "a server that does not ask for the password itself, or the URL's option cleartext";
    Err(CheckError::new(format!("login: expected {expected}")))
}

#[cfg(all(test, feature = "checks"))]
mod tests;
