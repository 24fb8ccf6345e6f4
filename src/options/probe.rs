//! The arguments of `plimsoll probe`.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use lexopt::{Arg, Parser};
use plimsoll::settings::{Kind, Span};
use plimsoll::{Config, Probe, Status};

use super::{Command, OptionError, without_secret};

/// Which endpoint to ask, and how to tell the answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ProbeOptions {
    /// What to ask.
    pub probe: Probe,
    /// Longest that it may take in total. Default 2 s; above 0, at most 24 h.
    pub timeout: Duration,
    /// Exit as a script check of Consul.
    pub consul_exit: bool,
}

impl ProbeOptions {
    /// The exit code that tells `status`.
    pub(crate) fn exit_code(&self, status: Status) -> u8 {
        match status {
            Status::Pass => 0,
            Status::Warn => u8::from(self.consul_exit),
            // Docker reserves 2.
            Status::Fail => 1 + u8::from(self.consul_exit),
        }
    }
}

/// What `--timeout` takes.
const TIMEOUT: Span = Span::AboveZero;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads what follows `probe`.
///
/// # Errors
/// The first bad argument, or a variable that the default URL can't be made of.
pub(super) fn parse(
    mut parser: Parser,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, OptionError> {
    let mut probe = None;
    let mut timeout = DEFAULT_TIMEOUT;
    let mut consul_exit = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(HELP.to_owned())),
            Arg::Long("timeout") => {
                let value = parser.value().map_err(|_| {
                    let expected = TIMEOUT.expected();
                    OptionError(format!("--timeout: expected {expected}, found nothing"))
                })?;
                timeout = parse_timeout(&value.to_string_lossy())?;
            }
            Arg::Long("consul-exit") => consul_exit = true,
            Arg::Value(url) if probe.is_none() => probe = Some(parse_url(&url.to_string_lossy())?),
            Arg::Value(word) => {
                return Err(unknown(without_secret(&word.to_string_lossy())));
            }
            Arg::Long(flag) => return Err(unknown(&format!("--{flag}"))),
            Arg::Short(letter) => return Err(unknown(&format!("-{letter}"))),
        }
    }
    let probe = match probe {
        Some(probe) => probe,
        None => default_probe(&super::from_environment(environment)?.config, consul_exit)?,
    };
    Ok(Command::Probe(ProbeOptions {
        probe,
        timeout,
        consul_exit,
    }))
}

fn unknown(found: &str) -> OptionError {
    OptionError(format!(
        "expected a URL and options that plimsoll probe --help lists, found {found:?}"
    ))
}

/// The form of a URL to ask.
const URL: &str = "http://HOST[:PORT][/PATH]";

/// The error does not show a URL that may hold a password.
fn parse_url(url: &str) -> Result<Probe, OptionError> {
    if url.contains("://") {
        return url
            .parse()
            .map_err(|error| OptionError(format!("probe: {error}")));
    }
    Err(OptionError::bad_value("probe", URL, without_secret(url)))
}

fn parse_timeout(text: &str) -> Result<Duration, OptionError> {
    let timeout = TIMEOUT.parse(text).and_then(|timeout| {
        TIMEOUT.check(&timeout)?;
        Ok(timeout)
    });
    timeout.map_err(|complaint| OptionError::of("--timeout", complaint, text))
}

/// Asks the server that the same environment configures, as that of a container does.
fn default_probe(served: &Config, consul_exit: bool) -> Result<Probe, OptionError> {
    // Readiness has no warning.
    let (option, path) = if consul_exit {
        ("--health-path", &served.health_path)
    } else {
        ("--readyz-path", &served.readyz_path)
    };
    let or = "or a URL as an argument";
    let path = path
        .as_deref()
        .ok_or_else(|| OptionError(format!("{option}: expected a path, {or}, found off")))?;
    let first = served.listen.first().map_or("", String::as_str);
    let url = format!("http://{}{path}", reachable(first));
    url.parse().map_err(|_| {
        let expected = format!("HOST:PORT with a port above 0, {or}");
        OptionError::bad_value("--listen", &expected, first)
    })
}

/// Where to reach a server that listens there: one that listens everywhere is on loopback too.
fn reachable(address: &str) -> String {
    let Ok(mut parsed) = address.parse::<SocketAddr>() else {
        return address.to_owned();
    };
    if parsed.ip().is_unspecified() {
        parsed.set_ip(match parsed.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    parsed.to_string()
}

const HELP: &str = "\
Asks a health endpoint how its service is: for health checks of containers, which have no shell.

Usage: plimsoll probe [OPTIONS] [URL]

URL is http://HOST[:PORT][/PATH]. Without one it is http://127.0.0.1:8080/readyz, or /health with
--consul-exit, unless the variables of the server (PLIMSOLL_LISTEN, PLIMSOLL_CONFIG and others) say
that it is elsewhere.

Options:
  --timeout DUR          longest that all of it may take [default 2s]
  --consul-exit          exit as Consul's script checks expect
  -h, --help             print this and exit

It prints one line: the status code and the beginning of the answer, or why there is none.

  answer                                                         exit   with --consul-exit
  2xx                                                            0      0
  429, or 2xx that says \"warning\", or health+json of \"warn\"      0      1
  anything else, or none in time                                 1      2

A bad option or URL exits 2.
";

#[cfg(test)]
mod tests;
