//! The file operations that the queue needs, behind a trait so that tests can make each of them fail.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit};

use super::reader::Source;

/// The file by whose lock a process holds the directory.
pub(crate) const LOCK: &str = "lock";

/// How the names of files begin that are not whole yet.
pub(crate) const UNFINISHED: &str = "new.";

/// The queue's directory. Names have no path in them.
pub(crate) trait Directory: Send + Sync + 'static {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new and empty file that only its owner may read, in place of one that may be there.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// A file that is there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the names durable.
    fn sync(&self) -> io::Result<()>;
}

/// A file of the queue.
pub(crate) trait File: Send + Sync + 'static {
    /// Reads into `buffer` from `offset` on; fewer bytes only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the bytes durable, and the length if it changed: `fdatasync`.
    fn sync(&self) -> io::Result<()>;
    /// Bytes that are there.
    fn length(&self) -> io::Result<u64>;
}

impl Source for dyn File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        File::read_at(self, buffer, offset)
    }
}

/// A directory of the system's, held by a lock for as long as this lives.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    _lock: Flock<fs::File>,
}

/// Why a directory was not taken.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// Another process holds it.
    Locked,
    Io(io::Error),
}

impl From<io::Error> for NotTaken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Disk {
    /// Takes a directory, which is made if it is not there.
    pub(crate) fn take(path: &Path) -> Result<Self, NotTaken> {
        let made = fs::DirBuilder::new().mode(0o700).create(path);
        match made {
            Ok(()) => {
                // A relative path of one part has the empty path as its parent.
                let parent = path
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty());
                fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
        let lock = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))?;
        match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err((_, Errno::EWOULDBLOCK)) => Err(NotTaken::Locked),
            Err((_, error)) => Err(io::Error::from(error).into()),
        }
    }
}

impl Directory for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?
            .filter_map(|entry| match entry {
                // A name that is no text is none of the queue's.
                Ok(entry) => entry.file_name().into_string().ok().map(Ok),
                Err(error) => Some(Err(error)),
            })
            .collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }
}

impl File for fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut count = 0;
        while count < buffer.len() {
            match FileExt::read_at(self, &mut buffer[count..], offset + count as u64) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // The system would end the process with SIGXFSZ.
        let (limit, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
        // Of 32 or 64 bits, by the system.
        if u128::from(offset) + bytes.len() as u128 > u128::from(limit) {
            return Err(Errno::EFBIG.into());
        }
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
