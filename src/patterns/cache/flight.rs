//! One fetch for many who ask at once.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::key::Key;
use crate::panics::lock;

/// For how long requests for a key whose reply turned out not to be shared are not held for one another, unless one is kept
/// meanwhile: what one client asks for must not end that for all.
const NOT_COLLAPSED: Duration = Duration::from_secs(60);
/// Most such keys that are remembered.
const MOST_NOT_COLLAPSED: usize = 4096;

/// How a fetch ended for those who wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FetchOutcome {
    /// Its reply is kept, and is fresh.
    Kept,
    /// Its reply is for one request alone, so each of the others makes its own fetch.
    NotShared,
    /// The origin could not be reached, or failed.
    Failed,
    /// It was given up, or the key was made invalid meanwhile, which says nothing of what others would get: another one
    /// leads.
    Abandoned,
}

impl FetchOutcome {
    /// That of a fetch whose reply is given to others only if it is fresh.
    pub(super) fn of_storable(is_valid: bool, is_fresh: bool) -> Self {
        match (is_valid, is_fresh) {
            (false, _) => Self::Abandoned,
            (true, true) => Self::Kept,
            (true, false) => Self::NotShared,
        }
    }
}

/// A fetch that others wait for.
#[derive(Default)]
pub(super) struct Flight {
    state: Mutex<FlightState>,
    ended: Condvar,
}

#[derive(Default)]
struct FlightState {
    outcome: Option<FetchOutcome>,
    /// What wakes those who wait with no thread, in the order in which they came.
    wakers: BTreeMap<u64, Box<dyn FnOnce() + Send>>,
    /// How many there have been.
    came: u64,
    /// How many block until it has ended.
    blocked: usize,
}

impl Flight {
    pub(super) fn end(&self, outcome: FetchOutcome) {
        let mut state = lock(&self.state);
        state.outcome = Some(outcome);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.ended.notify_all();
        for wake in wakers.into_values() {
            wake();
        }
    }

    /// Whether anybody waits for it now.
    fn is_awaited(&self) -> bool {
        let state = lock(&self.state);
        state.blocked > 0 || !state.wakers.is_empty()
    }

    pub(super) fn outcome(&self) -> Option<FetchOutcome> {
        let state = lock(&self.state);
        state.outcome
    }

    /// Blocks until it has ended; none if the deadline is over before.
    pub(super) fn wait(&self, deadline: Instant) -> Option<FetchOutcome> {
        let mut state = lock(&self.state);
        state.blocked += 1;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.outcome.is_some() || left.is_zero() {
                state.blocked -= 1;
                return state.outcome;
            }
            (state, _) = self
                .ended
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Calls `wake` once it has ended, at once if it has.
    pub(super) fn when_ended(self: &Arc<Self>, wake: Box<dyn FnOnce() + Send>) -> Notice {
        let mut state = lock(&self.state);
        let number = state.came;
        state.came += 1;
        if state.outcome.is_none() {
            state.wakers.insert(number, wake);
        } else {
            drop(state);
            wake();
        }
        Notice {
            flight: Arc::clone(self),
            number,
        }
    }
}

/// That a request waits, with no thread, for another's fetch. Dropped, it waits no longer, and is not woken.
#[derive(Debug)]
#[must_use = "dropped, the request is not woken"]
pub struct Notice {
    flight: Arc<Flight>,
    number: u64,
}

impl Drop for Notice {
    fn drop(&mut self) {
        let mut state = lock(&self.flight.state);
        let wake = state.wakers.remove(&self.number);
        drop(state);
        // Not under the lock, as it is another's.
        drop(wake);
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight")
            .field("outcome", &self.outcome())
            .finish_non_exhaustive()
    }
}

/// The fetches under way for one key.
#[derive(Default)]
struct UnderWay {
    fetches: usize,
    /// How often the key was made invalid while they were under way: what an earlier fetch brings is not kept.
    invalidations: u64,
    /// Those that others wait for, by what their requests have for the names the key's replies vary by.
    flights: HashMap<Vec<u8>, Arc<Flight>>,
}

/// All fetches under way, and the keys for which nobody waits.
#[derive(Default)]
pub(super) struct Fetches {
    by_key: HashMap<Key, UnderWay>,
    not_collapsed: HashMap<Key, Instant>,
}

/// A fetch's place among those under way; given back by [`Fetches::end`].
#[derive(Debug)]
pub(super) struct Place {
    pub(super) key: Key,
    invalidations: u64,
    flight: Option<(Vec<u8>, Arc<Flight>)>,
}

impl Place {
    /// Whether others wait for it now.
    pub(super) fn is_awaited(&self) -> bool {
        let flight = self.flight.as_ref();
        flight.is_some_and(|(_, flight)| flight.is_awaited())
    }
}

/// What a request that may be held for another finds.
pub(super) enum Joined {
    /// It is the first: it fetches, and others wait for it.
    Leads(Place),
    /// Another fetches.
    Waits(Arc<Flight>),
}

impl Fetches {
    /// Begins a fetch that nobody waits for.
    pub(super) fn alone(&mut self, key: &Key) -> Place {
        let under_way = self.by_key.entry(key.clone()).or_default();
        under_way.fetches += 1;
        Place {
            key: key.clone(),
            invalidations: under_way.invalidations,
            flight: None,
        }
    }

    /// Begins a fetch that others wait for, or finds the one to wait for.
    pub(super) fn join(&mut self, key: &Key, signature: Vec<u8>, now: Instant) -> Joined {
        if let Some(&until) = self.not_collapsed.get(key) {
            if now < until {
                return Joined::Leads(self.alone(key));
            }
            self.not_collapsed.remove(key);
        }
        let flying = self
            .by_key
            .get(key)
            .and_then(|under_way| under_way.flights.get(&signature));
        if let Some(flight) = flying {
            return Joined::Waits(Arc::clone(flight));
        }
        let mut place = self.alone(key);
        let flight = Arc::new(Flight::default());
        if let Some(under_way) = self.by_key.get_mut(key) {
            under_way
                .flights
                .insert(signature.clone(), Arc::clone(&flight));
        }
        place.flight = Some((signature, flight));
        Joined::Leads(place)
    }

    /// Whether a fetch with this signature is under way that others wait for.
    pub(super) fn is_flying(&self, key: &Key, signature: &[u8]) -> bool {
        let under_way = self.by_key.get(key);
        under_way.is_some_and(|under_way| under_way.flights.contains_key(signature))
    }

    /// What the fetches under way for this key bring is not to be kept, nor waited for by those who come now.
    pub(super) fn invalidate(&mut self, key: &Key) {
        if let Some(under_way) = self.by_key.get_mut(key) {
            under_way.invalidations += 1;
            under_way.flights.clear();
        }
    }

    /// Whether what this fetch brings may be kept.
    pub(super) fn is_valid(&self, place: &Place) -> bool {
        let under_way = self.by_key.get(&place.key);
        under_way.is_some_and(|under_way| under_way.invalidations == place.invalidations)
    }

    /// Ends what others wait for, while the fetch itself may go on. The flight is to be [ended](Flight::end) once no
    /// lock is held.
    pub(super) fn land(
        &mut self,
        place: &mut Place,
        outcome: FetchOutcome,
        now: Instant,
    ) -> Option<Arc<Flight>> {
        if outcome == FetchOutcome::Kept {
            self.not_collapsed.remove(&place.key);
        }
        let (signature, flight) = place.flight.take()?;
        if outcome == FetchOutcome::NotShared {
            self.do_not_collapse(&place.key, now);
        }
        if let Some(under_way) = self.by_key.get_mut(&place.key)
            && under_way
                .flights
                .get(&signature)
                .is_some_and(|flying| Arc::ptr_eq(flying, &flight))
        {
            under_way.flights.remove(&signature);
        }
        Some(flight)
    }

    /// Gives a place back.
    pub(super) fn end(&mut self, place: &Place) {
        if let Some(under_way) = self.by_key.get_mut(&place.key) {
            under_way.fetches -= 1;
            if under_way.fetches == 0 {
                self.by_key.remove(&place.key);
            }
        }
    }

    /// How many keys have fetches under way.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.by_key.len()
    }

    /// How many keys nobody waits for.
    #[cfg(test)]
    pub(super) fn not_collapsed(&self) -> usize {
        self.not_collapsed.len()
    }

    fn do_not_collapse(&mut self, key: &Key, now: Instant) {
        if self.not_collapsed.len() >= MOST_NOT_COLLAPSED
            && let Some(any) = self.not_collapsed.keys().next().cloned()
        {
            self.not_collapsed.remove(&any);
        }
        self.not_collapsed.insert(key.clone(), now + NOT_COLLAPSED);
    }
}
