//! Why a server could not be started or stopped.

use std::fmt;
use std::io;

use crate::settings::ConfigError;

/// Why a server could not be started, or did not stop as asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of its bounds.
    Config(ConfigError),
    /// An address could not be resolved or bound.
    Listen {
        /// The address as it was given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// No directory took the private socket: every one tried, with what it said.
    Intake(String),
    /// The system refused a thread, an event queue or the like.
    System {
        /// What was being set up.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The access log could not be opened.
    AccessLog {
        /// The file as it was given.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The queue of events could not be opened.
    #[cfg(feature = "events")]
    Events {
        /// Its directory, or its stream.
        place: String,
        /// Why.
        source: crate::patterns::EventOpenError,
    },
    /// The handlers of signals could not be installed, or the system gives no thread for them.
    Signals(io::Error),
    /// The event loop failed, so that nothing was served any more: why.
    EventLoop(String),
    /// The drain time was over before every request was answered; how many were cut.
    Cut(usize),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Listen { address, source } => write!(f, "cannot listen on {address}: {source}"),
            Self::Intake(tried) => write!(
                f,
                "no directory takes the private socket; set TMPDIR to one that can be written: {tried}"
            ),
            Self::AccessLog { path, source } => {
                write!(f, "cannot open the access log {path:?}: {source}")
            }
            Self::System { what, source } => write!(f, "cannot set up {what}: {source}"),
            #[cfg(feature = "events")]
            Self::Events { place, source } => {
                write!(f, "cannot keep events in {place}: {source}")
            }
            Self::Signals(source) => write!(f, "cannot watch for signals: {source}"),
            Self::EventLoop(why) => write!(f, "the event loop failed: {why}"),
            Self::Cut(requests) => write!(
                f,
                "the drain time was over before {requests} request(s) were answered"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(source) => Some(source),
            Self::Listen { source, .. }
            | Self::AccessLog { source, .. }
            | Self::System { source, .. }
            | Self::Signals(source) => Some(source),
            #[cfg(feature = "events")]
            Self::Events { source, .. } => Some(source),
            Self::Intake(_) | Self::EventLoop(_) | Self::Cut(_) => None,
        }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}
