//! One of the replicas that share a stream: what its threads do.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::super::error::EventError;
use super::super::event::{Death, Delivery, Outcome, milliseconds, time};
use super::super::schedule::{jittered, next_wait};
use super::super::settings::EventSettings;
use super::store::{Entry, Sizes, Store};
use super::url::EventStreamUrl;
use crate::panics::lock;
use crate::random::uniform;

/// How often events are looked for that another replica has not finished, and how often sizes are asked for.
const LOOK: Duration = Duration::from_millis(250);
const MEASURE: Duration = Duration::from_secs(1);

/// How long redis is left alone after it failed.
const REST: Duration = Duration::from_secs(1);

/// Calls of one search for events to take over: each looks at about ten.
const CALLS: usize = 100;

/// What the threads of a stream share.
pub(super) struct Replica {
    pub(super) store: Store,
    pub(super) settings: EventSettings,
    pub(super) state: Mutex<ReplicaState>,
    /// The stream stops, or the consumer may be there again.
    pub(super) changed: Condvar,
    /// Who searches for events to take over: where to go on, and when. One at a time.
    pub(super) search: Mutex<Search>,
    /// The group of replicas was there.
    begun: AtomicBool,
    pub(super) accepted: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) died: AtomicU64,
    pub(super) failures: AtomicU64,
}

#[derive(Default)]
pub(super) struct ReplicaState {
    pub(super) stopping: bool,
    pub(super) pause: Option<Pause>,
    pub(super) sizes: Sizes,
    /// Why redis could not be asked, if that was so the last time.
    pub(super) failing: Option<EventError>,
    pub(super) dead_full: bool,
}

/// The consumer cannot be reached.
#[derive(Clone, Copy)]
pub(super) struct Pause {
    pub(super) until: Instant,
    pub(super) wait: Duration,
    /// One event is out to see whether it is there again.
    pub(super) trial: bool,
}

pub(super) struct Search {
    pub(super) from: String,
    pub(super) due: Instant,
}

impl Replica {
    /// One that does nothing yet.
    pub(super) fn new(url: &EventStreamUrl, settings: EventSettings) -> io::Result<Self> {
        let search = Search {
            from: "0-0".to_owned(),
            due: Instant::now(),
        };
        Ok(Self {
            store: Store::new(url, settings.patience)?,
            settings,
            state: Mutex::default(),
            changed: Condvar::new(),
            search: Mutex::new(search),
            begun: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            died: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    /// Delivers until the stream stops.
    pub(super) fn run(&self, deliver: &dyn Fn(&Delivery) -> Outcome) {
        while let Some(trial) = self.may_go() {
            match self.heard(self.next()) {
                // It came just then: no delivery begins any more.
                Ok(Some(entry)) if self.is_stopping() => {
                    self.settle(&entry, self.untried(&entry, Duration::ZERO));
                }
                Ok(Some(entry)) => self.attempt(&entry, trial, deliver),
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

    fn attempt(&self, entry: &Entry, trial: bool, deliver: &dyn Fn(&Delivery) -> Outcome) {
        let delivery = Delivery {
            id: entry.id,
            attempt: entry.attempt,
            accepted: time(entry.accepted),
            event: entry.event.clone(),
        };
        let outcome = Outcome::of(deliver, &delivery);
        if outcome != Outcome::Unreachable {
            self.reached();
        }
        let settled = match outcome {
            Outcome::Delivered => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
                self.store.done(&entry.place)
            }
            Outcome::Rejected { reason } => self.bury(entry, reason),
            Outcome::Failed {
                reason,
                retry_after,
            } => {
                if self.was_last(entry) {
                    self.bury(entry, reason)
                } else {
                    self.retried.fetch_add(1, Ordering::Relaxed);
                    self.repeat(entry, retry_after)
                }
            }
            Outcome::Unreachable => {
                let wait = self.unreachable(trial);
                self.untried(entry, wait)
            }
        };
        self.settle(entry, settled);
    }

    /// What came of an event has been told to redis, or could not be.
    fn settle(&self, entry: &Entry, settled: Result<(), EventError>) {
        if let Err(error) = self.heard(settled) {
            // It is taken over when its time has come.
            log::warn!(
                "redis does not know what came of event {}: {error}",
                entry.id
            );
        }
    }

    /// Whether an event has had its attempts, and as many more as make up for waits that `takeover` cut short.
    fn was_last(&self, entry: &Entry) -> bool {
        let delays = &self.settings.delays;
        let waits = entry.attempt.saturating_sub(1);
        let listed = u32::try_from(delays.len()).unwrap_or(u32::MAX);
        // Counted, and not told by the clock: those of other replicas may differ, and one may be set.
        let first: Duration = (0..waits.min(listed))
            .map(|wait| self.wait_after(wait))
            .sum();
        let more = self
            .wait_after(waits)
            .saturating_mul(waits.saturating_sub(listed));
        waits >= listed && first.saturating_add(more) >= delays.iter().sum::<Duration>()
    }

    /// The wait after so many others, without its jitter: no longer than an event is left to a replica.
    fn wait_after(&self, waits: u32) -> Duration {
        let EventSettings {
            delays, takeover, ..
        } = &self.settings;
        let step = (waits as usize).min(delays.len().saturating_sub(1));
        delays
            .get(step)
            .map_or(*takeover, |delay| *delay.min(takeover))
    }

    /// Has an event taken over after this time, by this or another replica, as if it had not been tried.
    fn untried(&self, entry: &Entry, wait: Duration) -> Result<(), EventError> {
        self.give_back(entry, entry.attempt.saturating_sub(1), wait)
    }

    /// Has an event taken over by any replica after this time, or after the longest that they wait for each other.
    fn give_back(&self, entry: &Entry, attempts: u32, wait: Duration) -> Result<(), EventError> {
        let ago = self.settings.takeover.saturating_sub(wait);
        // What another has taken over meanwhile is left to it.
        self.store.give_back(entry, attempts, ago).map(drop)
    }

    /// Has an event tried again when its next attempt is due.
    fn repeat(&self, entry: &Entry, retry_after: Option<Duration>) -> Result<(), EventError> {
        let delay = self.wait_after(entry.attempt.saturating_sub(1));
        let wait = jittered(delay, uniform()).max(retry_after.unwrap_or_default());
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
        // It stays where it is after an error, and is taken over when its time has come.
        if !buried? {
            // Another has taken it over meanwhile, and it is left to that one.
            return Ok(());
        }
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
    fn unreachable(&self, trial: bool) -> Duration {
        let mut state = lock(&self.state);
        let wait = match state.pause {
            None => next_wait(None),
            Some(pause) if trial => next_wait(Some(pause.wait)),
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
    pub(super) fn heard<T>(&self, result: Result<T, EventError>) -> Result<T, EventError> {
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

    /// Makes the group of replicas, unless it was there before. Without it nothing is accepted: once redis has no memory
    /// left it can no more be made, and nothing would be delivered.
    pub(super) fn begin(&self) -> Result<(), EventError> {
        if !self.begun.load(Ordering::Relaxed) {
            self.heard(self.store.begin())?;
            self.begun.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Asks once a second how much there is.
    pub(super) fn measure(&self, url: &EventStreamUrl) {
        let mut looked = false;
        loop {
            if self.begin().is_ok() && !looked {
                looked = true;
                self.look_at_durability(url);
            }
            // A redis without memory makes no group, and yet is measured.
            if let Ok(sizes) = self.heard(self.store.sizes()) {
                lock(&self.state).sizes = sizes;
            }
            if !self.sleep(MEASURE) {
                return;
            }
        }
    }

    /// Says so if redis may lose what it has accepted.
    fn look_at_durability(&self, url: &EventStreamUrl) {
        let is_other = |name, good| {
            let found = self.store.setting(name);
            found.is_some_and(|found| found != good)
        };
        if is_other("appendonly", "yes") {
            log::warn!(
                "{url}: if redis ends suddenly, it loses all events (appendonly is not yes)"
            );
        } else if is_other("appendfsync", "always") {
            log::warn!(
                "{url}: if redis ends suddenly, it loses the events of the last second or more (appendfsync is not always)"
            );
        }
        let policy = self.store.setting("maxmemory-policy").unwrap_or_default();
        if policy.starts_with("allkeys") {
            log::warn!(
                "{url}: once redis has no memory left, it may drop all events (maxmemory-policy is {policy})"
            );
        }
    }

    fn is_stopping(&self) -> bool {
        lock(&self.state).stopping
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

#[cfg(test)]
mod tests {
    use super::super::super::event::{Event, EventId};
    use super::*;

    #[test]
    fn an_event_is_given_up_after_its_attempts_and_the_time_of_their_waits_whatever_the_clock_says()
    {
        let url = "redis://127.0.0.1:1/s".parse().expect("a URL");
        for (delays, takeover, last) in [
            (vec![], 60, 1),
            (vec![1, 5], 60, 3),
            (vec![1, 60], 60, 3),
            // 1 + 60 + 60 s of 1 + 120 s.
            (vec![1, 120], 60, 4),
            (vec![3600], 60, 61),
        ] {
            let settings = EventSettings {
                delays: delays.into_iter().map(Duration::from_secs).collect(),
                takeover: Duration::from_secs(takeover),
                ..EventSettings::default()
            };
            let replica = Replica::new(&url, settings).expect("it has a name");
            let was_last = |attempt, accepted| {
                replica.was_last(&Entry {
                    place: "1-0".to_owned(),
                    id: EventId([0; 16]),
                    accepted,
                    attempt,
                    event: Event::default(),
                })
            };
            for accepted in [0, u64::MAX / 2] {
                let first = (1..=100).find(|attempt| was_last(*attempt, accepted));
                assert_eq!(first, Some(last), "{:?}", replica.settings.delays);
            }
        }
    }

    #[test]
    fn only_the_trial_says_that_the_consumer_is_still_away() {
        let url = "redis://127.0.0.1:1/s".parse().expect("a URL");
        let replica = Replica::new(&url, EventSettings::default()).expect("it has a name");
        let first = replica.unreachable(false);
        lock(&replica.state).pause.as_mut().expect("a pause").until = Instant::now();
        assert_eq!(replica.may_go(), Some(true));
        // It went before the pause began.
        assert_eq!(replica.unreachable(false), first);
        let pause = lock(&replica.state).pause.expect("a pause");
        assert!(pause.trial);
        assert_eq!(replica.unreachable(true), 2 * first);
        let pause = lock(&replica.state).pause.expect("a pause");
        assert!(!pause.trial && pause.wait == 2 * first);
    }
}
