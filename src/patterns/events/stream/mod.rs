//! Events in a stream of redis, for more than one machine.

mod store;
mod url;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::error::{EventError, EventOpenError};
use super::event::{DeadLetter, Death, Delivery, Event, EventId, Outcome, milliseconds, time};
use super::log::lock;
use super::queue::{EventStats, join};
use super::schedule::{self, JITTER};
use super::settings::EventSettings;
use crate::panics::catch;
use crate::random::uniform;
pub(crate) use store::Store;
use store::{Entry, Sizes};
pub use url::EventStreamUrl;

/// How often events are looked for that another replica has not finished, and how often sizes are asked for.
const LOOK: Duration = Duration::from_millis(250);
const MEASURE: Duration = Duration::from_secs(1);

/// How long redis is left alone after it failed.
const REST: Duration = Duration::from_secs(1);

/// Calls of one search for events to take over: each looks at about ten.
const CALLS: usize = 100;

/// How long a stream that is dropped waits for what is being delivered.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// A queue of events in [streams of redis](https://redis.io/docs/latest/develop/data-types/streams/), which several
/// processes on several machines publish to and deliver from. Redis 6.2 or later.
///
/// It promises less than an [`EventQueue`](super::EventQueue):
///
/// | | `EventQueue`: a directory | `EventStream`: redis |
/// |---|---|---|
/// | accepted means | on this machine's disk | what redis's own settings say: with `appendfsync always` on its disk; with `everysec` the last second may be lost, without `appendonly` everything; a failover loses what the other redis had not got |
/// | delivered | at least once, by this process | at least once, by any replica |
/// | more than once | after a kill: what was on its way | that too, and when an attempt takes longer than `takeover`, or redis is gone when it is to hear of the delivery |
/// | order | within a key | none |
/// | a producer that repeats its key | one event | two events |
/// | waits after failed attempts | as `delays` says, over restarts | as `delays` says up to `takeover`, and `takeover` instead of longer ones; a dead letter after as many attempts, once it is as old as all `delays` together |
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
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    store: Store,
    settings: EventSettings,
    state: Mutex<State>,
    /// The stream stops, or the consumer may be there again.
    changed: Condvar,
    /// Who searches for events to take over: where to go on, and when. One at a time.
    search: Mutex<Search>,
    accepted: AtomicU64,
    delivered: AtomicU64,
    retried: AtomicU64,
    died: AtomicU64,
    failures: AtomicU64,
}

#[derive(Default)]
struct State {
    stopping: bool,
    pause: Option<Pause>,
    sizes: Sizes,
    /// Why redis could not be asked, if that was so the last time.
    failing: Option<EventError>,
    dead_full: bool,
}

/// The consumer cannot be reached.
#[derive(Clone, Copy)]
struct Pause {
    until: Instant,
    wait: Duration,
    /// One event is out to see whether it is there again.
    trial: bool,
}

struct Search {
    from: String,
    due: Instant,
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
        let store = Store::new(url, settings.patience)?;
        let now = Instant::now();
        let search = Search {
            from: "0-0".to_owned(),
            due: now,
        };
        let shared = Arc::new(Shared {
            store,
            settings,
            state: Mutex::default(),
            changed: Condvar::new(),
            search: Mutex::new(search),
            accepted: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            died: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        });
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

impl Shared {
    /// Delivers until the stream stops.
    fn run(&self, deliver: &dyn Fn(&Delivery) -> Outcome) {
        while let Some(trial) = self.may_go() {
            match self.heard(self.next()) {
                Ok(Some(entry)) => self.attempt(&entry, deliver),
                Ok(None) => self.end_trial(trial),
                Err(_) => {
                    self.end_trial(trial);
                    self.sleep(REST);
                }
            }
        }
    }

    /// Waits while the consumer cannot be reached. Whether what goes next is to see if it can. `None` once the stream
    /// stops.
    fn may_go(&self) -> Option<bool> {
        let mut state = lock(&self.state);
        loop {
            if state.stopping {
                return None;
            }
            let Some(pause) = &mut state.pause else {
                return Some(false);
            };
            let left = pause.until.saturating_duration_since(Instant::now());
            if left.is_zero() && !pause.trial {
                pause.trial = true;
                return Some(true);
            }
            let longest = if pause.trial { MEASURE } else { left };
            (state, _) = self
                .changed
                .wait_timeout(state, longest)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// There was nothing to see it by.
    fn end_trial(&self, trial: bool) {
        if let Some(pause) = lock(&self.state).pause.as_mut().filter(|_| trial) {
            pause.trial = false;
        }
    }

    /// An event for this replica: one that was given away and not finished in time, or else a new one.
    fn next(&self) -> Result<Option<Entry>, EventError> {
        if let Ok(mut search) = self.search.try_lock()
            && search.due <= Instant::now()
        {
            for _ in 0..CALLS {
                let takeover = self.settings.takeover;
                let (entry, next) = self.store.take_over(takeover, &search.from)?;
                if next.is_none() {
                    search.due = Instant::now() + LOOK;
                }
                search.from = next.unwrap_or_else(|| "0-0".to_owned());
                if entry.is_some() {
                    return Ok(entry);
                }
                if search.due > Instant::now() {
                    break;
                }
            }
        }
        self.store.read()
    }

    fn attempt(&self, entry: &Entry, deliver: &dyn Fn(&Delivery) -> Outcome) {
        let delivery = Delivery {
            id: entry.id,
            attempt: entry.attempt,
            accepted: time(entry.accepted),
            event: entry.event.clone(),
        };
        let outcome = catch(|| deliver(&delivery)).unwrap_or_else(|_| Outcome::Failed {
            reason: "the delivery panicked".to_owned(),
            retry_after: None,
        });
        let settled = match outcome {
            Outcome::Delivered => {
                self.reached();
                self.delivered.fetch_add(1, Ordering::Relaxed);
                self.store.done(&entry.place)
            }
            Outcome::Rejected { reason } => {
                self.reached();
                self.bury(entry, reason)
            }
            Outcome::Failed {
                reason,
                retry_after,
            } => {
                self.reached();
                if self.was_last(entry) {
                    self.bury(entry, reason)
                } else {
                    self.retried.fetch_add(1, Ordering::Relaxed);
                    self.repeat(entry, retry_after)
                }
            }
            Outcome::Unreachable => {
                let wait = self.unreachable();
                self.give_back(entry, entry.attempt.saturating_sub(1), wait)
            }
        };
        if let Err(error) = self.heard(settled) {
            // It is taken over when its time has come.
            log::warn!(
                "redis does not know what came of event {}: {error}",
                entry.id
            );
        }
    }

    /// Whether an event has had its attempts, and the time that they should have taken.
    fn was_last(&self, entry: &Entry) -> bool {
        let delays = &self.settings.delays;
        let all: Duration = delays.iter().sum();
        let age = time(entry.accepted).elapsed().unwrap_or_default();
        entry.attempt as usize > delays.len() && age >= all
    }

    /// Has an event taken over by any replica after this time, or after the longest that they wait for each other.
    fn give_back(&self, entry: &Entry, attempts: u32, wait: Duration) -> Result<(), EventError> {
        let ago = self.settings.takeover.saturating_sub(wait);
        self.store.give_back(&entry.place, attempts, ago)
    }

    /// Has an event tried again when its next attempt is due.
    fn repeat(&self, entry: &Entry, retry_after: Option<Duration>) -> Result<(), EventError> {
        let EventSettings {
            delays, takeover, ..
        } = &self.settings;
        let step = (entry.attempt as usize).min(delays.len()).saturating_sub(1);
        let delay = delays.get(step).copied().unwrap_or(*takeover);
        let delay = delay.mul_f64(1.0 + JITTER * (2.0 * uniform() - 1.0));
        let wait = delay.max(retry_after.unwrap_or_default());
        self.give_back(entry, entry.attempt, wait)
    }

    fn bury(&self, entry: &Entry, reason: String) -> Result<(), EventError> {
        let death = Death {
            at: milliseconds(SystemTime::now()),
            sequence: 0,
            attempts: entry.attempt,
            reason,
        };
        let buried = self.store.bury(entry, &death);
        lock(&self.state).dead_full = matches!(buried, Err(EventError::Full));
        // It stays where it is then, and is taken over when its time has come.
        buried?;
        self.died.fetch_add(1, Ordering::Relaxed);
        log::warn!(
            "event {} is a dead letter after {} attempt(s): {}",
            entry.id,
            entry.attempt,
            death.reason
        );
        Ok(())
    }

    /// The consumer has answered.
    fn reached(&self) {
        if lock(&self.state).pause.take().is_some() {
            self.changed.notify_all();
        }
    }

    /// The consumer could not be reached. How long it is left alone.
    fn unreachable(&self) -> Duration {
        let mut state = lock(&self.state);
        let wait = match state.pause {
            None => schedule::FIRST_PAUSE,
            Some(pause) if pause.trial => (2 * pause.wait).min(schedule::LONGEST_PAUSE),
            // It went before the pause began.
            Some(pause) => return pause.wait,
        };
        state.pause = Some(Pause {
            until: Instant::now() + wait,
            wait,
            trial: false,
        });
        wait
    }

    /// Keeps whether redis could be asked, and says so when that changes.
    fn heard<T>(&self, result: Result<T, EventError>) -> Result<T, EventError> {
        let error = match &result {
            Err(error @ (EventError::Io(_) | EventError::TimedOut)) => Some(error.clone()),
            _ => None,
        };
        let mut state = lock(&self.state);
        if let Some(error) = &error {
            self.failures.fetch_add(1, Ordering::Relaxed);
            if state.failing.is_none() {
                log::error!("redis cannot keep or give events: {error}");
            }
        } else if state.failing.is_some() {
            log::info!("redis keeps and gives events again");
        }
        state.failing = error;
        drop(state);
        result
    }

    /// Asks once a second how much there is.
    fn measure(&self, url: &EventStreamUrl) {
        let mut begun = false;
        loop {
            if !begun {
                begun = self.heard(self.store.begin()).is_ok();
                if begun {
                    self.look_at_durability(url);
                }
            }
            if begun && let Ok(sizes) = self.heard(self.store.sizes()) {
                lock(&self.state).sizes = sizes;
            }
            if !self.sleep(MEASURE) {
                return;
            }
        }
    }

    /// Says so if redis may lose what it has accepted.
    fn look_at_durability(&self, url: &EventStreamUrl) {
        let lost = match self.store.durability() {
            Some([appendonly, _]) if appendonly != "yes" => "all events (appendonly is not yes)",
            Some([_, appendfsync]) if appendfsync != "always" => {
                "the events of the last second or more (appendfsync is not always)"
            }
            Some(_) | None => return,
        };
        log::warn!("{url}: if redis ends suddenly, it loses {lost}");
    }

    /// Whether the stream did not stop meanwhile.
    fn sleep(&self, longest: Duration) -> bool {
        let deadline = Instant::now() + longest;
        let mut state = lock(&self.state);
        while !state.stopping {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            (state, _) = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        false
    }
}
