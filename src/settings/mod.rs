//! Every setting of the server, in one table: its field, unit, default and bounds, its flag and variable, its help.
//!
//! To add one, write a row in `config_rows!` below. From the row come the field of [`Config`] with its default, the check
//! of its bounds, the flag, the variable, the line of `--help`, the row of the README's table (a test prints what to
//! write there), the entry in `/status.json` and, where the row says `set`, the method of [`Builder`](crate::Builder).
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

pub(crate) mod checks;
mod kinds;
mod limits;
mod modes;
mod paths;
mod table;
mod throttle;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use checks::WatchedStore;
pub(crate) use checks::validate as validate_checks;
pub(crate) use kinds::LONGEST;
pub use kinds::{Complaint, Count, Kind, List, Maybe, Size, Span, Switch, Text, Word};
#[cfg(feature = "proxy")]
pub(crate) use limits::descriptors_beside;
pub(crate) use limits::{DESCRIPTORS_KEPT, descriptor_limit};
pub use modes::{AccessLogFormat, Details, GateMode, OwnPaths};
pub use paths::own_public_paths;
pub(crate) use table::define_settings;
pub use table::{At, Field, Setting};
pub use throttle::{ThrottleBy, ThrottleRule};

use crate::http::trust::Cidr;
use checks::Checks;
use kinds::{ADDRESS, FILE, HOST_NAME};
use limits::{MAX_BODIES, MAX_CONNECTIONS, WORKERS, default_max_connections, default_workers};
use paths::Path;
use table::define_config;
use throttle::Throttles;

/// Gives the rows of the table to the macro `$use`.
///
/// A row is the field with its documentation, type and default, and then what the command line and the rest say of it.
/// It begins with `set` where the method of [`Builder`](crate::Builder) has the name of the field and takes its value,
/// with `path` where it takes a `&str` or `None`, with `own` where it is written by hand. Its kind is how a value is
/// written, and its bounds. A default that depends on the machine is said in words too.
macro_rules! config_rows {
    ($use:ident) => {
        $use! {
            /// Addresses to serve on, each `host:port`; port 0 picks a free one. An IPv6 address is
            /// written in brackets. Default `127.0.0.1:8080`; 1 to 64 of them.
            own listen: Vec<String> = vec![DEFAULT_LISTEN.to_owned()] => {
                flag: "listen", variable: "PLIMSOLL_LISTEN", kind: LISTEN,
                help: "address to serve on; port 0 picks one; repeatable",
            }
            /// Address of a second listener, for the health paths only and with all details. Default none.
            own admin: Option<String> = None => {
                flag: "admin", variable: "PLIMSOLL_ADMIN", kind: Maybe(ADDRESS),
                help: "a second listener for the health paths only, with full details",
            }
            /// Address of a listener that speaks HAProxy's agent-check protocol. Default none.
            own agent: Option<String> = None => {
                flag: "agent", variable: "PLIMSOLL_AGENT", kind: Maybe(ADDRESS),
                help: "a listener for HAProxy's agent-check",
            }
            /// Who sees more of the health reports than the status word. Default [`Details::Local`].
            set details: Details = Details::Local => {
                flag: "details", variable: "PLIMSOLL_DETAILS", kind: Word::new("WHO", Details::WORDS),
                help: "who sees details: local (clients on this host), always or never",
            }
            /// Names by which clients on this host may ask for the details, beside `localhost` and addresses, under
            /// [`Details::Local`]. A name that somebody else can point at this host lets web pages read them. Default none; at
            /// most 64.
            own details_hosts: Vec<String> = Vec::new() => {
                flag: "details-host", variable: "PLIMSOLL_DETAILS_HOST", kind: List { item: HOST_NAME, count: 0..=64, plural: "names" },
                help: "a name that local clients may ask for details by; repeatable",
            }
            /// The path where the health report is, and Consul's, which has `/consul` behind it; `None` leaves
            /// it to the handler. Default `/health`.
            path health_path: Option<String> = Some("/health".to_owned()) => {
                flag: "health-path", variable: "PLIMSOLL_HEALTH_PATH", kind: Path,
                help: "where the health report is, or off",
            }
            /// The path where liveness is, and each of its parts behind a slash; `None` leaves
            /// it to the handler. Default `/livez`.
            path livez_path: Option<String> = Some("/livez".to_owned()) => {
                flag: "livez-path", variable: "PLIMSOLL_LIVEZ_PATH", kind: Path,
                help: "where liveness is, or off",
            }
            /// The path where readiness is, and each of its parts behind a slash; `None` leaves
            /// it to the handler. Default `/readyz`.
            path readyz_path: Option<String> = Some("/readyz".to_owned()) => {
                flag: "readyz-path", variable: "PLIMSOLL_READYZ_PATH", kind: Path,
                help: "where readiness is, or off",
            }
            /// The path where Prometheus reads the numbers; `None` leaves
            /// it to the handler. Default `/metrics`.
            path metrics_path: Option<String> = Some("/metrics".to_owned()) => {
                flag: "metrics-path", variable: "PLIMSOLL_METRICS_PATH", kind: Path,
                help: "where the numbers for Prometheus are, or off",
            }
            /// The path where the status page is, and its numbers, which have `.json` behind it; `None` leaves
            /// it to the handler. Default `/status`.
            path status_path: Option<String> = Some("/status".to_owned()) => {
                flag: "status-path", variable: "PLIMSOLL_STATUS_PATH", kind: Path,
                help: "where the status page is, or off",
            }
            /// Which listeners have these paths. Default [`OwnPaths::All`].
            set own_paths: OwnPaths = OwnPaths::All => {
                flag: "own-paths", variable: "PLIMSOLL_OWN_PATHS", kind: Word::new("WHERE", OwnPaths::WORDS),
                help: "all, or admin: then --listen has only /livez and /readyz of these",
            }
            /// Threads that run the handler. Default twice the cores, at least 4; 1 to 1024.
            set workers: usize = default_workers() => {
                flag: "workers", variable: "PLIMSOLL_WORKERS", kind: Count(WORKERS),
                default: "twice the cores, at least 4",
                help: "threads that run the handler",
            }
            /// Average service time at which the service is unhealthy. Default 1 s; above 0.
            set threshold: Duration = Duration::from_secs(1) => {
                flag: "threshold", variable: "PLIMSOLL_THRESHOLD", kind: Span::AboveZero,
                help: "average service time at which the service is unhealthy",
            }
            /// How long the reset thread sleeps before it starts the average afresh. Default 1 s; above 0.
            set cooldown: Duration = Duration::from_secs(1) => {
                flag: "cooldown", variable: "PLIMSOLL_COOLDOWN", kind: Span::AboveZero,
                help: "how long the reset thread sleeps",
            }
            /// Average age of the moving average in samples, N: a new sample weighs `2 / (N + 1)`.
            /// Default 30; 1 to 1,000,000, where a sample moves the average by two parts in a million.
            set ewma_age: u32 = 30 => {
                flag: "ewma-age", variable: "PLIMSOLL_EWMA_AGE", kind: Count(1..=1_000_000),
                help: "average age in samples; a new sample weighs 2/(N+1)",
            }
            /// When the gate trips and how it reopens. Default [`GateMode::Guarded`].
            set gate: GateMode = GateMode::Guarded => {
                flag: "gate", variable: "PLIMSOLL_GATE", kind: Word::new("MODE", GateMode::WORDS),
                help: "guarded, literal or off",
            }
            /// Longest a request may wait for a worker. Default 50 ms; above 0. To let no request wait,
            /// set [`queue_max`](Config::queue_max) to 0.
            set queue_budget: Duration = Duration::from_millis(50) => {
                flag: "queue-budget", variable: "PLIMSOLL_QUEUE_BUDGET", kind: Span::AboveZero,
                help: "longest a request may wait for a worker",
            }
            /// Most requests that may wait for a worker. Default 1024; 0 to 1,000,000.
            set queue_max: usize = 1024 => {
                flag: "queue-max", variable: "PLIMSOLL_QUEUE_MAX", kind: Count(0..=1_000_000),
                help: "most requests that may wait",
            }
            /// Whether one client (an IPv4 address or an IPv6 /64) is limited to its share of the queue.
            /// Default false: behind a balancer that is not in [`trust`](Config::trust) all clients are one.
            set fair: bool = false => {
                flag: "fair", variable: "PLIMSOLL_FAIR", kind: Switch,
                help: "limit one peer's share of the queue",
            }
            /// Proxies whose `X-Forwarded-For` is believed, see [`Request::client`](crate::Request::client). Default none;
            /// at most 1024, as each is looked at for each request.
            own trust: Vec<Cidr> = Vec::new() => {
                flag: "trust", variable: "PLIMSOLL_TRUST",
                kind: List { item: Word::new("CIDR", CIDR), count: 0..=1024, plural: "ranges" },
                help: "proxies whose X-Forwarded-For is believed; repeatable",
            }
            /// How often clients may ask; what comes more often is refused with 429. Default none; at most 16, as each is
            /// looked at for each request, and no two of one name.
            own throttle: Vec<ThrottleRule> = Vec::new() => {
                flag: "throttle", variable: "PLIMSOLL_THROTTLE", kind: Throttles,
                help: "how often a client may ask, e.g. 20/s,path=/api; repeatable",
            }
            /// Client connections held at the same moment. Default the process's descriptor limit less 64,
            /// at most 65,536; 1 to 1,048,576.
            set max_connections: usize = default_max_connections() => {
                flag: "max-connections", variable: "PLIMSOLL_MAX_CONNECTIONS", kind: Count(MAX_CONNECTIONS),
                default: "descriptor limit less 64, at most 65536",
                help: "client connections held",
            }
            /// Longest request line and headers together, in bytes. Default 16 KiB; 256 B, which leaves room for a plain
            /// request, to 1 MiB.
            set max_head: usize = 16 * 1024 => {
                flag: "max-head", variable: "PLIMSOLL_MAX_HEAD", kind: Size(256..=1024 * 1024),
                help: "request line and headers",
            }
            /// Longest request body, in bytes. It is held in memory until it is whole. Default 1 MiB; 0 (no bodies) to 1 GiB.
            set max_body: usize = 1024 * 1024 => {
                flag: "max-body", variable: "PLIMSOLL_MAX_BODY", kind: Size(0..=1024 * 1024 * 1024),
                help: "request body",
            }
            /// Most bytes of all request bodies that are held at the same moment, of which one peer (an IPv4 address or an
            /// IPv6 /64) has at most half, or one body. A body has room for its length, or for
            /// [`max_body`](Config::max_body) if it is chunked, before it is read; the others wait in the kernel, in the
            /// order in which they came, for up to the [body timeout](Config::body_timeout). No body may be longer.
            /// Default 64 MiB; 1 B to 64 GiB,
            /// or 1 GiB on a 32-bit system.
            set max_bodies: usize = 64 * 1024 * 1024 => {
                flag: "max-bodies", variable: "PLIMSOLL_MAX_BODIES", kind: Size(1..=MAX_BODIES),
                help: "all request bodies held at once; one peer has at most half",
            }
            /// From the first byte of a request's head to its last. Default 10 s; above 0.
            set head_timeout: Duration = Duration::from_secs(10) => {
                flag: "head-timeout", variable: "PLIMSOLL_HEAD_TIMEOUT", kind: Span::AboveZero,
                help: "first byte to last byte of a head, in total",
            }
            /// From the first byte of a request's body to its last. Default 30 s; above 0.
            set body_timeout: Duration = Duration::from_secs(30) => {
                flag: "body-timeout", variable: "PLIMSOLL_BODY_TIMEOUT", kind: Span::AboveZero,
                help: "the whole body, in total",
            }
            /// How long a kept-alive connection may rest between requests. Default 60 s; above 0.
            set idle_timeout: Duration = Duration::from_secs(60) => {
                flag: "idle-timeout", variable: "PLIMSOLL_IDLE_TIMEOUT", kind: Span::AboveZero,
                help: "a kept-alive connection between requests",
            }
            /// How long a reply may make no progress. Default 10 s; above 0.
            set write_timeout: Duration = Duration::from_secs(10) => {
                flag: "write-timeout", variable: "PLIMSOLL_WRITE_TIMEOUT", kind: Span::AboveZero,
                help: "a reply that makes no progress",
            }
            /// From the whole request to its reply; after that the client gets 504. Default 30 s; above 0.
            set request_timeout: Duration = Duration::from_secs(30) => {
                flag: "request-timeout", variable: "PLIMSOLL_REQUEST_TIMEOUT", kind: Span::AboveZero,
                help: "whole request to reply; then 504, whatever the handler does",
            }
            /// How long [`Server::run_until_signal`](crate::Server::run_until_signal) keeps serving, not ready, after a signal to
            /// stop; less when quiet and nobody has asked a health path or the agent within the last minute. Default 5 s; 0 stops
            /// at once.
            set drain: Duration = Duration::from_secs(5) => {
                flag: "drain", variable: "PLIMSOLL_DRAIN", kind: Span::FromZero,
                help: "on SIGTERM: not ready, serves this long, or until quiet if unwatched",
            }
            /// The file to which the access log is appended, a line for each request; `-` is standard output. Default none.
            own access_log: Option<String> = None => {
                flag: "access-log", variable: "PLIMSOLL_ACCESS_LOG", kind: Maybe(FILE),
                help: "a line for each request to this file; - is standard output",
            }
            /// What a line of the access log has. Default [`AccessLogFormat::Combined`].
            set access_log_format: AccessLogFormat = AccessLogFormat::Combined => {
                flag: "access-log-format", variable: "PLIMSOLL_ACCESS_LOG_FORMAT",
                kind: Word::new("FORMAT", AccessLogFormat::WORDS),
                help: "common, combined (and duration, wait, id, reason) or json",
            }
            /// Whether the access log has requests for the health paths too. Default false.
            set access_log_health: bool = false => {
                flag: "access-log-health", variable: "PLIMSOLL_ACCESS_LOG_HEALTH", kind: Switch,
                help: "requests for the health paths are in the access log too",
            }
            /// Data stores to watch. Default none; at most 64, no two of one name.
            own checks: Vec<WatchedStore> = Vec::new() => {
                flag: "check", variable: "PLIMSOLL_CHECKS", kind: Checks,
                help: "a data store to watch; repeatable",
            }
        }
    };
}

pub(crate) use config_rows;

config_rows!(define_config);

/// The address to serve on unless another is given.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// How many addresses there may be to serve on.
const LISTEN: List<Text> = List {
    item: ADDRESS,
    count: 1..=64,
    plural: "addresses",
};

const CIDR: &str =
    "an address, or a network such as 10.0.0.0/8 or fd00::/8 with zeros beyond its prefix";

impl FromStr for Cidr {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| ConfigError {
            option: "trust",
            expected: CIDR.to_owned(),
            found: format!("{text:?}"),
        })
    }
}

/// A setting that is out of its bounds. Prints as one line: `OPTION: expected X, found Y`.
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

/// Checks how many addresses or sockets there are to serve on.
pub(crate) fn listeners(found: usize) -> Result<(), ConfigError> {
    LISTEN
        .check_count(found)
        .map_err(|complaint| complaint.of("listen", || found.to_string()))
}

#[cfg(test)]
mod tests;
