//! An overload in which the service falls ill and gets well again.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::phase::{Phase, count};
use super::subject::Subject;
use super::watch::watched;
use super::{Lengths, SERVICE, SICK};
use crate::common::load::{Arrivals, Outcome, Sample, generate};

/// Goodput is back when it is so for this long, in seconds.
const BACK_FOR: f64 = 0.5;

/// An overload in which the service falls ill and gets well again.
pub(super) struct Stall {
    pub(super) phase: Phase,
    /// Seconds after the end of the stall; `None` when goodput did not come back.
    pub(super) back_after: Option<f64>,
    /// Goodput from then on, as a part of the capacity.
    pub(super) afterwards: f64,
    /// Times that the gate left the closed state, or came back to it.
    pub(super) flips: usize,
    pub(super) trips: u64,
    /// The longest that the machine stood still.
    pub(super) pause: Duration,
    /// What the gate did around the end of the stall, in words.
    history: String,
}

impl Stall {
    pub(super) fn describe(&self) -> String {
        let back = self
            .back_after
            .map_or("did not come back".to_owned(), |after| {
                format!("back at 0.9 C after {after:.2} s")
            });
        format!(
            "{}: {back}, {:.3} C from then on; {} flips, {} trips; the machine stood still for up to {:.1?}. The gate, from \
             the end of the stall: {}.",
            self.phase.name, self.afterwards, self.flips, self.trips, self.pause, self.history
        )
    }
}

pub(super) fn stall(
    subject: &Subject,
    capacity: f64,
    shift: Duration,
    lengths: &Lengths,
) -> io::Result<Stall> {
    let [before, during, after] = lengths.stall;
    let sick = (before, before + during + shift);
    let length = sick.1 + after;
    let start = Instant::now();
    let watched = watched(subject, || ill(subject, 2.0 * capacity, sick, length))?;
    let history: Vec<String> = watched
        .looks
        .iter()
        .filter(|look| look.until >= start + sick.1)
        .map(|look| {
            let since = look.from.saturating_duration_since(start + sick.1);
            format!("{} from {:.2} s", look.state, since.as_secs_f64())
        })
        .collect();
    let window = (sick.0.as_secs_f64(), sick.1.as_secs_f64());
    let end = window.1;
    let goodput = |from: f64, to: f64| {
        let served = count(&watched.result, |sample| {
            sample.outcome == Outcome::Served && (from..to).contains(&sample.done)
        });
        served / (to - from) / capacity
    };
    let last = length.as_secs_f64();
    let back_after = (0..1_000)
        .map(|step| f64::from(step) * 0.01)
        .take_while(|after| end + after + BACK_FOR <= last)
        .find(|after| goodput(end + after, end + after + BACK_FOR) >= 0.9);
    let flips = watched
        .looks
        .windows(2)
        .filter(|pair| (pair[0].state == CLOSED) != (pair[1].state == CLOSED))
        .count();
    let name = format!("2 C, stall of {:.1} s", (during + shift).as_secs_f64());
    Ok(Stall {
        phase: Phase::new(name, 2.0, capacity, window, &watched, &subject.take_jobs()),
        back_after,
        afterwards: goodput(end + back_after.unwrap_or(0.0), last),
        flips,
        trips: subject.trips(),
        pause: watched.pause,
        history: history.join(", "),
    })
}

const CLOSED: &str = "closed";
pub(super) const OPEN: &str = "open";

/// A load at `rate`, with jobs that take long between the times of `sick`.
pub(super) fn ill(
    subject: &Subject,
    rate: f64,
    sick: (Duration, Duration),
    length: Duration,
) -> io::Result<Vec<Sample>> {
    let start = Instant::now();
    thread::scope(|scope| {
        let director = scope.spawn(move || {
            let sleep_until = |time: Duration| {
                thread::sleep((start + time).saturating_duration_since(Instant::now()));
            };
            sleep_until(sick.0);
            subject.set_work(SICK)?;
            sleep_until(sick.1);
            subject.set_work(SERVICE)
        });
        let samples = generate(
            subject.address(),
            Arrivals::Open(rate),
            length,
            length.as_secs(),
            start,
        );
        let directed = director.join().map_err(|_| io::Error::other("a panic"))?;
        directed.and(samples)
    })
}
