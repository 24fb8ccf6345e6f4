//! The command line and the environment: the table of [settings] drives the reading of both and the text of `--help`, so
//! they cannot drift apart.
//!
//! A flag beats the environment, and the environment a file of options: what a stronger source has given is not taken
//! from a weaker one. Every error is one line that names the option, the variable or the file's line, what it expected
//! and what it found.

#[cfg(feature = "events")]
mod events;
mod file;
mod help;
mod probe;
#[cfg(feature = "redis")]
mod redis;

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use lexopt::{Arg, Parser};
use log::LevelFilter;
use plimsoll::Config;
#[cfg(feature = "redis")]
use plimsoll::patterns::RedisUrl;
#[cfg(all(feature = "events", feature = "proxy"))]
use plimsoll::proxy::EventsConfig;
#[cfg(feature = "proxy")]
use plimsoll::proxy::{self, ProxyConfig};
use plimsoll::settings::{self, At, Complaint, Maybe, Span, Text, Word};

#[cfg(feature = "events")]
pub(crate) use events::{Action, EventsOptions, Letters};
pub(crate) use probe::ProbeOptions;

/// Workers when the handler forwards, and so requests that wait for the service at once. An idle thread takes some 12 KiB.
#[cfg(feature = "proxy")]
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
    /// Print this text: all options are good.
    Checked(String),
}

/// How the binary serves.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    /// The server's settings; always valid.
    pub config: Config,
    /// How requests are forwarded; not at all while there is no upstream.
    #[cfg(feature = "proxy")]
    pub proxy: ProxyConfig,
    /// Which requests are kept as events before they are forwarded.
    #[cfg(all(feature = "events", feature = "proxy"))]
    pub events: EventsConfig,
    /// Where replicas count throttled requests together. Default none.
    #[cfg(feature = "redis")]
    pub throttle_store: Option<RedisUrl>,
    /// How long each request on `/` takes, for demonstrations. Default 0; any duration.
    pub work: Duration,
    /// The most talkative level that is logged. Default `info`.
    pub log_level: LevelFilter,
    /// A file of more options. Default none.
    pub config_file: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config: Config::default(),
            #[cfg(feature = "proxy")]
            proxy: ProxyConfig::default(),
            #[cfg(all(feature = "events", feature = "proxy"))]
            events: EventsConfig::default(),
            #[cfg(feature = "redis")]
            throttle_store: None,
            work: Duration::ZERO,
            log_level: LevelFilter::Info,
            config_file: None,
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

#[cfg(feature = "proxy")]
impl AsRef<ProxyConfig> for Options {
    fn as_ref(&self) -> &ProxyConfig {
        &self.proxy
    }
}

#[cfg(feature = "proxy")]
impl AsMut<ProxyConfig> for Options {
    fn as_mut(&mut self) -> &mut ProxyConfig {
        &mut self.proxy
    }
}

#[cfg(all(feature = "events", feature = "proxy"))]
impl AsRef<EventsConfig> for Options {
    fn as_ref(&self) -> &EventsConfig {
        &self.events
    }
}

#[cfg(all(feature = "events", feature = "proxy"))]
impl AsMut<EventsConfig> for Options {
    fn as_mut(&mut self) -> &mut EventsConfig {
        &mut self.events
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
    let mut table = within(settings::table());
    #[cfg(feature = "proxy")]
    table.extend(within(proxy::table()));
    #[cfg(all(feature = "events", feature = "proxy"))]
    table.extend(within(proxy::events_table()));
    #[cfg(feature = "redis")]
    table.push(Setting {
        flag: "throttle-store",
        variable: "PLIMSOLL_THROTTLE_STORE",
        default: None,
        help: "a Redis where replicas count requests together (feature redis)",
        field: Box::new(At {
            kind: Maybe(redis::Redis),
            get: |options: &Options| &options.throttle_store,
            get_mut: |options: &mut Options| &mut options.throttle_store,
        }),
    });
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
    table.push(Setting {
        flag: CONFIG,
        variable: "PLIMSOLL_CONFIG",
        default: None,
        help: "a file of options, one a line: name, space, value",
        field: Box::new(At {
            kind: Maybe(FILE),
            get: |options: &Options| &options.config_file,
            get_mut: |options: &mut Options| &mut options.config_file,
        }),
    });
    table
}

/// The settings of a part of the options, as those of all.
fn within<P: 'static>(part: Vec<settings::Setting<P>>) -> Vec<Setting>
where
    Options: AsRef<P> + AsMut<P>,
{
    part.into_iter().map(settings::Setting::within).collect()
}

/// The option that no file of options may have.
const CONFIG: &str = "config";

const FILE: Text = Text {
    placeholder: "FILE",
    expected: "the path of a file",
    fits: |path| !path.is_empty(),
};

/// Reads the arguments, the program's name not among them, the environment, and the file that they name.
///
/// # Errors
///
/// The first bad argument; when there is none, the first bad variable; when there is none, the first bad line of the file.
pub(crate) fn parse(
    arguments: impl Iterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, OptionError> {
    let mut reader = OptionsReader::new();
    let mut parser = Parser::from_args(arguments);
    let mut only_checks = false;

    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(help::text())),
            Arg::Short('V') | Arg::Long("version") => return Ok(Command::Version(version())),
            Arg::Long("check-config") => only_checks = true,
            Arg::Long(flag) => {
                let index = reader.find(flag)?;
                reader.argument(index, &mut parser)?;
            }
            Arg::Short(letter) => {
                return Err(OptionError::not_an_option(&format!("-{letter}"), None));
            }
            // It is a command only where it comes first.
            Arg::Value(word) if word == "probe" && reader.given.is_empty() => {
                return probe::parse(parser, environment);
            }
            #[cfg(feature = "events")]
            Arg::Value(word) if word == "events" && reader.given.is_empty() => {
                return events::parse(parser);
            }
            Arg::Value(word) => {
                let word = word.to_string_lossy();
                return Err(OptionError::not_an_option(without_secret(&word), None));
            }
        }
    }
    reader.environment(environment)?;
    reader.file()?;
    let options = reader.finish()?;
    Ok(if only_checks {
        Command::Checked("all options are good\n".to_owned())
    } else {
        Command::Serve(options)
    })
}

/// What a server of this environment, without arguments, would be told.
///
/// # Errors
///
/// As [`parse`].
fn from_environment(
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Options, OptionError> {
    let mut reader = OptionsReader::new();
    reader.environment(environment)?;
    reader.file()?;
    reader.finish()
}

/// The options as they are read, the strongest source first.
struct OptionsReader {
    table: Vec<Setting>,
    options: Options,
    /// What has been given so far.
    given: Vec<&'static str>,
}

impl OptionsReader {
    fn new() -> Self {
        Self {
            table: table(),
            options: Options::default(),
            given: Vec::new(),
        }
    }

    /// The place in the table of the option with that name.
    fn find(&self, flag: &str) -> Result<usize, OptionError> {
        let found = self.table.iter().position(|setting| setting.flag == flag);
        found.ok_or_else(|| {
            OptionError::not_an_option(&format!("--{flag}"), closest(&self.table, flag))
        })
    }

    /// Reads the value of an option on the command line.
    fn argument(&mut self, index: usize, parser: &mut Parser) -> Result<(), OptionError> {
        let setting = &self.table[index];
        let name = format!("--{}", setting.flag);
        let value = match setting.field.implied() {
            Some(implied) => parser.optional_value().unwrap_or_else(|| implied.into()),
            None => parser.value().map_err(|_| nothing(&name, setting))?,
        };
        if !self.given.contains(&setting.flag) {
            self.given.push(setting.flag);
            setting.field.clear(&mut self.options);
        }
        set(&mut self.options, setting, &name, &value.to_string_lossy())
    }

    /// Reads the variables of what is not given yet.
    fn environment(
        &mut self,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(), OptionError> {
        for setting in &self.table {
            if self.given.contains(&setting.flag) {
                continue;
            }
            let Some(value) = environment(setting.variable) else {
                continue;
            };
            self.given.push(setting.flag);
            let value = value.to_string_lossy();
            setting.field.clear(&mut self.options);
            let values = setting.field.split(&value);
            for value in values.unwrap_or_else(|| vec![value.into_owned()]) {
                set(&mut self.options, setting, setting.variable, &value)?;
            }
        }
        Ok(())
    }

    /// Reads the file of options, if one is named. All of it is checked; what is given already is not taken from it.
    fn file(&mut self) -> Result<(), OptionError> {
        let Some(path) = self.options.config_file.clone() else {
            return Ok(());
        };
        let mut beaten = Options::default();
        let mut begun: Vec<&'static str> = Vec::new();
        for line in file::read(&path)? {
            let known = self.table.iter();
            let mut known = known.filter(|setting| setting.flag != CONFIG);
            let setting = known.find(|setting| setting.flag == line.name);
            let setting = setting.ok_or_else(|| {
                let name = without_secret(&line.name);
                let close = closest(&self.table, &line.name).filter(|flag| *flag != CONFIG);
                let hint = close.map(|flag| format!(" (perhaps {flag})"));
                OptionError(format!(
                    "{}: expected an option that --help lists{}, found {name:?}",
                    line.place,
                    hint.unwrap_or_default()
                ))
            })?;
            let name = format!("{}: {}", line.place, setting.flag);
            let implied = setting.field.implied();
            let value = line.value.as_deref().or(implied);
            let value = value.ok_or_else(|| nothing(&name, setting))?;
            let options = if self.given.contains(&setting.flag) {
                &mut beaten
            } else {
                &mut self.options
            };
            if !begun.contains(&setting.flag) {
                begun.push(setting.flag);
                setting.field.clear(options);
            }
            set(options, setting, &name, value)?;
        }
        self.given.extend(begun);
        Ok(())
    }

    /// The options, if they fit together.
    #[cfg_attr(not(feature = "proxy"), expect(unused_mut))]
    fn finish(mut self) -> Result<Options, OptionError> {
        #[cfg(feature = "proxy")]
        self.default_for_proxy();
        #[cfg(all(feature = "events", feature = "proxy"))]
        if self.options.events.events.is_some() && self.options.proxy.upstream.is_empty() {
            let missing = "--events: expected --upstream beside it, found none";
            return Err(OptionError(missing.to_owned()));
        }
        let checked = self.options.config.validate();
        checked.map_err(|error| OptionError(format!("--{error}")))?;
        Ok(self.options)
    }

    /// A handler that forwards has other defaults.
    #[cfg(feature = "proxy")]
    fn default_for_proxy(&mut self) {
        let (options, given) = (&mut self.options, &self.given);
        if options.proxy.upstream.is_empty() {
            return;
        }
        if !given.contains(&"workers") {
            options.config.workers = PROXY_WORKERS;
        }
        if !given.contains(&"max-connections") {
            // Most clients have a connection to the service at times, which takes a descriptor too.
            let most = &mut options.config.max_connections;
            *most = (*most / 8 * 5).max(1);
        }
        if !given.contains(&"threshold") {
            options.config.threshold = options.config.request_timeout / 2;
        }
    }
}

/// The error of an option without a value.
fn nothing(name: &str, setting: &Setting) -> OptionError {
    let expected = setting.field.expected();
    OptionError(format!("{name}: expected {expected}, found nothing"))
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

fn version() -> String {
    concat!("plimsoll ", env!("CARGO_PKG_VERSION"), "\n").to_owned()
}

#[cfg(test)]
mod tests;
