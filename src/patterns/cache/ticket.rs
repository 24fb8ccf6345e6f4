//! The right to make a fetch.

use std::sync::Arc;

use super::Shared;
use super::flight::{FetchOutcome, Place};
use super::freshness::CacheTime;

/// A fetch's place among those under way. Dropped, it is given back, and whoever waits goes on.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) place: Place,
}

impl Ticket {
    /// Lets those go on who wait.
    pub(super) fn land(&mut self, outcome: FetchOutcome, now: CacheTime) {
        let mut state = self.shared.state();
        let flight = state.fetches.land(&mut self.place, outcome, now.monotonic);
        drop(state);
        if let Some(flight) = flight {
            flight.end(outcome);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.land(FetchOutcome::Abandoned, CacheTime::now());
        self.shared.state().fetches.end(&self.place);
    }
}
