//! The socket by which other processes ask for dead letters while this one has the queue open.
//!
//! One request a connection, and all of it within a deadline: who asks slowly holds up nobody for long.
//!
//! ```text
//!     request   "ids" | "get ID" | "replay ID" | "purge ID", then a newline
//!     reply     what came of it u8, length of the rest u32, the rest: ids of 16 bytes each, a letter, or a text
//! ```

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::error::EventError;
use super::event::{DeadLetter, EventId};
use super::files::UNFINISHED;
use super::record::u32_at;
use super::shared::SharedQueue;
use crate::net::stream::Socket;
use crate::patterns::{Deadline, DeadlineStream};

/// The socket's name in the queue's directory.
const NAME: &str = "control";

/// Longest that reading a request, or writing a reply, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest that who asks waits for a reply: the disk may be slow.
const LONGEST: Duration = Duration::from_secs(60);

/// Bytes of the longest request, with its newline.
const REQUEST: u64 = 64;

/// Wait after a connection could not be accepted, as for want of descriptors.
const REST: Duration = Duration::from_millis(100);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// The ids of all dead letters.
    Ids,
    /// A letter.
    Get(EventId),
    /// To queue it again.
    Replay(EventId),
    /// To forget it.
    Purge(EventId),
}

impl Request {
    fn encode(self) -> String {
        match self {
            Self::Ids => "ids\n".to_owned(),
            Self::Get(id) => format!("get {id}\n"),
            Self::Replay(id) => format!("replay {id}\n"),
            Self::Purge(id) => format!("purge {id}\n"),
        }
    }

    fn decode(line: &str) -> Option<Self> {
        let line = line.strip_suffix('\n')?;
        if line == "ids" {
            return Some(Self::Ids);
        }
        let (verb, id) = line.split_once(' ')?;
        let id = id.parse().ok()?;
        match verb {
            "get" => Some(Self::Get(id)),
            "replay" => Some(Self::Replay(id)),
            "purge" => Some(Self::Purge(id)),
            _ => None,
        }
    }
}

/// What came of a request, on the wire.
const DONE: u8 = 0;
const UNKNOWN: u8 = 1;
const FULL: u8 = 2;
const STOPPED: u8 = 3;
const TIMED_OUT: u8 = 4;
const OTHER: u8 = 5;

/// Serves the socket until its queue stops.
pub(crate) struct Control {
    /// Dropped, it ends the thread.
    _wake: UnixStream,
}

impl Control {
    /// Starts the thread.
    pub(crate) fn start(
        directory: &Path,
        shared: &Arc<SharedQueue>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let path = directory.join(NAME);
        let unfinished = directory.join(format!("{UNFINISHED}{NAME}"));
        let listener = UnixListener::bind(&unfinished)?;
        // It bears its name only once nobody else may connect, and takes the place of one that a crash has left.
        fs::set_permissions(&unfinished, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        fs::rename(&unfinished, &path)?;
        let (wake, woken) = UnixStream::pair()?;
        let shared = Arc::clone(shared);
        let thread = thread::Builder::new()
            .name("events control".to_owned())
            .spawn(move || {
                serve(&listener, &woken, &shared);
                if let Err(error) = fs::remove_file(&path) {
                    log::warn!("cannot remove {}: {error}", path.display());
                }
            })?;
        Ok((Self { _wake: wake }, thread))
    }
}

fn serve(listener: &UnixListener, woken: &UnixStream, shared: &SharedQueue) {
    loop {
        match wait(&[listener.as_fd(), woken.as_fd()], PollTimeout::NONE) {
            Ok(ready) if ready[1] => return,
            Ok(_) => {}
            Err(error) => {
                log::error!("the control socket of the events cannot be waited for: {error}");
                return;
            }
        }
        let conversed = match listener.accept() {
            Ok((stream, _)) => converse(stream, shared),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => {
                log::warn!("the control socket of the events cannot accept: {error}");
                let rest = PollTimeout::try_from(REST).unwrap_or(PollTimeout::MAX);
                wait(&[woken.as_fd()], rest).map(drop)
            }
        };
        if let Err(error) = conversed {
            log::debug!("a request on the control socket of the events failed: {error}");
        }
    }
}

/// Waits until one of these can be read; which can be.
fn wait<const N: usize>(
    files: &[std::os::fd::BorrowedFd<'_>; N],
    timeout: PollTimeout,
) -> io::Result<[bool; N]> {
    let mut polled = files.map(|file| PollFd::new(file, PollFlags::POLLIN));
    match poll(&mut polled, timeout) {
        Ok(_) => Ok(polled.map(|file| file.any().unwrap_or(false))),
        Err(Errno::EINTR) => Ok([false; N]),
        Err(error) => Err(error.into()),
    }
}

fn converse(stream: UnixStream, shared: &SharedQueue) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let mut stream = DeadlineStream::new(Socket::Unix(stream), Deadline::after(PATIENCE));
    let mut line = String::new();
    BufReader::new(Read::take(&mut stream, REQUEST)).read_line(&mut line)?;
    let request = Request::decode(&line)
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("{line:?}")))?;
    let answer = match request {
        Request::Ids => Ok(shared.ids().iter().flat_map(|id| id.0).collect()),
        Request::Get(id) => shared.record(id),
        Request::Replay(id) => shared.replay(id).map(|()| Vec::new()),
        Request::Purge(id) => shared.purge(id).map(|()| Vec::new()),
    };
    let (code, rest) = match answer {
        Ok(rest) => (DONE, rest),
        Err(EventError::Unknown) => (UNKNOWN, Vec::new()),
        Err(EventError::Full) => (FULL, Vec::new()),
        Err(EventError::Stopped) => (STOPPED, Vec::new()),
        Err(EventError::TimedOut) => (TIMED_OUT, Vec::new()),
        Err(error) => (OTHER, error.to_string().into_bytes()),
    };
    let length = u32::try_from(rest.len()).map_err(io::Error::other)?;
    stream.set_deadline(Deadline::after(PATIENCE));
    stream.write_all(&[code])?;
    stream.write_all(&length.to_le_bytes())?;
    stream.write_all(&rest)
}

/// Asks the process that has a queue open.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    path: PathBuf,
}

impl Client {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            path: directory.join(NAME),
        }
    }

    pub(crate) fn ids(&self) -> Result<Vec<EventId>, EventError> {
        let reply = self.ask(Request::Ids)?;
        let ids = reply.chunks_exact(16).map(|id| id.try_into().ok());
        ids.map(|id| id.map(EventId).ok_or_else(nonsense)).collect()
    }

    pub(crate) fn letter(&self, id: EventId) -> Result<DeadLetter, EventError> {
        let reply = self.ask(Request::Get(id))?;
        SharedQueue::letter(id, &reply)
    }

    pub(crate) fn replay(&self, id: EventId) -> Result<(), EventError> {
        self.ask(Request::Replay(id)).map(drop)
    }

    pub(crate) fn purge(&self, id: EventId) -> Result<(), EventError> {
        self.ask(Request::Purge(id)).map(drop)
    }

    fn ask(&self, request: Request) -> Result<Vec<u8>, EventError> {
        let (code, rest) = self
            .exchange(request)
            .map_err(|error| EventError::Control(Arc::new(error)))?;
        match code {
            DONE => Ok(rest),
            UNKNOWN => Err(EventError::Unknown),
            FULL => Err(EventError::Full),
            STOPPED => Err(EventError::Stopped),
            TIMED_OUT => Err(EventError::TimedOut),
            _ => {
                let text = String::from_utf8_lossy(&rest).into_owned();
                Err(EventError::Control(Arc::new(io::Error::other(text))))
            }
        }
    }

    fn exchange(&self, request: Request) -> io::Result<(u8, Vec<u8>)> {
        let deadline = Deadline::after(LONGEST);
        let mut stream = DeadlineStream::connect(&*self.path, deadline)?;
        stream.write_all(request.encode().as_bytes())?;
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let length = u32_at(&head, 1);
        // As much memory as really comes.
        let mut rest = Vec::new();
        stream.take(length.into()).read_to_end(&mut rest)?;
        if rest.len() as u64 != u64::from(length) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok((head[0], rest))
    }
}

fn nonsense() -> EventError {
    let error = io::Error::new(ErrorKind::InvalidData, "its reply is not understood");
    EventError::Control(Arc::new(error))
}
