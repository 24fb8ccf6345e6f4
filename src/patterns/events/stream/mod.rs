//! Events in a stream of redis, for more than one machine.

mod replica;
mod store;
mod url;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::error::{EventError, EventOpenError};
use super::event::{DeadLetter, Delivery, Event, EventId, Outcome, milliseconds, time};
use super::queue::{EventStats, join};
use super::settings::EventSettings;
use crate::panics::lock;
use replica::Replica;
use store::Sizes;
pub(crate) use store::Store;
pub use url::EventStreamUrl;

/// How long a stream that is dropped waits for what is being delivered.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// A queue of events in [streams of redis](https://redis.io/docs/latest/develop/data-types/streams/), which several
/// processes on several machines publish to and deliver from. Redis 6.2 or later.
///
/// It promises less than an [`EventQueue`](super::EventQueue):
///
/// | | `EventQueue`: a directory | `EventStream`: redis |
/// |---|---|---|
/// | accepted means | on this machine's disk | what redis's own settings say: with `appendfsync always` on its disk; with `everysec` the last second may be lost, without `appendonly` everything; a failover loses what the other redis had not got; with an `allkeys` `maxmemory-policy` a full one drops all |
/// | delivered | at least once, by this process | at least once, by any replica |
/// | more than once | after a kill: what was on its way | that too, and when an attempt takes longer than `takeover`, or redis is gone when it is to hear of the delivery |
/// | order | within a key | none |
/// | a producer that repeats its key | one event | two events |
/// | waits after failed attempts | as `delays` says, over restarts | as `delays` says up to `takeover`, and `takeover` instead of longer ones; a dead letter after as many attempts, and more until all waits together are as long as all `delays` |
/// | limit | `max_bytes`, exactly | `max_bytes`, looked at once a second, and redis's `maxmemory` |
/// | dead letters | a quarter of `max_bytes` | a stream of their own, `STREAM:dead`, within the same limit |
///
/// Each event is an entry with the fields `id`, `accepted`, `topic`, `key`, `attributes` and `body`. The replicas are one
/// group of consumers. An event that a replica was given, and did not finish within `takeover`, is taken over by another,
/// and that counts as another attempt.
///
/// # Example
///
/// ```no_run
/// use plimsoll::patterns::{Event, EventSettings, EventStream, Outcome};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let stream = EventStream::open(&"redis://127.0.0.1/orders".parse()?, EventSettings::default())?;
/// stream.deliver(|delivery| {
///     println!("{}", delivery.id);
///     Outcome::Delivered
/// })?;
/// stream.publish(&Event { topic: "/orders".to_owned(), ..Event::default() })?;
/// # Ok(())
/// # }
/// ```
pub struct EventStream {
    shared: Arc<Replica>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl EventStream {
    /// Takes part in the queue that a URL names.
    ///
    /// Redis need not be there yet; until it is, no event is accepted.
    ///
    /// # Errors
    ///
    /// When a setting is out of its bounds, or the system refuses a thread or random numbers.
    pub fn open(url: &EventStreamUrl, settings: EventSettings) -> Result<Self, EventOpenError> {
        settings.check_parallel()?;
        let shared = Arc::new(Replica::new(url, settings)?);
        let (measuring, url) = (Arc::clone(&shared), url.clone());
        let thread = thread::Builder::new()
            .name("events redis".to_owned())
            .spawn(move || measuring.measure(&url))?;
        Ok(Self {
            shared,
            threads: Mutex::new(vec![thread]),
        })
    }

    /// Takes an event. When this returns, redis has it.
    ///
    /// # Errors
    ///
    /// When there is no room, the event is too large, redis cannot be asked or fails, or the stream is stopping. If its
    /// reply did not come, the event may have been kept.
    pub fn publish(&self, event: &Event) -> Result<EventId, EventError> {
        let shared = &self.shared;
        shared.settings.check_size(event)?;
        {
            let state = lock(&shared.state);
            if state.stopping {
                return Err(EventError::Stopped);
            }
            if state.sizes.bytes >= shared.settings.max_bytes {
                return Err(EventError::Full);
            }
        }
        shared.begin()?;
        let id = EventId::random()?;
        let accepted = milliseconds(SystemTime::now());
        let added = shared.store.add(id, accepted, event);
        shared.heard(added)?;
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(id)
    }

    /// Starts the threads that deliver: as many as the setting `parallel` says. See
    /// [`EventQueue::deliver`](super::EventQueue::deliver).
    ///
    /// # Errors
    ///
    /// When the system refuses a thread. Those that have been started go on.
    pub fn deliver(
        &self,
        deliver: impl Fn(&Delivery) -> Outcome + Send + Sync + 'static,
    ) -> std::io::Result<()> {
        let deliver = Arc::new(deliver);
        for _ in 0..self.shared.settings.parallel {
            let (shared, deliver) = (Arc::clone(&self.shared), Arc::clone(&deliver));
            let thread = thread::Builder::new()
                .name("events".to_owned())
                .spawn(move || shared.run(&*deliver))?;
            lock(&self.threads).push(thread);
        }
        Ok(())
    }

    /// Numbers: what was counted is of this replica, and what there is of all. The latter are asked for once a second.
    #[must_use]
    pub fn stats(&self) -> EventStats {
        let shared = &self.shared;
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let state = lock(&shared.state);
        let ago = |at| time(at).elapsed().unwrap_or_default();
        let Sizes {
            events,
            letters,
            oldest,
            oldest_letter,
            bytes,
        } = state.sizes;
        EventStats {
            accepted: count(&shared.accepted),
            delivered: count(&shared.delivered),
            retried: count(&shared.retried),
            dead: count(&shared.died),
            backlog: events,
            oldest: oldest.map(ago),
            dead_letters: letters,
            oldest_dead: oldest_letter.map(ago),
            bytes,
            unreachable: state.pause.is_some(),
            dead_full: state.dead_full,
            failing: state.failing.is_some(),
            failures: count(&shared.failures),
            ..EventStats::default()
        }
    }

    /// The ids of all dead letters, the oldest first.
    ///
    /// # Errors
    ///
    /// When redis cannot be asked.
    pub fn dead_letters(&self) -> Result<Vec<EventId>, EventError> {
        self.shared.store.letters()
    }

    /// One dead letter.
    ///
    /// # Errors
    ///
    /// When there is none with this id, or redis cannot be asked.
    pub fn dead_letter(&self, id: EventId) -> Result<DeadLetter, EventError> {
        self.shared.store.letter(id)
    }

    /// Queues a dead letter again, behind all that wait, with its id and without its attempts.
    ///
    /// # Errors
    ///
    /// When there is none with this id, there is no room, or redis cannot be asked.
    pub fn replay(&self, id: EventId) -> Result<(), EventError> {
        self.shared.store.replay(id)
    }

    /// Forgets a dead letter for good.
    ///
    /// # Errors
    ///
    /// When there is none with this id, or redis cannot be asked.
    pub fn purge(&self, id: EventId) -> Result<(), EventError> {
        self.shared.store.purge(id)
    }

    /// Takes no more events, starts no more deliveries, and waits for those that are being made. Whether all had ended
    /// within this time; what had not is taken over by another replica, or by the next start.
    pub fn stop(&self, longest: Duration) -> bool {
        lock(&self.shared.state).stopping = true;
        self.shared.changed.notify_all();
        join(&self.threads, Instant::now() + longest)
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.stop(LAST_WAIT);
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
