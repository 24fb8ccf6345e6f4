//! The URL of a data store: `scheme://[user[:password]@]host[:port][/path][?query]`.
//!
//! Stricter than RFC 3986 where a password might end up in the wrong part: an `@` is allowed only behind the user and
//! the password, so nothing that stands before one is ever taken for a host, a port or a path, and no error shows any
//! text that could be a piece of a password.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use percent_encoding::percent_decode_str;

/// Longest URL, in bytes.
const MOST_URL: usize = 2048;

/// Longest name of a host, in bytes: RFC 1035, without the last dot.
const MOST_HOST: usize = 253;

/// A part of a store's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UrlPart {
    /// All of it: it is too long, or holds characters that no part may hold.
    Url,
    /// What is before the first colon.
    Scheme,
    /// The user's name.
    User,
    /// The password.
    Password,
    /// The host's name or address.
    Host,
    /// The port's number.
    Port,
    /// What follows the host and port, or the scheme of a file.
    Path,
    /// What follows the question mark.
    Option,
}

impl UrlPart {
    /// Its name in an error.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Url => "URL",
            Self::Scheme => "scheme",
            Self::User => "user",
            Self::Password => "password",
            Self::Host => "host",
            Self::Port => "port",
            Self::Path => "path",
            Self::Option => "option",
        }
    }
}

impl fmt::Display for UrlPart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What is wrong with a store's URL. Prints as one line: `PART: expected X, found Y`.
///
/// It holds neither the password nor any text that might be a piece of it: where that is possible, `found` says only
/// what kind of thing was there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreUrlError {
    /// The part that is not as it should be.
    pub part: UrlPart,
    /// What it should be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl StoreUrlError {
    pub(crate) fn new(
        part: UrlPart,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let (expected, found) = (expected.into(), found.into());
        Self {
            part,
            expected,
            found,
        }
    }
}

impl fmt::Display for StoreUrlError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            part,
            expected,
            found,
        } = self;
        write!(formatter, "{part}: expected {expected}, found {found}")
    }
}

impl std::error::Error for StoreUrlError {}

/// A password. It has no `Display`, and its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Address(IpAddr),
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => formatter.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(formatter, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(formatter, "[{address}]"),
        }
    }
}

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// The port of `http://`.
pub(crate) const HTTP_PORT: u16 = 80;

impl Endpoint {
    /// Host and port as a Host field has them: the default port is left out (RFC 9110 4.2.3).
    pub(crate) fn authority(&self) -> String {
        match self.port {
            HTTP_PORT => self.host.to_string(),
            port => format!("{}:{port}", self.host),
        }
    }
}

/// Where to log in, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) endpoint: Endpoint,
    pub(crate) user: String,
    pub(crate) password: Option<Secret>,
    pub(crate) database: Option<String>,
    /// Whether whoever answers there may have the password itself.
    pub(crate) cleartext: bool,
}

/// The first cut: what is before the first colon, and the rest.
pub(crate) struct Scheme<'a> {
    pub(crate) name: &'a str,
    pub(crate) rest: &'a str,
}

impl<'a> Scheme<'a> {
    /// `schemes` is what an error says was expected.
    pub(crate) fn split(text: &'a str, schemes: &str) -> Result<Self, StoreUrlError> {
        if text.len() > MOST_URL {
            let expected = format!("at most {MOST_URL} bytes");
            let found = format!("{}", text.len());
            return Err(StoreUrlError::new(UrlPart::Url, expected, found));
        }
        if text.chars().any(char::is_control) {
            let expected = "no control characters, or percent-encoded ones";
            return Err(StoreUrlError::new(UrlPart::Url, expected, "some"));
        }
        // Without a scheme, what is before the first colon may be anything, so it is not shown.
        let looks_right = |name: &str| {
            !name.is_empty()
                && name.len() <= 16
                && name.bytes().all(|byte| byte.is_ascii_lowercase())
        };
        match text.split_once(':') {
            Some((name, rest)) if looks_right(name) => Ok(Self { name, rest }),
            _ => {
                let expected = format!("one of {schemes}");
                Err(StoreUrlError::new(
                    UrlPart::Scheme,
                    expected,
                    "none of them",
                ))
            }
        }
    }

    /// The error of a scheme that is none of `schemes`.
    pub(crate) fn refuse(&self, schemes: &str) -> StoreUrlError {
        if self.name == "https" {
            let expected = "http://, or tcp:// for the port alone: TLS is not spoken here";
            return StoreUrlError::new(UrlPart::Scheme, expected, "https://");
        }
        let found = if self.rest.starts_with("//") {
            format!("{}://", self.name)
        } else {
            "none of them".to_owned()
        };
        StoreUrlError::new(UrlPart::Scheme, format!("one of {schemes}"), found)
    }
}

/// The URL of a store on the network, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    scheme: String,
    /// As it is written.
    user_shown: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    host: Host,
    port: Option<u16>,
    /// As it is written: empty, or it begins with a slash.
    pub(crate) path: String,
    /// As it is written.
    pub(crate) query: Option<String>,
}

impl Url {
    pub(crate) fn parse(scheme: &Scheme<'_>) -> Result<Self, StoreUrlError> {
        let name = scheme.name;
        let Some(rest) = scheme.rest.strip_prefix("//") else {
            let found = "no // after its colon";
            return Err(StoreUrlError::new(
                UrlPart::Scheme,
                format!("{name}://"),
                found,
            ));
        };
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            let expected = "visible ASCII characters and percent-encoded others";
            return Err(StoreUrlError::new(UrlPart::Url, expected, "others"));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let (login, place) = match authority.split_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        // In a password that is not percent-encoded, the first of these characters would end the part it is in.
        if place.contains('@') || tail.contains('@') {
            let expected =
                "@ / ? and # percent-encoded in the user's name, the password and the path";
            return Err(StoreUrlError::new(
                UrlPart::User,
                expected,
                "one that is not",
            ));
        }
        if tail.contains('#') {
            return Err(StoreUrlError::new(UrlPart::Path, "no # in it", "one"));
        }
        let (user, password) = match login.map(|login| {
            login
                .split_once(':')
                .map_or((login, None), |(user, password)| (user, Some(password)))
        }) {
            Some((user, password)) => (Some(user), password),
            None => (None, None),
        };
        let (host, port) = split_port(place)?;
        let (path, query) = match tail.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (tail, None),
        };
        Ok(Self {
            scheme: name.to_owned(),
            user_shown: user.map(str::to_owned),
            user: user
                .filter(|user| !user.is_empty())
                .map(|user| decode(UrlPart::User, user))
                .transpose()?,
            password: password
                .map(|password| decode(UrlPart::Password, password).map(Secret))
                .transpose()?,
            host: parse_host(host)?,
            port: port.map(parse_port).transpose()?,
            path: path.to_owned(),
            query: query.map(str::to_owned),
        })
    }

    /// The URL without secrets: those are the password and the query, which may hold a token.
    pub(crate) fn shown(&self) -> String {
        let mut shown = format!("{}://", self.scheme);
        if let Some(user) = &self.user_shown {
            shown.push_str(user);
            if self.password.is_some() {
                shown.push_str(":***");
            }
            shown.push('@');
        }
        shown.push_str(&self.host.to_string());
        if let Some(port) = self.port {
            shown.push(':');
            shown.push_str(&port.to_string());
        }
        shown.push_str(&self.path);
        if self.query.is_some() {
            shown.push_str("?***");
        }
        shown
    }

    /// Where to connect to; `default` is the scheme's port.
    pub(crate) fn endpoint(&self, default: Option<u16>) -> Result<Endpoint, StoreUrlError> {
        let Some(port) = self.port.or(default) else {
            return Err(StoreUrlError::new(UrlPart::Port, PORT, "none"));
        };
        let host = self.host.clone();
        Ok(Endpoint { host, port })
    }

    /// For schemes that know no users.
    pub(crate) fn refuse_user(&self) -> Result<(), StoreUrlError> {
        if self.user_shown.is_none() {
            return Ok(());
        }
        let expected = format!("none in a URL of {}://", self.scheme);
        Err(StoreUrlError::new(UrlPart::User, expected, "one"))
    }

    /// For schemes without a path. What was found is not shown: `user:12/34` without a host is read as a host, a port and
    /// a path.
    pub(crate) fn refuse_path(&self) -> Result<(), StoreUrlError> {
        if matches!(self.path.as_str(), "" | "/") {
            return Ok(());
        }
        let expected = format!("none in a URL of {}://", self.scheme);
        Err(StoreUrlError::new(UrlPart::Path, expected, "one"))
    }

    /// For schemes that log in to a database; `port` is the scheme's own. A bad option is not shown: clients of databases
    /// take passwords there.
    pub(crate) fn account(&self, port: u16) -> Result<Account, StoreUrlError> {
        let cleartext = match self.query.as_deref() {
            None => false,
            Some("cleartext") => true,
            Some(_) => {
                let expected = "cleartext or none";
                return Err(StoreUrlError::new(UrlPart::Option, expected, "another"));
            }
        };
        let Some(user) = self.user.clone() else {
            let expected = "one before the host and an @";
            return Err(StoreUrlError::new(UrlPart::User, expected, "none"));
        };
        Ok(Account {
            endpoint: self.endpoint(Some(port))?,
            user,
            password: self.password.clone(),
            database: self.database()?,
            cleartext,
        })
    }

    /// The path as the name of a database, if there is one.
    fn database(&self) -> Result<Option<String>, StoreUrlError> {
        let name = self.path.strip_prefix('/').unwrap_or_default();
        if name.contains('/') {
            let expected = "the name of a database, with / percent-encoded in it";
            return Err(StoreUrlError::new(UrlPart::Path, expected, "a / in it"));
        }
        let name = decode(UrlPart::Path, name)?;
        Ok((!name.is_empty()).then_some(name))
    }

    /// For schemes without options. What was found is not shown: clients of databases take passwords there.
    pub(crate) fn refuse_options(&self) -> Result<(), StoreUrlError> {
        if self.query.is_none() {
            return Ok(());
        }
        let expected = format!("none in a URL of {}://", self.scheme);
        Err(StoreUrlError::new(
            UrlPart::Option,
            expected,
            "a question mark",
        ))
    }
}

/// What an error says was expected of a port.
const PORT: &str = "a number from 1 to 65535 after the host and a colon";

/// The host as it is written, and what is behind its colon.
fn split_port(place: &str) -> Result<(&str, Option<&str>), StoreUrlError> {
    // The colons of an IPv6 address are within brackets.
    let end = place.rfind(']').map_or(0, |bracket| bracket + 1);
    match place[end..].split_once(':') {
        None if end > 0 && end < place.len() => {
            let found = "something else behind the bracket";
            Err(StoreUrlError::new(
                UrlPart::Port,
                "a colon before it",
                found,
            ))
        }
        None => Ok((place, None)),
        Some((before, port)) => Ok((&place[..end + before.len()], Some(port))),
    }
}

fn parse_host(host: &str) -> Result<Host, StoreUrlError> {
    const EXPECTED: &str = "a name, an IPv4 address or an IPv6 address in brackets";
    // Not shown: `user:password` without a host is read as a host and a port.
    let refuse = |found: &str| Err(StoreUrlError::new(UrlPart::Host, EXPECTED, found));
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        return match inner.parse::<Ipv6Addr>() {
            Ok(address) => Ok(Host::Address(address.into())),
            Err(_) => refuse("something else in the brackets"),
        };
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Host::Address(address));
    }
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.is_empty() {
        refuse("none")
    } else if host.len() > MOST_HOST {
        refuse("a longer name than there can be")
    } else if !host.bytes().all(named) {
        refuse("other characters")
    } else {
        Ok(Host::Name(host.to_ascii_lowercase()))
    }
}

fn parse_port(port: &str) -> Result<u16, StoreUrlError> {
    // Not shown: in a URL whose host was forgotten, this is the password.
    let refuse = |found| StoreUrlError::new(UrlPart::Port, PORT, found);
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refuse("something else"));
    }
    match port.parse() {
        Ok(0) | Err(_) => Err(refuse("another number")),
        Ok(port) => Ok(port),
    }
}

fn decode(part: UrlPart, text: &str) -> Result<String, StoreUrlError> {
    String::from_utf8(decode_bytes(part, text)?).map_err(|_| {
        let expected = "UTF-8 once its percent-encoding is taken off";
        StoreUrlError::new(part, expected, "something else")
    })
}

/// Takes percent-encoding off. The result is without NUL, which neither a path nor a protocol here can carry.
pub(crate) fn decode_bytes(part: UrlPart, text: &str) -> Result<Vec<u8>, StoreUrlError> {
    let refuse = |expected: &str, found: &str| Err(StoreUrlError::new(part, expected, found));
    let mut after_percent = text.split('%').skip(1);
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().first_chunk::<2>();
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !after_percent.all(is_escape) {
        return refuse("two hexadecimal digits after each %", "something else");
    }
    let decoded: Vec<u8> = percent_decode_str(text).collect();
    if decoded.contains(&0) {
        return refuse("no NUL in it", "one");
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests;
