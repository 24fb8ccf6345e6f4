//! Files, directories and SQLite databases: readable, and on demand writable and with space left.
//!
//! The system's calls take no deadline: on a network file system that does not answer they hang, and the check's thread
//! with them. Nothing else waits for it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::checks::CheckError;
use crate::net::url::{Scheme, StoreUrlError, UrlPart, decode_bytes};
use crate::units::parse_size;

/// How a database file begins: <https://www.sqlite.org/fileformat.html>, section 1.3.
const SQLITE: &[u8; 16] = b"SQLite format 3\0";

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Files {
    path: PathBuf,
    kind: Kind,
    writable: bool,
    /// Bytes that must be free.
    free: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file or a directory.
    Any,
    Sqlite,
}

impl Files {
    pub(super) fn new(scheme: &Scheme<'_>, kind: Kind) -> Result<Self, StoreUrlError> {
        let refuse =
            |part, expected: &str, found: &str| Err(StoreUrlError::new(part, expected, found));
        let (path, options) = match scheme.rest.split_once('?') {
            Some((path, options)) => (path, Some(options)),
            None => (scheme.rest, None),
        };
        if path.contains('#') || options.is_some_and(|options| options.contains('#')) {
            return refuse(UrlPart::Path, "# percent-encoded", "one that is not");
        }
        let path = match path.strip_prefix("//") {
            // Programs disagree about whether the path behind the slashes is absolute.
            Some(_) if kind == Kind::Sqlite => {
                let expected = "sqlite:/absolute/path or sqlite:relative/path";
                return refuse(UrlPart::Path, expected, "two slashes after the colon");
            }
            Some(absolute) if absolute.starts_with('/') => absolute,
            Some(_) => return refuse(UrlPart::Host, "none: file:///path or file:path", "one"),
            None => path,
        };
        if path.is_empty() {
            return refuse(UrlPart::Path, "the path of a file or directory", "none");
        }
        let mut files = Self {
            path: PathBuf::from(OsString::from_vec(decode_bytes(UrlPart::Path, path)?)),
            kind,
            writable: false,
            free: None,
        };
        for option in options.into_iter().flat_map(|options| options.split('&')) {
            files.set(option)?;
        }
        Ok(files)
    }

    fn set(&mut self, option: &str) -> Result<(), StoreUrlError> {
        let refuse = |expected: &str| {
            Err(StoreUrlError::new(
                UrlPart::Option,
                expected,
                format!("{option:?}"),
            ))
        };
        match option.split_once('=') {
            None if option == "writable" && !self.writable => self.writable = true,
            Some(("free", size)) if self.free.is_none() => match parse_size(size) {
                Some(size) => self.free = Some(size),
                None => return refuse("a size after free=, such as 100MiB, 1GiB or 4096"),
            },
            _ => return refuse("writable and free=SIZE, each at most once"),
        }
        Ok(())
    }

    pub(super) fn check(&self, deadline: Instant) -> Result<(), CheckError> {
        let path = &self.path;
        let kind = fs::metadata(path)
            .map_err(|error| failed("read", path, &error))?
            .file_type();
        if kind.is_dir() && self.kind == Kind::Any {
            self.check_directory()?;
        } else if kind.is_file() {
            self.check_file()?;
        } else {
            // To open a pipe would be to wait for its other end.
            let expected = match self.kind {
                Kind::Any => "a file or a directory",
                Kind::Sqlite => "a file",
            };
            return Err(self.failure(&format!("expected {expected}, found something else")));
        }
        self.check_free()?;
        if Instant::now() >= deadline {
            return Err(self.failure("no answer in time"));
        }
        Ok(())
    }

    fn failure(&self, what: &str) -> CheckError {
        CheckError::new(format!("{}: {what}", quote(&self.path)))
    }

    fn check_directory(&self) -> Result<(), CheckError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path = &self.path;
        fs::read_dir(path)
            .and_then(|mut entries| entries.next().transpose())
            .map_err(|error| failed("list", path, &error))?;
        if self.writable {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let probe = path.join(format!(".plimsoll-check-{}-{count}", std::process::id()));
            let written = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&probe)
                .and_then(|mut file| file.write_all(b"x"));
            // When it could not be made there is none to remove, and the first error tells why.
            let removed = fs::remove_file(&probe);
            written
                .and(removed)
                .map_err(|error| failed("write in", path, &error))?;
        }
        Ok(())
    }

    fn check_file(&self) -> Result<(), CheckError> {
        let path = &self.path;
        let mut header = Vec::new();
        File::open(path)
            .and_then(|file| file.take(SQLITE.len() as u64).read_to_end(&mut header))
            .map_err(|error| failed("read", path, &error))?;
        // An empty file is a database to which nothing has been written yet.
        if self.kind == Kind::Sqlite && !header.is_empty() && header != SQLITE {
            return Err(self.failure("expected an SQLite database, found something else"));
        }
        if self.writable {
            OpenOptions::new()
                .append(true)
                .open(path)
                .map_err(|error| failed("write", path, &error))?;
        }
        Ok(())
    }

    fn check_free(&self) -> Result<(), CheckError> {
        let (Some(least), path) = (self.free, &self.path) else {
            return Ok(());
        };
        let system = nix::sys::statvfs::statvfs(path)
            .map_err(|error| failed("ask for the free space of", path, &error.into()))?;
        let free = bytes(system.blocks_available(), system.fragment_size());
        if free < least {
            return Err(self.failure(&format!(
                "expected {least} bytes of free space, found {free}"
            )));
        }
        Ok(())
    }
}

/// The size of that many blocks. Both numbers have 32 bits on some systems, where their product needs more.
fn bytes(blocks: impl Into<u64>, block_size: impl Into<u64>) -> u64 {
    blocks.into().saturating_mul(block_size.into())
}

/// `what` failed with what the system said.
fn failed(what: &str, path: &Path, error: &io::Error) -> CheckError {
    CheckError::new(format!("cannot {what} {}: {error}", quote(path)))
}

/// The path in quotes, whose escapes keep an error to one line, whatever the path holds.
fn quote(path: &Path) -> String {
    format!("{:?}", path.to_string_lossy())
}

#[cfg(test)]
mod tests;
