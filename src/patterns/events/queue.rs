//! The queue, put together.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::control::Control;
use super::dead::Dead;
use super::deliver;
use super::error::{EventDamage, EventError, EventOpenError};
use super::event::{DeadLetter, Delivery, Event, EventId, Fingerprint, Outcome, time};
use super::files::{Directory, Disk, NotTaken, UNFINISHED};
use super::keys::{KeyFile, Known};
use super::live::{Live, Twin};
use super::log::{Log, Owner};
use super::record::Purpose;
use super::recover::{self, Damage, Found};
use super::settings::{EventSettings, Sizes};
use super::shared::{Owned, SharedQueue};
use super::space::Space;
use super::writer::{Store, Writer};
use crate::panics::lock;

/// How long a queue that is dropped waits for what is being delivered.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// How often a thread that ends is looked for.
const TICK: Duration = Duration::from_millis(1);

/// A queue of events on disk: what [`publish`](Self::publish) has taken is delivered at least once, whatever happens to
/// the process.
///
/// For a small host whose service is down, restarted or slow while events come. Not for many hosts: a queue is one
/// directory, and one process has it open.
///
/// ```text
///     publish ─▶ batch ─▶ writer: one write, one sync ─▶ accepted ─▶ schedule ─▶ deliver ─▶ delivered
///                                                                      ▲            │
///                                                 1 s, 5 s, ... 12 h   └─ failed ───┤
///                                                                                   └─▶ dead letter ─▶ replay, purge
/// ```
///
/// - An event is durable when [`publish`](Self::publish) returns, and is delivered at least once. The consumer can
///   tell by its id what it has seen.
/// - Events with the same key are delivered one at a time and in order, others side by side.
/// - A failed attempt is repeated by a schedule. After the last one, or at once where it will never work, the event is a
///   dead letter: kept until somebody replays or purges it. The next event of its key then goes.
/// - All files together stay below a limit. Beyond it events are refused, and none that was accepted is lost.
/// - After a crash at any moment, or damage anywhere, every event that the damage did not hit is delivered.
///
/// Bodies are on disk only; the memory for an event that waits is about 100 bytes.
///
/// # Example
///
/// ```
/// use std::sync::mpsc;
/// use plimsoll::patterns::{Event, EventQueue, EventSettings, Outcome};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = std::env::temp_dir().join(format!("plimsoll-doc-events-{}", std::process::id()));
/// let queue = EventQueue::open(&directory, EventSettings::default())?;
/// let event = Event {
///     topic: "/orders".to_owned(),
///     key: Some("customer 7".to_owned()),
///     body: b"two of them".to_vec(),
///     ..Event::default()
/// };
/// let id = queue.publish(&event)?; // it is on disk now
///
/// let (sender, receiver) = mpsc::channel();
/// queue.deliver(move |delivery| match sender.send(delivery.clone()) {
///     Ok(()) => Outcome::Delivered,
///     Err(_) => Outcome::Unreachable,
/// })?;
/// let delivery = receiver.recv()?;
/// assert_eq!((delivery.id, delivery.attempt), (id, 1));
/// assert_eq!(delivery.event, event);
/// # drop(queue);
/// # std::fs::remove_dir_all(directory)?;
/// # Ok(())
/// # }
/// ```
pub struct EventQueue {
    shared: Arc<SharedQueue>,
    spaces: [Arc<Space>; 2],
    settings: EventSettings,
    damage: Damage,
    /// Those that deliver, and that of the control socket.
    threads: Mutex<Vec<JoinHandle<()>>>,
    control: Mutex<Option<Control>>,
    writers: Mutex<Vec<JoinHandle<()>>>,
}

/// Numbers of a queue. Those that count are since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventStats {
    /// Events that were accepted.
    pub accepted: u64,
    /// Events that were delivered.
    pub delivered: u64,
    /// Attempts that failed and are to be repeated.
    pub retried: u64,
    /// Events that became dead letters.
    pub dead: u64,
    /// Events that turned out to be damaged after the queue was opened, and could not be delivered.
    pub lost: u64,
    /// Events that wait or are being delivered.
    pub backlog: usize,
    /// How long ago the oldest of them was accepted.
    pub oldest: Option<Duration>,
    /// Dead letters that are kept.
    pub dead_letters: usize,
    /// How long ago the oldest of them died.
    pub oldest_dead: Option<Duration>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Whether the consumer could not be reached when it was last tried.
    pub unreachable: bool,
    /// Whether the last dead letter found no room: its event is tried again at the last interval.
    pub dead_full: bool,
    /// Whether the last write to the disk failed.
    pub failing: bool,
    /// Writes to the disk that failed.
    pub failures: u64,
}

impl EventQueue {
    /// Opens the queue of a directory, which is made if it is not there. Its files can only be read by their owner.
    ///
    /// What a crash left is put in order; what is damaged is logged, skipped, and told by [`damage`](Self::damage).
    ///
    /// # Errors
    ///
    /// When the queue is open elsewhere, of another version or cannot be read, or a setting is out of its bounds.
    pub fn open(path: impl AsRef<Path>, settings: EventSettings) -> Result<Self, EventOpenError> {
        // What is wrong with the settings is told before anything is made.
        settings.sizes()?;
        let path = path.as_ref();
        let disk = Disk::take(path).map_err(|error| match error {
            NotTaken::Locked => EventOpenError::Locked(path.to_owned()),
            NotTaken::Io(source) => EventOpenError::Io(source),
        })?;
        let directory: Arc<dyn Directory> = Arc::new(disk);
        let queue = Self::open_in(&directory, settings)?;
        match Control::start(path, &queue.shared) {
            Ok((control, thread)) => {
                *lock(&queue.control) = Some(control);
                lock(&queue.threads).push(thread);
            }
            // Events matter more than a look at dead letters.
            Err(error) => {
                let path = path.display();
                log::warn!("no other process can ask for the dead letters of {path}: {error}");
            }
        }
        Ok(queue)
    }

    pub(crate) fn open_in(
        directory: &Arc<dyn Directory>,
        settings: EventSettings,
    ) -> Result<Self, EventOpenError> {
        let sizes = settings.sizes()?;
        let names = directory.list()?;
        for name in names.iter().filter(|name| name.starts_with(UNFINISHED)) {
            directory.remove(name)?;
        }
        let mut damage = Damage::default();
        let store = |purpose, space| Store {
            directory: Arc::clone(directory),
            space: Arc::new(space),
            purpose,
        };
        let keys = store(Purpose::Keys, Space::new(sizes.keys, 2 * sizes.keys));
        let (file, keys) = KeyFile::open(keys, &names, &mut damage)?;

        let dead_store = store(Purpose::Dead, Space::new(sizes.segment, sizes.dead));
        let dead = Arc::new(Dead::default());
        let found_dead = recover::recover(&dead_store, &*dead, &names, &mut damage)?;

        let letters = dead.letters();
        let last_dead = letters.iter().map(|letter| letter.died_as).max();
        let letters = letters
            .iter()
            .map(|letter| (letter.id, letter.slot, letter.died_as));
        // What was set aside takes space until somebody removes it.
        let aside = recover::set_aside(&**directory, &names)?;
        let live_bytes = sizes.live.saturating_sub(aside);
        let live_store = store(Purpose::Live, Space::new(sizes.segment, live_bytes));
        let live = Arc::new(Live::new(settings.delays.clone(), keys, file, letters));
        let mut found = recover::recover(&live_store, &*live, &names, &mut damage)?;
        // A replayed event has a higher number than it had when it died.
        found.next_sequence = found.next_sequence.max(last_dead.unwrap_or(0) + 1);

        let spaces = [&live_store, &dead_store].map(|store| Arc::clone(&store.space));
        let mut writers = Vec::new();
        let mut start = |owner: Arc<dyn Owner>, found, store| {
            start(owner, found, store, &sizes, &settings, &mut writers)
        };
        let dead_log = start(dead.clone(), found_dead, dead_store)?;
        let live_log = start(live.clone(), found, live_store)?;
        let shared = SharedQueue {
            live: Owned {
                owner: live,
                log: live_log,
            },
            dead: Owned {
                owner: dead,
                log: dead_log,
            },
            stopping: AtomicBool::new(false),
            delivered: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            died: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            dead_full: AtomicBool::new(false),
        };
        for twin in shared.live.owner.twins() {
            match twin {
                Twin::Died { live } => {
                    lock(&shared.live.owner.schedule).restore_gone(live);
                    shared.live.done(live);
                }
                Twin::Replayed { dead } => {
                    shared.dead.owner.recovered_gone(dead);
                    shared.dead.done(dead);
                }
            }
        }
        lock(&shared.live.owner.schedule).start();
        Ok(Self {
            shared: Arc::new(shared),
            spaces,
            settings,
            damage,
            threads: Mutex::default(),
            control: Mutex::default(),
            writers: Mutex::new(writers),
        })
    }

    pub(crate) fn shared(&self) -> &SharedQueue {
        &self.shared
    }

    /// Takes an event. When this returns it is durable.
    ///
    /// Events that are published at the same time share a write to the disk. An event whose idempotency key was given
    /// before, with the same topic and body, is not taken again: its id is that of the first. The last 65,536 keys are
    /// kept, fewer if `max_bytes` is less than 64 MiB.
    ///
    /// # Errors
    ///
    /// When there is no room, the event is too large, its idempotency key was given to another body, the disk fails, or
    /// the queue is stopping. The event is then not delivered before the next start, and only perhaps after it.
    pub fn publish(&self, event: &Event) -> Result<EventId, EventError> {
        self.settings.check_size(event)?;
        let Some(fingerprint) = Fingerprint::of(event) else {
            return self.shared.append(EventId::random()?, event, None);
        };
        if let Some(id) = self.claim(&fingerprint)? {
            return Ok(id);
        }
        let result = EventId::random()
            .map_err(EventError::from)
            .and_then(|id| self.shared.append(id, event, Some(fingerprint)));
        // After a timeout it may still become durable, and then the key is kept.
        if result.is_err() {
            lock(&self.shared.live.owner.keys).release(&fingerprint);
            self.shared.live.owner.settled.notify_all();
        }
        result
    }

    /// Makes a key the caller's, or tells whose it is. Waits for an event with the same key that is being written.
    fn claim(&self, fingerprint: &Fingerprint) -> Result<Option<EventId>, EventError> {
        let live = &self.shared.live.owner;
        let deadline = Instant::now() + self.settings.patience;
        let mut keys = lock(&live.keys);
        loop {
            match keys.claim(fingerprint) {
                Known::New => return Ok(None),
                Known::Same(id) => return Ok(Some(id)),
                Known::Reused => return Err(EventError::KeyReused),
                Known::Pending => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(EventError::TimedOut);
            }
            (keys, _) = live
                .settled
                .wait_timeout(keys, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Starts the threads that deliver: as many as the setting `parallel` says.
    ///
    /// `deliver` is called from all of them, and should return within some time of its own. A panic in it counts as a
    /// failed attempt. An event that it has taken may come again after a crash, with the same id.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread. Those that have been started go on.
    pub fn deliver(
        &self,
        deliver: impl Fn(&Delivery) -> Outcome + Send + Sync + 'static,
    ) -> io::Result<()> {
        let deliver = Arc::new(deliver);
        let mut threads = lock(&self.threads);
        for _ in 0..self.settings.parallel {
            threads.push(deliver::start(&self.shared, Arc::clone(&deliver) as _)?);
        }
        Ok(())
    }

    /// The numbers of the queue.
    #[must_use]
    pub fn stats(&self) -> EventStats {
        let shared = &self.shared;
        let now = SystemTime::now();
        let ago = |milliseconds| now.duration_since(time(milliseconds)).unwrap_or_default();
        let (backlog, oldest, unreachable) = {
            let schedule = lock(&shared.live.owner.schedule);
            (schedule.backlog(), schedule.oldest(), schedule.is_paused())
        };
        let (dead_letters, oldest_dead) = shared.dead.owner.count();
        let (live, dead) = (shared.live.counts(), shared.dead.counts());
        EventStats {
            accepted: shared.live.owner.accepted.load(Ordering::Relaxed),
            delivered: shared.delivered.load(Ordering::Relaxed),
            retried: shared.retried.load(Ordering::Relaxed),
            dead: shared.died.load(Ordering::Relaxed),
            lost: shared.lost.load(Ordering::Relaxed),
            backlog,
            oldest: oldest.map(ago),
            dead_letters,
            oldest_dead: oldest_dead.map(ago),
            bytes: self.spaces.iter().map(|space| space.used()).sum::<u64>()
                + shared.live.owner.key_bytes(),
            unreachable,
            dead_full: shared.dead_full.load(Ordering::Relaxed),
            failing: live.failing || dead.failing,
            failures: live.failures + dead.failures,
        }
    }

    /// What could not be read when the queue was opened: the first thousand parts.
    #[must_use]
    pub fn damage(&self) -> &[EventDamage] {
        &self.damage.parts
    }

    /// All dead letters, the oldest first. Each is read from the disk when its turn comes, and left out if it has been
    /// replayed or purged meanwhile.
    pub fn dead_letters(&self) -> impl Iterator<Item = Result<DeadLetter, EventError>> {
        let ids = self.shared.ids().into_iter();
        ids.filter_map(|id| match self.dead_letter(id) {
            Err(EventError::Unknown) => None,
            found => Some(found),
        })
    }

    /// One dead letter.
    ///
    /// # Errors
    ///
    /// When there is none with this id, or it cannot be read.
    pub fn dead_letter(&self, id: EventId) -> Result<DeadLetter, EventError> {
        SharedQueue::letter(id, &self.shared.record(id)?)
    }

    /// Queues a dead letter again, behind all that wait, with its id and without its attempts.
    ///
    /// # Errors
    ///
    /// When there is none with this id, or no room, or the disk fails: then it stays a dead letter. If only the last
    /// write failed, it is queued, and perhaps also a dead letter again after a start.
    pub fn replay(&self, id: EventId) -> Result<(), EventError> {
        self.shared.replay(id)
    }

    /// Forgets a dead letter for good.
    ///
    /// # Errors
    ///
    /// When there is none with this id, or the disk fails: then it may be there again after a start.
    pub fn purge(&self, id: EventId) -> Result<(), EventError> {
        self.shared.purge(id)
    }

    /// Takes no more events, starts no more deliveries, and waits for those that are being made. Whether all had ended
    /// within this time; what had not stays for the next start, as does all that waits. The directory is free once the
    /// queue is dropped.
    pub fn stop(&self, longest: Duration) -> bool {
        let deadline = Instant::now() + longest;
        {
            // Under the lock: no thread can miss it between its look and its wait.
            let _schedule = lock(&self.shared.live.owner.schedule);
            self.shared.stopping.store(true, Ordering::Release);
        }
        self.shared.live.owner.due.notify_all();
        drop(lock(&self.control).take());
        let delivered = join(&self.threads, deadline);
        // The writers go last, since they note what the others did.
        let live = self.shared.live.stop(deadline.max(Instant::now() + TICK));
        let dead = self.shared.dead.stop(deadline.max(Instant::now() + TICK));
        live && dead && join(&self.writers, deadline.max(Instant::now() + TICK)) && delivered
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        self.stop(LAST_WAIT);
    }
}

impl std::fmt::Debug for EventQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventQueue")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Joins threads that end by the deadline. The one that calls is left out: a delivery may be what drops the queue.
pub(super) fn join(threads: &Mutex<Vec<JoinHandle<()>>>, deadline: Instant) -> bool {
    let mut threads = lock(threads);
    threads.retain(|thread| thread.thread().id() != thread::current().id());
    loop {
        let (ended, running) = threads.drain(..).partition(JoinHandle::is_finished);
        *threads = running;
        let ended: Vec<JoinHandle<()>> = ended;
        for thread in ended {
            if thread.join().is_err() {
                log::error!("a thread of the event queue panicked");
            }
        }
        if threads.is_empty() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(TICK);
    }
}

/// Starts the writer of a log that has been read.
fn start(
    owner: Arc<dyn Owner>,
    found: Found,
    store: Store,
    sizes: &Sizes,
    settings: &EventSettings,
    writers: &mut Vec<JoinHandle<()>>,
) -> io::Result<Arc<Log>> {
    let name = format!("events {}", store.purpose.extension());
    let log = Arc::new(Log::new(found.index, sizes.commit, settings.patience));
    let writer = Writer::new(
        Arc::clone(&log),
        owner,
        store,
        found.active,
        found.next_number,
        found.next_sequence,
    );
    let writer = thread::Builder::new()
        .name(name)
        .spawn(move || writer.run())?;
    writers.push(writer);
    Ok(log)
}
