//! What is asked of redis, and how its replies read.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::{Cmd, Connection, FromRedisValue, RedisError, RedisResult, cmd, pipe};

use super::super::error::EventError;
use super::super::event::{self, DeadLetter, Death, Event, EventId, time};
use super::url::EventStreamUrl;
use crate::net::redis::words;
use crate::panics::lock;

/// The group of all replicas: each entry of the stream goes to one of them.
const GROUP: &str = "plimsoll";

/// Longest that connecting may take.
const CONNECT: Duration = Duration::from_secs(1);

/// Longest that redis is asked to wait for a new entry.
const BLOCK: Duration = Duration::from_millis(500);

/// Dead letters that are read at once. Each may be as large as an event.
const PAGE: usize = 16;

/// Forgets replicas of which nothing was heard for an hour, and which have nothing. One that has keeps it until others
/// have taken it.
const FORGET: &str =
    "for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local it = {}
    for at = 1, #consumer, 2 do it[consumer[at]] = consumer[at + 1] end
    if it.pending == 0 and it.idle > 3600000 then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], it.name)
    end
end";

/// Deletes an event that is over. A redis without memory takes no transaction, not even one that makes room; it takes this.
const OVER: &str = "redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])";

/// Begins a script about an event that this replica was given: what follows is done only if it was not taken over since.
/// KEYS has the stream; ARGV the group, the place, the replica, and how often it had been given to a replica.
macro_rules! if_held {
    ($then:literal) => {
        concat!(
            "local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1)[1]
            if not held or held[2] ~= ARGV[3] or held[4] ~= tonumber(ARGV[4]) then return 0 end\n",
            $then
        )
    };
}

/// Gives an event back: as if it had been given away so many milliseconds ago, and so often.
const GIVE_BACK: &str = if_held!(
    "redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, ARGV[2],
    'IDLE', ARGV[5], 'RETRYCOUNT', ARGV[6], 'JUSTID')
return 1"
);

/// Moves an event to the dead letters. Adding comes first, as it can fail.
const BURY: &str = if_held!(
    "redis.call('XADD', KEYS[2], '*', unpack(ARGV, 5))
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])"
);

/// Moves a dead letter to the end of the stream, unless another has moved it already.
const REPLAY: &str = "if #redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1]) == 0 then return 0 end
redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
return redis.call('XDEL', KEYS[2], ARGV[1])";

/// An event that has been given to this replica.
#[derive(Debug)]
pub(super) struct Entry {
    /// What it is called in the stream: the time at which it came there, and a number.
    pub(super) place: String,
    pub(super) id: EventId,
    /// When it was accepted, in milliseconds since 1970.
    pub(super) accepted: u64,
    /// How often it has been given to a replica, this time included.
    pub(super) attempt: u32,
    pub(super) event: Event,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    pub(super) events: usize,
    pub(super) letters: usize,
    /// When the first of each came to its stream, in milliseconds since 1970.
    pub(super) oldest: Option<u64>,
    pub(super) oldest_letter: Option<u64>,
    /// Bytes of memory that redis has for both.
    pub(super) bytes: u64,
}

type Fields = HashMap<String, Vec<u8>>;

/// What a read gives: entries, whose fields are missing if they were deleted meanwhile.
type Entries = Vec<(String, Option<Fields>)>;

/// The same by stream; nothing if there was nothing to read.
type Streams = Option<Vec<(String, Entries)>>;

/// How many entries a stream has, how many bytes, and the first of them.
type Measures = (usize, Option<u64>, Entries);

/// A dead letter, and where it stands in its stream.
type Found = (String, DeadLetter);

/// The two streams of a queue, and connections that nobody uses at the moment.
pub(crate) struct Store {
    client: redis::Client,
    stream: String,
    dead: String,
    /// What this replica is called.
    name: String,
    idle: Mutex<Vec<Connection>>,
    /// Where the dead letters stood that were listed last: who lists them asks for each of them next.
    places: Mutex<HashMap<EventId, String>>,
    patience: Duration,
}

impl Store {
    pub(crate) fn new(url: &EventStreamUrl, patience: Duration) -> io::Result<Self> {
        let client = url.server.client();
        Ok(Self {
            client: client.map_err(|error| io::Error::other(words(&error)))?,
            stream: url.stream.clone(),
            dead: format!("{}:dead", url.stream),
            name: EventId::random()?.to_string(),
            idle: Mutex::default(),
            places: Mutex::default(),
            patience,
        })
    }

    /// Asks by a connection that is there, or by a new one.
    fn ask<T>(
        &self,
        question: impl Fn(&mut Connection) -> RedisResult<T>,
    ) -> Result<T, EventError> {
        let idle = lock(&self.idle).pop();
        if let Some(connection) = idle {
            match self.ask_by(connection, &question) {
                // It was closed while nobody used it, and so were the others. What redis may have done nevertheless is
                // done twice: at least once is what it promises.
                Err(error) if error.is_connection_dropped() => lock(&self.idle).clear(),
                result => return result.map_err(|error| failed(&error)),
            }
        }
        let connection = self
            .connect()
            .map_err(|error| failure(&error, words(&error)))?;
        self.ask_by(connection, &question)
            .map_err(|error| failed(&error))
    }

    fn connect(&self) -> RedisResult<Connection> {
        let connection = self.client.get_connection_with_timeout(CONNECT)?;
        connection.set_read_timeout(Some(self.patience + BLOCK))?;
        connection.set_write_timeout(Some(self.patience))?;
        Ok(connection)
    }

    fn ask_by<T>(
        &self,
        mut connection: Connection,
        question: impl Fn(&mut Connection) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let result = question(&mut connection);
        // A reply that comes too late would be taken for the next one's.
        let usable = result
            .as_ref()
            .map_or_else(|error| !error.is_io_error(), |_| true);
        if usable {
            lock(&self.idle).push(connection);
        }
        result
    }

    fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, EventError> {
        self.ask(|connection| command.query(connection))
    }

    /// Adds an event.
    pub(super) fn add(&self, id: EventId, accepted: u64, event: &Event) -> Result<(), EventError> {
        let mut command = cmd("XADD");
        command.arg(&self.stream).arg("*");
        command.arg(fields(id, accepted, event));
        self.query::<String>(&command).map(drop)
    }

    /// Makes the group of replicas, of which this becomes one, if it is not there.
    pub(super) fn begin(&self) -> Result<(), EventError> {
        let mut command = cmd("XGROUP");
        command.arg("CREATE").arg(&self.stream).arg(GROUP).arg("0");
        command.arg("MKSTREAM");
        self.ask(|connection| match command.exec(connection) {
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            made => made,
        })?;
        let mut forget = cmd("EVAL");
        forget.arg(FORGET).arg(1).arg(&self.stream).arg(GROUP);
        self.ask(|connection| forget.exec(connection))
    }

    /// A setting of redis, if it may be asked.
    pub(super) fn setting(&self, name: &str) -> Option<String> {
        let mut command = cmd("CONFIG");
        command.arg("GET").arg(name);
        let found: HashMap<String, String> = self.query(&command).ok()?;
        found.into_values().next()
    }

    /// Asks something of the group. `None` if it was not there, as after all data was deleted; then it is made.
    fn query_group<T: FromRedisValue>(&self, command: &Cmd) -> Result<Option<T>, EventError> {
        let reply = self.ask(|connection| match command.query(connection) {
            Err(error) if error.code() == Some("NOGROUP") => Ok(None),
            reply => reply.map(Some),
        })?;
        if reply.is_none() {
            self.begin()?;
        }
        Ok(reply)
    }

    /// Waits for an entry that no replica has been given yet.
    pub(super) fn read(&self) -> Result<Option<Entry>, EventError> {
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.name);
        command.arg("COUNT").arg(1);
        command.arg("BLOCK").arg(milliseconds(BLOCK));
        command.arg("STREAMS").arg(&self.stream).arg(">");
        let found: Option<Streams> = self.query_group(&command)?;
        let streams = found.flatten().into_iter().flatten();
        let entries = streams.flat_map(|(_, entries)| entries);
        Ok(self.first(entries.collect(), 1))
    }

    /// Takes over an entry that some replica was given at least `idle` ago, looking at a few from a place on. Where to
    /// go on, if that is not the end.
    pub(super) fn take_over(
        &self,
        idle: Duration,
        from: &str,
    ) -> Result<(Option<Entry>, Option<String>), EventError> {
        let mut command = cmd("XAUTOCLAIM");
        command.arg(&self.stream).arg(GROUP).arg(&self.name);
        command.arg(milliseconds(idle)).arg(from);
        command.arg("COUNT").arg(1);
        // Since version 7 also the places of those that were deleted.
        let Some(reply) = self.query_group::<Vec<redis::Value>>(&command)? else {
            return Ok((None, None));
        };
        let mut reply = reply.into_iter();
        let mut part = || reply.next().unwrap_or_default();
        let read = |error: redis::ParsingError| failed(&error.into());
        let next = String::from_redis_value(part()).map_err(read)?;
        let entries = Entries::from_redis_value(part()).map_err(read)?;
        let next = Some(next).filter(|next| next != "0-0");
        let Some((place, _)) = entries.first() else {
            return Ok((None, next));
        };
        let mut command = cmd("XPENDING");
        command.arg(&self.stream).arg(GROUP);
        command.arg(place).arg(place).arg(1);
        let pending: Vec<(String, String, u64, u32)> = self.query(&command)?;
        let attempt = pending.first().map_or(1, |(_, _, _, count)| *count);
        Ok((self.first(entries, attempt), next))
    }

    /// The event in the first of these. What was deleted, and what is no event, would come again and again.
    fn first(&self, entries: Entries, attempt: u32) -> Option<Entry> {
        let (place, fields) = entries.into_iter().next()?;
        let entry = fields
            .as_ref()
            .and_then(|fields| entry(&place, fields, attempt));
        if entry.is_none() {
            if fields.is_some() {
                log::error!(
                    "{place} of the stream {} is no event, and deleted",
                    self.stream
                );
            }
            if let Err(error) = self.done(&place) {
                log::warn!(
                    "{place} of the stream {} cannot be deleted: {error}",
                    self.stream
                );
            }
        }
        entry
    }

    /// An event is over.
    pub(super) fn done(&self, place: &str) -> Result<(), EventError> {
        let mut command = cmd("EVAL");
        command.arg(OVER).arg(1).arg(&self.stream);
        command.arg(GROUP).arg(place);
        self.ask(|connection| command.exec(connection))
    }

    /// Gives an event back: it was given away so many times, the last time so long ago. Whether it was still this
    /// replica's.
    pub(super) fn give_back(
        &self,
        entry: &Entry,
        attempts: u32,
        ago: Duration,
    ) -> Result<bool, EventError> {
        let mut command = self.held(GIVE_BACK, &[&self.stream], entry);
        command.arg(milliseconds(ago)).arg(attempts);
        self.query(&command)
    }

    /// Makes an event a dead letter. Whether it was still this replica's.
    pub(super) fn bury(&self, entry: &Entry, death: &Death) -> Result<bool, EventError> {
        let mut command = self.held(BURY, &[&self.stream, &self.dead], entry);
        command.arg(fields(entry.id, entry.accepted, &entry.event));
        command.arg(&[
            ("died", death.at.to_string()),
            ("attempts", death.attempts.to_string()),
            ("reason", death.reason.clone()),
        ]);
        self.query(&command)
    }

    /// A script that begins as [`if_held`] does.
    fn held(&self, script: &str, keys: &[&str], entry: &Entry) -> Cmd {
        let mut command = cmd("EVAL");
        command.arg(script).arg(keys.len()).arg(keys);
        command.arg(GROUP).arg(&entry.place);
        command.arg(&self.name).arg(entry.attempt);
        command
    }

    /// How much there is.
    pub(super) fn sizes(&self) -> Result<Sizes, EventError> {
        let measures = |stream: &str| {
            let mut commands = pipe();
            commands.cmd("XLEN").arg(stream);
            commands.cmd("MEMORY").arg("USAGE").arg(stream);
            commands.cmd("XRANGE").arg(stream).arg("-").arg("+");
            commands.arg("COUNT").arg(1);
            self.ask(|connection| commands.query::<Measures>(connection))
        };
        let (events, letters) = (measures(&self.stream)?, measures(&self.dead)?);
        let oldest = |entries: &Entries| entries.first().and_then(|(place, _)| came(place));
        Ok(Sizes {
            events: events.0,
            letters: letters.0,
            oldest: oldest(&events.2),
            oldest_letter: oldest(&letters.2),
            bytes: events.1.unwrap_or(0) + letters.1.unwrap_or(0),
        })
    }

    /// Whether there is one of the streams.
    pub(crate) fn exists(&self) -> Result<bool, EventError> {
        let mut command = cmd("EXISTS");
        command.arg(&self.stream).arg(&self.dead);
        self.query::<usize>(&command).map(|count| count > 0)
    }

    /// The ids of all dead letters, the oldest first.
    pub(crate) fn letters(&self) -> Result<Vec<EventId>, EventError> {
        let (mut ids, mut places) = (Vec::new(), HashMap::new());
        self.look(|(place, letter)| {
            ids.push(letter.id);
            places.insert(letter.id, place.clone());
            false
        })?;
        *lock(&self.places) = places;
        Ok(ids)
    }

    /// One of them.
    pub(crate) fn letter(&self, id: EventId) -> Result<DeadLetter, EventError> {
        self.find(id).map(|(_, letter)| letter)
    }

    /// Queues one again.
    pub(crate) fn replay(&self, id: EventId) -> Result<(), EventError> {
        let (place, letter) = self.find(id)?;
        let mut command = cmd("EVAL");
        command.arg(REPLAY).arg(2).arg(&self.stream).arg(&self.dead);
        let accepted = event::milliseconds(letter.accepted);
        command.arg(place);
        command.arg(fields(letter.id, accepted, &letter.event));
        self.query::<bool>(&command)?
            .then_some(())
            .ok_or(EventError::Unknown)
    }

    /// Forgets one.
    pub(crate) fn purge(&self, id: EventId) -> Result<(), EventError> {
        let (place, _) = self.find(id)?;
        let mut command = cmd("XDEL");
        command.arg(&self.dead).arg(place);
        self.query::<bool>(&command)?
            .then_some(())
            .ok_or(EventError::Unknown)
    }

    fn find(&self, id: EventId) -> Result<Found, EventError> {
        let is_it = |(_, letter): &Found| letter.id == id;
        let listed = lock(&self.places).get(&id).cloned();
        if let Some(place) = listed {
            let (_, letters) = self.page(&place, &place)?;
            if let Some(found) = letters.into_iter().find(is_it) {
                return Ok(found);
            }
        }
        self.look(is_it)?.ok_or(EventError::Unknown)
    }

    /// Looks at each dead letter, the oldest first, for one.
    fn look(&self, mut is_it: impl FnMut(&Found) -> bool) -> Result<Option<Found>, EventError> {
        let mut from = "-".to_owned();
        loop {
            let (last, letters) = self.page(&from, "+")?;
            if let Some(found) = letters.into_iter().find(&mut is_it) {
                return Ok(Some(found));
            }
            let Some(last) = last else {
                return Ok(None);
            };
            // Behind it.
            from = format!("({last}");
        }
    }

    /// The first dead letters from one place to another, and the place of the last entry that was read.
    fn page(&self, from: &str, to: &str) -> Result<(Option<String>, Vec<Found>), EventError> {
        let mut command = cmd("XRANGE");
        command.arg(&self.dead).arg(from).arg(to);
        command.arg("COUNT").arg(PAGE);
        let page: Entries = self.query(&command)?;
        let last = page.last().map(|(place, _)| place.clone());
        let letters = page.into_iter().filter_map(|(place, fields)| {
            let letter = letter(&place, &fields?)?;
            Some((place, letter))
        });
        Ok((last, letters.collect()))
    }
}

/// Without the client, which has a password.
impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("stream", &self.stream)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn fields(id: EventId, accepted: u64, event: &Event) -> Vec<(&'static str, Vec<u8>)> {
    let mut fields = vec![
        ("id", id.to_string().into_bytes()),
        ("accepted", accepted.to_string().into_bytes()),
        ("topic", event.topic.clone().into_bytes()),
        ("attributes", event.attributes.clone()),
        ("body", event.body.clone()),
    ];
    fields.extend(event.key.clone().map(|key| ("key", key.into_bytes())));
    fields
}

fn text(fields: &Fields, name: &str) -> Option<String> {
    String::from_utf8(fields.get(name)?.clone()).ok()
}

fn number<T: std::str::FromStr>(fields: &Fields, name: &str) -> Option<T> {
    text(fields, name)?.parse().ok()
}

fn entry(place: &str, fields: &Fields, attempt: u32) -> Option<Entry> {
    Some(Entry {
        place: place.to_owned(),
        id: number(fields, "id")?,
        accepted: number(fields, "accepted")?,
        attempt,
        event: Event {
            topic: text(fields, "topic")?,
            key: text(fields, "key"),
            idempotency_key: None,
            attributes: fields.get("attributes")?.clone(),
            body: fields.get("body")?.clone(),
        },
    })
}

fn letter(place: &str, fields: &Fields) -> Option<DeadLetter> {
    let entry = entry(place, fields, 0)?;
    Some(DeadLetter {
        id: entry.id,
        accepted: time(entry.accepted),
        died: time(number(fields, "died")?),
        attempts: number(fields, "attempts")?,
        reason: text(fields, "reason")?,
        event: entry.event,
    })
}

/// When an entry came to its stream: redis names it so.
fn came(place: &str) -> Option<u64> {
    place.split_once('-')?.0.parse().ok()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a question came to that failed.
fn failed(error: &RedisError) -> EventError {
    failure(error, error.to_string())
}

/// That redis has no memory left is said as a full disk is; the rest as a failing one.
fn failure(error: &RedisError, text: String) -> EventError {
    // Within a script redis 6.2 has no code for it.
    let is_full = error.code() == Some("OOM") || text.contains("OOM command not allowed");
    if is_full {
        EventError::Full
    } else if error.is_timeout() {
        EventError::TimedOut
    } else {
        EventError::Io(Arc::new(io::Error::other(text)))
    }
}
