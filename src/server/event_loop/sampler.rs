//! What is done once a second: a sample for the history, a look at what is refused or cut for the log, and memory given back.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::bodies::Bodies;
use super::episodes::{Cut, Episodes, Refused};
use super::surplus::{self, Surplus};
use crate::health::Health;

/// See the [module](self).
pub(super) struct Sampler {
    due: Instant,
    shedding: Episodes<Refused>,
    cutting: Episodes<Cut>,
    surplus: Surplus,
}

impl Sampler {
    /// Due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: now,
            shedding: Episodes::default(),
            cutting: Episodes::default(),
            surplus: Surplus::default(),
        }
    }

    /// When [`sample`](Self::sample) is due.
    pub(super) fn next_timeout(&self) -> Instant {
        self.due
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// Takes the sample; the gauges have just been published.
    pub(super) fn sample(&mut self, health: &Health, bodies: &Bodies, now: Instant) {
        self.due = health.sample(now);
        bodies.trim();
        let totals = health.counts.read();
        let connections = health.gauges.connections.load(Relaxed);
        if self.surplus.observe(totals, connections) {
            surplus::give_back();
        }
        if let Some(news) = self.shedding.observe(Refused::of(&totals), now) {
            news.log();
        }
        if let Some(news) = self.cutting.observe(Cut::of(&totals), now) {
            news.log();
        }
    }

    /// Notes that no request will be refused any more, and no reply cut.
    pub(super) fn end(&mut self) {
        if let Some(news) = self.shedding.end() {
            news.log();
        }
        if let Some(news) = self.cutting.end() {
            news.log();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_sample_is_due_at_once_and_then_a_second_after_the_start() {
        let start = Instant::now();
        let health = Health::of_a_new_server(start);
        let mut sampler = Sampler::new(start);
        assert!(sampler.is_due(start));
        sampler.sample(&health, &Bodies::new(0), start);
        assert_eq!(sampler.next_timeout(), start + Duration::from_secs(1));
        assert!(!sampler.is_due(start));
    }
}
