//! A moving average of latency that rises at once and falls slowly.

use std::time::{Duration, Instant};

/// The time after which a peak counts for 1/e of itself.
const DECAY: Duration = Duration::from_secs(10);

/// A peak-sensitive moving average of latencies, in seconds: that of Finagle's [peak
/// EWMA](https://twitter.github.io/finagle/guide/Clients.html#power-of-two-choices-p2c-least-loaded).
///
/// An endpoint that became slow is left alone at once, and what decays lets it have another try.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peak(Option<(f64, Instant)>);

impl Peak {
    /// Adds a sample.
    pub(super) fn observe(&mut self, seconds: f64, now: Instant) {
        let cost = match self.0 {
            Some((cost, at)) if cost > seconds => seconds + (cost - seconds) * kept(at, now),
            _ => seconds,
        };
        self.0 = Some((cost, now));
    }

    /// Forgets all but this sample.
    pub(super) fn restart(&mut self, seconds: f64, now: Instant) {
        self.0 = Some((seconds, now));
    }

    /// The average; `None` before the first sample.
    ///
    /// An idle endpoint's decays towards zero. While requests are pending it does not: one that hangs and reports nothing
    /// must not look better and better.
    pub(super) fn read(&self, idle: bool, now: Instant) -> Option<f64> {
        self.0
            .map(|(cost, at)| if idle { cost * kept(at, now) } else { cost })
    }
}

/// The part of a peak that is left.
fn kept(at: Instant, now: Instant) -> f64 {
    let age = now.saturating_duration_since(at);
    (-age.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_at_once_and_falls_slowly() {
        let start = Instant::now();
        let mut peak = Peak::default();
        assert_eq!(peak.read(true, start), None);
        peak.observe(0.01, start);
        peak.observe(1.0, start);
        assert_eq!(peak.read(true, start), Some(1.0));
        peak.observe(0.01, start);
        assert_eq!(peak.read(true, start), Some(1.0), "no time has passed");
        let later = start + DECAY;
        peak.observe(0.01, later);
        let read = peak.read(true, later).unwrap();
        assert!((read - (0.01 + 0.99 / std::f64::consts::E)).abs() < 1e-9);
    }

    #[test]
    fn it_decays_while_idle_and_not_while_something_is_pending() {
        let start = Instant::now();
        let mut peak = Peak::default();
        peak.observe(1.0, start);
        let later = start + 5 * DECAY;
        assert!(peak.read(true, later).unwrap() < 0.01);
        assert_eq!(peak.read(false, later), Some(1.0));
    }
}
