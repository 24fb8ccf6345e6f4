//! The URL of a Redis.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "redis")]
use redis::{
    Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError,
    RedisResult,
};

use super::url::{Endpoint, Scheme, Secret, StoreUrlError, Url, UrlPart};

/// The port of a URL that names none.
const PORT: u16 = 6379;

/// The one scheme.
const SCHEME: &str = "redis://";

/// Where a Redis is, and how to log in: `redis://[[user]:password@]host[:port][/database]`.
///
/// An IPv6 address is in brackets. What is not a letter, a digit or one of `-._~` is percent-encoded in a user's name and a
/// password. What is shown of it (by `Display` and `Debug`) has `***` in the password's place. TLS is not spoken.
///
/// ```
/// use plimsoll::patterns::RedisUrl;
///
/// let url: RedisUrl = "redis://:hunter2@10.0.0.7/3".parse()?;
/// assert_eq!(url.to_string(), "redis://:***@10.0.0.7/3");
/// # Ok::<(), plimsoll::StoreUrlError>(())
/// ```
#[cfg_attr(
    not(feature = "redis"),
    allow(unreachable_pub, reason = "that feature exports it")
)]
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "redis"),
    expect(
        unreachable_pub,
        reason = "what is public of it comes with the feature"
    )
)]
pub struct RedisUrl {
    /// The URL without secrets.
    shown: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: Option<u32>,
}

impl RedisUrl {
    pub(crate) fn of(url: &Url) -> Result<Self, StoreUrlError> {
        url.refuse_options()?;
        if url.user.is_some() && url.password.is_none() {
            let expected = "one after the user and a colon; without a user, after a colon";
            return Err(StoreUrlError::new(UrlPart::Password, expected, "none"));
        }
        let database = match url.path.strip_prefix('/').unwrap_or_default() {
            "" => None,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
            _ => None,
        };
        if database.is_none() && url.path.len() > 1 {
            let expected = "the number of a database, or none";
            return Err(StoreUrlError::new(
                UrlPart::Path,
                expected,
                "something else",
            ));
        }
        Ok(Self {
            shown: url.shown(),
            endpoint: url.endpoint(Some(PORT))?,
            user: url.user.clone(),
            password: url.password.clone(),
            database,
        })
    }

    /// What connects to it and logs in.
    #[cfg(feature = "redis")]
    pub(crate) fn client(&self) -> RedisResult<Client> {
        let host = self.endpoint.host.to_string();
        let host = host.trim_matches(['[', ']']).to_owned();
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP2)
            .set_skip_set_lib_name()
            .set_db(self.database.unwrap_or(0).into());
        if let Some(user) = &self.user {
            login = login.set_username(user);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password.reveal());
        }
        let info = ConnectionAddr::Tcp(host, self.endpoint.port).into_connection_info()?;
        Client::open(info.set_redis_settings(login))
    }
}

/// What an error says that came while connecting. The text of the other side may hold what it was sent, and so the password.
#[cfg(feature = "redis")]
pub(crate) fn words(error: &RedisError) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    if error.is_io_error() {
        return error.to_string();
    }
    let code = error.code().map(|code| format!(" ({code})"));
    format!("{}{}", error.category(), code.unwrap_or_default())
}

impl FromStr for RedisUrl {
    type Err = StoreUrlError;

    /// Reads a URL.
    ///
    /// # Errors
    /// The first part that is not as it should be. The error holds neither the password nor any text that might be a
    /// piece of it.
    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let scheme = Scheme::split(text, SCHEME)?;
        if scheme.name != "redis" {
            return Err(scheme.refuse(SCHEME));
        }
        Self::of(&Url::parse(&scheme)?)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisUrl").field(&self.shown).finish()
    }
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn one_that_is_late_is_said_to_be_so() {
        // What the system says when the timeout of a socket is over.
        for kind in [ErrorKind::WouldBlock, ErrorKind::TimedOut] {
            let late = RedisError::from(Error::from(kind));
            assert_eq!(words(&late), "no answer in time");
        }
        let refused = RedisError::from(Error::from(ErrorKind::ConnectionRefused));
        assert_eq!(words(&refused), "connection refused");
    }
}
