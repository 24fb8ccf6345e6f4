//! The page of `/metrics`: what each part of the server tells of itself, and the process.

mod process;

use crate::health::{Health, Snapshot};
#[cfg(feature = "binary")]
use crate::lines;
use crate::metrics::{Exposition, labels};
use crate::report::parts;

/// The page.
pub(super) fn metrics(now: &Snapshot, health: &Health) -> String {
    let mut page = Exposition::with_capacity(12 * 1024);
    for part in now.parts() {
        part.metrics(&mut page);
    }
    histograms(&mut page, health);
    readiness(&mut page, now);
    dropped_lines(&mut page, health);
    process::process(&mut page, now);
    page.into_text()
}

fn histograms(page: &mut Exposition, health: &Health) {
    for (name, help, histogram) in [
        (
            "request_duration",
            "Request whole to reply handed over.",
            &health.response_times,
        ),
        (
            "service_duration",
            "Handler start to reply handed over.",
            &health.service_times,
        ),
        (
            "queue_wait",
            "Request whole to handler start.",
            &health.queue_waits,
        ),
    ] {
        histogram.write(page, &format!("plimsoll_{name}_seconds"), help);
    }
}

fn readiness(page: &mut Exposition, now: &Snapshot) {
    let help = "Whether a part of readiness is well.";
    page.family("plimsoll_part_up", "gauge", help);
    for part in parts::ready(now) {
        let labels = labels(&[("part", part.name())]);
        page.sample("plimsoll_part_up", &labels, u8::from(part.is_good()));
    }
}

fn dropped_lines(page: &mut Exposition, health: &Health) {
    let access = health.access_log.iter();
    let logs = access.map(|log| ("access", log.dropped()));
    #[cfg(feature = "binary")]
    let logs = std::iter::once(("stderr", lines::stderr::dropped())).chain(logs);
    let dropped: Vec<_> = logs.collect();
    page.counters(
        "plimsoll_dropped_lines_total",
        "Lines not written: nobody took them in time, or the disk is full.",
        "log",
        &dropped,
    );
}

#[cfg(test)]
#[path = "../../tests/kit/process.rs"]
#[allow(dead_code, reason = "the socket tests use the rest")]
mod programs;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{CheckReport, CheckState, PoolStatus};
    use std::process::Command;
    use std::time::Instant;

    #[test]
    fn promtool_has_nothing_to_say_about_stores_and_pools() {
        let Some(program) = programs::find("promtool", "prometheus") else {
            return;
        };
        let health = Health::of_a_new_server(Instant::now());
        let mut now = health.snapshot();
        now.checks = vec![
            CheckReport::sample("db", true, CheckState::Up),
            CheckReport::sample("ca\\che \"x\"\n", false, CheckState::NotYet),
        ];
        now.checks[0].pool = Some(PoolStatus::default());
        let page = metrics(&now, &health);
        assert!(page.contains("\nplimsoll_pool_connections_max{"), "{page}");
        let mut promtool = Command::new(program);
        let (good, said) = programs::run(promtool.args(["check", "metrics"]), &page);
        assert!(good && said.is_empty(), "{said}");
    }
}
