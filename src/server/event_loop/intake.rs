//! The way through tiny_http: a private Unix stream that the event loop writes and one of tiny_http's threads reads.
//!
//! What goes through it are requests whose target is a number: "jobs up to this one may begin". Nothing that a client
//! sent is in them, so none of tiny_http's faults can be triggered from outside. Jobs that are dispatched at once
//! share a request while they are short, since each costs a system call and a dozen allocations. Nothing travels back: a byte
//! or an end from there means that the stream is broken. Then all of it, tiny_http's server included, is made anew.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mio::net::UnixStream;

use crate::error::Error;

/// How long after a failure the second try waits; each further one waits twice as long as the one before, up to ...
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// ... this.
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// A directory that only this user can enter, with the socket in it; both are gone when it is dropped.
#[derive(Debug)]
struct PrivateSocket {
    directory: PathBuf,
}

/// The beginning of such a directory's name.
const PREFIX: &str = "plimsoll-";

/// A directory that is younger may belong to a process that is just starting.
const LEFT_ALONE: Duration = Duration::from_secs(5);

impl PrivateSocket {
    /// Makes the directory and binds the socket in the first place that takes both.
    ///
    /// # Errors
    /// [`Error::Intake`] with every place tried and what it said.
    fn bind() -> Result<(Self, UnixListener), Error> {
        Self::bind_in(places(|name| std::env::var_os(name)))
    }

    fn bind_in(places: Vec<PathBuf>) -> Result<(Self, UnixListener), Error> {
        let mut tried = Vec::new();
        for place in places {
            match Self::bind_at(&place) {
                Ok(bound) => return Ok(bound),
                Err(error) => tried.push(format!("{} ({error})", place.display())),
            }
        }
        Err(Error::Intake(tried.join(", ")))
    }

    fn bind_at(place: &Path) -> io::Result<(Self, UnixListener)> {
        // A name that somebody else took already is an error, never reused: so a guessed name gains nothing.
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = nanos.map_or(0, |since| since.subsec_nanos());
        let name = format!("{PREFIX}{}-{count}-{nanos:08x}", std::process::id());
        let directory = place.join(name);
        DirBuilder::new().mode(0o700).create(&directory)?;
        let private = Self { directory };
        let listener = UnixListener::bind(private.path())?;
        if count == 0 {
            private.sweep(place);
        }
        Ok((private, listener))
    }

    /// Where the socket is.
    fn path(&self) -> PathBuf {
        self.directory.join("intake")
    }

    /// Removes what killed processes of this user have left in `place`: sockets that nobody listens on, and that are not
    /// just being made. What can't be read or removed stays.
    fn sweep(&self, place: &Path) {
        let Ok(user) = fs::metadata(&self.directory).map(|own| own.uid()) else {
            return;
        };
        let entries = fs::read_dir(place).into_iter().flatten().flatten();
        for entry in entries {
            let is_named = entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(PREFIX.as_bytes());
            let is_ours = || {
                let metadata = fs::symlink_metadata(entry.path());
                metadata.is_ok_and(|it| {
                    let age = it.modified().ok().and_then(|at| at.elapsed().ok());
                    let is_old = age.is_some_and(|age| age > LEFT_ALONE);
                    it.is_dir() && it.uid() == user && is_old
                })
            };
            if !is_named || !is_ours() {
                continue;
            }
            let socket = entry.path().join("intake");
            let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
            let is_left = std::os::unix::net::UnixStream::connect(&socket).is_err_and(refused);
            if is_left && fs::remove_file(&socket).is_ok() {
                // Whatever else is in there is not ours to remove, and keeps the directory.
                if let Err(error) = fs::remove_dir(entry.path()) {
                    log::debug!("left behind {}: {error}", entry.path().display());
                }
            }
        }
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory)
            && error.kind() != ErrorKind::NotFound
        {
            log::warn!("left behind {}: {error}", self.directory.display());
        }
    }
}

/// Directories to try, in turn. Of a container without files of its own, `/dev/shm` is there and can be written by
/// everybody; in a bare root without even that, root can write the root.
fn places(env: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let set = ["XDG_RUNTIME_DIR", "TMPDIR"].into_iter().filter_map(env);
    let set = set.filter(|value| !value.is_empty()).map(PathBuf::from);
    let fixed = ["/tmp", "/run", "/dev/shm", "/"];
    set.chain(fixed.into_iter().map(PathBuf::from)).collect()
}

/// tiny_http's server, as the workers pull from it. The order of the fields matters: when it is dropped, tiny_http wakes
/// its accept thread through the socket, so that goes last.
pub(crate) struct Carrier {
    pub(crate) server: tiny_http::Server,
    _private: PrivateSocket,
}

impl Carrier {
    /// Starts one, and connects the stream that it reads. It never has another connection.
    ///
    /// # Errors
    /// [`Error::Intake`] when no directory takes the socket, or the system's refusal.
    pub(crate) fn open() -> Result<(Arc<Self>, UnixStream), Error> {
        let system = |what| move |source| Error::System { what, source };
        let (private, listener) = PrivateSocket::bind()?;
        let socket = UnixStream::connect(private.path());
        let socket = socket.map_err(system("the stream to the workers"))?;
        let server = tiny_http::Server::from_listener(listener, None)
            .map_err(|error| system("the request queue")(io::Error::other(error)))?;
        let carrier = Self {
            server,
            _private: private,
        };
        Ok((Arc::new(carrier), socket))
    }
}

/// What the event loop does about the stream.
pub(crate) trait Register {
    /// Watches `socket` for what can be read.
    fn register(&mut self, socket: &mut UnixStream) -> io::Result<()>;

    /// Watches it for room too, or no more.
    fn watch_room(&mut self, socket: &mut UnixStream, on: bool) -> io::Result<()>;
}

/// The event loop's end of the stream.
#[derive(Debug)]
pub(crate) struct Intake {
    /// `None` while it is broken.
    socket: Option<UnixStream>,
    /// Whether the event loop watches for room. Not always: a Unix stream reports it with everything that is read from
    /// it, and would wake the event loop once more for every request.
    awaits_room: bool,
    /// What the stream has not taken yet.
    pending: Vec<u8>,
    /// Tries to open it anew since something last came through.
    tries: u32,
    retry_at: Instant,
}

impl Intake {
    /// # Errors
    /// The event queue's refusal.
    pub(crate) fn new(
        socket: UnixStream,
        register: &mut impl Register,
        now: Instant,
    ) -> io::Result<Self> {
        let mut intake = Self {
            socket: None,
            awaits_room: false,
            pending: Vec::new(),
            tries: 0,
            retry_at: now,
        };
        intake.take_up(socket, register)?;
        Ok(intake)
    }

    fn take_up(&mut self, mut socket: UnixStream, register: &mut impl Register) -> io::Result<()> {
        register.register(&mut socket)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Whether it is not known to be broken.
    pub(crate) fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Opens a broken stream when that is due: the new server then.
    pub(crate) fn reopen(
        &mut self,
        register: &mut impl Register,
        now: Instant,
    ) -> Option<Arc<Carrier>> {
        if self.next_timeout().is_none_or(|due| now < due) {
            return None;
        }
        let opened = Carrier::open().and_then(|(carrier, socket)| {
            let taken_up = self.take_up(socket, register);
            taken_up.map_err(|source| Error::System {
                what: "the stream to the workers",
                source,
            })?;
            Ok(carrier)
        });
        self.tries = self.tries.saturating_add(1);
        let doubled = 1 << (self.tries - 1).min(16);
        self.retry_at = now + (FIRST_RETRY * doubled).min(LONGEST_RETRY);
        match opened {
            Ok(carrier) => Some(carrier),
            Err(error) => {
                self.complain(&error);
                None
            }
        }
    }

    /// Notes that something has come through: it is whole.
    pub(crate) fn proven(&mut self) {
        self.tries = 0;
        log::info!("the stream to the workers is whole again");
    }

    /// Fewer and fewer lines, the longer it lasts.
    fn complain(&self, why: &dyn std::fmt::Display) {
        if self.tries == 0 || self.tries.is_power_of_two() {
            log::error!("no request reaches the workers: {why}; trying again");
        }
    }

    /// When [`reopen`](Self::reopen) is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.socket.is_none().then_some(self.retry_at)
    }

    /// Announces the jobs beyond the first number, up to the second, up to `batch` of them by one request.
    pub(crate) fn announce(&mut self, (mut from, to): (u64, u64), batch: usize) {
        let batch = u64::try_from(batch).unwrap_or(u64::MAX);
        while from < to {
            from = from.saturating_add(batch).min(to);
            push_request(&mut self.pending, from);
        }
    }

    /// Writes what is pending as far as the stream takes it.
    ///
    /// # Errors
    /// Why it broke.
    pub(crate) fn flush(&mut self, register: &mut impl Register) -> io::Result<()> {
        let Some(socket) = &mut self.socket else {
            return Ok(());
        };
        send(socket, &mut self.pending)?;
        let full = !self.pending.is_empty();
        if full != self.awaits_room {
            register.watch_room(socket, full)?;
            self.awaits_room = full;
        }
        Ok(())
    }

    /// Looks at the stream when it has become readable, which a whole one never does.
    ///
    /// # Errors
    /// Why it broke.
    pub(crate) fn handle_readable(&mut self) -> io::Result<()> {
        let Some(socket) = &mut self.socket else {
            return Ok(());
        };
        let mut buffer = [0; 64];
        match socket.read(&mut buffer) {
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
            Ok(0) => Err(io::Error::other("it was closed")),
            Ok(count) => {
                let answer = String::from_utf8_lossy(&buffer[..count]);
                Err(io::Error::other(format!("it answered {answer:?}")))
            }
        }
    }

    /// Gives a broken stream up, to be opened anew: at once, unless the last one broke before anything came through.
    pub(crate) fn fail(&mut self, why: &io::Error, now: Instant) {
        self.complain(why);
        self.socket = None;
        self.pending.clear();
        self.awaits_room = false;
        if self.tries == 0 {
            self.retry_at = now;
        }
    }

    /// Breaks the stream as a fault would.
    #[cfg(test)]
    pub(crate) fn sabotage(&self) {
        if let Some(socket) = &self.socket {
            socket
                .shutdown(std::net::Shutdown::Both)
                .expect("it was open");
        }
    }
}

/// Writes what is pending as far as the socket takes it.
fn send(socket: &mut UnixStream, pending: &mut Vec<u8>) -> io::Result<()> {
    while !pending.is_empty() {
        match socket.write(pending) {
            Ok(count) if count == pending.len() => pending.clear(),
            Ok(count) => drop(pending.drain(..count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Appends a request whose target is this number. It carries nothing else: tiny_http reads byte by byte, with a handful
/// of allocations for each header.
fn push_request(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(b"GET /");
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(number >> (4 * place) & 15) as usize]);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n\r\n");
}

/// The number in a target that came through tiny_http.
pub(crate) fn carried_number(target: &str) -> Option<u64> {
    u64::from_str_radix(target.strip_prefix('/')?, 16).ok()
}

#[cfg(test)]
mod tests;
