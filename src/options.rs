//! The command line and the environment: one table of knobs drives the reading of both and the
//! text of `--help`, so they cannot drift apart.
//!
//! A flag beats the environment: the variable of an option that is on the command line is not read.
//! Every error is one line that names the option or the variable, what it expected and what it
//! found.

mod checks;
mod probe;

use std::ffi::OsString;
use std::fmt::{self, Write};
use std::time::Duration;

use lexopt::{Arg, Parser};
use log::LevelFilter;
use plimsoll::{Config, Details, GateMode, WatchedStore};

pub(crate) use probe::ProbeOptions;

/// What the command line asks for.
#[derive(Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "made once in the life of the process"
)]
pub(crate) enum Command {
    /// Serve with these options.
    Serve(Options),
    /// Ask a health endpoint.
    Probe(ProbeOptions),
    /// Print this text, a help.
    Help(String),
    /// Print this text, the name and version.
    Version(String),
}

/// How the binary serves.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    /// The server's knobs; always valid.
    pub config: Config,
    /// How long each request on `/` takes, for demonstrations. Default 0; any duration.
    pub work: Duration,
    /// The most talkative level that is logged. Default `info`.
    pub log_level: LevelFilter,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config: Config::default(),
            work: Duration::ZERO,
            log_level: LevelFilter::Info,
        }
    }
}

/// A bad option or variable: one line that names it, what it expected and what it found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OptionError(String);

impl fmt::Display for OptionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for OptionError {}

impl From<lexopt::Error> for OptionError {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

impl OptionError {
    /// `name` is a flag with its dashes or a variable; `found` is quoted, which keeps it to one line.
    fn bad_value(name: &str, expected: &str, found: &str) -> Self {
        Self(format!("{name}: expected {expected}, found {found:?}"))
    }

    fn not_an_option(found: &str, suggestion: Option<&Knob>) -> Self {
        let hint =
            suggestion.map_or_else(String::new, |knob| format!(" (perhaps --{})", knob.flag));
        Self(format!(
            "expected an option that --help lists{hint}, found {found:?}"
        ))
    }
}

/// One option: a row of the table.
struct Knob {
    /// Its long name, without the dashes.
    flag: &'static str,
    /// The variable that sets it when the flag is absent.
    environment: &'static str,
    /// Where its value goes, which also says how it is written.
    field: Field,
    /// What the help shows in place of a default that depends on the machine.
    computed_default: Option<&'static str>,
    /// What the help says it means.
    help: &'static str,
}

/// Where an option's value is kept. Its type decides how the value is read and shown.
enum Field {
    /// Repeatable; the variable holds a comma-separated list.
    Addresses(fn(&mut Options) -> &mut Vec<String>),
    Address(fn(&mut Options) -> &mut Option<String>),
    /// Repeatable; the variable holds a comma-separated list.
    Checks(fn(&mut Options) -> &mut Vec<WatchedStore>),
    Details(fn(&mut Options) -> &mut Details),
    /// Repeatable; the variable holds a comma-separated list.
    Names(fn(&mut Options) -> &mut Vec<String>),
    Count(fn(&mut Options) -> &mut usize),
    Age(fn(&mut Options) -> &mut u32),
    Size(fn(&mut Options) -> &mut usize),
    Duration(fn(&mut Options) -> &mut Duration),
    Gate(fn(&mut Options) -> &mut GateMode),
    Level(fn(&mut Options) -> &mut LevelFilter),
    /// On the command line the value may be left out, and then is true.
    Switch(fn(&mut Options) -> &mut bool),
}

/// Every option but `--help` and `--version`, in the order of the help.
static KNOBS: &[Knob] = &[
    Knob {
        flag: "listen",
        environment: "PLIMSOLL_LISTEN",
        field: Field::Addresses(|options| &mut options.config.listen),
        computed_default: None,
        help: "address to serve on; port 0 picks one; repeatable",
    },
    Knob {
        flag: "admin",
        environment: "PLIMSOLL_ADMIN",
        field: Field::Address(|options| &mut options.config.admin),
        computed_default: Some("none"),
        help: "a second listener for the health paths with full details",
    },
    Knob {
        flag: "agent",
        environment: "PLIMSOLL_AGENT",
        field: Field::Address(|options| &mut options.config.agent),
        computed_default: Some("none"),
        help: "a listener for HAProxy's agent-check",
    },
    Knob {
        flag: "details",
        environment: "PLIMSOLL_DETAILS",
        field: Field::Details(|options| &mut options.config.details),
        computed_default: None,
        help: "who sees details: local, always or never",
    },
    Knob {
        flag: "details-host",
        environment: "PLIMSOLL_DETAILS_HOST",
        field: Field::Names(|options| &mut options.config.details_hosts),
        computed_default: Some("none"),
        help: "a name that local clients may ask for details by; repeatable",
    },
    Knob {
        flag: "workers",
        environment: "PLIMSOLL_WORKERS",
        field: Field::Count(|options| &mut options.config.workers),
        computed_default: Some("twice the cores, at least 4"),
        help: "threads that run the handler",
    },
    Knob {
        flag: "threshold",
        environment: "PLIMSOLL_THRESHOLD",
        field: Field::Duration(|options| &mut options.config.threshold),
        computed_default: None,
        help: "average service time at which the service is unhealthy",
    },
    Knob {
        flag: "cooldown",
        environment: "PLIMSOLL_COOLDOWN",
        field: Field::Duration(|options| &mut options.config.cooldown),
        computed_default: None,
        help: "how long the reset thread sleeps",
    },
    Knob {
        flag: "ewma-age",
        environment: "PLIMSOLL_EWMA_AGE",
        field: Field::Age(|options| &mut options.config.ewma_age),
        computed_default: None,
        help: "average age in samples; a new sample weighs 2/(N+1)",
    },
    Knob {
        flag: "gate",
        environment: "PLIMSOLL_GATE",
        field: Field::Gate(|options| &mut options.config.gate),
        computed_default: None,
        help: "guarded, literal or off",
    },
    Knob {
        flag: "queue-budget",
        environment: "PLIMSOLL_QUEUE_BUDGET",
        field: Field::Duration(|options| &mut options.config.queue_budget),
        computed_default: None,
        help: "longest a request may wait for a worker",
    },
    Knob {
        flag: "queue-max",
        environment: "PLIMSOLL_QUEUE_MAX",
        field: Field::Count(|options| &mut options.config.queue_max),
        computed_default: None,
        help: "most requests that may wait",
    },
    Knob {
        flag: "fair",
        environment: "PLIMSOLL_FAIR",
        field: Field::Switch(|options| &mut options.config.fair),
        computed_default: None,
        help: "limit one peer's share of the queue",
    },
    Knob {
        flag: "max-connections",
        environment: "PLIMSOLL_MAX_CONNECTIONS",
        field: Field::Count(|options| &mut options.config.max_connections),
        computed_default: Some("descriptor limit less 64, at most 65536"),
        help: "client connections held",
    },
    Knob {
        flag: "max-head",
        environment: "PLIMSOLL_MAX_HEAD",
        field: Field::Size(|options| &mut options.config.max_head),
        computed_default: None,
        help: "request line and headers",
    },
    Knob {
        flag: "max-body",
        environment: "PLIMSOLL_MAX_BODY",
        field: Field::Size(|options| &mut options.config.max_body),
        computed_default: None,
        help: "request body",
    },
    Knob {
        flag: "head-timeout",
        environment: "PLIMSOLL_HEAD_TIMEOUT",
        field: Field::Duration(|options| &mut options.config.head_timeout),
        computed_default: None,
        help: "first byte to last byte of a head, in total",
    },
    Knob {
        flag: "body-timeout",
        environment: "PLIMSOLL_BODY_TIMEOUT",
        field: Field::Duration(|options| &mut options.config.body_timeout),
        computed_default: None,
        help: "the whole body, in total",
    },
    Knob {
        flag: "idle-timeout",
        environment: "PLIMSOLL_IDLE_TIMEOUT",
        field: Field::Duration(|options| &mut options.config.idle_timeout),
        computed_default: None,
        help: "a kept-alive connection between requests",
    },
    Knob {
        flag: "write-timeout",
        environment: "PLIMSOLL_WRITE_TIMEOUT",
        field: Field::Duration(|options| &mut options.config.write_timeout),
        computed_default: None,
        help: "a reply that makes no progress",
    },
    Knob {
        flag: "request-timeout",
        environment: "PLIMSOLL_REQUEST_TIMEOUT",
        field: Field::Duration(|options| &mut options.config.request_timeout),
        computed_default: None,
        help: "whole request to reply; then 504, whatever the handler does",
    },
    Knob {
        flag: "drain",
        environment: "PLIMSOLL_DRAIN",
        field: Field::Duration(|options| &mut options.config.drain),
        computed_default: None,
        help: "on SIGTERM: not ready, serves this long, or until quiet if unwatched",
    },
    Knob {
        flag: "check",
        environment: "PLIMSOLL_CHECKS",
        field: Field::Checks(|options| &mut options.config.checks),
        computed_default: Some("none"),
        help: "a data store to watch; repeatable",
    },
    Knob {
        flag: "work",
        environment: "PLIMSOLL_WORK",
        field: Field::Duration(|options| &mut options.work),
        computed_default: None,
        help: "demonstration: each request on / takes this long",
    },
    Knob {
        flag: "log-level",
        environment: "PLIMSOLL_LOG",
        field: Field::Level(|options| &mut options.log_level),
        computed_default: None,
        help: "off, error, warn, info, debug or trace",
    },
];

/// Reads the arguments, the program's name not among them, and the environment.
///
/// # Errors
///
/// The first bad argument or, when there is none, the first bad variable.
pub(crate) fn parse(
    arguments: impl Iterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, OptionError> {
    let mut options = Options::default();
    let mut given: Vec<&'static str> = Vec::new();
    let mut parser = Parser::from_args(arguments);

    while let Some(argument) = parser.next()? {
        let knob = match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(help())),
            Arg::Short('V') | Arg::Long("version") => return Ok(Command::Version(version())),
            Arg::Long(flag) => find(flag)
                .ok_or_else(|| OptionError::not_an_option(&format!("--{flag}"), closest(flag)))?,
            Arg::Short(letter) => {
                return Err(OptionError::not_an_option(&format!("-{letter}"), None));
            }
            // It is a command only where it comes first.
            Arg::Value(word) if word == "probe" && given.is_empty() => {
                return probe::parse(parser, environment);
            }
            Arg::Value(word) => {
                let word = word.to_string_lossy();
                return Err(OptionError::not_an_option(without_secret(&word), None));
            }
        };
        let name = format!("--{}", knob.flag);
        let value = match knob.field {
            Field::Switch(_) => parser.optional_value().unwrap_or_else(|| "true".into()),
            _ => parser.value().map_err(|_| {
                OptionError(format!(
                    "{name}: expected {}, found nothing",
                    knob.field.expected()
                ))
            })?,
        };
        if !given.contains(&knob.flag) {
            given.push(knob.flag);
            knob.field.clear(&mut options);
        }
        set(&mut options, knob, &name, &value.to_string_lossy())?;
    }

    for knob in KNOBS.iter().filter(|knob| !given.contains(&knob.flag)) {
        let Some(value) = environment(knob.environment) else {
            continue;
        };
        let value = value.to_string_lossy();
        knob.field.clear(&mut options);
        match knob.field {
            Field::Addresses(_) | Field::Names(_) => value
                .split(',')
                .try_for_each(|part| set(&mut options, knob, knob.environment, part.trim()))?,
            Field::Checks(_) => checks::split_list(&value)
                .iter()
                .try_for_each(|check| set(&mut options, knob, knob.environment, check))?,
            _ => set(&mut options, knob, knob.environment, &value)?,
        }
    }
    Ok(Command::Serve(options))
}

fn find(flag: &str) -> Option<&'static Knob> {
    KNOBS.iter().find(|knob| knob.flag == flag)
}

/// Sets one option and checks it; `name` is what an error calls it.
fn set(options: &mut Options, knob: &Knob, name: &str, text: &str) -> Result<(), OptionError> {
    knob.field
        .set(options, text)
        .ok_or_else(|| knob.field.complain(name, text))?;
    // The options were valid before this one was set, so what is wrong now is its value.
    options.config.validate().map_err(|error| match knob.field {
        // Its text may hold a password.
        Field::Checks(_) => OptionError(format!(
            "{name}: expected {}, found {}",
            error.expected, error.found
        )),
        _ => OptionError::bad_value(name, &error.expected, text),
    })
}

impl Field {
    /// Reads `text` into the field, or adds it to a list; `None` when it cannot be read.
    fn set(&self, options: &mut Options, text: &str) -> Option<()> {
        match self {
            Field::Addresses(list) | Field::Names(list) => list(options).push(text.to_owned()),
            Field::Address(field) => *field(options) = Some(text.to_owned()),
            Field::Checks(list) => list(options).push(checks::parse(text).ok()?),
            Field::Details(field) => *field(options) = text.parse().ok()?,
            Field::Count(field) => *field(options) = parse_count(text)?,
            Field::Age(field) => {
                *field(options) = u32::try_from(parse_count(text)?).unwrap_or(u32::MAX);
            }
            Field::Size(field) => *field(options) = parse_size(text)?,
            Field::Duration(field) => *field(options) = parse_duration(text)?,
            Field::Gate(field) => *field(options) = text.parse().ok()?,
            Field::Level(field) => *field(options) = text.parse().ok()?,
            Field::Switch(field) => *field(options) = parse_switch(text)?,
        }
        Some(())
    }

    /// What is wrong with a text that cannot be read.
    fn complain(&self, name: &str, text: &str) -> OptionError {
        match self {
            Field::Checks(_) => {
                let error = checks::parse(text).err().unwrap_or_default();
                OptionError(format!("{name}: {error}"))
            }
            _ => OptionError::bad_value(name, self.expected(), text),
        }
    }

    /// Empties a list, so that what is given replaces the default.
    fn clear(&self, options: &mut Options) {
        match self {
            Field::Addresses(list) | Field::Names(list) => list(options).clear(),
            Field::Checks(list) => list(options).clear(),
            _ => {}
        }
    }

    /// The value as it would be written on the command line.
    fn show(&self, options: &mut Options) -> String {
        match self {
            Field::Addresses(list) | Field::Names(list) => list(options).join(","),
            Field::Address(field) => field(options).clone().unwrap_or_default(),
            Field::Checks(list) => {
                let shown: Vec<_> = list(options).iter().map(checks::show).collect();
                shown.join(",")
            }
            Field::Details(field) => field(options).to_string(),
            Field::Count(field) => field(options).to_string(),
            Field::Age(field) => field(options).to_string(),
            Field::Size(field) => show_size(*field(options)),
            Field::Duration(field) => match *field(options) {
                Duration::ZERO => "0".to_owned(),
                duration => format!("{duration:?}"),
            },
            Field::Gate(field) => field(options).to_string(),
            Field::Level(field) => field(options).to_string().to_ascii_lowercase(),
            Field::Switch(field) => field(options).to_string(),
        }
    }

    /// What stands for the value in the help, with what sets it off from the flag.
    fn placeholder(&self) -> &'static str {
        match self {
            Field::Addresses(_) | Field::Address(_) => " ADDR",
            Field::Checks(_) => " NAME=URL",
            Field::Details(_) => " WHO",
            Field::Names(_) => " NAME",
            Field::Count(_) | Field::Age(_) => " N",
            Field::Size(_) => " SIZE",
            Field::Duration(_) => " DUR",
            Field::Gate(_) => " MODE",
            Field::Level(_) => " L",
            Field::Switch(_) => "[=BOOL]",
        }
    }

    /// What an error says was expected of a value that cannot be read.
    fn expected(&self) -> &'static str {
        match self {
            Field::Addresses(_) | Field::Address(_) => {
                "HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080"
            }
            Field::Checks(_) => checks::EXPECTED,
            Field::Details(_) => "local, always or never",
            Field::Names(_) => "the name of a host, such as status.example",
            Field::Count(_) | Field::Age(_) => "a whole number",
            Field::Size(_) => "a size, such as 16KiB, 1MiB or 4096",
            Field::Duration(_) => "a duration, such as 250ms, 1.5s or 2m",
            Field::Gate(_) => "guarded, literal or off",
            Field::Level(_) => "off, error, warn, info, debug or trace",
            Field::Switch(_) => "true, false, 1 or 0",
        }
    }
}

/// Digits only. A number too large for the type becomes its maximum, for the bounds to refuse.
fn parse_count(text: &str) -> Option<usize> {
    let all_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().unwrap_or(usize::MAX))
}

/// The units of sizes and their bytes, the largest first.
const SIZE_UNITS: [(&str, usize); 4] = [
    ("GiB", 1024 * 1024 * 1024),
    ("MiB", 1024 * 1024),
    ("KiB", 1024),
    ("B", 1),
];

/// A whole number of bytes, or of the unit that follows it.
fn parse_size(text: &str) -> Option<usize> {
    let (number, bytes) = SIZE_UNITS
        .iter()
        .find_map(|&(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)))
        .unwrap_or((text, 1));
    Some(parse_count(number)?.saturating_mul(bytes))
}

fn show_size(size: usize) -> String {
    SIZE_UNITS
        .iter()
        .find(|(_, bytes)| *bytes > 1 && size >= *bytes && size.is_multiple_of(*bytes))
        .map_or_else(
            || size.to_string(),
            |(unit, bytes)| format!("{}{unit}", size / bytes),
        )
}

/// The units of durations and their nanoseconds. A unit comes before those that end like it.
const DURATION_UNITS: [(&str, u128); 5] = [
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
];

/// A number and its unit, with decimals if need be, or a bare 0. What is finer than a nanosecond
/// is cut off; what is too long for the type becomes its maximum.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (number, unit) = DURATION_UNITS
        .iter()
        .find_map(|&(unit, nanoseconds)| Some((text.strip_suffix(unit)?, nanoseconds)))?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    parse_count(decimals)?;

    let mut nanoseconds = unit.saturating_mul(parse_count(whole)? as u128);
    let mut place = unit;
    for digit in decimals.bytes() {
        place /= 10;
        nanoseconds = nanoseconds.saturating_add(place * u128::from(digit - b'0'));
    }
    let seconds = u64::try_from(nanoseconds / 1_000_000_000);
    let below_second = u32::try_from(nanoseconds % 1_000_000_000).unwrap_or(0);
    Some(seconds.map_or(Duration::MAX, |seconds| {
        Duration::new(seconds, below_second)
    }))
}

fn parse_switch(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// What an error shows of a word that belongs to no option: it may be a URL with a password.
fn without_secret(word: &str) -> &str {
    if word.contains('@') { "..." } else { word }
}

/// The option that differs least from `flag`, if it is by no more than two letters.
fn closest(flag: &str) -> Option<&'static Knob> {
    KNOBS
        .iter()
        .map(|knob| (edits(flag.as_bytes(), knob.flag.as_bytes()), knob))
        .min_by_key(|(edits, _)| *edits)
        .filter(|(edits, _)| *edits <= 2)
        .map(|(_, knob)| knob)
}

/// The Levenshtein distance: how many bytes to insert, delete or replace to get from one to the other.
fn edits(from: &[u8], to: &[u8]) -> usize {
    // `row[n]` is the distance from what has been read of `from` to the first `n` bytes of `to`.
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (read, byte) in from.iter().enumerate() {
        let mut diagonal = 0;
        let mut left = read + 1;
        for (column, cell) in row.iter_mut().enumerate() {
            if let Some(other) = column.checked_sub(1).and_then(|index| to.get(index)) {
                left = (diagonal + usize::from(byte != other))
                    .min(left + 1)
                    .min(*cell + 1);
            }
            diagonal = std::mem::replace(cell, left);
        }
    }
    row.last().copied().unwrap_or(0)
}

fn version() -> String {
    concat!("plimsoll ", env!("CARGO_PKG_VERSION"), "\n").to_owned()
}

fn help() -> String {
    /// Where the second column starts.
    const COLUMN: usize = 25;

    let mut defaults = Options::default();
    let mut text = String::from(
        "A small HTTP server that measures itself, refuses what it cannot carry and recovers.\n\n\
         Usage: plimsoll [OPTIONS]\n       plimsoll probe [OPTIONS] [URL]   (see plimsoll probe --help)\n\n\
         Options:\n",
    );
    let mut row = |flag: &str, help: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {flag:<0$}{help}", COLUMN - 2);
    };
    for knob in KNOBS {
        let default = knob
            .computed_default
            .map_or_else(|| knob.field.show(&mut defaults), str::to_owned);
        row(
            &format!("--{}{}", knob.flag, knob.field.placeholder()),
            knob.help,
        );
        row("", &format!("[{}, default {default}]", knob.environment));
    }
    row("-h, --help", "print this and exit");
    row("-V, --version", "print the version and exit");
    text.push_str(
        "\nA flag beats the environment; PLIMSOLL_LISTEN, PLIMSOLL_DETAILS_HOST and PLIMSOLL_CHECKS may be\n\
         comma-separated lists. Behind the URL of a store may stand ,critical ,interval=10s ,timeout=2s\n\
         ,fall=3 and ,rise=2 (the defaults, but that no store is critical). A comma in a URL is written\n\
         %2C.\n\
         DUR is 250ms, 1.5s, 2m, 1h, 500us or 0; SIZE is 16KiB, 1MiB, 1GiB or 4096.\n",
    );
    text
}

#[cfg(test)]
mod tests;
