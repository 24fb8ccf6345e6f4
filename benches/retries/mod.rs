//! What retries do to a service that fails: how many tries a request comes to when all endpoints fail, and how a storm of
//! clients that try again by themselves ends. All of it runs at the same time, since it makes little load. `QUICK=1`
//! shortens it.

mod storm;
mod total;

use std::{io, thread};

use crate::common::peers::which_binary;
use crate::common::{self, Report};

pub(crate) fn run() -> io::Result<()> {
    common::descriptors::raise(10_000);
    let mut report = Report::new("Retries");
    report.line(&common::machine());
    report.line(&which_binary());
    let (rows, storms) = thread::scope(|scope| {
        let rows = scope.spawn(total::measure);
        let storms = storm::measure();
        (joined(rows.join()), storms)
    });
    total::tell(&rows?, &mut report);
    storm::tell(&storms?, &mut report)?;
    report.save("retries")
}

/// What a thread came to; that it panicked is an error too.
fn joined<T>(ended: thread::Result<T>) -> io::Result<T> {
    ended.map_err(|_| io::Error::other("a thread panicked"))
}
