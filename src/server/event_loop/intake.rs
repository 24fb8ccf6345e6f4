//! The private Unix stream into tiny_http.
//!
//! It is written by the frontend alone and read by one of tiny_http's threads, which takes what is in it for requests and
//! queues them for the workers. Each carries the ids of one or more exchanges. Nothing travels back: a byte or an end
//! from there means that the stream is broken.
//!
//! One is enough, since all that tiny_http reads is ids: its thread keeps up with the frontend. A second stream cost 15 %
//! of a request at 16 connections, for the wake-ups, and was worth nothing at 256. Short jobs that are handed over at
//! once share a request, since each of tiny_http's costs a system call and a dozen allocations, about as much as such a
//! job: 1.15 times the rate at 16 connections, 1.1 at 64.
//!
//! tiny_http's task pool counts its waiting threads late, so a connection may never be read. So the stream starts with a
//! greeting, and is used only when a worker has received that.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mio::net::UnixStream;

use crate::error::Error;

/// A greeting that has not come through by then is given up, and the stream opened anew.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long after a failure the next try waits.
const RETRY: Duration = Duration::from_millis(100);

/// A directory that only this user can enter, with the socket in it; both are gone when it is dropped.
#[derive(Debug)]
pub(crate) struct PrivateSocket {
    directory: PathBuf,
}

impl PrivateSocket {
    /// Makes the directory and binds the socket in the first place that takes both.
    ///
    /// # Errors
    /// [`Error::Intake`] with every place tried and what it said.
    pub(crate) fn bind() -> Result<(Self, UnixListener), Error> {
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
        let name = format!("plimsoll-{}-{count}-{nanos:08x}", std::process::id());
        let directory = place.join(name);
        DirBuilder::new().mode(0o700).create(&directory)?;
        let private = Self { directory };
        let listener = UnixListener::bind(private.path())?;
        Ok((private, listener))
    }

    /// Where the socket is.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join("intake")
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
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

/// How a stream stands.
#[derive(Debug)]
enum State {
    /// To be opened at that time.
    Closed {
        retry_at: Instant,
    },
    /// Opened and greeted; not yet known to be read.
    Greeted {
        socket: UnixStream,
        since: Instant,
    },
    Open {
        socket: UnixStream,
    },
}

/// The stream into tiny_http, as the frontend drives it.
#[derive(Debug)]
pub(crate) struct Intake {
    path: PathBuf,
    state: State,
    /// Whether the event loop watches for room. Not always: a Unix stream reports it with everything that is read from
    /// it, and would wake the frontend once more for every request.
    awaits_room: bool,
    /// Ids to be sent. Bounded by the number of exchanges handed over at once.
    queued: Vec<u64>,
    /// What of them the stream has not taken yet.
    pending: Vec<u8>,
    /// Greetings of earlier tries must not vouch for a later one.
    attempt: u32,
}

/// What the event loop does about the stream.
pub(crate) trait Register {
    /// Watches `socket` for what can be read.
    fn register(&mut self, socket: &mut UnixStream) -> io::Result<()>;

    /// Watches it for room too, or no more.
    fn watch_room(&mut self, socket: &mut UnixStream, on: bool) -> io::Result<()>;
}

/// A greeting's id: above every exchange's, and different at every attempt.
pub(crate) fn greeting_id(attempt: u32) -> u64 {
    GREETING | u64::from(attempt)
}

/// Set in the id of a greeting, and of no exchange.
pub(crate) const GREETING: u64 = 1 << 63;

/// Which attempt a greeting is from; `None` for an exchange's id.
pub(crate) fn greeted(id: u64) -> Option<u32> {
    #[allow(clippy::cast_possible_truncation)]
    (id & GREETING != 0).then_some(id as u32)
}

impl Intake {
    pub(crate) fn new(path: PathBuf, now: Instant) -> Self {
        Self {
            path,
            state: State::Closed { retry_at: now },
            awaits_room: false,
            queued: Vec::new(),
            pending: Vec::new(),
            attempt: 0,
        }
    }

    /// Whether the stream is known to be read, so that an id can be handed over.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Queues an exchange's id, only while the stream [is open](Self::is_open). [`flush`](Self::flush) sends what is
    /// queued, in one write.
    pub(crate) fn push(&mut self, id: u64) {
        self.queued.push(id);
    }

    /// Queues a request without an id: it wakes a worker that waits for requests, and is nothing to do.
    pub(crate) fn nudge(&mut self) {
        push_request(&mut self.pending, &[]);
    }

    /// Opens the stream when that is due.
    pub(crate) fn handle_timeout(&mut self, register: &mut impl Register, now: Instant) {
        if self.next_timeout().is_none_or(|due| now < due) {
            return;
        }
        if matches!(self.state, State::Greeted { .. }) {
            log::warn!("a stream to the workers was not taken up; opening another");
        }
        self.attempt = self.attempt.wrapping_add(1);
        let greeting = greeting_id(self.attempt);
        self.state = match open(&self.path, register, greeting) {
            Ok(socket) => State::Greeted { socket, since: now },
            Err(error) => {
                log::warn!("cannot open a stream to the workers, trying again: {error}");
                State::Closed {
                    retry_at: now + RETRY,
                }
            }
        };
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Closed { retry_at } => Some(retry_at),
            State::Greeted { since, .. } => Some(since + GREETING_TIMEOUT),
            State::Open { .. } => None,
        }
    }

    /// Takes that a worker received a greeting.
    pub(crate) fn handle_greeting(&mut self, attempt: u32) {
        if self.attempt == attempt {
            let closed = State::Closed {
                retry_at: Instant::now(),
            };
            self.state = match std::mem::replace(&mut self.state, closed) {
                State::Greeted { socket, .. } => State::Open { socket },
                other => other,
            };
        }
    }

    /// Writes what is queued as far as the stream takes it, up to `share` ids in a request; true when it broke.
    pub(crate) fn flush(
        &mut self,
        share: usize,
        register: &mut impl Register,
        now: Instant,
    ) -> bool {
        let State::Open { socket } = &mut self.state else {
            return false;
        };
        for ids in self.queued.chunks(share) {
            push_request(&mut self.pending, ids);
        }
        self.queued.clear();
        let sent = send(socket, &mut self.pending).and_then(|()| {
            let full = !self.pending.is_empty();
            if full != self.awaits_room {
                register.watch_room(socket, full)?;
                self.awaits_room = full;
            }
            Ok(())
        });
        if let Err(error) = &sent {
            self.fail(&error.to_string(), now);
        }
        sent.is_err()
    }

    /// Looks at the stream when it has become readable, which a whole one never does; true when it broke.
    pub(crate) fn handle_readable(&mut self, now: Instant) -> bool {
        let (State::Open { socket } | State::Greeted { socket, .. }) = &mut self.state else {
            return false;
        };
        let mut buffer = [0; 64];
        let why = match socket.read(&mut buffer) {
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return false;
            }
            Ok(0) => "it was closed".to_owned(),
            Ok(count) => format!(
                "it answered {:?}",
                String::from_utf8_lossy(&buffer[..count])
            ),
            Err(error) => error.to_string(),
        };
        self.fail(&why, now);
        true
    }

    /// Breaks the stream as a fault would.
    #[cfg(test)]
    pub(crate) fn sabotage(&self) {
        if let State::Open { socket } = &self.state {
            socket
                .shutdown(std::net::Shutdown::Both)
                .expect("it was open");
        }
    }

    fn fail(&mut self, why: &str, now: Instant) {
        log::warn!("a stream to the workers broke ({why}); opening it again");
        self.queued.clear();
        self.pending.clear();
        self.awaits_room = false;
        self.state = State::Closed { retry_at: now };
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

fn open(path: &Path, register: &mut impl Register, greeting: u64) -> io::Result<UnixStream> {
    let mut socket = UnixStream::connect(path)?;
    register.register(&mut socket)?;
    let mut head = Vec::new();
    push_request(&mut head, &[greeting]);
    // A new stream's buffer is empty: it takes these bytes at once, or is not worth having.
    socket.write_all(&head)?;
    Ok(socket)
}

/// Appends a request whose target is these ids, each after a slash. It carries nothing else: `tiny_http` reads byte by
/// byte, with a handful of allocations for each header, and the exchanges have what the clients sent.
fn push_request(out: &mut Vec<u8>, ids: &[u64]) {
    out.extend_from_slice(if ids.is_empty() { b"GET /" } else { b"GET " });
    for id in ids {
        out.push(b'/');
        let digits = (u64::BITS - id.leading_zeros()).div_ceil(4).max(1);
        for place in (0..digits).rev() {
            out.push(b"0123456789abcdef"[(id >> (4 * place) & 15) as usize]);
        }
    }
    out.extend_from_slice(b" HTTP/1.1\r\n\r\n");
}

/// The ids in a target that came through `tiny_http`.
pub(crate) fn carried_ids(url: &str) -> impl Iterator<Item = u64> {
    let ids = url.split('/');
    ids.filter_map(|id| u64::from_str_radix(id, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn temporary() -> PathBuf {
        std::env::temp_dir()
    }

    #[test]
    fn the_directory_is_private_and_goes_with_the_socket() {
        let (private, listener) = PrivateSocket::bind_in(vec![temporary()]).unwrap();
        let mode = fs::metadata(&private.directory)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        let directory = private.directory.clone();
        drop((private, listener));
        assert!(!directory.exists());
    }

    #[test]
    fn places_are_tried_in_turn_and_all_named_when_none_will_do() {
        let (private, _listener) =
            PrivateSocket::bind_in(vec!["/nonexistent/a".into(), temporary()]).unwrap();
        assert!(private.path().starts_with(temporary()));
        let error = PrivateSocket::bind_in(vec!["/nonexistent/a".into(), "/proc/b".into()])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/nonexistent/a") && error.contains("/proc/b"),
            "{error}"
        );
    }

    #[test]
    fn the_environment_comes_before_the_fixed_places() {
        let found = places(|name| (name == "TMPDIR").then(|| "/elsewhere".into()));
        let expected = ["/elsewhere", "/tmp", "/run", "/dev/shm", "/"];
        assert_eq!(found, expected.map(PathBuf::from));
        assert_eq!(
            places(|_| Some("".into())),
            expected[1..].iter().map(PathBuf::from).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_greeting_names_its_attempt_and_is_no_exchange() {
        assert_eq!(greeted(greeting_id(7)), Some(7));
        assert_eq!(greeted(greeting_id(u32::MAX)), Some(u32::MAX));
        assert_eq!(greeted(42), None);
    }

    #[test]
    fn a_request_carries_its_ids_and_a_nudge_none() {
        let carried = |ids: &[u64]| {
            let mut request = Vec::new();
            push_request(&mut request, ids);
            let text = String::from_utf8(request).unwrap();
            let target = text.strip_prefix("GET ").unwrap();
            let target = target.strip_suffix(" HTTP/1.1\r\n\r\n").unwrap();
            assert!(target.starts_with('/'), "{target}");
            carried_ids(target).collect::<Vec<_>>()
        };
        for ids in [
            &[][..],
            &[0],
            &[42],
            &[u64::MAX, 0, 0x1_0000, greeting_id(3)],
        ] {
            assert_eq!(carried(ids), ids);
        }
    }
}
