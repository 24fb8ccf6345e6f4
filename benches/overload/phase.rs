//! A steady load, and what became of it.

use std::io;
use std::thread;
use std::time::Instant;

use super::subject::{Job, Subject};
use super::watch::{Watched, watched};
use super::{BUDGET, Lengths, SERVICE, SLACK, WORKERS, milliseconds, percent};
use crate::common::load::{Arrivals, Outcome, Sample, generate};
use crate::common::percentile;

pub(super) fn capacity(subject: &Subject, lengths: &Lengths) -> io::Result<f64> {
    // Enough that no worker ever waits for a client, and few enough that none is refused.
    let arrivals = Arrivals::Closed(4 * WORKERS);
    let warm_up = lengths.warm_up.as_secs_f64();
    let length = lengths.capacity.as_secs_f64();
    let samples = generate(
        subject.address(),
        arrivals,
        lengths.capacity,
        0,
        Instant::now(),
    )?;
    let served = count(&samples, |sample| {
        sample.outcome == Outcome::Served && (warm_up..length).contains(&sample.done)
    });
    drop(subject.take_jobs());
    Ok(served / (length - warm_up))
}

pub(super) fn count(samples: &[Sample], which: impl Fn(&Sample) -> bool) -> f64 {
    samples.iter().filter(|sample| which(sample)).count() as f64
}

/// A load and what became of it. Times in seconds, rates in requests per second.
pub(super) struct Phase {
    pub(super) name: String,
    pub(super) multiple: f64,
    pub(super) exponential: bool,
    pub(super) capacity: f64,
    pub(super) offered: f64,
    /// Served before the client left.
    pub(super) goodput: f64,
    /// Part of what was offered.
    pub(super) shed: f64,
    pub(super) accepted_p99: f64,
    pub(super) refused_p50: f64,
    pub(super) refused_p99: f64,
    pub(super) gave_up: f64,
    failed: f64,
    pub(super) health_p99: f64,
    pub(super) service_p99: f64,
    /// How late the generator was, or no connection was free.
    late_p99: f64,
}

impl Phase {
    pub(super) const HEADS: [&'static str; 11] = [
        "load",
        "offered/s",
        "goodput/s",
        "of C",
        "shed",
        "accepted p99",
        "refused p50",
        "refused p99",
        "gave up",
        "/health p99",
        "sent late p99",
    ];

    /// Of the requests due in `window`, seconds since the start.
    pub(super) fn new(
        name: String,
        multiple: f64,
        capacity: f64,
        window: (f64, f64),
        watched: &Watched<Vec<Sample>>,
        jobs: &[Job],
    ) -> Self {
        let length = window.1 - window.0;
        let within = |time: f64| (window.0..window.1).contains(&time);
        let samples = &watched.result;
        let due: Vec<Sample> = samples
            .iter()
            .copied()
            .filter(|sample| within(sample.due))
            .collect();
        let offered = due.len() as f64;
        let of = |outcome| count(&due, |sample| sample.outcome == outcome);
        let latencies = |outcome| -> Vec<f64> {
            let which = due.iter().filter(|sample| sample.outcome == outcome);
            which.map(|sample| sample.done - sample.due).collect()
        };
        let served = count(samples, |sample| {
            sample.outcome == Outcome::Served && within(sample.done)
        });
        let part = |number: f64| number / offered.max(1.0);
        Self {
            name,
            multiple,
            exponential: false,
            capacity,
            offered: offered / length,
            goodput: served / length,
            shed: part(of(Outcome::Refused)),
            accepted_p99: percentile(latencies(Outcome::Served), 0.99),
            refused_p50: percentile(latencies(Outcome::Refused), 0.5),
            refused_p99: percentile(latencies(Outcome::Refused), 0.99),
            gave_up: part(of(Outcome::GaveUp)),
            failed: of(Outcome::Failed),
            health_p99: percentile(watched.health.clone(), 0.99),
            service_p99: percentile(
                jobs.iter().map(|job| job.took.as_secs_f64()).collect(),
                0.99,
            ),
            late_p99: percentile(
                due.iter().map(|sample| sample.sent - sample.due).collect(),
                0.99,
            ),
        }
    }

    /// Says so when the machine kept the generator itself waiting: its latencies are not the server's alone then.
    pub(super) fn disturbance(&self) -> String {
        if self.late_p99 > SLACK {
            format!(" (sent late p99 {})", milliseconds(self.late_p99))
        } else {
            String::new()
        }
    }

    pub(super) fn row(&self) -> Vec<String> {
        let mut name = self.name.clone();
        if self.failed > 0.0 {
            name = format!("{name} ({} failed)", self.failed);
        }
        vec![
            name,
            format!("{:.0}", self.offered),
            format!("{:.1}", self.goodput),
            format!("{:.3}", self.goodput / self.capacity),
            percent(self.shed),
            milliseconds(self.accepted_p99),
            milliseconds(self.refused_p50),
            milliseconds(self.refused_p99),
            percent(self.gave_up),
            milliseconds(self.health_p99),
            milliseconds(self.late_p99),
        ]
    }
}

pub(super) fn steady(
    subject: &Subject,
    multiple: f64,
    capacity: f64,
    exponential: bool,
    lengths: &Lengths,
) -> io::Result<Phase> {
    subject.set_exponential(exponential);
    drop(subject.take_jobs());
    let rate = multiple * capacity;
    let watched = watched(subject, || {
        let now = Instant::now();
        generate(
            subject.address(),
            Arrivals::Open(rate),
            lengths.load,
            multiple.to_bits(),
            now,
        )
    })?;
    // What was admitted last runs out, so that the next load meets a server at rest.
    thread::sleep(BUDGET + 5 * SERVICE);
    let jobs = subject.take_jobs();
    let name = if exponential {
        format!("{multiple} C, exponential")
    } else {
        format!("{multiple} C")
    };
    let window = (lengths.warm_up.as_secs_f64(), lengths.load.as_secs_f64());
    let mut phase = Phase::new(name, multiple, capacity, window, &watched, &jobs);
    phase.exponential = exponential;
    Ok(phase)
}
