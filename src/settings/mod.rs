//! Every knob of the server: its unit, its default, its bounds, and the one check of them all.
//!
//! ```
//! use plimsoll::{Config, GateMode};
//!
//! let mut config = Config { workers: 8, gate: GateMode::Literal, ..Config::default() };
//! assert!(config.validate().is_ok());
//!
//! config.workers = 0;
//! assert_eq!(
//!     config.validate().unwrap_err().to_string(),
//!     "workers: expected a whole number from 1 to 1024, found 0",
//! );
//! ```

mod checks;

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

pub use checks::WatchedStore;
pub(crate) use checks::validate as validate_checks;

use crate::http::trust::Cidr;

/// The longest duration any knob takes: a longer one is a slip of the pen, and the bound keeps
/// the sum of an instant and a duration from overflowing.
const LONGEST: Duration = Duration::from_hours(24);

/// Bounds of the number of addresses in [`Config::listen`].
const LISTENERS: RangeInclusive<usize> = 1..=64;
/// Bounds of the number of names in [`Config::details_hosts`].
const DETAILS_HOSTS: RangeInclusive<usize> = 0..=64;
/// Bounds of [`Config::workers`]. Each is a thread with a stack of its own.
const WORKERS: RangeInclusive<usize> = 1..=1024;
/// Bounds of [`Config::ewma_age`]. At the upper bound a sample moves the average by two parts in a
/// million.
const EWMA_AGE: RangeInclusive<usize> = 1..=1_000_000;
/// Bounds of [`Config::queue_max`].
const QUEUE_MAX: RangeInclusive<usize> = 0..=1_000_000;
/// Bounds of the number of ranges in [`Config::trust`]; each is looked at for each request.
const TRUST: RangeInclusive<usize> = 0..=1024;
/// Bounds of [`Config::max_connections`]; the upper one is the most descriptors that Linux gives a
/// process unless told otherwise (`fs.nr_open`).
const MAX_CONNECTIONS: RangeInclusive<usize> = 1..=1_048_576;
/// Bounds of [`Config::max_head`] in bytes; the lower one leaves room for a plain request.
const MAX_HEAD: RangeInclusive<usize> = 256..=1024 * 1024;
/// Bounds of [`Config::max_body`] in bytes. A body is held in memory until it is whole.
const MAX_BODY: RangeInclusive<usize> = 0..=1024 * 1024 * 1024;

/// Descriptors kept from clients: for listeners, the reserve of the admin and agent listeners (16 connections each),
/// streams to the workers, logs and data-store checks.
const DESCRIPTORS_KEPT: usize = 64;
/// The most client connections held unless told otherwise.
const MOST_CONNECTIONS_BY_DEFAULT: usize = 65_536;
/// The descriptor limit assumed where it cannot be read: the customary soft limit.
const DESCRIPTOR_LIMIT_ASSUMED: usize = 1024;

/// When the gate trips and how it reopens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GateMode {
    /// Trips on a run of readings or on stuck workers, and reopens one probe at a time.
    #[default]
    Guarded,
    /// The health-check pattern word for word: one reading trips, and all traffic returns at once.
    Literal,
    /// Never trips.
    Off,
}

impl GateMode {
    /// The name by which the command line and the report know the mode.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            GateMode::Guarded => "guarded",
            GateMode::Literal => "literal",
            GateMode::Off => "off",
        }
    }
}

impl fmt::Display for GateMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for GateMode {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [GateMode::Guarded, GateMode::Literal, GateMode::Off]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| ConfigError {
                option: "gate",
                expected: "guarded, literal or off".to_owned(),
                found: format!("{text:?}"),
            })
    }
}

/// Who sees more of the health reports than the status word: numbers, data stores, metrics, the status page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Details {
    /// Clients on this host that ask for an address, `localhost` or one of [`Config::details_hosts`], and those of the
    /// admin listener. A proxy on this host makes all of its clients look local.
    #[default]
    Local,
    /// Everybody.
    Always,
    /// Only clients of the admin listener.
    Never,
}

impl Details {
    /// The name by which the command line knows it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Details::Local => "local",
            Details::Always => "always",
            Details::Never => "never",
        }
    }
}

impl fmt::Display for Details {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for Details {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Details::Local, Details::Always, Details::Never]
            .into_iter()
            .find(|details| details.as_str() == text)
            .ok_or_else(|| ConfigError {
                option: "details",
                expected: "local, always or never".to_owned(),
                found: format!("{text:?}"),
            })
    }
}

impl FromStr for Cidr {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| ConfigError {
            option: "trust",
            expected: "an address, or a network such as 10.0.0.0/8 or fd00::/8 with zeros beyond its prefix".to_owned(),
            found: format!("{text:?}"),
        })
    }
}

/// Every knob of a server. Plain data: [`validate`](Config::validate) says whether it makes sense.
///
/// All durations are at most 24 hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Addresses to serve on, each `host:port`; port 0 picks a free one. An IPv6 address is
    /// written in brackets. Default `127.0.0.1:8080`; 1 to 64 of them.
    pub listen: Vec<String>,
    /// Address of a second listener, for the health paths only and with all details. Default none.
    pub admin: Option<String>,
    /// Address of a listener that speaks HAProxy's agent-check protocol. Default none.
    pub agent: Option<String>,
    /// Who sees more of the health reports than the status word. Default [`Details::Local`].
    pub details: Details,
    /// Names by which clients on this host may ask for the details, beside `localhost` and addresses, under
    /// [`Details::Local`]. A name that somebody else can point at this host lets web pages read them. Default none; at
    /// most 64.
    pub details_hosts: Vec<String>,
    /// Threads that run the handler. Default twice the cores, at least 4; 1 to 1024.
    pub workers: usize,
    /// Average service time at which the service is unhealthy. Default 1 s; above 0.
    pub threshold: Duration,
    /// How long the reset thread sleeps before it starts the average afresh. Default 1 s; above 0.
    pub cooldown: Duration,
    /// Average age of the moving average in samples, N: a new sample weighs `2 / (N + 1)`.
    /// Default 30; 1 to 1,000,000.
    pub ewma_age: u32,
    /// When the gate trips and how it reopens. Default [`GateMode::Guarded`].
    pub gate: GateMode,
    /// Longest a request may wait for a worker. Default 50 ms; above 0. To let no request wait,
    /// set [`queue_max`](Config::queue_max) to 0.
    pub queue_budget: Duration,
    /// Most requests that may wait for a worker. Default 1024; 0 to 1,000,000.
    pub queue_max: usize,
    /// Whether one peer (an IPv4 address or an IPv6 /64) is limited to its share of the queue.
    /// Default false: behind a balancer all clients are one peer.
    pub fair: bool,
    /// Proxies whose `X-Forwarded-For` is believed, see [`Request::client`](crate::Request::client). Default none; at most
    /// 1024.
    pub trust: Vec<Cidr>,
    /// Client connections held at the same moment. Default the process's descriptor limit less 64,
    /// at most 65,536; 1 to 1,048,576.
    pub max_connections: usize,
    /// Longest request line and headers together, in bytes. Default 16 KiB; 256 B to 1 MiB.
    pub max_head: usize,
    /// Longest request body, in bytes. Default 1 MiB; 0 (no bodies) to 1 GiB.
    pub max_body: usize,
    /// From the first byte of a request's head to its last. Default 10 s; above 0.
    pub head_timeout: Duration,
    /// From the first byte of a request's body to its last. Default 30 s; above 0.
    pub body_timeout: Duration,
    /// How long a kept-alive connection may rest between requests. Default 60 s; above 0.
    pub idle_timeout: Duration,
    /// How long a reply may make no progress. Default 10 s; above 0.
    pub write_timeout: Duration,
    /// From the whole request to its reply; after that the client gets 504. Default 30 s; above 0.
    pub request_timeout: Duration,
    /// How long to keep serving, not ready, after a signal to stop; less when quiet and nobody has asked a health path or
    /// the agent within the last minute. Default 5 s; 0 stops at once.
    pub drain: Duration,
    /// Data stores to watch. Default none; at most 64, no two of one name.
    pub checks: Vec<WatchedStore>,
}

impl Default for Config {
    /// The documented defaults, some of them measured on the machine; they are always valid.
    fn default() -> Self {
        Self {
            listen: vec!["127.0.0.1:8080".to_owned()],
            admin: None,
            agent: None,
            details: Details::Local,
            details_hosts: Vec::new(),
            workers: default_workers(thread::available_parallelism().map_or(1, usize::from)),
            threshold: Duration::from_secs(1),
            cooldown: Duration::from_secs(1),
            ewma_age: 30,
            gate: GateMode::Guarded,
            queue_budget: Duration::from_millis(50),
            queue_max: 1024,
            fair: false,
            trust: Vec::new(),
            max_connections: default_max_connections(descriptor_limit()),
            max_head: 16 * 1024,
            max_body: 1024 * 1024,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_mins(1),
            write_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(5),
            checks: Vec::new(),
        }
    }
}

impl Config {
    /// Checks every knob against its bounds.
    ///
    /// # Errors
    ///
    /// The first knob, in the order of the fields, that is out of its bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        listeners(self.listen.len())?;
        self.listen
            .iter()
            .try_for_each(|text| address("listen", text))?;
        for (option, text) in [("admin", &self.admin), ("agent", &self.agent)] {
            if let Some(text) = text {
                address(option, text)?;
            }
        }
        let hosts = self.details_hosts.len();
        number("details-host", "a number of names", hosts, &DETAILS_HOSTS)?;
        self.details_hosts.iter().try_for_each(|name| host(name))?;
        number("workers", "a whole number", self.workers, &WORKERS)?;
        above_zero("threshold", self.threshold)?;
        above_zero("cooldown", self.cooldown)?;
        let age = usize::try_from(self.ewma_age).unwrap_or(usize::MAX);
        number("ewma-age", "a whole number", age, &EWMA_AGE)?;
        above_zero("queue-budget", self.queue_budget)?;
        number("queue-max", "a whole number", self.queue_max, &QUEUE_MAX)?;
        let trusted = self.trust.len();
        number("trust", "a number of ranges", trusted, &TRUST)?;
        number(
            "max-connections",
            "a whole number",
            self.max_connections,
            &MAX_CONNECTIONS,
        )?;
        number("max-head", "a number of bytes", self.max_head, &MAX_HEAD)?;
        number("max-body", "a number of bytes", self.max_body, &MAX_BODY)?;
        above_zero("head-timeout", self.head_timeout)?;
        above_zero("body-timeout", self.body_timeout)?;
        above_zero("idle-timeout", self.idle_timeout)?;
        above_zero("write-timeout", self.write_timeout)?;
        above_zero("request-timeout", self.request_timeout)?;
        at_most_longest("drain", "a duration of at most 24h", self.drain)?;
        let checks = self.checks.iter();
        validate_checks(checks.map(|store| (store.name.as_str(), &store.settings)))
    }
}

/// A knob that is out of its bounds. Prints as one line: `OPTION: expected X, found Y`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigError {
    /// The option's name on the command line, without its dashes.
    pub option: &'static str,
    /// What the option takes.
    pub expected: String,
    /// What it was given.
    pub found: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            option,
            expected,
            found,
        } = self;
        write!(formatter, "{option}: expected {expected}, found {found}")
    }
}

impl std::error::Error for ConfigError {}

fn number(
    option: &'static str,
    what: &str,
    found: usize,
    bounds: &RangeInclusive<usize>,
) -> Result<(), ConfigError> {
    if bounds.contains(&found) {
        return Ok(());
    }
    Err(ConfigError {
        option,
        expected: format!("{what} from {} to {}", bounds.start(), bounds.end()),
        found: found.to_string(),
    })
}

/// Checks how many addresses or sockets there are to serve on.
pub(crate) fn listeners(found: usize) -> Result<(), ConfigError> {
    number("listen", "a number of addresses", found, &LISTENERS)
}

fn above_zero(option: &'static str, found: Duration) -> Result<(), ConfigError> {
    let expected = "a duration above 0 and at most 24h";
    if found.is_zero() {
        return Err(ConfigError {
            option,
            expected: expected.to_owned(),
            found: "0".to_owned(),
        });
    }
    at_most_longest(option, expected, found)
}

fn at_most_longest(
    option: &'static str,
    expected: &str,
    found: Duration,
) -> Result<(), ConfigError> {
    if found <= LONGEST {
        return Ok(());
    }
    Err(ConfigError {
        option,
        expected: expected.to_owned(),
        found: format!("{found:?}"),
    })
}

/// Checks that it is the name of a host, without a port.
fn host(name: &str) -> Result<(), ConfigError> {
    if is_host_name(name) {
        return Ok(());
    }
    Err(ConfigError {
        option: "details-host",
        expected: "the name of a host, such as status.example".to_owned(),
        found: format!("{name:?}"),
    })
}

fn is_host_name(name: &str) -> bool {
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !name.is_empty() && name.bytes().all(in_name)
}

/// Checks the shape only: whether a host name resolves is known when it is bound.
fn address(option: &'static str, text: &str) -> Result<(), ConfigError> {
    let is_name_and_port = || {
        text.rsplit_once(':').is_some_and(|(host, port)| {
            is_host_name(host)
                && port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<u16>().is_ok()
        })
    };
    if text.parse::<SocketAddr>().is_ok() || is_name_and_port() {
        return Ok(());
    }
    Err(ConfigError {
        option,
        expected: "HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080".to_owned(),
        found: format!("{text:?}"),
    })
}

fn default_workers(cores: usize) -> usize {
    cores.saturating_mul(2).clamp(4, *WORKERS.end())
}

fn default_max_connections(descriptor_limit: Option<usize>) -> usize {
    descriptor_limit
        .unwrap_or(DESCRIPTOR_LIMIT_ASSUMED)
        .saturating_sub(DESCRIPTORS_KEPT)
        .clamp(*MAX_CONNECTIONS.start(), MOST_CONNECTIONS_BY_DEFAULT)
}

/// The process's soft limit of open files, where the system tells it.
pub(crate) fn descriptor_limit() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    soft_descriptor_limit(&limits)
}

/// Reads the soft limit of open files from the text of `/proc/self/limits`, see `proc_pid_limits(5)`.
fn soft_descriptor_limit(limits: &str) -> Option<usize> {
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?;
    if soft == "unlimited" {
        return Some(usize::MAX);
    }
    soft.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    fn accepts(change: impl FnOnce(&mut Config)) -> bool {
        let mut config = Config::default();
        change(&mut config);
        config.validate().is_ok()
    }

    #[test]
    fn the_default_is_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn numbers_are_accepted_at_their_bounds_and_refused_beyond() {
        type Set = fn(&mut Config, usize);
        let knobs: [(&str, &RangeInclusive<usize>, Set); 6] = [
            ("workers", &WORKERS, |c, n| c.workers = n),
            ("ewma-age", &EWMA_AGE, |c, n| {
                c.ewma_age = u32::try_from(n).unwrap();
            }),
            ("queue-max", &QUEUE_MAX, |c, n| c.queue_max = n),
            ("max-connections", &MAX_CONNECTIONS, |c, n| {
                c.max_connections = n;
            }),
            ("max-head", &MAX_HEAD, |c, n| c.max_head = n),
            ("max-body", &MAX_BODY, |c, n| c.max_body = n),
        ];
        for (option, bounds, set) in knobs {
            let (low, high) = (*bounds.start(), *bounds.end());
            assert!(accepts(|c| set(c, low)), "{option} at {low}");
            assert!(accepts(|c| set(c, high)), "{option} at {high}");
            for beyond in [low.checked_sub(1), Some(high + 1)].into_iter().flatten() {
                let line = complaint(|c| set(c, beyond));
                assert!(line.starts_with(&format!("{option}: expected a")), "{line}");
                assert!(
                    line.ends_with(&format!("from {low} to {high}, found {beyond}")),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn durations_are_above_zero_and_at_most_a_day() {
        type Set = fn(&mut Config, Duration);
        let knobs: [(&str, Set); 8] = [
            ("threshold", |c, d| c.threshold = d),
            ("cooldown", |c, d| c.cooldown = d),
            ("queue-budget", |c, d| c.queue_budget = d),
            ("head-timeout", |c, d| c.head_timeout = d),
            ("body-timeout", |c, d| c.body_timeout = d),
            ("idle-timeout", |c, d| c.idle_timeout = d),
            ("write-timeout", |c, d| c.write_timeout = d),
            ("request-timeout", |c, d| c.request_timeout = d),
        ];
        for (option, set) in knobs {
            assert!(accepts(|c| set(c, Duration::from_nanos(1))), "{option}");
            assert!(accepts(|c| set(c, LONGEST)), "{option}");
            assert_eq!(
                complaint(|c| set(c, Duration::ZERO)),
                format!("{option}: expected a duration above 0 and at most 24h, found 0"),
            );
            assert_eq!(
                complaint(|c| set(c, LONGEST + Duration::from_secs(1))),
                format!("{option}: expected a duration above 0 and at most 24h, found 86401s"),
            );
        }
    }

    #[test]
    fn drain_may_be_zero_but_not_more_than_a_day() {
        assert!(accepts(|c| c.drain = Duration::ZERO));
        assert!(accepts(|c| c.drain = LONGEST));
        assert_eq!(
            complaint(|c| c.drain = Duration::MAX),
            format!(
                "drain: expected a duration of at most 24h, found {:?}",
                Duration::MAX
            ),
        );
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let good = [
            "127.0.0.1:0",
            "0.0.0.0:65535",
            "[::1]:8080",
            "[fe80::1%2]:80",
            "localhost:80",
            "my_host-1.example:443",
        ];
        for text in good {
            assert!(accepts(|c| c.listen = vec![text.to_owned()]), "{text}");
        }
        let bad = [
            "",
            ":",
            ":8080",
            "8080",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:65536",
            "127.0.0.1:+80",
            "127.0.0.1:http",
            "::1:8080",
            "[::1]",
            "[localhost]:80",
            "http://127.0.0.1:8080",
            "a b:80",
            "127.0.0.1:80 ",
            "a:80\n",
        ];
        for text in bad {
            assert_eq!(
                complaint(|c| c.listen.push(text.to_owned())),
                format!(
                    "listen: expected HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080, found {text:?}"
                ),
            );
        }
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let addresses = |count| vec!["127.0.0.1:0".to_owned(); count];
        assert!(accepts(|c| c.listen = addresses(64)));
        assert_eq!(
            complaint(|c| c.listen = addresses(0)),
            "listen: expected a number of addresses from 1 to 64, found 0",
        );
        assert_eq!(
            complaint(|c| c.listen = addresses(65)),
            "listen: expected a number of addresses from 1 to 64, found 65",
        );
    }

    #[test]
    fn a_gate_mode_reads_back_as_it_prints() {
        for mode in [GateMode::Guarded, GateMode::Literal, GateMode::Off] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert_eq!(
            "Guarded".parse::<GateMode>().unwrap_err().to_string(),
            "gate: expected guarded, literal or off, found \"Guarded\"",
        );
    }

    #[test]
    fn workers_default_to_twice_the_cores_within_the_bounds() {
        assert_eq!(default_workers(1), 4);
        assert_eq!(default_workers(2), 4);
        assert_eq!(default_workers(3), 6);
        assert_eq!(default_workers(64), 128);
        assert_eq!(default_workers(usize::MAX), 1024);
    }

    #[test]
    fn connections_default_to_the_descriptor_limit_less_what_is_kept() {
        assert_eq!(default_max_connections(Some(20_000)), 19_936);
        assert_eq!(default_max_connections(Some(usize::MAX)), 65_536);
        assert_eq!(default_max_connections(Some(10)), 1);
        assert_eq!(default_max_connections(None), 960);
    }

    #[test]
    fn the_soft_limit_of_open_files_is_read() {
        let limits = "\
Limit                     Soft Limit           Hard Limit           Units     \n\
Max processes             3000                 3001                 processes \n\
Max open files            1024                 4096                 files     \n";
        assert_eq!(soft_descriptor_limit(limits), Some(1024));
        let unlimited = limits.replace("1024", "unlimited");
        assert_eq!(soft_descriptor_limit(&unlimited), Some(usize::MAX));
        for broken in [
            "",
            "Max open files",
            "Max open files  many",
            "Max processes  3  4",
        ] {
            assert_eq!(soft_descriptor_limit(broken), None, "{broken}");
        }
    }
}
