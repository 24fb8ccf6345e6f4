//! What can be done with dead letters, by the process that has the queue open and by others.

use std::fs;
use std::io;
use std::path::Path;

use super::control::Client;
use super::error::{EventError, EventOpenError};
use super::event::{DeadLetter, EventId};
use super::files;
use super::queue::EventQueue;
use super::settings::{self, EventSettings};
#[cfg(feature = "redis")]
use super::stream::Store;

/// The dead letters of a directory, whichever process has its queue open.
///
/// If one has, it is asked by a Unix socket in the directory, `control`, to which only the owner may connect. If none
/// has, the files are read and written. `plimsoll events` is this on the command line.
///
/// ```
/// use plimsoll::patterns::{DeadLetters, Event, EventQueue, EventSettings, Outcome};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = std::env::temp_dir().join(format!("plimsoll-doc-letters-{}", std::process::id()));
/// let queue = EventQueue::open(&directory, EventSettings::default())?;
/// queue.deliver(|_| Outcome::Rejected { reason: "no such customer".to_owned() })?;
/// let id = queue.publish(&Event { topic: "/orders".to_owned(), ..Event::default() })?;
/// # while queue.stats().dead_letters == 0 { std::thread::yield_now(); }
///
/// // Another process, while this one runs.
/// let letters = DeadLetters::of(&directory)?;
/// assert_eq!(letters.ids()?, [id]);
/// assert_eq!(letters.get(id)?.reason, "no such customer");
/// letters.purge(id)?;
/// assert_eq!(letters.ids()?, []);
/// # drop(queue);
/// # std::fs::remove_dir_all(directory)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DeadLetters(Way);

#[derive(Debug)]
enum Way {
    /// Nobody else has it open.
    Queue(Box<EventQueue>),
    /// Another process has.
    Control(Client),
    /// A stream of redis.
    #[cfg(feature = "redis")]
    Stream(Box<Store>),
}

impl DeadLetters {
    /// Those of the queue in this directory or, with the feature `redis`, of the stream that a URL in its place names.
    ///
    /// # Errors
    ///
    /// When there is no queue, it is of another version, or it cannot be read.
    pub fn of(path: impl AsRef<Path>) -> Result<Self, EventOpenError> {
        let path = path.as_ref();
        if let Some(url) = path.to_str().filter(|text| is_url(text)) {
            return Self::of_stream(url);
        }
        if !path.join(files::LOCK).try_exists()? {
            return Err(EventOpenError::Missing(path.to_owned()));
        }
        match EventQueue::open(path, fitting(path)?) {
            Ok(queue) => Ok(Self(Way::Queue(Box::new(queue)))),
            Err(EventOpenError::Locked(_)) => Ok(Self(Way::Control(Client::new(path)))),
            Err(error) => Err(error),
        }
    }

    #[cfg(feature = "redis")]
    fn of_stream(url: &str) -> Result<Self, EventOpenError> {
        let url = url.parse()?;
        let store = Store::new(&url, EventSettings::default().patience)?;
        if store.exists().map_err(io::Error::other)? {
            Ok(Self(Way::Stream(Box::new(store))))
        } else {
            Err(EventOpenError::Missing(url.to_string().into()))
        }
    }

    #[cfg(not(feature = "redis"))]
    fn of_stream(_: &str) -> Result<Self, EventOpenError> {
        let expected = "expected a directory, as the feature redis is not built in";
        Err(EventOpenError::Setting(expected.to_owned()))
    }

    /// What they are called, the oldest first.
    ///
    /// # Errors
    ///
    /// When the process that has the queue open does not answer.
    pub fn ids(&self) -> Result<Vec<EventId>, EventError> {
        match &self.0 {
            Way::Queue(queue) => Ok(queue.shared().ids()),
            Way::Control(client) => client.ids(),
            #[cfg(feature = "redis")]
            Way::Stream(store) => store.letters(),
        }
    }

    /// One of them.
    ///
    /// # Errors
    ///
    /// When there is none with this id, it cannot be read, or the process that has the queue open does not answer.
    pub fn get(&self, id: EventId) -> Result<DeadLetter, EventError> {
        match &self.0 {
            Way::Queue(queue) => queue.dead_letter(id),
            Way::Control(client) => client.letter(id),
            #[cfg(feature = "redis")]
            Way::Stream(store) => store.letter(id),
        }
    }

    /// Queues one again, as [`EventQueue::replay`] does. While nobody has the queue open it waits for the next start,
    /// and may then take more than that start's limit.
    ///
    /// # Errors
    ///
    /// Those of [`EventQueue::replay`], or the process that has the queue open does not answer.
    pub fn replay(&self, id: EventId) -> Result<(), EventError> {
        match &self.0 {
            Way::Queue(queue) => queue.replay(id),
            Way::Control(client) => client.replay(id),
            #[cfg(feature = "redis")]
            Way::Stream(store) => store.replay(id),
        }
    }

    /// Forgets one for good, as [`EventQueue::purge`] does.
    ///
    /// # Errors
    ///
    /// Those of [`EventQueue::purge`], or the process that has the queue open does not answer.
    pub fn purge(&self, id: EventId) -> Result<(), EventError> {
        match &self.0 {
            Way::Queue(queue) => queue.purge(id),
            Way::Control(client) => client.purge(id),
            #[cfg(feature = "redis")]
            Way::Stream(store) => store.purge(id),
        }
    }
}

/// Whether this is no directory but the URL of a redis, so that it may hold a password.
pub(crate) fn is_url(place: &str) -> bool {
    place.starts_with("redis://") || place.starts_with("rediss://")
}

/// Settings with which all that is there can be read, and replayed: those of the process that wrote it are not known.
fn fitting(path: &Path) -> Result<EventSettings, EventOpenError> {
    let mut settings = EventSettings::default();
    let (mut largest, mut total) = (0, 0);
    for entry in fs::read_dir(path)? {
        let length = match entry?.metadata() {
            Ok(metadata) => metadata.len(),
            // The process that has the queue open has renamed or removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        largest = length.max(largest);
        total += length;
    }
    // No event is larger than a segment, and one may be an eighth of the limit, less what its record has beside it.
    settings.max_event = settings
        .max_event
        .max(usize::try_from(largest).unwrap_or(usize::MAX));
    let least = 9 * settings.max_event as u64;
    settings.max_bytes = settings.max_bytes.max(2 * total).max(least);
    settings.max_bytes = settings.max_bytes.min(settings::MOST_BYTES);
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::{process, thread};

    use super::*;

    #[test]
    fn files_that_come_and_go_meanwhile_are_no_error() {
        let directory = std::env::temp_dir().join(format!("plimsoll-letters-{}", process::id()));
        fs::create_dir_all(&directory).unwrap();
        let names = ["old", "new"].map(|name| directory.join(name));
        fs::write(&names[0], "event").unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fs::rename(&names[0], &names[1]).unwrap();
                    fs::rename(&names[1], &names[0]).unwrap();
                }
            });
            let all: Vec<_> = (0..2000).map(|_| fitting(&directory)).collect();
            done.store(true, Ordering::Relaxed);
            for settings in all {
                settings.unwrap();
            }
        });
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_url_is_never_taken_for_a_directory_and_no_error_shows_its_password() {
        // Of which the first can be read, and nobody listens there.
        for url in [
            "redis://:hunter2@127.0.0.1:1/s",
            "redis://:hunter2@h",
            "rediss://:hunter2@h/s",
        ] {
            let error = DeadLetters::of(url).expect_err(url);
            assert!(!matches!(error, EventOpenError::Missing(_)), "{error:?}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
