//! A count of requests that several programs share, in a Redis.
//!
//! ```text
//! check ── asks ─▶ one thread ── a script for each, many in one write ─▶ Redis
//!   └─ waits no longer than ANSWER_WITHIN ◀─ answers ─┘   └ no answer: away, until a new connection has proven itself
//! ```

use std::fmt;
use std::io;
use std::iter;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use redis::{Connection, RedisResult};
use sha2::{Digest, Sha256};

use super::{Throttle, ThrottleKey, Throttled};
use crate::net::peer::Peer;
use crate::net::redis::{RedisUrl, words};

/// Longest that a request waits for an answer: less than 20 ms together with what it takes to wake up.
const ANSWER_WITHIN: Duration = Duration::from_millis(18);

/// Longest that a new connection may take, with the lookup of the name and the login. No request waits for it.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Time between two attempts to connect.
const CONNECT_EVERY: Duration = Duration::from_millis(500);

/// A connection that is not used for so long is tried: a Redis may close those that say nothing, and a request should
/// not be the first to notice.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// Most requests that are asked about in one write.
const MOST_AT_ONCE: usize = 128;

/// Most requests that wait to be asked about.
const MOST_WAITING: usize = 1024;

/// What every key begins with, before the limit's name.
const PREFIX: &str = "plimsoll:throttle:";

/// The generic cell rate algorithm as [`Throttle`] has it, for several limits together: a request counts under all, or,
/// where one refuses it, under none. ARGV has two numbers for each key, in microseconds: the time between two requests at
/// the rate, and how far ahead of now the burst may be. The answer is the place of the limit that refuses, or 0; in how
/// many microseconds it lets a request through; and in how many the whole burst.
///
/// The time is the server's own. It is counted from a later moment than 1970, so that a double holds parts of a
/// microsecond, and it tells microseconds apart: less than half of one is none. A clock that was set back leaves no key
/// further ahead than its burst.
const SCRIPT: &str = "
local time = redis.call('TIME')
local now = (time[1] - 1700000000) * 1000000 + time[2]
local ahead = {}
local function keep(key, ahead)
  redis.call('SET', key, string.format('%.3f', now + ahead), 'PX', math.ceil(ahead / 1000))
end
for i, key in ipairs(KEYS) do
  local interval, window = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local caught_up = tonumber(redis.call('GET', key) or now) or now
  local before = math.min(math.max(caught_up - now, 0), window)
  ahead[i] = before + interval
  if ahead[i] > window + 0.5 then
    if caught_up > now + window then keep(key, window) end
    return {i, math.ceil(ahead[i] - window), math.ceil(before)}
  end
end
for i, key in ipairs(KEYS) do keep(key, ahead[i]) end
return {0, 0, 0}
";

/// A count of requests that several programs share, in a Redis: replicas that each ask it let through together what one
/// would.
///
/// The count is that of [`Throttle`], made by one script in one round trip, by the clock of the Redis. No check waits
/// longer than 20 ms. While the Redis does not answer, every check says so at once; then a [`Throttle`] of each program
/// counts alone. In the Redis each key is text: the name of the limit and an address, or, of a value, which may be a
/// secret, its SHA-256. It is forgotten once it has caught up.
///
/// One thread asks for all, over one connection; it connects anew by itself, and ends with the last clone of this.
///
/// ```
/// use plimsoll::patterns::{SharedCheck, SharedLimit, Throttle, ThrottleKey, ThrottleStore};
/// use std::time::Instant;
///
/// let login = Throttle::new("5/m".parse()?);
/// let store = ThrottleStore::start(&"redis://127.0.0.1:6379".parse()?)?;
///
/// let may_log_in = |key: ThrottleKey<'_>| {
///     // What comes too often here needs no question.
///     if login.check(key, Instant::now()).is_err() {
///         return false;
///     }
///     match store.check(&[SharedLimit { name: "login", throttle: &login, key }]) {
///         SharedCheck::Passed | SharedCheck::Away => true,
///         SharedCheck::Throttled { .. } => {
///             login.give_back(key);
///             false
///         }
///     }
/// };
/// may_log_in(ThrottleKey::Address([192, 0, 2, 1].into()));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ThrottleStore {
    asks: Sender<Ask>,
    state: Arc<StoreState>,
}

/// A limit that is shared under a name.
#[derive(Debug, Clone, Copy)]
pub struct SharedLimit<'a> {
    /// What is counted together: programs that use the same name share a count.
    pub name: &'a str,
    /// The rate and the burst.
    pub throttle: &'a Throttle,
    /// Whose request it is.
    pub key: ThrottleKey<'a>,
}

/// What a [`ThrottleStore`] says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedCheck {
    /// It is let through, and counts under every limit.
    Passed,
    /// A limit refuses it, and it counts under none.
    Throttled {
        /// The place of that limit among those that were given, counted from 0.
        place: usize,
        /// When its key's next request will be let through.
        throttled: Throttled,
    },
    /// The store has not answered in time.
    Away,
}

/// How a [`ThrottleStore`] fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThrottleStoreStatus {
    /// Whether it answers.
    pub is_up: bool,
    /// Checks that were answered by [`SharedCheck::Away`] so far.
    pub unanswered: u64,
}

/// What the thread and those who ask share.
struct StoreState {
    url: RedisUrl,
    is_up: AtomicBool,
    unanswered: AtomicU64,
}

/// A question for the thread.
struct Ask {
    keys: Vec<String>,
    /// For each key the interval and the window, in microseconds.
    numbers: Vec<String>,
    answer: Sender<SharedCheck>,
}

impl ThrottleStore {
    /// Starts the thread that connects and asks. Whether the Redis answers is seen later: until it does, it is away.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(url: &RedisUrl) -> io::Result<Self> {
        let state = Arc::new(StoreState {
            url: url.clone(),
            is_up: AtomicBool::new(false),
            unanswered: AtomicU64::new(0),
        });
        let (asks, asked) = bounded(MOST_WAITING);
        let thread = thread::Builder::new().name("plimsoll-throttle".into());
        let shared = state.clone();
        thread.spawn(move || shared.run(&asked))?;
        Ok(Self { asks, state })
    }

    /// Whether it answers, and how many requests it has not answered for.
    #[must_use]
    pub fn status(&self) -> ThrottleStoreStatus {
        ThrottleStoreStatus {
            is_up: self.state.is_up.load(Ordering::Relaxed),
            unanswered: self.state.unanswered.load(Ordering::Relaxed),
        }
    }

    /// Counts one request under each of these limits, unless one of them refuses it: then it counts under none.
    #[must_use]
    pub fn check(&self, limits: &[SharedLimit<'_>]) -> SharedCheck {
        self.ask(limits).unwrap_or_else(|| {
            self.state.unanswered.fetch_add(1, Ordering::Relaxed);
            SharedCheck::Away
        })
    }

    /// None if there is no answer in time.
    fn ask(&self, limits: &[SharedLimit<'_>]) -> Option<SharedCheck> {
        if !self.state.is_up.load(Ordering::Relaxed) {
            return None;
        }
        let (answer, answered) = bounded(1);
        let ask = Ask {
            keys: limits.iter().map(key_of).collect(),
            numbers: limits.iter().flat_map(numbers_of).collect(),
            answer,
        };
        self.asks.try_send(ask).ok()?;
        let check = answered.recv_timeout(ANSWER_WITHIN).ok()?;
        match check {
            // That answers something else.
            SharedCheck::Throttled { place, .. } if place >= limits.len() => None,
            check => Some(check),
        }
    }
}

impl fmt::Debug for ThrottleStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottleStore")
            .field("url", &self.state.url)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// The key in the Redis.
fn key_of(limit: &SharedLimit<'_>) -> String {
    let whose = match limit.key {
        ThrottleKey::Address(address) => match Peer::from(address) {
            Peer::V4(address) => Ipv4Addr::from_bits(address).to_string(),
            Peer::V6(subnet) => Ipv6Addr::from_bits(u128::from(subnet) << 64).to_string(),
        },
        // Half of it tells values apart as well.
        ThrottleKey::Value(value) => {
            let half = *Sha256::digest(value)
                .first_chunk()
                .expect("it has 32 bytes");
            format!("{:032x}", u128::from_be_bytes(half))
        }
        ThrottleKey::All => "all".to_owned(),
    };
    format!("{PREFIX}{}:{whose}", limit.name)
}

fn numbers_of(limit: &SharedLimit<'_>) -> [String; 2] {
    let Throttle {
        interval, burst, ..
    } = *limit.throttle;
    [interval, interval * u64::from(burst)].map(|nanos| micros(Duration::from_nanos(nanos)))
}

/// Microseconds, with their thousandths.
fn micros(time: Duration) -> String {
    format!("{}.{:03}", time.as_micros(), time.subsec_nanos() % 1000)
}

impl StoreState {
    /// Asks until nobody can ask any more.
    fn run(&self, asked: &Receiver<Ask>) {
        let mut said = None;
        loop {
            let error = match Link::open(&self.url) {
                Ok(mut link) => {
                    self.is_up.store(true, Ordering::Relaxed);
                    if said.replace(true) != Some(true) {
                        log::info!("{}: limits are shared", self.url);
                    }
                    let ended = link.serve(asked);
                    self.is_up.store(false, Ordering::Relaxed);
                    match ended {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if said.replace(false) != Some(false) {
                let why = words(&error);
                log::warn!("{}: {why}; limits hold for this replica alone", self.url);
            }
            let due = Instant::now() + CONNECT_EVERY;
            loop {
                match asked.recv_deadline(due) {
                    // One that asked just before: dropped, it is answered that nobody is there.
                    Ok(_) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }
    }
}

/// A connection on which the script is known.
struct Link {
    connection: Connection,
    /// The script's name.
    script: String,
}

impl Link {
    /// Connects, and has the script count once: a Redis that answers and may not be written to is of no use.
    fn open(url: &RedisUrl) -> RedisResult<Self> {
        let mut connection = url.client()?.get_connection_with_timeout(CONNECT_WITHIN)?;
        connection.set_read_timeout(Some(ANSWER_WITHIN))?;
        connection.set_write_timeout(Some(ANSWER_WITHIN))?;
        let mut load = redis::cmd("SCRIPT");
        let script = load.arg("LOAD").arg(SCRIPT).query(&mut connection)?;
        let mut link = Self { connection, script };
        let (answer, _) = bounded(1);
        link.count(&[Ask {
            keys: vec![PREFIX.to_owned()],
            numbers: vec![micros(Duration::from_micros(1)), micros(ANSWER_WITHIN)],
            answer,
        }])?;
        Ok(link)
    }

    /// Asks for all who ask, until nobody can any more.
    fn serve(&mut self, asked: &Receiver<Ask>) -> RedisResult<()> {
        loop {
            match asked.recv_timeout(TRY_EVERY) {
                Ok(first) => {
                    let all = iter::once(first).chain(asked.try_iter());
                    let all: Vec<Ask> = all.take(MOST_AT_ONCE).collect();
                    self.count(&all)?;
                }
                Err(RecvTimeoutError::Timeout) => {
                    redis::cmd("PING").query::<String>(&mut self.connection)?;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Has the script count for each of these.
    fn count(&mut self, asks: &[Ask]) -> RedisResult<()> {
        let mut pipeline = redis::Pipeline::with_capacity(asks.len());
        for ask in asks {
            let command = pipeline.cmd("EVALSHA").arg(&self.script);
            command.arg(ask.keys.len()).arg(&ask.keys).arg(&ask.numbers);
        }
        let answers: Vec<(usize, u64, u64)> = pipeline.query(&mut self.connection)?;
        for (ask, (refusing, retry_after, reset)) in asks.iter().zip(answers) {
            let check = match refusing.checked_sub(1) {
                None => SharedCheck::Passed,
                Some(place) => SharedCheck::Throttled {
                    place,
                    throttled: Throttled {
                        retry_after: Duration::from_micros(retry_after),
                        reset: Duration::from_micros(reset),
                    },
                },
            };
            // Who waits no longer has counted by himself.
            let _ = ask.answer.try_send(check);
        }
        Ok(())
    }
}
