//! Kept connections to one endpoint, last in first out.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::stream::{Address, Socket};
use crate::http::response::ResponseHead;
use crate::patterns::Deadline;

/// Most connections that are kept for an endpoint: as many as requests are usually there at once, which often end together.
pub(crate) const MOST_IDLE: usize = 64;

/// How long a connection is kept whose server does not say how long it keeps it: Node and uvicorn close after 5 s.
const KEPT: Duration = Duration::from_secs(4);

/// Longest that a connection is kept, whatever its server says.
const LONGEST_KEPT: Duration = Duration::from_secs(5 * 60);

/// How much sooner than its server a connection is given up, so that no request crosses the close on its way.
const MARGIN: Duration = Duration::from_secs(1);

/// Longest that a connection may have been idle for a request that must not be sent twice.
const RECENT: Duration = Duration::from_secs(1);

/// Which kept connection a request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Any: the request may be sent twice, should the connection turn out to be closed.
    Any,
    /// One that was used within the last second: the request may not be sent twice.
    Recent,
    /// None: this is the try after a kept connection turned out to be closed.
    Never,
}

/// A connection that no request uses.
struct Idle {
    socket: Socket,
    since: Instant,
    until: Instant,
}

/// An endpoint's address and the connections that are kept to it.
pub(crate) struct Pool {
    address: Address,
    /// The one that was used last is the last.
    idle: Mutex<Vec<Idle>>,
}

impl Pool {
    /// An empty one.
    pub(crate) fn new(address: Address) -> Arc<Self> {
        Arc::new(Self {
            address,
            idle: Mutex::default(),
        })
    }

    /// How many connections are kept.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Closes what has been idle for too long. What is taken is looked at anyway: this frees what nobody takes.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut idle = self.lock();
        let all = std::mem::take(&mut *idle);
        let (over, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.until <= now);
        *idle = kept;
        drop(idle);
        // Closed without the lock.
        drop(over);
    }

    /// Takes the connection that was used last, if it is still open and silent.
    pub(crate) fn take(&self, reuse: Reuse, now: Instant) -> Option<Socket> {
        loop {
            let mut kept = {
                let mut idle = self.lock();
                let last = idle.last()?;
                let too_old = now.saturating_duration_since(last.since) >= RECENT;
                match reuse {
                    Reuse::Never => return None,
                    // Those before it were used still earlier.
                    Reuse::Recent if too_old => return None,
                    Reuse::Recent | Reuse::Any => idle.pop()?,
                }
            };
            // It is looked at, and closed, without the lock.
            if kept.until > now && kept.socket.is_silent() {
                return Some(kept.socket);
            }
        }
    }

    /// A new connection.
    pub(crate) fn connect(&self, deadline: Deadline) -> io::Result<Socket> {
        Socket::connect(&self.address, deadline)
    }

    /// Keeps a connection for `time`; if it is one too many, the one that was used longest ago goes.
    fn put(&self, socket: Socket, time: Duration, now: Instant) {
        let kept = Idle {
            socket,
            since: now,
            until: now + time,
        };
        let mut idle = self.lock();
        let surplus = (idle.len() >= MOST_IDLE).then(|| idle.remove(0));
        idle.push(kept);
        drop(idle);
        // Closed without the lock.
        drop(surplus);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        // A panic elsewhere leaves the list as it is: each change of it is a single step.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("address", &self.address)
            .field("idle", &self.len())
            .finish()
    }
}

/// Where a connection goes after a whole body, and for how long.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<Pool>,
    /// None: it has to be closed.
    keep: Option<Duration>,
}

impl Lease {
    /// What `head` says, unless the connection `must_close`.
    pub(crate) fn new(pool: Arc<Pool>, head: &ResponseHead, must_close: bool) -> Self {
        let keep = match head.keep_alive_timeout {
            Some(timeout) => timeout.saturating_sub(MARGIN).min(LONGEST_KEPT),
            None => KEPT,
        };
        let keeps = head.keep_alive && !must_close && !keep.is_zero();
        Self {
            pool,
            keep: keeps.then_some(keep),
        }
    }

    /// Gives a connection back, on which the whole response was read and nothing beyond it; or closes it.
    pub(crate) fn give_back(self, socket: Socket, now: Instant) {
        if let Some(keep) = self.keep {
            self.pool.put(socket, keep, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    use super::*;
    use crate::http::response::{Asked, ResponseParser};

    const SECOND: Duration = Duration::from_secs(1);

    fn pool() -> Arc<Pool> {
        Pool::new(Path::new("/nowhere").into())
    }

    /// A connection, and its other end.
    fn pair() -> (Socket, UnixStream) {
        let (near, far) = UnixStream::pair().expect("two sockets");
        near.set_nonblocking(true).expect("a mode");
        (Socket::Unix(near), far)
    }

    /// Which of those is at the other end.
    fn is_to(mut socket: Socket, far: &mut UnixStream) -> bool {
        socket.write_all(b"x").expect("it is taken");
        far.set_nonblocking(true).expect("a mode");
        std::io::Read::read(far, &mut [0]).is_ok()
    }

    #[test]
    fn the_last_that_was_used_is_taken_first() {
        let (pool, now) = (pool(), Instant::now());
        let mut ends: Vec<_> = (0..3)
            .map(|_| {
                let (near, far) = pair();
                pool.put(near, KEPT, now);
                far
            })
            .collect();
        while let Some(mut far) = ends.pop() {
            let socket = pool.take(Reuse::Any, now).expect("one is kept");
            assert!(is_to(socket, &mut far));
        }
        assert!(pool.take(Reuse::Any, now).is_none());
    }

    #[test]
    fn one_that_was_closed_or_has_spoken_is_not_taken() {
        let (pool, now) = (pool(), Instant::now());
        let (good, mut far) = pair();
        pool.put(good, KEPT, now);
        let (closed, end) = pair();
        drop(end);
        pool.put(closed, KEPT, now);
        let (spoken, mut end) = pair();
        end.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            .expect("it is taken");
        pool.put(spoken, KEPT, now);
        let socket = pool.take(Reuse::Any, now).expect("one is good");
        assert!(is_to(socket, &mut far));
        assert_eq!(pool.len(), 0);
    }

    #[test]
    fn one_that_was_idle_for_too_long_is_not_taken() {
        let (pool, now) = (pool(), Instant::now());
        let (near, _far) = pair();
        pool.put(near, KEPT, now);
        assert!(pool.take(Reuse::Any, now + KEPT).is_none());
        assert_eq!(pool.len(), 0);

        let ends: Vec<_> = [KEPT, 2 * KEPT]
            .map(|time| {
                let (near, far) = pair();
                pool.put(near, time, now);
                far
            })
            .into();
        pool.sweep(now + KEPT);
        assert_eq!(pool.len(), 1);
        assert!(pool.take(Reuse::Any, now + KEPT).is_some());
        drop(ends);
    }

    #[test]
    fn what_may_not_be_sent_twice_takes_only_one_that_was_just_used() {
        let (pool, now) = (pool(), Instant::now());
        let (near, _far) = pair();
        pool.put(near, KEPT, now);
        assert!(pool.take(Reuse::Never, now).is_none());
        assert!(pool.take(Reuse::Recent, now + SECOND).is_none());
        assert_eq!(pool.len(), 1, "it is still good for others");
        let almost = now + SECOND.checked_sub(Duration::from_millis(1)).unwrap();
        assert!(pool.take(Reuse::Recent, almost).is_some());
    }

    #[test]
    fn of_too_many_the_oldest_goes() {
        let (pool, now) = (pool(), Instant::now());
        let (first, mut end) = pair();
        pool.put(first, KEPT, now);
        let _ends: Vec<_> = (0..MOST_IDLE)
            .map(|_| {
                let (near, far) = pair();
                pool.put(near, KEPT, now);
                far
            })
            .collect();
        assert_eq!(pool.len(), MOST_IDLE);
        let read = std::io::Read::read(&mut end, &mut [0]).expect("the end");
        assert_eq!(read, 0, "it was closed");
    }

    #[test]
    fn a_connection_is_kept_as_long_as_its_server_keeps_it_less_a_second() {
        let now = Instant::now();
        for (fields, must_close, kept) in [
            ("", false, Some(4)),
            ("", true, None),
            ("Keep-Alive: timeout=5\r\n", false, Some(4)),
            ("Keep-Alive: timeout=2\r\n", false, Some(1)),
            ("Keep-Alive: timeout=60\r\n", false, Some(59)),
            ("Keep-Alive: timeout=99999999999\r\n", false, Some(300)),
            ("Keep-Alive: timeout=1\r\n", false, None),
            ("Keep-Alive: timeout=0\r\n", false, None),
            ("Connection: close\r\n", false, None),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
            let mut parser = ResponseParser::new(Asked::default());
            let parsed = parser.parse(text.as_bytes()).expect("a good head");
            let (_, head) = parsed.expect("a whole head");
            let pool = pool();
            let (near, _far) = pair();
            Lease::new(pool.clone(), &head, must_close).give_back(near, now);
            let until = pool.lock().last().map(|one| one.until);
            let expected = kept.map(|seconds| now + Duration::from_secs(seconds));
            assert_eq!(until, expected, "{fields:?}");
        }
    }
}
