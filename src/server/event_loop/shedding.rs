//! What the log says of shedding: a line when it begins, a line when it has ended, and never two within ten seconds.

use std::fmt;
use std::time::{Duration, Instant};

use crate::health::Totals;

/// The least time between two lines.
const EVERY: Duration = Duration::from_secs(10);

/// Shedding has ended when no request was refused for this long.
const QUIET: Duration = Duration::from_secs(5);

/// Requests refused, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Refused([u64; REASONS.len()]);

/// The words of the metric `plimsoll_shed_total`. A drain is told of by itself.
const REASONS: [&str; 5] = ["queue", "deadline", "fair", "bodies", "gate"];

/// Follows the counts of refused requests.
#[derive(Debug, Default)]
pub(crate) struct Shedding {
    seen: Refused,
    under_way: Option<Episode>,
    /// When the last line was said.
    said: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Episode {
    since: Instant,
    /// When a refused request was last seen.
    last: Instant,
    /// The counts before it.
    before: Refused,
    /// Its begin was told.
    told: bool,
}

/// A line for the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    Begun(Refused),
    Ended { refused: Refused, took: Duration },
}

impl Shedding {
    /// Takes the counts as they are at `now`; gives what is to be said.
    pub(crate) fn observe(&mut self, counts: Refused, now: Instant) -> Option<News> {
        if counts != self.seen {
            let before = std::mem::replace(&mut self.seen, counts);
            let episode = self.under_way.get_or_insert(Episode {
                since: now,
                last: now,
                before,
                told: false,
            });
            episode.last = now;
        }
        let episode = self.under_way.as_mut()?;
        let age = |at: Instant| now.saturating_duration_since(at);
        if self.said.is_some_and(|at| age(at) < EVERY) {
            return None;
        }
        let ended = age(episode.last) >= QUIET;
        if episode.told && !ended {
            return None;
        }
        self.said = Some(now);
        episode.told = true;
        if ended {
            return self.end();
        }
        Some(News::Begun(self.seen.since(episode.before)))
    }

    /// Notes that no request will be refused any more; gives what is to be said of those that were.
    pub(crate) fn end(&mut self) -> Option<News> {
        let episode = self.under_way.take()?;
        Some(News::Ended {
            refused: self.seen.since(episode.before),
            took: episode.last.saturating_duration_since(episode.since),
        })
    }
}

impl Refused {
    pub(crate) fn of(totals: &Totals) -> Self {
        Self([
            totals.shed_queue,
            totals.shed_deadline,
            totals.shed_fair,
            totals.shed_bodies,
            totals.shed_gate,
        ])
    }

    fn since(self, before: Self) -> Self {
        Self(std::array::from_fn(|reason| {
            self.0[reason].saturating_sub(before.0[reason])
        }))
    }
}

impl News {
    /// Says it.
    pub(crate) fn log(&self) {
        match self {
            Self::Begun(_) => log::warn!("{self}"),
            Self::Ended { .. } => log::info!("{self}"),
        }
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun(refused) => write!(f, "shedding begins: {refused}"),
            Self::Ended { refused, took } => {
                write!(f, "shedding ended after {} s: {refused}", took.as_secs())
            }
        }
    }
}

/// `7 requests refused (queue 5, gate 2)`.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum: u64 = self.0.iter().sum();
        write!(f, "{sum} requests refused")?;
        let named = REASONS.iter().zip(self.0).filter(|(_, count)| *count > 0);
        for (number, (reason, count)) in named.enumerate() {
            let before = if number == 0 { " (" } else { ", " };
            write!(f, "{before}{reason} {count}")?;
        }
        f.write_str(if sum > 0 { ")" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(queue: u64, gate: u64) -> Refused {
        Refused([queue, 0, 0, 0, gate])
    }

    /// What a look a second says, with the second, when so many requests are refused by the queue in each.
    fn said(refused: impl IntoIterator<Item = u64>) -> Vec<(u64, String)> {
        let start = Instant::now();
        let mut shedding = Shedding::default();
        let mut sum = 0;
        let seconds = (0..).zip(refused);
        let news = seconds.filter_map(|(second, refused)| {
            sum += refused;
            let now = start + Duration::from_secs(second);
            let news = shedding.observe(counts(sum, 0), now)?;
            Some((second, news.to_string()))
        });
        news.collect()
    }

    #[test]
    fn shedding_is_told_when_it_begins_and_when_it_has_ended() {
        let refused = [0, 5, 7, 0, 8].into_iter().chain([0; 30]);
        let begun = "shedding begins: 5 requests refused (queue 5)".to_owned();
        let ended = "shedding ended after 3 s: 20 requests refused (queue 20)".to_owned();
        assert_eq!(said(refused), [(1, begun), (11, ended)]);
    }

    #[test]
    fn there_is_never_more_than_a_line_in_ten_seconds() {
        let flapping = (0..600).map(|second| u64::from(second % 13 == 0));
        let lines = said(flapping);
        assert!(lines.len() > 2, "{lines:?}");
        for pair in lines.windows(2) {
            assert!(pair[1].0 - pair[0].0 >= 10, "{pair:?}");
        }
    }

    #[test]
    fn a_burst_that_has_ended_before_it_could_be_told_is_told_once() {
        let seconds = [3].into_iter().chain([0; 9]).chain([0, 2]).chain([0; 40]);
        let lines = said(seconds);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[1].0, 10);
        assert!(
            lines[2].1.starts_with("shedding ended after 0 s: 2 "),
            "{lines:?}"
        );
    }

    #[test]
    fn every_reason_is_named_and_the_end_of_the_server_is_an_end() {
        let now = Instant::now();
        let mut shedding = Shedding::default();
        assert_eq!(shedding.end(), None);
        let news = shedding.observe(counts(2, 1), now).expect("it begins");
        let line = "shedding begins: 3 requests refused (queue 2, gate 1)";
        assert_eq!(news.to_string(), line);
        assert!(shedding.end().is_some());
        assert_eq!(shedding.end(), None);
    }
}
