//! The cycle of the literal gate.

use std::io;
use std::time::Duration;

use super::Lengths;
use super::stall::{OPEN, ill};
use super::subject::Subject;
use super::watch::{Look, watched};

/// What the literal gate did.
pub(super) struct Literal {
    pub(super) trips: u64,
    pub(super) resets: u64,
    pub(super) epoch: u64,
    /// Seconds for which it was seen open, the shortest and the longest time.
    pub(super) open: (f64, f64),
    pub(super) windows: usize,
    /// Jobs that were admitted in these times.
    pub(super) admitted: usize,
}

pub(super) fn literal(subject: &Subject, capacity: f64, lengths: &Lengths) -> io::Result<Literal> {
    /// The event loop takes the time once a turn, so a request that was admitted just after the reset may bear the
    /// time of just before it.
    const TURN: Duration = Duration::from_millis(20);
    let [before, during, after] = lengths.literal;
    let sick = (before, before + during);
    let watched = watched(subject, || ill(subject, capacity, sick, sick.1 + after))?;
    let open: Vec<&Look> = watched
        .looks
        .iter()
        .filter(|look| look.state == OPEN)
        .collect();
    let lasted = open
        .iter()
        .map(|look| (look.until - look.from).as_secs_f64());
    let jobs = subject.take_jobs();
    let admitted = jobs.iter().filter(|job| {
        open.iter()
            .any(|look| look.from <= job.admitted && job.admitted + TURN < look.until)
    });
    let admitted = admitted.count();
    let Subject::Plimsoll { server, .. } = subject else {
        return Err(io::Error::other("only the server has this mode"));
    };
    let snapshot = server.health().snapshot();
    Ok(Literal {
        trips: snapshot.trips,
        resets: snapshot.resets,
        epoch: snapshot.epoch,
        open: (
            lasted.clone().fold(f64::INFINITY, f64::min),
            lasted.fold(0.0, f64::max),
        ),
        windows: open.len(),
        admitted,
    })
}
