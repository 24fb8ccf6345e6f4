//! What the log says of what may come by the thousand: a line when it begins, a line when it has ended, and never two of a
//! kind within ten seconds.

use std::fmt;
use std::time::{Duration, Instant};

use crate::health::Totals;

/// The least time between two lines.
const EVERY: Duration = Duration::from_secs(10);

/// An episode has ended when nothing was counted for this long.
const QUIET: Duration = Duration::from_secs(5);

/// Counts that only grow.
pub(crate) trait Tally: Copy + Default + PartialEq + fmt::Display {
    /// What the log says when an episode begins, before the counts.
    const BEGINS: &str;
    /// The same when it has ended, before how long it took.
    const ENDED: &str;

    fn since(self, before: Self) -> Self;
}

/// Follows counts.
#[derive(Debug, Default)]
pub(crate) struct Episodes<T> {
    seen: T,
    under_way: Option<Episode<T>>,
    /// When the last line was said.
    said: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Episode<T> {
    since: Instant,
    /// When something was last counted.
    last: Instant,
    /// The counts before it.
    before: T,
    /// Its begin was told.
    told: bool,
}

/// A line for the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News<T> {
    Begun(T),
    Ended { counts: T, took: Duration },
}

impl<T: Tally> Episodes<T> {
    /// Takes the counts as they are at `now`; gives what is to be said.
    pub(crate) fn observe(&mut self, counts: T, now: Instant) -> Option<News<T>> {
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

    /// Notes that nothing will be counted any more; gives what is to be said of what was.
    pub(crate) fn end(&mut self) -> Option<News<T>> {
        let episode = self.under_way.take()?;
        Some(News::Ended {
            counts: self.seen.since(episode.before),
            took: episode.last.saturating_duration_since(episode.since),
        })
    }
}

impl<T: Tally> News<T> {
    /// Says it.
    pub(crate) fn log(&self) {
        match self {
            Self::Begun(_) => log::warn!("{self}"),
            Self::Ended { .. } => log::info!("{self}"),
        }
    }
}

impl<T: Tally> fmt::Display for News<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun(counts) => write!(f, "{}: {counts}", T::BEGINS),
            Self::Ended { counts, took } => {
                write!(f, "{} after {} s: {counts}", T::ENDED, took.as_secs())
            }
        }
    }
}

/// Requests refused, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Refused([u64; REASONS.len()]);

/// The words of the metric `plimsoll_shed_total`. A drain is told of by itself.
const REASONS: [&str; 5] = ["queue", "deadline", "fair", "bodies", "gate"];

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
}

impl Tally for Refused {
    const BEGINS: &str = "shedding begins";
    const ENDED: &str = "shedding ended";

    fn since(self, before: Self) -> Self {
        Self(std::array::from_fn(|reason| {
            self.0[reason].saturating_sub(before.0[reason])
        }))
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

/// Replies that could not be made whole. Each is logged at level debug: a service that always fails would else decide how
/// much is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cut(u64);

impl Cut {
    pub(crate) fn of(totals: &Totals) -> Self {
        Self(totals.cut)
    }
}

impl Tally for Cut {
    const BEGINS: &str = "replies are cut in their middle";
    const ENDED: &str = "no replies are cut any more";

    fn since(self, before: Self) -> Self {
        Self(self.0.saturating_sub(before.0))
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at level debug, each with its reason)", self.0)
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
        let mut episodes = Episodes::default();
        let mut sum = 0;
        let seconds = (0..).zip(refused);
        let news = seconds.filter_map(|(second, refused)| {
            sum += refused;
            let now = start + Duration::from_secs(second);
            let news = episodes.observe(counts(sum, 0), now)?;
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
        let mut episodes = Episodes::default();
        assert_eq!(episodes.end(), None);
        let news = episodes.observe(counts(2, 1), now).expect("it begins");
        let line = "shedding begins: 3 requests refused (queue 2, gate 1)";
        assert_eq!(news.to_string(), line);
        assert!(episodes.end().is_some());
        assert_eq!(episodes.end(), None);
    }

    #[test]
    fn cut_replies_are_told_in_numbers() {
        let now = Instant::now();
        let mut episodes = Episodes::default();
        assert_eq!(episodes.observe(Cut(0), now), None);
        let second = |seconds| now + Duration::from_secs(seconds);
        let lines: Vec<String> = (1..30)
            .filter_map(|it| episodes.observe(Cut(1000 * it.min(12)), second(it)))
            .map(|news| news.to_string())
            .collect();
        assert_eq!(
            lines,
            [
                "replies are cut in their middle: 1000 (at level debug, each with its reason)",
                "no replies are cut any more after 11 s: 12000 (at level debug, each with its reason)",
            ]
        );
    }
}
