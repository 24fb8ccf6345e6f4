//! What can go wrong with a queue.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a queue could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum EventOpenError {
    /// Another process, or another queue of this one, has the directory open.
    Locked(PathBuf),
    /// There is no queue in this directory, and none was to be made.
    Missing(PathBuf),
    /// A file is of a format that this version does not know.
    Version {
        /// The file's name.
        file: String,
        /// The version that it bears.
        found: u32,
    },
    /// A setting is out of its bounds.
    Setting(String),
    /// The directory or a file in it cannot be read or written.
    Io(io::Error),
}

impl fmt::Display for EventOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(path) => write!(f, "{} is open elsewhere", path.display()),
            Self::Missing(path) => write!(f, "{} is no directory of events", path.display()),
            Self::Version { file, found } => write!(
                f,
                "{file}: expected format version {}, found {found}",
                super::record::VERSION
            ),
            Self::Setting(message) => f.write_str(message),
            Self::Io(source) => source.fmt(f),
        }
    }
}

impl std::error::Error for EventOpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(source) => Some(source),
            _ => None,
        }
    }
}

impl From<io::Error> for EventOpenError {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

/// Why an event was not accepted, or why what was asked of dead letters was not done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventError {
    /// There is no room for more: try again when some have been delivered.
    Full,
    /// The event is larger than the setting `max_event`.
    TooLarge {
        /// The most bytes that topic, key, attributes and body may have together.
        limit: usize,
    },
    /// The producer gave this idempotency key to another body before.
    KeyReused,
    /// The disk, or redis, failed: nothing is accepted before it works again.
    Io(Arc<io::Error>),
    /// The disk, or redis, did not answer in time. The event may have been kept or not.
    TimedOut,
    /// The queue is stopping.
    Stopped,
    /// No dead letter has this id.
    Unknown,
    /// The process that has the queue open did not answer, or could not do what was asked.
    Control(Arc<io::Error>),
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("no room for more events"),
            Self::TooLarge { limit } => {
                write!(f, "the event is larger than {limit} bytes (max_event)")
            }
            Self::KeyReused => f.write_str("this idempotency key was given to another body before"),
            Self::Io(source) => write!(f, "cannot keep events: {source}"),
            Self::TimedOut => f.write_str("no answer in time from where events are kept"),
            Self::Stopped => f.write_str("the queue is stopping"),
            Self::Unknown => f.write_str("no dead letter has this id"),
            Self::Control(source) => {
                write!(f, "the process that has the queue open: {source}")
            }
        }
    }
}

impl std::error::Error for EventError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(source) | Self::Control(source) => Some(&**source),
            _ => None,
        }
    }
}

impl From<io::Error> for EventError {
    fn from(source: io::Error) -> Self {
        Self::Io(Arc::new(source))
    }
}

/// A part of a file that could not be read. What else the file holds is not affected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventDamage {
    /// The file's name.
    pub file: String,
    /// Where the damage begins, in bytes.
    pub offset: u64,
    /// How many bytes it takes.
    pub length: u64,
    /// What it is.
    pub what: EventDamageKind,
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventDamageKind {
    /// The file's header; the file was given the ending `.damaged`.
    Header,
    /// The file is shorter than it was made.
    Truncated,
    /// The content of one record, whose head is whole.
    Record,
    /// Bytes between records.
    Bytes,
    /// Bytes behind the last record: damage, or a write that a crash cut short before it was acknowledged.
    End,
}

impl fmt::Display for EventDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            EventDamageKind::Header => "the header is damaged",
            EventDamageKind::Truncated => "the file is too short",
            EventDamageKind::Record => "a record is damaged",
            EventDamageKind::Bytes => "damage between records",
            EventDamageKind::End => "a write that was cut short, or damage",
        };
        write!(
            f,
            "{}: {what}: {} bytes at {}",
            self.file, self.length, self.offset
        )
    }
}
