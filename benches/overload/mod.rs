//! What the server does under more load than it can carry, on real sockets.
//!
//! The capacity C is measured with a closed loop; then come Poisson arrivals at multiples of C, a stall in the middle
//! of an overload, and the literal gate's cycle. What must hold is judged in the same run. The Go program of the
//! pattern gets the same loads. `QUICK=1` shortens all of it.

mod compare;
mod literal;
mod phase;
mod stall;
mod subject;
mod verdicts;
mod watch;

use std::io;
use std::time::Duration;

use plimsoll::GateMode;

use crate::common::{self, Report, load};
use compare::compare;
use literal::literal;
use phase::{Phase, capacity, steady};
use stall::stall;
use subject::Subject;
use verdicts::Figures;

const WORKERS: usize = 8;
const SERVICE: Duration = Duration::from_millis(20);
const BUDGET: Duration = Duration::from_millis(200);
/// Ten times the mean service time.
const THRESHOLD: Duration = Duration::from_millis(200);
const COOLDOWN: Duration = Duration::from_secs(1);
/// The server's default; an exchange's deadline less this is when it was admitted.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// What a job takes while the service is sick.
const SICK: Duration = Duration::from_secs(2);

/// Leeway of the figures for the sockets and the scheduler, in seconds.
const SLACK: f64 = 0.010;

/// How long the parts of the bench are.
struct Lengths {
    capacity: Duration,
    /// A steady load, of which the first part is not counted.
    load: Duration,
    warm_up: Duration,
    /// Before the stall, the stall, and after it.
    stall: [Duration; 3],
    stalls: u32,
    /// The same for the literal gate.
    literal: [Duration; 3],
    multiples: &'static [f64],
    multiples_of_peer: &'static [f64],
}

fn lengths() -> Lengths {
    let seconds = Duration::from_secs_f64;
    if common::quick() {
        Lengths {
            capacity: seconds(1.3),
            load: seconds(1.4),
            warm_up: seconds(0.4),
            stall: [0.5, 2.5, 2.0].map(seconds),
            stalls: 1,
            literal: [0.5, 1.0, 2.5].map(seconds),
            multiples: &[2.0, 10.0],
            multiples_of_peer: &[10.0],
        }
    } else {
        Lengths {
            capacity: seconds(5.0),
            load: seconds(8.0),
            warm_up: seconds(1.0),
            stall: [2.0, 10.0, 5.0].map(seconds),
            stalls: 2,
            literal: [1.0, 3.0, 6.0].map(seconds),
            multiples: &[0.5, 1.0, 2.0, 10.0, 50.0],
            multiples_of_peer: &[0.5, 1.0, 2.0, 10.0, 50.0],
        }
    }
}

pub(crate) fn run() -> io::Result<()> {
    // Both ends of every connection are in this process.
    common::descriptors::raise(10_000);
    let lengths = lengths();
    let mut report = Report::new("Overload");
    report.line(&common::machine());
    report.line(&format!(
        "{WORKERS} workers, handler {SERVICE:?}, queue budget {BUDGET:?}, threshold {THRESHOLD:?}, cooldown \
         {COOLDOWN:?}. Poisson arrivals; latency from when a request was due; clients give up after {:?}.",
        load::PATIENCE
    ));
    let mut figures = Figures::default();

    let subject = Subject::plimsoll(GateMode::Guarded)?;
    let capacity = capacity(&subject, &lengths)?;
    report.line(&format!("Capacity C = {capacity:.1} requests/s."));
    let mut phases = Vec::new();
    for &multiple in lengths.multiples {
        phases.push(steady(&subject, multiple, capacity, false, &lengths)?);
    }
    phases.push(steady(&subject, 0.5, capacity, true, &lengths)?);
    figures.judge_steady(&phases, subject.trips());
    drop(subject);
    let mut rows: Vec<_> = phases.iter().map(Phase::row).collect();

    let mut stalls = Vec::new();
    for run in 0..lengths.stalls {
        let subject = Subject::plimsoll(GateMode::Guarded)?;
        // Not in step with the cooldown, so that the end of the stall meets every state of the gate.
        let shift = Duration::from_millis(370) * run;
        stalls.push(stall(&subject, capacity, shift, &lengths)?);
    }
    figures.judge_stalls(&stalls);
    rows.extend(stalls.iter().map(|stall| stall.phase.row()));
    report.heading(2, "plimsoll");
    report.table(&Phase::HEADS, &rows);
    for stall in &stalls {
        report.line(&stall.describe());
    }
    let subject = Subject::plimsoll(GateMode::Literal)?;
    figures.judge_literal(&literal(&subject, capacity, &lengths)?);
    drop(subject);

    report.heading(2, "What it must show");
    report.table(&["figure", "verdict", "found"], &figures.rows);
    for phase in &phases {
        let found = format!(
            "goodput {:.2} C, p99 {}",
            phase.goodput / phase.capacity,
            milliseconds(phase.accepted_p99)
        );
        report.figure(&format!("overload: offered {}", phase.name), &found);
    }
    report.figure("overload: what it must show", &figures.tally());

    match common::build_go_peer() {
        Ok(program) => compare(&program, &phases, &stalls, &lengths, &mut report)?,
        Err(why) => report.line(&format!("No Go program beside it: {why}.")),
    }
    report.save("overload")
}

fn milliseconds(seconds: f64) -> String {
    if seconds.is_nan() {
        "-".to_owned()
    } else if seconds < 0.01 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{:.1} ms", seconds * 1e3)
    }
}

fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}
