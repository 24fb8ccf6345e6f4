//! The command line and the environment: the table of [settings] drives the reading of both and the text of `--help`, so
//! they cannot drift apart.
//!
//! A flag beats the environment: the variable of an option that is on the command line is not read.
//! Every error is one line that names the option or the variable, what it expected and what it
//! found.

#[cfg(feature = "events")]
mod events;
mod probe;

use std::ffi::OsString;
use std::fmt::{self, Write};
use std::time::Duration;

use lexopt::{Arg, Parser};
use log::LevelFilter;
use plimsoll::Config;
use plimsoll::proxy::{self, ProxyConfig};
use plimsoll::settings::{self, At, Complaint, Span, Word};

#[cfg(feature = "events")]
pub(crate) use events::{Action, EventsOptions, Letters};
pub(crate) use probe::ProbeOptions;

/// Threads that run the handler when it forwards: each waits for the service's answer. One that is idle takes some 12 KiB.
const PROXY_WORKERS: usize = 64;

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
    /// Look at dead letters.
    #[cfg(feature = "events")]
    Events(EventsOptions),
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
    /// How requests are forwarded; not at all while there is no upstream.
    pub proxy: ProxyConfig,
    /// How long each request on `/` takes, for demonstrations. Default 0; any duration.
    pub work: Duration,
    /// The most talkative level that is logged. Default `info`.
    pub log_level: LevelFilter,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config: Config::default(),
            proxy: ProxyConfig::default(),
            work: Duration::ZERO,
            log_level: LevelFilter::Info,
        }
    }
}

impl AsRef<Config> for Options {
    fn as_ref(&self) -> &Config {
        &self.config
    }
}

impl AsMut<Config> for Options {
    fn as_mut(&mut self) -> &mut Config {
        &mut self.config
    }
}

impl AsRef<ProxyConfig> for Options {
    fn as_ref(&self) -> &ProxyConfig {
        &self.proxy
    }
}

impl AsMut<ProxyConfig> for Options {
    fn as_mut(&mut self) -> &mut ProxyConfig {
        &mut self.proxy
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

    /// What is wrong with the text of an option. It is shown, quoted, unless the complaint shows something else.
    fn of(name: &str, complaint: Complaint, text: &str) -> Self {
        let about = complaint.about.map(|about| format!(" {about}"));
        let found = complaint.found.unwrap_or_else(|| format!("{text:?}"));
        Self(format!(
            "{name}{}: expected {}, found {found}",
            about.unwrap_or_default(),
            complaint.expected,
        ))
    }

    fn not_an_option(found: &str, suggestion: Option<&str>) -> Self {
        let hint = suggestion.map_or_else(String::new, |flag| format!(" (perhaps --{flag})"));
        Self(format!(
            "expected an option that --help lists{hint}, found {found:?}"
        ))
    }
}

type Setting = settings::Setting<Options>;

/// Every option but `--help` and `--version`, in the order of the help: the settings of the server, and those that the
/// binary has beside them.
fn table() -> Vec<Setting> {
    let mut table = settings::table();
    table.extend(proxy::table());
    table.push(Setting {
        flag: "work",
        variable: "PLIMSOLL_WORK",
        default: None,
        help: "demonstration: each request on / takes this long",
        field: Box::new(At {
            kind: Span::FromZero,
            get: |options: &Options| &options.work,
            get_mut: |options: &mut Options| &mut options.work,
        }),
    });
    table.push(Setting {
        flag: "log-level",
        variable: "PLIMSOLL_LOG",
        default: None,
        help: "off, error, warn, info, debug or trace",
        field: Box::new(At {
            kind: Word::new("L", "off, error, warn, info, debug or trace"),
            get: |options: &Options| &options.log_level,
            get_mut: |options: &mut Options| &mut options.log_level,
        }),
    });
    table
}

/// Reads the arguments, the program's name not among them, and the environment.
///
/// # Errors
///
/// The first bad argument or, when there is none, the first bad variable.
pub(crate) fn parse(
    arguments: impl Iterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, OptionError> {
    let table = table();
    let mut options = Options::default();
    let mut given: Vec<&'static str> = Vec::new();
    let mut parser = Parser::from_args(arguments);

    while let Some(argument) = parser.next()? {
        let setting = match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(help())),
            Arg::Short('V') | Arg::Long("version") => return Ok(Command::Version(version())),
            Arg::Long(flag) => find(&table, flag)?,
            Arg::Short(letter) => {
                return Err(OptionError::not_an_option(&format!("-{letter}"), None));
            }
            // It is a command only where it comes first.
            Arg::Value(word) if word == "probe" && given.is_empty() => {
                return probe::parse(parser, environment);
            }
            #[cfg(feature = "events")]
            Arg::Value(word) if word == "events" && given.is_empty() => {
                return events::parse(parser);
            }
            Arg::Value(word) => {
                let word = word.to_string_lossy();
                return Err(OptionError::not_an_option(without_secret(&word), None));
            }
        };
        let name = format!("--{}", setting.flag);
        let value = match setting.field.implied() {
            Some(implied) => parser.optional_value().unwrap_or_else(|| implied.into()),
            None => parser.value().map_err(|_| {
                let expected = setting.field.expected();
                OptionError(format!("{name}: expected {expected}, found nothing"))
            })?,
        };
        if !given.contains(&setting.flag) {
            given.push(setting.flag);
            setting.field.clear(&mut options);
        }
        set(&mut options, setting, &name, &value.to_string_lossy())?;
    }

    for setting in &table {
        if given.contains(&setting.flag) {
            continue;
        }
        let Some(value) = environment(setting.variable) else {
            continue;
        };
        given.push(setting.flag);
        let value = value.to_string_lossy();
        setting.field.clear(&mut options);
        let values = setting.field.split(&value);
        for value in values.unwrap_or_else(|| vec![value.into_owned()]) {
            set(&mut options, setting, setting.variable, &value)?;
        }
    }
    if !options.proxy.upstream.is_empty() {
        if !given.contains(&"workers") {
            options.config.workers = PROXY_WORKERS;
        }
        if !given.contains(&"threshold") {
            options.config.threshold = options.config.request_timeout / 2;
        }
    }
    // What is wrong with several of them together.
    let checked = options.config.validate();
    checked.map_err(|error| OptionError(format!("--{error}")))?;
    Ok(Command::Serve(options))
}

fn find<'a>(table: &'a [Setting], flag: &str) -> Result<&'a Setting, OptionError> {
    table
        .iter()
        .find(|setting| setting.flag == flag)
        .ok_or_else(|| OptionError::not_an_option(&format!("--{flag}"), closest(table, flag)))
}

/// Sets one option; `name` is what an error calls it.
fn set(
    options: &mut Options,
    setting: &Setting,
    name: &str,
    text: &str,
) -> Result<(), OptionError> {
    let set = setting.field.set(options, text);
    set.map_err(|complaint| OptionError::of(name, complaint, text))
}

/// What an error shows of a word that belongs to no option: it may be a URL with a password.
fn without_secret(word: &str) -> &str {
    if word.contains('@') { "..." } else { word }
}

/// The flag that differs least from `flag`, if it is by no more than two letters.
fn closest(table: &[Setting], flag: &str) -> Option<&'static str> {
    table
        .iter()
        .map(|setting| {
            (
                edits(flag.as_bytes(), setting.flag.as_bytes()),
                setting.flag,
            )
        })
        .min_by_key(|(edits, _)| *edits)
        .filter(|(edits, _)| *edits <= 2)
        .map(|(_, flag)| flag)
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

/// An option as it is written, with what stands for its value.
fn usage(setting: &Setting) -> String {
    let (flag, placeholder) = (setting.flag, setting.field.placeholder());
    match setting.field.implied() {
        Some(_) => format!("--{flag}[={placeholder}]"),
        None => format!("--{flag} {placeholder}"),
    }
}

/// What there is to say of how its variable holds the value.
fn manner(setting: &Setting) -> &'static str {
    setting.field.split("").map_or("", |_| ", comma-separated")
}

/// The default in words.
fn default(setting: &Setting, defaults: &Options) -> String {
    let shown = || match setting.field.show(defaults) {
        nothing if nothing.is_empty() => "none".to_owned(),
        shown => shown,
    };
    setting.default.map_or_else(shown, str::to_owned)
}

fn version() -> String {
    concat!("plimsoll ", env!("CARGO_PKG_VERSION"), "\n").to_owned()
}

fn help() -> String {
    /// Where the second column starts.
    const COLUMN: usize = 25;

    let mut text = String::from(
        "A small HTTP server that measures itself, refuses what it cannot carry and recovers.\n\n\
         Usage: plimsoll [OPTIONS]\n       plimsoll probe [OPTIONS] [URL]   (see plimsoll probe --help)\n       \
         plimsoll events ACTION DIR       (see plimsoll events --help)\n\n\
         Options:\n",
    );
    let mut row = |flag: &str, help: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {flag:<0$}{help}", COLUMN - 2);
    };
    let defaults = Options::default();
    for setting in table() {
        row(&usage(&setting), setting.help);
        let default = default(&setting, &defaults);
        let (variable, manner) = (setting.variable, manner(&setting));
        row("", &format!("[{variable}{manner}, default {default}]"));
    }
    row("-h, --help", "print this and exit");
    row("-V, --version", "print the version and exit");
    text.push_str(
        "\nA flag beats the environment. Behind the URL of a store may stand ,critical ,interval=10s\n\
         ,timeout=2s ,fall=3 and ,rise=2 (the defaults, but that no store is critical). A comma in a URL is\n\
         written %2C. Behind a RATE (100/s, 10/m, 5/h) may stand ,burst=N ,path=PREFIX ,name=NAME and ,by=ip\n\
         ,by=header:NAME or ,by=all.\n\
         BOOL is on or off; DUR is 250ms, 1.5s, 2m, 1h, 500us or 0; SIZE is 16KiB, 1MiB, 1GiB or 4096.\n",
    );
    text
}

#[cfg(test)]
mod tests;
