//! The sidecar's settings.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::check::{CheckKind, UpstreamCheck};
use crate::http::authority::is_authority;
use crate::http::fields::is_token_byte;
use crate::patterns::Discovery;
use crate::settings::{
    Complaint, ConfigError, Count, Kind, List, Maybe, Size, Span, Text, Word, define_settings,
};

define_settings! {
    /// How the sidecar forwards.
    ///
    /// ```
    /// use plimsoll::proxy::ProxyConfig;
    ///
    /// let config = ProxyConfig::to(["http://127.0.0.1:9000"]);
    /// assert_eq!((config.retries, config.breaker.to_string()), (2, "5".to_owned()));
    /// ```
    ProxyConfig;

    /// Where the endpoints are found, see [`Discovery`]; at most 256 sources. Default none.
    own upstream: Vec<String> = Vec::new() => {
        flag: "upstream", variable: "PLIMSOLL_UPSTREAM",
        kind: List { item: Source, count: 0..=256, plural: "sources" },
        help: "a service to forward to: http://, unix:, srv:// or file:; repeatable",
    }
    /// What Host is sent as. Default: what the client sent.
    own upstream_host: Option<String> = None => {
        flag: "upstream-host", variable: "PLIMSOLL_UPSTREAM_HOST", kind: Maybe(HOST),
        default: "the client's Host", help: "what the service gets as Host",
    }
    /// Longest that a connection may take to be made. Default 1 s.
    own connect_timeout: Duration = Duration::from_secs(1) => {
        flag: "connect-timeout", variable: "PLIMSOLL_CONNECT_TIMEOUT", kind: Span::AboveZero,
        help: "a connection to the service",
    }
    /// Longest from the start of a try to the head of its response. Without one a try may take all the time that the
    /// request has, and one that took too long is not made again. Default none.
    own try_timeout: Option<Duration> = None => {
        flag: "try-timeout", variable: "PLIMSOLL_TRY_TIMEOUT", kind: Maybe(Span::AboveZero),
        help: "one try, to the head of its answer",
    }
    /// Longest that nothing comes of a response's body while the client waits for more. Default 5 min.
    own body_idle: Duration = Duration::from_secs(5 * 60) => {
        flag: "body-idle", variable: "PLIMSOLL_BODY_IDLE", kind: Span::AboveZero,
        help: "an answer's body of which nothing comes",
    }
    /// Longest that nobody says anything in a tunnel, such as a WebSocket. Default 10 min.
    own tunnel_idle: Duration = Duration::from_secs(10 * 60) => {
        flag: "tunnel-idle", variable: "PLIMSOLL_TUNNEL_IDLE", kind: Span::AboveZero,
        help: "a tunnel in which nobody says anything",
    }
    /// Protocols that clients may switch to, by their names in `Upgrade`. HTTP/2 and TLS are none of them. Default:
    /// websocket.
    own upgrade: Vec<String> = vec!["websocket".to_owned()] => {
        flag: "upgrade", variable: "PLIMSOLL_UPGRADE",
        kind: List { item: UPGRADE, count: 0..=16, plural: "protocols" },
        help: "a protocol that clients may switch to; repeatable",
    }
    /// Tries after the first one. Default 2; 0 to 10.
    own retries: u32 = 2 => {
        flag: "retries", variable: "PLIMSOLL_RETRIES", kind: Count(0..=10),
        help: "tries after the first one",
    }
    /// When an endpoint's circuit breaker opens. Default: after 5 failures in a row.
    own breaker: BreakerMode = BreakerMode::default() => {
        flag: "breaker", variable: "PLIMSOLL_BREAKER", kind: Word::new("N", BREAKER),
        help: "failures in a row that open a circuit breaker; N, N,on=5xx or off",
    }
    /// What each endpoint is asked in the background. Default none.
    own upstream_check: Option<UpstreamCheck> = None => {
        flag: "upstream-check", variable: "PLIMSOLL_UPSTREAM_CHECK", kind: CheckKind,
        help: "a path that each endpoint is asked for in the background",
    }
    /// Which endpoint gets a request. Default: by latency.
    own balance: BalanceBy = BalanceBy::Latency => {
        flag: "balance", variable: "PLIMSOLL_BALANCE", kind: Word::new("WAY", BALANCE),
        help: "latency, round-robin, hash=ip or hash=header:NAME",
    }
    /// Memory for replies of the service that are kept and given again, see [`Cache`](crate::patterns::Cache), in bytes.
    /// Default: none are kept; 64 KiB to 1 GiB. Needs the feature `cache`.
    own cache: Option<usize> = None => {
        flag: "cache", variable: "PLIMSOLL_CACHE", kind: Maybe(Size(64 * 1024..=1024 * 1024 * 1024)),
        default: "off", help: "memory for replies that are kept and given again",
    }
    /// A field that says in place of Cache-Control what is kept, such as `CDN-Cache-Control` (RFC 9213). Default none.
    own cache_target: Option<String> = None => {
        flag: "cache-target", variable: "PLIMSOLL_CACHE_TARGET", kind: Maybe(FIELD_NAME),
        default: "none", help: "the field that rules the cache in place of Cache-Control",
    }
}

impl ProxyConfig {
    /// The defaults, with these sources of endpoints.
    pub fn to(upstream: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            upstream: upstream.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// What Host is sent as.
const HOST: Text = Text {
    placeholder: "NAME",
    expected: "HOST or HOST:PORT, such as app.example",
    fits: |text| !text.is_empty() && is_authority(text.as_bytes()),
};

/// The name of a field.
const FIELD_NAME: Text = Text {
    placeholder: "NAME",
    expected: "the name of a header, such as CDN-Cache-Control",
    fits: |text| !text.is_empty() && text.bytes().all(is_token_byte),
};

/// A protocol to switch to. What HTTP/2 and TLS carry could not be looked at any more.
const UPGRADE: Text = Text {
    placeholder: "TOKEN",
    expected: "the name of a protocol, such as websocket, but not h2c or TLS",
    fits: |text| {
        let is_hidden = text.eq_ignore_ascii_case("h2c")
            || text
                .get(..3)
                .is_some_and(|start| start.eq_ignore_ascii_case("tls"));
        let is_name = |byte| is_token_byte(byte) || byte == b'/';
        !text.is_empty() && text.bytes().all(is_name) && !is_hidden
    },
};

/// A source of endpoints.
struct Source;

impl Kind for Source {
    type Value = String;

    fn placeholder(&self) -> &'static str {
        "URL"
    }

    fn expected(&self) -> String {
        "a source of endpoints, such as http://127.0.0.1:9000".to_owned()
    }

    fn parse(&self, text: &str) -> Result<String, Complaint> {
        self.check(&text.to_owned())?;
        Ok(text.to_owned())
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }

    fn check(&self, value: &String) -> Result<(), Complaint> {
        match Discovery::new([value]) {
            Ok(_) => Ok(()),
            Err(error) => Err(Complaint {
                about: Some(error.source).filter(|source| !source.is_empty()),
                expected: error.expected,
                found: Some(error.found),
            }),
        }
    }
}

const BREAKER: &str = "off, or a number from 1 to 1000, perhaps with ,on=5xx behind it";

/// When an endpoint's circuit breaker opens: after so many failures in a row, or when half of the last 10 s' 20 or more
/// requests failed.
///
/// A failure is no connection, no answer in time, an answer that is malformed or cut, and 502, 503 and 504.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerMode {
    /// Never.
    Off,
    /// Then.
    On {
        /// Failures in a row, 1 to 1000. Default 5.
        failures: u32,
        /// Whether every status from 500 on is a failure. Default false: one URL that gives 500 must not close the
        /// service.
        on_5xx: bool,
    },
}

impl Default for BreakerMode {
    fn default() -> Self {
        Self::On {
            failures: 5,
            on_5xx: false,
        }
    }
}

impl FromStr for BreakerMode {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let (number, on_5xx) = match text.strip_suffix(",on=5xx") {
            Some(number) => (number, true),
            None => (text, false),
        };
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
        let failures = number.parse().ok().filter(|_| is_number);
        let failures = failures.filter(|failures| (1..=1000).contains(failures));
        let failures = failures.ok_or_else(|| refuse("breaker", BREAKER, text))?;
        Ok(Self::On { failures, on_5xx })
    }
}

impl fmt::Display for BreakerMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::On { failures, on_5xx } => {
                write!(f, "{failures}{}", if *on_5xx { ",on=5xx" } else { "" })
            }
        }
    }
}

fn refuse(option: &'static str, expected: &str, found: &str) -> ConfigError {
    ConfigError {
        option,
        expected: expected.to_owned(),
        found: format!("{found:?}"),
    }
}

const BALANCE: &str = "latency, round-robin, hash=ip or hash=header:NAME";

/// Which endpoint gets a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum BalanceBy {
    /// The better of two by latency, see [`Balance::Latency`](crate::patterns::Balance::Latency).
    #[default]
    Latency,
    /// Each in turn.
    RoundRobin,
    /// Always the same one for a client's address.
    HashIp,
    /// Always the same one for the value of a header.
    HashHeader(String),
}

impl FromStr for BalanceBy {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "latency" => Ok(Self::Latency),
            "round-robin" => Ok(Self::RoundRobin),
            "hash=ip" => Ok(Self::HashIp),
            _ => match text.strip_prefix("hash=header:") {
                Some(name) if !name.is_empty() && name.bytes().all(is_token_byte) => {
                    Ok(Self::HashHeader(name.to_ascii_lowercase()))
                }
                _ => Err(refuse("balance", BALANCE, text)),
            },
        }
    }
}

impl fmt::Display for BalanceBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latency => f.write_str("latency"),
            Self::RoundRobin => f.write_str("round-robin"),
            Self::HashIp => f.write_str("hash=ip"),
            Self::HashHeader(name) => write!(f, "hash=header:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breakers_are_read_and_shown() {
        let on = |failures, on_5xx| Ok(BreakerMode::On { failures, on_5xx });
        for (text, mode) in [
            ("off", Ok(BreakerMode::Off)),
            ("5", on(5, false)),
            ("1000,on=5xx", on(1000, true)),
        ] {
            assert_eq!(text.parse(), mode);
            assert_eq!(mode.map(|mode| mode.to_string()), Ok(text.to_owned()));
        }
        for bad in [
            "", "0", "1001", "+5", "5,", "5,on=500", ",on=5xx", "on", "-1",
        ] {
            let error = bad.parse::<BreakerMode>().expect_err(bad);
            assert_eq!((error.option, error.found), ("breaker", format!("{bad:?}")));
        }
    }

    #[test]
    fn ways_to_balance_are_read_and_shown() {
        for (text, way) in [
            ("latency", BalanceBy::Latency),
            ("round-robin", BalanceBy::RoundRobin),
            ("hash=ip", BalanceBy::HashIp),
            (
                "hash=header:x-user",
                BalanceBy::HashHeader("x-user".to_owned()),
            ),
        ] {
            assert_eq!(way.to_string(), text);
            assert_eq!(text.parse(), Ok(way));
        }
        for bad in [
            "",
            "random",
            "hash",
            "hash=header:",
            "hash=header:a b",
            "Latency",
        ] {
            assert!(bad.parse::<BalanceBy>().is_err(), "{bad}");
        }
    }
}
