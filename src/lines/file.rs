//! Lines to a file, which may be moved away and opened anew, or to standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::Sink;

/// The name of standard output.
pub(crate) const STDOUT: &str = "-";

/// The least time between two writes: what comes meanwhile goes in one.
const GATHER: Duration = Duration::from_millis(2);

/// A file that lines are appended to.
#[derive(Debug)]
pub(crate) struct FileSink {
    /// What the log calls it.
    name: &'static str,
    path: String,
    file: File,
    /// The last write ended in the middle of a line.
    torn: bool,
    /// The last write failed, and the log was told.
    failed: bool,
}

impl FileSink {
    /// Opens a file to append to, which is made if there is none; `-` is standard output.
    ///
    /// # Errors
    /// The system's; a FIFO that nobody reads is one.
    pub(crate) fn open(path: &str, name: &'static str) -> io::Result<Self> {
        Ok(Self {
            name,
            path: path.to_owned(),
            file: open(path)?,
            torn: false,
            failed: false,
        })
    }

    /// Writes lines and counts what was written, also before an error.
    fn write_lines(&mut self, lines: &[u8], written: &mut usize) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        while *written < lines.len() {
            match self.file.write(&lines[*written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    *written += count;
                    self.torn = lines[*written - 1] != b'\n';
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Sink for FileSink {
    fn write(&mut self, lines: &[u8]) -> usize {
        let mut written = 0;
        let result = self.write_lines(lines, &mut written);
        let failed_before = std::mem::replace(&mut self.failed, result.is_err());
        if let Err(error) = result
            && !failed_before
        {
            log::error!("cannot write {} to {:?}: {error}", self.name, self.path);
        }
        std::thread::sleep(GATHER);
        written
    }

    fn reopen(&mut self) {
        let Self { name, path, .. } = self;
        if path == STDOUT {
            return;
        }
        match open(path) {
            Ok(file) => {
                self.file = file;
                self.torn = false;
                log::info!("{name} was opened anew: {path:?}");
            }
            Err(error) => {
                log::error!("{name} stays in the old file: cannot open {path:?}: {error}");
            }
        }
    }
}

fn open(path: &str) -> io::Result<File> {
    if path == STDOUT {
        // Not through the library's buffer, which would hold on to what could not be written.
        return Ok(io::stdout().as_fd().try_clone_to_owned()?.into());
    }
    // To open a FIFO would wait for its reader.
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    // To write may wait: it is a thread's only work.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
