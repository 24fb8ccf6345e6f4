//! The same loads on the Go program of the pattern.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::phase::{Phase, capacity, steady};
use super::stall::{Stall, stall};
use super::subject::Subject;
use super::{Lengths, milliseconds, percent};
use crate::common::{self, Report};

/// The same loads on the Go program, side by side.
pub(super) fn compare(
    program: &Path,
    phases: &[Phase],
    stalls: &[Stall],
    lengths: &Lengths,
    report: &mut Report,
) -> io::Result<()> {
    report.heading(2, "Beside the Go program");
    let own = {
        let subject = Subject::go(program)?;
        capacity(&subject, lengths)?
    };
    report.line(&format!("Its capacity is {own:.1} requests/s."));
    let mut pairs = Vec::new();
    for phase in phases.iter().filter(|phase| !phase.exponential) {
        if lengths.multiples_of_peer.contains(&phase.multiple) {
            let subject = Subject::go(program)?;
            let peer = steady(&subject, phase.multiple, phase.capacity, false, lengths)?;
            pairs.push((phase, peer));
        }
    }
    let mut notes = Vec::new();
    if !common::quick()
        && let Some(ours) = stalls.first()
    {
        let subject = Subject::go(program)?;
        let peer = stall(&subject, ours.phase.capacity, Duration::ZERO, lengths)?;
        let back = peer
            .back_after
            .map_or("did not come back".to_owned(), |after| {
                format!("was back at 0.9 C after {after:.2} s")
            });
        notes.push(format!(
            "After the stall it {back}, with {:.3} C from then on.",
            peer.afterwards
        ));
        pairs.push((&ours.phase, peer.phase));
    }
    let rows: Vec<Vec<String>> = pairs
        .iter()
        .map(|(ours, peer)| {
            vec![
                ours.name.clone(),
                format!("{:.1}", ours.goodput),
                format!("{:.1}", peer.goodput),
                format!("{:.2}", ours.goodput / peer.goodput.max(0.1)),
                milliseconds(ours.accepted_p99),
                milliseconds(peer.accepted_p99),
                percent(ours.gave_up),
                percent(peer.gave_up),
                milliseconds(ours.health_p99),
                milliseconds(peer.health_p99),
            ]
        })
        .collect();
    report.table(
        &[
            "load",
            "goodput/s",
            "Go",
            "ratio",
            "accepted p99",
            "Go",
            "gave up",
            "Go",
            "/health p99",
            "Go",
        ],
        &rows,
    );
    for note in notes {
        report.line(&note);
    }
    Ok(())
}
