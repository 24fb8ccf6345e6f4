//! The log of a program: to standard error, through a queue that nobody waits for.

use std::io::{self, Write};
use std::panic;
use std::sync::OnceLock;
use std::time::Duration;

use log::LevelFilter;

use super::{Lines, Sink};
use crate::error::Error;

/// How long the end of the program waits for what is still to be written.
const FLUSH: Duration = Duration::from_secs(1);

/// The log is one for the whole process, as the `log` facade is.
static STDERR: OnceLock<Lines> = OnceLock::new();

/// A logger that writes to standard error and never makes its caller wait: when nobody reads standard error, lines are
/// dropped and counted in the metric `plimsoll_dropped_lines_total`.
///
/// The server answers its health paths on the thread that also logs, so a logger that blocks holds up everything.
/// Time stamps are those of RFC 3339, in UTC. Messages of panics go the same way. When this is dropped, it waits up to
/// a second until everything is written.
///
/// ```
/// let log = plimsoll::StderrLog::install(log::LevelFilter::Info)?;
/// log::info!("this line waits for nobody");
/// drop(log);
/// # Ok::<(), plimsoll::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "the log is flushed when this is dropped"]
pub struct StderrLog(Lines);

impl StderrLog {
    /// Makes it the logger of this process, for messages up to that level.
    ///
    /// # Errors
    /// [`Error::System`] when there is a logger already, or the system gives no thread.
    pub fn install(level: LevelFilter) -> Result<Self, Error> {
        let failed = |source| Error::System {
            what: "the log",
            source,
        };
        let format = simplelog::ConfigBuilder::new()
            .set_time_format_rfc3339()
            .build();
        let lines = Lines::start("the log", Stderr).map_err(failed)?;
        let output = Assembler {
            lines: lines.clone(),
            line: Vec::new(),
        };
        simplelog::WriteLogger::init(level, format, output)
            .map_err(|error| failed(io::Error::other(error)))?;
        // There is one logger in the life of a process, so nobody has set it before.
        let lines = STDERR.get_or_init(|| lines);
        // The hook that prints would make a thread that panics wait for whoever reads standard error.
        let panics = lines.clone();
        panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("without a name");
            panics.push(format!("thread {name}: {panic}").as_bytes());
        }));
        Ok(Self(lines.clone()))
    }

    /// Writes a line as it is, whatever the level, and without waiting.
    pub fn print(&self, line: &str) {
        self.0.push(line.as_bytes());
    }
}

impl Drop for StderrLog {
    fn drop(&mut self) {
        self.0.flush(FLUSH);
    }
}

/// How many lines of the log were dropped.
pub(crate) fn dropped() -> u64 {
    STDERR.get().map_or(0, Lines::dropped)
}

struct Stderr;

impl Sink for Stderr {
    fn write(&mut self, lines: &[u8]) -> usize {
        match io::stderr().write_all(lines) {
            Ok(()) => lines.len(),
            Err(_) => 0,
        }
    }
}

/// Makes whole lines of the pieces in which a message is formatted.
struct Assembler {
    lines: Lines,
    line: Vec<u8>,
}

impl Write for Assembler {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(piece);
        if let Some(line) = self.line.strip_suffix(b"\n") {
            self.lines.push(line);
            self.line.clear();
            self.line.shrink_to(super::KEEP_BUFFER);
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
