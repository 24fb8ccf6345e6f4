//! When the text of a file that somebody may be writing is good to be read.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use super::source::MOST_FILE;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) text: Vec<u8>,
    /// When it was written to last. It may have been another text since it was this one the last time.
    pub(super) modified: Option<SystemTime>,
}

/// What became of a file's text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is the same as before.
    Same,
    /// It is another one, which may still be written: it has to be looked at again.
    Changing,
    /// It is another one that was found twice, and not written to in between; or the first.
    Settled,
}

/// A file that is looked at again and again.
#[derive(Debug, Default)]
pub(super) struct FileState {
    /// What counts.
    text: Option<Vec<u8>>,
    /// What was found last, if that is another text.
    changed: Option<Found>,
}

impl FileState {
    /// Takes what the file holds now.
    pub(super) fn see(&mut self, found: Found) -> Seen {
        if self.text.as_ref() == Some(&found.text) {
            self.changed = None;
            return Seen::Same;
        }
        // Whoever writes has written nothing for a while when the text is found twice.
        if self.text.is_some() && self.changed.as_ref() != Some(&found) {
            self.changed = Some(found);
            return Seen::Changing;
        }
        self.changed = None;
        self.text = Some(found.text);
        Seen::Settled
    }

    /// Whether another text was found that does not count yet.
    pub(super) fn is_changing(&self) -> bool {
        self.changed.is_some()
    }

    /// The text that counts.
    pub(super) fn text(&self) -> &[u8] {
        self.text.as_deref().unwrap_or_default()
    }
}

/// Reads a file, at most a byte more than may be.
pub(super) fn read(path: &Path) -> io::Result<Found> {
    // Opening a pipe would wait for whoever writes to it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let file = fs::File::open(path)?;
    let mut text = Vec::new();
    (&file).take(MOST_FILE + 1).read_to_end(&mut text)?;
    // Not every file system knows.
    let modified = file.metadata()?.modified().ok();
    Ok(Found { text, modified })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A text that was written so many seconds after the first.
    fn found(text: &str, seconds: u64) -> Found {
        Found {
            text: text.into(),
            modified: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
        }
    }

    #[test]
    fn a_text_counts_once_it_was_found_twice_but_the_first_at_once() {
        let mut watch = FileState::default();
        assert_eq!(watch.see(found("http://a\n", 0)), Seen::Settled);
        assert_eq!(watch.see(found("http://a\n", 0)), Seen::Same);
        for half in ["http://b", "http://b:8", "http://b:80"] {
            assert_eq!(watch.see(found(half, 1)), Seen::Changing);
            assert_eq!(watch.text(), b"http://a\n");
        }
        assert_eq!(watch.see(found("http://b:80", 1)), Seen::Settled);
        assert_eq!(watch.text(), b"http://b:80");
    }

    #[test]
    fn a_change_that_is_taken_back_is_none() {
        let mut watch = FileState::default();
        watch.see(found("a", 0));
        assert_eq!(watch.see(found("", 1)), Seen::Changing);
        assert_eq!(watch.see(found("a", 1)), Seen::Same);
        assert_eq!(watch.see(found("", 1)), Seen::Changing);
    }

    /// A file that was written all the time was looked at when it was half-written twice.
    #[test]
    fn a_text_that_was_written_anew_in_between_has_not_been_found_twice() {
        let mut watch = FileState::default();
        watch.see(found("http://a\n", 0));
        for second in 1..9 {
            assert_eq!(watch.see(found("http://b:8", second)), Seen::Changing);
        }
        assert_eq!(watch.see(found("http://b:8", 8)), Seen::Settled);
    }

    #[test]
    fn what_is_not_a_file_is_not_opened() {
        assert!(read(Path::new("/dev/null")).is_err());
        assert!(read(Path::new("/nonexistent")).is_err());
    }
}
