//! When the text of a file that somebody may be writing is good to be read.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::source::MOST_FILE;

/// What became of a file's text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is the same as before.
    Same,
    /// It is another one, which may still be written: it has to be looked at again.
    Changing,
    /// It is another one that was found twice; or the first.
    Settled,
}

/// A file that is looked at again and again.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// What counts.
    text: Option<Vec<u8>>,
    /// What was found last, if that is another text.
    changed: Option<Vec<u8>>,
}

impl Watch {
    /// Takes what the file holds now.
    pub(super) fn see(&mut self, found: Vec<u8>) -> Seen {
        if self.text.as_ref() == Some(&found) {
            self.changed = None;
            return Seen::Same;
        }
        // Whoever writes has written nothing for a while when the text is found twice.
        if self.text.is_some() && self.changed.as_ref() != Some(&found) {
            self.changed = Some(found);
            return Seen::Changing;
        }
        self.changed = None;
        self.text = Some(found);
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
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for whoever writes to it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = Vec::new();
    fs::File::open(path)?
        .take(MOST_FILE + 1)
        .read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_counts_once_it_was_found_twice_but_the_first_at_once() {
        let mut watch = Watch::default();
        assert_eq!(watch.see(b"http://a\n".to_vec()), Seen::Settled);
        assert_eq!(watch.see(b"http://a\n".to_vec()), Seen::Same);
        for half in ["http://b", "http://b:8", "http://b:80"] {
            assert_eq!(watch.see(half.into()), Seen::Changing);
            assert_eq!(watch.text(), b"http://a\n");
        }
        assert_eq!(watch.see(b"http://b:80".to_vec()), Seen::Settled);
        assert_eq!(watch.text(), b"http://b:80");
    }

    #[test]
    fn a_change_that_is_taken_back_is_none() {
        let mut watch = Watch::default();
        watch.see(b"a".to_vec());
        assert_eq!(watch.see(b"".to_vec()), Seen::Changing);
        assert_eq!(watch.see(b"a".to_vec()), Seen::Same);
        assert_eq!(watch.see(b"".to_vec()), Seen::Changing);
    }

    #[test]
    fn what_is_not_a_file_is_not_opened() {
        assert!(read(Path::new("/dev/null")).is_err());
        assert!(read(Path::new("/nonexistent")).is_err());
    }
}
